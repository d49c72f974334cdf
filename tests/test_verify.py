"""SPEC 9: the verifier finds every fault, and says where it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import independent
import numpy as np
import pytest
from helpers import (
    header,
    little_memory,
    painted,
    patched,
    plain,
    raw_entry,
    redigested,
    refused,
    seal,
    segment_of,
    stored,
    trit_entry,
    with_bytes,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick

from tritcodec import Finding, Report, TritError, reader, verify_file

SMALL = independent.write(
    {
        "m": independent.Raw([3], "BOOL", b"\0\1\1"),
        "t": plain(painted((3, 4))),
    },
)  # both kinds of tensor, padding in every plane, and gaps all over
LARGE = independent.write(
    {
        "mask": independent.Raw([5, 20], "BOOL", bytes(i % 3 == 0 for i in range(100))),
        "none": independent.Raw([0], "F32", b""),
        "pair": plain(painted((12, 30), 2, group_size=7)),
        "trit": plain(painted((23, 33), 3)),
    },
    {"format": "pt"},
)
SEGMENTS = [
    ("mask", 0),
    *((name, index) for name, depth in (("pair", 2), ("trit", 3)) for index in range(3 + depth)),
]
TRITS = SEGMENTS[1:]


def check(tmp_path: Path, data: bytes, **options: Any) -> Report:
    """The report on a file of these bytes."""
    return verify_file(stored(tmp_path, data), **options)


def size_of(data: bytes) -> int:
    """Bytes of all segments."""
    _, segments = independent.open_file(data)
    return sum(segment.size for segment in segments)


def where(name: str, index: int) -> str:
    """How a finding names a segment."""
    if name == "mask":
        return "tensor 'mask'"
    return f"tensor {name!r}, " + (f"code plane {index}" if index < 3 else f"weight plane {index - 3}")


# Valid files


@pytest.mark.parametrize("data", [SMALL, LARGE, independent.write({})], ids=["small", "large", "empty"])
def test_a_valid_file(tmp_path: Path, data: bytes) -> None:
    """A file that obeys every requirement has no findings and no notes; its identity and size are given."""
    report = check(tmp_path, data)
    value, _ = independent.open_file(data)
    assert (report.verdict, report.ok, report.findings, report.notes) == ("valid", True, [], [])
    assert (report.identity, report.tensors, report.size) == (
        data[32:64].hex(),
        len(value["tensors"]),
        len(data),
    )


@pytest.mark.parametrize("block", [1, 7, 64, 2**20])
@pytest.mark.parametrize("data", [SMALL, LARGE, independent.write({})], ids=["small", "large", "empty"])
def test_progress_counts_every_byte_of_the_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, block: int
) -> None:
    """The counts are positive and sum to the bytes of all segments, whatever is read at once."""
    monkeypatch.setattr(reader, "BLOCK_BYTES", block)
    counts: list[int] = []
    assert check(tmp_path, data, progress=counts.append).ok
    assert sum(counts) == size_of(data)
    assert all(type(count) is int and 0 < count <= block for count in counts)


def test_the_report_is_of_plain_values() -> None:
    """A finding is printed with clause, place and message; without a place, without its colon."""
    assert str(Finding("PACK-2", "byte 7", "bad")) == "PACK-2: byte 7: bad"
    assert str(Finding("PRE-1", "", "bad")) == "PRE-1: bad"
    assert Report().verdict == "valid"


# Every bit


def test_every_single_bit_flip_is_found(tmp_path: Path) -> None:
    """Each bit of a small file, changed alone, makes it invalid, or unsupported by PRE-3 and PRE-4."""
    path = stored(tmp_path, SMALL)
    assert len(SMALL) < 1000
    with path.open("r+b", buffering=0) as file:
        for at in range(len(SMALL)):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([SMALL[at] ^ 1 << bit]), at)
                report = verify_file(path)
                assert report.findings, (at, bit)
                assert report.verdict == ("unsupported" if at in (8, 9, 12, 13, 14, 15) else "invalid"), (
                    at,
                    bit,
                )
                place = report.findings[0]
                assert place.clause, (at, bit)
                assert place.where, (at, bit)
            os.pwrite(file.fileno(), SMALL[at : at + 1], at)
    assert verify_file(path).ok


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_every_truncation_is_found(tmp_path: Path, data: bytes) -> None:
    """Cut at any byte, a file is invalid: PRE-1 in the preamble, PRE-6 after it."""
    path = stored(tmp_path, data)
    for size in reversed(range(len(data))):
        os.truncate(path, size)
        assert [finding.clause for finding in verify_file(path).findings] == [
            "PRE-1" if size < 64 else "PRE-6"
        ]


@pytest.mark.parametrize(
    "extra",
    [b"\0", b"\1", bytes(64), b"PK\3\4" * 16, SMALL],
    ids=["zero", "one", "64 zeros", "zip", "itself"],
)
def test_whatever_follows_the_end_is_found(tmp_path: Path, extra: bytes) -> None:
    """Bytes after the end break PRE-6, and LAY-4 where the preamble counts them in."""
    longer = LARGE + extra
    assert [finding.clause for finding in check(tmp_path, longer).findings] == ["PRE-6"]
    counted = with_bytes(longer, 24, *len(longer).to_bytes(8, "little"))
    assert [finding.clause for finding in check(tmp_path, counted).findings] == ["LAY-4"]


def test_the_final_padding_is_part_of_the_file(tmp_path: Path) -> None:
    """A file that ends with its last segment, its size in the preamble right, breaks LAY-4."""
    end = max(segment_of(LARGE, *place).offset + segment_of(LARGE, *place).size for place in SEGMENTS)
    assert end % 64
    short = with_bytes(LARGE[:end], 24, *end.to_bytes(8, "little"))
    report = check(tmp_path, short)
    assert [(finding.clause, report.verdict) for finding in report.findings] == [("LAY-4", "invalid")]
    assert all(str(number) in report.findings[0].message for number in (end, len(LARGE)))


# Versions


@pytest.mark.parametrize(("at", "value", "clause"), [
    (8, 0, "PRE-3"),
    (8, 2, "PRE-3"),
    (9, 1, "PRE-3"),
    *((12 + bit // 8, 1 << bit % 8, "PRE-4") for bit in range(32)),
])  # fmt: skip
def test_unsupported_files(tmp_path: Path, at: int, value: int, clause: str) -> None:
    """Another major version or any flag is unsupported, neither valid nor invalid, and the only finding."""
    report = check(tmp_path, with_bytes(LARGE, at, value))
    assert (report.verdict, report.ok) == ("unsupported", False)
    assert [finding.clause for finding in report.findings] == [clause]


def test_damage_before_the_version_is_not_unsupported(tmp_path: Path) -> None:
    """A file of another version that is no .trit file at all is invalid."""
    report = check(tmp_path, with_bytes(LARGE, 0, 0x50, *LARGE[1:8], 9))
    assert (report.verdict, report.findings[0].clause) == ("invalid", "PRE-2")


@pytest.mark.parametrize("minor", [1, 65_535])
def test_a_newer_minor_version_is_noted(tmp_path: Path, minor: int) -> None:
    """Unknown keys of a newer minor version are notes, not findings: each with its place, in ASCII."""
    entry, content = independent.entry_of("t", plain(painted()))
    value = header(entry | {"zz\u202e": 1}, version=[1, minor], zz={"k": []})
    report = check(tmp_path, seal(value, content, minor))
    assert (report.verdict, report.findings, len(report.notes)) == ("valid", [], 2)
    assert any("header" in note and "zz" in note for note in report.notes)
    assert any("entry 0" in note and "zz" in note for note in report.notes)
    assert all(note.isascii() and note.isprintable() for note in report.notes)


def test_unknown_keys_of_version_0_are_a_finding(tmp_path: Path) -> None:
    """The same keys in a file of version 1.0 break VER-1."""
    report = check(tmp_path, patched(SMALL, lambda value: value.update(zz=1)))
    assert [finding.clause for finding in report.findings] == ["VER-1"]


# Preamble and header


@pytest.mark.parametrize(("change", "clause"), [
    (lambda value: value.pop("metadata"), "HDR-1"),
    (lambda value: value.update(version=[1, 1]), "HDR-2"),
    (lambda value: value["tensors"].reverse(), "HDR-3"),
    (lambda value: value["tensors"][0].update(name="t"), "HDR-3"),
    (lambda value: value["tensors"][0].update(name="m\x1b[2J"), "NAME-2"),
    (lambda value: value["tensors"][0].update(shape=[4]), "SEG-1"),
    (lambda value: value["tensors"][0].update(shape=[400]), "LAY-4"),
    (lambda value: value["tensors"][0].update(dtype="F64"), "SEG-1"),
    (lambda value: value["tensors"][1].update(depth=1), "ENT-3"),
    (lambda value: value["tensors"][1].update(shift=3), "TEN-3"),
    (lambda value: value["tensors"][1].update(codebook=bytes(108)), "CB-2"),
])  # fmt: skip
def test_faults_of_the_header(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], clause: str
) -> None:
    """A header with a fault and a right digest is one finding, since nothing after it can be trusted."""
    report = check(tmp_path, patched(SMALL, change))
    assert (report.verdict, [finding.clause for finding in report.findings]) == ("invalid", [clause])
    assert all(str(finding).isprintable() and str(finding).isascii() for finding in report.findings)


def test_the_identity_is_known_when_the_header_is(tmp_path: Path) -> None:
    """A file whose segments are damaged has its identity; one whose header is damaged has none."""
    segment = segment_of(LARGE, "trit", 3)
    report = check(tmp_path, with_bytes(LARGE, segment.offset, LARGE[segment.offset] ^ 1))
    assert (report.identity, report.tensors) == (LARGE[32:64].hex(), 4)
    assert check(tmp_path, with_bytes(LARGE, 70, 0)).identity is None


# Segments


@pytest.fixture(params=[1, 7, 64, 2**20])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of few bytes, so that planes and their padding span many."""
    monkeypatch.setattr(reader, "BLOCK_BYTES", request.param)
    return int(request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(("name", "index"), SEGMENTS)
def test_a_digest_that_is_wrong(tmp_path: Path, name: str, index: int) -> None:
    """A digest changed in the directory is one finding, SEG-1, with the segment and its bytes."""

    def change(value: dict[str, Any]) -> None:
        entry = next(entry for entry in value["tensors"] if entry["name"] == name)
        if name == "mask":
            entry["sha256"] = bytes(32)
        else:
            entry["sha256"][index] = bytes(32)

    (finding,) = check(tmp_path, patched(LARGE, change)).findings
    segment = segment_of(LARGE, name, index)
    assert finding.clause == "SEG-1"
    assert where(name, index) in finding.where
    assert str(segment.offset) in finding.where


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(("name", "index"), TRITS)
def test_bytes_above_242_under_a_right_digest(tmp_path: Path, name: str, index: int) -> None:
    """As first, middle or last byte of each plane, they are one finding, PACK-2, with that byte."""
    segment = segment_of(LARGE, name, index)
    for at in (segment.offset, segment.offset + segment.size // 3, segment.offset + segment.size - 1):
        for value in (243, 255):
            findings = check(tmp_path, redigested(with_bytes(LARGE, at, value))).findings
            assert [(finding.clause, finding.where) for finding in findings] == [
                ("PACK-2", f"{where(name, index)}, byte {at}")
            ]
            assert str(value) in findings[0].message


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(("name", "index"), TRITS)
def test_padding_that_is_not_0_under_a_right_digest(tmp_path: Path, name: str, index: int) -> None:
    """Wrong padding, anywhere in the last byte row, is one finding, PACK-3, with its first byte."""
    segment = segment_of(LARGE, name, index)
    rows, columns = independent.planes_of(segment.entry)[index]
    for column in {0, columns // 2, columns - 1}:
        at = segment.offset + segment.size - columns + column
        for padding in range(rows % 5, 5):
            for by in (-1, 1):  # -1 or +1 where 0 is due
                wrong = with_bytes(
                    LARGE, at, *(byte + by * 3**padding for byte in LARGE[at : segment.offset + segment.size])
                )
                findings = check(tmp_path, redigested(wrong)).findings
                assert [(finding.clause, finding.where) for finding in findings] == [
                    ("PACK-3", f"{where(name, index)}, byte {at}")
                ]


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("at", [0, 1, 50, 99])
@pytest.mark.parametrize("value", [2, 128, 255])
def test_booleans_that_are_none_under_a_right_digest(tmp_path: Path, at: int, value: int) -> None:
    """A byte of a BOOL tensor that is neither 0 nor 1 is one finding, RAW-2, with that byte."""
    place = segment_of(LARGE, "mask").offset + at
    (finding,) = check(tmp_path, redigested(with_bytes(LARGE, place, value))).findings
    assert (finding.clause, finding.where) == ("RAW-2", f"tensor 'mask', byte {place}")
    assert str(value) in finding.message


@pytest.mark.usefixtures("block")
def test_each_clause_once_a_segment(tmp_path: Path) -> None:
    """Of many bytes of a segment that break a clause, the first is reported; SEG-1 comes beside it."""
    segment = segment_of(LARGE, "trit", 5)
    wrong = with_bytes(LARGE, segment.offset + 2, *[255] * (segment.size - 40))
    found = [(finding.clause, finding.where) for finding in check(tmp_path, wrong).findings]
    assert [clause for clause, _ in found] == ["PACK-2", "SEG-1"]
    assert found[0][1].endswith(f"byte {segment.offset + 2}")


def test_two_segments_swapped(tmp_path: Path) -> None:
    """Two planes that have changed places are two findings; with their digests swapped, too, none."""
    first, second = segment_of(LARGE, "trit", 3), segment_of(LARGE, "trit", 4)
    swapped = with_bytes(LARGE, first.offset, *LARGE[second.offset : second.offset + second.size])
    swapped = with_bytes(swapped, second.offset, *LARGE[first.offset : first.offset + first.size])
    assert [finding.clause for finding in check(tmp_path, swapped).findings] == ["SEG-1", "SEG-1"]
    assert check(tmp_path, redigested(swapped)).ok  # other weights, by someone who meant it: SPEC 8.3


# Gaps


def gaps(data: bytes) -> list[int]:
    """Every byte that belongs to neither preamble, header nor segment."""
    _, segments = independent.open_file(data)
    owned = {at for segment in segments for at in range(segment.offset, segment.offset + segment.size)}
    return sorted(set(range(64 + int.from_bytes(data[16:24], "little"), len(data))) - owned)


def test_every_byte_of_every_gap_is_zero(tmp_path: Path) -> None:
    """Wherever a byte between header, segments and end is not 0, it is one finding, LAY-3, with its place."""
    path = stored(tmp_path, LARGE)
    assert len(gaps(LARGE)) > 300
    with path.open("r+b", buffering=0) as file:
        for number, at in enumerate(gaps(LARGE)):
            os.pwrite(file.fileno(), bytes([1 + number % 255]), at)
            (finding,) = verify_file(path).findings
            assert (finding.clause, finding.where) == ("LAY-3", f"byte {at}")
            assert str(1 + number % 255) in finding.message
            os.pwrite(file.fileno(), b"\0", at)


def test_the_first_byte_of_a_gap_is_reported(tmp_path: Path) -> None:
    """Of several in one gap, the first; each gap on its own."""
    wrong = LARGE
    for at in gaps(LARGE):
        wrong = with_bytes(wrong, at, 9)
    found = [finding.where for finding in check(tmp_path, wrong).findings]
    starts = [at for at in gaps(LARGE) if at - 1 not in gaps(LARGE)]
    assert found == [f"byte {at}" for at in starts]


# Several at once


@pytest.mark.usefixtures("block")
def test_several_defects_are_all_reported(tmp_path: Path) -> None:
    """Defects of segments and gaps are reported each with its place, in the order of the file (VERIFY-2)."""
    mask, code, weight = segment_of(LARGE, "mask"), segment_of(LARGE, "pair", 1), segment_of(LARGE, "trit", 5)
    wrong = LARGE
    for at, value in (
        (mask.offset + 3, 7),
        (mask.offset + mask.size, 1),
        (code.offset + 1, 250),
        (weight.offset + weight.size - 1, 0),
        (len(LARGE) - 1, 255),
    ):
        wrong = with_bytes(wrong, at, value)
    found = [(finding.clause, finding.where) for finding in check(tmp_path, wrong).findings]
    assert [clause for clause, _ in found] == [
        "RAW-2",
        "SEG-1",
        "LAY-3",
        "PACK-2",
        "SEG-1",
        "PACK-3",
        "SEG-1",
        "LAY-3",
    ]
    for (_, place), at in zip(
        [found[i] for i in (0, 2, 3, 5, 7)],
        (
            mask.offset + 3,
            mask.offset + mask.size,
            code.offset + 1,
            weight.offset + weight.size - 1,
            len(LARGE) - 1,
        ),
        strict=True,
    ):
        assert place.endswith(f"byte {at}")
    for (_, place), name in zip(
        [found[i] for i in (1, 4, 6)],
        ["'mask'", "'pair', code plane 1", "'trit', weight plane 2"],
        strict=True,
    ):
        assert name in place


@quick
@given(
    st.lists(st.tuples(st.integers(64, len(LARGE) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_it_agrees_with_an_independent_verifier(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], repair: bool
) -> None:
    """However a file is changed after its preamble, both find the same clauses, digests right or not."""
    data = LARGE
    for at, value in changes:
        data = with_bytes(data, at, value)
    if repair and not independent.defects(
        data[: segment_of(LARGE, "mask").offset] + LARGE[segment_of(LARGE, "mask").offset :]
    ):
        data = redigested(data)
    report = check(tmp_path_factory.mktemp("changed"), data)
    found = sorted(finding.clause for finding in report.findings)
    assert found == sorted(clause for clause, _ in independent.defects(data))


# Files that change, and what is no file


def test_a_file_cut_while_it_is_verified(tmp_path: Path) -> None:
    """A file that shrinks under the verifier gets no verdict but READ-4, and is no crash."""
    path = stored(tmp_path, LARGE)
    with pytest.raises(TritError, match="READ-4") as caught:
        verify_file(path, progress=lambda _: os.truncate(path, 1000))
    assert str(path) in caught.value.where


def test_an_exception_of_progress_passes_through(tmp_path: Path) -> None:
    """Whoever watches can stop the verification."""

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(tmp_path, LARGE, progress=stop)


def test_what_cannot_be_read_is_no_report(tmp_path: Path) -> None:
    """A missing file or a folder raises OSError, what is no regular file TritError, each with the path."""
    with pytest.raises(FileNotFoundError, match="missing"):
        verify_file(tmp_path / "missing")
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", Path("/dev/zero")):
        with refused(None, str(place)):
            verify_file(place)
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        verify_file(tmp_path)


def test_lies_take_no_memory(tmp_path: Path) -> None:
    """Claims of exabytes in a small file, and a header size of 64 MiB, are refused in little memory."""
    exabyte = seal(header(raw_entry("a", shape=[2**48], dtype="F64"), trit_entry("b", shape=[2**24, 2**24])))
    with little_memory(1 << 20):
        assert check(tmp_path, exabyte).findings[0].clause == "LAY-4"
        assert (
            check(tmp_path, with_bytes(SMALL, 16, *(1 << 26).to_bytes(8, "little"))).findings[0].clause
            == "PRE-7"
        )


def test_memory_is_bounded_by_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor far larger than a block is verified in the memory of one."""
    monkeypatch.setattr(reader, "BLOCK_BYTES", 2**12)
    path = stored(tmp_path, independent.write({"a": independent.Raw([2**22], "U8", bytes(2**22))}))
    with little_memory():
        assert verify_file(path).ok


def test_a_verified_file_is_closed(tmp_path: Path) -> None:
    """Valid, invalid or refused, no descriptor is left behind."""
    paths = [stored(tmp_path, SMALL), stored(tmp_path, SMALL[:-1], "bad.trit"), Path(os.devnull), tmp_path]
    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not list open files")
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            verify_file(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_painted_file_is_what_it_should_be() -> None:
    """The large file has padding of two sizes, several blocks a plane, and a segment of no bytes."""
    rows = [independent.planes_of(segment_of(LARGE, name, 3).entry)[3][0] % 5 for name in ("pair", "trit")]
    assert rows == [2, 3]
    assert np.array([segment_of(LARGE, *place).size for place in SEGMENTS]).min() > 7
    assert segment_of(LARGE, "none").size == 0


def test_a_directory_that_is_longer_than_the_file_is_placed_at_its_end(tmp_path: Path) -> None:
    """LAY-4 names a byte that the file has an end at, and no report of it is true."""
    report = check(tmp_path, seal(header(raw_entry("a", shape=[1 << 20], dtype="U8"))))
    (finding,) = report.findings
    assert (finding.clause, finding.where) == ("LAY-4", f"byte {report.size}")
    assert not report
