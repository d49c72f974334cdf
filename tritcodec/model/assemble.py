"""Encoded parts of matrices, kept in the spool, and the shards that are made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import TritError
from ..header import RawEntry, TritEntry
from ..tensor import Form
from ..writer import TritWriter
from .plan import Planned, form_of
from .source import SourceTensor
from .spool import Spool
from .tasks import Part, Surveyed, Work, bands, naming, parts
from .workers import Task

Found = tuple[SourceTensor, int, int, tuple[int, ...]]  # what a task encodes: rows [start, stop), and depths


@dataclass(frozen=True)
class Piece:
    """Rows of a matrix at one depth, in the spool: where its planes begin, and its energies."""

    key: str
    rows: int
    offset: int
    noise: int
    signal: int


class Encoded:
    """What has been encoded, and what is to be."""

    def __init__(
        self,
        spool: Spool,
        surveys: Mapping[str, Surveyed],
        keys: Mapping[str, str],
        work: Work,
        measure: bool,
    ) -> None:
        self.spool, self.surveys, self.work, self.measure = spool, surveys, work, measure
        self._keys = keys  # of tensors, in the spool
        self._pieces: dict[tuple[str, int], dict[int, Piece]] = {}  # by name and depth, then by row

    def tasks(self, tensor: SourceTensor, depths: Sequence[int]) -> Iterator[Task[Found, list[bytes]]]:
        """What is to be done to have a matrix at *depths*; what the spool has is not done again."""
        surveyed = self.surveys[tensor.name]
        for (start, stop), digest in zip(parts(tensor, self.work.group_size), surveyed.digests, strict=True):
            missing = tuple(depth for depth in depths if not self._has(tensor, depth, start, stop))
            if missing:
                forms = tuple(self._form(tensor, depth) for depth in missing)
                part = Part(tensor, start, stop, digest, surveyed.largest, forms)
                yield (tensor, start, stop, missing), self.work.encode, (part, self.measure)

    def keep(self, found: Found, results: Sequence[bytes]) -> None:
        """Keep what a task gave."""
        tensor, start, stop, depths = found
        for depth, data in zip(depths, results, strict=True):
            self.spool.put(self._key(tensor, depth, start), data)
            self._note(tensor, depth, start, stop, data)

    def error(self, tensor: SourceTensor, depth: int) -> float:
        """The squared error of a matrix relative to its squared weights."""
        found = self._pieces[tensor.name, depth].values()
        signal = sum(piece.signal for piece in found)
        return sum(piece.noise for piece in found) / signal if signal else 0.0

    def write(self, path: Path, planned: Sequence[Planned], metadata: Mapping[str, str]) -> None:
        """Write the file *path*, a shard of one config; raw tensors are read from where they are."""
        entries = [self._entry(item) for item in planned]
        with TritWriter(path, entries, metadata) as writer:
            for item, entry in zip(planned, entries, strict=True):
                name = item.tensor.name
                if isinstance(entry, TritEntry):
                    for part in range(len(entry.digests)):
                        writer.write(name, part, self._plane(entry, part))
                    continue
                with naming(item.tensor):
                    if writer.write(name, 0, bands(item.tensor)).hex() != self.surveys[name].digests[0]:
                        raise TritError("the tensor has changed since it was surveyed")

    def drop(self, tensors: Sequence[SourceTensor]) -> None:
        """Forget the pieces of *tensors*: they are written."""
        names = {tensor.name for tensor in tensors}
        for name, depth in [key for key in list(self._pieces) if key[0] in names]:  # others come meanwhile
            for piece in self._pieces.pop((name, depth)).values():
                self.spool.drop(piece.key)

    def _has(self, tensor: SourceTensor, depth: int, start: int, stop: int) -> bool:
        if start in self._pieces.get((tensor.name, depth), {}):
            return True
        data = self.spool.get(self._key(tensor, depth, start))
        if data is None:
            return False
        self._note(tensor, depth, start, stop, data)
        return True

    def _note(self, tensor: SourceTensor, depth: int, start: int, stop: int, data: bytes) -> None:
        line = data[: data.index(b"\n")]
        piece = Piece(self._key(tensor, depth, start), stop - start, len(line) + 1, **json.loads(line))
        self._pieces.setdefault((tensor.name, depth), {})[start] = piece

    def _key(self, tensor: SourceTensor, depth: int, start: int) -> str:
        return f"{self._keys[tensor.name]}.d{depth}.{start}"

    def _form(self, tensor: SourceTensor, depth: int) -> Form:
        surveyed = self.surveys[tensor.name]
        form = form_of(tensor, depth, surveyed.group_size)
        return replace(form, codebook=surveyed.codebooks[depth])

    def _entry(self, item: Planned) -> RawEntry | TritEntry:
        if isinstance(item.entry, RawEntry):
            return item.entry
        return replace(item.entry, form=self._form(item.tensor, item.depth))

    def _plane(self, entry: TritEntry, part: int) -> Iterator[npt.NDArray[np.uint8]]:
        """The bytes of one plane, piece by piece."""
        for _, piece in sorted(self._pieces[entry.name, entry.form.depth].items()):
            shapes = replace(entry.form, shape=(piece.rows, entry.form.columns)).plane_shapes
            sizes = [height * width for height, width in shapes]
            yield self.spool.read(piece.key, piece.offset + sum(sizes[:part]), sizes[part])
