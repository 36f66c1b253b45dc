import os
from collections.abc import Sequence
from typing import Any, Union, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DataSet", "Model", "__version__", "main", "png", "pngs"]

__version__: str

@final
class DataSet:
    def __new__(
        cls,
        out: str,
        model: Model,
        int8: bool,
        class_: Union[int, None],
        seed: int,
        count: int,
        shard_size: int,
    ) -> DataSet: ...
    @property
    def shards(self) -> int: ...
    @property
    def manifest(self) -> str: ...
    def begin(self) -> list[int]: ...
    def draw(self, index: int) -> int: ...
    def finish(self) -> bool: ...

@final
class Model:
    def __new__(
        cls,
        onnx: Union[bytes, None] = None,
        name: str = "built in",
        data: dict[str, bytes] = {},
        classes: Union[int, None] = None,
    ) -> Model: ...
    @staticmethod
    def read(path: Union[str, os.PathLike[str]], classes: Union[int, None] = None) -> Model: ...
    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def likely_classes(self) -> Union[int, None]: ...
    @property
    def weights_sha256(self) -> str: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    def generate_one(
        self, seed: int, label: Union[int, None], int8: bool, out: Union[NDArray[np.uint8], None] = None
    ) -> NDArray[np.uint8]: ...
    def generate(
        self,
        seeds: NDArray[np.uint64],
        classes: Union[int, NDArray[np.uint8], None],
        int8: bool,
        threads: Union[int, None],
        out: NDArray[np.uint8],
    ) -> None: ...
    def draw(
        self, z: NDArray[np.float32], int8: bool, threads: Union[int, None], out: NDArray[np.uint8]
    ) -> None: ...
    def latent(
        self, seeds: NDArray[np.uint64], classes: Union[int, NDArray[np.uint8], None]
    ) -> NDArray[np.float32]: ...
    def labels(self, seeds: NDArray[np.uint64]) -> NDArray[np.uint8]: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

def png(pixels: NDArray[np.uint8]) -> bytes: ...
def pngs(images: NDArray[np.uint8]) -> tuple[bytes, NDArray[np.int32]]: ...
def main(args: Sequence[str]) -> int: ...
