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
UNITS = ("k/H", "k/3^(d-1)", "k")
NEAR = np.arange(-300, 301) << 6  # bit patterns of steps around a scale's own: all there are for most scales
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Producer:
    """How levels are multiplied out: the scale that a group stores, and the arithmetic of the `product`.

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
        return f"{self.output}: {self.scale} scale, {self.level}, {self.product} product"

    def unit(self, depth: int) -> int:
        """What levels are divided by."""
        units: dict[str, int] = {"k/H": (3**depth - 1) // 2, "k/3^(d-1)": 3 ** (depth - 1), "k": 1}
        return units[self.level]

    def stored(self, scales: Array, depth: int) -> Array:
        """The scales as they are kept, for *scales*, the largest weight of each group that is not clipped."""
        H = (3**depth - 1) // 2
        kept: Array = (scales / H * self.unit(depth)).astype(np.float32).astype(DTYPES[self.scale])
        return kept

    def __call__(self, levels: Array, stored: Array, depth: int) -> Array:
        """The weights of *levels* (n, g), whole numbers, and the scales (n,) of their groups."""
        product = DTYPES[self.product]
        factor = (levels.astype(np.float32) / np.float32(self.unit(depth))).astype(product)
        with np.errstate(over="ignore"):
            result: Array = (factor * stored.astype(product)[:, None]).astype(DTYPES[self.output])
        return result

    def has_step(self, scale: Any, levels: Array, depth: int) -> bool:
        """Whether some float32 of 18 significant bits gives, rounded once, what *scale* gives for *levels*.

        Hundreds near the scale are tried: one that is far, as may be for subnormal values, is not found.
        """
        k = np.unique(np.abs(levels))
        given = self(k[None, :], np.array([scale]), depth)[0]
        near = np.float32(np.float64(scale) / self.unit(depth)).view(np.uint32).astype(np.int64) & ~63
        bits = near + NEAR
        bits = bits[(bits >= 0x0080_0000) & (bits < 0x7F80_0000)]
        with np.errstate(over="ignore"):
            steps = bits.astype(np.uint32).view(np.float32)[:, None]
            tried = (steps * k.astype(np.float32)).astype(DTYPES[self.output])
            largest = (steps[:, 0] * np.float32((3**depth - 1) // 2)).astype(DTYPES[self.output])
        return bool(((tried == given).all(axis=1) & np.isfinite(largest.astype(np.float64))).any())


def scales_of(maxima: Array, count: int) -> Array:
    """For each group the nearest of *count* scales, evenly spaced in the logarithm over what there is."""
    logs = np.log(np.maximum(maxima.astype(np.float64), 1e-30))
    low, high = np.quantile(logs, 0.01), logs.max()
    index = np.rint((logs - low) / max(high - low, 1e-9) * (count - 1)).clip(0, count - 1)
    scales: Array = np.exp(low + index * (high - low) / max(count - 1, 1))
    return scales


@dataclass(frozen=True)
class Quantised:
    """What a producer quantised to, before it is multiplied out: levels (n, g) and the stored scales (n,)."""

    levels: Array
    stored: Array
    shape: tuple[int, int]


def quantised(
    w: Array, producer: Producer, depth: int, group_size: int = 16, count: int = 27, share: float = 0.7
) -> Quantised:
    """*w* (rows, K) by *producer*'s recipe; levels are float64, and -0 where a small negative weight was.

    A group's scale reaches *share* of its largest weight, so that some are clipped to the largest level.
    """
    rows, columns = w.shape
    width = -(-columns // group_size) * group_size
    padded = np.zeros((rows, width))
    padded[:, :columns] = w
    groups = padded.reshape(-1, group_size)
    scales = scales_of(np.abs(groups).max(axis=1) * share, count)
    H = (3**depth - 1) // 2
    levels = np.rint(groups / scales[:, None] * H).clip(-H, H)
    return Quantised(levels, producer.stored(scales, depth), (rows, columns))


def dequantised(producer: Producer, made: Quantised, depth: int, signed_zeros: bool = False) -> Array:
    """The weights that *producer* writes; without *signed_zeros*, its levels were integers."""
    levels = made.levels if signed_zeros else made.levels + 0.0
    rows, columns = made.shape
    weights = producer(levels, made.stored, depth).reshape(rows, -1)[:, :columns]
    return np.ascontiguousarray(weights)


def packable(producer: Producer, made: Quantised, depth: int) -> bool:
    """Whether every scale has a step for the levels that it is used with."""
    return all(
        producer.has_step(scale, made.levels[made.stored == scale], depth) for scale in np.unique(made.stored)
    )


PRODUCERS = [
    Producer(scale, level, product, output)
    for output in ("F16", "BF16")
    for scale in ("F32", output)
    for level in UNITS
    for product in ("F32", output)
    if (scale, product) != ("F32", output)
]
PRODUCERS += [Producer("F16", level, "F32", "F32") for level in UNITS]
