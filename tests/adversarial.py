"""Matrix products that are hard to round: what `matmul` is judged on, and the definition in integers.

The whole of a product is hard: every row of x meets every row of w. Columns
cancel in pairs, tails lead every sum to a midpoint of two float32 numbers or
next to it, and columns come in any order. `product` is the definition of SPEC
10.1 in Python's integers; it imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Rng = np.random.Generator
Problem = tuple[F32, F32]  # x (m, K), w (n, K)

LEAST = -149  # binary32 is integers times 2^-149
DIGITS = 24
INFINITY = 0x7F80_0000


def product(x: F32, w: F32, scale: F32 | None = None) -> F32:
    """x @ w.T of finite float32, or scale times that, each element exact and rounded once."""
    total = integers(x) @ integers(w).T  # in units of 2^-298
    unit = 2 * LEAST
    if scale is not None:
        total, unit = total * integers(scale)[:, None], unit + LEAST
    bits = [rounded(int(n), unit) for n in total.ravel()]
    return np.array(bits, np.uint32).view(np.float32).reshape(len(x), len(w))


def integers(a: F32) -> npt.NDArray[np.object_]:
    """Finite float32 numbers in units of 2^-149, as Python's integers."""
    bits = a.view(np.uint32).astype(np.int64)
    exponent, fraction = bits >> 23 & 255, bits & 0x7F_FFFF
    size = np.where(exponent > 0, fraction | 1 << 23, fraction)
    signed = np.where(bits >> 31, -size, size).astype(object)
    shifted: npt.NDArray[np.object_] = signed << np.maximum(exponent - 1, 0).astype(object)
    return shifted


def rounded(n: int, unit: int) -> int:
    """The bits of n * 2^unit rounded to binary32, ties to even; an exact zero is +0."""
    sign, size = (1 << 31 if n < 0 else 0), abs(n)
    cut = max(size.bit_length() - DIGITS, LEAST - unit)  # low bits that do not fit
    kept, lost = size >> cut, size & ((1 << cut) - 1)
    if 2 * lost > 1 << cut or (2 * lost == 1 << cut and kept & 1):
        kept += 1
    # kept is at most 2^24; added to the exponent's field, a carry moves into the next binade by itself.
    exponent = unit + cut - LEAST
    return sign | min((exponent << 23) + kept, INFINITY)


def among_easy(w: F32) -> F32:
    """*w* with all rows but the first easy: few elements are in doubt, and twice the precision has to do."""
    easy = np.zeros_like(w)
    easy[:, :1] = 1
    easy[:1] = w[:1]
    return easy


def any_bits(rng: Rng, shape: tuple[int, ...]) -> F32:
    """Finite float32 numbers of any bits."""
    bits = rng.integers(0, 1 << 32, shape, np.uint32)
    bits[(bits & INFINITY) == INFINITY] ^= 0x4000_0000
    numbers: F32 = bits.view(np.float32)
    return numbers


def spread(rng: Rng, shape: tuple[int, ...], exponents: int) -> F32:
    """Numbers of 24 random bits, exponents within ±*exponents*."""
    numbers = rng.integers(1 << 23, 1 << 24, shape) * rng.choice([-1.0, 1.0], shape)
    spread: F32 = np.ldexp(numbers, rng.integers(-exponents, exponents + 1, shape) - 24).astype(np.float32)
    return spread


def _ordinary(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """What a layer holds."""
    return rng.standard_normal((m, columns)).astype(np.float32), rng.standard_normal((n, columns)).astype(
        np.float32
    )


def _any(rng: Rng, m: int, n: int, columns: int) -> Problem:
    return any_bits(rng, (m, columns)), any_bits(rng, (n, columns))


def _wide(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """Products of huge and tiny."""
    return spread(rng, (m, columns), 120), spread(rng, (n, columns), 120)


def _integers(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """Few bits: sums that binary64 holds exactly, many of them zero."""
    x, w = rng.integers(-3, 4, (m, columns)), rng.integers(-3, 4, (n, columns))
    return x.astype(np.float32), w.astype(np.float32)


def _zeros(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """Terms that cancel in pairs, to nothing."""
    return _with_tail(rng, m, n, columns, np.zeros((m, 0), np.float32), np.zeros((n, 0), np.float32))


def _cancelling(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """Terms that cancel in pairs, but for one far below them."""
    return _with_tail(
        rng, m, n, columns, spread(rng, (m, 1), 1), spread(rng, (n, 1), 1) * np.float32(2.0**-60)
    )


def _ties(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """Sums at midpoints of two float32 numbers, or off them by a trace on either side."""
    exponent = int(rng.integers(-100, 100))
    number = np.ldexp(rng.integers(1 << 23, 1 << 24, m) * rng.choice([-1.0, 1.0], m), exponent)
    half = np.ldexp(rng.choice([-0.5, 0.5, 1.5], n), exponent)
    trace = np.ldexp(rng.choice([-1.0, 0.0, 1.0], n), exponent - int(rng.integers(25, 60)))
    x_tail = np.stack([number, np.ones(m), np.ones(m)], axis=1).astype(np.float32)
    w_tail = np.stack([np.ones(n), half, trace], axis=1).astype(np.float32)
    return _with_tail(rng, m, n, columns, x_tail, w_tail)


def _beside_ties(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """Sums between a midpoint of two float32 numbers and the float64 number next to it."""
    exponent = int(rng.integers(-60, 100))
    number = np.ldexp(rng.integers(1 << 23, 1 << 24, m) * rng.choice([-1.0, 1.0], m), exponent)
    half = np.ldexp(rng.choice([-0.5, 0.5, 1.5], n), exponent)
    beside = np.ldexp(rng.choice([-1.0, 0.0, 1.0], n), exponent - 29)  # a unit in the last place of float64
    trace = np.ldexp(rng.choice([-1.0, 1.0], n), exponent - 29 - int(rng.integers(1, 50)))
    x_tail = np.stack([number, np.ones(m), np.ones(m), np.ones(m)], axis=1).astype(np.float32)
    w_tail = np.stack([np.ones(n), half, beside, trace], axis=1).astype(np.float32)
    return _with_tail(rng, m, n, columns, x_tail, w_tail)


def _subnormal(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """Results around the least numbers, and sums that round to a zero of their sign."""
    x = np.ldexp(spread(rng, (m, columns), 4), int(rng.integers(-80, -70))).astype(np.float32)
    return x, np.ldexp(spread(rng, (n, columns), 4), int(rng.integers(-80, -70))).astype(np.float32)


def _overflow(rng: Rng, m: int, n: int, columns: int) -> Problem:
    """Sums around the midpoint above the largest number, 2^128 - 2^103."""
    largest = np.float32(np.finfo(np.float32).max)
    signs = rng.choice([-1.0, 1.0], m)
    x_tail = np.stack([signs, signs, signs], axis=1).astype(np.float32)
    half = np.full(n, 2.0**103)
    trace = rng.choice([-1.0, 0.0, 1.0], n) * 2.0**60
    w_tail = np.stack([np.full(n, largest), half, trace], axis=1).astype(np.float32)
    return _with_tail(rng, m, n, columns, x_tail, w_tail)


def _with_tail(rng: Rng, m: int, n: int, columns: int, x_tail: F32, w_tail: F32) -> Problem:
    """Pairs of columns that cancel, the tails, and zeros up to as many columns, in any order."""
    pairs = max(0, columns - x_tail.shape[1]) // 2
    exponents = int(rng.integers(0, 12))
    a, b = spread(rng, (m, pairs), exponents), spread(rng, (n, pairs), exponents)
    size = max(columns, 2 * pairs + x_tail.shape[1])
    x, w = np.zeros((m, size), np.float32), np.zeros((n, size), np.float32)
    used = rng.permutation(size)[: 2 * pairs + x_tail.shape[1]]
    x[:, used] = np.concatenate([a, a, x_tail], axis=1)
    w[:, used] = np.concatenate([b, -b, w_tail], axis=1)
    return x, w


KINDS: dict[str, Callable[[Rng, int, int, int], Problem]] = {
    "ordinary": _ordinary,
    "any bits": _any,
    "wide": _wide,
    "integers": _integers,
    "zeros": _zeros,
    "cancelling": _cancelling,
    "ties": _ties,
    "beside ties": _beside_ties,
    "subnormal": _subnormal,
    "overflow": _overflow,
}


def problem(kind: str, seed: int, m: int, n: int, columns: int) -> Problem:
    """A product of *kind*, always the same for a seed: x (m, columns or a few more) and w (n, likewise)."""
    return KINDS[kind](np.random.default_rng(seed), m, n, columns)
