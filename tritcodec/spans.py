"""SPEC 16.1 to 16.3: which steps give the values of a group, and 27 that do for all groups.

A step is held as the integer u = bits >> 6. A value that is given by a level confines u to an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from .codebook import CODES, FLOATS, FREE_BITS, OVERFLOW, UNIT_STEPS
from .fit import LEAST_U
from .tensor import F32
from .trits import largest_level
from .values import BITS

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

MOST_STEPS = 4 * CODES  # that are sought where 27 do not do: the best of them show how near it was
U_BITS = 25  # u is below 2^25
CUT = 52 - (23 - FREE_BITS)  # significand bits of binary64 beyond the 17 of u
REBIAS = (1023 - 127) << (23 - FREE_BITS)  # from the exponent of binary64 to that of binary32, as part of u


@dataclass(frozen=True, eq=False)
class Spans:
    """Intervals [low, high] of u that belong to owners, in order: those of one are disjoint and increase."""

    owner: I64
    low: I64
    high: I64

    def among(self, chosen: npt.NDArray[np.bool_]) -> Spans:
        """Some of them."""
        return Spans(self.owner[chosen], self.low[chosen], self.high[chosen])

    def joined(self, other: Spans) -> Spans:
        """These and those of *other*, whose owners are others."""
        owner = other.owner + (self.owner[-1] + 1 if len(self.owner) else 0)
        ends = np.append(self.low, other.low), np.append(self.high, other.high)
        return Spans(np.append(self.owner, owner), *ends)


def steps_giving(magnitudes: I64, dtype: str, depth: int, slack: int = 0) -> Spans:
    """For each magnitude, by its bits, the u for which a level in 1..H gives it; its index is the owner.

    With *slack*, within so many units in the last place of it.
    """
    H = largest_level(depth)
    least = np.maximum(magnitudes - slack, 1)
    most = np.minimum(magnitudes + slack, int(np.array(np.inf, FLOATS[dtype]).view(BITS[dtype])) - 1)
    k = np.arange(H, 0, -1)  # steps increase
    below, at = _u_at(_edges(least, dtype)[0][:, None] / k)
    closed = (least[:, None] % 2 == 0) | (dtype == "F32")
    low = below + ~(at & closed)
    above, at = _u_at(_edges(most, dtype)[1][:, None] / k)
    closed = (most[:, None] % 2 == 0) | (dtype == "F32")
    high = above - (at & ~closed)
    limit, at = _u_at(np.array([OVERFLOW[dtype] / H]))
    low, high = np.maximum(low, LEAST_U), np.minimum(high, limit - at)
    owner = np.repeat(np.arange(len(magnitudes)), H)
    return _merged(Spans(owner, low.ravel(), high.ravel()).among((low <= high).ravel()))


def _edges(magnitudes: I64, dtype: str) -> tuple[F64, F64]:
    """The ends of what rounds to each magnitude, exact; they belong to it where its last bit is 0.

    In F32 a product is exact: both ends are the value, and belong to it.
    """

    def value(bits: I64) -> F64:
        return bits.astype(BITS[dtype]).view(FLOATS[dtype]).astype(np.float64)

    if dtype == "F32":
        return value(magnitudes), value(magnitudes)
    unit = value(magnitudes | 1) - value(magnitudes & ~1)  # both of one binade, the largest value included
    return (value(magnitudes - 1) + value(magnitudes)) / 2, value(magnitudes) + unit / 2


def _u_at(quotient: F64) -> tuple[I64, npt.NDArray[np.bool_]]:
    """The largest u whose step is at most the exact quotient, and whether it is the quotient.

    The quotient x / k of a number of 24 bits was rounded to 53. It is not rounded across a step s of 18
    bits, nor onto it: x and s * k have 24 bits each, so that where they differ it is by 2^-25 of x at least.
    """
    bits = quotient.view(np.int64)
    return (bits >> CUT) - REBIAS, bits & ((1 << CUT) - 1) == 0


def _merged(some: Spans) -> Spans:
    """Overlapping and touching neighbours made one; lows and highs of an owner increase."""
    first = np.ones(len(some.owner), bool)
    first[1:] = (some.owner[1:] != some.owner[:-1]) | (some.low[1:] > some.high[:-1] + 1)
    last = np.append(first[1:], True)[: len(first)]
    return Spans(some.owner[first], some.low[first], some.high[last])


# Steps that fit groups


def spans(groups: I64, dtype: str, depth: int, slack: int = 0) -> Spans:
    """The u that fit each of *groups*, (n, w) magnitudes by their bits; all zeros have none."""
    groups = _without_repeats(groups[groups.any(axis=1)])
    magnitudes, place = np.unique(groups, return_inverse=True)
    place = place.reshape(groups.shape)
    table = steps_giving(np.maximum(magnitudes, 1), dtype, depth, slack)
    lows, highs = (table.owner << U_BITS) + table.low, (table.owner << U_BITS) + table.high
    n = len(groups)
    found = Spans(np.arange(n), np.zeros(n, np.int64), np.full(n, (1 << U_BITS) - 1))
    for j in range(groups.shape[1]):
        member = place[found.owner, j] << U_BITS
        # Those of the member's intervals that meet the group's so far stand side by side.
        first = np.searchsorted(highs, member + found.low)
        count = np.searchsorted(lows, member + found.high, side="right") - first
        absent = groups[found.owner, j] == 0
        count[absent] = 1
        entry = np.repeat(np.arange(len(count)), count)
        chosen = np.arange(len(entry)) + np.repeat(first - np.cumsum(count) + count, count)
        chosen = np.minimum(chosen, len(lows) - 1)
        low, high = found.low[entry], found.high[entry]
        met = ~absent[entry]
        low[met] = np.maximum(low, table.low[chosen])[met]
        high[met] = np.minimum(high, table.high[chosen])[met]
        found = Spans(found.owner[entry], low, high)
    return found


def _without_repeats(groups: I64) -> I64:
    """The distinct magnitudes of each group, the largest first, then zeros."""
    groups = -np.sort(-groups, axis=1)
    groups[:, 1:][groups[:, 1:] == groups[:, :-1]] = 0
    return -np.sort(-groups, axis=1)


def cover(fitting: Spans) -> tuple[list[int], bool]:
    """At most 27 values of u, increasing, that hit an interval of every owner, and whether they do.

    Owners of one interval come first, in the order of its end: no fewer points hit all of these.
    """
    n = int(fitting.owner[-1]) + 1 if len(fitting.owner) else 0
    count = np.bincount(fitting.owner, minlength=n)
    end = np.full(n, 1 << U_BITS)
    np.minimum.at(end, fitting.owner, fitting.high)
    order = np.lexsort((end, count))
    left = count > 0
    gains: dict[int, int] = {}
    while left.any() and len(gains) < MOST_STEPS:
        live = fitting.among(left[fitting.owner])
        weight = np.where(count[live.owner] == 1, n + 1, 1)
        u = _best_point(live, weight, order[left[order].argmax()])
        hit = live.owner[(live.low <= u) & (u <= live.high)]
        left[hit] = False
        gains[u] = len(hit)
    best = sorted(gains, key=lambda u: (-gains[u], u))[:CODES]
    return sorted(best), not left.any() and len(gains) <= CODES


def _best_point(live: Spans, weight: I64, group: int) -> int:
    """The u in an interval of *group* that hits the greatest weight, of equals the largest.

    It is the middle of what the intervals that it hits have in common.
    """
    own = live.among(live.owner == group)
    at = np.searchsorted(own.low, live.low, side="right") - 1
    points = live.low[(at >= 0) & (live.low <= own.high[at])]
    hits = _weight_up_to(live.low, weight, points, "right") - _weight_up_to(live.high, weight, points, "left")
    u = points[hits == hits.max()].max()
    hit = (live.low <= u) & (u <= live.high)
    return int(live.low[hit].max() + live.high[hit].min()) // 2


def _weight_up_to(ends: I64, weight: I64, points: I64, side: Literal["left", "right"]) -> I64:
    order = np.argsort(ends, kind="stable")
    total = np.append(0, np.cumsum(weight[order]))
    sums: I64 = total[np.searchsorted(ends[order], points, side=side)]
    return sums


def filled(chosen: Sequence[int], depth: int, dtype: str) -> F32:
    """27 steps: the u that were *chosen*, increasing, and unused ones: next above the last, or else below."""
    if not chosen:
        return UNIT_STEPS
    limit, at = _u_at(np.array([OVERFLOW[dtype] / largest_level(depth)]))
    near = chain(range(chosen[-1] + 1, int((limit - at)[0]) + 1), range(chosen[-1] - 1, 0, -1))
    unused = islice((u for u in near if u not in set(chosen)), CODES - len(chosen))
    return (np.array(sorted([*chosen, *unused]), np.uint32) << FREE_BITS).view(np.float32)
