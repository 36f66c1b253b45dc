"""Images as one picture, and pictures in notebooks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from . import _native

if TYPE_CHECKING:  # for tools alone, because the import takes time
    from numpy.typing import NDArray


def grid(images: NDArray[np.uint8], rows: int, cols: int) -> NDArray[np.uint8]:
    """One picture of many images, as uint8 of shape (rows * H, cols * W).

    images: uint8 of shape (N, H, W), at most rows * cols of them. They fill the rows from left to right. Places without an
    image stay black.

    Raises ValueError for another shape or too many images, TypeError for another type.

    >>> import mnist_gan
    >>> mnist_gan.grid(mnist_gan.generate(range(10)), 2, 5).shape
    (56, 140)
    """
    images = _check(images, (3,))
    if rows < 1 or cols < 1:
        raise ValueError(f"rows and cols: 1 or more expected, {rows} and {cols} found")
    count, height, width = images.shape
    if count > rows * cols:
        raise ValueError(f"images: at most {rows * cols} expected for {rows} x {cols}, {count} found")
    places = np.zeros((rows * cols, height, width), np.uint8)
    places[:count] = images
    return places.reshape(rows, cols, height, width).swapaxes(1, 2).reshape(rows * height, cols * width)


def show(images: NDArray[np.uint8], scale: int = 4) -> Picture:
    """A picture that notebooks display: of one image, or of a batch as a nearly square grid.

    images: uint8 of shape (H, W) or (N, H, W). scale: each pixel becomes scale x scale.

    Raises ValueError for another shape or a scale below 1, TypeError for another type.

    >>> import mnist_gan
    >>> mnist_gan.show(mnist_gan.generate(range(10)))
    <Picture of 448 x 336 pixels>
    """
    images = _check(images, (2, 3))
    if scale < 1:
        raise ValueError(f"scale: 1 or more expected, {scale} found")
    if images.ndim == 3:
        cols = max(1, math.ceil(math.sqrt(len(images))))
        images = grid(images, max(1, math.ceil(len(images) / cols)), cols)
    return Picture(images.repeat(scale, axis=0).repeat(scale, axis=1))


class Picture:
    """Grey pixels that a notebook displays as a PNG.

    pixels: uint8 of shape (H, W).
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = np.ascontiguousarray(_check(pixels, (2,)))

    def _repr_png_(self) -> bytes:
        """The bytes of a PNG file."""
        return _native.png(self.pixels)

    def __repr__(self) -> str:
        height, width = self.pixels.shape
        return f"<Picture of {width} x {height} pixels>"


def _check(images: NDArray[np.uint8], dimensions: tuple[int, ...]) -> NDArray[np.uint8]:
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise TypeError(f"images: an array of uint8 expected, {array.dtype} found")
    if array.ndim not in dimensions:
        raise ValueError(f"images: {' or '.join(map(str, dimensions))} dimensions expected, shape {array.shape} found")
    return array
