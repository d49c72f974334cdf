"""SPEC 11: the reference encoder: from weights to a form and blocks of codes and levels.

Encoding is not normative, but it is deterministic: the same weights give the
same bytes on every CPU and under every NumPy. `search` finds codes, `fit`
finds codebooks; here weights are checked, read block by block, and encoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from .codebook import FLOATS
from .errors import TritError
from .exact import check_subnormals
from .fit import fit_steps
from .groups import I64, Sample, Sampler, as_groups
from .packing import ROWS_PER_BYTE
from .published import snap, spaced_codebook, tried_scales
from .search import F32, U8, best_codes, chunks, fold
from .tensor import GROUP_SIZE, Block, Form, TritTensor, array_rows, check_group_size, check_shape
from .trits import check_depth, largest_level

BLOCK_WEIGHTS = 1 << 20  # weights read at once: 4 MiB as float32
ENERGY_BITS = 40  # of the energy of a group
METHODS = ("optimal", "tritllm-v2")
DTYPES: dict[np.dtype, str] = {  # what is taken, and what it counts as
    np.dtype(np.float64): "F32",
    **{dtype: name for name, dtype in FLOATS.items()},
}
Chooser = Callable[[F32], U8]  # groups (n, width) -> codes (n,)


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
    with np.errstate(under="ignore"):  # whatever the caller asks NumPy for
        form, blocks = encode(
            w, depth, group_size=group_size, method=method, nested=nested, codebook=codebook
        )
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

    Takes what `quantize` takes. A block is (first row, uint8 codes (n, G), uint8 levels
    plus H (n, K)), as `TritTensor.from_blocks` takes them; how rows fall into
    blocks changes nothing. Raises TritError as `quantize` does.
    """
    weights = Weights.of_array(np.asarray(w), check_group_size(group_size))
    depth = check_depth(depth)
    check_method(method, nested, codebook)
    if codebook is None:
        codebook = weights.fit(weights.survey(), depth, method, nested)
        form = weights.form(depth, codebook)
    else:
        form = weights.form(depth, codebook)  # checked before the weights are read
        weights.survey()
    choose = chooser(form, method, nested)
    blocks = ((start, as_groups(weights.block(start), form.group_size)) for start in weights.starts())
    return form, (block_of(start, *encode_groups(some, form, choose), form) for start, some in blocks)


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over weights finds: enough to fit codebooks to them."""

    largest: float  # magnitude
    sample: Sample  # of the groups, to fit to


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of any float dtype, seen as rows x K, read as float32 a block at a time.

    `read(start, stop)` gives rows as an array (n, K); `dtype` is that of the trit tensor.
    Raises TritError (TEN-1, SHAPE-1, SHAPE-2) for a shape that no trit tensor has.
    """

    shape: tuple[int, ...]
    dtype: str
    group_size: int
    read: Callable[[int, int], np.ndarray]

    def __post_init__(self) -> None:
        check_subnormals()
        check_shape(self.shape)
        if not self.shape or 0 in self.shape:
            message = f"weights of shape {list(self.shape)} have rank 0 or an axis of 0"
            raise TritError(message, clause="TEN-1")

    @classmethod
    def of_array(cls, array: np.ndarray, group_size: int) -> Weights:
        """The weights in an *array*, with any strides. Raises TritError (TEN-5) for another dtype."""
        dtype = DTYPES.get(array.dtype.newbyteorder("="))
        if dtype is None:
            known = "float32, float16, bfloat16 or float64"
            raise TritError(f"weights must be {known}, not {array.dtype}", clause="TEN-5")
        return cls(array.shape, dtype, group_size, partial(array_rows, array))

    @property
    def rows(self) -> int:
        """The product of the leading axes; 1 for rank 1."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """K, the length of the last axis."""
        return int(self.shape[-1])

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
        return Form(self.shape, self.dtype, depth, 0, self.group_size, np.asarray(codebook))

    @property
    def block_rows(self) -> int:
        """Rows of a block: whole byte rows, about BLOCK_WEIGHTS weights."""
        return max(1, BLOCK_WEIGHTS // (self.columns * ROWS_PER_BYTE)) * ROWS_PER_BYTE

    def starts(self) -> range:
        """The first row of every block."""
        return range(0, self.rows, self.block_rows)

    def block(self, start: int) -> F32:
        """The block of rows from *start*, float32 (n, K)."""
        return to_float32(self.read(start, min(start + self.block_rows, self.rows)))

    def survey(self) -> Survey:
        """One pass over all weights. Raises TritError where one is NaN or infinite."""
        sampler = Sampler(self.rows, self.columns, self.group_size)
        largest, nans, infinities = 0.0, 0, 0
        for start in self.starts():
            block = self.block(start)
            sizes = np.maximum(block.max(axis=1), -block.min(axis=1))  # NaN is both max and min
            extreme = float(sizes.max())
            if not math.isfinite(extreme):
                nans += int(np.count_nonzero(np.isnan(block)))
                infinities += int(np.count_nonzero(np.isinf(block)))
            largest = max(largest, extreme)
            sampler.add(start, block, sizes)
        if nans or infinities:
            found = f"{nans} are NaN and {infinities} are infinite"
            raise TritError(f"weights must be finite in float32: {found}")
        return Survey(largest, sampler.sample())

    def fit(self, survey: Survey, depth: int, method: str, nested: bool) -> F32:
        """The codebook of *method* for these weights."""
        if method == "tritllm-v2":
            groups = (as_groups(self.block(start), self.group_size) for start in self.starts())
            return spaced_codebook(groups, survey.largest, depth, self.dtype)
        return fit_steps(survey.sample, survey.largest, depth, self.dtype, nested)

    def estimate(self, survey: Survey, form: Form, method: str, nested: bool) -> tuple[float, float]:
        """The squared error to expect, relative to the squared weights, and these: from the sample."""
        groups = np.ascontiguousarray(survey.sample.a.T)
        codes, offsets = encode_groups(groups, form, chooser(form, method, nested))
        noise, signal = map(survey.sample.total, energies(groups, codes, offsets, form, survey.largest))
        return noise / signal if signal else 0.0, signal * energy_unit(survey.largest, self.width)


def to_float32(block: np.ndarray) -> F32:
    """*block* as float32; a float64 beyond its range becomes infinite, and is refused later."""
    with np.errstate(over="ignore"):
        return block.astype(np.float32, copy=False)


def chooser(form: Form, method: str, nested: bool) -> Chooser:
    """The function that gives groups the codes that *method* chooses."""
    if method == "tritllm-v2":
        return lambda groups: snap(tried_scales(groups, form.depth), form.codebook, form.depth)
    return lambda groups: best_codes(groups, form.codebook, form.depth, nested)


def encode_groups(groups: F32, form: Form, choose: Chooser) -> tuple[U8, U8]:
    """Codes (n,) and levels plus H (n, width) of *groups*, (n, width)."""
    codes = choose(groups)
    offsets = np.empty(groups.shape, np.uint8)
    for which in chunks(groups):
        offsets[which] = offset_nearest(groups[which], form.codebook[codes[which]], form.depth)
    return codes, offsets


def block_of(start: int, codes: U8, offsets: U8, form: Form) -> Block:
    """Rows from *start* on of what `encode_groups` gave, without what filled up a short last group."""
    levels = offsets.reshape(-1, form.groups * offsets.shape[1])[:, : form.columns]
    return start, codes.reshape(-1, form.groups), levels


def energies(groups: F32, codes: U8, offsets: U8, form: Form, largest: float) -> tuple[I64, I64]:
    """The squared error of each group, and its squared magnitude, in units that *largest* fixes: int64 (n,).

    Takes weights (n, width), none above *largest*, their codes (n,) and their levels plus H. Sums of
    these, by `exact_sum`, do not depend on how a tensor is cut into blocks.
    A term is at most 2^40: groups have up to 2^16 members, and no level is worse than 0.
    """
    unit = energy_unit(largest, groups.shape[1])
    levels = offsets.T.astype(np.float64) - largest_level(form.depth)
    w = groups.T.astype(np.float64)
    errors = w - form.codebook[codes] * levels
    noise, signal = (fold(np.square(a, out=a)) for a in (errors, w))  # by halves: a written order
    return np.rint(noise / unit).astype(np.int64), np.rint(signal / unit).astype(np.int64)


def exact_sum(some: I64) -> int:
    """The sum of *some* `energies`: 2^22 of them are below 2^63, and a block may have more."""
    return sum(int(some[i : i + (1 << 22)].sum()) for i in range(0, len(some), 1 << 22))


def energy_unit(largest: float, width: int) -> float:
    """The unit of `energies` for groups of *width* weights, none above *largest*: a power of two."""
    return 2.0 ** (2 * math.frexp(largest)[1] + (width - 1).bit_length() - ENERGY_BITS)


def offset_nearest(groups: F32, steps: F32, depth: int) -> U8:
    """The nearest level plus H, uint8, of each weight of *groups*, (n, group_size), (n,) steps."""
    H = largest_level(depth)
    with np.errstate(over="ignore"):  # an infinite quotient is the largest level
        k = groups / np.repeat(steps, groups.shape[1]).reshape(groups.shape)
    np.rint(k, out=k)
    k += np.float32(H)  # exact within -H..H, monotone beyond
    return k.clip(np.float32(0), np.float32(2 * H), out=k).astype(np.uint8)


def check_method(method: str, nested: bool, codebook: npt.ArrayLike | None) -> None:
    """Raise TritError where *method* is unknown or does not go with the other arguments."""
    if method not in METHODS:
        raise TritError(f"method {method!r} is none of {', '.join(METHODS)}")
    if method == "tritllm-v2" and (nested or codebook is not None):
        raise TritError("method 'tritllm-v2' takes neither nested nor a codebook: it makes its own")
