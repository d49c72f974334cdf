"""SPEC 6: the preamble, the header and the directory in it."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

from .canonical import MAX_HEADER_SIZE, MAX_NAME_SIZE, Cursor
from .codebook import CODE_TRITS, CODEBOOK_BYTES
from .errors import TritError
from .tensor import MAX_RANK, Form, check_shape
from .trits import MAX_DEPTH

MAGIC = bytes.fromhex("89 54 52 49 54 0D 0A 1A")
MAJOR, MINOR = 1, 0
PREAMBLE = struct.Struct("<8sHHIQQ32s")  # magic, major, minor, flags, header size, file size, digest
PREAMBLE_SIZE = 64
DIGEST_SIZE = 32

MAX_TENSORS = 1 << 20
MAX_METADATA = 1024
MAX_METADATA_VALUE = 1 << 20
MAX_NOTES = 100  # unknown keys that are remembered: a header may have millions
ENTRY_DEPTH = 3  # an entry: in the array of tensors, in the map of the header

UNSUPPORTED = frozenset({"PRE-3", "PRE-4"})  # clauses that a newer version may allow

RAW_DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16).newbyteorder("<"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}


@dataclass(frozen=True)
class Preamble:
    """The first 64 bytes of a file (SPEC 6.1)."""

    header_size: int
    file_size: int
    digest: bytes
    minor: int = MINOR


@dataclass(frozen=True)
class RawEntry:
    """A tensor that is not quantised (SPEC 6.4)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digests: tuple[bytes, ...] = (bytes(DIGEST_SIZE),)

    kind = "raw"

    def __post_init__(self) -> None:
        check_shape(self.shape)
        object.__setattr__(self, "shape", tuple(int(axis) for axis in self.shape))
        # "The dtype of a raw tensor MUST be one of the table."
        if self.dtype not in RAW_DTYPES:
            raise TritError(f"dtype {self.dtype[:80]!a} is not in the table", clause="RAW-1")

    @property
    def segment_sizes(self) -> list[int]:
        """Bytes of its one segment."""
        return [math.prod(self.shape) * RAW_DTYPES[self.dtype].itemsize]


@dataclass(frozen=True)
class TritEntry:
    """A trit tensor (SPEC 6.4)."""

    name: str
    form: Form
    digests: tuple[bytes, ...]

    kind = "trit"

    def __post_init__(self) -> None:
        # "An entry MUST hold one digest of 32 bytes for each of its segments."
        if len(self.digests) != CODE_TRITS + self.form.depth:
            message = f"{len(self.digests)} digests for {CODE_TRITS + self.form.depth} segments"
            raise TritError(message, clause="ENT-3")

    @property
    def dtype(self) -> str:
        """The dtype of the source."""
        return self.form.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the decoded tensor."""
        return self.form.shape

    @property
    def segment_sizes(self) -> list[int]:
        """Bytes of its 3 + depth segments, in the order of SPEC 5.2."""
        return [height * width for height, width in self.form.plane_shapes]


Entry = RawEntry | TritEntry


@dataclass(frozen=True)
class Header:
    """The directory and the metadata (SPEC 6.3).

    `ignored` lists the unknown keys of a newer minor version, with their place: a hundred at most.
    """

    entries: tuple[Entry, ...]
    metadata: dict[str, str]
    minor: int = MINOR
    ignored: tuple[str, ...] = ()


def encode_preamble(preamble: Preamble) -> bytes:
    """The 64 bytes of *preamble* (SPEC 6.1)."""
    # "A writer MUST write the version 1.0 and flags of 0."
    sizes = (preamble.header_size, preamble.file_size)
    return PREAMBLE.pack(MAGIC, MAJOR, preamble.minor, 0, *sizes, preamble.digest)


def decode_preamble(data: bytes, length: int) -> Preamble:
    """The preamble of a file of *length* bytes that begins with *data* (SPEC 6.1).

    Raises TritError (PRE-1 to PRE-7), with the first clause that is broken.
    """
    # "A file MUST be at least 64 bytes long."
    if len(data) < PREAMBLE_SIZE:
        raise TritError(f"{length} bytes are no preamble of {PREAMBLE_SIZE}", clause="PRE-1", where="byte 0")
    magic, major, minor, flags, header_size, file_size, digest = PREAMBLE.unpack(data[:PREAMBLE_SIZE])
    # "The file MUST begin with the eight bytes of the magic."
    if magic != MAGIC:
        raise TritError(f"begins with {magic.hex(' ')}, no .trit file", clause="PRE-2", where="byte 0")
    # "The major version MUST be 1."
    if major != MAJOR:
        message = f"major version {major}; this reader knows {MAJOR}"
        raise TritError(message, clause="PRE-3", where="byte 8")
    # "The flags MUST be 0."
    if flags:
        raise TritError(f"unknown flags {flags:#010x}", clause="PRE-4", where="byte 12")
    # "The header size MUST lie in 1..67108864."
    if not 1 <= header_size <= MAX_HEADER_SIZE:
        message = f"header size {header_size} is not in 1..{MAX_HEADER_SIZE}"
        raise TritError(message, clause="PRE-5", where="byte 16")
    # "The file size MUST equal the length of the file."
    if file_size != length:
        message = f"says {file_size} bytes, has {length}: cut off, or something was added"
        raise TritError(message, clause="PRE-6", where="byte 24")
    # "The header MUST end within the file."
    if PREAMBLE_SIZE + header_size > file_size:
        message = f"a header of {header_size} bytes does not fit a file of {file_size}"
        raise TritError(message, clause="PRE-7", where="byte 16")
    return Preamble(header_size, file_size, digest, minor)


def encode_header(entries: Sequence[Entry], metadata: dict[str, str]) -> bytes:
    """The canonical bytes of a header (SPEC 6.2, 6.3), entries and keys put in order.

    Raises TritError with the clause that the directory breaks.
    """
    ordered = sorted(entries, key=lambda entry: _utf8(entry.name))
    pairs = sorted(metadata.items(), key=lambda pair: (_utf8(pair[0]), _utf8(pair[1])))
    header = {
        "metadata": dict(pairs),
        "tensors": [_entry_map(entry) for entry in ordered],
        "version": [MAJOR, MINOR],
    }
    data: bytes = msgpack.packb(header, use_bin_type=True)
    if len(data) > MAX_HEADER_SIZE:
        raise TritError(f"the header takes {len(data)} bytes, over {MAX_HEADER_SIZE}", clause="PRE-5")
    decode_header(data)  # what a writer writes, a reader takes: limits, names, duplicates
    return data


def decode_header(data: bytes, preamble: Preamble | None = None) -> Header:
    """The header in *data*, proved canonical and within every limit (SPEC 6.2 to 6.4).

    Checks the digest and the version against *preamble* where given. Raises
    TritError with the clause and the place of the first fault.
    """
    # "The SHA-256 of the header's bytes MUST equal the digest in the preamble."
    if preamble and sha256(data).digest() != preamble.digest:
        raise TritError("the header's SHA-256 is not that in the preamble", clause="PRE-8", where="byte 32")
    return _HeaderReader(data, preamble.minor if preamble else MINOR).read()


def _utf8(text: str) -> bytes:
    if not isinstance(text, str):
        raise TritError(f"names and metadata are str, not {type(text).__name__}", clause="TYPE-1")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise TritError(f"{text!a} is not encodable as UTF-8", clause="MP-4") from None


def _entry_map(entry: Entry) -> dict[str, object]:
    if isinstance(entry, RawEntry):
        return {
            "dtype": entry.dtype,
            "kind": entry.kind,
            "name": entry.name,
            "sha256": entry.digests[0],
            "shape": list(entry.shape),
        }
    form = entry.form
    return {
        "codebook": form.codebook.astype("<f4").tobytes(),
        "depth": form.depth,
        "dtype": form.dtype,
        "group_size": form.group_size,
        "kind": entry.kind,
        "name": entry.name,
        "sha256": list(entry.digests),
        "shape": list(form.shape),
        "shift": form.shift,
    }


ENTRY_KEYS = {  # of each kind; the name first, for it stands in messages, and the digests last
    "raw": ("name", "dtype", "kind", "shape", "sha256"),
    "trit": ("name", "codebook", "depth", "dtype", "group_size", "kind", "shape", "shift", "sha256"),
}
KNOWN_KEYS = frozenset(key for keys in ENTRY_KEYS.values() for key in keys)


class _HeaderReader:
    """Walks a header once, from its first byte to its last (SPEC 6.3, 6.4)."""

    def __init__(self, data: bytes, minor: int) -> None:
        self.cursor = Cursor(data)
        self.minor = minor
        self.ignored: list[str] = []

    def read(self) -> Header:
        cursor = self.cursor
        fields: dict[str, Any] = {}
        for key in cursor.map_keys():
            if key == "metadata":
                fields[key] = self.metadata()
            elif key == "tensors":
                fields[key] = self.entries()
            elif key == "version":
                fields[key] = self.version()
            else:
                self.unknown(key)
                cursor.skip(depth=2)
        # "The header MUST have the keys metadata, tensors and version."
        missing = {"metadata", "tensors", "version"} - fields.keys()
        if missing:
            cursor.fail("HDR-1", f"the header lacks {', '.join(sorted(missing))}")
        # "The header MUST be exactly one value, with nothing cut off and nothing after it."
        if cursor.at != len(cursor.data):
            cursor.fail("MP-5", f"{len(cursor.data) - cursor.at} bytes stand after the header's value")
        return Header(fields["tensors"], fields["metadata"], self.minor, tuple(self.ignored))

    def unknown(self, key: str) -> None:
        # "A key that is not in the table of the header, or of the entry's kind, MUST NOT stand there in a
        # file of minor version 0."
        if self.minor <= MINOR:
            self.cursor.fail("VER-1", f"unknown key {key[:80]!a}")
        if len(self.ignored) < MAX_NOTES:
            self.ignored.append(f"{self.cursor.where or 'header'}: key {key[:80]!a}")

    def version(self) -> list[int]:
        start = self.cursor.at
        version = [self.cursor.expect("integer") for _ in self.cursor.array(2, "TYPE-1")]
        if len(version) != 2:
            self.cursor.fail("TYPE-1", f"version of {len(version)} integers where 2 are expected")
        # "The version in the header MUST equal the version in the preamble."
        if version != [MAJOR, self.minor]:
            self.cursor.at = start
            self.cursor.fail("HDR-2", f"version {version} in a file of version {[MAJOR, self.minor]}")
        return version

    def metadata(self) -> dict[str, str]:
        # "The metadata MUST hold at most 1024 pairs."
        metadata = {}
        for key in self.cursor.map_keys(MAX_METADATA, "HDR-5"):
            self.cursor.check_name(key)
            # "A metadata value MUST be at most 1048576 bytes long."
            metadata[key] = self.cursor.utf8(MAX_METADATA_VALUE, "HDR-6")
        return metadata

    def entries(self) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        previous = b""
        # "The header MUST hold at most 1048576 entries."
        for index in self.cursor.array(MAX_TENSORS, "HDR-4"):
            self.cursor.where = f"entry {index}"
            entry = self.entry()
            name = entry.name.encode()
            # "The entries MUST stand in strictly increasing order of the UTF-8 bytes of their names."
            if name <= previous:
                self.cursor.fail("HDR-3", f"name {entry.name!a} is not above {previous.decode()!a}")
            previous = name
            entries.append(entry)
        self.cursor.where = ""
        return tuple(entries)

    def entry(self) -> Entry:
        """One entry, in two passes: what is there, canonical; then each value, the kind before all."""
        cursor = self.cursor
        places: dict[str, int] = {}
        for key in cursor.map_keys():
            if key in KNOWN_KEYS or len(places) < MAX_NOTES:  # the first of the others are enough to name
                places[key] = cursor.at
            cursor.skip(ENTRY_DEPTH + 1)
        end = cursor.at
        kind = self.kind(places)
        # "An entry MUST have every key of its kind."
        missing = set(ENTRY_KEYS[kind]) - places.keys()
        if missing:
            cursor.fail("ENT-1", f"a {kind} entry lacks {', '.join(sorted(missing))}")
        for key in places:
            if key not in ENTRY_KEYS[kind]:
                cursor.at = places[key]
                self.unknown(key)
        fields: dict[str, Any] = {}
        *keys, digests_key = ENTRY_KEYS[kind]
        for key in keys:
            cursor.at = places[key]
            fields[key] = self.field(key)
        form = _form(fields) if kind == "trit" else None  # judged before the digests (SPEC 9)
        cursor.at = places[digests_key]
        digests = self.digests(kind)
        cursor.at = end
        return _entry(fields, form, digests)

    def kind(self, places: dict[str, int]) -> str:
        if "kind" not in places:
            self.cursor.fail("ENT-1", "an entry lacks kind")
        self.cursor.at = places["kind"]
        kind = self.cursor.utf8()
        # "The kind of an entry MUST be trit or raw."
        if kind not in ENTRY_KEYS:
            self.cursor.fail("ENT-2", f"kind {kind[:80]!a} is neither trit nor raw")
        return kind

    def field(self, key: str) -> Any:
        cursor = self.cursor
        if key == "name":
            name = cursor.utf8(MAX_NAME_SIZE, "NAME-1")
            cursor.check_name(name)
            cursor.where += f", tensor {name!a}"
            return name
        if key in ("dtype", "kind"):
            return cursor.utf8()
        if key == "shape":
            return tuple(cursor.expect("integer") for _ in cursor.array(MAX_RANK, "SHAPE-1"))
        if key == "codebook":
            return cursor.binary(CODEBOOK_BYTES, "CB-1")
        return cursor.expect("integer")

    def digests(self, kind: str) -> tuple[bytes, ...]:
        # "An entry MUST hold one digest of 32 bytes for each of its segments."
        if kind == "raw":
            return (self.cursor.binary(DIGEST_SIZE, "ENT-3"),)
        most = CODE_TRITS + MAX_DEPTH
        return tuple(self.cursor.binary(DIGEST_SIZE, "ENT-3") for _ in self.cursor.array(most, "ENT-3"))


def _form(fields: dict[str, Any]) -> Form:
    codebook = np.frombuffer(fields["codebook"], "<f4").astype(np.float32)
    names = ("shape", "dtype", "depth", "shift", "group_size")
    with _of_tensor(fields["name"]):
        return Form(**{name: fields[name] for name in names}, codebook=codebook)


def _entry(fields: dict[str, Any], form: Form | None, digests: tuple[bytes, ...]) -> Entry:
    with _of_tensor(fields["name"]):
        if form is None:
            return RawEntry(fields["name"], fields["dtype"], fields["shape"], digests)
        return TritEntry(fields["name"], form, digests)


@contextlib.contextmanager
def _of_tensor(name: str) -> Iterator[None]:
    try:
        yield
    except TritError as error:
        raise error.at(f"tensor {name!a}") from None
