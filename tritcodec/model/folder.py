"""Output folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import TritError
from .source import companions


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside *target*, to fill; it takes the name *target* when the block ends.

    After an exception it is removed, with everything in it and with those
    parents of *target* that were made for it. Raises TritError where *target* exists.
    """
    if os.path.lexists(target):
        raise TritError("exists already; remove it or name another place", where=str(target))
    made = [parent for parent in target.parents if not parent.exists()]
    building = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.partial")
    try:
        building.mkdir(parents=True)
        yield building
        os.rename(building, target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        for parent in made:  # innermost first; one that others use by now is not empty
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def copy_companions(source: Path | None, target: Path) -> None:
    """Copy configuration, tokenizer and the like of a model folder, where there is one, into *target*."""
    if source is None:
        return
    for path in companions(source):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)
