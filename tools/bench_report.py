"""The benchmark page: the tables of tools/bench.py in Markdown, and pictures beside them.

Pictures are quality against bits on real weights, and how time grows with size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

import tritcodec as tc
from tritcodec.model.plan import DEPTHS, config_of
from tritcodec.model.policy import Policy
from tritcodec.model.run import Job, survey_all
from tritcodec.model.source import ModelSource
from tritcodec.model.tasks import Recipe
from tritcodec.model.workers import Inline

BUDGETS = (2.2, 2.5, 3.0, 4.0, 4.5, 5.5, 6.0)  # bits a weight
PEERS = {"TQ1_0": 256, "TQ2_0": 256, "Q4_0": 32, "Q5_0": 32, "Q8_0": 32}  # gguf-py's types, and their blocks
INK, OURS, THEIRS, MIXED = "#333333", "#1764ab", "#b2481f", "#2f8f5b"
LABELS: dict[str, dict[str, Any]] = {  # where names stand: in the corners that no line goes through
    "optimal": {"xytext": (-8, 5), "horizontalalignment": "right"},
    "gguf-py": {"xytext": (0, -17), "horizontalalignment": "center"},
    "TQ1_0": {"xytext": (0, 8), "horizontalalignment": "center"},  # TQ2_0 is beside it
}
NOTES = {  # by part: what is to be said where others are ahead
    "gguf": """\
gguf-py quantises faster: it takes the largest weight of a block for its scale, and looks no further.
`quantize` fits 27 steps to the tensor and tries them for every group; the picture shows the gain.""",
    "peers": """\
Casts and plain copies are ahead: they compute less, and keep 16 bits a weight. `load_file` checks every
digest, byte and code, and safetensors has none. gguf-py decodes in NumPy, too, and is slower.""",
    "open": """\
The header is parsed by this package's own strict reader, in Python: one value after the other.""",
    "model": """\
Two workers share their two CPUs with the process that writes what they pack, and a second goes on starting.
With 1,000 million weights they took 0.55 of the time of one, and up to 0.63 while other machines used
the host much: `python tools/bench_model.py --only workers --weights 1e9`.""",
    "verify": """\
Verification hashes every byte, and looks at each once more, for those that are no five trits. The second row
does no more than that, with no directory and nothing to compare: where SHA-256 has instructions of its own,
as here, reading and looking leave next to nothing of the target for the rest. Without them
(`OPENSSL_ia32cap=:~0x20000000`, for a CPU of Intel or AMD) verify_file takes 1.08 to 1.14 of it.""",
    "matmul": """\
sgemm is faster, and wrong in its last bits. dgemm, rounded at its end, is wrong where a sum lies near the
midpoint of two float32 numbers.""",
}


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, against what, and the largest ratio that is fine."""

    what: str
    measured: str
    against: str
    ratio: float
    target: float | None = None

    def text(self) -> str:
        """The line, in the table's columns."""
        target = "" if self.target is None else f"{self.target:.2f}"
        verdict = "" if self.target is None else "yes" if self.ratio <= self.target else "NO"
        return line(self.what, self.measured, self.against, f"{self.ratio:.2f}", target, verdict)


def line(*cells: str) -> str:
    """A line of the table."""
    what, measured, against, ratio, target, verdict = cells
    return f"{what:38}{measured:>16}  {against:30}{ratio:>7}{target:>8}  {verdict}".rstrip()


def write(
    page: Path,
    description: Sequence[str],
    rows: Mapping[str, Sequence[Row]],
    headings: Mapping[str, str],
    model: Path,
) -> None:
    """Write *page*, with the quality of *model*, and the pictures that it shows into a folder of its name."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    source = ModelSource(model)
    points = quality(source)
    picture(folder / "quality.svg", partial(draw_quality, points=points))
    lines = ["# Benchmarks", "", "```text", *description, "```", "", INTRODUCTION, ""]
    lines += ["## Quality against bits", "", f"![SQNR over bits a weight]({folder.name}/quality.svg)", ""]
    weights = sum(math.prod(t.shape) for t in source.tensors if Policy().reason_to_keep(t) is None)
    lines += [QUALITY.format(weights=weights, model=model.name), "", *quality_table(points), ""]
    for part, found in rows.items():
        lines += [f"## {headings[part].rstrip('.')}", ""]
        if part == "growth":
            picture(folder / "growth.svg", partial(draw_growth, rows=found))
            lines += [f"![nanoseconds a weight over weights]({folder.name}/growth.svg)", ""]
        lines += [*table(found), ""]
        if part in NOTES:
            lines += [NOTES[part], ""]
    page.write_text("\n".join(lines), "utf-8")


INTRODUCTION = """\
A ratio is the time of a call by that of its reference, both medians of runs that alternate in one process on
one CPU: lower is better, and below 1 a call is faster than what it stands beside. Nanoseconds are those of
the machine above. A row whose target is missed says so."""

QUALITY = """\
Signal to quantisation noise over the {weights:,} weights of the linear layers of {model}. Mixtures
are what `--target-bpw` plans, measured. gguf-py was given the same matrices, as rows of whole blocks.
Its Q8_0 is ahead of all, at 8.5 bits: four trits, 6.72 bits, are the most that a `.trit` file has."""


def table(rows: Sequence[Row]) -> list[str]:
    """Rows in Markdown."""
    lines = ["| what | measured | ratio | to | target |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        target = "" if row.target is None else f"{row.target:.2f}"
        target += " missed" if row.target is not None and row.ratio > row.target else ""
        lines.append(f"| {row.what} | {row.measured} | {row.ratio:.2f} | {row.against} | {target} |")
    return lines


# Quality


Point = tuple[str, str, float, float]  # family, name, bits a weight, SQNR in dB


def quality(source: ModelSource) -> list[Point]:
    """What every depth, every budget and every peer makes of the weights of a model in one file."""
    tensors = load_file(source.shards[0].path)
    job = Job(
        source,
        [config_of(f"bpw-{bits:g}") for bits in BUDGETS],
        Policy(),
        Recipe(16, "optimal", False),
    )
    names = [tensor.name for tensor in job.matrices]
    wide = {name: tensors[name].astype(np.float64) for name in names}
    signal = sum(float(np.square(w).sum()) for w in wide.values())
    weights = sum(w.size for w in wide.values())
    noise: dict[tuple[str, int], float] = {}
    bits: dict[tuple[str, int], int] = {}
    points: list[Point] = []
    for method in ("optimal", "tritllm-v2"):
        for depth in DEPTHS:
            made = {name: tc.quantize(tensors[name], depth, method=method) for name in names}
            for name, t in made.items() if method == "optimal" else ():
                noise[name, depth], bits[name, depth] = (
                    noise_of(wide[name], t.dequantize("F32")),
                    8 * t.nbytes,
                )
            total = sum(noise_of(wide[name], t.dequantize("F32")) for name, t in made.items())
            stored = sum(8 * t.nbytes for t in made.values()) / weights
            points.append((method, f"depth {depth}", stored, decibels(signal, total)))
    for config, planned in job.plans(survey_all(job, Inline(), 1)).items():
        chosen = [(item.tensor.name, item.depth) for item in planned if item.depth]
        stored = sum(bits[key] for key in chosen) / weights
        points.append(("mixture", config, stored, decibels(signal, sum(noise[key] for key in chosen))))
    return points + peers({name: tensors[name] for name in names}, signal)


def peers(tensors: Mapping[str, npt.NDArray[Any]], signal: float) -> list[Point]:
    """gguf-py's types on the same weights; none where it is not installed."""
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        return []
    points = []
    for name, block in PEERS.items():
        kind, total, stored, count = GGMLQuantizationType[name], 0.0, 0, 0
        for tensor in tensors.values():
            w = tensor.astype(np.float32).reshape(-1, block)
            data = quants.quantize(w, kind)
            total += noise_of(w.astype(np.float64), quants.dequantize(data, kind))
            stored, count = stored + 8 * data.nbytes, count + w.size
        points.append(("gguf-py", name, stored / count, decibels(signal, total)))
    return points


def noise_of(w: npt.NDArray[np.float64], found: npt.NDArray[np.float32]) -> float:
    """The squared error."""
    return float(np.square(w - found).sum())


def decibels(signal: float, noise: float) -> float:
    """Signal to noise."""
    return 10 * math.log10(signal / noise)


def quality_table(points: Sequence[Point]) -> list[str]:
    """The points in Markdown."""
    lines = ["| encoder | | bits a weight | SQNR, dB |", "| --- | --- | --- | --- |"]
    return lines + [f"| {family} | {name} | {bits:.2f} | {sqnr:.2f} |" for family, name, bits, sqnr in points]


# Pictures


def picture(path: Path, draw: Callable[[Any], None]) -> None:
    """An SVG file of one pair of axes; the same bytes for the same figures."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "tritcodec", "font.size": 11}):
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        draw(axes)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def draw_quality(axes: Any, points: Sequence[Point]) -> None:
    """SQNR over bits."""
    styles = {
        "optimal": (OURS, "o-", "tritcodec, one depth"),
        "mixture": (MIXED, ".", "tritcodec, mixed depths"),
        "tritllm-v2": (INK, "x:", "the published method"),
        "gguf-py": (THEIRS, "s", "gguf-py, each type by its name"),
    }
    for family, (colour, style, label) in styles.items():
        own = [point for point in points if point[0] == family]
        if own:
            axes.plot([p[2] for p in own], [p[3] for p in own], style, color=colour, label=label)
        for _, name, bits, sqnr in own if family in LABELS else ():
            place = LABELS.get(name, LABELS[family])
            axes.annotate(name, (bits, sqnr), textcoords="offset points", color=colour, **place)
    axes.margins(0.08)
    axes.set_xlabel("bits a weight, all counted")
    axes.set_ylabel("signal to quantisation noise, dB")
    axes.legend(loc="upper left", frameon=False)


def draw_growth(axes: Any, rows: Sequence[Row]) -> None:
    """Nanoseconds a weight over the number of weights, for each call."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name, count = row.what.rsplit(", ", 1)
        nanoseconds = re.match(r"[0-9.]+", row.measured)
        if nanoseconds:
            series.setdefault(name, []).append((float(count.replace(",", "")), float(nanoseconds[0])))
    for (name, found), colour in zip(series.items(), (OURS, THEIRS, MIXED, INK), strict=False):
        axes.plot([x for x, _ in found], [y for _, y in found], "o-", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("weights")
    axes.set_ylabel("nanoseconds a weight")
    axes.legend(frameon=False)
