"""What `repack` makes of a whole model, as every simulated producer would have published it, at every depth.

Reads a model folder (`python tools/minilm.py whole DEST` fetches one), quantises the matrices of its linear
layers by each producer of tests/producers.py, multiplies them out, packs the model again and restores it.
Embeddings are left out: no producer touches them. Prints a table: a row a producer, a column a depth, in each
the matrices that were packed at that depth, of how many, after a plus those that were packed at another one,
and the bits a weight that they take. Every value has to come back bit for bit, a negative zero as +0; the
exit status is 1 where one does not.

With --scales N instead: of N random scales, the share for which some step gives every level, by a search that
knows nothing of the package. Only matrices whose scales all have one can be packed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from tritcodec.model.export import dequantize_model
from tritcodec.model.policy import Policy
from tritcodec.model.repack import Repack, repack_job
from tritcodec.model.run import quantize_model
from tritcodec.model.source import ModelSource, SourceTensor, read_tensor
from tritcodec.model.workers import Inline

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import producers  # the tests' folder is no package
from producers import DTYPES, Producer

DEPTHS = (1, 2, 3, 4)
WIDTH = 18
Array = npt.NDArray[Any]


def published(source: ModelSource, producer: Producer, depth: int) -> dict[str, Array]:
    """The tensors of *source* as *producer* publishes them, without embeddings."""
    tensors = [tensor for tensor in source.tensors if Policy().reason_to_keep(tensor) != "embedding"]
    return {tensor.name: _published(tensor, producer, depth) for tensor in tensors}


def _published(tensor: SourceTensor, producer: Producer, depth: int) -> Array:
    array = read_tensor(tensor)
    if tensor.dtype not in DTYPES:
        return array
    if Policy().reason_to_keep(tensor) is not None:
        return array.astype(DTYPES[producer.output])
    made = producers.quantised(array.astype(np.float64), producer, depth)
    return producers.dequantised(producer, made, depth, signed_zeros=True)


def cell(source: ModelSource, producer: Producer, depth: int) -> tuple[str, bool]:
    """What becomes of the model, in a few characters, and whether all of it comes back."""
    tensors = published(source, producer, depth)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        save_file(tensors, folder / "model" / "model.safetensors", {"format": "pt"})
        job = repack_job(ModelSource(folder / "model"), Repack())
        [planned] = quantize_model(job, folder / "out", Inline()).values()
        dequantize_model(folder / "out" / "repacked", folder / "back")
        back = {tensor.name: read_tensor(tensor) for tensor in ModelSource(folder / "back").tensors}
    packed = [item for item in planned if item.depth == depth]
    matrices = sum(Policy().reason_to_keep(tensor) is None for tensor in source.tensors)
    others = sum(item.depth not in (0, depth) for item in planned)
    text = f"{len(packed)}/{matrices}" + (f" +{others}" if others else "")
    if packed:
        text += f" {8 * sum(item.stored for item in packed) / sum(item.weights for item in packed):.3f}"
    same = back.keys() == tensors.keys() and all(_same(tensors[name], back[name]) for name in back)
    return text if same else f"{text} WRONG", same


def _same(before: Array, after: Array) -> bool:
    plain = np.where(before == 0, np.zeros_like(before), before)
    return before.dtype == after.dtype and after.tobytes() in (before.tobytes(), plain.tobytes())


def table(source: ModelSource, some: Sequence[Producer], depths: Sequence[int]) -> bool:
    """Print it; gives whether every value came back."""
    print(f"{'producer':<42}" + "".join(f"{f'depth {depth}':>{WIDTH}}" for depth in depths))
    right = True
    for producer in some:
        print(f"{producer.name:<42}", end="", flush=True)
        for depth in depths:
            text, same = cell(source, producer, depth)
            right &= same
            print(f"{text:>{WIDTH}}", end="", flush=True)
        print()
    return right


def scale_table(count: int, some: Sequence[Producer], depths: Sequence[int]) -> None:
    """Print the share of scales that have a step."""
    print(f"{'producer':<42}" + "".join(f"{f'depth {depth}':>{WIDTH}}" for depth in depths))
    for producer in some:
        shares = [_share(count, producer, depth) for depth in depths]
        print(f"{producer.name:<42}" + "".join(f"{share:>{WIDTH}.1%}" for share in shares), flush=True)


def _share(count: int, producer: Producer, depth: int) -> float:
    scales = producer.stored(np.exp(np.random.default_rng(depth).uniform(-4, 1, count)), depth)
    H = (3**depth - 1) // 2
    levels = np.arange(-H, H + 1)
    return sum(producer.has_step(scale, levels, depth) for scale in scales) / count


def main() -> int:
    """Parse arguments and print the table; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("model", nargs="?", help="a folder with model.safetensors, or a safetensors file")
    what.add_argument("--scales", type=int, metavar="N", help="look at scales alone, at N of them")
    parser.add_argument("--depths", type=int, nargs="+", choices=DEPTHS, default=DEPTHS, metavar="N")
    parser.add_argument("--only", default="", metavar="TEXT", help="producers whose names hold it")
    options = parser.parse_args()
    some = [producer for producer in producers.PRODUCERS if options.only in producer.name]
    if options.scales:
        scale_table(options.scales, some, options.depths)
        return 0
    start = time.monotonic()
    right = table(ModelSource(options.model), some, options.depths)
    print(f"{'every value came back' if right else 'VALUES DIFFER'}, {time.monotonic() - start:.0f} s")
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
