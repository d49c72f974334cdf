"""The files in fixtures/, beyond those of `damaged`: one fault each, or valid ones; made without the package.

`cases()` gives Case(id, clause, why, bytes): the clause is None for a valid file, and
the id is chapter/case. The chapters are those of SPEC.md, in its order. Sizes are written from the
limits (5k-1, 5k, 5k+1) and content is painted by the rules of `painted`.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import damaged
import independent
from independent import Entry, Raw, Trit, align, dumps, dumps_head, layout, parts_of, planes_from, seal
from painted import STEPS, painted, painted_trit

Header = dict[str, Any]


class Case(NamedTuple):
    """A file, and the requirement that it breaks."""

    id: str
    clause: str | None
    why: str
    data: bytes


CHAPTER_OF = {  # of a clause, by the letters of its id
    **dict.fromkeys(["PRE"], "preamble"),
    **dict.fromkeys(["MP"], "messagepack"),
    **dict.fromkeys(["TYPE"], "types"),
    **dict.fromkeys(["HDR"], "header"),
    **dict.fromkeys(["NAME"], "names"),
    **dict.fromkeys(["ENT", "RAW"], "entries"),
    **dict.fromkeys(["SHAPE", "TEN"], "tensors"),
    **dict.fromkeys(["CB"], "codebook"),
    **dict.fromkeys(["LAY"], "layout"),
    **dict.fromkeys(["SEG"], "digests"),
    **dict.fromkeys(["PACK"], "packing"),
    **dict.fromkeys(["VER"], "versions"),
}
SEVERAL = "order"  # the chapter of files with several faults, of which SPEC 9 says which is named
FORMS = [(depth, shift) for depth in range(1, 5) for shift in range(5 - depth)]
ROWS_PER_BYTE = 5
ZERO_BYTE = 121  # five trits of 0
MAX_BYTE = 242  # five trits of +1
NO_TENSORS: Header = {"metadata": {}, "tensors": [], "version": [1, 0]}
EMPTY = seal(dumps(NO_TENSORS), [])  # appendix A: header in bytes 64..94, file of 128
ONE: dict[str, Trit | Raw] = {"w": painted_trit([3], 1)}  # the smallest trit tensor that has padding


def slug(why: str) -> str:
    """A file name from the words of *why*."""
    words = re.sub(r"(?<![0-9A-Za-z])-(?=[0-9a-z])", "minus ", why)
    words = words.replace("\U0001f600", "U+1F600").replace("\uff5e", "U+FF5E").replace("e\u0301", "NFD")
    words = words.replace("é", "NFC").replace("''", "nothing").replace("32 '", "32 space'")
    words = words.replace("'B'", "capital B").replace("'Raw'", "capital Raw").replace("^", " ")
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


# Files of `damaged` that take more room than they are worth; others break the same rules in the same way.
LEFT_OUT = {
    "2^20 + 1 entries",
    "a value of 2^20 bytes",  # the runner makes these two
    "a value of 2^20 + 1 bytes",
    "a value of 2^19 + 1 characters of 2 bytes",
    "a map with DF0000FFFF",
    "an array with DD0000FFFF",
    "a bin with C60000FFFF",
    "a str with db 00 00 ff ff",
    "4,096 tensors of 2^51 bytes",  # there is one of 8,192
    "a value of 65535 bytes",  # there are strs of these sizes
    "a value of 65536 bytes",
    "no tensors",  # appendix A of SPEC.md
}


def cases() -> Iterator[Case]:
    """All files."""
    several = {why for _, why, _ in damaged._several()}
    for clause, why, data in damaged.damaged():
        if why in LEFT_OUT:
            continue
        chapter = SEVERAL if why in several else CHAPTER_OF[clause.partition("-")[0]]
        yield Case(f"{chapter}/{slug(why)}", clause, why, data)
    for why, data in damaged.undamaged():
        if why in LEFT_OUT:
            continue
        yield Case(f"limits/{slug(why)}", None, why, data)
    for chapter, make in CHAPTERS.items():
        for broken, name, why, data in make():
            yield Case(f"{chapter}/{name}", broken, why, data)


Made = Iterator[tuple[str | None, str, str, bytes]]  # clause, name, why, bytes


def edited(
    tensors: dict[str, Trit | Raw],
    change: Callable[[Header, list[bytes]], object],
    minor: int = 0,
    repair: bool = False,
) -> bytes:
    """A file of *tensors* whose header and segments were changed; *repair* makes the digests fit."""
    header, content = parts_of(tensors, {})
    header["version"] = [1, minor]
    change(header, content)
    if repair:
        for segment, bytes_ in zip(layout(0, header["tensors"])[0], content, strict=True):
            set_digest(segment.entry, segment.index, hashlib.sha256(bytes_).digest())
    return seal(dumps(header), content, (1, minor))


def set_digest(entry: Entry, index: int, digest: bytes) -> None:
    """Put *digest* where that of segment *index* stands."""
    if entry["kind"] == "raw":
        entry["sha256"] = digest
    else:
        entry["sha256"][index] = digest


def with_fields(data: bytes, **fields: Any) -> bytes:
    """*data* with other fields in its preamble."""
    names = ["magic", "major", "minor", "flags", "size", "length", "digest"]
    known = dict(zip(names, struct.unpack(independent.PREAMBLE, data[:64]), strict=True))
    return struct.pack(independent.PREAMBLE, *(known | fields).values()) + data[64:]


def with_length(data: bytes) -> bytes:
    """*data* with its length in the preamble."""
    return with_fields(data, length=len(data))


def replaced(data: bytes, at: int, *values: int) -> bytes:
    """*data* with other bytes from *at* on, and nothing made to fit."""
    return data[:at] + bytes(values) + data[at + len(values) :]


def newer(value: bytes) -> bytes:
    """A file 1.1 with the bytes of a *value* for the unknown key x, the last in its header."""
    return seal(dumps(NO_TENSORS | {"version": [1, 1], "x": 0})[:-1] + value, [], (1, 1))


def entry_changed(key: str, value: Any, tensors: dict[str, Trit | Raw] = ONE) -> bytes:
    """A file with another *value* in its first entry."""
    return edited(tensors, lambda header, _: header["tensors"][0].update({key: value}))


def in_header(old: bytes, new: bytes, tensors: dict[str, Trit | Raw] = ONE) -> bytes:
    """A file with *new* for the only *old* in the bytes of its header."""
    header, content = parts_of(tensors, {})
    encoded = dumps(header)
    if encoded.count(old) != 1:
        raise ValueError(f"{old!r} stands {encoded.count(old)} times in the header")
    return seal(encoded.replace(old, new), content)


# 6.1


def _preamble() -> Made:
    data = EMPTY
    for at in range(8):
        yield (
            "PRE-2",
            f"magic-byte-{at}-low-bit",
            f"the lowest bit of magic byte {at}",
            replaced(data, at, data[at] ^ 1),
        )
        yield "PRE-2", f"magic-byte-{at}-zero", f"magic byte {at} is 0", replaced(data, at, 0)
    yield from _as_text(data)
    yield from _renamed()
    for bit in set(range(32)) - {0, 15, 31}:
        yield (
            "PRE-4",
            f"flag-bit-{bit}",
            f"flag {bit}: a feature that must not be ignored",
            with_fields(data, flags=1 << bit),
        )
    yield "PRE-4", "all-flags", "all flags", with_fields(data, flags=2**32 - 1)
    for major, why in {3: "two majors ahead", 0x0100: "1 in big-endian", 0x0101: "1 in both bytes"}.items():
        yield "PRE-3", f"major-{major}", f"major version {major}: {why}", with_fields(data, major=major)
    yield (
        "PRE-3",
        "major-0-minor-1",
        "version 0.1: major and minor changed places",
        with_fields(data, major=0, minor=1),
    )
    yield (
        "HDR-2",
        "minor-big-endian",
        "minor version 1 in big-endian: 256",
        with_fields(newer(b"\0"), minor=256),
    )
    size = 31
    for claimed in (2**31, 2**32 + size, size << 56, 2**63 + size, 2**26 + 2**20):
        yield (
            "PRE-5",
            f"header-size-{claimed}",
            f"header size {claimed}, of which a part is right",
            with_fields(data, size=claimed),
        )
    for claimed in (65, 2**26 - 1):
        yield (
            "PRE-7",
            f"header-size-{claimed}",
            f"header size {claimed} in a file of 128 bytes",
            with_fields(data, size=claimed),
        )
    for claimed in (size - 1, size + 1, 1, 64):
        yield (
            "PRE-8",
            f"header-size-{claimed}",
            f"header size {claimed}: not the bytes of the digest",
            with_fields(data, size=claimed),
        )
    for claimed in (127, 129, 64, 128 << 56, 2**32 + 128, 2**63 + 128):
        yield (
            "PRE-6",
            f"file-size-{claimed}",
            f"file size {claimed} in a file of 128 bytes",
            with_fields(data, length=claimed),
        )
    for at in range(32, 63):
        yield (
            "PRE-8",
            f"digest-byte-{at - 32}",
            f"byte {at - 32} of the header's digest",
            replaced(data, at, data[at] ^ 0x10),
        )
    others = {
        "empty": b"",
        "padded-header": data[64:128],
        "file": data,
        "body-without-first-byte": data[65:95],
    }
    for name, of in others.items():
        yield (
            "PRE-8",
            f"digest-of-{name}",
            f"the digest of something else: {name}",
            with_fields(data, digest=hashlib.sha256(of).digest()),
        )
    yield "PRE-8", "digest-zero", "a digest of zeros", with_fields(data, digest=bytes(32))
    words = struct.unpack(">8I", data[32:64])
    yield (
        "PRE-8",
        "digest-words-swapped",
        "a digest of little-endian words",
        with_fields(data, digest=struct.pack("<8I", *words)),
    )
    yield from _truncated(data)


def _as_text(data: bytes) -> Made:
    """What transfers as text do to a file."""
    damage: dict[str, tuple[str, bytes]] = {
        "crlf-to-lf": ("PRE-2", data.replace(b"\r\n", b"\n")),
        "lf-to-crlf": ("PRE-2", data.replace(b"\n", b"\r\n")),
        "cr-to-lf": ("PRE-2", data.replace(b"\r", b"\n")),
        "cut-at-control-z": ("PRE-1", data[: data.index(0x1A)]),
        "high-bits-stripped": ("PRE-2", bytes(byte & 0x7F for byte in data)),
        "latin-1-as-utf-8": ("PRE-2", data.decode("latin-1").encode()),
        "replacement-characters": ("PRE-2", data.decode("utf-8", "replace").encode()),
        "byte-order-mark": ("PRE-2", b"\xef\xbb\xbf" + data),
        "leading-line-feed": ("PRE-2", b"\n" + data),
        "without-nul": ("PRE-3", data.replace(b"\0", b"") + b"\n" * 64),
        "pairs-swapped": ("PRE-2", bytes(data[at ^ 1] for at in range(len(data)))),
        "lower-case": ("PRE-2", data.replace(b"TRIT", b"trit")),
        "hexadecimal": ("PRE-2", data.hex().encode()),
    }
    for name, (clause, bytes_) in damage.items():
        fit = bytes_ if clause == "PRE-1" else bytes_.ljust(128, b"\n")
        yield (
            clause,
            f"text-mode-{name}",
            f"text-mode damage: {name.replace('-', ' ')}",
            fit if name == "without-nul" else bytes_,
        )


def _renamed() -> Made:
    """The beginnings of other formats, with the name of this one."""
    header = b'{"w":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}'
    heads = {
        "gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
        "ggml": b"lmgg" + struct.pack("<I", 1),
        "safetensors": struct.pack("<Q", len(header)) + header,
        "npy": b"\x93NUMPY\x01\0\x76\0{'descr': '|u1', 'fortran_order': False, 'shape': (8,), }",
        "zip": b"PK\x03\x04\x14\0\0\0\0\0",
        "gzip": b"\x1f\x8b\x08\0",
        "zstd": b"\x28\xb5\x2f\xfd",
        "pickle": b"\x80\x02}q\0.",
        "hdf5": b"\x89HDF\r\n\x1a\n",
        "png": b"\x89PNG\r\n\x1a\n",
        "elf": b"\x7fELF\x02\x01\x01",
        "html": b"<!DOCTYPE html>\n<title>404 Not Found</title>\n",
        "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
        + b"0" * 64
        + b"\nsize 128\n",
        "zeros": b"",
    }
    for name, head in heads.items():
        yield "PRE-2", f"renamed-{name}", f"{name} with the name of a .trit file", head.ljust(128, b"\0")


def _truncated(data: bytes) -> Made:
    """A sample of truncations; a test does all."""
    for size in (1, 6, 8, 9, 12, 16, 24, 32, 33):
        yield "PRE-1", f"cut-to-{size}", f"a file cut to {size} bytes", data[:size]
    for size in (64, 65, 94, 95, 96):
        yield "PRE-6", f"cut-to-{size}", f"a file cut to {size} bytes", data[:size]
    for size, clause in {64: "PRE-7", 65: "PRE-7", 94: "PRE-7", 95: "LAY-4", 127: "LAY-4"}.items():
        yield (
            clause,
            f"cut-to-{size}-with-its-size",
            f"a file cut to {size} bytes that says so",
            with_length(data[:size]),
        )
    whole = independent.write(ONE)
    for index, segment in enumerate(independent.open_file(whole)[1]):
        cut = whole[: segment.offset]
        yield "PRE-6", f"cut-before-segment-{index}", f"a file cut off before segment {index}", cut
        yield (
            "LAY-4",
            f"cut-before-segment-{index}-with-its-size",
            f"a file cut off before segment {index} that says so",
            with_length(cut),
        )


# 6.2

STRINGS = {  # that are not UTF-8; damaged.py has more
    "overlong-2-byte-slash": "C0AF",
    "overlong-3-byte-slash": "E080AF",
    "overlong-4-byte-slash": "F08080AF",
    "overlong-last-2-byte": "C1BF",
    "overlong-last-3-byte": "E09FBF",
    "overlong-last-4-byte": "F08FBFBF",
    "modified-nul": "61C08062",
    "surrogate-pair": "EDA0BDEDB880",
    "high-surrogate-last": "EDAFBF",
    "low-surrogate-first": "EDB080",
    "five-bytes": "F888808080",
    "six-bytes": "FC8480808080",
    "cut-after-1-of-3": "61E2",
    "cut-after-2-of-3": "61E282",
    "cut-after-3-of-4": "61F09F98",
    "no-continuation": "C341",
    "lone-continuation": "6180",
    "latin-1": "47E9",
    "utf-16-mark": "FFFE6100",
    "above-10ffff": "F4908080",
    "fe": "61FE",
}


def _messagepack() -> Made:
    header = EMPTY[64:95]
    for kept in set(range(1, 31)) - {1, 2, 10}:
        yield (
            "MP-5",
            f"header-of-31-cut-to-{kept}",
            f"a header cut off after {kept} of 31 bytes",
            seal(header[:kept], []),
        )
    for first, (_, width, _) in sorted(independent.WIDE.items()):
        yield (
            "MP-5",
            f"head-{first:02x}-cut-off",
            f"a header that ends in a head of {first:02X}, after {width} of its {width + 1} bytes",
            newer(bytes([first]) + b"\xff" * (width - 1)),
        )
    for name, rest in {"nil": b"\xc0", "empty-map": b"\x80", "line-feed": b"\n", "zeros": bytes(33)}.items():
        yield "MP-5", f"trailing-{name}", f"{name} after the header's value", seal(header + rest, [])
    for first in [*range(0xD4, 0xD9), *range(0xC7, 0xCA), *range(0xE0, 0x100), 0xC1, 0xC2, 0xC3, 0xC0]:
        yield (
            "MP-1",
            f"first-byte-{first:02x}-for-an-unknown-key",
            f"a value that begins with {first:02X}",
            newer(bytes([first]) + bytes(20)),
        )
    for first in (0xC0, 0xC1, 0xC2, 0xCA, 0xD6, 0xFF):
        value = bytes([first]) + bytes(20)
        yield "MP-1", f"header-{first:02x}", f"{first:02X} for the header", seal(value, [])
        yield (
            "MP-1",
            f"key-{first:02x}",
            f"{first:02X} for a key",
            seal(b"\x84" + value + header[1:], []),
        )
        for key in ("name", "kind", "codebook", "shape"):
            yield (
                "MP-1",
                f"{key}-{first:02x}",
                f"{first:02X} for {key}",
                in_header(_field(key), dumps(key) + value),
            )
    yield "MP-1", "true-for-the-depth", "true, which some languages count as 1", _for_depth(b"\xc3")
    yield (
        "MP-1",
        "float-for-the-depth",
        "1.0, which some languages count as 1",
        _for_depth(b"\xca\x3f\x80\0\0"),
    )
    yield "MP-1", "int8-for-the-depth", "a positive number as int 8", _for_depth(b"\xd0\x01")
    yield "MP-1", "timestamp-for-the-depth", "a timestamp", _for_depth(b"\xd6\xff\0\0\0\x01")
    for name, value in {"minus-1": b"\xff", "minus-2-63": b"\xd3\x80" + bytes(7)}.items():
        for key, head in {"shape": b"\x91", "shift": b"", "group_size": b"", "depth": b""}.items():
            yield (
                "MP-1",
                f"{name}-in-{key.replace('_', '-')}",
                f"a negative number in {key}",
                in_header(_field(key), dumps(key) + head + value),
            )
    for name, byte in {"str32": 0xDB, "bin32": 0xC6, "array32": 0xDD, "map32": 0xDF}.items():
        yield (
            "MP-5",
            f"{name}-of-4-gib",
            f"a {name} that claims 4 GiB and has nothing",
            newer(bytes([byte]) + b"\xff" * 4),
        )
    yield (
        "MP-5",
        "header-map32-of-4-gi",
        "a map32 of 2^32 - 1 pairs for the header",
        seal(b"\xdf" + b"\xff" * 4, []),
    )
    yield from _lengths()
    yield from _key_order()
    yield from _nesting()
    for name, text in STRINGS.items():
        raw = bytes.fromhex(text)
        head = dumps_head(str, len(raw))
        yield "MP-4", f"name-{name}", f"a name of the bytes {text}", in_header(b"\xa1w", head + raw)
        yield (
            "MP-4",
            f"metadata-key-{name}",
            f"a metadata key of the bytes {text}",
            seal(header.replace(b"\x80", b"\x81" + head + raw + b"\xa0", 1), []),
        )
        yield (
            "MP-4",
            f"metadata-value-{name}",
            f"a metadata value of the bytes {text}",
            seal(header.replace(b"\x80", b"\x81\xa1a" + head + raw, 1), []),
        )


def _field(key: str) -> bytes:
    """The bytes of a key and its value in the entry of ONE."""
    return dumps(key) + dumps(parts_of(ONE, {})[0]["tensors"][0][key])


def _for_depth(value: bytes) -> bytes:
    return in_header(b"\xa5depth\x01", b"\xa5depth" + value)


def _lengths() -> Made:
    """Every integer and length at each boundary of its forms, right and in all longer forms."""
    bounds = [0, 1, 15, 16, 31, 32, 127, 128, 2**8 - 1, 2**8, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**64 - 1]
    for kind, name in {int: "integer", str: "str", bytes: "bin", list: "array", dict: "map"}.items():
        forms = [(first, wide[1]) for first, wide in independent.WIDE.items() if wide[0] is kind]
        for number in bounds:
            if (kind is not int and number > 2**16) or (kind is dict and number > 16):
                continue
            body = _body(kind, number)
            short = dumps_head(kind, number)
            yield None, f"{name}-{number}", f"{name} {number} in its shortest form", newer(short + body)
            for first, width in forms:
                head = bytes([first]) + (number % 256**width).to_bytes(width, "big")
                if number < 256**width and len(head) > len(short):
                    yield (
                        "MP-2",
                        f"{name}-{number}-in-{width}-bytes",
                        f"{name} {number} in {width} bytes",
                        newer(head + body),
                    )


def _body(kind: type, number: int) -> bytes:
    """What follows the head of a str, bin, array or map."""
    if kind is int:
        return b""
    if kind is dict:
        return b"".join(dumps(f"{index:02}") + b"\0" for index in range(number))
    return (b"x" if kind is str else b"\0") * number


def _key_order() -> Made:
    """Keys in other orders, and twice."""
    pairs = {key: dumps(key) + dumps(value) for key, value in NO_TENSORS.items()}
    for order in ("mvt", "tmv", "tvm", "vmt", "vtm"):
        keys = [next(key for key in pairs if key[0] == letter) for letter in order]
        yield (
            "MP-3",
            f"header-{'-'.join(keys)}",
            f"the header's keys in the order {', '.join(keys)}",
            seal(b"\x83" + b"".join(pairs[key] for key in keys), []),
        )
    for key in pairs:
        twice = [pairs[k] for k in pairs for _ in range(2 if k == key else 1)]
        yield (
            "MP-3",
            f"header-{key}-twice",
            f"the header's key {key} twice",
            seal(b"\x84" + b"".join(twice), []),
        )
    raw: dict[str, Trit | Raw] = {"w": Raw([1], "U8", b"x")}
    for kind, tensors in {"trit": ONE, "raw": raw}.items():
        header, content = parts_of(tensors, {})
        entry = header["tensors"][0]
        fields = [dumps(key) + dumps(entry[key]) for key in sorted(entry)]
        old = dumps(entry)
        for index, key in enumerate(sorted(entry)):
            again = [*fields[: index + 1], *fields[index:]]
            swapped = [*fields[:index], *fields[index : index + 2][::-1], *fields[index + 2 :]]
            new = dumps_head(dict, len(again)) + b"".join(again)
            yield (
                "MP-3",
                f"{kind}-entry-{key.replace('_', '-')}-twice",
                f"{key} twice in a {kind} entry",
                seal(dumps(header).replace(old, new), content),
            )
            if index + 1 < len(fields):
                new = dumps_head(dict, len(fields)) + b"".join(swapped)
                yield (
                    "MP-3",
                    f"{kind}-entry-{key.replace('_', '-')}-late",
                    f"{key} after its successor in a {kind} entry",
                    seal(dumps(header).replace(old, new), content),
                )
    wide = b"\xd9\x01b\xa12"
    yield (
        "MP-2",
        "key-twice-in-another-width",
        "a key twice, the second time in a longer form",
        seal(EMPTY[64:95].replace(b"\x80", b"\x82\xa1b\xa12" + wide, 1), []),
    )


def _nesting() -> Made:
    for name, head in {"arrays": b"\x91", "maps": b"\x81\xa1a"}.items():
        yield None, f"{name}-8-deep", f"{name} nested 8 deep with the header", newer(head * 7 + b"\0")
        for depth in (9, 10, 17, 100, 1000, 10_000):
            yield (
                "MP-6",
                f"{name}-{depth}-deep",
                f"{name} nested {depth} deep",
                newer(head * (depth - 1) + b"\0"),
            )
    both = b"\x91\x81\xa1a"
    yield "MP-6", "arrays-and-maps-9-deep", "arrays and maps by turns", newer(both * 4 + b"\x00")
    yield None, "arrays-and-maps-7-deep", "arrays and maps by turns", newer(both * 3 + b"\x00")
    yield (
        "MP-6",
        "empty-array-9-deep",
        "an empty array as the ninth level",
        newer(b"\x91" * 7 + b"\x90"),
    )


# 6.3 and 6.4


def _header() -> Made:
    pairs = {"metadata": "Metadata", "tensors": "tensor", "version": "versions"}
    for key, other in pairs.items():
        header = {other if k == key else k: value for k, value in NO_TENSORS.items()}
        header["version" if key != "version" else other] = [1, 1]
        yield "HDR-1", f"{key}-misspelt", f"{other} for {key} in a file 1.1", seal(dumps(header), [], (1, 1))
    for first, second in [("a", "a"), ("a.b", "a"), ("ab", "aa"), ("z", "Z"), ("é", "z"), ("a\u00a0", "a ")]:
        yield (
            "HDR-3",
            f"names-{slug(first)}-{slug(second)}-{(first + second).encode().hex()}",
            f"the name {second!r} after {first!r}",
            damaged.named([first, second, "\U0001f600"]),
        )
    three = ["a", "b", "c"]
    for order in ("acb", "bac", "cba", "abb", "cab", "bca"):
        yield "HDR-3", f"three-names-{order}", f"names in the order {order}", damaged.named(list(order))
    yield None, "three-names", "names in order", damaged.named(three)
    yield None, "prefix-first", "a name before those that it begins", damaged.named(["a", "a.b", "aa"])
    for minor in (1, 2, 255, 256, 65534):
        yield (
            None,
            f"minor-{minor}",
            f"a file 1.{minor}: newer minor versions are read",
            seal(dumps(NO_TENSORS | {"version": [1, minor]}), [], (1, minor)),
        )
        yield (
            "HDR-2",
            f"minor-{minor}-in-the-preamble",
            f"a preamble 1.{minor} with a header 1.0",
            seal(dumps(NO_TENSORS), [], (1, minor)),
        )


def _names() -> Made:
    for code in sorted(independent.CONTROL):
        text = chr(code)
        if code not in (0x00, 0x0A, 0x1B, 0x1F, 0x7F, 0x80, 0x9F, 0x2028, 0x202E, 0x2066, 0x2069, 0xFEFF):
            yield "NAME-2", f"name-u-{code:04x}", f"U+{code:04X} in a name", damaged.named([f"x{text}y"])
        if code in (0x09, 0x0D, 0x9B, 0x202A, 0x2067):
            yield "NAME-2", f"name-begins-u-{code:04x}", f"U+{code:04X} first", damaged.named([text + "x"])
            yield "NAME-2", f"name-ends-u-{code:04x}", f"U+{code:04X} last", damaged.named(["x" + text])
            yield (
                "NAME-2",
                f"metadata-key-u-{code:04x}",
                f"U+{code:04X} in a metadata key",
                seal(dumps(NO_TENSORS | {"metadata": {f"x{text}": ""}}), []),
            )
    forged = 'x\x1b[2K\rw.trit: valid\n{"verdict": "valid"}'
    yield (
        "NAME-2",
        "name-forges-a-report",
        "a name that would write a report of its own",
        damaged.named([forged]),
    )
    for character, width in {"x": 1, "é": 2, "€": 3, "\U0001f600": 4}.items():
        most = 512 // width
        name = "x" * (512 - most * width) + character * most
        if width > 2:  # damaged.py has the others
            yield (
                None,
                f"512-bytes-of-{width}",
                f"a name of 512 bytes, {width} a character",
                damaged.named([name]),
            )
        metadata = NO_TENSORS | {"metadata": {name: ""}}
        yield None, f"key-of-512-bytes-of-{width}", "a metadata key of 512 bytes", seal(dumps(metadata), [])
        if width > 1:
            why = f"a name of 513 bytes, {width} a character"
            yield "NAME-1", f"513-bytes-of-{width}", why, damaged.named(["x" + name])
        metadata = NO_TENSORS | {"metadata": {"x" + name: ""}}
        yield (
            "NAME-1",
            f"key-of-513-bytes-of-{width}",
            "a metadata key of 513 bytes",
            seal(dumps(metadata), []),
        )
    for code in (0x20, 0x7E, 0xA0, 0xAD, 0x200B, 0x200E, 0x2027, 0x202F, 0x2065, 0x206A, 0xFEFE, 0xFFFD):
        metadata = NO_TENSORS | {"metadata": {chr(code): chr(code)}}
        yield None, f"metadata-key-u-{code:04x}", f"U+{code:04X} in a metadata key", seal(dumps(metadata), [])
    paths = [
        "../x",
        "/x",
        "C:\\x",
        "CON",
        "a/../../x",
        "http://x",
        "x.",
        "-rf",
        "$(x)",
        "~x",
        "a'b\"c",
        "\\\\x\\y",
    ]
    for index, path in enumerate(paths):
        yield (
            None,
            f"name-like-a-path-{index}",
            f"the name {path!r}, which is none of a file: 13",
            damaged.named([path]),
        )


def _entries() -> Made:
    for size in (0, 1, 20, 28, 31, 33, 64):
        for index in (0, 3):
            yield (
                "ENT-3",
                f"digest-{index}-of-{size}-bytes",
                f"digest {index} of {size} bytes",
                edited(ONE, lambda h, _, i=index, s=size: h["tensors"][0]["sha256"].__setitem__(i, bytes(s))),  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
            )
    for depth in range(1, 5):
        trit: dict[str, Trit | Raw] = {"w": painted_trit([3], depth)}
        digests = parts_of(trit, {})[0]["tensors"][0]["sha256"]
        for count in (depth, depth + 2, depth + 4):
            yield (
                "ENT-3",
                f"depth-{depth}-with-{count}-digests",
                f"{count} digests for {3 + depth} segments",
                entry_changed("sha256", (digests * 2)[:count], trit),
            )
    for dtype in ("BOOL ", "bool", "I128", "C128", "F8_E5M2FNUZ", "BF8", "U4", "float16", "F\uff13\uff12"):
        name = slug(dtype.replace(" ", " space").replace("\uff13", "wide")) + (
            "-lower" if dtype == "bool" else ""
        )
        yield (
            "RAW-1",
            f"raw-dtype-{name}",
            f"a raw tensor of dtype {dtype!r}",
            entry_changed("dtype", dtype, {"w": Raw([1], "U8", b"x")}),
        )
    for kind in ("TRIT", "trit ", "RAW", "sparse", "tri", "trit\0", "r\u0430w"):
        yield (
            "ENT-2",
            f"kind-{kind.encode().hex()}",
            f"an entry of the kind {kind!r}",
            entry_changed("kind", kind),
        )
    for at, byte in [(0, 2), (1, 3), (2, 0x80), (0, 0xFE), (1, 0x81), (2, 0x31)]:
        content = bytes(byte if i == at else i % 2 for i in range(3))
        data = independent.write({"w": Raw([3], "BOOL", content)})
        yield "RAW-2", f"bool-{at}-is-{byte}", f"element {at} of a BOOL tensor is {byte}", data
    for dtype, size in independent.ELEMENT.items():
        for shape in ([], [0], [3, 0, 2], [7], [2, 3]):
            bytes_ = bytes(painted(math.prod(shape) * size, 2 if dtype == "BOOL" else 251))
            name = "x".join(map(str, shape)) or "scalar"
            yield (
                None,
                f"raw-{dtype.lower().replace('_', '-')}-{name}",
                f"a raw tensor of {dtype}, shape {shape}",
                independent.write({"w": Raw(shape, dtype, bytes_)}),
            )


def _versions() -> Made:
    for key in ("a", "metadatA", "n", "tensorz", "zz", "\u00fcber", "identity"):
        header = {**NO_TENSORS, key: 0}
        yield (
            "VER-1",
            f"header-key-{slug(key)}",
            f"the unknown key {key} in the header",
            seal(dumps(header), []),
        )
    for key in ("a", "codebooks", "offset", "offsets", "shape2", "zero_point", "scale"):
        yield (
            "VER-1",
            f"trit-entry-key-{slug(key)}",
            f"the unknown key {key} in a trit entry",
            entry_changed(key, 0),
        )
        yield (
            "VER-1",
            f"raw-entry-key-{slug(key)}",
            f"the unknown key {key} in a raw entry",
            entry_changed(key, 0, {"w": Raw([1], "U8", b"x")}),
        )
        yield (
            None,
            f"trit-entry-key-{slug(key)}-in-1-1",
            f"the unknown key {key} in a trit entry of a file 1.1",
            edited(ONE, lambda h, _, k=key: h["tensors"][0].update({k: 0}), 1),  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
        )
    wrong: dict[str, tuple[str, Any]] = {
        "depth": ("TEN-2", 5),
        "shift": ("TEN-3", 4),
        "group_size": ("TEN-4", 0),
        "codebook": ("CB-1", b""),
        "dtype": ("TEN-5", "F64"),
        "kind": ("ENT-2", "new"),
        "name": ("NAME-1", ""),
        "shape": ("TEN-1", []),
        "sha256": ("ENT-3", []),
    }
    for key, (clause, value) in wrong.items():
        yield (
            clause,
            f"{key.replace('_', '-')}-in-a-file-1-1",
            f"{key} {value!r}: a newer minor version may add keys and change none",
            edited(ONE, lambda h, _, k=key, v=value: h["tensors"][0].update({k: v}), 1),  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
        )
        yield (
            "ENT-1",
            f"no-{key.replace('_', '-')}-in-a-file-1-1",
            f"no {key} in a file 1.1",
            edited(ONE, lambda h, _, k=key: h["tensors"][0].pop(k), 1),  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
        )
    yield "PRE-4", "flag-in-a-file-1-1", "a flag in a file 1.1", with_fields(newer(b"\0"), flags=2)


# 5 and 4


def _tensors() -> Made:
    yield from _forms()
    for depth, shift in FORMS:
        for shape in ([37], [4, 16], [5, 33], [6, 17], [2, 3, 17]):
            for group_size in (1, 16, 17, 65536):
                size = "x".join(map(str, shape))
                number = depth + shift + len(shape) + group_size
                dtype = list(independent.FORMATS)[number % 3]
                steps = ["plain", "ties in binary16", "ties in bfloat16", "least"][number % 4]
                trit = painted_trit(shape, depth, shift, group_size, dtype, steps)
                yield (
                    None,
                    f"depth-{depth}-shift-{shift}-groups-of-{group_size}-{size}",
                    f"depth {depth}, shift {shift}, groups of {group_size}, {shape}, {dtype}, {steps} steps",
                    independent.write({"w": trit}),
                )
    edges = [k * ROWS_PER_BYTE + off for k in (1, 2) for off in (-1, 0, 1)]
    for rows in edges:
        for columns in (1, 7, 63, 64, 65):
            yield (
                None,
                f"rows-{rows}-columns-{columns}",
                f"{rows} rows and {columns} columns: around byte rows of 5 and blocks of 64",
                independent.write({"w": painted_trit([rows, columns], 2)}),
            )
    levels, codes = [list(range(-40, 41))] * 27, [[c] for c in range(27)]
    for steps, patterns in STEPS.items():
        dtype = "F32" if steps == "greatest" else "BF16"
        trit = Trit([27, 81], dtype, 81, 0, patterns, codes, planes_from(levels, 4))
        yield (
            None,
            f"every-code-with-every-level-{slug(steps)}",
            f"27 codes with 81 levels; steps: {steps}",
            independent.write({"w": trit}),
        )
    for rank in (1, 2, 5, 8):
        shape = [1] * (rank - 1) + [6]
        data = independent.write({"w": painted_trit(shape, 2)})
        yield None, f"trit-rank-{rank}", f"a trit tensor of rank {rank}", data


def _forms() -> Made:
    deepest: dict[str, Trit | Raw] = {"w": painted_trit([3], 4)}
    digests = parts_of(deepest, {})[0]["tensors"][0]["sha256"]
    deeper = {"depth": 5, "sha256": [*digests, digests[-1]]}
    yield (
        "TEN-2",
        "depth-5-with-8-digests",
        "depth 5, and a digest for each of the segments it would have",
        edited(deepest, lambda header, _: header["tensors"][0].update(deeper)),
    )
    for depth in range(1, 5):
        trit: dict[str, Trit | Raw] = {"w": painted_trit([3], depth)}
        for shift in (5 - depth, 255, 256, 2**16, 2**31, 2**32, 2**63, 2**64 - depth):
            why = "depth and shift of more than 4 trits, also where a narrow integer wraps"
            yield "TEN-3", f"depth-{depth}-shift-{shift}", why, entry_changed("shift", shift, trit)
        for wide in (256 + depth, 2**16 + depth, 2**32 + depth, 2**63 + depth):
            why = f"a depth whose low bits are {depth}"
            yield "TEN-2", f"depth-{wide}", why, entry_changed("depth", wide, trit)
    for size in (2**16 + 16, 2**24, 2**31, 2**32 + 16, 2**63 + 16):
        yield (
            "TEN-4",
            f"group-size-{size}",
            f"group size {size}, also where it wraps",
            entry_changed("group_size", size),
        )
    for dtype in ("F8_E4M3", "F64", "BF32", "I8", "FP16", "bf16", "F1"):
        yield (
            "TEN-5",
            f"dtype-{slug(dtype)}-of-a-trit-tensor",
            f"dtype {dtype!r}",
            entry_changed("dtype", dtype),
        )
    for shape in ([1, 0], [0, 1], [1, 0, 2**47], [0] * 8):
        name = "x".join(map(str, shape))
        yield "TEN-1", f"shape-{name}", f"a trit tensor of shape {shape}", entry_changed("shape", shape)
    raw: dict[str, Trit | Raw] = {"w": Raw([1], "U8", b"x")}
    for rank in (9, 10, 16, 17, 65):
        for kind, tensors in {"trit": ONE, "raw": raw}.items():
            data = entry_changed("shape", [1] * rank, tensors)
            if rank != 9:  # damaged.py has that
                yield "SHAPE-1", f"{kind}-rank-{rank}", f"rank {rank}", data
    wraps = [
        [2**60],
        [2**16] * 4,
        [2**32, 2**32 + 1],
        [2**31, 2**33, 3],
        [2**62, 4, 3],
        [2**48, 2],
        [3, 2**63 + 1],
    ]
    wraps += [[6700417, 641, 2**17], [2**63], [2**64 - 1], [2**48 + 1, 0], [0, 2**64 - 1, 2**64 - 1]]
    for shape in wraps:
        name = "x".join(map(str, shape))
        yield (
            "SHAPE-2",
            f"raw-shape-{name}",
            f"{math.prod(filter(None, shape))} elements, {math.prod(shape) % 2**64} where products wrap",
            entry_changed("shape", shape, raw),
        )
        if 0 not in shape:
            why = f"a trit tensor of {math.prod(shape)} weights"
            yield "SHAPE-2", f"trit-shape-{name}", why, entry_changed("shape", shape)


def _codebook() -> Made:
    plain = STEPS["plain"]
    for size in (1, 26, 28, 54):
        codebook = struct.pack(f"<{size}I", *(plain * 2)[:size])
        yield "CB-1", f"{size}-steps", f"a codebook of {size} steps", entry_changed("codebook", codebook)
    yield "CB-1", "binary64", "27 steps of 8 bytes", entry_changed("codebook", bytes(216))
    yield "CB-1", "binary16", "27 steps of 2 bytes", entry_changed("codebook", bytes(54))
    for index in range(1, 27):
        if index not in (1, 13, 26):
            for name, step in {"equal": plain[index - 1], "less": plain[index - 1] - 64}.items():
                yield (
                    "CB-3",
                    f"step-{index}-{name}",
                    f"step {index} is {name} to or than the one before",
                    _book([*plain[:index], step, *plain[index + 1 :]]),
                )
    for index in range(27):
        for bit in (1, 2, 3, 4) if index in (0, 13, 26) else (index % 6,):
            steps = list(plain)
            steps[index] += 1 << bit
            yield "CB-4", f"step-{index}-bit-{bit}", f"bit {bit} of step {index}", _book(steps)
    yield "CB-4", "all-low-bits", "steps with 24 significant bits", _book([step | 63 for step in plain])
    for count in (1, 2, 13, 27):
        subnormal = [(i + 1) * 64 for i in range(count)]
        yield (
            "CB-2",
            f"{count}-subnormal",
            f"{count} subnormal steps, 0 on hosts that flush them",
            _book(subnormal + plain[count:]),
        )
        nans = [0x7F800040 + i * 64 for i in range(count)]
        yield "CB-2", f"{count}-nan", f"{count} steps that are NaN", _book(plain[: 27 - count] + nans)
    yield (
        "CB-2",
        "infinite-last-step",
        "a last step that is infinite in F16",
        _book([*plain[:26], 0x7F800000], "F16"),
    )
    zero = [0, *plain[1:]]
    for dtype in ("F16", "BF16"):
        yield "CB-2", f"zero-first-step-{slug(dtype)}", "a first step of 0", _book(zero, dtype)
    # Byte-swapped, these still increase and are normal, so that only the low bits, once the exponent, tell.
    swapped = [0x3C000040 + (index << 8) for index in range(27)]
    codebook = struct.pack(">27I", *swapped)
    yield "CB-4", "big-endian", "a codebook of big-endian steps", entry_changed("codebook", codebook)
    for depth, shift in FORMS:
        for dtype in independent.FORMATS:
            m = 3**shift * (3**depth - 1) // 2
            least = _least_overflow(m, dtype)
            trit: dict[str, Trit | Raw] = {"w": painted_trit([3], depth, shift, dtype=dtype)}
            name = f"depth-{depth}-shift-{shift}-{slug(dtype)}"
            sides = [("CB-5", least, "just too large"), (None, least - 64, "just small enough")]
            for clause, step, why in sides[least >= 0x7F800000 :]:  # at depth 1 every step fits F32
                book = struct.pack("<27I", *plain[:26], step)
                yield (
                    clause,
                    f"largest-value-{name}-{why.replace(' ', '-')}",
                    f"a largest value {why} for {dtype} at depth {depth}, shift {shift}",
                    entry_changed("codebook", book, trit),
                )


def _book(steps: list[int], dtype: str = "F32") -> bytes:
    codebook = struct.pack("<27I", *steps)
    return edited(ONE, lambda header, _: header["tensors"][0].update(codebook=codebook, dtype=dtype))


def _least_overflow(m: int, dtype: str) -> int:
    """The least step, a multiple of 64, whose product with *m* is infinite in *dtype*; by bisection."""
    low, high = 0x00800000 // 64, 0x7F800000 // 64
    while low < high:
        middle = (low + high) // 2
        if independent.weight(middle * 64, m, dtype) == independent.INFINITY[dtype]:
            high = middle
        else:
            low = middle + 1
    return low * 64


# 7, 3 and 8


def _layout() -> Made:
    for at in range(96, 127):
        yield (
            "LAY-3",
            f"gap-byte-{at - 95}",
            f"byte {at - 95} of the gap after the header",
            replaced(EMPTY, at, 1),
        )
    for bits in (0x80, 0x20, 0xFF):
        yield "LAY-3", f"gap-of-{bits:02x}", f"a gap filled with {bits:02X}", EMPTY[:95] + bytes([bits]) * 33
    two: dict[str, Trit | Raw] = {
        # Groups of 1 and whole byte rows: all segments are of one size and none has padding.
        "a": painted_trit([5, 6], 2, group_size=1),
        "b": painted_trit([10, 3], 2, 1, group_size=1, steps="ties in bfloat16"),
    }
    data = independent.write(two)
    header, segments = independent.open_file(data)
    content = [data[s.offset : s.offset + s.size] for s in segments]
    for index, s in enumerate(segments):
        for name, at in {"first": s.offset + s.size, "last": align(s.offset + s.size) - 1}.items():
            yield (
                "LAY-3",
                f"segment-{index}-{name}-gap-byte",
                f"the {name} byte of the gap after segment {index}",
                replaced(data, at, ZERO_BYTE),
            )
    tails = {
        "one-zero": b"\0",
        "one-byte": b"x",
        "63-zeros": bytes(63),
        "a-block": bytes(64),
        "4096-zeros": bytes(4096),
    }
    tails["a-zip"] = b"PK\x05\x06" + bytes(18)
    for name, tail in tails.items():
        yield (
            "LAY-4",
            f"{name}-after-the-end",
            f"{name.replace('-', ' ')} after the end, with its size",
            with_length(EMPTY + tail),
        )
        why = f"{name.replace('-', ' ')} after the end"
        yield "PRE-6", f"{name}-after-the-end-unsaid", why, EMPTY + tail
    for missing in (2, 32):
        yield (
            "LAY-4",
            f"{missing}-of-the-padding-missing",
            "the final padding cut",
            with_length(EMPTY[:-missing]),
        )
    for unit, clause in {1: "LAY-4", 8: "LAY-4", 32: "LAY-4", 128: "LAY-4", 4096: "LAY-4"}.items():
        yield (
            clause,
            f"aligned-to-{unit}",
            f"segments aligned to {unit} bytes",
            _aligned(header, content, unit),
        )
    yield from _swapped(two, header, content)
    yield from _wraps()


def _aligned(header: Header, content: list[bytes], unit: int) -> bytes:
    encoded = dumps(header)
    data = EMPTY[:64] + encoded
    for segment in content:
        data += bytes(-len(data) % unit) + segment
    data += bytes(-len(data) % unit)
    return with_fields(data, size=len(encoded), length=len(data), digest=hashlib.sha256(encoded).digest())


def _swapped(two: dict[str, Trit | Raw], header: Header, content: list[bytes]) -> Made:
    """Segments in other places: 3 code planes of a, 3 of b, planes of a, b, a, b."""
    orders = {
        "planes-the-other-way-round": [0, 1, 2, 3, 4, 5, 8, 9, 6, 7],
        "tensor-by-tensor": [0, 1, 2, 6, 8, 3, 4, 5, 7, 9],
        "codes-the-other-way-round": [2, 1, 0, 5, 4, 3, 6, 7, 8, 9],
        "levels-before-codes": [6, 7, 8, 9, 0, 1, 2, 3, 4, 5],
        "rotated": [9, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        "two-levels-swapped": [0, 1, 2, 3, 4, 5, 6, 7, 9, 8],
    }
    for name, order in orders.items():
        moved = [content[index] for index in order]
        yield "SEG-1", name, f"segments in the order {order}", seal(dumps(header), moved)
    both = [("a", 3, 4, [6, 8]), ("b", 3, 4, [7, 9]), ("a", 0, 2, [0, 2])]
    for tensor, first, second, (i, j) in both:
        yield (
            None,
            f"{tensor}-{first}-and-{second}-swapped-with-their-digests",
            "two planes that changed places with their digests are another tensor, and valid",
            edited(two, lambda _, c, i=i, j=j: c.__setitem__(slice(None), _swap(c, i, j)), repair=True),  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
        )


def _swap(content: list[bytes], i: int, j: int) -> list[bytes]:
    return [content[{i: j, j: i}.get(index, index)] for index in range(len(content))]


def _wraps() -> Made:
    """Sizes that wrap in 32 bits, so that a reader with narrow integers finds the file whole."""
    digest = hashlib.sha256(b"").digest()
    raw = {"dtype": "U8", "kind": "raw", "name": "a", "sha256": digest, "shape": [0]}
    trit = parts_of(ONE, {})[0]["tensors"][0] | {"sha256": [digest] * 4}
    claims: dict[str, list[Entry]] = {
        "elements": [raw | {"shape": [2**32]}],
        "elements-as-bytes": [raw | {"dtype": "F64", "shape": [2**29]}],
        "product": [raw | {"shape": [2**16, 2**16]}],
        "padded-rows": [trit | {"shape": [2**32 - 1, 1]}],
        "rows": [trit | {"shape": [2**32, 1]}],
        "align": [raw | {"shape": [2**32 - 1]}],
        "running-sum": [raw | {"shape": [2**31]}, raw | {"name": "b", "shape": [2**31]}],
        "signed-running-sum": [raw | {"shape": [2**31 - 64]}, raw | {"name": "b", "shape": [2**31 + 64]}],
        "two-pebibytes": [raw | {"dtype": "F64", "shape": [2**48]}],
        "columns": [trit | {"shape": [1, 2**48]}],
        "axis-truncated": [trit | {"shape": [2**32 + 3]}],
    }
    for name, entries in claims.items():
        header = NO_TENSORS | {"tensors": entries}
        yield (
            "LAY-4",
            f"claim-{name}",
            f"{name}: more than 2^31 bytes claimed by a small file",
            seal(dumps(header), []),
        )
    huge = [raw | {"dtype": "F64", "shape": [2**48], "name": f"{index:04}"} for index in range(8192)]
    header = NO_TENSORS | {"tensors": huge}
    yield (
        "LAY-5",
        "running-sum-wraps-to-0",
        "8,192 tensors of 2^51 bytes: 2^64, 0 where sums wrap",
        seal(dumps(header), []),
    )


def _packing() -> Made:
    # 3 columns, 2 byte rows: the first byte, one in the middle, the last; no padding.
    full: dict[str, Trit | Raw] = {"w": painted_trit([2 * ROWS_PER_BYTE, 3], 2)}
    for byte in range(MAX_BYTE + 1, 256):
        for where, at in {"first": 0, "middle": 2, "last": 5}.items():
            for plane in (3, 4):
                yield (
                    "PACK-2",
                    f"byte-{byte}-{where}-plane-{plane - 3}",
                    f"the {where} byte of weight plane {plane - 3} is {byte}",
                    _with_byte(full, plane, at, byte),
                )
    for rows in range(1, ROWS_PER_BYTE):
        trit: dict[str, Trit | Raw] = {"w": painted_trit([rows, 3], 1)}
        content = parts_of(trit, {})[1]
        for plane, kind in {0: "codes", 3: "levels"}.items():
            columns = len(content[plane])
            old = content[plane][columns - 1]
            for digit in range(rows, ROWS_PER_BYTE):
                for sign in (-1, 1):
                    yield (
                        "PACK-3",
                        f"{rows}-rows-{kind}-digit-{digit}-{'minus' if sign < 0 else 'plus'}",
                        f"padding digit {digit} after {rows} rows of {kind} is {sign:+}",
                        _with_byte(trit, plane, columns - 1, old + sign * 3**digit),
                    )
            pad = sum(3**digit for digit in range(rows, ROWS_PER_BYTE))
            if rows < ROWS_PER_BYTE - 1:
                for sign, name in {-1: "minus", 1: "plus"}.items():
                    yield (
                        "PACK-3",
                        f"{rows}-rows-{kind}-all-{name}",
                        f"all padding after {rows} rows of {kind} is {sign:+}",
                        _with_byte(trit, plane, 0, content[plane][0] + sign * pad),
                    )
    yield from _other_packings()


def _with_byte(tensors: dict[str, Trit | Raw], plane: int, at: int, byte: int) -> bytes:
    def change(_: Header, content: list[bytes]) -> None:
        content[plane] = replaced(content[plane], at, byte)

    return edited(tensors, change, repair=True)


def _other_packings() -> Made:
    """The right sizes and digests, and planes that are packed by another rule."""
    rows = painted_trit([2 * ROWS_PER_BYTE, 7], 1)
    short = painted_trit([3, 7], 1)
    # A trit of +1 in the first row, so that reversed digits fill the padding.
    plus = Trit([1, 3], "F32", 16, 0, STEPS["plain"], [[13]], [[[1, -1, 1]]])
    full = Trit([5, 3], "F32", 16, 0, STEPS["plain"], [[13]] * 5, [[[1, 0, -1]] * 5])
    tq1 = bytes(-(-byte * 256 // 243) for byte in independent.pack(full.planes[0]))
    reversed_ = bytes(
        sum((byte // 3**i % 3) * 3 ** (4 - i) for i in range(5)) for byte in independent.pack(plus.planes[0])
    )
    unbiased = bytes(byte - 121 + sum(3**i for i in range(3)) for byte in independent.pack(short.planes[0]))
    two_bit = bytes(sum(1 << 2 * i for i in range(4)) * 3 for _ in range(14))
    signs = bytes(t % 256 for t in [1, -1, 0, 1, -1, 0, 1])
    others: dict[str, tuple[str, Trit, bytes]] = {
        "digits-reversed": ("PACK-3", plus, reversed_),
        "tq1-0": ("PACK-2", full, tq1),
        "padding-without-its-1": ("PACK-3", short, unbiased),
        "two-bits-a-trit": ("PACK-2", rows, two_bit),
        "zeros-for-an-empty-plane": ("PACK-3", short, bytes(7)),
        "int8": ("PACK-2", full, signs[1:2] * 3),
    }
    for name, (clause, trit, packed) in others.items():
        yield (
            clause,
            name,
            f"a plane packed otherwise: {name}",
            edited({"w": trit}, lambda _, c, p=packed: c.__setitem__(3, p), repair=True),  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
        )
    for byte in range(MAX_BYTE + 1):
        if byte % 9 == 0 or byte == MAX_BYTE:  # a slice: the vectors have all 256
            trit = Trit([5], "F32", 5, 0, STEPS["plain"], [[13]], [[[1, 0, -1, 0, 1]]])
            column = Trit(
                [5, 1],
                "F32",
                1,
                0,
                STEPS["plain"],
                [[c] for c in range(5)],
                [independent.unpack(bytes([byte]), 5, 1)],
            )
            yield (
                None,
                f"byte-{byte}",
                f"a plane of the one byte {byte}",
                independent.write({"a": trit, "w": column}),
            )


def _digests() -> Made:
    data = independent.write(ONE)
    _, segments = independent.open_file(data)
    for index, segment in enumerate(segments):
        for name, digest in {"of-nothing": hashlib.sha256(b"").digest(), "of-padded-segment": None}.items():
            padded = data[segment.offset : align(segment.offset + segment.size)]
            value = digest or hashlib.sha256(padded).digest()
            yield (
                "SEG-1",
                f"digest-{index}-{name}",
                f"digest {index} {name.replace('-', ' ')}",
                edited(ONE, lambda h, _, i=index, v=value: set_digest(h["tensors"][0], i, v)),  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
            )
        for at in (0, 15, 16, 31):
            digest_ = segment.entry["sha256"][index]
            other = replaced(digest_, at, digest_[at] ^ 1)
            yield (
                "SEG-1",
                f"digest-{index}-byte-{at}",
                f"a bit in byte {at} of digest {index}",
                edited(ONE, lambda h, _, i=index, v=other: set_digest(h["tensors"][0], i, v)),  # type: ignore[misc]  # mypy infers no type for a lambda with defaults
            )
    raw: dict[str, Trit | Raw] = {
        "a": Raw([3], "U8", b"xyz"),
        "b": Raw([3], "U8", b"abc"),
        "e": Raw([0], "U8", b""),
    }
    yield (
        "SEG-1",
        "raw-segments-swapped",
        "two raw tensors that changed places",
        edited(raw, lambda _, c: c.__setitem__(slice(None), _swap(c, 0, 1))),
    )
    yield (
        "SEG-1",
        "digest-of-an-empty-segment",
        "another digest for a tensor of no bytes",
        edited(raw, lambda h, _: set_digest(h["tensors"][2], 0, bytes(32))),
    )
    yield (
        None,
        "raw-segments-swapped-with-their-digests",
        "two raw tensors, renamed",
        edited(raw, lambda _, c: c.__setitem__(slice(None), _swap(c, 0, 1)), repair=True),
    )


def _cut_off() -> Made:
    """Counts of entries and metadata are too great alone; in an entry, what is missing comes first."""
    end = 2**32 - 1
    for count in (2**20 + 1, 2**31, end):
        head = b"\x83\xa8metadata\x80\xa7tensors" + dumps_head(list, count)
        yield "HDR-4", f"claim-{count}-tensors", f"{count} entries claimed, cut off", seal(head, [])
    for count in (1025, 65536, end):
        head = b"\x83\xa8metadata" + dumps_head(dict, count)
        yield "HDR-5", f"claim-{count}-pairs", f"{count} pairs claimed, cut off", seal(head, [])
    entry = dumps(parts_of(ONE, {})[0]["tensors"][0])
    beyond = {  # a limit of SPEC 6.4, and what goes beyond it
        "codebook": dumps_head(bytes, 109),
        "name": dumps_head(str, 513),
        "sha256": dumps_head(list, 8) + dumps_head(bytes, 32),
        "shape": dumps_head(list, 2**32 - 1) + b"\x01",
    }
    for key, value in beyond.items():
        before = entry[: entry.index(dumps(key)) + len(dumps(key))]
        head = b"\x83\xa8metadata\x80\xa7tensors" + dumps_head(list, 1) + before + value
        why = f"a {key} that is too long, and cut off: an entry is read to its end before its values count"
        yield "MP-5", f"entry-cut-off-in-its-{key}", why, seal(head, [])


CHAPTERS: dict[str, Callable[[], Made]] = {
    "preamble": _preamble,
    "messagepack": _messagepack,
    "header": _header,
    "names": _names,
    "entries": _entries,
    "versions": _versions,
    "tensors": _tensors,
    "codebook": _codebook,
    "layout": _layout,
    "packing": _packing,
    "digests": _digests,
    SEVERAL: _cut_off,
}
