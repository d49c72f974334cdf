"""SPEC 10: the exact matrix product, and what integer kernels compute of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

from .certify import norms, rounded_product, special_results
from .errors import TritError
from .exact import F32, F64, check_subnormals
from .packing import ROWS_PER_BYTE
from .tensor import TritTensor, array_rows

Array = npt.NDArray[np.generic]
Weights = TritTensor | npt.NDArray[np.float32]

ACTIVATIONS = tuple(np.dtype(t) for t in (np.float32, np.float16, ml_dtypes.bfloat16, np.int8))
MAX_COLUMNS = 1 << 32  # K for which the bounds are derived
BLOCK_WEIGHTS = 1 << 20  # weights held as float64 at once: 8 MiB
BLOCK_ACTIVATIONS = 1 << 22  # numbers of x held as float64 at once: 32 MiB
FEWEST_ROWS = 16  # of x at once, however long they are: for each block of them all weights are unpacked


@dataclass(frozen=True)
class Block:
    """A block of the product: rows of x by rows of the weights (SPEC 10.2).

    `x` and `w` are the factors as float64; where they hold NaN or infinities, these
    are 0 there, and `special` is NaN or an infinity for each element that
    comes of them, 0 for the others; otherwise `special` is None. `y` is the exact result,
    `sums` the same in binary64, wrong by no more than (K + 4) * 2^-53 times the sum of the magnitudes of
    its terms, times the scale.
    """

    rows: slice
    columns: slice
    x: F64
    w: F64
    scale: F64 | None
    y: F32
    sums: F64
    special: F32 | None

    @property
    def result(self) -> F32:
        """The elements of the product, float32."""
        return self.y if self.special is None else np.where(self.special == 0, self.y, self.special)


def matmul(x: npt.ArrayLike, t: Weights, *, scale: npt.ArrayLike | None = None) -> F32:
    """x @ w.T, every element the exact sum of its terms, rounded once to float32 (SPEC 10.1).

    Takes *x*, float32, float16, bfloat16 or int8 of shape (..., K), and *t*, a
    trit tensor or a float32 array of shape (..., K), seen as rows by K; gives
    float32 (..., rows). With *scale*, finite float32 of a shape that broadcasts to x.shape[:-1],
    an element is the scale of its row of x times the sum, rounded once: int8 activations have one.

    Weights are unpacked block by block: memory beyond input and output is
    bounded. The bits depend on nothing but the input. An exact zero is +0; NaN
    and infinities give what IEEE 754 makes of the terms.

    >>> matmul(np.array([[2.0**60, 1, -(2.0**60)]], np.float32), np.array([[1, 3, 1]], np.float32))
    array([[3.]], dtype=float32)

    Raises TritError where dtypes or shapes do not fit, and for a scale that is not finite.
    """
    x, factors = check_operands(x, t, scale)
    rows = math.prod(t.shape[:-1])
    y = np.empty((math.prod(x.shape[:-1]), rows), np.float32)
    with np.errstate(under="ignore", invalid="ignore"):  # whatever the caller asks for; of signalling NaN
        for block in blocks(x, t, factors):
            y[block.rows, block.columns] = block.result
    return y.reshape(*x.shape[:-1], rows)


def group_dots(x: npt.ArrayLike, t: TritTensor) -> npt.NDArray[np.int32]:
    """The sums of x * level over every group, exact: what integer kernels compute of a product (SPEC 10.3).

    Takes int8 *x* of shape (..., K); gives int32 (..., rows, G). Nothing
    overflows: 2^7 * 40 * 65536 is below 2^31. `matmul(x, t)` is the sum over the groups of
    step * 3^shift * dot, rounded once.

    Raises TritError where dtypes or shapes do not fit.
    """
    if not isinstance(t, TritTensor):
        raise TritError(f"group_dots takes a TritTensor, not {type(t).__name__}")
    x = np.asarray(x)
    if x.dtype != np.int8:
        raise TritError(f"group_dots takes int8 activations, not {x.dtype}")
    check_operands(x, t, None)
    form = t.form
    activations = _grouped(x.reshape(-1, form.columns), form.group_size).transpose(1, 0, 2)
    dots = np.empty((activations.shape[1], form.rows, form.groups), np.int32)
    for start, stop in row_blocks(form.rows, form.columns):
        levels = _grouped(t.get_rows(start, stop).levels(), form.group_size)
        # "The dot of a group MUST be the exact sum of x[i, k] * level[j, k] over the columns of the group."
        # In binary64, sums of integers that stay below 2^53 are exact, in any order.
        dots[:, start:stop] = (activations @ levels.transpose(1, 2, 0)).transpose(1, 2, 0)
    return dots.reshape(*x.shape[:-1], form.rows, form.groups)


def check_operands(x: npt.ArrayLike, t: Weights, scale: npt.ArrayLike | None) -> tuple[Array, F64 | None]:
    """*x* as an array, and *scale* as float64, one for each row of x; or TritError where they do not fit."""
    x = np.asarray(x)
    if x.dtype not in ACTIVATIONS:
        raise TritError(f"x must be float32, float16, bfloat16 or int8, not {x.dtype}")
    if not isinstance(t, TritTensor | np.ndarray):
        raise TritError(f"weights must be a TritTensor or a float32 array, not {type(t).__name__}")
    if isinstance(t, np.ndarray) and t.dtype != np.float32:
        raise TritError(f"weights must be a TritTensor or float32, not {t.dtype}")
    if not x.shape or not t.shape or x.shape[-1] != t.shape[-1]:
        raise TritError(f"x of shape {x.shape} and weights of shape {t.shape} have no last axis in common")
    if x.shape[-1] > MAX_COLUMNS:
        raise TritError(f"a last axis of {x.shape[-1]} is above the 2^32 that the bounds are derived for")
    check_subnormals()
    return x, None if scale is None else _check_scale(np.asarray(scale), x.shape[:-1])


def _check_scale(scale: Array, shape: tuple[int, ...]) -> F64:
    if scale.dtype != np.float32:
        raise TritError(f"scale must be float32, not {scale.dtype}")
    if not np.isfinite(scale).all():
        raise TritError("scale must be finite, and holds NaN or infinity")
    try:
        return np.broadcast_to(scale, shape).reshape(-1).astype(np.float64)
    except ValueError:
        raise TritError(
            f"scale of shape {scale.shape} does not broadcast to {shape}, the rows of x"
        ) from None


def blocks(x: Array, t: Weights, scale: F64 | None) -> Iterator[Block]:
    """The product of checked operands, block by block (SPEC 10.2)."""
    K = x.shape[-1]
    count = math.prod(x.shape[:-1])
    step = max(FEWEST_ROWS, BLOCK_ACTIVATIONS // max(K, 1))
    for first in range(0, count, step):
        rows = slice(first, min(first + step, count))
        activations = array_rows(x, rows.start, rows.stop).astype(np.float64)
        for columns, w in weight_blocks(t):
            yield _block(rows, columns, activations, w, None if scale is None else scale[rows])


def _block(rows: slice, columns: slice, x: F64, w: F64, scale: F64 | None) -> Block:
    special, x_norms, w_norms = None, norms(x), norms(w)
    if not (np.isfinite(x_norms).all() and np.isfinite(w_norms).all()):
        special = special_results(x, w, scale)
        x, w = np.where(np.isfinite(x), x, 0), np.where(np.isfinite(w), w, 0)
        x_norms, w_norms = norms(x), norms(w)
    y, sums, _ = rounded_product(x, x_norms, w, w_norms, scale)
    return Block(rows, columns, x, w, scale, y, sums, special)


def weight_blocks(t: Weights) -> Iterator[tuple[slice, F64]]:
    """The rows of *t* as float64 (n, K), exact, about BLOCK_WEIGHTS at a time."""
    rows, K = math.prod(t.shape[:-1]), t.shape[-1]
    for start, stop in row_blocks(rows, K):
        if isinstance(t, TritTensor):
            block = t.get_rows(start, stop).dequantize(np.float32)
        else:
            block = array_rows(t, start, stop)
        yield slice(start, stop), block.astype(np.float64)


def row_blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) of *rows*, whole byte rows each, of about BLOCK_WEIGHTS weights."""
    step = max(1, BLOCK_WEIGHTS // (max(columns, 1) * ROWS_PER_BYTE)) * ROWS_PER_BYTE
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _grouped(a: npt.NDArray[np.generic], group_size: int) -> F64:
    """The rows of *a*, (n, K), as float64 (n, G, size), a short last group filled with zeros."""
    K = a.shape[1]
    size = min(group_size, K)
    G = -(-K // size)
    grouped = np.zeros((len(a), G * size))
    grouped[:, :K] = a
    return grouped.reshape(len(a), G, size)
