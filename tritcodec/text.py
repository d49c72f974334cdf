"""What the commands print: tables, reports on files, sizes, errors."""

from __future__ import annotations

import json
import math
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from .errors import TritError
from .header import MAJOR, RAW_DTYPES, Entry, RawEntry, TritEntry
from .model.measure import Distortion, distortion_against
from .model.plan import Planned
from .model.shards import TritModel
from .model.source import ModelSource
from .model.verify import ModelReport
from .tensor import TritTensor
from .verify import Report

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
KIB = 1024
UNLIMITED = (10_000, 24)  # columns and lines where output goes to no terminal: nothing is cut
REASON_WIDTH = 16  # a pattern that was typed may be longer
NAME_WIDTH = 12  # the least that a name is cut to in a table


def inspect_table(model: TritModel, source: ModelSource | None) -> str:
    """What is in each tensor, and with *source* how far it is from that; then the sums."""
    sources = {tensor.name: tensor for tensor in source.tensors} if source else {}
    header = ["tensor", "shape", "kind", "stored", "info"] + (["SQNR dB", "error %"] if source else [])
    rows, total, entries = [], Distortion(), sorted(model.entries(), key=lambda entry: entry.name)
    for entry in entries:
        row = [entry.name, _shape(entry.shape), *_kind(entry)]
        if source and isinstance(entry, TritEntry):
            if entry.name not in sources:
                raise TritError(f"the source has no tensor {entry.name!a}", where=str(source.path))
            tensor = model.get_tensor(entry.name)
            error = distortion_against(sources[entry.name], cast(TritTensor, tensor))
            total += error
            row += _error_cells(error)
        rows.append(row)
    return "\n".join([_table(header, rows), "", *_inspect_totals(entries, total if source else None)])


def _kind(entry: Entry) -> list[str]:
    """Cells for kind, bits stored and bits of information a weight."""
    if isinstance(entry, RawEntry):
        bits = str(8 * RAW_DTYPES[entry.dtype].itemsize)
        return [f"{entry.dtype} raw", bits, bits]
    form = entry.form
    kind = f"{form.dtype} d{form.depth}" + (f"+{form.shift}" if form.shift else "")
    return [kind, f"{form.bits_per_weight:.3f}", f"{form.information_bits_per_weight:.3f}"]


def _error_cells(error: Distortion) -> list[str]:
    return [f"{error.sqnr:.2f}", f"{100 * error.relative_error:.2f}"]


def _inspect_totals(entries: Sequence[Entry], error: Distortion | None) -> list[str]:
    forms = [entry.form for entry in entries if isinstance(entry, TritEntry)]
    raw = [entry for entry in entries if isinstance(entry, RawEntry)]
    weights = sum(math.prod(form.shape) for form in forms)
    lines = []
    if forms:
        stored = 8 * sum(form.nbytes for form in forms) / weights
        content = sum(form.information_bits_per_weight * math.prod(form.shape) for form in forms) / weights
        bits = f"{stored:.3f} bits a weight stored, {content:.3f} of information"
        lines.append(f"{len(forms)} quantised: {weights:,} weights, {bits}")
    if error and forms:
        sqnr, relative = _error_cells(error)
        lines.append(f"SQNR over all quantised weights: {sqnr} dB (error {relative} %)")
    lines.append(f"{len(raw)} raw: {sum(sum(entry.segment_sizes) for entry in raw):,} bytes")
    return lines


def plan_table(plans: dict[str, list[Planned]]) -> str:
    """What becomes of each tensor, a column for each config, and the sums of each."""
    configs = list(plans)
    header = [
        "tensor",
        "shape",
        "dtype",
        *(config.removeprefix("uniform-") for config in configs),
        "kept because",
    ]
    rows = []
    for items in zip(*plans.values(), strict=True):
        tensor = items[0].tensor
        sizes = [_size(item.stored) for item in items]
        reason = textwrap.shorten(items[0].reason or "", REASON_WIDTH, placeholder="…")
        rows.append([tensor.name, _shape(tensor.shape), tensor.dtype, *sizes, reason])
    totals = [f"{config}: {summary(planned)}" for config, planned in plans.items()]
    return "\n".join([_table(header, rows), "", *totals])


def summary(planned: list[Planned]) -> str:
    """What a config stores, in words."""
    quantized = [item for item in planned if item.reason is None]
    weights = sum(item.weights for item in quantized)
    packed = sum(item.stored for item in quantized)
    raw = sum(item.stored for item in planned if item.reason is not None)
    bits = f" ({8 * packed / weights:.3f} bits a weight)" if weights else ""
    return f"{weights:,} weights in {packed:,} bytes{bits}, and {raw:,} bytes raw"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Columns side by side; the first is cut where the terminal is narrow."""
    cells = [header, *(row + [""] * (len(header) - len(row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    room = shutil.get_terminal_size(UNLIMITED).columns - sum(widths[1:]) - 2 * (len(header) - 1)
    widths[0] = min(widths[0], max(NAME_WIDTH, room))
    lines = []
    for row in cells:
        name = _cut(row[0], widths[0])
        aligned = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    """The last *width* characters: the end of a name tells more than its start."""
    return text if len(text) <= width else "…" + text[1 - width :]


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


def say(line: str) -> None:
    """Print one line, whatever a path in it holds."""
    print(line.translate(CONTROLS))


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
