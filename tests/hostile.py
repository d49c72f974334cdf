"""Hostile inputs for tools/fuzz.py: headers, files, indexes and model folders, in streams that a seed fixes.

An input is bytes. That of a header begins with the minor version it is read as; that of a folder is a
MessagePack map from file names to bytes. What is changed mostly fits again: sizes, digests, identities.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import folder_cases
import independent
import msgpack
import mutated
from mutated import (
    Base,
    Draft,
    change_bytes_of_header,
    change_preamble,
    change_segment,
    change_value,
    mangled,
)

Files = dict[str, bytes]
Json = Any
Change = Callable[[bytes], bytes]  # of bytes that mean nothing to it
Changed = Callable[[bytes, Change, Random], bytes]  # an input with such a change, which fits again
MADE = 0.15  # share of files that are made to fit another header, which takes long
DAMAGED = 0.1  # share of files whose bytes are changed when all fits
BULKY = 0.0005  # share of headers that are long
SMALL_VALUES = [b"\x00", b"\x80", b"\x90", b"\xa0", b"\xa1x", b"\x81\xa0\x00", b"\x91\x91\x91\x91\x00"]


# Headers and files


def small(random: Random, originals: Sequence[Base]) -> Base:
    """One of them, rather a small one: what is wrong shows in those, too, and sooner."""
    return min(random.choice(originals), random.choice(originals), key=lambda base: len(base.header))


def header(random: Random, originals: Sequence[Base]) -> bytes:
    """A header with one value changed, sometimes bytes as well, after the minor version."""
    if random.random() < BULKY:
        return bulky(random)
    base = small(random, originals)
    draft = Draft(base, base.header, [], base.minor)
    change_value(random, draft)
    if random.random() < 0.2:
        change_bytes_of_header(random, draft)
    return bytes([base.minor & 1]) + draft.header


def bulky(random: Random) -> bytes:
    """A header of a newer minor version, up to a megabyte of values that each take a byte or a few."""
    return long_header(random.choice(SMALL_VALUES), random.randrange(1 << 20))


def long_header(value: bytes, size: int) -> bytes:
    """A header whose unknown key has *size* bytes of one *value*, after its minor version."""
    count = size // len(value)
    unknown = independent.dumps("z") + independent.dumps_head(list, count) + value * count
    known = independent.dumps({"metadata": {}, "tensors": [], "version": [1, 1]})
    return b"\x01" + independent.dumps_head(dict, 4) + known[1:] + unknown


def file(random: Random, originals: Sequence[Base]) -> bytes:
    """A file with a change in header, segment or preamble, or made to fit another header."""
    if random.random() < MADE:
        return mutated.make(random.getrandbits(32), random.getrandbits(32), originals).data
    base = small(random, originals)
    draft = Draft(base, base.header, list(base.content), base.minor)
    random.choices([change_value, change_segment, change_preamble], [6, 3, 1])[0](random, draft)
    data = draft.seal()
    return mutated.change_file(random, data) if random.random() < DAMAGED else data


def repaired(data: bytes) -> bytes:
    """A file of any bytes, whose header size stays, with the other sizes and digests as they should be."""
    size = int.from_bytes(data[16:24], "little")
    if not 1 <= size <= len(data) - 64:
        return data
    data += bytes(-len(data) % 64)
    body = data[64 : 64 + size]
    try:
        value = independent.parse(body)
        for segment in independent.layout(size, value["tensors"])[0]:
            mutated.put_digest(segment.entry, segment.index, data[segment.offset :][: segment.size])
        fitting = independent.dumps(value)
        body = fitting if len(fitting) == size else body
    except Exception:  # of any bytes at all there may be no layout, and the rest fits still
        pass
    preamble = (independent.MAGIC, 1, data[10], 0, size, len(data), hashlib.sha256(body).digest())
    return struct.pack(independent.PREAMBLE, *preamble) + body + data[64 + size :]


# Indexes

DEEP = ["[" * n + "]" * n for n in (1, 6, 7, 8, 9, 2000)]
TOKENS = ["NaN", "-Infinity", "1e400", "-0", "1" * 5000, '"\\ud800"', "\ufeff", "\0", "//", ",", "'", "tru"]
TOKENS += ['"w": 1, "w": 2', '"\\u0077"', "\x1b[m", "\x7f", "{}", *DEEP]
VALUES: list[Json] = [
    None,
    True,
    0,
    1,
    -1,
    1.5,
    2**63 - 1,
    2**63,
    10**30,
    "",
    "w",
    "\ud800",
    "\x1b[m",
    [],
    {},
]
VALUES = [*VALUES, [[[[[[[0]]]]]]], {"a": {"b": 1}}, "0" * 64, "f" * 64, "F" * 64, "x" * 513, "\u202e"]
SHARDS = ["a.trit", "A.trit", "con.trit", "model.trit", "../x.trit", "/x.trit", "a\\b.trit", "\u00e9.trit"]
SHARDS += [".a.trit", "a.bin", "-a.trit", "a..trit", "C:a.trit", "a.trit\0", "a.trit ", "lpt9.trit"]
SHARDS += ["x" * length + ".trit" for length in (122, 123, 124)]


def index(random: Random, texts: Sequence[bytes]) -> bytes:
    """An index with another value, key, form or text."""
    text = random.choice(texts)
    if random.random() < 0.7:
        value = json.loads(text)
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            change_json(random, value)
        text = written(random, value)
    if random.random() < 0.4:
        text = with_token(random, text) if random.random() < 0.5 else mangled(random, text)
    return text


def change_json(random: Random, value: Json) -> None:
    """Change a value of an object anywhere in *value*, its key, or take it out."""
    value.setdefault("x", 0)  # there is always a place to change
    container, key = random.choice(list(places(value)))
    pick = random.randrange(5)
    new = random.choice(VALUES + SHARDS)
    if pick == 0:
        del container[key]
    elif pick == 1:
        container[str(new)] = container.pop(key)
    elif pick == 2:
        container[str(new)] = container[key]
    else:
        container[key] = random.choice(VALUES if pick == 3 else SHARDS)


def places(value: Json) -> Iterator[tuple[dict[str, Json], str]]:
    """Every key of every object in *value*, with its object."""
    for key, item in value.items():
        yield value, key
        if isinstance(item, dict):
            yield from places(item)


def written(random: Random, value: Json) -> bytes:
    """*value* as JSON in one of its forms."""
    text = json.dumps(
        value,
        ensure_ascii=random.random() < 0.8,
        indent=random.choice([None, 2, "\t"]),
        sort_keys=random.random() < 0.5,
    )
    return text.encode("utf-8", "surrogatepass")


def with_token(random: Random, text: bytes) -> bytes:
    """*text* with something put in, mostly where a value stands."""
    at = text.find(random.choice([b":", b"{", b",", b"}"])) + 1 if random.random() < 0.5 else 0
    at = at or random.randrange(len(text) + 1)
    return text[:at] + random.choice(TOKENS).encode() + text[at + random.choice([0, 0, 1, 8]) :]


# Folders


def folder(random: Random, originals: Sequence[Files], bases: Sequence[Base]) -> bytes:
    """A model folder with another index, a shard that is damaged, or files that went elsewhere."""
    files = dict(random.choice(originals))
    shards = [name for name in files if name.endswith(".trit")]
    pick = random.choices(["index", "shard", "files"], [2, 6, 2])[0]
    if pick == "index" and independent.INDEX in files:
        files[independent.INDEX] = index(random, [files[independent.INDEX]])
    elif pick == "shard" and shards:
        change_shard(random, files, random.choice(shards), bases)
    elif shards:
        move(random, files, random.choice(shards))
    data: bytes = msgpack.packb(files)
    return data


def change_shard(random: Random, files: Files, name: str, bases: Sequence[Base]) -> None:
    """Damage a shard, or put another file there; mostly the index has its identity and size then."""
    old = files[name]
    originals = [mutated.base_of(old)] if random.random() < 0.5 else bases
    files[name] = file(random, originals)
    if random.random() < 0.8:
        refit(files, name, old)


def refit(files: Files, name: str, old: bytes) -> None:
    """Let the index, if there is one, have the identity and the size of the shard that was *old*."""
    if independent.INDEX in files:
        text = files[independent.INDEX].decode("utf-8", "surrogateescape")
        text = text.replace(identity(old), identity(files[name]))
        size = sum(len(data) for part, data in files.items() if part.endswith(".trit"))
        before = size - len(files[name]) + len(old)
        text = text.replace(f'"total_size": {before}', f'"total_size": {size}')
        files[independent.INDEX] = text.encode("utf-8", "surrogateescape")


def identity(data: bytes) -> str:
    """The SHA-256 of the header of a file, or of what stands there."""
    size = int.from_bytes(data[16:24], "little")
    return hashlib.sha256(data[64 : 64 + size]).hexdigest()


def move(random: Random, files: Files, name: str) -> None:
    """Take a shard away, rename it, cut it, or put it there twice."""
    pick = random.randrange(4)
    other = random.choice(["a.trit", "w.trit", "W.TRIT", ".w.trit", "z.bin", "model.trit"])
    if pick == 0:
        del files[name]
    elif pick == 1:
        files[other] = files.pop(name)
    elif pick == 2:
        files[other] = files[name]
    else:
        files[name] = files[name][: random.choice([0, 1, 63, 64, 100])]


def files_of(data: bytes) -> Files:
    """The files of a folder; none of bytes that are none, as the first of atheris."""
    try:
        files: Files = msgpack.unpackb(data)
    except ValueError:
        return {}
    return files if isinstance(files, dict) else {}


def originals_of_folders() -> list[Files]:
    """Whole folders, whose files lie beside each other."""
    cases = [files for _, _, files in folder_cases.whole() if not any("/" in name for name in files)]
    return [files for files in cases if _is_object(files.get(independent.INDEX, b"{}"))]


def indexes() -> list[bytes]:
    """The index of every folder of the fixtures, where it is an object."""
    texts = [case.files.get(independent.INDEX, b"") for case in folder_cases.folders()]
    return [text for text in dict.fromkeys(texts) if len(text) < 1 << 14 and _is_object(text)]


def _is_object(text: bytes) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


# What atheris changes, made to fit again


def changed_bytes(data: bytes, change: Change, _: Random) -> bytes:
    """Of a header or an index: nothing in it has to fit."""
    return change(data)


def changed_file(data: bytes, change: Change, _: Random) -> bytes:
    """Of a file."""
    return repaired(change(data))


def changed_folder(data: bytes, change: Change, random: Random) -> bytes:
    """Of one file of a folder; the index has the identity of a shard, mostly."""
    files = files_of(data)
    if not files:
        return data
    name = random.choice(list(files))
    old, files[name] = files[name], change(files[name])
    if name.endswith(".trit"):
        files[name] = repaired(files[name])
        if random.random() < 0.8:
            refit(files, name, old)
    packed: bytes = msgpack.packb(files)
    return packed
