"""Files with one fault each, and valid ones on the other side of the limit; made without the package.

`damaged()` gives (clause, why, bytes) and `undamaged()` (why, bytes). Apart from its fault
a file is whole: sizes and digests are those of what is in it.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

import independent
from independent import Raw, Trit, dumps, entry_of, layout, parts_of, seal
from painted import STEPS, painted_trit

Header = dict[str, Any]
Case = tuple[str, str, bytes]
Damage = Callable[[Header], object]  # takes the value of the header and changes it

TRIT = 1  # the entry of the trit tensor `a`
RAW = 0  # that of the raw tensor `B`
VERSION = b"\xa7version\x92\x01\x00"  # the end of every header


@functools.cache
def _original() -> tuple[bytes, tuple[bytes, ...]]:
    tensors: dict[str, Trit | Raw] = {
        "B": Raw([5], "F32", bytes(range(20))),
        "a": painted_trit([7, 40], 2),
        "c": painted_trit([4, 16], 1, 2, group_size=17, dtype="F16"),
        "flags": Raw([3], "BOOL", bytes([0, 1, 1])),
    }
    header, content = parts_of(tensors, {"aa": "1", "b": "2"})
    return dumps(header), tuple(content)


def parts() -> tuple[Header, list[bytes]]:
    """Header and segments of the file to damage: B, flags, 3 code planes of a, 3 of c, planes of a, c, a."""
    header, content = _original()
    return independent.parse(header), list(content)


def whole(header: Header | bytes | None = None, content: list[bytes] | None = None, minor: int = 0) -> bytes:
    """A file, with a preamble to fit."""
    old_header, old_content = _original()
    new = old_header if header is None else header if isinstance(header, bytes) else dumps(header)
    return seal(new, list(old_content) if content is None else content, (1, minor))


def changed(change: Damage, minor: int = 0) -> bytes:
    """A file of version 1.*minor* with a changed header."""
    header, _ = parts()
    header["version"] = [1, minor]
    change(header)
    return whole(header, minor=minor)


def top(key: str, value: Any, minor: int = 0) -> bytes:
    """A file with another *value* in the header."""
    return changed(lambda header: header.update({key: value}), minor)


def field(key: str, value: Any, entry: int = TRIT, minor: int = 0) -> bytes:
    """A file with another *value* in an entry."""
    return changed(lambda header: header["tensors"][entry].update({key: value}), minor)


def without(key: str, entry: int | None = None) -> bytes:
    """A file without a key of the header, or of an entry."""
    return changed(lambda header: (header if entry is None else header["tensors"][entry]).pop(key))


def replaced(old: bytes, new: bytes) -> bytes:
    """A file with *new* for the first *old* in the bytes of the header."""
    header, _ = _original()
    if old not in header:
        raise ValueError(f"{old!r} does not stand in the header")
    return whole(header.replace(old, new, 1))


def preamble(**fields: Any) -> bytes:
    """A file with other fields in the preamble."""
    data = whole()
    names = ["magic", "major", "minor", "flags", "size", "length", "digest"]
    known = dict(zip(names, struct.unpack(independent.PREAMBLE, data[:64]), strict=True))
    return struct.pack(independent.PREAMBLE, *(known | fields).values()) + data[64:]


def patched(at: int, byte: int) -> bytes:
    """A file with another *byte* at an offset, and nothing made to fit."""
    data = bytearray(whole())
    data[at] = byte
    return bytes(data)


def segment(number: int, at: int, byte: int) -> bytes:
    """A file with another *byte* in a segment, counted in file order, and a digest that fits."""
    header, content = parts()
    changed = bytearray(content[number])
    changed[at] = byte
    content[number] = bytes(changed)
    where = layout(0, header["tensors"])[0][number]
    digest = hashlib.sha256(changed).digest()
    if where.entry["kind"] == "raw":
        where.entry["sha256"] = digest
    else:
        where.entry["sha256"][where.index] = digest
    return whole(header, content)


def named(names: list[str]) -> bytes:
    """A file of raw tensors without elements, with *names* in this order."""
    entries = [entry_of(name, Raw([0], "U8", b""))[0] for name in names]
    return whole({"metadata": {}, "tensors": entries, "version": [1, 0]}, [])


def with_metadata(metadata: Any) -> bytes:
    """A file with other *metadata*."""
    return top("metadata", metadata)


def nested(depth: int) -> bytes:
    """A file of version 1.1 whose arrays and maps, the header the first of them, are nested *depth* deep."""
    value: Any = []
    for _ in range(depth - 2):
        value = [value]
    return top("x", value, minor=1)


def with_steps(change: Callable[[list[int]], object], dtype: str = "F32") -> bytes:
    """A file with other steps in its trit tensor."""
    steps = list(STEPS["plain"])
    change(steps)
    codebook = struct.pack(f"<{len(steps)}I", *steps)
    return changed(lambda header: header["tensors"][TRIT].update(codebook=codebook, dtype=dtype))


def with_step(index: int, pattern: int, dtype: str = "F32") -> bytes:
    """A file with another step in its trit tensor."""
    return with_steps(lambda steps: steps.__setitem__(index, pattern), dtype)


def damaged() -> Iterator[Case]:
    """All files with a fault."""
    for chapter in (
        _preamble,
        _messagepack,
        _types,
        _header,
        _entries,
        _tensors,
        _codebooks,
        _layout,
        _segments,
        _several,
    ):
        yield from chapter()


def _preamble() -> Iterator[Case]:
    size = len(whole())
    yield "PRE-1", "an empty file", b""
    yield "PRE-1", "a file of 63 bytes", whole()[:63]
    for i in range(8):
        yield "PRE-2", f"byte {i} of the magic", patched(i, 0x55)
    for major in (0, 2, 0xFFFF):
        yield "PRE-3", f"major version {major}", preamble(major=major)
    for bit in (0, 15, 31):
        yield "PRE-4", f"flag {bit}", preamble(flags=1 << bit)
    for claimed in (0, 67108865, 2**63, 2**64 - 1):
        yield "PRE-5", f"a header of {claimed} bytes", preamble(size=claimed)
    for claimed in (0, size - 1, size + 64, 2**64 - 1):
        yield "PRE-6", f"a file said to have {claimed} bytes", preamble(length=claimed)
    yield "PRE-6", "the last byte missing", whole()[:-1]
    yield "PRE-6", "a block of zeros after the end", whole() + bytes(64)
    yield "PRE-7", "a header that ends a byte after the file", preamble(size=size - 63)
    yield "PRE-7", "a header as long as allowed", preamble(size=67108864)
    yield "PRE-8", "a bit of the header", patched(70, whole()[70] ^ 1)
    yield "PRE-8", "a bit of the digest", patched(63, whole()[63] ^ 0x80)


def _messagepack() -> Iterator[Case]:
    header = dumps(parts()[0])
    scalars = ["C0", "C1", "C2", "C3", "CA00000000", "CB0000000000000000"]  # nil, unused, booleans, floats
    negative = ["E0", "FF", "D080", "D1FF7F", "D280000000", "D38000000000000000", "D000", "D20000007F"]
    extensions = ["D40000", "D6FF00000000", "C700FF", "C8000000", "C90000000000"]
    for value in map(bytes.fromhex, scalars + negative + extensions):
        yield "MP-1", f"{value.hex(' ')} for an integer", replaced(VERSION, VERSION[:-1] + value)
    for value in map(bytes.fromhex, ["CC00", "CC7F", "CD00FF", "CE0000FFFF", "CF00000000FFFFFFFF"]):
        yield "MP-2", f"the integer {value.hex(' ')}", replaced(VERSION, VERSION[:-1] + value)
    for head in map(bytes.fromhex, ["D901", "DA0001", "DB00000001"]):
        yield (
            "MP-2",
            f"a str of 1 byte with {head.hex(' ')}",
            replaced(b"\xa4name\xa1a", b"\xa4name" + head + b"a"),
        )
        yield "MP-2", f"a key of 1 byte with {head.hex(' ')}", replaced(b"\xa1b\xa12", head + b"b\xa12")
    for head in map(bytes.fromhex, ["DA001F", "DA00FF", "DB0000001F", "DB0000FFFF"]):
        long = with_metadata({"aa": "x" * int.from_bytes(head[1:], "big")})[64:]
        short = dumps("x" * int.from_bytes(head[1:], "big"))
        yield (
            "MP-2",
            f"a str with {head.hex(' ')}",
            whole(_header_of(long).replace(short, head + b"x" * len(short))),
        )
    for old, new in [("C46C", "C5006C"), ("C46C", "C60000006C")]:
        yield "MP-2", f"a bin with {new}", replaced(bytes.fromhex(old), bytes.fromhex(new))
    for head in map(bytes.fromhex, ["DC0002", "DD00000002"]):
        yield (
            "MP-2",
            f"an array of 2 with {head.hex(' ')}",
            replaced(VERSION, VERSION[:-3] + head + b"\x01\x00"),
        )
    for head in map(bytes.fromhex, ["DE0003", "DF00000003"]):
        yield "MP-2", f"a map of 3 with {head.hex(' ')}", whole(head + header[1:])
    yield from _long_counts()
    pairs = [b"\xa2aa\xa11", b"\xa1b\xa12"]
    yield "MP-3", "keys in the order of their lengths", replaced(b"".join(pairs), b"".join(pairs[::-1]))
    yield "MP-3", "a key twice", replaced(b"".join(pairs), pairs[0] + pairs[0])
    yield (
        "MP-3",
        "keys of an entry out of order",
        replaced(b"\xa5depth\x02\xa5dtype\xa3F32", b"\xa5dtype\xa3F32\xa5depth\x02"),
    )
    units = [dumps(key) + b"\xa0" for key in ("\U0001f600", "\uff5e")]
    yield "MP-3", "keys in the order of UTF-16", replaced(b"".join(pairs), b"".join(units))
    for key in map(bytes.fromhex, ["01", "C40162", "90", "80"]):
        yield "MP-3", f"the key {key.hex(' ')}", replaced(pairs[1], key + b"\xa12")
    for text in [
        "C3",
        "C080",
        "EDA080",
        "EDBFBF",
        "F4908080",
        "80",
        "F5808080",
        "E28280E282",
        "FF",
        "F0808080",
    ]:
        raw = bytes.fromhex(text)
        yield "MP-4", f"a value of the bytes {text}", replaced(b"\xa12", bytes([0xA0 + len(raw)]) + raw)
        yield (
            "MP-4",
            f"a key of the bytes {text}",
            replaced(b"\xa1b\xa12", bytes([0xA0 + len(raw)]) + raw + b"\xa12"),
        )
    for kept in (1, 2, 10, len(header) // 2, len(header) - 1):
        yield "MP-5", f"the header cut off after {kept} bytes", whole(header[:kept])
    yield "MP-5", "a byte after the header's value", whole(header + b"\x00")
    yield "MP-5", "the header twice", whole(header + header)
    for claim in ["DB00100000", "DAFFFF", "D9FF"]:
        yield (
            "MP-5",
            f"a str that claims more than there is: {claim}",
            whole(header[:10] + b"\x81\xa1a" + bytes.fromhex(claim)),
        )
    yield "MP-6", "arrays nested 9 deep", nested(9)
    yield "MP-6", "arrays nested 100,000 deep", _unknown(b"\x91" * 100_000 + b"\x00")


def _long_counts() -> Iterator[Case]:
    """The greatest count of each shorter form in the next longer one, as the value of an unknown key."""
    keys = {f"{i:05}": 0 for i in range(65535)}
    for head, value in {"DC000F": [0] * 15, "DD0000000F": [0] * 15, "DD0000FFFF": [0] * 65535}.items():
        yield "MP-2", f"an array with {head}", _unknown(bytes.fromhex(head) + bytes(len(value)))
    for head, count in {"DE000F": 15, "DF0000000F": 15, "DF0000FFFF": 65535}.items():
        pairs = b"".join(dumps(key) + b"\x00" for key in list(keys)[:count])
        yield "MP-2", f"a map with {head}", _unknown(bytes.fromhex(head) + pairs)
    for head, size in {"C500FF": 255, "C6000000FF": 255, "C60000FFFF": 65535}.items():
        yield "MP-2", f"a bin with {head}", _unknown(bytes.fromhex(head) + bytes(size))


def _unknown(value: bytes) -> bytes:
    """A file of version 1.1 with the bytes of a *value* for an unknown key, the last in its header."""
    header = dumps(parts()[0] | {"version": [1, 1], "x": 0})
    return whole(header[:-1] + value, minor=1)


def _header_of(body: bytes) -> bytes:
    """The header at the start of what follows a preamble."""
    parser = independent.Parser(body)
    parser.value()
    return body[: parser.at]


def _types() -> Iterator[Case]:
    values: dict[str, Any] = {"an integer": 1, "a str": "x", "a bin": b"x", "an array": [], "a map": {}}
    kinds = {int: "an integer", str: "a str", bytes: "a bin", list: "an array", dict: "a map"}
    header, _ = parts()
    for name, value in values.items():
        if name != "a map":
            yield "TYPE-1", f"{name} for the header", whole(dumps(value))
            yield (
                "TYPE-1",
                f"{name} for an entry",
                top("tensors", [value]),
            )
        for key in header:
            if kinds[type(header[key])] != name:
                yield (
                    "TYPE-1",
                    f"{name} for {key}",
                    top(key, value),
                )
        for number in (TRIT, RAW):
            for key, old in header["tensors"][number].items():
                if kinds[type(old)] != name:
                    kind = header["tensors"][number]["kind"]
                    yield "TYPE-1", f"{name} for {key} of a {kind} entry", field(key, value, number)
        if name != "an integer":
            yield "TYPE-1", f"{name} for an axis", field("shape", [7, value])
            yield (
                "TYPE-1",
                f"{name} for the major version",
                top("version", [value, 0]),
            )
        if name != "a bin":
            yield (
                "TYPE-1",
                f"{name} for a digest",
                field("sha256", [value, *header["tensors"][TRIT]["sha256"][1:]]),
            )
        if name != "a str":
            yield "TYPE-1", f"{name} for a metadata value", with_metadata({"a": value})
    for version in ([], [1], [1, 0, 0]):
        yield "TYPE-1", f"the version {version}", top("version", version)


def _header() -> Iterator[Case]:
    for key in ("metadata", "tensors", "version"):
        yield "HDR-1", f"no {key}", without(key)
    yield "HDR-1", "an empty map", whole(b"\x80", [])
    for version in ([1, 1], [2, 0], [0, 0], [1, 2**64 - 1]):
        yield (
            "HDR-2",
            f"version {version} in a file 1.0",
            top("version", version),
        )
    yield "HDR-2", "version 1.0 in a file 1.1", preamble(minor=1)
    for names in (
        ["b", "a"],
        ["a", "a"],
        ["b", "aa"],
        ["\U0001f600", "\uff5e"],
        ["é", "e\u0301"],
        ["a", "B"],
    ):
        yield "HDR-3", f"names in the order {names}", named(names)
    # No file breaks HDR-4 alone: 2^20 entries take more than the 64 MiB of PRE-5. By READ-1 it comes first.
    many = b"tensors\xdd" + (2**20 + 1).to_bytes(4, "big") + bytes(2**20 + 1)  # `dumps` takes a second for it
    empty = dumps(parts()[0] | {"tensors": []})
    yield "HDR-4", "2^20 + 1 entries", whole(empty.replace(b"tensors\x90", many))
    yield "HDR-5", "1,025 pairs", with_metadata({f"{i:04}": "" for i in range(1025)})
    yield "HDR-6", "a value of 2^20 + 1 bytes", with_metadata({"a": "x" * (2**20 + 1)})
    yield "HDR-6", "a value of 2^19 + 1 characters of 2 bytes", with_metadata({"a": "é" * (2**19 + 1)})
    for text, why in [("", "empty"), ("x" * 513, "513 bytes long"), ("é" * 257, "257 characters of 2 bytes")]:
        yield "NAME-1", f"a name that is {why}", named([text])
        yield "NAME-1", f"a metadata key that is {why}", with_metadata({text: ""})
    for code in (0x00, 0x0A, 0x1B, 0x1F, 0x7F, 0x80, 0x9F, 0x2028, 0x202E, 0x2066, 0x2069, 0xFEFF):
        yield "NAME-2", f"a name with U+{code:04X}", named([f"x{chr(code)}y"])
        yield "NAME-2", f"a metadata key with U+{code:04X}", with_metadata({chr(code): ""})
    yield "VER-1", "an unknown key in the header", top("x", 0)
    for number, kind in ((TRIT, "trit"), (RAW, "raw")):
        yield "VER-1", f"an unknown key in a {kind} entry", field("x", 0, number)
    yield "VER-1", "a key of trit entries in a raw entry", field("depth", 1, RAW)


def _entries() -> Iterator[Case]:
    for number, kind in ((TRIT, "trit"), (RAW, "raw")):
        for key in independent.FIELDS[kind]:
            yield (
                "ENT-1",
                f"a {kind} entry without {key}",
                without(key, number),
            )
        for other in ("", "Raw", "trits"):
            yield "ENT-2", f"a {kind} entry of the kind {other!r}", field("kind", other, number)
    digests = parts()[0]["tensors"][TRIT]["sha256"]
    for count in (0, 3, 4, 6, 7, 8):
        yield "ENT-3", f"{count} digests for 5 segments", field("sha256", (digests * 2)[:count])
    for size in (0, 31, 33):
        yield "ENT-3", f"a digest of {size} bytes", field("sha256", [*digests[:4], bytes(size)])
        yield "ENT-3", f"a digest of {size} bytes for a raw tensor", field("sha256", bytes(size), RAW)
    for dtype in ("", "f32", "F8", "F32 ", "C128", "F4", "float32"):
        yield "RAW-1", f"a raw tensor of dtype {dtype!r}", field("dtype", dtype, RAW)


def _tensors() -> Iterator[Case]:
    for number, kind in ((TRIT, "trit"), (RAW, "raw")):
        yield "SHAPE-1", f"a {kind} tensor of rank 9", field("shape", [1] * 9, number)
        for shape in ([2**48 + 1], [2**24, 2**24, 2], [2**32, 2**32], [2**63, 2], [2**64 - 1] * 8):
            yield "SHAPE-2", f"a {kind} tensor of shape {shape}", field("shape", shape, number)
    yield "SHAPE-2", "a shape beyond the limit with an axis of 0", field("shape", [0, 2**24, 2**25], RAW)
    for shape in ([], [0], [0, 40], [7, 0], [2, 0, 3]):
        yield "TEN-1", f"a trit tensor of shape {shape}", field("shape", shape)
    for depth in (0, 5, 255, 2**64 - 1):
        yield "TEN-2", f"depth {depth}", field("depth", depth)
    for shift in (3, 4, 2**64 - 1):
        yield "TEN-3", f"depth 2 with shift {shift}", field("shift", shift)
    for size in (0, 65537, 2**32, 2**64 - 1):
        yield "TEN-4", f"group size {size}", field("group_size", size)
    for dtype in ("F64", "U8", "", "f32"):
        yield "TEN-5", f"a trit tensor of dtype {dtype!r}", field("dtype", dtype)


def _codebooks() -> Iterator[Case]:
    for size in (0, 104, 107, 109, 112):
        yield "CB-1", f"a codebook of {size} bytes", field("codebook", bytes(size))
    bad = {"0": 0, "-0": 0x80000000, "infinite": 0x7F800000, "-infinite": 0xFF800000, "a NaN": 0x7FC00000}
    bad |= {"a signalling NaN": 0x7F800040, "a negative NaN": 0xFFC00000, "the largest subnormal": 0x007FFFC0}
    for why, pattern in bad.items():
        yield "CB-2", f"a last step that is {why}", with_step(26, pattern)
    for why in ("0", "-0", "the largest subnormal"):
        yield "CB-2", f"a first step that is {why}", with_step(0, bad[why])
    yield "CB-2", "a negative step", with_step(0, STEPS["plain"][0] + 0x80000000)
    for index in (1, 13, 26):
        yield "CB-3", f"step {index} as large as the one before", with_step(index, STEPS["plain"][index - 1])
        yield (
            "CB-3",
            f"step {index} smaller than the one before",
            with_step(index, STEPS["plain"][index - 1] - 64),
        )
    yield "CB-3", "the steps the other way round", with_steps(list.reverse)
    for index in (0, 13, 26):
        for bit in (0, 5):
            yield "CB-4", f"bit {bit} of step {index}", with_step(index, STEPS["plain"][index] + (1 << bit))
    # The least multiples of 64 that are too large for depth 2, H = 4: 2^126, 16380 and (2^128 - 2^119) / 4.
    for dtype, pattern in (("F32", 0x7E800000), ("F16", 0x467FF000), ("BF16", 0x7E7F8000)):
        yield "CB-5", f"a largest value too large for {dtype}", with_step(26, pattern, dtype)


def _layout() -> Iterator[Case]:
    header, content = parts()
    size = len(dumps(header))
    segments, end = layout(size, header["tensors"])
    places = {
        "after the header": 64 + size,
        "before the first segment": segments[0].offset - 1,
        "at the end": end - 1,
    }
    places |= {f"after segment {i}": s.offset + s.size for i, s in enumerate(segments)}
    for why, at in places.items():
        yield "LAY-3", f"a byte of 1 {why}", patched(at, 1)
    yield "LAY-4", "64 zeros after the last segment", seal(dumps(header), [*content, b"", bytes(64)])
    yield "LAY-4", "the last segment missing", seal(dumps(header), content[:-1])
    unpadded = independent.parse(dumps(header))
    file = seal(dumps(unpadded), content)[:-1]
    yield "LAY-4", "the last zero missing", file[:24] + struct.pack("<Q", len(file)) + file[32:]
    yield "LAY-4", "a claim of 2^48 elements", field("shape", [2**24, 2**24])
    yield (
        "LAY-4",
        "a claim of 2^48 groups",
        changed(lambda h: h["tensors"][TRIT].update(shape=[2**48], group_size=1)),
    )
    entry = entry_of("x", Raw([0], "F64", b""))[0] | {"shape": [2**48]}
    huge = {"metadata": {}, "version": [1, 0], "tensors": [entry | {"name": f"{i:04}"} for i in range(4096)]}
    yield "LAY-5", "4,096 tensors of 2^51 bytes", whole(huge, [])


def _segments() -> Iterator[Case]:
    header, content = parts()
    segments, _ = layout(len(dumps(header)), header["tensors"])
    for i, s in enumerate(segments):
        where = f"tensor {s.entry['name']} segment {s.index}"
        yield "SEG-1", f"a trit or bit of {where}", patched(s.offset, content[i][0] ^ 1)
        if s.entry["kind"] == "trit":
            yield "SEG-1", f"another digest for {where}", _other_digest(s.entry["name"], s.index)
            for byte in (243, 255):
                for at in sorted({0, s.size - 1}):
                    yield "PACK-2", f"byte {at} of {where} is {byte}", segment(i, at, byte)
            # The last byte row of `a` holds 2 rows of 5, that of `c` 4: digits 2 to 4, or 4, are to be 1.
            used = 3 ** (s.entry["shape"][0] % 5)
            for byte in sorted({121 - used, 121 + used, 121 - 81, 121 + 81, 0, 242}):
                yield "PACK-3", f"the padding of {where} with {byte}", segment(i, s.size - 1, byte)
    swapped = list(content)
    swapped[2], swapped[3] = swapped[3], swapped[2]
    yield "SEG-1", "two code planes that have changed places", whole(header, swapped)
    for byte in (2, 0x7F, 0xFF):
        yield "RAW-2", f"the boolean {byte}", segment(1, 2, byte)


def _several() -> Iterator[Case]:
    """Files with several faults, of which chapter 9 says which is named."""
    depth = b"\xa5depth\x02"
    yield "MP-1", "nil for the depth", replaced(depth, b"\xa5depth\xc0")
    yield "MP-2", "a str in a long form for the depth", replaced(depth, b"\xa5depth\xd9\x01x")
    yield "MP-4", "a str that is not UTF-8 for the depth", replaced(depth, b"\xa5depth\xa1\xff")
    yield "MP-4", "a name of 600 bytes that is not UTF-8", replaced(b"\xa1B", b"\xda\x02\x58" + b"\xff" * 600)
    yield "MP-5", "a bin cut off for the depth", replaced(depth, b"\xa5depth\xc6\xff\xff\xff\xff")
    yield (
        "MP-6",
        "arrays nested too deep for the depth",
        replaced(depth, b"\xa5depth" + b"\x91" * 6 + b"\x00"),
    )
    for key, value in (("depth", "x"), ("depth", 9), ("name", ""), ("codebook", b""), ("shape", [1] * 9)):
        faults = {"without its shift": "ENT-1", "with another key": "VER-1", "of another kind": "ENT-2"}
        for why, clause in faults.items():
            yield (
                clause,
                f"an entry {why}, and {key} {value!r}",
                changed(functools.partial(_spoil, why, key, value)),
            )
    yield "HDR-4", "an array32 that claims 2^32 - 1 entries", replaced(b"s\x94", b"s\xdd\xff\xff\xff\xff")
    yield "HDR-5", "a map32 that claims 2^32 - 1 pairs", replaced(b"data\x82", b"data\xdf\xff\xff\xff\xff")


def _spoil(why: str, key: str, value: Any, header: Header) -> None:
    entry = header["tensors"][TRIT]
    entry[key] = value
    if why == "without its shift":
        del entry["shift"]
    else:
        entry.update({"z": 0} if why == "with another key" else {"kind": "other"})


def _other_digest(name: str, index: int) -> bytes:
    def change(header: Header) -> None:
        entry = next(entry for entry in header["tensors"] if entry["name"] == name)
        entry["sha256"][index] = bytes(32)

    return changed(change)


def undamaged() -> Iterator[tuple[str, bytes]]:
    """Valid files at the limits, and of a newer minor version."""
    yield "the file that gets damaged", whole()
    yield "no tensors", named([])
    yield "names of 1 and 512 bytes", named(["x", "x" * 512])
    yield "a name of 256 characters of 2 bytes", named(["é" * 256])
    yield "twins in case and normal form", named(["A", "a", "e\u0301", "é"])
    yield "names that would be paths or options", named(["--help", "../x", "/", "C:\\x"])
    for code in (0x20, 0x7E, 0xA0, 0x2027, 0x202F, 0x2065, 0x206A, 0xFEFE, 0x1F600):
        yield f"a name with U+{code:04X}", named([chr(code)])
    yield "names in the order of UTF-8, not UTF-16", named(["\uff5e", "\U0001f600"])
    yield "1,024 pairs", with_metadata({f"{i:04}": "" for i in range(1024)})
    yield "a value of 2^20 bytes", with_metadata({"a": "x" * 2**20})
    yield "a value of control characters", with_metadata({"a": "\0\x1b[31m\u202e"})
    for length in (31, 32, 255, 256, 65535, 65536):
        yield f"a value of {length} bytes", with_metadata({"a": "x" * length})
    for count in (15, 16, 17):
        yield f"{count} pairs", with_metadata({f"{i:02}": "" for i in range(count)})
        yield f"{count} tensors", named([f"{i:02}" for i in range(count)])
    yield (
        "raw tensors of rank 8 and 0",
        independent.write({"a": Raw([1] * 8, "U8", b"x"), "b": Raw([], "U8", b"x")}),
    )
    yield "an axis of 2^48 next to one of 0", independent.write({"a": Raw([2**48, 0], "C64", b"")})
    for size in (1, 65536):
        yield f"group size {size}", independent.write({"a": painted_trit([2, 3], 1, group_size=size)})
    for depth in range(1, 5):
        for shift in range(5 - depth):
            yield f"depth {depth}, shift {shift}", independent.write({"a": painted_trit([1], depth, shift)})
    # The greatest steps that fit: a multiple of 64 below those of CB-5.
    for dtype, pattern in (("F32", 0x7E7FFFC0), ("F16", 0x467FEFC0), ("BF16", 0x7E7F7FC0)):
        yield f"a largest value just small enough for {dtype}", with_step(26, pattern, dtype)
    yield "arrays nested 8 deep in a file 1.1", nested(8)
    yield "a file 1.65535", top("version", [1, 65535], minor=65535)
    for key, value in [("a", b"x" * 300), ("zz", {"b": {"c": [0, 2**64 - 1]}}), ("shapf", "\0")]:
        yield (
            f"the unknown key {key} in a header 1.1",
            top(key, value, minor=1),
        )
        for number in (TRIT, RAW):
            yield f"the unknown key {key} in entry {number} of a file 1.1", field(key, value, number, minor=1)
    for key in ("codebook", "depth", "group_size", "shift"):
        yield f"the key {key}, unknown in raw entries, in one of a file 1.1", field(key, "new", RAW, minor=1)
