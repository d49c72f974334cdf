"""What a run will do, before it does anything: tensors, depths, bits and bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..codebook import CODEBOOK_BYTES, UNIT_STEPS
from ..errors import TritError
from ..header import Entry, RawEntry
from ..tensor import Form
from ..writer import trit_entry
from .policy import SOURCES, Policy
from .source import SourceTensor

CONFIGS = {f"uniform-d{depth}": depth for depth in (1, 2, 3, 4)}  # name: depth of every quantised matrix


@dataclass(frozen=True)
class Planned:
    """A tensor, and its entry of the file to come; `reason` is why it is kept raw, or None."""

    tensor: SourceTensor
    entry: Entry
    reason: str | None

    @property
    def weights(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.tensor.shape)

    @property
    def stored(self) -> int:
        """Bytes that it will take: segments and codebook."""
        codebook = 0 if isinstance(self.entry, RawEntry) else CODEBOOK_BYTES
        return sum(self.entry.segment_sizes) + codebook


def config_depth(config: str) -> int:
    """The depth of a *config*, or TritError where there is none of that name."""
    if config not in CONFIGS:
        raise TritError(f"unknown config {config!a}; there are {', '.join(CONFIGS)}")
    return CONFIGS[config]


def plan(tensors: Sequence[SourceTensor], depth: int, policy: Policy, group_size: int) -> list[Planned]:
    """What becomes of each of *tensors* at *depth*. Raises TritError where the policy asks the impossible."""
    policy.check(tensors)
    planned = []
    for tensor in tensors:
        reason = policy.reason_to_keep(tensor)
        try:
            planned.append(Planned(tensor, _entry(tensor, depth, reason, group_size), reason))
        except TritError as error:
            raise error.at(f"tensor {tensor.name!a}") from None
    return planned


def _entry(tensor: SourceTensor, depth: int, reason: str | None, group_size: int) -> Entry:
    if reason is not None:
        return RawEntry(tensor.name, tensor.dtype, tensor.shape)
    # The steps are not known yet; their place in the directory has a fixed size.
    form = Form(tensor.shape, SOURCES[tensor.dtype], depth, 0, group_size, UNIT_STEPS)
    return trit_entry(tensor.name, form)
