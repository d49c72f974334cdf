"""SPEC 8.2: files written in any order, complete or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import independent
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from helpers import noting, painted, plain, redigested, refused, same, segment_of, steps, stored, with_bytes
from hypothesis import given
from hypothesis import strategies as st
from strategies import names, quick, raw_arrays, tensors

from tritcodec import (
    TritError,
    TritTensor,
    TritWriter,
    load_file,
    open_file,
    save_file,
    truncate_file,
    verify_file,
    writer,
)
from tritcodec.header import RAW_DTYPES, Entry, RawEntry, encode_header
from tritcodec.reader import Tensor
from tritcodec.writer import describe, raw_dtype

TENSORS: dict[str, Tensor] = {
    "deep": painted((23, 37), 4, dtype="BF16"),
    "flat": painted((11, 16), 1, shift=2),
    "bias": np.arange(7, dtype=np.float32),
    "mask": np.arange(12).reshape(3, 4) % 3 == 0,
    "none": np.zeros((3, 0), np.int16),
    "one": np.array(-5, np.int64),
}
METADATA = {"format": "pt", "a": "é"}


def saved(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes that `save_file` writes, into a folder that has nothing else."""
    save_file(tensors, folder / "saved.trit", metadata)
    return (folder / "saved.trit").read_bytes()


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """The block leaves *folder* as it was: no new file, and every old one with its bytes."""

    def content() -> dict[str, bytes]:
        return {place.name: place.read_bytes() for place in folder.iterdir() if place.is_file()}

    before = content()
    yield
    assert content() == before


def by_hand(tensors: dict[str, Tensor]) -> dict[str, independent.Trit | independent.Raw]:
    """The same tensors for the independent writer."""
    return {
        name: plain(tensor)
        if isinstance(tensor, TritTensor)
        else independent.Raw(list(tensor.shape), raw_dtype(name, tensor.dtype), little_endian(tensor))
        for name, tensor in tensors.items()
    }


def little_endian(array: npt.NDArray[Any]) -> bytes:
    """The bytes of an array in C order, those of each element from the least significant."""
    parts = 2 if array.dtype.kind == "c" else 1
    width = array.dtype.itemsize // parts
    data = array.tobytes()
    if array.dtype.byteorder == ">":
        data = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
    return data


# Bytes


def test_the_bytes_are_those_of_the_document(tmp_path: Path) -> None:
    """A file of both kinds of tensor is, byte for byte, what an independent writer makes."""
    assert saved(tmp_path, TENSORS, METADATA) == independent.write(by_hand(TENSORS), METADATA)


@quick
@given(
    st.dictionaries(names(), tensors() | st.sampled_from(sorted(RAW_DTYPES)).flatmap(raw_arrays), max_size=4),
    st.dictionaries(names(), st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
)
def test_any_file_comes_back(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor], metadata: dict[str, str]
) -> None:
    """Whatever is saved is valid, comes back with every bit, and is what an independent writer makes."""
    folder = tmp_path_factory.mktemp("any")
    assert saved(folder, tensors, metadata) == independent.write(by_hand(tensors), metadata)
    loaded = load_file(folder / "saved.trit")
    assert list(loaded) == sorted(tensors)
    for name, tensor in tensors.items():
        found = loaded[name]
        if isinstance(tensor, TritTensor):
            assert same(tensor, found)
        else:
            assert isinstance(found, np.ndarray)
            assert (found.dtype, found.shape, found.tobytes()) == (
                tensor.dtype,
                tensor.shape,
                tensor.tobytes(),
            )
    assert verify_file(folder / "saved.trit").ok


@pytest.mark.parametrize("dtype", RAW_DTYPES)
def test_every_bit_of_a_raw_tensor_is_kept(tmp_path: Path, dtype: str) -> None:
    """All values of a byte in every place of an element, NaN with payloads among them, come back."""
    stored_as = RAW_DTYPES[dtype]
    patterns = [0, 1] if dtype == "BOOL" else list(range(256))
    data = bytes(value if place == at else 0xFF if fill else 0x7F if place == stored_as.itemsize - 1 else 0
                 for at in range(stored_as.itemsize) for fill in ([0] if dtype == "BOOL" else [0, 1])
                 for value in patterns for place in range(stored_as.itemsize))  # fmt: skip
    array = np.frombuffer(data, stored_as)
    saved(tmp_path, {"a": array})
    found = load_file(tmp_path / "saved.trit")["a"]
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.tobytes()) == (stored_as, data)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    "dtype", [dtype for dtype, stored_as in RAW_DTYPES.items() if stored_as.itemsize > 1 and dtype != "BF16"]
)
def test_any_byte_order_is_taken(tmp_path: Path, dtype: str, order: Literal["little", "big"]) -> None:
    """Elements are stored little-endian with all their bits, signalling NaN too, whatever their order was."""
    stored_as = RAW_DTYPES[dtype]
    data = np.random.default_rng(5).integers(0, 256, 64 * stored_as.itemsize, np.uint8)
    data[: stored_as.itemsize] = [0x01] * (stored_as.itemsize - 2) + [
        0xA0,
        0x7F,
    ]  # a signalling NaN of binary32
    array = data.view(stored_as).reshape(8, 8)
    source = array.view(array.dtype.newbyteorder(order))
    if order == "big":
        source = array.byteswap().view(array.dtype.newbyteorder(">"))
    assert saved(tmp_path, {"a": source}) == independent.write(
        {"a": independent.Raw([8, 8], dtype, data.tobytes())}
    )


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::-1, ::2],
        np.asfortranarray,
        lambda a: np.broadcast_to(a[:1], (3, 6)),
        lambda a: a[1, 2],
        lambda a: a[:, :0],
    ],
    ids=["transposed", "strided", "Fortran order", "broadcast", "scalar", "empty"],
)
def test_any_strides_are_taken(tmp_path: Path, view: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
    """Elements are stored in C order, whatever their order in memory."""
    array = view(np.arange(24, dtype=np.float64).reshape(4, 6))
    assert saved(tmp_path, {"a": array}) == saved(tmp_path, {"a": np.array(array, order="C")})
    found = load_file(tmp_path / "saved.trit")["a"]
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, array)
    assert found.shape == np.shape(array)


@pytest.mark.parametrize(
    "dtype",
    [
        "S3",
        "U3",
        "O",
        "M8[s]",
        "m8",
        "V4",
        "c16",
        "longdouble",
        "i4,i4",
        ml_dtypes.int4,
        ml_dtypes.float8_e4m3b11fnuz,
    ],
    ids=str,
)
def test_other_dtypes_are_refused(tmp_path: Path, dtype: npt.DTypeLike) -> None:
    """An array whose dtype the table of SPEC 6.4 lacks is refused with RAW-1, and its tensor named."""
    with nothing_left(tmp_path), refused("RAW-1", "tensor 'x'") as caught:
        save_file({"a": np.zeros(3), "x": np.zeros(3, dtype)}, tmp_path / "new.trit")
    assert str(np.dtype(dtype)) in caught.value.message


def test_the_order_of_tensors_does_not_matter(tmp_path: Path) -> None:
    """The same tensors and metadata give the same bytes in whatever order they come."""
    expected = saved(tmp_path, TENSORS, METADATA)
    for order in itertools.islice(itertools.permutations(TENSORS), 0, None, 37):
        shuffled = {name: TENSORS[name] for name in order}
        assert saved(tmp_path, shuffled, dict(reversed(METADATA.items()))) == expected


def test_numpy_integers_in_a_form(tmp_path: Path) -> None:
    """Fields given as integers of NumPy, and rows counted by them, are written like those of Python."""
    levels, codes = np.ones((6, 5), np.int8), np.ones((6, 2), np.uint8)
    fields = {"depth": 2, "shift": 1, "group_size": 3}
    counted: dict[str, Any] = {name: np.int64(value) for name, value in fields.items()}
    made = [TritTensor.from_levels(levels, codes, steps(), **given) for given in (fields, counted)]
    assert saved(tmp_path, {"a": made[0]}) == saved(tmp_path, {"a": made[1]})
    raws = [RawEntry("a", "U8", (kind(3),)) for kind in (int, np.int64)]
    assert encode_header(raws[:1], {}) == encode_header(raws[1:], {})
    rows = made[0].get_rows(np.int64(1), np.int64(3))
    assert saved(tmp_path, {"a": rows}) == saved(tmp_path, {"a": made[0].get_rows(1, 3)})


def test_the_smallest_file(tmp_path: Path) -> None:
    """No tensors and no metadata make a file of 128 bytes (appendix A)."""
    data = saved(tmp_path, {})
    assert (len(data), data) == (128, independent.write({}))


@pytest.mark.parametrize(("name", "metadata", "clause"), [
    ("", {}, "NAME-1"),
    ("x" * 513, {}, "NAME-1"),
    ("a\nb", {}, "NAME-2"),
    ("\ud800", {}, "MP-4"),
    (1, {}, "TYPE-1"),
    (None, {}, "TYPE-1"),
    ("a", {"": ""}, "NAME-1"),
    ("a", {"k\x7f": ""}, "NAME-2"),
    ("a", {"k": "\ud800"}, "MP-4"),
    ("a", {"k": 1}, "TYPE-1"),
    ("a", {"k": None}, "TYPE-1"),
    ("a", {1: "v"}, "TYPE-1"),
    ("a", {"k": "v" * (2**20 + 1)}, "HDR-6"),
], ids=lambda value: ascii(value)[:20])  # fmt: skip
def test_bad_names_and_metadata_are_refused(tmp_path: Path, name: Any, metadata: Any, clause: str) -> None:
    """What a reader would refuse is refused with the clause that it breaks, and nothing is written."""
    with nothing_left(tmp_path), refused(clause):
        save_file({name: np.zeros(3)}, tmp_path / "new.trit", metadata)


# The writer itself


def entries_of(tensors: dict[str, Tensor]) -> list[Entry]:
    """The directory of *tensors*."""
    return [describe(name, tensor) for name, tensor in tensors.items()]


def parts_of(tensors: dict[str, Tensor]) -> list[tuple[str, int, npt.NDArray[Any]]]:
    """Every segment of *tensors*: name, part, content."""
    return [
        (name, part, np.ascontiguousarray(plane))
        for name, tensor in tensors.items()
        for part, plane in enumerate(tensor.planes if isinstance(tensor, TritTensor) else [tensor])
    ]


@pytest.mark.parametrize("seed", range(5))
def test_segments_come_in_any_order(tmp_path: Path, seed: int) -> None:
    """Segment by segment in any order, whole or in chunks, the bytes are those of `save_file`."""
    parts = parts_of(TENSORS)
    random.Random(seed).shuffle(parts)
    with TritWriter(tmp_path / "new.trit", entries_of(TENSORS), METADATA) as target:
        for name, part, content in parts:
            chunks = np.array_split(content.reshape(-1), seed + 1)
            digest = target.write(name, part, chunks)
            assert len(digest) == 32
    assert (tmp_path / "new.trit").read_bytes() == saved(tmp_path, TENSORS, METADATA)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_missing_segment(tmp_path: Path, count: int) -> None:
    """A file whose segments did not all come is an error, and nothing is left of it."""
    with (
        nothing_left(tmp_path),
        refused(None) as caught,
        TritWriter(tmp_path / "new.trit", entries_of(TENSORS)) as target,
    ):
        for name, part, content in parts_of(TENSORS)[:count]:
            target.write(name, part, [content])
    assert str(len(parts_of(TENSORS)) - count) in caught.value.message


@pytest.mark.parametrize("chunks", [[6], [8], [7, 1], [], [3, 3], [0], [100], [2**20]], ids=str)
def test_a_segment_of_another_size(tmp_path: Path, chunks: list[int]) -> None:
    """Too many or too few bytes for a segment are an error that names it, and nothing is left."""
    entries: list[Entry] = [RawEntry("a", "U8", (7,)), RawEntry("b", "U8", (7,))]
    with (
        nothing_left(tmp_path),
        refused(None, "tensor 'a'") as caught,
        TritWriter(tmp_path / "new.trit", entries) as target,
    ):
        target.write("b", 0, [np.full(7, 2, np.uint8)])
        target.write("a", 0, [np.full(size, 1, np.uint8) for size in chunks])
    assert "7" in caught.value.message


def test_no_more_than_a_segment_is_taken(tmp_path: Path) -> None:
    """Chunks are not asked for beyond the size of the segment: they may come without end."""
    chunks = iter([np.ones(3, np.uint8)] * 100)
    with (
        nothing_left(tmp_path),
        refused(None),
        TritWriter(tmp_path / "new.trit", [RawEntry("a", "U8", (7,))]) as target,
    ):
        target.write("a", 0, chunks)
    assert len(list(chunks)) >= 97


def test_a_segment_that_was_refused_does_not_count(tmp_path: Path) -> None:
    """Whoever goes on after an error gets no file with the wrong bytes under the right digest."""
    entries: list[Entry] = [RawEntry("a", "U8", (7,)), RawEntry("b", "U8", (7,))]
    with nothing_left(tmp_path), refused(None), TritWriter(tmp_path / "new.trit", entries) as target:
        target.write("a", 0, [np.full(7, 1, np.uint8)])
        target.write("b", 0, [np.full(7, 2, np.uint8)])
        with pytest.raises(TritError):
            target.write("a", 0, [np.full(5, 3, np.uint8)])
    with TritWriter(tmp_path / "new.trit", entries) as target:
        with pytest.raises(TritError):
            target.write("a", 0, [np.full(8, 3, np.uint8)])
        target.write("a", 0, [np.full(7, 1, np.uint8)])
        target.write("b", 0, [np.full(7, 2, np.uint8)])
    assert verify_file(tmp_path / "new.trit").ok


@pytest.mark.parametrize(("name", "part"), [("missing", 0), ("bias", 1), ("bias", -1), ("deep", 7), ("", 0)])
def test_a_segment_that_is_not_in_the_directory(tmp_path: Path, name: str, part: int) -> None:
    """A name or part that the directory lacks is refused as a TritError that shows it."""
    with (
        nothing_left(tmp_path),
        refused(None) as caught,
        TritWriter(tmp_path / "new.trit", entries_of(TENSORS)) as target,
    ):
        target.write(name, part, [])
    assert ascii(name) in str(caught.value)


@pytest.mark.parametrize(("planned", "put"), [
    (np.zeros(6, np.float32), np.zeros(6, np.int32)),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.zeros(6, np.uint8), np.zeros(7, np.uint8)),
    (np.zeros(6, np.uint8), painted()),
    (painted(), np.zeros((7, 21))),
    (painted(), painted(depth=3)),
    (painted(dtype="F16"), painted(dtype="BF16")),
    (painted(shift=1), painted(shift=0)),
    (painted(group_size=16), painted(group_size=15)),
], ids=["dtype", "shape", "size", "kind", "kind too", "depth", "float", "shift", "group size"])  # fmt: skip
def test_a_tensor_other_than_planned(tmp_path: Path, planned: Tensor, put: Tensor) -> None:
    """`put` takes just what the directory says, even where the bytes would fit, and names the tensor."""
    with (
        nothing_left(tmp_path),
        refused(None, "tensor 'a'"),
        TritWriter(tmp_path / "new.trit", [describe("a", planned)]) as target,
    ):
        target.put("a", put)


@pytest.mark.parametrize(
    ("data", "clause"), [(b"\xff" * 42, "PACK-2"), (bytes(42), "PACK-3")], ids=["bytes", "padding"]
)
def test_planes_that_are_none(tmp_path: Path, data: bytes, clause: str) -> None:
    """Bytes that are no trits cannot be written as a plane: every file produced conforms (SPEC 1.3)."""
    with (
        nothing_left(tmp_path),
        refused(clause, "tensor 'a'"),
        TritWriter(tmp_path / "new.trit", [describe("a", painted())]) as target,
    ):
        for part, plane in enumerate(painted().planes[:4]):
            target.write("a", part, [plane])
        target.write("a", 4, [np.frombuffer(data, np.uint8)])


def test_booleans_that_are_none(tmp_path: Path) -> None:
    """A boolean array whose bytes are neither 0 nor 1 is not written (RAW-2)."""
    with nothing_left(tmp_path), refused("RAW-2", "tensor 'a'"):
        save_file({"a": np.frombuffer(b"\0\1\2", np.bool_)}, tmp_path / "new.trit")


# Nothing or all


@pytest.mark.parametrize("previous", [None, b"previous"])
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_an_exception_leaves_nothing(
    tmp_path: Path, kind: type[BaseException], previous: bytes | None
) -> None:
    """Whatever is raised in the block passes through, leaves no file, and keeps the one there was."""
    if previous:
        stored(tmp_path, previous, "new.trit")

    def interrupted() -> None:
        with TritWriter(tmp_path / "new.trit", entries_of(TENSORS)) as target:
            for name, part, content in parts_of(TENSORS)[:5]:
                target.write(name, part, [content])
            raise kind("on purpose")

    with nothing_left(tmp_path), pytest.raises(kind, match="on purpose"):
        interrupted()


def test_the_name_appears_last(tmp_path: Path) -> None:
    """While the block runs, the final name does not exist, or has its previous content (WRITE-1)."""
    final = tmp_path / "new.trit"
    for previous in (None, b"previous"):
        if previous:
            final.write_bytes(previous)
        else:
            final.unlink(missing_ok=True)
        with TritWriter(final, entries_of(TENSORS)) as target:
            for name, part, content in parts_of(TENSORS):
                target.write(name, part, [content])
                assert (final.read_bytes() if final.exists() else None) == previous
        assert verify_file(final).ok
        assert os.listdir(tmp_path) == ["new.trit"]


def test_a_file_is_flushed_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole file, under another name in the same folder, is flushed, and then renamed (WRITE-3)."""
    final, steps = tmp_path / "new.trit", []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        steps.append(("flush", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))
        fsync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        steps.append(("rename", old.stat().st_ino, old.stat().st_size))
        assert (old.parent, new) == (tmp_path, final)
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    save_file(TENSORS, final)
    whole = (final.stat().st_ino, final.stat().st_size)
    assert steps[:2] == [("flush", *whole), ("rename", *whole)]


def full(*_: object) -> None:
    """What a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """An error when the file is flushed or renamed passes through and leaves only the previous file."""
    stored(tmp_path, b"previous", "new.trit")
    monkeypatch.setattr(os, call, full)
    with nothing_left(tmp_path), pytest.raises(OSError, match="No space left"):
        save_file(TENSORS, tmp_path / "new.trit")


def test_a_folder_that_cannot_be_flushed_takes_no_file_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems refuse it, and the folder may not be readable; the file has got its name before."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    save_file(TENSORS, tmp_path / "new.trit")
    assert verify_file(tmp_path / "new.trit").ok


@pytest.mark.parametrize("name", ["model.trit", "中" * 80, "x" * 255])
def test_a_file_that_is_being_written_has_a_name_that_tells(tmp_path: Path, name: str) -> None:
    """Hidden, with the name to come, as far as there is room for it: a kill may leave it behind."""
    with TritWriter(tmp_path / name, []):
        (found,) = os.listdir(tmp_path)
        assert found.startswith(f".{name[:50]}.")
        assert found.endswith(".tmp")
    assert os.listdir(tmp_path) == [name]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files cannot grow beyond *size* bytes: the system really refuses to write."""
    resource = pytest.importorskip("resource", reason="the system has no limits")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 1, 64, 700, 1000, 4096, 2**16])
def test_a_disk_that_is_full_in_the_middle(tmp_path: Path, size: int) -> None:
    """When no more can be written, at whatever byte, the error passes through and nothing is left."""
    stored(tmp_path, b"previous", "new.trit")
    large = {**TENSORS, "large": np.zeros(2**17, np.uint8)}
    with nothing_left(tmp_path), pytest.raises(OSError, match="File too large"), room_for(size):
        save_file(large, tmp_path / "new.trit")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    """A missing parent raises FileNotFoundError with its path; a parent that is a file is no folder."""
    stored(tmp_path, b"", "file")
    with nothing_left(tmp_path), pytest.raises(FileNotFoundError, match="missing"):
        save_file(TENSORS, tmp_path / "missing" / "new.trit")
    with nothing_left(tmp_path), pytest.raises(OSError, match="file"):
        save_file(TENSORS, tmp_path / "file" / "new.trit")


def test_a_target_that_is_a_folder(tmp_path: Path) -> None:
    """A folder is not written over, and nothing is left in it or beside it."""
    (tmp_path / "folder").mkdir()
    with nothing_left(tmp_path), pytest.raises(IsADirectoryError, match="folder"):
        save_file(TENSORS, tmp_path / "folder")
    assert os.listdir(tmp_path / "folder") == []
    with pytest.raises(IsADirectoryError):
        save_file(TENSORS, tmp_path)


def test_a_target_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare file name, as str, is a path like any other."""
    monkeypatch.chdir(tmp_path)
    save_file(TENSORS, "new.trit", METADATA)
    assert (tmp_path / "new.trit").read_bytes() == saved(tmp_path, TENSORS, METADATA)


def test_a_writer_that_is_not_entered_leaves_nothing(tmp_path: Path) -> None:
    """A writer that was only made has not made a file yet."""
    with nothing_left(tmp_path):
        TritWriter(tmp_path / "new.trit", entries_of(TENSORS))


@pytest.mark.parametrize(
    ("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o000, 0o666)], ids=oct
)
def test_the_mode_respects_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """The file has the permissions of any file that is created, not those of a temporary one."""
    before = os.umask(umask)
    try:
        save_file(TENSORS, tmp_path / "new.trit")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.trit").stat().st_mode) == mode


KILLED = """
import os, signal, sys
import numpy as np
from tritcodec import TritWriter
from tritcodec.header import RawEntry
with TritWriter(sys.argv[1], [RawEntry("a", "U8", (7,)), RawEntry("b", "U8", (100_000,))]) as target:
    target.write("b", 0, [np.ones(100_000, np.uint8)])
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("previous", [None, b"previous"])
def test_a_writer_that_is_killed(tmp_path: Path, previous: bytes | None) -> None:
    """Killed in the middle, a writer leaves the final name missing, or with its previous content."""
    final = tmp_path / "new.trit"
    if previous:
        final.write_bytes(previous)
    package = Path(writer.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(final)], cwd=package, check=False, stderr=subprocess.PIPE
    )
    assert done.returncode == -9, done.stderr.decode()
    assert (final.read_bytes() if final.exists() else None) == previous


def test_two_writers_at_once(tmp_path: Path) -> None:
    """Two that write under one name do not meet: the last to finish wins, and its file is whole."""
    final = tmp_path / "new.trit"
    small: dict[str, Tensor] = {"a": np.zeros(3)}
    with TritWriter(final, entries_of(TENSORS)) as first:
        with TritWriter(final, entries_of(small)) as second:
            for name, part, content in parts_of(TENSORS):
                first.write(name, part, [content])
            second.put("a", small["a"])
        assert list(load_file(final)) == ["a"]
    assert list(load_file(final)) == sorted(TENSORS)
    assert os.listdir(tmp_path) == ["new.trit"]


def test_saving_over_the_file_that_is_read(tmp_path: Path) -> None:
    """Read before and after the file is saved over, tensors are those of the file that was opened."""
    final = tmp_path / "new.trit"
    save_file(TENSORS, final, METADATA)
    with open_file(final) as opened:
        before = opened.get_tensor("deep")
        save_file({"deep": before, "bias": np.zeros(1)}, final)
        after = opened.get_tensor("flat")
        assert isinstance(TENSORS["flat"], TritTensor)
        assert same(TENSORS["flat"], after)
        assert opened.metadata == METADATA
    assert list(load_file(final)) == ["bias", "deep"]
    loaded = load_file(final)
    save_file({**loaded, "new": np.ones(1)}, final)
    assert list(load_file(final)) == ["bias", "deep", "new"]


# Truncation of files


MIXED: dict[str, Tensor] = {
    f"d{depth}": painted((depth + 6, 21), depth, group_size=5, dtype="F16") for depth in range(1, 5)
}
MIXED |= {
    "raw": np.arange(100, dtype=np.uint16),
    "shifted": painted((3, 7), 2, shift=2),
    "empty": np.zeros((0, 2)),
}


def cut(tensors: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The tensors, those that are deeper truncated."""
    return {
        name: tensor.truncate(min(depth, tensor.depth)) if isinstance(tensor, TritTensor) else tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_truncated_file_is_that_of_truncated_tensors(tmp_path: Path, depth: int) -> None:
    """`truncate_file` gives byte for byte what saving truncated tensors does; the source stays as it is."""
    whole, target = stored(tmp_path, saved(tmp_path, MIXED, METADATA)), tmp_path / "cut.trit"
    truncate_file(whole, target, depth)
    assert target.read_bytes() == saved(tmp_path, cut(MIXED, depth), METADATA)
    assert whole.read_bytes() == saved(tmp_path, MIXED, METADATA)


@pytest.mark.parametrize("block", [1, 64])
def test_truncation_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """The size of the blocks that are copied leaves no trace."""
    whole = stored(tmp_path, saved(tmp_path, MIXED))
    monkeypatch.setattr("tritcodec.reader.BLOCK_BYTES", block)
    truncate_file(whole, tmp_path / "cut.trit", 2)
    assert (tmp_path / "cut.trit").read_bytes() == saved(tmp_path, cut(MIXED, 2))


def test_truncation_in_place(tmp_path: Path) -> None:
    """Source and target may be one file, also by two names; cutting twice is cutting once."""
    final = stored(tmp_path, saved(tmp_path, MIXED, METADATA))
    truncate_file(final, final, 3)
    assert final.read_bytes() == saved(tmp_path, cut(MIXED, 3), METADATA)
    os.link(final, tmp_path / "link.trit")
    truncate_file(tmp_path / "link.trit", final, 1)
    assert final.read_bytes() == saved(tmp_path, cut(MIXED, 1), METADATA)


@pytest.mark.parametrize("depth", [0, 5, True, 2.0, "2", None], ids=repr)
def test_truncation_to_no_depth(tmp_path: Path, depth: Any) -> None:
    """What is no depth is refused with TEN-2 before anything is written."""
    whole = stored(tmp_path, saved(tmp_path, MIXED))
    with nothing_left(tmp_path), refused("TEN-2"):
        truncate_file(whole, tmp_path / "cut.trit", depth)


@pytest.mark.parametrize(("index", "at", "value", "repair", "clause"), [
    (0, 0, 255, True, "PACK-2"),
    (3, 41, 0, True, "PACK-3"),
    (4, 0, 255, True, "PACK-2"),
    (4, 0, 120, False, "SEG-1"),
])  # fmt: skip
@pytest.mark.parametrize("in_place", [True, False])
def test_damage_is_not_copied(
    tmp_path: Path, in_place: bool, index: int, at: int, value: int, repair: bool, clause: str
) -> None:
    """Damage in what would be copied is refused with its clause, nothing is left, and the source stays."""
    data = saved(tmp_path, MIXED)
    data = with_bytes(data, segment_of(data, "d2", index).offset + at, value)
    whole = stored(tmp_path, redigested(data) if repair else data)
    with nothing_left(tmp_path), refused(clause, "tensor 'd2'"):
        truncate_file(whole, whole if in_place else tmp_path / "cut.trit", 2)


def test_damage_below_the_cut_does_not_matter(tmp_path: Path) -> None:
    """Planes that are left out are not read: cutting saves a file whose lower planes are damaged."""
    data = saved(tmp_path, MIXED)
    whole = stored(tmp_path, with_bytes(data, segment_of(data, "d4", 6).offset, 255))
    truncate_file(whole, tmp_path / "cut.trit", 3)
    assert (tmp_path / "cut.trit").read_bytes() == saved(tmp_path, cut(MIXED, 3))


def test_what_a_newer_version_added_is_dropped(tmp_path: Path) -> None:
    """A cut file is of version 1.0 (WRITE-2), without the keys that the reader does not know."""
    entry, content = independent.entry_of("d2", plain(painted()))
    value = {"metadata": {}, "tensors": [entry | {"zz": 1}], "version": [1, 1], "zz": 2}
    newer = stored(tmp_path, independent.seal(independent.dumps(value), content, (1, 1)))
    truncate_file(newer, tmp_path / "cut.trit", 1)
    assert (tmp_path / "cut.trit").read_bytes() == saved(tmp_path, {"d2": painted().truncate(1)})


def test_a_name_is_flushed_after_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder, last of all: a file that was saved is there after a power cut."""
    seen: list[object] = []
    monkeypatch.setattr(os, "fsync", noting(seen, lambda descriptor: os.fstat(descriptor).st_ino, os.fsync))
    monkeypatch.setattr(os, "replace", noting(seen, lambda *_: "renamed", os.replace))
    save_file({"a": np.zeros(3, np.uint8)}, tmp_path / "a.trit")
    assert seen[-2:] == ["renamed", tmp_path.stat().st_ino]
