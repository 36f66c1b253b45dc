"""The data sets, with PyTorch's DataLoader if PyTorch is here."""

import multiprocessing
import pickle
import subprocess

import numpy as np
import pytest

import mnist_gan
from conftest import MODELS, RUNTIME
from mnist_gan import Digits, DigitStream


def test_items_are_the_images_and_labels_of_their_seeds():
    data = Digits(100, 50)
    images, labels = mnist_gan.generate(range(100, 150)), mnist_gan.labels(range(100, 150))
    assert len(data) == 50
    for i, (image, label) in enumerate(data):
        assert np.array_equal(image, images[i]) and label == labels[i] and isinstance(label, int)
    assert np.array_equal(data[-1][0], images[-1]) and data[np.int64(3)][1] == labels[3]
    for i in (50, -51):
        with pytest.raises(IndexError, match=f"index: below 50 expected, {i} found"):
            data[i]


def test_digits_transform_precision_and_generator_are_used():
    images = mnist_gan.generate(range(10), range(10), precision="int8")
    data = Digits(0, 10, range(10), lambda image: image / 255, precision="int8")
    assert all(np.array_equal(data[i][0], images[i] / 255) and data[i][1] == i for i in range(10))
    assert [label for _, label in Digits(0, 10, 7)] == [7] * 10
    seed = mnist_gan.Generator(MODELS / "seed.onnx")
    image, label = Digits(5, 2, generator=seed)[1]
    assert np.array_equal(image, seed.generate(6)) and label == -1


def test_data_sets_have_the_names_of_their_classes(letters):
    generator = mnist_gan.Generator(letters)
    for data in (Digits(0, 100, generator=generator), DigitStream(count=100, generator=generator)):
        assert data.classes == generator.class_names and data.class_to_idx["Z"] == 25 and len(data.class_to_idx) == 26
        assert [label for _, label in data] == generator.labels(range(100)).tolist()
    for data in (Digits(0, 3, generator=generator, classes="Q"), DigitStream(count=3, generator=generator, classes="Q")):
        images, labels = zip(*data)
        assert labels == (16, 16, 16) and np.array_equal(images, generator.generate(range(3), classes=16))
    assert [label for _, label in Digits(0, 3, generator=generator, classes=["C", "A", "Z"])] == [2, 0, 25]
    unconditional = mnist_gan.Generator(MODELS / "seed.onnx")
    assert Digits(0, 1).classes == list("0123456789") and Digits(0, 1, generator=unconditional).classes == []


def test_bad_data_sets_are_refused_when_they_are_made():
    with pytest.raises(ValueError, match="digits: one per seed expected, 3 for 2 seeds found"):
        Digits(0, 2, [1, 2, 3])
    with pytest.raises(ValueError, match="digits: 0 to 9 expected, 10 found"):
        Digits(0, 2, 10)
    with pytest.raises(ValueError, match="count: 0 or more expected, -1 found"):
        Digits(0, -1)
    with pytest.raises(OverflowError, match="seeds: 0 to 18446744073709551615 expected"):
        Digits(2**64 - 1, 2)
    with pytest.raises(OverflowError):
        DigitStream(2**64 - 1)
    with pytest.raises(ValueError, match="epoch: 0 or more expected, -1 found"):
        DigitStream().set_epoch(-1)
    assert np.array_equal(Digits(2**64 - 1, 1)[0][0], mnist_gan.generate(2**64 - 1))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_draw_the_same_items(method):
    data = Digits(0, 1000, transform=bytes)
    mnist_gan.generate(range(2000))  # on threads, before the fork
    with multiprocessing.get_context(method).Pool(2) as workers:
        drawn = workers.map(data.__getitem__, range(1000), chunksize=10)
    images, labels = mnist_gan.generate(range(1000)), mnist_gan.labels(range(1000))
    assert drawn == [(bytes(image), label) for image, label in zip(images, labels)]


def test_a_stream_has_other_seeds_in_each_epoch():
    stream = DigitStream(5, 300, precision="int8")
    for epoch in range(3):
        drawn = np.array([image for image, label in stream])
        first = 5 + epoch * 2**40
        assert np.array_equal(drawn, mnist_gan.generate(range(first, first + 300), precision="int8"))
    stream.set_epoch(1)
    copy = pickle.loads(pickle.dumps(stream))
    assert [label for _, label in copy] == mnist_gan.labels(range(5 + 2**40, 305 + 2**40)).tolist()
    endless = iter(DigitStream(digits=3))
    assert all(next(endless)[1] == 3 for _ in range(1000))


class TestWithPyTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    @pytest.mark.parametrize("workers", [0, 2, 4])
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_a_data_loader_gives_each_image_once(self, workers, method):
        if workers == 0 and method == "spawn":
            return
        context = method if workers else None
        loader = self.torch.utils.data.DataLoader(
            Digits(7, 1000), batch_size=64, num_workers=workers, multiprocessing_context=context
        )
        batches = list(loader)
        assert batches[0][0].dtype == self.torch.uint8 and batches[0][0].shape == (64, 28, 28)
        assert np.array_equal(self.torch.cat([images for images, _ in batches]), mnist_gan.generate(range(7, 1007)))
        assert np.array_equal(self.torch.cat([labels for _, labels in batches]), mnist_gan.labels(range(7, 1007)))

    @pytest.mark.parametrize("workers", [0, 2, 4])
    def test_a_shuffled_data_loader_gives_one_and_the_same_set(self, workers):
        loader = self.torch.utils.data.DataLoader(Digits(7, 1000), batch_size=64, num_workers=workers, shuffle=True)
        images = self.torch.cat([images for images, _ in loader]).numpy()
        expected = mnist_gan.generate(range(7, 1007))
        assert sorted(map(bytes, images)) == sorted(map(bytes, expected)) and not np.array_equal(images, expected)

    @pytest.mark.parametrize("workers", [0, 2, 4])
    @pytest.mark.parametrize("persistent", [False, True])
    def test_workers_share_the_images_of_a_streams_epoch(self, workers, persistent):
        stream = DigitStream(7, 1000)
        assert isinstance(stream, self.torch.utils.data.IterableDataset)
        loader = self.torch.utils.data.DataLoader(
            stream, batch_size=64, num_workers=workers, persistent_workers=persistent and workers > 0
        )
        for epoch in range(2):
            stream.set_epoch(epoch)
            images = self.torch.cat([images for images, _ in loader]).numpy()
            expected = mnist_gan.generate(range(7 + epoch * 2**40, 1007 + epoch * 2**40))
            assert sorted(map(bytes, images)) == sorted(map(bytes, expected))


def test_torchvision_reads_a_shard(tmp_path):
    mnist = pytest.importorskip("torchvision.datasets.mnist")
    subprocess.check_call([RUNTIME, "shards", tmp_path / "set", "--seed", "7", "--count", "1000"])
    shard = tmp_path / "set" / "data" / "train-00000-of-00001"
    images = mnist.read_image_file(f"{shard}-images-idx3-ubyte")
    labels = mnist.read_label_file(f"{shard}-labels-idx1-ubyte")
    assert np.array_equal(images, mnist_gan.generate(range(7, 1007)))
    assert np.array_equal(labels, mnist_gan.labels(range(7, 1007)))
