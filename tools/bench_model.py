"""How `tritcodec quantize` does on whole models: memory, workers, configs, and time as models grow.

    python tools/bench_model.py                                    a few minutes
    python tools/bench_model.py --weights 4e6 --rows 500 --growth 2e6 4e6    in a hurry
    python tools/bench_model.py --only memory --matrices 12        4 GB of matrices of 20,000 x 8,000
    python tools/bench_model.py --only growth --growth 1e7 1e8 1e9

Every run is a process of its own over bfloat16 folders that are made on the spot and removed. Of configs and
of growth CPU time is compared, which other work on the machine disturbs little; of workers the time of the
clock, too, the medians of runs that alternate, which say something only while nothing else runs.
tools/bench.py has this as a part, with these sizes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from big_model import make_model

CONFIGS = [f"uniform-d{depth}" for depth in (1, 2, 3, 4)]
ROWS, COLUMNS = 20_000, 8_000  # of the largest matrices
HIDDEN = 2048
SHARD_BYTES = 1 << 26  # eight such matrices, so that shards are written while others are encoded
MEMORY_TARGET = 400e6
WORKERS_TARGET = 1 / 1.8
OVERHEAD_TARGET = 1.1  # of CPU time: two workers that never wait take half of it, beyond startup
CONFIGS_TARGET = 1.0
FLAT_TARGET = 1.2  # of time a weight, the largest model against the smallest
CPUS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None  # tools/bench.py keeps to one
CHILD = """
import os, re, resource, sys
from tritcodec.cli import main

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

before = peak()
status = main(sys.argv[1:])
worker = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # the largest
print(peak() - before, worker - before if worker else 0, sum(os.times()[:4]), file=sys.stderr)
sys.exit(status)
"""


class Measured(NamedTuple):
    """A row of the table: what, in words; how much; against what; the ratio, and the largest that is fine."""

    what: str
    measured: str
    against: str
    ratio: float
    target: float | None


class Run(NamedTuple):
    """What a run took: seconds, those of all its CPUs; bytes that its first process and a worker grew by."""

    wall: float
    cpu: float
    memory: int
    worker: int  # 0 where the first process does the work


class Sizes(NamedTuple):
    """What is asked for: weights of most models; matrices for memory, and their rows; models that grow."""

    weights: float = 16e6
    matrices: int = 1
    rows: int = ROWS
    growth: Sequence[float] = (10e6, 40e6)
    repeats: int = 2


def run(source: Path, configs: Sequence[str], workers: int) -> Run:
    """Quantise *source*, in a process that measures itself."""
    with tempfile.TemporaryDirectory(dir=source.parent) as target:
        arguments = ["quantize", str(source), target, "--configs", ",".join(configs)]
        command = [sys.executable, "-c", CHILD, *arguments, "--workers", str(workers), "--progress", "none"]
        start = time.monotonic()
        done = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=_unpin)
        wall, (memory, worker, cpu) = time.monotonic() - start, done.stderr.split()[-3:]
        return Run(wall, float(cpu), int(memory), int(worker))


def _unpin() -> None:
    if CPUS:
        os.sched_setaffinity(0, CPUS)


def bench_memory(folder: Path, sizes: Sizes) -> Iterator[Measured]:
    """Peak memory above interpreter and imports, of all four configs: of one worker, and of each of two."""
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(sizes.matrices)]
    make_model(folder / "large", dict.fromkeys(names, (sizes.rows, COLUMNS)), shard_bytes=1 << 62)
    peak, two = run(folder / "large", CONFIGS, 1).memory, run(folder / "large", CONFIGS, 2)
    size = 2 * sizes.rows * COLUMNS * sizes.matrices / 1e9
    what = f"quantize {sizes.matrices} of {sizes.rows} x {COLUMNS}: memory"
    yield Measured(what, f"{peak / 1e6:.0f} MB", f"400 MB; {size:.2f} GB to read", peak / MEMORY_TARGET, 1.0)
    each, first = two.worker / 1e6, two.memory / 1e6
    yield Measured(
        "the same, each of two workers",
        f"{each:.0f} MB",
        f"400 MB; coordinator {first:.0f} MB",
        each * 1e6 / MEMORY_TARGET,
        1.0,
    )


def bench_workers(folder: Path, sizes: Sizes) -> Iterator[Measured]:
    """Time of two workers against one, startup included; and CPU time, of which no more should be needed."""
    source, weights = equal_matrices(folder, sizes.weights)
    one, two = zip(*([run(source, CONFIGS, n) for n in (1, 2)] for _ in range(sizes.repeats)), strict=True)
    for what, column, target in (("time", 0, WORKERS_TARGET), ("CPU time", 1, OVERHEAD_TARGET)):
        single, double = (median(took[column] for took in runs) for runs in (one, two))
        name = f"quantize, two workers, {what}"
        yield Measured(name, rate(weights, double), "one worker", double / single, target)


def bench_configs(folder: Path, sizes: Sizes) -> Iterator[Measured]:
    """CPU time of four configs in one run against four runs."""
    source, weights = equal_matrices(folder, sizes.weights)
    together = run(source, CONFIGS, 1).cpu
    apart = sum(run(source, [config], 1).cpu for config in CONFIGS)
    measured = rate(weights, together)
    yield Measured("quantize, four configs", measured, "four runs", together / apart, CONFIGS_TARGET)


def bench_growth(folder: Path, sizes: Sizes) -> Iterator[Measured]:
    """CPU time a weight of growing models against that of the first."""
    first = 0.0
    for asked in sizes.growth:
        source, weights = equal_matrices(folder, asked)
        took = run(source, CONFIGS, 1).cpu
        first = first or took / weights
        what, against = f"quantize {weights / 1e6:.0f} million", "the first of these"
        yield Measured(what, rate(weights, took), against, took / weights / first, FLAT_TARGET)


def equal_matrices(folder: Path, weights: float) -> tuple[Path, int]:
    """A model of square matrices of about so many weights, and how many they are."""
    count = max(1, round(weights / HIDDEN**2))
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(count)]
    source = folder / f"{weights:g}"
    make_model(source, dict.fromkeys(names, (HIDDEN, HIDDEN)), SHARD_BYTES)
    return source, count * HIDDEN**2


def rate(weights: float, seconds: float) -> str:
    """Nanoseconds for each of so many weights."""
    return f"{seconds / weights * 1e9:.0f} ns/weight"


PARTS: dict[str, Callable[[Path, Sizes], Iterator[Measured]]] = {
    "memory": bench_memory,
    "workers": bench_workers,
    "configs": bench_configs,
    "growth": bench_growth,
}


def measure(
    sizes: Sizes, only: Sequence[str] = tuple(PARTS), place: Path | None = None
) -> Iterator[Measured]:
    """The rows of the parts that are asked for, in a folder that is removed."""
    for name in only:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            yield from PARTS[name](Path(folder), sizes)


def main() -> int:
    """Parse arguments and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Sizes()
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--weights", type=float, default=default.weights, help="for workers and configs")
    parser.add_argument("--matrices", type=int, default=default.matrices, help="for memory, in one shard")
    parser.add_argument("--rows", type=int, default=default.rows, help=f"of these, of {COLUMNS} columns")
    parser.add_argument("--growth", type=float, nargs="+", default=default.growth, help="models, by weights")
    parser.add_argument("--repeats", type=int, default=default.repeats, help="runs for workers")
    parser.add_argument("--folder", type=Path, help="where to make the models")
    options = parser.parse_args()
    sizes = Sizes(options.weights, options.matrices, options.rows, options.growth, options.repeats)
    print(f"{'what':44}{'measured':>14}  {'against':30}{'ratio':>7}{'target':>8}")
    for row in measure(sizes, options.only, options.folder):
        target = "" if row.target is None else f"{row.target:.2f}"
        verdict = "" if row.target is None else "  yes" if row.ratio <= row.target else "  NO"
        print(
            f"{row.what:44}{row.measured:>14}  {row.against:30}{row.ratio:7.2f}{target:>8}{verdict}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
