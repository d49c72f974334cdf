"""SPEC 11.1 and 11.3: rows as groups, and the groups that a codebook is fitted to.

These are the largest of a tensor, which make most of the error, and a sample of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .search import F32, largest_magnitudes, members_first

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SAMPLE_GROUPS = 8192  # groups looked at, and at most about
SAMPLE_WEIGHTS = 1 << 18  # so many weights
LEAST_SAMPLE = 32  # groups, however large
LARGEST_SHARE = 16  # one in so many of these, the largest of the tensor are taken besides
FEW = 1024  # so many groups are taken as they are
OTHERS = 512  # and of more, about as many of those that are not among the largest


@dataclass(frozen=True, eq=False)
class Sample:
    """Groups to fit to: magnitudes (group_size, n); the last `largest` stand for themselves alone.

    Each of those before them stands for `weight` groups.
    """

    a: F32
    largest: int
    weight: float

    @property
    def weights(self) -> F64:
        """How many groups each stands for, (n,)."""
        weights = np.ones(self.a.shape[1])
        weights[: len(weights) - self.largest] = self.weight
        return weights

    def total(self, values: I64) -> float:
        """The sum over all groups that these stand for, of *values* (n,); sums of integers are exact."""
        others = len(values) - self.largest
        return int(values[:others].sum()) * self.weight + int(values[others:].sum())


def as_groups(block: F32, group_size: int) -> F32:
    """The groups (n * G, width) of rows (n, K), a short last one filled with zeros."""
    columns = block.shape[1]
    width = min(group_size, columns)
    padded = -(-columns // width) * width
    if padded != columns:
        filled = np.zeros((len(block), padded), np.float32)
        filled[:, :columns] = block
        block = filled
    return block.reshape(-1, width)


def sample_groups(groups: int, group_size: int) -> I64:
    """Indices of a sample of *groups* groups: increasing, spread evenly.

    One from each of n equal ranges, at a place that the golden ratio varies
    (40503 = 2^16 / 1.618), so that no period of the weights is in step with it.
    """
    n = min(groups, SAMPLE_GROUPS, max(SAMPLE_WEIGHTS // group_size, LEAST_SAMPLE))
    i = np.arange(n, dtype=np.int64)
    return i * groups // n + (i * 40503 % (1 << 16) * (groups // n) >> 16)  # below 2^48 * 2^14


class Sampler:
    """Finds the sample of rows x K weights, while they pass by, each block once, in their order."""

    def __init__(self, rows: int, columns: int, group_size: int) -> None:
        self.columns, self.group_size = columns, group_size
        self.width, self.groups = min(group_size, columns), -(-columns // group_size)
        self.total = rows * self.groups
        self._spread = sample_groups(self.total, self.width)
        self._members = np.empty((len(self._spread), self.width), np.float32)
        few = len(self._spread) == self.total <= FEW
        self._count = 0 if few else len(self._spread) // LARGEST_SHARE
        self._largest = np.empty(0, np.int64)  # numbers of groups, the largest first, and of equals the first
        self._sizes = np.empty(0, np.float32)
        self._largest_members = np.empty((0, self.width), np.float32)

    def add(self, start: int, block: F32, sizes: F32) -> None:
        """Look at the rows (n, K) from *start* on, of which *sizes* (n,) are the largest magnitudes."""
        first, last = np.searchsorted(self._spread, [start * self.groups, (start + len(block)) * self.groups])
        row, group = np.divmod(self._spread[first:last], self.groups)
        self._members[first:last] = self._groups_of(block, row - start, group)
        if self._count:
            # Groups of later rows lose against equals.
            least = self._sizes[-1] if len(self._sizes) == self._count else np.float32(-1)
            rows = np.flatnonzero(sizes > least)
            if len(rows):
                self._add_largest(start, block, rows, least)

    def _add_largest(self, start: int, block: F32, rows: I64, least: np.float32) -> None:
        """Find out whether *rows* of a block have groups, larger than *least*, that are among the largest."""
        sizes = largest_magnitudes(as_groups(block[rows], self.group_size))
        larger = np.flatnonzero(sizes > least)
        order = larger[_largest_first(sizes[larger])][: self._count]
        row, group = np.divmod(order, self.groups)
        row = rows[row]
        numbers = np.concatenate([self._largest, (start + row) * self.groups + group])
        members = np.concatenate([self._largest_members, self._groups_of(block, row, group)])
        sizes = np.concatenate([self._sizes, sizes[order]])
        kept = _largest_first(sizes)[: self._count]  # of equals those that came before
        self._largest, self._sizes, self._largest_members = numbers[kept], sizes[kept], members[kept]

    def sample(self) -> Sample:
        """The sample, when all rows have passed by."""
        others = members_first(self._members[~np.isin(self._spread, self._largest)])
        if not self._count:
            return Sample(others, 0, 1.0)
        order = np.argsort(others.max(axis=0), kind="stable")
        step = -(-len(order) // OTHERS)
        taken = others[:, order[step // 2 :: step]]
        a = np.concatenate([taken, members_first(self._largest_members)], axis=1)
        return Sample(a, self._count, (self.total - self._count) / taken.shape[1])

    def _groups_of(self, block: F32, row: I64, group: I64) -> F32:
        """Groups of a *block* of rows, a short last one at the end of the row, with zeros before it."""
        column = np.minimum(group * self.group_size, self.columns - self.width)[:, None]
        column = column + np.arange(self.width)
        values: F32 = block[row[:, None], column]
        values[column < group[:, None] * self.group_size] = 0
        return values


def _largest_first(sizes: F32) -> I64:
    """The order of *sizes*, largest first, of equals the first."""
    order: I64 = np.argsort(-sizes, kind="stable")
    return order
