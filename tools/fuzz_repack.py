"""Try to make `repack` wrong: what simulated producers of all kinds write, in random shapes.

Each input is a random matrix, quantised and multiplied out by a producer of tests/producers.py; one in four
is then damaged. It has to come back bit for bit or be kept raw, and where every scale has a step, by a search
that knows nothing of the package, it has to be packed, at no more than its depth. Input number n of a seed is
always the same; what fails is printed with the call that makes it again, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritcodec import TritTensor
from tritcodec.encode import Weights
from tritcodec.recover import look, recover
from tritcodec.tensor import GROUP_SIZE
from tritcodec.values import Values, bits_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import producers  # the tests' folder is no package

DEPTHS = (1, 2, 3, 4)
GROUP_SIZES = (16, 16, 16, 32, 64, 128, 1 << 16)
DAMAGED_EVERY = 4
CLOSE = 0.1
Array = npt.NDArray[Any]


def recovered(w: Array) -> TritTensor | None:
    """What `repack` makes of a matrix; None where it would keep it raw, whatever the size."""
    weights = Weights.of_array(w, GROUP_SIZE)
    found = recover(weights, look(weights), DEPTHS)
    if not found.exact:
        return None
    form = Weights.of_array(w, found.group_size).form(found.depth, found.steps)
    codes, offsets = Values(found.steps, found.depth, form.dtype).encode(
        bits_of(w, form.dtype), form.group_size
    )
    return TritTensor.from_blocks(form, [(0, codes, offsets)])


def same_bits(w: Array, t: TritTensor) -> bool:
    """Whether every value comes back, a negative zero as +0."""
    plain = np.where(w == 0, np.zeros_like(w), w)
    return plain.tobytes() == t.dequantize().tobytes()


def random_weights(rng: np.random.Generator) -> Array:
    """A matrix of up to some thousand weights, of some distribution and size."""
    rows, columns = int(rng.integers(1, 80)), int(rng.choice([1, 3, 15, 16, 17, 40, 100, 128, 300]))
    shape = rows, columns
    w: Array = [rng.standard_normal(shape), rng.laplace(size=shape), rng.standard_t(2, shape)][
        rng.integers(3)
    ]
    w = w * np.exp(rng.uniform(0, 1.5) * rng.standard_normal((rows, 1)))
    w *= rng.random(w.shape) < rng.choice([1, 1, 0.5, 0.1])  # sparse, perhaps
    w *= rng.random((rows, 1)) < rng.choice([1, 1, 0.8])  # and without some rows
    if rng.random() < CLOSE:  # groups of nearly one size, for scales that can hardly be told apart
        w = w / np.maximum(np.abs(w).max(axis=1, keepdims=True), 1e-30) * rng.uniform(1, 1.02, (rows, 1))
    scaled: Array = w * (2.0 ** rng.uniform(-22, 4) / max(1e-30, float(np.abs(w).max())))
    return scaled


def damaged(rng: np.random.Generator, w: Array) -> Array:
    """*w* with a bit or some values changed, or all of it a little."""
    result: Array = w.copy()
    bits = result.view(f"u{w.itemsize}").reshape(-1)
    kind = rng.integers(3)
    if kind == 0:
        bits[rng.integers(bits.size)] ^= bits.dtype.type(1 << int(rng.integers(8 * w.itemsize - 2)))
    elif kind == 1:
        some = rng.random(bits.size) < 0.01
        bits[some] = rng.permutation(bits)[some]
    else:
        result = (w.astype(np.float64) * (1 + 0.001 * rng.standard_normal(w.shape))).astype(w.dtype)
    return result


def one(seed: int, number: int) -> tuple[str, str]:
    """Input *number*: what was made, and what became of it: "packed", "raw", or what is wrong."""
    rng = np.random.default_rng([seed, number])
    producer, depth = producers.PRODUCERS[number % len(producers.PRODUCERS)], int(rng.integers(1, 5))
    size, count = int(rng.choice(GROUP_SIZES)), int(rng.choice([1, 5, 20, 27, 27]))
    w = random_weights(rng)
    made = producers.quantised(
        w, producer, depth, min(size, w.shape[1]), count, float(rng.choice([0.5, 0.7, 1]))
    )
    x = producers.dequantised(producer, made, depth, bool(rng.integers(2)))
    kind, hurt = f"{producer.name}, depth {depth}", number % DAMAGED_EVERY == 0
    if hurt:
        x = damaged(rng, x)
    if not np.isfinite(x.astype(np.float64)).all():
        return kind, "not finite"
    tensor, expected = recovered(x), not hurt and producers.packable(producer, made, depth)
    if tensor is None:
        return kind, "MISSED" if expected else "raw, damaged" if hurt else "raw"
    if not same_bits(x, tensor):
        return kind, "OTHER BITS"
    return kind, "TOO DEEP" if expected and tensor.depth > depth else "packed"


def main() -> int:
    """Run all inputs; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="which inputs (0)")
    parser.add_argument("--inputs", type=int, default=2000, help="how many (2,000)")
    parser.add_argument("--first", type=int, default=0, help="begin with this one (0)")
    options = parser.parse_args()
    results, start = Counter[str](), time.monotonic()
    for number in range(options.first, options.first + options.inputs):
        kind, result = one(options.seed, number)
        results[result] += 1
        if result.isupper():
            again = f"python tools/fuzz_repack.py --seed {options.seed} --first {number} --inputs 1"
            print(f"{result}: {kind}: {again}", flush=True)
    counts = ", ".join(f"{count:,} {result}" for result, count in sorted(results.items()))
    print(f"{results.total():,} inputs in {time.monotonic() - start:.0f} s: {counts}")
    wrong = sum(count for result, count in results.items() if result.isupper())
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
