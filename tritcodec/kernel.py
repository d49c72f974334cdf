"""SPEC 10.4: the judge of kernels: is a product one that its arithmetic can give?

A kernel's result is right where it is the exact one, or differs from it by no
more than roundings explain, in whatever order it adds. The bound is a theorem,
so that no correct kernel is refused; docs/matmul.md derives it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import ml_dtypes
import numpy as np
import numpy.typing as npt

from .errors import TritError
from .exact import F32, F64, UNIT, Bool
from .product import Array, Block, Weights, blocks, check_operands
from .tensor import TritTensor
from .trits import BASE, is_integer, largest_level, split

I64 = npt.NDArray[np.int64]

SURE = 1 + 2.0**-20  # above the roundings of the bound's own arithmetic, for K up to 2^32
FACTORS = 2  # multiplications that a term may pass, by the level and by the step; a scale is one more
MOST_GROWTH = 1e300  # of a bound: beyond all numbers that are judged, and 0 times it is 0
PROBE_TERMS = 8  # of a row of `probe`


@dataclass(frozen=True)
class Arithmetic:
    """A binary floating-point format, as far as its errors go (IEEE 754)."""

    unit: float  # u, the unit roundoff: the largest relative error of an operation
    underflow: float  # half the least subnormal, or more: the largest error of a product that underflows
    overflow: float  # the least magnitude that rounds to infinity


ARITHMETICS = {
    "float64": Arithmetic(2.0**-53, 2.0**-1074, float(np.finfo(np.float64).max)),
    "float32": Arithmetic(2.0**-24, 2.0**-150, 2.0**128 - 2.0**103),
    "float16": Arithmetic(2.0**-11, 2.0**-25, 65520.0),
    "bfloat16": Arithmetic(2.0**-8, 2.0**-134, 2.0**128 - 2.0**119),
}
OUTPUTS = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float16): "float16",
    np.dtype(ml_dtypes.bfloat16): "bfloat16",
}


@dataclass(frozen=True, eq=False)
class Element:
    """One result, and what it takes to compute it again.

    `units` is the error in units of the bound: above 1, no order of adding gives `got`. `exact`
    is the exact sum to binary64; `terms` of its products are not 0; `x` and `w` are the two rows
    (NaN and infinities as 0) as float64, and `scale` the factor of the sum.
    """

    index: tuple[int, ...]
    got: float
    expected: float
    exact: float
    bound: float
    units: float
    terms: int
    x: F64
    w: F64
    scale: float


@dataclass(eq=False)
class KernelReport:
    """What `check_matmul` found: `ok`, and how far within the bound the results lie.

    `units` holds the error of each element in units of its bound, float32, of the shape of y: 0
    where it is the exact result, infinity where it is NaN or infinite for no reason. `ulps`
    counts elements by their distance from the exact result in units in the last place of y's
    dtype: 0, 1, 2, 4, … are upper ends, -1 stands for NaN. `overflowing` counts NaN and infinities
    that are excused, since partial results may have overflowed.
    """

    accumulate: str
    dtype: str
    units: F32
    ulps: dict[int, int] = field(default_factory=dict)
    overflowing: int = 0
    outside: int = 0
    worst: Element | None = None

    @property
    def ok(self) -> bool:
        """True where every element is one that a correct kernel can give."""
        return not self.outside

    def __bool__(self) -> bool:
        """As `ok`: `assert check_matmul(y, x, t)` means what it says."""
        return self.ok

    @property
    def equal(self) -> int:
        """Elements that are the exact result, rounded once (the sign of zero aside)."""
        return self.ulps.get(0, 0)

    def __str__(self) -> str:
        lines = [
            f"{'ok' if self.ok else 'WRONG'}: {self.units.size:,} elements of {self.dtype}, "
            f"accumulated in {self.accumulate}",
            f"exact: {self.equal:,}; outside the bound: {self.outside:,}; overflowing: {self.overflowing:,}",
            "ulps:  " + ", ".join(f"{_range(end)}: {n:,}" for end, n in sorted(self.ulps.items())),
        ]
        if self.worst is not None:
            w = self.worst
            place = ", ".join(map(str, w.index))
            lines.append(
                f"worst: y[{place}] = {w.got:.9g}, exact {w.exact:.17g}, {w.units:.3g} of the bound "
                f"{w.bound:.3g} for {w.terms:,} terms"
            )
        return "\n".join(lines)


def check_matmul(
    y: npt.ArrayLike,
    x: npt.ArrayLike,
    t: Weights,
    accumulate: str = "float32",
    *,
    scale: npt.ArrayLike | None = None,
    planes: bool = False,
) -> KernelReport:
    """Judge *y*, a kernel's result for `matmul(x, t, scale=scale)` (SPEC 10.4).

    Takes *y*, float32, float16 or bfloat16 of shape (..., rows), the operands of
    `matmul`, and the arithmetic that the kernel computes in, "float32",
    "float16", "bfloat16" or "float64"; gives a KernelReport, which is true where `ok` is.
    With *planes*, the kernel is one that adds up products with planes of trits, each times its
    power of 3, whose terms are more and larger.

    An element passes where it is the exact result, or differs from the exact sum
    by at most ((1 + u)^r - 1) * sum |x||w|, r = n + 1 roundings for n terms that are
    not 0 (more with a scale, and where x, steps and scale are rounded to the arithmetic first),
    plus what underflow and the rounding to a narrower y can add, and (K + 4) * 2^-53 * sum |x||w| for
    the judge's own sum. That holds for any order of adding, with or without FMA.

    Raises TritError where dtypes or shapes do not fit, for a scale that is not finite, for
    an arithmetic that is none of these, and for planes of what is no TritTensor.
    """
    x, factors = check_operands(x, t, scale)
    if accumulate not in ARITHMETICS:
        raise TritError(f"accumulate is {accumulate!r}, none of {', '.join(ARITHMETICS)}")
    if planes and not isinstance(t, TritTensor):
        raise TritError("planes are those of a TritTensor, and the weights are an array")
    y = np.asarray(y)
    shape = (*x.shape[:-1], math.prod(t.shape[:-1]))
    if y.dtype not in OUTPUTS or y.shape != shape:
        raise TritError(f"y must be float32, float16 or bfloat16 {shape}, not {y.dtype} {y.shape}")
    results = y.reshape(math.prod(x.shape[:-1]), -1 if y.size else 0)
    report = KernelReport(accumulate, OUTPUTS[y.dtype], np.zeros(results.shape, np.float32))
    extra = _roundings(x, t, accumulate, scale is not None, planes)
    with np.errstate(under="ignore", invalid="ignore"):  # whatever the caller asks for; of what is not finite
        for block in blocks(x, t, factors):
            _judge(report, block, _parts(block, t, planes), results[block.rows, block.columns], extra)
    report.units = report.units.reshape(shape)
    if report.worst is not None:
        row, column = report.worst.index
        place = (*map(int, np.unravel_index(row, x.shape[:-1])), column) if x.ndim > 1 else (column,)
        report.worst = replace(report.worst, index=place)
    return report


def probe(columns: int) -> F32:
    """Activations to judge a kernel with: float32 (ceil(K / 8), K), each column in one row alone.

    With eight terms, a bound is so tight that one wrong trit shows, and what was rounded to
    a lower precision; with thousands of terms, roundings may hide both. Values have
    all 24 bits, magnitudes from 1 to 2 and either sign, by a rule without chance.
    Raises TritError where *columns* is no integer from 0 on.
    """
    if not is_integer(columns) or columns < 0:
        raise TritError(f"columns must be an integer from 0, not {columns!r}")
    columns = int(columns)  # a negative unsigned one would wrap
    column = np.arange(columns)
    rows = -(-columns // PROBE_TERMS)
    values = 1 + (column * 10_368_889 + 1) % (1 << 23) * 2.0**-23  # 2^24 over the golden ratio, an odd number
    x = np.zeros((rows, columns), np.float32)
    if columns:
        x[column % rows, column] = np.where(column // rows % 2, -values, values)
    return x


@dataclass(frozen=True, eq=False)
class _Parts:
    """What a kernel multiplies with, of the n rows of weights of a block.

    `weights`, `levels` and `terms`, (n, K), are the magnitude of each weight, that of its integer factor, and
    how many terms it makes; `factors`, (n,), the largest other factor. Before steps come, products of `size`
    columns may have been added.
    """

    weights: F64
    levels: F64
    terms: F64
    factors: F64
    size: int


def _parts(block: Block, t: Weights, planes: bool) -> _Parts:
    if not isinstance(t, TritTensor):
        weights, some = np.abs(block.w), (block.w != 0).astype(np.float64)
        return _Parts(weights, some, some, np.ones(len(weights)), 1)
    rows = t.get_rows(block.columns.start, block.columns.stop)
    H = largest_level(t.depth)
    level = np.arange(-H, H + 1, dtype=np.int8)
    sizes, terms = np.abs(level), level != 0
    if planes:  # level 2 is 3 - 1: two terms, of magnitude 4
        trits = np.abs(split(level, t.depth))
        sizes, terms = sum(plane * np.int8(BASE**p) for p, plane in enumerate(trits)), trits.sum(axis=0)
    steps = rows.scales().astype(np.float64)
    largest = steps.max(axis=1)
    if planes:  # which may be multiplied by a power of 3 before they meet a trit of 0
        largest = np.maximum(largest, 1) * BASE ** (t.depth - 1)
    at = rows.levels().astype(np.intp) + H
    levels: F64 = sizes.astype(np.float64)[at]
    weights = levels * np.repeat(steps, min(t.group_size, levels.shape[1]), axis=1)[:, : levels.shape[1]]
    return _Parts(weights, levels, terms.astype(np.float64)[at], largest, t.group_size)


def _roundings(x: Array, t: Weights, accumulate: str, scaled: bool, planes: bool) -> int:
    """How many roundings a term may pass besides those of additions."""
    unit = ARITHMETICS[accumulate].unit
    narrow = unit > ARITHMETICS["float32"].unit  # than steps, scales and float32 weights
    rounds_x = x.dtype in OUTPUTS and unit > ARITHMETICS[OUTPUTS[x.dtype]].unit  # int8 is exact in all
    rounds_step = narrow and isinstance(t, TritTensor)  # of other weights FACTORS counts it, for the level
    powers = t.depth - 1 if planes and isinstance(t, TritTensor) else 0
    return FACTORS + rounds_x + rounds_step + scaled * (1 + narrow) + powers


def _judge(report: KernelReport, block: Block, parts: _Parts, y: Array, extra: int) -> None:
    """Add to *report* the elements *y* of *block*; a term may pass *extra* multiplications and casts."""
    bounds = _bounds(block, parts, extra, ARITHMETICS[report.accumulate], ARITHMETICS[report.dtype])
    with np.errstate(over="ignore"):  # to infinity, as IEEE 754 has it
        distance = ulps(y, block.result.astype(y.dtype))
    got = y.astype(np.float64)
    special = np.zeros(y.shape, np.bool_) if block.special is None else block.special != 0
    largest = ARITHMETICS[report.dtype].overflow
    rounded = (got == np.inf) & (block.sums + bounds.error >= largest)
    rounded |= (got == -np.inf) & (block.sums - bounds.error <= -largest)
    excused = ~np.isfinite(got) & ~special & (~bounds.safe | rounded) & (distance != 0)
    with np.errstate(divide="ignore"):  # where the bound is 0
        off = np.abs(got - block.sums)
        units = np.where(off > 0, off / bounds.error, 0)
    units[special | ~np.isfinite(got)] = np.inf
    # "A judge MUST accept an element that differs from the exact sum by at most ((1 + u)^r - 1) * S, or that
    # is the exact result."
    units[(distance == 0) | excused] = 0
    # "A judge MUST refuse an element that differs from the exact sum by more than that, by what underflow and
    # a narrower dtype of the result can add, and by what its own sum in binary64 may be off,
    # (K + 4) * 2^-53 * S."
    report.outside += int(np.count_nonzero(units > 1))
    report.overflowing += int(np.count_nonzero(excused))
    with np.errstate(over="ignore"):  # to infinity
        report.units[block.rows, block.columns] = units
    for end, count in zip(*np.unique(_upper_ends(distance), return_counts=True), strict=True):
        report.ulps[int(end)] = report.ulps.get(int(end), 0) + int(count)
    i, j = (int(n) for n in np.unravel_index(units.argmax(), units.shape))
    if units[i, j] > (report.worst.units if report.worst else 0):
        report.worst = _element(block, i, j, float(got[i, j]), float(units[i, j]), bounds)


def _element(block: Block, i: int, j: int, got: float, units: float, bounds: _Bounds) -> Element:
    return Element(
        index=(block.rows.start + i, block.columns.start + j),
        got=got,
        expected=float(block.result[i, j]),
        exact=float(block.sums[i, j]),
        bound=float(bounds.error[i, j]),
        units=units,
        terms=int(bounds.terms[i, j]),
        x=block.x[i].copy(),
        w=block.w[j].copy(),
        scale=1.0 if block.scale is None else float(block.scale[i]),
    )


def _bounds(block: Block, parts: _Parts, extra: int, inner: Arithmetic, outer: Arithmetic) -> _Bounds:
    """What a kernel may be wrong by that computes in *inner* and rounds its results to *outer*.

    Of n terms that are not 0, each passes at most n - 1 additions that round, for to
    add a zero is exact, and *extra* other operations: its part of the sum is off
    by a factor within (1 + u)^(n - 1 + extra). What underflows is off by `underflow`
    besides, enlarged by the factors that follow: docs/matmul.md goes through the cases.
    """
    x = np.abs(block.x)
    scale = (np.ones(len(x)) if block.scale is None else np.abs(block.scale))[:, None]
    terms: F64 = (x > 0).astype(np.float64) @ parts.terms.T
    with np.errstate(over="ignore"):  # a bound may be infinite
        growth = np.minimum(np.expm1((terms - 1 + extra) * math.log1p(inner.unit)), MOST_GROWTH)
        total, dots = x @ parts.weights.T, x @ parts.levels.T
        sizes = parts.weights.sum(axis=1) + parts.levels.sum(axis=1) + dots
        lost = 2 * inner.underflow * ((1 + scale) * sizes + total) * (1 + growth)
        own = (x.shape[1] + 4) * UNIT * total * scale  # of `block.sums` (SPEC 10.2)
        error = (growth * (total * scale) + lost + own) * SURE
        safe = _largest(x, dots, total, scale, parts) * (1 + growth) * SURE + 3 * lost < inner.overflow
        if outer.unit > inner.unit:
            error += outer.unit * (np.abs(block.sums) + error) * SURE
        if outer.underflow > inner.underflow:
            error += outer.underflow * SURE
    error[terms == 0] = 0
    return _Bounds(terms, error, safe)


def _largest(x: F64, dots: F64, total: F64, scale: F64, parts: _Parts) -> F64:
    """What no partial result of a kernel exceeds: factors, sums of x * level over a group, sums of terms."""
    starts = range(0, x.shape[1], parts.size)
    in_groups = np.add.reduceat(x, starts, axis=1).max(axis=1) if starts else np.zeros(len(x))
    largest = np.minimum(np.multiply.outer(in_groups, parts.levels.max(axis=1, initial=0)), dots)
    # A factor may overflow, or x times the step, where what follows is 0; a level, times the scale.
    factors = np.maximum(parts.weights.max(axis=1, initial=0), parts.levels.max(axis=1, initial=1))
    factors = np.maximum(factors, parts.factors)
    stepped = np.multiply.outer(x.max(axis=1, initial=0), np.maximum(parts.factors, 1))
    for other in (factors, stepped, total):
        largest = np.maximum(largest, other)
    product: F64 = largest * np.maximum(scale, 1)  # which may come before the sum or after it
    return product


@dataclass(frozen=True, eq=False)
class _Bounds:
    """For each element of a block."""

    terms: F64  # of its products that are not 0
    error: F64  # the bound of what a correct kernel's result is off by
    safe: Bool  # where no partial result can overflow


def ulps(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> I64:
    """How many numbers of their dtype *a* is away from *b*: 0 for two zeros or two NaN, -1 for one NaN."""
    distance: I64 = np.abs(_ordered(a) - _ordered(b))
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    distance[nan_a | nan_b] = -1
    distance[nan_a & nan_b] = 0
    return distance


def _ordered(a: npt.NDArray[np.generic]) -> I64:
    """Integers in the order of floats, neighbours one apart; both zeros are 0."""
    bits = a.view(np.dtype(f"i{a.itemsize}")).astype(np.int64)
    least = -(1 << (8 * a.itemsize - 1))
    ordered: I64 = np.where(bits < 0, least - bits, bits)
    return ordered


def _upper_ends(distance: I64) -> I64:
    """The power of two at or above each distance; 0 and -1 stay."""
    fraction, e = np.frexp(distance.astype(np.float64))  # distance = fraction * 2^e, 1/2 <= fraction < 1
    ends: I64 = np.where(distance < 1, distance, np.int64(1) << np.maximum(e - (fraction == 0.5), 0))
    return ends


def _range(end: int) -> str:
    if end < 0:
        return "NaN"
    return str(end) if end <= 2 else f"{end // 2 + 1}-{end}"
