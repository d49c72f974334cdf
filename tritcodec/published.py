"""SPEC 11.4: the method that the published codec describes, for comparison."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np

from .codebook import CODES, FREE_BITS
from .fit import LEAST_U, last_step, steps_of
from .search import F32, U8, Errors, members_first, scale_of, scale_steps
from .trits import largest_level

ORDER_STATISTICS = (1, 2, 4, 6)  # of a group's magnitudes, from the largest: the scales that are tried


def spaced_codebook(blocks: Iterable[F32], largest: float, depth: int, dtype: str) -> F32:
    """27 log-spaced scales, from the least that a group chooses to the *largest* magnitude.

    Takes all groups of the weights, (n, group_size) a block, and the dtype of the trit tensor.
    """
    least = largest
    for groups in blocks:
        tried = tried_scales(groups, depth)
        least = min(least, float(tried.min(where=tried > 0, initial=np.float32(largest))))
    last = last_step(largest, depth, dtype)
    ratios = _log_spaced(least, largest) if largest else [0.0] * CODES
    u = [int(np.float32(x / largest_level(depth)).view(np.uint32) + 32) >> FREE_BITS for x in ratios]
    chosen = [LEAST_U - 1]
    for i, step in enumerate(u):  # rounded to 18 bits, then kept apart and within reach
        chosen.append(min(max(step, chosen[-1] + 1), last - (CODES - 1 - i)))
    chosen[-1] = last
    return steps_of(chosen[1:])


def tried_scales(groups: F32, depth: int) -> F32:
    """For each group the best of four order statistics m as the scale of level H; 0 for zeros.

    Best by squared error under the step m/H, whose 24 bits have s*k rounded; the largest of
    equals. Takes weights (n, group_size), gives (n,).
    """
    ordered = np.sort(members_first(groups), axis=0)
    scale = scale_of(ordered[-1])
    errors = Errors(ordered * scale, depth)
    chosen = np.zeros(len(groups), np.float32)
    least = np.full(len(groups), np.inf, np.float32)
    for rank in ORDER_STATISTICS:
        m = ordered[-min(rank, len(ordered))]
        E = errors(scale_steps(m / np.float32(errors.H), scale))
        better = (m > 0) & (least > E)
        chosen[better] = m[better]
        least[better] = E[better]
    return chosen


def snap(scales: F32, steps: F32, depth: int) -> U8:
    """The code of the step nearest to scale/H by ratio, the lower of two equally near.

    scale/H lies above the middle of steps s and s' where scale^2 > H^2*s*s',
    which is exact in binary64: 48 bits, and 11 + 36.
    """
    wide = steps.astype(np.float64)
    middles = wide[:-1] * wide[1:] * float(largest_level(depth) ** 2)
    return np.searchsorted(middles, np.square(scales.astype(np.float64))).astype(np.uint8)


def _log_spaced(least: float, largest: float) -> list[float]:
    """27 numbers from *least* to *largest* in equal ratios, by decimal arithmetic of 40 digits."""
    # All that a context has: what is not given here is taken from decimal.DefaultContext, which is anyone's.
    context = Context(40, ROUND_HALF_EVEN, -999_999, 999_999, capitals=1, clamp=0, flags=[], traps=[])
    low, high = (context.ln(Decimal(x)) for x in (least, largest))
    part = context.divide(context.subtract(high, low), Decimal(CODES - 1))
    return [float(context.exp(context.fma(part, Decimal(i), low))) for i in range(CODES)]
