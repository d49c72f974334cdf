"""SPEC 15.3: every requirement on a model folder and its shards, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import TritError
from ..reader import PathLike, open_file
from ..verify import Finding, Report, verify_file
from .index import INDEX_NAME, Index
from .shards import check_shard, folder_errors, model_file, read_index, shard_file


@dataclass
class ModelReport:
    """What `verify_model` found: `findings` on the index and the folder, and a Report for each shard.

    `verdict` is "invalid" where the index, the folder or a shard is, else
    "unsupported" where a shard is, else "valid". `identity` is the SHA-256 of the index
    where it could be read, and that of the header for a file without one.
    """

    findings: list[Finding] = field(default_factory=list)
    shards: dict[str, Report] = field(default_factory=dict)
    identity: str | None = None

    @property
    def verdict(self) -> str:
        """ "valid", "invalid" or "unsupported"."""
        verdicts = {report.verdict for report in self.shards.values()}
        if self.findings or "invalid" in verdicts:
            return "invalid"
        return "unsupported" if "unsupported" in verdicts else "valid"

    @property
    def ok(self) -> bool:
        """True where the folder and all its shards are valid."""
        return self.verdict == "valid"

    def __bool__(self) -> bool:
        """As `ok`: a report on a bad folder is not true."""
        return self.ok

    @property
    def tensors(self) -> int:
        """The tensors of the shards whose headers could be read."""
        return sum(report.tensors for report in self.shards.values())

    @property
    def size(self) -> int:
        """The bytes of the shards that are there."""
        return sum(report.size for report in self.shards.values())

    def add(self, error: TritError) -> None:
        """Record *error* as a finding."""
        self.findings.append(Finding(error.clause or "", error.where, error.message))


def verify_model(path: PathLike, progress: Callable[[int], object] | None = None) -> ModelReport:
    """Check every requirement on a model folder, its index, or a `.trit` file (SPEC 15.3).

    *progress* is called with counts of bytes that have been checked. Raises
    OSError where a file cannot be read and TritError where one is no regular file
    or ends while it is read (READ-4); a bad folder is no exception but a report.
    """
    path, report = model_file(path), ModelReport()
    if path.name != INDEX_NAME:
        report.shards[path.name] = verify_file(path, progress)
        report.identity = report.shards[path.name].identity
        return report
    try:
        index, report.identity = read_index(path)
    except TritError as error:
        if error.clause in (None, "READ-4"):  # it could not be read
            raise
        report.add(error)
        return report
    for fault in folder_errors(path.parent, index):
        report.add(fault)
    for name in sorted(index.shards):
        _verify_shard(path.parent, index, name, report, progress)
    return report


def _verify_shard(
    folder: Path, index: Index, name: str, report: ModelReport, progress: Callable[[int], object] | None
) -> None:
    try:
        path = shard_file(folder, name)
    except TritError:
        return  # reported with the folder
    report.shards[name] = verify_file(path, progress)
    if report.shards[name].identity is None:
        return  # no header could be read
    try:
        with open_file(path) as file:
            check_shard(index, name, file)
    except TritError as error:
        report.add(error)
