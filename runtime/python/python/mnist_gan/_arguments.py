"""Checks of arguments. Each returns what the drawing code needs, or raises an error of one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Union

import numpy as np

if TYPE_CHECKING:  # for tools alone, because the import takes time
    from numpy.typing import NDArray

Integers = Union[int, range, Iterable[int], "NDArray[np.integer[Any]]"]
"""An int, or many: a range, an array of an integer type, or an iterable of ints."""

Classes = Union[int, str, range, Iterable[Union[int, str]], "NDArray[Any]"]
"""A class, by its number or its name, or many."""

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


def one_class(digits: Integers | None, classes: Classes | None, names: list[str]) -> int | None:
    """The number of the class to draw for one seed. names: of the generator's classes."""
    chosen = _chosen(digits, classes, names)
    if chosen is None or isinstance(chosen, int):
        return chosen
    raise ValueError(f"{_name(classes)}: one expected for one seed, {len(chosen)} found")


def classes_of(
    digits: Integers | None, classes: Classes | None, count: int, names: list[str]
) -> int | NDArray[np.uint8] | None:
    """The number of the class to draw for all seeds, or an array of one per seed. names: of the generator's classes."""
    chosen = _chosen(digits, classes, names)
    if chosen is None or isinstance(chosen, int):
        return chosen
    if len(chosen) != count:
        raise ValueError(f"{_name(classes)}: one per seed expected, {len(chosen)} for {count} seeds found")
    return chosen.astype(np.uint8)


def _chosen(
    digits: Integers | None, classes: Classes | None, names: list[str]
) -> int | NDArray[np.uint64] | None:
    if digits is None and classes is None:
        return None
    if digits is not None and classes is not None:
        raise ValueError("classes: digits or classes expected, both found")
    if not names:
        raise ValueError(f"{_name(classes)}: a class-conditional generator expected, an unconditional one found")
    if digits is None:
        return integers("classes", _numbers(classes, names), len(names) - 1, ValueError)
    chosen = integers("digits", digits, 9, ValueError)
    if isinstance(chosen, int):
        return _class_of_digit(chosen, names)
    table = np.zeros(10, np.uint64)
    for digit in np.unique(chosen).tolist():
        table[digit] = _class_of_digit(digit, names)
    return table[chosen]


def _class_of_digit(digit: int, names: list[str]) -> int:
    """The number of the class whose name is a digit."""
    if str(digit) not in names:
        raise ValueError(f"digits: one of {', '.join(names)} expected, {digit} found; use classes")
    return names.index(str(digit))


def _name(classes: Classes | None) -> str:
    return "digits" if classes is None else "classes"


def _numbers(classes: Any, names: list[str]) -> Any:
    """Classes with numbers in place of their names."""
    if isinstance(classes, str):
        if classes not in names:
            raise ValueError(f"classes: one of {', '.join(names)} expected, {classes} found")
        return names.index(classes)
    if hasattr(classes, "__array__"):
        array = np.asarray(classes)
        return _numbers(array.tolist(), names) if array.dtype.kind in "UTO" else classes
    if isinstance(classes, Iterable) and not isinstance(classes, range):
        return [_numbers(item, names) for item in classes]
    return classes


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


def class_count(value: int | None) -> int | None:
    """None if the file says how many classes it has, or their number: 0 or 2 to 64."""
    if value is None:
        return None
    if not isinstance(value, (int, np.integer)):
        raise TypeError(f"classes: an int expected, {type(value).__name__} found")
    if value != 0 and not 2 <= value <= 64:
        raise ValueError(f"classes: 0 or 2 to 64 expected, {value} found")
    return int(value)


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
