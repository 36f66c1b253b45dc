"""Draws a data set in shards on a Dask cluster, one task per shard."""

from __future__ import annotations

import json
import os
import pickle
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Union

import mnist_gan

from .. import _arguments, _native
from .._generator import Generator, Precision, _is_int8
from ._progress import Progress

if TYPE_CHECKING:
    from distributed import Client

Format = Union[Literal["idx"], Literal["parquet"]]


class Drawn(NamedTuple):
    """What a call of `generate` has done."""

    shards: int
    """Shards of the data set."""
    drawn: int
    """Shards that were drawn; the others were there, or their worker died just after it had drawn them."""
    images: int
    """Images that were drawn."""
    seconds: float


def generate(
    client: Client,
    out: str | os.PathLike[str],
    *,
    count: int,
    seed: int = 0,
    shard_size: int = 1_000_000,
    digit: int | None = None,
    class_: int | str | None = None,
    precision: Precision = "f32",
    model: Generator | str | os.PathLike[str] | None = None,
    format: Format = "idx",
    progress: bool | None = None,
) -> Drawn:
    """Draws the images of the seeds `seed` to `seed + count - 1` into shards in the folder `out`, one task per shard.

    The files are those of `runtime shards`, byte for byte, and `runtime verify` checks them. With format="parquet" a shard is a
    Parquet file with the columns image (a PNG file), label and seed. Then `out` may also be a URL of fsspec, such as
    s3://bucket/digits, for which the workers need the credentials.

    A shard that is there is skipped, and one that a worker was drawing when it died is drawn by another. So after an error or
    Ctrl-C the same call goes on.

    client: a Dask client; `out` must be the same folder for it and for all workers.
    count, shard_size: the number of images in all and of each shard.
    digit, class_: draw only this digit, or the class with this number or name; without them, each seed chooses.
    model: a generator or its ONNX file; the workers get it from the client. Without it, the built-in one.
    progress: shows a progress bar on stderr; by default, if it is a terminal.

    Raises ValueError for wrong arguments and for a folder with another plan, OSError if a file cannot be written, ConnectionError
    if the scheduler is lost, and RuntimeError for workers with another version or another built-in generator.
    """
    from . import _tasks  # needs Dask

    job = _job(os.fspath(out), count, seed, shard_size, digit, class_, precision, model, format)
    _tasks.check_workers(client, fault, job)
    data_set = _data_set(job)
    missing = data_set.begin()
    start, drawn, images = time.monotonic(), 0, 0
    with Progress(data_set.shards, "shards", progress) as bar:
        bar.skip(data_set.shards - len(missing))
        for shard_images in _tasks.run(client, draw, job, missing):
            drawn += shard_images > 0
            images += shard_images
            bar.add(shard_images)
    if not data_set.finish():
        raise RuntimeError(
            f"{out}: all shards drawn, but not all are visible on this machine; share the folder with all workers, and on a slow "
            "network file system repeat the call in a minute"
        )
    return Drawn(data_set.shards, drawn, images, time.monotonic() - start)


class DataSet(Protocol):
    """A data set in shards in one of the formats."""

    @property
    def shards(self) -> int: ...
    def begin(self) -> list[int]:
        """Writes the manifest, or checks it; returns the numbers of shards to draw."""

    def draw(self, index: int) -> int:
        """Draws a shard, unless it is there; returns the number of images that were drawn."""

    def finish(self) -> bool:
        """Writes SHA256SUMS if all shards are there; returns whether they are."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know to draw a shard."""

    out: str
    format: Format
    model: bytes
    """The native `Model`, pickled."""
    int8: bool
    class_: int | None
    seed: int
    count: int
    shard_size: int
    versions: tuple[tuple[str, str], ...]
    """Names and versions of what must be the same on the client and on all workers."""


def _job(
    out: str,
    count: int,
    seed: int,
    shard_size: int,
    digit: int | None,
    class_: int | str | None,
    precision: Precision,
    model: Generator | str | os.PathLike[str] | None,
    format: Format,
) -> Job:
    if format not in ("idx", "parquet"):
        raise ValueError(f"format: 'idx' or 'parquet' expected, {format!r} found")
    is_url = "://" in out
    if is_url and format == "idx":
        raise ValueError(f"{out}: a folder expected for the format 'idx'; URLs need the format 'parquet'")
    for name, number in (("count", count), ("seed", seed), ("shard_size", shard_size)):
        _arguments.integers(name, number, _arguments.MAX_SEED, ValueError)
    generator = model if isinstance(model, Generator) else Generator(model)
    return Job(
        out=out if is_url else os.path.abspath(out),
        format=format,
        model=pickle.dumps(generator._model),
        int8=_is_int8(precision),
        class_=_arguments.one_class(digit, class_, generator.class_names),
        seed=int(seed),
        count=int(count),
        shard_size=int(shard_size),
        versions=_versions(format),
    )


def _versions(format: Format) -> tuple[tuple[str, str], ...]:
    """Names and versions of what decides a shard's bytes on this machine."""
    found = [("mnist-gan", mnist_gan.__version__), ("the built-in generator", _native.Model().weights_sha256)]
    if format == "parquet":
        import pyarrow  # type: ignore[import-untyped]

        found.append(("pyarrow", pyarrow.__version__))
    return tuple(found)


def fault(job: Job) -> str | None:
    """Why this machine cannot draw the job's shards, or None."""
    for (name, expected), (_, found) in zip(job.versions, _versions(job.format)):
        if expected != found:
            return f"{name} {expected} expected as on the client, {found} found; install the same package on all workers"
    return None


def draw(job: Job, shard: int) -> int:
    """Draws a shard on a worker; returns the number of images that were drawn: all or none."""
    if sentence := fault(job):
        raise RuntimeError(sentence)
    return _data_set(job).draw(shard)


def _new_data_set(job: Job) -> DataSet:
    model: _native.Model = pickle.loads(job.model)
    idx = _native.DataSet(job.out, model, job.int8, job.class_, job.seed, job.count, job.shard_size)
    if job.format == "idx":
        return idx
    from ._parquet import ParquetDataSet

    return ParquetDataSet(job.out, json.loads(idx.manifest), model)


_data_set = lru_cache(maxsize=1)(_new_data_set)  # one for all shards that a worker draws
