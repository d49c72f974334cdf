"""Tensors painted by a rule, made without the package (tests/independent.py)."""

from __future__ import annotations

import math
import struct

from independent import Trit, planes_from


def painted(size: int, values: int) -> list[int]:
    """*size* integers in 0..values-1.

    Their period is 251, the greatest prime of a byte: coprime to 5 rows a byte, to 27
    codes and to every group size here, so that what is out of place shows.
    """
    return [n * n % 251 % values for n in range(size)]


def painted_trit(
    shape: list[int],
    depth: int,
    shift: int = 0,
    group_size: int = 16,
    dtype: str = "F32",
    steps: str = "plain",
) -> Trit:
    """A trit tensor with one of the codebooks in STEPS."""
    rows, K = math.prod(shape[:-1]), shape[-1]
    G, H = -(-K // group_size), (3**depth - 1) // 2
    weights, codes = painted(rows * K, 2 * H + 1), painted(rows * G, 27)
    levels = [[u - H for u in weights[r * K : (r + 1) * K]] for r in range(rows)]
    code_rows = [codes[r * G : (r + 1) * G] for r in range(rows)]
    return Trit(shape, dtype, group_size, shift, STEPS[steps], code_rows, planes_from(levels, depth))


def pattern(value: float) -> int:
    """The binary32 pattern of *value*."""
    return int.from_bytes(struct.pack("<f", value), "little")


STEPS = {  # codebooks, as bit patterns, that obey CB-1 to CB-4
    "plain": [pattern(2.0**-6) + i * 0x00033740 for i in range(27)],
    "least": [0x00800000 + i * 64 for i in range(27)],  # binary16: zeros of either sign
    "ties in binary16": [pattern((2 * i + 1) * 2.0**-25) for i in range(27)],  # of subnormals, 2^-24 apart
    "ties in bfloat16": [pattern(1 + (2 * i + 1) * 2.0**-8) for i in range(27)],  # of numbers 2^-7 apart
    "greatest": [pattern(2.0**122 * (1.25 + i * 2.0**-8)) for i in range(26)]
    + [0x7CCCCCC0],  # times 40: < 2^128
    "near half of the least in binary16": [  # 2^-25 is a tie: below it is 0, above it 2^-24
        pattern(2.0**-25 * (1 + (i - 1) * 2.0**-17)) for i in range(27)
    ],
}
