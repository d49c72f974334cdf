"""Try to make `matmul` wrong: products that are hard to round, against the definition in integers.

The products are those of tests/adversarial.py: ties, traces beside ties, cancellation, huge and tiny
factors, subnormal results, overflow; of a few columns to thousands. Every element is compared bit for
bit. Product number n of a seed is always the same; what fails is printed with the call that makes it
again, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import tritcodec as tc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import adversarial  # the tests' folder is no package

SIDES = (1, 2, 8, 40)  # rows of x, and of w
COLUMNS = (1, 2, 3, 5, 8, 13, 24)
LONG = (255, 256, 257, 520, 1024, 1030, 4100)  # across the parts that a BLAS gets at once
LONG_EVERY = 50  # of so many products one is long, for these take the slow definition their time
SCALED_EVERY = 3  # these have no factor in common with the number of kinds, so that all of them meet
EASY_EVERY = 7  # of so many products one is hard in one row of w alone


def one(seed: int, number: int) -> tuple[str, int, int]:
    """Product *number*: its kind, elements, and how many of them are wrong."""
    rng = np.random.default_rng([seed, number])
    kind = list(adversarial.KINDS)[number % len(adversarial.KINDS)]
    columns = int(rng.choice(LONG if number % LONG_EVERY == 0 else COLUMNS))
    m, n = (int(side) for side in rng.choice(SIDES[:2] if columns > max(COLUMNS) else SIDES, 2))
    x, w = adversarial.problem(kind, int(rng.integers(1 << 62)), m, n, columns)
    scale = adversarial.spread(rng, (m,), 20) if number % SCALED_EVERY == 0 else None
    if number % EASY_EVERY == 0:
        w = adversarial.among_easy(w)
    y, expected = tc.matmul(x, w, scale=scale), adversarial.product(x, w, scale)
    return kind, y.size, int(np.count_nonzero(y.view(np.uint32) != expected.view(np.uint32)))


def main() -> int:
    """Run until the budget is spent; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="which products (0)")
    parser.add_argument("--elements", type=int, default=100_000, help="stop after so many (100,000)")
    parser.add_argument("--first", type=int, default=0, help="begin with this product (0)")
    options = parser.parse_args()
    elements, wrong, number, start = Counter[str](), 0, options.first, time.monotonic()
    while elements.total() < options.elements:
        kind, count, failed = one(options.seed, number)
        elements[kind] += count
        wrong += failed
        if failed:
            again = f"python tools/fuzz_matmul.py --seed {options.seed} --first {number} --elements 1"
            print(f"{failed} of {count} wrong, {kind}: {again}", flush=True)
        number += 1
    seconds = time.monotonic() - start
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in elements.items())
    print(
        f"{elements.total():,} elements of {number - options.first:,} products in {seconds:.0f} s ({kinds})"
    )
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
