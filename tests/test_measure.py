"""What is found of a model for reports: errors, the worst group, counts of levels and codes, layers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from folder_cases import FIRST, SECOND, shard, sound
from helpers import with_bytes
from model_helpers import floats, write_model

import tritcodec as tc
from tritcodec import TritError, TritTensor, open_model, save_file
from tritcodec.header import RawEntry
from tritcodec.model import measure
from tritcodec.model.measure import Distortion, Group, Looked, Sums, by_layer, look
from tritcodec.model.source import ModelSource
from tritcodec.reader import Tensor

SHAPE = (23, 37)  # of three groups a row, the last one short, and of more rows than a band below has


@pytest.fixture
def weights() -> np.ndarray:
    """Random numbers."""
    return np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path, weights: np.ndarray) -> Path:
    """A file with two matrices, the same numbers at two depths, and a raw tensor."""
    tensors: dict[str, Tensor] = {
        "a": tc.quantize(weights, 3),
        "b": tc.quantize(weights, 1),
        "c": np.ones(5, np.float16),
    }
    save_file(tensors, tmp_path / "model.trit")
    return tmp_path / "model.trit"


@pytest.fixture
def source(tmp_path: Path, weights: np.ndarray) -> ModelSource:
    """What the model was made from."""
    return ModelSource(write_model(tmp_path / "source", {name: floats(weights) for name in "abc"}))


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_source_that_is_not_finite_is_not_compared(
    model: Path, tmp_path: Path, weights: np.ndarray, bad: float
) -> None:
    """Nothing has a distance from NaN: the error names the tensor instead."""
    weights[-1, -1] = bad
    source = ModelSource(write_model(tmp_path / "bad", {name: floats(weights) for name in "abc"}))
    with open_model(model) as opened, pytest.raises(TritError, match=r"tensor 'a': .* NaN or infinities"):
        look(opened, source)


@pytest.mark.parametrize("band", [1, 200, 1 << 20])
def test_the_worst_group_is_that_which_lost_most(
    model: Path, source: ModelSource, weights: np.ndarray, monkeypatch: pytest.MonkeyPatch, band: int
) -> None:
    """However much is compared at once: its row, its place there, its error; against loops."""
    monkeypatch.setattr(measure, "BAND_WEIGHTS", band)
    with open_model(model) as opened:
        found = {each.entry.name: each.distortion for each in look(opened, source)}
        for name in ("a", "b"):
            tensor = opened.get_tensor(name)
            assert isinstance(tensor, TritTensor)
            errors, worst = weights - tensor.dequantize("F32").astype(np.float64), Group(name, 0, 0, 0.0)
            for row in range(SHAPE[0]):
                for group in range(3):
                    part = np.s_[row, 16 * group : 16 * group + 16]
                    ratio = math.sqrt(
                        np.square(errors[part]).sum() / np.square(weights[part], dtype="f8").sum()
                    )
                    if ratio > worst.relative_error:
                        worst = Group(name, row, group, ratio)
            got = found[name]
            assert got is not None
            assert got.worst is not None
            assert (got.worst.row, got.worst.group) == (worst.row, worst.group)
            assert got.worst.relative_error == pytest.approx(worst.relative_error)
            assert got.noise == pytest.approx(np.square(errors).sum())
    assert found["c"] is None


def test_the_worst_of_a_sum_is_the_worse_and_of_equals_the_first() -> None:
    """Over tensors as over bands."""
    a, b, c = (
        Distortion(1, 1, Group(name, 1, 2, error)) for name, error in [("a", 0.5), ("b", 0.7), ("c", 0.7)]
    )
    assert (a + b + c).worst == b.worst
    assert sum([a, c], Distortion()).worst == c.worst
    assert Distortion().worst is None


def test_every_level_and_code_is_counted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Band by band as in the whole tensor; nothing is counted of raw tensors, nor without being asked."""
    monkeypatch.setattr(measure, "BAND_WEIGHTS", 200)
    with open_model(model) as opened:
        for each in look(opened, counts=True)[:2]:
            tensor = opened.get_tensor(each.entry.name)
            assert isinstance(tensor, TritTensor)
            H = (3**tensor.depth - 1) // 2
            levels = tensor.levels().tolist()
            assert each.levels == tuple(sum(row.count(k) for row in levels) for k in range(-H, H + 1))
            codes = tensor.codes.tolist()
            assert each.codes == tuple(sum(row.count(c) for row in codes) for c in range(27))
        assert look(opened, counts=True)[2] == Looked(opened.entry("c"))
        assert all(each.levels == each.codes == () for each in look(opened))


def test_damage_is_found_where_weights_are_read(model: Path) -> None:
    """A segment that is not what its digest says is an error, if anything is counted."""
    with open_model(model) as opened, opened.shard("model.trit") as file:
        offset = file.segments[-1].offset
    data = model.read_bytes()
    model.write_bytes(with_bytes(data, offset, (data[offset] + 1) % 243))
    with open_model(model) as opened:
        assert len(look(opened)) == 3
        with pytest.raises(TritError, match="SEG-1"):
            look(opened, counts=True)


def test_tensors_of_all_shards_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Whichever shard they are in; progress has each of them once."""
    for name, data in sound({FIRST: shard("b", "d"), SECOND: shard("a", "c")}).items():
        (tmp_path / name).write_bytes(data)
    told: list[str] = []
    with open_model(tmp_path) as opened:
        names = [each.entry.name for each in look(opened, progress=lambda name, _: told.append(name))]
    assert names == sorted(told) == sorted(set(told))


def test_a_source_that_lacks_a_tensor_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    """Also where it is the last one of a large model."""
    for name, data in sound({FIRST: shard("a", "b"), SECOND: shard("c")}).items():
        (tmp_path / name).write_bytes(data)
    told: list[str] = []
    with open_model(tmp_path) as opened:
        shapes = {entry.name: entry.shape for entry in opened.entries() if entry.name != "c"}
        lacking = {name: floats(np.zeros(shape, np.float32)) for name, shape in shapes.items()}
        source = ModelSource(write_model(tmp_path / "lacking", lacking))
        with pytest.raises(TritError, match="the source has no tensor 'c'"):
            look(opened, source, progress=lambda name, _: told.append(name))
    assert told == []


NAMES = ["h.10.w", "h.9.w", "h.9.w.2.b", "model.h.0.w", "norm.w", "w10.x", "3.w"]


def test_layers_are_in_the_order_of_their_numbers() -> None:
    """A layer is a name up to its first number; what has none comes last."""
    layers = by_layer([Looked(RawEntry(name, "F32", (2,))) for name in NAMES])
    assert {layer: [each.entry.name for each in found] for layer, found in layers.items()} == {
        "3": ["3.w"],
        "h.9": ["h.9.w", "h.9.w.2.b"],
        "h.10": ["h.10.w"],
        "model.h.0": ["model.h.0.w"],
        "": ["norm.w", "w10.x"],
    }
    assert list(layers) == ["3", "h.9", "h.10", "model.h.0", ""]


def test_sums_are_those_of_the_tensors(model: Path, source: ModelSource) -> None:
    """Weights, bytes, bits, depths and error of two matrices and a raw tensor."""
    with open_model(model) as opened:
        a, b = (opened.get_tensor(name) for name in "ab")
        found = look(opened, source)
    assert isinstance(a, TritTensor)
    assert isinstance(b, TritTensor)
    sums = Sums.of(found)
    assert (sums.weights, sums.packed, sums.kept, sums.raw) == (2 * 23 * 37, a.nbytes + b.nbytes, 1, 10)
    assert sums.depths == {1: 1, 3: 1}
    assert sums.stored_bits == pytest.approx((a.bits_per_weight + b.bits_per_weight) / 2)
    bits = (a.information_bits_per_weight + b.information_bits_per_weight) / 2
    assert sums.information_bits == pytest.approx(bits)
    assert sums.error is not None
    assert sums.error.noise == sum(each.distortion.noise for each in found if each.distortion)
    assert Sums.of([]).error is None
