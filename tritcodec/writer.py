"""SPEC 8.2: writing files, in any order, with memory for one tensor, and never half."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .codebook import CODE_TRITS
from .errors import TritError
from .header import (
    DIGEST_SIZE,
    RAW_DTYPES,
    Entry,
    Preamble,
    RawEntry,
    TritEntry,
    decode_header,
    encode_header,
    encode_preamble,
)
from .layout import layout
from .reader import PathLike, Tensor, TritFile, block_errors, byte_view, open_file
from .tensor import Form, TritTensor
from .trits import check_depth

NAME_KEPT = 50  # characters: with four bytes each, the whole stays below the 255 that systems allow


class TritWriter:
    """Writes one file; a context manager (SPEC 8.2).

    The directory is known from the start, but for its digests, and so is every
    offset: segments may come in any order, and each once. The file is built
    under another name beside *path*, and takes *path* when the `with` block ends without an
    exception. After an exception nothing is left of it.

    Raises TritError where the directory breaks a clause; OSError where the
    file cannot be written.
    """

    def __init__(
        self, path: PathLike, entries: Iterable[Entry], metadata: Mapping[str, str] | None = None
    ) -> None:
        self.path = Path(path)
        self.metadata = dict(metadata or {})
        header = encode_header(list(entries), self.metadata)
        self._entries = {entry.name: entry for entry in decode_header(header).entries}
        segments, self.size = layout(len(header), list(self._entries.values()))
        self._segments = {(segment.entry.name, segment.part): segment for segment in segments}
        self._digests: dict[tuple[str, int], bytes] = {}
        if self.path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self.path))
        if not self.path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path.parent))
        self._temporary = temporary_name(self.path, "tmp")

    def write(self, name: str, part: int, chunks: Iterable[npt.NDArray[Any]]) -> bytes:
        """Write segment *part* of tensor *name* from C-contiguous arrays; gives its SHA-256.

        Part 0 of a raw tensor is its bytes; parts of a trit tensor are its
        planes (SPEC 5.2). The chunks together have the segment's size. Raises TritError
        for an unknown segment, another size, and bytes that break PACK-2, PACK-3 or RAW-2.
        """
        if (name, part) not in self._segments:
            raise TritError(f"no segment {part} of tensor {name!a} in the directory", where=str(self.path))
        segment = self._segments[name, part]
        self._digests.pop((name, part), None)  # what is written again counts when it is whole
        digest, size = sha256(), 0
        self._file.seek(segment.offset)
        for chunk in chunks:
            data = byte_view(chunk)
            size += len(data)
            if size > segment.size:
                break
            if data:
                for error in block_errors(np.frombuffer(data, np.uint8), segment, size - len(data)):
                    raise error.at(segment.where)
            digest.update(data)
            self._file.write(data)
        if size != segment.size:
            raise TritError(f"{size} bytes or more for a segment of {segment.size}", where=segment.where)
        self._digests[name, part] = digest.digest()
        return digest.digest()

    def put(self, name: str, tensor: Tensor) -> None:
        """Write all segments of tensor *name*, and for a trit tensor its codebook.

        The codebook in the entry that the writer was made with is only a
        placeholder: it is known when the tensor is, and its size is fixed.
        Every other field has to be that of the entry, or TritError is raised.
        """
        entry = describe(name, tensor)
        planned = self._entries.get(name)
        if planned is None or _shape_of(entry) != _shape_of(planned):
            raise TritError("the tensor is not that of the directory", where=f"tensor {name!a}")
        self._entries[name] = entry
        planes = tensor.planes if isinstance(tensor, TritTensor) else [_little_endian(tensor)]
        for part, plane in enumerate(planes):
            self.write(name, part, [np.ascontiguousarray(plane)])

    def __enter__(self) -> TritWriter:
        # Exclusive: never an existing file, and never through a link.
        try:
            self._file = open(self._temporary, "xb")  # closed by __exit__
        except OSError as error:
            error.filename = str(self.path)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            error = failure
            raise
        finally:
            if isinstance(error, OSError) and error.filename in (None, str(self._temporary)):
                error.filename = str(self.path)  # a failing write names no file, or not the user's
            with contextlib.suppress(OSError):  # on a full disk it fails to flush once more
                self._file.close()
            with contextlib.suppress(FileNotFoundError):  # it has got its final name
                os.unlink(self._temporary)

    def _finish(self) -> None:
        missing = self._segments.keys() - self._digests.keys()
        if missing:
            raise TritError(f"{len(missing)} segments were not written, {min(missing)} the first")
        header = encode_header([self._with_digests(entry) for entry in self._entries.values()], self.metadata)
        self._file.seek(0)
        self._file.write(encode_preamble(Preamble(len(header), self.size, sha256(header).digest())))
        self._file.write(header)
        self._file.truncate(self.size)  # what was never written, gaps and the end, reads as zeros
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        # "A writer MUST NOT let a file appear under its final name before all of its bytes are written."
        # "A writer SHOULD write to another name in the same folder, flush the file to storage, and rename
        # it."
        os.replace(self._temporary, self.path)
        sync_names(self.path.parent)

    def _with_digests(self, entry: Entry) -> Entry:
        digests = tuple(self._digests[entry.name, part] for part in range(len(entry.digests)))
        return replace(entry, digests=digests)


def save_file(
    tensors: Mapping[str, Tensor], path: PathLike, metadata: Mapping[str, str] | None = None
) -> None:
    """Write *tensors* as a `.trit` file (SPEC 8.2).

    TritTensor values are stored packed, arrays as raw tensors of the dtypes
    of SPEC 6.4. The file takes its name when it is complete: writing over a
    file that is open for reading, this one or another's, is safe. The same tensors and metadata give
    the same bytes, in whatever order they come.

    Raises TritError where a name, a dtype or the metadata breaks a clause;
    OSError where the file cannot be written. Nothing is left behind then.
    """
    entries = [describe(name, tensor) for name, tensor in tensors.items()]
    with TritWriter(path, entries, metadata) as writer:
        for name, tensor in tensors.items():
            writer.put(name, tensor)


def truncate_file(source: PathLike, target: PathLike, depth: int) -> None:
    """Write *target*, a copy of the file *source* cut to *depth* trits a weight (SPEC 5.4).

    Tensors that are not deeper, and raw ones, are copied as they are. Every
    byte that is copied is checked on the way, and *target* appears when it is whole. Raises TritError
    for a depth that is none (TEN-2) and for a damaged *source*; OSError for failing I/O.
    """
    with open_file(source) as file:
        copy_truncated(file, target, depth)


def copy_truncated(file: TritFile, target: PathLike, depth: int) -> None:
    """Write *target*, a copy of the open *file* cut to *depth* trits a weight (SPEC 5.4)."""
    depth = check_depth(depth)
    entries = [_cut_entry(entry, depth) for entry in file.header.entries]
    kept = {entry.name: len(entry.digests) for entry in entries}
    with TritWriter(target, entries, file.metadata) as writer:
        for segment in file.segments:
            if segment.part < kept[segment.entry.name]:
                writer.write(segment.entry.name, segment.part, file.blocks(segment))


def describe(name: str, tensor: Tensor) -> Entry:
    """The directory's entry of *tensor*, its digests zero until it is written.

    Raises TritError (RAW-1) for an array of a dtype that the format lacks.
    """
    if isinstance(tensor, TritTensor):
        return trit_entry(name, tensor.form)
    return RawEntry(name, raw_dtype(name, np.asarray(tensor).dtype), np.asarray(tensor).shape)


def trit_entry(name: str, form: Form) -> TritEntry:
    """The directory's entry of a trit tensor of *form*, its digests zero until it is written."""
    return TritEntry(name, form, (bytes(DIGEST_SIZE),) * (CODE_TRITS + form.depth))


def raw_dtype(name: str, dtype: np.dtype[Any]) -> str:
    """The name in the table of SPEC 6.4 of a NumPy *dtype*, in any byte order; else TritError (RAW-1)."""
    for known, stored in RAW_DTYPES.items():
        if dtype.newbyteorder("<") == stored:
            return known
    raise TritError(f"dtype {dtype} is not in the table", clause="RAW-1", where=f"tensor {name!a}")


def _shape_of(entry: Entry) -> tuple[object, ...]:
    """Everything of *entry* that the layout or a reader depends on, but the codebook's values."""
    if isinstance(entry, RawEntry):
        return entry.dtype, entry.shape
    form = entry.form
    return form.dtype, form.shape, form.depth, form.shift, form.group_size


def _little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = np.asarray(array)
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _cut_entry(entry: Entry, depth: int) -> Entry:
    if isinstance(entry, RawEntry) or entry.form.depth <= depth:
        return entry
    return trit_entry(entry.name, entry.form.truncated(depth))


def temporary_name(path: Path, suffix: str) -> Path:
    """A hidden name beside *path*, for what takes that name when it is whole; a kill may leave it there."""
    return path.with_name(f".{path.name[:NAME_KEPT]}.{secrets.token_hex(8)}.{suffix}")


def sync_names(folder: Path) -> None:
    """Make names in *folder* that have been given last through a power cut; what fails takes none back."""
    with contextlib.suppress(OSError):
        sync(folder)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, last through a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
