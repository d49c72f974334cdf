"""SPEC 11.2: the error of a group under a step, and the code of the least error.

Magnitudes are held members first: shape (group_size, n), the n groups along
the fast axis, so that every operation is one long elementwise run. Only IEEE
operations in a written order are used, so that no bit depends on the CPU.

All 27 codes are tried: a fitted codebook is dense where the groups are, so that
bounds settle few of them, and to sort groups by size for that costs about what it saves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .trits import BASE, largest_level

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Float = TypeVar("Float", npt.NDArray[np.float32], npt.NDArray[np.float64])

CHUNK_WEIGHTS = 1 << 19  # weights searched at once: calls are dear below, the cache small above
LINE = 16  # float32 of a line of the cache
TRANSPOSED = 512  # groups transposed at once: their lines stay in the nearest cache
SCALE_EDGES = np.array([2.0**-96, 2.0**-32, 2.0**32, 2.0**96], np.float32)
SCALES = np.array([2.0**127, 2.0**64, 1, 2.0**-64, 2.0**-96], np.float32)
ONE: np.float32 = np.float32(1)
LEAST_STEP, LARGEST_STEP = 2.0**-90, 2.0**40  # of steps that are scaled with their group


def aligned(shape: tuple[int, ...]) -> F32:
    """Room for float32 that begins with a line of the cache: work in place beside one is a tenth slower."""
    room: F32 = np.empty(math.prod(shape) + LINE, np.float32)
    return room[-room.ctypes.data // room.itemsize % LINE :][: math.prod(shape)].reshape(shape)


def members_first(groups: F32) -> F32:
    """Magnitudes (group_size, n) of *groups*, (n, group_size)."""
    a = aligned(groups.shape[::-1])
    for first in range(0, len(groups), TRANSPOSED):
        a[:, first : first + TRANSPOSED] = groups[first : first + TRANSPOSED].T
    return np.abs(a, out=a)


def scale_of(largest: F32) -> F32 | np.float32:
    """The powers of two by which groups are scaled before their errors are squared.

    Takes the largest magnitude of each group. Scaled, it lies in 2^-32..2^32
    (0 stays 0), so that no square overflows, and what underflows is below
    2^-60 of it. One 1 for all where no group needs another.
    """
    ordinary = (largest == 0) | ((largest >= SCALE_EDGES[1]) & (largest < SCALE_EDGES[2]))
    if ordinary.all():
        return ONE
    scale: F32 = SCALES[np.searchsorted(SCALE_EDGES, largest, side="right")]
    scale[largest == 0] = ONE
    return scale


def scale_steps(steps: F32 | np.float32, scale: F32 | np.float32) -> F32:
    """*steps* times the powers of two *scale*, limited to 2^-90..2^40.

    Exact in binary64, and normal in binary32 after the limits. A step beyond
    them is too small for its group by a factor of 2^58, or too large by 2^8: as
    good as 0, or as infinity. So nothing overflows, and no 0/0 comes up.
    """
    wide = steps.astype(np.float64) * scale.astype(np.float64)
    scaled: F32 = wide.clip(LEAST_STEP, LARGEST_STEP).astype(np.float32)
    return scaled


def halves(terms: Float) -> list[tuple[Float, Float]]:
    """What `fold` adds, each second to its first, in this order: views of *terms*."""
    pairs, m = [], len(terms)
    while m > 1:
        half = (m + 1) // 2
        pairs.append((terms[: m - half], terms[half:m]))
        m = half
    return pairs


def add_halves(pairs: list[tuple[Float, Float]]) -> None:
    """Add the second of each of *pairs* to its first."""
    for into, other in pairs:
        np.add(into, other, out=into)


def fold(terms: Float) -> Float:
    """The sum over axis 0, in place, by halves: terms[i] += terms[i + ceil(m/2)] until one is left."""
    add_halves(halves(terms))
    total: Float = terms[0]
    return total


def _lesser(a: F32, b: F32) -> None:
    """The lesser of *a* and *b*, none below 0 and none NaN, into *a*: they are in the order of their bits."""
    bits = a.view(np.int32)
    np.minimum(bits, b.view(np.int32), out=bits)


class Errors:
    """The error E = fold((a - s*k)^2) of groups under a step s, k = min(rint(a/s), H) (SPEC 11.2).

    Takes magnitudes (group_size, n). With *nested* it gives the sum of
    9^d * E_d for d = depth..1 instead, E_d the error of the top d planes alone.

    The level is the nearest, for an 18-bit step: with h = j/2 a half-integer
    up to 40.5 and a != h*s, fl(a/s) lies on the same side of h as a/s. Across
    h, a float, rounding cannot carry it; onto h, in 2^p..2^(p+1), only if
    |a - h*s| <= 2^(p-24) * s. Let s = S*2^e, S < 2^18; h*s is j*S * 2^(e-1).
    If j*S < 2^24, then h*s is a float, in 2^q..2^(q+1), so a differs from it
    by 2^(q-23) or more, and s < 2^(q+1-p). (Below h*s = 2^q, where j = 1, both
    are halved.) Otherwise j > 64 and p = 5, floats next to h*s are multiples
    of 2^(e-1), and so |a - h*s| >= 2^(e-1) > 2^(-19) * s.

    s*k is exact: 18 + 6 bits. a - s*k is exact but where a > 2*H*s. Steps of 24 bits are taken, too (SPEC
    11.4), for which s*k is rounded, and the level is that of the rounded quotient.
    """

    def __init__(self, a: F32, depth: int, nested: bool = False) -> None:
        self.a, self.depth, self.nested = a, depth, nested
        self.H = largest_level(depth)
        self.terms = aligned(a.shape)
        self.halves = halves(self.terms)  # once, and not at every step
        self.k = aligned(a.shape) if nested else self.terms
        self.limit = np.full(a.shape[1], self.H, np.float32)  # a row: a scalar is slow in NumPy's minimum
        self.squares = a * a if depth == 1 else a

    def __call__(self, s: F32 | np.float32) -> F32:
        """The errors (n,) under *s*, one step or one for each group; valid until the next call."""
        if self.nested:
            return self._nested(s)
        t = self.terms
        if self.depth == 1:  # the nearer of 0 and s has the lesser square: the same bits, no division
            np.subtract(self.a, s, out=t)
            np.multiply(t, t, out=t)
            _lesser(t, self.squares)
        else:
            self._levels(s, t)
            np.multiply(t, s, out=t)
            np.subtract(self.a, t, out=t)
            np.multiply(t, t, out=t)
        return self._fold()

    def _levels(self, s: F32 | np.float32, k: F32) -> None:
        """min(rint(a/s), H), into *k*."""
        np.divide(self.a, s, out=k)
        _lesser(k, self.limit)
        np.rint(k, out=k)

    def _fold(self) -> F32:
        add_halves(self.halves)
        total: F32 = self.terms[0]
        return total

    def _nested(self, s: F32 | np.float32) -> F32:
        """Dropping a trit takes a level k to rint(k/3), never a tie, and the step to 3s.

        s * (3^(depth-d) * k) is exact, for the factor stays within 40.
        """
        t, k = self.terms, self.k
        self._levels(s, k)
        cost = np.zeros(k.shape[1], np.float32)
        for d in range(self.depth, 0, -1):
            np.multiply(k, np.float32(BASE ** (self.depth - d)), out=t)
            np.multiply(t, s, out=t)
            np.subtract(self.a, t, out=t)
            np.multiply(t, t, out=t)
            cost += self._fold() * np.float32(9**d)
            np.divide(k, np.float32(BASE), out=k)
            np.rint(k, out=k)
        return cost


def chunks(groups: F32) -> Iterator[slice]:
    """Which of *groups*, (n, group_size), are looked at together."""
    count = max(1, CHUNK_WEIGHTS // groups.shape[1])
    for first in range(0, len(groups), count):
        yield slice(first, first + count)


def best_codes(groups: F32, steps: F32, depth: int, nested: bool = False) -> U8:
    """For each group the code of the least error, the lowest of equals (SPEC 11.2).

    Takes weights (n, group_size) and the codebook; gives uint8 (n,). A group of zeros takes code 0.
    """
    codes = np.empty(len(groups), np.uint8)
    for which in chunks(groups):
        codes[which] = search(members_first(groups[which]), steps, depth, nested)
    return codes


def search(a: F32, steps: F32, depth: int, nested: bool) -> U8:
    """The codes (n,) of magnitudes (group_size, n)."""
    scale = scale_of(np.max(a, axis=0))
    scaled: Iterable[F32 | np.float32]
    if scale.ndim:  # of one step after the other: all 27 for every group may be larger than the groups
        a = a * scale
        scaled = (scale_steps(s, scale) for s in steps[::-1])
    else:
        scaled = scale_steps(steps, scale)[::-1]
    errors = Errors(a, depth, nested)
    least = np.full(a.shape[1], np.inf, np.float32)
    codes = np.zeros(a.shape[1], np.uint8)
    # "Of the 27 codes the one with the least E, the lowest of equals."
    for s in scaled:
        E = errors(s)
        # How many steps ago the least error was found: after the lowest step, its code.
        codes += np.uint8(1)
        codes *= (least < E).view(np.uint8)
        _lesser(least, E)
    return codes


def largest_magnitudes(groups: F32) -> F32:
    """The largest magnitude of each group, (n,), of weights (n, group_size)."""
    sizes = np.empty(len(groups), np.float32)
    for which in chunks(groups):
        np.max(members_first(groups[which]), axis=0, out=sizes[which])
    return sizes
