"""SPEC 16.4: finding the steps, depth and group size of a matrix that was dequantised.

Steps are sought that fit a sample of groups; groups that they do not fit are added to it, until there
are none or no steps do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .codebook import FLOATS, FREE_BITS
from .encode import Weights
from .spans import I64, cover, filled, spans
from .tensor import F32, GROUP_SIZE, MAX_GROUP_SIZE
from .values import BITS, EVERY_CODE, SIGN, Bits, Values, bits_of, in_common

SAMPLE_GROUPS = 1024  # looked at first, and the most that are added at once
ROUNDS = 32  # of adding groups, before a depth is given up
WIDER = (32, 64, 128)  # group sizes, beside a whole row, that are tried once 16 fits


@dataclass(frozen=True, eq=False)
class Look:
    """What one pass finds: values that are not finite, negative zeros, and groups (n, 16) of magnitudes."""

    infinite: int
    negative_zeros: int
    sample: I64


@dataclass(frozen=True, eq=False)
class Recovery:
    """How a matrix was made at *depth*, or how nearly: steps, and which groups of 16 they fit.

    `steps` are those that were `chosen`, as u, filled up to 27. `group_size` is the largest that
    fits. Where not all groups fit, `place` is the row and column of the first weight that does not.
    """

    depth: int
    group_size: int
    steps: F32
    chosen: Sequence[int]
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
    """Groups that no step fits at all are left aside, so that what is said of the others holds."""
    fitting = spans(sample, weights.dtype, depth)
    for _ in range(ROUNDS):
        chosen, complete = cover(fitting)
        if not complete:
            break
        tried = _Trial(weights, chosen, depth)
        misfits = tried.run(SAMPLE_GROUPS)
        if not len(misfits):
            return tried.recovery()
        more = spans(misfits, weights.dtype, depth)
        if not len(more.owner):
            break
        fitting = fitting.joined(more)
    tried = _Trial(weights, chosen, depth)
    tried.run()
    return tried.recovery()


class _Trial:
    """All groups of a matrix against some steps."""

    def __init__(self, weights: Weights, chosen: Sequence[int], depth: int) -> None:
        self.weights, self.depth, self.chosen = weights, depth, chosen
        self.steps = filled(chosen, depth, weights.dtype)
        self.values = Values(self.steps, depth, weights.dtype)
        self.codes = codes_of(chosen, self.steps)
        sizes = [size for size in (*WIDER, weights.columns) if GROUP_SIZE < size <= weights.columns]
        self.sizes = [GROUP_SIZE, *sorted({size for size in sizes if size <= MAX_GROUP_SIZE})]
        self.misfits = 0
        self.place: tuple[int, int] | None = None

    def run(self, enough: int | None = None) -> I64:
        """Look at every group, or until *enough* do not fit; gives the first that do not, (n, 16)."""
        misfits = [np.empty((0, GROUP_SIZE), np.int64)]
        for start in self.weights.starts():
            bits = _bits(self.weights, start)
            masks = self.values.masks(bits)
            row, group = np.nonzero(in_common(masks, GROUP_SIZE) == 0)
            if len(row) and self.place is None:
                self.place = start + int(row[0]), self._column(masks[row[0]], int(group[0]))
            self._narrow(masks)
            self.misfits += len(row)
            if enough is not None:
                misfits.append(_members(bits, row, group, SIGN[self.weights.dtype]))
                if self.misfits >= enough:
                    break
        return np.concatenate(misfits)[:enough]

    def recovery(self) -> Recovery:
        """What came out."""
        groups = self.weights.rows * self.weights.groups
        return Recovery(
            self.depth, self.sizes[-1], self.steps, self.chosen, groups, groups - self.misfits, self.place
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
        has = members[:, None] >> self.codes & 1
        return first + int(has[:, has.sum(axis=0).argmax()].argmin())


def _bits(weights: Weights, start: int) -> Bits:
    """The block of rows from *start*, as the bits of its values."""
    return bits_of(weights.read(start, min(start + weights.block_rows, weights.rows)), weights.dtype)


def _members(bits: Bits, row: I64, group: I64, sign: int) -> I64:
    """The magnitudes of groups of a block, (n, 16); a short last one repeats its last, which says no more."""
    column = np.minimum(group[:, None] * GROUP_SIZE + np.arange(GROUP_SIZE), bits.shape[1] - 1)
    members: I64 = bits[row[:, None], column].astype(np.int64) & (sign - 1)
    return members


def codes_of(chosen: Sequence[int], steps: F32) -> npt.NDArray[np.uint32]:
    """The codes that the *chosen* steps have among all 27; code 0 where none was chosen."""
    codes = np.searchsorted(steps.view(np.uint32) >> FREE_BITS, chosen) if chosen else [0]
    return np.asarray(codes, np.uint32)


def misses(weights: Weights, recovery: Recovery) -> int:
    """How many *weights* their group's step does not give: the step that gives most of the group."""
    values = Values(recovery.steps, recovery.depth, weights.dtype)
    missing = 0
    for start in weights.starts():
        masks = values.masks(_bits(weights, start))
        row, group = np.nonzero(in_common(masks, GROUP_SIZE) == 0)
        column = group[:, None] * GROUP_SIZE + np.arange(GROUP_SIZE)
        members = masks[row[:, None], np.minimum(column, weights.columns - 1)]
        members[column >= weights.columns] = EVERY_CODE
        lacking = np.full(len(members), GROUP_SIZE)
        for code in codes_of(recovery.chosen, recovery.steps):
            np.minimum(lacking, np.count_nonzero(members >> code & 1 == 0, axis=1), out=lacking)
        missing += int(lacking.sum())
    return missing
