"""How far decoded weights are from their source. For reports: nothing here defines bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TritError
from ..tensor import TritTensor
from .policy import SOURCES
from .source import SourceTensor, read_rows

BAND_WEIGHTS = 1 << 20  # weights compared at once

Rows = Callable[[int, int], npt.NDArray[Any]]  # the source's rows [start, stop)


@dataclass(frozen=True)
class Distortion:
    """Energy of weights and of their errors: sums of squares, which add up over tensors."""

    signal: float = 0.0
    noise: float = 0.0

    def __add__(self, other: Distortion) -> Distortion:
        return Distortion(self.signal + other.signal, self.noise + other.noise)

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise ratio in decibels: 10 log10(sum w^2 / sum (w - w')^2)."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def relative_error(self) -> float:
        """The norm of the errors over that of the weights."""
        if not self.signal:
            return math.inf if self.noise else 0.0
        return math.sqrt(self.noise / self.signal)


def distortion(rows: Rows, tensor: TritTensor) -> Distortion:
    """The distortion of *tensor* against its source, band by band."""
    total = Distortion()
    step = max(1, BAND_WEIGHTS // tensor.form.columns)
    for start in range(0, tensor.form.rows, step):
        stop = min(start + step, tensor.form.rows)
        weights = rows(start, stop).astype(np.float64)
        errors = weights - tensor.get_rows(start, stop).dequantize("F32")
        with np.errstate(over="ignore"):  # a binary64 source may be that large: its ratio is no number
            total += Distortion(float(np.square(weights).sum()), float(np.square(errors).sum()))
    return total


def distortion_against(tensor: SourceTensor, quantized: TritTensor) -> Distortion:
    """The distortion of *quantized* against *tensor* of its source. Raises TritError where shapes differ."""
    if tensor.dtype not in SOURCES:
        message = f"the source's dtype is {tensor.dtype}, not one of {', '.join(SOURCES)}"
        raise TritError(message, where=f"tensor {tensor.name!a}")
    if quantized.shape != tensor.shape:
        message = f"the source's shape is {list(tensor.shape)}, the file's {list(quantized.shape)}"
        raise TritError(message, where=f"tensor {tensor.name!a}")
    return distortion(partial(read_rows, tensor), quantized)
