"""How fast and how lean the codec is, as ratios to references timed beside it.

Every time is a median of runs that alternate with those of its reference, in
one process, on one CPU and one BLAS thread: a ratio says the same on another
machine, and seconds do not. Prints one table and exits with 0 whatever it
says, since a busy machine is no fault of the code.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import mmap
import os
import platform
import shlex
import shutil
import statistics
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before NumPy is imported, which reads them

import bench_report  # noqa: E402  # as above
import numpy as np  # noqa: E402  # as above
import safetensors.numpy  # noqa: E402  # as above
from bench_model import Sizes, measure  # noqa: E402  # as above
from bench_report import Row, line  # noqa: E402  # as above

import tritcodec as tc  # noqa: E402  # as above
from tritcodec import layouts  # noqa: E402  # as above
from tritcodec.certify import norms, rounded_product  # noqa: E402  # as above
from tritcodec.codebook import FLOATS  # noqa: E402  # as above
from tritcodec.model.repack import Repack, repack_job  # noqa: E402  # as above
from tritcodec.model.run import quantize_model  # noqa: E402  # as above
from tritcodec.model.source import ModelSource  # noqa: E402  # as above
from tritcodec.model.workers import Inline  # noqa: E402  # as above

MINILM = Path(__file__).resolve().parents[1] / "fixtures" / "minilm"
NAMES = ("tritcodec", "numpy", "ml_dtypes", "gguf", "safetensors", "torch")  # of packages that are measured
DEPTHS = (1, 2, 3, 4)
DTYPES = ("F32", "F16", "BF16")
METHODS: dict[str, dict[str, Any]] = {  # options of quantize
    "optimal": {},
    "nested": {"nested": True},
    "tritllm-v2": {"method": "tritllm-v2"},
}
DGEMM = "float64 dgemm"  # of the same shape, the weights in float64
MATMUL_ROWS = (1, 8, 32, 256)  # of x
COPY = "float32 copy"  # of as many weights, into an array that is there
GGUF_DECODE, GGUF_ENCODE = "gguf-py TQ1_0 dequantize", "gguf-py TQ1_0 quantize"
TARGETS = {  # the largest ratio that is fine; what is not here is only reported
    "pack, one plane": 0.6,
    "unpack, one plane": 0.8,
    "dequantize F32, depth 1": 2.0,
    "dequantize F32, depth 2": 2.5,
    "dequantize F32, depth 3": 3.0,
    "dequantize F32, depth 4": 3.5,
    "dequantize, depth 1, new array": 1 / 3,
    "quantize optimal, depth 1": 1 / 0.3,
    "quantize optimal, depth 2": 1 / 0.3,
    "quantize optimal, depth 3": 1 / 0.25,
    "quantize optimal, depth 4": 1 / 0.2,
    "verify_file, depth 4": 1 / 0.8,
    "matmul core, 1 x 4096 x 4096": 1.3,
    "matmul core, 8 x 4096 x 4096": 1.25,
    "matmul core, 32 x 4096 x 4096": 1.25,
    "matmul core, 256 x 4096 x 4096": 1.25,
    "matmul of a trit tensor, 32 x 4096 x 4096": 3.0,
    "matmul, all zeros, 8 x 1024 x 1024": 30.0,
    "matmul, all ties, 8 x 1024 x 1024": 30.0,
    "matmul, all cancelling, 8 x 1024 x 1024": 30.0,
    "repack, depth 1": 200.0,  # half of what five million weights a second are, beside a copy of two billion
    "repack, depth 2": 200.0,
    "to_two_bit, one plane": 2.0,
    "from_two_bit, one plane": 2.0,
    "to_int4, depth 1": 2.0,
    "from_int4, depth 1": 2.0,
    "to_int4, depth 2": 2.0,
    "from_int4, depth 2": 2.0,
    "to_tq1_0, one plane": 2.0,
    "from_tq1_0, one plane": 2.0,
}
PEERS = ("TQ1_0", "TQ2_0", "Q4_0", "Q8_0")  # types of gguf-py
COLUMNS = 1024  # of the matrices that grow
GROWN_WEIGHTS = 1 << 25  # in all runs of a call: larger matrices are run once
GROWTH_TARGET = 1.1  # of the memory beyond input and output, while the weights grow fourfold
TENSORS = 10_000  # in the file that is opened
PREAMBLE_SIZE, HEADER_SIZE_AT = 64, 16  # SPEC 6.1
TQ1_0_BLOCK = 256  # weights; gguf-py takes whole blocks
MIB = 1 << 20

Call = Callable[[], object]

EXAMPLES = """\
examples:
  python tools/bench.py                                  all of it, at 4096 x 4096
  python tools/bench.py --only pack unpack               two parts of it
  python tools/bench.py --only dequantize --repeats 41   one part, with less noise
  python tools/bench.py --size 1024 --repeats 3          in a hurry; calls cost more there
  python tools/bench.py --report docs/benchmarks.md      all of it as a page with pictures
"""


@dataclass(frozen=True)
class Bench:
    """What the command line asks for: the side of the matrix, and the runs of each call."""

    size: int
    repeats: int
    weights: int = 10**6  # to which matrices grow

    def times(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """Median CPU seconds of each call; they take turns, after one turn that does not count."""
        runs: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(self.repeats + 1):
            for name, call in calls.items():
                start = time.process_time()
                call()
                if turn:
                    runs[name].append(time.process_time() - start)
        return {name: statistics.median(seconds) for name, seconds in runs.items()}

    def compare(self, reference: str, calls: Mapping[str, Call], weights: int | None = None) -> Iterator[Row]:
        """A row for each call but the *reference*, with nanoseconds for each of as many *weights*."""
        times = self.times(calls)
        for name in calls:
            if name != reference:
                measured = f"{times[name] / (weights or self.size**2) * 1e9:.2f} ns/weight"
                yield Row(name, measured, reference, times[name] / times[reference], TARGETS.get(name))


def random_weights(size: int) -> np.ndarray:
    """A square matrix of normal numbers, the same every time."""
    return np.random.default_rng(1).standard_normal((size, size), np.float32)


def random_trits(size: int) -> np.ndarray:
    """A square matrix of trits, the same every time."""
    return np.random.default_rng(1).integers(-1, 1, (size, size), np.int8, endpoint=True)


def random_tensor(size: int, depth: int) -> tc.TritTensor:
    """A square tensor of random levels and codes, the same every time."""
    rng, H = np.random.default_rng(depth), (3**depth - 1) // 2
    levels = rng.integers(-H, H, (size, size), np.int8, endpoint=True)
    codes = rng.integers(0, 27, (size, -(-size // 16)), np.uint8)
    steps = (0x3C00_0000 + 0x0008_0000 * np.arange(27, dtype=np.uint32)).view(np.float32)  # 1/128 to 0.2
    return tc.TritTensor.from_levels(levels, codes, steps, depth=depth)


def copying(size: int) -> Call:
    """The yardstick."""
    source = random_weights(size)
    return partial(np.copyto, np.empty_like(source), source)


def bench_pack(bench: Bench) -> Iterator[Row]:
    """One plane of trits into bytes."""
    trits = random_trits(bench.size)
    yield from bench.compare(COPY, {COPY: copying(bench.size), "pack, one plane": partial(tc.pack, trits)})


def bench_unpack(bench: Bench) -> Iterator[Row]:
    """One plane of bytes into trits."""
    unpack = partial(tc.unpack, tc.pack(random_trits(bench.size)), bench.size)
    yield from bench.compare(COPY, {COPY: copying(bench.size), "unpack, one plane": unpack})


def bench_dequantize(bench: Bench) -> Iterator[Row]:
    """Weights into an array that is there, for every dtype and depth."""
    for name in DTYPES:
        calls = {COPY: copying(bench.size)}
        for depth in DEPTHS:
            tensor = random_tensor(bench.size, depth)
            out = tensor.dequantize(name)
            calls[f"dequantize {name}, depth {depth}"] = partial(tensor.dequantize, out=out)
        yield from bench.compare(COPY, calls)


def bench_gguf(bench: Bench) -> Iterator[Row]:
    """Dequantising at depth 1, and quantising by every method at every depth, against gguf-py's TQ1_0."""
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        print("gguf is not installed: nothing to compare with (pip install 'tritcodec[bench]' brings it)")
        return
    weights, kind = random_weights(bench.size), GGMLQuantizationType.TQ1_0
    calls: dict[str, Call] = {
        GGUF_DECODE: partial(quants.dequantize, quants.quantize(weights, kind), kind),
        "dequantize, depth 1, new array": random_tensor(bench.size, 1).dequantize,
    }
    yield from bench.compare(GGUF_DECODE, calls)
    calls = {GGUF_ENCODE: partial(quants.quantize, weights, kind)}
    for method in METHODS:
        for depth in DEPTHS:
            calls[f"quantize {method}, depth {depth}"] = encoding(method, depth, bench.size)
    yield from bench.compare(GGUF_ENCODE, calls)


def bench_peers(bench: Bench) -> Iterator[Row]:
    """What else one could do with the weights: gguf-py's types, casts, a safetensors file."""
    weights = random_weights(bench.size)
    calls: dict[str, Call] = {COPY: copying(bench.size)}
    with contextlib.suppress(ImportError):
        from gguf import GGMLQuantizationType, quants

        for name in PEERS:
            kind = GGMLQuantizationType[name]
            calls[f"gguf-py {name} quantize"] = partial(quants.quantize, weights, kind)
            calls[f"gguf-py {name} dequantize"] = partial(
                quants.dequantize, quants.quantize(weights, kind), kind
            )
    for name in ("F16", "BF16"):
        calls[f"cast to {name}"] = partial(weights.astype, FLOATS[name])
        calls[f"cast from {name}"] = partial(weights.astype(FLOATS[name]).astype, np.float32)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
        tensor = torch.from_numpy(weights)
        calls["torch: cast to BF16"] = partial(tensor.to, torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        packed, plain = Path(folder, "w.trit"), Path(folder, "w.safetensors")
        tc.save_file({"w": random_tensor(bench.size, 2)}, packed)
        safetensors.numpy.save_file({"w": weights.astype(np.float16)}, plain)
        calls["safetensors: load F16"] = partial(safetensors.numpy.load_file, plain)
        calls["load_file, depth 2"] = partial(tc.load_file, packed)
        yield from bench.compare(COPY, calls)


def bench_growth(bench: Bench) -> Iterator[Row]:
    """Time per weight as matrices grow tenfold, from 100,000 weights on."""
    count = 10**5
    while count <= bench.weights:
        weights = np.resize(random_weights(1024), (count // COLUMNS, COLUMNS))
        tensor = tc.quantize(weights, 2)
        out = tensor.dequantize()
        calls: dict[str, Call] = {
            COPY: partial(np.copyto, out, weights),
            f"dequantize, depth 2, {count:,}": partial(tensor.dequantize, out=out),
            f"quantize, depth 2, {count:,}": partial(tc.quantize, weights, 2),
        }
        runs = replace(bench, repeats=max(1, min(bench.repeats, GROWN_WEIGHTS // count)))
        yield from runs.compare(COPY, calls, weights.size)
        count *= 10


def bench_layouts(bench: Bench) -> Iterator[Row]:
    """Exchange layouts of a plane or of levels, from packed planes and back, and int8 levels beside them."""
    size, calls = bench.size, {COPY: copying(bench.size)}
    for depth in (1, 2):
        tensor = random_tensor(size, depth)
        pairs = layouts.to_int4(tensor)
        calls[f"levels, depth {depth}"] = tensor.levels
        calls[f"to_int4, depth {depth}"] = partial(layouts.to_int4, tensor)
        calls[f"from_int4, depth {depth}"] = partial(layouts.from_int4, pairs, size, depth)
    words, blocks = layouts.to_two_bit(tensor, 0), layouts.to_tq1_0(tensor, 0)
    calls["to_two_bit, one plane"] = partial(layouts.to_two_bit, tensor, 0)
    calls["from_two_bit, one plane"] = partial(layouts.from_two_bit, words, size)
    calls["to_tq1_0, one plane"] = partial(layouts.to_tq1_0, tensor, 0)
    calls["from_tq1_0, one plane"] = partial(layouts.from_tq1_0, blocks, size)
    yield from bench.compare(COPY, calls)


def bench_matmul(bench: Bench) -> Iterator[Row]:
    """The exact product against a dgemm of the same shape: of ready weights, packed ones, hard ones."""
    size = bench.size
    w, t = random_weights(size), random_tensor(size, 2)
    wide = w.astype(np.float64)
    w_norms = norms(wide)
    for rows in MATMUL_ROWS:
        x = random_weights(size)[:rows]
        ready = x.astype(np.float64)
        shape = f"{rows} x {size} x {size}"
        calls: dict[str, Call] = {
            DGEMM: partial(np.matmul, ready, wide.T),
            f"matmul core, {shape}": partial(rounded_product, ready, norms(ready), wide, w_norms),
            f"matmul of float32, {shape}": partial(tc.matmul, x, w),
            f"matmul of a trit tensor, {shape}": partial(tc.matmul, x, t),
            f"sgemm, {shape}": partial(np.matmul, x, w.T),
        }
        yield from bench.compare(DGEMM, calls)
    side = size // 4
    for kind, (x, w) in hard_products(8, side).items():
        wide = w.astype(np.float64)
        calls = {
            DGEMM: partial(np.matmul, x.astype(np.float64), wide.T),
            f"matmul, all {kind}, 8 x {side} x {side}": partial(tc.matmul, x, w),
        }
        yield from bench.compare(DGEMM, calls, side**2)
    yield from bench_sums(bench)


def hard_products(rows: int, side: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Products whose elements are all zeros, ties, or far below their terms: x (rows, K), w (side, K)."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, side // 2)).astype(np.float32)
    b = rng.standard_normal((side, side // 2)).astype(np.float32)
    order = rng.permutation(side // 2 * 2)
    x, w = np.concatenate([a, a], axis=1)[:, order], np.concatenate([b, -b], axis=1)[:, order]
    traces = w.copy()
    traces[:, 0] += np.float32(1e-6) * traces[:, 0]
    # The terms that cancel stay; two of them become a number and half a unit in its last place.
    tied_x, tied_w = x.copy(), w.copy()
    tied_x[:, order < 1] = tied_x[:, order == side // 2] = 1
    tied_w[:, order < 1] = np.float32(2.0**24 + 2)
    tied_w[:, order == side // 2] = 1
    return {"zeros": (x, w), "ties": (tied_x, tied_w), "cancelling": (x, traces)}


def bench_sums(bench: Bench) -> Iterator[Row]:
    """What one would use otherwise, for a few elements: math.fsum, and mpmath's exact dot product."""
    size, count = bench.size, 64
    x, w = random_weights(size)[:1], random_weights(size)[1 : count + 1]
    calls: dict[str, Call] = {
        "matmul, 64 elements": partial(tc.matmul, x, w),
        "math.fsum of exact terms, 64 elements": partial(
            by_fsum, x[0].astype(np.float64), w.astype(np.float64)
        ),
    }
    with contextlib.suppress(ImportError):
        from mpmath import mp

        calls["mpmath.fdot, 64 elements"] = partial(by_mpmath, mp, x[0].tolist(), w.tolist())
    yield from bench.compare("matmul, 64 elements", calls, count * size)


def by_fsum(x: np.ndarray, w: np.ndarray) -> list[np.float32]:
    """Rounded twice, to binary64 and to binary32: not always right."""
    return [np.float32(math.fsum((row * x).tolist())) for row in w]


def by_mpmath(mp: Any, x: list[float], w: list[list[float]]) -> list[Any]:
    """The sums in a precision that holds them."""
    with mp.workprec(600):
        return [mp.fdot(x, row) for row in w]


def bench_verify(bench: Bench) -> Iterator[Row]:
    """Every check of a file of one tensor of depth 4, and the least of it, against SHA-256 in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.trit")
        tc.save_file({"weight": random_tensor(bench.size, 4)}, path)
        reference = "SHA-256 in memory"
        calls: dict[str, Call] = {
            reference: partial(hashlib.sha256, path.read_bytes()),
            "verify_file, depth 4": partial(tc.verify_file, path),
            "reading, hashing, largest byte: no more": partial(hash_and_look, path, mmap.mmap(-1, MIB)),
        }
        yield from bench.compare(reference, calls)


def hash_and_look(path: Path, buffer: mmap.mmap) -> None:
    """The least that a verifier does to every byte, where it reads into a *buffer* and maps nothing."""
    digest, block = hashlib.sha256(), np.frombuffer(buffer, np.uint8)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(block[:size].data)
            block[:size].max()


def bench_open(bench: Bench) -> Iterator[Row]:
    """Opening a file of 10,000 tensors: time and memory against reading and hashing its header's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.trit")
        tensor = random_tensor(16, 2)
        tc.save_file({f"model.layers.{i}.weight": tensor for i in range(TENSORS)}, path)
        reference, what = "reading and hashing its header", f"open_file, {TENSORS:,} tensors"
        calls: dict[str, Call] = {
            reference: partial(hash_header, path),
            what: partial(open_and_close, path),
        }
        times = bench.times(calls)
        yield Row(what, f"{times[what] * 1e3:.1f} ms", reference, times[what] / times[reference])
        (least, _), (peak, _) = map(peak_memory, calls.values())
        yield Row(f"{what}: memory", f"{peak / MIB:.1f} MiB", reference, peak / least)


def hash_header(path: Path) -> bytes:
    """The least that a reader of the header does."""
    with path.open("rb") as file:
        size: int = struct.unpack_from("<Q", file.read(PREAMBLE_SIZE), HEADER_SIZE_AT)[0]
        return hashlib.sha256(file.read(size)).digest()


def open_and_close(path: Path) -> None:
    """Open a file and read no tensor."""
    tc.open_file(path).close()


def bench_repack(bench: Bench) -> Iterator[Row]:
    """Packing a dequantised matrix again, from file to file, with the proof of every bit, at every depth."""
    with tempfile.TemporaryDirectory() as folder:
        calls = {COPY: copying(bench.size)}
        for depth in DEPTHS:
            source = Path(folder, f"depth-{depth}.safetensors")
            safetensors.numpy.save_file(
                {"weight": random_tensor(bench.size, depth).dequantize("F16")}, source
            )
            calls[f"repack, depth {depth}"] = partial(repack, source, Path(folder, "out"))
        yield from bench.compare(COPY, calls)


def repack(source: Path, target: Path) -> None:
    """A run from nothing, in this process."""
    shutil.rmtree(target, ignore_errors=True)
    [[planned]] = quantize_model(repack_job(ModelSource(source), Repack()), target, Inline()).values()
    if not planned.depth:
        raise SystemExit(f"{source.name} was not packed: {planned.reason}")


def bench_memory(bench: Bench) -> Iterator[Row]:
    """Memory at its peak beyond input and output, of all weights against a quarter of them: a constant."""
    prepare: dict[str, Callable[[int], Call]] = {}
    for name in DTYPES:
        prepare[f"dequantize {name}, depth 4"] = partial(decoding, name, 4)
    for method in METHODS:
        prepare[f"quantize {method}, depth 4"] = partial(encoding, method, 4)
    for what, at_size in prepare.items():
        less, more = (beyond_output(at_size(size)) for size in (bench.size // 2, bench.size))
        measured = f"{more / MIB:.2f} MiB more"
        yield Row(f"{what}: memory", measured, "a quarter of the weights", more / less, GROWTH_TARGET)


def decoding(dtype: str, depth: int, size: int) -> Call:
    """Dequantising a matrix into a new array."""
    return partial(random_tensor(size, depth).dequantize, dtype)


def encoding(method: str, depth: int, size: int) -> Call:
    """Quantising a matrix."""
    return partial(tc.quantize, random_weights(size), depth, **METHODS[method])


def beyond_output(call: Call) -> int:
    """Bytes at the peak of *call* beyond its input and what it gives."""
    peak, result = peak_memory(call)
    output: int = getattr(result, "nbytes")  # noqa: B009  # arrays and tensors have it
    return peak - output


def peak_memory(call: Call) -> tuple[int, object]:
    """Bytes at the peak of *call*, beyond those there before, and what it gives."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def bench_models(bench: Bench) -> Iterator[Row]:
    """Whole models quantised: memory, workers, configs, growth; tools/bench_model.py has other sizes."""
    square = bench.size**2
    for row in measure(Sizes(weights=6 * square, rows=bench.size, growth=(square, 4 * square))):
        yield Row(*row)


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "pack": bench_pack,
    "unpack": bench_unpack,
    "dequantize": bench_dequantize,
    "gguf": bench_gguf,
    "peers": bench_peers,
    "growth": bench_growth,
    "layouts": bench_layouts,
    "matmul": bench_matmul,
    "verify": bench_verify,
    "open": bench_open,
    "repack": bench_repack,
    "memory": bench_memory,
    "model": bench_models,
}


def pin() -> str:
    """Keep to one CPU where the system can, for steadier times; says which."""
    if not hasattr(os, "sched_setaffinity"):
        return "not pinned to a CPU"
    cpu = max(os.sched_getaffinity(0))  # the first is where a system does its own work
    os.sched_setaffinity(0, {cpu})
    return f"pinned to CPU {cpu}"


def describe(command: Sequence[str]) -> Iterator[str]:
    """What the figures depend on: command, machine and versions."""
    yield f"command   {shlex.join(['python', 'tools/bench.py', *command])}"
    yield f"machine   {processor()}, {platform.system()} {platform.machine()}, {pin()}, one BLAS thread"
    packages = [f"{name} {installed(name)}" for name in NAMES]
    yield f"versions  Python {platform.python_version()}, {', '.join(packages)}"


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown CPU"


def installed(package: str) -> str:
    """The version of a package, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def whole_blocks(text: str) -> int:
    """The side of a matrix whose rows are whole blocks of gguf-py's, in the half-sized matrix too."""
    size = int(text)
    if size < 1 or size % (2 * TQ1_0_BLOCK):
        raise argparse.ArgumentTypeError(f"must be a positive multiple of {2 * TQ1_0_BLOCK}, not {size}")
    return size


def positive(text: str) -> int:
    """A count of at least one."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {count}")
    return count


def parse(command: Sequence[str]) -> argparse.Namespace:
    """The command line; wrong usage exits with 2."""
    parts = "\n".join(f"  {name:12}{bench.__doc__}" for name, bench in PARTS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"parts:\n{parts}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", type=whole_blocks, default=4096, help="side of the square matrix (4096)")
    parser.add_argument("--repeats", type=positive, default=9, help="runs of each call (9)")
    parser.add_argument("--weights", type=positive, default=10**6, help="to which matrices grow (1,000,000)")
    parser.add_argument("--model", type=Path, default=MINILM, help="whose quality a page shows (its slice)")
    parser.add_argument("--report", metavar="FILE.md", help="write a page, too, and pictures beside it")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="these parts alone")
    return parser.parse_args(command)


def main(command: Sequence[str]) -> int:
    """Print the table."""
    options = parse(command)
    print(*describe(command), "", sep="\n")
    print(line("what", "measured", "against", "ratio", "target", "ok?"))
    bench = Bench(options.size, options.repeats, options.weights)
    found: dict[str, list[Row]] = {}
    for name, part in PARTS.items():
        if options.only is None or name in options.only:
            for row in part(bench):
                print(row.text(), flush=True)
                found.setdefault(name, []).append(row)
    if options.report:
        headings = {name: part.__doc__ or "" for name, part in PARTS.items()}
        bench_report.write(Path(options.report), list(describe(command)), found, headings, options.model)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
