"""Vectors of the reference encoder (SPEC 11.2), steps given: what tools/make_fixtures.py stores.

A vector is as in layout_vectors.py; codes and levels are those of the independent encoder.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from itertools import accumulate, repeat
from typing import Any

import independent
from independent import Weights, fl
from painted import STEPS, pattern

Json = dict[str, Any]
Vector = tuple[str, str, Json, Json, str]
BOTH = {"": False, "-nested": True}  # what a name ends with
FORMS = [(depth, end) for depth in range(1, 5) for end in BOTH]


def spread(first: float, times: float = 1.25) -> list[int]:
    """27 steps from *first* on, each about *times* the one before, as bit patterns that obey CB-4."""
    return [pattern(s) + 32 & ~63 for s in accumulate(repeat(times, 26), float.__mul__, initial=first)]


POWERS = spread(2.0**-13, 2.0)  # code 13 is 1
ODD = 1 + (2**16 + 2**15 - 1) * 2.0**-17  # of 18 bits: its reciprocal, rounded, is not exact


def vectors(real: Weights) -> Iterator[Vector]:
    """All of them; *real* are rows of a real model."""
    yield from real_weights(real)
    yield from ordinary()
    yield from rounded()
    yield from equal()
    yield from halves()
    yield from scaled()
    yield from shapes()


def made(
    name: str,
    w: Weights,
    steps: list[int],
    depth: int,
    group_size: int,
    why: str,
    shape: list[int] | None = None,
) -> Vector:
    """A vector of rows *w*; a *name* that ends with -nested is that of nested codes."""
    nested, book = name.endswith("-nested"), struct.pack("<27I", *steps)
    codes, levels = independent.encode(w, list(struct.unpack("<27f", book)), depth, group_size, nested)
    flat = [x for row in w for x in row]
    request: Json = {
        "weights": struct.pack(f"<{len(flat)}f", *flat).hex(),
        "shape": shape or [len(w), len(w[0])],
    }
    request |= {"depth": depth, "group_size": group_size, "nested": nested, "codebook": book.hex()}
    result = {"codes": hexed(codes), "levels": hexed(levels)}
    return f"encode/{name}", "encode", request, result, why


def hexed(rows: list[list[int]]) -> str:
    """Rows of bytes in hexadecimal."""
    return bytes(value % 256 for row in rows for value in row).hex()


def scattered(size: int, scale: float = 1.0, start: int = 0) -> list[float]:
    """Weights of 24 bits between -*scale* and *scale*, by the fractions of multiples of the golden ratio."""
    return [fl((n * 2654435769 % 2**32 / 2**31 - 1) * scale) for n in range(start + 1, start + 1 + size)]


def real_weights(real: Weights) -> Iterator[Vector]:
    """Slices of a real model, of all depths."""
    for i, (depth, end) in enumerate(FORMS):
        group_size = (16, 32, 5, 16)[(i + i // 4) % 4]
        w = [row[: 3 * group_size] for row in real[i % len(real) :][:1]]
        why = f"real weights, depth {depth}, groups of {group_size}"
        yield made(f"real-depth-{depth}{end}", w, spread(2.0**-10), depth, group_size, why)


def ordinary() -> Iterator[Vector]:
    """Weights without a pattern, groups of every size."""
    for i, group_size in enumerate((1, 3, 5, 16, 32)):
        for depth, end in FORMS[i::4][:2]:
            w = [scattered(2 * group_size, 0.25 * 4**row, start=99 * row) for row in range(2)]
            why = f"weights without a pattern, depth {depth}, groups of {group_size}"
            yield made(
                f"groups-of-{group_size}-depth-{depth}{end}", w, spread(2.0**-8, 1.3), depth, group_size, why
            )


def rounded() -> Iterator[Vector]:
    """Steps close around the best one: which is taken is a matter of rounding, in the written order."""
    for i, (depth, end) in enumerate(FORMS):
        group_size = (32, 16, 5, 17)[i % 4]
        w, steps = close(group_size, depth, BOTH[end], start=1000 * i)
        why = f"errors of all codes nearly equal, depth {depth}, groups of {group_size}"
        yield made(f"rounded-depth-{depth}{end}", [w], steps, depth, group_size, why)
    w, steps = close(13, 3, False, start=0)
    why = "errors nearly equal, 13 weights to a row: these are the group, and no zeros fill it up to 32"
    yield made("rounded-narrow", [w], steps, 3, 32, why)
    why = "errors nearly equal, 13 weights in the last group: zeros at its end fill it up to 17"
    yield made("rounded-short", [[0.0] * 17 + w], steps, 3, 17, why)


def close(size: int, depth: int, nested: bool, start: int) -> tuple[list[float], list[int]]:
    """Weights, and steps next to each other around the one that is best for them."""
    w, best, least = scattered(size, 0.5 * 3**depth, start), 1.0, 1 if nested else depth
    for _ in range(20):  # the step that is best for the levels, and the levels for that step
        best = best_step(w, best, depth, least)
    return w, [(pattern(best) & ~63) + 64 * j for j in range(-13, 14)]


def best_step(w: list[float], s: float, depth: int, least: int) -> float:
    """The step of least error for the levels of *w* under *s*, at all depths from *least* on."""
    k, up, down = [min(round(abs(x) / s), (3**depth - 1) // 2) for x in w], 0.0, 0.0
    for d in range(depth, least - 1, -1):
        cut = [3 ** (depth - d) * n for n in k]
        up += 9**d * math.fsum(n * abs(x) for n, x in zip(cut, w, strict=True))  # sum differs by version
        down += 9**d * sum(n * n for n in cut)
        k = [round(n / 3) for n in k]
    return up / down


def equal() -> Iterator[Vector]:
    """Codes of equal errors: the lowest is taken. Zeros, weights of one magnitude, outliers."""
    zeros = [[0.0, -0.0] * 3, [0.0, -0.0, 0.0, 0.0, -1.0, 0.0]]
    yield made("zeros", zeros, POWERS, 2, 3, "groups of zeros of either sign take code 0")
    for end in BOTH:
        w = [[(-1.0) ** n * x for x in (1.0, 0.75, 2.0**-20) for n in range(5)]]
        why = "weights of one magnitude, which several steps meet"
        yield made(f"one-magnitude{end}", w, POWERS, 3, 5, why)
        w = [[1.5, -1.5, 1.5, 3.0, -3.0, -3.0]]
        yield made(f"between-two-steps{end}", w, POWERS, 1, 3, "weights half-way between two steps, depth 1")
        w = [[*scattered(15, 0.01), x] for x in (1.0, 1024.0, 2.0**20)]
        yield made(
            f"outlier{end}", w, spread(2.0**-8, 1.3), 2, 16, "one weight far above the others of its group"
        )
    w = [[4096.0, 1.0, -2.0, 0.5, 3.0]]
    steps = [pattern(1.0) + 64 * i for i in range(27)]
    yield made("equal-when-rounded", w, steps, 1, 5, "code 26 has the least error; rounded, many are equal")


def halves() -> Iterator[Vector]:
    """Weights half-way between two levels of a step, the largest of them beyond H, and those beside."""
    for depth, end in FORMS:
        H, step = (3**depth - 1) // 2, 1.0 if BOTH[end] else ODD
        ties = [fl((-1.0) ** n * (n + 0.5) * step) for n in range(max(0, H - 15), H + 1)]
        near = [fl(x * (1 + side * 2.0**-23)) for x in ties for side in (-1, 1)]
        why = f"halves of the step, which go to even levels, and numbers next to them, depth {depth}"
        steps = spread(step * 2.0**-13, 2.0)
        yield made(f"halves-depth-{depth}{end}", [ties + near], steps, depth, len(ties), why)


def scaled() -> Iterator[Vector]:
    """Magnitudes at the edges of 11.2, a group each side, and beyond what any step reaches."""
    for power in (-96, -32, 32, 96):
        edge = 2.0**power
        below = [edge * (1 - 2.0**-24), *scattered(4, edge / 2)]
        w = [[*below, edge, *scattered(4, edge / 2, start=7)]]
        steps, end = spread(edge / 64, 1.2), "-nested" if power > 0 else ""
        why = f"a largest magnitude just below 2^{power}, and just that"
        yield made(f"edge-2-{f'minus-{-power}' if power < 0 else power}{end}", w, steps, 3, 5, why)
    least, most = 2.0**-149, (2 - 2.0**-23) * 2.0**127
    tiny = [
        least * n for n in (1, -1, 2, 0, 3, 0, 40, -7, 0, 2**22 - 1, 2**23, 1 - 2**25, 5, -(2**23), 2**24 + 1)
    ]
    yield made("subnormal", [tiny], STEPS["least"], 4, 5, "subnormal weights, the least steps")
    yield made("subnormal-nested", [tiny], spread(2.0**-126, 1.5), 2, 3, "subnormal weights, small steps")
    yield made(
        "subnormal-large-steps", [tiny], spread(2.0**-100, 400.0), 2, 5, "steps above 2^40 when scaled: equal"
    )
    huge = [most, -most, most / 3, 1.0, 2.0**100, *scattered(5, 2.0**126)]
    huge = [fl(x) for x in huge]
    yield made("huge", [huge], spread(2.0**116, 1.15), 4, 5, "weights up to the largest of binary32")
    yield made(
        "huge-nested", [huge], STEPS["greatest"], 3, 5, "weights up to the largest, the greatest steps"
    )
    why = "quotients beyond binary32: the largest level; steps below 2^-90 when scaled"
    yield made("huge-small-steps", [huge], STEPS["least"], 2, 5, why)
    w = [[x * 2.0**power for power in (-140, -70, 0, 70, 120) for x in (1.0, -0.625, 0.375)]]
    yield made("every-scale", w, spread(2.0**-126, 500.0), 3, 3, "groups of all five scales in one row")


def shapes() -> Iterator[Vector]:
    """Ranks, rows and a short last group, which is filled up with zeros."""
    steps = spread(2.0**-7, 1.2)
    for shape, group_size in [([1], 1), ([7], 32), ([7], 3), ([37], 16), ([2, 17], 16), ([3, 1, 4], 3)]:
        columns, depth = shape[-1], 1 + (shape[0] + group_size) % 4
        cells = scattered(math.prod(shape), start=50 * group_size)
        w = [cells[at : at + columns] for at in range(0, len(cells), columns)]
        name, why = "x".join(map(str, shape)), f"shape {shape}, groups of {group_size}: the last one is short"
        if columns % group_size == 0:
            why = f"shape {shape}, groups of {group_size}"
        yield made(f"shape-{name}-groups-of-{group_size}", w, steps, depth, group_size, why, shape)
