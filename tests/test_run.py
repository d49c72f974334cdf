"""Runs over whole models: shards, plans, workers, kills, and what an unfinished run is taken for."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import noting
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import MINILM, Stored, convert, floats, job, tree, untouched, weights, write_model
from safetensors.numpy import load_file as load_safetensors

from tritcodec import TritError, TritTensor, load_file, open_file, open_model, progress, verify_file
from tritcodec.encode import Weights, quantize
from tritcodec.header import TritEntry
from tritcodec.model import run, spool, tasks
from tritcodec.model import workers as model_workers
from tritcodec.model.companions import companions
from tritcodec.model.export import dequantize_model
from tritcodec.model.folder import flush
from tritcodec.model.index import INDEX_NAME, decode_index
from tritcodec.model.plan import DEPTHS, config_of, form_of, least_depth, within_budget
from tritcodec.model.policy import Policy
from tritcodec.model.run import quantize_model, survey_all
from tritcodec.model.source import ModelSource, SourceTensor, read_tensor
from tritcodec.model.spool import FINGERPRINT, STATE, Spool, differences
from tritcodec.model.tasks import Surveyed, parts
from tritcodec.model.workers import Inline, Task, announced, run_all, workers
from tritcodec.writer import sync

posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
CONFIGS = ["uniform-d1", "uniform-d3", "sens-0.02", "bpw-4"]


def write_shards(folder: Path, shards: Sequence[dict[str, Stored]], **changes: str) -> Path:
    """A folder of shards with an index; *changes* to its weight_map."""
    names = [f"model-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))]
    weight_map: dict[str, str] = {}
    for name, tensors in zip(names, shards, strict=True):
        write_model(folder / name, tensors, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map | changes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of three shards, with matrices of several parts: blocks are made small."""
    monkeypatch.setattr("tritcodec.encode.BLOCK_WEIGHTS", 400)
    monkeypatch.setattr(tasks, "PART_BLOCKS", 2)
    rng = np.random.default_rng(1)
    rough = floats(rng.standard_normal((60, 48)) * np.exp(rng.standard_normal((60, 1))), "BF16")
    first = {"model.embed_tokens.weight": weights(6, 20), "model.layers.0.mlp.up_proj.weight": rough}
    second = {"model.layers.0.mlp.experts.down_proj": floats(rng.standard_normal((3, 16, 40)), "F16")}
    third = {"model.layers.1.mlp.up_proj.weight": weights(23, 37), "model.norm.weight": weights(20)}
    return write_shards(tmp_path / "model", [first, second, third])


# Shards


def test_every_shard_becomes_one(sharded: Path, tmp_path: Path) -> None:
    """Tensors stay in their shard; the index has all of them, and each shard's identity; files come along."""
    out = convert(sharded, tmp_path / "out", ["uniform-d2"]) / "uniform-d2"
    names = [f"model-{n:05}-of-00003.trit" for n in (1, 2, 3)]
    assert sorted(os.listdir(out)) == ["config.json", *names, INDEX_NAME]
    index = decode_index((out / INDEX_NAME).read_bytes())
    for name, shard in zip(names, ModelSource(sharded).shards, strict=True):
        assert verify_file(out / name).ok
        with open_file(out / name) as file:
            assert file.identity == index.shards[name]
            assert set(file.keys()) == {t.name for t in shard.tensors} == index.tensors[name]
            assert file.metadata["format"] == "pt"
            for tensor in shard.tensors:
                found = file.get_tensor(tensor.name)
                if isinstance(found, TritTensor):
                    expected = quantize(read_tensor(tensor), 2)
                    assert [p.tobytes() for p in found.planes] == [p.tobytes() for p in expected.planes]
                    assert found.codebook.tobytes() == expected.codebook.tobytes()
                else:
                    assert found.tobytes() == read_tensor(tensor).tobytes()
    assert index.total_size == sum((out / name).stat().st_size for name in names)


INDEX = "model.safetensors.index.json"
THIRD = "model-00003-of-00003.safetensors"
TWICE: list[dict[str, Stored]] = [{"a": weights(2), "b": weights(2)}, {"a": weights(2)}]
Damage = Callable[[Path], object]


def with_index(text: str) -> Damage:
    """An index of that text."""
    return lambda folder: (folder / INDEX).write_text(text)


def leading_to(path: str) -> Damage:
    """An index that says that a tensor is in *path*."""
    return lambda folder: write_shards(folder, [{"a": weights(2)}], a=path)


BROKEN: dict[str, tuple[Damage, str]] = {
    "a shard is missing": (lambda folder: os.remove(folder / THIRD), "1 of 3 shards are missing"),
    "a shard is cut off": (
        lambda folder: os.truncate(folder / THIRD, 300),
        "not a valid safetensors file.*the file ends before tensor .* does",
    ),
    "the index names what is not there": (
        lambda folder: write_shards(folder, [{"a": weights(2)}], ghost="model-00001-of-00001.safetensors"),
        "holds tensor 'ghost', and it does not",
    ),
    "a tensor is in two shards": (
        lambda folder: write_shards(folder, TWICE),
        "'a' is in two shards, model-00001-of-00002.safetensors and model-00002-of-00002.safetensors",
    ),
    "the index is no JSON": (with_index("{"), "no JSON"),
    "the index is nested": (with_index("[" * 100_000), "no JSON"),
    "the index is empty": (with_index('{"weight_map": {}}'), "names no tensor"),
    "the index is a list": (with_index("[]"), "no weight_map"),
    "the index maps to numbers": (with_index('{"weight_map": {"a": 1}}'), "no weight_map"),
    "a path up": (leading_to("../x.safetensors"), "is no name"),
    "a path stands behind a name": (leading_to("x.safetensors/../../y.safetensors"), "is no name"),
    "an absolute path": (leading_to("/etc/x.safetensors"), "is no name"),
    "a backslash": (leading_to("a\\b.safetensors"), "is no name"),
    "a hidden file": (leading_to(".x.safetensors"), "is no name"),
    "a drive": (leading_to("C:x.safetensors"), "is no name"),
    "another kind of file": (leading_to("x.bin"), "is no name"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_is_refused_at_once(sharded: Path, tmp_path: Path, fault: str) -> None:
    """Before any weight is read; the error names file and tensor."""
    damage, message = BROKEN[fault]
    damage(sharded)
    with untouched(tmp_path), pytest.raises(TritError, match=message):
        convert(sharded, tmp_path / "out")


def test_a_weight_that_is_nan_is_found_before_anything_is_encoded(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last shard, too; the error names file and tensor, and nothing is left."""
    bad = np.zeros((23, 37))
    bad[22, 36] = np.nan
    write_shards(
        sharded, [{"first.weight": weights(9, 20)}, {"e.bias": weights(3)}, {"last.weight": floats(bad)}]
    )
    monkeypatch.setattr("tritcodec.model.tasks.Recipe.encode", pytest.fail)
    with untouched(tmp_path), pytest.raises(TritError, match="1 are NaN and 0 are infinite") as caught:
        convert(sharded, tmp_path / "out", CONFIGS)
    assert caught.value.where == f"{sharded / THIRD}: tensor 'last.weight'"


def test_a_single_file_wins_over_an_index(sharded: Path) -> None:
    """As stock loaders have it."""
    write_model(sharded, {"w": weights(4, 4)})
    assert [tensor.name for tensor in ModelSource(sharded).tensors] == ["w"]


@pytest.mark.parametrize("empty", [0, 1])
def test_a_shard_without_tensors_is_not_read(tmp_path: Path, empty: int) -> None:
    """No index names one, and so no .trit shard comes of it: the one beside it is the whole model."""
    shards: list[dict[str, Stored]] = [{"a.weight": weights(8, 20)}]
    shards.insert(empty, {})
    out = convert(write_shards(tmp_path / "model", shards), tmp_path / "out", ["uniform-d1"])
    assert sorted(os.listdir(out / "uniform-d1")) == ["config.json", "model.trit"]
    assert list(load_file(out / "uniform-d1" / "model.trit")) == ["a.weight"]


def test_a_shard_that_the_index_does_not_name(sharded: Path) -> None:
    """It belongs to the model, by its name and the count in it: without it a part would be missing."""
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    kept = {name: shard for name, shard in index["weight_map"].items() if shard != THIRD}
    path.write_text(json.dumps({"weight_map": kept}))
    message = f"{path}: {THIRD} is in the folder, and the index does not name it; add it or move it away"
    content = (sharded / THIRD).read_bytes()
    for data in (content, content[:-1], b""):  # whatever is wrong with it
        (sharded / THIRD).write_bytes(data)
        with pytest.raises(TritError, match=re.escape(message)):
            ModelSource(sharded)
    (sharded / THIRD).write_bytes(content)
    (sharded / THIRD).rename(sharded / "model-00003-of-00009.safetensors")  # of another model
    assert {tensor.name for tensor in ModelSource(sharded).tensors} == kept.keys()


# Plans


def surveyed(errors: Sequence[float], energy: float = 1.0) -> Surveyed:
    """A matrix of which only the errors at depths 1 to 4 are known."""
    return Surveyed((), "", errors=dict(enumerate(errors, 1)), energy=energy)


def matrix(name: str, *shape: int) -> SourceTensor:
    """A matrix that is nowhere."""
    return SourceTensor(name, "F32", shape, Path("none"), 0)


@pytest.mark.parametrize(
    ("bound", "depth"), [("0.5", 1), ("0.18", 1), ("0.16", 1), ("0.15", 2), ("0.001", 3), ("0.00001", 4)]
)
def test_sens_takes_the_least_depth_within_its_bound(bound: str, depth: int) -> None:
    """Where an estimate is within five percent of the bound, the error that comes out is to decide."""
    errors = surveyed([0.165, 0.018, 0.00101, 0.0002]).errors
    assert least_depth(errors, config_of(f"sens-{bound}").value) == depth


def test_sens_keeps_its_bound(tmp_path: Path) -> None:
    """On a real model, every matrix is within it, and one trit less would not be."""
    bounds = [0.2, 0.05, 0.02, 0.003]
    configs = [*(f"sens-{bound}" for bound in bounds), *(f"uniform-d{depth}" for depth in DEPTHS)]
    out = convert(MINILM, tmp_path / "out", configs)
    source = load_safetensors(MINILM / "model.safetensors")
    uniform = {depth: trit_tensors(out / f"uniform-d{depth}") for depth in DEPTHS}
    for bound in bounds:
        chosen = trit_tensors(out / f"sens-{bound}")
        assert len(chosen) == 6
        for name, tensor in chosen.items():
            assert relative_error(source[name], tensor) <= bound
            if tensor.depth > 1:
                assert relative_error(source[name], uniform[tensor.depth - 1][name]) > bound


@pytest.mark.parametrize("function", ["replace", "rename"])
def test_sens_says_what_came_out_whoever_wrote_it(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """Depths that errors decided are those of the files, where an earlier run wrote them, too."""
    monkeypatch.setattr(Weights, "estimate", lambda *_: (0.0, 1.0))  # depth 1, which is too low
    model, real = job(sharded, ["sens-0.02"]), getattr(os, function)

    def fail_late(source: Any, target: Any) -> None:
        if str(target).endswith("00003-of-00003.trit") or function == "rename":
            raise OSError("of ours")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail_late)
        with pytest.raises(OSError, match="of ours"):
            quantize_model(model, tmp_path / "out", Inline())
    (planned,) = quantize_model(model, tmp_path / "out", Inline()).values()
    with open_model(tmp_path / "out" / "sens-0.02") as made:
        depths = {entry.name: entry.form.depth for entry in made.entries() if isinstance(entry, TritEntry)}
    assert {item.tensor.name: item.depth for item in planned if item.depth} == depths
    assert set(depths.values()) != {1}


def trit_tensors(folder: Path) -> dict[str, TritTensor]:
    """The trit tensors of a model's only shard."""
    tensors = load_file(folder / "model.trit")
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, TritTensor)}


def relative_error(w: np.ndarray, t: TritTensor) -> float:
    """The squared error of *t* relative to the squared weights."""
    exact = w.astype(np.float64)
    return float(np.square(exact - t.dequantize("F32")).sum() / np.square(exact).sum())


def test_sens_goes_deeper_where_the_estimate_was_too_low(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate says depth 1 for all; the errors that come out say otherwise, and the bound is kept."""
    expected = convert(sharded, tmp_path / "expected", ["sens-0.03"])
    monkeypatch.setattr(Weights, "estimate", lambda *_: (0.0, 1.0))
    assert tree(convert(sharded, tmp_path / "out", ["sens-0.03"])) == tree(expected)


def test_estimates_are_near_what_comes_out() -> None:
    """On every matrix of the real model and at every depth, within five percent."""
    model = job(MINILM, ["bpw-3"])
    surveys = survey_all(model, Inline(), 1)
    for tensor in model.matrices:
        w = read_tensor(tensor)
        energy = np.square(w.astype(np.float64)).sum()
        assert surveys[tensor.name].energy == pytest.approx(energy, rel=0.02)
        for depth in DEPTHS:
            relative = relative_error(w, quantize(w, depth))
            assert surveys[tensor.name].errors[depth] == pytest.approx(relative, rel=0.05)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_budget_is_spent_as_well_as_it_can_be(data: st.DataObject) -> None:
    """Against every mixture of depths: within the budget, and no worse than what a little less allows."""
    count = data.draw(st.integers(1, 4))
    matrices = [matrix(f"m{i}", data.draw(st.integers(1, 40)) * 5, 64) for i in range(count)]
    surveys = {}
    for m in matrices:
        falls = [1.0, *(data.draw(st.floats(0.02, 1.1)) for _ in range(3))]
        surveys[m.name] = surveyed(
            list(itertools.accumulate(falls, lambda a, b: a * b)), data.draw(st.floats(0.1, 9))
        )
    fixed = {"m0": data.draw(st.sampled_from(DEPTHS))} if data.draw(st.booleans()) else {}
    bits = data.draw(st.floats(2, 7.5))
    cost = {(m.name, d): 8 * form_of(m, d, 16).nbytes for m in matrices for d in DEPTHS}
    total = sum(math.prod(m.shape) for m in matrices)

    def error(depths: dict[str, int]) -> float:
        return sum(surveys[name].errors[depth] * surveys[name].energy for name, depth in depths.items())

    def price(depths: dict[str, int]) -> float:
        return sum(cost[name, depth] for name, depth in depths.items())

    every = [
        dict(zip((m.name for m in matrices), some, strict=True))
        for some in itertools.product(DEPTHS, repeat=count)
    ]
    allowed = [
        depths for depths in every if fixed.items() <= depths.items() and price(depths) <= bits * total
    ]
    if not allowed:
        with pytest.raises(TritError, match="too few: the least that this model takes is"):
            within_budget(matrices, fixed, bits, 16, surveys)
        return
    found = within_budget(matrices, fixed, bits, 16, surveys)
    assert fixed.items() <= found.items()
    assert price(found) <= bits * total
    largest = max(cost[m.name, 4] - cost[m.name, 1] for m in matrices)  # what the last step may leave unused
    cheaper = [error(depths) for depths in allowed if price(depths) <= bits * total - largest]
    assert not cheaper or error(found) <= min(cheaper) * (1 + 1e-9)


def test_depths_can_be_fixed_by_name(sharded: Path, tmp_path: Path) -> None:
    """Whatever the config says; the first pattern that matches counts."""
    policy = Policy(depths=[("*experts*", 4), ("*proj*", 1)])
    out = convert(sharded, tmp_path / "out", ["uniform-d2", "sens-0.001", "bpw-6"], policy)
    for config in os.listdir(out):
        found: dict[str, int] = {}
        for path in (out / config).glob("*.trit"):
            with open_file(path) as file:
                found |= {e.name: e.form.depth for e in file.header.entries if isinstance(e, TritEntry)}
        assert found == {
            "model.layers.0.mlp.experts.down_proj": 4,
            "model.layers.0.mlp.up_proj.weight": 1,
            "model.layers.1.mlp.up_proj.weight": 1,
        }


# Workers


def test_threads_change_no_byte(sharded: Path, tmp_path: Path) -> None:
    """Eight threads or one: the same folders, of matrices in many parts."""
    with ThreadPoolExecutor(8) as pool:
        quantize_model(job(sharded, CONFIGS), tmp_path / "threads", pool, 8)
    assert tree(tmp_path / "threads") == tree(convert(sharded, tmp_path / "one", CONFIGS))


def test_processes_change_no_byte(tmp_path: Path) -> None:
    """Two processes or none beside: the same folders."""
    with workers(2) as (pool, width):
        quantize_model(job(MINILM, CONFIGS), tmp_path / "two", pool, width)
    assert tree(tmp_path / "two") == tree(convert(MINILM, tmp_path / "alone", CONFIGS))


def test_few_tasks_are_under_way_at_once() -> None:
    """Two for each worker, so that results do not pile up; all are done, whatever their order."""
    running = most = 0

    class Counting(Inline):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            return super().submit(fn, *args, **kwargs)

    found = []
    for key, result in run_all(Counting(), 3, ((n, pow, (n, 2)) for n in range(50))):
        running -= 1
        found.append((key, result))
    assert sorted(found) == [(n, n * n) for n in range(50)]
    assert most <= 6


@posix
def test_a_worker_that_dies_is_an_error_that_can_be_gone_on_from(tmp_path: Path) -> None:
    """Killed as for want of memory: the error says so, and the same call completes."""
    target, configs = tmp_path / "out", ["uniform-d1", "uniform-d4"]

    def kill(phase: str, *_: object) -> None:
        for process in multiprocessing.active_children() if phase == "encode" else []:
            process.kill()  # no error where the pool has noticed by now

    with workers(2) as (pool, width), pytest.raises(ChildProcessError, match="run the same command again"):
        quantize_model(job(MINILM, configs), target, pool, width, kill)
    assert os.listdir(target) == [STATE]
    assert tree(convert(MINILM, target, configs)) == tree(convert(MINILM, tmp_path / "undisturbed", configs))


ORPHANS = """
import os, signal, sys, multiprocessing
from tritcodec.model.workers import workers

if __name__ == "__main__":
    with workers(2) as (pool, _):
        print(pool.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_workers_end_with_what_made_them(tmp_path: Path) -> None:
    """Where that was killed, they are not left behind."""
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    worker = int(done.stdout)
    for _ in range(1000):
        if not _alive(worker):
            return
        time.sleep(0.01)
    pytest.fail("a worker outlived its parent by ten seconds")


INTERRUPTED = """
import os, signal, sys, threading
from tritcodec import cli
from tritcodec.model.spool import Spool

put = Spool.put

def interrupt(*arguments):
    os.killpg(0, signal.SIGINT)
    if arguments:
        put(*arguments)

if __name__ == "__main__":
    cli.WEIGHTS_A_WORKER = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    if sys.argv[1] == "at work":
        Spool.put = interrupt
    else:
        threading.Timer(float(sys.argv[1]), interrupt).start()
    sys.exit(cli.main(sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize("moment", ["0.1", "0.3", "0.6", "0.9", "at work"])
def test_an_interrupt_of_all_processes_is_one_line(tmp_path: Path, moment: str) -> None:
    """Ctrl-C goes to the workers, too: seconds after the start, and at work, they end without a word."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    write_model(tmp_path / "model.safetensors", {name: weights(1 << 10, 1 << 12) for name in "abcd"})
    arguments = ["quantize", tmp_path, tmp_path / "out", "--configs", "bpw-4", "--workers", 2]
    command = [sys.executable, script, moment, *arguments, "--progress", "none"]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.startswith("tritcodec: interrupted")
    assert done.stderr.count("\n") == 1


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# What an unfinished run is taken for


def unfinished(source: Path, target: Path, configs: Sequence[str] = CONFIGS, at: int = 9) -> None:
    """A run that stops at its step *at*."""
    steps = itertools.count(1)

    def stop(*_: object) -> None:
        if next(steps) == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, target, configs, progress=stop)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "configs": ({"configs": ["uniform-d1"]}, r'configs was \["uniform-d1", .*\], is \["uniform-d1"\]'),
    "policy": ({"policy": Policy(keep=["*experts*"])}, r'keep was \[\], is \["\*experts\*"\]'),
    "depth": ({"policy": Policy(depths=[("*up*", 2)])}, r'depth was \[\], is \[\["\*up\*", 2\]\]'),
    "group size": ({"group_size": 32}, "group size was 16, is 32"),
    "method": ({"method": "tritllm-v2"}, 'method was "optimal", is "tritllm-v2"'),
    "nested": ({"nested": True}, "nested was false, is true"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_unfinished_run_of_something_else_is_refused(sharded: Path, tmp_path: Path, what: str) -> None:
    """The error says what changed and what to do; what is there stays, and the first call can go on."""
    unfinished(sharded, tmp_path / "out")
    options, message = CHANGES[what]
    with untouched(tmp_path), pytest.raises(TritError, match=message) as caught:
        convert(sharded, tmp_path / "out", **{"configs": CONFIGS} | options)
    assert f"remove {tmp_path / 'out' / STATE}" in str(caught.value)
    assert tree(convert(sharded, tmp_path / "out", CONFIGS)) == tree(
        convert(sharded, tmp_path / "again", CONFIGS)
    )


def test_a_source_of_other_sizes_is_refused(sharded: Path, tmp_path: Path) -> None:
    """A shard that is another by its header: the error names it."""
    unfinished(sharded, tmp_path / "out")
    write_model(sharded / THIRD, {"model.layers.1.mlp.up_proj.weight": weights(4, 4)})
    index = json.loads((sharded / INDEX).read_text())
    del index["weight_map"]["model.norm.weight"]
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(TritError, match=rf"source {THIRD} bytes was \d+, is \d+"):
        convert(sharded, tmp_path / "out", CONFIGS)


@pytest.mark.parametrize("shape", [(100,), (1, 100), (100, 1), (5, 20), ()])
def test_a_raw_tensor_is_read_by_elements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    """However long its rows are, little of it is in memory, and nothing is left out."""
    monkeypatch.setattr(tasks, "BAND_ELEMENTS", 8)
    data = bytes(range(math.prod(shape)))
    [tensor] = ModelSource(write_model(tmp_path / "model", {"w": Stored("U8", shape, data)})).tensors
    read = list(tasks.bands(tensor))
    assert max(band.size for band in read) <= 8
    assert b"".join(band.tobytes() for band in read) == data


def test_a_task_is_announced_before_the_one_before_is_given() -> None:
    """So that what it reads can be fetched while that is at work."""
    order: list[tuple[str, int]] = []
    tasks: list[Task[int, None]] = [(number, print, ()) for number in range(3)]
    for number, _, _ in announced(tasks, lambda task: order.append(("announced", task[0]))):
        order.append(("given", number))
    first, second, third = ([("announced", number), ("given", number)] for number in range(3))
    assert order == [first[0], second[0], first[1], third[0], second[1], third[1]]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="a system that takes no advice")
def test_all_that_is_read_is_announced(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system is told to read every tensor for the survey, and every part of a matrix to be encoded."""
    told: set[tuple[int, int]] = set()
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, size, _advice: told.add((offset, size)))
    small = {"one": Stored("F32", (), bytes(4)), "none": Stored("F32", (0, 3), b""), "bias": weights(7)}
    for source in (sharded, write_shards(tmp_path / "small", [small])):
        convert(source, tmp_path / f"{source.name} out", CONFIGS)
        made = job(source, CONFIGS)
        for tensor in made.source.tensors:
            size = read_tensor(tensor).nbytes
            assert (tensor.offset, size) in told or not size
            for start, stop in parts(tensor, made.work.group_size) if tensor in made.matrices else ():
                row = size // math.prod(tensor.shape[:-1])
                assert (tensor.offset + start * row, (stop - start) * row) in told
    assert all(size for _, size in told)  # 0 would be the rest of the file


@posix
def test_a_log_in_the_source_is_no_part_of_the_model(sharded: Path) -> None:
    """Where standard output or error go, as with nohup: it grows meanwhile."""
    with open(sharded / "nohup.out", "w") as log, open(sharded / "errors.log", "w") as errors:
        script = "import sys; from pathlib import Path; from tritcodec.model.companions import companions"
        script += "; print(companions(Path(sys.argv[1])))"
        subprocess.run([sys.executable, "-c", script, sharded], stdout=log, stderr=errors, check=True)
    assert (sharded / "nohup.out").read_text() == "[PosixPath('config.json')]\n"
    assert set(companions(sharded)) == {Path("config.json"), Path("errors.log"), Path("nohup.out")}


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_other_weights_in_a_file_of_the_same_header_are_refused(
    sharded: Path, tmp_path: Path, name: str
) -> None:
    """A file that was changed is read again, raw tensors included, whatever time it is said to be of."""
    unfinished(sharded, tmp_path / "out", at=11)
    path = sharded / THIRD
    os.utime(path)  # copied, perhaps: no difference
    unfinished(sharded, tmp_path / "out", at=11)
    tensor = next(t for t in ModelSource(sharded).tensors if t.name == name)
    data, then = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    data[tensor.offset + 3] ^= 0x10
    path.write_bytes(data)
    os.utime(path, ns=(then, then))
    with pytest.raises(TritError, match="has changed since the unfinished run began") as caught:
        convert(sharded, tmp_path / "out", CONFIGS)
    assert caught.value.where == f"{path}: tensor {name!r}"


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_weights_that_change_during_a_run_are_noticed(sharded: Path, tmp_path: Path, name: str) -> None:
    """Between survey and encoding or copying: nothing is made of two versions."""
    path = sharded / THIRD
    tensor = next(t for t in ModelSource(sharded).tensors if t.name == name)

    def change(phase: str, *_: object) -> None:
        if phase == "encode":
            with path.open("r+b") as file:
                file.seek(tensor.offset)
                file.write(b"\0\0\x80\x3f")

    with pytest.raises(TritError, match=r"changed since (they were|it was) surveyed") as caught:
        convert(sharded, tmp_path / "out", CONFIGS, progress=change)
    assert repr(name) in caught.value.where


@pytest.mark.parametrize("at", ["survey", "encode"])
def test_a_source_that_vanishes_can_come_back(sharded: Path, tmp_path: Path, at: str) -> None:
    """A disk that is unmounted: the error names the file, and when it is there again, the run goes on."""
    path = sharded / THIRD

    def vanish(phase: str, *_: object) -> None:
        if phase == at and path.exists():
            path.rename(tmp_path / "away")

    with pytest.raises(FileNotFoundError) as caught:
        convert(sharded, tmp_path / "out", CONFIGS, progress=vanish)
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path / "out") == [STATE]
    (tmp_path / "away").rename(path)
    assert tree(convert(sharded, tmp_path / "out", CONFIGS)) == tree(
        convert(sharded, tmp_path / "undisturbed", CONFIGS)
    )


def test_a_companion_that_has_changed_stops_no_run(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that has grown, say. What has no name yet gets what is there at the end, and nothing else."""
    for name in ("gone.txt", "sub/gone.txt", "becomes"):
        (sharded / name).parent.mkdir(exist_ok=True)
        (sharded / name).write_text("")
    flushed = itertools.count(1)

    def stop(folder: Path) -> None:
        if next(flushed) == 3:
            raise KeyboardInterrupt
        flush(folder)

    monkeypatch.setattr(run, "flush", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(sharded, tmp_path / "out", CONFIGS)
    (sharded / "config.json").write_text("{ }")
    (sharded / "log.txt").write_text("line\n")
    shutil.rmtree(sharded / "sub")
    for name in ("gone.txt", "becomes"):
        (sharded / name).unlink()
    (sharded / "becomes").mkdir()
    (sharded / "becomes" / "folder").write_text("")
    monkeypatch.setattr(run, "flush", flush)
    convert(sharded, tmp_path / "out", CONFIGS)
    for config in CONFIGS:
        assert (tmp_path / "out" / config / "config.json").read_text() == "{ }"
        assert (tmp_path / "out" / config / "log.txt").read_text() == "line\n"
    assert tree(tmp_path / "out") == tree(convert(sharded, tmp_path / "undisturbed", CONFIGS))


def test_a_companion_that_cannot_be_read_is_said_before_the_work(
    sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is copied at the end, after hours."""

    def refuse(path: Path, _mode: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("tritcodec.model.companions.open", refuse, raising=False)
    with pytest.raises(PermissionError) as caught:
        job(sharded, CONFIGS)
    assert caught.value.filename == str(sharded / "config.json")


def test_a_folder_that_cannot_be_flushed_any_more(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the folders have their names the run has done its work, whatever becomes of flushing these."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    rename = os.rename

    def renamed(*paths: Path) -> None:
        rename(*paths)
        monkeypatch.setattr(os, "fsync", fail)

    monkeypatch.setattr(os, "rename", renamed)
    convert(sharded, tmp_path / "out", ["uniform-d1"])
    assert os.listdir(tmp_path / "out") == ["uniform-d1"]


def test_a_budget_that_is_too_small_is_said_before_weights_are_read(sharded: Path) -> None:
    """It depends on shapes and patterns alone, and reading takes hours."""
    with pytest.raises(TritError, match="1 bits a weight are too few"):
        job(sharded, ["uniform-d1", "bpw-1"])
    with pytest.raises(TritError, match="2 bits a weight are too few"):
        job(sharded, ["bpw-2"], Policy(depths=[("*", 4)]))
    job(sharded, ["bpw-2.5"])


def test_a_place_that_is_taken_is_said_before_the_work(sharded: Path, tmp_path: Path) -> None:
    """Where a run goes on, too."""
    unfinished(sharded, tmp_path / "out")
    (tmp_path / "out" / CONFIGS[-1]).mkdir()
    steps: list[str] = []
    with pytest.raises(TritError, match="came into being meanwhile"):
        convert(sharded, tmp_path / "out", CONFIGS, progress=lambda phase, *_: steps.append(phase))
    assert not steps


def test_a_damaged_piece_is_made_again(sharded: Path, tmp_path: Path) -> None:
    """A power cut may leave a piece cut off or full of zeros: its digest tells."""
    unfinished(sharded, tmp_path / "out", at=12)
    pieces = sorted((tmp_path / "out" / STATE / "pieces").iterdir())
    for number, piece in enumerate(pieces):
        data = piece.read_bytes()
        piece.write_bytes([b"", data[:-1], bytes(len(data)), data][number % 4])
    assert tree(convert(sharded, tmp_path / "out", CONFIGS)) == tree(
        convert(sharded, tmp_path / "new", CONFIGS)
    )


def test_a_damaged_fingerprint_is_said(sharded: Path, tmp_path: Path) -> None:
    """Nobody knows then what the pieces are of."""
    unfinished(sharded, tmp_path / "out")
    (tmp_path / "out" / STATE / "run.json").write_text("{")
    with pytest.raises(TritError, match=r"run\.json is damaged; To begin anew, remove"):
        convert(sharded, tmp_path / "out", CONFIGS)


def test_two_runs_do_not_mix(sharded: Path, tmp_path: Path) -> None:
    """While one is at work, the other is refused, and the first does not notice."""

    def second(phase: str, *_: object) -> None:
        if phase == "encode":
            with pytest.raises(TritError, match="another run is at work here"):
                convert(sharded, tmp_path / "out", CONFIGS)

    convert(sharded, tmp_path / "out", CONFIGS, progress=second)
    assert tree(tmp_path / "out") == tree(convert(sharded, tmp_path / "alone", CONFIGS))


@posix
def test_a_lock_that_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run ends, and takes its state away, between the opening of the lock and the lock."""
    lock = spool._lock

    def late(descriptor: int) -> None:
        (tmp_path / STATE / "lock").unlink()
        (tmp_path / STATE / "lock").touch()  # a third run has begun
        lock(descriptor)

    monkeypatch.setattr(spool, "_lock", late)
    with pytest.raises(TritError, match="another run is at work here"), Spool(tmp_path, {}, []):
        pass
    assert (tmp_path / STATE).exists()


def test_outputs_that_come_before_the_lock_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run ends just before this one has the lock: what it made is not made again."""
    lock, output = spool._lock, tmp_path / "uniform-d2"

    def late(descriptor: int) -> None:
        output.mkdir()
        lock(descriptor)

    monkeypatch.setattr(spool, "_lock", late)
    with pytest.raises(TritError, match="exists already"), Spool(tmp_path, {}, [output]):
        pass
    assert list(tmp_path.iterdir()) == [output]


def test_what_is_done_is_not_done_again(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped before its very end encodes and surveys nothing when it goes on."""

    def fail(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="no"):
            convert(sharded, tmp_path / "out", CONFIGS)
    with monkeypatch.context() as patch:
        for name in ("run.survey_raw", "tasks.Recipe.survey", "tasks.Recipe.encode"):
            patch.setattr(f"tritcodec.model.{name}", pytest.fail)
        convert(sharded, tmp_path / "out", CONFIGS)
    assert tree(tmp_path / "out") == tree(convert(sharded, tmp_path / "alone", CONFIGS))


KILLED = """
import os, random, signal, sys, threading, time
sys.path.insert(0, sys.argv[3])
from model_helpers import convert

def kill():
    time.sleep(float(sys.argv[4]))
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
convert(sys.argv[1], sys.argv[2], sys.argv[5].split(","))
"""


@posix
def test_a_run_that_is_killed_at_random_comes_to_the_same_bytes(tmp_path: Path) -> None:
    """On the real model, ten times, wherever it happens to be."""
    seconds, outputs = random.Random(3), [tmp_path / "out" / config for config in CONFIGS]
    for _ in range(10):
        command = [sys.executable, "-c", KILLED, MINILM, tmp_path / "out", Path(__file__).parent]
        command += [seconds.uniform(0.3, 0.9), ",".join(CONFIGS)]
        status = subprocess.run(list(map(str, command)), check=False).returncode
        assert status in (0, -signal.SIGKILL)
        if all(output.exists() for output in outputs):  # what kills may have come after the last name
            break
    else:
        convert(MINILM, tmp_path / "out", CONFIGS)
    undisturbed = convert(MINILM, tmp_path / "undisturbed", CONFIGS)
    assert [tree(output) for output in outputs] == [tree(undisturbed / config) for config in CONFIGS]


def test_differences_are_named() -> None:
    """What was added, taken away and changed, down in what is nested."""
    before, now = {"a": 1, "b": {"c": [1]}, "d": 2}, {"a": 1, "b": {"c": [2]}, "e": 3}
    assert list(differences(before, now)) == ["b c was [1], is [2]", "d was 2, is null", "e was null, is 3"]


def test_a_spool_without_a_run_keeps_nothing(tmp_path: Path) -> None:
    """A TritError before anything is begun leaves no folder, and none that was made for it."""
    with untouched(tmp_path), pytest.raises(TritError), Spool(tmp_path / "a" / "b", {"x": 1}, []):
        raise TritError("of ours")
    with Spool(tmp_path / "a", {"x": 1}, []) as spool:
        spool.begin()
        spool.put("key", b"data")
    with Spool(tmp_path / "a", {"x": 1}, []) as spool:
        assert spool.get("key") == b"data"
        assert spool.get("other") is None
        assert spool.read("key", 1, 2).tobytes() == b"at"
        with pytest.raises(TritError, match="cut off"):
            spool.read("key", 1, 9)


def test_what_a_run_left_that_was_over_counts_for_nothing(tmp_path: Path) -> None:
    """A kill while the state is removed leaves pieces, of whatever it was, without a fingerprint."""
    with Spool(tmp_path / "a", {"x": 1}, []) as spool:
        spool.begin()
        spool.put("key", b"of x")
        (spool.folder / "uniform-d1").mkdir()
        (spool.folder / FINGERPRINT).unlink()
    with Spool(tmp_path / "a", {"x": 2}, []) as spool:
        assert spool.get("key") is None
        assert not (spool.folder / "uniform-d1").exists()


def test_the_fingerprint_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little of a state can be removed, no later run takes it for unfinished."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no")

    with Spool(tmp_path / "a", {"x": 1}, []) as spool:
        spool.begin()
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", fail)
            spool.discard()
        assert spool.folder.exists()
        assert not (spool.folder / FINGERPRINT).exists()


@posix
def test_what_is_renamed_has_been_flushed(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fingerprint, pieces, shards, and a folder with all that is in it, subfolders too, and before."""
    (sharded / "tokenizer").mkdir()
    (sharded / "tokenizer" / "vocab.txt").write_text("a")
    flushed: set[int] = set()
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def remember(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check(path: Path) -> None:
        inner = [path, *path.rglob("*")]
        assert not [part for part in inner if part.stat().st_ino not in flushed], path

    def checked(move: Callable[[Path, Path], None], path: Path, to: Path) -> None:
        check(path)
        move(path, to)

    monkeypatch.setattr(os, "fsync", remember)
    monkeypatch.setattr(os, "rename", partial(checked, rename))
    monkeypatch.setattr(os, "replace", partial(checked, replace))
    out = convert(sharded, tmp_path / "out") / "uniform-d2"
    dequantize_model(out, tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer" / "vocab.txt").exists()


# A cluster


CLUSTER = """
import itertools, os, signal, sys
sys.path.insert(0, sys.argv[3])

from distributed import LocalCluster
from model_helpers import job
from tritcodec.model.run import quantize_model
from tritcodec.model.workers import workers

if __name__ == "__main__":
    steps = itertools.count()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(**options) as cluster:

        def kill(phase, *_):
            if phase == "encode" and next(steps) == 1:
                os.kill(cluster.workers[0].process.process.pid, signal.SIGKILL)

        with workers(dask=cluster.scheduler_address) as (executor, width):
            assert width == 2
            quantize_model(job(sys.argv[1], sys.argv[4].split(",")), sys.argv[2], executor, width, kill)
"""


def test_dask_does_the_same_work_and_survives_a_worker(tmp_path: Path) -> None:
    """A scheduler and two worker processes on loopback; one of them is killed in the middle."""
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    arguments = [MINILM, tmp_path / "out", Path(__file__).parent, ",".join(CONFIGS)]
    done = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(convert(MINILM, tmp_path / "alone", CONFIGS))


@contextlib.contextmanager
def dask_scheduler(folder: Path, **environment: str) -> Iterator[tuple[str, int]]:
    """A scheduler in a process of its own, without workers: its address, and the number of the process."""
    options = ["--scheduler-file", "scheduler.json", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with dask("scheduler", *options, cwd=folder, **environment) as process:
        file = folder / "scheduler.json"
        while not (file.exists() and file.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], process.pid


@contextlib.contextmanager
def dask(*command: str, cwd: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The dask command, at work."""
    with subprocess.Popen(
        [sys.executable, "-m", "dask", *command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def quantize_on_dask(
    address: str, source: str, out: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    """The command, on a cluster."""
    command = [sys.executable, "-m", "tritcodec.cli", "quantize", source, str(out), "--dask", address]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


def test_dask_workers_may_be_in_another_folder(tmp_path: Path) -> None:
    """A relative path of the source is found by them, too."""
    with dask_scheduler(tmp_path) as (address, _), dask("worker", address, "--no-nanny", cwd=tmp_path):
        done = quantize_on_dask(address, MINILM.name, tmp_path / "out", cwd=MINILM.parent)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(convert(MINILM, tmp_path / "alone", ["uniform-d2"]))


def test_dask_without_workers_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in one line, with what to do, instead of a wait without end."""
    monkeypatch.setattr(model_workers, "STARTING", 0.3)
    with dask_scheduler(tmp_path) as (address, _):
        what = f"the dask scheduler at {address} has no workers; start some with: dask worker {address}"
        with pytest.raises(TimeoutError) as caught, workers(dask=address):
            pass
    assert str(caught.value) == what


DASK_DIES = """
import os, sys, time
from tritcodec.model.workers import run_all, workers

if __name__ == "__main__":
    last = (0, os.kill, (int(sys.argv[2]), 9)) if len(sys.argv) > 2 else (0, os._exit, (1,))
    try:
        with workers(dask=sys.argv[1]) as (executor, width):
            print(*run_all(executor, width, [(1, time.sleep, (0,)), last]))
    except ChildProcessError as error:
        print(error)
"""


@posix
@pytest.mark.parametrize("victim", ["scheduler", "worker"])
def test_dask_that_dies_is_an_error_that_can_be_gone_on_from(tmp_path: Path, victim: str) -> None:
    """The scheduler is killed, or each worker that gets the task: the same error as without a cluster."""
    (tmp_path / "dies.py").write_text(DASK_DIES)
    frail = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with dask_scheduler(tmp_path, **frail) as (address, scheduler):
        command = [sys.executable, "dies.py", address, *([str(scheduler)] if victim == "scheduler" else [])]
        with dask("worker", address, "--no-nanny", cwd=tmp_path):
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    said = f"the dask scheduler at {address}, or a worker of it, died; run the same command again to go on\n"
    assert done.stdout == said, done.stderr


def test_dask_that_is_not_there_is_said(tmp_path: Path) -> None:
    """No scheduler at the address: an error, in one line."""
    arguments = ["quantize", str(MINILM), str(tmp_path / "out"), "--dask", "tcp://127.0.0.1:1"]
    command = [sys.executable, "-m", "tritcodec.cli", *arguments]
    environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("tritcodec: ")
    assert done.stderr.count("\n") == 1


def test_a_budget_is_kept_where_a_depth_between_is_no_gain() -> None:
    """Steps to greater depths come one after the other: none is jumped to that the budget has no room for."""
    one, surveys = matrix("m", 500, 64), {"m": surveyed([1, 0.9, 0.1, 0.05])}
    found = within_budget([one], {}, 4.0, 16, surveys)
    assert 8 * form_of(one, found["m"], 16).nbytes <= 4.0 * 500 * 64


def test_what_is_exact_gets_no_deeper() -> None:
    """However rich the budget is."""
    assert within_budget([matrix("m", 50, 64)], {}, 7.0, 16, {"m": surveyed([0, 0, 0, 0])}) == {"m": 1}


def test_sens_goes_as_deep_as_it_can(sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where estimates say depth 1 and no depth is within the bound, it is the last."""
    monkeypatch.setattr(Weights, "estimate", lambda *_: (0.0, 1.0))
    out = convert(sharded, tmp_path / "out", ["sens-0.0000001"]) / "sens-0.0000001"
    assert tensor_at(out, "model.layers.0.mlp.up_proj.weight").depth == 4


def tensor_at(folder: Path, name: str) -> TritTensor:
    """A trit tensor of a model."""
    with open_model(folder) as model:
        tensor = model.get_tensor(name)
    assert isinstance(tensor, TritTensor)
    return tensor


def test_what_was_begun_outlives_an_error(tmp_path: Path) -> None:
    """A TritError after the beginning loses nothing: weights that changed, a name that was taken."""
    with contextlib.suppress(TritError), Spool(tmp_path, {"x": 1}, []) as spool:
        spool.begin()
        spool.put("key", b"data")
        raise TritError("of ours")
    with Spool(tmp_path, {"x": 1}, []) as spool:
        assert spool.get("key") == b"data"


def test_a_survey_comes_back_as_it_was() -> None:
    """Every field, none at its default."""
    steps = np.arange(1, 28, dtype=np.float32)
    before = Surveyed(("d",), "s", 17, 3.5, {1: steps}, {1: 0.25}, 2.5)
    now = Surveyed.from_json(before.to_json())
    fields = ("digests", "stamp", "group_size", "largest", "errors", "energy", "finding")
    assert [getattr(now, name) for name in fields] == [getattr(before, name) for name in fields]
    assert np.array_equal(now.codebooks[1], steps)


def test_pieces_go_when_their_shard_is_there(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoded model is not on the disk twice."""

    def fail(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="no"):
        convert(sharded, tmp_path / "out", CONFIGS)
    left = os.listdir(tmp_path / "out" / STATE / "pieces")
    assert left
    assert not [name for name in left if ".d" in name]


def test_zeros_are_within_any_bound(tmp_path: Path) -> None:
    """At depth 1: their error is 0, and so is what it is relative to."""
    zeros = {"model.layers.0.mlp.up_proj.weight": floats(np.zeros((20, 48)), "BF16")}
    out = convert(write_shards(tmp_path / "model", [zeros]), tmp_path / "out", ["sens-0.02"])
    assert [tensor.depth for tensor in trit_tensors(out / "sens-0.02").values()] == [1]


def test_a_state_loses_its_fingerprint_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the disk, too: after a power cut half a state with one would be taken for an unfinished run."""
    seen: list[object] = []
    with Spool(tmp_path, {}, []) as state:
        monkeypatch.setattr(shutil, "rmtree", noting(seen, lambda *_: "rm", shutil.rmtree))
        monkeypatch.setattr(spool, "sync", noting(seen, lambda path: path, sync))
        state.discard()
    assert seen == [tmp_path / STATE, "rm"]


@pytest.mark.parametrize("phases", [["survey"], ["survey", "encode"]])
def test_a_bar_leaves_out_what_an_earlier_run_did(phases: list[str]) -> None:
    """Its rate is of this run alone."""
    show = progress.Bars()
    for phase in phases:
        show(phase, "w", 700, 1000, True)
        assert show._bar is not None
        assert (show._bar.initial, show._bar.n) == (700, 700)
    show.close()


def test_lines_come_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not one for each step after the first ten."""
    clock = itertools.chain([0.0], *([t, t] for t in (11.0, 12.0, 13.0, 22.0)))
    monkeypatch.setattr("tritcodec.progress.time.monotonic", lambda: next(clock))
    show = progress.Lines()
    for _ in range(4):
        show("survey", "w", 1, 4, False)
    assert capsys.readouterr().err.count("\n") == 2
