"""Golden products (SPEC 10): weights, activations, and the bits that come of them, by Python's integers.

What tools/make_fixtures.py stores in fixtures/matmul; nothing of the package makes an expected value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import adversarial
import ml_dtypes
import numpy as np
import numpy.typing as npt
from independent import Trit, planes_from
from painted import painted, painted_trit, pattern

F32 = npt.NDArray[np.float32]
Array = npt.NDArray[np.generic]

ONE_STEPS = [pattern(1 + i / 32) for i in range(27)]  # code 0 is 1: its weights are the levels themselves
NAN, INF = math.nan, math.inf
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I8": np.int8}


class Product(NamedTuple):
    """A case: weights, x (m, K), a scale for each row of x or None, and what comes of them."""

    name: str
    weights: Trit
    x: Array
    scale: F32 | None
    y: F32
    why: str
    dots: npt.NDArray[np.int32] | None = None  # of groups, where x is int8


def products(real: dict[int, Trit]) -> Iterator[Product]:
    """All of them; *real* are slices of a real model, one a depth."""
    for depth, weights in real.items():
        x = ordinary(4, weights.shape[-1])
        yield made(f"real-depth-{depth}", weights, x, f"real weights of depth {depth}, ordinary activations")
    yield from ragged()
    yield from dtypes()
    yield from hard()
    yield special()


def ragged() -> Iterator[Product]:
    """Sizes that are no multiple of anything, every depth and shift."""
    shapes = [[1], [37], [7, 33], [11, 17], [2, 3, 18]]
    for depth in range(1, 5):
        for shift in range(5 - depth):
            shape, size = shapes[(depth + 2 * shift) % 5], (1, 5, 16, 17)[(depth + shift) % 4]
            weights = painted_trit(shape, depth, shift, size)
            why = f"depth {depth}, shift {shift}, shape {shape}, groups of {size}"
            yield made(f"depth-{depth}-shift-{shift}", weights, ordinary(3, shape[-1]), why)


def dtypes() -> Iterator[Product]:
    """Activations of each dtype, with a scale a row and without."""
    for depth, (name, dtype) in enumerate(DTYPES.items(), 1):
        weights = painted_trit([6, 40], depth, 4 - depth)
        x = np.array(painted(3 * 40, 251)).reshape(3, 40) - 125
        x = (x / (1 if name == "I8" else 8)).astype(dtype)
        scale = numbers(depth, 3, 6)
        why = f"activations of {name}"
        yield made(f"{name.lower()}", weights, x, why)
        yield made(f"{name.lower()}-scaled", weights, x, f"{why}, each row with a scale", scale)


def hard() -> Iterator[Product]:
    """Ties, cancellation, huge and tiny activations, subnormal results and overflow."""
    levels = [[1, 1, 1, 1, 1, 1], [1, 1, -1, 1, -1, 1], [1, 1, 1, 0, 1, -1]]
    weights = of_levels(levels, 1)
    half, trace = 2.0**-24, 2.0**-60
    ties = [
        [1, half, 0, 0, 0, 0],
        [1, half, trace, 0, 0, 0],
        [1 + 2.0**-23, half, 0, trace, 0, 0],
        [1, half, trace, trace, 0, 0],
        [2.0**100, 1 + half, 0, -(2.0**100), half, 0],
        [-1, -half, 0, -trace, 0, 0],
    ]
    yield made("ties", weights, f32(ties), "sums at midpoints of two numbers, and a trace beside them")
    large = float(np.finfo(np.float32).max)
    rows = [
        [large, 2.0**103, 0, 0, 0, 0],
        [large, 2.0**102, 2.0**102, -(2.0**70), 0, 0],
        [large, large, 0, -large, 0, 0],
        [-large, -(2.0**103), 0, 0, 0, 0],
        [large, 2.0**103, -(2.0**-149), 0, 0, 0],
    ]
    yield made("overflow", weights, f32(rows), "sums around the midpoint above the largest number")
    least = 2.0**-149
    rows = [[least, least, 0, 0, 0, 0], [-least, 0, 0, 0, 0, 0], [3 * least, -least, least, 0, 0, 0]]
    yield made("subnormal", weights, f32(rows), "the least numbers")
    scale = f32([2.0**-1, 2.0**-1, 2.0**-2])
    yield made("rounds-to-zero", weights, f32(rows), "sums that round to zero keep their sign", scale)
    for depth in range(1, 5):
        H = (3**depth - 1) // 2
        pairs = [[(7 * i + 3 * j) % (2 * H + 1) - H for i in range(9)] for j in range(4)]
        weights = of_levels([[*row, *row] for row in pairs], depth)
        x = numbers(depth, 5 * 9, 40).reshape(5, 9)
        cancelling = np.concatenate([x, -x], axis=1)
        yield made(f"zeros-depth-{depth}", weights, cancelling, "terms that cancel to nothing")
        cancelling[:, 4] += np.float32(2.0**-100) * cancelling[:, 4] + np.float32(2.0**-120)
        yield made(f"wide-depth-{depth}", weights, f32(cancelling), "huge and tiny terms, some cancel")
    x = numbers(9, 8 * 21, 120).reshape(8, 21)
    yield made("any-exponents", painted_trit([5, 21], 3, 1), x, "activations of any exponents")


def special() -> Product:
    """NaN and infinities: what arithmetic on the terms makes of them."""
    weights = of_levels([[1, 0, -1, 1], [0, 1, 1, -1], [-1, -1, 0, 1]], 1)
    values = [NAN, INF, -INF, 0.0, 1.0]
    x = f32([[values[i % 5], values[i // 5], 2.0, -0.5] for i in range(25)])
    y = np.array([[by_ieee(row, w) for w in decoded(weights).tolist()] for row in x.tolist()], np.float32)
    bits = y.view(np.uint32)
    bits[np.isnan(y)] = 0x7FC0_0000
    return Product("nan-and-infinity", weights, x, None, y, "NaN and infinities among the activations")


def by_ieee(x: list[float], w: list[float]) -> float:
    """A sum of few small terms, which binary64 holds exactly, or of NaN and infinities."""
    total = 0.0
    for a, b in zip(x, w, strict=True):
        total += a * b
    return total + 0.0


def made(name: str, weights: Trit, x: Array, why: str, scale: F32 | None = None) -> Product:
    """A case, with its result by the definition."""
    y = adversarial.product(x.astype(np.float32), decoded(weights), scale)
    return Product(name, weights, x, scale, y, why, dots(x, weights) if x.dtype == np.int8 else None)


def dots(x: Array, weights: Trit) -> npt.NDArray[np.int32]:
    """The dot of each group, (m, rows, G), in Python's integers."""
    size, columns = weights.group_size, weights.shape[-1]
    groups = [range(first, min(first + size, columns)) for first in range(0, columns, size)]
    found = [
        [[sum(row[k] * levels[k] for k in group) for group in groups] for levels in weights.levels()]
        for row in x.tolist()
    ]
    return np.array(found, np.int32)


def decoded(weights: Trit) -> F32:
    """The weights as a binary32 matrix, by the independent codec."""
    return np.array(weights.values("F32"), np.uint32).view(np.float32)


def of_levels(levels: list[list[int]], depth: int) -> Trit:
    """Weights that are the *levels* themselves."""
    rows, columns = len(levels), len(levels[0])
    codes = [[0] * -(-columns // 16) for _ in range(rows)]
    return Trit([rows, columns], "F32", 16, 0, ONE_STEPS, codes, planes_from(levels, depth))


def ordinary(rows: int, columns: int) -> F32:
    """Activations of about the sizes that a layer has."""
    return numbers(columns, rows * columns, 2).reshape(rows, columns)


def numbers(seed: int, count: int, exponents: int) -> F32:
    """Numbers of 24 bits, exponents within ±*exponents*, the same everywhere: Python pins its random()."""
    random = Random(seed).random
    units = [int(random() * 2**23) + 2**23 for _ in range(count)]
    signed = [math.copysign(unit, random() - 0.5) for unit in units]
    return f32([math.ldexp(unit, int(random() * (2 * exponents + 1)) - exponents - 24) for unit in signed])


def f32(rows: npt.ArrayLike) -> F32:
    """Numbers as binary32."""
    return np.asarray(rows, np.float32)


def npy(array: Array) -> bytes:
    """The bytes of a .npy file, version 1.0; bfloat16 as its bits, which NumPy has no name for."""
    if array.dtype == ml_dtypes.bfloat16:
        array = array.view(np.uint16)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    head = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    head += " " * (-(10 + len(head) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + array.tobytes()
