"""make_data_sets.py OUT [--torchvision]: small data sets in every format that `trainer --data` reads, and the arrays that are right.

For each case it writes CASE.json (path, classes, numbers of images, how far a pixel may be off) and CASE.bin (training images and
labels, test images and labels, one byte each). Pillow makes the pixels of image files. With
--torchvision, its own readers must give the same arrays.
"""

import gzip
import json
import string
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image

if "--torchvision" in sys.argv:
    import torchvision.datasets as tv
    from torchvision import transforms
else:
    tv = None

out = Path(sys.argv[1])
rng = np.random.default_rng(0)
CODES = {"uint8": 8, "int32": 0xC}


def images(n):
    """Images (n, 28, 28) that differ from their transposes."""
    return rng.integers(0, 256, (n, 28, 28), np.uint8)


def labels(n, classes):
    """Labels (n,) in which each class occurs."""
    return rng.permutation(np.arange(n) % classes).astype(np.uint8)


def idx(path, array, gz=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">BBBB", 0, 0, CODES[array.dtype.name], array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(content) if gz else content)


def case(name, path, classes, train, test, tolerance=0):
    """The arrays that are right. `train` and `test` are images and labels."""
    parts = [np.asarray(part, np.uint8) for part in (*train, *test)]
    about = {"path": str(path), "classes": classes, "train": len(parts[1]), "test": len(parts[3]), "tolerance": tolerance}
    (out / f"{name}.json").write_text(json.dumps(about))
    (out / f"{name}.bin").write_bytes(b"".join(part.tobytes() for part in parts))


def same(data, part, shift=0, transpose=False):
    """Asserts that a data set of torchvision holds these images and labels."""
    x, y = part
    found = data.data.numpy()
    targets = data.targets.numpy()
    targets = targets[:, 0] if targets.ndim == 2 else targets
    assert np.array_equal(found.transpose(0, 2, 1) if transpose else found, x) and np.array_equal(targets - shift, y), data


def numbers(n):
    return [str(i) for i in range(n)]


# MNIST as torchvision keeps it.
train, test = (images(30), labels(30, 10)), (images(12), labels(12, 10))
raw = out / "mnist" / "MNIST" / "raw"
for prefix, (x, y) in (("train", train), ("t10k", test)):
    idx(raw / f"{prefix}-images-idx3-ubyte", x)
    idx(raw / f"{prefix}-labels-idx1-ubyte", y)
case("mnist", out / "mnist", numbers(10), train, test)
if tv:
    same(tv.MNIST(out / "mnist", train=True), train)
    same(tv.MNIST(out / "mnist", train=False), test)

# EMNIST: several sets in a folder, stored transposed; the letters' labels begin at 1.
digits, upper, lower = string.digits, string.ascii_uppercase, string.ascii_lowercase
sets = {"letters": (lower, 1), "balanced": (digits + upper + "abdefghnqrt", 0), "digits": (digits, 0), "mnist": (digits, 0),
        "byclass": (digits + upper + lower, 0)}
root = out / "emnist"
for name, (classes, shift) in sets.items():
    n = len(classes)
    train, test = (images(2 * n), labels(2 * n, n)), (images(n), labels(n, n))
    for split, (x, y) in (("train", train), ("test", test)):
        for gz in (False, True):
            suffix = ".gz" if gz else ""
            folder = root / "gzip" if gz else root / "EMNIST" / "raw"
            idx(folder / f"emnist-{name}-{split}-images-idx3-ubyte{suffix}", x.transpose(0, 2, 1), gz)
            idx(folder / f"emnist-{name}-{split}-labels-idx1-ubyte{suffix}", y + np.uint8(shift), gz)
    case(f"emnist-{name}", root / f"emnist-{name}", list(classes), train, test)
    case(f"emnist-{name}-gz", root / "gzip" / f"emnist-{name}", list(classes), train, test)
    if tv:
        for split, part in ((True, train), (False, test)):
            data = tv.EMNIST(root, split=name, train=split)
            same(data, part, shift, transpose=True)
            assert data.classes[shift:] == list(classes), data.classes
(root / "gzip" / "._emnist-letters-train-images-idx3-ubyte.gz").write_bytes(b"\0\5\x16\7Mac OS X")

# QMNIST: labels are the first of eight columns.
train, test = (images(30), labels(30, 10)), (images(12), labels(12, 10))
raw = out / "qmnist" / "QMNIST" / "raw"
for split, (x, y) in (("train", train), ("test", test)):
    table = rng.integers(0, 4000, (len(y), 8), np.int32)
    table[:, 0] = y
    for gz in (False, True):
        suffix = ".gz" if gz else ""
        idx(raw / f"qmnist-{split}-images-idx3-ubyte{suffix}", x, gz)
        idx(raw / f"qmnist-{split}-labels-idx2-int{suffix}", table, gz)
case("qmnist", out / "qmnist", numbers(10), train, test)
if tv:
    same(tv.QMNIST(out / "qmnist", what="train", compat=True), train)
    same(tv.QMNIST(out / "qmnist", what="test", compat=True), test)

# Keras: labels of any integer type.
for dtype in (np.uint8, np.int64):
    train, test = (images(30), labels(30, 10)), (images(12), labels(12, 10))
    path = out / f"keras-{dtype.__name__}.npz"
    np.savez(path, x_train=train[0], y_train=train[1].astype(dtype), x_test=test[0], y_test=test[1].astype(dtype))
    case(path.stem, path, numbers(10), train, test)


def pil(array):
    """An image (height, width) or (height, width, 3) as 28 × 28 grey pixels."""
    return np.asarray(Image.fromarray(array).convert("L").resize((28, 28), Image.BILINEAR))


# MedMNIST: labels (N, 1), colours, other sizes, and validation images that are not used.
for name, shape in (("grey", (28, 28)), ("colour", (28, 28, 3)), ("large", (64, 64)), ("large-colour", (128, 128, 3))):
    arrays, parts = {}, []
    for split, n in (("train", 12), ("val", 5), ("test", 8)):
        x, y = rng.integers(0, 256, (n, *shape), np.uint8), labels(n, 4)
        arrays |= {f"{split}_images": x, f"{split}_labels": y[:, None]}
        parts.append((np.stack([pil(image) for image in x]), y))
    folder = out / f"medmnist-{name}"
    folder.mkdir()
    np.savez_compressed(folder / "bloodmnist.npz", **arrays)
    case(f"medmnist-{name}", folder, numbers(4), parts[0], parts[2])

# Kuzushiji-49: four files with an array each.
train, test = (images(98), labels(98, 49)), (images(49), labels(49, 49))
folder = out / "k49"
folder.mkdir()
for split, (x, y) in (("train", train), ("test", test)):
    np.savez_compressed(folder / f"k49-{split}-imgs.npz", x)
    np.savez_compressed(folder / f"k49-{split}-labels.npz", y)
case("k49", folder, numbers(49), train, test)

# Folders of image files, of any mode and size.
modes = ("L", "RGB", "RGBA", "LA", "P", "1", "I;16")
sizes = ((28, 28), (64, 64), (17, 40), (300, 28), (1, 1), (28, 100), (33, 211), (500, 391))
suffixes = {"png": {}, "jpg": {"quality": 90}, "jpeg": {"quality": 75, "progressive": True}}


def smooth(width, height, mode):
    """A smooth picture: a JPEG of noise differs between decoders."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    phase = rng.uniform(0, 6, 4)
    rgba = np.stack([127.5 + 127.5 * np.sin(x + p) * np.cos(y + 2 * p) for p in phase], -1).astype(np.uint8)
    image = Image.fromarray(rgba, "RGBA") if mode == "RGBA" else Image.fromarray(rgba[..., :3])
    if mode == "I;16":
        return Image.fromarray(rgba[..., 0].astype(np.uint16) * 257)
    if mode == "LA":
        return Image.fromarray(rgba, "RGBA").convert("LA")
    return image.convert(mode)


def grey(path):
    image = Image.open(path)
    if image.mode.startswith("I"):  # Pillow cuts 16 bits off at 255; the reader takes the high byte
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    return np.asarray(image.convert("L").resize((28, 28), Image.BILINEAR))


for kind, tolerance in (("png", 0), ("jpg", 2), ("jpeg", 2)):
    folder = out / f"folders-{kind}"
    parts = []
    for split in ("train", "test"):
        xs, ys = [], []
        for label, name in enumerate(("B b", "a", "ä")):
            below = folder / split / name / "deeper"
            below.mkdir(parents=True)
            for i, size in enumerate(sizes):
                mode = modes[(i + label) % len(modes)] if kind == "png" else modes[(i + label) % 2]
                path = (below if i % 2 else below.parent) / f"{i}.{kind}"
                smooth(*size, mode).save(path, **suffixes[kind])
            (below.parent / "notes.txt").write_text("no image")
            for path in sorted(below.parent.rglob(f"*.{kind}"), key=lambda p: str(p)):
                xs.append(grey(path))
                ys.append(label)
        parts.append((np.stack(xs), np.array(ys)))
        if tv:
            resize = transforms.Compose([transforms.Resize((28, 28)), transforms.Grayscale()])
            data = tv.ImageFolder(folder / split, resize)
            # torchvision lists a folder's own files first.
            theirs = sorted((data.samples[i][0], np.asarray(data[i][0]), data[i][1]) for i in range(len(data)))
            assert [y for _, _, y in theirs] == ys
            for (path, x, _), ours in zip(theirs, xs):  # torchvision resizes in colour; it has no case for 16 bits
                assert np.abs(x.astype(int) - ours).max() <= 1 or Image.open(path).mode.startswith("I"), path
    case(f"folders-{kind}", folder, ["B b", "a", "ä"], *parts, tolerance)

# Files that are refused, and words of the error.
bad = out / "bad"
bad.mkdir()
x, y = images(4), labels(4, 2)
keras = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}


def refused(name, expected, **changes):
    path = bad / f"{name}.npz"
    arrays = {key: array for key, array in (keras | changes).items() if array is not None}
    np.savez(path, **arrays)
    errors.append([str(path), expected])
    return path


errors = []
refused("no-labels", "y_train: this array expected, only x_train, x_test, y_test found", y_train=None)
refused("other-arrays", "arrays x_train, y_train, x_test, y_test or train_images, … expected, a found", a=x,
        **dict.fromkeys(keras))
refused("floats", "x_train: unsigned bytes (|u1) expected, <f8 found", x_train=x / 255)
refused("objects", "y_train: numbers expected, |O found", y_train=y.astype(object))
refused("many-labels", "y_test: labels (N,) or (N, 1) expected, [4, 14] found", y_test=np.zeros((4, 14), np.uint8))
refused("few-labels", "y_test: a label for each of 4 images expected, 3 found", y_test=y[:3])
refused("label-64", "y_train: labels from 0 to 63 expected, 64 found at 0", y_train=np.array([64, 0, 1, 1]))
refused("negative", "y_train: labels from 0 to 63 expected, -1 found at 2", y_train=np.array([0, 1, -1, 1], np.int16))
refused("gap", "y_train: training images of each class from 0 to 2 expected, none of class 1 found", y_train=y * 2)
refused("test-label", "y_test: labels from 0 to 1 expected, as the training images have, 2 found at", y_test=y * 2)
refused("fortran", "a header with descr, fortran_order False and shape expected", x_train=np.asfortranarray(x))
path = refused("cut-off", "a .npz file expected, it is no whole zip archive")
path.write_bytes(path.read_bytes()[:3000])
path = refused("bomb", "an array of at most 34359738368 bytes expected, [4000000000, 28, 28] found")
path.write_bytes(path.read_bytes().replace(b"(4, 28, 28), }         ", b"(4000000000, 28, 28), }"))
path = refused("short", "3920 bytes expected for the shape [5, 28, 28], 3136 found")
path.write_bytes(path.read_bytes().replace(b"(4, 28, 28)", b"(5, 28, 28)"))
path = refused("page", "a web page found")
path.write_text("<!DOCTYPE html><title>404</title>")
(out / "errors.json").write_text(json.dumps(errors))
