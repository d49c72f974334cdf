"""Vectors of the exchange layouts (SPEC 14), by the independent codec: what tools/make_fixtures.py stores.

A vector is its id, the command of docs/protocol.md, the request, the result, and why it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import independent
from independent import Matrix
from painted import painted

Json = dict[str, Any]
Vector = tuple[str, str, Json, Json, str]

TO: dict[str, Callable[[Matrix, int], bytes]] = {
    "two-bit": lambda levels, _: independent.to_two_bit(levels),
    "int4": independent.to_int4,
    "tq1-0": lambda levels, _: independent.to_tq1_0(levels),
}
FROM: dict[str, Callable[[bytes, int, int, int], Matrix]] = {
    "two-bit": lambda data, rows, columns, _: independent.from_two_bit(data, rows, columns),
    "int4": independent.from_int4,
    "tq1-0": lambda data, rows, columns, _: independent.from_tq1_0(data, rows, columns),
}
UNITS = {"two-bit": 64, "int4": 2, "tq1-0": 256}  # a row is filled up to a multiple of so many columns
DEPTHS = {"two-bit": [1], "int4": [1, 2], "tq1-0": [1]}
NO_TQ1_0 = sorted({*range(256)} - {-(-v * 256 // 243) for v in range(243)})


def vectors() -> Iterator[Vector]:
    """All of them."""
    for layout, depths in DEPTHS.items():
        for depth in depths:
            yield from sizes(layout, depth)
            yield from every_unit(layout, depth)
            yield from padding(layout, depth)
            yield from lengths(layout, depth)
            yield from beyond(layout, depth)
    yield from codes_of_3()
    yield from nibbles()
    yield from bytes_of_no_trits()
    yield from depths_above_2()


def there_and_back(name: str, layout: str, depth: int, levels: Matrix, why: str) -> Iterator[Vector]:
    """A vector of each direction."""
    rows, columns = len(levels), len(levels[0])
    request = {"layout": layout, "depth": depth, "rows": rows, "columns": columns}
    packed = TO[layout](levels, depth)
    assert FROM[layout](packed, rows, columns, depth) == levels
    shown = bytes(k % 256 for row in levels for k in row).hex()
    name = f"exchange/{layout}-{depth}-{{}}-{name}"
    yield name.format("to"), "to_layout", request | {"levels": shown}, {"packed": packed.hex()}, why
    yield name.format("from"), "from_layout", request | {"packed": packed.hex()}, {"levels": shown}, why


def refused(name: str, layout: str, depth: int, columns: int, packed: bytes, why: str) -> Vector:
    """A vector of one row that is refused on the way back."""
    try:
        found = FROM[layout](packed, 1, columns, depth)
    except independent.Broken as broken:
        clause = broken.clause
    else:
        raise AssertionError(f"{name}: {found}")
    request = {"layout": layout, "depth": depth, "rows": 1, "columns": columns, "packed": packed.hex()}
    return f"exchange/{layout}-{depth}-from-{name}", "from_layout", request, {"error": clause}, why


def sizes(layout: str, depth: int) -> Iterator[Vector]:
    """Columns around words and units; rows beside a byte row of five."""
    unit, H = UNITS[layout], (3**depth - 1) // 2
    edges = {1, 3, 16, 17, unit - 1, unit, unit + 1, 2 * unit - 1}
    for rows, columns in [*((1, columns) for columns in sorted(edges)), (4, 3), (6, unit + 1)]:
        cells = [value - H for value in painted(rows * columns, 2 * H + 1)]
        levels = [cells[r * columns : (r + 1) * columns] for r in range(rows)]
        why = f"{rows} rows by {columns} columns"
        yield from there_and_back(f"{rows}-by-{columns}", layout, depth, levels, why)


def every_unit(layout: str, depth: int) -> Iterator[Vector]:
    """Every byte that a layout can hold, in every place of a block of TQ1_0."""
    if layout == "two-bit":
        row = [byte // 3**i % 3 - 1 for byte in range(81) for i in range(4)]
        yield from there_and_back("every-byte", layout, depth, [row], "all 81 bytes of four trits")
    elif layout == "int4":
        levels = range(-(3**depth // 2), 3**depth // 2 + 1)
        row = [k for high in levels for low in levels for k in (low, high)]
        yield from there_and_back("every-byte", layout, depth, [row], "all pairs of levels")
    else:
        # Byte m of block b holds the number 52 * b + m, counted round; its four-trit bytes that times 3.
        rows = [[0] * 256 for _ in range(5)]
        for at in range(5 * 52):
            for n, c in enumerate(independent.TQ1_0_COLUMNS[at % 52]):
                rows[at // 52][c] = at % 243 // 3 ** (4 - n) % 3 - 1
        yield from there_and_back("every-byte", layout, depth, rows, "the v of 243 bytes; four trits of some")


def padding(layout: str, depth: int) -> Iterator[Vector]:
    """Padding that is not 0, at its first and last place."""
    unit = UNITS[layout]
    for columns in sorted({1, unit - 1, unit + 1}):
        width = -(-columns // unit) * unit
        for at in sorted({columns, width - 1}):
            for value in (-1, 1):
                row = [0] * width
                row[at] = value
                name = f"{columns}-columns-{at}-{'minus' if value < 0 else 'plus'}"
                why = f"{columns} columns, and {value:+} in column {at}"
                yield refused(name, layout, depth, columns, TO[layout]([row], depth), why)


def lengths(layout: str, depth: int) -> Iterator[Vector]:
    """A byte or a unit too many or too few."""
    unit = UNITS[layout]
    whole = TO[layout]([[0] * unit], depth)
    size = len(whole)
    for length in sorted({0, size - 1, size + 1, 2 * size, 2 * size + 1}):
        data = (whole * 3)[:length]
        why = f"{length} bytes, where {unit} columns take {size}"
        yield refused(f"{length}-bytes", layout, depth, unit, data, why)


def beyond(layout: str, depth: int) -> Iterator[Vector]:
    """Levels beyond the depth, on the way there."""
    H = (3**depth - 1) // 2
    for level in (H + 1, -H - 1, 127, -128):
        request = {"layout": layout, "depth": depth, "rows": 1, "columns": 2}
        request["levels"] = bytes([0, level % 256]).hex()
        name = f"exchange/{layout}-{depth}-to-beyond-{level % 256:02x}"
        yield name, "to_layout", request, {"error": "TRIT-2"}, f"level {level} of depth {depth}"


def codes_of_3() -> Iterator[Vector]:
    """The code 3 in every place of a word, and in padding, where it is no trit either."""
    for at in range(16):
        data = (3 << 2 * at).to_bytes(16, "little")
        yield refused(f"code-3-{at}", "two-bit", 1, 16, data, f"the code 3 in column {at}")
    data = (3 << 126).to_bytes(16, "little")
    yield refused("code-3-63-of-16", "two-bit", 1, 16, data, "the code 3 in padding")


def nibbles() -> Iterator[Vector]:
    """Every nibble that is no level of its depth, low and high, and in padding."""
    for depth, H in ((1, 1), (2, 4)):
        for nibble in range(H + 1, 16 - H):
            for place, byte in (("low", nibble), ("high", nibble << 4)):
                why = f"the {place} nibble is {nibble}, at depth {depth}"
                yield refused(f"{place}-{nibble}", "int4", depth, 2, bytes([byte]), why)
        data = bytes([(H + 1) << 4])
        yield refused("padding-beyond", "int4", depth, 1, data, "padding beyond the depth")


def bytes_of_no_trits() -> Iterator[Vector]:
    """Each of the 13 bytes that stand for no v, at the ends of the parts of a block; and fifth trits."""
    zeros = independent.to_tq1_0([[0] * 256])
    ends = (0, 31, 32, 47, 48, 51)
    wrong = [(ends[i % 6], byte, "of no trits") for i, byte in enumerate(NO_TQ1_0)]
    fifths = {48: 1, 49: 121, 50: 122, 51: 242}
    wrong += [(at, -(-v * 256 // 243), "with a fifth trit") for at, v in fifths.items()]
    for at, byte, what in wrong:
        data = zeros[:at] + bytes([byte]) + zeros[at + 1 :]
        yield refused(f"{at}-byte-{byte}", "tq1-0", 1, 256, data, f"byte {at} is {byte}, {what}")


def depths_above_2() -> Iterator[Vector]:
    """Levels that do not fit a nibble, or might, but for their depth."""
    for depth in (3, 4):
        request = {"layout": "int4", "depth": depth, "rows": 1, "columns": 2}
        why = f"depth {depth} in int4 pairs"
        for cmd, key, value in (("to", "levels", "0001"), ("from", "packed", "10")):
            name = f"exchange/int4-{depth}-{cmd}"
            yield name, f"{cmd}_layout", request | {key: value}, {"error": "XL-4"}, why
