"""SPEC 10: the exact matrix product, against its definition in integers."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from typing import Any

import adversarial
import ml_dtypes
import numpy as np
import pytest
from helpers import painted_levels, steps
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick, tensors

import tritcodec as tc
from tritcodec import certify, product
from tritcodec.errors import TritError
from tritcodec.tensor import TritTensor

ROOT = Path(__file__).parents[1]
NAN, INF = float("nan"), float("inf")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two float32 arrays are the same bit for bit."""
    return a.dtype == b.dtype == np.float32 and a.shape == b.shape and a.tobytes() == b.tobytes()


def painted(shape: tuple[int, ...], depth: int, shift: int = 0, group_size: int = 16) -> TritTensor:
    """A trit tensor of painted levels and codes."""
    groups = (*shape[:-1], -(-shape[-1] // group_size))
    codes = np.arange(np.prod(groups), dtype=np.int64) * 7 % 27
    levels = painted_levels(shape, depth)
    return TritTensor.from_levels(
        levels,
        codes.reshape(groups).astype(np.uint8),
        steps(),
        depth=depth,
        shift=shift,
        group_size=group_size,
    )


def activations(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Ordinary float32 activations."""
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


# The definition


@pytest.mark.parametrize("columns", [0, 1, 3, 24, 255, 257, 1030])
@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_every_element_is_exact(kind: str, columns: int) -> None:
    """Ties, cancellation, huge and tiny factors, overflow, subnormals; one part of K and several (MM-1)."""
    for seed, (m, n) in enumerate([(6, 7), (1, 9)]):
        x, w = adversarial.problem(kind, 100 * columns + seed, m, n, columns)
        assert same(tc.matmul(x, w), adversarial.product(x, w))


@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_a_scale_is_part_of_what_is_rounded(kind: str) -> None:
    """An element is scale times the sum, rounded once; it may be 0, negative, huge or tiny (MM-6)."""
    x, w = adversarial.problem(kind, 5, 6, 7, 20)
    for scale in (
        adversarial.any_bits(np.random.default_rng(1), (6,)),
        np.array([0, -0.0, 1, -1, 3, 2.0**-149], np.float32),
    ):
        assert same(tc.matmul(x, w, scale=scale), adversarial.product(x, w, scale))


@pytest.mark.parametrize("exponent", [0, -1, -10, -30, -60, 30])
def test_a_few_hard_elements_among_easy_ones(exponent: int) -> None:
    """Twice the precision settles them where it is sure, whatever the scale, and no more (MM-1, MM-6)."""
    rng = np.random.default_rng(abs(exponent))
    scale = np.array([2.0**exponent], np.float32)
    x = np.ones((1, 5), np.float32)
    for _ in range(100):  # each a trace beside a tie, behind terms that no sum in binary64 holds
        a, b, beyond = (int(n) for n in rng.integers([-(2**21), -(2**21), -3], [2**21, 2**21, 4]))
        hard = [1, 2.0**-24, a * 2.0**-73, b * 2.0**-73, (beyond - a - b) * 2.0**-73]
        w = adversarial.among_easy(np.array([hard] * 16, np.float32))
        assert same(tc.matmul(x, w, scale=scale), adversarial.product(x, w, scale))


DTYPES = [np.dtype(t) for t in (np.float32, np.float16, ml_dtypes.bfloat16, np.int8)]


def decoded(t: TritTensor) -> np.ndarray:
    """The weights as a float32 matrix, from levels and scales."""
    spread = np.repeat(t.scales().astype(np.float64), t.group_size, axis=-1)[..., : t.shape[-1]]
    return (spread * t.levels()).astype(np.float32).reshape(-1, t.shape[-1])


@quick
@given(tensors(), st.integers(0, 2**32), st.sampled_from(DTYPES))
def test_trit_tensors_of_any_form(t: TritTensor, seed: int, dtype: np.dtype) -> None:
    """Weights count as their exact values, whatever the tensor's dtype; x comes in four dtypes."""
    x = np.random.default_rng(seed).integers(-128, 128, (3, t.shape[-1])).astype(dtype)
    assert same(tc.matmul(x, t), adversarial.product(x.astype(np.float32), decoded(t)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_x_of_all_bits(dtype: np.dtype) -> None:
    """Every number that float16, bfloat16 and int8 have, and many float32 ones, subnormal ones among them."""
    bits = np.arange(1 << min(16, 8 * dtype.itemsize), dtype=np.uint64)
    x = (
        (bits << (8 * dtype.itemsize - 16) if dtype.itemsize == 4 else bits)
        .astype(f"u{dtype.itemsize}")
        .view(dtype)
    )
    x = x[np.isfinite(x.astype(np.float32))].reshape(-1, 1)
    w = np.array([[1.5], [-(2.0**-140)]], np.float32)
    assert same(tc.matmul(x, w), adversarial.product(x.astype(np.float32), w))


def test_shapes() -> None:
    """Leading axes of x stay, those of the weights become one; any strides do; so does nothing."""
    x, t = activations(24, 40).reshape(2, 3, 4, 40), painted((3, 5, 40), 2)
    expected = adversarial.product(x.reshape(-1, 40), decoded(t))
    assert same(tc.matmul(x, t), expected.reshape(2, 3, 4, 15))
    assert same(tc.matmul(x, decoded(t).reshape(3, 5, 40)), expected.reshape(2, 3, 4, 15))
    assert same(tc.matmul(x[0, 0, 0], t), expected[0])
    assert same(
        tc.matmul(x[0, 0], painted((40,), 2)).ravel(), tc.matmul(x[0, 0], decoded(painted((40,), 2))).ravel()
    )
    assert same(tc.matmul(x.T.copy().T, decoded(t).T.copy().T), expected.reshape(2, 3, 4, 15))
    assert tc.matmul(np.zeros((2, 0, 40), np.int8), t).shape == (2, 0, 15)
    assert tc.matmul(x, np.zeros((0, 40), np.float32)).shape == (2, 3, 4, 0)
    assert same(
        tc.matmul(np.zeros((2, 0), np.float32), np.zeros((3, 0), np.float32)), np.zeros((2, 3), np.float32)
    )


def test_zeros_are_positive() -> None:
    """An exact zero is +0, whatever it is made of; a sum that rounds to zero keeps its sign (MM-2, MM-3)."""
    x = np.array([[0, -0.0], [-0.0, -0.0], [1, 1], [2.0**-149, 0]], np.float32)
    w = np.array([[-0.0, 0], [1, -1], [-(2.0**-149), 0]], np.float32)
    y = tc.matmul(x, w)
    signs = [[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert (y[2, 2], y[2, 0], y[2, 1]) == (-(2.0**-149), 0, 0)
    assert np.signbit(y).tolist() == [[bool(sign) for sign in row] for row in signs]
    assert same(y, adversarial.product(x, w))


SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1.0, -2.0, 2.0**-149]


def by_ieee(x: np.ndarray, w: np.ndarray, scale: float = 1) -> float:
    """A sum of which some term is NaN or infinite, as Python's floats have it: no partial sum overflows."""
    total = 0.0
    for a, b in zip(x.tolist(), w.tolist(), strict=True):
        total += a * b
    return total * scale


@pytest.mark.parametrize("scale", [1.0, -2.0, 0.0])
def test_nan_and_infinity(scale: float) -> None:
    """All pairs and triples of special values, in x and weights; NaN has one bit pattern (MM-4, MM-5)."""
    grid = np.array(np.meshgrid(SPECIAL, SPECIAL), np.float32).reshape(2, -1).T
    x, w = np.c_[grid, np.full(64, 0.5, np.float32)], np.c_[grid[::-1], np.full(64, 3.0, np.float32)]
    y = tc.matmul(x, w, scale=np.float32(scale))
    for i, j in np.ndindex(64, 64):
        expected = by_ieee(x[i], w[j], scale)
        if np.isnan(expected):
            assert y[i, j].view(np.uint32) == 0x7FC0_0000
        elif np.isinf(expected):
            assert y[i, j] == expected
        else:
            assert same(
                y[i : i + 1, j : j + 1],
                adversarial.product(x[i : i + 1], w[j : j + 1], np.array([scale], np.float32)),
            )


def test_nan_stays_in_its_row() -> None:
    """The other rows of x get their exact results."""
    x, t = activations(5, 40), painted((7, 40), 3)
    expected = tc.matmul(x, t)
    x[2, 5], x[3, 6] = NAN, INF
    y = tc.matmul(x, t)
    assert same(y[[0, 1, 4]], expected[[0, 1, 4]])
    assert np.isnan(y[2]).all()
    assert not np.isfinite(y[3]).any()


# The implementation


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few weights and activations, parts of a few columns: the same bits."""
    x, t = activations(40, 70), painted((33, 70), 4)
    expected = tc.matmul(x, t)
    assert same(expected, adversarial.product(x, decoded(t)))
    monkeypatch.setattr(product, "BLOCK_WEIGHTS", 500)
    monkeypatch.setattr(product, "BLOCK_ACTIVATIONS", 300)
    monkeypatch.setattr(product, "FEWEST_ROWS", 3)
    monkeypatch.setattr(certify, "EXACT_NUMBERS", 200)
    for columns in (1, 2, 16, 69):
        monkeypatch.setattr(certify, "PART_COLUMNS", columns)
        assert same(tc.matmul(x, t), expected)


@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_the_bound_holds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum in binary64 is within the bound of the exact one, and that no larger than it has to be."""
    monkeypatch.setattr(certify, "PART_COLUMNS", 8)
    x, w = (a.astype(np.float64) for a in adversarial.problem(kind, 8, 12, 13, 60))
    y, sums, bound = certify.rounded_product(x, certify.norms(x), w, certify.norms(w))
    unit = 2.0**-298
    exact = (
        adversarial.integers(x.astype(np.float32)) @ adversarial.integers(w.astype(np.float32)).T
    ).tolist()
    for i, j in np.ndindex(y.shape):
        assert abs(int(sums[i, j] / unit) - exact[i][j]) <= int(bound[i, j] / unit)
    norm = np.sqrt(np.square(x).sum(axis=1))[:, None] * np.sqrt(np.square(w).sum(axis=1))
    assert (bound <= 32 * 2.0**-53 * norm).all()


@pytest.mark.parametrize("stage", ["compensated_products", "exact_products"])
def test_every_stage_is_needed_and_reached(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stage that gives nonsense, results are wrong: ordinary ones in the second, ties in the third."""
    kind = {"compensated_products": "ordinary", "exact_products": "ties"}[stage]
    x, w = adversarial.problem(kind, 2, 40, 300, 700)
    expected = tc.matmul(x, w)
    real = getattr(certify, stage)

    def nonsense(*arguments: Any) -> Any:
        result = real(*arguments)
        return -result if stage == "exact_products" else (-result[0], result[1])

    monkeypatch.setattr(certify, stage, nonsense)
    assert not same(tc.matmul(x, w), expected)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond input and output, memory is for blocks: four times the weights take no more."""
    monkeypatch.setattr(product, "BLOCK_WEIGHTS", 1 << 16)
    x = activations(4, 512)
    peaks = []
    for rows in (1000, 4000):
        t = painted((rows, 512), 2)
        tracemalloc.start()
        y = tc.matmul(x, t)
        peaks.append(tracemalloc.get_traced_memory()[1] - y.nbytes)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (64 << 10)
    assert peaks[1] < 8 * 4000 * 512 / 4  # a quarter of the weights as float64


def test_memory_is_bounded_whatever_the_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rank 3 and not contiguous, weights and activations are copied block by block, not as a whole."""
    monkeypatch.setattr(product, "BLOCK_WEIGHTS", 1 << 14)
    monkeypatch.setattr(product, "BLOCK_ACTIVATIONS", 1 << 14)
    few, many = activations(4, 64), activations(64 * 256, 64).reshape(64, 64, 256).transpose(0, 2, 1)
    for x, w in ((few, many), (many, few)):
        tracemalloc.start()
        y = tc.matmul(x, w)
        peak = tracemalloc.get_traced_memory()[1] - y.nbytes
        tracemalloc.stop()
        assert peak < many.nbytes / 2
        assert same(y, tc.matmul(x.copy(), w.copy()))


def test_a_real_layer() -> None:
    """Weights of a real model at every depth, 32 rows of x: all elements are exact."""
    from safetensors.numpy import load_file

    weights = load_file(ROOT / "fixtures" / "minilm" / "model.safetensors")
    w = weights["encoder.layer.0.attention.self.query.weight"]
    x = activations(4, 384)
    for depth in (1, 2, 3, 4):
        t = tc.quantize(w, depth)
        assert same(tc.matmul(x, t), adversarial.product(x, decoded(t)))


PROGRAM = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import adversarial, hashlib, tritcodec as tc
    digest = hashlib.sha256()
    for kind in adversarial.KINDS:
        for K in (20, 700):
            digest.update(tc.matmul(*adversarial.problem(kind, K, 33, 40, K)).tobytes())
    print(digest.hexdigest())
"""


def digest_of_products(**environment: str) -> str | None:
    """What a fresh process computes under *environment*; None where this processor lacks the instructions."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(ROOT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode == -signal.SIGILL:
        return None
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_bits_do_not_depend_on_the_blas() -> None:
    """One thread and two, and the kernels for several processors: the same bits."""
    cores = ["Nehalem", "Haswell", "SkylakeX", "Zen"]
    digests = [digest_of_products(OPENBLAS_CORETYPE=core, OPENBLAS_NUM_THREADS="2") for core in cores]
    digests.append(digest_of_products(OPENBLAS_NUM_THREADS="1"))
    computed = [digest for digest in digests if digest]
    assert len(computed) >= 3
    assert len(set(computed)) == 1


# Integers


@quick
@given(tensors(), st.integers(0, 2**32))
def test_group_dots(t: TritTensor, seed: int) -> None:
    """Each is the sum over its group; with the scales they make the product (MM-7)."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (2, t.shape[-1])).astype(np.int8)
    dots = tc.group_dots(x, t)
    levels = t.levels().reshape(-1, t.shape[-1]).astype(int)
    assert dots.dtype == np.int32
    assert dots.shape == (2, len(levels), -(-t.shape[-1] // t.group_size))
    for g in range(dots.shape[-1]):
        some = slice(g * t.group_size, (g + 1) * t.group_size)
        assert (dots[:, :, g] == x[:, some].astype(int) @ levels[:, some].T).all()
    scales = adversarial.integers(t.scales().reshape(dots.shape[1:]))
    total = (dots.astype(object) * scales).sum(axis=-1)
    bits = [adversarial.rounded(int(n), adversarial.LEAST) for n in total.ravel()]
    assert same(tc.matmul(x, t), np.array(bits, np.uint32).view(np.float32).reshape(total.shape))


def test_the_largest_dot_fits() -> None:
    """A group of 65,536 of the largest levels and activations."""
    levels = np.full((1, 65_536), -40, np.int8)
    t = TritTensor.from_levels(levels, np.zeros((1, 1), np.uint8), steps(), group_size=65_536)
    assert tc.group_dots(np.full(65_536, -128, np.int8), t).tolist() == [[128 * 40 * 65_536]]


def test_dots_of_no_rows() -> None:
    """No activations have no dots, of the shape that they would have."""
    assert tc.group_dots(np.zeros((0, 40), np.int8), painted((7, 40), 2)).shape == (0, 7, 3)


# Refusals


@pytest.mark.parametrize(
    ("x", "w", "scale", "message"),
    [
        (np.zeros((2, 3)), np.zeros((4, 3), np.float32), None, "not float64"),
        (np.zeros((2, 3), np.int32), np.zeros((4, 3), np.float32), None, "not int32"),
        (np.zeros((2, 3), ">f4"), np.zeros((4, 3), np.float32), None, "not >f4"),
        (np.zeros((2, 3), np.float32), np.zeros((4, 3)), None, "not float64"),
        (np.zeros((2, 3), np.float32), [[1.0, 2, 3]], None, "not list"),
        (
            np.zeros((2, 3), np.float32),
            np.zeros((4, 2), np.float32),
            None,
            r"\(2, 3\) and weights of shape \(4, 2\)",
        ),
        (np.float32(1), np.zeros((4, 1), np.float32), None, "no last axis"),
        (np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.float64(1), "float64"),
        (np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.float32(NAN), "NaN"),
        (
            np.zeros((2, 3), np.float32),
            np.zeros((4, 3), np.float32),
            np.ones(3, np.float32),
            r"\(3,\).*\(2,\)",
        ),
    ],
)
def test_unfit_operands_are_refused(x: Any, w: Any, scale: Any, message: str) -> None:
    """Each with what was found and what fits."""
    with pytest.raises(TritError, match=message):
        tc.matmul(x, w, scale=scale)


def test_unfit_dots_are_refused() -> None:
    """Integers need int8 and levels."""
    with pytest.raises(TritError, match="not float32"):
        tc.group_dots(activations(1, 40), painted((2, 40), 1))
    with pytest.raises(TritError, match="not ndarray"):
        tc.group_dots(np.zeros((1, 4), np.int8), np.zeros((1, 4), np.float32))  # type: ignore[arg-type]  # on purpose


def test_a_process_that_flushes_subnormals_is_refused(tmp_path: Path) -> None:
    """Libraries built with -Ofast have set this for whole processes: an error, not wrong results or bytes."""
    compiler = shutil.which("cc")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("needs a C compiler, and flags that x86 has")
    source, library = tmp_path / "flush.c", tmp_path / "flush.so"
    source.write_text("void flush(void) { __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040); }")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    program = f"""
        import ctypes, numpy as np, tritcodec as tc
        ctypes.CDLL({str(library)!r}).flush()
        one = np.ones((1, 1), np.float32)
        for call in (lambda: tc.matmul(one, one), lambda: tc.quantize(one, 1)):
            try:
                call()
            except tc.TritError as error:
                print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("flushes subnormal numbers to zero") == 2


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_what_the_caller_asks_numpy_for_changes_nothing(dtype: np.dtype) -> None:
    """Underflow is no error of ours, whatever errstate there is, and a signalling NaN no warning."""
    x = np.array([[1e-30, 3, 0]], np.float32).astype(dtype)
    bits = {2: np.uint16, 4: np.uint32}[dtype.itemsize]
    signalling = x.copy()
    signalling.view(bits)[0, 0] = np.array(np.inf, dtype).view(bits) + 1
    w = np.array([[1e-30, 1, 0, 3]], np.float32)
    with np.errstate(all="raise"):
        t = tc.quantize(w, 2)
        t.dequantize("F16")
        y = tc.matmul(x, w[:, :3])
        assert tc.check_matmul(y, x, w[:, :3])
        assert np.isnan(tc.matmul(signalling, w[:, :3])).all()
        assert tc.check_matmul(np.array([[np.nan]], dtype), signalling, w[:, :3])


def test_a_scale_of_all_bits_meets_sums_of_more() -> None:
    """A sum of 68 bits times a scale of 24, beside a tie of the product: no part of it is rounded (MM-6)."""
    rng = np.random.default_rng(4)
    x = np.array([[2.0**48, 2.0**24, 1]], np.float32)
    for _ in range(50):
        scale = int(rng.integers(2**22, 2**23)) * 2 + 1
        tie = (2 * int(rng.integers(2**23, 2**24)) + 1) << 67  # between two numbers of 24 bits
        total = (tie + scale // 2) // scale
        hard = [total >> 48, (total >> 24) % 2**24, total % 2**24]
        w = adversarial.among_easy(np.array([hard] * 64, np.float32))
        factor = np.array([scale], np.float32)
        assert same(tc.matmul(x, w, scale=factor), adversarial.product(x, w, factor))


@pytest.mark.parametrize(
    ("scale", "message"), [(np.float32("nan"), "holds NaN"), (2.0, "must be float32, not float64")]
)
def test_what_is_wrong_with_a_scale_is_said(scale: Any, message: str) -> None:
    """Its dtype, or what it holds."""
    with pytest.raises(TritError, match=message):
        tc.matmul(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32), scale=scale)
    with pytest.raises(TritError, match="group_dots takes int8 activations, not uint8"):
        tc.group_dots(np.ones((1, 21), np.uint8), painted((7, 21), 2))
