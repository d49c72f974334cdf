"""Kernels that are wrong, each in one way: what the judge has to find, and the least of it that it does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tritcodec.tensor import TritTensor

F32 = npt.NDArray[np.float32]
Kernel = Callable[[F32, TritTensor], F32]


def right(x: F32, t: TritTensor) -> F32:
    """A correct kernel: float32, in the order of a BLAS."""
    y: F32 = x @ t.dequantize("F32").T
    return y


def flipped_trit(t: TritTensor) -> TritTensor:
    """One level of one weight, off by its least trit."""
    levels = t.levels()
    levels[7, 19] += 1 if levels[7, 19] <= 0 else -1
    return TritTensor.from_levels(levels, t.codes, t.codebook, depth=t.depth, dtype=t.dtype)


def wrong_code(t: TritTensor) -> TritTensor:
    """One group, off by one code."""
    codes = t.codes
    row, group = np.argwhere(np.add.reduceat(t.levels() != 0, range(0, t.shape[-1], 16), axis=-1) > 8)[5]
    codes[row, group] += 1 if codes[row, group] < 26 else -1
    return TritTensor.from_levels(t.levels(), codes, t.codebook, depth=t.depth, dtype=t.dtype)


def half(x: F32) -> F32:
    """Activations through float16, cut off."""
    return (x.view(np.uint32) & 0xFFFF_E000).view(np.float32)


def short_group_dropped(x: F32, t: TritTensor) -> F32:
    """Only whole groups count."""
    whole = t.form.columns // t.group_size * t.group_size
    y: F32 = x[:, :whole] @ t.dequantize("F32")[:, :whole].T
    return y


def padding_counted(x: F32, t: TritTensor) -> F32:
    """The last group is filled up with levels of -1, a forgotten bias, and the first activations again."""
    missing = t.form.groups * t.group_size - t.form.columns
    y: F32 = right(x, t) - x[:, :missing].sum(axis=1, keepdims=True) * t.scales()[:, -1]
    return y


WRONG: dict[str, Kernel] = {
    "a trit flipped": lambda x, t: right(x, flipped_trit(t)),
    "a group's scale off by one code": lambda x, t: right(x, wrong_code(t)),
    "the last short group dropped": short_group_dropped,
    "rows shifted by one": lambda x, t: np.roll(right(x, t), 1, axis=1),
    "padding counted": padding_counted,
    "activations cut to half": lambda x, t: right(half(x), t),
}
