"""A progress bar of tasks."""

from __future__ import annotations

import sys
import time
from datetime import timedelta


class Progress:
    """A line on stderr: tasks, images per second, time left.

    shown: whether to print it; None if only on a terminal.
    """

    def __init__(self, tasks: int, unit: str, shown: bool | None) -> None:
        self._tasks, self._unit = tasks, unit
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._skipped = self._done = self._images = 0
        self._start = time.monotonic()

    def skip(self, tasks: int) -> None:
        """Tasks that were done before."""
        self._skipped += tasks
        self._print()

    def add(self, images: int = 0) -> None:
        """A task has ended."""
        self._done += 1
        self._images += images
        self._print()

    def line(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        there = self._skipped + self._done
        bar = "█" * (40 * there // max(self._tasks, 1))
        rate = f", {self._images / seconds:,.0f} images/s" if self._images else ""
        left = ""
        if self._done:
            left = f", {timedelta(seconds=round(seconds / self._done * (self._tasks - there)))} left"
        return f"{bar:40} {there}/{self._tasks} {self._unit}{rate}{left}"

    def _print(self) -> None:
        if self._shown:
            print(f"\r{self.line()}\x1b[K", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
