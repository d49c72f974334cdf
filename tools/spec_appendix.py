"""Print the files in the appendices of SPEC.md byte by byte, or put them there.

usage: python tools/spec_appendix.py [--write]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

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


def appendices() -> dict[str, str]:
    """What stands between the markers of each appendix."""
    with tempfile.TemporaryDirectory() as folder:
        path, tensors = Path(folder) / "x.trit", painted_tensors()
        save_file({}, path)
        smallest = dump(path)
        save_file(tensors, path, {"format": "pt"})
        two = dump(path)
    return {
        "A": f"```text\n{smallest}\n```",
        "B": f"{description(tensors)}\n\n```text\n{two}\n```",
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
    parser = argparse.ArgumentParser(description="Print the files in the appendices of SPEC.md byte by byte.")
    parser.add_argument("--write", action="store_true", help="put them into SPEC.md")
    if parser.parse_args().write:
        SPEC.write_text(with_appendices(SPEC.read_text("utf-8")), "utf-8")
    else:
        print("\n\n".join(appendices().values()))
