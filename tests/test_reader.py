"""SPEC 8.1: files read lazily, in part, in threads, and while they change."""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import independent
import numpy as np
import numpy.typing as npt
import pytest
from helpers import (
    F32,
    header,
    little_memory,
    painted,
    plain,
    raw_entry,
    record_reads,
    redigested,
    refused,
    same,
    seal,
    segment_of,
    steps,
    stored,
    trit_entry,
    with_bytes,
)

from tritcodec import TritError, TritFile, TritTensor, load_file, open_file, reader, save_file
from tritcodec.header import decode_preamble

WEIGHTS = {  # name: a tensor of more than one block of rows, with padding and short groups
    "deep": painted((23, 37), 4, dtype="BF16"),
    "flat": painted((11, 16), 1, shift=2, dtype="F16"),
    "cube": painted((2, 3, 5), 3, group_size=2),
}
RAWS: dict[str, npt.NDArray[Any]] = {
    "bias": np.arange(7, dtype=np.float32),
    "mask": np.arange(12).reshape(3, 4) % 3 == 0,
    "none": np.zeros((3, 0, 2), np.int16),
    "one": np.array(-5, np.int64),
    "table": np.arange(60, dtype=np.uint16).reshape(4, 5, 3),
}
METADATA = {"format": "pt", "a": "é"}


def in_bytes(array: npt.NDArray[Any], dtype: str) -> independent.Raw:
    """A raw tensor for the independent writer."""
    return independent.Raw(list(array.shape), dtype, array.tobytes())


DTYPES = {"bias": "F32", "mask": "BOOL", "none": "I16", "one": "I64", "table": "U16"}
DATA = independent.write(
    {name: plain(tensor) for name, tensor in WEIGHTS.items()}
    | {name: in_bytes(array, DTYPES[name]) for name, array in RAWS.items()},
    METADATA,
)
HEADER_SIZE = int.from_bytes(DATA[16:24], "little")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three trit tensors and five raw ones, written by an independent writer."""
    return stored(tmp_path, DATA)


@pytest.fixture
def file(path: Path) -> Iterator[TritFile]:
    """That file, open."""
    with open_file(path) as opened:
        yield opened


def matrix(tensor: object) -> F32:
    """What a trit tensor decodes to in float32, rows by K."""
    assert isinstance(tensor, TritTensor)
    return tensor.dequantize("F32").reshape(-1, tensor.shape[-1])


def raws_equal(first: object, second: npt.NDArray[Any]) -> bool:
    """Whether two raw tensors have the same dtype, shape and bytes."""
    assert isinstance(first, np.ndarray)
    return (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())


# What a file gives


def test_a_file_by_an_independent_writer_is_read(file: TritFile) -> None:
    """Names, metadata, identity, entries and tensors are read from a file that the package did not write."""
    assert file.keys() == sorted([*WEIGHTS, *RAWS])
    assert file.metadata == METADATA
    assert file.identity == DATA[32:64].hex()
    for name, tensor in WEIGHTS.items():
        assert same(tensor, file.get_tensor(name))
        assert (file.entry(name).kind, file.entry(name).shape) == ("trit", tensor.shape)
    for name, array in RAWS.items():
        assert raws_equal(file.get_tensor(name), array)
        assert (file.entry(name).kind, file.entry(name).dtype) == ("raw", DTYPES[name])


def test_load_file_gives_everything(path: Path) -> None:
    """All tensors come by name, from a path as str or Path."""
    for loaded in (load_file(path), load_file(str(path)), load_file(os.fspath(path))):
        assert list(loaded) == sorted([*WEIGHTS, *RAWS])
        assert all(same(tensor, loaded[name]) for name, tensor in WEIGHTS.items())
        assert all(raws_equal(loaded[name], array) for name, array in RAWS.items())


def test_a_file_without_tensors(tmp_path: Path) -> None:
    """An empty file of 128 bytes is a file: no names, no tensors."""
    empty = stored(tmp_path, independent.write({}))
    with open_file(empty) as opened:
        assert (opened.keys(), opened.metadata) == ([], {})
    assert load_file(empty) == {}


def test_metadata_is_the_callers_own(file: TritFile) -> None:
    """Changing what `metadata` and `keys` gave changes nothing in the file."""
    file.metadata["a"] = "b"
    file.keys().clear()
    assert (file.metadata, len(file.keys())) == (METADATA, 8)


@pytest.mark.parametrize("depth", range(1, 5))
def test_a_tensor_is_cut_to_a_depth(file: TritFile, depth: int) -> None:
    """With a depth, deeper tensors are truncated and others are whole (SPEC 5.4); raw tensors do not mind."""
    for name, tensor in WEIGHTS.items():
        assert same(tensor.truncate(min(depth, tensor.depth)), file.get_tensor(name, depth))
    assert raws_equal(file.get_tensor("bias", depth), RAWS["bias"])


@pytest.mark.parametrize("depth", [0, -1, True, 2.0, "2"], ids=repr)
def test_a_depth_that_is_none(file: TritFile, depth: Any) -> None:
    """What is no integer from 1 on is refused with TEN-2, as everywhere, whatever depth the tensor has."""
    for name in WEIGHTS:
        with refused("TEN-2"):
            file.get_tensor(name, depth)
        with refused("TEN-2"):
            file.get_rows(name, 0, 1, depth)


@pytest.mark.parametrize("name", ["", "Deep", "deep ", "deep\0", "nothing", "\x1b[2J", None, 0], ids=ascii)
def test_a_name_that_is_not_there(file: TritFile, path: Path, name: Any) -> None:
    """It is refused with the file's path, and is shown in ASCII."""
    for ask in (file.entry, file.get_tensor, lambda wanted: file.get_rows(wanted, 0, 1)):
        with refused(None, str(path)) as caught:
            ask(name)
        assert ascii(name) in str(caught.value)


# Rows


@pytest.mark.parametrize("name", WEIGHTS)
def test_rows_of_a_trit_tensor(file: TritFile, name: str) -> None:
    """Rows [start, stop) at any depth are those of the whole tensor, packed as by `TritTensor.get_rows`."""
    for depth in (None, *range(1, WEIGHTS[name].depth + 1)):
        whole = WEIGHTS[name] if depth is None else WEIGHTS[name].truncate(depth)
        values = matrix(whole)
        for start in range(len(values)):
            for stop in {start + 1, min(start + 5, len(values)), len(values)}:
                rows = file.get_rows(name, start, stop, depth)
                assert same(whole.get_rows(start, stop), rows)
                assert np.array_equal(matrix(rows), values[start:stop])


@pytest.mark.parametrize("name", ["bias", "mask", "one", "table"])
def test_rows_of_a_raw_tensor(file: TritFile, name: str) -> None:
    """Rows count over all leading axes; rank 0 and 1 are one row."""
    array = RAWS[name]
    rows = array.reshape(-1, array.shape[-1] if array.shape else 1)
    for start in range(len(rows)):
        for stop in range(start + 1, len(rows) + 1):
            assert raws_equal(file.get_rows(name, start, stop), rows[start:stop])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_rows_may_be_counted_by_numpy(file: TritFile, kind: type[np.integer[Any]]) -> None:
    """However narrow or unsigned an integer is, offsets that come of it do not wrap."""
    name = max(WEIGHTS, key=lambda name: WEIGHTS[name].form.rows)
    for start, stop in ((0, 5), (1, 6), (5, WEIGHTS[name].form.rows)):
        expected = WEIGHTS[name].get_rows(start, stop)
        assert same(expected, file.get_rows(name, kind(start), kind(stop)))
        assert same(expected, WEIGHTS[name].get_rows(kind(start), kind(stop)))
    table = RAWS["table"].reshape(-1, RAWS["table"].shape[-1])
    assert raws_equal(file.get_rows("table", kind(7), kind(9)), table[7:9])


@pytest.mark.parametrize(
    "rows",
    [(0, 0), (2, 1), (-1, 1), (0, 24), (23, 24), (0, 2**64), (0.0, 1.0), ("0", "1"), (0, None)],
    ids=repr,
)
def test_rows_that_are_not_there(file: TritFile, rows: tuple[Any, Any]) -> None:
    """No rows, rows beyond the end, and what is no integer, are refused for both kinds of tensor."""
    for name in ("deep", "table", "none"):
        with refused(None):
            file.get_rows(name, *rows)


# What is read, to the byte


def expected_reads(name: str, depth: int | None = None, start: int = 0, stop: int | None = None) -> set[int]:
    """The offsets of all bytes that rows of a tensor take, by the document."""
    entry = segment_of(DATA, name).entry
    wanted: set[int] = set()
    for index in range(3 + min(depth or 4, entry["depth"])):
        segment = segment_of(DATA, name, index)
        rows, columns = independent.planes_of(entry)[index]
        last = -(-(rows if stop is None else stop) // 5)
        wanted |= set(range(segment.offset + start // 5 * columns, segment.offset + last * columns))
    return wanted


def covered(reads: list[tuple[int, int]]) -> list[int]:
    """Every byte that was read, as often as it was."""
    return sorted(at for offset, size in reads for at in range(offset, offset + size))


def test_opening_reads_preamble_and_header(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a file is opened, 64 bytes and the header are read, and nothing else."""
    reads = record_reads(monkeypatch)
    with open_file(path) as opened:
        opened.keys(), opened.metadata, opened.identity, opened.entry("deep")
    assert reads == [(0, 64), (64, HEADER_SIZE)]


@pytest.mark.parametrize("depth", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("name", WEIGHTS)
def test_a_tensor_reads_its_own_planes(
    file: TritFile, monkeypatch: pytest.MonkeyPatch, name: str, depth: int | None
) -> None:
    """Only the code planes and the top planes asked for are read, each byte once."""
    reads = record_reads(monkeypatch)
    file.get_tensor(name, depth)
    assert covered(reads) == sorted(expected_reads(name, depth))


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (4, 6), (5, 10), (7, 8), (0, 11), (10, 11)])
@pytest.mark.parametrize("depth", [None, 1, 3])
def test_rows_read_their_own_byte_rows(
    file: TritFile, monkeypatch: pytest.MonkeyPatch, depth: int | None, start: int, stop: int
) -> None:
    """Rows read the byte rows a // 5 to ceil(b / 5) - 1 of each plane asked for, and nothing else."""
    for name in ("deep", "flat"):
        reads = record_reads(monkeypatch)
        file.get_rows(name, start, stop, depth)
        assert covered(reads) == sorted(expected_reads(name, depth, start, stop))
        monkeypatch.undo()


def test_raw_rows_read_their_own_bytes(file: TritFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a raw tensor are read alone; a tensor of no bytes reads nothing."""
    segment = segment_of(DATA, "table")
    reads = record_reads(monkeypatch)
    file.get_rows("table", 7, 9)
    assert covered(reads) == list(range(segment.offset + 7 * 6, segment.offset + 9 * 6))
    del reads[:]
    file.get_tensor("none")
    assert covered(reads) == []


# Damage


def damaged(name: str, index: int, at: int, value: int) -> bytes:
    """The file with one byte of a segment changed, and all digests right again."""
    return redigested(with_bytes(DATA, segment_of(DATA, name, index).offset + at, value))


DAMAGE = [  # clause, tensor, segment, byte, value
    ("PACK-2", "deep", 1, 3, 243),
    ("PACK-2", "deep", 6, 5 * 37 - 1, 255),
    ("PACK-3", "deep", 4, 4 * 37, 0),
    ("PACK-3", "cube", 2, 4, 0),
    ("RAW-2", "mask", 0, 11, 2),
    ("RAW-2", "mask", 0, 0, 255),
]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(("clause", "name", "index", "at", "value"), DAMAGE)
def test_invalid_bytes_are_never_given_out(
    tmp_path: Path, clause: str, name: str, index: int, at: int, value: int, check: bool
) -> None:
    """Bytes that break PACK-2, PACK-3 or RAW-2 under a right digest are refused, checked or not (READ-2)."""
    rows = {"deep": 23, "cube": 6, "mask": 3}
    with open_file(stored(tmp_path, damaged(name, index, at, value)), check=check) as opened:
        with refused(clause, f"tensor {name!a}"):
            opened.get_tensor(name)
        with refused(clause, f"tensor {name!a}"):
            opened.get_rows(name, 0, rows[name])


def test_rows_beside_the_damage_can_be_read(tmp_path: Path) -> None:
    """A byte above 242 in the last rows does not keep the first ones from being read."""
    with open_file(stored(tmp_path, damaged("deep", 3, 4 * 37, 255))) as opened:
        assert same(WEIGHTS["deep"].get_rows(0, 20), opened.get_rows("deep", 0, 20))
        with refused("PACK-2"):
            opened.get_rows("deep", 19, 21)


@pytest.mark.parametrize(("name", "index"), [("deep", 0), ("deep", 6), ("flat", 3), ("bias", 0), ("mask", 0)])
def test_a_wrong_digest_is_refused(tmp_path: Path, name: str, index: int) -> None:
    """A valid byte that was changed breaks SEG-1, the place is said; with check=False it is read (READ-3)."""
    segment = segment_of(DATA, name, index)
    wrong = stored(tmp_path, with_bytes(DATA, segment.offset, DATA[segment.offset] ^ 1))
    with open_file(wrong) as opened, refused("SEG-1", f"tensor {name!a}") as caught:
        opened.get_tensor(name)
    assert str(segment.offset) in caught.value.where
    rows = math.prod((WEIGHTS[name] if name in WEIGHTS else RAWS[name]).shape[:-1])
    with open_file(wrong) as opened, refused("SEG-1", f"tensor {name!a}"):
        opened.get_rows(name, 0, rows)
    with open_file(wrong, check=False) as opened:
        assert opened.get_tensor(name) is not None
        assert opened.get_rows(name, 0, rows) is not None
    with refused("SEG-1"):
        load_file(wrong)


def test_lower_planes_may_be_damaged(tmp_path: Path) -> None:
    """A coarser model does not need the planes that it does not read."""
    segment = segment_of(DATA, "deep", 6)
    with open_file(stored(tmp_path, with_bytes(DATA, segment.offset, 255))) as opened:
        assert same(WEIGHTS["deep"].truncate(3), opened.get_tensor("deep", 3))
        with refused("SEG-1"):
            opened.get_tensor("deep")


@pytest.mark.parametrize("check", [True, False])
def test_the_directory_is_checked_in_any_case(tmp_path: Path, check: bool) -> None:
    """check=False skips the digests of segments, not that of the header nor the layout."""
    for data, clause in (
        (with_bytes(DATA, 64, 0), "PRE-8"),
        (DATA[:-1], "PRE-6"),
        (DATA + bytes(64), "PRE-6"),
        (with_bytes(DATA + bytes(64), 24, *(len(DATA) + 64).to_bytes(8, "little")), "LAY-4"),
        (with_bytes(DATA[:-64], 24, *(len(DATA) - 64).to_bytes(8, "little")), "LAY-4"),
    ):
        with refused(clause):
            open_file(stored(tmp_path, data), check=check)


def test_a_refused_file_is_closed(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused when it is opened, or cannot be read, leaves no descriptor behind."""

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    wrong = stored(tmp_path, DATA[:-1], "wrong.trit")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    kept = []  # with their frames, which nothing may be left to
    for target in (wrong, tmp_path, tmp_path / "missing", Path(os.devnull), path):
        if target == path:
            monkeypatch.setattr(reader.Source, "_read_some", failing)
        with pytest.raises((ValueError, OSError)) as caught:
            open_file(target)
        kept.append(caught)
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


# Files that change


@pytest.mark.parametrize("check", [True, False])
def test_a_file_cut_while_it_is_open(path: Path, check: bool) -> None:
    """What lies beyond the new end is refused (READ-4, with the path); what lies before can still be read."""
    with open_file(path, check=check) as opened:
        segment = segment_of(DATA, "deep", 6)
        os.truncate(path, segment.offset + 1)
        with refused("READ-4", str(path)):
            opened.get_tensor("deep")
        with refused("READ-4", str(path)):
            opened.get_rows("deep", 0, 1)
        assert same(WEIGHTS["deep"].truncate(3), opened.get_tensor("deep", 3))
        os.truncate(path, 0)
        for name in [*WEIGHTS, "bias", "mask", "one", "table"]:
            with refused("READ-4", str(path)):
                opened.get_tensor(name)


def test_a_file_is_named_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its path was written, the error of a file that was cut begins with it, and has it once."""
    monkeypatch.chdir(path.parent)
    with open_file(f"./{path.name}") as opened:
        os.truncate(path, 0)
        with pytest.raises(TritError) as caught:
            opened.get_tensor("deep")
    assert str(caught.value).startswith(f"{path.name}: ")
    assert str(caught.value).count(path.name) == 1


def test_a_file_replaced_while_it_is_open(path: Path, tmp_path: Path) -> None:
    """After a rename over it, or its removal, the old content is read; the next to open sees the new one."""
    with open_file(path) as opened:
        os.replace(stored(tmp_path, independent.write({}), "other.trit"), path)
        assert same(WEIGHTS["deep"], opened.get_tensor("deep"))
        assert load_file(path) == {}
        path.unlink()
        assert raws_equal(opened.get_tensor("bias"), RAWS["bias"])


def test_a_file_overwritten_while_it_is_open(path: Path) -> None:
    """Other bytes in place, of the same length, are noticed by the digests."""
    with open_file(path) as opened:
        path.write_bytes(DATA[:HEADER_SIZE] + bytes(len(DATA) - HEADER_SIZE))
        for name in ["deep", "cube", "bias", "mask"]:
            with refused("SEG-1"):
                opened.get_tensor(name)


def test_a_file_cut_between_length_and_header(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that shrinks while it is being opened is refused with READ-4."""
    decode = decode_preamble

    def shrink(data: bytes, length: int) -> object:
        os.truncate(path, 70)
        return decode(data, length)

    monkeypatch.setattr(reader, "decode_preamble", shrink)
    with refused("READ-4", str(path)):
        open_file(path)


def test_tensors_outlive_the_file(path: Path) -> None:
    """What was read stays valid when the file is closed and gone; a closed file gives nothing more."""
    with open_file(path) as opened:
        deep, bias = opened.get_tensor("deep"), opened.get_tensor("bias")
    path.unlink()
    assert same(WEIGHTS["deep"], deep)
    assert raws_equal(bias, RAWS["bias"])
    opened.close()  # once more: no harm
    with refused(None, str(path)) as caught:
        opened.get_tensor("deep")
    assert "the file is closed" in str(caught.value)


# What is no file


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    """A FIFO (without waiting for a writer), a device and a folder are refused with their path."""
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/null")):
        with refused(None, str(place)):
            open_file(place)
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        open_file(tmp_path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, a file in a missing folder, and a broken link raise FileNotFoundError with the path."""
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("missing", "missing/file", "link"):
        with pytest.raises(FileNotFoundError, match=name):
            open_file(tmp_path / name)


def test_a_link_to_a_file(path: Path, tmp_path: Path) -> None:
    """A symbolic link is followed."""
    link = tmp_path / "link.trit"
    link.symlink_to(path)
    assert list(load_file(link)) == sorted([*WEIGHTS, *RAWS])


# Sizes that lie


EXABYTE = {
    "one tensor of 2^48": [raw_entry("a", shape=[2**48], dtype="F64")],
    "a thousand of them": [raw_entry(f"{i:03}", shape=[2**48], dtype="F64") for i in range(500)],
    "2^48 weights": [trit_entry("a", shape=[2**24, 2**24])],
    "2^48 rows": [trit_entry("a", shape=[2**48, 1])],
}


@pytest.mark.parametrize("entries", EXABYTE.values(), ids=EXABYTE.keys())
def test_an_exabyte_in_a_small_file(tmp_path: Path, entries: list[Any]) -> None:
    """A small file that claims exabytes is refused with LAY-4 before any memory is taken for them."""
    path = stored(tmp_path, seal(header(*entries)))
    with little_memory(1 << 20), refused("LAY-4"):
        open_file(path)


def test_the_sum_of_all_sizes_is_checked(tmp_path: Path) -> None:
    """Tensors that together end beyond 2^63 - 1, or wrap to the file's own length, are refused with LAY-5."""
    entries = [raw_entry(f"{i:04}", shape=[2**48], dtype="F64") for i in range(8192)]  # 2^64 bytes
    with refused("LAY-5"):
        open_file(stored(tmp_path, seal(header(*entries))))


@pytest.fixture
def terabyte(tmp_path: Path) -> Path:
    """A sparse file of 1 TiB, all zeros."""
    sparse = tmp_path / "sparse.trit"
    sparse.touch()
    try:
        os.truncate(sparse, 2**40)
    except OSError as error:
        pytest.skip(f"the file system has no files of 1 TiB: {error}")
    return sparse


def test_a_terabyte_of_zeros_is_refused_at_once(terabyte: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 bytes are enough to refuse it (PRE-2)."""
    reads = record_reads(monkeypatch)
    with refused("PRE-2"):
        open_file(terabyte)
    assert reads == [(0, 64)]


def test_a_terabyte_tensor_is_read_in_part(terabyte: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of nearly 1 TiB is opened by its header and read by rows, where they are, whoever counts."""
    start = seal(header(raw_entry("a", shape=[2**30 - 1, 2**10], sha256=bytes(32))))
    size = len(start) + 2**40 - 2**10
    with terabyte.open("r+b") as target:
        target.write(with_bytes(start, 24, *size.to_bytes(8, "little")))
        target.truncate(size)
    reads = record_reads(monkeypatch)
    with little_memory(), open_file(terabyte) as opened:
        rows = opened.get_rows("a", np.int32(2**30 - 3), np.int32(2**30 - 1))
    assert isinstance(rows, np.ndarray)
    assert rows.shape == (2, 2**10)
    assert not rows.any()
    assert len(covered(reads)) < len(start) + 2 * 2**10
    assert reads[-1] == (size - 2 * 2**10, 2 * 2**10)


# Ways of reading


@pytest.fixture(params=["preadv", "seek and read"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With positional reads, and as on a system that has none."""
    if request.param == "seek and read":
        monkeypatch.delattr(os, "preadv", raising=False)
    return str(request.param)


def test_both_ways_give_the_same(path: Path, way: str) -> None:
    """Without positional reads, everything is read as with them, and a short file is noticed, too."""
    assert way
    with open_file(path) as opened:
        assert all(same(tensor, opened.get_tensor(name)) for name, tensor in WEIGHTS.items())
        assert all(raws_equal(opened.get_tensor(name), array) for name, array in RAWS.items())
        assert same(WEIGHTS["deep"].get_rows(3, 9), opened.get_rows("deep", 3, 9))
        os.truncate(path, len(DATA) - 64)
        with refused("READ-4"):
            opened.get_tensor("deep")


def test_threads_share_a_file(file: TritFile, way: str) -> None:
    """Eight threads that read different tensors of one open file at once get what one does."""
    assert way
    start = threading.Barrier(8)

    def work(number: int) -> bool:
        start.wait()
        name = list(WEIGHTS)[number % 3]
        return all(
            same(WEIGHTS[name], file.get_tensor(name))
            and same(WEIGHTS[name].get_rows(1, 6), file.get_rows(name, 1, 6))
            and raws_equal(file.get_tensor("table"), RAWS["table"])
            for _ in range(25)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_short_reads_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that gives fewer bytes than asked for is asked again."""
    some: Callable[..., int] = reader.Source._read_some
    monkeypatch.setattr(reader.Source, "_read_some", lambda self, view, offset: some(self, view[:7], offset))
    assert same(WEIGHTS["deep"], load_file(path)["deep"])


@pytest.mark.parametrize("block", [1, 7, 64, 10**6])
def test_blocks_leave_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Tensors are the same whatever is read at once; the bytes of a segment come block by block."""
    monkeypatch.setattr(reader, "BLOCK_BYTES", block)
    with open_file(path) as opened:
        assert all(same(tensor, opened.get_tensor(name)) for name, tensor in WEIGHTS.items())
        for segment in opened.segments:
            blocks = [bytes(part) for part in opened.blocks(segment)]
            assert b"".join(blocks) == DATA[segment.offset : segment.end]
            assert all(0 < len(part) <= block for part in blocks)


@pytest.mark.parametrize(("clause", "name", "index", "at", "value"), DAMAGE)
def test_blocks_are_checked(tmp_path: Path, clause: str, name: str, index: int, at: int, value: int) -> None:
    """The blocks of a damaged segment end in its error, at the byte."""
    segment = segment_of(DATA, name, index)
    with open_file(stored(tmp_path, damaged(name, index, at, value))) as opened:
        wrong = next(s for s in opened.segments if (s.entry.name, s.part) == (name, index))
        with refused(clause, f"byte {segment.offset + at}"):
            list(opened.blocks(wrong))


def test_copies_of_a_file_are_the_same(path: Path, tmp_path: Path) -> None:
    """Identity is that of the content, not of the path."""
    with open_file(path) as first, open_file(shutil.copy(path, tmp_path / "copy.trit")) as second:
        assert first.identity == second.identity


def test_a_newer_minor_version_is_read(tmp_path: Path) -> None:
    """A file of version 1.1 with unknown keys gives its tensors, and says what was ignored."""
    entry, content = independent.entry_of("deep", plain(WEIGHTS["deep"]))
    value = header(entry | {"hint": "x"}, version=[1, 1], later=[1])
    with open_file(stored(tmp_path, seal(value, content, minor=1))) as opened:
        assert same(WEIGHTS["deep"], opened.get_tensor("deep"))
        assert (opened.preamble.minor, len(opened.header.ignored)) == (1, 2)


def test_steps_of_a_file_are_little_endian(file: TritFile) -> None:
    """The codebook comes from the header as native float32."""
    deep = file.get_tensor("deep")
    assert isinstance(deep, TritTensor)
    assert deep.codebook.dtype == np.float32
    assert deep.codebook.tobytes() == steps().tobytes()


@pytest.mark.parametrize("depth", [0, 5, "2"])
def test_a_depth_that_is_none_is_refused_of_raw_tensors_too(tmp_path: Path, depth: Any) -> None:
    """TEN-2, whatever the tensor is."""
    save_file({"raw": np.zeros((3, 4), np.float32), "trit": painted()}, tmp_path / "x.trit")
    with open_file(tmp_path / "x.trit") as file:
        for name in ("raw", "trit"):
            with refused("TEN-2"):
                file.get_tensor(name, depth)
            with refused("TEN-2"):
                file.get_rows(name, 0, 1, depth)


def test_what_rows_may_be_is_said(tmp_path: Path) -> None:
    """Integers, and at least one row."""
    save_file({"trit": painted()}, tmp_path / "x.trit")
    with open_file(tmp_path / "x.trit") as file:
        rows: Any = ("1", "2")
        with pytest.raises(TritError, match="rows are given by two integers, not '1' and '2'"):
            file.get_rows("trit", *rows)
        with pytest.raises(TritError, match="are none, or not within the 7 rows"):
            file.get_rows("trit", 5, 5)
