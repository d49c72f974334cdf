"""From `.trit` files back to a safetensors folder that stock loaders take, or to coarser `.trit` files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import TritError
from ..header import MAGIC, RAW_DTYPES, Entry, RawEntry
from ..layout import Segment
from ..reader import PathLike, TritFile, byte_view
from ..tensor import float_name
from ..writer import copy_truncated, truncate_file
from .folder import copy_companions, new_folder
from .index import INDEX_NAME, encode_index, index_bytes
from .shards import TritModel, model_file, open_model, read_shard, segments_of, trit_bands
from .source import LENGTH_SIZE, MODEL_NAME

CONFIG_NAME = "config.json"
DTYPE_KEYS = ("dtype", "torch_dtype")  # in it; the second is that of older models
TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
METADATA = "__metadata__"  # a name that safetensors reserves
BAND_WEIGHTS = 1 << 22  # weights read, decoded and written at once
Told = Callable[[str, int], None]  # a tensor that is done, and its weights


def dequantize_model(
    source: PathLike,
    target: PathLike,
    *,
    dtype: str | None = None,
    depth: int | None = None,
    progress: Told = lambda _name, _weights: None,
) -> None:
    """Write the folder *target* with safetensors files and the other files of the folder *source*.

    There is a file for each shard, and an index, or `model.safetensors` alone, as in
    *source*. Trit tensors get the *dtype* "F32", "F16" or "BF16", or each its own, and are cut to
    *depth* where that is given; raw ones stay as they are. A *dtype* is put into `config.json`, too, where
    that has one. Memory is for a few million
    weights, or five rows. The folder appears when it is complete. Raises TritError for damaged files or where
    *target* exists.
    """
    dtype = None if dtype is None else float_name(dtype)
    with open_model(source) as model, new_folder(Path(target)) as folder:
        copy_companions(folder_of(source), folder)
        if dtype is not None:
            _put_dtype(folder / CONFIG_NAME, dtype)
        size = 0
        for shard in model.shards:
            name = _safetensors_name(shard) if model.index else MODEL_NAME
            with model.shard(shard) as file, open(folder / name, "wb") as out:
                size += _write_safetensors(out, file, dtype, depth, progress)
        if model.index:
            (folder / f"{MODEL_NAME}.index.json").write_bytes(_safetensors_index(model, size))


def truncate_model(source: PathLike, target: PathLike, depth: int) -> None:
    """Write *target*, a file or folder like *source*, cut to *depth* trits a weight.

    A folder has the same shards again, with their index, and the other files of *source*. A `.trit`
    file that has the name *target* is replaced; TritError is raised for any other.
    """
    if folder_of(source) is None:
        _check_replaceable(Path(target))
        truncate_file(source, target, depth)
        return
    with open_model(source) as model, new_folder(Path(target)) as folder:
        copy_companions(folder_of(source), folder)
        for shard in model.shards:
            with model.shard(shard) as file:
                copy_truncated(file, folder / shard, depth)
        if model.index:
            shards = {shard: read_shard(folder / shard) for shard in model.shards}
            (folder / INDEX_NAME).write_bytes(encode_index(shards))


def _check_replaceable(target: Path) -> None:
    if target.is_file():
        with open(target, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                message = "exists, and is no .trit file; remove it or name another place"
                raise TritError(message, where=str(target))


def folder_of(source: PathLike) -> Path | None:
    """The folder that *source* means, by itself or its index; None for a lone file."""
    path = model_file(source)
    return path.parent if Path(source).is_dir() or path.name == INDEX_NAME else None


def _put_dtype(path: Path, dtype: str) -> None:
    """Let the configuration of the model say what dtype its weights have: stock loaders cast them to that."""
    try:
        config = json.loads(path.read_bytes())
        found = _replace_dtype(config, TORCH_DTYPES[dtype])
    except (FileNotFoundError, ValueError, RecursionError):  # none, or none that a loader would read
        return
    if found:
        path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _replace_dtype(config: Any, name: str) -> bool:
    """Put *name* in the place of every dtype in a *config*, and in those it holds; whether there is one."""
    if not isinstance(config, dict):
        return False
    found = [key for key in DTYPE_KEYS if config.get(key) in TORCH_DTYPES.values()]
    config.update(dict.fromkeys(found, name))
    return sum(_replace_dtype(value, name) for value in config.values()) + len(found) > 0  # in all of them


def _safetensors_name(shard: str) -> str:
    return Path(shard).with_suffix(".safetensors").name


def _safetensors_index(model: TritModel, size: int) -> bytes:
    """The index that stock loaders read: the shard of each tensor, and the bytes of all tensors."""
    weight_map = {name: _safetensors_name(model.shard_of(name)) for name in model.keys()}  # noqa: SIM118  # no mapping
    return index_bytes({"metadata": {"total_size": size}, "weight_map": weight_map})


def _write_safetensors(
    out: BinaryIO, file: TritFile, dtype: str | None, depth: int | None, progress: Told
) -> int:
    """Stream a safetensors file; the library's own writer wants all tensors in memory at once.

    Gives the bytes of all tensors.
    """
    entries = sorted(file.header.entries, key=lambda entry: -_itemsize(entry, dtype))  # keeps each aligned
    segments = segments_of(file)
    out.write(_header(entries, _metadata(file.metadata), dtype))
    for entry in entries:
        if entry.name == METADATA:
            raise TritError("safetensors has no tensor of that name", where=f"tensor {entry.name!a}")
        for block in _blocks(file, entry, segments[entry.name], dtype, depth):
            out.write(byte_view(block))
        progress(entry.name, math.prod(entry.shape))
    return sum(_size(entry, dtype) for entry in entries)


def _header(entries: list[Entry], metadata: Mapping[str, str], dtype: str | None) -> bytes:
    header: dict[str, Any] = {METADATA: metadata}
    end = 0
    for entry in entries:
        start, end = end, end + _size(entry, dtype)
        header[entry.name] = {
            "dtype": _dtype(entry, dtype),
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_SIZE)
    return len(text).to_bytes(LENGTH_SIZE, "little") + text


def _blocks(
    file: TritFile, entry: Entry, segments: list[Segment], dtype: str | None, depth: int | None
) -> Iterator[npt.NDArray[Any]]:
    """The decoded values of a tensor, block by block; after the last, every byte read has been checked."""
    if isinstance(entry, RawEntry):
        yield from file.blocks(segments[0])
        return
    for band in trit_bands(file, entry, segments, BAND_WEIGHTS, depth):
        try:
            values = band.dequantize(_dtype(entry, dtype))
        except TritError as error:
            raise error.at(f"tensor {entry.name!a}") from None
        yield np.asarray(values, values.dtype.newbyteorder("<"))


def _dtype(entry: Entry, dtype: str | None) -> str:
    return entry.dtype if dtype is None or isinstance(entry, RawEntry) else dtype


def _size(entry: Entry, dtype: str | None) -> int:
    return math.prod(entry.shape) * _itemsize(entry, dtype)


def _itemsize(entry: Entry, dtype: str | None) -> int:
    return RAW_DTYPES[_dtype(entry, dtype)].itemsize


def _metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in metadata.items() if not key.startswith("tritcodec.")}
    return {"format": "pt", **kept}  # stock loaders refuse a file without a format
