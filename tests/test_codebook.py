"""SPEC 4: codebooks and codes, with every fault of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from helpers import F32, FORMS, U8, float32, largest, refused, steps
from hypothesis import given
from strategies import codebooks, quick

from tritcodec.codebook import check_codebook, check_codes

INFINITY = 0x7F80_0000
OVERFLOW = {"F32": 2**128, "F16": 65520, "BF16": 2**128 - 2**119}  # SPEC 4.1
FLOATS = list(OVERFLOW)
PLACES = [0, 13, 26]

NOT_STEPS = {
    "quiet NaN": 0x7FC0_0000,
    "signalling NaN": 0x7FA0_0000,
    "signalling NaN, least payload that CB-4 allows": 0x7F80_0040,
    "negative NaN": 0xFFC0_0000,
    "infinity": INFINITY,
    "negative infinity": 0xFF80_0000,
    "negative": 0xBF80_0000,
    "least negative": 0x8080_0000,
    "zero": 0x0000_0000,
    "negative zero": 0x8000_0000,
    "least subnormal": 0x0000_0001,
    "least subnormal that CB-4 allows": 0x0000_0040,
    "largest subnormal": 0x007F_FFC0,
    "negative subnormal": 0x8000_0040,
}


def with_step(at: int, pattern: int) -> F32:
    """A codebook, its step *at* replaced by a bit pattern."""
    codebook = steps()
    codebook.view(np.uint32)[at] = pattern
    return codebook


def value(pattern: int) -> Fraction:
    """The exact value of a positive binary32, infinity as 2^128."""
    return (2**23 + Fraction(pattern % 2**23)) * Fraction(2) ** (pattern // 2**23 - 150)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("pattern", NOT_STEPS.values(), ids=NOT_STEPS.keys())
def test_a_step_is_positive_normal_and_finite(pattern: int, place: int) -> None:
    """What is no such number is refused with CB-2 wherever it stands, before its order or low bits matter."""
    with refused("CB-2"):
        check_codebook(with_step(place, pattern), 1, 0, "F32")


@pytest.mark.parametrize("clause", ["CB-2", "CB-3", "CB-4"])
def test_the_message_says_which_step_is_wrong(clause: str) -> None:
    """Of 27 steps, the message names the wrong one by its index: in decimals, others may look the same."""
    wrong = {
        "CB-2": INFINITY,
        "CB-3": int(steps().view(np.uint32)[18]),
        "CB-4": int(steps().view(np.uint32)[19]) + 1,
    }
    with refused(clause) as caught:
        check_codebook(with_step(19, wrong[clause]), 1, 0, "F32")
    assert re.search(r"\bstep\W19\b", caught.value.message)


@pytest.mark.parametrize("place", [0, 12, 25])
@pytest.mark.parametrize("change", ["equal", "decreasing", "swapped"])
def test_steps_increase(change: str, place: int) -> None:
    """Neighbours that are equal, one less by the least amount, or swapped are refused with CB-3."""
    first, second = steps().view(np.uint32)[place : place + 2].tolist()
    codebook = with_step(place + 1, {"equal": first, "decreasing": first - 64, "swapped": first}[change])
    if change == "swapped":
        codebook.view(np.uint32)[place] = second
    with refused("CB-3"):
        check_codebook(codebook, 1, 0, "F32")


@pytest.mark.parametrize("bit", range(6))
@pytest.mark.parametrize("place", PLACES)
def test_the_low_six_bits_are_zero(place: int, bit: int) -> None:
    """Each of the six low bits, alone, at each place, is refused with CB-4; the seventh is free."""
    pattern = int(steps().view(np.uint32)[place])
    with refused("CB-4"):
        check_codebook(with_step(place, pattern | 1 << bit), 1, 0, "F32")
    check_codebook(with_step(place, pattern ^ 1 << 6), 1, 0, "F32")


@pytest.mark.parametrize(
    "codebook",
    [
        steps()[:26],
        np.append(steps(), float32(0x4000_0000)),
        steps()[:0],
        steps().reshape(27, 1),
        steps().reshape(1, 27),
        steps().reshape(3, 9),
        np.float32(1),
        steps().astype(">f4"),
        steps().astype(np.float64),
        steps().astype(np.float16),
        steps().view(np.uint32),
        steps().astype(object),
        steps().tolist(),
        [str(step) for step in steps()],
        None,
    ],
    ids=lambda codebook: f"{getattr(codebook, 'dtype', type(codebook).__name__)} {np.shape(codebook)}",
)
def test_a_codebook_is_27_float32(codebook: Any) -> None:
    """Any other count, shape or dtype is refused with CB-1, even where the values would fit."""
    with refused("CB-1"):
        check_codebook(codebook, 1, 0, "F32")


def test_steps_in_big_endian_order_are_refused() -> None:
    """The bytes of a codebook, the four of each step swapped, are no codebook."""
    with refused("CB-2"):
        check_codebook(steps().view(np.uint32).byteswap().view(np.float32), 1, 0, "F32")


@pytest.mark.parametrize("first", [0x0080_0000, 0x3F80_0000, 0x7F7F_FFC0 - 26 * 64], ids=hex)
def test_the_ends_of_the_range_are_steps(first: int) -> None:
    """The 27 least and the 27 largest steps make codebooks."""
    codebook = steps(first, 64)
    assert check_codebook(codebook, 1, 0, "F32").tobytes() == codebook.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("depth", "shift"), FORMS)
def test_the_largest_value_is_finite(depth: int, shift: int, dtype: str) -> None:
    """step[26] * 3^shift * H, next below the threshold, is taken; at or next above, refused (CB-5)."""
    factor = 3**shift * largest(depth)
    below, above = 0x0080_0000, INFINITY  # a step that fits, and a pattern that does not
    while above - below > 64:
        middle = (below + above) // 128 * 64
        below, above = (middle, above) if value(middle) * factor < OVERFLOW[dtype] else (below, middle)
    assert value(below) * factor < OVERFLOW[dtype] <= value(above) * factor
    check_codebook(steps(below - 26 * 64, 64), depth, shift, dtype)
    with refused("CB-5" if above < INFINITY else "CB-2"):
        check_codebook(steps(above - 26 * 64, 64), depth, shift, dtype)


@pytest.mark.parametrize(
    ("dtype", "depth", "shift", "step"),
    [
        ("F16", 1, 0, 65520),
        ("F16", 2, 0, 16380),
        ("F16", 3, 0, 5040),
        ("F16", 4, 0, 1638),
        ("F16", 3, 1, 1680),
        ("F16", 2, 2, 1820),
        ("F32", 2, 0, 2**126),
        ("BF16", 1, 0, 511 * 2**119),
        ("BF16", 2, 0, 511 * 2**117),
    ],
)
def test_the_threshold_itself_overflows(dtype: str, depth: int, shift: int, step: int) -> None:
    """A step that makes the largest value equal to the threshold is refused with CB-5: the tie rounds up."""
    assert step * 3**shift * largest(depth) == OVERFLOW[dtype]
    last = int(np.float32(step).view(np.uint32))
    with refused("CB-5") as caught:
        check_codebook(steps(last - 26 * 64, 64), depth, shift, dtype)
    assert dtype in caught.value.message
    check_codebook(steps(last - 27 * 64, 64), depth, shift, dtype)


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[::-1][::-1], lambda a: np.repeat(a, 3)[::3]])
def test_the_result_is_a_copy_that_cannot_change(view: Callable[[F32], F32]) -> None:
    """The result has the same bits, is read-only, and does not follow its source, whatever its strides."""
    source = view(steps())
    checked = check_codebook(source, 2, 1, "F16")
    source[0] = np.nan
    assert checked.tobytes() == steps().tobytes()
    assert (checked.flags.writeable, checked.flags.c_contiguous) == (False, True)
    assert checked.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        checked[0] = 1


def test_read_only_codebooks_are_taken() -> None:
    """A codebook that cannot be written to is as good as another."""
    source = steps()
    source.flags.writeable = False
    assert check_codebook(source, 1, 0, "F32").tobytes() == source.tobytes()


@quick
@given(codebooks())
def test_codebooks_keep_their_bits(codebook: F32) -> None:
    """Every codebook that obeys the clauses is taken, for every depth, shift and dtype that it fits."""
    for depth, shift in FORMS:
        for dtype in FLOATS:
            assert check_codebook(codebook, depth, shift, dtype).tobytes() == codebook.tobytes()


def test_codes_above_26_are_refused() -> None:
    """Each of 27..255 is refused with CODE-1, the message has the code and its place; 0..26 are taken."""
    for code in range(256):
        codes: U8 = np.zeros((2, 3), np.uint8)
        codes[1, 0] = code
        if code <= 26:
            assert np.array_equal(check_codes(codes), codes)
            continue
        with refused("CODE-1") as caught:
            check_codes(codes)
        assert f"code {code} at (1, 0)" in caught.value.message


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "bool", "float32", "O"])
def test_codes_are_uint8(dtype: str) -> None:
    """Codes of any other dtype are refused, and it is named."""
    with refused(None) as caught:
        check_codes(np.ones(3, dtype))
    assert str(np.dtype(dtype)) in caught.value.message


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)], ids=str)
def test_codes_may_be_of_any_shape(shape: tuple[int, ...]) -> None:
    """No codes at all, and a single one of rank 0, are codes."""
    assert check_codes(np.zeros(shape, np.uint8)).shape == shape
