"""What `repack` reports, as text and for machines."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .header import RAW_DTYPES, TritEntry
from .model.plan import Planned

REPACK_HEADER = ["tensor", "shape", "dtype", "depth", "group", "steps", "-0", "before", "after"]


def repack_rows(planned: Sequence[Planned]) -> list[list[str]]:
    """A row under REPACK_HEADER for each tensor that is packed."""
    rows = []
    for item in planned:
        if isinstance(item.entry, TritEntry) and item.finding:
            form = item.entry.form
            found = [form.depth, form.group_size, item.finding.steps, item.finding.negative_zeros]
            cells = [*found, bytes_before(item), item.stored]
            shape = "x".join(map(str, form.shape))
            rows.append([item.tensor.name, shape, form.dtype, *(f"{cell:,}" for cell in cells)])
    return rows


def repack_reasons(planned: Sequence[Planned]) -> list[str]:
    """A line for each matrix that is kept raw, and one for all that nobody looked at."""
    tried = [item for item in planned if item.reason and item.finding]
    lines = [f"raw: {item.tensor.name!a}: {item.reason}" for item in tried]
    others = Counter(item.reason for item in planned if item.reason and not item.finding)
    if others:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(others.items()))
        lines.append(f"raw, not looked at: {reasons}")
    return lines


def repack_total(planned: Sequence[Planned]) -> str:
    """What came of all, in a sentence or two."""
    fields = _totals(planned)
    line = f"{fields['packed']} of {fields['matrices']} matrices packed"
    if fields["packed"]:
        line += f": {fields['weights']:,} weights in {fields['after']:,} bytes, from {fields['before']:,}"
        stored, content = fields["bits a weight"], fields["information"]
        line += f" ({stored:.3f} bits a weight, {content:.3f} of information)"
    line += f"; {fields['raw']:,} bytes raw"
    zeros = fields["negative zeros"]
    return line + (f"; {zeros:,} negative zeros become +0" if zeros else "")


def repack_json(folder: Path, planned: Sequence[Planned]) -> str:
    """All of the report, one line of ASCII."""
    tensors = [_fields(item) for item in planned]
    return json.dumps({"folder": str(folder), **_totals(planned), "tensors": tensors}, sort_keys=True)


def bytes_before(item: Planned) -> int:
    """What a tensor takes in the source."""
    return item.weights * RAW_DTYPES[item.tensor.dtype].itemsize


def _totals(planned: Sequence[Planned]) -> dict[str, Any]:
    forms = [item.entry.form for item in planned if isinstance(item.entry, TritEntry)]
    packed = [item for item in planned if item.depth]
    weights = sum(item.weights for item in packed)
    content = sum(form.information_bits_per_weight * math.prod(form.shape) for form in forms)
    after = sum(item.stored for item in packed)
    return {
        "matrices": sum(item.finding is not None for item in planned),
        "packed": len(packed),
        "weights": weights,
        "before": sum(bytes_before(item) for item in packed),
        "after": after,
        "bits a weight": 8 * after / weights if weights else None,
        "information": content / weights if weights else None,
        "raw": sum(item.stored for item in planned if not item.depth),
        "negative zeros": sum(item.finding.negative_zeros for item in packed if item.finding),
    }


def _fields(item: Planned) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": item.tensor.name,
        "shape": item.tensor.shape,
        "dtype": item.tensor.dtype,
        "before": bytes_before(item),
        "after": item.stored,
        "packed": isinstance(item.entry, TritEntry),
    }
    if isinstance(item.entry, TritEntry):
        form = item.entry.form
        fields |= {"group size": form.group_size, "information": form.information_bits_per_weight}
    found = asdict(item.finding) if item.finding else {"reason": item.reason}
    return fields | {key.replace("_", " "): value for key, value in found.items()}
