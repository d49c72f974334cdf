"""Output folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from ..errors import TritError
from ..writer import sync
from .source import companions


@contextlib.contextmanager
def new_folders(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Folders beside *targets*, to fill; flushed to storage, they take their names when the block ends.

    After an exception they are removed, with everything in them and with
    those parents of *targets* that were made for them. Raises TritError where
    a target exists; an OSError names the target, not the folder beside it.
    """
    for target in targets:
        if os.path.lexists(target):
            raise TritError("exists already; remove it or name another place", where=str(target))
    parents = [parent for target in targets for parent in target.parents]
    made = [parent for parent in dict.fromkeys(parents) if not parent.exists()]
    building = {target.with_name(f".{secrets.token_hex(8)}.partial"): target for target in targets}
    named: list[Path] = []
    try:
        for folder in building:
            folder.mkdir(parents=True)
        yield list(building)
        for folder in building:
            flush(folder)
        for folder, target in building.items():
            os.rename(folder, target)
            named.append(target)
        for parent in {target.parent for target in targets}:
            sync(parent)
    except BaseException as error:
        for folder in [*building, *named]:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in made:  # innermost first; one that others use by now is not empty
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            _name_target(error, building)
        raise


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[TextIO]:
    """A text file that takes the name *target*, whatever had it, when the block ends; else nothing is left.

    An OSError names *target*.
    """
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:  # a path in it may be no UTF-8
        with open(temporary, "x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(target), None
        raise


def copy_companions(source: Path | None, target: Path) -> None:
    """Copy configuration, tokenizer and the like of a model folder, where there is one, into *target*."""
    if source is None:
        return
    for path in companions(source):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)


def flush(folder: Path) -> None:
    """Make everything in *folder*, and the names there, last through a power cut."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _name_target(error: OSError, building: dict[Path, Path]) -> None:
    """Let *error* speak of the target that the user named; a failing write names no file at all."""
    if error.filename is None:
        error.filename = str(next(iter(building.values())).parent)
    for folder, target in building.items():
        error.filename = str(error.filename).replace(str(folder), str(target))
        if error.filename2 is not None:  # of a copy, what was copied to
            error.filename2 = str(error.filename2).replace(str(folder), str(target))
