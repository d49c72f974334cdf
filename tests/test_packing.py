"""SPEC 3: five trits a byte, along any axis of any array, and several planes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from helpers import I8, U8, largest, little_memory, refused
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from strategies import quick

from tritcodec import packing
from tritcodec.packing import check_plane, pack, pack_digits, packed_rows, unpack, unpack_digits
from tritcodec.trits import join, split

EDGES = [5 * k + i for k in (0, 1, 2, 13) for i in (-1, 0, 1) if 5 * k + i >= 0]  # sizes around full bytes
INVALID = range(243, 256)
BOXES = [1, 2, 7, 30]  # BOX_BYTES so small that every array has many boxes, cut in every axis
FIRST_MIDDLE_LAST = [(0, 0), (2, 3), (4, 6)]  # places in 5 byte rows of 7 columns


def packed_byte(trits: Sequence[int]) -> int:
    """The byte of up to five trits, by the document's sum; what is missing is 0."""
    return sum((t + 1) * 3**i for i, t in enumerate([*trits, 0, 0, 0, 0, 0][:5]))


def packed_by_the_formula(trits: np.ndarray) -> list[list[int]]:
    """byte[r, j] = sum over i of (t[5r+i, j] + 1) * 3^i for a matrix, in plain integers."""
    fives = [trits[r : r + 5].T.tolist() for r in range(0, len(trits), 5)]
    return [[packed_byte(column) for column in five] for five in fives]


def rng_trits(shape: tuple[int, ...], seed: int = 0) -> I8:
    """Random trits."""
    return np.random.default_rng(seed).integers(-1, 1, shape, np.int8, endpoint=True)


def zero_plane() -> U8:
    """A valid plane of 25 rows and 7 columns, all trits 0."""
    return np.full((5, 7), 121, np.uint8)


@st.composite
def strided_trits(draw: DrawFn) -> tuple[I8, int]:
    """Trits of any rank from 1 to 4 and any strides, and an axis."""
    rank = draw(st.integers(1, 4))
    longest = {1: 60, 2: 23, 3: 12, 4: 7}[rank]
    trits = rng_trits(tuple(draw(st.integers(0, longest)) for _ in range(rank)), draw(st.integers(0, 99)))
    trits = trits.transpose(draw(st.permutations(range(rank))))
    steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in range(rank)]
    trits = trits[tuple(slice(None, None, step) for step in steps)]
    if draw(st.booleans()):  # an axis of stride 0
        trits = np.broadcast_to(trits[:1], trits.shape) if len(trits) else trits
    return trits, draw(st.integers(-rank, rank - 1))


@given(strided_trits(), st.sampled_from([*BOXES, packing.BOX_BYTES]))
@quick
def test_packing_by_the_formula(drawn: tuple[I8, int], box_bytes: int) -> None:
    """An array of any rank, axis, size and strides packs by the document's sum, in boxes of any size."""
    trits, axis = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BOX_BYTES", box_bytes)
        packed = pack(trits, axis)
    rows = np.moveaxis(trits, axis, 0)
    expected = packed_by_the_formula(rows.reshape(len(rows), int(np.prod(rows.shape[1:]))))
    moved = np.moveaxis(packed, axis, 0)
    assert packed.dtype == np.uint8
    assert packed.flags.c_contiguous
    assert moved.shape == (packed_rows(len(rows)), *rows.shape[1:])
    assert moved.reshape(len(moved), -1).tolist() == expected if moved.size else not any(expected)


@given(strided_trits(), st.sampled_from([*BOXES, packing.BOX_BYTES]), st.booleans())
@quick
def test_unpack_is_the_inverse_of_pack(drawn: tuple[I8, int], box_bytes: int, flipped: bool) -> None:
    """What was packed unpacks to the same trits, from bytes of any strides, and neither changes its input."""
    trits, axis = drawn
    before = trits.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BOX_BYTES", box_bytes)
        packed = pack(trits, axis)
        if flipped:
            packed = packed.T.copy().T
        bytes_before = packed.copy()
        packed.flags.writeable = False
        unpacked = unpack(packed, trits.shape[axis], axis)
    assert unpacked.dtype == np.int8
    assert unpacked.flags.c_contiguous
    assert np.array_equal(unpacked, before)
    assert np.array_equal(trits, before)
    assert np.array_equal(packed, bytes_before)


@pytest.mark.parametrize("columns", [1, 3, 16])
@pytest.mark.parametrize("rows", EDGES)
def test_sizes_around_full_bytes(rows: int, columns: int) -> None:
    """5k-1, 5k and 5k+1 rows pack by the formula into ceil(rows / 5) byte rows, and unpack again."""
    trits = rng_trits((rows, columns), rows)
    packed = pack(trits)
    assert packed.shape == (-(-rows // 5), columns)
    assert packed.tolist() == packed_by_the_formula(trits)
    assert np.array_equal(unpack(packed, rows), trits)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_a_size_may_be_of_numpy(kind: type[np.integer[Any]]) -> None:
    """However narrow or unsigned it is, no size wraps."""
    trits = rng_trits((101, 3))
    assert np.array_equal(unpack(pack(trits), kind(101)), trits)


def test_every_byte() -> None:
    """Each of the 243 bytes unpacks to the digits that plain division finds, less one, and packs again."""
    packed = np.arange(243, dtype=np.uint8)[None]
    trits = unpack(packed, 5)
    assert trits.T.tolist() == [[byte // 3**i % 3 - 1 for i in range(5)] for byte in range(243)]
    assert np.array_equal(pack(trits), packed)


@pytest.mark.parametrize("used", range(1, 5))
def test_every_padded_byte(used: int) -> None:
    """Of the 243 bytes, 3^used are valid for that many trits: those whose other digits are 1, and no more."""
    for byte in range(243):
        packed = np.array([121, byte], np.uint8)
        digits = [byte // 3**i % 3 for i in range(5)]
        if any(digit != 1 for digit in digits[used:]):
            with refused("PACK-3"):
                unpack(packed, 5 + used)
        else:
            assert unpack(packed, 5 + used)[5:].tolist() == [digit - 1 for digit in digits[:used]]


@pytest.mark.parametrize("place", FIRST_MIDDLE_LAST, ids=str)
@pytest.mark.parametrize("byte", INVALID)
def test_invalid_bytes_are_refused(byte: int, place: tuple[int, int]) -> None:
    """Each byte above 242 is refused with PACK-2 wherever it stands, along either axis, with its place."""
    packed = zero_plane()
    packed[place] = byte
    for call in (lambda: unpack(packed, 25), lambda: unpack(packed, 35, 1), lambda: check_plane(packed, 25)):
        with refused("PACK-2") as caught:
            call()
        assert str(byte) in str(caught.value)
    with refused("PACK-2") as caught:
        unpack(packed, 25)
    assert str(place) in str(caught.value)


@pytest.mark.parametrize("column", [0, 3, 6])
@pytest.mark.parametrize("rows", [21, 22, 23, 24])
def test_padding_is_zero(rows: int, column: int) -> None:
    """A trit other than 0 in a missing row is refused with PACK-3, in any column; elsewhere not."""
    for missing in range(rows, 25):
        for trit in (-1, 1):
            packed = zero_plane()
            packed[4, column] = 121 + trit * 3 ** (missing % 5)
            with refused("PACK-3") as caught:
                unpack(packed, rows)
            assert str((4, column)) in str(caught.value)
            with refused("PACK-3"):
                unpack(packed.T, rows, 1)
            assert unpack(packed, 25)[missing, column] == trit


@pytest.mark.parametrize("place", [(0, 0), (11, 3), (24, 6)], ids=str)
@pytest.mark.parametrize("value", [value for value in range(-128, 128) if abs(value) > 1])
def test_what_is_no_trit_is_refused(value: int, place: tuple[int, int]) -> None:
    """Each of the 253 other values of int8 is refused with TRIT-1 wherever it stands: none wraps round."""
    trits = np.zeros((25, 7), np.int8)
    trits[place] = value
    for axis in (0, 1):
        with refused("TRIT-1") as caught:
            pack(trits, axis)
        assert f"{value} at {place}" in str(caught.value)


@pytest.mark.parametrize("box_bytes", BOXES)
def test_faults_in_every_box_are_found(monkeypatch: pytest.MonkeyPatch, box_bytes: int) -> None:
    """However small the boxes, a wrong trit in any of them is found, at its own place."""
    monkeypatch.setattr(packing, "BOX_BYTES", box_bytes)
    for place in np.ndindex(11, 7):
        trits = np.zeros((11, 7), np.int8)
        trits[place] = 2
        with refused("TRIT-1") as caught:
            pack(trits)
        assert str(place) in str(caught.value)


BAD_ARGUMENTS: list[tuple[str | None, Callable[[], Any]]] = [
    (None, lambda: pack(np.zeros(5, np.uint8))),
    (None, lambda: pack(np.zeros(5))),
    (None, lambda: pack([0, 1, -1])),
    (None, lambda: pack(np.int8(0))),
    (None, lambda: pack(np.zeros((5, 2), np.int8), 2)),
    (None, lambda: pack(np.zeros((5, 2), np.int8), -3)),
    (None, lambda: pack(np.zeros((5, 2), np.int8), None)),  # type: ignore[arg-type]  # as is the point
    (None, lambda: pack(np.zeros((5, 2), np.int8), 0.0)),  # type: ignore[arg-type]  # as is the point
    (None, lambda: unpack(np.full(1, 121, np.int8), 5)),
    (None, lambda: unpack(np.full(1, 121, np.int64), 5)),
    (None, lambda: unpack(np.uint8(121), 5)),
    (None, lambda: unpack(np.full(1, 121, np.uint8), 5, 1)),
    (None, lambda: unpack(np.zeros(0, np.uint8), -1)),
    (None, lambda: unpack(np.full(1, 121, np.uint8), 5.0)),  # type: ignore[arg-type]  # as is the point
    ("PACK-1", lambda: unpack(np.full(1, 121, np.uint8), 6)),
    ("PACK-1", lambda: unpack(np.full(2, 121, np.uint8), 5)),
    ("PACK-1", lambda: unpack(np.full((1, 3), 121, np.uint8), 5, 1)),
    ("PACK-1", lambda: unpack(np.zeros(0, np.uint8), 1)),
]


@pytest.mark.parametrize(("clause", "call"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused(clause: str | None, call: Callable[[], Any]) -> None:
    """A wrong dtype, rank, axis or size raises TritError: PACK-1 where the bytes do not match the trits."""
    with refused(clause):
        call()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (5, 0, 2), (0, 0)], ids=str)
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    """Arrays without elements pack into arrays without bytes along every axis, and unpack again."""
    for axis in range(len(shape)):
        packed = pack(np.zeros(shape, np.int8), axis)
        assert packed.size == 0
        assert unpack(packed, shape[axis], axis).shape == shape


@st.composite
def digit_matrices(draw: DrawFn) -> tuple[int, U8]:
    """A count of planes, and digits of as many trits: a matrix of up to 23 rows and 9 columns."""
    count = draw(st.integers(1, 4))
    shape = draw(st.integers(1, 23)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return count, rng.integers(0, 3**count, shape, np.uint8)


@given(digit_matrices(), st.sampled_from([*BOXES, packing.BOX_BYTES]))
@quick
def test_digits_pack_like_their_planes(drawn: tuple[int, U8], box_bytes: int) -> None:
    """Packing digits gives what splitting levels and packing each plane gives, and leaves the digits be."""
    count, digits = drawn
    before = digits.copy()
    planes = [np.zeros((packed_rows(len(digits)), digits.shape[1]), np.uint8) for _ in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BOX_BYTES", box_bytes)
        pack_digits(digits, count, planes)
    levels = (digits.astype(int) - largest(count)).astype(np.int8)
    expected = [packed_by_the_formula(plane) for plane in split(levels, count)]
    assert [plane.tolist() for plane in planes] == expected
    assert np.array_equal(digits, before)


@given(digit_matrices(), st.sampled_from([*BOXES, packing.BOX_BYTES]), st.integers(0, 255))
@quick
def test_digits_unpack_like_their_planes(drawn: tuple[int, U8], box_bytes: int, minus: int) -> None:
    """Unpacking digits gives what unpacking each plane and joining gives, less any number."""
    count, digits = drawn
    levels = (digits.astype(int) - largest(count)).astype(np.int8)
    planes = [pack(plane) for plane in split(levels, count)]
    for plane in planes:
        plane.flags.writeable = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BOX_BYTES", box_bytes)
        out = np.empty_like(digits)
        assert unpack_digits(planes, out, minus=largest(count)) is out
        less = unpack_digits(planes, np.empty_like(digits), minus=minus)
    assert np.array_equal(out.view(np.int8), levels)
    assert np.array_equal(out.view(np.int8), join(np.array([unpack(plane, len(digits)) for plane in planes])))
    assert np.array_equal(less, (digits.astype(int) - minus) % 256)


@pytest.mark.parametrize("count", range(1, 5))
def test_every_digit_at_every_place(count: int) -> None:
    """Each digit of 1 to 4 trits packs and unpacks at each of the five places of a byte."""
    digits = np.array([[(i + shift) % 3**count for i in range(3**count)] for shift in range(10)], np.uint8)
    planes = [np.empty((2, 3**count), np.uint8) for _ in range(count)]
    pack_digits(digits, count, planes)
    for p, plane in enumerate(planes):
        assert plane.tolist() == packed_by_the_formula((digits // 3**p % 3).astype(np.int8) - 1)
    assert np.array_equal(unpack_digits(planes, np.empty_like(digits)), digits)


def test_codes_are_three_planes() -> None:
    """Every code from 0 to 26 is held as three planes by c = sum of (t_p + 1) * 3^p, and comes back."""
    codes = np.arange(27, dtype=np.uint8).reshape(9, 3)
    planes = [np.empty((2, 3), np.uint8) for _ in range(3)]
    pack_digits(codes, 3, planes)
    trits = [unpack(plane, 9).astype(int) for plane in planes]
    assert sum((t + 1) * 3**p for p, t in enumerate(trits)).tolist() == codes.tolist()
    assert unpack_digits(planes, np.empty_like(codes)).tolist() == codes.tolist()


def test_an_array_larger_than_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix of several boxes in both axes, its last ones partly filled, packs as in one box."""
    trits = rng_trits((5 * 40 + 3, 50))
    whole = pack(trits)
    for box_bytes in (1, 17, 49, 50, 51, 150, 1999):
        monkeypatch.setattr(packing, "BOX_BYTES", box_bytes)
        assert np.array_equal(pack(trits), whole)
        assert np.array_equal(unpack(whole, len(trits)), trits)
        assert np.array_equal(unpack(pack(trits, 1), 50, 1), trits)


@pytest.mark.parametrize("shape", [(1, 1 << 20), (1 << 20, 1), (1 << 10, 1 << 10), (5, 1 << 18)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_memory_is_output_and_boxes(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], axis: int
) -> None:
    """Whatever the shape, packing and unpacking take the memory of their output and 40 boxes, and no more."""
    monkeypatch.setattr(packing, "BOX_BYTES", 1 << 12)
    trits = np.zeros(shape, np.int8)
    size, boxes = -(-shape[axis] // 5) * trits.size // shape[axis], 40 << 12
    with little_memory(size + boxes):
        packed = pack(trits, axis)
    with little_memory(trits.size + boxes):
        unpack(packed, shape[axis], axis)
    digits, planes = np.zeros(shape, np.uint8), [np.zeros_like(pack(trits)) for _ in range(4)]
    with little_memory(boxes):
        pack_digits(digits, 4, planes)
    with little_memory(boxes):
        unpack_digits(planes, digits)
