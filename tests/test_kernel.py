"""SPEC 10.4: correct kernels pass, whatever their order of adding; wrong ones do not."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import adversarial
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from helpers import largest, little_memory, steps
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from safetensors.numpy import load_file
from strategies import quick
from wrong_kernels import WRONG

import tritcodec as tc
from tritcodec.errors import TritError
from tritcodec.kernel import ulps
from tritcodec.tensor import TritTensor

ROOT = Path(__file__).parents[1]
F32 = npt.NDArray[np.float32]
LAYER = load_file(ROOT / "fixtures" / "minilm" / "model.safetensors")[
    "encoder.layer.0.attention.self.query.weight"
]
TENSORS = {depth: tc.quantize(LAYER[:60, :376], depth) for depth in (1, 2, 3, 4)}  # 23 groups and a half
FLOATS = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def activations(rows: int, columns: int) -> F32:
    """Ordinary float32 activations."""
    return np.random.default_rng(7).standard_normal((rows, columns)).astype(np.float32)


# Kernels


def sequential(x: np.ndarray, w: np.ndarray, order: npt.NDArray[np.intp], dtype: Any) -> np.ndarray:
    """Products added one by one, each operation rounded to *dtype*."""
    x, w = x.astype(dtype), w.astype(dtype)
    total = np.zeros((len(x), len(w)), dtype)
    for k in order:
        total = total + np.multiply.outer(x[:, k], w[:, k])
    return total


def pairwise(x: F32, w: F32) -> F32:
    """Products added in a tree."""
    terms = x[:, None, :] * w[None, :, :]
    while terms.shape[-1] > 1:
        if terms.shape[-1] % 2:
            terms = np.concatenate([terms, np.zeros_like(terms[..., :1])], axis=-1)
        terms = terms[..., ::2] + terms[..., 1::2]
    return terms[..., 0]


def by_groups(x: np.ndarray, t: TritTensor, dtype: Any = np.float32) -> np.ndarray:
    """What fused kernels do: sums of x * level in a group, times its scale, then over the groups."""
    levels, scales = t.levels().astype(dtype), t.scales().astype(dtype)
    total = np.zeros((len(x), t.form.rows), dtype)
    for g in range(t.form.groups):
        some = range(g * t.group_size, min((g + 1) * t.group_size, t.form.columns))
        total = total + sequential(x, levels, np.array(some), dtype) * scales[:, g]
    return total


ORDERS: dict[str, Callable[[int], npt.NDArray[np.intp]]] = {
    "forward": np.arange,
    "backward": lambda n: np.arange(n)[::-1],
    "random": lambda n: np.random.default_rng(1).permutation(n),
}


@pytest.mark.parametrize("depth", TENSORS)
def test_correct_kernels_pass(depth: int) -> None:
    """float32 in any order, fused or not; the exact result has no error, the others some."""
    t, x = TENSORS[depth], activations(5, 376)
    w = t.dequantize("F32")
    kernels = {
        "sgemm": x @ w.T,
        "pairwise": pairwise(x, w),
        "groups": by_groups(x, t),
        **{name: sequential(x, w, order(376), np.float32) for name, order in ORDERS.items()},
    }
    for name, y in kernels.items():
        report = tc.check_matmul(y, x, t)
        assert report.ok, f"{name}: {report}"
        assert 0 < report.units.max() < 1
        assert report.equal < y.size
    report = tc.check_matmul(tc.matmul(x, t), x, t)
    assert (report.ok, report.equal, report.units.max(), report.worst) == (True, 300, 0, None)


@quick
@given(
    st.sampled_from(list(adversarial.KINDS)),
    st.integers(0, 2**32),
    st.integers(0, 12),
    st.sampled_from([*FLOATS]),
)
def test_no_correct_kernel_is_refused(kind: str, seed: int, columns: int, accumulate: str) -> None:
    """On whatever is hard, overflow and underflow included, in three arithmetics, with a scale (MM-8)."""
    x, w = adversarial.problem(kind, seed, 4, 5, columns)
    scale = adversarial.spread(np.random.default_rng(seed), (4,), 8)
    order = np.random.default_rng(seed).permutation(x.shape[1])
    dtype = FLOATS[accumulate]
    with np.errstate(all="ignore"):
        y = sequential(x, w, order, dtype)
        assert tc.check_matmul(y, x, w, accumulate).ok
        assert tc.check_matmul(y.astype(np.float32), x, w, accumulate).ok
        scaled = y * scale[:, None].astype(dtype)
        if np.isfinite(scale.astype(dtype)).all() and (scale.astype(dtype) == scale).all():
            assert tc.check_matmul(scaled, x, w, accumulate, scale=scale).ok


def kernels_of(x: Any, t: TritTensor, scale: F32, dtype: Any) -> dict[str, tuple[np.ndarray, bool]]:
    """Results of kernels that differ in what they multiply first, and whether they work by planes.

    All is rounded to *dtype* first, and every operation is; terms are added in an order by chance.
    """
    K, size = t.shape[1], min(t.group_size, t.shape[1])
    c = scale.astype(dtype)[:, None]
    s = np.repeat(t.scales().astype(dtype), size, axis=1)[:, :K]
    x, k = x.astype(dtype), t.levels()
    level, trits, three = k.astype(dtype), [plane.astype(dtype) for plane in tc.split(k, t.depth)], dtype(3)
    order = np.random.default_rng(K).permutation(K)
    groups = [order[order // size == g] for g in range(t.form.groups)]

    def add(term: Callable[[int], np.ndarray], some: Iterable[int] = order) -> np.ndarray:
        total = np.zeros((len(x), len(k)), dtype)
        for i in some:
            total = total + term(i)
        return total

    def dots(weights: np.ndarray, g: int) -> np.ndarray:
        return add(lambda i: np.multiply.outer(x[:, i], weights[:, i]), groups[g])

    def horner(g: int) -> np.ndarray:
        total = dots(trits[-1], g)
        for plane in trits[-2::-1]:
            total = total * three + dots(plane, g)
        return total

    def by_group(sums: Callable[[int], np.ndarray]) -> np.ndarray:
        return add(lambda g: sums(g) * s[:, groups[g][0]], range(len(groups)))

    def outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        product: np.ndarray = np.multiply.outer(a, b)
        return product

    return {
        "groups, scale": (by_group(lambda g: dots(level, g)) * c, False),
        "scale of groups": (
            add(lambda g: dots(level, g) * (s[:, groups[g][0]] * c), range(len(groups))),
            False,
        ),
        "steps, levels, scale": (add(lambda i: outer(x[:, i], s[:, i]) * level[:, i]) * c, False),
        "weights, scale": (add(lambda i: outer(x[:, i], s[:, i] * level[:, i])) * c, False),
        "scale, steps, levels": (add(lambda i: outer(x[:, i] * c[:, 0], s[:, i]) * level[:, i]), False),
        "levels, scaled steps": (add(lambda i: outer(x[:, i], level[:, i]) * (s[:, i] * c)), False),
        "scaled levels": (add(lambda i: (level[:, i] * c * s[:, i]) * x[:, i, None]), False),
        "planes of groups": (by_group(horner) * c, True),
        "planes, steps times powers": (
            add(
                lambda i: add(
                    lambda p: outer(x[:, i], trits[p][:, i]) * (s[:, i] * dtype(3**p)), range(t.depth)
                )
            )
            * c,
            True,
        ),
        "planes": (
            add(
                lambda i: add(
                    lambda p: outer(x[:, i] * dtype(3**p), trits[p][:, i]) * s[:, i], range(t.depth)
                )
            )
            * c,
            True,
        ),
    }


@st.composite
def problems(draw: DrawFn) -> tuple[np.ndarray, TritTensor, F32]:
    """Activations, weights and scales, of sizes from where all underflows to where all overflows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    depth = draw(st.integers(1, 4))
    shift, K = draw(st.integers(0, 4 - depth)), draw(st.sampled_from([1, 2, 3, 7, 20, 40]))
    H, size = largest(depth), draw(st.sampled_from([1, 5, 16]))
    levels = rng.integers(-H, H + 1, (3, K)).astype(np.int8)
    first = draw(
        st.sampled_from([0x0080_0000, 0x0280_0000, 0x3300_0000, 0x3880_0000, 0x3C00_0000, 0x5600_0000])
    )
    codes = rng.integers(0, 27, (3, -(-K // size))).astype(np.uint8)
    books = steps(first + 64 * draw(st.integers(0, 2**16)), 64 * draw(st.sampled_from([1, 777, 2**12])))
    t = TritTensor.from_levels(levels, codes, books, depth=depth, shift=shift, group_size=size)
    exponent = draw(st.sampled_from([-130, -30, -12, -2, 8, 14, 30, 120]))
    x = np.ldexp(rng.uniform(-2, 2, (2, K)), exponent).astype(np.float32)
    kind = draw(st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16, np.int8]))
    with np.errstate(over="ignore"):
        x = rng.integers(-128, 128, x.shape).astype(np.int8) if kind == np.int8 else x.astype(kind)
    x[~np.isfinite(x)] = 1
    scale = np.ldexp(rng.uniform(-2, 2, 2), draw(st.sampled_from([-120, -30, -10, 0, 10, 100])))
    return x, t, scale.astype(np.float32)


@settings(deadline=None, max_examples=25)  # of ten kernels each
@given(problems(), st.sampled_from([*FLOATS]), st.sampled_from([*FLOATS.values()]))
def test_no_correct_kernel_is_refused_whatever_it_multiplies_first(
    problem: tuple[np.ndarray, TritTensor, F32], accumulate: str, result: Any
) -> None:
    """Levels, steps and scales in any order, rounded to the arithmetic first; by planes, too (MM-8)."""
    x, t, scale = problem
    with np.errstate(all="ignore"):
        for name, (y, planes) in kernels_of(x, t, scale, FLOATS[accumulate]).items():
            for given in (y, y.astype(result)):
                report = tc.check_matmul(given, x, t, accumulate, scale=scale, planes=planes)
                assert report, f"{name}: {report}"


def one_weight(level: int, step: float, depth: int = 4) -> TritTensor:
    """A tensor of one weight, whose step is the first of its codebook."""
    first = int(np.float32(step).view(np.uint32)) & ~63
    return TritTensor.from_levels(
        np.array([[level]], np.int8), np.zeros((1, 1), np.uint8), steps(first, 64), depth=depth
    )


HALF, BRAIN = np.float16, ml_dtypes.bfloat16


@pytest.mark.parametrize("factors", [1.0, float.fromhex("0x1.22e002p0")])
def test_all_that_is_rounded_to_half_precision_counts(factors: float) -> None:
    """x, the step and the scale, too: found by search, these pass no bound of one rounding less (MM-8)."""
    scale = np.array([factors], np.float32)
    if factors == 1:
        x, t, given = float.fromhex("0x1.022p0"), one_weight(17, float.fromhex("0x1.01df8p0")), None
    else:
        x, t, given = float.fromhex("0x1.0b6p0"), one_weight(31, float.fromhex("0x1.0a208p0")), scale
    level, step = HALF(t.levels()[0, 0]), t.codebook[:1].astype(HALF)
    y = (np.array([[x]], np.float32).astype(HALF) * level) * step * scale.astype(HALF)
    report = tc.check_matmul(y, np.array([[x]], np.float32), t, "float16", scale=given)
    assert report
    assert report.units.max() > (0.75 if given is None else 0.84)


def test_powers_of_three_that_are_multiplied_one_by_one_count() -> None:
    """Level 27 as ((x * 3) * 3) * 3: three roundings for a single trit."""
    x, t = (
        np.array([[float.fromhex("0x1.2f6efep0")]], np.float32),
        one_weight(27, float.fromhex("0x1.024ep0")),
    )
    three = np.float32(3)
    y = x * three * three * three * t.codebook[0]
    assert tc.check_matmul(y, x, t, planes=True)
    assert not tc.check_matmul(y, x, t)


def test_what_underflows_may_be_enlarged_by_each_of_the_others() -> None:
    """A cast or a product below the least subnormal, times all that follows (MM-8)."""

    def accepted(y: Any, x: float, w: Any, accumulate: str, scale: float | None = None) -> bool:
        given = None if scale is None else np.float32(scale)
        weights = w if isinstance(w, TritTensor) else np.array([[w]], np.float32)
        return bool(
            tc.check_matmul(np.array([[y]]), np.array([[x]], np.float32), weights, accumulate, scale=given)
        )

    tiny = float(np.float32(2.0**-27 * 1.3))
    t = one_weight(40, 2.0**-120 * 1.3)  # x * step is a subnormal of few bits, and then times 40
    assert accepted(np.float32(tiny) * t.codebook[0] * np.float32(40), tiny, t, "float32")
    x = float(np.float32(2.0**-25 * 1.001))  # becomes 2^-24, times 1,000
    assert accepted(HALF(x) * HALF(1000), x, 1000, "float16")
    scale = float(np.float32(1.4995 * 2.0**-24))  # becomes 2^-24, times 10,000
    assert accepted(HALF(100) * HALF(100) * HALF(scale), 100, 100, "float16", scale)
    a, b = (
        float(np.float32(4.52e-4)),
        float(np.float32(4.6119e-4)),
    )  # a product that bfloat16 holds, and float16 not
    assert accepted((BRAIN(a) * BRAIN(b)).astype(HALF), a, b, "bfloat16")


def test_a_group_may_be_larger_than_a_row() -> None:
    """It takes no more memory than the row does."""
    t = TritTensor.from_levels(
        np.ones((64, 16), np.int8), np.zeros((64, 1), np.uint8), steps(), group_size=1 << 16
    )
    x = np.ones((1, 16), np.float32)
    y = tc.matmul(x, t)
    with little_memory():
        assert tc.check_matmul(y, x, t)


def test_what_overflows_in_part_is_excused() -> None:
    """A level times the scale, or a step times a power of 3, whatever comes then."""
    x = np.array([[2.0**-10]], np.float32)
    infinity, nan = np.full((1, 1), np.inf, HALF), np.full((1, 1), np.nan, HALF)
    assert tc.check_matmul(infinity, x, one_weight(40, 2.0**-10), "float16", scale=np.float32(2000))
    assert not tc.check_matmul(infinity, x, one_weight(1, 2.0**-10), "float16", scale=np.float32(2000))
    assert tc.check_matmul(nan, np.ones((1, 1), np.float32), one_weight(1, 3000), "float16", planes=True)
    assert tc.check_matmul(nan, np.full((1, 1), 100, np.float32), one_weight(1, 100), "float16", planes=True)
    assert not tc.check_matmul(nan, np.ones((1, 1), np.float32), one_weight(1, 2000), "float16", planes=True)


def test_what_overflows_before_a_level_of_zero_is_excused() -> None:
    """x times the step is infinite in float16, and times 0 NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        y = HALF(1000) * HALF(100) * HALF(0)
    x = np.array([[1000]], np.float32)
    assert tc.check_matmul(np.array([[y]]), x, one_weight(0, 100.0), "float16")
    assert not tc.check_matmul(np.array([[y]]), x, one_weight(0, 50.0), "float16")


def test_kernels_that_work_by_planes_have_a_bound_of_their_own() -> None:
    """Level 5 is 9 - 3 - 1: its three terms may be off by more than its one; without *planes* that fails."""
    t = TritTensor.from_levels(np.array([[5]], np.int8), np.zeros((1, 1), np.uint8), steps(), depth=3)
    x = np.random.default_rng(0).uniform(1, 2, (3000, 1)).astype(np.float32)
    three, total = np.float32(3), np.zeros_like(x)
    for trit in (1, -1, -1):
        total = total * three + x * np.float32(trit)
    y = total * t.scales()[0, 0]
    assert tc.check_matmul(y, x, t, planes=True)
    assert not tc.check_matmul(y, x, t)
    assert not tc.check_matmul(y * np.float32(1 + 2.0**-19), x, t, planes=True)
    with pytest.raises(TritError, match="planes are those of a TritTensor"):
        tc.check_matmul(y, x, t.dequantize(), planes=True)


def test_half_precision_has_a_bound_of_its_own() -> None:
    """Sums in float16 or bfloat16 pass as such, and fail as float32."""
    t, x = TENSORS[2], activations(5, 376)
    for name in ("float16", "bfloat16"):
        for y in (
            sequential(x, t.dequantize("F32"), np.arange(376), FLOATS[name]),
            by_groups(x, t, FLOATS[name]),
        ):
            assert tc.check_matmul(y, x, t, name).ok
            assert not tc.check_matmul(y.astype(np.float32), x, t).ok


def test_a_narrow_result_may_be_rounded() -> None:
    """float32 sums given as float16 or bfloat16 pass; what is cut off instead of rounded does not."""
    t, x = TENSORS[3], activations(5, 376)
    y = x @ t.dequantize("F32").T
    for dtype in (np.float16, ml_dtypes.bfloat16):
        report = tc.check_matmul(y.astype(dtype), x, t)
        assert report.ok
        assert report.dtype == np.dtype(dtype).name
    cut = (y.view(np.uint32) & 0xFFFF_0000).view(np.float32).astype(ml_dtypes.bfloat16)
    assert not tc.check_matmul(cut, x, t).ok


def test_integer_kernels_are_judged_with_their_scale() -> None:
    """int8 activations with a scale a row: integer dots, then float32 in any order."""
    t, rng = TENSORS[4], np.random.default_rng(3)
    x = rng.integers(-127, 128, (5, 376)).astype(np.int8)
    scale = rng.uniform(0.001, 0.1, 5).astype(np.float32)
    dots = tc.group_dots(x, t)
    y = scale[:, None] * np.einsum("mng,ng->mn", dots.astype(np.float32), t.scales())
    assert tc.check_matmul(y, x, t, scale=scale).ok
    assert not tc.check_matmul(y, x, t).ok
    assert not tc.check_matmul(np.nextafter(scale, np.float32(1))[:, None] * 1.001 * y, x, t, scale=scale).ok


# Wrong kernels


@pytest.mark.parametrize("depth", TENSORS)
@pytest.mark.parametrize("mutant", WRONG)
def test_wrong_kernels_fail(mutant: str, depth: int) -> None:
    """Every fault shows with `probe`, by far; all but the least also with ordinary activations."""
    t = TENSORS[depth]
    x = tc.probe(376)
    assert tc.check_matmul(x @ t.dequantize("F32").T, x, t).ok
    report = tc.check_matmul(WRONG[mutant](x, t), x, t)
    assert not report.ok
    assert report.units.max() > 20
    if mutant != "activations cut to half":
        x = activations(32, 376)
        assert not tc.check_matmul(WRONG[mutant](x, t), x, t).ok


def test_the_probe_meets_every_column_once() -> None:
    """Each column has one number that is not 0, of 24 bits or nearly, and a row has eight."""
    for columns in (0, 1, 7, 8, 9, 100, 4096):
        x = tc.probe(columns)
        assert x.shape == (-(-columns // 8), columns)
        assert ((x != 0).sum(axis=0) == 1).all()
        assert (x != 0).sum(axis=1).max(initial=0) <= 8
        used = np.abs(x[x != 0])
        assert ((used >= 1) & (used < 2)).all()
        assert len(set(used.tolist())) == columns
    assert np.array_equal(tc.probe(np.uint8(10)), tc.probe(10))
    for wrong in (-1, 1.0, True):
        with pytest.raises(TritError, match="columns"):
            tc.probe(wrong)  # type: ignore[arg-type]  # on purpose


@pytest.mark.filterwarnings("error")
def test_results_beyond_a_narrow_dtype_make_no_warning() -> None:
    """The exact result rounds to infinity in float16, and that is what is expected."""
    x, w = np.full((1, 4), 1e4, np.float32), np.full((1, 4), 1e4, np.float32)
    assert tc.check_matmul(np.full((1, 1), np.inf, np.float16), x, w).ok


def test_factors_that_do_not_meet_excuse_nothing() -> None:
    """Large numbers in columns where the other factor is 0 or small are in no term (MM-9)."""

    def judged(y: float, x: Any, w: Any, accumulate: str = "float32") -> bool:
        a, b, c = (np.array([row], np.float32) for row in ([y], x, w))
        return tc.check_matmul(a, b, c, accumulate).ok

    assert judged(0, [2.0**60, 0], [0, 2.0**60])
    assert not judged(2.0**60, [2.0**60, 0], [0, 2.0**60])
    assert judged(2.0**61, [2.0**60, 1], [1, 2.0**60])
    assert not judged(1.75 * 2.0**61, [2.0**60, 1], [1, 2.0**60])
    assert not judged(1e-12, [0, 1e3], [1e3, 0], "float64")
    x, w = np.full(64, 1e-3, np.float32), np.full(64, 0.5, np.float32)
    x[0], w[0] = 3e4, 0
    exact = tc.matmul(x, w[None])[0]
    assert judged(float(exact), x, w, "float64")
    assert not judged(float(np.nextafter(np.nextafter(exact, np.float32(1)), np.float32(1))), x, w, "float64")


def test_a_bound_without_end_is_a_number() -> None:
    """So many terms that bfloat16 bounds nothing, times a scale of 0: no NaN that nothing compares with."""
    x, w = np.ones((1, 200_000), np.float32), np.ones((1, 200_000), np.float32)
    y, zero = np.full((1, 1), 1e38, np.float32), np.zeros(1, np.float32)
    assert tc.check_matmul(y, x, w, "bfloat16").units.max() < 1
    assert tc.check_matmul(y, x, w, "bfloat16", scale=zero).units.max() < 1
    assert tc.check_matmul(y, x, w, scale=zero).outside == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_cannot_overflow_is_no_excuse(wrong: float) -> None:
    """A large activation is none for float16, whose partial results it does not lead beyond 65,504."""
    t = TritTensor.from_levels(np.array([[1, 0, -1]], np.int8), np.array([[3]], np.uint8), steps(), depth=1)
    y = np.array([[wrong]], np.float16)
    for size in (1024, 30_000):
        assert not tc.check_matmul(y, np.array([[size, 1, 1]], np.float16), t, "float16")
    many = TritTensor.from_levels(np.ones((1, 3), np.int8), np.array([[3]], np.uint8), steps(), depth=1)
    assert tc.check_matmul(y, np.full((1, 3), 30_000, np.float16), many, "float16")  # 90,000 before the step


# The report


def test_the_page_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples in docs/matmul.md give what they show, and its table is of all faults, and found."""
    monkeypatch.chdir(ROOT)
    page = ROOT / "docs" / "matmul.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|.*\|$", page.read_text("utf-8"), re.MULTILINE)
    shown = {name: float(units) for name, units in rows if name in WRONG}
    assert shown.keys() == WRONG.keys()
    x, tensors = tc.probe(376), TENSORS.values()
    for mutant, kernel in WRONG.items():
        least = min(float(tc.check_matmul(kernel(x, t), x, t).units.max()) for t in tensors)
        assert 0.02 < least / shown[mutant] < 50  # another part of the layer: as easy to find


def test_the_bound_is_sharp() -> None:
    """Just inside the bound an element passes, just outside it fails, and is reported as the worst (MM-9)."""
    t, x = TENSORS[2], activations(3, 376)
    y = tc.matmul(x, t)
    terms = int(np.count_nonzero(x[1] * t.dequantize("F32")[4]))
    total = sum(
        abs(Fraction(float(a)) * Fraction(float(b)))
        for a, b in zip(x[1], t.dequantize("F32")[4], strict=True)
    )
    bound = ((1 + Fraction(1, 2**24)) ** (terms + 1) - 1) * total
    for factor, ok in [(0.999, True), (1.001, False), (-0.999, True), (-1.001, False)]:
        wrong = y.copy()
        wrong[1, 4] = float(y[1, 4]) + factor * float(bound)
        report = tc.check_matmul(wrong, x, t)
        assert report.ok == ok
        assert report.outside == (not ok)
        assert report.worst is not None
        assert report.worst.index == (1, 4)
        assert report.worst.units == pytest.approx(abs(factor), rel=1e-3)
        assert report.worst.terms == terms
        assert report.worst.bound == pytest.approx(float(bound), rel=1e-5)
        assert ("ok" if ok else "WRONG") in str(report).splitlines()[0]


def test_the_worst_element_can_be_computed_again() -> None:
    """Its rows, scale and sums are in the report, at its place among all leading axes."""
    t, x = TENSORS[3], activations(6, 376).reshape(2, 3, 376)
    y = tc.matmul(x, t, scale=np.float32(0.5))
    y[1, 2, 11] *= np.float32(1.5)
    worst = tc.check_matmul(y, x, t, scale=np.float32(0.5)).worst
    assert worst is not None
    assert worst.index == (1, 2, 11)
    assert worst.got == y[1, 2, 11]
    assert (worst.x == x[1, 2]).all()
    assert (worst.w == t.dequantize("F32")[11]).all()
    assert worst.scale == 0.5
    assert worst.expected == pytest.approx(worst.scale * (worst.x @ worst.w), rel=1e-6)
    assert worst.exact == pytest.approx(worst.expected, rel=1e-7)


def test_ulps_are_counted() -> None:
    """The histogram counts every element, by powers of two."""
    t, x = TENSORS[1], activations(4, 376)
    y = tc.matmul(x, t)
    for column, distance in enumerate([1, 2, 3, 4, 5, 1000]):
        y[0, column] = (y[0, column].view(np.int32) + np.int32(distance)).view(np.float32)
    y[1, 0] = np.nan
    report = tc.check_matmul(y, x, t)
    assert report.ulps == {-1: 1, 0: 233, 1: 1, 2: 1, 4: 2, 8: 1, 1024: 1}
    assert "NaN: 1" in str(report)
    assert "3-4: 2" in str(report)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (0.0, -0.0, 0),
        (1.0, 1 + 2.0**-23, 1),
        (-(2.0**-149), 2.0**-149, 2),
        (np.inf, np.finfo(np.float32).max, 1),
        (np.inf, -np.inf, 2 * 0x7F80_0000),
        (-1.0, -1.0, 0),
        (np.nan, np.nan, 0),
        (np.nan, 1.0, -1),
        (1.0, np.nan, -1),
    ],
)
def test_distance_in_ulps(a: float, b: float, distance: int) -> None:
    """Neighbours are one apart, across zero and up to infinity."""
    assert ulps(np.array([a], np.float32), np.array([b], np.float32)).tolist() == [distance]


def test_nan_and_infinity_have_to_be_right() -> None:
    """Where the exact result is either, nothing else passes; elsewhere neither does without a reason."""
    w = np.ones((2, 3), np.float32)
    x = np.array([[1, np.nan, 1], [np.inf, 1, 1], [1, 2, 3], [3e38, 3e38, -3e38]], np.float32)
    y = tc.matmul(x, w)
    assert tc.check_matmul(y, x, w).ok
    for row, value in [(0, 1.0), (0, np.inf), (1, -np.inf), (1, np.nan), (1, 3e38), (2, np.inf), (2, np.nan)]:
        wrong = y.copy()
        wrong[row, 1] = value
        report = tc.check_matmul(wrong, x, w)
        assert report.outside == 1
        assert report.units[row, 1] == np.inf
    y[3, 0] = np.inf  # 3e38 + 3e38 overflows on the way
    report = tc.check_matmul(y, x, w)
    assert (report.ok, report.overflowing) == (True, 1)


def test_nothing_to_judge() -> None:
    """Empty products and products of zeros."""
    assert tc.check_matmul(np.zeros((0, 60), np.float32), np.zeros((0, 376), np.float32), TENSORS[1]).ok
    x = np.zeros((2, 376), np.float32)
    assert tc.check_matmul(np.zeros((2, 60), np.float32), x, TENSORS[1]).ok
    assert not tc.check_matmul(np.full((2, 60), 2.0**-149, np.float32), x, TENSORS[1]).ok


@pytest.mark.parametrize(
    ("y", "accumulate", "message"),
    [
        (np.zeros((2, 60)), "float32", "not float64"),
        (np.zeros((60, 2), np.float32), "float32", r"\(2, 60\), not float32 \(60, 2\)"),
        (np.zeros((2, 60), np.float32), "tf32", "'tf32', none of float64, float32, float16, bfloat16"),
    ],
)
def test_unfit_arguments_are_refused(y: np.ndarray, accumulate: str, message: str) -> None:
    """With what was found and what fits."""
    with pytest.raises(TritError, match=message):
        tc.check_matmul(y, activations(2, 376), TENSORS[1], accumulate)


def test_every_element_of_every_block_is_counted() -> None:
    """Ulps over several blocks of weights add up to all elements."""
    x, w = np.ones((2, 300_000), np.float32), np.ones((20, 300_000), np.float32)
    y = tc.matmul(x, w)
    report = tc.check_matmul(y, x, w)
    assert (report.equal, sum(report.ulps.values())) == (40, 40)


def test_what_rounds_to_infinity_in_the_result_alone() -> None:
    """Beside the largest float16 a float32 sum may round to infinity; one that has to is not excused."""
    one = np.ones((1, 1), np.float32)
    below, beyond = np.array([[65519.996]], np.float32), np.array([[65520]], np.float32)
    infinity = np.full((1, 1), np.inf, np.float16)
    for wrong in (-infinity, infinity * np.float16("nan")):
        assert not tc.check_matmul(wrong, below, one)
        assert not tc.check_matmul(wrong, beyond * 2, one)
    assert tc.check_matmul(-infinity, -below, one)
    report = tc.check_matmul(infinity, below, one)
    assert (report.ok, report.overflowing, report.equal) == (True, 1, 0)
    report = tc.check_matmul(infinity, beyond, one)
    assert (report.ok, report.overflowing, report.equal) == (True, 0, 1)


def test_a_report_is_true_where_it_is_ok() -> None:
    """`assert check_matmul(...)` does not pass for a wrong kernel."""
    one = np.ones((1, 1), np.float32)
    assert tc.check_matmul(one, one, one)
    assert not tc.check_matmul(2 * one, one, one)
