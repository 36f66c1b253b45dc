"""Errors with another text."""

from __future__ import annotations

_KINDS = (FileNotFoundError, PermissionError, OSError, ValueError, RuntimeError)


def with_text(error: OSError | ValueError | RuntimeError, text: str) -> Exception:
    """An error that the same `except` catches, with this text.

    It has one of Python's basic classes, because others, such as UnicodeDecodeError, cannot be made from a text.
    """
    return next(kind for kind in _KINDS if isinstance(error, kind))(text)
