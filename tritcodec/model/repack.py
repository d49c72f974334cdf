"""Packing dequantised checkpoints again: every value comes back bit for bit, or stays as it is (SPEC 16)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..codebook import FLOATS
from ..encode import Weights
from ..errors import TritError
from ..header import TritEntry
from ..reader import PathLike, TritFile, open_file
from ..recover import Recovery, look, recover
from ..tensor import GROUP_SIZE, Form, TritTensor, pack_block, row_ranges
from ..values import SIGN, Values, bits_of
from .plan import REPACKED, Config, Planned
from .policy import Policy
from .run import Job, Progress, quantize_model, silent
from .source import ModelSource, SourceTensor, read_rows
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

BAND_WEIGHTS = 1 << 22  # weights that are compared at once


def repack_model(
    source: PathLike,
    target: PathLike,
    work: Repack,
    keep: Sequence[str],
    executor: Executor,
    width: int = 1,
    progress: Progress = silent,
) -> list[Planned]:
    """Write the folder *target*/repacked, with all of the model that was found again packed.

    Tensors of names that match a pattern in *keep* stay as they are. Raises as `quantize_model` does.
    """
    job = Job(ModelSource(source), [Config(REPACKED, "repack", 0)], Policy(keep, recipe=False), work)
    return quantize_model(job, target, executor, width, progress)[REPACKED]


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
        modified = os.stat(tensor.path).st_mtime_ns
        weights = weights_of(tensor, self.group_size)
        hashed = HashingReader(tensor, weights)
        found = look(replace(weights, read=hashed.read))
        if found.infinite:
            reason = f"{found.infinite:,} values not finite"
            return replace(survey_raw(tensor), finding=Finding(reason, found.negative_zeros))
        if self.strict_zeros and found.negative_zeros:
            reason = f"{found.negative_zeros:,} negative zeros"
            return replace(survey_raw(tensor), finding=Finding(reason, found.negative_zeros))
        recovery = recover(weights, found, depths if self.depth is None else (self.depth,))
        finding = _finding(weights, recovery, found.negative_zeros)
        if finding.reason:
            return replace(survey_raw(tensor), finding=finding)
        return Surveyed(
            tuple(hashed.digests),
            modified,
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


def _finding(weights: Weights, recovery: Recovery, negative_zeros: int) -> Finding:
    row, column = recovery.place or (None, None)
    return Finding(
        _reason(weights, recovery),
        negative_zeros,
        recovery.depth,
        recovery.used,
        recovery.groups,
        recovery.fitting,
        row,
        column,
    )


def _reason(weights: Weights, recovery: Recovery) -> str | None:
    """Why a matrix is kept raw; None where it is packed."""
    if not recovery.exact:
        return "no steps fit all groups"
    form = Form(weights.shape, weights.dtype, recovery.depth, 0, recovery.group_size, recovery.steps)
    if form.nbytes >= weights.rows * weights.columns * FLOATS[weights.dtype].itemsize:
        return "smaller as it is"
    return None
