"""Signal to quantisation noise of every method and depth over a whole model, side by side.

Reads a model folder (`python tools/minilm.py whole DEST` fetches one), quantises
every matrix that the layer policy quantises, and prints a table a method: a row
a matrix, a column a depth, and below it the ratio over all weights together.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

import tritcodec as tc
from tritcodec.model.measure import Distortion, distortion_against
from tritcodec.model.plan import DEPTHS
from tritcodec.model.policy import Policy
from tritcodec.model.source import ModelSource, SourceTensor, read_tensor

METHODS: dict[str, dict[str, Any]] = {  # column heading: options of quantize
    "optimal": {"method": "optimal"},
    "tritllm-v2": {"method": "tritllm-v2"},
    "nested": {"method": "optimal", "nested": True},
}


def measure(tensor: SourceTensor, method: str, depth: int) -> Distortion:
    """The distortion of one matrix, quantised by *method* at *depth*."""
    quantized = tc.quantize(read_tensor(tensor), depth, **METHODS[method])
    return distortion_against(tensor, quantized)


def report(source: ModelSource, methods: Sequence[str], each: bool) -> None:
    """Print the tables of *methods*; with *each*, a row for every matrix."""
    policy = Policy()
    matrices = [tensor for tensor in source.tensors if policy.reason_to_keep(tensor) is None]
    weights = sum(math.prod(tensor.shape) for tensor in matrices)
    print(f"{len(matrices)} matrices, {weights:,} weights; SQNR in dB")
    bar = tqdm(total=len(methods) * len(DEPTHS) * len(matrices), disable=None, leave=False)
    for method in methods:
        totals = {depth: Distortion() for depth in DEPTHS}
        rows = []
        for tensor in matrices:
            cells = []
            for depth in DEPTHS:
                error = measure(tensor, method, depth)
                totals[depth] += error
                cells.append(error.sqnr)
                bar.update()
            rows.append((tensor.name, cells))
        print(f"\n{method:<50}" + "".join(f"{f'd{depth}':>8}" for depth in DEPTHS))
        for name, cells in rows if each else []:
            print(f"{name[-49:]:<50}" + "".join(f"{cell:8.2f}" for cell in cells))
        print(f"{'all weights':<50}" + "".join(f"{totals[depth].sqnr:8.3f}" for depth in DEPTHS))


def main() -> None:
    """Parse arguments and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder with model.safetensors, or a safetensors file")
    parser.add_argument(
        "--methods", default="optimal,tritllm-v2", metavar="NAME,...", help=f"of {', '.join(METHODS)}"
    )
    parser.add_argument("--each", action="store_true", help="a row for every matrix, too")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    if unknown := set(methods) - METHODS.keys():
        parser.error(f"unknown method {min(unknown)!r}")
    try:
        report(ModelSource(arguments.model), methods, arguments.each)
    except (tc.TritError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
