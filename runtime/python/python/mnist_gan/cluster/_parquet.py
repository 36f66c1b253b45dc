"""A data set in shards as Parquet files, in a folder or at a URL of fsspec. It has the layout of `runtime shards`:

manifest.json                        the plan
data/train-00017-of-01000.parquet    a shard: image, label, seed
digests/train-00017-of-01000.sha256  the line of its file as sha256sum writes it; written last
SHA256SUMS                           these lines of all shards
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from .. import _native
from ._errors import with_text

ROW_GROUP = 10_000
"""Images of a row group."""
TEMPORARY = ".mnist-gan-"
"""The names of files that are not complete begin so."""


class ParquetDataSet:
    """The data set of a plan.

    out: a folder or URL. plan: the manifest of the same images in IDX files.
    """

    def __init__(self, out: str, plan: dict[str, Any], model: _native.Model) -> None:
        program = f"mnist-gan {_native.__version__}, pyarrow {pa.__version__}"
        self._plan = {**plan, "format": "parquet", "row_group": ROW_GROUP, "program": program}
        self._out, self._model = out, model
        if "://" in out and set("*?[") & set(out):
            raise ValueError(f"{out}: a URL without the characters * ? [ expected, because fsspec takes them for patterns")
        try:
            self._files, self._root = url_to_fs(out)
        except (ImportError, ValueError) as error:
            raise ValueError(f"{out}: a URL that fsspec knows expected: {error}") from None

    @property
    def shards(self) -> int:
        return int(self._plan["shards"])

    def begin(self) -> list[int]:
        """Writes the manifest, or checks it; returns the numbers of all shards.

        Raises ValueError for a folder with another plan, OSError if it cannot be written.
        """
        if not self._has_plan():
            for folder in ("data", "digests"):
                with self._named(folder, "created"):
                    self._files.makedirs(self._path(folder), exist_ok=True)
            self._write("manifest.json", (json.dumps(self._plan, indent=2) + "\n").encode())
            self._check_manifest()
        return list(range(self.shards))

    def draw(self, index: int) -> int:
        """Draws a shard, unless it is there; returns the number of images that were drawn.

        Raises ValueError for a folder without the plan, OSError if a file cannot be written.
        """
        self._check_manifest()
        first = index * self._plan["shard_size"]
        images = min(self._plan["shard_size"], self._plan["count"] - first)
        name = self._name(index)
        path, digest = f"data/{name}.parquet", f"digests/{name}.sha256"
        if self._files.exists(self._path(digest)):
            if self._rows(path) == images:
                return 0
            self._files.rm(self._path(digest))  # so that no digest stands beside another file
        with self._whole(path) as file:
            sink = _Hashing(file)
            with pq.ParquetWriter(pa.PythonFile(sink, "w"), self._schema(), **_OPTIONS) as writer:
                for start in range(first, first + images, ROW_GROUP):
                    end = min(start + ROW_GROUP, first + images)
                    writer.write_table(self._table(start, end), row_group_size=ROW_GROUP)
        self._write(digest, f"{sink.sha256.hexdigest()}  {path}\n".encode())
        return int(images)

    def finish(self) -> bool:
        """Writes SHA256SUMS if all shards are there; returns whether they are. Then it also removes old leftovers."""
        paths = [self._path(f"digests/{self._name(index)}.sha256") for index in range(self.shards)]
        digests = self._files.cat_ranges(paths, None, None, on_error="return")  # `cat` would take [ in a name for a pattern
        for index, digest in enumerate(digests):
            if isinstance(digest, FileNotFoundError):
                return False
            if isinstance(digest, Exception):
                with self._named(f"digests/{self._name(index)}.sha256", "read"):
                    raise digest
        self._write("SHA256SUMS", b"".join(digests))
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Removes what killed workers left a day ago or earlier. Younger files may belong to another call."""
        for path in self._files.ls(self._path("data"), detail=False):
            if path.rpartition("/")[2].startswith(TEMPORARY):
                with suppress(FileNotFoundError, NotImplementedError):  # some file systems do not know when a file was modified
                    if datetime.now(timezone.utc) - self._files.modified(path) > timedelta(days=1):
                        self._files.rm(path)

    def _check_manifest(self) -> None:
        if not self._has_plan():
            raise ValueError(f"{self._out}/manifest.json: not found on this machine; all workers must share the folder")

    def _has_plan(self) -> bool:
        """Whether there is a manifest. Raises ValueError if it has another plan, OSError if it cannot be read."""
        path = f"{self._out}/manifest.json"
        try:
            with self._named("manifest.json", "read"):
                found = json.loads(self._files.cat_file(self._path("manifest.json")))
        except FileNotFoundError:
            return False
        except ValueError:
            raise ValueError(f"{path}: the plan of a data set in shards expected") from None
        for key, expected in self._plan.items():
            if key != "program" and (not isinstance(found, dict) or found.get(key) != expected):
                found = found.get(key) if isinstance(found, dict) else found
                raise ValueError(
                    f"{path}: {key} {json.dumps(expected)} expected, {json.dumps(found)} found; repeat the options of the first "
                    "call, or choose another folder"
                )
        return True

    def _schema(self) -> pa.Schema:
        """The columns, with metadata by which Hugging Face's `datasets` decodes images and names labels."""
        names = self._plan["classes"]
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns: dict[str, Any] = {"image": (image, {"_type": "Image"})}
        if names:
            columns["label"] = (pa.int64(), {"names": names, "_type": "ClassLabel"})
        columns["seed"] = (pa.uint64(), {"dtype": "uint64", "_type": "Value"})
        features = {name: feature for name, (_, feature) in columns.items()}
        fields = [(name, kind) for name, (kind, _) in columns.items()]
        return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})

    def _table(self, start: int, end: int) -> pa.Table:
        """The rows of the images number `start` to `end - 1`."""
        n, chosen = end - start, self._plan["class"]
        seeds = np.arange(n, dtype=np.uint64) + np.uint64(self._plan["seed"] + start)
        pixels = np.empty((n, 28, 28), np.uint8)
        self._model.generate(seeds, chosen, self._plan["precision"] == "int8", 1, pixels)
        files, ends = _native.pngs(pixels)
        pngs = pa.Array.from_buffers(pa.binary(), n, [None, pa.py_buffer(ends), pa.py_buffer(files)])
        columns = [pa.StructArray.from_arrays([pngs, pa.nulls(n, pa.string())], ["bytes", "path"])]
        if self._plan["classes"]:
            labels = self._model.labels(seeds) if chosen is None else np.full(n, chosen)
            columns.append(pa.array(labels.astype(np.int64)))
        return pa.table([*columns, pa.array(seeds)], self._schema())

    def _rows(self, path: str) -> int | None:
        """The number of rows of a Parquet file; None without a whole one."""
        try:
            with self._files.open(self._path(path), "rb") as file:
                return int(pq.read_metadata(file).num_rows)
        except (OSError, pa.ArrowInvalid):
            return None

    def _name(self, index: int) -> str:
        return f"train-{index:05}-of-{self.shards:05}"

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _write(self, path: str, text: bytes) -> None:
        with self._whole(path) as file:
            file.write(text)

    @contextmanager
    def _whole(self, path: str) -> Iterator[Any]:
        """A file to write into, which gets its name when it is complete."""
        folder, _, _ = self._path(path).rpartition("/")
        temporary = f"{folder}/{TEMPORARY}{uuid.uuid4().hex}.tmp"
        with self._named(path, "written"):
            try:
                with self._files.open(temporary, "wb") as file:
                    yield file
                self._files.mv(temporary, self._path(path))
            except BaseException:
                with suppress(Exception):
                    self._files.rm(temporary)
                raise

    @contextmanager
    def _named(self, path: str, done: str) -> Iterator[None]:
        """Names the file in errors."""
        try:
            yield
        except OSError as error:
            raise with_text(error, f"{self._out}/{path}: cannot be {done}: {error.strerror or error}") from None


_OPTIONS: dict[str, Any] = {
    "compression": "zstd",  # makes PNG files, which have fixed Huffman codes, a fifth shorter
    "use_dictionary": ["label"],
    "column_encoding": {"seed": "DELTA_BINARY_PACKED"},
    "write_statistics": ["label", "seed"],
}


class _Hashing:
    """A file to write into that takes the SHA-256 of its bytes."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return int(self._file.write(data))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
