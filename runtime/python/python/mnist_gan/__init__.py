"""Draws handwritten digits with a GAN's generator.

A seed names one image of a generator, and its bytes are the same on every machine, alone or in a batch, on any number of
threads. `Generator().weights_sha256` names the generator.

>>> import mnist_gan
>>> digit = mnist_gan.generate(42)  # one digit
>>> digit.shape, digit.dtype
((28, 28), dtype('uint8'))
>>> images = mnist_gan.generate(range(1000))  # a thousand
>>> labels = mnist_gan.labels(range(1000))
>>> images.shape, labels.shape
((1000, 28, 28), (1000,))
>>> sevens = mnist_gan.generate(range(5), 7)  # five handwritings of the digit 7

Images are grey levels from 0 (black, the paper) to 255 (white, the ink), as in MNIST. The functions here are the methods of
a `Generator` that is built into the package; `Generator("g.onnx")` has the same methods for a generator that you trained.
"""

from ._data import Digits, DigitStream
from ._generator import Generator
from ._native import __version__
from ._picture import Picture, grid, show

__all__ = [
    "DigitStream",
    "Digits",
    "Generator",
    "Picture",
    "__version__",
    "draw",
    "generate",
    "grid",
    "interpolate",
    "labels",
    "latent",
    "show",
]

_built_in = Generator()
generate = _built_in.generate
labels = _built_in.labels
latent = _built_in.latent
draw = _built_in.draw
interpolate = _built_in.interpolate
