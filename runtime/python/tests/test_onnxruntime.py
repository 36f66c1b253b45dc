"""Images beside onnxruntime's, of a file that PyTorch exported."""

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
