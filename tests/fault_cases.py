"""What tools/faults.py disturbs: small writes and pipelines; and a disk that forgets what was not flushed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import independent
from model_helpers import weights, write_model
from painted import painted_trit

import tritcodec as tc
from tritcodec.model import run
from tritcodec.model.export import dequantize_model, truncate_model
from tritcodec.model.index import INDEX_NAME
from tritcodec.model.plan import config_of
from tritcodec.model.policy import Policy
from tritcodec.model.source import ModelSource
from tritcodec.model.tasks import Recipe
from tritcodec.model.workers import Inline

STATE = ".tritcodec"
OLD = independent.write({"old": independent.Raw([2], "U8", b"ab")})
SHARDS = [f"model-0000{n}-of-00002" for n in (1, 2)]
COMPANIONS = {"config.json": b"{}\n", "tokenizer/vocab.txt": b"a\nb\n"}
Tree = dict[str, bytes | None]


class Scenario(NamedTuple):
    """A piece of work from `in` to `out`, two folders in one place, and whether it keeps a state there."""

    prepare: Callable[[Path], object]
    work: Callable[[Path], object]
    keeps: bool = False


def old_file(place: Path) -> None:
    """A valid file that is to be written over, and one to read."""
    (place / "in").mkdir()
    (place / "out").mkdir()
    (place / "out" / "model.trit").write_bytes(OLD)
    tensors: dict[str, independent.Trit | independent.Raw] = {}
    tensors |= {"b": painted_trit([7, 20], 3), "a": independent.Raw([3], "U8", b"abc")}
    (place / "in" / "model.trit").write_bytes(independent.write(tensors))


def companions(folder: Path) -> None:
    """Files beside the weights, one of them in a folder."""
    for name, data in COMPANIONS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def source_model(place: Path) -> None:
    """A safetensors model in two shards."""
    folder = place / "in" / "model"
    folder.mkdir(parents=True)
    (place / "out").mkdir()
    matrix, norm = "model.layers.{}.mlp.up_proj.weight", "model.layers.{}.norm.weight"
    weight_map: dict[str, str] = {}
    for n, shard in enumerate(SHARDS):
        tensors = {matrix.format(n): weights(7, 20 + n), norm.format(n): weights(20)}
        write_model(folder / f"{shard}.safetensors", tensors, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, f"{shard}.safetensors")
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    companions(folder)


def trit_model(place: Path) -> None:
    """A model of `.trit` files in two shards, with their index."""
    folder = place / "in" / "model"
    folder.mkdir(parents=True)
    (place / "out").mkdir()
    shards = {}
    for n, shard in enumerate(SHARDS):
        tensors: dict[str, independent.Trit | independent.Raw] = {}
        tensors |= {f"{n}.w": painted_trit([6, 20], 2), f"{n}.b": independent.Raw([3], "U8", b"abc")}
        shards[f"{shard}.trit"] = independent.write(tensors)
        (folder / f"{shard}.trit").write_bytes(shards[f"{shard}.trit"])
    (folder / INDEX_NAME).write_text(json.dumps(independent.index_of(shards)))
    companions(folder)


def save(place: Path) -> None:
    """Write over a file."""
    tensors = {"w": tc.load_file(place / "in" / "model.trit")["b"]}
    tc.save_file(tensors, place / "out" / "model.trit", {"format": "pt"})


def quantize(place: Path) -> None:
    """Two configs of a model, its shards written in this thread, so that calls come in one order."""
    configs = [config_of(name) for name in ("uniform-d1", "uniform-d2")]
    job = run.Job(ModelSource(place / "in" / "model"), configs, Policy(), Recipe(16, "optimal", False))
    with patch.object(run, "ThreadPoolExecutor", lambda _: Inline()):
        run.quantize_model(job, place / "out", Inline())


SCENARIOS = {
    "save": Scenario(old_file, save),
    "truncate": Scenario(
        old_file, lambda p: tc.truncate_file(p / "in" / "model.trit", p / "out" / "model.trit", 1)
    ),
    "quantize": Scenario(source_model, quantize, keeps=True),
    "dequantize": Scenario(trit_model, lambda p: dequantize_model(p / "in" / "model", p / "out" / "model")),
    "coarsen": Scenario(trit_model, lambda p: truncate_model(p / "in" / "model", p / "out" / "model", 1)),
}


def tree(folder: Path) -> Tree:
    """Everything under *folder*: the bytes of files, None for folders."""
    paths = sorted(folder.rglob("*"))
    return {os.fspath(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


def grow(folder: Path, content: Mapping[str, bytes | None]) -> None:
    """The inverse of `tree`, in a new folder."""
    folder.mkdir()
    for name, data in content.items():
        if data is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


# A disk that loses what was not flushed


class Call(NamedTuple):
    """A call that was recorded: its name, number or flags, path, and what was written, or the new path."""

    name: str
    path: str
    number: int = 0
    data: bytes = b""
    to: str = ""

    @property
    def changes(self) -> bool:
        """Whether it changes names or bytes."""
        creates = self.name == "open" and bool(self.number & os.O_CREAT)
        return creates or self.name in ("write", "truncate", "rename", "unlink", "rmdir", "mkdir")

    @property
    def goes_on(self) -> bool:
        """Whether Python makes an interrupted call again: not where it lists a folder."""
        lists = self.name == "open" and bool(self.number & os.O_DIRECTORY)
        return self.name in ("open", "read", "write", "fsync") and not lists


def calls(log: bytes, root: str) -> Iterator[Call]:
    """What a log of the preloaded library says, with paths relative to *root*."""
    while log:
        line, _, log = log.partition(b"\n")
        name, _, rest = line.decode().partition(" ")
        if name == "write":
            offset, size, path = rest.split(" ", 2)
            data, log = log[: int(size)], log[int(size) :]
            yield Call(name, os.path.relpath(path, root), int(offset), data)
        elif name in ("open", "truncate"):
            number, _, path = rest.partition(" ")
            yield Call(name, os.path.relpath(path, root), int(number))
        else:
            path, _, to = rest.partition("\t")
            yield Call(name, os.path.relpath(path, root), to=os.path.relpath(to, root) if to else "")


@dataclass
class Inode:
    """A file: its bytes, and those that have been flushed."""

    data: bytearray
    flushed: bytes = b""


Names = dict[str, Inode | None]  # of files and folders


@dataclass
class Change:
    """A call that changed names, the file that it made, and whether it lasts through a power cut."""

    call: Call
    made: Inode | None
    lasts: bool = False


@dataclass
class Disk:
    """Names and bytes as a process sees them, and what would be left of them after a power cut.

    The bytes of a file last from when it is flushed, a change of names from when one of its folders is.
    """

    names: Names
    before: Names
    changes: list[Change] = field(default_factory=list)  # of names, in their order

    @classmethod
    def of(cls, content: Tree) -> Disk:
        """A disk on which all is flushed."""
        names = {n: None if data is None else Inode(bytearray(data), data) for n, data in content.items()}
        return cls(names, dict(names))

    def do(self, call: Call) -> None:
        """Let a call happen, which has succeeded."""
        inode = self.names.get(call.path)
        if call.name == "fsync" and inode:
            inode.flushed = bytes(inode.data)
        elif call.name == "fsync":
            self.settle(call.path)
        elif inode and call.name in ("open", "write", "truncate"):
            write(inode.data, call)
        elif call.changes:
            made = Inode(bytearray()) if call.name == "open" else None
            change(self.names, call, made)
            self.changes.append(Change(call, made))

    def settle(self, folder: str) -> None:
        """The names in *folder* are flushed."""
        for item in self.changes:
            paths = filter(None, (item.call.path, item.call.to))
            item.lasts |= folder in {os.path.dirname(path) or "." for path in paths}

    @property
    def durable(self) -> Names:
        """The names that last. A folder whose own name comes to last has in it what was flushed before."""
        names = dict(self.before)
        for item in self.changes:
            if item.lasts:
                change(names, item.call, item.made)
        return names

    def after_a_cut(self) -> dict[str, Tree]:
        """What may be found then: with the last names, and files cut off or of zeros; or with old names."""
        return {
            "cut": {name: inode.flushed if inode else None for name, inode in self.names.items()},
            "zeros": {name: zeroed(inode) if inode else None for name, inode in self.names.items()},
            "lost": {name: inode.flushed if inode else None for name, inode in self.durable.items()},
        }


def zeroed(inode: Inode) -> bytes:
    """A file whose size was kept, and whose bytes were not."""
    return inode.flushed if inode.flushed == inode.data else bytes(len(inode.data))


def write(data: bytearray, call: Call) -> None:
    """Do to the bytes of a file what a call does to them."""
    if call.name == "write":
        data.extend(bytes(max(0, call.number - len(data))))
        data[call.number : call.number + len(call.data)] = call.data
    elif call.name == "truncate":
        data[:] = data[: call.number].ljust(call.number, b"\0")
    elif call.number & os.O_TRUNC:
        data.clear()


def change(names: Names, call: Call, made: Inode | None) -> None:
    """Do to *names* what a call does to them; what lacks its folder or its file comes to nothing."""
    parent = os.path.dirname(call.to or call.path)
    if parent and parent not in names:
        return
    if call.name == "rename":
        moved = {name: names.pop(name) for name in list(names) if is_in(name, call.path)}
        for name in [name for name in names if moved and is_in(name, call.to)]:
            del names[name]
        names |= {call.to + name[len(call.path) :]: inode for name, inode in moved.items()}
    elif call.name in ("open", "mkdir"):
        names.setdefault(call.path, made)
    elif call.name == "unlink" or not any(name != call.path and is_in(name, call.path) for name in names):
        names.pop(call.path, None)


def is_in(name: str, folder: str) -> bool:
    """Whether *name* is *folder*, or in it."""
    return name == folder or name.startswith(f"{folder}/")
