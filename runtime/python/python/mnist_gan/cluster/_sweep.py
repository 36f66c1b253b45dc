"""Trains many seeds on a Dask cluster by the `trainer` program, one task per seed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ._progress import Progress

if TYPE_CHECKING:
    from distributed import Client


class Sweep(NamedTuple):
    """The result of `sweep`. As text it is the table."""

    table: str
    """The table of all runs, as `trainer sweep` prints it."""
    summary: dict[str, Any]
    """The object of `trainer sweep --json`: seeds, finished, collapsed, best, median, worst."""
    failed: dict[int, str]
    """Why runs failed, by seed. The same call tries them again."""

    def __str__(self) -> str:
        return self.table


def sweep(
    client: Client,
    seeds: range,
    recipe: str | None = None,
    *,
    options: Sequence[str] = (),
    folder: str | os.PathLike[str] = "sweep",
    progress: bool | None = None,
) -> Sweep:
    """Trains a GAN per seed into the run folders of `trainer sweep`: `folder`/seed-00000 and so on.

    A run that is done is skipped, one that was cut off is resumed, and one whose worker died goes on at another worker. The workers
    need the `trainer` program, `pip install mnist-gan-trainer`. A training that has begun goes on after Ctrl-C.

    client: a Dask client; `folder` must be the same for it and for all workers.
    seeds: consecutive ones, such as range(1000).
    recipe: "seed", "tuned" or "best".
    options: more options of `trainer`, the same for all runs, such as ["--epochs", "20"].
    progress: shows a progress bar on stderr; by default, if it is a terminal.

    Raises ValueError for wrong arguments, options and folders with other settings, RuntimeError if a worker has no trainer or
    another version, ConnectionError if the scheduler is lost, and OSError if `folder` cannot be created. A run that fails is in the
    result, and the others go on.
    """
    from . import _tasks  # needs Dask

    if not isinstance(seeds, range) or seeds.step != 1 or not seeds or seeds.start < 0:
        raise ValueError(f"seeds: consecutive ones such as range(0, 1000) expected, {seeds!r} found")
    recipe_options = () if recipe is None else ("--recipe", recipe)
    path = Path(os.path.abspath(folder))
    path.mkdir(parents=True, exist_ok=True)
    job = Job(str(path), seeds.start, seeds.stop, (*recipe_options, *map(str, options)))
    _tasks.check_workers(client, fault, job)
    job = replace(job, version=next(iter(_tasks.answers(client, _version).values())))
    _tasks.check_workers(client, fault, job)
    failed: dict[int, str] = {}
    with Progress(len(seeds), "runs", progress) as bar:
        for seed, sentence in _tasks.run(client, train, job, seeds):
            if sentence is not None:
                failed[seed] = sentence
            bar.add()
    ((table, summary),) = _tasks.run(client, summarize, job, [0])
    unseen = len(seeds) - len(failed) - len(summary["finished"])
    if unseen > 0:
        sentence = f"{path}: {unseen} finished runs are not visible on another worker; share the folder with all workers"
        raise RuntimeError(sentence)
    return Sweep(table, summary, dict(sorted(failed.items())))


@dataclass(frozen=True)
class Job:
    """What a worker needs to know to train a seed."""

    folder: str
    first: int
    end: int
    options: tuple[str, ...]
    version: str | None = None
    """What `trainer --version` must print; None if anything."""


def fault(job: Job) -> str | None:
    """Why this machine cannot train, or None."""
    if _program() is None:
        return "the program trainer expected beside Python or on PATH, none found; pip install mnist-gan-trainer there"
    if not os.path.isdir(job.folder):
        return f"{job.folder}: not found on this machine; all workers must share the folder"
    found = _version()
    if job.version is not None and found != job.version:
        return f"{job.version} expected as on another worker, {found} found; install the same program on all workers"
    return None


def train(job: Job, seed: int) -> tuple[int, str | None]:
    """Trains a seed to its end on a worker; returns the seed and why it failed, or None.

    Raises ValueError if no seed can be trained with these options.
    """
    if sentence := fault(job):
        raise RuntimeError(sentence)
    while True:
        done = _trainer(job, f"{seed}..{seed + 1}", "--json")
        # A worker that died has left its trainer running, which finishes the run or ends soon.
        if done.returncode == 0 or "another trainer is using this run folder" not in done.stderr:
            break
        time.sleep(POLL_SECONDS)
    if done.returncode == 2:
        raise ValueError(_why(done))
    return seed, _why(done) if done.returncode else None


POLL_SECONDS = 2


def summarize(job: Job, _: int) -> tuple[str, dict[str, Any]]:
    """The table of all runs in the folder and its figures, on a worker."""
    part = f"--part=1/{job.end - job.first + 1}"  # a part without seeds trains nothing
    seeds = f"{job.first}..{job.end}"
    text, figures = (_trainer(job, seeds, part, *arguments) for arguments in ([], ["--json"]))
    for done in (text, figures):
        if done.returncode:
            raise RuntimeError(_why(done))
    return text.stdout, json.loads(figures.stdout)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """Why trainer failed: its first error, or else all that it printed to stderr, or else its exit status."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    text = errors[0].removeprefix("error: ") if errors else done.stderr.strip()
    return text or f"trainer: exit status 0 expected, {done.returncode} found"


def _trainer(job: Job, seeds: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(_program()), "sweep", "--seeds", seeds, "--dir", job.folder, *arguments, "--", *job.options]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")


def _version() -> str:
    return subprocess.run([str(_program()), "--version"], capture_output=True, text=True).stdout.strip()


def _program() -> str | None:
    """The path of the trainer that is beside this Python or on PATH."""
    folders = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    return shutil.which("trainer", path=os.pathsep.join(folders))
