"""What is in a model, tensor by tensor, and how far it is from its source. For reports: defines no bits."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..codebook import CODES
from ..errors import TritError
from ..header import Entry, RawEntry, TritEntry
from ..layout import Segment
from ..reader import TritFile
from ..tensor import Form, TritTensor, row_ranges
from .policy import SOURCES
from .shards import TritModel, segments_of, trit_bands
from .source import ModelSource, SourceTensor, read_bytes, read_rows

BAND_WEIGHTS = 1 << 20  # weights looked at, at once

LAYER = re.compile(r"(?:.*?\.)?[0-9]+(?=\.)")  # of a name, all up to the first number that stands by itself

Told = Callable[[str, int], None]  # a tensor that is done, and its weights


@dataclass(frozen=True)
class Group:
    """A group of weights: its tensor, its row, its place there, and the norm of its errors over its own."""

    tensor: str
    row: int
    group: int
    relative_error: float


@dataclass(frozen=True)
class Distortion:
    """Energy of weights and of their errors: sums of squares, which add up over tensors; the worst group."""

    signal: float = 0.0
    noise: float = 0.0
    worst: Group | None = None

    def __add__(self, other: Distortion) -> Distortion:
        groups = [distortion.worst for distortion in (self, other) if distortion.worst]
        worst = max(groups, key=lambda group: group.relative_error, default=None)  # of equals, the first
        return Distortion(self.signal + other.signal, self.noise + other.noise, worst)

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise ratio in decibels: 10 log10(sum w^2 / sum (w - w')^2)."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def relative_error(self) -> float:
        """The norm of the errors over that of the weights."""
        if not self.signal:
            return math.inf if self.noise else 0.0
        return math.sqrt(self.noise / self.signal)


@dataclass(frozen=True)
class Looked:
    """What was found of a tensor: its entry; of a trit tensor, where asked for, error and counts.

    `levels` counts the levels from -H to H, `codes` the codes from 0 to 26. `fault` is what a raw
    tensor differs in from the source.
    """

    entry: Entry
    distortion: Distortion | None = None
    levels: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Sums:
    """What some tensors come to: the forms of those that are quantised; of the `kept` others, the bytes."""

    forms: tuple[Form, ...]
    kept: int
    raw: int
    error: Distortion | None

    @classmethod
    def of(cls, found: Sequence[Looked]) -> Sums:
        """The sums over *found*; an error where one was measured."""
        forms = tuple(each.entry.form for each in found if isinstance(each.entry, TritEntry))
        raw = [sum(each.entry.segment_sizes) for each in found if isinstance(each.entry, RawEntry)]
        errors = [each.distortion for each in found if each.distortion]
        return cls(forms, len(raw), sum(raw), sum(errors, Distortion()) if errors else None)

    @property
    def weights(self) -> int:
        """Those that are quantised."""
        return sum(math.prod(form.shape) for form in self.forms)

    @property
    def packed(self) -> int:
        """Bytes of planes and codebooks."""
        return sum(form.nbytes for form in self.forms)

    @property
    def stored_bits(self) -> float:
        """Bits stored for each weight that is quantised."""
        return 8 * self.packed / self.weights

    @property
    def information_bits(self) -> float:
        """Bits of information in each: no packing stores fewer."""
        bits = sum(form.information_bits_per_weight * math.prod(form.shape) for form in self.forms)
        return bits / self.weights

    @property
    def depths(self) -> dict[int, int]:
        """How many tensors have each depth."""
        return dict(sorted(Counter(form.depth for form in self.forms).items()))


def by_layer(found: Sequence[Looked]) -> dict[str, list[Looked]]:
    """The tensors of each layer, in the order of numbers; those of none under an empty name, last."""
    layers: dict[str, list[Looked]] = {}
    for each in found:
        layer = LAYER.match(each.entry.name)
        layers.setdefault(layer[0] if layer else "", []).append(each)
    return dict(sorted(layers.items(), key=lambda item: (not item[0], *_natural(item[0]))))


def _natural(layer: str) -> tuple[str, int]:
    stem, _, number = layer.rpartition(".")
    return stem, int(number or 0)


def look(
    model: TritModel,
    source: ModelSource | None = None,
    counts: bool = False,
    progress: Told = lambda _name, _weights: None,
) -> list[Looked]:
    """Every tensor of *model*, in the order of their names.

    With *source*, how far trit tensors are from it, and whether raw ones are the same; with *counts*,
    how often trit tensors have each level and code; with neither, no weight is read.
    Memory is for a band of rows. Raises TritError where *source* lacks a trit tensor or has it in another
    shape, and for damage to what is read.
    """
    sources = {tensor.name: tensor for tensor in source.tensors} if source else {}
    if source:  # all of them, before weights are read
        for entry in model.entries():
            if isinstance(entry, TritEntry):
                _measure(entry, sources, source.path)
    found = []
    for shard in model.shards:
        with model.shard(shard) as file:
            segments = segments_of(file)
            for entry in file.header.entries:
                if isinstance(entry, TritEntry) and (counts or source):
                    bands = trit_bands(file, entry, segments[entry.name], BAND_WEIGHTS)
                    measure = _measure(entry, sources, source.path) if source else None
                    found.append(_look(entry, bands, measure, counts))
                elif isinstance(entry, RawEntry) and source:
                    fault = _fault(file, segments[entry.name][0], entry, sources.get(entry.name))
                    found.append(Looked(entry, fault=fault))
                else:
                    found.append(Looked(entry))
                progress(entry.name, math.prod(entry.shape))
    return sorted(found, key=lambda looked: looked.entry.name)


def _fault(file: TritFile, segment: Segment, entry: RawEntry, source: SourceTensor | None) -> str:
    """In words, what the raw tensor *entry* differs in from *source*; nothing where it is the same."""
    if source is None:
        return "the source has no such tensor"
    if (source.dtype, source.shape) != (entry.dtype, entry.shape):
        return f"{source.dtype} {list(source.shape)} in the source, {entry.dtype} {list(entry.shape)} here"
    at = 0
    for block in file.blocks(segment):
        if not np.array_equal(block, read_bytes(source, at, block.size)):
            return "other values"
        at += block.size
    return ""


def _measure(entry: TritEntry, sources: Mapping[str, SourceTensor], where: Path) -> Measure:
    if entry.name not in sources:
        raise TritError(f"the source has no tensor {entry.name!a}", where=str(where))
    return Measure(sources[entry.name], entry.form)


def _look(entry: TritEntry, bands: Iterable[TritTensor], measure: Measure | None, counts: bool) -> Looked:
    levels, codes = np.zeros(3**entry.form.depth, np.int64), np.zeros(CODES, np.int64)
    for band in bands:
        if measure:
            measure.add(band)
        if counts:
            H = len(levels) // 2  # the largest level
            levels += np.bincount(band.levels().ravel() + np.int16(H), minlength=len(levels))
            codes += np.bincount(band.codes.ravel(), minlength=CODES)
    distortion = measure.total if measure else None
    if not counts:
        return Looked(entry, distortion)
    return Looked(entry, distortion, tuple(levels.tolist()), tuple(codes.tolist()))


class Measure:
    """Sums up, band by band, how far a trit tensor of *form* is from *source*; `total` is what came out.

    Raises TritError where *source* is no such tensor, or holds NaN or infinities.
    """

    def __init__(self, source: SourceTensor, form: Form) -> None:
        if source.dtype not in SOURCES:
            message = f"the source's dtype is {source.dtype}, not one of {', '.join(SOURCES)}"
            raise TritError(message, where=f"tensor {source.name!a}")
        if form.shape != source.shape:
            message = f"the source's shape is {list(source.shape)}, the file's {list(form.shape)}"
            raise TritError(message, where=f"tensor {source.name!a}")
        self.source, self.total, self._row = source, Distortion(), 0
        self._starts = np.arange(0, form.columns, form.group_size)

    def add(self, band: TritTensor) -> None:
        """Compare the next rows."""
        stop = self._row + band.form.rows
        weights = read_rows(self.source, self._row, stop).astype(np.float64)
        if not np.isfinite(weights).all():
            message = "the source holds NaN or infinities, from which nothing has a distance"
            raise TritError(message, where=f"tensor {self.source.name!a}")
        with np.errstate(over="ignore"):  # a binary64 source may be that large: its ratio is no number
            signal = self._energies(weights)
            noise = self._energies(weights - band.dequantize("F32").reshape(weights.shape))
        self.total += Distortion(float(signal.sum()), float(noise.sum()), self._worst(signal, noise))
        self._row = stop

    def _energies(self, values: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        """The sum of squares of each group: (rows, groups)."""
        return np.add.reduceat(np.square(values), self._starts, axis=1)

    def _worst(self, signal: npt.NDArray[Any], noise: npt.NDArray[Any]) -> Group:
        """The group of the greatest relative error among those that were compared; of equals, the first."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(noise > 0, noise / signal, 0.0)
        row, group = np.unravel_index(np.argmax(ratio), ratio.shape)
        return Group(self.source.name, self._row + int(row), int(group), math.sqrt(ratio[row, group]))


def distortion_against(source: SourceTensor, tensor: TritTensor) -> Distortion:
    """The distortion of *tensor* against *source*. Raises TritError where that is no such tensor."""
    measure = Measure(source, tensor.form)
    for start, stop in row_ranges(tensor.form.rows, tensor.form.columns, BAND_WEIGHTS):
        measure.add(tensor.get_rows(start, stop))
    return measure.total
