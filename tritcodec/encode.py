"""SPEC 11: the reference encoder: from weights to a form and blocks of codes and levels.

Encoding is not normative, but it is deterministic: the same weights give the
same bytes on every CPU and under every NumPy. `search` finds codes, `fit`
finds codebooks; here weights are checked, read block by block, and encoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal

import numpy as np
import numpy.typing as npt

from .codebook import CODES, FLOATS, FREE_BITS
from .errors import TritError
from .fit import LEAST_U, fit_steps, last_step, sample_groups, steps_of
from .packing import ROWS_PER_BYTE
from .search import (
    CHUNK_WEIGHTS,
    F32,
    U8,
    Errors,
    best_codes,
    members_first,
    scale_of,
    scale_steps,
)
from .tensor import GROUP_SIZE, Block, Form, TritTensor, check_group_size, check_shape
from .trits import check_depth, largest_level

BLOCK_WEIGHTS = 1 << 20  # weights read at once: 4 MiB as float32
METHODS = ("optimal", "tritllm-v2")
ORDER_STATISTICS = (1, 2, 4, 6)  # of a group's magnitudes, from the largest: the scales tritllm-v2 tries
DTYPES: dict[np.dtype, str] = {  # what is taken, and what it counts as
    np.dtype(np.float64): "F32",
    **{dtype: name for name, dtype in FLOATS.items()},
}
Chooser = Callable[[F32], U8]  # groups (n, group_size) -> codes (n,)


def quantize(
    w: npt.ArrayLike,
    depth: int,
    *,
    group_size: int = GROUP_SIZE,
    method: str = "optimal",
    nested: bool = False,
    codebook: npt.ArrayLike | None = None,
) -> TritTensor:
    """*w* as a trit tensor of *depth* trits a weight, by the reference encoder (SPEC 11).

    Takes weights of rank 1 to 8, no axis 0, all finite, with any strides:
    float32, float16, bfloat16, or float64, which is rounded to float32 first.
    Every *group_size* weights along the last axis share one of 27 steps.

    *method* "optimal" takes the code of the least squared error of all 27 for
    every group, from the given *codebook* or one fitted to *w*; with *nested*,
    the least error summed over this depth and all lower ones, so that
    truncations are good, too. "tritllm-v2" is the published recipe.

    Raises TritError: TEN-1, TEN-2, TEN-4, TEN-5, CB-1 to CB-5, or without a
    clause for NaN and infinities and for arguments that don't go together.
    """
    form, blocks = encode(w, depth, group_size=group_size, method=method, nested=nested, codebook=codebook)
    return TritTensor.from_blocks(form, blocks)


def encode(
    w: npt.ArrayLike,
    depth: int,
    *,
    group_size: int = GROUP_SIZE,
    method: str = "optimal",
    nested: bool = False,
    codebook: npt.ArrayLike | None = None,
) -> tuple[Form, Iterator[Block]]:
    """The form of the encoded *w*, and its codes and levels block by block (SPEC 11.1).

    Takes float32, float16, bfloat16 or float64 (rounded to float32 first) of
    rank 1 to 8 with any strides, no axis 0, all finite. A block is (first
    row, uint8 codes (n, G), uint8 levels plus H (n, K)), as
    `TritTensor.from_blocks` takes them; how rows fall into blocks changes nothing.

    *method* is "optimal": the given *codebook*, or one fitted to w, and the
    code of least squared error (with *nested*, of least 9^d-weighted error
    over all depths up to *depth*) for every group; or "tritllm-v2".

    Raises TritError: TEN-1, TEN-2, TEN-4, TEN-5, CB-1 to CB-5, or without a
    clause for NaN and infinities and for arguments that don't go together.
    """
    weights = _check_weights(np.asarray(w), check_group_size(group_size))
    depth = check_depth(depth)
    check_method(method, nested, codebook)
    if codebook is not None:  # checked before the weights are read
        weights.form(depth, codebook)
    largest = weights.largest()
    if method == "tritllm-v2":
        codebook = spaced_codebook(weights, largest, depth)
    elif codebook is None:
        codebook = fit_steps(weights.sample(), largest, depth, weights.dtype, nested)
    form = weights.form(depth, codebook)

    def choose(groups: F32) -> U8:
        if method == "tritllm-v2":
            return snap(tried_scales(groups, depth), form.codebook, depth)
        return best_codes(groups, form.codebook, depth, nested)

    return form, (weights.encode_block(start, form.codebook, depth, choose) for start in weights.starts())


@dataclass(frozen=True, eq=False)
class Weights:
    """A checked array of weights, seen as rows x K and read as float32, a block at a time."""

    array: np.ndarray
    dtype: str
    group_size: int

    @property
    def rows(self) -> int:
        """The product of the leading axes; 1 for rank 1."""
        return math.prod(self.array.shape[:-1])

    @property
    def columns(self) -> int:
        """K, the length of the last axis."""
        return int(self.array.shape[-1])

    @property
    def width(self) -> int:
        """Members of a group: group_size, or K where that is less."""
        return min(self.group_size, self.columns)

    @property
    def groups(self) -> int:
        """G, the groups of a row."""
        return -(-self.columns // self.group_size)

    def form(self, depth: int, codebook: npt.ArrayLike) -> Form:
        """The form of these weights; raises TritError where it breaks a clause."""
        return Form(self.array.shape, self.dtype, depth, 0, self.group_size, np.asarray(codebook))

    @property
    def block_rows(self) -> int:
        """Rows of a block: whole byte rows, about BLOCK_WEIGHTS weights."""
        return max(1, BLOCK_WEIGHTS // (self.columns * ROWS_PER_BYTE)) * ROWS_PER_BYTE

    def starts(self) -> range:
        """The first row of every block."""
        return range(0, self.rows, self.block_rows)

    def block(self, start: int) -> F32:
        """The block of rows from *start*, float32 (n, K)."""
        stop = min(start + self.block_rows, self.rows)
        if self.array.ndim <= 2 or self.array.flags.c_contiguous:  # the reshape is a view
            block = self.array.reshape(self.rows, self.columns)[start:stop]
        else:  # by index: to reshape other strides would copy the whole
            block = self.array[np.unravel_index(np.arange(start, stop), self.array.shape[:-1])]
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused
            return block.astype(np.float32, copy=False)

    def largest(self) -> float:
        """The largest magnitude. Raises TritError where a weight is NaN or infinite."""
        largest, nans, infinities = 0.0, 0, 0
        for start in self.starts():
            block = self.block(start)
            extreme = max(float(block.max()), -float(block.min()))  # NaN is both max and min
            if not math.isfinite(extreme):
                nans += int(np.count_nonzero(np.isnan(block)))
                infinities += int(np.count_nonzero(np.isinf(block)))
            largest = max(largest, extreme)
        if nans or infinities:
            raise TritError(f"weights must be finite: {nans} are NaN and {infinities} are infinite")
        return largest

    def sample(self) -> F32:
        """Magnitudes (group_size, n) of the groups to fit to, read from where they are."""
        row, group = np.divmod(sample_groups(self.rows * self.groups, self.width), self.groups)
        width = self.width
        start = np.minimum(group * self.group_size, self.columns - width)
        windows = np.lib.stride_tricks.sliding_window_view(self.array, width, axis=-1)
        leading = np.unravel_index(row, self.array.shape[:-1]) if self.array.ndim > 1 else ()
        place = (*leading, start)
        values = windows[place].astype(np.float32)
        # A short last group is read with members of the group before it, which become zeros.
        values[start[:, None] + np.arange(width) < group[:, None] * self.group_size] = 0
        return members_first(values)

    def as_groups(self, block: F32) -> F32:
        """The groups (n * G, width) of a block of rows, a short last one filled with zeros."""
        width = self.groups * self.width
        if width != self.columns:
            padded = np.zeros((len(block), width), np.float32)
            padded[:, : self.columns] = block
            block = padded
        return block.reshape(-1, self.width)

    def encode_block(self, start: int, steps: F32, depth: int, choose: Chooser) -> Block:
        """The codes and offset levels of the block of rows from *start*."""
        groups = self.as_groups(self.block(start))
        codes = choose(groups)
        offsets = np.empty(groups.shape, np.uint8)
        count = max(1, CHUNK_WEIGHTS // self.width)
        for first in range(0, len(groups), count):
            chunk = slice(first, first + count)
            offsets[chunk] = offset_nearest(groups[chunk], steps[codes[chunk]], depth)
        shape = (-1, self.groups * self.width)
        return start, codes.reshape(-1, self.groups), offsets.reshape(shape)[:, : self.columns]


def offset_nearest(groups: F32, steps: F32, depth: int) -> U8:
    """The nearest level plus H, uint8, of each weight of *groups*, (n, group_size), (n,) steps."""
    H = largest_level(depth)
    with np.errstate(over="ignore"):  # an infinite quotient is the largest level
        k = groups / np.repeat(steps, groups.shape[1]).reshape(groups.shape)
    np.rint(k, out=k)
    k += np.float32(H)  # exact within -H..H, monotone beyond
    return k.clip(np.float32(0), np.float32(2 * H), out=k).astype(np.uint8)


def spaced_codebook(weights: Weights, largest: float, depth: int) -> F32:
    """The codebook of "tritllm-v2": 27 log-spaced scales, the least chosen to the largest (SPEC 11.4)."""
    least = largest
    for start in weights.starts():
        tried = tried_scales(weights.as_groups(weights.block(start)), depth)
        least = min(least, float(tried.min(where=tried > 0, initial=np.float32(largest))))
    last = last_step(largest, depth, weights.dtype)
    ratios = _log_spaced(least, largest) if largest else [0.0] * CODES
    u = [int(np.float32(x / largest_level(depth)).view(np.uint32) + 32) >> FREE_BITS for x in ratios]
    chosen = [LEAST_U - 1]
    for i, step in enumerate(u):  # rounded to 18 bits, then kept apart and within reach
        chosen.append(min(max(step, chosen[-1] + 1), last - (CODES - 1 - i)))
    chosen[-1] = last
    return steps_of(chosen[1:])


def tried_scales(groups: F32, depth: int) -> F32:
    """For each group the best of four order statistics m as the scale of level H; 0 for zeros.

    Best by squared error under the step m/H; the largest of equals. Takes
    weights (n, group_size), gives (n,).
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
    context = Context(prec=40)
    low, high = (context.ln(Decimal(x)) for x in (least, largest))
    part = context.divide(context.subtract(high, low), Decimal(CODES - 1))
    return [float(context.exp(context.fma(part, Decimal(i), low))) for i in range(CODES)]


def _check_weights(array: np.ndarray, group_size: int) -> Weights:
    dtype = DTYPES.get(array.dtype.newbyteorder("="))
    if dtype is None:
        known = "float32, float16, bfloat16 or float64"
        raise TritError(f"weights must be {known}, not {array.dtype}", clause="TEN-5")
    check_shape(array.shape)
    if not array.shape or 0 in array.shape:
        raise TritError(f"weights of shape {list(array.shape)} have rank 0 or an axis of 0", clause="TEN-1")
    return Weights(array, dtype, group_size)


def check_method(method: str, nested: bool, codebook: npt.ArrayLike | None) -> None:
    """Raise TritError where *method* is unknown or does not go with the other arguments."""
    if method not in METHODS:
        raise TritError(f"method {method!r} is none of {', '.join(METHODS)}")
    if method == "tritllm-v2" and (nested or codebook is not None):
        raise TritError("method 'tritllm-v2' takes neither nested nor a codebook: it makes its own")
