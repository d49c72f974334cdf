"""From a `.trit` file back to a safetensors folder that stock loaders take, or to a coarser `.trit`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import TritError
from ..header import RAW_DTYPES, Entry, RawEntry
from ..reader import PathLike, TritFile, byte_view, open_file
from ..tensor import float_name
from ..writer import truncate_file
from .folder import copy_companions, new_folders
from .index import TRIT_NAME
from .source import LENGTH_SIZE, MODEL_NAME

METADATA = "__metadata__"  # a name that safetensors reserves
BAND_WEIGHTS = 1 << 22  # weights decoded and written at once
Told = Callable[[str, int], None]  # a tensor that is done, and its weights


def trit_path(path: PathLike) -> Path:
    """The `.trit` file that *path* names: itself, or `model.trit` in a folder."""
    path = Path(path)
    return path / TRIT_NAME if path.is_dir() else path


def dequantize_model(
    source: PathLike,
    target: PathLike,
    *,
    dtype: str | None = None,
    depth: int | None = None,
    progress: Told = lambda _name, _weights: None,
) -> None:
    """Write the folder *target* with `model.safetensors` and the other files of the folder *source*.

    Trit tensors get the *dtype* "F32", "F16" or "BF16", or each its own, and are cut to
    *depth* where that is given; raw ones stay as they are. The folder appears
    when it is complete. Raises TritError for a damaged file or where *target* exists.
    """
    path = trit_path(source)
    with open_file(path) as file, new_folders([Path(target)]) as [folder]:
        copy_companions(path.parent if Path(source).is_dir() else None, folder)
        with open(folder / MODEL_NAME, "wb") as out:
            _write_safetensors(out, file, dtype, depth, progress)
            out.flush()
            os.fsync(out.fileno())


def truncate_model(source: PathLike, target: PathLike, depth: int) -> None:
    """Write *target*, a file or folder like *source*, cut to *depth* trits a weight."""
    if not Path(source).is_dir():
        truncate_file(source, target, depth)
        return
    with new_folders([Path(target)]) as [folder]:
        copy_companions(Path(source), folder)
        truncate_file(trit_path(source), folder / TRIT_NAME, depth)


def _write_safetensors(
    out: BinaryIO, file: TritFile, dtype: str | None, depth: int | None, progress: Told
) -> None:
    """Stream a safetensors file; the library's own writer wants all tensors in memory at once."""
    entries = sorted(file.header.entries, key=lambda entry: -_itemsize(entry, dtype))  # keeps each aligned
    out.write(_header(entries, _metadata(file.metadata), dtype))
    for entry in entries:
        if entry.name == METADATA:
            raise TritError("safetensors has no tensor of that name", where=f"tensor {entry.name!a}")
        for block in _blocks(file, entry, dtype, depth):
            out.write(byte_view(block))
        progress(entry.name, math.prod(entry.shape))


def _header(entries: list[Entry], metadata: Mapping[str, str], dtype: str | None) -> bytes:
    header: dict[str, Any] = {METADATA: metadata}
    end = 0
    for entry in entries:
        start, end = end, end + math.prod(entry.shape) * _itemsize(entry, dtype)
        header[entry.name] = {
            "dtype": _dtype(entry, dtype),
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_SIZE)
    return len(text).to_bytes(LENGTH_SIZE, "little") + text


def _blocks(file: TritFile, entry: Entry, dtype: str | None, depth: int | None) -> Iterator[npt.NDArray[Any]]:
    """The decoded values of a tensor, in bands of rows; every byte read has been checked."""
    tensor = file.get_tensor(entry.name, depth)
    if isinstance(tensor, np.ndarray):
        yield tensor
        return
    rows = math.prod(entry.shape[:-1])
    step = max(1, BAND_WEIGHTS // entry.shape[-1])
    for start in range(0, rows, step):
        try:
            band = tensor.get_rows(start, min(start + step, rows)).dequantize(_dtype(entry, dtype))
        except TritError as error:
            raise error.at(f"tensor {entry.name!a}") from None
        yield np.asarray(band, band.dtype.newbyteorder("<"))


def _dtype(entry: Entry, dtype: str | None) -> str:
    return entry.dtype if dtype is None or isinstance(entry, RawEntry) else float_name(dtype)


def _itemsize(entry: Entry, dtype: str | None) -> int:
    return RAW_DTYPES[_dtype(entry, dtype)].itemsize


def _metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in metadata.items() if not key.startswith("tritcodec.")}
    return {"format": "pt", **kept}  # stock loaders refuse a file without a format
