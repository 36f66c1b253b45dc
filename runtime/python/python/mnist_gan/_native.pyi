import os
from collections.abc import Sequence
from typing import Any, Union, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Model", "__version__", "main", "png"]

__version__: str

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
def main(args: Sequence[str]) -> int: ...
