"""Make a big bfloat16 model, quantise it undisturbed, killed, and on a cluster, and compare the bytes.

    python tools/big_model.py                                 1 billion weights, killed ten times
    python tools/big_model.py --weights 3e8 --kills 0 --dask  on a cluster of which a worker is killed
    python tools/big_model.py --weights 2e9 --make FOLDER     only make the model, 4 GB in ten shards

All four uniform configs are made in one run. Then the same command is run into another folder, ended by
SIGKILL at a random moment, and run again, until it completes; with --dask another time, on a scheduler and
two worker processes on loopback, one of which is killed in the middle. Prints how long each took, and
whether the SHA-256 of every file is the same. Exit status 1 where one differs or a kill came too late. All of
it, some 9 bytes a weight, is in a folder that is removed in the end; the weights are drawn from a seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

CONFIGS = "uniform-d1,uniform-d2,uniform-d3,uniform-d4"
LAYER_WEIGHTS = 16  # times the square of the hidden size h: four matrices h x h, three h x 4h
BILLION, HIDDEN = 1e9, 2048  # a model of a billion weights has that hidden size; it grows with the cube root
SHARD_BYTES = 400_000_000
BLOCK_WEIGHTS = 1 << 20  # made and written at once
SPARE = 4  # as if there were so many more kills: the last comes before the run has completed, nearly always

Shapes = dict[str, tuple[int, ...]]


def layers(weights: float) -> Shapes:
    """Names and shapes of a decoder of about so many *weights* in matrices of linear layers."""
    hidden = max(64, round(HIDDEN * (weights / BILLION) ** (1 / 3) / 64) * 64)
    count = max(1, round(weights / LAYER_WEIGHTS / hidden**2))
    shapes: Shapes = {"model.embed_tokens.weight": (min(8 * hidden, 32_000), hidden)}
    for i in range(count):
        for name in ("q", "k", "v", "o"):
            shapes[f"model.layers.{i}.self_attn.{name}_proj.weight"] = (hidden, hidden)
        for name in ("gate", "up"):
            shapes[f"model.layers.{i}.mlp.{name}_proj.weight"] = (4 * hidden, hidden)
        shapes[f"model.layers.{i}.mlp.down_proj.weight"] = (hidden, 4 * hidden)
        shapes[f"model.layers.{i}.input_layernorm.weight"] = (hidden,)
    return shapes


def matrices(shapes: Shapes) -> int:
    """The weights in matrices of linear layers."""
    return sum(int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items() if "_proj" in name)


def describe(shapes: Shapes) -> str:
    """How much it is."""
    return f"{len(shapes)} tensors, {matrices(shapes):,} weights in matrices, {_size(shapes):,} bytes"


def make_model(folder: Path, shapes: Shapes, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a folder of shards, and their index, with random bfloat16 tensors of *shapes*."""
    folder.mkdir(parents=True)
    shards = list(_shards(shapes, shard_bytes))
    rng = np.random.default_rng(7)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        with open(folder / file, "wb") as out:
            out.write(_header({name: shapes[name] for name in names}))
            for name in names:
                for block in _weights(rng, shapes[name]):
                    out.write(block.data)
    index = {"metadata": {"total_size": _size(shapes)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text('{"model_type": "synthetic"}\n')


def _shards(shapes: Shapes, shard_bytes: int) -> Iterator[list[str]]:
    """The names of each shard's tensors: one after the other, as many as fit."""
    names: list[str] = []
    for name in shapes:
        if names and _size({n: shapes[n] for n in [*names, name]}) > shard_bytes:
            yield names
            names = []
        names.append(name)
    yield names


def _size(shapes: Shapes) -> int:
    return sum(2 * int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())


def _header(shapes: Shapes) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + _size({name: shape})
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Sums of four uniform numbers, nearly normal, in rows of different sizes, as bytes; norms are near one.

    With no function whose last bit depends on the machine, the weights do not either.
    """
    columns = shape[-1]
    rows = int(np.prod(shape[:-1], dtype=np.int64))
    step = max(1, BLOCK_WEIGHTS // columns)
    for start in range(0, rows, step):
        size = (min(step, rows - start), columns)
        block = rng.random(size, np.float32) - 2
        for _ in range(3):
            block += rng.random(size, np.float32)
        block *= rng.random((size[0], 1), np.float32) / 16 + np.float32(1 / 32)
        yield (block if len(shape) > 1 else 1 + block).astype(ml_dtypes.bfloat16).view(np.uint16)


def quantizing(source: Path, target: Path, *options: str) -> list[str]:
    """The command that quantises."""
    command = [sys.executable, "-m", "tritcodec.cli", "quantize", str(source), str(target)]
    return [*command, "--configs", CONFIGS, *options]


def timed(command: Sequence[str]) -> float:
    """Seconds that a command takes."""
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def killed(command: Sequence[str], times: int, seconds: float, rng: random.Random) -> int:
    """Run a command, kill it at random moments within *seconds*, and again; then let it complete.

    Gives how many times it was killed before it had completed.
    """
    for count in range(times):
        # The standard library warns of the workers' semaphores, when who made them is no more.
        quiet = {**os.environ, "PYTHONWARNINGS": "ignore::UserWarning"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=quiet)
        try:
            process.wait(rng.uniform(0, seconds))
            return count
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return times


def on_cluster(source: Path, target: Path) -> None:
    """Quantise on a scheduler and two worker processes on loopback; one of them is killed in the middle."""
    from distributed import LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(**options) as cluster:
        command = quantizing(source, target, "--dask", cluster.scheduler_address, "--progress", "json")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        alive = True
        for step in map(json.loads, process.stderr or ()):
            if alive and step["phase"] == "encode" and step["done"] > step["total"] / 2:
                os.kill(cluster.workers[0].process.process.pid, signal.SIGKILL)
                alive = False
        if process.wait() or alive:
            raise SystemExit("the run on the cluster failed, or ended before a worker was killed")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under *folder*, hidden ones included."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while data := file.read(1 << 20):
                digest.update(data)
        found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


def prove(folder: Path, options: argparse.Namespace) -> bool:
    """Do it all in *folder*; True where all is as it should be."""
    source, shapes = folder / "source", layers(options.weights)
    make_model(source, shapes)
    print(f"model: {describe(shapes)}", flush=True)
    plain = ["--workers", str(options.workers), "--progress", "none"]
    seconds = timed(quantizing(source, folder / "plain", *plain))
    expected = digests(folder / "plain")
    print(
        f"undisturbed: {seconds:.1f} s, {matrices(shapes) / seconds / 1e6:.2f} million a second", flush=True
    )
    good = True
    if options.kills:
        start, target = time.monotonic(), folder / "killed"
        limit = 2 * seconds / (options.kills + SPARE)
        count = killed(quantizing(source, target, *plain), options.kills, limit, random.Random(options.seed))
        good &= count == options.kills
        good &= _same(f"killed {count} times", time.monotonic() - start, expected, digests(target))
    if options.dask:
        start = time.monotonic()
        on_cluster(source, folder / "dask")
        good &= _same("dask, a worker killed", time.monotonic() - start, expected, digests(folder / "dask"))
    return good


def _same(what: str, seconds: float, expected: dict[str, str], found: dict[str, str]) -> bool:
    differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    verdict = f"{len(differing)} DIFFER: {differing[:3]}" if differing else "all the same"
    print(f"{what}: {seconds:.1f} s, {len(expected)} files, {verdict}", flush=True)
    return not differing


def main() -> int:
    """Parse arguments and run; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=float, default=1e9, help="in matrices, about (1e9)")
    parser.add_argument("--workers", type=int, default=2, help="processes to work in (2)")
    parser.add_argument("--kills", type=int, default=10, help="of the second run (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills (0)")
    parser.add_argument("--dask", action="store_true", help="run on a cluster, too")
    parser.add_argument("--folder", type=Path, help="where to put it all (the system's, for temporary files)")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="make the model there, and run nothing")
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES, help="of it, at most (4e8)")
    options = parser.parse_args()
    if options.make:
        make_model(options.make, layers(options.weights), options.shard_bytes)
        print(f"{options.make}: {describe(layers(options.weights))}")
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return 0 if prove(Path(folder), options) else 1


if __name__ == "__main__":
    sys.exit(main())
