"""SPEC 7: where every segment lies, which follows from the directory alone."""

from __future__ import annotations

import math

import pytest
from helpers import painted, refused, steps
from hypothesis import given
from hypothesis import strategies as st
from strategies import directories, quick

from tritcodec.canonical import MAX_HEADER_SIZE
from tritcodec.header import Entry, RawEntry, TritEntry
from tritcodec.layout import align, layout
from tritcodec.tensor import Form


def raw(name: str, *shape: int, dtype: str = "U8") -> RawEntry:
    """The entry of a raw tensor."""
    return RawEntry(name, dtype, shape)


def trit(name: str, rows: int, columns: int, group_size: int = 16, depth: int = 1) -> TritEntry:
    """The entry of a trit tensor."""
    return TritEntry(
        name, Form((rows, columns), "F32", depth, 0, group_size, steps()), (bytes(32),) * (3 + depth)
    )


def places(entries: list[Entry], header_size: int = 1) -> list[tuple[str, int, int, int]]:
    """(name, part, offset, size) of every segment."""
    segments, _ = layout(header_size, entries)
    return [(segment.entry.name, segment.part, segment.offset, segment.size) for segment in segments]


def test_the_example_of_the_document() -> None:
    """The four tensors of SPEC 7 lie where it says."""
    segments, end = layout(700, [trit("a", 6, 40, 16, 2), raw("b", 0), raw("c", 20), trit("d", 5, 64, 16, 1)])
    assert [segment.offset for segment in segments] == [
        768,
        768,
        832,
        896,
        960,
        1024,
        1088,
        1152,
        1216,
        1344,
        1408,
    ]
    assert end == 1536
    assert [segment.size for segment in segments] == [0, 20, 6, 6, 6, 4, 4, 4, 80, 64, 80]


def test_planes_of_all_tensors_come_rank_by_rank() -> None:
    """Raw tensors; code planes, tensor by tensor; the top weight plane of each, and so on down (LAY-1)."""
    depths = {"a": 1, "c": 4, "d": 2, "f": 4, "g": 3}
    entries: list[Entry] = [
        raw("b", 3),
        *(trit(name, 5, 64, 16, depth) for name, depth in depths.items()),
        raw("e", 3),
    ]
    entries.sort(key=lambda entry: entry.name)
    order = [(name, part) for name, part, _, _ in places(entries)]
    codes = [(name, part) for name in depths for part in range(3)]
    weights = [(name, 3 + rank) for rank in range(4) for name, depth in depths.items() if rank < depth]
    assert order == [("b", 0), ("e", 0), *codes, *weights]


@pytest.mark.parametrize(
    ("offset", "aligned"), [(0, 0), (1, 64), (63, 64), (64, 64), (65, 128), (2**62 + 1, 2**62 + 64)]
)
def test_align(offset: int, aligned: int) -> None:
    """An offset goes up to the next multiple of 64, and stays where it is one."""
    assert align(offset) == aligned


@pytest.mark.parametrize(
    ("header_size", "first"),
    [(1, 128), (63, 128), (64, 128), (65, 192), (128, 192), (129, 256), (MAX_HEADER_SIZE, 64 + 2**26)],
)
def test_the_first_segment_follows_the_header(header_size: int, first: int) -> None:
    """It begins at align(64 + header size); without any, the file ends there (LAY-2, LAY-4)."""
    assert layout(header_size, []) == ([], first)
    assert places([raw("a", 1)], header_size) == [("a", 0, first, 1)]
    assert layout(header_size, [raw("a", 1)])[1] == first + 64


def test_segments_of_no_bytes_take_no_room() -> None:
    """They begin where the next one does, at the start, in the middle and at the end."""
    entries: list[Entry] = [
        raw("a", 0),
        raw("b", 2, 0, 2**40),
        raw("c", 64),
        raw("d", 0),
        raw("e", 1),
        raw("f", 0),
    ]
    assert places(entries) == [
        ("a", 0, 128, 0),
        ("b", 0, 128, 0),
        ("c", 0, 128, 64),
        ("d", 0, 192, 0),
        ("e", 0, 192, 1),
        ("f", 0, 256, 0),
    ]
    assert layout(1, entries)[1] == 256


@pytest.mark.parametrize("rows", [1, 4, 5, 6, 10])
@pytest.mark.parametrize(
    ("columns", "group_size", "groups"),
    [(1, 1, 1), (15, 16, 1), (16, 16, 1), (17, 16, 2), (64, 16, 4), (5, 65_536, 1)],
)
def test_sizes_of_planes(rows: int, columns: int, group_size: int, groups: int) -> None:
    """A code plane takes ceil(rows/5) * G bytes and a weight plane ceil(rows/5) * K."""
    height = math.ceil(rows / 5)
    sizes = [size for _, _, _, size in places([trit("a", rows, columns, group_size, 4)])]
    assert sizes == [height * groups] * 3 + [height * columns] * 4


def test_a_rank_of_0_is_one_element() -> None:
    """A raw tensor without axes takes the bytes of one element."""
    assert places([raw("a", dtype="C64")]) == [("a", 0, 128, 8)]


@pytest.mark.parametrize(("count", "fits"), [(4095, True), (4096, False), (5000, False)])
def test_the_sum_of_sizes_is_limited(count: int, fits: bool) -> None:
    """Tensors of 2^51 bytes, each allowed, reach 2^63 with the 4096th (LAY-5): the sum does not wrap."""
    entries: list[Entry] = [raw(f"{i:04}", 2**48, dtype="F64") for i in range(count)]
    if fits:
        assert layout(1, entries)[1] == 128 + count * 2**51
    else:
        with refused("LAY-5") as caught:
            layout(1, entries)
        assert str(128 + count * 2**51) in caught.value.message


@pytest.mark.parametrize("over", [0, 1, 64])
def test_the_largest_file(over: int) -> None:
    """The end may be the last multiple of 64 below 2^63; one byte more is aligned to 2^63: LAY-5."""
    room = 2**63 - 64 - 128 - 4095 * 2**51
    entries: list[Entry] = [raw(f"{i:04}", 2**48, dtype="F64") for i in range(4095)]
    *halves, rest = [raw(f"z{i}", 2**48) for i in range(room // 2**48)] + [raw("zz", room % 2**48 + over)]
    entries += [*halves, rest]
    if over:
        with refused("LAY-5"):
            layout(1, entries)
    else:
        assert layout(1, entries)[1] == 2**63 - 64


def test_padded_rows_do_not_wrap() -> None:
    """2^48 rows of one weight are padded to a multiple of five: sizes stay exact."""
    sizes = [size for _, _, _, size in places([trit("a", 2**48, 1, 65_536, 4)])]
    assert sizes == [-(-(2**48) // 5)] * 7


def test_many_tensors() -> None:
    """A large directory is laid out, each segment after the one before."""
    segments, end = layout(MAX_HEADER_SIZE, [raw(f"{i:07}", 1) for i in range(2**15)])
    assert end == 64 + 2**26 + 2**15 * 64
    assert (segments[-1].offset, segments[-1].end) == (end - 64, end - 63)


@quick
@given(directories(), st.integers(1, MAX_HEADER_SIZE))
def test_every_byte_has_one_owner(entries: list[Entry], header_size: int) -> None:
    """Segments are aligned, stand in order without overlap, leave gaps below 64 bytes, and reach the end."""
    segments, end = layout(header_size, entries)
    before = 64 + header_size
    for segment in segments:
        assert segment.offset % 64 == 0
        assert 0 <= segment.offset - before < 64
        assert segment.end - segment.offset == segment.size
        before = segment.end
    assert 0 <= end - before < 64
    assert end % 64 == 0
    assert sum(segment.size for segment in segments) == sum(sum(entry.segment_sizes) for entry in entries)
    assert len(segments) == sum(len(entry.digests) for entry in entries)


def test_a_segment_says_what_it_is() -> None:
    """Name, kind of plane and digest of a segment are those of its part of the entry; names are in ASCII."""
    digests = tuple(bytes([i]) * 32 for i in range(5))
    entries: list[Entry] = [
        TritEntry("é", painted(depth=2).form, digests),
        RawEntry("r", "U8", (1,), (b"\7" * 32,)),
    ]
    segments, _ = layout(1, entries)
    assert [segment.where for segment in segments] == [
        "tensor 'r'",
        *(f"tensor '\\xe9', code plane {part}" for part in range(3)),
        *(f"tensor '\\xe9', weight plane {part}" for part in range(2)),
    ]
    assert [segment.digest for segment in segments] == [b"\7" * 32, *digests]
