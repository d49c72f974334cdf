"""SPEC 16: finding the steps, depth and group size of a matrix that was dequantised.

A step is held as the integer u = bits >> 6. Each value confines the step of its group to some intervals
of u, one a level; those of the members of a group are intersected, and points are sought that hit
an interval of every group. A sample of groups comes first; groups that the steps found do
not fit are added to it, until there are none or no steps fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from .codebook import CODES, FLOATS, FREE_BITS, OVERFLOW, UNIT_STEPS
from .encode import Weights
from .fit import LEAST_U
from .tensor import F32, GROUP_SIZE, MAX_GROUP_SIZE
from .trits import largest_level
from .values import BITS, SIGN, Bits, Values, in_common

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

SAMPLE_GROUPS = 1024  # looked at first, and the most that are added at once
ROUNDS = 32  # of adding groups, before a depth is given up
WIDER = (32, 64, 128)  # group sizes, beside a whole row, that are tried once 16 fits
MOST_STEPS = 4 * CODES  # that are sought where 27 do not do: the best of them show how near it was
U_BITS = 25  # u is below 2^25
CUT = 52 - (23 - FREE_BITS)  # significand bits of binary64 beyond the 17 of u
REBIAS = (1023 - 127) << (23 - FREE_BITS)  # from the exponent of binary64 to that of binary32, as part of u


@dataclass(frozen=True, eq=False)
class Look:
    """What one pass finds: values that are not finite, negative zeros, and groups (n, 16) of magnitudes."""

    infinite: int
    negative_zeros: int
    sample: I64


@dataclass(frozen=True, eq=False)
class Recovery:
    """How a matrix was made at *depth*, or how nearly: steps, and which groups of 16 they fit.

    `steps` are the `used` steps that were found, filled up to 27. `group_size` is the largest that
    fits. Where not all groups fit, `place` is the row and column of the first weight that does not.
    """

    depth: int
    group_size: int
    steps: F32
    used: int
    groups: int
    fitting: int
    place: tuple[int, int] | None

    @property
    def exact(self) -> bool:
        """Whether every weight decodes to the bits that it had."""
        return self.fitting == self.groups


def look(weights: Weights) -> Look:
    """Read all *weights* once, in their order."""
    groups, negative_zero = weights.rows * weights.groups, SIGN[weights.dtype]
    infinity = int(np.array(np.inf, FLOATS[weights.dtype]).view(BITS[weights.dtype]))
    count = min(groups, SAMPLE_GROUPS)
    row, group = np.divmod(np.arange(count, dtype=np.int64) * groups // count, weights.groups)
    infinite = zeros = 0
    sample = []
    for start in weights.starts():
        bits = _bits(weights, start)
        infinite += int(np.count_nonzero(bits & BITS[weights.dtype].type(negative_zero - 1) >= infinity))
        zeros += int(np.count_nonzero(bits == negative_zero))
        first, last = np.searchsorted(row, [start, start + len(bits)])
        sample.append(_members(bits, row[first:last] - start, group[first:last], negative_zero))
    return Look(infinite, zeros, np.concatenate(sample))


def recover(weights: Weights, found: Look, depths: Sequence[int]) -> Recovery:
    """The lowest of *depths* that fits all groups of finite *weights*, or that which fits the most.

    Takes weights of group size 16 whose `read` gives values of their dtype, F32, F16 or BF16.
    """
    best: Recovery | None = None
    for depth in depths:
        recovery = _at_depth(weights, found.sample, depth)
        if recovery.exact:
            return recovery
        if best is None or recovery.fitting > best.fitting:
            best = recovery
    if best is None:
        raise ValueError("no depths to try")
    return best


def _at_depth(weights: Weights, sample: I64, depth: int) -> Recovery:
    for _ in range(ROUNDS):
        chosen, complete = cover(spans(sample, weights.dtype, depth))
        tried = _Trial(weights, chosen, depth)
        if not complete:
            break
        more = tried.run(SAMPLE_GROUPS)
        if not len(more):
            return tried.recovery()
        sample = np.concatenate([sample, more])
    tried = _Trial(weights, chosen, depth)
    tried.run()
    return tried.recovery()


class _Trial:
    """All groups of a matrix against some steps."""

    def __init__(self, weights: Weights, chosen: Sequence[int], depth: int) -> None:
        self.weights, self.depth, self.used = weights, depth, len(chosen)
        self.steps = filled(chosen, depth, weights.dtype)
        self.values = Values(self.steps, depth, weights.dtype)
        sizes = [size for size in (*WIDER, weights.columns) if GROUP_SIZE < size <= weights.columns]
        self.sizes = [GROUP_SIZE, *sorted({size for size in sizes if size <= MAX_GROUP_SIZE})]
        self.misfits = 0
        self.place: tuple[int, int] | None = None

    def run(self, enough: int | None = None) -> I64:
        """Look at every group, or until *enough* do not fit; gives the first that do not, (n, 16)."""
        misfits = []
        for start in self.weights.starts():
            bits = _bits(self.weights, start)
            masks = self.values.masks(bits)
            row, group = np.nonzero(in_common(masks, GROUP_SIZE) == 0)
            if len(row) and self.place is None:
                self.place = start + int(row[0]), self._column(masks[row[0]], int(group[0]))
            self._narrow(masks)
            self.misfits += len(row)
            if enough is not None:
                misfits.append(_members(bits, row, group, SIGN[self.weights.dtype])[: enough - len(misfits)])
                if self.misfits >= enough:
                    break
        return np.concatenate(misfits)[:enough] if misfits else np.empty((0, GROUP_SIZE), np.int64)

    def recovery(self) -> Recovery:
        """What came out."""
        groups = self.weights.rows * self.weights.groups
        return Recovery(
            self.depth, self.sizes[-1], self.steps, self.used, groups, groups - self.misfits, self.place
        )

    def _narrow(self, masks: npt.NDArray[np.uint32]) -> None:
        """Give up group sizes that do not fit: groups of each size are made of those of the size before."""
        for number, size in enumerate(self.sizes):
            if number and not in_common(masks, size).all():
                del self.sizes[number:]
                break

    def _column(self, masks: npt.NDArray[np.uint32], group: int) -> int:
        """The first member that lacks the code which most members of the group have, of equals the lowest."""
        first = group * GROUP_SIZE
        members = masks[first : first + GROUP_SIZE]
        has = members[:, None] >> np.arange(CODES, dtype=np.uint32) & 1
        return first + int(has[:, has.sum(axis=0).argmax()].argmin())


def _bits(weights: Weights, start: int) -> Bits:
    """The block of rows from *start*, as the bits of its values."""
    rows = weights.read(start, min(start + weights.block_rows, weights.rows))
    return np.ascontiguousarray(rows, FLOATS[weights.dtype]).view(BITS[weights.dtype])


def _members(bits: Bits, row: I64, group: I64, sign: int) -> I64:
    """The magnitudes of groups of a block, (n, 16), a short last one filled with zeros."""
    column = group[:, None] * GROUP_SIZE + np.arange(GROUP_SIZE)
    values = bits[row[:, None], np.minimum(column, bits.shape[1] - 1)].astype(np.int64) & (sign - 1)
    values[column >= bits.shape[1]] = 0
    return values


# Steps that give a value


@dataclass(frozen=True, eq=False)
class Spans:
    """Intervals [low, high] of u that belong to an owner: disjoint and increasing for each, owners in order."""

    owner: I64
    low: I64
    high: I64

    def among(self, chosen: npt.NDArray[np.bool_]) -> Spans:
        """Some of them."""
        return Spans(self.owner[chosen], self.low[chosen], self.high[chosen])


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

    The quotient x / k of a number of 24 bits was rounded to 53. It is not rounded across a step s of 18 bits, nor onto
    it: x and s * k have 24 bits each, so that where they differ it is by 2^-25 of x at least.
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


def spans(groups: I64, dtype: str, depth: int, slack: int = 0) -> tuple[Spans, int]:
    """The u that fit each of *groups*, (n, w) magnitudes by their bits, and how many groups are not all zeros."""
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
    return found, n


def _without_repeats(groups: I64) -> I64:
    """The distinct magnitudes of each group, the largest first, then zeros."""
    groups = -np.sort(-groups, axis=1)
    groups[:, 1:][groups[:, 1:] == groups[:, :-1]] = 0
    return -np.sort(-groups, axis=1)


def cover(fitting: tuple[Spans, int]) -> tuple[list[int], bool]:
    """At most 27 values of u, increasing, that hit an interval of every group, and whether they do.

    Groups with one interval come first, in the order of its end: so few points could not hit them otherwise.
    """
    some, n = fitting
    count = np.bincount(some.owner, minlength=n)
    end = np.full(n, 1 << U_BITS)
    np.minimum.at(end, some.owner, some.high)
    order = np.lexsort((end, count))
    left = count > 0
    gains: dict[int, int] = {}
    while left.any() and len(gains) < MOST_STEPS:
        live = some.among(left[some.owner])
        weight = np.where(count[live.owner] == 1, n + 1, 1)
        u = _best_point(live, weight, order[left[order].argmax()])
        hit = live.owner[(live.low <= u) & (u <= live.high)]
        left[hit] = False
        gains[u] = len(hit)
    complete = not left.any() and bool((count > 0).all()) and len(gains) <= CODES
    best = sorted(gains, key=lambda u: (-gains[u], u))[:CODES]
    return sorted(best), complete


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


def _weight_up_to(ends: I64, weight: I64, points: I64, side: str) -> I64:
    order = np.argsort(ends, kind="stable")
    total = np.append(0, np.cumsum(weight[order]))
    sums: I64 = total[np.searchsorted(ends[order], points, side=side)]  # type: ignore[call-overload]
    return sums


def filled(chosen: Sequence[int], depth: int, dtype: str) -> F32:
    """27 steps: the u that were *chosen*, increasing, and unused ones, next above the last or else below it."""
    if not chosen:
        return UNIT_STEPS
    limit, at = _u_at(np.array([OVERFLOW[dtype] / largest_level(depth)]))
    near = chain(range(chosen[-1] + 1, int((limit - at)[0]) + 1), range(chosen[-1] - 1, 0, -1))
    unused = islice((u for u in near if u not in set(chosen)), CODES - len(chosen))
    return (np.array(sorted([*chosen, *unused]), np.uint32) << FREE_BITS).view(np.float32)
