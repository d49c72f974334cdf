"""SPEC 7: from the directory to offsets. No I/O, and nothing is stored: the layout is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .codebook import CODE_TRITS
from .errors import TritError
from .header import PREAMBLE_SIZE, Entry, RawEntry, TritEntry
from .trits import MAX_DEPTH

ALIGNMENT = 64
MAX_FILE_SIZE = (1 << 63) - 1


class Segment(NamedTuple):
    """A contiguous run of bytes in a file: a raw tensor, or a plane of a trit tensor."""

    entry: Entry
    part: int  # 0 for a raw tensor; an index into the planes of SPEC 5.2
    offset: int
    size: int

    @property
    def digest(self) -> bytes:
        """The SHA-256 that the directory gives."""
        return self.entry.digests[self.part]

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.size

    @property
    def where(self) -> str:
        """The segment in words, for a message."""
        if isinstance(self.entry, RawEntry):
            return f"tensor {self.entry.name!a}"
        if self.part < CODE_TRITS:
            return f"tensor {self.entry.name!a}, code plane {self.part}"
        return f"tensor {self.entry.name!a}, weight plane {self.part - CODE_TRITS}"


def align(offset: int) -> int:
    """The least multiple of 64 that is not below *offset*.

    >>> [align(offset) for offset in (0, 1, 64, 65)]
    [0, 64, 64, 128]
    """
    return -(-offset // ALIGNMENT) * ALIGNMENT


def layout(header_size: int, entries: Sequence[Entry]) -> tuple[list[Segment], int]:
    """The segments of a file in the order of their offsets, and the file's size (SPEC 7).

    Takes the directory in its order. Raises TritError (LAY-5) where the file
    would end beyond 2^63 - 1; Python's integers do not wrap on the way there.
    """
    sizes = {entry.name: entry.segment_sizes for entry in entries}
    segments = []
    # "The first segment MUST begin at align(64 + header size), and each other one at align(end of the
    # one before)."
    end = align(PREAMBLE_SIZE + header_size)
    for entry, part in _order(entries):
        segment = Segment(entry, part, end, sizes[entry.name][part])
        segments.append(segment)
        end = align(segment.end)
    # "The end of the file MUST be at most 2^63 - 1."
    if end > MAX_FILE_SIZE:
        raise TritError(f"the tensors take {end} bytes, above 2^63 - 1", clause="LAY-5")
    return segments, end


def _order(entries: Sequence[Entry]) -> Iterator[tuple[Entry, int]]:
    """Every (entry, part) in file order.

    "The segments MUST stand in this order: the raw tensors, in directory
    order; the three code planes of every trit tensor, tensor by tensor; then
    the most significant weight plane of every trit tensor, then the next
    plane of every tensor that has one, and so on."
    """
    trit = [entry for entry in entries if isinstance(entry, TritEntry)]
    yield from ((entry, 0) for entry in entries if isinstance(entry, RawEntry))
    yield from ((entry, part) for entry in trit for part in range(CODE_TRITS))
    for rank in range(MAX_DEPTH):
        yield from ((entry, CODE_TRITS + rank) for entry in trit if rank < entry.form.depth)
