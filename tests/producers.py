"""Simulated producers of dequantised checkpoints, in plain NumPy: what other people's code writes.

None of it uses the package: a producer picks a scale a group, one of at most 27, rounds the weights to
levels, and multiplies them out again in its own arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Producer:
    """How levels are multiplied out: `scale` is what a group stores, `product` the arithmetic.

    `level` says what the scale is multiplied by: "k/H" and "k/3^(d-1)" are numbers up to 1 or so, "k" an
    integer, for which the scale is a step. `output` is the dtype of the checkpoint.
    """

    scale: str
    level: str
    product: str
    output: str

    @property
    def name(self) -> str:
        """All of it, in a line."""
        return f"{self.scale} scale, {self.level}, {self.product} product, {self.output} output"

    def __call__(self, levels: Array, scales: Array, depth: int) -> Array:
        """The weights of *levels* (n, g), integers, and *scales* (n,), the largest weight of each group."""
        unit = {"k/H": (3**depth - 1) // 2, "k/3^(d-1)": 3 ** (depth - 1), "k": 1}[self.level]
        scales = scales / (3**depth - 1) * 2 if self.level == "k" else scales
        product = DTYPES[self.product]
        factor = (levels.astype(np.float32) / np.float32(unit)).astype(product)
        stored = scales.astype(np.float32).astype(DTYPES[self.scale]).astype(product)
        result: Array = (factor * stored[:, None]).astype(DTYPES[self.output])
        return result


def scales_of(maxima: Array, count: int) -> Array:
    """For each group the nearest of *count* scales, evenly spaced in the logarithm over what there is."""
    logs = np.log(np.maximum(maxima.astype(np.float64), 1e-30))
    low, high = np.quantile(logs, 0.01), logs.max()
    index = np.rint((logs - low) / max(high - low, 1e-9) * (count - 1)).clip(0, count - 1)
    scales: Array = np.exp(low + index * (high - low) / max(count - 1, 1))
    return scales


def dequantised(
    w: Array, producer: Producer, depth: int, group_size: int = 16, count: int = 27, share: float = 0.7
) -> Array:
    """*w* (rows, K), quantised by *producer*'s recipe and multiplied out again.

    A group's scale reaches *share* of its largest weight, so that some are clipped to the largest level.
    """
    rows, columns = w.shape
    width = -(-columns // group_size) * group_size
    padded = np.zeros((rows, width))
    padded[:, :columns] = w
    groups = padded.reshape(-1, group_size)
    scales = scales_of(np.abs(groups).max(axis=1) * share, count)
    H = (3**depth - 1) // 2
    levels = np.rint(groups / scales[:, None] * H).clip(-H, H).astype(np.int64)
    return producer(levels, scales, depth).reshape(rows, width)[:, :columns]


PRODUCERS = [
    Producer(scale, level, product, output)
    for output in ("F16", "BF16")
    for scale in ("F32", output)
    for level in ("k/H", "k/3^(d-1)", "k")
    for product in ("F32", output)
    if (scale, product) != ("F32", output)
]
