"""Output folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from ..errors import TritError
from ..writer import sync, sync_names, temporary_name
from .companions import companions


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside *target*, to fill; flushed to storage, it takes that name when the block ends.

    After an exception it is removed, with everything in it and with those parents of *target* that were
    made for it. Raises TritError where *target* exists; an OSError names it, not the folder beside it.
    """
    if os.path.lexists(target):
        raise TritError("exists already; remove it or name another place", where=str(target))
    made = [parent for parent in target.parents if not parent.exists()]
    folder = temporary_name(target, "partial")
    try:
        folder.mkdir(parents=True)
        yield folder
        flush(folder)
        os.rename(folder, target)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:  # innermost first; one that others use by now is not empty
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            _name_target(error, folder, target)
        raise
    sync_names(target.parent)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[TextIO]:
    """A text file that takes the name *target*, whatever had it, when the block ends; else nothing is left.

    An OSError names *target*.
    """
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    temporary = temporary_name(target, "tmp")
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


def clear(folder: Path, kept: Sequence[str]) -> None:
    """Remove whatever is in *folder* but the files *kept*: what an interrupted run has copied may be old."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


def flush(folder: Path) -> None:
    """Make everything in *folder*, and the names there, last through a power cut."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _name_target(error: OSError, folder: Path, target: Path) -> None:
    """Let *error* speak of the target that the user named; a failing write names no file at all."""
    error.filename = str(error.filename or target).replace(str(folder), str(target))
    if error.filename2 is not None:  # of a copy, what was copied to
        error.filename2 = str(error.filename2).replace(str(folder), str(target))
