"""SPEC 11.3: the codebook of a tensor, fitted by total squared error.

A grid of 96 candidate steps, nearly logarithmic; the error of a weighted
sample of groups under each of them; the best 27 by an exact dynamic
programme. Costs are integers, so no sum depends on its order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .codebook import CODES, FREE_BITS, OVERFLOW
from .groups import I64, Sample
from .search import F32, Errors, scale_of, scale_steps
from .trits import largest_level

LEAST_U = 0x0080_0000 >> FREE_BITS  # the smallest normal step, as u = its bits >> 6
GRID = 96  # candidate steps
LOW_QUANTILE = 256  # one group in 256 may fall short of the grid
COST_BITS = 20  # resolution of costs, below the largest unavoidable one
UNREACHABLE = np.int64(1 << 61)


def fit_steps(sample: Sample, largest: float, depth: int, dtype: str, nested: bool = False) -> F32:
    """27 steps for the groups of a *sample*, ready for `check_codebook`.

    The last one times H reaches *largest*, the tensor's largest magnitude, or
    comes as near as *dtype* ("F32", "F16", "BF16") allows.
    """
    grid = candidate_steps(sample.a.max(axis=0), largest, depth, dtype)
    costs = step_costs(sample, grid, depth, nested)
    return grid[choose_steps(bucket_costs(costs), CODES)]


def candidate_steps(sizes: F32, largest: float, depth: int, dtype: str) -> F32:
    """The grid: at most 96 steps, evenly spaced in u = bits >> 6, the last the tensor's largest.

    *sizes* are the groups' largest magnitudes; the grid starts at m/(H + 1)
    for m the 1/256 quantile of those above 0. It has at least 27 steps.
    """
    last = last_step(largest, depth, dtype)
    sizes = np.sort(sizes[sizes > 0])
    first = last
    if len(sizes):
        low = sizes[len(sizes) // LOW_QUANTILE] / np.float32(largest_level(depth) + 1)
        first = int(low.view(np.uint32)) >> FREE_BITS
    first = max(LEAST_U, min(first, last - CODES + 1))
    M = min(GRID, last - first + 1)
    return steps_of(first + (last - first) * np.arange(M, dtype=np.int64) // (M - 1))


def last_step(largest: float, depth: int, dtype: str) -> int:
    """u of the least step with H*step >= *largest*, or of the largest whose H*step *dtype* holds.

    It leaves room for 26 normal steps below. The products are exact in binary64: 18 + 6 bits.
    """
    H = largest_level(depth)
    u = int(np.float32(largest / H).view(np.uint32)) >> FREE_BITS  # at most one too low
    u = max(u, LEAST_U + CODES - 1)
    while float(steps_of(u)) * H < largest:
        u += 1
    while float(steps_of(u)) * H >= OVERFLOW[dtype]:
        u -= 1
    return u


def steps_of(u: npt.ArrayLike) -> F32:
    """The float32 steps whose bits are u << 6."""
    bits = np.asarray(u).astype(np.uint32) << np.uint32(FREE_BITS)
    steps: F32 = bits.view(np.float32)
    return steps


def step_costs(sample: Sample, grid: F32, depth: int, nested: bool) -> I64:
    """The error of each group, as often as it counts, under each step of *grid*: int64 (M, n), in one unit.

    The unit is 2^-20 of the largest error that no step avoids, or of 2^-24 of
    the largest error: so a cost is at most 2^44, and those of 2^10 groups at most 2^54.
    """
    scale = scale_of(sample.a.max(keepdims=True)[0])
    errors = Errors(sample.a * scale, depth, nested)
    E = np.empty((len(grid), sample.a.shape[1]))
    for j, s in enumerate(scale_steps(grid, scale)):
        np.multiply(errors(s), sample.weights, out=E[j])
    unit = max(E.min(axis=0).max(), E.max() * 2.0**-24)
    if unit == 0:  # all groups are zeros
        return np.zeros(E.shape, np.int64)
    costs: I64 = np.rint(E / unit * 2.0**COST_BITS).astype(np.int64)
    return costs


def bucket_costs(costs: I64) -> I64:
    """B (M, M): B[j, b] is what step j costs all the groups, together, whose best step is b."""
    M = len(costs)
    best = costs.argmin(axis=0)  # the first of equals
    order = np.argsort(best, kind="stable")
    edges = np.searchsorted(best[order], np.arange(M + 1))
    before = np.zeros((M, len(order) + 1), np.int64)
    np.cumsum(costs[:, order], axis=1, out=before[:, 1:])
    return np.diff(before[:, edges], axis=1)


def choose_steps(costs: I64, count: int) -> list[int]:
    """The *count* steps of least total cost, the last one among them, in increasing order.

    A bucket between two neighbouring chosen steps goes to the cheaper of the
    two, one below the first to the first. Under this rule the choice is
    exact; of equal choices the one with the lowest last steps but one, then
    the lowest before it, and so on.
    """
    B, M = costs, len(costs)
    between = np.full((M, M), UNREACHABLE)  # [j, i]: the buckets i..j-1 between chosen i and j
    for i in range(M - 1):
        shared = np.cumsum(np.minimum(B[i, i:], B[i + 1 :, i:]), axis=1)
        between[i + 1 :, i] = shared.diagonal()
    below = np.tril(B, -1).cumsum(axis=1)[:, -1]
    total, back = below, []  # total[j]: the least cost of the buckets below j, when j is chosen
    for _ in range(count - 1):
        ways = total + between
        back.append(ways.argmin(axis=1))
        total = np.minimum(ways.min(axis=1), UNREACHABLE)
    chosen = [M - 1]
    for previous in reversed(back):
        chosen.append(int(previous[chosen[-1]]))
    return chosen[::-1]
