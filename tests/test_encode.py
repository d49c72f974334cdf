"""The reference encoder: `search` and `fit` against brute force, `encode` on all that it takes."""

from __future__ import annotations

import decimal
import hashlib
import itertools
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tritcodec import encode as encoder
from tritcodec import fit, published, search
from tritcodec.codebook import check_codebook
from tritcodec.errors import TritError
from tritcodec.groups import SAMPLE_GROUPS, Sample, sample_groups
from tritcodec.tensor import Form

F32 = npt.NDArray[np.float32]
DEPTHS = (1, 2, 3, 4)
FIXTURE = Path(__file__).parents[1] / "fixtures" / "minilm" / "model.safetensors"
LEAST = 2.0**-126  # the smallest normal step


def real_weights() -> F32:
    """One real matrix, 384 x 384: the keys of the fixture's layer."""
    return load_file(FIXTURE)["encoder.layer.0.attention.self.key.weight"].astype(np.float32)


def painted(rows: int, columns: int) -> F32:
    """Weights made from integers alone: two cycles of 251 and 97, primes apart from 5, 16 and 27."""
    i = np.arange(rows * columns).reshape(rows, columns)
    whole: F32 = ((i * i % 251 - 125) * (1 + i // 16 % 97)).astype(np.float32)
    whole /= np.float32(4096)  # exact
    return whole


def collect(form_and_blocks: Any) -> tuple[Form, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The form, and all codes and all offset levels."""
    form, blocks = form_and_blocks
    starts, codes, offsets = zip(*blocks, strict=True)
    assert list(starts) == [0, *np.cumsum([len(part) for part in codes])[:-1]]
    assert all(start % 5 == 0 for start in starts)
    return form, np.concatenate(codes), np.concatenate(offsets)


# An independent transcription of SPEC 11.2: one group at a time, every code, by Python's own loops.


def summed(terms: list[Any]) -> Any:
    """SPEC 11.2: the sum by halves."""
    zero = np.float32(0)
    while len(terms) > 1:
        half = (len(terms) + 1) // 2
        terms = [x + y for x, y in itertools.zip_longest(terms[:half], terms[half:], fillvalue=zero)]
    return terms[0]


def scaled_group(group: F32, steps: F32) -> tuple[list[np.float32], list[np.float32]]:
    """Magnitudes and steps of a group, times the power of two that its largest magnitude asks for."""
    m = max(abs(float(x)) for x in group)
    factor = 1.0
    for edge, power in ((0.0, 127), (2.0**-96, 64), (2.0**-32, 0), (2.0**32, -64), (2.0**96, -96)):
        if m >= edge and m > 0:
            factor = 2.0**power
    a = [np.float32(abs(float(x)) * factor) for x in group]
    s = [np.float32(min(max(float(x) * factor, 2.0**-90), 2.0**40)) for x in steps]
    return a, s


def error_of(a: list[np.float32], s: np.float32, depth: int, nested: bool) -> Any:
    """The error of a group under a step; nested, the weighted sum over the depths."""
    H = (3**depth - 1) // 2
    k = [int(min(np.rint(x / s), np.float32(H))) for x in a]
    if not nested:
        return summed([(x - s * np.float32(n)) * (x - s * np.float32(n)) for x, n in zip(a, k, strict=True)])
    cost = np.float32(0)
    for d in range(depth, 0, -1):
        factor = 3 ** (depth - d)
        r = [x - s * np.float32(n * factor) for x, n in zip(a, k, strict=True)]
        cost = cost + np.float32(9**d) * summed([x * x for x in r])
        k = [(n - ((n + 1) % 3 - 1)) // 3 for n in k]  # without its lowest trit
    return cost


def exhaustive(groups: F32, steps: F32, depth: int, nested: bool = False) -> list[int]:
    """The code of least error of each group, the lowest of equals."""
    codes = []
    for group in groups:
        a, scaled = scaled_group(group, steps)
        errors = [error_of(a, s, depth, nested) for s in scaled]
        codes.append(errors.index(min(errors)))
    return codes


def codebook_from(u: list[int]) -> F32:
    """27 steps whose bits are u << 6, moved apart where they are not increasing."""
    chosen = list(itertools.accumulate(sorted(u), lambda x, y: max(x + 1, y)))
    return fit.steps_of(np.array(chosen))


U_MIN, U_MAX = 0x0080_0000 >> 6, (0x7F80_0000 >> 6) - 2**18  # the largest times 40 is finite
codebooks = st.one_of(
    st.lists(st.integers(U_MIN, U_MAX), min_size=27, max_size=27).map(codebook_from),  # extreme ratios
    st.integers(U_MIN, U_MAX - 2**18).map(lambda u: codebook_from([u] * 27)),  # all but equal
    st.integers(U_MIN, U_MAX - 2**20).map(lambda u: codebook_from([u + 3001 * i for i in range(27)])),
)
NEAR_ONE = [1, 1 - 2.0**-24, 1 + 2.0**-23]
KINDS = ("normal", "halves", "levels", "equal", "outlier", "tiny", "huge", "zero", "any")


@st.composite
def groups_for(draw: st.DrawFn, steps: F32, group_size: int) -> F32:
    """Groups that are hard for *steps*: ties, half-integer multiples, outliers, extremes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    s = steps[rng.integers(0, 27)].astype(np.float64)
    shape = (3, group_size)
    kinds = {
        "normal": rng.standard_normal(shape) * s * draw(st.sampled_from([0.5, 3.0, 20.0])),
        "halves": (rng.integers(-40, 41, shape) + 0.5) * s * rng.choice(NEAR_ONE, shape),
        "levels": rng.integers(-40, 41, shape) * s,
        "equal": np.full(shape, s * draw(st.floats(0.1, 60))),
        "outlier": np.where(np.arange(group_size) == 0, s * 1e4, s) * rng.standard_normal(shape),
        "tiny": rng.integers(-3, 4, shape) * 2.0**-149,
        "huge": rng.standard_normal(shape) * 1e38,
        "zero": np.zeros(shape),
        "any": rng.standard_normal(shape) * 2.0 ** rng.integers(-149, 120, shape),
    }
    limit = float(np.finfo(np.float32).max)
    groups: F32 = kinds[draw(st.sampled_from(KINDS))].clip(-limit, limit).astype(np.float32)
    return groups


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("group_size", [1, 5, 16, 17])
def test_real_weights_get_the_code_of_the_exhaustive_search(depth: int, group_size: int) -> None:
    """On real weights, with the fitted codebook, every sampled group's code is the best of all 27."""
    w = real_weights()
    form, codes, _ = collect(encoder.encode(w, depth, group_size=group_size))
    padded = np.pad(w, ((0, 0), (0, -384 % group_size))).reshape(-1, group_size)
    sample = np.r_[0 : len(padded) : len(padded) // 60, padded.max(axis=1).argmax()]
    assert codes.ravel()[sample].tolist() == exhaustive(padded[sample], form.codebook, depth)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(DEPTHS), st.sampled_from([1, 2, 5, 16, 17]), st.booleans())
def test_adversarial_groups_get_the_code_of_the_exhaustive_search(
    data: st.DataObject, depth: int, group_size: int, nested: bool
) -> None:
    """So do groups of ties, outliers, extremes and zeros, under any codebook, nested or not."""
    steps = data.draw(codebooks)
    parts = data.draw(st.lists(groups_for(steps, group_size), min_size=1, max_size=4))
    groups = np.concatenate(parts)
    found = search.best_codes(groups, steps, depth, nested)
    assert found.tolist() == exhaustive(groups, steps, depth, nested)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("group_size", [1, 2, 5, 16, 17])
def test_errors_are_those_of_the_definition_bit_for_bit(group_size: int, depth: int, nested: bool) -> None:
    """Every error equals its transcription, for one step for all groups or one for each."""
    groups = painted(9, group_size) + np.float32(0.1)
    steps = np.array([0.01, 0.3, 1.7, 2, 5, 30, 99, 100, 101], np.float32)
    errors = search.Errors(search.members_first(groups), depth, nested)
    expected = [error_of(list(np.abs(g)), s, depth, nested) for g, s in zip(groups, steps, strict=True)]
    assert errors(steps).tolist() == expected
    for i, s in enumerate(steps):
        assert errors(s)[i] == expected[i]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("depth", DEPTHS)
def test_every_code_of_a_real_matrix_is_that_of_the_least_error(depth: int, nested: bool) -> None:
    """All groups of a matrix, one of them an outlier, have the code of the first least of 27 errors."""
    w = real_weights()
    w[7, 7] = 50 * np.abs(w).max()
    steps = encoder.encode(w, depth, nested=nested)[0].codebook
    groups = w.reshape(-1, 16)
    errors = search.Errors(search.members_first(groups), depth, nested)
    expected = np.argmin([errors(s).copy() for s in steps], axis=0)
    assert np.array_equal(search.best_codes(groups, steps, depth, nested), expected)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(DEPTHS), st.sampled_from([1, 5, 16]))
def test_the_chosen_code_is_within_2_to_the_minus_18_of_the_exact_optimum(
    data: st.DataObject, depth: int, group_size: int
) -> None:
    """In exact arithmetic the chosen code's error is at most (1 + 2^-18) of the least (and 2^-60 of m^2)."""
    steps = data.draw(codebooks)
    groups = data.draw(groups_for(steps, group_size))
    H = (3**depth - 1) // 2
    for group, code in zip(groups, search.best_codes(groups, steps, depth), strict=True):
        a = [abs(Fraction(float(x))) for x in group]
        exact = [
            sum((x - s * min(round(x / s), H)) ** 2 for x in a) for s in (Fraction(float(s)) for s in steps)
        ]
        assert exact[code] <= min(exact) * (1 + Fraction(1, 2**18)) + max(a) ** 2 / 2**60


@settings(max_examples=200, deadline=None)
@given(st.integers(2**17, 2**18 - 1), st.integers(0, 40), st.integers(-3, 3), st.integers(-143, 80))
def test_a_rounded_quotient_gives_the_nearest_level(digits: int, k: int, ulps: int, exponent: int) -> None:
    """rint(fl(a/s)) is the nearest level for a next to any half-integer multiple of any 18-bit step."""
    s = digits * Fraction(2) ** exponent
    a = np.float32(float(s * (2 * k + 1) / 2))
    for _ in range(abs(ulps)):
        a = np.nextafter(a, np.float32(np.inf if ulps > 0 else 0))
    offsets = encoder.offset_nearest(a.reshape(1, 1), np.array([float(s)], np.float32), 4)
    assert int(offsets[0, 0]) - 40 == min(round(Fraction(float(a)) / s), 40)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("depth", DEPTHS)
def test_levels_are_the_nearest_and_zeros_are_zero(depth: int, nested: bool) -> None:
    """Every level is the nearest of its step, limited to H; both zeros take 0, a group of zeros code 0."""
    w = painted(10, 80)
    w[3, 16:32], w[4, :5] = 0, -0.0
    form, codes, offsets = collect(encoder.encode(w, depth, nested=nested))
    H = (3**depth - 1) // 2
    s = np.repeat(form.codebook[codes], 16, axis=1).astype(np.float64)
    expected = np.rint(w / s).clip(-H, H)  # the quotients of binary64 are as good for these small levels
    assert np.array_equal(offsets.astype(int) - H, expected)
    assert codes[3, 1] == 0
    assert (offsets[4, :5] == H).all()


@pytest.mark.parametrize("shape", [(47,), (23, 47), (3, 4, 5, 33), (1, 16), (300, 1)])
@pytest.mark.parametrize("method", ["optimal", "tritllm-v2"])
def test_how_rows_fall_into_blocks_changes_nothing(
    shape: tuple[int, ...], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 5 rows searched 3 groups at a time give what one block gives."""
    w = painted(1, int(np.prod(shape))).reshape(shape)
    w.flat[3::7] *= np.float32(2.0**-120)  # ordinary and extraordinary groups side by side
    whole = collect(encoder.encode(w, 3, method=method))
    monkeypatch.setattr(encoder, "BLOCK_WEIGHTS", 1)
    monkeypatch.setattr(search, "CHUNK_WEIGHTS", 48)
    split = collect(encoder.encode(w, 3, method=method))
    assert np.array_equal(whole[0].codebook, split[0].codebook)
    assert np.array_equal(whole[1], split[1])
    assert np.array_equal(whole[2], split[2])


@pytest.mark.parametrize("method", ["optimal", "tritllm-v2"])
def test_strides_do_not_matter(method: str) -> None:
    """A transposed, a reversed and a strided view encode as their copies do."""
    base = painted(48, 70).reshape(4, 12, 70)
    for view in (base.transpose(2, 0, 1), base[:, ::-1, ::3], base[1].T, base[0, :, 5]):
        expected = collect(encoder.encode(view.copy(), 2, method=method))
        got = collect(encoder.encode(view, 2, method=method))
        assert np.array_equal(expected[0].codebook, got[0].codebook)
        assert np.array_equal(expected[1], got[1])
        assert np.array_equal(expected[2], got[2])


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("f4", "F32"), ("f2", "F16"), (ml_dtypes.bfloat16, "BF16"), ("f8", "F32"), (">f4", "F32")],
)
def test_dtypes_encode_as_their_float32_values(dtype: npt.DTypeLike, name: str) -> None:
    """Weights of any dtype that is taken encode as the float32 they convert to; the form names the dtype."""
    w = painted(12, 40).astype(dtype)
    form, codes, offsets = collect(encoder.encode(w, 3))
    same, same_codes, same_offsets = collect(encoder.encode(w.astype(np.float32), 3))
    assert form.dtype == name
    assert np.array_equal(form.codebook, same.codebook)
    assert np.array_equal(codes, same_codes)
    assert np.array_equal(offsets, same_offsets)


def test_float64_is_rounded_to_float32_first() -> None:
    """A float64 next to a float32 encodes as that; one that overflows float32 counts as infinite."""
    w = painted(5, 32).astype(np.float64)
    assert np.array_equal(
        collect(encoder.encode(w * (1 + 2.0**-40), 4))[2], collect(encoder.encode(w.astype(np.float32), 4))[2]
    )
    w[2, 3] = 1e39
    with pytest.raises(TritError, match="0 are NaN and 1 are infinite"):
        encoder.encode(w, 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_nan_and_infinity_are_counted_and_refused(
    dtype: npt.DTypeLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how many weights are NaN and how many infinite, in whatever blocks they are."""
    monkeypatch.setattr(encoder, "BLOCK_WEIGHTS", 1)
    w = painted(9, 40).astype(dtype)
    w[0, 0] = w[8, 39] = np.nan
    w[3, 3], w[4, 4], w[5, 5] = np.inf, -np.inf, np.inf
    with pytest.raises(TritError, match="2 are NaN and 3 are infinite"):
        encoder.encode(w, 2)


@pytest.mark.parametrize(
    ("arguments", "clause"),
    [
        ({"w": np.zeros((4, 4), np.int8)}, "TEN-5"),
        ({"w": np.zeros((4, 4), np.complex64)}, "TEN-5"),
        ({"w": np.float32(1)}, "TEN-1"),
        ({"w": np.zeros((4, 0), np.float32)}, "TEN-1"),
        ({"w": np.zeros((1,) * 9, np.float32)}, "SHAPE-1"),
        ({"depth": 0}, "TEN-2"),
        ({"depth": 5}, "TEN-2"),
        ({"depth": 2.0}, "TEN-2"),
        ({"group_size": 0}, "TEN-4"),
        ({"group_size": 65_537}, "TEN-4"),
        ({"group_size": 16.0}, "TEN-4"),
        ({"method": "best"}, None),
        ({"method": "tritllm-v2", "nested": True}, None),
        ({"method": "tritllm-v2", "codebook": codebook_from([U_MIN] * 27)}, None),
        ({"codebook": np.ones(26, np.float32)}, "CB-1"),
        ({"codebook": np.zeros(27, np.float32)}, "CB-2"),
        ({"codebook": np.ones(27, np.float32)}, "CB-3"),
        ({"codebook": np.arange(1, 28, dtype=np.float32) / np.float32(3)}, "CB-4"),
        ({"codebook": codebook_from([(0x7F80_0000 >> 6) - 27] * 27)}, "CB-5"),
    ],
)
def test_arguments_that_break_a_rule_are_refused(arguments: dict[str, Any], clause: str | None) -> None:
    """Every wrong argument is a TritError with the clause, before anything is encoded."""
    given_arguments: dict[str, Any] = {"w": np.ones((4, 4), np.float32), "depth": 2, **arguments}
    with pytest.raises(TritError) as caught:
        encoder.encode(**given_arguments)
    assert caught.value.clause == clause


def test_a_given_codebook_is_used_as_it_is() -> None:
    """With a codebook of one's own nothing is fitted; weights beyond its reach take the level H."""
    steps = codebook_from([(0x3F80_0000 >> 6) + 999 * i for i in range(27)])
    form, codes, offsets = collect(encoder.encode(np.full((5, 16), 9, np.float32), 1, codebook=steps))
    assert np.array_equal(form.codebook, steps)
    assert (codes == 26).all()
    assert (offsets == 2).all()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("method", ["optimal", "tritllm-v2"])
@pytest.mark.parametrize(
    "w",
    [
        np.zeros((5, 33), np.float32),
        np.full((1, 1), 2.0**-149, np.float32),
        np.full((3, 16), -3.0, np.float32),
        np.full((3, 16), np.finfo(np.float32).max, np.float32),
        np.array([2.0**-149, 3e38], np.float32),
        np.full((2, 40), 65504, np.float16),
        np.full((2, 40), 2.0**-24, np.float16),
        np.full((2, 40), (2 - 2.0**-7) * 2.0**127, ml_dtypes.bfloat16),
        painted(64, 64) * np.float32(2.0**-140),
        painted(64, 64) * np.float32(2.0**120),
    ],
    ids=["zero", "least", "equal", "largest", "both", "f16-top", "f16-least", "bf16-top", "tiny", "huge"],
)
def test_degenerate_tensors_get_27_valid_steps_that_reach(w: np.ndarray, method: str, depth: int) -> None:
    """The form checks the codebook; its last step reaches the largest weight, or is the largest allowed."""
    form, _, _ = collect(encoder.encode(w, depth, method=method))
    H = (3**depth - 1) // 2
    largest = float(np.abs(w.astype(np.float32)).max())
    if float(form.codebook[-1]) * H < largest:
        above = fit.steps_of((form.codebook[-1:].view(np.uint32) >> 6) + 1)
        with pytest.raises(TritError, match=r"overflows|not a positive normal"):
            check_codebook(np.r_[form.codebook[:-1], above], depth, 0, form.dtype)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_last_step_is_the_least_that_reaches(depth: int) -> None:
    """H times the last step is at least the largest magnitude; with the step below it, it is not."""
    H = (3**depth - 1) // 2
    for largest in np.array([1, 0.1, 3.3333333, 2.0**-100, 7e37, 65504, 1.0000001], np.float32):
        u = fit.last_step(float(largest), depth, "F32")
        assert float(fit.steps_of(u)) * H >= float(largest) > float(fit.steps_of(u - 1)) * H


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 8), st.integers(2, 4), st.data())
def test_the_chosen_steps_are_the_best_by_brute_force(size: int, count: int, data: st.DataObject) -> None:
    """No other choice that ends in the last step costs less, by the rule for buckets between two steps."""
    values = st.lists(st.integers(0, 9), min_size=size**2, max_size=size**2)
    B = np.array(data.draw(values)).reshape(size, size)

    def cost(chosen: tuple[int, ...]) -> int:
        total = 0
        for b in range(size):
            below = [i for i in chosen if i <= b][-1:]
            above = [i for i in chosen if i > b][:1]
            total += int(min(B[i, b] for i in (*below, *above)))
        return total

    chosen = fit.choose_steps(B, count)
    every = [(*rest, size - 1) for rest in itertools.combinations(range(size - 1), count - 1)]
    assert tuple(chosen) in every
    # The bucket of the last step is always its own: it costs the same whatever is chosen.
    assert cost(tuple(chosen)) == min(map(cost, every))


def test_bucket_costs_sum_by_best_step() -> None:
    """B[j, b] adds up what step j costs the groups whose first cheapest step is b."""
    costs = np.array([[1, 5, 2, 0], [1, 3, 4, 7], [2, 3, 0, 9]])  # best steps 0, 1, 2, 0
    assert fit.bucket_costs(costs).tolist() == [[1, 5, 2], [8, 3, 4], [11, 3, 0]]


@pytest.mark.parametrize("group_size", [1, 16, 4096, 65_536])
@pytest.mark.parametrize("groups", [1, 27, 16_384, 100_000, 2**20, 2**44])
def test_sampled_groups_are_distinct_and_everywhere(groups: int, group_size: int) -> None:
    """Indices increase, lie within the tensor, and don't favour any column of groups."""
    i = sample_groups(groups, group_size)
    assert (np.diff(i) > 0).all()
    assert i[0] >= 0
    assert i[-1] < groups
    if len(i) == SAMPLE_GROUPS < groups < 2**30:
        assert np.bincount(i % 256 // 32, minlength=8).min() > len(i) // 16


def sample_of(w: npt.NDArray[np.float32], group_size: int) -> Sample:
    """The sample of weights, read in blocks."""
    return encoder.Weights.of_array(w, group_size).survey().sample


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize(("shape", "group_size"), [((600, 300), 16), ((9000, 1), 16), ((40, 4000), 64)])
def test_the_sample_has_the_largest_groups(
    shape: tuple[int, int], group_size: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the largest, of equals the first, however rows fall into blocks; the others are spread."""
    monkeypatch.setattr(encoder, "BLOCK_WEIGHTS", rows * 5 * shape[1])
    w = np.round(painted(*shape), 1)  # many groups of equal size
    columns = -(-shape[1] // group_size) * group_size
    groups = np.pad(np.abs(w), ((0, 0), (0, columns - shape[1]))).reshape(-1, group_size)
    sizes, sample = groups.max(axis=1), sample_of(w, group_size)
    n = min(len(sizes), 8192, (1 << 18) // min(group_size, shape[1]))
    assert sample.largest == n // 16
    first = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))[: sample.largest]
    found = np.sort(sample.a[:, -sample.largest :], axis=0)
    padded = np.zeros((group_size, sample.largest), np.float32)
    padded[group_size - len(found) :] = found
    assert np.array_equal(padded, np.sort(groups[first].T, axis=0))
    others = sample.a.shape[1] - sample.largest
    assert 256 < others <= 512
    assert sample.weights.sum() == pytest.approx(len(sizes))
    ones = np.ones(sample.a.shape[1], np.int64)
    assert sample.total(ones) == pytest.approx(len(sizes))
    assert sample.a[:, :others].max() <= sizes[first[-1]]


def test_few_groups_are_the_sample() -> None:
    """Up to 1,024 groups are all taken, each for itself."""
    w = painted(128, 128)
    sample = sample_of(w, 16)
    assert (sample.largest, sample.weight) == (0, 1.0)
    assert np.array_equal(sample.a.T, np.abs(w.reshape(-1, 16)))
    assert sample_of(painted(129, 128), 16).largest == 1032 // 16


def test_costs_are_in_a_unit_that_no_sum_overflows() -> None:
    """The dearest cost is at most 2^44, whatever a group stands for."""
    a = np.abs(painted(200, 16).T) * np.float32(2.0**70)
    a[:, :3] *= np.float32(2.0**20)
    grid = fit.candidate_steps(a.max(axis=0), float(a.max()), 4, "F32")
    costs = fit.step_costs(Sample(a, 100, 2.0**40), grid, 4, False)
    assert costs.min() >= 0
    assert 2**20 <= costs.max() <= 2**44


def log_nearest(scales: list[float], m: float) -> int:
    """The index of the nearest of *scales* by ratio, the lower of two."""
    return sum(Fraction(m) ** 2 > Fraction(x) * Fraction(y) for x, y in itertools.pairwise(scales))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("group_size", [1, 3, 16])
def test_tritllm_v2_tries_four_scales_and_snaps(depth: int, group_size: int) -> None:
    """Each group takes the best of its 1st, 2nd, 4th and 6th magnitudes, at the nearest of 27 scales."""
    w = real_weights()[:10, : 6 * group_size]
    form, codes, _ = collect(encoder.encode(w, depth, group_size=group_size, method="tritllm-v2"))
    H = (3**depth - 1) // 2
    scales = [float(s) * H for s in form.codebook]
    chosen = []
    for group, code in zip(w.reshape(-1, group_size), codes.ravel(), strict=True):
        a = sorted(np.abs(group))
        tried = [a[-min(i, group_size)] for i in (1, 2, 4, 6)]
        errors = [error_of(a, m / np.float32(H), depth, False) for m in tried]
        chosen.append(tried[errors.index(min(errors))])
        assert code == log_nearest(scales, float(chosen[-1]))
    ratios = np.diff(np.log(scales))
    assert np.allclose(ratios, ratios.mean(), atol=2.0**-15)
    assert np.isclose(scales[0], float(min(chosen)), rtol=2.0**-17)
    assert float(np.abs(w).max()) <= scales[-1] <= float(np.abs(w).max()) * (1 + 2.0**-16)


@pytest.mark.parametrize("smallest", [0.0, 1e-45])
def test_the_steps_of_tritllm_v2_begin_at_the_least_normal_number(smallest: float) -> None:
    """Where all weights are zero, or subnormal, scales say less than that."""
    w = np.array([[smallest, 3 * smallest, 0, 7 * smallest]], np.float32)
    form, _, _ = collect(encoder.encode(w, 1, group_size=2, method="tritllm-v2"))
    assert (form.codebook.view(np.uint32) >> 6).tolist() == list(range(U_MIN, U_MIN + 27))


def test_scales_snap_by_ratio_and_ties_to_the_lower_step() -> None:
    """Between steps s and 4s the border is 2s: at it the lower code, a last place above it the higher."""
    steps = np.float32(2) ** np.arange(-26, 27, 2, dtype=np.float32)
    scales = np.array([0, 2 * 13, np.nextafter(np.float32(26), np.float32(27)), 13, 1e30], np.float32)
    assert published.snap(scales, steps, 3).tolist() == [0, 13, 14, 13, 26]


@pytest.mark.parametrize("depth", DEPTHS)
def test_optimal_is_ahead_of_tritllm_v2(depth: int) -> None:
    """On real weights the total squared error is less, and less still than with log-spaced steps."""
    w = real_weights()
    spaced = encoder.encode(w, depth, method="tritllm-v2")[0].codebook

    def error(**arguments: Any) -> float:
        form, codes, offsets = collect(encoder.encode(w, depth, **arguments))
        levels = offsets.astype(np.float64) - (3**depth - 1) // 2
        return float(((np.repeat(form.codebook[codes], 16, axis=1) * levels - w) ** 2).sum())

    assert error() < error(codebook=spaced) < error(method="tritllm-v2")


def test_nested_codes_serve_the_lower_depths() -> None:
    """With one codebook, codes chosen for all depths cost more at full depth and less when truncated to 1."""
    w = real_weights()[:50]
    steps = encoder.encode(w, 3, nested=True)[0].codebook

    def errors(nested: bool) -> list[float]:
        _, codes, offsets = collect(encoder.encode(w, 3, codebook=steps, nested=nested))
        s, k = np.repeat(steps[codes], 16, axis=1), offsets.astype(np.float64) - 13
        return [float(((s * np.rint(k / n) * n - w) ** 2).sum()) for n in (1, 9)]

    (full, coarse), (nested_full, nested_coarse) = errors(False), errors(True)
    assert nested_full > full
    assert nested_coarse < coarse


@pytest.mark.parametrize(("least", "group_size"), [(1, 16), (1e-11, 1)])
def test_memory_is_a_constant_number_of_blocks(least: float, group_size: int) -> None:
    """Encoding 8 million weights block by block takes less memory than two copies of them.

    So it does where a group needs a scale of its own, and groups have a member each.
    """
    w = np.ones((2048, 4096), np.float32)
    w[0, 0] = least
    tracemalloc.start()
    steps = codebook_from([0x3F00_0000 >> 6] * 27)
    for _ in encoder.encode(w, 1, codebook=steps, group_size=group_size)[1]:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 4 * encoder.BLOCK_WEIGHTS < 2 * w.nbytes


PINNED = {
    ("optimal", False): "f132e1337a79713287443508145ea49906722da420e01f97fb843947f4d42681",
    ("optimal", True): "741f7198b53d767fd4c3ff7746099ab99c21c7e5f619fcecd636800c71425199",
    ("tritllm-v2", False): "b06304dd512fd80f20763ba7f2797a79b242ade3067d16cbe20ae28e0e81faff",
}


@pytest.mark.parametrize(("method", "nested"), PINNED)
def test_the_same_weights_give_the_same_bytes_everywhere(method: str, nested: bool) -> None:
    """The digest of codebooks, codes and levels of painted weights at every depth is the pinned one.

    Should it change on purpose, `pytest tests/test_encode.py -k same_bytes` prints the new one.
    """
    digest = hashlib.sha256()
    for depth in DEPTHS:
        encoded = encoder.encode(painted(203, 1111), depth, method=method, nested=nested)
        form, codes, offsets = collect(encoded)
        for part in (form.codebook, codes, offsets):
            digest.update(part.astype(part.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == PINNED[method, nested]


@pytest.mark.parametrize("shape", [(1 << 12, 1), (400, 16), (3, 10)])
def test_a_group_size_beyond_the_row_costs_nothing(shape: tuple[int, int]) -> None:
    """A row shorter than a group is a group of its own length: the same result, in little memory."""
    w = np.random.default_rng(3).standard_normal(shape, np.float32)
    expected = encoder.quantize(w, 2, group_size=shape[1])
    tracemalloc.start()
    found = encoder.quantize(w, 2, group_size=65536)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * w.nbytes + (8 << 20)
    assert np.array_equal(found.codebook, expected.codebook)
    assert all(map(np.array_equal, found.planes, expected.planes))


def test_energies_are_added_without_a_limit() -> None:
    """More than 2^23 groups, each of the most that an energy is, are beyond int64."""
    some = np.full(2**23 + 1, 2**40, np.int64)
    assert encoder.exact_sum(some) == (2**23 + 1) * 2**40


def test_the_published_method_takes_nothing_from_another_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trap or a rounding that another library sets for all is none of its bits."""
    w = np.sin(np.arange(64, dtype=np.float32)).reshape(2, 32)
    expected = encoder.quantize(w, 2, method="tritllm-v2")
    monkeypatch.setattr(decimal.DefaultContext, "rounding", decimal.ROUND_UP)
    monkeypatch.setitem(decimal.DefaultContext.traps, decimal.Inexact, True)
    made = encoder.quantize(w, 2, method="tritllm-v2")
    assert [plane.tobytes() for plane in made.planes] == [plane.tobytes() for plane in expected.planes]
    assert made.codebook.tobytes() == expected.codebook.tobytes()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_with_a_codebook_too(wrong: float) -> None:
    """Nothing is fitted then, and nothing passes for that."""
    w = np.ones((5, 32), np.float32)
    w[3, 4] = wrong
    with pytest.raises(TritError, match="weights must be finite"):
        encoder.quantize(w, 2, codebook=search_steps())


def test_quotients_beyond_float32_are_the_largest_level() -> None:
    """Weights far above the steps of a given codebook: no warning, and level H or -H."""
    tiny = np.ldexp(search_steps(), -110)
    w = np.array([[1e38, -1e38, 0, 1e-38]], np.float32)
    assert encoder.quantize(w, 2, codebook=tiny).levels()[0, :3].tolist() == [4, -4, 0]


def search_steps() -> np.ndarray:
    """27 steps from 1 to 1.25."""
    return (1 + np.arange(27, dtype=np.float32) / 128).astype(np.float32)


def test_the_grid_begins_at_the_256th_part_of_the_groups() -> None:
    """Of 256 groups the second smallest, of 255 the smallest; zeros do not count (SPEC 11.3)."""
    for zeros in (0, 100):
        for count, first in ((255, 0), (256, 1), (511, 1), (512, 2)):
            sizes = np.concatenate([np.zeros(zeros), 1 + np.arange(count)]).astype(np.float32)
            grid = fit.candidate_steps(sizes, float(count), 2, "F32")
            assert grid[0] == fit.steps_of([int(np.float32((1 + first) / 5).view(np.uint32)) >> 6])[0]


@pytest.mark.parametrize(("size", "count"), [(16, 8192), (32, 8192), (64, 4096), (8192, 32), (1 << 16, 32)])
def test_how_many_groups_are_looked_at(size: int, count: int) -> None:
    """Some 2^18 weights, and 32 groups however large they are (SPEC 11.3)."""
    assert len(sample_groups(10**6, size)) == count
    assert len(sample_groups(count - 1, size)) == count - 1
