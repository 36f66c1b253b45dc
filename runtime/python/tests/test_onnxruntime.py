"""Images beside onnxruntime's, of a file that PyTorch exported."""

import pickle

import numpy as np
import pytest

import mnist_gan
from conftest import MODELS, ROOT

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("path", [ROOT / "tests" / "golden" / "pytorch.onnx", MODELS / "g.onnx"])
def test_images_are_within_one_grey_level_of_onnxruntimes(path):
    generator = mnist_gan.Generator(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: generator.latent(range(2000))})
    expected = np.rint(127.5 * output.reshape(-1, 28, 28) + 127.5)
    difference = np.abs(generator.generate(range(2000)) - expected)
    print(f"{path.name}: {np.count_nonzero(difference)} of {difference.size} pixels differ, by {difference.max():.0f} at most")
    assert difference.max() <= 1


def test_weights_are_read_from_a_data_file_and_classes_stand_in_for_lost_metadata(tmp_path):
    onnx = pytest.importorskip("onnx")
    model, path = onnx.load(MODELS / "g.onnx"), tmp_path / "g.onnx"
    del model.metadata_props[:]
    onnx.save(model, str(path), save_as_external_data=True, location="g.onnx.data", size_threshold=0)
    with pytest.warns(UserWarning, match="pass classes=10 or classes=0"):
        assert mnist_gan.Generator(path).classes == 0
    generator = mnist_gan.Generator(path, classes=10)
    for same in generator, pickle.loads(pickle.dumps(generator)):
        np.testing.assert_array_equal(same.generate(range(100)), mnist_gan.generate(range(100)))
    for classes in (-1, 1, 65):
        with pytest.raises(ValueError, match=f"classes: 0 or 2 to 64 expected, {classes} found"):
            mnist_gan.Generator(path, classes=classes)
    for classes in ("10", 10.5):
        with pytest.raises(TypeError, match=f"classes: an int expected, {type(classes).__name__} found"):
            mnist_gan.Generator(path, classes=classes)
    assert mnist_gan.Generator(path, classes=np.int64(10)).classes == 10
