"""Models that were dequantised, packed again: the run, the command, and the proof of every bit."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from model_helpers import MINILM, TRIT, Stored, floats, tree, untouched, write_model
from producers import Producer, dequantised, quantised
from test_cli import Command, tritcodec  # noqa: F401  # a fixture
from test_run import write_shards

from tritcodec import TritError, TritTensor, open_file, verify_file
from tritcodec.model import tasks
from tritcodec.model.export import dequantize_model
from tritcodec.model.plan import Planned
from tritcodec.model.repack import Repack, repack_job
from tritcodec.model.run import Progress, quantize_model, silent
from tritcodec.model.source import ModelSource, read_tensor, stamp_of
from tritcodec.model.spool import STATE
from tritcodec.model.workers import Inline
from tritcodec.values import Values

PLAIN = Producer("F16", "k/H", "F32", "F16")
Array = npt.NDArray[Any]


def repack(
    source: Path,
    target: Path,
    work: Repack | None = None,
    keep: Sequence[str] = (),
    progress: Progress = silent,
) -> dict[str, Planned]:
    """What becomes of each tensor of *source*."""
    job = repack_job(ModelSource(source), work or Repack(), keep)
    [planned] = quantize_model(job, target, Inline(), progress=progress).values()
    return {item.tensor.name: item for item in planned}


def stored(array: Array) -> Stored:
    """An array as safetensors has it."""
    dtype = {"float16": "F16", "bfloat16": "BF16", "int64": "I64"}[array.dtype.name]
    return Stored(dtype, array.shape, array.tobytes())


def simulated(
    w: Array, depth: int = 2, producer: Producer = PLAIN, size: int = 16, zeros: bool = False
) -> Array:
    """*w*, quantised by a producer and multiplied out again."""
    return dequantised(producer, quantised(w, producer, depth, size), depth, zeros)


def random(seed: int, *shape: int) -> Array:
    """Normal weights whose rows differ in size."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * np.exp(0.5 * rng.standard_normal((shape[0], 1)))


def contents(folder: Path) -> dict[str, Array]:
    """All tensors of a folder of safetensors files."""
    return {tensor.name: read_tensor(tensor) for tensor in ModelSource(folder).tensors}


def check_restored(source: Path, packed: Path, folder: Path) -> None:
    """*packed* is valid, and comes back with every bit of *source* but the signs of zeros."""
    assert all(verify_file(path).ok for path in packed.glob("*.trit"))
    dequantize_model(packed, folder)
    before, after = contents(source), contents(folder)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert (array.dtype, array.shape) == (after[name].dtype, after[name].shape)
        plain = np.where(array == 0, np.zeros_like(array), array)
        assert after[name].tobytes() in (array.tobytes(), plain.tobytes())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture model as a producer publishes it: linear layers at depth 1, the rest as it was."""
    folder = tmp_path_factory.mktemp("published")
    tensors = contents(MINILM)
    for name, array in tensors.items():
        if ".layer." in name and array.ndim == 2:
            tensors[name] = simulated(array.astype(np.float64), 1)
    write_model(folder, {name: stored(array) for name, array in tensors.items()}, {"format": "pt"})
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards, matrices in several parts: of depth 2 and 3, groups of 16 and rows; others."""
    monkeypatch.setattr("tritcodec.encode.BLOCK_WEIGHTS", 400)
    monkeypatch.setattr(tasks, "PART_BLOCKS", 2)
    bf16 = Producer("F32", "k", "F32", "BF16")
    first = {
        "a.weight": stored(simulated(random(1, 60, 48), zeros=True)),
        "experts": stored(simulated(random(2, 60, 40), 3, bf16, 40).reshape(3, 20, 40)),
    }
    second = {
        "lm_head.weight": stored(simulated(random(3, 30, 33), 1)),
        "plain.weight": floats(random(4, 30, 20), "F16"),
        "norm.weight": floats(np.ones(20), "F16"),
        "wide.weight": floats(random(5, 4, 20), "F64"),
        "steps": Stored("I64", (1, 1), bytes(8)),
    }
    return write_shards(tmp_path / "model", [first, second])


# Runs


def test_a_published_model_at_depth_1(published: Path, tmp_path: Path) -> None:
    """Every matrix of a linear layer is packed, in at most 1.95 bits a weight, and every bit comes back."""
    planned = repack(published, tmp_path / "out")
    packed = [item for item in planned.values() if item.depth]
    assert [item.depth for item in packed] == [1] * 6
    assert all(".layer." in item.tensor.name for item in packed)
    assert 8 * sum(item.stored for item in packed) <= 1.95 * sum(item.weights for item in packed)
    check_restored(published, tmp_path / "out" / "repacked", tmp_path / "back")
    assert (tmp_path / "out" / "repacked" / "config.json").exists()


def test_depth_and_group_size_are_found_whatever_the_name(sharded: Path, tmp_path: Path) -> None:
    """Of tensors of any rank from 2 on, sharded, in parts; the file says what made it."""
    planned = repack(sharded, tmp_path / "out")
    packed = tmp_path / "out" / "repacked"
    forms = {}
    for path in packed.glob("*.trit"):
        with open_file(path) as file:
            assert file.metadata["tritcodec.method"] == "repack"
            for name in file.keys():  # noqa: SIM118  # no dict
                tensor = file.get_tensor(name)
                if isinstance(tensor, TritTensor):
                    forms[name] = (tensor.depth, tensor.shift, tensor.group_size, tensor.dtype)
    assert forms == {
        "a.weight": (2, 0, 16, "F16"),
        "experts": (3, 0, 40, "BF16"),
        "lm_head.weight": (1, 0, 16, "F16"),
    }
    reasons = {name: item.reason for name, item in planned.items() if not item.depth}
    assert reasons == {
        "plain.weight": "no group fits, the first in row 0, column 0",
        "norm.weight": "rank 1",
        "wide.weight": "dtype F64",
        "steps": "integer I64",
    }
    check_restored(sharded, packed, tmp_path / "back")


@pytest.mark.parametrize(
    ("columns", "size"), [(16, 16), (20, 20), (32, 32), (100, 100), (128, 128), (200, 200), (1 << 17, 128)]
)
def test_the_group_size_is_at_most_the_row(tmp_path: Path, columns: int, size: int) -> None:
    """A matrix of zeros fits every group size (SPEC 16.4), and its steps begin at 1."""
    source = write_model(tmp_path / "model", {"a.weight": Stored("F16", (64, columns), bytes(128 * columns))})
    assert repack(source, tmp_path / "out")["a.weight"].reason is None
    with open_file(tmp_path / "out" / "repacked" / TRIT) as file:
        tensor = file.get_tensor("a.weight")
    assert isinstance(tensor, TritTensor)
    assert tensor.group_size == size
    assert tensor.codebook.view(np.uint32).tolist() == [0x3F80_0000 + 64 * i for i in range(27)]


def test_negative_zeros_are_counted_or_kept(sharded: Path, tmp_path: Path) -> None:
    """By default they come back as +0; with strict zeros the matrix stays as it is, with all its bits."""
    before = contents(sharded)["a.weight"]
    count = int(np.count_nonzero(before.view(np.uint16) == 0x8000))
    assert count > 10
    finding = repack(sharded, tmp_path / "out")["a.weight"].finding
    assert finding is not None
    assert finding.negative_zeros == count
    strict = repack(sharded, tmp_path / "strict", Repack(strict_zeros=True))
    assert strict["a.weight"].reason == f"{count:,} negative zeros"
    assert strict["experts"].depth == 3
    dequantize_model(tmp_path / "strict" / "repacked", tmp_path / "back")
    assert contents(tmp_path / "back")["a.weight"].tobytes() == before.tobytes()


def test_what_is_asked_for(sharded: Path, tmp_path: Path) -> None:
    """A depth for all, and names to keep."""
    planned = repack(sharded, tmp_path / "out", Repack(depth=2), ["*head*"])
    assert {name: item.depth for name, item in planned.items() if item.depth} == {"a.weight": 2}
    assert planned["lm_head.weight"].reason == "--keep *head*"
    assert planned["experts"].reason == "no group fits, the first in row 0, column 0"
    check_restored(sharded, tmp_path / "out" / "repacked", tmp_path / "back")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_kept(tmp_path: Path, value: float) -> None:
    """They are no fault of a matrix that is only to be packed: it stays raw."""
    w = simulated(random(1, 20, 16))
    w[3, 4] = value
    source = write_model(tmp_path / "model", {"w": stored(w)})
    assert repack(source, tmp_path / "out")["w"].reason == "1 values not finite"
    dequantize_model(tmp_path / "out" / "repacked", tmp_path / "back")
    assert contents(tmp_path / "back")["w"].tobytes() == w.tobytes()


def test_what_would_not_become_smaller_is_kept(tmp_path: Path) -> None:
    """A codebook takes 108 bytes."""
    source = write_model(tmp_path / "model", {"w": floats(np.ones((4, 4)), "F16")})
    assert repack(source, tmp_path / "out")["w"].reason == "packed at depth 1 it would take 115 bytes"


# The proof


def flipped(encode: Callable[..., tuple[Array, Array]]) -> Callable[..., tuple[Array, Array]]:
    """An encoder that gets one level wrong."""

    def wrong(*arguments: object) -> tuple[Array, Array]:
        codes, offsets = encode(*arguments)
        offsets[0, 7] = 1 if offsets[0, 7] == 0 else 0
        return codes, offsets

    return wrong


def test_other_bits_never_appear_under_the_name(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written is decoded and compared with the source; without that, wrong bits would pass."""
    monkeypatch.setattr(Values, "encode", flipped(Values.encode))
    with pytest.raises(TritError, match=r"row 0, column 7 has the bits 0x\w+ and decodes to 0x\w+") as caught:
        repack(sharded, tmp_path / "out")
    assert "'a.weight'" in caught.value.where
    assert os.listdir(tmp_path / "out") == [STATE]
    monkeypatch.setattr(Repack, "prove", lambda *_: None)
    repack(sharded, tmp_path / "out")
    with pytest.raises(AssertionError):
        check_restored(sharded, tmp_path / "out" / "repacked", tmp_path / "back")


def test_a_shard_that_was_not_proved_is_proved_later(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between writing and comparing leaves nothing that the next run takes for done."""
    with monkeypatch.context() as patch:
        patch.setattr(Repack, "prove", interrupt)
        with pytest.raises(KeyboardInterrupt):
            repack(sharded, tmp_path / "out")
    proved: list[object] = []
    prove = Repack.prove
    monkeypatch.setattr(Repack, "prove", lambda *arguments: proved.append(prove(*arguments)))
    repack(sharded, tmp_path / "out")
    assert len(proved) == 2
    assert tree(tmp_path / "out") == tree_of(sharded, tmp_path / "alone")


def interrupt(*_: object) -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


def tree_of(source: Path, target: Path) -> dict[str, bytes | None]:
    """What an undisturbed run makes."""
    repack(source, target)
    return tree(target)


def test_altered_matrices_are_not_claimed(tmp_path: Path) -> None:
    """Fine-tuned a little, one bit changed, other weights: raw, and every bit is there."""
    w, rng = simulated(random(1, 64, 64)), np.random.default_rng(0)
    bit = w.copy()
    bit.view(np.uint16)[17, 33] ^= 1
    tuned = (w + rng.standard_normal(w.shape) * 1e-3).astype(np.float16)
    source = write_model(tmp_path / "model", {"bit": stored(bit), "tuned": stored(tuned), "w": stored(w)})
    planned = repack(source, tmp_path / "out")
    assert [name for name, item in planned.items() if item.depth] == ["w"]
    where = "row 17, column 33"
    assert planned["bit"].reason == f"99.60 % of groups fit at depth 2, 1 value misses, the first in {where}"
    assert str(planned["tuned"].reason).startswith("no group fits")
    check_restored(source, tmp_path / "out" / "repacked", tmp_path / "back")


def test_likely_arithmetic_is_in_the_reason(tmp_path: Path) -> None:
    """Where no step gives what 16-bit products gave."""
    made = simulated(random(1, 64, 64), 3, Producer("BF16", "k/H", "BF16", "BF16"))
    assert made.dtype == ml_dtypes.bfloat16
    source = write_model(tmp_path / "model", {"w": stored(made)})
    item = repack(source, tmp_path / "out")["w"]
    assert item.finding is not None
    assert item.finding.near == 3
    assert "; as if depth 3: BF16 scale times k/13, multiplied in BF16 (" in str(item.reason)


# It is a run like any other


def test_workers_and_interruptions_change_no_byte(sharded: Path, tmp_path: Path) -> None:
    """Threads, or a run that stops at every step in turn: the same folder."""
    expected = tree_of(sharded, tmp_path / "alone")
    with ThreadPoolExecutor(4) as pool:
        quantize_model(repack_job(ModelSource(sharded), Repack()), tmp_path / "threads", pool, 4)
    assert tree(tmp_path / "threads") == expected
    for number in itertools.count(1):
        steps = itertools.count(1)

        def stop(*_: object, at: int = number, steps: itertools.count[int] = steps) -> None:
            if next(steps) == at:
                raise KeyboardInterrupt

        try:
            repack(sharded, tmp_path / "out", progress=stop)
            break
        except KeyboardInterrupt:
            assert os.listdir(tmp_path / "out") == [STATE]
    assert number > 12
    assert tree(tmp_path / "out") == expected


def test_another_run_is_not_gone_on_with(sharded: Path, tmp_path: Path) -> None:
    """Other options, and `quantize`, are refused where a run is unfinished."""

    def stop(phase: str, *_: object) -> None:
        if phase == "encode":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repack(sharded, tmp_path / "out", progress=stop)
    with untouched(tmp_path), pytest.raises(TritError, match="repack strict zeros was false, is true"):
        repack(sharded, tmp_path / "out", Repack(strict_zeros=True))


# The command


def test_the_command_reports(tritcodec: Command, sharded: Path, tmp_path: Path) -> None:  # noqa: F811  # a fixture, by its name
    """A row for what is packed, a reason for what is not, a total; and the same for machines."""
    status, out, _ = tritcodec("repack", sharded, tmp_path / "out")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == [
        "tensor",
        "shape",
        "dtype",
        "depth",
        "group",
        "steps",
        "-0",
        "before",
        "after",
    ]
    assert lines[1].split()[:5] == ["a.weight", "60x48", "F16", "2", "16"]
    assert lines[2].split()[:5] == ["experts", "3x20x40", "BF16", "3", "40"]
    assert "raw: 'plain.weight': no group fits, the first in row 0, column 0" in lines
    assert "raw, not looked at: 1 integer I64, 1 rank 1" in lines
    assert "3 of 5 matrices packed: 6,270 weights in " in lines[-1]
    status, out, _ = tritcodec("repack", sharded, tmp_path / "again", "--json")
    report = json.loads(out)
    assert (status, report["packed"], report["matrices"], report["weights"]) == (0, 3, 5, 6270)
    assert f"{report['after']:,} bytes, from {report['before']:,}" in lines[-1]
    assert f"{report['negative zeros']:,} negative zeros become +0" in lines[-1]
    tensors = {tensor["name"]: tensor for tensor in report["tensors"]}
    assert (tensors["experts"]["depth"], tensors["experts"]["group size"]) == (3, 40)
    assert (tensors["plain.weight"]["row"], tensors["plain.weight"]["fitting"]) == (0, 0)
    assert (
        tritcodec("repack", sharded, tmp_path / "none", "--keep", "*").out.endswith("1,920 bytes raw\n")
        is False
    )


def test_the_command_keeps_and_forces(tritcodec: Command, published: Path, tmp_path: Path) -> None:  # noqa: F811  # a fixture, by its name
    """Its options arrive; nothing packed is no error."""
    options = ["--keep", "*layer*", "--depth", 1, "--strict-zeros", "--workers", 1, "--progress", "none"]
    status, out, err = tritcodec("repack", published, tmp_path / "out", *options)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith(f"{tmp_path / 'out' / 'repacked'}: 0 of 3 matrices packed; ")
    assert (tmp_path / "out" / "repacked" / TRIT).exists()


def flipped_at(row: int, column: int) -> Callable[..., Any]:
    """`Values.encode` with another level at a place of the block."""
    encode = Values.encode

    def wrong(*arguments: Any) -> Any:
        codes, offsets = encode(*arguments)
        offsets[row, column] = 1 if offsets[row, column] == 0 else 0
        return codes, offsets

    return wrong


def test_the_proof_names_the_row_of_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever band it is."""
    monkeypatch.setattr("tritcodec.model.repack.BAND_WEIGHTS", 64)
    write_model(tmp_path / "model", {"w": stored(simulated(random(1, 20, 64)))})
    monkeypatch.setattr(Values, "encode", flipped_at(-1, 7))
    with pytest.raises(TritError, match="row 19, column 7"):
        repack(tmp_path / "model", tmp_path / "out")


def test_minus_zero_may_become_zero_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof passes the sign of a zero, not a weight in its place."""
    w = simulated(random(1, 20, 64))
    w[w == 0] = -0.0
    write_model(tmp_path / "model", {"w": stored(w)})
    column = int((w.astype(np.float32)[0] == 0).argmax())
    monkeypatch.setattr(Values, "encode", flipped_at(0, column))
    with pytest.raises(TritError, match=f"row 0, column {column} has the bits"):
        repack(tmp_path / "model", tmp_path / "out")


def test_what_takes_as_much_packed_stays_as_it_is(tmp_path: Path) -> None:
    """148 bytes are no fewer than 148."""
    write_model(tmp_path / "model", {"w": floats(np.ones((2, 37)), "BF16")})
    found = repack(tmp_path / "model", tmp_path / "out")["w"]
    assert found.reason == "packed at depth 1 it would take 148 bytes"


@pytest.mark.parametrize("work", [Repack(), tasks.Recipe(16, "optimal", False)])
def test_a_survey_has_the_stamp_from_before_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: tasks.Work
) -> None:
    """A file that changes while it is read is read again by the next run."""
    write_model(tmp_path / "model", {"w": stored(simulated(random(1, 20, 64)))})
    (tensor,) = ModelSource(tmp_path / "model").tensors
    before, read = stamp_of(tensor.path), tasks.HashingReader.read

    def late(reader: tasks.HashingReader, start: int, stop: int) -> npt.NDArray[Any]:
        rows = read(reader, start, stop)
        os.utime(tensor.path, ns=(1, 1))
        return rows

    monkeypatch.setattr(tasks.HashingReader, "read", late)
    assert work.survey(tensor, (1, 2), False).stamp == before
