"""Finding steps, depth and group size again, of what simulated producers write."""

from __future__ import annotations

import bisect
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import largest, little_memory
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import MINILM, MODEL
from producers import DTYPES, PRODUCERS, Producer, dequantised, packable, quantised
from safetensors.numpy import load_file
from strategies import quick

from tritcodec.arithmetic import near
from tritcodec.codebook import check_codebook
from tritcodec.encode import Weights
from tritcodec.recover import Recovery, look, misses, recover
from tritcodec.spans import Spans, cover, filled, spans, steps_giving
from tritcodec.tensor import GROUP_SIZE, TritTensor
from tritcodec.values import BITS, Values, bits_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))  # a command, which stands in no package

import fuzz_repack  # after the path is known

DEPTHS = (1, 2, 3, 4)
PLAIN = Producer("F32", "k/H", "F32", "F16")
Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def real() -> Array:
    """Real weights: 40 rows of a matrix of a transformer layer."""
    matrix: Array = load_file(MINILM / MODEL)["encoder.layer.0.attention.self.key.weight"]
    return matrix[:40].astype(np.float64)


def found_in(w: Array, depths: tuple[int, ...] = DEPTHS) -> Recovery:
    """What is found in a matrix."""
    weights = Weights.of_array(w, GROUP_SIZE)
    return recover(weights, look(weights), depths)


# Steps that give a value


MAGNITUDES = {  # by their bits: the least, those around the least normal one and a power of two, the largest
    "F16": [1, 2, 3, 0x3FF, 0x400, 0x401, 0x3BFF, 0x3C00, 0x3C01, 0x5A5A, 0x7BFE, 0x7BFF],
    "BF16": [1, 2, 0x7F, 0x80, 0x81, 0x3F7F, 0x3F80, 0x3F81, 0x7F7E, 0x7F7F],
    "F32": [0x00800000, 0x3F800000, 0x3F800040, 0x3FC00000, 0x40400000, 0x42A00000, 0x7F7FFFC0],
}


def gives(u: int, dtype: str, depth: int) -> set[int]:
    """The magnitudes of levels 1 to H with the step u, as a decoder makes them; none where one overflows."""
    step = np.array([u << 6], np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        values = (step * np.arange(1, largest(depth) + 1, dtype=np.float32)).astype(DTYPES[dtype])
    finite = bool(np.isfinite(values[-1].astype(np.float64)))
    return set(values.view(BITS[dtype]).tolist()) if finite else set()


@pytest.mark.parametrize("dtype", MAGNITUDES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_intervals_end_where_the_value_does(dtype: str, depth: int) -> None:
    """A step at either end of an interval gives the value, and the steps next to it do not."""
    magnitudes = np.array(MAGNITUDES[dtype], np.int64)
    found = steps_giving(magnitudes, dtype, depth)
    assert len(found.owner) > len(magnitudes) / 2
    for owner, low, high in zip(found.owner, found.low.tolist(), found.high.tolist(), strict=True):
        m = int(magnitudes[owner])
        assert m in gives(low, dtype, depth)
        assert m in gives(high, dtype, depth)
        assert low == 0x0080_0000 >> 6 or m not in gives(low - 1, dtype, depth)
        assert m not in gives(high + 1, dtype, depth)


@quick
@given(st.data())
def test_every_step_of_a_value_is_in_an_interval(data: st.DataObject) -> None:
    """Whatever a step gives, it is among those said to give it, and fits the group of all that it gives."""
    dtype, depth = data.draw(st.sampled_from(list(DTYPES))), data.draw(st.sampled_from(DEPTHS))
    lowest, highest = {"F16": (0x1C0000, 0x23C000)}.get(dtype, (0x20000, 0x1FDFFFF))
    u = data.draw(st.integers(lowest, highest))
    values = sorted(gives(u, dtype, depth) - {0})
    if not values:
        return
    found = steps_giving(np.array(values), dtype, depth)
    inside = (found.low <= u) & (u <= found.high)
    assert set(found.owner[inside].tolist()) == set(range(len(values)))
    group = np.zeros((2, max(2, len(values))), np.int64)
    group[0, : len(values)] = values
    fitting = spans(group, dtype, depth)
    assert ((fitting.low <= u) & (u <= fitting.high)).sum() == 1
    assert all(set(values) <= gives(int(u), dtype, depth) for u in (*fitting.low, *fitting.high))


@quick
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), min_size=1, max_size=9))
def test_cover_takes_the_fewest_points_for_single_intervals(ends: list[tuple[int, int]]) -> None:
    """Against every choice of points, where each owner has one interval."""
    low = np.array([start for start, _ in ends])
    high = low + [length for _, length in ends]
    chosen, complete = cover(Spans(np.arange(len(ends)), low, high))
    assert complete
    assert all(any(a <= u <= b for u in chosen) for a, b in zip(low, high, strict=True))
    for fewer in itertools.combinations(sorted(set(high.tolist())), len(chosen) - 1):
        assert not all(any(a <= u <= b for u in fewer) for a, b in zip(low, high, strict=True))


def test_cover_serves_what_has_one_interval_first() -> None:
    """Owners of two intervals do not lure a point to where owners of one need more of them."""
    single = [(0, 10), (9, 12), (15, 30)]
    ends = np.array([*single, *[(2, 4), (16, 18)] * 5])
    owner = np.array([0, 1, 2, *np.repeat(np.arange(3, 8), 2)])
    chosen, complete = cover(Spans(owner, ends[:, 0], ends[:, 1]))
    assert (chosen, complete) == ([9, 17], True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_unused_steps_make_a_codebook(dtype: str, depth: int) -> None:
    """From none to 27 found steps, at either end of what there is: 27 steps, those found among them."""
    bottom = 0x20000
    top = (
        bisect.bisect(range(0x1FE0000), False, key=lambda u: not gives(u, dtype, depth)) - 1
    )  # does not overflow
    for chosen in ([], [bottom], [top], [top - 3, top], [bottom, top], list(range(top - 26, top + 1))):
        steps = check_codebook(filled(chosen, depth, dtype), depth, 0, dtype)
        assert {u << 6 for u in chosen} <= set(steps.view(np.uint32).tolist())


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_those_of_the_decoder(dtype: str) -> None:
    """Every level of every code is found again, with the lowest code that gives all of its group."""
    for depth in DEPTHS:
        H = largest(depth)
        steps = filled([0xF40000, 0xF45678, 0xF45679, 0xF60000], depth, dtype)
        levels = np.resize(np.arange(-H, H + 1, dtype=np.int8), (27, 2 * H + 1))
        codes = np.arange(27, dtype=np.uint8)[:, None]
        size = 2 * H + 1
        tensor = TritTensor.from_levels(levels, codes, steps, depth=depth, group_size=size, dtype=dtype)
        bits = bits_of(tensor.dequantize(), dtype)
        found, offsets = Values(steps, depth, dtype).encode(bits, size)
        assert (found <= codes).all()
        again = TritTensor.from_blocks(tensor.form, [(0, found, offsets)])
        assert bits_of(again.dequantize(), dtype).tolist() == bits.tolist()


# Matrices


@pytest.mark.parametrize("producer", PRODUCERS, ids=lambda producer: producer.name)
def test_what_producers_write_comes_back(real: Array, producer: Producer) -> None:
    """Of real weights, at every depth: packed at that depth where every scale has a step, bit for bit."""
    for depth in DEPTHS:
        made = quantised(real, producer, depth)
        w = dequantised(producer, made, depth, signed_zeros=True)
        tensor = fuzz_repack.recovered(w)
        if packable(producer, made, depth):
            assert tensor is not None
            assert tensor.depth == depth
        assert tensor is None or fuzz_repack.same_bits(w, tensor)


EXACT_TO = {  # the greatest depth at which every scale has a step: python tools/repack_table.py --scales 400
    ("F32", "F32"): {"k/H": 4, "k/3^(d-1)": 4, "k": 4},
    ("16", "F32"): {"k/H": 3, "k/3^(d-1)": 3, "k": 4},
    ("16", "16"): {"k/H": 2, "k/3^(d-1)": 2, "k": 4},
}


@pytest.mark.parametrize("producer", [p for p in PRODUCERS if p.output != "F32"], ids=lambda p: p.name)
def test_variants_that_always_have_steps_are_packed(real: Array, producer: Producer) -> None:
    """Not one of them is missed, on real weights."""
    of = tuple(dtype if dtype == "F32" else "16" for dtype in (producer.scale, producer.product))
    for depth in range(1, EXACT_TO[of][producer.level] + 1):  # type: ignore[index]  # a pair, like its keys
        assert packable(producer, quantised(real, producer, depth), depth)


SIZES = [(16, 16), (32, 32), (48, 16), (64, 64), (128, 128), (200, 200)]


@pytest.mark.parametrize(("made", "found"), SIZES)
def test_the_largest_group_size_is_found(made: int, found: int) -> None:
    """The groups of 16 of a row that share a scale make one of 32, 64, 128 or the row, the last one short."""
    w = np.random.default_rng(made).standard_normal((60, 200))
    w *= np.exp(np.resize([0, 1, 2], 60))[:, None]
    recovery = found_in(dequantised(PLAIN, quantised(w, PLAIN, 2, made), 2))
    assert (recovery.exact, recovery.depth, recovery.group_size) == (True, 2, found)


def test_groups_of_another_size_are_not_found(real: Array) -> None:
    """Groups of 8 have two scales in 16 weights."""
    assert not found_in(dequantised(PLAIN, quantised(real, PLAIN, 2, 8), 2)).exact


@pytest.mark.parametrize("columns", [1, 2, 15, 17, 33])
def test_short_groups_and_few_columns(columns: int) -> None:
    """Rows whose length is no multiple of 16."""
    w = np.random.default_rng(columns).standard_normal((70, columns))
    for depth in DEPTHS:
        x = dequantised(PLAIN, quantised(w, PLAIN, depth), depth)
        tensor = fuzz_repack.recovered(x)
        assert tensor is not None
        assert tensor.depth <= depth
        assert fuzz_repack.same_bits(x, tensor)


@pytest.mark.parametrize("scale", [2.0**-22, 2.0**-17, 2.0**-13, 2.0**10])
def test_subnormal_and_large_values(real: Array, scale: float) -> None:
    """Steps below what binary16 can tell apart, and the largest that it holds."""
    for depth in DEPTHS:
        x = dequantised(PLAIN, quantised(real * scale, PLAIN, depth), depth)
        tensor = fuzz_repack.recovered(x)
        assert tensor is not None
        assert tensor.depth <= depth
        assert fuzz_repack.same_bits(x, tensor)


def test_saturated_groups(real: Array) -> None:
    """Where all weights of a group are clipped to the largest level, one magnitude is all there is."""
    made = quantised(real, PLAIN, 3, share=0.7)
    made.levels[::3] = np.sign(made.levels[::3]) * largest(3)
    x = dequantised(PLAIN, made, 3)
    recovery = found_in(x)
    assert (recovery.exact, recovery.depth) == (True, 3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_is_one_step_or_none(value: float) -> None:
    """It takes depth 1, and one group a row."""
    recovery = found_in(np.full((5, 40), value, np.float16))
    assert (recovery.exact, recovery.depth, recovery.group_size) == (True, 1, 40)
    assert len(recovery.chosen) == value


def test_a_depth_that_is_asked_for(real: Array) -> None:
    """A matrix of depth 2 is one of depth 3, too, and not one of depth 1."""
    x = dequantised(PLAIN, quantised(real, PLAIN, 2), 2)
    assert [found_in(x, (depth,)).exact for depth in DEPTHS] == [False, True, True, True]


def test_what_is_found_does_not_depend_on_blocks(real: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are read at once."""
    x = dequantised(PLAIN, quantised(real, PLAIN, 3), 3)
    whole = found_in(x)
    monkeypatch.setattr("tritcodec.encode.BLOCK_WEIGHTS", 5 * 384)
    parts = found_in(x)
    assert (parts.chosen, parts.depth, parts.group_size) == (whole.chosen, whole.depth, whole.group_size)
    assert parts.steps.tobytes() == whole.steps.tobytes()


def test_memory_does_not_grow_with_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for a sample of groups and a block of rows."""
    monkeypatch.setattr("tritcodec.encode.BLOCK_WEIGHTS", 1 << 14)
    small = dequantised(PLAIN, quantised(np.random.default_rng(0).standard_normal((1024, 64)), PLAIN, 2), 2)
    large = np.resize(small, (8 * 1024, 64))
    for w in (small, large):
        with little_memory(3 << 20):
            assert found_in(w).exact


# What is not of this form


@pytest.mark.parametrize("depth", DEPTHS)
def test_one_bit_is_found(real: Array, depth: int) -> None:
    """The report has the place, the one value that misses, and the share of groups that fit."""
    x = dequantised(PLAIN, quantised(real, PLAIN, depth), depth)
    row, column = np.argwhere(x[20:, 30:])[5] + (20, 30)
    x.view(np.uint16)[row, column] ^= 8  # a small change, and enough for other levels not to give it
    recovery = found_in(x)
    assert not recovery.exact
    assert recovery.place == (row, column)
    assert recovery.groups - recovery.fitting == 1
    assert misses(Weights.of_array(x, GROUP_SIZE), recovery) == 1


def test_a_value_in_a_short_group_is_counted_once(real: Array) -> None:
    """The last two of a row of 18 columns: a group of two values that both miss."""
    x = dequantised(PLAIN, quantised(real[:, :18], PLAIN, 2), 2)
    x[7, 17] = 1.25 * np.abs(x[:, 16:]).max()
    x[7, 16] = 0.9 * x[7, 17]
    recovery = found_in(x, (2,))
    assert (recovery.place, recovery.groups - recovery.fitting) == ((7, 16), 1)
    assert misses(Weights.of_array(x, GROUP_SIZE), recovery) == 2


def test_the_first_place_is_one_of_the_values_that_are_counted() -> None:
    """Steps that only fill the codebook count for nothing, though one of them gives most of the group."""
    step, next_step = np.array([0x3C00_0000, 0x3C00_0040], np.uint32).view(np.float32)  # 18 bits, neighbours
    x = step * np.random.default_rng(0).integers(-1, 2, (32, 64)).astype(np.float32)
    x[5, 32:48] = [step] * 6 + [next_step] * 10
    recovery = found_in(x, (1,))
    assert next_step in recovery.steps
    assert (recovery.place, misses(Weights.of_array(x, GROUP_SIZE), recovery)) == ((5, 38), 10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_weights_are_not_of_this_form(real: Array, dtype: str) -> None:
    """No group fits any step."""
    recovery = found_in(real.astype(DTYPES[dtype]))
    assert (recovery.exact, recovery.fitting, recovery.place) == (False, 0, (0, 0))


def test_noise_in_some_rows_shows_in_the_share(real: Array) -> None:
    """The groups that were left alone fit, the others do not."""
    x = dequantised(PLAIN, quantised(real, PLAIN, 2), 2)
    x[30:36] = (x[30:36].astype(np.float64) * np.random.default_rng(0).uniform(0.99, 1.01, (6, 384))).astype(
        x.dtype
    )
    recovery = found_in(x)
    assert (recovery.depth, recovery.place) == (2, (30, 0))
    assert recovery.groups - recovery.fitting == 6 * 24


def test_more_than_27_scales_do_not_fit(real: Array) -> None:
    """28 scales, well apart: 27 of them fit their groups."""
    rows = np.resize(real, (56, 64))
    made = quantised(rows, PLAIN, 2, 128)
    made.stored[:] = np.repeat(1.31 ** np.arange(-28, 0), 2).astype(np.float32)
    recovery = found_in(dequantised(PLAIN, made, 2), (2,))
    assert (recovery.exact, len(recovery.chosen)) == (False, 27)
    assert recovery.groups - recovery.fitting == 2 * 4


ARITHMETIC = {  # what has no steps, and how the report names it
    Producer("F16", "k/H", "F16", "F16"): "F16 scale times k/13, multiplied in F16",
    Producer("F16", "k/3^(d-1)", "F16", "F16"): "F16 scale times k/9, multiplied in F16",
    Producer("BF16", "k/H", "BF16", "BF16"): "BF16 scale times k/13, multiplied in BF16",
    Producer("F32", "k/H", "F32", "F32"): "scales of more than 18 significant bits",
}


@pytest.mark.parametrize("producer", ARITHMETIC, ids=lambda producer: producer.name)
def test_arithmetic_that_has_no_steps_is_named(real: Array, producer: Producer) -> None:
    """At depth 3, from what comes within one unit in the last place; plain weights are not taken for it."""
    x = dequantised(producer, quantised(real, producer, 3), 3)
    assert not found_in(x).exact
    found = near(look(Weights.of_array(x, GROUP_SIZE)).sample, producer.output, DEPTHS)
    assert found is not None
    assert (found.depth, found.arithmetic.split(" (")[0]) == (3, ARITHMETIC[producer])
    plain = real.astype(DTYPES[producer.output])
    assert near(look(Weights.of_array(plain, GROUP_SIZE)).sample, producer.output, DEPTHS) is None


def test_the_campaign_finds_nothing_and_would(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some random inputs come back; where recovery gives up too early, or other bits come out, it is said."""
    monkeypatch.setattr(sys, "argv", ["fuzz_repack.py", "--inputs", "20"])
    assert fuzz_repack.main() == 0
    assert capsys.readouterr().out.endswith("0 wrong\n")
    monkeypatch.setattr("tritcodec.recover.cover", lambda _: ([], False))
    assert fuzz_repack.main() == 1
    assert "MISSED" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["fuzz_repack.py", "--inputs", "4"])
    encode = Values.encode
    monkeypatch.setattr(Values, "encode", lambda *a: (encode(*a)[0], encode(*a)[1][::-1]))
    assert fuzz_repack.main() == 1
    assert "OTHER BITS" in capsys.readouterr().out
