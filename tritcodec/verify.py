"""SPEC 9: every requirement on a file, checked; the verdict names clause, tensor and byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import TritError
from .header import PREAMBLE_SIZE, UNSUPPORTED
from .reader import PathLike, Source, block_buffer, read_directory, scan


@dataclass(frozen=True)
class Finding:
    """One broken requirement: its id, the place (tensor, byte) and what was found there.

    "A verifier MUST name the requirement, and where it applies the tensor and the offset in the file, of
    what it finds."
    """

    clause: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.clause}: {self.where + ': ' if self.where else ''}{self.message}"


@dataclass
class Report:
    """What `verify_file` found.

    `verdict` is "valid", "invalid" or "unsupported" (a newer version or an
    unknown flag, of which nothing more can be said); `findings` has at least
    one entry unless valid. `notes` are no defects: keys of a newer minor version.
    `identity` is the header's SHA-256, where header and layout are valid.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    identity: str | None = None
    tensors: int = 0
    size: int = 0

    @property
    def verdict(self) -> str:
        """ "valid", "invalid" or "unsupported"."""
        if not self.findings:
            return "valid"
        return "unsupported" if self.findings[0].clause in UNSUPPORTED else "invalid"

    @property
    def ok(self) -> bool:
        """True where the file is valid."""
        return not self.findings

    def __bool__(self) -> bool:
        """As `ok`: a report on a bad file is not true."""
        return self.ok

    def add(self, error: TritError) -> None:
        """Record *error* as a finding."""
        self.findings.append(Finding(error.clause or "", error.where, error.message))


def verify_file(path: PathLike, progress: Callable[[int], object] | None = None) -> Report:
    """Check every requirement of SPEC 2 to 8.1 on a file; gives a Report (SPEC 9).

    "A verifier MUST find valid every file that conforms, and invalid or unsupported every other."
    Streams through the file with a constant amount of memory. *progress* is
    called with counts of bytes that have been checked. Raises OSError where
    the file cannot be read and TritError where it is no regular file or ends
    while it is read (READ-4); a bad file is no exception but a report.
    """
    source = Source(path)
    report = Report(size=source.length)
    try:
        _verify(source, report, progress or (lambda _: None))
    except TritError as error:
        if error.clause == "READ-4":  # the file has become shorter: no verdict
            raise
        report.add(error)
    finally:
        source.close()
    return report


def _verify(source: Source, report: Report, progress: Callable[[int], object]) -> None:
    preamble, header, segments = read_directory(source)
    report.identity = preamble.digest.hex()
    report.tensors = len(header.entries)
    report.notes += [f"ignored, from a newer minor version: {place}" for place in header.ignored]
    end, after, buffer = PREAMBLE_SIZE + preamble.header_size, "the header", block_buffer()
    for segment in segments:
        _verify_gap(source, end, segment.offset, after, report)
        for block in scan(source, segment, buffer, report.add):
            progress(block.size)
        end, after = segment.end, segment.where
    _verify_gap(source, end, source.length, after, report)


def _verify_gap(source: Source, start: int, stop: int, after: str, report: Report) -> None:
    if start == stop:
        return
    # "Every byte that belongs to neither preamble, header nor segment MUST be zero."
    gap = source.read(stop - start, start)
    zeros = len(gap) - len(gap.lstrip(b"\0"))
    if zeros < len(gap):
        message = f"{gap[zeros]} in the gap after {after}, where 0 is due"
        report.add(TritError(message, clause="LAY-3", where=f"byte {start + zeros}"))
