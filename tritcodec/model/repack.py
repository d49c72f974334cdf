"""Packing dequantised checkpoints again: every value comes back bit for bit, or stays as it is (SPEC 16)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..arithmetic import Near, near
from ..codebook import FLOATS
from ..encode import Weights
from ..errors import TritError
from ..header import TritEntry
from ..reader import TritFile, open_file
from ..recover import Recovery, look, misses, recover
from ..tensor import GROUP_SIZE, Form, TritTensor, pack_block, row_ranges
from ..values import SIGN, Values, bits_of
from .plan import REPACKED, Config
from .policy import Policy
from .run import Job
from .source import ModelSource, SourceTensor, read_rows, stamp_of
from .tasks import (
    Finding,
    HashingReader,
    Part,
    Surveyed,
    naming,
    packed_part,
    read_part,
    survey_raw,
    weights_of,
)

MANY, MANY_SHARE = 8, 0.001  # groups that do not fit: fewer were changed, and no fault of the arithmetic
BAND_WEIGHTS = 1 << 22  # weights that are compared at once


def repack_job(source: ModelSource, work: Repack, keep: Sequence[str] = ()) -> Job:
    """The run that packs what it can of *source*; tensors of names that match *keep* stay as they are."""
    return Job(source, [Config(REPACKED, "repack", 0)], Policy(keep, recipe=False), work)


@dataclass(frozen=True)
class Repack:
    """Finding again how matrices were made, at *depth* or at the least that fits. A Work.

    With *strict_zeros*, a matrix with a negative zero is kept raw: no level decodes to one.
    """

    depth: int | None = None
    strict_zeros: bool = False

    @property
    def group_size(self) -> int:
        """The smallest that is looked for: larger ones are made of it."""
        return GROUP_SIZE

    @property
    def title(self) -> str:
        """What it is."""
        return "repack"

    def options(self) -> dict[str, Any]:
        """All that there are."""
        return {"repack": {"depth": self.depth, "strict zeros": self.strict_zeros}}

    def survey(self, tensor: SourceTensor, depths: tuple[int, ...], estimates: bool) -> Surveyed:
        """Find steps, group size and depth of a matrix, or why there are none."""
        del estimates  # nothing is estimated: bits are the same or not
        if tensor.dtype not in FLOATS:
            return replace(survey_raw(tensor), finding=Finding(f"dtype {tensor.dtype}"))
        stamp = stamp_of(tensor.path)
        weights = weights_of(tensor, self.group_size)
        hashed = HashingReader(tensor, weights)
        found = look(replace(weights, read=hashed.read))
        if found.infinite:
            reason = f"{found.infinite:,} values not finite"
            return replace(survey_raw(tensor), finding=Finding(reason, found.negative_zeros))
        if self.strict_zeros and found.negative_zeros:
            reason = f"{found.negative_zeros:,} negative zeros"
            return replace(survey_raw(tensor), finding=Finding(reason, found.negative_zeros))
        depths = depths if self.depth is None else (self.depth,)
        recovery = recover(weights, found, depths)
        if recovery.exact:
            finding = _exact(weights, recovery, found.negative_zeros)
        else:
            misfits = recovery.groups - recovery.fitting
            many = misfits >= max(MANY, MANY_SHARE * recovery.groups)
            close = near(found.sample, weights.dtype, depths) if many else None
            finding = _inexact(weights, recovery, close, found.negative_zeros)
        if finding.reason:
            return replace(survey_raw(tensor), finding=finding)
        return Surveyed(
            tuple(hashed.digests),
            stamp,
            recovery.group_size,
            codebooks={recovery.depth: recovery.steps},
            finding=finding,
        )

    def encode(self, part: Part, measure: bool) -> list[bytes]:
        """The planes of the only form, as `Work.encode` has it; there is no error to measure."""
        del measure
        [form] = part.forms
        rows = read_part(part)
        values = Values(form.codebook, form.depth, form.dtype)
        planes = [np.empty(shape, np.uint8) for shape in replace(form, shape=rows.shape).plane_shapes]
        weights = weights_of(part.tensor, self.group_size)
        for start in range(0, len(rows), weights.block_rows):
            block = bits_of(rows[start : start + weights.block_rows], form.dtype)
            pack_block((start, *values.encode(block, form.group_size)), planes)
        return [packed_part(planes)]

    def prove(self, path: Path, tensors: Sequence[SourceTensor]) -> None:
        """Decode all that is packed in the file *path*, and compare it with the source bit for bit."""
        with open_file(path) as file:
            entries = {entry.name: entry for entry in file.header.entries}
            for tensor in tensors:
                entry = entries[tensor.name]
                if isinstance(entry, TritEntry):
                    with naming(tensor):
                        compare(file, tensor, entry.form)


def compare(file: TritFile, tensor: SourceTensor, form: Form) -> None:
    """Raise TritError with the first weight of *tensor* whose bits are not those of the source."""
    for start, stop in row_ranges(form.rows, form.columns, BAND_WEIGHTS):
        source = bits_of(read_rows(tensor, start, stop), form.dtype)
        band = cast(TritTensor, file.get_rows(tensor.name, start, stop))
        decoded = bits_of(band.dequantize(), form.dtype)
        wrong = (source != decoded) & ((source != SIGN[form.dtype]) | (decoded != 0))
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            was, now = int(source[row, column]), int(decoded[row, column])
            message = f"row {start + row}, column {column} has the bits {was:#x} and decodes to {now:#x}"
            raise TritError(message)


def _exact(weights: Weights, recovery: Recovery, negative_zeros: int) -> Finding:
    """The finding on a matrix whose groups all fit: it is packed where that makes it smaller."""
    form = Form(weights.shape, weights.dtype, recovery.depth, 0, recovery.group_size, recovery.steps)
    smaller = form.nbytes < weights.rows * weights.columns * FLOATS[weights.dtype].itemsize
    reason = None if smaller else f"packed at depth {recovery.depth} it would take {form.nbytes:,} bytes"
    steps, groups = len(recovery.chosen), recovery.groups
    return Finding(reason, negative_zeros, recovery.depth, steps, groups, groups)


def _inexact(weights: Weights, recovery: Recovery, close: Near | None, negative_zeros: int) -> Finding:
    """The finding on a matrix that has groups that do not fit."""
    row, column = recovery.place or (0, 0)
    missing = misses(weights, recovery)
    share = math.floor(10_000 * recovery.fitting / recovery.groups) / 100  # 100.00 would be a lie
    reason = "no group fits"
    if recovery.fitting:
        values = "1 value misses" if missing == 1 else f"{missing:,} values miss"
        reason = f"{share:.2f} % of groups fit at depth {recovery.depth}, {values}"
    reason += f", the first in row {row}, column {column}"
    if close:
        reason += f"; as if depth {close.depth}: {close.arithmetic}"
    return Finding(
        reason,
        negative_zeros,
        recovery.depth,
        len(recovery.chosen),
        recovery.groups,
        recovery.fitting,
        row,
        column,
        missing,
        close.depth if close else None,
        close.arithmetic if close else None,
    )
