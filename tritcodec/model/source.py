"""Reading a model: a folder of safetensors shards, a folder with `model.safetensors`, or one file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from ..errors import TritError
from ..header import RAW_DTYPES
from ..reader import PathLike, Source
from .companions import NAMED, WEIGHTS, family, instead

MODEL_NAME = "model.safetensors"
INDEX_NAME = f"{MODEL_NAME}.index.json"
LENGTH_SIZE = 8  # safetensors: a little-endian u64 with the length of the JSON header stands first
ADVICE = {  # of a folder with other weights, by their suffixes
    ".trit": "is packed already: see dequantize",
    ".safetensors": NAMED,
    **dict.fromkeys(sorted(WEIGHTS - {".trit", ".safetensors"}), "is to be saved as safetensors first"),
}
SHARD_NAME = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors"
)  # a file of the folder, whatever the system


@dataclass(frozen=True)
class SourceTensor:
    """What the header of a safetensors file says of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int


@dataclass(frozen=True)
class Shard:
    """A safetensors file of the model: its tensors, in the order of the file, and what it is known by."""

    path: Path
    tensors: tuple[SourceTensor, ...]
    metadata: dict[str, str]
    size: int
    header: str  # SHA-256 of its header
    stamp: str  # see `stamp_of`


class ModelSource:
    """A model: where its weights are; `read_rows` reads them.

    `shards` has the files and `tensors` all that is in them, in their order.
    `folder` is None where a single file was named. Raises TritError for a file that is
    no valid safetensors file, and for shards that are missing or not what the index says.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.folder = self.path if self.path.is_dir() else None
        weight_map = None if self.folder is None else _weight_map(self.folder)
        files = [_weights(self.path)] if weight_map is None else _shard_files(self.path, weight_map)
        self.shards = [_shard(file) for file in files]
        self.tensors = [tensor for shard in self.shards for tensor in shard.tensors]
        _check_shards(self.shards, weight_map or {}, self.path)


def stamp_of(path: Path) -> str:
    """What changes whenever a file does: as long as it is the same, nothing has to be read again.

    The time of the last change of the content can be set back; that of the inode cannot.
    """
    status = os.stat(path)
    return f"{status.st_ino}.{status.st_mtime_ns}.{status.st_ctime_ns}"


def will_read(tensor: SourceTensor, start: int = 0, stop: int | None = None) -> None:
    """Let the system read rows [start, stop) of *tensor* from disk meanwhile, where it takes such advice."""
    if not hasattr(os, "posix_fadvise"):
        return
    row = math.prod(tensor.shape[-1:]) * RAW_DTYPES[tensor.dtype].itemsize
    size = ((rows_of(tensor) if stop is None else stop) - start) * row
    if not size:  # which would stand for all that follows in the file
        return
    with contextlib.suppress(OSError), open(tensor.path, "rb", buffering=0) as file:  # reading says why
        os.posix_fadvise(file.fileno(), tensor.offset + start * row, size, os.POSIX_FADV_WILLNEED)


def read_rows(tensor: SourceTensor, start: int, stop: int) -> npt.NDArray[Any]:
    """Rows [start, stop) of *tensor*, seen as (rows, K), K its last axis; a scalar is one row of one."""
    columns, dtype = tensor.shape[-1] if tensor.shape else 1, RAW_DTYPES[tensor.dtype]
    size = columns * dtype.itemsize
    data = read_bytes(tensor, start * size, (stop - start) * size)
    return data.view(dtype).reshape(stop - start, columns)


def read_bytes(tensor: SourceTensor, start: int, size: int) -> npt.NDArray[np.uint8]:
    """Of the bytes of *tensor*, *size* from *start* on."""
    data = np.empty(size, np.uint8)
    file = Source(tensor.path)  # to open it costs nothing beside reading, and nothing stays open
    try:
        file.read_into(data, tensor.offset + start)
    finally:
        file.close()
    return data


def read_tensor(tensor: SourceTensor) -> npt.NDArray[Any]:
    """The whole of *tensor*."""
    return read_rows(tensor, 0, rows_of(tensor)).reshape(tensor.shape)


def rows_of(tensor: SourceTensor) -> int:
    """The product of the leading axes: 1 for rank 0 and 1."""
    return math.prod(tensor.shape[:-1])


def _weights(path: Path) -> Path:
    """The one file with weights that *path* names."""
    if not path.is_dir():
        return path
    if (path / MODEL_NAME).is_file():
        return path / MODEL_NAME
    message = f"neither {MODEL_NAME} nor {INDEX_NAME} in the folder{instead(path, ADVICE)}"
    raise TritError(message, where=str(path))


def _weight_map(folder: Path) -> dict[str, str] | None:
    """Tensor name -> shard, from the index of *folder*; None where there is none, or a single file is."""
    path = folder / INDEX_NAME
    if (folder / MODEL_NAME).is_file() or not path.is_file():
        return None
    try:
        index = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TritError(f"no JSON: {error}", where=str(path)) from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise TritError("no weight_map from names to files in the index", where=str(path))
    if not weight_map:
        raise TritError("the index names no tensor", where=str(path))
    for name, file in weight_map.items():
        if not SHARD_NAME.fullmatch(file):
            message = f"tensor {name[:80]!a} is in {file[:80]!a}, which is no name of a .safetensors file"
            raise TritError(message, where=str(path))
    return weight_map


def _shard_files(folder: Path, weight_map: Mapping[str, str]) -> list[Path]:
    """The shards, in the order of their names, all of them there."""
    files = [folder / name for name in sorted(set(weight_map.values()))]
    _check_siblings(folder, {file.name for file in files})
    missing = [file.name for file in files if not file.exists()]
    if missing:
        message = f"{len(missing)} of {len(files)} shards are missing, {missing[0]} the first"
        raise TritError(message, where=str(folder))
    return files


def _check_siblings(folder: Path, named: set[str]) -> None:
    """Raise TritError for a shard in *folder* that is named like those of the index, but not by it.

    One without tensors is none that an index would name.
    """
    families = {family(name) for name in named} - {None}
    for name in sorted(os.listdir(folder)):
        if family(name) in families and name not in named and not _is_empty(folder / name):
            message = f"{name} is in the folder, and the index does not name it; add it or move it away"
            raise TritError(message, where=str(folder / INDEX_NAME))


def _is_empty(path: Path) -> bool:
    with contextlib.suppress(TritError, OSError):  # whatever is wrong with it, it is not part of the model
        return not _shard(path).tensors
    return False


def _check_shards(shards: Sequence[Shard], weight_map: Mapping[str, str], where: Path) -> None:
    """Raise TritError where a tensor is in two shards, or not in that which the index names."""
    found: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in found:
                message = (
                    f"tensor {tensor.name!a} is in two shards, {found[tensor.name]} and {shard.path.name}"
                )
                raise TritError(message, where=str(where))
            found[tensor.name] = shard.path.name
    for name, file in weight_map.items():
        if found.get(name) != file:
            message = f"the index says that {file} holds tensor {name[:80]!a}, and it does not"
            raise TritError(message, where=str(where))


def _shard(path: Path) -> Shard:
    """A file, its header read and judged."""
    file = Source(path)
    try:
        _judge(file)
        length = int.from_bytes(file.read(LENGTH_SIZE, 0), "little")
        header = file.read(length, LENGTH_SIZE)
        tensors, metadata = _directory(path, header)
        stamp = stamp_of(path)
        return Shard(path, tensors, metadata, file.length, sha256(header).hexdigest(), stamp)
    finally:
        file.close()


def _directory(path: Path, header: bytes) -> tuple[tuple[SourceTensor, ...], dict[str, str]]:
    """Names and offsets, from a header that the library has passed.

    The library judges the file; the bytes are read here, because its NumPy interface has no FP8.
    """
    entries = json.loads(header)
    metadata = entries.pop("__metadata__", None) or {}
    tensors = []
    for name, entry in entries.items():
        if not isinstance(entry, dict):  # the library takes a list of the values, too
            raise TritError("an entry that is no object", where=f"{path}: tensor {name!a}")
        start, _ = entry["data_offsets"]
        if entry["dtype"] not in RAW_DTYPES:
            message = f"dtype {entry['dtype']} has no place in a .trit file"
            raise TritError(message, clause="RAW-1", where=f"{path}: tensor {name!a}")
        offset = LENGTH_SIZE + len(header) + start
        tensors.append(SourceTensor(name, entry["dtype"], tuple(entry["shape"]), path, offset))
    return tuple(sorted(tensors, key=lambda tensor: tensor.offset)), metadata


def _judge(file: Source) -> None:
    try:
        with safetensors.safe_open(file.path, "numpy"):
            pass
    except safetensors.SafetensorError as error:
        message = f"not a valid safetensors file: {error}{_cut_off(file)}"
        raise TritError(message, where=str(file.path)) from None


def _cut_off(file: Source) -> str:
    """In words, the first tensor that lies beyond the end of a *file*, as far as its header says so."""
    length = int.from_bytes(file.read(min(LENGTH_SIZE, file.length), 0), "little")
    if length > file.length - LENGTH_SIZE:
        return ""
    with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError):
        entries = json.loads(file.read(length, LENGTH_SIZE))
        ends = {name: entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"}
        beyond = [name for name, end in ends.items() if LENGTH_SIZE + length + end > file.length]
        if beyond:
            return f"; the file ends before tensor {min(beyond, key=ends.__getitem__)[:80]!a} does"
    return ""
