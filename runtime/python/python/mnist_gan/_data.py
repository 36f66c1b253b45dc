"""Digits, or the images of another generator, as a data set for training: drawn when they are asked for, nothing on disk.

Both classes work with PyTorch's DataLoader, and neither imports PyTorch.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from . import _arguments
from ._arguments import MAX_SEED, Classes, Integers
from ._generator import Generator, Precision

if TYPE_CHECKING:  # for tools alone, because the import takes time
    from numpy.typing import NDArray

Transform = Callable[["NDArray[np.uint8]"], Any]

UNLABELLED = -1
"""The label of an unconditional generator's images, as in torchvision's STL10."""

EPOCH_SEEDS = 2**40
"""The seeds that belong to one epoch of a `DigitStream`. No training draws as many images."""

BLOCK = 256
"""The images that a `DigitStream` draws at a time."""


class _Named:
    """The names of the classes, as torchvision's data sets have them."""

    _generator: Generator

    @property
    def classes(self) -> list[str]:
        """The names of all classes, in the order of their labels; empty if the generator is unconditional. The attribute
        `classes` of a `Generator` is their number."""
        return self._generator.class_names

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class, by its name."""
        return {name: label for label, name in enumerate(self.classes)}


class Digits(_Named):
    """A data set of `count` digits: item i is the image of seed first_seed + i and its label.

    first_seed: 0 to 2**64 - count.
    count: how many items.
    digits: the digit of all items, or one per item; without it, each seed chooses.
    transform: a function that is called with each image.
    precision: "f32" or "int8", as for `Generator.generate`.
    generator: another generator than the built-in one.
    classes: the class of all items, or one per item, each a name or a number; for generators of other things than digits.

    An item is a pair: the image, uint8 of shape (28, 28) or what `transform` returns for it, and the label, the number of its
    class (for digits 0 to 9), or -1 if the generator is unconditional. As in torchvision, the attribute `classes` has the names
    of all classes, and `class_to_idx` the label of each name.

    Serves as a map-style data set for PyTorch's DataLoader, with any number of workers, forked or spawned: an item does not
    depend on who draws it, or on which items were drawn before. It can be pickled if `transform` can.

    Raises the errors of `Generator.generate`, OverflowError if the last seed is above 2**64 - 1, and IndexError for items
    that do not exist.

    >>> from mnist_gan import Digits
    >>> train, test = Digits(0, 60_000), Digits(60_000, 10_000)
    >>> image, label = train[0]
    >>> len(train), image.shape, label
    (60000, (28, 28), 2)
    >>> train.classes[label], train.class_to_idx["2"]
    ('2', 2)
    """

    def __init__(
        self,
        first_seed: int,
        count: int,
        digits: Integers | None = None,
        transform: Transform | None = None,
        *,
        precision: Precision = "f32",
        generator: Generator | None = None,
        classes: Classes | None = None,
    ) -> None:
        seeds = _seed_range(first_seed, count)
        self._generator = Generator(precision=precision) if generator is None else generator
        self._seeds = seeds
        self._precision = precision
        self._transform = transform
        self._labels = _arguments.classes_of(digits, classes, len(seeds), self._generator.class_names)

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Any, int]]:
        """Many items at a time, which is faster. PyTorch's DataLoader calls this for a batch."""
        try:
            seeds = [self._seeds[index] for index in indices]
        except IndexError:
            raise IndexError(f"index: below {len(self)} expected, {max(indices, key=abs)} found") from None
        labels = self._labels[indices] if isinstance(self._labels, np.ndarray) else self._labels
        return _items(self._generator, seeds, labels, self._precision, self._transform)


class DigitStream(_Named):
    """Digits without end, for training in epochs: each `for` loop over the stream is an epoch with images of its own.

    first_seed: image i of epoch e is that of seed first_seed + e * 2**40 + i.
    count: the images of an epoch; without it, an epoch does not end.
    digits: the digit of all images; without it, each seed chooses.
    classes: the class of all images, a name or a number; for generators of other things than digits.
    transform, precision, generator: as for `Digits`. The items are pairs as there, and so are the attributes.

    The first loop is epoch 0, the next one epoch 1, and so on; `set_epoch` chooses.

    Serves as an IterableDataset for PyTorch's DataLoader if PyTorch is imported before the stream is made. DataLoader's
    workers share the images of an epoch among them. Workers that start anew for each epoch, as they do without
    persistent_workers=True, cannot count epochs, so call `set_epoch` before each one.

    Raises the errors of `Generator.generate` for digits and precision, and OverflowError for seeds above 2**64 - 1.

    >>> from mnist_gan import DigitStream
    >>> stream = DigitStream(count=3)
    >>> [label for image, label in stream], [label for image, label in stream]
    ([2, 4, 2], [4, 5, 6])
    >>> stream.set_epoch(0)
    >>> [label for image, label in stream]
    [2, 4, 2]
    """

    def __init__(
        self,
        first_seed: int = 0,
        count: int | None = None,
        digits: int | None = None,
        transform: Transform | None = None,
        *,
        precision: Precision = "f32",
        generator: Generator | None = None,
        classes: int | str | None = None,
    ) -> None:
        if count is not None and not 0 <= count <= EPOCH_SEEDS:
            raise ValueError(f"count: 0 to {EPOCH_SEEDS} expected, {count} found")
        self._first_seed = first_seed
        self._count = EPOCH_SEEDS if count is None else count
        self._generator = Generator(precision=precision) if generator is None else generator
        self._precision = precision
        self._transform = transform
        self._label = _arguments.one_class(digits, classes, self._generator.class_names)
        self.set_epoch(0)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.utils.data.IterableDataset.register(DigitStream)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next loop draw this epoch, 0 or more.

        Raises OverflowError if its seeds end above 2**64 - 1.
        """
        if epoch < 0:
            raise ValueError(f"epoch: 0 or more expected, {epoch} found")
        _seed_range(self._first_seed + epoch * EPOCH_SEEDS, self._count)
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        seeds = _seed_range(self._first_seed + self._epoch * EPOCH_SEEDS, self._count)
        self._epoch += 1
        return self._draw(_of_this_worker(seeds))

    def _draw(self, seeds: range) -> Iterator[tuple[Any, int]]:
        for start in range(0, len(seeds), BLOCK):
            block = seeds[start : start + BLOCK]
            yield from _items(self._generator, block, self._label, self._precision, self._transform)


def _seed_range(first_seed: int, count: int) -> range:
    first_seed, count = operator.index(first_seed), operator.index(count)
    if count < 0:
        raise ValueError(f"count: 0 or more expected, {count} found")
    if not 0 <= first_seed <= MAX_SEED + 1 - max(count, 1):
        raise OverflowError(f"seeds: 0 to {MAX_SEED} expected, {first_seed} to {first_seed + max(count, 1) - 1} found")
    return range(first_seed, first_seed + count)


def _of_this_worker(seeds: range) -> range:
    """All seeds, or in a worker of PyTorch's DataLoader every n-th of them."""
    torch = sys.modules.get("torch")
    worker = torch.utils.data.get_worker_info() if torch is not None else None
    return seeds if worker is None else seeds[worker.id :: worker.num_workers]


def _items(
    generator: Generator,
    seeds: range | list[int],
    chosen: int | NDArray[np.uint8] | None,
    precision: Precision,
    transform: Transform | None,
) -> list[tuple[Any, int]]:
    images: Any = generator.generate(seeds, classes=chosen, precision=precision, threads=1)
    if transform is not None:
        images = map(transform, images)
    if isinstance(chosen, int):
        labels = [chosen] * len(seeds)
    elif chosen is not None:
        labels = chosen.tolist()
    else:
        labels = generator.labels(seeds).tolist() if generator.classes else [UNLABELLED] * len(seeds)
    return list(zip(images, labels))
