"""check_drawn.py FOLDER: what `runtime gen` wrote there, read by numpy and PIL, holds the same images in every format."""
import os, struct, sys
import numpy as np
from PIL import Image

at = lambda *names: os.path.join(sys.argv[1], *names)


def idx(path, magic):
    raw = open(path, "rb").read()
    assert struct.unpack(">I", raw[:4])[0] == magic, raw[:4]
    shape = struct.unpack(f">{magic & 255}I", raw[4:4 + 4 * (magic & 255)])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


images = idx(at("ten-images-idx3-ubyte"), 0x803)
assert images.shape == (10, 28, 28)
assert (np.fromfile(at("ten.raw"), np.uint8).reshape(10, 28, 28) == images).all()
for folder, suffix in (("png", ".png"), ("pgm", ".pgm")):
    names = sorted(os.listdir(at(folder)))
    assert names == [f"{seed:02}{suffix}" for seed in range(5, 15)], names
    for name, image in zip(names, images):
        picture = Image.open(at(folder, name))
        assert picture.mode == "L" and (np.asarray(picture) == image).all(), name
sheet = images[:6].reshape(2, 3, 28, 28).transpose(0, 2, 1, 3).reshape(56, 84)
assert (np.asarray(Image.open(at("sheet.png"))) == np.kron(sheet, np.ones((3, 3), np.uint8))).all()
labels, forced = idx(at("c-labels-idx1-ubyte"), 0x801), idx(at("d-labels"), 0x801)
assert labels.shape == (1000,) and labels.max() == 9 and np.bincount(labels).min() > 60, np.bincount(labels)
assert (forced == 7).all() and forced.shape == (1000,)
conditional, sevens = idx(at("c-images-idx3-ubyte"), 0x803), idx(at("d"), 0x803)
for n in range(1000):  # a seed that names 7 by itself draws the 7 that was asked for
    assert (conditional[n] == sevens[n]).all() == (labels[n] == 7), n
