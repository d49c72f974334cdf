"""What the tests share: painted tensors, tiny files in memory, and ways to damage and repair them.

Files are built by `independent`, which knows nothing of the package, so that a
test compares the package with the document and not with itself.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import independent
import msgpack
import numpy as np
import numpy.typing as npt
import pytest

from tritcodec.errors import TritError
from tritcodec.reader import Source
from tritcodec.tensor import TritTensor

FORMS = [
    (depth, shift) for depth in range(1, 5) for shift in range(5 - depth)
]  # all that TEN-2 and TEN-3 allow
CYCLE = 83  # the prime above 81: levels meet every code, column and place in a byte
FIRST_STEP, STEP_BITS = (
    0x3C12_3440,
    0x0001_97C0,
)  # bit patterns, multiples of 64; 18 significant bits are in use

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]
U8 = npt.NDArray[np.uint8]
Value = Any  # of MessagePack


def float32(*patterns: int) -> F32:
    """The float32 numbers of these bit patterns."""
    return np.array(patterns, np.uint32).view(np.float32)


def steps(first: int = FIRST_STEP, by: int = STEP_BITS) -> F32:
    """27 steps whose bit patterns begin at *first* and grow by *by*."""
    return float32(*range(first, first + 27 * by, by))


def largest(depth: int) -> int:
    """H, by its definition: depth trits of +1."""
    return sum(3**p for p in range(depth))


def painted_levels(shape: tuple[int, ...], depth: int) -> I8:
    """Levels of *shape* that repeat only after CYCLE."""
    count, H = int(np.prod(shape, dtype=np.int64)), largest(depth)
    cycle = [(37 * i) % CYCLE % (2 * H + 1) - H for i in range(CYCLE)]
    return np.resize(np.array(cycle, np.int8), count).reshape(shape)


def painted_codes(shape: tuple[int, ...]) -> U8:
    """Codes of *shape* that repeat only after 29, the prime above 27."""
    count = int(np.prod(shape, dtype=np.int64))
    return np.resize(np.array([(11 * i) % 29 % 27 for i in range(29)], np.uint8), count).reshape(shape)


def painted(
    shape: tuple[int, ...] = (7, 21),
    depth: int = 2,
    *,
    group_size: int = 16,
    shift: int = 0,
    dtype: str = "F32",
    codebook: F32 | None = None,
) -> TritTensor:
    """A painted trit tensor."""
    return TritTensor.from_levels(
        painted_levels(shape, depth),
        painted_codes((*shape[:-1], -(-shape[-1] // group_size))),
        steps() if codebook is None else codebook,
        depth=depth,
        group_size=group_size,
        shift=shift,
        dtype=dtype,
    )


def plain(tensor: TritTensor) -> independent.Trit:
    """The same tensor in lists of integers."""
    levels = tensor.levels().reshape(-1, tensor.shape[-1]).tolist()
    return independent.Trit(
        list(tensor.shape),
        tensor.dtype,
        tensor.group_size,
        tensor.shift,
        tensor.codebook.view(np.uint32).tolist(),
        tensor.codes.reshape(len(levels), -1).tolist(),
        independent.planes_from(levels, tensor.depth),
    )


def same(first: TritTensor, second: object) -> bool:
    """Whether two tensors agree in every field and plane."""
    assert isinstance(second, TritTensor)
    fields = ["shape", "dtype", "depth", "shift", "group_size"]
    return (
        all(getattr(first, field) == getattr(second, field) for field in fields)
        and first.codebook.tobytes() == second.codebook.tobytes()
        and [plane.tobytes() for plane in first.planes] == [plane.tobytes() for plane in second.planes]
    )


def raw_entry(name: Any = "raw", **changes: Value) -> dict[str, Value]:
    """The entry of a raw tensor, changed; a key that is changed to None is left out."""
    entry, _ = independent.entry_of(name, independent.Raw([3], "U8", b"\1\2\3"))
    return changed(entry, changes)


def trit_entry(name: Any = "trit", **changes: Value) -> dict[str, Value]:
    """The entry of a trit tensor of depth 2, changed; a key that is changed to None is left out."""
    entry, _ = independent.entry_of(name, plain(painted()))
    return changed(entry, changes)


def header(*entries: Value, **changes: Value) -> dict[str, Value]:
    """The value of a header with *entries*, changed; a key that is changed to None is left out."""
    return changed({"metadata": {}, "tensors": list(entries), "version": [1, 0]}, changes)


def changed(value: dict[str, Value], changes: dict[str, Value]) -> dict[str, Value]:
    """*value* with *changes*; a key that is changed to None is left out."""
    return {key: item for key, item in {**value, **changes}.items() if item is not None}


def encode(value: Value) -> bytes:
    """MessagePack in shortest forms with sorted keys, of whatever types: not only those that are allowed."""
    data: bytes = msgpack.packb(_sorted(value), use_bin_type=True)
    return data


def _sorted(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: str(key).encode())}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def seal(header: Value, content: Sequence[bytes] = (), minor: int = 0) -> bytes:
    """A file of a header's value (or bytes) and segments, its sizes and the header's digest right."""
    encoded = header if isinstance(header, bytes) else encode(header)
    return independent.seal(encoded, list(content), (1, minor))


def patched(data: bytes, change: Callable[[dict[str, Value]], object]) -> bytes:
    """A valid file whose header's value was changed, everything else repaired: sizes, offsets, digest."""
    value, segments = independent.open_file(data)
    content = [data[segment.offset : segment.offset + segment.size] for segment in segments]
    change(value)
    return seal(value, content)


def redigested(data: bytes) -> bytes:
    """A file with the right digests for the segments that it has, whatever is in them."""

    def digest(value: dict[str, Value]) -> None:
        for segment, content in zip(segments, contents, strict=True):
            entry = next(entry for entry in value["tensors"] if entry["name"] == segment.entry["name"])
            if entry["kind"] == "raw":
                entry["sha256"] = sha256(content).digest()
            else:
                entry["sha256"][segment.index] = sha256(content).digest()

    _, segments = independent.open_file(data)
    contents = [data[segment.offset : segment.offset + segment.size] for segment in segments]
    return patched(data, digest)


def with_bytes(data: bytes, at: int, *values: int) -> bytes:
    """*data* with the bytes from *at* on replaced."""
    return data[:at] + bytes(values) + data[at + len(values) :]


def segment_of(data: bytes, name: str, index: int = 0) -> independent.Segment:
    """Where segment *index* of tensor *name* lies in a file."""
    _, segments = independent.open_file(data)
    return next(segment for segment in segments if (segment.entry["name"], segment.index) == (name, index))


@contextmanager
def refused(clause: str | None, where: str = "") -> Iterator[pytest.ExceptionInfo[TritError]]:
    """The block raises TritError with *clause*, and *where* is part of its place."""
    with pytest.raises(TritError) as caught:
        yield caught
    assert caught.value.clause == clause, caught.value
    assert where in caught.value.where
    assert str(caught.value).isprintable()  # nothing in it acts on a terminal


def noting(seen: list[object], what: Callable[..., object], call: Callable[..., Any]) -> Callable[..., Any]:
    """*call*, with a note in *seen* of every time that it is called: *what* makes of its arguments."""

    def noted(*arguments: Any, **options: Any) -> Any:
        seen.append(what(*arguments))
        return call(*arguments, **options)

    return noted


@contextmanager
def little_memory(limit: int = 1 << 18) -> Iterator[None]:
    """The block has no more than *limit* bytes of Python and NumPy memory at once."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= limit


def stored(folder: Path, data: bytes, name: str = "file.trit") -> Path:
    """The path of a file in *folder* that holds *data*."""
    path = folder / name
    path.write_bytes(data)
    return path


def record_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(offset, size) of every read of a file from now on, as it happens."""
    reads: list[tuple[int, int]] = []
    read_into = Source.read_into

    def recorded(self: Source, target: npt.NDArray[Any], offset: int) -> None:
        reads.append((offset, target.nbytes))
        read_into(self, target, offset)

    monkeypatch.setattr(Source, "read_into", recorded)
    return reads
