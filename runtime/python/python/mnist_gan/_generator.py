"""A generator and what it draws."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Union, overload

import numpy as np

from . import _arguments, _native
from ._arguments import Classes, Integers

if TYPE_CHECKING:  # for tools alone, because the import takes time
    from numpy.typing import ArrayLike, NDArray

Precision = Union[Literal["f32"], Literal["int8"]]


class Generator:
    """A generator: the one that is built in, or one from an ONNX file.

    path: a file that `trainer` wrote, or PyTorch's export of the same network; without it, the built-in generator.
    precision: "f32" for single precision, or "int8" for integers, which are faster and differ by a grey level or two. The
    methods use it unless they are called with another one.
    classes: the number of classes of the file, 2 to 64, or 0 if it is unconditional; without it, the file's metadata decide.
    Give it if a tool dropped the metadata. A UserWarning says so if the weights look class-conditional and the metadata name
    no classes.

    Raises FileNotFoundError or another OSError if the file cannot be read, ValueError if it holds no such generator or if
    the precision or the number of classes is unknown.

    A generator can be pickled, and it is safe to use from many threads and in forked processes.

    >>> from mnist_gan import Generator
    >>> Generator().generate(42).shape
    (28, 28)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        precision: Precision = "f32",
        classes: int | None = None,
    ) -> None:
        _is_int8(precision)
        classes = _arguments.class_count(classes)
        if path is None and classes is not None:
            raise ValueError("classes: a path expected with it, none found")
        self._model = _native.Model() if path is None else _native.Model.read(path, classes)
        self._class_names = self._model.classes
        self._precision: Precision = precision
        likely = self._model.likely_classes
        if classes is None and likely is not None:
            import warnings

            warnings.warn(
                f"{self._model.name}: the metadata name no classes, but the weights look like those of about {likely} classes; "
                f"pass classes={likely} or classes=0",
                stacklevel=2,
            )

    @property
    def classes(self) -> int:
        """The number of classes that can be asked for: 10 for digits, 0 if the generator is unconditional. `class_names` has
        their names; the attribute `classes` of `Digits` and `DigitStream` has the names too, as in torchvision."""
        return len(self._class_names)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of their numbers; empty if the generator is unconditional.

        >>> from mnist_gan import Generator
        >>> Generator().class_names
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
        """
        return list(self._class_names)

    @property
    def metadata(self) -> dict[str, str]:
        """What the ONNX file says about itself: recipe, data set, scores and so on.

        >>> from mnist_gan import Generator
        >>> Generator().metadata["data"]
        'mnist'
        """
        return self._model.metadata

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the f32 weights, layer by layer, in hexadecimal. It names the generator in either precision: two with
        the same one draw the same image of a seed, whatever their files say besides.

        >>> from mnist_gan import Generator
        >>> len(Generator().weights_sha256)
        64
        """
        return self._model.weights_sha256

    @property
    def precision(self) -> Precision:
        """The precision of methods that are called without one."""
        return self._precision

    def __repr__(self) -> str:
        return f"<Generator {self._model.name}, {self.classes} classes, {self.precision}>"

    def generate(
        self,
        seeds: Integers,
        digits: Integers | None = None,
        *,
        classes: Classes | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The images of seeds, as uint8 of shape (N, 28, 28), or (28, 28) for an int.

        seeds: an int, a range, an array of an integer type, or an iterable of ints, from 0 to 2**64 - 1.
        digits: the digit to draw, an int from 0 to 9 for all images, or one per seed: the class of this name. Without it the
        seed chooses, see `labels`. A seed is a handwriting: its ten digits look alike.
        classes: the class to draw, for generators of other things than digits: a name (a str) or a number (an int) for all
        images, or one per seed. `class_names` has the names.
        precision: "f32" or "int8"; without it, the generator's own, which is "f32" unless you asked for another.
        threads: how many cores to use; without it, all. Any number gives the same bytes.
        out: a C-contiguous array of uint8 of the result's shape, to draw into and return.

        Raises OverflowError for a seed out of range, ValueError for a digit or class that the generator does not have, for
        another number of them than of seeds, for either with an unconditional generator, and for an `out` that does not fit,
        and TypeError for seeds or digits that are not integers. Then nothing was written to `out`.

        The GIL is released. Ctrl-C raises KeyboardInterrupt within about 0.1 s; then the images at the start of `out` are
        new and the others as before, each of them whole.

        >>> import mnist_gan
        >>> mnist_gan.generate(42).shape
        (28, 28)
        >>> mnist_gan.generate([7, 8, 9], digits=[3, 3, 5], precision="int8").shape
        (3, 28, 28)
        >>> mnist_gan.generate(range(100), classes="7").shape
        (100, 28, 28)
        >>> mnist_gan.generate(42, digits=10)
        Traceback (most recent call last):
        ValueError: digits: 0 to 9 expected, 10 found
        """
        int8 = _is_int8(self._precision if precision is None else precision)
        checked = _arguments.seeds(seeds)
        threads = _arguments.threads(threads)
        if isinstance(checked, int):
            # One image takes a few microseconds, so calls that do nothing are left out.
            one = None if digits is None and classes is None else _arguments.one_class(digits, classes, self._class_names)
            return self._model.generate_one(checked, one, int8, None if out is None else _arguments.images(out, (28, 28)))
        many = _arguments.classes_of(digits, classes, len(checked), self._class_names)
        out = _arguments.images(out, (len(checked), 28, 28))
        self._model.generate(checked, many, int8, threads, out)
        return out

    @overload
    def labels(self, seeds: int) -> int: ...
    @overload
    def labels(self, seeds: range | Iterable[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]: ...
    def labels(self, seeds: Integers) -> int | NDArray[np.uint8]:
        """The numbers of the classes that seeds choose if none is asked for, as uint8 of shape (N,), or an int for an int. The
        classes of the built-in generator are the digits 0 to 9.

        Raises ValueError if the generator is unconditional, and the errors of `generate` for seeds.

        >>> import mnist_gan
        >>> mnist_gan.labels(range(5))
        array([2, 4, 2, 9, 2], dtype=uint8)
        """
        if not self._class_names:
            raise ValueError("labels: a class-conditional generator expected, an unconditional one found")
        checked = _arguments.seeds(seeds)
        if isinstance(checked, int):
            return int(self._model.labels(np.array([checked], np.uint64))[0])
        return self._model.labels(checked)

    def latent(
        self, seeds: Integers, digits: Integers | None = None, *, classes: Classes | None = None
    ) -> NDArray[np.float32]:
        """The z of seeds, as float32 of shape (N, 100), or (100,) for an int: numbers from -1 to 1.

        For a class-conditional generator the first ones, one per class, are the class as one-hot. `draw(latent(seeds, digits))`
        gives the images of `generate(seeds, digits)`.

        seeds, digits, classes: as for `generate`.

        Raises the errors of `generate` for seeds, digits and classes.

        >>> import mnist_gan, numpy as np
        >>> z = mnist_gan.latent(42)
        >>> np.array_equal(mnist_gan.draw(z), mnist_gan.generate(42))
        True
        """
        checked = _arguments.seeds(seeds)
        if isinstance(checked, int):
            one = _arguments.one_class(digits, classes, self._class_names)
            return self._model.latent(np.array([checked], np.uint64), one).reshape(100)
        return self._model.latent(checked, _arguments.classes_of(digits, classes, len(checked), self._class_names))

    def draw(
        self,
        z: ArrayLike,
        *,
        precision: Precision | None = None,
        threads: int | None = None,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The images of latents, as uint8 of shape (N, 28, 28), or (28, 28) for one.

        z: real numbers of shape (N, 100) or (100,); numbers beyond -1 and 1 become -1 and 1.
        precision, threads, out, Ctrl-C: as for `generate`.

        Raises ValueError for another shape, for NaN, and for an `out` that does not fit, and TypeError for other types.

        >>> import mnist_gan, numpy as np
        >>> mnist_gan.draw(np.zeros((5, 100))).shape
        (5, 28, 28)
        """
        int8 = _is_int8(self._precision if precision is None else precision)
        checked = _arguments.latents("z", z)
        threads = _arguments.threads(threads)
        out = _arguments.images(out, (*checked.shape[:-1], 28, 28))
        self._model.draw(checked.reshape(-1, 100), int8, threads, out.reshape(-1, 28, 28))
        return out

    def interpolate(
        self,
        a: int | ArrayLike,
        b: int | ArrayLike,
        steps: int,
        *,
        precision: Precision | None = None,
        threads: int | None = None,
    ) -> NDArray[np.uint8]:
        """The images of a straight walk from one latent to another, as uint8 of shape (steps, 28, 28).

        a, b: each a seed (an int), or a latent: real numbers of shape (100,). If the generator is class-conditional, the
        class of `a` stays all the way.
        steps: the number of images, 1 or more. The first is that of `a`, the last that of `b` (with the class of `a`).
        precision, threads: as for `generate`.

        Raises ValueError for other shapes or steps, and the errors of `generate` for seeds.

        >>> import mnist_gan, numpy as np
        >>> walk = mnist_gan.interpolate(1, 2, 8)
        >>> np.array_equal(walk[7], mnist_gan.generate(2, mnist_gan.labels(1)))
        True
        """
        if steps < 1:
            raise ValueError(f"steps: 1 or more expected, {steps} found")
        start, end = self._end("a", a), self._end("b", b)
        end[: self.classes] = start[: self.classes]
        t = np.linspace(0.0, 1.0, steps)[:, np.newaxis]
        return self.draw(start * (1.0 - t) + end * t, precision=precision, threads=threads)

    def _end(self, name: str, value: Any) -> NDArray[np.float64]:
        """One end of a walk: the latent of a seed, or a latent."""
        z = self.latent(int(value)) if isinstance(value, (int, np.integer)) else _arguments.latents(name, value)
        if z.shape != (100,):
            raise ValueError(f"{name}: a seed or shape (100,) expected, {z.shape} found")
        return z.astype(np.float64)


def _is_int8(precision: str) -> bool:
    if precision not in ("f32", "int8"):
        raise ValueError(f"precision: 'f32' or 'int8' expected, {precision!r} found")
    return precision == "int8"
