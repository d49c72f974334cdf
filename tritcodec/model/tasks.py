"""The work of a run, in pieces that any process on any machine can do: survey a matrix, encode some rows.

Tasks and results are small or packed; weights are read where the work is done.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..encode import Weights, block_of, chooser, encode_groups, energies, exact_sum, to_float32
from ..errors import TritError
from ..groups import as_groups
from ..header import RawEntry
from ..reader import byte_view, check_raw
from ..search import F32
from ..tensor import Form, pack_block
from .policy import SOURCES
from .source import SourceTensor, read_rows, stamp_of

PART_BLOCKS = 8  # blocks of the encoder in a part: what one task encodes, some 8 million weights
BAND_ELEMENTS = 1 << 20  # of a raw tensor, read at once


@dataclass(frozen=True)
class Finding:
    """What was found out on a matrix that was to be packed again; `reason` is why it is not, or None.

    At `depth` the `steps` that were found fit `fitting` of `groups`. Where that is not all, `row` and
    `column` are the first weight that they do not give, and `misses` is how many they don't give. Steps may
    come near all values at depth `near`, and `arithmetic` explain why not nearer. `negative_zeros` is
    how many there are, which would come back as +0.
    """

    reason: str | None
    negative_zeros: int = 0
    depth: int = 0
    steps: int = 0
    groups: int = 0
    fitting: int = 0
    row: int | None = None
    column: int | None = None
    misses: int = 0
    near: int | None = None
    arithmetic: str | None = None


@dataclass(frozen=True, eq=False)
class Surveyed:
    """What is known of a tensor before it is encoded; of one that is kept raw, only what it was.

    `digests` are the SHA-256 of the bytes of each of its parts, `stamp` what `stamp_of`
    gave for its file before it was read; `codebooks` and `errors` those
    of each depth: the 27 steps, and the squared error to expect, relative to `energy`, that of the
    weights. Errors and energy are estimates, and only there where they were asked for. `finding` is what
    was found out where a matrix was to be packed again.
    """

    digests: tuple[str, ...]
    stamp: str
    group_size: int = 0
    largest: float = 0.0
    codebooks: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    errors: dict[int, float] = field(default_factory=dict)
    energy: float = 0.0
    finding: Finding | None = None

    def to_json(self) -> bytes:
        """As the bytes that `from_json` takes; floats are exact in hexadecimal."""
        fields = {
            "digests": self.digests,
            "stamp": self.stamp,
            "largest": self.largest.hex(),
            "codebooks": {
                depth: steps.astype("<f4").tobytes().hex() for depth, steps in self.codebooks.items()
            },
            "errors": {depth: error.hex() for depth, error in self.errors.items()},
            "energy": self.energy.hex(),
            "group size": self.group_size,
            "finding": self.finding and asdict(self.finding),
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Surveyed:
        """The inverse of `to_json`."""
        fields = json.loads(data)
        return cls(
            tuple(fields["digests"]),
            fields["stamp"],
            fields["group size"],
            float.fromhex(fields["largest"]),
            {int(d): np.frombuffer(bytes.fromhex(text), "<f4") for d, text in fields["codebooks"].items()},
            {int(d): float.fromhex(text) for d, text in fields["errors"].items()},
            float.fromhex(fields["energy"]),
            fields["finding"] and Finding(**fields["finding"]),
        )


def weights_of(tensor: SourceTensor, group_size: int) -> Weights:
    """The weights of a matrix, read from its file."""
    return Weights(tensor.shape, SOURCES[tensor.dtype], group_size, partial(read_rows, tensor))


def parts(tensor: SourceTensor, group_size: int) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) of rows that are encoded together: whole blocks of the encoder."""
    weights = weights_of(tensor, group_size)
    step = PART_BLOCKS * weights.block_rows
    for start in range(0, weights.rows, step):
        yield start, min(start + step, weights.rows)


def survey_raw(tensor: SourceTensor) -> Surveyed:
    """Read a tensor that is kept raw, for its digest. Raises TritError (RAW-2) for booleans that are none."""
    stamp, digest = stamp_of(tensor.path), sha256()
    entry = RawEntry(tensor.name, tensor.dtype, tensor.shape)
    with naming(tensor):
        for rows in bands(tensor):
            check_raw(rows, entry)
            digest.update(byte_view(rows))
    return Surveyed((digest.hexdigest(),), stamp)


def bands(tensor: SourceTensor) -> Iterator[npt.NDArray[Any]]:
    """All of a tensor, some elements at a time: a row may be long."""
    count = math.prod(tensor.shape)
    flat = replace(tensor, shape=(count, 1))
    for start in range(0, count, BAND_ELEMENTS):
        yield read_rows(flat, start, min(start + BAND_ELEMENTS, count))


class HashingReader:
    """Reads the rows of a matrix in their order, and keeps the digest of each part."""

    def __init__(self, tensor: SourceTensor, weights: Weights) -> None:
        self._weights = weights
        self._stops = {stop for _, stop in parts(tensor, weights.group_size)}
        self._digest = sha256()
        self.digests: list[str] = []

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop), those that come next."""
        rows = self._weights.read(start, stop)
        self._digest.update(byte_view(rows))
        if stop in self._stops:
            self.digests.append(self._digest.hexdigest())
            self._digest = sha256()
        return rows


@dataclass(frozen=True, eq=False)
class Part:
    """Rows [start, stop) of a matrix, to be encoded to each of *forms*, those of the whole matrix."""

    tensor: SourceTensor
    start: int
    stop: int
    digest: str
    largest: float
    forms: tuple[Form, ...]


def read_part(part: Part) -> npt.NDArray[Any]:
    """The rows of a part. Raises TritError where they are not those that were surveyed."""
    with naming(part.tensor):
        rows = read_rows(part.tensor, part.start, part.stop)
        if sha256(byte_view(rows)).hexdigest() != part.digest:
            raise TritError("the weights have changed since they were surveyed")
    return rows


class Work(Protocol):
    """A kind of run: what is found out on a matrix, and how its rows become planes. Any process can do it."""

    @property
    def group_size(self) -> int:
        """Weights a group, where the survey finds no other."""

    @property
    def title(self) -> str:
        """What made a file, for its metadata."""

    def options(self) -> dict[str, Any]:
        """What has to be the same where a run goes on."""

    def survey(self, tensor: SourceTensor, depths: tuple[int, ...], estimates: bool) -> Surveyed:
        """What there is to know of a matrix before it is encoded, at *depths*; *estimates* of errors, too."""

    def encode(self, part: Part, measure: bool) -> list[bytes]:
        """For each form of *part* the planes of the rows, in file order, behind a line of JSON.

        The line has the squared error and the squared weights in units of `energies`, where *measure*
        asks for them. Raises TritError where the rows are not those that were surveyed.
        """

    def prove(self, path: Path, tensors: Sequence[SourceTensor]) -> None:
        """Raise TritError where the file *path*, made of *tensors*, is not what it has to be."""


@dataclass(frozen=True)
class Recipe:
    """Quantising: how matrices are encoded. A Work."""

    group_size: int
    method: str
    nested: bool

    @property
    def title(self) -> str:
        """The method, and whether codes are nested."""
        return f"{self.method}, nested" if self.nested else self.method

    def options(self) -> dict[str, Any]:
        """All that there are."""
        return {"group size": self.group_size, "method": self.method, "nested": self.nested}

    def survey(self, tensor: SourceTensor, depths: tuple[int, ...], estimates: bool) -> Surveyed:
        """Read a matrix once, and fit a codebook for each of *depths*; *estimates* say how well it fits.

        Raises TritError with file and tensor where a weight is NaN or infinite.
        """
        stamp = stamp_of(tensor.path)
        weights = weights_of(tensor, self.group_size)
        hashed = HashingReader(tensor, weights)
        with naming(tensor):
            found = replace(weights, read=hashed.read).survey()
        codebooks = {depth: weights.fit(found, depth, self.method, self.nested) for depth in depths}
        errors, energy = {}, 0.0
        for depth, codebook in codebooks.items() if estimates else ():
            form = weights.form(depth, codebook)
            errors[depth], energy = weights.estimate(found, form, self.method, self.nested)
        size = self.group_size
        return Surveyed(tuple(hashed.digests), stamp, size, found.largest, codebooks, errors, energy)

    def encode(self, part: Part, measure: bool) -> list[bytes]:
        """Planes of every form, as `Work.encode` has it."""
        rows = read_part(part)
        pieces = [_Piece(replace(form, shape=rows.shape), self) for form in part.forms]
        weights = weights_of(part.tensor, self.group_size)
        for start in range(0, len(rows), weights.block_rows):
            block = to_float32(rows[start : start + weights.block_rows])
            groups = as_groups(block, self.group_size)
            for piece in pieces:
                piece.add(groups, start, part.largest if measure else None)
        return [packed_part(piece.planes, piece.noise, piece.signal) for piece in pieces]

    def prove(self, path: Path, tensors: Sequence[SourceTensor]) -> None:
        """Nothing is claimed of quantised weights."""


def packed_part(planes: Sequence[npt.NDArray[np.uint8]], noise: int = 0, signal: int = 0) -> bytes:
    """The line of JSON, and the *planes*."""
    line = json.dumps({"noise": noise, "signal": signal}).encode()
    return b"".join([line, b"\n", *(plane.data for plane in planes)])


class _Piece:
    """Rows of a matrix, encoded to one form."""

    def __init__(self, form: Form, recipe: Recipe) -> None:
        self.form, self.choose = form, chooser(form, recipe.method, recipe.nested)
        self.planes = [np.empty(shape, np.uint8) for shape in form.plane_shapes]
        self.noise = self.signal = 0

    def add(self, groups: F32, start: int, largest: float | None) -> None:
        """Encode *groups*, those of the rows from *start* on; measured where *largest* is given."""
        codes, offsets = encode_groups(groups, self.form, self.choose)
        pack_block(block_of(start, codes, offsets, self.form), self.planes)
        if largest is not None:
            noise, signal = energies(groups, codes, offsets, self.form, largest)
            self.noise, self.signal = self.noise + exact_sum(noise), self.signal + exact_sum(signal)


@contextlib.contextmanager
def naming(tensor: SourceTensor) -> Iterator[None]:
    """Let a TritError that comes from the block say file and tensor."""
    try:
        yield
    except TritError as error:
        raise error.at(f"{tensor.path}: tensor {tensor.name!a}") from None
