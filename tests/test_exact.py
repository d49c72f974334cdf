"""SPEC 10.2: slices, twice the precision and exact sums, each against integers."""

from __future__ import annotations

from fractions import Fraction

import adversarial
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick

from tritcodec.exact import (
    compensated_products,
    exact_products,
    round_fraction,
    round_sums,
    rounded_dot,
    slices,
)

WORDS = st.integers(0, 2**32 - 1).filter(lambda bits: bits & 0x7F80_0000 != 0x7F80_0000)
FINITE = WORDS.map(lambda bits: float(np.array(bits, np.uint32).view(np.float32)))
EVERY = np.divmod(np.arange(42), 7)  # all pairs of 6 rows and 7


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two float32 arrays are the same bit for bit."""
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (Fraction(0), 0),
        (Fraction(1), 0x3F80_0000),
        (1 + Fraction(1, 2**24), 0x3F80_0000),  # a tie, to even
        (1 + Fraction(3, 2**24), 0x3F80_0002),
        (1 + Fraction(1, 2**24) + Fraction(1, 2**200), 0x3F80_0001),
        (Fraction(-1, 2**149), 0x8000_0001),
        (Fraction(1, 2**150), 0),
        (Fraction(-1, 2**150), 0x8000_0000),  # what rounds to zero keeps its sign
        (Fraction(3, 2**151), 1),
        (
            Fraction(2**24 - 1, 2**150),
            0x0080_0000,
        ),  # the largest subnormal and a half: to even, a normal number
        (Fraction(2**128 - 2**104), 0x7F7F_FFFF),
        (Fraction(2**128 - 2**103 - 1), 0x7F7F_FFFF),
        (Fraction(2**128 - 2**103), 0x7F80_0000),
        (Fraction(-(2**300)), 0xFF80_0000),
    ],
)
def test_a_fraction_is_rounded_to_nearest(value: Fraction, bits: int) -> None:
    """Ties go to even, subnormal numbers and overflow included."""
    assert int(round_fraction(value).view(np.uint32)) == bits


@quick
@given(st.lists(st.tuples(FINITE, FINITE), max_size=6))
def test_the_definition_is_that_of_integers(pairs: list[tuple[float, float]]) -> None:
    """`rounded_dot`, by fractions, and `adversarial.product`, by integers, agree."""
    x = np.array([[a for a, _ in pairs]], np.float32)
    w = np.array([[b for _, b in pairs]], np.float32)
    assert rounded_dot(x[0], w[0]).view(np.uint32) == adversarial.product(x, w).view(np.uint32)[0, 0]


@pytest.mark.parametrize("bits", [1, 5, 20, 26])
@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_slices_have_few_bits_and_add_up(kind: str, bits: int) -> None:
    """Every row of a slice is integers within 2^bits times a power of two, and the slices make the whole."""
    x, _ = adversarial.problem(kind, 1, 5, 6, 9)
    total = np.zeros(x.shape, object) + Fraction(0)
    for part in slices(x.astype(np.float64), bits):
        for row in part:
            values = [Fraction(float(value)) for value in row]
            _, e = np.frexp(np.abs(row).max())
            unit = Fraction(2) ** (int(e) - bits - 1)  # the largest may have been rounded up to 2^(e-1)
            assert all(
                (value / unit).denominator == 1 and abs(value / unit) <= 2 ** (bits + 1) for value in values
            )
        total = total + np.vectorize(lambda value: Fraction(float(value)), otypes=[object])(part)
    assert (total == np.vectorize(lambda value: Fraction(float(value)), otypes=[object])(x)).all()


def test_products_of_slices_fit_binary64() -> None:
    """The largest sums that slices of 20 bits can make over 4,096 columns are integers below 2^53."""
    K, bits = 4096, 20
    assert K * 2 ** (2 * bits) <= 2**53
    x = np.full((1, K), np.float32(2 - 2.0**-23), np.float64)
    y = exact_products(x, x, np.array([0]), np.array([0]))
    assert same(y, adversarial.product(x.astype(np.float32), x.astype(np.float32))[0])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("columns", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_exact_products(kind: str, columns: int, scaled: bool) -> None:
    """Exact, whatever the exponents; pairs in any order and number."""
    x, w = adversarial.problem(kind, columns, 6, 7, columns)
    scale = adversarial.any_bits(np.random.default_rng(columns), (6,)) if scaled else None
    expected = adversarial.product(x, w, scale)
    factors = None if scale is None else scale.astype(np.float64)
    for i, j in [EVERY, (EVERY[0][::-5], EVERY[1][::-5])]:  # all of them, and few
        y = exact_products(x.astype(np.float64), w.astype(np.float64), i, j, factors)
        assert same(y, expected[i, j])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_twice_the_precision_is_right_where_it_is_sure(kind: str, scaled: bool) -> None:
    """What is not in doubt is right; exact ties and zeros are in doubt, ordinary sums are not."""
    x, w = adversarial.problem(kind, 3, 6, 7, 30)
    scale = adversarial.spread(np.random.default_rng(3), (6,), 10) if scaled else None
    factors = None if scale is None else scale.astype(np.float64)
    i, j = EVERY
    total = (np.abs(x[i].astype(np.float64)) * np.abs(w[j].astype(np.float64))).sum(axis=1) * (1 + 2.0**-40)
    y, doubt = compensated_products(x.astype(np.float64), w.astype(np.float64), i, j, total, factors)
    expected = adversarial.product(x, w, scale)[i, j]
    assert same(y[~doubt], expected[~doubt])
    assert kind != "ordinary" or not doubt.any()
    assert kind != "zeros" or doubt.all()


@quick
@given(st.lists(st.lists(FINITE, min_size=3, max_size=3), min_size=1, max_size=9))
def test_sums_are_rounded_once(terms: list[list[float]]) -> None:
    """The exact sum of a few numbers, ties, traces below them and cancellation included."""
    y = round_sums([np.array(term) for term in terms])
    for column, value in enumerate(y):
        exact = sum((Fraction(term[column]) for term in terms), Fraction(0))
        assert value.view(np.uint32) == round_fraction(exact).view(np.uint32)


@pytest.mark.parametrize("trace", [0.0, 2.0**-200, -(2.0**-200), 2.0**-30, -(2.0**-30)])
@pytest.mark.parametrize(
    "top", [1 + 2.0**-24, 1 + 3 * 2.0**-24, 1.0, 2.0**24 + 1, 2.0**-150, 2.0**128 - 2.0**103]
)
def test_a_trace_decides_a_tie(top: float, trace: float) -> None:
    """A midpoint, a number, or a power of two, and something far below it: in either order."""
    for parts in ([top, trace], [trace, top], [top, 3.0, trace, -3.0]):
        y = round_sums([np.array([part, -part]) for part in parts])
        expected = round_fraction(Fraction(top) + Fraction(trace))
        assert y[0].view(np.uint32) == expected.view(np.uint32)
        assert y[1] == -expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("trace", [2.0**-64 * (1 - 2.0**-20), 2.0**-90, -(2.0**-90), -(2.0**-64)])
@pytest.mark.parametrize("last", [-1, 0, 1])
@pytest.mark.parametrize("middle", [1 + 2.0**-24, 1 + 3 * 2.0**-24, 1.0, 2 - 2.0**-24])
def test_the_number_beside_a_midpoint(middle: float, last: int, trace: float, sign: int) -> None:
    """Sums between a midpoint, or a number, and the double next to it: they do not land on it."""
    beside = np.nextafter(middle, np.inf * last) if last else middle
    parts = [sign * beside, sign * trace]
    y = round_sums([np.array([part]) for part in parts])
    assert y.view(np.uint32)[0] == round_fraction(sum(map(Fraction, parts), Fraction(0))).view(np.uint32)
