"""SPEC 6: preamble, header and entries: each clause broken alone, and the exact clause and place reported."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import independent
import pytest
from helpers import (
    changed,
    encode,
    header,
    little_memory,
    painted,
    raw_entry,
    refused,
    seal,
    steps,
    trit_entry,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import HIDDEN, directories, names, quick

from tritcodec.header import (
    RAW_DTYPES,
    Entry,
    Header,
    Preamble,
    RawEntry,
    TritEntry,
    decode_header,
    decode_preamble,
    encode_header,
    encode_preamble,
)

MAGIC = b"\x89TRIT\r\n\x1a"
FILE = seal(header(raw_entry()), [b"\1\2\3"])
SIZE = len(FILE)
HEADER_SIZE = int.from_bytes(FILE[16:24], "little")
FIELDS = struct.Struct("<8sHHIQQ32s")  # SPEC 6.1


def preamble(**changes: Any) -> bytes:
    """The first 64 bytes of FILE, some fields changed."""
    fields = {
        "magic": MAGIC,
        "major": 1,
        "minor": 0,
        "flags": 0,
        "header_size": HEADER_SIZE,
        "file_size": SIZE,
        "digest": FILE[32:64],
    }
    return FIELDS.pack(*(fields | changes).values())


def read(data: bytes, length: int | None = None) -> Header:
    """Preamble and header of *data*, as a reader takes them."""
    found = decode_preamble(data[:64], len(data) if length is None else length)
    return decode_header(data[64 : 64 + found.header_size], found)


def decode(value: Any, minor: int = 0) -> Header:
    """The header of this value, in a file of version 1.*minor*."""
    data = value if isinstance(value, bytes) else encode(value)
    return decode_header(data, Preamble(len(data), 0, sha256(data).digest(), minor))


# Preamble


def test_a_preamble_is_read_field_by_field() -> None:
    """Sizes, digest and minor version come from their offsets, little-endian."""
    data = MAGIC + bytes.fromhex("0100 0201 00000000 0300000000000000 4400000000000000") + bytes(range(32))
    found = decode_preamble(data, 0x44)
    assert found == Preamble(header_size=3, file_size=0x44, digest=bytes(range(32)), minor=0x0102)
    assert encode_preamble(found) == data


@pytest.mark.parametrize("minor", [0, 1, 65_535])
def test_preambles_come_back(minor: int) -> None:
    """What is encoded is decoded: 64 bytes, with every field."""
    kept = Preamble(HEADER_SIZE, SIZE, FILE[32:64], minor)
    assert encode_preamble(kept) == preamble(minor=minor)
    assert decode_preamble(encode_preamble(kept), SIZE) == kept


@pytest.mark.parametrize("size", range(64))
def test_less_than_a_preamble(size: int) -> None:
    """A file of 0 to 63 bytes is refused with PRE-1, and its length is said."""
    with refused("PRE-1", "byte 0") as caught:
        read(FILE[:size])
    assert str(size) in caught.value.message


@pytest.mark.parametrize("at", range(8))
def test_every_byte_of_the_magic_counts(at: int) -> None:
    """Each bit of each byte of the magic, wrong alone, is refused with PRE-2; what was there is shown."""
    for bit in range(8):
        wrong = MAGIC[:at] + bytes([MAGIC[at] ^ 1 << bit]) + MAGIC[at + 1 :]
        with refused("PRE-2", "byte 0") as caught:
            read(wrong + FILE[8:])
        assert wrong.hex(" ") in caught.value.message


OTHER_FORMATS = {
    "GGUF": b"GGUF\3\0\0\0",
    "safetensors": struct.pack("<Q", 72) + b'{"__metadata__":{}}',
    "npy": b"\x93NUMPY\1\0v\0{'descr': '<f4'",
    "zip": b"PK\3\4\x14\0\0\0",
    "pickle": b"\x80\4\x95\0\0\0\0",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
    "text": b"TRIT version 1\n",
    "zeros": bytes(8),
}


@pytest.mark.parametrize("start", OTHER_FORMATS.values(), ids=OTHER_FORMATS.keys())
def test_other_formats_are_refused(start: bytes) -> None:
    """Whatever else is named .trit is refused with PRE-2."""
    with refused("PRE-2"):
        read(start.ljust(4096, b"\0"))


TEXT_DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "CRLF to LF": (lambda data: data.replace(b"\r\n", b"\n"), "PRE-2"),
    "LF to CRLF": (lambda data: data.replace(b"\n", b"\r\n"), "PRE-2"),
    "CR to LF": (lambda data: data.replace(b"\r", b"\n"), "PRE-2"),
    "cut at ^Z": (lambda data: data[: data.index(b"\x1a")], "PRE-1"),
    "high bit stripped": (lambda data: bytes(byte & 0x7F for byte in data), "PRE-2"),
    "Latin-1 to UTF-8": (lambda data: data.decode("latin-1").encode(), "PRE-2"),
    "cut at NUL": (lambda data: data[: data.index(b"\0")], "PRE-1"),
    "byte order mark": (lambda data: b"\xef\xbb\xbf" + data, "PRE-2"),
}


@pytest.mark.parametrize(("damage", "clause"), TEXT_DAMAGE.values(), ids=TEXT_DAMAGE.keys())
def test_transfer_as_text_is_noticed(damage: Callable[[bytes], bytes], clause: str) -> None:
    """What a transfer as text does to a file is noticed in its first eight bytes."""
    with refused(clause):
        read(damage(FILE))


@pytest.mark.parametrize(
    ("changes", "clause", "where"),
    [
        ({"major": 0}, "PRE-3", "byte 8"),
        ({"major": 2}, "PRE-3", "byte 8"),
        ({"major": 0x0100}, "PRE-3", "byte 8"),  # 1, byte-swapped
        ({"major": 65_535}, "PRE-3", "byte 8"),
        *(({"flags": 1 << bit}, "PRE-4", "byte 12") for bit in range(32)),
        ({"header_size": 0}, "PRE-5", "byte 16"),
        ({"header_size": 67_108_865}, "PRE-5", "byte 16"),
        ({"header_size": 2**31}, "PRE-5", "byte 16"),
        ({"header_size": 2**32 + 1}, "PRE-5", "byte 16"),
        ({"header_size": 2**63}, "PRE-5", "byte 16"),
        ({"header_size": 2**64 - 64}, "PRE-5", "byte 16"),  # plus 64 wraps to 0
        ({"header_size": 2**64 - 1}, "PRE-5", "byte 16"),
        ({"header_size": int.from_bytes(FILE[16:24], "big")}, "PRE-5", "byte 16"),
        ({"file_size": SIZE - 1}, "PRE-6", "byte 24"),
        ({"file_size": SIZE + 1}, "PRE-6", "byte 24"),
        ({"file_size": SIZE + 64}, "PRE-6", "byte 24"),
        ({"file_size": 0}, "PRE-6", "byte 24"),
        ({"file_size": 2**63}, "PRE-6", "byte 24"),
        ({"file_size": 2**64 - 1}, "PRE-6", "byte 24"),
        ({"file_size": int.from_bytes(FILE[24:32], "big")}, "PRE-6", "byte 24"),
        ({"header_size": 67_108_864}, "PRE-7", "byte 16"),
        ({"header_size": SIZE}, "PRE-7", "byte 16"),
        ({"header_size": SIZE - 63}, "PRE-7", "byte 16"),
        ({"header_size": SIZE - 64}, "PRE-8", "byte 32"),  # the largest that fits
        ({"header_size": HEADER_SIZE - 1}, "PRE-8", "byte 32"),
        ({"header_size": HEADER_SIZE + 1}, "PRE-8", "byte 32"),
        *(
            (
                {"digest": FILE[32 : 32 + i] + bytes([FILE[32 + i] ^ 1]) + FILE[33 + i : 64]},
                "PRE-8",
                "byte 32",
            )
            for i in range(32)
        ),
        ({"digest": bytes(32)}, "PRE-8", "byte 32"),
        ({"minor": 1}, "HDR-2", "byte "),  # a newer minor version alone is no fault of the preamble
        ({"minor": 65_535}, "HDR-2", "byte "),
    ],
    ids=str,
)
def test_each_field_of_the_preamble(changes: dict[str, Any], clause: str, where: str) -> None:
    """A field, wrong alone, is refused with its own clause, at its own offset, and its value is shown."""
    with refused(clause, where) as caught:
        read(preamble(**changes) + FILE[64:])
    value = next(iter(changes.values()))
    if clause in ("PRE-3", "PRE-5", "PRE-6", "PRE-7"):
        assert str(value) in caught.value.message


def test_the_first_clause_that_fails_is_reported() -> None:
    """Of several faults, the one that stands first in SPEC 6.1 is reported, whichever the others are."""
    faults: dict[str, dict[str, Any]] = {
        "PRE-2": {"magic": MAGIC[::-1]},
        "PRE-3": {"major": 9},
        "PRE-4": {"flags": 1},
        "PRE-5": {"header_size": 0},
        "PRE-6": {"file_size": 1},
        "PRE-8": {"digest": bytes(32)},
    }
    for count in range(1, len(faults) + 1):
        for chosen in itertools.combinations(faults, count):
            wrong = {name: value for clause in chosen for name, value in faults[clause].items()}
            with refused(chosen[0]):
                read(preamble(**wrong) + FILE[64:])
    with refused("PRE-1"):
        read(preamble(magic=bytes(8), major=9)[:63])
    with refused("PRE-6"):
        read(preamble(header_size=SIZE, file_size=SIZE + 1) + FILE[64:])
    with refused("PRE-7"):
        read(preamble(header_size=SIZE, digest=bytes(32)) + FILE[64:])


@pytest.mark.parametrize("length", [SIZE - 1, SIZE + 1, SIZE - 64, 64, 2**40])
def test_the_length_of_the_file_is_as_promised(length: int) -> None:
    """A file that was cut off, or has something after its end, is refused with PRE-6, both sizes said."""
    with refused("PRE-6") as caught:
        read(FILE, length)
    assert str(SIZE) in caught.value.message
    assert str(length) in caught.value.message


# Header and entries, one fault each


def nested(depth: int) -> Any:
    """Arrays in arrays, *depth* of them."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


DIGEST = bytes(32)
NUMBERS = ("depth", "shift", "group_size")


def unsorted(*keys: str) -> bytes:
    """A header whose map has these keys in the order given."""
    return bytes([0x80 + len(keys)]) + b"".join(encode(key) + encode(header()[key]) for key in keys)


HEADER_FAULTS: dict[str, tuple[Any, str]] = {  # the header's value or bytes, and the clause
    "an array": ([header()], "TYPE-1"),
    "an integer": (1, "TYPE-1"),
    "nothing but nil": (None, "MP-1"),
    "an empty map": ({}, "HDR-1"),
    "no metadata": (header(metadata=None), "HDR-1"),
    "no tensors": (header(tensors=None), "HDR-1"),
    "no version": (header(version=None), "HDR-1"),
    "one byte after": (encode(header()) + b"\0", "MP-5"),
    "itself after": (encode(header()) * 2, "MP-5"),
    "keys unsorted": (unsorted("version", "metadata", "tensors"), "MP-3"),
    "keys sorted by length": (unsorted("tensors", "version", "metadata"), "MP-3"),
    "a key twice": (unsorted("metadata", "metadata", "tensors", "version"), "MP-3"),
    "map 16 for three keys": (b"\xde\0\3" + encode(header())[1:], "MP-2"),
    "metadata an array": (header(metadata=[]), "TYPE-1"),
    "tensors a map": (header(tensors={}), "TYPE-1"),
    "version an integer": (header(version=1), "TYPE-1"),
    "version a str": (header(version="1.0"), "TYPE-1"),
    "version of one": (header(version=[1]), "TYPE-1"),
    "version of none": (header(version=[]), "TYPE-1"),
    "version of three": (header(version=[1, 0, 0]), "TYPE-1"),
    "version of floats": (header(version=[1.0, 0.0]), "MP-1"),
    "version of str": (header(version=["1", "0"]), "TYPE-1"),
    "version of booleans": (header(version=[True, False]), "MP-1"),
    "another major": (header(version=[2, 0]), "HDR-2"),
    "another minor": (header(version=[1, 1]), "HDR-2"),
    "an enormous version": (header(version=[1, 2**64 - 1]), "HDR-2"),
    "value an integer": (header(metadata={"k": 1}), "TYPE-1"),
    "value a bin": (header(metadata={"k": b"v"}), "TYPE-1"),
    "value nil": (header(metadata={"k": None}), "MP-1"),
    "value of 1 MiB + 1": (header(metadata={"k": "v" * (2**20 + 1)}), "HDR-6"),
    "value of 1 MiB + 2, in bytes": (header(metadata={"k": "é" * (2**19 + 1)}), "HDR-6"),
    "1025 metadata": (header(metadata={f"{i:04}": "" for i in range(1025)}), "HDR-5"),
    "metadata key empty": (header(metadata={"": ""}), "NAME-1"),
    "metadata key of 513 bytes": (header(metadata={"x" * 513: ""}), "NAME-1"),
    "metadata key of 1 MiB": (header(metadata={"x" * 2**20: ""}), "NAME-1"),
    "unknown key": (header(zz=1), "VER-1"),
    "unknown key, first": (header(a={}), "VER-1"),
}


@pytest.mark.parametrize(("value", "clause"), HEADER_FAULTS.values(), ids=HEADER_FAULTS.keys())
def test_each_fault_of_a_header(value: Any, clause: str) -> None:
    """A header with one fault is refused with the clause that it breaks, at a byte of the header."""
    with refused(clause, "byte "):
        decode(value)


DIRECTORY_FAULTS: dict[str, tuple[list[Any], str, str]] = {  # the entries, the clause, the place
    "a str": (["a"], "TYPE-1", "entry 0, byte "),
    "an array": ([[]], "TYPE-1", "entry 0, byte "),
    "nil": ([None], "MP-1", "entry 0, byte "),
    "an empty map": ([{}], "ENT-1", "entry 0, byte "),
    "the second an array": ([raw_entry(), []], "TYPE-1", "entry 1, byte "),
    "two of one name": ([raw_entry("a"), raw_entry("a")], "HDR-3", "entry 1, tensor"),
    "raw and trit of one name": ([raw_entry("a"), trit_entry("a")], "HDR-3", "entry 1, tensor"),
    "unsorted": ([raw_entry("b"), raw_entry("a")], "HDR-3", "entry 1, tensor"),
    "sorted by length": ([raw_entry("b"), raw_entry("aa")], "HDR-3", "entry 1, tensor"),
    "sorted by UTF-16": ([raw_entry("\U0001f600"), raw_entry("\uff5e")], "HDR-3", "entry 1, tensor"),
    "the third unsorted": ([*map(raw_entry, "acb")], "HDR-3", "entry 2, tensor"),
    "a fault in the second": ([raw_entry("a"), raw_entry("b", dtype="?")], "RAW-1", "tensor 'b'"),
}


@pytest.mark.parametrize(
    ("entries", "clause", "where"), DIRECTORY_FAULTS.values(), ids=DIRECTORY_FAULTS.keys()
)
def test_each_fault_of_the_directory(entries: list[Any], clause: str, where: str) -> None:
    """A directory with one fault is refused with the clause that it breaks, and the entry is said."""
    with refused(clause, where):
        decode(header(*entries))


ENTRY_FAULTS: list[tuple[dict[str, Any], str]] = [  # changes to an entry of either kind, and the clause
    ({"zz": 1}, "VER-1"),
    ({"offset": 0}, "VER-1"),
    ({"dtype": 1}, "TYPE-1"),
    ({"dtype": b"F32"}, "TYPE-1"),
    ({"kind": 0}, "TYPE-1"),
    ({"kind": b"raw"}, "TYPE-1"),
    *(({"kind": kind}, "ENT-2") for kind in ("", "RAW", "raw ", "Trit", "dense", "x" * 999)),
    ({"name": 0}, "TYPE-1"),
    ({"name": b"raw"}, "TYPE-1"),
    ({"name": ""}, "NAME-1"),
    ({"name": "x" * 513}, "NAME-1"),
    ({"name": "é" * 257}, "NAME-1"),  # of 514 bytes
    ({"shape": 3}, "TYPE-1"),
    ({"shape": b"\3"}, "TYPE-1"),
    ({"shape": {}}, "TYPE-1"),
    ({"shape": ["3"]}, "TYPE-1"),
    ({"shape": [[3]]}, "TYPE-1"),
    ({"shape": [-3]}, "MP-1"),
    ({"shape": [3.0]}, "MP-1"),
    ({"shape": [True]}, "MP-1"),
    ({"shape": [None]}, "MP-1"),
    ({"shape": [1] * 9}, "SHAPE-1"),
    ({"shape": [1] * 2**16}, "SHAPE-1"),
    ({"shape": [2**48 + 1]}, "SHAPE-2"),
    ({"shape": [2**63]}, "SHAPE-2"),
    ({"shape": [2**64 - 1]}, "SHAPE-2"),
    ({"shape": [2**32, 2**32]}, "SHAPE-2"),  # 2^64, 0 where it wraps
    ({"shape": [2**63, 2]}, "SHAPE-2"),
    ({"shape": [2**62, 4, 3]}, "SHAPE-2"),
    ({"shape": [2**48, 0, 2]}, "SHAPE-2"),
]
RAW_FAULTS: list[tuple[dict[str, Any], str]] = [
    *(({key: None}, "ENT-1") for key in raw_entry()),
    ({"depth": 1}, "VER-1"),
    ({"codebook": steps().tobytes()}, "VER-1"),
    ({"kind": "trit"}, "ENT-1"),  # which has more keys
    *(({"sha256": bytes(size)}, "ENT-3") for size in (0, 31, 33, 64)),
    ({"sha256": "0" * 32}, "TYPE-1"),
    ({"sha256": [DIGEST]}, "TYPE-1"),
    *(
        ({"dtype": name}, "RAW-1")
        for name in ("f32", "", "TRIT", "C128", "F4", "F8_E4M3FN", "\x1b[2J", "x" * 999)
    ),
]
TRIT_FAULTS: list[tuple[dict[str, Any], str]] = [
    *(({key: None}, "ENT-1") for key in trit_entry()),
    ({"kind": "raw"}, "VER-1"),
    ({"sha256": DIGEST}, "TYPE-1"),
    ({"sha256": [DIGEST] * 4 + [bytes(31)]}, "ENT-3"),
    ({"sha256": [bytes(33)] + [DIGEST] * 4}, "ENT-3"),
    ({"sha256": ["0" * 32] + [DIGEST] * 4}, "TYPE-1"),
    *(({"sha256": [DIGEST] * count}, "ENT-3") for count in (0, 2, 3, 4, 6, 7, 8, 100)),
    ({"shape": []}, "TEN-1"),
    ({"shape": [0, 21]}, "TEN-1"),
    ({"shape": [7, 0]}, "TEN-1"),
    ({"depth": 0, "sha256": [DIGEST] * 3}, "TEN-2"),
    ({"depth": 5}, "TEN-2"),
    ({"depth": 2**64 - 1}, "TEN-2"),
    ({"shift": 3}, "TEN-3"),
    ({"shift": 2**63}, "TEN-3"),
    ({"shift": 2**64 - 1}, "TEN-3"),  # plus the depth, 1 where it wraps
    ({"group_size": 0}, "TEN-4"),
    ({"group_size": 65_537}, "TEN-4"),
    ({"group_size": 2**64 - 1}, "TEN-4"),
    *(({key: "1"}, "TYPE-1") for key in NUMBERS),
    *(({key: [1]}, "TYPE-1") for key in NUMBERS),
    *(({key: value}, "MP-1") for key in NUMBERS for value in (1.0, True, -1)),
    *(({"dtype": name}, "TEN-5") for name in ("F64", "f32", "I8", "", "F8_E4M3", "x" * 999)),
    ({"codebook": "x" * 108}, "TYPE-1"),
    ({"codebook": [1] * 27}, "TYPE-1"),
    *(({"codebook": bytes(size)}, "CB-1") for size in (0, 104, 107, 109, 112, 216)),
    ({"codebook": bytes(108)}, "CB-2"),
    ({"codebook": b"\xff" * 108}, "CB-2"),
    ({"codebook": steps().astype(">f4").tobytes()}, "CB-2"),
    ({"codebook": steps()[::-1].tobytes()}, "CB-3"),
    ({"codebook": steps()[:1].tobytes() * 27}, "CB-3"),
    ({"codebook": steps(0x3C00_0020).tobytes()}, "CB-4"),
    ({"codebook": steps(0x4700_0000, 64).tobytes(), "dtype": "F16"}, "CB-5"),
]
NAMED = {"SHAPE-2", "RAW-1", "TEN-1", "TEN-2", "TEN-3", "TEN-4", "TEN-5", "CB-2", "CB-3", "CB-4", "CB-5"}


def brief(value: object) -> str | None:
    """An id for pytest: a fault as short as it can be told."""
    return ascii(value)[:60] if isinstance(value, dict) else None


@pytest.mark.parametrize(
    ("make", "changes", "clause"),
    [
        *((raw_entry, *fault) for fault in ENTRY_FAULTS + RAW_FAULTS),
        *((trit_entry, *fault) for fault in ENTRY_FAULTS + TRIT_FAULTS),
    ],
    ids=brief,
)
def test_each_fault_of_an_entry(
    make: Callable[..., dict[str, Any]], changes: dict[str, Any], clause: str
) -> None:
    """An entry with one fault is refused with the clause that it breaks, and the entry or tensor is said."""
    entry = changed(make(), changes)
    with refused(clause, f"tensor {entry['name']!r}" if clause in NAMED else ""):
        decode(header(entry))
    with refused(
        clause, "entry 1" if clause not in {*NAMED, "ENT-3"} else "tensor" if clause in NAMED else ""
    ):
        decode(header(raw_entry("\x20"), entry))


def test_counts_are_limited_before_anything_is_read() -> None:
    """2^20 + 1 entries and 1025 metadata are refused by their count alone; the limits are not (READ-1)."""
    before = b"\x83" + encode("metadata")
    with refused("HDR-5"):
        decode(before + b"\xde\x04\x01")
    with refused("MP-5"):
        decode(before + b"\xde\x04\x00")
    before += b"\x80" + encode("tensors")
    with refused("HDR-4"):
        decode(before + b"\xdd\x00\x10\x00\x01")
    with refused("MP-5", "entry 0"):
        decode(before + b"\xdd\x00\x10\x00\x00")
    with little_memory(), refused("HDR-4"):
        decode(before + b"\xdd\xff\xff\xff\xff")


def test_a_header_of_empty_maps_takes_little_memory() -> None:
    """An array of 2^20 empty maps, a header of 1 MiB, is refused at the first one (SPEC 13)."""
    data = (
        b"\x83" + encode("metadata") + b"\x80" + encode("tensors") + b"\xdd\x00\x10\x00\x00" + b"\x80" * 2**20
    )
    with little_memory(), refused("ENT-1", "entry 0"):
        decode_header(data)


@pytest.mark.parametrize("minor", [0, 1])
def test_a_header_of_unknown_keys_takes_little_memory(minor: int) -> None:
    """Of 20,000 keys of an entry some are remembered, to be named: the first."""
    many = {f"zz{number:05}": 0 for number in range(20_000)}
    data = encode(header(raw_entry("a", **many), version=[1, minor]))
    with little_memory(1 << 19):  # the bytes of the header, once more
        if minor:
            ignored = decode(data, minor).ignored
            assert 90 < len(ignored) <= 100
            assert all(f"zz{number:05}" in note for number, note in enumerate(ignored))
        else:
            with refused("VER-1", "entry 0"):
                decode(data)


@pytest.mark.parametrize("key", ["metadata", "tensors", "version"])
@pytest.mark.parametrize("depth", [9, 100, 100_000])
def test_nesting_where_a_type_is_expected(key: str, depth: int) -> None:
    """Deep nesting in a known place is refused at the first array that is not expected there."""
    value = encode(header())
    start = value.index(encode(key)) + len(encode(key))
    with refused("TYPE-1"):
        decode(value[:start] + b"\x91" * depth + b"\x90")


@pytest.mark.parametrize("size", [1, 2, 30])
def test_a_header_cut_at_any_byte(size: int) -> None:
    """The smallest header, one with two tensors and one with metadata, cut anywhere, break MP-5."""
    for value in (header(), header(raw_entry("a"), trit_entry("b")), header(metadata={"a": "b" * size})):
        data = encode(value)
        for end in range(0, len(data), size):
            with refused("MP-5"):
                decode(data[:end])


# Names


@pytest.mark.parametrize("code", HIDDEN, ids=lambda code: f"U+{code:04X}")
def test_control_characters_are_refused(code: int) -> None:
    """Each control character, wherever it stands in a name or key, is refused (NAME-2), and never printed."""
    for name in (chr(code), f"a{chr(code)}", f"{chr(code)}b", f"a{chr(code)}b"):
        for value in (header(raw_entry(name)), header(trit_entry(name)), header(metadata={name: ""})):
            with refused("NAME-2", "entry 0" if value["tensors"] else "byte ") as caught:
                decode(value)
            assert f"U+{code:04X}" in caught.value.message
            assert chr(code) not in str(caught.value)
    decode(header(metadata={"a": f"a{chr(code)}b"}))  # a value may hold any character


BESIDE = sorted({code + by for code in HIDDEN for by in (-1, 1)} - set(HIDDEN) - {-1})


@pytest.mark.parametrize("name", [
    *map(chr, BESIDE),
    "x" * 512,
    "é" * 256,
    "\U0001f600" * 128,
    "../../etc/passwd",
    "-rf",
    "C:\\x",
    " ",
    "\u200d\u200b",  # joiners and zero width are no control characters
    "\u0301",
    "\ud7ff\ue000\U0010ffff",
    "'\"\\",
], ids=ascii)  # fmt: skip
def test_other_names_are_taken(name: str) -> None:
    """What is beside the control characters, paths, quotes, and names of just 512 bytes are names."""
    found = decode(header(raw_entry(name), metadata={name: name}))
    assert found.entries[0].name == name
    assert found.metadata == {name: name}


@pytest.mark.parametrize(
    "twins", [("\u00c5", "A\u030a"), ("Weight", "weight"), ("\uff57", "w"), ("a", "a ")], ids=ascii
)
def test_names_that_look_alike_are_different(twins: tuple[str, str]) -> None:
    """Nothing is normalised and no case is folded: both stand in one file."""
    ordered = sorted(twins, key=str.encode)
    found = decode(header(*map(raw_entry, ordered), metadata=dict.fromkeys(twins, "")))
    assert [entry.name for entry in found.entries] == ordered
    assert set(found.metadata) == set(twins)


def test_names_are_shown_in_ascii() -> None:
    """A message shows a name with every character beyond ASCII escaped, and bounded keys."""
    with refused("HDR-3") as caught:
        decode(header(raw_entry("\U0001f600"), raw_entry("\uff5e")))
    assert str(caught.value).isascii()
    with refused("VER-1") as caught:
        decode(header(**{"z" * 10_000: 1}))
    assert len(str(caught.value)) < 500


# What a valid header gives


def test_a_header_is_read_whole() -> None:
    """Every field of every entry comes out as it was put in."""
    trit = independent.entry_of(
        "t",
        independent.Trit(
            [2, 3], "BF16", 5, 1, [0x3F80_0000 + 64 * i for i in range(27)], [[0], [26]], [[[1, 0, -1]] * 2]
        ),
    )[0]
    found = decode(
        header(
            raw_entry("r", dtype="F64", shape=[0, 2**48], sha256=b"\7" * 32),
            trit,
            metadata={"b": "", "a": "\0\x1b"},
        )
    )
    assert (found.minor, found.ignored, found.metadata) == (0, (), {"a": "\0\x1b", "b": ""})
    raw, tensor = found.entries
    assert raw == RawEntry("r", "F64", (0, 2**48), (b"\7" * 32,))
    assert isinstance(tensor, TritEntry)
    assert (tensor.name, tensor.dtype, tensor.shape, tensor.kind) == ("t", "BF16", (2, 3), "trit")
    assert (tensor.form.depth, tensor.form.shift, tensor.form.group_size) == (1, 1, 5)
    assert tensor.form.codebook.tobytes() == trit["codebook"]
    assert list(tensor.digests) == trit["sha256"]


def test_limits_are_within() -> None:
    """1024 metadata, a value of 1 MiB, rank 8, 2^48 elements, a group size of 65,536 are taken (HDR-6)."""
    metadata = {f"{i:04}": "" for i in range(1023)} | {"z": "v" * 2**20}
    entries = [
        raw_entry("a", shape=[1] * 8),
        raw_entry("b", shape=[2**48]),
        trit_entry("c", group_size=65_536),
    ]
    found = decode(header(*entries, metadata=metadata))
    assert found.metadata == metadata
    assert [entry.shape for entry in found.entries] == [(1,) * 8, (2**48,), (7, 21)]


RAW_TABLE = {
    1: ["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"],
    2: ["U16", "I16", "F16", "BF16"],
    4: ["U32", "I32", "F32"],
    8: ["U64", "I64", "F64", "C64"],
}


def test_the_table_of_raw_dtypes() -> None:
    """Each dtype of SPEC 6.4, and no other, is known, with the bytes of an element that the table gives."""
    assert set(RAW_DTYPES) == {dtype for dtypes in RAW_TABLE.values() for dtype in dtypes}
    for size, dtypes in RAW_TABLE.items():
        for dtype in dtypes:
            (entry,) = decode(header(raw_entry(dtype=dtype, shape=[3, 5]))).entries
            assert entry.segment_sizes == [15 * size]


# Versions


UNKNOWN: dict[str, Any] = {
    "an integer": 2**64 - 1,
    "a str": "x",
    "a bin": b"x",
    "an array": [1, [2, {"k": b""}]],
    "a map": {"k": {}},
}


@pytest.mark.parametrize("minor", [1, 2, 65_535])
@pytest.mark.parametrize("value", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_newer_minor_version_is_read(minor: int, value: Any) -> None:
    """Unknown keys of a newer minor version are passed over at both levels, and reported with their place."""
    newer = header(
        raw_entry("a", aa=value, zz=value), trit_entry("b", e=value), version=[1, minor], a=value, zz=value
    )
    found = decode(newer, minor)
    same = decode(header(raw_entry("a"), trit_entry("b")))
    assert (found.minor, found.metadata) == (minor, {})
    assert [entry.name for entry in found.entries] == [entry.name for entry in same.entries]
    assert len(found.ignored) == 5
    for place, name in (
        ("header", "'a'"),
        ("entry 0", "'aa'"),
        ("entry 0", "'zz'"),
        ("entry 1", "'e'"),
        ("header", "'zz'"),
    ):
        assert any(place in note and name in note for note in found.ignored), (place, name, found.ignored)


@pytest.mark.parametrize(
    ("value", "clause"), [(None, "MP-1"), (1.5, "MP-1"), (nested(8), "MP-6"), ({"k": -1}, "MP-1")], ids=str
)
def test_what_is_ignored_is_canonical_all_the_same(value: Any, clause: str) -> None:
    """The values of unknown keys obey SPEC 6.2: their types, and 8 levels counted from the header's map."""
    unknown = {"zz": value}
    for newer in (header(version=[1, 1]) | unknown, header(raw_entry() | unknown, version=[1, 1])):
        with refused(clause):
            decode(newer, 1)


def test_levels_of_nesting_are_counted_from_the_header() -> None:
    """An unknown key of the header may hold 7 levels, one of an entry 5."""
    assert decode(header(version=[1, 1], zz=nested(7)), 1).ignored
    assert decode(header(raw_entry(zz=nested(5)), version=[1, 1]), 1).ignored
    with refused("MP-6"):
        decode(header(raw_entry(zz=nested(6)), version=[1, 1]), 1)


@pytest.mark.parametrize(("value", "clause"), [
    (header(version=[1, 0]), "HDR-2"),
    (header(version=[1, 2]), "HDR-2"),
    (header(raw_entry("b"), raw_entry("a"), version=[1, 1]), "HDR-3"),
    (header(raw_entry(dtype="new"), version=[1, 1]), "RAW-1"),
    (header(raw_entry(kind="new"), version=[1, 1]), "ENT-2"),
    (header(trit_entry(shift=None), version=[1, 1]), "ENT-1"),
    (header(metadata=None, version=[1, 1]), "HDR-1"),
], ids=["1.0", "1.2", "unsorted", "dtype", "kind", "missing key", "no metadata"])  # fmt: skip
def test_a_newer_minor_version_obeys_every_other_rule(value: Any, clause: str) -> None:
    """A file of version 1.1 is excused from VER-1 alone, and its header says 1.1."""
    with refused(clause):
        decode(value, 1)


def test_keys_of_the_other_kind_are_unknown() -> None:
    """In a newer minor version, a key of trit entries is unknown in a raw one, and is ignored."""
    found = decode(header(raw_entry(depth=1, shift=0), version=[1, 1]), 1)
    assert len(found.ignored) == 2


# Writing


def test_the_sort_example_of_the_document() -> None:
    """The keys of SPEC 6.2 come out in its order, in the metadata and in the directory."""
    keys = ["b", "aa", "\U0001f600", "\uff5e"]
    data = encode_header([RawEntry(key, "U8", (3,)) for key in keys], dict.fromkeys(keys, ""))
    found = decode(data)
    assert list(found.metadata) == ["aa", "b", "～", "😀"]
    assert [entry.name for entry in found.entries] == ["aa", "b", "～", "😀"]


@quick
@given(
    directories(),
    st.dictionaries(names(), st.text(st.characters(exclude_categories=["Cs"])), max_size=4),
    st.randoms(),
)
def test_headers_come_back(entries: list[Entry], metadata: dict[str, str], random: Any) -> None:
    """What is encoded, in any order, is decoded; the bytes are those of an independent writer."""
    shuffled, pairs = entries[:], list(metadata.items())
    random.shuffle(shuffled)
    random.shuffle(pairs)
    data = encode_header(shuffled, dict(pairs))
    found = decode(data)
    assert found.metadata == metadata
    assert [entry.name for entry in found.entries] == sorted(entry.name for entry in entries)
    assert encode_header(found.entries, found.metadata) == data
    assert independent.dumps(independent.parse(data)) == data
    independent.check_header(independent.parse(data), 0)


WRITER_FAULTS: dict[str, tuple[list[Any], dict[Any, Any], str]] = {
    "two of one name": ([RawEntry("a", "U8", ()), RawEntry("a", "I8", ())], {}, "HDR-3"),
    "an empty name": ([RawEntry("", "U8", ())], {}, "NAME-1"),
    "a name of 513 bytes": ([RawEntry("x" * 513, "U8", ())], {}, "NAME-1"),
    "a control character": ([RawEntry("a\x1b[2J", "U8", ())], {}, "NAME-2"),
    "a surrogate": ([RawEntry("\ud800", "U8", ())], {}, "MP-4"),
    "a name that is bytes": ([RawEntry(b"a", "U8", ())], {}, "TYPE-1"),  # type: ignore[arg-type]  # wrong on purpose
    "a name that is an integer": ([RawEntry(1, "U8", ())], {}, "TYPE-1"),  # type: ignore[arg-type]  # wrong on purpose
    "a digest of 31 bytes": ([RawEntry("a", "U8", (), (bytes(31),))], {}, "ENT-3"),
    "an empty key": ([], {"": ""}, "NAME-1"),
    "a key with a newline": ([], {"a\n": ""}, "NAME-2"),
    "a key that is a surrogate": ([], {"\udfff": ""}, "MP-4"),
    "a key that is an integer": ([], {1: ""}, "TYPE-1"),
    "a value that is a surrogate": ([], {"a": "\udfff"}, "MP-4"),
    "a value that is an integer": ([], {"a": 1}, "TYPE-1"),
    "a value that is 2^64": ([], {"a": 2**64}, "TYPE-1"),
    "a value that is None": ([], {"a": None}, "TYPE-1"),
    "a value that is bytes": ([], {"a": b"x"}, "TYPE-1"),
    "a value that is an object": ([], {"a": object()}, "TYPE-1"),
    "a value over 1 MiB": ([], {"a": "x" * (2**20 + 1)}, "HDR-6"),
    "1025 metadata": ([], {f"{i:04}": "" for i in range(1025)}, "HDR-5"),
    "over 64 MiB": ([], {f"{i:02}": "x" * 2**20 for i in range(64)}, "PRE-5"),
}


@pytest.mark.parametrize(("entries", "metadata", "clause"), WRITER_FAULTS.values(), ids=WRITER_FAULTS.keys())
def test_what_a_reader_refuses_is_not_written(
    entries: list[Any], metadata: dict[Any, Any], clause: str
) -> None:
    """`encode_header` refuses names, metadata and sizes that a reader would, with the same clause."""
    with refused(clause):
        encode_header(entries, metadata)


@pytest.mark.parametrize(("make", "clause"), [
    (lambda: RawEntry("a", "F4", ()), "RAW-1"),
    (lambda: RawEntry("a", "U8", (1,) * 9), "SHAPE-1"),
    (lambda: RawEntry("a", "U8", (2**49,)), "SHAPE-2"),
    (lambda: TritEntry("a", painted(depth=2).form, (DIGEST,) * 4), "ENT-3"),
], ids=["dtype", "rank", "elements", "digests"])  # fmt: skip
def test_entries_check_themselves(make: Callable[[], object], clause: str) -> None:
    """An entry that would break a clause cannot be made."""
    with refused(clause):
        make()


def test_the_digest_comes_first() -> None:
    """A header that is no MessagePack at all, whose digest is wrong, is refused for the digest (PRE-8)."""
    with refused("PRE-8"):
        decode_header(b"\xc1", Preamble(1, 128, DIGEST))
    with refused("MP-1"):
        decode_header(b"\xc1", Preamble(1, 128, sha256(b"\xc1").digest()))


def test_the_smallest_header() -> None:
    """No metadata and no tensors take 31 bytes (appendix A)."""
    data = encode_header([], {})
    assert len(data) == 31
    assert data == b"\x83\xa8metadata\x80\xa7tensors\x90\xa7version\x92\1\0"
    assert decode_header(data) == Header((), {})
    assert changed({"a": 1}, {"a": None}) == {}


def test_many_unknown_keys_hide_no_known_one() -> None:
    """120 keys that sort before those of the entry, and a map of 2,000 pairs: all are ignored (minor 1)."""
    many = {f"aa{number:03}": 0 for number in range(120)} | {"ab": {f"{n:04}": n for n in range(2000)}}
    found = decode(encode(header(raw_entry("a", **many), version=[1, 1])), 1)
    assert (found.entries[0].name, len(found.ignored)) == ("a", 100)


def test_a_hundred_unknown_keys_of_the_header_are_named() -> None:
    """Not one more."""
    many = {f"zz{number:03}": 0 for number in range(150)}
    assert len(decode(encode(header(version=[1, 1], **many)), 1).ignored) == 100


def test_an_unknown_key_is_placed_where_its_value_stands() -> None:
    """The byte in the file, of the first of them (VER-1)."""
    data = encode(header(raw_entry("a", aa=7, zz=9)))
    place = 64 + data.index(b"aa") + len("aa")
    with refused("VER-1", f"byte {place}"):
        decode(data)
