"""SPEC 11.2: the error of a group under a step, and the code of the least error.

Magnitudes are held members first: shape (group_size, n), the n groups along
the fast axis, so that every operation is one long elementwise run. Only IEEE
operations in a written order are used, so that no bit depends on the CPU.

Most codes are tried: a fitted codebook is dense where the groups are, so that
finer bounds than those in `search` settle little and cost what they save.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .trits import BASE, largest_level

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Float = TypeVar("Float", npt.NDArray[np.float32], npt.NDArray[np.float64])

CHUNK_WEIGHTS = 1 << 18  # weights searched at once: calls are dear below, the cache small above
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


def scale_steps(steps: F32, scale: F32 | np.float32) -> F32:
    """*steps* times the powers of two *scale*, limited to 2^-90..2^40.

    Exact in binary64, and normal in binary32 after the limits. A step beyond
    them is too small for its group by a factor of 2^58, or too large by 2^8: as
    good as 0, or as infinity. So nothing overflows, and no 0/0 comes up.
    """
    wide = steps.astype(np.float64) * np.asarray(scale, np.float64)
    return wide.clip(LEAST_STEP, LARGEST_STEP).astype(np.float32)


def fold(terms: Float) -> Float:
    """The sum over axis 0, in place, by halves: terms[i] += terms[i + ceil(m/2)] until one is left."""
    m = len(terms)
    while m > 1:
        half = (m + 1) // 2
        np.add(terms[: m - half], terms[half:m], out=terms[: m - half])
        m = half
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

    s*k is exact: 18 + 6 bits. a - s*k is exact but where a > 2*H*s.
    """

    def __init__(self, a: F32, depth: int, nested: bool = False) -> None:
        self.a, self.depth, self.nested = a, depth, nested
        self.H = largest_level(depth)
        self.terms = aligned(a.shape)
        self.k = aligned(a.shape) if nested else self.terms
        self.limit = np.full(a.shape[1], self.H, np.float32)  # a row: a scalar is slow in NumPy's minimum
        self.squares = a * a if depth == 1 else a

    def __call__(self, s: F32 | np.float32, limited: bool = True) -> F32:
        """The errors (n,) under *s*, one step or one for each group; valid until the next call.

        *limited* may be False where no quotient a/s reaches H + 1/2.
        """
        if self.nested:
            return self._nested(s)
        t = self.terms
        if self.depth == 1:  # the nearer of 0 and s has the lesser square: the same bits, no division
            np.subtract(self.a, s, out=t)
            np.multiply(t, t, out=t)
            _lesser(t, self.squares)
            return fold(t)
        self._levels(s, limited, t)
        np.multiply(t, s, out=t)
        np.subtract(self.a, t, out=t)
        np.multiply(t, t, out=t)
        return fold(t)

    def _levels(self, s: F32 | np.float32, limited: bool, k: F32) -> None:
        """min(rint(a/s), H), into *k*."""
        np.divide(self.a, s, out=k)
        if limited:
            _lesser(k, self.limit)
        np.rint(k, out=k)

    def _nested(self, s: F32 | np.float32) -> F32:
        """Dropping a trit takes a level k to rint(k/3), never a tie, and the step to 3s.

        s * (3^(depth-d) * k) is exact, for the factor stays within 40.
        """
        t, k = self.terms, self.k
        self._levels(s, True, k)
        cost = np.zeros(k.shape[1], np.float32)
        for d in range(self.depth, 0, -1):
            np.multiply(k, np.float32(BASE ** (self.depth - d)), out=t)
            np.multiply(t, s, out=t)
            np.subtract(self.a, t, out=t)
            np.multiply(t, t, out=t)
            cost += fold(t) * np.float32(9**d)
            np.divide(k, np.float32(BASE), out=k)
            np.rint(k, out=k)
        return cost


class Groups:
    """Groups of weights, `members` (n, group_size), and what searches at any depth have in common of them."""

    def __init__(self, members: F32) -> None:
        self.members = members

    def chunks(self) -> Iterator[tuple[slice, F32, F32]]:
        """Which groups, their magnitudes (group_size, n) and the largest (n,): as many as go at once."""
        for which in chunks(self.members):
            a = members_first(self.members[which])
            yield which, a, np.max(a, axis=0)

    @cached_property
    def by_size(self) -> list[tuple[I64, F32, F32]]:
        """The same, those of similar size together: what is too small for one is too small for all."""
        # The top 16 bits below the sign: a stable sort of uint16 is a radix sort.
        sizes = largest_magnitudes(self.members)
        key = sizes.view(np.uint32) >> np.uint32(15)
        order = np.argsort(key.astype(np.uint16), kind="stable")
        members, sizes = self.members.take(order, axis=0), sizes.take(order)
        return [(order[which], members_first(members[which]), sizes[which]) for which in chunks(members)]


def chunks(groups: F32) -> Iterator[slice]:
    """Which of *groups*, (n, group_size), are looked at together."""
    count = max(1, CHUNK_WEIGHTS // groups.shape[1])
    for first in range(0, len(groups), count):
        yield slice(first, first + count)


def best_codes(groups: Groups, steps: F32, depth: int, nested: bool = False) -> U8:
    """For each group the code of the least error, the lowest of equals (SPEC 11.2).

    Takes weights and the codebook; gives uint8 (n,). A group of zeros takes
    code 0. At depth 1, where hardly a step is too small, sorting does not pay.
    """
    codes = np.empty(len(groups.members), np.uint8)
    for which, a, sizes in groups.by_size if depth > 1 else groups.chunks():
        codes[which] = search(a, sizes, steps, depth, nested)
    return codes


def largest_magnitudes(groups: F32) -> F32:
    """The largest magnitude of each group, (n,), of weights (n, group_size)."""
    sizes = np.empty(len(groups), np.float32)
    for which in chunks(groups):
        np.max(members_first(groups[which]), axis=0, out=sizes[which])
    return sizes


def search(a: F32, sizes: F32, steps: F32, depth: int, nested: bool) -> U8:
    """The codes (n,) of magnitudes (group_size, n), *sizes* the largest of each group.

    A step whose H*s falls short of the largest magnitude m takes m to level H,
    so its error, a sum of terms >= 0, is at least (m - H*s)^2; nested, at
    least 9^depth times that. H*s is exact, and rounding is monotone: this
    holds of the computed values, and from one step down to the next. So where
    it is above an error already found, this code and all below it lose.

    Of the steps from the largest of all m on only the lowest can win. There
    s - a >= 0 and levels are 0 or 1, the nearest, so that a term is the lesser
    of fl(a^2) and fl(fl(s - a)^2): it never falls as s grows, and neither does
    a fold of such. Nested, all levels below the full depth are 0 there.
    """
    scale = scale_of(sizes)
    if scale.ndim:
        a, sizes = a * scale, sizes * scale
    errors = Errors(a, depth, nested)
    scaled = scale_steps(steps[:, None], scale)  # (27, 1) or (27, n)
    largest = sizes.max()
    reach = scaled * np.float32(errors.H)
    # Where all a <= fl(s*(H + 1/4)), no quotient reaches H + 1/2.
    limited = largest > scaled.min(axis=1) * np.float32(errors.H + 0.25)
    short = reach.max(axis=1) < sizes.min()
    least = np.full(a.shape[1], np.inf, np.float32)
    age = np.zeros(a.shape[1], np.uint8)  # how many codes ago the least error was found
    last = int(np.searchsorted(scaled.min(axis=1)[:-1], largest))
    lowest = last  # of the codes tried
    for c in reversed(range(last + 1)):
        if short[c]:
            bound = sizes - reach[c]
            bound *= bound
            if nested:
                bound *= np.float32(9**depth)
            if (bound > least).all():
                break
        lowest = c
        E = errors(scaled[c], limited[c])
        # "Of the 27 codes the one with the least E, the lowest of equals."
        age += np.uint8(1)
        age *= (least < E).view(np.uint8)
        _lesser(least, E)
    codes: U8 = age + np.uint8(lowest)
    return codes
