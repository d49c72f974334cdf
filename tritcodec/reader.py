"""SPEC 8.1: reading files, lazily and never beyond what a checked header promises."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .codebook import CODE_TRITS
from .errors import TritError
from .header import (
    PREAMBLE_SIZE,
    RAW_DTYPES,
    Entry,
    Header,
    Preamble,
    RawEntry,
    TritEntry,
    decode_header,
    decode_preamble,
)
from .layout import Segment, layout
from .packing import MAX_BYTE, ROWS_PER_BYTE, invalid_byte, invalid_padding, packed_rows
from .tensor import Form, TritTensor, check_rows
from .trits import check_depth

Tensor = TritTensor | npt.NDArray[Any]
PathLike = str | os.PathLike[str]
U8 = npt.NDArray[np.uint8]
BLOCK_BYTES = 1 << 20  # read, hashed and checked at once, while it is in cache


class Source:
    """A regular file, read at positions: the one place that touches the file system to read (SPEC 8.1)."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        # Without O_NONBLOCK, opening a FIFO would wait for a writer. Windows has O_BINARY instead.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.path, flags)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise TritError("not a regular file", where=str(self.path))
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self.length = status.st_size
        self._lock = threading.Lock()

    def read_into(self, target: npt.NDArray[Any], offset: int) -> None:
        """Fill *target*, a C-contiguous array, with the bytes from *offset* on.

        Raises TritError (READ-4) where the file ends before.
        """
        if self._file.closed:
            raise TritError("the file is closed", where=str(self.path))
        view = byte_view(target)
        while view:
            try:
                count = self._read_some(view, offset)
            except OSError as error:
                error.filename = str(self.path)  # a failing read names no file
                raise
            # "A reader MUST report as an error a file that ends before what its header promises."
            if not count:
                message = f"the file ends at byte {offset}, where {len(view)} more are expected"
                raise TritError(message, clause="READ-4", where=str(self.path))
            view, offset = view[count:], offset + count

    def _read_some(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [view], offset)
        with self._lock:  # Windows has no positional reads
            self._file.seek(offset)
            return self._file.readinto(view) or 0

    def read(self, size: int, offset: int) -> bytes:
        """The *size* bytes from *offset* on."""
        data = np.empty(size, np.uint8)
        self.read_into(data, offset)
        return data.tobytes()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TritFile:
    """An open file: a lazy reader (SPEC 8.1). Made by `open_file`; a context manager.

    Only the preamble and the header have been read. Threads may share it.
    """

    def __init__(self, path: PathLike, *, check: bool = True) -> None:
        self.path = Path(path)
        self.check = check
        self._source = Source(path)
        try:
            with naming(self.path):
                self.preamble, self.header, self.segments = read_directory(self._source)
        except BaseException:  # a failing read, too
            self._source.close()
            raise
        self._entries = {entry.name: entry for entry in self.header.entries}
        self._segments: dict[str, list[Segment]] = {name: [] for name in self._entries}
        for segment in self.segments:  # file order, so that each tensor's parts come in order, too
            self._segments[segment.entry.name].append(segment)

    def keys(self) -> list[str]:
        """The names of the tensors, in the order of their UTF-8 bytes."""
        return list(self._entries)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file."""
        return dict(self.header.metadata)

    @property
    def identity(self) -> str:
        """The SHA-256 of the header in hexadecimal, which stands for the file's whole content."""
        return self.preamble.digest.hex()

    def entry(self, name: str) -> Entry:
        """The directory's entry of tensor *name*: kind, dtype, shape, the form of a trit tensor.

        Raises TritError where the file has no such tensor.
        """
        if name not in self._entries:
            message = f"no tensor {name!a} among the {len(self._entries)} of the file"
            raise TritError(message, where=str(self.path))
        return self._entries[name]

    def get_tensor(self, name: str, depth: int | None = None) -> Tensor:
        """Tensor *name*: a TritTensor, or an array where the tensor is raw (SPEC 8.1).

        With *depth*, a trit tensor that is deeper is cut to it, and only the
        planes of that depth are read. Raises TritError for an unknown name, a depth that
        is none (TEN-2), and damaged data: SEG-1 (unless opened with check=False), PACK-2, PACK-3, RAW-2.
        """
        entry = self.entry(name)
        depth = None if depth is None else check_depth(depth)
        with naming(self.path):
            if isinstance(entry, RawEntry):
                raw = np.empty(entry.shape, RAW_DTYPES[entry.dtype])
                self._read_segment(self._segments[name][0], raw)
                check_raw(raw, entry)
                return _native(raw)
            form = _cut(entry.form, depth)
            planes = [np.empty(shape, np.uint8) for shape in form.plane_shapes]
            for segment, plane in zip(self._segments[name], planes, strict=False):
                self._read_segment(segment, plane)
            return _tensor(form, planes, name)

    def get_rows(self, name: str, start: int, stop: int, depth: int | None = None) -> Tensor:
        """Rows [start, stop) of tensor *name*, as a tensor of shape (stop - start, K) (SPEC 8.1).

        Rows count over all leading axes; *depth* cuts as in `get_tensor`. Raises TritError
        for rows outside the tensor, and as that does. Only their bytes are read, and these are checked
        for PACK-2, PACK-3 and RAW-2. A digest takes the whole segment: it is compared where
        the rows are all of it, and by `get_tensor` and `verify_file`.
        """
        entry = self.entry(name)
        depth = None if depth is None else check_depth(depth)
        with naming(self.path):
            if isinstance(entry, RawEntry):
                return self._raw_rows(entry, start, stop)
            return self._trit_rows(entry, start, stop, depth)

    def _trit_rows(self, entry: TritEntry, start: int, stop: int, depth: int | None) -> TritTensor:
        form = _cut(entry.form, depth)
        start, stop = check_rows(start, stop, form.rows)
        first, last = start // ROWS_PER_BYTE, packed_rows(stop)
        covered = min(last * ROWS_PER_BYTE, form.rows) - first * ROWS_PER_BYTE
        band = replace(form, shape=(covered, form.columns))
        planes = [np.empty(shape, np.uint8) for shape in band.plane_shapes]
        for segment, plane in zip(self._segments[entry.name], planes, strict=False):
            self._read_part(segment, first * plane.shape[1], plane)
        offset = first * ROWS_PER_BYTE
        return _tensor(band, planes, entry.name).get_rows(start - offset, stop - offset)

    def blocks(self, segment: Segment) -> Iterator[U8]:
        """The bytes of *segment*, block by block, all checked; a block is valid until the next."""

        def refuse(error: TritError) -> None:
            with naming(self.path):
                raise error

        return scan(self._source, segment, block_buffer(), refuse)

    def close(self) -> None:
        """Close the file; tensors that were read stay valid."""
        self._source.close()

    def __enter__(self) -> TritFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _raw_rows(self, entry: RawEntry, start: int, stop: int) -> npt.NDArray[Any]:
        columns = entry.shape[-1] if entry.shape else 1
        start, stop = check_rows(start, stop, math.prod(entry.shape[:-1]))
        raw = np.empty((stop - start, columns), RAW_DTYPES[entry.dtype])
        self._read_part(self._segments[entry.name][0], start * columns * raw.itemsize, raw)
        check_raw(raw, entry)
        return _native(raw)

    def _read_part(self, segment: Segment, start: int, target: npt.NDArray[Any]) -> None:
        """Fill *target* with bytes of *segment* from *start* on; all of them are compared with its digest."""
        if target.nbytes == segment.size:
            self._read_segment(segment, target)
        else:
            self._source.read_into(target, segment.offset + start)

    def _read_segment(self, segment: Segment, target: npt.NDArray[Any]) -> None:
        flat, digest = target.reshape(-1).view(np.uint8), sha256()
        for at in range(0, segment.size, BLOCK_BYTES):
            block = flat[at : at + BLOCK_BYTES]
            self._source.read_into(block, segment.offset + at)
            if self.check:
                digest.update(block.data)
        # "A reader that has read a whole segment MUST compare its digest, unless its caller has asked it
        # not to."
        if self.check:
            check_digest(digest.digest(), segment)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put *path* before the place of a TritError that comes from the block, where it is not there yet."""
    try:
        yield
    except TritError as error:
        if f"{error.where}: ".startswith(f"{path}: "):
            raise
        raise error.at(": ".join(filter(None, (str(path), error.where)))) from None


def open_file(path: PathLike, *, check: bool = True) -> TritFile:
    """Open a `.trit` file to read tensors one by one (SPEC 8.1).

    Reads and checks the preamble and the header alone. With check=False, the
    digests of segments are not compared when tensors are read; everything
    else still is. Use it in a `with` statement, or close it.

    Raises TritError with the clause that the file breaks; OSError where it
    cannot be read.
    """
    return TritFile(path, check=check)


def load_file(path: PathLike) -> dict[str, Tensor]:
    """All tensors of a `.trit` file by name: TritTensor, or arrays for raw ones (SPEC 8.1).

    Raises TritError with the clause that the file breaks; OSError where it
    cannot be read.
    """
    with open_file(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping


def read_directory(source: Source) -> tuple[Preamble, Header, list[Segment]]:
    """Preamble, header and segments of a file, each checked before the next is read (SPEC 6, 7)."""
    # "A reader MUST check every limit of 1.4 before it allocates, reads or loops by what the limit bounds."
    preamble = decode_preamble(source.read(min(PREAMBLE_SIZE, source.length), 0), source.length)
    header = decode_header(source.read(preamble.header_size, PREAMBLE_SIZE), preamble)
    segments, end = layout(preamble.header_size, header.entries)
    # "The file MUST end at align(end of the last segment), or at align(64 + header size) where there are
    # no segments."
    if end != source.length:
        message = f"the directory takes {end} bytes, the file has {source.length}"
        raise TritError(message, clause="LAY-4", where=f"byte {min(end, source.length)}")
    return preamble, header, segments


def block_buffer() -> U8:
    """Room for a block, aligned to a page: some CPUs copy into it six times as fast as beside one.

    It comes from the heap, which keeps its pages: those of a new mapping fault in one by one, every time.
    """
    room = np.empty(BLOCK_BYTES + mmap.PAGESIZE, np.uint8)
    return room[-room.ctypes.data % mmap.PAGESIZE :][:BLOCK_BYTES]


def scan(source: Source, segment: Segment, buffer: U8, report: Callable[[TritError], None]) -> Iterator[U8]:
    """The bytes of *segment*, block by block, each checked; *report* gets every broken clause once.

    A block lies in *buffer*, and is valid until the next is asked for.
    """
    digest, reported = sha256(), set()
    for at in range(0, segment.size, len(buffer)):
        part = buffer[: segment.size - at]
        source.read_into(part, segment.offset + at)
        digest.update(part.data)
        for error in block_errors(part, segment, at):
            if error.clause not in reported:
                reported.add(error.clause)
                report(error)
        yield part
    try:
        check_digest(digest.digest(), segment)
    except TritError as error:
        report(error)


def block_errors(block: U8, segment: Segment, start: int) -> Iterator[TritError]:
    """What is wrong with bytes from *start* of *segment* on, whatever their digest (SPEC 3.1, 6.4)."""
    if isinstance(segment.entry, RawEntry):
        # "Every byte of a raw tensor of dtype BOOL MUST be 0 or 1."
        if segment.entry.dtype == "BOOL" and block.max() > 1:
            wrong = int((block > 1).argmax())
            yield _byte_error(segment, start + wrong, f"{block[wrong]} is no boolean", "RAW-2")
        return
    at = invalid_byte(block)
    if at is not None:
        yield _byte_error(segment, start + at, f"{block[at]} is above {MAX_BYTE}", "PACK-2")
    form = segment.entry.form
    last_row = segment.size - (form.groups if segment.part < CODE_TRITS else form.columns)
    skipped = max(0, last_row - start)
    at = invalid_padding(block[skipped:], form.rows) if skipped < len(block) else None
    if at is not None:
        message = f"{block[skipped + at]} pads missing rows with trits that are not 0"
        yield _byte_error(segment, start + skipped + at, message, "PACK-3")


def check_digest(digest: bytes, segment: Segment) -> None:
    """Raise TritError (SEG-1) where *digest* is not that of *segment* in the directory."""
    # "The SHA-256 of each segment MUST equal its digest in the directory."
    if digest != segment.digest:
        place = f"{segment.where}, bytes {segment.offset} to {segment.end}"
        raise TritError("the segment's SHA-256 is not that in the directory", clause="SEG-1", where=place)


def check_raw(raw: npt.NDArray[Any], entry: RawEntry) -> None:
    """Raise TritError (RAW-2) where a boolean is neither 0 nor 1."""
    # "Every byte of a raw tensor of dtype BOOL MUST be 0 or 1."
    if entry.dtype == "BOOL" and raw.size and (found := raw.view(np.uint8)).max() > 1:
        wrong = int((found > 1).argmax())
        message = f"of what was read, element {wrong} in C order is {found.flat[wrong]}, no boolean"
        raise TritError(message, clause="RAW-2", where=f"tensor {entry.name!a}")


def byte_view(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous *array*, not copied."""
    return array.reshape(-1).view(np.uint8).data


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """*array* in the machine's byte order: ml_dtypes' bfloat16 gives no items in another."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _cut(form: Form, depth: int | None) -> Form:
    # A depth that is not below the tensor's own leaves it as it is: files mix depths.
    return form if depth is None else form.truncated(min(depth, form.depth))


def _tensor(form: Form, planes: list[U8], name: str) -> TritTensor:
    try:  # "A reader MUST NOT give out data that breaks PACK-2, PACK-3 or RAW-2."
        return TritTensor(form, tuple(planes))
    except TritError as error:
        raise error.at(f"tensor {name!a}") from None


def _byte_error(segment: Segment, at: int, message: str, clause: str) -> TritError:
    return TritError(f"byte {message}", clause=clause, where=f"{segment.where}, byte {segment.offset + at}")
