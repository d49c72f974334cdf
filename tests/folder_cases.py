"""Small model folders for fixtures/folders: an index and its shards, whole or with one fault, by rule.

What has its fault in the index has a single shard, which is sound. No file here has a name that some system
cannot store, and none is a link: tests/test_shards.py makes such folders when it runs.
"""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

import independent
from golden import replaced
from independent import INDEX, Raw, Trit
from painted import painted_trit

LONE = "model-00001-of-00001.trit"
FIRST, SECOND, THIRD = (f"model-0000{n}-of-00003.trit" for n in (1, 2, 3))
Files = dict[str, bytes]
Json = dict[str, Any]


class Folder(NamedTuple):
    """A folder: the requirement that it breaks, the shard that does, and its files by their names."""

    id: str
    clause: str | None
    shard: str | None
    why: str
    files: Files


# A class of faults: its flag, kind, words of the checklist, effect elsewhere, patterns of ids, CVEs
FAULTS: list[tuple[str, str, str, str, str, tuple[str, ...]]] = [
    (
        "folder",
        "values",
        "whole folders: names, numbers and white space of every form; what else may stand there",
        "A folder that is whole is refused.",
        "whole-*",
        (),
    ),
    (
        "json",
        "syntax",
        "no JSON: cut off; constants, numbers and comments of other languages; other encodings",
        "Two readers see two indexes.",
        "json-*",
        (),
    ),
    (
        "json-text",
        "encoding",
        "halves of surrogate pairs",
        "A name that cannot be written down ends the reader.",
        "half-*",
        (),
    ),
    (
        "json-keys",
        "duplicates",
        "a key that stands there twice, escaped or not",
        "One reader takes the first value, another one the last.",
        "twice-*",
        ("CVE-2017-12635",),
    ),
    (
        "json-nesting",
        "recursion",
        "nesting of 9, 100, 100,000 in JSON",
        "The stack overflows.",
        "nested-*",
        (),
    ),
    (
        "index-keys",
        "types",
        "keys of the index that are missing, values of other types",
        "The reader crashes.",
        "no-* type-*",
        (),
    ),
    (
        "tensor-names",
        "names",
        "names in the index that no tensor can have",
        "A name acts on the terminal that shows it.",
        "tensor-name-*",
        (),
    ),
    (
        "shard-names",
        "path traversal",
        "../x, absolute, drive letter, backslash, NUL, trailing dot, CON, URL-like; the index itself",
        "A file outside of the folder is read, or a device.",
        "name-*",
        ("CVE-2007-4559",),
    ),
    (
        "shard-missing",
        "integrity",
        "a shard that is missing or extra; a gap; sizes that do not add up",
        "A part of a model passes for the whole.",
        "missing-* extra-* size-* unlisted-*",
        (),
    ),
    (
        "shards-mixed",
        "integrity",
        "digest mismatch, shards of two models mixed",
        "Weights of two models are loaded as one.",
        "identity-*",
        (),
    ),
    (
        "tensor-twice",
        "integrity",
        "one tensor in two shards, in the wrong one, in none",
        "Which tensor is read depends on the reader.",
        "tensor-is-*",
        (),
    ),
    (
        "shard-damaged",
        "integrity",
        "a shard that is damaged or newer, in a folder that fits",
        "Damage in one of many files goes unnoticed.",
        "shard-*",
        (),
    ),
]


# Parts


def shard(*names: str, depth: int = 1, bias: int = 0) -> bytes:
    """A file with a trit tensor of each name, 6 rows of 3, and a raw one that holds *bias*."""
    tensors: dict[str, Trit | Raw] = {name: painted_trit([6, 3], depth) for name in names}
    tensors[f"{names[0]}.bias"] = Raw([1], "U8", bytes([bias]))
    return independent.write(tensors, {"format": "pt"})


LONE_SHARD = {LONE: shard("w")}
SHARDS = {FIRST: shard("a.w", "b.w"), SECOND: shard("c.w", depth=2), THIRD: shard("d.w", "e.w")}


def with_index(files: Files, index: Json | str | bytes) -> Files:
    """*files* with an index, which is an object or the text of the file."""
    text = json.dumps(index, indent=2, sort_keys=True) + "\n" if isinstance(index, dict) else index
    return files | {INDEX: text.encode() if isinstance(text, str) else text}


def sound(shards: Files) -> Files:
    """*shards* with their index."""
    return with_index(shards, independent.index_of(shards))


def changed(change: Callable[[Json], object], shards: Files = LONE_SHARD) -> Files:
    """*shards* with their index, to which *change* was done."""
    index = independent.index_of(shards)
    change(index)
    return with_index(shards, index)


def put(*keys: str, value: Any, shards: Files = LONE_SHARD) -> Files:
    """*shards* with an index in which the value under *keys* is another."""

    def change(index: Json) -> None:
        for key in keys[:-1]:
            index = index[key]
        index[keys[-1]] = value

    return changed(change, shards)


TEXT = sound(LONE_SHARD)[INDEX].decode()


def edited(old: str, new: str) -> Files:
    """The lone shard with an index in which the text *old*, which occurs, is *new*."""
    if old not in TEXT:
        raise SystemExit(f"{old!r} is not in the index")
    return with_index(LONE_SHARD, TEXT.replace(old, new, 1))


def added(value: str) -> Files:
    """The lone shard with an index that has another key, x; its value is this text."""
    return edited("{", '{"x": ' + value + ",")


def folders() -> Iterator[Folder]:
    """All folders, valid and broken."""
    for name, why, files in whole():
        yield Folder(f"whole-{name}", None, None, why, files)
    for clause, name, why, files in broken_index():
        yield Folder(name, clause, None, why, files)
    for clause, broken, name, why, files in broken_folder():
        yield Folder(name, clause, broken, why, files)


# Whole folders


def whole() -> Iterator[tuple[str, str, Files]]:
    """Folders that conform."""
    yield "three-shards", "three shards", sound(SHARDS)
    yield "one-shard", "one shard", sound(LONE_SHARD)
    yield "no-shards", "no shards, and no tensors", sound({})
    yield "without-an-index", "model.trit alone", {"model.trit": shard("w")}
    gap = sound({FIRST: shard("w"), THIRD: shard("v")})
    yield "numbers-with-a-gap", "shards 1 and 3 of 3, which are all", gap
    yield "two-depths", "depths 1 and 4", sound({FIRST: shard("w"), SECOND: shard("v", depth=4)})
    header, content = independent.parts_of({"w": painted_trit([6, 3], 1)}, {})
    newer = independent.seal(independent.dumps(header | {"version": [1, 1], "x": 0}), content, (1, 1))
    yield "newer-minor", "a shard of version 1.1, with an unknown key", sound({LONE: newer})
    others = dict.fromkeys(["config.json", "a/b.trit", ".hidden.trit", "w.trit.txt", "W.TRIT"], b"x")
    yield "among-other-files", "files that mean nothing here", sound(LONE_SHARD) | others
    yield from whole_names()
    yield from whole_texts()


NAMES = {
    "6-characters": "w.trit",
    "128-characters": "w" * 123 + ".trit",
    "null": "null.trit",
    "com": "com.trit",
    "com10": "com10.trit",
    "con-1": "con-1.trit",
    "dots": "1.5B.v2.trit",
    "underscore-first": "_w-1_.trit",
    "digit-first": "0.trit",
    "trit-twice": "trit.trit",
    "model-trit": "model.trit.trit",
}


def whole_names() -> Iterator[tuple[str, str, Files]]:
    """Names that are allowed, some only just."""
    for word, name in NAMES.items():
        yield f"name-{word}", f"a shard {name[:20]}", sound({name: shard("w")})
    odd = ["a/../b", "\\", "C:", "\u00e9", "e\u0301", "\u4e2d", "\U0001f600", '"', " ", "x" * 507]
    shards = {LONE: shard(*odd)}
    yield "tensor-names", "names of tensors may hold more", sound(shards)
    text = json.dumps(independent.index_of(shards), ensure_ascii=False)
    yield "tensor-names-in-utf-8", "names that are not escaped", with_index(shards, text)


VALUES = {
    "text": '"\\ud83d\\ude00 \\b\\f\\n\\r\\t\\/\\\\\\" \u00e9\U0001f600\\u0000\x7f"',
    "numbers": "[0, -0, -1, 1.5, 1e400, -1E-400, 1e+5, 0.0, 18446744073709551616]",
    "number-of-5000-digits": "1" * 5000,
    "constants": "[true, false, null]",
    "brackets-in-text": '"[[[[[[[[[[{{{{{{{{{{"',
    "keys-of-the-index": '{"shards": 1, "weight_map": 2, "metadata": 3}',
    "8-deep": "[" * 7 + "]" * 7,
    "empty-key": '{"": {}}',
}


def whole_texts() -> Iterator[tuple[str, str, Files]]:
    """An index may be written in many ways, and hold what others add."""
    index = independent.index_of(SHARDS)
    yield "compact", "no white space", with_index(SHARDS, json.dumps(index, separators=(",", ":")))
    spaced = "\r\n\t " + TEXT.replace("\n", "\r\n\t ").replace(":", " \t: ") + "\n\n"
    yield "white-space", "white space of every kind", with_index(LONE_SHARD, spaced)
    turned = {key: dict(reversed(index[key].items())) for key in ("weight_map", "shards", "metadata")}
    yield "other-order", "keys in another order", with_index(SHARDS, json.dumps(turned))
    escaped = "".join(f"\\u{ord(letter):04X}" for letter in "metadata")
    yield "escaped-key", "a key as escapes", edited('"metadata"', f'"{escaped}"')
    yield "more-metadata", "another key in the metadata", put("metadata", "total_parameters", value=1)
    for word, value in VALUES.items():
        yield f"unknown-{word}", f"an unknown key: {word.replace('-', ' ')}", added(value)


# Faults of the index

Fault = tuple[str, str, str, Files]  # clause, id, why, files


def broken_index() -> Iterator[Fault]:
    """Each requirement of SPEC 15.1 that a small index can break."""
    for name, why, text in no_json():
        yield "IDX-2", f"json-{name}", why, with_index(LONE_SHARD, text)
    yield from halves()
    yield from twice()
    yield from nested()
    yield from lacking()
    yield from types()
    yield from tensor_names()
    yield from shard_names()
    other = {"other.trit": "0" * 64}
    yield "IDX-11", "unlisted-shard", "a shard of no tensor", changed(lambda i: i["shards"].update(other))
    files = put("weight_map", "v", value="other.trit")
    yield "IDX-11", "unlisted-in-shards", "a tensor in a shard that shards lacks", files
    yield "IDX-11", "unlisted-all", "a shard, and no tensors", put("weight_map", value={})


NUMBERS = {
    "nan": "NaN",
    "infinity": "Infinity",
    "minus-infinity": "-Infinity",
    "leading-zero": "01",
    "plus": "+1",
    "point-first": ".5",
    "point-last": "1.",
    "hexadecimal": "0x10",
    "underscore": "1_0",
    "minus-alone": "-",
    "exponent-alone": "1e",
    "arabic-digit": "\u0661",
}
STRINGS = {
    "escape-x": "\\x41",
    "escape-u12": "\\u12",
    "escape-quote": "\\'",
    "line-feed": "\n",
    "tab": "\t",
    "nul": "\0",
    "u-1f": "\x1f",
}
BYTES = {
    "latin-1": b"\xe9",
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "f5": b"\xf5\x80\x80\x80",
    "cut": b"\xe2\x82",
}
SPACES = {
    "vertical-tab": "\x0b",
    "form-feed": "\x0c",
    "u-a0": "\u00a0",
    "u-2028": "\u2028",
    "u-feff": "\ufeff",
}


NO_OBJECTS = {"array": "[]", "null": "null", "true": "true", "number": "1", "string": '"x"'}


def no_json() -> Iterator[tuple[str, str, str | bytes]]:
    """Texts that a lenient decoder takes for JSON, or that are none at all."""
    yield "empty", "an empty index", ""
    yield "white-space-alone", "nothing but white space", " \n"
    for word, value in NO_OBJECTS.items():
        yield f"no-object-{word}", f"{word} instead of an object", value
    yield "cut", "the last brace is missing", TEXT.rstrip()[:-1]
    yield "cut-in-half", "cut off in the middle", TEXT[: len(TEXT) // 2]
    yield "two-values", "the index twice", TEXT * 2
    yield "text-after", "a letter after the end", TEXT + "x"
    yield "nul-after", "NUL after the end", TEXT + "\0"
    yield "comma-last", "a comma after the last value", TEXT.replace("\n  }\n}", "\n  },\n}")
    yield "comma-missing", "no comma between two values", TEXT.replace("},", "}", 1)
    yield "colon-missing", "no colon after a key", TEXT.replace('"metadata":', '"metadata"')
    yield "comment", "a comment", "// index\n" + TEXT
    yield "single-quotes", "single quotes", TEXT.replace('"', "'")
    yield "key-without-quotes", "a key without quotes", TEXT.replace('"metadata"', "metadata")
    yield "byte-order-mark", "a byte order mark before it", b"\xef\xbb\xbf" + TEXT.encode()
    for encoding in ("utf-16", "utf-16-le", "utf-32-be"):
        yield encoding, f"in {encoding.upper()}", TEXT.encode(encoding)
    for word, number in NUMBERS.items():
        yield f"number-{word}", f"the number {number}", added(number)[INDEX]
    for word, string in STRINGS.items():
        yield f"string-{word}", f"the string {ascii(string)[1:-1]}", added(f'"{string}"')[INDEX]
    for word, data in BYTES.items():
        yield f"bytes-{word}", f"bytes {data.hex(' ')}, no UTF-8", added('"?"')[INDEX].replace(b"?", data)
    for word, space in SPACES.items():
        yield f"space-{word}", f"U+{ord(space):04X} as white space", TEXT.replace("{", "{" + space, 1)


def halves() -> Iterator[Fault]:
    """IDX-3."""
    values = {
        "high": '"\\ud800"',
        "low": '"\\udc00"',
        "turned": '"\\ude00\\ud83d"',
        "high-high-low": '"\\ud83d\\ud83d\\ude00"',
        "in-an-array": '[1, ["\\uDFFF"]]',
        "as-a-key": '{"\\ud800": 1}',
    }
    for word, value in values.items():
        yield "IDX-3", f"half-{word}", f"half of a surrogate pair: {value}", added(value)
    files = edited('"w"', '"w\\ud800"')
    yield "IDX-3", "half-in-a-tensor-name", "a tensor's name ends in half of a surrogate pair", files


def twice() -> Iterator[Fault]:
    """IDX-4."""
    for key, value in independent.index_of(LONE_SHARD).items():
        files = edited("{", f'{{"{key}": {json.dumps(value)},')
        yield "IDX-4", f"twice-{key.replace('_', '-')}", f"{key} twice, with one value", files
    texts = {
        "another": ("{", '{"weight_map": {},'),
        "shard": (f'"{LONE}": ', f'"{LONE}": "{"0" * 64}", "{LONE}": '),
        "tensor": ('"w": ', f'"w": "{LONE}", "w": '),
        "escaped": ('"w": ', f'"\\u0077": "{LONE}", "w": '),
        "total-size": ('"total_size": ', '"total_size": 0, "total_size": '),
        "unknown": ("{", '{"x": 1, "x": 1,'),
        "below": ("{", '{"x": [{"y": 1, "y": 1}],'),
    }
    for word, (old, new) in texts.items():
        yield "IDX-4", f"twice-{word}", f"a key twice: {word.replace('-', ' ')}", edited(old, new)


def nested() -> Iterator[Fault]:
    """IDX-5; the object of the index is one level, too."""
    for levels in (9, 100, 100_000):
        value = "[" * (levels - 1) + "]" * (levels - 1)
        yield "IDX-5", f"nested-{levels}-arrays", f"arrays nested {levels:,} deep", added(value)
    yield "IDX-5", "nested-9-objects", "objects nested 9 deep", added('{"y":' * 8 + "1" + "}" * 8)
    yield "IDX-5", "nested-9-mixed", "both nested 9 deep", added('[{"y":' * 4 + "1" + "}]" * 4)


def lacking() -> Iterator[Fault]:
    """IDX-6."""
    index = independent.index_of(LONE_SHARD)
    for key in index:
        rest = {other: value for other, value in index.items() if other != key}
        yield "IDX-6", f"no-{key.replace('_', '-')}", f"no {key}", with_index(LONE_SHARD, rest)
    yield "IDX-6", "no-total-size", "no total_size", put("metadata", value={"size": 0})


def types() -> Iterator[Fault]:
    """IDX-7."""
    kinds: dict[str, Any] = {"null": None, "array": [], "string": "x", "integer": 1, "boolean": True}
    for key in ("metadata", "shards", "weight_map"):
        for word, value in kinds.items():
            name = f"type-{key.replace('_', '-')}-{word}"
            yield "IDX-7", name, f"{key} is {json.dumps(value)}", put(key, value=value)
    size, identity = len(LONE_SHARD[LONE]), LONE_SHARD[LONE][32:64].hex()
    sizes = {
        "string": f'"{size}"',
        "null": "null",
        "boolean": "true",
        "array": f"[{size}]",
        "point": f"{size}.0",
        "exponent": f"{size}e0",
        "minus": f"-{size}",
        "minus-0": "-0",
        "2-63": str(2**63),
        "2-64-and-more": str(2**64 + size),
        "5000-digits": "1" * 5000,
    }
    for word, text in sizes.items():
        files = edited(f'"total_size": {size}', f'"total_size": {text}')
        yield "IDX-7", f"type-total-size-{word}", f"total_size is {text[:30]}", files
    identities: dict[str, Any] = {
        "upper-case": identity.upper(),
        "63-digits": identity[:-1],
        "65-digits": identity + "0",
        "empty": "",
        "no-digit": identity[:-1] + "g",
        "prefix": "0x" + identity[2:],
        "line-feed": identity + "\n",
        "null": None,
        "integer": 0,
        "array": [identity],
        "object": {"sha256": identity},
    }
    for word, value in identities.items():
        yield "IDX-7", f"type-identity-{word}", f"an identity: {word}", put("shards", LONE, value=value)
    kinds = {"null": None, "array": [LONE], "integer": 1, "boolean": True, "object": {}}
    for word, value in kinds.items():
        files = put("weight_map", "w", value=value)
        yield "IDX-7", f"type-shard-{word}", f"a tensor in the shard {value}", files


def tensor_names() -> Iterator[Fault]:
    """NAME-1 and NAME-2."""
    names = {
        ("NAME-1", "empty"): "",
        ("NAME-1", "513-bytes"): "x" * 511 + "\u00e9",
        ("NAME-2", "nul"): "x\0",
        ("NAME-2", "escape"): "\x1b[2J",
        ("NAME-2", "u-202e"): "\u202e",
    }
    for (clause, word), name in names.items():
        files = put("weight_map", name, value=LONE)
        yield clause, f"tensor-name-{word}", f"a tensor's name: {word}", files


NO_NAMES = {
    "parent": "../w.trit",
    "parent-inside": "x/../../w.trit",
    "parent-backslash": "..\\w.trit",
    "absolute": "/w.trit",
    "below": "x/w.trit",
    "here": "./w.trit",
    "backslash": "x\\w.trit",
    "drive": "C:w.trit",
    "drive-root": "C:\\w.trit",
    "share": "\\\\host\\share\\w.trit",
    "stream": "w.trit:x.trit",
    "url": "https://host/w.trit",
    "file-url": "file:w.trit",
    "percent": "%2e%2e%2fw.trit",
    "home": "~w.trit",
    "variable": "$w.trit",
    "star": "*.trit",
    "nul": "w\0.trit",
    "line-feed": "w\n.trit",
    "line-feed-last": "w.trit\n",
    "space": "w .trit",
    "space-last": "w.trit ",
    "dot-last": "w.trit.",
    "dot-first": ".w.trit",
    "hyphen-first": "-w.trit",
    "two-dots": "w..trit",
    "two-dots-inside": "w..w.trit",
    "ending-alone": ".trit",
    "empty": "",
    "upper-case-ending": "w.TRIT",
    "no-dot": "wtrit",
    "another-ending": "w.safetensors",
    "the-index": INDEX,
    "129-characters": "w" * 124 + ".trit",
    "accent": "\u00e9.trit",
    "full-width": "\uff57.trit",
    "u-202e": "\u202ew.trit",
}
TAKEN = {
    "model": "model.trit",
    "model-capital": "Model.trit",
    "con": "con.trit",
    "con-and-more": "CON.1.trit",
    "prn": "prn.trit",
    "aux-capital": "Aux.trit",
    "nul": "nul.trit",
    "nul-and-more": "NUL.x.y.trit",
    "com0": "com0.trit",
    "com1-capital": "COM1.trit",
    "com9": "com9.trit",
    "lpt0": "lpt0.trit",
    "lpt9-capital": "LPT9.trit",
}


def shard_names() -> Iterator[Fault]:
    """IDX-8 to IDX-10. The files are not there: some could not be stored."""
    for word, name in NO_NAMES.items():
        yield "IDX-8", f"name-{word}", f"a shard {ascii(name)[:40]}", only_index({name: shard("w")})
    files = put("weight_map", "w", value="../w.trit")
    yield "IDX-8", "name-in-weight-map-alone", "weight_map alone leads out of the folder", files
    for word, name in TAKEN.items():
        yield "IDX-9", f"name-taken-{word}", f"a shard {name}", only_index({name: shard("w")})
    both = {"w.trit": shard("w"), "W.trit": shard("v")}
    yield "IDX-10", "name-in-two-cases", "w.trit and W.trit", only_index(both)


def only_index(shards: Files) -> Files:
    """The index of *shards*, without them."""
    return {INDEX: sound(shards)[INDEX]}


# Faults of the folder

FolderFault = tuple[str, str | None, str, str, Files]  # clause, shard, id, why, files


def broken_folder() -> Iterator[FolderFault]:
    """Each requirement of SPEC 15.2."""
    files, lone = sound(SHARDS), sound(LONE_SHARD)
    for number, name in enumerate(SHARDS, 1):
        rest = {other: data for other, data in files.items() if other != name}
        yield "IDX-12", name, f"missing-{number}-of-3", f"shard {number} of 3 is missing", rest
    stead = {INDEX: lone[INDEX], f"{LONE}/data": b"x"}
    yield "IDX-12", LONE, "missing-but-a-folder", "a folder has the name of the shard", stead
    extra = {"numbered": "model-00002-of-00001.trit", "model": "model.trit", "odd": "x y.trit"}
    for word, name in extra.items():
        why = f"{name} is there, too, and the index does not name it"
        yield "IDX-13", name, f"extra-{word}", why, lone | {name: shard("v")}
    yield "IDX-13", "x.trit", "extra-folder", "a folder x.trit", lone | {"x.trit/data": b"x"}
    yield "IDX-13", "x.trit", "extra-empty", "an empty file x.trit", lone | {"x.trit": b""}
    size = len(LONE_SHARD[LONE])
    for word, total in {"less": size - 1, "more": size + 1, "half": size // 2, "0": 0}.items():
        why = f"total_size is {total}, the shard has {size} bytes"
        yield "IDX-14", None, f"size-{word}", why, put("metadata", "total_size", value=total)
    yield from identities(files)
    yield from tensors()
    yield from damaged(files)


def identities(files: Files) -> Iterator[FolderFault]:
    """IDX-15."""
    other = files | {SECOND: shard("c.w", depth=2, bias=1)}
    yield "IDX-15", SECOND, "identity-of-another-model", "a shard of another model, of the same form", other
    coarse = with_total(files | {SECOND: shard("c.w", depth=1)})
    yield "IDX-15", SECOND, "identity-of-a-coarser-model", "a shard of depth 1 instead of 2", coarse
    bit = f"{int(SHARDS[SECOND][32:64].hex(), 16) ^ 1:064x}"
    files = put("shards", SECOND, value=bit, shards=SHARDS)
    yield "IDX-15", SECOND, "identity-one-bit", "one bit of an identity in the index is another", files
    yield "IDX-15", LONE, "identity-zero", "an identity of zeros", put("shards", LONE, value="0" * 64)


def with_total(files: Files) -> Files:
    """*files* with a total_size that fits."""
    index = json.loads(files[INDEX])
    index["metadata"]["total_size"] = sum(len(files[name]) for name in index["shards"])
    return with_index(files, index)


def tensors() -> Iterator[FolderFault]:
    """IDX-16."""
    yield "IDX-16", LONE, "tensor-is-not-there", "the shard has no v", put("weight_map", "v", value=LONE)
    files = changed(lambda index: index["weight_map"].pop("w"))
    yield "IDX-16", LONE, "tensor-is-not-in-the-index", "the index has no w", files
    files = put("weight_map", value={"W": LONE, "w.bias": LONE})
    yield "IDX-16", LONE, "tensor-is-named-otherwise", "W in the index is w in the shard", files
    files = sound({FIRST: shard("w", "v"), SECOND: independent.write({"v": Raw([1], "U8", b"v")})})
    yield "IDX-16", FIRST, "tensor-is-in-two-shards", "v is in both shards, the index says in 2", files


def damaged(files: Files) -> Iterator[FolderFault]:
    """A shard that breaks a requirement by itself."""
    data = SHARDS[SECOND]
    plane = independent.open_file(data)[1][1].offset
    changes = {
        "shard-gap": ("LAY-3", "a byte of the padding", replaced(data, len(data) - 1, 1)),
        "shard-digest": ("SEG-1", "a byte of a plane", replaced(data, plane, data[plane] ^ 1)),
        "shard-header": ("PRE-8", "a byte of the header", replaced(data, 80, data[80] ^ 1)),
        "shard-cut": ("PRE-6", "the last 64 bytes, to which total_size was made to fit", data[:-64]),
        "shard-empty": ("PRE-1", "all bytes, to which total_size was made to fit", b""),
        "shard-major": ("PRE-3", "the major version", replaced(data, 8, 2)),
        "shard-flag": ("PRE-4", "a flag", replaced(data, 12, 2)),
    }
    for name, (clause, what, changed_data) in changes.items():
        yield clause, SECOND, name, f"shard 2 of 3: {what}", with_total(files | {SECOND: changed_data})
    alone = {"model.trit": replaced(LONE_SHARD[LONE], len(LONE_SHARD[LONE]) - 1, 1)}
    yield "LAY-3", "model.trit", "shard-without-an-index", "model.trit alone, a byte of the padding", alone


# What the manifest says of them

PLACE = "folders"  # in fixtures/
UNSUPPORTED = ("PRE-3", "PRE-4")


def section(known: dict[str, str]) -> tuple[Json, Files]:
    """The section of the manifest on folders, and every file by its place in fixtures/; *known* CVEs."""
    found = sorted(folders(), key=lambda folder: folder.id)
    cases = [of_folder(folder) for folder in found]
    verdicts = Counter(case["verdict"] for case in cases)
    notes = {
        flag: {
            "kind": kind,
            "description": words,
            "effect": effect,
            "cves": {cve: known[cve] for cve in cves},
        }
        for flag, kind, words, effect, _, cves in FAULTS
    }
    counts = {verdict: verdicts[verdict] for verdict in ("valid", "invalid", "unsupported")}
    files = {f"{place_of(folder)}/{name}": data for folder in found for name, data in folder.files.items()}
    return {"counts": counts, "notes": notes, "cases": cases}, files


def place_of(folder: Folder) -> str:
    """Where the folder stands in fixtures/."""
    return f"{PLACE}/{'valid' if folder.clause is None else 'invalid'}/{folder.id}"


def of_folder(folder: Folder) -> Json:
    """What the manifest says of a folder."""
    clause = folder.clause
    flags = [
        flag
        for flag, *_, patterns, _ in FAULTS
        if any(fnmatch.fnmatchcase(folder.id, pattern) for pattern in patterns.split())
    ]
    return {
        "id": folder.id,
        "folder": place_of(folder),
        "files": {name: sha256(data).hexdigest() for name, data in sorted(folder.files.items())},
        "verdict": "valid" if clause is None else "unsupported" if clause in UNSUPPORTED else "invalid",
        "clause": clause,
        "shard": folder.shard,
        "why": folder.why,
        "flags": flags,
        "decoded": decoded(folder.files) if clause is None else None,
    }


def decoded(files: Files) -> Json:
    """What a reader finds in a valid folder: its identity, and the tensors of each shard."""
    main = INDEX if INDEX in files else "model.trit"
    shards = independent.read_index(files[INDEX])["shards"] if INDEX in files else [main]
    data = files[main]
    return {
        "identity": sha256(data).hexdigest() if main == INDEX else data[32:64].hex(),
        "shards": {name: sorted(independent.read(files[name])[1]) for name in sorted(shards)},
    }


def dumped(content: Json) -> str:
    """The section as JSON, a line for each note and case."""
    notes = ",\n".join(
        f"   {json.dumps(flag)}: {json.dumps(note)}" for flag, note in content["notes"].items()
    )
    cases = ",\n".join(f"   {json.dumps(case)}" for case in content["cases"])
    counts = json.dumps(content["counts"])
    return f'{{\n  "counts": {counts},\n  "notes": {{\n{notes}\n  }},\n  "cases": [\n{cases}\n  ]\n }}'
