"""SPEC 15.2: a model folder, read lazily: its shards are there, and are what the index says."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import cast

from ..codebook import CODE_TRITS
from ..errors import TritError
from ..header import Entry, TritEntry
from ..layout import Segment
from ..reader import PathLike, Source, Tensor, TritFile, check_digest, naming, open_file
from ..tensor import TritTensor, row_ranges
from .companions import NAMED, instead
from .index import BLOBS, INDEX_NAME, MAX_INDEX_SIZE, SHOWN, TRIT_NAME, Index, Shard, decode_index

ADVICE = {".trit": NAMED, ".safetensors": "is not packed: see quantize"}  # of a folder with other weights
MAX_OPEN = 16  # shards whose files stay open: names in order go through a model shard by shard, nearly


class TritModel:
    """A model, opened: an index with its shards, or one `.trit` file (SPEC 15). Made by `open_model`.

    A context manager, and a lazy reader: a shard is opened when something of it is
    asked for, and few stay open. Threads may share it.

    `path` is the index or the file, `index` what the index says (None for a
    file), `identity` the SHA-256 that stands for the whole content, and `shards` are the file names.
    """

    def __init__(self, path: PathLike, *, check: bool = True) -> None:
        self.path = model_file(path)
        self.check = check
        self.index: Index | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.identity = ""  # not known yet
        self._idle: dict[str, TritFile] = {}  # open files that nobody uses, the last used last
        if self.path.name == INDEX_NAME:
            with naming(self.path):
                self.index, self.identity = read_index(self.path)
                for error in folder_errors(self.path.parent, self.index):
                    raise error
            self.shards = sorted(self.index.shards)
            self._shard_of = dict(self.index.weight_map)
            return
        self.shards = [self.path.name]
        with self.shard(self.path.name) as file:
            self.identity = file.identity
            self._shard_of = dict.fromkeys(file.keys(), self.path.name)

    def keys(self) -> list[str]:
        """The names of the tensors of all shards, in the order of their UTF-8 bytes."""
        return sorted(self._shard_of)  # that of code points is the same

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata that all shards have alike; opens each of them."""
        common: dict[str, str] | None = None
        for name in self.shards:
            with self.shard(name) as file:
                found = file.metadata
            common = found if common is None else dict(common.items() & found.items())
        return dict(sorted((common or {}).items()))

    @property
    def size(self) -> int:
        """The bytes of all shards."""
        if self.index:
            return self.index.total_size
        with self.shard(self.path.name) as file:
            return file.preamble.file_size

    def entries(self) -> Iterator[Entry]:
        """The directory's entries of all tensors, shard by shard."""
        for name in self.shards:
            with self.shard(name) as file:
                yield from file.header.entries

    def shard_of(self, name: str) -> str:
        """The file name of the shard that holds tensor *name*; TritError where there is no such tensor."""
        if name not in self._shard_of:
            message = f"no tensor {name!a} among the {len(self._shard_of)} of the model"
            raise TritError(message, where=str(self.path))
        return self._shard_of[name]

    def entry(self, name: str) -> Entry:
        """The directory's entry of tensor *name*, as `TritFile.entry` gives it."""
        with self.shard(self.shard_of(name)) as file:
            return file.entry(name)

    def get_tensor(self, name: str, depth: int | None = None) -> Tensor:
        """Tensor *name*, as `TritFile.get_tensor` gives it."""
        with self.shard(self.shard_of(name)) as file:
            return file.get_tensor(name, depth)

    def get_rows(self, name: str, start: int, stop: int, depth: int | None = None) -> Tensor:
        """Rows [start, stop) of tensor *name*, as `TritFile.get_rows` gives them."""
        with self.shard(self.shard_of(name)) as file:
            return file.get_rows(name, start, stop, depth)

    @contextlib.contextmanager
    def shard(self, name: str) -> Iterator[TritFile]:
        """The open file of the shard *name*, for the block; it has been compared with the index.

        Two threads that use one shard at a time have a file each. Raises TritError for a name that is none of
        `shards`.
        """
        if name not in self.shards:
            message = f"no shard {name!a} among the {len(self.shards)} of the model"
            raise TritError(message, where=str(self.path))
        with self._lock:
            if self._closed:
                raise TritError("the model is closed", where=str(self.path))
            file = self._idle.pop(name, None)
        file = file or self._open(name)
        try:
            yield file
        finally:
            for surplus in self._keep(name, file):
                surplus.close()

    def close(self) -> None:
        """Close all files; tensors that were read stay valid."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, {}
        for file in idle.values():
            file.close()

    def __enter__(self) -> TritModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, name: str, file: TritFile) -> list[TritFile]:
        """Put *file* with those that stay open; gives those that do not."""
        with self._lock:
            if self._closed:
                return [file]
            surplus = [self._idle.pop(name)] if name in self._idle else []
            self._idle[name] = file
            if len(self._idle) > MAX_OPEN:
                surplus.append(self._idle.pop(next(iter(self._idle))))
            return surplus

    def _open(self, name: str) -> TritFile:
        if self.index is None:
            file = open_file(self.path, check=self.check)
            if self.identity in ("", file.identity):
                return file
            file.close()
            message = "another file has taken this name since the model was opened"
            raise TritError(message, where=str(self.path))
        with naming(self.path):
            path = shard_file(self.path.parent, name)  # it may have become a link meanwhile
        file = open_file(path, check=self.check)
        try:
            with naming(self.path):
                check_shard(self.index, name, file)
        except BaseException:
            file.close()
            raise
        return file


def open_model(path: PathLike, *, check: bool = True) -> TritModel:
    """Open a model folder, its index, or a `.trit` file, to read tensors one by one (SPEC 15).

    Reads the index and looks at the folder, no further; a shard is opened, and
    compared with the index, when something of it is asked for. With check=False,
    the digests of segments are not compared when tensors are read. Use it in a `with`
    statement, or close it.

    Raises TritError with the clause that the index, the folder or a shard breaks;
    OSError where one cannot be read.
    """
    return TritModel(path, check=check)


def model_file(path: PathLike) -> Path:
    """The file that *path* means: of a folder its index or, where there is none, `model.trit`."""
    path = Path(path)
    if not path.is_dir():
        return path
    index = path / INDEX_NAME
    if os.path.lexists(index):
        return index
    if not os.path.lexists(path / TRIT_NAME):
        within = sorted(file.parent.name for file in path.glob(f"*/{TRIT_NAME}*"))
        message = f"neither {TRIT_NAME} nor {INDEX_NAME} in the folder{instead(path, ADVICE)}"
        message += f"; there are packed models within: {', '.join(dict.fromkeys(within))}" if within else ""
        raise FileNotFoundError(errno.ENOENT, message, str(path))
    return path / TRIT_NAME


def read_index(path: Path) -> tuple[Index, str]:
    """The index in the file *path*, and the SHA-256 of its bytes, the identity of the folder (SPEC 15.1)."""
    source = Source(path)
    try:
        data = source.read(min(source.length, MAX_INDEX_SIZE + 1), 0)
    finally:
        source.close()
    return decode_index(data), sha256(data).hexdigest()


def read_shard(path: PathLike) -> Shard:
    """What the index has to know of the `.trit` file *path*."""
    with open_file(path) as file:
        return Shard(file.identity, file.preamble.file_size, file.keys())


def folder_errors(folder: Path, index: Index) -> Iterator[TritError]:
    """What is wrong with *folder* before a shard is opened (SPEC 15.2)."""
    faults = {name: fault for name in sorted(index.shards) if (fault := _fault(folder, name))}
    yield from faults.values()
    # "The total_size MUST be the sum of the sizes of the shards."
    size = index.total_size if faults else sum((folder / name).stat().st_size for name in index.shards)
    if size != index.total_size:
        message = f"says {index.total_size} bytes, the shards have {size}"
        yield TritError(message, clause="IDX-14", where="metadata, total_size")
    for name in sorted(os.listdir(folder)):
        # "Whatever in the folder has a name that ends in .trit and does not begin with a dot MUST be a
        # shard that the index names."
        if name.endswith(".trit") and not name.startswith(".") and name not in index.shards:
            message = "is in the folder, and the index does not name it"
            yield TritError(message, clause="IDX-13", where=f"shard {name[:SHOWN]!a}")


def shard_file(folder: Path, name: str) -> Path:
    """The file of shard *name* in *folder*; TritError (IDX-12) where it has no good one."""
    fault = _fault(folder, name)
    if fault:
        raise fault
    return folder / name


def _fault(folder: Path, name: str) -> TritError | None:
    """What is wrong with the place of shard *name*, or None.

    "A shard MUST be a regular file of the folder, or a symbolic link that ends at one of the same
    folder or of the folder ../../blobs."
    """
    message = "is missing"
    if os.path.lexists(folder / name):
        home, real = Path(os.path.realpath(folder)), Path(os.path.realpath(folder / name))
        if real.parent not in (home, home.parent.parent / BLOBS):
            message = "is a link that leads out of the folder"
        elif real.is_file():
            return None
        else:
            message = "is no regular file, nor a link to one"
    return TritError(message, clause="IDX-12", where=f"shard {name!a}")


def check_shard(index: Index, name: str, file: TritFile) -> None:
    """Raise TritError (IDX-15, IDX-16) where *file* is not the shard *name* of *index*.

    "A reader MUST compare the identity of a shard with the index before it gives out data of that
    shard."
    """
    where = f"shard {name!a}"
    # "The identity of a shard MUST be the one that the index gives for it."
    if file.identity != index.shards[name]:
        message = f"the identity is {file.identity}, in the index {index.shards[name]}: of another model"
        raise TritError(message, clause="IDX-15", where=where)
    # "A shard MUST hold the tensors that weight_map maps to it, and no others."
    held, mapped = set(file.keys()), index.tensors[name]
    if mapped - held:
        raise TritError(
            f"has no tensor {min(mapped - held)!a}, against the index", clause="IDX-16", where=where
        )
    if held - mapped:
        message = f"has a tensor {min(held - mapped)!a}, which the index does not map to it"
        raise TritError(message, clause="IDX-16", where=where)


def segments_of(file: TritFile) -> dict[str, list[Segment]]:
    """The segments of each tensor of *file*, in the order of their parts."""
    found: dict[str, list[Segment]] = {entry.name: [] for entry in file.header.entries}
    for segment in file.segments:
        found[segment.entry.name].append(segment)
    return found


def trit_bands(
    file: TritFile, entry: TritEntry, segments: Sequence[Segment], weights: int, depth: int | None = None
) -> Iterator[TritTensor]:
    """A trit tensor, cut to *depth* where that is given, in bands of rows of about so many *weights*.

    *segments* are its own. When the last band was read, their digests are compared (READ-3).
    """
    form = entry.form
    ranges = list(row_ranges(form.rows, form.columns, weights))
    if len(ranges) == 1 and file.check:  # which compares them
        yield cast(TritTensor, file.get_tensor(entry.name, depth))
        return
    kept = segments[: CODE_TRITS + (form.depth if depth is None else min(depth, form.depth))]
    digests = [sha256() for _ in kept]
    for start, stop in ranges:
        band = cast(TritTensor, file.get_rows(entry.name, start, stop, depth))
        # A band is whole byte rows, so that its planes are bytes of the file, one run after the other; where
        # the last one has been packed anew it is so, too, since trits have one packing.
        for digest, plane in zip(digests, band.planes, strict=True):
            digest.update(plane.data)
        yield band
    with naming(file.path):
        for digest, segment in zip(digests, kept, strict=True):
            check_digest(digest.digest(), segment)
