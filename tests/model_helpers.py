"""What the tests of model folders and of the command line share: safetensors files made and read by hand.

The library that the package judges files with makes none here, so that every
dtype, name and fault of the format can be written down.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import safetensors

from tritcodec.header import RAW_DTYPES
from tritcodec.model.plan import config_of
from tritcodec.model.policy import Policy
from tritcodec.model.run import Job, Progress, quantize_model, silent
from tritcodec.model.source import ModelSource
from tritcodec.model.tasks import Recipe
from tritcodec.model.workers import Inline

MINILM = Path(__file__).resolve().parents[1] / "fixtures" / "minilm"
CONFIGS = [f"uniform-d{depth}" for depth in (1, 2, 3, 4)]
MODEL, TRIT = "model.safetensors", "model.trit"

CYCLE = 251  # the greatest prime of a byte: coprime to 5 rows a byte, to 27 codes and to groups of 16
DTYPES: dict[str, Any] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}


class Stored(NamedTuple):
    """A tensor as safetensors holds it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def values(*shape: int) -> npt.NDArray[np.float64]:
    """Weights of *shape* that repeat only after CYCLE and are exact in every dtype: -125/128 to 125/128."""
    count = int(np.prod(shape, dtype=np.int64))
    return ((np.arange(count) * 37 % CYCLE - 125) / 128).reshape(shape)


def weights(*shape: int, dtype: str = "F32") -> Stored:
    """Painted weights."""
    return floats(values(*shape), dtype)


def floats(array: npt.ArrayLike, dtype: str = "F32") -> Stored:
    """The numbers of *array*, in *dtype*."""
    array = np.asarray(array, np.float64)
    with np.errstate(over="ignore"):
        return Stored(dtype, array.shape, array.astype(DTYPES[dtype]).tobytes())


def framed(header: Mapping[str, object] | str | bytes, data: bytes = b"") -> bytes:
    """A safetensors file of any header, well made or not."""
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    text = text.encode() if isinstance(text, str) else text
    return len(text).to_bytes(8, "little") + text + data


def safetensors_bytes(tensors: Mapping[str, Stored], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file, its tensors in the order given, one after the other."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, tensor in tensors.items():
        offsets = [len(data), len(data) + len(tensor.data)]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data += tensor.data
    return framed(header, data)


def library_takes(dtype: str) -> bool:
    """Whether the safetensors that is installed knows *dtype*: its older versions lack C64 and F8_E8M0."""
    stored = Stored(dtype, (), bytes(RAW_DTYPES[dtype].itemsize))
    try:
        safetensors.deserialize(safetensors_bytes({"x": stored}))  # type: ignore[no-untyped-call]  # not typed
    except safetensors.SafetensorError:
        return False
    return True


def write_model(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str] | None = None) -> Path:
    """A folder at *path* with model.safetensors, or that one file where *path* ends so; gives *path*."""
    file = path if path.suffix == ".safetensors" else path / MODEL
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(safetensors_bytes(tensors, metadata))
    return path


def convert(
    source: Path,
    target: Path,
    configs: Sequence[str] = ("uniform-d2",),
    policy: Policy | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Path:
    """Quantise a model, with the recipe's policy unless another is given; gives *target*."""
    quantize_model(job(source, configs, policy, **options), target, Inline(), progress=progress)
    return target


def job(source: Path, configs: Sequence[str], policy: Policy | None = None, **options: Any) -> Job:
    """What to make of a model."""
    recipe = replace(Recipe(16, "optimal", False), **options)
    return Job(ModelSource(source), [config_of(config) for config in configs], policy or Policy(), recipe)


def read_safetensors(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Tensors and metadata of a safetensors file; each tensor begins at a multiple of its item's size."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata: dict[str, str] = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        itemsize = (end - begin) // max(1, int(np.prod(shape, dtype=np.int64)))
        assert not itemsize or (start + begin) % itemsize == 0, f"{name} is not aligned"
        tensors[name] = Stored(entry["dtype"], shape, data[start + begin : start + end])
    return tensors, metadata


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything under *folder*, hidden or not: the bytes of files, None for folders and the like."""
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """The block leaves everything under *folder* as it was, and nothing more."""
    before = tree(folder)
    yield
    assert tree(folder) == before
