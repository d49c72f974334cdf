"""SPEC 16.6: how a matrix was probably made, where steps come near all its values and give most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .codebook import FLOATS, FREE_BITS
from .spans import F64, I64, Spans, cover, spans
from .trits import BASE, largest_level
from .values import BITS

# Units in the last place by which values that were rounded twice are off; in F32, for want of bits of a step.
SLACK = {"F16": 1, "BF16": 1, "F32": 1 << FREE_BITS}
ENOUGH = 0.9  # of the scales have to be explained
NEIGHBOURS = np.arange(-3, 4)  # of the scale that is tried first, in units in its last place


@dataclass(frozen=True)
class Near:
    """Steps at `depth` come near all groups of a sample, and `arithmetic` would explain why not nearer."""

    depth: int
    arithmetic: str


@dataclass(frozen=True)
class Producer:
    """Arithmetic that people use: a scale of the checkpoint's dtype times k / unit, in `product`."""

    level: str
    unit: float
    product: str

    def values(self, scales: npt.NDArray[np.floating], k: F64, dtype: str) -> npt.NDArray[np.unsignedinteger]:
        """The bits, (scales, k), of the magnitudes that come out."""
        product = FLOATS[self.product]
        factors = (k.astype(np.float32) / np.float32(self.unit)).astype(product)
        products: np.ndarray = scales[:, None].astype(product) * factors
        return products.astype(FLOATS[dtype]).view(BITS[dtype])


def near(sample: I64, dtype: str, depths: Sequence[int]) -> Near | None:
    """The lowest of *depths* at which 27 steps come near all groups of *sample*, (n, 16) magnitudes.

    None where there is none, or no arithmetic that is known gives what nearly all the steps do not.
    """
    groups = sample[sample.any(axis=1)]
    for depth in depths:
        loose = spans(groups, dtype, depth, SLACK[dtype])
        chosen, complete = cover(loose)
        if complete and len(np.unique(loose.owner)) == len(groups):
            arithmetic = _arithmetic(groups, loose, chosen, dtype, depth)
            return Near(depth, arithmetic) if arithmetic else None
    return None


def _arithmetic(groups: I64, loose: Spans, chosen: Sequence[int], dtype: str, depth: int) -> str | None:
    if dtype == "F32":  # a product is exact there
        return "scales of more than 18 significant bits"
    pairs = [_pairs(groups, loose, u, dtype) for u in chosen]
    H, top = largest_level(depth), BASE ** (depth - 1)
    units = {f"k/{H}": H, f"k/{top}": top, "k": 1}
    producers = [Producer(*item, product) for product in ("F32", dtype) for item in units.items()]
    explained = {
        producer: sum(_explains(producer, u, pair, dtype) for u, pair in zip(chosen, pairs, strict=True))
        for producer in producers
    }
    best = max(producers, key=lambda producer: explained[producer])
    if explained[best] < ENOUGH * len(chosen):
        return None
    how = f"{dtype} scale times {best.level}, multiplied in {best.product}"
    return f"{how} ({explained[best]} of {len(chosen)} scales)"


def _pairs(groups: I64, loose: Spans, u: int, dtype: str) -> tuple[I64, F64]:
    """The distinct magnitudes of groups that fit nothing but *u*, by their bits, and their levels."""
    alone = np.bincount(loose.owner)[loose.owner] == 1
    hit = loose.owner[alone & (loose.low <= u) & (u <= loose.high)]
    magnitudes = np.unique(groups[hit])
    magnitudes = magnitudes[magnitudes > 0]
    return magnitudes, np.rint(_values(magnitudes, dtype) / _step(u))


def _explains(producer: Producer, u: int, pairs: tuple[I64, F64], dtype: str) -> bool:
    """Whether some scale near that of *u* gives all the magnitudes."""
    magnitudes, k = pairs
    with np.errstate(over="ignore"):
        first = np.array(_step(u) * producer.unit).astype(FLOATS[dtype]).view(BITS[dtype])
    scales = np.maximum(int(first) + NEIGHBOURS, 1).astype(BITS[dtype]).view(FLOATS[dtype])
    with np.errstate(over="ignore", invalid="ignore"):  # a neighbour may be infinite
        return bool((producer.values(scales, k, dtype) == magnitudes).all(axis=1).any())


def _values(magnitudes: I64, dtype: str) -> F64:
    return magnitudes.astype(BITS[dtype]).view(FLOATS[dtype]).astype(np.float64)


def _step(u: int) -> float:
    return float(np.uint32(u << FREE_BITS).view(np.float32))
