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
from .exact import F32, F64, Bool
from .product import Block, Weights, blocks, check_operands
from .trits import is_integer

I64 = npt.NDArray[np.int64]

SURE = 1 + 2.0**-20  # above the roundings of the bound's own arithmetic, for K up to 2^32
FACTORS = 2  # multiplications that a term may pass, by the level and by the step; a scale is one more
PROBE_TERMS = 8  # of a row of `probe`
ROOM = (
    64  # above every level and its double: how far from overflow a partial result has to be to count as safe
)


@dataclass(frozen=True)
class Arithmetic:
    """A binary floating-point format, as far as its errors go (IEEE 754)."""

    unit: float  # u, the unit roundoff: the largest relative error of an operation
    underflow: float  # half the least subnormal: the largest error of a product that underflows
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
) -> KernelReport:
    """Judge *y*, a kernel's result for `matmul(x, t, scale=scale)` (SPEC 10.4).

    Takes *y*, float32, float16 or bfloat16 of shape (..., rows), the operands of
    `matmul`, and the arithmetic that the kernel computes in, "float32",
    "float16", "bfloat16" or "float64"; gives a KernelReport.

    An element passes where it is the exact result, or differs from the exact sum
    by at most ((1 + u)^r - 1) * sum |x||w|, r = n + 1 roundings for n terms that are
    not 0 (one more with a scale, and where x is rounded to the arithmetic first), plus what
    underflow and the rounding to a narrower y can add. That holds for any order
    of adding, with or without FMA.

    Raises TritError where dtypes or shapes do not fit, for a scale that is not finite, and for
    an arithmetic that is none of these.
    """
    x, factors = check_operands(x, t, scale)
    if accumulate not in ARITHMETICS:
        raise TritError(f"accumulate is {accumulate!r}, none of {', '.join(ARITHMETICS)}")
    y = np.asarray(y)
    shape = (*x.shape[:-1], math.prod(t.shape[:-1]))
    if y.dtype not in OUTPUTS or y.shape != shape:
        raise TritError(f"y must be float32, float16 or bfloat16 {shape}, not {y.dtype} {y.shape}")
    results = y.reshape(math.prod(x.shape[:-1]), -1 if y.size else 0)
    report = KernelReport(accumulate, OUTPUTS[y.dtype], np.zeros(results.shape, np.float32))
    rounds_x = ARITHMETICS[accumulate].unit > ARITHMETICS["float32"].unit
    extra = FACTORS + (scale is not None) + rounds_x
    for block in blocks(x, t, factors):
        _judge(report, block, results[block.rows, block.columns], extra)
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


def _judge(report: KernelReport, block: Block, y: npt.NDArray[np.generic], extra: int) -> None:
    """Add to *report* the elements *y* of *block*; a term may pass *extra* multiplications and casts."""
    bounds = _bounds(block, extra, ARITHMETICS[report.accumulate], ARITHMETICS[report.dtype])
    with np.errstate(over="ignore"):  # to infinity, as IEEE 754 has it
        distance = ulps(y, block.result.astype(y.dtype))
    got = y.astype(np.float64)
    special = np.zeros(y.shape, np.bool_) if block.special is None else block.special != 0
    excused = ~np.isfinite(got) & ~special & ~bounds.safe & (distance != 0)
    with np.errstate(invalid="ignore", divide="ignore"):  # of what is not finite, and where the bound is 0
        beyond = np.abs(got - block.sums) - block.bound  # less what the sum itself may be wrong by
        units = np.where(beyond > 0, beyond / bounds.error, 0)
    units[special | ~np.isfinite(got)] = np.inf
    # "A judge MUST accept an element that differs from the exact sum by at most ((1 + u)^r - 1) * S, or that
    # is the exact result."
    units[(distance == 0) | excused] = 0
    # "A judge MUST refuse an element that differs from the exact sum by more than that and what underflow
    # and a narrower dtype of the result can add."
    report.outside += int(np.count_nonzero(units > 1))
    report.overflowing += int(np.count_nonzero(excused))
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


def _bounds(block: Block, extra: int, inner: Arithmetic, outer: Arithmetic) -> _Bounds:
    """What *inner* may be wrong by before its results are rounded to *outer*.

    Of n terms that are not 0, each passes at most n - 1 additions that round, for to
    add a zero is exact, and *extra* other operations: its part of the sum is off
    by a factor within (1 + u)^(n - 1 + extra). What underflows is off by `underflow`
    besides, enlarged by the factors that follow: the scale, a weight or an activation.
    """
    x, w = np.abs(block.x), np.abs(block.w)
    scale = (np.ones(len(x)) if block.scale is None else np.abs(block.scale))[:, None]
    enlarged = np.maximum(scale, 1)  # partial results may come before the scale or after it
    terms: F64 = (x > 0).astype(np.float64) @ (w > 0).T.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a bound may be infinite
        growth = np.expm1((terms - 1 + extra) * math.log1p(inner.unit))
        total = x @ w.T
        sizes = x.sum(axis=1)[:, None] + w.sum(axis=1) + 2 * terms
        lost = inner.underflow * sizes * (1 + growth)
        error = (growth * total * scale + lost * (1 + 2 * scale)) * SURE
        factors = np.add.outer(x.max(axis=1, initial=0), w.max(axis=1, initial=0))
        largest = (total * (1 + growth) + 3 * lost + ROOM * factors) * enlarged * SURE
        safe = largest < inner.overflow
        if outer.unit > inner.unit:
            error += (outer.unit * (np.abs(block.sums) + error) + outer.underflow) * SURE
        safe &= np.abs(block.sums) + error < outer.overflow
    error[terms == 0] = 0
    return _Bounds(terms, error, safe)


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
