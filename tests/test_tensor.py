"""SPEC 5: trit tensors against exact arithmetic that knows nothing of the package."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from helpers import (
    F32,
    FORMS,
    I8,
    U8,
    float32,
    largest,
    painted,
    painted_codes,
    painted_levels,
    plain,
    refused,
    same,
    steps,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick, tensors

from tritcodec import TritError, TritTensor, packing, tensor
from tritcodec.tensor import Form, check_shape, float_name

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
BITS = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}


def halfway(exponent: int, fraction: int) -> list[int]:
    """Patterns of numbers of 2^exponent just at, below and above the middle of two with *fraction* bits."""
    one, unit = (exponent + 127) << 23, 1 << (23 - fraction)
    middles = [
        one + unit // 2,
        one + unit + unit // 2,
        one + (1 << 23) - unit // 2,
    ]  # to even: down, up, up and over
    return sorted({middle + by for middle in middles for by in (-64, 0, 64)})


CODEBOOKS = {
    "ordinary": steps(),
    "binary16 ties": float32(*halfway(-3, 10), *halfway(0, 10), *halfway(2, 10)),
    "binary16 subnormals": float32(
        *range(
            0x3280_0000, 0x3280_0000 + 6 * 64, 64
        ),  # 2^-26 and above: to 0 at level 1, to 2^-24 beyond the tie
        *range(0x3300_0000, 0x3300_0000 + 3 * 64, 64),  # 2^-25, a tie between 0 and the least subnormal
        *halfway(-20, 4),
        *halfway(-14, 10),
    ),
    "bfloat16 ties": float32(*halfway(-100, 7), *halfway(0, 7), *halfway(10, 7)),
    "least normal": steps(0x0080_0000, 64),
}
FITS_F16 = [name for name in CODEBOOKS if name != "bfloat16 ties"]  # the last of these overflows at depth 4


def all_values(depth: int, shift: int, codebook: F32, dtype: str = "F32") -> TritTensor:
    """Every code with every level: 27 rows of one group."""
    H = largest(depth)
    levels = np.tile(np.arange(-H, H + 1, dtype=np.int8), (27, 1))
    codes = np.arange(27, dtype=np.uint8)[:, None]
    return TritTensor.from_levels(
        levels, codes, codebook, depth=depth, shift=shift, group_size=2 * H + 1, dtype=dtype
    )


def exact_values(depth: int, shift: int, codebook: F32) -> list[Fraction]:
    """The weights of `all_values`, by the sentence of TEN-6."""
    H = largest(depth)
    return [Fraction(float(step)) * 3**shift * k for step in codebook for k in range(-H, H + 1)]


def binary16(exact: Fraction) -> int:
    """Bits of the nearest binary16: Python's struct rounds a double once, ties to even; products fit one."""
    assert Fraction(float(exact)) == exact
    return int.from_bytes(struct.pack("<e", float(exact)), "little")


def bfloat16(exact: Fraction) -> int:
    """Bits of the nearest bfloat16, from those of the binary32 that the product is, in integers."""
    pattern = int.from_bytes(struct.pack("<f", float(exact)), "little")
    upper, lower = divmod(pattern, 1 << 16)
    return upper + (lower > 0x8000 or (lower == 0x8000 and upper % 2 == 1))


# Values


@pytest.mark.parametrize("name", CODEBOOKS)
@pytest.mark.parametrize(("depth", "shift"), FORMS)
def test_binary32_is_exact(depth: int, shift: int, name: str) -> None:
    """Every code and level decodes to just step[c] * 3^shift * k, whatever the depth and shift (TEN-6)."""
    values = all_values(depth, shift, CODEBOOKS[name]).dequantize()
    assert values.dtype == np.float32
    assert [Fraction(float(value)) for value in values.ravel()] == exact_values(depth, shift, CODEBOOKS[name])


@pytest.mark.parametrize("name", FITS_F16)
@pytest.mark.parametrize(("depth", "shift"), FORMS)
def test_binary16_is_rounded_once(depth: int, shift: int, name: str) -> None:
    """Every code and level decodes to the nearest binary16, ties to even, subnormals too (TEN-8)."""
    codebook = CODEBOOKS[name]
    bits = [binary16(exact) for exact in exact_values(depth, shift, codebook)]
    for tensor_dtype in ("F32", "F16"):
        values = all_values(depth, shift, codebook, tensor_dtype).dequantize("F16")
        assert values.dtype == np.float16
        assert values.view(np.uint16).ravel().tolist() == bits


@pytest.mark.parametrize("name", CODEBOOKS)
@pytest.mark.parametrize(("depth", "shift"), FORMS)
def test_bfloat16_is_rounded_once(depth: int, shift: int, name: str) -> None:
    """Every code and level decodes to the nearest bfloat16, ties to even (TEN-8)."""
    codebook = CODEBOOKS[name]
    bits = [bfloat16(exact) for exact in exact_values(depth, shift, codebook)]
    values = all_values(depth, shift, codebook, "BF16").dequantize()
    assert values.dtype == ml_dtypes.bfloat16
    assert values.view(np.uint16).ravel().tolist() == bits


def test_the_codebooks_hold_what_they_are_for() -> None:
    """Among the values tried are ties that go down and up, subnormals, and zeros of both signs."""
    ties = [int(pattern) % 2**14 == 2**12 for pattern in CODEBOOKS["binary16 ties"].view(np.uint32)]
    odd = [int(pattern) >> 13 & 1 for pattern in CODEBOOKS["binary16 ties"].view(np.uint32)]
    assert any(ties)
    assert any(odd)
    patterns = {binary16(exact) for exact in exact_values(1, 0, CODEBOOKS["binary16 subnormals"])}
    assert {0x0000, 0x8000, 0x0001, 0x8001} <= patterns
    assert any(0x0001 < pattern < 0x0400 for pattern in patterns)


@pytest.mark.parametrize("dtype", DTYPES)
def test_level_0_is_positive_zero(dtype: str) -> None:
    """All bits of a weight of level 0 are zero, in every dtype (TEN-7)."""
    zeros = TritTensor.from_levels(
        np.zeros((27, 16), np.int8),
        np.arange(27, dtype=np.uint8)[:, None],
        CODEBOOKS["least normal"],
        dtype=dtype,
    )
    assert not zeros.dequantize().view(BITS[dtype]).any()


@quick
@given(tensors())
def test_any_tensor_decodes_as_the_document_says(small: TritTensor) -> None:
    """Whatever the form, codebook, codes and levels, the values are those of an independent decoder."""
    by_hand = plain(small)
    for dtype in DTYPES:
        values = small.dequantize(dtype)
        assert values.shape == small.shape
        assert values.view(BITS[dtype]).reshape(-1, small.shape[-1]).tolist() == by_hand.values(dtype)


@pytest.mark.parametrize("group_size", [1, 5, 16, 17, 65_536])
@pytest.mark.parametrize("shape", [(1, 70_001), (70_001, 1), (3, 65_536), (11, 1_000)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_and_narrow_tensors(shape: tuple[int, int], group_size: int, dtype: str) -> None:
    """One row of many weights and many rows of one decode like any other, at any group size."""
    long = painted(shape, 3, shift=1, group_size=group_size, dtype=dtype)
    levels = painted_levels(shape, 3)
    codes = painted_codes((shape[0], -(-shape[1] // group_size)))
    scales = np.repeat(steps()[codes].astype(np.float64), min(group_size, shape[1]), axis=1)[:, : shape[1]]
    expected = (scales * 3 * levels).astype(np.float32).astype(DTYPES[dtype]) + DTYPES[dtype].type(
        0
    )  # -0 to +0
    assert np.array_equal(long.levels(), levels)
    assert np.array_equal(long.codes, codes)
    assert long.dequantize().tobytes() == expected.tobytes()


@pytest.mark.parametrize("rank", range(1, 9))
def test_ranks(rank: int) -> None:
    """The leading axes of ranks 1 to 8 are the rows of a matrix, in C order."""
    shape = tuple(range(2, 2 + rank))[:3] + (1, 2, 1, 2, 3)[: max(0, rank - 3)]
    ranked = painted(shape, group_size=2)
    matrix = painted((math.prod(shape[:-1]), shape[-1]), group_size=2)
    assert (ranked.shape, ranked.codes.shape) == (shape, (*shape[:-1], -(-shape[-1] // 2)))
    assert np.array_equal(ranked.dequantize(), matrix.dequantize().reshape(shape))
    assert np.array_equal(ranked.levels(), matrix.levels().reshape(shape))
    assert [plane.tobytes() for plane in ranked.planes] == [plane.tobytes() for plane in matrix.planes]


@pytest.mark.parametrize(("depth", "shift"), FORMS)
def test_scales_are_exact(depth: int, shift: int) -> None:
    """The scale of a group is step[c] * 3^shift, exactly, in float32."""
    scaled = painted((27, 16), depth, shift=shift)
    expected = [Fraction(float(steps()[code])) * 3**shift for code in scaled.codes.ravel()]
    assert scaled.scales().dtype == np.float32
    assert scaled.scales().shape == scaled.codes.shape
    assert [Fraction(float(scale)) for scale in scaled.scales().ravel()] == expected


# From levels


@quick
@given(tensors())
def test_levels_and_codes_come_back(small: TritTensor) -> None:
    """A tensor made of its own levels, codes and codebook is the same; its planes are as in SPEC 3.1."""
    again = TritTensor.from_levels(
        small.levels(),
        small.codes,
        small.codebook,
        depth=small.depth,
        group_size=small.group_size,
        shift=small.shift,
        dtype=small.dtype,
    )
    assert same(again, small)
    by_hand = plain(small)
    weights = [plane.tobytes() for plane in small.planes[3:]]
    assert weights == [packed_by_hand(plane) for plane in by_hand.planes]


def packed_by_hand(plane: list[list[int]]) -> bytes:
    """PACK-1 and PACK-3 in integers."""
    rows = plane + [[0] * len(plane[0])] * (-len(plane) % 5)
    return bytes(
        sum((rows[r + i][j] + 1) * 3**i for i in range(5))
        for r in range(0, len(rows), 5)
        for j in range(len(rows[0]))
    )


@pytest.mark.parametrize(
    ("largest_level", "depth"), [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (13, 3), (14, 4), (40, 4)]
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_depth_is_the_least_that_holds_the_levels(largest_level: int, depth: int, sign: int) -> None:
    """Without a depth, the largest magnitude, of either sign, decides."""
    levels = np.array([[0, sign * largest_level]], np.int8)
    assert TritTensor.from_levels(levels, np.zeros((1, 1), np.uint8), steps()).depth == depth


def test_a_level_beyond_the_depth_is_named_by_its_place() -> None:
    """In all of the levels, of any rank, not in the block of rows that was packed at the time."""
    levels, codes = np.zeros((20, 100, 1000), np.int8), np.zeros((20, 100, 63), np.uint8)
    levels[19, 98, 7] = 5
    with refused("TRIT-2", "") as caught:
        TritTensor.from_levels(levels, codes, steps(), depth=2)
    assert "level 5 at (19, 98, 7) is outside -4..4" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"levels": np.full((7, 21), 5, np.int8)}, "TRIT-2"),
        ({"levels": np.full((7, 21), -128, np.int8), "depth": 4}, "TRIT-2"),
        ({"levels": np.full((7, 21), 41, np.int8), "depth": None}, "TRIT-2"),
        ({"levels": np.full((7, 21), -128, np.int8), "depth": None}, "TRIT-2"),
        ({"levels": np.zeros((7, 21), np.int16)}, None),
        ({"levels": np.zeros((7, 21), np.uint8)}, None),
        ({"levels": np.zeros((7, 21)), "depth": None}, None),
        ({"levels": np.full((7, 21), np.nan), "depth": None}, None),
        ({"levels": np.full((7, 21), "1"), "depth": None}, None),
        ({"levels": [[0] * 21] * 7, "depth": None}, None),
        ({"codes": np.full((7, 2), 27, np.uint8)}, "CODE-1"),
        ({"codes": np.full((7, 2), 255, np.uint8)}, "CODE-1"),
        ({"codes": np.zeros((7, 2), np.int8)}, None),
        ({"codes": np.zeros((7, 1), np.uint8)}, None),
        ({"codes": np.zeros((7, 3), np.uint8)}, None),
        ({"codes": np.zeros((2, 7), np.uint8)}, None),
        ({"codes": np.zeros((14,), np.uint8)}, None),
        ({"codes": np.zeros((7, 2, 1), np.uint8)}, None),
        ({"codebook": steps()[:26]}, "CB-1"),
        ({"codebook": steps().astype(np.float64)}, "CB-1"),
        ({"codebook": -steps()}, "CB-2"),
        ({"codebook": steps()[::-1]}, "CB-3"),
        ({"codebook": steps(0x3C00_0001)}, "CB-4"),
        ({"codebook": steps(0x7F7F_0000, 64)}, "CB-5"),
        ({"levels": np.int8(0), "codes": np.zeros((1,), np.uint8)}, "TEN-1"),
        ({"levels": np.zeros((0, 21), np.int8)}, "TEN-1"),
        ({"levels": np.zeros((7, 0), np.int8)}, "TEN-1"),
        ({"levels": np.zeros((7, 0), np.int8), "depth": None}, "TEN-1"),
        ({"depth": 0}, "TEN-2"),
        ({"depth": 5}, "TEN-2"),
        ({"depth": True}, "TEN-2"),
        ({"depth": "2"}, "TEN-2"),
        ({"shift": 3}, "TEN-3"),
        ({"shift": -1}, "TEN-3"),
        ({"shift": True}, "TEN-3"),
        ({"shift": 1.0}, "TEN-3"),
        ({"shift": "1"}, "TEN-3"),
        ({"group_size": 0}, "TEN-4"),
        ({"group_size": 65_537}, "TEN-4"),
        ({"group_size": -16}, "TEN-4"),
        ({"group_size": 16.0}, "TEN-4"),
        ({"group_size": True}, "TEN-4"),
        ({"group_size": "16"}, "TEN-4"),
        ({"dtype": "F64"}, "TEN-5"),
        ({"dtype": "f32"}, "TEN-5"),
        ({"dtype": np.float32}, "TEN-5"),
        ({"dtype": None}, "TEN-5"),
        ({"levels": np.zeros((1,) * 9, np.int8), "codes": np.zeros((1,) * 9, np.uint8)}, "SHAPE-1"),
    ],
    ids=lambda changes: (
        " ".join(f"{k}={np.ravel(v)[:1]} {np.shape(v)}" for k, v in changes.items())
        if isinstance(changes, dict)
        else None
    ),
)
def test_what_cannot_be_a_tensor_is_refused(changes: dict[str, Any], clause: str | None) -> None:
    """Each argument of `from_levels`, wrong alone, is refused with the clause that it breaks, if any."""
    fields: dict[str, Any] = {
        "levels": painted_levels((7, 21), 2),
        "codes": painted_codes((7, 2)),
        "codebook": steps(),
        "depth": 2,
    }
    TritTensor.from_levels(**fields)
    with refused(clause):
        TritTensor.from_levels(**{**fields, **changes})


VIEWS: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "Fortran order": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "strided": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape))[1],
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_strides_and_read_only_arrays(view: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
    """How levels, codes and codebook lie in memory, and whether they can be written, makes no difference."""
    levels: I8 = view(painted_levels((23, 37), 2))
    codes: U8 = view(painted_codes((23, 3)))
    for array in (levels, codes):
        array.flags.writeable = False
    viewed = TritTensor.from_levels(levels, codes, np.repeat(steps(), 2)[::2], depth=2)
    assert same(viewed, painted((23, 37)))
    assert np.array_equal(levels, painted_levels((23, 37), 2))


@pytest.mark.parametrize("form", ["uint8 of another shape", "int8", "float32", "one too few", "one too many"])
def test_planes_fit_the_form(form: str) -> None:
    """Planes of another count, dtype or shape are refused with PACK-1."""
    tensor_ = painted()
    planes: list[Any] = [*tensor_.planes]
    if form == "uint8 of another shape":
        planes[3] = planes[3].reshape(-1)
    elif form in ("int8", "float32"):
        planes[3] = planes[3].astype(form)
    else:
        planes = planes[:-1] if form == "one too few" else [*planes, planes[-1]]
    with refused("PACK-1"):
        TritTensor(tensor_.form, tuple(planes))


@pytest.mark.parametrize(
    ("byte", "at", "clause"), [(243, (0, 0), "PACK-2"), (255, (1, 20), "PACK-2"), (0, (1, 3), "PACK-3")]
)
def test_planes_hold_trits(byte: int, at: tuple[int, int], clause: str) -> None:
    """A byte above 242, or padding that is not 0, is refused with its clause and its place (READ-2)."""
    tensor_ = painted()
    planes = [plane.copy() for plane in tensor_.planes]
    planes[4][at] = byte
    with refused(clause) as caught:
        TritTensor(tensor_.form, tuple(planes))
    assert f"byte {byte} at {at}" in caught.value.message


@pytest.mark.parametrize(
    ("shape", "clause"),
    [
        ((1,) * 9, "SHAPE-1"),
        ((2**48 + 1,), "SHAPE-2"),
        ((2**25, 2**24), "SHAPE-2"),
        ((2**32, 2**32), "SHAPE-2"),  # 2^64, 0 where it wraps
        ((np.int64(2**32), np.int64(2**32)), "SHAPE-2"),
        ((2**63, 2), "SHAPE-2"),
        ((2**63,), "SHAPE-2"),
        ((0, 2**49), "SHAPE-2"),  # the axes of 0 do not count
        ((2**31, 0, 2**31), "SHAPE-2"),
    ],
    ids=str,
)
def test_shapes_that_are_too_large(shape: tuple[int, ...], clause: str) -> None:
    """Rank 9 and products above 2^48 are refused, axes of 0 or wrapping notwithstanding."""
    with refused(clause):
        check_shape(shape)


@pytest.mark.parametrize("shape", [(), (0,), (2**48,), (2**24, 2**24), (2**24, 0, 2**24), (1,) * 8], ids=str)
def test_shapes_at_the_limits(shape: tuple[int, ...]) -> None:
    """Rank 8 and just 2^48 elements are allowed."""
    check_shape(shape)


# Output of dequantize


@pytest.mark.parametrize("own", DTYPES)
@pytest.mark.parametrize("wanted", DTYPES)
def test_out_is_filled_and_returned(own: str, wanted: str) -> None:
    """A fitting array of any of the dtypes is filled, every element of it, and is itself the result."""
    source = painted((9, 35), dtype=own)
    out = np.full((9, 35), 77, DTYPES[wanted])
    assert source.dequantize(out=out) is out
    assert out.tobytes() == source.dequantize(wanted).tobytes()
    assert source.dequantize(wanted, out=out) is out


def test_out_may_be_part_of_an_array() -> None:
    """A C-contiguous view is filled in place, and what lies beside it is left alone."""
    whole = np.full((4, 7, 21), 77, np.float32)
    painted().dequantize(out=whole[1])
    assert np.array_equal(whole[1], painted().dequantize())
    assert (whole[[0, 2, 3]] == 77).all()


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, not to be written."""
    array.flags.writeable = False
    return array


UNFIT_OUTPUTS: dict[str, tuple[Any, Any]] = {  # dtype=, out=
    "another shape": (None, np.full((7, 20), 77, np.float32)),
    "one row of all": (None, np.full((1, 147), 77, np.float32)),
    "flat": (None, np.full(147, 77, np.float32)),
    "float64": (None, np.full((7, 21), 77, np.float64)),
    "integers": (None, np.full((7, 21), 77, np.int32)),
    "big-endian": (None, np.full((7, 21), 77, ">f4")),
    "another dtype than asked for": ("F16", np.full((7, 21), 77, np.float32)),
    "transposed": (None, np.full((21, 7), 77, np.float32).T),
    "strided": (None, np.full((7, 42), 77, np.float32)[:, ::2]),
    "read-only": (None, read_only(np.full((7, 21), 77, np.float32))),
    "read-only, of 16 bits": (None, read_only(np.full((7, 21), 77, np.float16))),
}


@pytest.mark.parametrize("name", UNFIT_OUTPUTS)
def test_an_unfit_out_is_refused_untouched(name: str) -> None:
    """An array of another shape, dtype or order, or a read-only one, is refused before any is written."""
    dtype, out = UNFIT_OUTPUTS[name]
    clause = "TEN-5" if out.dtype not in DTYPES.values() else None
    with refused(clause):
        painted().dequantize(dtype, out=out)
    assert (out == 77).all()


@pytest.mark.parametrize("out", [[0.0], 1, "F32", (7, 21)], ids=repr)
def test_out_is_an_array(out: Any) -> None:
    """What is no array cannot be filled, and is refused."""
    with refused(None):
        painted().dequantize(out=out)


NAMES = {
    "F32": ["F32", "F32", np.float32, np.dtype("<f4"), "F32"],
    "F16": ["F16", np.float16, np.dtype("<f2")],
    "BF16": ["BF16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)],
}


@pytest.mark.parametrize(
    ("name", "spelling"), [(n, s) for n, spellings in NAMES.items() for s in spellings], ids=str
)
def test_dtypes_are_known_by_name_and_by_numpy(name: str, spelling: npt.DTypeLike) -> None:
    """F32, F16 and BF16, and the NumPy dtypes and types that they are, all mean the same."""
    assert float_name(spelling) == name
    assert painted().dequantize(spelling).dtype == DTYPES[name]


@pytest.mark.parametrize(
    "dtype",
    ["F64", "f32", "", "float16", np.float64, np.int8, ">f4", np.dtype(">f2"), bool, 4, [], TritTensor],
    ids=str,
)
def test_other_dtypes_are_refused(dtype: Any) -> None:
    """Any other dtype, and what is none, is refused with TEN-5."""
    with refused("TEN-5"):
        painted().dequantize(dtype)


@pytest.mark.parametrize(
    ("own", "narrower", "step"),
    [("F32", "F16", 65520), ("BF16", "F16", 65520), ("F32", "F16", 2**127), ("F32", "BF16", 2**119 * 511)],
)
def test_a_dtype_that_would_overflow_is_refused(own: str, narrower: str, step: int) -> None:
    """Where the form's largest value would be infinite in the dtype asked for, nothing is decoded (TEN-10).

    That is so whatever the levels are: the same call on the same kind of tensor never depends on its values.
    """
    codebook = steps(int(np.float32(step).view(np.uint32)) - 26 * 64, 64)
    zeros = TritTensor.from_levels(np.zeros((5, 5), np.int8), np.zeros((5, 1), np.uint8), codebook, dtype=own)
    out = np.full((5, 5), 77, DTYPES[narrower])
    with refused("CB-5"):
        zeros.dequantize(narrower)
    with refused("CB-5"):
        zeros.dequantize(out=out)
    assert (out == 77).all()
    assert not zeros.dequantize().any()


# Truncation and rows


@pytest.mark.parametrize(("depth", "to"), [(d, e) for d in range(1, 5) for e in range(1, d + 1)])
def test_truncation_rounds_correctly(depth: int, to: int) -> None:
    """Cut to d' planes, levels become the nearest integers to k / 3^(d-d'); the shift makes up (TEN-9)."""
    for shift in range(5 - depth):
        cut = all_values(depth, shift, steps()).truncate(to)
        H = largest(depth)
        expected = [round(Fraction(k, 3 ** (depth - to))) for k in range(-H, H + 1)]
        assert (cut.depth, cut.shift) == (to, shift + depth - to)
        assert cut.levels().tolist() == [expected] * 27
        values = [Fraction(float(step)) * 3**cut.shift * k for step in steps() for k in expected]
        assert [Fraction(float(value)) for value in cut.dequantize().ravel()] == values


@pytest.mark.parametrize("depth", range(1, 5))
def test_truncation_shares_planes(depth: int) -> None:
    """The codes and the top planes are the very memory of the whole tensor; nothing else of it changes."""
    whole = painted(depth=depth, dtype="BF16", group_size=5)
    for to in range(1, depth + 1):
        cut = whole.truncate(to)
        assert len(cut.planes) == 3 + to
        assert all(np.shares_memory(a, b) for a, b in zip(cut.planes, whole.planes, strict=False))
        assert (cut.shape, cut.dtype, cut.group_size) == (whole.shape, "BF16", 5)
        assert np.array_equal(cut.codebook, whole.codebook)


@quick
@given(tensors(), st.data())
def test_truncating_twice_is_truncating_once(small: TritTensor, data: st.DataObject) -> None:
    """Cut to one depth and then to another, a tensor is what it is cut to the last at once."""
    first = data.draw(st.integers(1, small.depth))
    second = data.draw(st.integers(1, first))
    assert same(small.truncate(first).truncate(second), small.truncate(second))
    assert same(small.truncate(small.depth), small)


@pytest.mark.parametrize("to", [0, 3, 5, -1, True, 1.0, "1", None], ids=repr)
def test_a_depth_that_is_not_there_is_refused(to: Any) -> None:
    """A tensor of depth 2 has no third plane; TEN-2."""
    with refused("TEN-2"):
        painted(depth=2).truncate(to)


@pytest.mark.parametrize("depth", range(1, 5))
def test_rows_are_a_slice(depth: int) -> None:
    """Rows [start, stop), wherever they begin and end, are that slice of what the tensor decodes to."""
    whole = painted((13, 19), depth, group_size=5)
    values, levels = whole.dequantize(), whole.levels()
    for start, stop in itertools.combinations(range(14), 2):
        rows = whole.get_rows(start, stop)
        assert (rows.shape, rows.depth, rows.shift, rows.group_size) == ((stop - start, 19), depth, 0, 5)
        assert np.array_equal(rows.dequantize(), values[start:stop])
        assert np.array_equal(rows.levels(), levels[start:stop])


def test_rows_count_over_all_leading_axes() -> None:
    """The rows of a tensor of rank 3 are those of its matrix; a tensor of rank 1 has one."""
    cube = painted((3, 4, 6))
    assert np.array_equal(cube.get_rows(3, 9).dequantize(), cube.dequantize().reshape(12, 6)[3:9])
    assert np.array_equal(painted((6,)).get_rows(0, 1).dequantize(), painted((6,)).dequantize()[None])


def test_numpy_integers_are_rows() -> None:
    """Integers of NumPy say the same rows, and leave no trace in the shape."""
    rows = painted((13, 19)).get_rows(np.int64(2), np.int64(9))
    assert same(rows, painted((13, 19)).get_rows(2, 9))
    assert [type(axis) for axis in rows.shape] == [int, int]


@pytest.mark.parametrize(
    "rows",
    [
        (0, 0),
        (3, 3),
        (5, 2),
        (-1, 3),
        (0, 14),
        (13, 14),
        (-5, -1),
        (0, 2**64),
        (0.0, 3.0),
        (0, None),
        ("0", "3"),
    ],
    ids=repr,
)
def test_rows_that_are_not_there_are_refused(rows: tuple[Any, Any]) -> None:
    """No rows at all, rows beyond the end, and what is no integer, are refused."""
    with refused(None):
        painted((13, 19)).get_rows(*rows)


# Sizes


@pytest.mark.parametrize("depth", range(1, 5))
@pytest.mark.parametrize(
    ("rows", "columns", "group_size"), [(5, 16, 16), (7, 21, 16), (1, 1, 1), (100, 64, 16), (6, 5, 65_536)]
)
def test_sizes_follow_the_formulas(depth: int, rows: int, columns: int, group_size: int) -> None:
    """Bytes are those of the planes and of 27 steps; bits and information a weight are as in SPEC 5.2."""
    sized = painted((rows, columns), depth, group_size=group_size)
    K, G, high = columns, math.ceil(columns / group_size), math.ceil(rows / 5)
    nbytes = high * (3 * G + depth * K) + 108
    assert [plane.shape for plane in sized.planes] == [(high, G)] * 3 + [(high, K)] * depth
    assert sized.nbytes == nbytes
    assert sized.bits_per_weight == pytest.approx(8 * nbytes / (rows * K))
    assert sized.information_bits_per_weight == pytest.approx(math.log2(3) * (depth + 3 * G / K))
    if rows % 5 == K % 16 == 0:
        stored = sized.bits_per_weight - 8 * 108 / (rows * K)
        assert stored == pytest.approx(1.6 * depth + 0.3)
        assert sized.information_bits_per_weight == pytest.approx(math.log2(3) * (depth + 3 / 16))
        assert sized.information_bits_per_weight < stored


def test_the_fields_are_those_of_the_form() -> None:
    """A tensor shows the fields that it was made with, and a repr that has them."""
    fields: dict[str, Any] = {"depth": 3, "shift": 1, "group_size": 5, "dtype": "F16"}
    shown = painted((7, 21), **fields)
    assert {name: getattr(shown, name) for name in fields} == fields
    assert all(f"{name}={value}" in repr(shown) for name, value in fields.items())
    assert (shown.form.rows, shown.form.columns) == (7, 21)


# Immutability


def test_nothing_can_be_assigned() -> None:
    """Neither fields nor planes nor steps of a tensor can be changed."""
    fixed = painted()
    for owner, name in itertools.product(
        (fixed, fixed.form), ("depth", "form", "planes", "codebook", "note")
    ):
        with pytest.raises((AttributeError, TypeError)):
            setattr(owner, name, None)


@pytest.mark.parametrize("made", ["from levels", "truncated", "rows", "pickled", "copied", "copied deeply"])
def test_arrays_cannot_be_written(made: str) -> None:
    """Codebook and planes are read-only, however the tensor came to be, so that no check can be undone."""
    make: dict[str, Callable[[TritTensor], TritTensor]] = {
        "from levels": lambda t: t,
        "truncated": lambda t: t.truncate(1),
        "rows": lambda t: t.get_rows(1, 6),
        "pickled": lambda t: pickle.loads(pickle.dumps(t)),
        "copied": copy.copy,
        "copied deeply": copy.deepcopy,
    }
    fixed = make[made](painted())
    assert not fixed.codebook.flags.writeable
    assert not any(plane.flags.writeable for plane in fixed.planes)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_tensors_travel(protocol: int) -> None:
    """Pickled and copied, a tensor is the same: worker processes send tensors."""
    sent = painted(depth=3, shift=1, dtype="BF16")
    assert same(pickle.loads(pickle.dumps(sent, protocol)), sent)
    assert same(copy.deepcopy(sent), sent)


def test_results_are_the_callers_own() -> None:
    """What a tensor gives out can be changed without changing the tensor."""
    kept = painted()
    before = kept.dequantize()
    for array in (kept.levels(), kept.codes, kept.scales(), kept.dequantize()):
        array[...] = 1
    assert np.array_equal(kept.dequantize(), before)


# Tiles


@pytest.fixture(params=[1, 7, 64, 1_000])
def small_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands, tiles and boxes so small that a small tensor has many."""
    names = [name for name in vars(tensor) if name.endswith("_WEIGHTS")]
    assert {"TILE_WEIGHTS", "BAND_WEIGHTS"} <= {*names}
    for name in names:
        monkeypatch.setattr(tensor, name, request.param)
    monkeypatch.setattr(packing, "BOX_BYTES", request.param)


SHAPES = [
    ((23, 37), 16),
    ((23, 37), 5),
    ((1, 200), 16),
    ((97, 1), 1),
    ((12, 64), 16),
    ((6, 50), 65_536),
    ((4, 3, 33), 17),
]
WHOLE = {
    (shape, size, depth): painted(shape, depth, group_size=size)
    for shape, size in SHAPES
    for depth in (1, 2, 4)
}
VALUES = {key: {dtype: whole.dequantize(dtype).tobytes() for dtype in DTYPES} for key, whole in WHOLE.items()}


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("key", WHOLE, ids=str)
def test_tiles_leave_no_trace(key: tuple[tuple[int, ...], int, int]) -> None:
    """Whatever pieces the work is done in, planes, levels, codes and values have the same bits."""
    whole, (shape, size, depth) = WHOLE[key], key
    tiled = painted(shape, depth, group_size=size)
    assert same(tiled, whole)
    assert np.array_equal(tiled.levels(), painted_levels(shape, depth))
    assert np.array_equal(tiled.codes, painted_codes((*shape[:-1], -(-shape[-1] // size))))
    assert {dtype: tiled.dequantize(dtype).tobytes() for dtype in DTYPES} == VALUES[key]


def test_a_form_checks_itself() -> None:
    """A Form that was made obeys every clause: axes that are negative or no integers are refused, too."""
    fields: dict[str, Any] = {"dtype": "F32", "depth": 1, "shift": 0, "group_size": 16, "codebook": steps()}
    assert Form((2, 3), **fields).plane_shapes == [(1, 1)] * 3 + [(1, 3)]
    shapes: list[Any] = [(-1, 3), (2, -3), (-2, -3), (2.0, 3), ("2", 3), (True, 3)]
    for shape in shapes:
        with pytest.raises(TritError):
            Form(shape, **fields)
