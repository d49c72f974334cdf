"""SPEC 10.2: a block of the exact matrix product, nearly all of it by a BLAS.

The BLAS gives a sum in binary64 with an error that is bounded rigorously; where
both ends of the interval round to one binary32, so does the exact sum. The
elements left, some in a thousand, are summed in twice the precision, and those
still left exactly (`exact`). docs/matmul.md derives the bounds.

What is assumed of the BLAS: it computes each element by additions and
multiplications of binary64, or fused ones, in any order and on any number of
threads.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from .exact import DENSE, F32, F64, UNIT, Bool, Index, compensated_products, exact_products

SLACK = 1 + 2.0**-10  # above all roundings of norms and bounds, for K up to 2^32: K * u is below 2^-20
PART_COLUMNS = 256  # K of one product of the BLAS: the shorter, the tighter the bound
PART_COLUMNS_ROW = 1024  # likewise for a single row of x, where calls are dear
EXACT_NUMBERS = 1 << 17  # numbers of a factor cut into slices at once: 1 MiB


def norms(a: F64) -> F64:
    """The Euclidean norm of each row, to within a factor of SLACK; not finite where the row is not.

    Squares of binary32 values are exact in binary64, and neither overflow nor underflow there.
    """
    squares: F64 = np.matmul(a[:, None, :], a[:, :, None])[:, 0, 0]  # a dot product of the BLAS a row
    return np.sqrt(squares)


def rounded_product(
    x: F64, x_norms: F64, w: F64, w_norms: F64, scale: F64 | None = None
) -> tuple[F32, F64, F64]:
    """x @ w.T, exact and rounded once; the same in binary64; and a bound of the error of the latter.

    Takes rows of finite binary32 values, held as float64 (m, K) and (n, K), with
    their `norms`; gives float32, float64 and float64 (m, n). With *scale*,
    binary32 values (m,), an element is that of its row times the sum.

    With K terms in parts of B, added in order, a sum differs from the exact one by
    at most (B + ceil(K/B) - 1) * u * sum |x||w|, whatever the order within a part, for
    the products are exact. By Cauchy and Schwarz, sum |x||w| is at most ||x|| * ||w||. Four
    units more pay for the scale and the ends of the interval.
    """
    B = PART_COLUMNS_ROW if len(x) == 1 else PART_COLUMNS
    K = x.shape[1]
    sums = x[:, :B] @ w[:, :B].T
    for k in range(B, K, B):
        sums += x[:, k : k + B] @ w[:, k : k + B].T
    units, factors = min(B, K) + -(-K // B) + 3, x_norms
    if scale is not None:
        sums *= scale[:, None]
        factors = x_norms * np.abs(scale)
    bound = np.multiply.outer(factors * (units * UNIT * SLACK), w_norms)
    with np.errstate(over="ignore"):  # to infinity, as IEEE 754 has it
        low, high = (sums - bound).astype(np.float32), (sums + bound).astype(np.float32)
    # By their bits: between -0 and +0 the sign is open. Where all terms are 0, so is the bound: 0 + 0 is +0.
    doubt = low.view(np.int32) != high.view(np.int32)
    if doubt.any():
        settle(x, w, np.multiply.outer(x_norms * SLACK, w_norms), doubt, scale, high)
    return high, sums, bound


def settle(x: F64, w: F64, totals: F64, doubt: Bool, scale: F64 | None, y: F32) -> None:
    """Write into *y*, where *doubt*, the sums rounded once: from twice the precision, or else exactly.

    *totals*, of the shape of *y*, are at least sum |x||w|, without the scale. Where much is in
    doubt, terms cancel or sums are ties, and twice the precision would not settle it.
    """
    if np.count_nonzero(doubt) * DENSE < doubt.size:
        i, j = np.nonzero(doubt)
        y[i, j], doubt[i, j] = compensated_products(x, w, i, j, totals[i, j], scale)
        if not doubt.any():
            return
    step = max(1, EXACT_NUMBERS // max(x.shape[1], 1))
    for top, first in product(range(0, len(x), step), range(0, len(w), step)):
        i, j = np.nonzero(doubt[top : top + step, first : first + step])
        if i.size:
            y[i + top, j + first] = _exactly(x, w, i + top, j + first, scale)


def _exactly(x: F64, w: F64, i: Index, j: Index, scale: F64 | None) -> F32:
    """`exact_products`, of which only those rows are cut into slices that occur."""
    some_x, i_of = np.unique(i, return_inverse=True)
    some_w, j_of = np.unique(j, return_inverse=True)
    return exact_products(x[some_x], w[some_w], i_of, j_of, None if scale is None else scale[some_x])


def special_results(x: F64, w: F64, scale: F64 | None) -> F32:
    """NaN or an infinity for each element that has one among its terms, otherwise 0 (SPEC 10.1).

    Takes float64 (m, K) and (n, K), and a finite scale (m,); gives float32
    (m, n). Terms are counted by their signs; counts are integers, exact in any order.
    """
    signs_x, signs_w = np.nan_to_num(np.sign(x)), np.nan_to_num(np.sign(w))
    finite_x, finite_w = signs_x * np.isfinite(x), signs_w * np.isfinite(w)
    # Infinite terms are all that have a sign, but for those of two finite factors.
    balance = signs_x @ signs_w.T - finite_x @ finite_w.T  # the positive ones less the negative ones
    count = np.abs(signs_x) @ np.abs(signs_w).T - np.abs(finite_x) @ np.abs(finite_w).T
    # "An element MUST be NaN, with the bits 0x7FC00000, where a term is NaN or two terms are infinities of
    # different sign."
    nan = np.logical_or.outer(np.isnan(x).any(axis=1), np.isnan(w).any(axis=1))
    nan |= _pairs(np.isinf(x), w == 0) | _pairs(x == 0, np.isinf(w))
    nan |= count > np.abs(balance)  # infinities of both signs
    # "An element MUST be an infinity where, without MM-4 applying, a term is that infinity."
    result = np.where(count > 0, np.copysign(np.inf, balance), 0)
    if scale is not None:
        nan |= (count > 0) & (scale == 0)[:, None]
        result *= np.where(scale < 0, -1, 1)[:, None]
    result[nan] = np.nan  # of these bits, once it is binary32
    return result.astype(np.float32)


def _pairs(a: Bool, b: Bool) -> Bool:
    """Where rows of *a* and of *b* have a True in common."""
    common: Bool = a.astype(np.float64) @ b.astype(np.float64).T > 0
    return common
