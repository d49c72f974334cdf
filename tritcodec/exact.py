"""SPEC 10.2: exact sums of products, rounded once: the definition, and what `certify` falls back on.

Rows of both factors are cut into *slices* of few bits, so that a sum of K
products of slices fits the 53 bits of binary64: a BLAS computes it exactly, in
whatever order. An element is then the sum of a handful of exact numbers,
which is rounded once. Nothing here depends on how close a result is to a tie
or how much of it cancels.

The slices are those of Ozaki, Ogita, Oishi and Rump, "Error-free
transformations of matrix multiplication by using fast routines of matrix
multiplication", Numerical Algorithms 59 (2012); the sum of the handful is
Shewchuk's, "Adaptive precision floating-point arithmetic", Discrete &
Computational Geometry 18 (1997).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from .errors import TritError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

LEAST_SUBNORMAL = np.float32(2.0**-149)
SIGNIFICAND = 53  # bits of binary64
UNIT = 2.0**-SIGNIFICAND  # u, its unit roundoff
GATHERED = 1 << 17  # numbers of a factor gathered at once for sums of single pairs: 1 MiB
DENSE = 8  # with one pair in so many, all are computed: a matrix product is that much faster than single sums
SPLITTER = 2.0**27 + 1  # Veltkamp's, for binary64: halves of at most 26 bits


def rounded_dot(x: Sequence[float], w: Sequence[float]) -> np.float32:
    """The definition, slowly: the real sum of x[i] * w[i], rounded once to binary32 (SPEC 10.1).

    Takes finite numbers of binary32. `exact_products` and `round_sums` are its fast form.

    >>> float(rounded_dot([2.0**60, 1.0, -(2.0**60)], [1.0, 3.0, 1.0]))
    3.0
    """
    # "An element of the product MUST be the exact sum of its terms, rounded once to binary32, to nearest,
    # ties to even."
    total = sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, w, strict=True)), Fraction(0))
    return round_fraction(total)


def round_fraction(value: Fraction) -> np.float32:
    """*value* rounded to binary32, to nearest, ties to even (IEEE 754, 4.3.1)."""
    size = abs(value)
    # The unit in the last place: 2^e with 2^23 <= size / 2^e < 2^24, and at least that of subnormals.
    e = max(size.numerator.bit_length() - size.denominator.bit_length() - 24, -149)
    if size >= Fraction(2) ** (e + 24):
        e += 1
    units = round(size / Fraction(2) ** e)  # Python rounds a tie to even
    overflows = units << (e + 149) >= 1 << 277  # 2^128, in units of 2^-149
    result: np.float32 = np.float32(math.inf if overflows else math.ldexp(units, e))
    return -result if value < 0 else result


def compensated_products(
    x: F64, w: F64, i: Index, j: Index, total: F64, scale: F64 | None = None
) -> tuple[F32, Bool]:
    """The sums of `exact_products` in nearly twice the precision, and which of them are in doubt.

    Takes *total* (D,), each at least the sum over k of |x[i, k] * w[j, k]|. With
    sigma a power of two of at least twice that, the terms rounded to multiples of
    u * sigma add up within sigma: exactly, in any order (Rump, Ogita and Oishi,
    "Accurate floating-point summation", SIAM J. Sci. Comput. 31, 2008). What was
    rounded off is exact, too, and within u * sigma; its sum errs by at most
    K^2 * u^2 * sigma. Both ends of that interval are rounded.
    """
    K = x.shape[1]
    _, e = np.frexp(total)
    sigma = np.ldexp(1.0, e + 1)
    sums, rest = np.empty_like(sigma), np.empty_like(sigma)
    for some in _some(len(i), K):
        terms = x[i[some]]
        terms *= w[j[some]]  # exact: 24 + 24 bits
        parts = terms + sigma[some, None]
        parts -= sigma[some, None]
        terms -= parts
        np.sum(parts, axis=1, out=sums[some])
        np.sum(terms, axis=1, out=rest[some])
    error = sigma * ((K + 1) ** 2 * UNIT**2)
    known = [sums, rest]
    if scale is not None:  # the product with `rest` rounds: less than what K + 1 instead of K adds to error
        error = error * np.abs(scale[i])
        known = [part * scale[i] for part in (*_halves(sums), rest)]
    low, high = round_sums([*known, -error]), round_sums([*known, error])
    return high, low.view(np.int32) != high.view(np.int32)


def exact_products(x: F64, w: F64, i: Index, j: Index, scale: F64 | None = None) -> F32:
    """The sums over k of x[i, k] * w[j, k], exact and rounded once, for pairs of rows (SPEC 10.2).

    Takes rows of finite binary32 values, held as float64 (m, K) and (n, K), and
    indices (D,) of both; gives float32 (D,). With *scale*, binary32 values (m,), an
    element is scale[i] times the sum, and this product is what is rounded.
    """
    bits = (SIGNIFICAND - max(x.shape[1] - 1, 0).bit_length()) // 2
    # K products of two integers within 2^bits: every partial sum is an integer within 2^53, in any order.
    ws = list(slices(w, bits))
    terms = [_sums(a, b, i, j) for a in slices(x, bits) for b in ws]
    # "With a scale, an element MUST be the scale of its row of x times the exact sum, rounded once as in
    # MM-1."
    if scale is not None:
        terms = [part * scale[i] for term in terms for part in _halves(term)]  # 26 + 24 bits: exact
    return round_sums(terms) if terms else np.zeros(len(i), np.float32)


def slices(a: F64, bits: int) -> Iterator[F64]:
    """Matrices that add up to *a*, each row of each an integer multiple, within ±2^bits, of a power of two.

    Takes *bits* below 50. With 2^e above all of a row and g = e - bits, sigma is
    1.5 * 2^(52 + g): near it, binary64 has the unit 2^g, so a + sigma is a
    rounded to a multiple of 2^g, and subtracting sigma is exact. What remains
    is at most half a unit, so that every slice takes bits + 1 bits or more off.
    """
    rest = a.copy()
    while True:
        largest = np.maximum(rest.max(axis=1, initial=0), -rest.min(axis=1, initial=0))
        if not largest.any():
            return
        _, e = np.frexp(largest)  # 2^(e-1) <= largest < 2^e
        sigma = np.ldexp(1.5, SIGNIFICAND - 1 - bits + e)[:, None]
        part = rest + sigma
        part -= sigma
        rest -= part  # exact: what is left has the bits of rest that are below 2^g
        yield part


def round_sums(terms: Sequence[F64]) -> F32:
    """The exact sums of *terms*, elementwise, each rounded once to binary32.

    Shewchuk's expansions: `parts` are kept so that they do not overlap, in
    increasing order; then every sum of lower parts is less than the last
    bit of the one above, and the sign of what the top misses is that of the
    first part that it cannot take up. So an exact sum that is no double lies between
    the top and its neighbour, and is rounded to the one of the two whose last bit is 1: every
    float32, and every midpoint of two, has a 0 there, and lies on the same side of both
    (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms
    using rounding to odd", IEEE Trans. Computers 57, 2008).
    """
    parts: list[F64] = []
    for term in terms:
        carry = term
        for n, part in enumerate(parts):
            carry, parts[n] = _two_sum(carry, part)
        parts.append(carry)
    top, missed = parts[-1], np.zeros_like(parts[-1])
    for part in parts[-2::-1]:
        total, error = _two_sum(top, part)
        top = np.where(missed == 0, total, top)
        missed = np.where(missed == 0, error, missed)
    even = (top.view(np.int64) & 1) == 0
    # "An element whose exact sum is zero MUST be +0."  (-0 + 0 is)
    # "An element whose exact sum is not zero MUST have the sign of the sum, even where it rounds to zero."
    odd = np.where(even & (missed != 0), np.nextafter(top, np.copysign(np.inf, missed)), top + 0.0)
    with np.errstate(over="ignore"):  # to infinity, as IEEE 754 has it
        return odd.astype(np.float32)


def _sums(a: F64, b: F64, i: Index, j: Index) -> F64:
    """The sums over k of a[i, k] * b[j, k], where every order of adding is exact."""
    if len(i) * DENSE > len(a) * len(b):
        product: F64 = (a @ b.T)[i, j]
        return product
    sums = np.empty(len(i))
    for some in _some(len(i), a.shape[1]):
        sums[some] = np.matmul(a[i[some], None, :], b[j[some], :, None])[:, 0, 0]
    return sums


def _some(count: int, size: int) -> Iterator[slice]:
    """Ranges of *count* rows of *size* numbers, about GATHERED numbers at a time."""
    step = max(1, GATHERED // max(size, 1))
    for first in range(0, count, step):
        yield slice(first, first + step)


def _two_sum(a: F64, b: F64) -> tuple[F64, F64]:
    """fl(a + b), and its error, exactly (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _halves(a: F64) -> tuple[F64, F64]:
    """*a* as the sum of two numbers of at most 26 bits (Veltkamp)."""
    t = a * SPLITTER
    high = t - (t - a)
    return high, a - high


def check_subnormals() -> None:
    """Raise TritError where this process flushes subnormal numbers to zero: its bits would be others."""
    if LEAST_SUBNORMAL * np.float32(1) == 0:  # some libraries set this for the process they are loaded into
        raise TritError("this process flushes subnormal numbers to zero, so that no result would be exact")
