"""A report on a model as one HTML page, which needs no script and no network: sizes, errors, counts, and why.

Whatever comes from a file is escaped, and `<bdi>` keeps names of any script in their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import cast

from ..header import RAW_DTYPES, RawEntry, TritEntry
from .measure import Distortion, Group, Looked, Sums, by_layer
from .policy import Policy
from .shards import TritModel
from .source import SourceTensor

KIB = 1024
FOUR_DIGITS = 999.5  # from here on, three digits would need an exponent
NOWHERE = Path()  # of a tensor whose name, dtype and shape are all that is asked for
ASKED = "asked for: the recipe would quantise it"
WHY = "Why is not in the file: this is what the recipe says of such names, dtypes and shapes."
WHY_REPACKED = "Why is not in the file: <code>repack</code> says it when it runs."
NOT_FOUND = "not of trits and scales, or no smaller"
SHOWN = 400  # characters of a value of the metadata
FEW_LAYERS = 3  # so many are shown with all their tensors at once

STYLE = files(__package__).joinpath("report.css")


def report(model: TritModel, found: Sequence[Looked]) -> str:
    """The page about *model*, of which everything was *found*, counts included."""
    title = _text(str(model.path))
    cards = [_facts(model, found), _sizes(found), _layers(found), _counts(found), _kept(model, found)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">\n"
        f'<title>{escape(str(model.path))}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE.read_text('utf-8')}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        + "\n".join(f'<section class="card">{card}</section>' for card in cards if card)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(name: str) -> str:
    """A name from a file, as HTML; a line may end after a dot."""
    return f"<bdi>{escape(name).replace('.', '.<wbr>')}</bdi>"


def size(count: int) -> str:
    """Bytes in a few characters, in units of 1024."""
    power = min(4, int(math.log(count, KIB))) if count else 0
    value = count / KIB**power
    digits = f"{value:.0f}" if value >= FOUR_DIGITS else f"{value:.3g}"
    return f"{digits} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _before(found: Iterable[Looked]) -> int:
    """The bytes of tensors before they were quantised: each has its source's dtype in its entry."""
    return sum(math.prod(each.entry.shape) * RAW_DTYPES[each.entry.dtype].itemsize for each in found)


def _facts(model: TritModel, found: Sequence[Looked]) -> str:
    sums, before = Sums.of(found), _before(found)
    share = f"{100 * model.size / max(before, 1):.1f} % of {size(before)}"
    facts = {"Size": f"<b>{size(model.size)}</b><br>{share}"}
    facts["Quantised"] = f"<b>{len(sums.forms)}</b> of {len(found)} tensors<br>{sums.weights:,} weights"
    if sums.forms:
        content = f"{sums.information_bits:.3f} of information"
        facts["Bits a weight"] = f"<b>{sums.stored_bits:.3f}</b> stored<br>{content}"
    if sums.error and sums.error.worst:
        relative = f"relative error {_percent(sums.error)}"
        facts["Signal to noise"] = f"<b>{sums.error.sqnr:.2f} dB</b><br>{relative}"
        facts["Worst group, row:group"] = f"{_text(sums.error.worst.tensor)}<br>{_worst(sums.error.worst)}"
    wrong = [each.entry.name for each in found if each.fault]
    if wrong:
        facts["Raw, not as in the source"] = f"<b>{_tensors(len(wrong))}</b><br>{_text(wrong[0])}"
    facts |= {_text(key): _text(value[:SHOWN]) for key, value in model.metadata.items()}
    facts["Identity"] = f"<code>{model.identity}</code>"
    items = (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def _percent(error: Distortion) -> str:
    return f"{100 * error.relative_error:.2f} %"


def _worst(group: Group) -> str:
    return f"{group.row}:{group.group}, {100 * group.relative_error:.1f} %"


def _sizes(found: Sequence[Looked]) -> str:
    """Bytes before and after, as bars of one scale."""
    sums, whole = Sums.of(found), _before(found)
    bars = ""
    for name, parts in {"Before": _parts(found, _before), "After": _parts(found, _after)}.items():
        total = size(sum(parts.values()))
        bars += f'<span>{name}</span>{_bar(parts, whole, name)}<span class="number">{total}</span>'
    keys = [_key(f"d{depth}", f"{_trits(depth)}: {_tensors(n)}") for depth, n in sums.depths.items()]
    keys.append(_key("raw", f"kept as it was: {_tensors(sums.kept)}"))
    return f'<h2>Size</h2><div class="sizes">{bars}</div><p>{"".join(keys)}</p>'


def _parts(found: Iterable[Looked], bytes_of: Callable[[list[Looked]], int]) -> dict[str, int]:
    """The bytes of the tensors of each depth, and of the raw ones, by the class that they are drawn with."""
    parts: dict[str, list[Looked]] = {}
    for each in sorted(found, key=_class):
        parts.setdefault(_class(each), []).append(each)
    return {name: bytes_of(some) for name, some in parts.items()}


def _class(looked: Looked) -> str:
    return f"d{looked.entry.form.depth}" if isinstance(looked.entry, TritEntry) else "raw"


def _after(found: list[Looked]) -> int:
    sums = Sums.of(found)
    return sums.packed + sums.raw


def _trits(depth: int) -> str:
    return f"{depth} trit{'s' * (depth > 1)} a weight"


def _tensors(count: int) -> str:
    return f"{count} tensor{'s' * (count != 1)}"


def _key(name: str, text: str) -> str:
    return f'<span class="key {name}"><span>{text}</span></span>'


def _bar(parts: Mapping[str, int], whole: int, label: str) -> str:
    """A bar of parts, in their classes, as long in all as a share of the *whole*."""
    shares = [100 * part / max(whole, 1) for part in parts.values()]
    rects = [
        f'<rect class="{name}" x="{start:.2f}%" width="{share:.2f}%" height="100%"/>'
        for name, share, start in zip(parts, shares, accumulate(shares, initial=0), strict=False)
    ]
    title = f"<title>{label}: {', '.join(f'{name} {size(part)}' for name, part in parts.items())}</title>"
    return f'<svg role="img">{title}<rect class="track" width="100%" height="100%"/>{"".join(rects)}</svg>'


def _layers(found: Sequence[Looked]) -> str:
    """A row for each layer that has matrices: sizes, depths, errors; below it, when opened, the matrices."""
    layers = {
        name: matrices
        for name, some in by_layer(found).items()
        if (matrices := [each for each in some if isinstance(each.entry, TritEntry)])
    }
    if not layers:
        return ""
    errors = [each.distortion.relative_error for each in found if each.distortion]
    most = max((error for error in errors if math.isfinite(error)), default=0.0)
    heads = ["Layer", "Weights", "Depth", "Size, of that before"]
    cells = "".join(f"<span>{head}</span>" for head in heads)
    if errors:
        axis = f'<span class="axis strip"><span>error 0 %</span><span>{100 * most:.1f} %</span></span>'
        cells += f"<span>Error</span>{axis}"
    rows = [_layer(name, some, most, len(layers) <= FEW_LAYERS) for name, some in layers.items()]
    legend = (
        '<p class="soft">A dot is the error of a matrix, the bar that of the layer.</p>' if errors else ""
    )
    head = f'<div class="head"><div class="layer">{cells}</div></div>'
    return f"<h2>Layers</h2>{legend}{head}{''.join(rows)}"


def _layer(name: str, matrices: list[Looked], most: float, is_open: bool) -> str:
    sums, before = Sums.of(matrices), _before(matrices)
    depths = ", ".join(f"{count} at d{depth}" for depth, count in sums.depths.items())
    cells = [
        f"<span>{_text(name or 'outside layers')}</span>",
        f'<span data-label="weights">{sums.weights:,}</span>',
        f"<span>{depths}</span>",
        f"<span>{_bar(_parts(matrices, _after), before, 'Size')}{size(sums.packed)} of {size(before)}</span>",
    ]
    if sums.error:
        cells.append(f'<span data-label="error">{_percent(sums.error)}</span>')
        cells.append(f'<span class="strip">{_strip(matrices, sums.error, most)}</span>')
    table = _table(matrices, name)
    opened = " open" if is_open else ""
    return (
        f'<details class="rows"{opened}><summary><span class="layer">{"".join(cells)}</span></summary>'
        f"{table}</details>"
    )


def _strip(matrices: Sequence[Looked], error: Distortion, most: float) -> str:
    """The error of each matrix as a dot, that of all as a bar."""
    marks = ['<rect class="track" y="45%" width="100%" height="10%"/>']
    for each in matrices:
        if each.distortion and math.isfinite(each.distortion.relative_error):
            title = f"<title>{escape(each.entry.name)}: {_percent(each.distortion)}</title>"
            place = _place(each.distortion, most)
            marks.append(f'<circle class="{_class(each)}" cx="{place}%" cy="50%" r="4">{title}</circle>')
    if math.isfinite(error.relative_error):
        marks.append(f'<rect class="mean" x="{_place(error, most)}%" width="2" height="100%"/>')
    return f'<svg role="img">{"".join(marks)}</svg>'


def _place(error: Distortion, most: float) -> str:
    return f"{1 + 97 * error.relative_error / (most or 1):.2f}"


def _table(matrices: Sequence[Looked], layer: str) -> str:
    heads = ["Tensor", "Shape", "Depth", "Bits", "Levels", "Codes"]
    if matrices[0].distortion:
        heads[4:4] = ["SQNR", "Error", "Worst, row:group"]
    rows = "".join(f"<tr>{''.join(_cells(each, layer))}</tr>" for each in matrices)
    head = "".join(f"<th>{head}</th>" for head in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(looked: Looked, layer: str) -> list[str]:
    form, error = cast(TritEntry, looked.entry).form, looked.distortion
    shift = f"+{form.shift}" if form.shift else ""
    cells = [
        f"<td>{_text(looked.entry.name.removeprefix(f'{layer}.'))}</td>",
        f"<td>{' × '.join(map(str, form.shape))} {form.dtype}</td>",
        f"<td>{_key(_class(looked), f'd{form.depth}{shift}')}</td>",
        f'<td data-label="bits">{form.bits_per_weight:.3f}</td>',
    ]
    if error and error.worst:
        cells.append(f"<td>{error.sqnr:.2f} dB</td>")
        cells.append(f'<td data-label="error">{_percent(error)}</td>')
        cells.append(f'<td data-label="worst">{_worst(error.worst)}</td>')
    plots = [_plot(counts, "small", _class(looked)) for counts in (looked.levels, looked.codes)]
    return [*cells, *(f'<td class="plot">{plot}</td>' for plot in plots)]


def _plot(counts: Sequence[int], size_class: str, colour: str) -> str:
    """A histogram, its highest bar as high as the picture."""
    most, gap = max(counts), 0.1
    steps = "".join(f"V{100 - 100 * count / most:.0f}h{1 - gap:g}V100h{gap:g}" for count in counts)
    return (
        f'<svg role="img" class="{size_class}" viewBox="0 0 {len(counts)} 100" preserveAspectRatio="none">'
        f'<path class="{colour}" d="M0 100{steps}z"/></svg>'
    )


def _counts(found: Sequence[Looked]) -> str:
    """Histograms of levels and codes over all matrices of a depth."""
    figures = ""
    for depth in Sums.of(found).depths:
        same = [each for each in found if _class(each) == f"d{depth}"]
        levels = [sum(counts) for counts in zip(*(each.levels for each in same), strict=True)]
        codes = [sum(counts) for counts in zip(*(each.codes for each in same), strict=True)]
        H = len(levels) // 2  # the largest level
        zeros = f"{100 * levels[H] / sum(levels):.1f} % are zero"
        figures += _figure(f"Levels, {_trits(depth)}", levels, -H, f"d{depth}", zeros)
        figures += _figure(f"Codes, {_trits(depth)}", codes, 0, f"d{depth}", "by size of the step")
    if not figures:
        return ""
    return f'<h2>Levels and codes</h2><div class="grid">{figures}</div>'


def _figure(title: str, counts: Sequence[int], first: int, colour: str, remark: str) -> str:
    """A histogram with a title, its ends, and what each bar stands for."""
    total, most = sum(counts), max(counts)
    width, bars = 100 / len(counts), ""
    for i, count in enumerate(counts):
        tip = f"<title>{first + i}: {count:,} ({100 * count / total:.2f} %)</title>"
        height = 100 * count / most
        place = f'x="{width * (i + 0.05):.2f}%" y="{100 - height:.2f}%" width="{width * 0.9:.2f}%"'
        bars += f'<rect {place} height="{height:.2f}%">{tip}</rect>'
    axis = f"<span>{first}</span><span>{remark}</span><span>{first + len(counts) - 1}</span>"
    figure = f'<svg role="img" class="tall {colour}">{bars}</svg><div class="axis">{axis}</div>'
    return f"<div><h3>{title}</h3>{figure}</div>"


def _kept(model: TritModel, found: Sequence[Looked]) -> str:
    """What was kept raw, by reason; a file does not say why, the recipe does."""
    policy, otherwise, why = Policy(), ASKED, WHY
    if model.metadata.get("tritcodec.method") == "repack":
        policy, otherwise, why = Policy(recipe=False), NOT_FOUND, WHY_REPACKED
    reasons: dict[str, list[RawEntry]] = {}
    for each in found:
        if isinstance(each.entry, RawEntry):
            source = SourceTensor(each.entry.name, each.entry.dtype, each.entry.shape, NOWHERE, 0)
            reasons.setdefault(policy.reason_to_keep(source) or otherwise, []).append(each.entry)
    if not reasons:
        return ""
    rows = ""
    for reason, entries in sorted(reasons.items(), key=lambda item: -_bytes(item[1])):
        names = ", ".join(_text(entry.name) for entry in entries)
        tensors = f"<details><summary>{_tensors(len(entries))}</summary>{names}</details>"
        rows += f"<tr><td>{reason}</td><td>{tensors}</td><td>{size(_bytes(entries))}</td></tr>"
    head = "<tr><th>Why</th><th>Tensors</th><th>Size</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return f'<h2>Kept as it was</h2><p class="soft">{why}</p>{table}'


def _bytes(entries: Iterable[RawEntry]) -> int:
    return sum(sum(entry.segment_sizes) for entry in entries)
