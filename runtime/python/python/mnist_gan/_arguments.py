"""Checks of arguments. Each returns what the drawing code needs, or raises an error of one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Union

import numpy as np

if TYPE_CHECKING:  # for tools alone, because the import takes time
    from numpy.typing import NDArray

Integers = Union[int, range, Iterable[int], "NDArray[np.integer[Any]]"]
"""An int, or many: a range, an array of an integer type, or an iterable of ints."""

MAX_SEED = 2**64 - 1


def integers(name: str, value: Integers, largest: int, error: type[Exception]) -> int | NDArray[np.uint64]:
    """An int as it is, many as a contiguous array of shape (N,); raises `error` for numbers outside of 0 to `largest`."""

    def check(low: int, high: int) -> None:
        if low < 0 or high > largest:
            raise error(f"{name}: 0 to {largest} expected, {low if low < 0 else high} found")

    if isinstance(value, (int, np.integer)):
        check(int(value), int(value))
        return int(value)
    if isinstance(value, range):
        if not value:
            return np.empty(0, np.uint64)
        check(min(value[0], value[-1]), max(value[0], value[-1]))
        # Modulo 2^64, so that a negative step and the last seed work.
        return np.arange(len(value), dtype=np.uint64) * np.uint64(value.step % 2**64) + np.uint64(value.start)
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name}: integers expected, an array of {array.dtype} found")
        if array.ndim > 1:
            raise ValueError(f"{name}: one dimension expected, shape {array.shape} found")
        if array.size:
            check(int(array.min()), int(array.max()))
        return np.ascontiguousarray(array, np.uint64) if array.ndim else int(array)
    if not isinstance(value, Iterable):
        raise TypeError(f"{name}: integers expected, {type(value).__name__} found")
    values = list(value)
    for item in values:
        if not isinstance(item, (int, np.integer)):
            raise TypeError(f"{name}: integers expected, {type(item).__name__} found")
    if values:
        check(int(min(values)), int(max(values)))
    return np.array(values, np.uint64)


def seeds(value: Integers) -> int | NDArray[np.uint64]:
    """An int, or an array of shape (N,)."""
    if type(value) is int and 0 <= value <= MAX_SEED:  # the common case, quickly
        return value
    return integers("seeds", value, MAX_SEED, OverflowError)


def digit(value: Integers | None, classes: int) -> int | None:
    """The digit to draw for one seed."""
    if value is None:
        return None
    one = _classes(value, classes)
    if not isinstance(one, int):
        raise ValueError(f"digits: an int expected for one seed, {len(one)} digits found")
    return one


def digits(value: Integers | None, count: int, classes: int) -> int | NDArray[np.uint8] | None:
    """The digit to draw for all seeds, or an array of one per seed."""
    if value is None:
        return None
    many = _classes(value, classes)
    if isinstance(many, int):
        return many
    if len(many) != count:
        raise ValueError(f"digits: one per seed expected, {len(many)} digits for {count} seeds found")
    return many.astype(np.uint8)


def _classes(value: Integers, classes: int) -> int | NDArray[np.uint64]:
    if not classes:
        raise ValueError("digits: a class-conditional generator expected, an unconditional one found")
    return integers("digits", value, classes - 1, ValueError)


def latents(name: str, value: Any) -> NDArray[np.float32]:
    """An array of shape (100,) or (N, 100)."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: real numbers expected, an array of {array.dtype} found")
    if array.ndim not in (1, 2) or array.shape[-1] != 100:
        raise ValueError(f"{name}: shape (100,) or (N, 100) expected, {array.shape} found")
    if np.isnan(array).any():
        raise ValueError(f"{name}: numbers expected, NaN found")
    return np.ascontiguousarray(array, np.float32)


def threads(value: int | None) -> int | None:
    """None for all cores, or a number from 1 on."""
    if value is None:
        return None
    if not isinstance(value, (int, np.integer)):
        raise TypeError(f"threads: an int expected, {type(value).__name__} found")
    if value < 1:
        raise ValueError(f"threads: 1 or more expected, {value} found")
    return int(value)


def images(out: NDArray[np.uint8] | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """`out` if images of this shape can be drawn into it, or a new array."""
    if out is None:
        return np.empty(shape, np.uint8)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: an array expected, {type(out).__name__} found")
    if out.dtype != np.uint8:
        raise TypeError(f"out: an array of uint8 expected, {out.dtype} found")
    if out.shape != shape:
        raise ValueError(f"out: shape {shape} expected, {out.shape} found")
    if not out.flags.c_contiguous:
        raise ValueError(f"out: a C-contiguous array expected, strides {out.strides} found")
    if not out.flags.writeable:
        raise ValueError("out: a writeable array expected, a read-only one found")
    return out
