"""What else is in a model folder: the files that go where the model goes, and those that do not, and why."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from .index import BLOBS, INDEX_NAME, TRIT_NAME

WEIGHTS = frozenset(  # suffixes of files with weights, of whatever framework
    (
        *(".safetensors", ".trit", ".bin", ".pt", ".pth", ".ckpt", ".gguf"),
        *(".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite"),
    )
)
NUMBERED = re.compile(r"(.*)-[0-9]{5}-of-([0-9]{5})(\.[a-z]+)")  # a shard, as Hugging Face names them
NAMED = "can be named itself"


def companions(folder: Path) -> list[Path]:
    """The files of a model *folder* that go where the model goes, relative to it: configuration, tokenizer.

    Raises OSError for a folder that cannot be listed: a copy would lack what is in it.
    """
    return [path for path, reason in _look_at(folder) if reason is None]


def check_companions(folder: Path) -> None:
    """Raise OSError where one of them cannot be read: they are copied when hours of work are done."""
    for path in companions(folder):
        with open(folder / path, "rb"):
            pass


def left_out(folder: Path, own: Iterable[Path]) -> dict[str, list[Path]]:
    """The files of *folder* that are neither the model's *own* files nor companions, by the reason why."""
    found: dict[str, list[Path]] = {}
    kept = {Path(path) for path in own}
    for path, reason in _look_at(folder):
        if reason and folder / path not in kept:
            found.setdefault(reason, []).append(path)
    return found


def instead(folder: Path, advice: Mapping[str, str]) -> str:
    """In words, what weights a *folder* has instead of a model, and the *advice* on such a suffix."""
    visible = [name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    names = [name for name in visible if (folder / name).is_file()]
    for suffix, what in advice.items():
        found = [name for name in names if Path(name).suffix == suffix]
        if found and what == NAMED and family(found[0]):
            return f"; it has {found[0]}, and no index of such shards"
        if found:
            return f"; it has {found[0]}, which {what}"
    return ""


def family(name: str) -> tuple[str, ...] | None:
    """What the names of the shards of one model have in common; None where it is no such name."""
    found = NUMBERED.fullmatch(name)
    return found.groups() if found else None


def _look_at(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """What is in *folder*, relative to it, and why it is no companion, or None where it is one.

    Nothing is said of what is hidden, of packed models, which an earlier run may have put there,
    and of a log that this process writes.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        for name in sorted([*names, *folders]):
            path = Path(parent, name)
            inner = name in folders and not path.is_symlink()
            if not (name.startswith(".") or _is_log(path) or (inner and not _is_weights(path))):
                yield path.relative_to(folder), _reason(folder, path)
        folders[:] = sorted(name for name in folders if _may_be_model(Path(parent, name)))


def _reason(folder: Path, path: Path) -> str | None:
    """Why a file, or a link, of *folder* stays behind; None where it does not."""
    if _is_weights(path):
        return "weights, not of this model"
    if not path.is_file():
        return "a linked folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no file"
    # "A link that leads elsewhere could have any file of its reader's machine published again."
    home, real = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    if real.is_relative_to(home) or real.parent == home.parent.parent / BLOBS:
        return None
    return "a link that leads out of the folder"


def _may_be_model(folder: Path) -> bool:
    """Whether a sub-folder holds files that belong to the model."""
    packed = any((folder / name).exists() for name in (TRIT_NAME, INDEX_NAME))
    return not (packed or folder.name.startswith(".") or _is_weights(folder))


def _is_weights(path: Path) -> bool:
    return path.suffix in WEIGHTS or path.name.endswith(".index.json")


def _is_log(path: Path) -> bool:
    """Whether it is where standard output or standard error go."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # one that is closed
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return True
    return False


def _raise(error: OSError) -> NoReturn:
    raise error
