"""What a run will do, before it does anything: configs, and for each tensors, depths, bits and bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from ..codebook import CODEBOOK_BYTES, UNIT_STEPS
from ..errors import TritError
from ..header import Entry, RawEntry, TritEntry
from ..tensor import Form
from ..trits import MAX_DEPTH
from ..writer import trit_entry
from .policy import SOURCES, Policy
from .source import SourceTensor
from .tasks import Finding, Surveyed

DEPTHS = tuple(range(1, MAX_DEPTH + 1))
NUMBER = r"[0-9]+(?:\.[0-9]+)?"
KINDS = {  # of configs, by what their names look like
    "uniform": re.compile(r"uniform-d([1-4])"),
    "sens": re.compile(rf"sens-({NUMBER})"),
    "bpw": re.compile(rf"bpw-({NUMBER})"),
}
KNOWN = "uniform-d1 to uniform-d4, sens-X (relative squared error, as 0.01), bpw-X (bits a weight, as 2.5)"
REPACKED = "repacked"  # the config of `repack`: the depth at which a matrix was made
UNSURE = 1.05  # of estimates: where one is that near to the bound, what counts is the error that comes out


@dataclass(frozen=True)
class Config:
    """How depths are chosen: "uniform", one for all; "sens", by error; "bpw", within a budget of bits.

    "repack" takes those that were found again.
    """

    name: str
    kind: str
    value: float

    @property
    def adaptive(self) -> bool:
        """Whether depths depend on the weights."""
        return self.kind != "uniform"


def config_of(name: str) -> Config:
    """The config of a *name*, or TritError where there is none of that name."""
    for kind, pattern in KINDS.items():
        found = pattern.fullmatch(name)
        if found:
            return Config(name, kind, float(found[1]))
    raise TritError(f"unknown config {name!a}; there are {KNOWN}")


@dataclass(frozen=True)
class Planned:
    """A tensor, and its entry of the file to come; `reason` is why it is kept raw, or None.

    `finding` is what was found out where it was to be packed again.
    """

    tensor: SourceTensor
    entry: Entry
    reason: str | None
    finding: Finding | None = None

    @property
    def weights(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.tensor.shape)

    @property
    def depth(self) -> int:
        """Trits a weight; 0 where it is kept raw."""
        return self.entry.form.depth if isinstance(self.entry, TritEntry) else 0

    def at_depth(self, depth: int) -> Planned:
        """The same tensor, to be quantised at *depth*."""
        form = form_of(self.tensor, depth, cast(TritEntry, self.entry).form.group_size)
        return Planned(self.tensor, trit_entry(self.tensor.name, form), None)

    @property
    def stored(self) -> int:
        """Bytes that it will take: segments and codebook."""
        codebook = 0 if isinstance(self.entry, RawEntry) else CODEBOOK_BYTES
        return sum(self.entry.segment_sizes) + codebook


def plan(
    tensors: Sequence[SourceTensor],
    config: Config,
    policy: Policy,
    group_size: int,
    surveys: Mapping[str, Surveyed],
) -> list[Planned]:
    """What becomes of each of *tensors*.

    *surveys*, by name, are needed where the config is adaptive. Raises TritError where the
    policy asks the impossible, or a budget is less than the least there is.
    """
    reasons = {tensor.name: policy.reason_to_keep(tensor) for tensor in tensors}
    if config.kind == "repack":
        return [_repacked(tensor, reasons[tensor.name], surveys[tensor.name]) for tensor in tensors]
    matrices = [tensor for tensor in tensors if reasons[tensor.name] is None]
    depths = _fixed(matrices, policy)
    free = [tensor for tensor in matrices if tensor.name not in depths]
    if config.kind == "uniform":
        depths |= dict.fromkeys((tensor.name for tensor in free), int(config.value))
    elif config.kind == "sens":
        depths |= {tensor.name: least_depth(surveys[tensor.name].errors, config.value) for tensor in free}
    else:
        depths |= within_budget(matrices, depths, config.value, group_size, surveys)
    return [_planned(tensor, depths.get(tensor.name), reasons[tensor.name], group_size) for tensor in tensors]


def check_budget(matrices: Sequence[SourceTensor], config: Config, policy: Policy, group_size: int) -> None:
    """Raise TritError where a "bpw" *config* gives less than the least there is; that takes no weights."""
    if config.kind == "bpw":
        _spare(matrices, _fixed(matrices, policy), config.value, group_size)


def _fixed(matrices: Sequence[SourceTensor], policy: Policy) -> dict[str, int]:
    """By name, the depths of which the config has no say."""
    fixed = {tensor.name: policy.fixed_depth(tensor) for tensor in matrices}
    return {name: depth for name, depth in fixed.items() if depth is not None}


def _spare(matrices: Sequence[SourceTensor], fixed: Mapping[str, int], bits: float, group_size: int) -> float:
    """The bits that *bits* a weight leave where all that is not *fixed* has depth 1; TritError if none."""
    weights = sum(math.prod(tensor.shape) for tensor in matrices)
    least = sum(8 * form_of(t, fixed.get(t.name, 1), group_size).nbytes for t in matrices)
    if bits * weights < least:
        enough = math.ceil(least / weights * 1e4) / 1e4  # what is said has to be
        raise TritError(
            f"{bits:g} bits a weight are too few: the least that this model takes is {enough:.4f}"
        )
    return bits * weights - least


def least_depth(errors: Mapping[int, float], bound: float) -> int:
    """The least depth that may stay within the *bound*, the deepest where none does."""
    return next((depth for depth in DEPTHS if errors[depth] <= bound * UNSURE), MAX_DEPTH)


def within_budget(
    matrices: Sequence[SourceTensor],
    fixed: Mapping[str, int],
    bits: float,
    group_size: int,
    surveys: Mapping[str, Surveyed],
) -> dict[str, int]:
    """The depths of least total squared error whose planes and codebooks take at most *bits* a weight.

    Steps from a depth to a deeper one are taken in the order of what they gain a
    bit, the steepest first, as long as they fit: the best there is but for what the last step
    leaves unused. Of equal steps the first in the order of the file is taken.
    """
    cost = {t.name: {d: 8 * form_of(t, d, group_size).nbytes for d in DEPTHS} for t in matrices}
    depths = {tensor.name: fixed.get(tensor.name, 1) for tensor in matrices}
    left = _spare(matrices, fixed, bits, group_size)
    steps = [
        (-gain, order, tensor.name, before, after)
        for order, tensor in enumerate(matrices)
        if tensor.name not in fixed
        for gain, before, after in _steps(cost[tensor.name], surveys[tensor.name])
    ]
    for _, _, name, before, after in sorted(steps):
        price = cost[name][after] - cost[name][before]
        if depths[name] == before and price <= left:  # a step before it may not have fitted
            depths[name] = after
            left -= price
    return depths


def _steps(cost: Mapping[int, int], surveyed: Surveyed) -> Iterator[tuple[float, int, int]]:
    """Steps (gain a bit, depth, deeper one) along the lower hull of error over bits: gains fall."""
    error = {depth: surveyed.errors[depth] * surveyed.energy for depth in DEPTHS}
    depth = 1
    while depth < MAX_DEPTH:
        gains = {d: (error[depth] - error[d]) / (cost[d] - cost[depth]) for d in DEPTHS if d > depth}
        best = max(gains, key=lambda d: (gains[d], d))
        if gains[best] <= 0:
            return
        yield gains[best], depth, best
        depth = best


def form_of(tensor: SourceTensor, depth: int, group_size: int) -> Form:
    """The form of a matrix at *depth*, its steps not known yet: their place has a fixed size."""
    try:
        return Form(tensor.shape, SOURCES[tensor.dtype], depth, 0, group_size, UNIT_STEPS)
    except TritError as error:
        raise error.at(f"tensor {tensor.name!a}") from None


def _repacked(tensor: SourceTensor, reason: str | None, surveyed: Surveyed) -> Planned:
    finding = surveyed.finding
    if finding is None:  # nobody looked for anything in it
        return _planned(tensor, None, reason, 0)
    depth = None if finding.reason else finding.depth
    return replace(_planned(tensor, depth, finding.reason, surveyed.group_size), finding=finding)


def _planned(tensor: SourceTensor, depth: int | None, reason: str | None, group_size: int) -> Planned:
    if depth is not None:
        return Planned(tensor, trit_entry(tensor.name, form_of(tensor, depth, group_size)), None)
    try:
        return Planned(tensor, RawEntry(tensor.name, tensor.dtype, tensor.shape), reason)
    except TritError as error:
        raise error.at(f"tensor {tensor.name!a}") from None
