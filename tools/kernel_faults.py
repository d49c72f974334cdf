"""How small a fault `check_matmul` still finds: the table in docs/matmul.md.

python tools/kernel_faults.py            print the table
python tools/kernel_faults.py --write    write it into docs/matmul.md

Kernels that are wrong in one way each (tests/wrong_kernels.py) compute products with real weights, of
the model in fixtures/minilm at all four depths. The table has the worst error in units of the bound,
of the four depths the least: above 1 the fault is found.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

import tritcodec as tc

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from wrong_kernels import WRONG, Kernel, right  # noqa: E402  # the tests' folder is no package

PAGE = ROOT / "docs" / "matmul.md"
MARKS = re.compile(r"(<!-- faults: .*? -->\n)(.*?)(<!-- end of faults -->)", re.DOTALL)
LAYERS = ("attention.self.query", "output.dense")
ROWS = 32  # of ordinary activations
UNUSED = 8  # columns, so that the last group is a short one

F32 = npt.NDArray[np.float32]


def weights(layer: str) -> F32:
    """The weights of a layer of the real model, without the last columns."""
    tensors = load_file(ROOT / "fixtures" / "minilm" / "model.safetensors")
    return np.asarray(tensors[f"encoder.layer.0.{layer}.weight"][:, :-UNUSED], np.float32)


def least(kernel: Kernel, x: F32, tensors: list[tc.TritTensor]) -> float:
    """The worst error of *kernel* in units of the bound, of all *tensors* the least."""
    return min(float(tc.check_matmul(kernel(x, t), x, t).units.max()) for t in tensors)


def change(x: F32, tensors: list[tc.TritTensor]) -> float:
    """The least relative change that shows of whatever one weight, in the tensor where it is largest."""
    return max(float(np.max([_change(x, row) for row in t.dequantize("F32")])) for t in tensors)


def _change(x: F32, w: F32) -> float:
    terms = np.abs(x.astype(np.float64) * w)
    used = terms.max(axis=0) > 0
    counts = np.count_nonzero(terms, axis=1)
    bound = ((1 + 2.0**-24) ** (counts + 1) - 1) * terms.sum(axis=1)
    shown = np.divide(bound[:, None], terms, out=np.full(terms.shape, np.inf), where=terms > 0)
    return float(shown.min(axis=0)[used].max(initial=0))


def table() -> Iterator[str]:
    """The lines of the table."""
    cases = {}
    for layer in LAYERS:
        w = weights(layer)
        tensors = [tc.quantize(w, depth) for depth in (1, 2, 3, 4)]
        ordinary = np.random.default_rng(7).standard_normal((ROWS, w.shape[1])).astype(np.float32)
        cases[f"K = {w.shape[1]}, `probe`"] = (tc.probe(w.shape[1]), tensors)
        cases[f"K = {w.shape[1]}, {ROWS} rows, normal"] = (ordinary, tensors)
    yield row("fault", cases)
    yield row("---", ["---"] * len(cases))
    for name, kernel in {"none: float32, in the order of a BLAS": right, **WRONG}.items():
        yield row(name, [f"{least(kernel, *case):.2g}" for case in cases.values()])
    yield row("least relative change of any one weight", [f"{change(*case):.1g}" for case in cases.values()])


def row(name: str, cells: Iterable[str]) -> str:
    """A line of the table."""
    return f"| {' | '.join([name, *cells])} |"


def main() -> int:
    """Print the table, or write it; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write it into docs/matmul.md")
    options = parser.parse_args()
    text = "".join(f"{line}\n" for line in table())
    if options.write:
        PAGE.write_text(MARKS.sub(rf"\1{text}\3", PAGE.read_text("utf-8")), "utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
