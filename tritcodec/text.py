"""What the commands print: tables, reports on files, sizes, errors."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from .header import MAJOR, RAW_DTYPES, Entry, RawEntry
from .model.measure import Distortion, Looked, Sums, by_layer
from .model.plan import Planned
from .model.shards import TritModel
from .model.source import ModelSource
from .model.verify import ModelReport
from .verify import Report

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
KIB = 1024
UNLIMITED = (10_000, 24)  # columns and lines where output goes to no terminal: nothing is cut
REASON_WIDTH = 16  # a pattern that was typed may be longer
NAME_WIDTH = 12  # the least that a name is cut to in a table


def inspect_table(found: Sequence[Looked]) -> str:
    """A row for each tensor, one for each layer, and the sums; with errors, where they were measured."""
    compared = any(looked.distortion for looked in found)
    errors = ["SQNR dB", "error %", "worst", "group"] if compared else []
    head = ["tensor", "shape", "kind", "stored", "info", *errors]
    blocks = [table(head, [_row(each) for each in found], ["info"])]
    layers = by_layer(found)
    if any(layers):  # names may have no numbers
        head = ["layer", "quantised", "weights", "depth", "stored", "info", "bytes", "raw", *errors[:2]]
        lines = [_layer_row(name, Sums.of(some)) for name, some in layers.items()]
        blocks.append(table(head, lines, ["info", "raw", "bytes"]))
    return "\n\n".join([*blocks, "\n".join(_totals(Sums.of(found)))])


def _row(looked: Looked) -> list[str]:
    return [looked.entry.name, _shape(looked.entry.shape), *_kind(looked.entry), *_errors(looked.distortion)]


def _kind(entry: Entry) -> list[str]:
    """Cells for kind, bits stored and bits of information a weight."""
    if isinstance(entry, RawEntry):
        bits = str(8 * RAW_DTYPES[entry.dtype].itemsize)
        return [f"{entry.dtype} raw", bits, bits]
    form = entry.form
    kind = f"{form.dtype} d{form.depth}" + (f"+{form.shift}" if form.shift else "")
    return [kind, f"{form.bits_per_weight:.3f}", f"{form.information_bits_per_weight:.3f}"]


def _errors(error: Distortion | None) -> list[str]:
    if error is None:
        return []
    group = error.worst
    worst = [f"{100 * group.relative_error:.2f}", f"{group.row}:{group.group}"] if group else []
    return [f"{error.sqnr:.2f}", f"{100 * error.relative_error:.2f}", *worst]


def _layer_row(name: str, sums: Sums) -> list[str]:
    depths = "+".join(f"d{depth}" for depth in sums.depths)
    bits = [f"{sums.stored_bits:.3f}", f"{sums.information_bits:.3f}"] if sums.forms else ["", ""]
    sizes = [_size(sums.packed), _size(sums.raw)]
    counts = [str(len(sums.forms)), f"{sums.weights:,}", depths]
    return [name or "outside layers", *counts, *bits, *sizes, *_errors(sums.error)[:2]]


def _totals(sums: Sums) -> list[str]:
    lines = []
    if sums.forms:
        bits = f"{sums.stored_bits:.3f} bits a weight stored, {sums.information_bits:.3f} of information"
        lines.append(f"{len(sums.forms)} quantised: {sums.weights:,} weights, {bits}")
    if sums.error and sums.error.worst:
        sqnr, relative, worst, _ = _errors(sums.error)
        lines.append(f"SQNR over all quantised weights: {sqnr} dB (error {relative} %)")
        group = sums.error.worst
        where = f"group {group.group} of row {group.row} of {group.tensor!a}"
        lines.append(f"worst group: error {worst} %, {where}")
    lines.append(f"{sums.kept} raw: {sums.raw:,} bytes")
    return lines


def missing_lines(found: Sequence[Looked], source: ModelSource) -> list[str]:
    """In words, which of the raw tensors *found* are not so in *source*, and what else that has."""
    wrong = [looked for looked in found if looked.fault]
    lines = [f"raw, and not as in the source: {len(wrong)}, {_first(wrong)}"] if wrong else []
    here = {looked.entry.name for looked in found}
    missing = [tensor.name for tensor in source.tensors if tensor.name not in here]
    if missing:
        lines.append(f"in the source, and not here: {len(missing)}, {min(missing)!a} the first")
    return lines or ["the raw tensors are as in the source, which has no others"]


def _first(wrong: Sequence[Looked]) -> str:
    return f"{wrong[0].entry.name!a} the first: {wrong[0].fault}"


def plan_table(plans: dict[str, list[Planned]]) -> str:
    """What becomes of each tensor, a column for each config, and the sums of each."""
    configs = list(plans)
    columns = [config.removeprefix("uniform-") for config in configs]
    header = ["tensor", "shape", "dtype", *columns, "kept because"]
    rows = []
    for items in zip(*plans.values(), strict=True):
        tensor = items[0].tensor
        sizes = [_planned(item, config) for item, config in zip(items, configs, strict=True)]
        reason = textwrap.shorten(items[0].reason or "", REASON_WIDTH, placeholder=_ellipsis())
        rows.append([tensor.name, _shape(tensor.shape), tensor.dtype, *sizes, reason])
    totals = [f"{config}: {summary(planned)}" for config, planned in plans.items()]
    return "\n".join([table(header, rows, ["dtype", "kept because"]), "", *totals])


def _planned(item: Planned, config: str) -> str:
    """The bytes that a tensor will take, behind the depth where the name of the config does not say it."""
    said = not item.depth or config == f"uniform-d{item.depth}"
    return _size(item.stored) if said else f"d{item.depth} {_size(item.stored)}"


def summary(planned: list[Planned]) -> str:
    """What a config stores, in words."""
    quantized = [item for item in planned if item.reason is None]
    weights = sum(item.weights for item in quantized)
    packed = sum(item.stored for item in quantized)
    raw = sum(item.stored for item in planned if item.reason is not None)
    depths = sorted(Counter(item.depth for item in quantized).items())
    mixture = ", ".join(f"{count} at d{depth}" for depth, count in depths)
    bits = f" ({8 * packed / weights:.3f} bits a weight; {mixture})" if weights else ""
    return f"{weights:,} weights in {packed:,} bytes{bits}, and {raw:,} bytes raw"


def table(header: list[str], rows: list[list[str]], spare: Sequence[str] = ()) -> str:
    """Columns side by side; where the terminal is narrow the first is cut, and *spare* ones go, in turn."""
    cells = [header, *(row + [""] * (len(header) - len(row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    room = shutil.get_terminal_size(UNLIMITED).columns - sum(widths[1:]) - 2 * (len(header) - 1)
    if room < min(widths[0], NAME_WIDTH) and spare:
        gone = header.index(spare[0])
        header, *rows = (row[:gone] + row[gone + 1 :] for row in cells)
        return table(header, rows, spare[1:])
    widths[0] = min(widths[0], max(NAME_WIDTH, room))
    lines = []
    for row in cells:
        name = _cut(row[0], widths[0])
        aligned = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    """The last *width* characters: the end of a name tells more than its start."""
    mark = _ellipsis()
    return text if len(text) <= width else mark + text[len(mark) - width :]


def _ellipsis() -> str:
    """What stands for what was cut: one character, where standard output has it."""
    try:
        "…".encode(sys.stdout.encoding)
    except (UnicodeEncodeError, AttributeError, TypeError):  # standard output may be closed, or be in memory
        return "..."
    return "…"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _size(count: int) -> str:
    """Bytes in a few characters: 950, 36.2K, 1.4M (units of 1024)."""
    if count < KIB:
        return str(count)
    power = min(3, int(math.log(count, KIB)))
    return f"{count / KIB**power:.1f}{' KMG'[power]}"


def model_text(path: Path, report: ModelReport) -> str:
    """The report on a file; or that on a folder, and those on its shards that have something to say."""
    if path.name in report.shards:
        return _report_text(path, report.shards[path.name])
    head = f"{path}: {report.verdict}".translate(CONTROLS)
    if report.ok:
        head += f", {len(report.shards)} shards, {report.tensors} tensors, {report.size:,} bytes"
        head += f", identity {report.identity}"
    shards = {path.with_name(name): shard for name, shard in report.shards.items()}
    said = [_report_text(file, shard) for file, shard in shards.items() if shard.findings or shard.notes]
    return "\n".join([head, *(f"  {finding}" for finding in report.findings), *said])


def model_json(path: Path, report: ModelReport) -> str:
    """One line of ASCII, so that no name can forge another."""
    if path.name in report.shards:
        fields = _report_fields(report.shards[path.name])
    else:
        fields = asdict(report) | {"verdict": report.verdict, "tensors": report.tensors, "size": report.size}
        fields["shards"] = {name: _report_fields(shard) for name, shard in report.shards.items()}
    return json.dumps(fields | {"file": str(path)}, sort_keys=True)


def _report_text(path: Path, report: Report) -> str:
    head = f"{path}: {report.verdict}".translate(CONTROLS)
    if report.ok:
        head += f", {report.tensors} tensors, {report.size:,} bytes, identity {report.identity}"
    return "\n".join(
        [head, *(f"  {finding}" for finding in report.findings), *(f"  {note}" for note in report.notes)]
    )


def _report_fields(report: Report) -> dict[str, Any]:
    return asdict(report) | {"verdict": report.verdict}


def show(text: str, end: str = "\n") -> None:
    """Print *text*, now; an OSError names standard output."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        _let_go(sys.stdout)
        error.filename = "standard output"
        raise


def complain(text: str, end: str = "\n") -> None:
    """Print *text* to standard error, if there is one and it can be written."""
    if sys.stderr is None:  # for which print would take standard output
        return
    with or_silence():
        print(text, end=end, file=sys.stderr, flush=True)


@contextlib.contextmanager
def or_silence() -> Iterator[None]:
    """For a block that writes to standard error: where that cannot be written, nothing is from now on."""
    try:
        yield
    except OSError:
        _let_go(sys.stderr)


def _let_go(stream: TextIO) -> None:
    """Write what is left in *stream* nowhere, or Python would fail again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(line: str) -> None:
    """Print one line, whatever a path in it holds."""
    show(line.translate(CONTROLS))


def one_line(error: Exception) -> str:
    """What and why, on one line, whatever a name or a path holds."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*names, error.strerror]).translate(CONTROLS)
    return str(error).translate(CONTROLS)


def format_of(model: TritModel) -> str:
    """The version of the format, of a lone file: shards have their own."""
    if model.index:
        return ""
    with model.shard(model.shards[0]) as file:
        return f"format {MAJOR}.{file.header.minor}, "


def shards_of(model: TritModel) -> str:
    """How many there are, where there is an index."""
    return f"{len(model.shards)} shards, " if model.index else ""
