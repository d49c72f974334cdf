"""Print what is made by a program in the appendices of SPEC.md, or put it there.

A and B are files byte by byte, E is the table of bytes, F and G are read from fixtures/manifest.json.

usage: python tools/spec_appendix.py            print the appendices
       python tools/spec_appendix.py --write    put them into SPEC.md
       python tools/spec_appendix.py --gguf     compare E with what gguf-py packs (pip install '.[bench]')
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from traceability import FOLDER, NO_FILE, TOO_BIG, Json, Row, cases_of, load, matrix

from tritcodec import TritTensor, open_file, save_file
from tritcodec.canonical import Cursor
from tritcodec.header import PREAMBLE_SIZE, RawEntry
from tritcodec.layout import Segment
from tritcodec.reader import Tensor

SPEC = Path(__file__).parents[1] / "SPEC.md"
COMMAND = "python tools/spec_appendix.py --write"
ROW = 16  # bytes a line
PREAMBLE_FIELDS = {
    "magic": 8,
    "major version": 2,
    "minor version": 2,
    "flags": 4,
    "header size": 8,
    "file size": 8,
    "SHA-256 of the header": 32,
}
Part = tuple[int, str]  # how many bytes, and what they mean


def painted_tensors() -> dict[str, Tensor]:
    """The tensors of appendix B, by the rule that `description` gives in words."""
    levels = np.array([n * n % 251 % 9 - 4 for n in range(40)], np.int8).reshape(2, 20)
    codes = np.array([[0, 13], [26, 5]], np.uint8)
    steps = (np.arange(32, 59) / 4096).astype(np.float32)
    weights = TritTensor.from_levels(levels, codes, steps, depth=2)
    return {"bias": np.array([0.5, -2, 3], np.float32), "weights": weights}


def description(tensors: dict[str, Tensor]) -> str:
    """What appendix B holds, in words and numbers."""
    weights = tensors["weights"]
    assert isinstance(weights, TritTensor)
    rows = "\n".join(" ".join(f"{level:2}" for level in row) for row in weights.levels().tolist())
    first, last = float(weights.dequantize()[0, 0]), float(weights.dequantize()[1, 19])
    return f"""\
The raw tensor `bias` holds 0.5, −2 and 3 in binary32. The trit tensor `weights` has 2 rows of 20, depth 2,
groups of 16, and shift 0. Its steps are `step[c] = (32 + c) / 4096`, its codes 0 and 13 in the first row, 26
and 5 in the second, and its levels, where element n in C order has the level `n*n % 251 % 9 - 4`, are

```text
{rows}
```

The first weight is `step[0] * -4`, {first}; the last is `step[5] * {weights.levels()[1, 19]}`, {last}."""


def dump(path: Path) -> str:
    """The bytes of a file with their offsets and meaning."""
    data, lines, at = path.read_bytes(), [f"{'offset':>6}  {'bytes':47}  meaning"], 0
    for size, meaning in file_parts(path):
        lines += part_lines(data[at : at + size], at, meaning)
        at += size
    if at != len(data):
        raise ValueError(f"{at} of {len(data)} bytes are explained")
    return "\n".join(lines)


def part_lines(part: bytes, at: int, meaning: str) -> Iterator[str]:
    """The lines of one part, its meaning in the first; a run of zeros that pads is one line."""
    if not any(part) and len(part) > 1 and meaning.startswith("padding"):
        yield f"{at:6}  {f'00 ... 00 ({len(part)} bytes)':47}  {meaning}"
        return
    for start in range(0, len(part), ROW):
        row = part[start : start + ROW].hex(" ").upper()
        yield f"{at + start:6}  {row:47}  {meaning if start == 0 else ''}".rstrip()


def file_parts(path: Path) -> Iterator[Part]:
    """Every part of a file, in order."""
    with open_file(path) as file:
        data = path.read_bytes()
        at = PREAMBLE_SIZE + file.preamble.header_size
        numbers = {"major version": 1, "minor version": file.preamble.minor}
        numbers |= {"header size": file.preamble.header_size, "file size": file.preamble.file_size}
        for field, size in PREAMBLE_FIELDS.items():
            yield size, f"{field}: {numbers[field]}" if field in numbers else field
        yield from header_parts(Cursor(data[PREAMBLE_SIZE:at]))
        for segment in [*file.segments, None]:
            start = segment.offset if segment else len(data)
            if start > at:
                yield start - at, f"padding, to {start}"
            if segment:
                yield segment.size, segment_meaning(segment)
                at = segment.end


def header_parts(cursor: Cursor, level: int = 0, prefix: str = "") -> Iterator[Part]:
    """The next value of the header and all within it."""
    start = cursor.at
    kind, number = cursor.head()
    indent = "  " * level + prefix
    if kind == "str":
        text = cursor.take(number).decode()
        yield cursor.at - start, f'{indent}"{text}"'
    elif kind == "integer":
        yield cursor.at - start, f"{indent}{number}"
    elif kind == "bin":
        yield cursor.at - start, f"{indent}bin of {number} bytes"
        yield len(cursor.take(number)), ""
    else:
        yield cursor.at - start, f"{indent}{kind} of {number}"
        for _ in range(number):
            if kind == "map":
                yield from header_parts(cursor, level + 1)
            yield from header_parts(cursor, level + 1, "= " if kind == "map" else "")


def segment_meaning(segment: Segment) -> str:
    """A segment in words."""
    if isinstance(segment.entry, RawEntry):
        return f"{segment.entry.name}: its elements, {segment.entry.dtype}"
    ranks = ["least significant", "middle", "most significant"]
    part, depth = segment.part, segment.entry.form.depth
    kind = f"codes, {ranks[part]} trits" if part < 3 else f"levels, trits of 3^{depth - 1 - (part - 3)}"
    return f"{segment.entry.name}: {kind}"


# Appendix E

TRITS = (-1, 0, 1)
SIGNS = {-1: "-", 0: "0", 1: "+"}


def packed(trits: tuple[int, ...]) -> int:
    """The byte of five trits (SPEC 3.1)."""
    return sum((t + 1) * 3**i for i, t in enumerate(trits))


def tq1_0(trits: tuple[int, ...]) -> int:
    """The byte of five trits in ggml's TQ1_0, where the first is the most significant digit."""
    v = 0
    for t in trits:
        v = 3 * v + t + 1
    return -(-v * 256 // 243)  # ceil(v * 256 / 243)


def byte_table() -> str:
    """All five trits by the last three, a line, and the first two, a column: our byte and TQ1_0's."""
    columns = [first[::-1] for first in product(TRITS, repeat=2)]
    lines = ["       " + "   ".join(f"{signs(first):<5}" for first in columns).rstrip()]
    for last in (rest[::-1] for rest in product(TRITS, repeat=3)):
        both = [(packed(first + last), tq1_0(first + last)) for first in columns]
        lines.append(f"..{signs(last)}  " + "   ".join(f"{ours:02X} {theirs:02X}" for ours, theirs in both))
    return "```text\n" + "\n".join(lines) + "\n```"


def signs(trits: tuple[int, ...]) -> str:
    """Trits as signs."""
    return "".join(SIGNS[t] for t in trits)


def gguf_packs() -> dict[tuple[int, ...], int]:
    """The byte of all five trits as gguf-py packs them."""
    from gguf import GGMLQuantizationType, quants  # an extra

    every = list(product(TRITS, repeat=5))
    blocks = np.ones((-(-len(every) // 32), 256), np.float32)  # the scale of a block is its largest magnitude
    for number, trits in enumerate(every):
        blocks[number // 32, number % 32 : 160 : 32] = trits  # of a block, byte m holds elements m + 32 * n
    data = quants.quantize(blocks, GGMLQuantizationType.TQ1_0)
    return {trits: int(data[number // 32, number % 32]) for number, trits in enumerate(every)}


def check_gguf() -> int:
    """Compare; the exit status."""
    theirs = gguf_packs()
    wrong = [trits for trits, byte in theirs.items() if byte != tq1_0(trits)]
    print(f"{len(theirs)} bytes, {len(wrong)} not as gguf-py packs them", *map(signs, wrong))
    return 1 if wrong else 0


# Appendices F and G


def registry(rows: list[Row], cases: dict[str, Json]) -> str:
    """A line a requirement: its section, the verdict on a file that breaks it, and such a file."""
    lines = ["| requirement | section | verdict | for example |", "| --- | --- | --- | --- |"]
    for row in rows:
        requirement = row.requirement
        if row.broken:
            case = shortest([cases[name] for name in row.broken])
            verdict, example = case["verdict"], f"{case['why']}: `{case['id']}`"
        else:
            example = NO_FILE[requirement.id]
            verdict = "invalid" if example in (FOLDER, TOO_BIG) else "—"
        lines.append(f"| {requirement.id} | {requirement.section} | {verdict} | {example} |")
    return "\n".join(lines)


def shortest(cases: list[Json]) -> Json:
    """The case that is said in the fewest words."""
    return min(cases, key=lambda case: (len(case["why"]), case["id"]))


def malformed(manifest: Json) -> str:
    """A line a kind of fault: the requirements that are named, how many files there are, and one of them."""
    lines = ["| fault | named | files | for example |", "| --- | --- | --- | --- |"]
    for flag, note in manifest["notes"].items():
        cases = [case for case in manifest["cases"] if flag in case["flags"] and case["clause"]]
        if cases:
            named = ", ".join(sorted({case["clause"] for case in cases}))
            example = shortest(cases)
            words = f"{example['why']}: `{example['id']}`"
            lines.append(f"| {note['description']} | {named} | {len(cases)} | {words} |")
    return "\n".join(lines)


MALFORMED_VALUES = {  # by requirement: what the bytes are, and where a case says them
    "MP-1": ("for an integer", r"([0-9a-f ]+) for an integer"),
    "MP-2": ("integers", r"the integer ([0-9a-f ]+)"),
    "MP-3": ("for a key", r"the key ([0-9a-f ]+)"),
    "MP-4": ("in a str", r"a value of the bytes ([0-9A-F]+)"),
}


def malformed_values(manifest: Json) -> str:
    """Bytes that MessagePack has, or might have, and 6.2 does not."""
    lines = []
    for clause, (what, pattern) in MALFORMED_VALUES.items():
        whys = [case["why"] for case in manifest["cases"] if case["clause"] == clause]
        found = [re.fullmatch(pattern, why) for why in whys]
        values = sorted({bytes.fromhex(match[1]) for match in found if match})
        text = ", ".join(value.hex(" ").upper() for value in values)
        lines += textwrap.wrap(text, 100, initial_indent=f"{clause}  {what}: ", subsequent_indent="      ")
    return "```text\n" + "\n".join(lines) + "\n```"


def appendices() -> dict[str, str]:
    """What stands between the markers of each appendix."""
    sources = load()
    cases = {case["id"]: case for case in cases_of(sources.manifest)}
    with tempfile.TemporaryDirectory() as folder:
        path, tensors = Path(folder) / "x.trit", painted_tensors()
        save_file({}, path)
        smallest = dump(path)
        save_file(tensors, path, {"format": "pt"})
        two = dump(path)
    return {
        "A": f"```text\n{smallest}\n```",
        "B": f"{description(tensors)}\n\n```text\n{two}\n```",
        "E": byte_table(),
        "F": registry(matrix(sources), cases),
        "G": f"{malformed(sources.manifest)}\n\n{malformed_values(sources.manifest)}",
    }


def with_appendices(spec: str) -> str:
    """*spec* with the appendices that the package makes now."""
    for name, text in appendices().items():
        begin, end = f"<!-- appendix {name}: {COMMAND} -->\n", f"<!-- end of appendix {name} -->\n"
        before, found, rest = spec.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise SystemExit(f"SPEC.md lacks the lines {begin}{end}")
        spec = f"{before}{begin}{text}\n{end}{after}"
    return spec


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print what is made by a program in SPEC.md.")
    parser.add_argument("--write", action="store_true", help="put it into SPEC.md")
    parser.add_argument("--gguf", action="store_true", help="compare appendix E with gguf-py")
    options = parser.parse_args()
    if options.gguf:
        sys.exit(check_gguf())
    if options.write:
        SPEC.write_text(with_appendices(SPEC.read_text("utf-8")), "utf-8")
    else:
        print("\n\n".join(appendices().values()))
