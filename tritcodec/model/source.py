"""Reading a model: a folder with `model.safetensors`, or one safetensors file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from ..errors import TritError
from ..header import RAW_DTYPES
from ..reader import PathLike, Source

MODEL_NAME = "model.safetensors"
WEIGHTS = frozenset(  # suffixes of files with weights, of whatever framework
    (
        *(".safetensors", ".trit", ".bin", ".pt", ".pth", ".ckpt", ".gguf"),
        *(".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite"),
    )
)
LENGTH_SIZE = 8  # safetensors: a little-endian u64 with the length of the JSON header stands first


@dataclass(frozen=True)
class SourceTensor:
    """What the header of a safetensors file says of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


class ModelSource:
    """The weights of a model, read tensor by tensor; a context manager.

    `tensors` has what is there, in the order of the file, and `metadata` the
    file's own. `folder` is None where a single file was named.
    """

    def __init__(self, path: PathLike) -> None:
        path = Path(path)
        self.folder = path if path.is_dir() else None
        self.path = _weights(path)
        self._file = Source(self.path)
        try:
            _judge(self.path)
            self.tensors, self.metadata = self._directory()
        except BaseException:
            self._file.close()
            raise

    def read(self, tensor: SourceTensor) -> npt.NDArray[Any]:
        """The whole of *tensor*."""
        array = np.empty(tensor.shape, RAW_DTYPES[tensor.dtype])
        self._file.read_into(array, tensor.offset)
        return array

    def rows(self, tensor: SourceTensor, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop) of *tensor*, seen as (rows, K), K its last axis."""
        columns = tensor.shape[-1]
        array = np.empty((stop - start, columns), RAW_DTYPES[tensor.dtype])
        self._file.read_into(array, tensor.offset + start * columns * array.itemsize)
        return array

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> ModelSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _directory(self) -> tuple[list[SourceTensor], dict[str, str]]:
        """Names and offsets, from a header that the library has passed.

        The library judges the file; the bytes are read here, because its NumPy interface has no FP8.
        """
        length = int.from_bytes(self._file.read(LENGTH_SIZE, 0), "little")
        header = json.loads(self._file.read(length, LENGTH_SIZE))
        metadata = header.pop("__metadata__", None) or {}
        tensors = []
        for name, entry in header.items():
            if not isinstance(entry, dict):  # the library takes a list of the values, too
                raise TritError("an entry that is no object", where=f"{self.path}: tensor {name!a}")
            start, _ = entry["data_offsets"]
            if entry["dtype"] not in RAW_DTYPES:
                message = f"dtype {entry['dtype']} has no place in a .trit file"
                raise TritError(message, clause="RAW-1", where=f"{self.path}: tensor {name!a}")
            offset = LENGTH_SIZE + length + start
            tensors.append(SourceTensor(name, entry["dtype"], tuple(entry["shape"]), offset))
        return sorted(tensors, key=lambda tensor: tensor.offset), metadata


def companions(folder: Path) -> list[Path]:
    """The files of a model *folder* that are no weights, relative to it: configuration, tokenizer."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and not _is_weights(path) and path.is_file():
                found.append(path.relative_to(folder))
    return found


def _is_weights(path: Path) -> bool:
    return path.suffix in WEIGHTS or path.name.endswith(".index.json")


def _weights(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / MODEL_NAME).is_file():
        return path / MODEL_NAME
    if (path / f"{MODEL_NAME}.index.json").is_file():
        raise TritError("the model is in several shards; name one of its .safetensors files", where=str(path))
    raise TritError(f"no {MODEL_NAME} in the folder", where=str(path))


def _judge(path: Path) -> None:
    try:
        with safetensors.safe_open(path, "numpy"):
            pass
    except safetensors.SafetensorError as error:
        raise TritError(f"not a valid safetensors file: {error}", where=str(path)) from None
