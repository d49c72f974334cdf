"""Files with random faults, whose digests, sizes and layout mostly fit again; made without the package.

A valid file is changed in one place or in a few: its bytes, the values of its header, its
segments, codebooks, names or sizes. Without repair everything would die at the first digest.
Input number n of a seed is always the same. tools/fuzz_diff.py runs them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import damaged
import independent
import msgpack
from painted import STEPS, painted_trit

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "valid"
BASE_SIZE = 4096  # largest file that is damaged, in bytes
FILLED_SIZE = 1 << 14  # largest file that is made to fit a header
SINGLE = 0.6  # share of inputs with one change

Clauses = frozenset[str | None] | None  # what may be named, None for a valid file; or unknown
Value = Any  # of MessagePack


def only(*clauses: str | None) -> Clauses:
    """These clauses and no others."""
    return frozenset(clauses)


# The header as a tree over its bytes


class Node(NamedTuple):
    """A value in a header, at bytes start to end: its head to body, then what is in it."""

    kind: type
    number: int  # the integer, or how many bytes, items or pairs
    start: int
    body: int
    end: int
    path: tuple[str, ...]  # the keys above it; "*" for an index
    is_key: bool
    parts: tuple[Node, ...]  # items, or keys and values in turn


def tree(header: bytes) -> list[Node]:
    """All values of a canonical *header*, the whole first."""
    nodes: list[Node] = []
    parser = independent.Parser(header)

    def read(path: tuple[str, ...], is_key: bool = False) -> Node:
        start, at = parser.at, len(nodes)
        kind, number = parser.head()
        body, parts = parser.at, []
        if kind in (str, bytes):
            parser.take(number)
        for _ in range(number if kind in (list, dict) else 0):
            key = "*"
            if kind is dict:
                parts.append(read(path, True))
                key = header[parts[-1].body : parts[-1].end].decode()
            parts.append(read((*path, key)))
        node = Node(kind, number, start, body, parser.at, path, is_key, tuple(parts))
        nodes.insert(at, node)
        return node

    read(())
    return nodes


FORMAT_KEYS = {"metadata", "tensors", "version"}


def is_known(path: tuple[str, ...], minor: int) -> bool | None:
    """True where the value has a type by SPEC 6.3 or 6.4; None where that depends on an entry's kind."""
    if not path or path[0] not in FORMAT_KEYS:
        return not path
    if path[0] != "tensors" or len(path) < 3 or path[2] in independent.FIELDS["raw"]:
        return True
    return path[2] in independent.FIELDS["trit"] and (minor == 0 or None)


def where_known(path: tuple[str, ...], minor: int, clause: str) -> Clauses:
    """The *clause* where the document says what stands at *path*; elsewhere any value of 6.2 may."""
    known = is_known(path, minor)
    return None if known is None else only(clause) if known else only(None, "MP-6")


# Inputs in the making


@dataclass(frozen=True)
class Base:
    """A valid file in parts."""

    header: bytes
    content: tuple[bytes, ...]  # segments in file order
    minor: int
    nodes: tuple[Node, ...]


@dataclass
class Draft:
    """A file being changed, and what is to be said of it."""

    base: Base
    header: bytes
    content: list[bytes]
    minor: int
    preamble: dict[str, int | bytes] = field(default_factory=dict)
    clauses: Clauses = None
    how: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> Sequence[Node]:
        """The header's values; empty where it is damaged."""
        if self.header == self.base.header:
            return self.base.nodes
        try:
            return tree(self.header)
        except (independent.Broken, UnicodeDecodeError, RecursionError):
            return ()

    def seal(self) -> bytes:
        """The file, with the preamble's fields as they should be but for those that were changed."""
        data = independent.seal(self.header, self.content, (1, self.minor))
        if not self.preamble:
            return data
        names = ("magic", "major", "minor", "flags", "size", "length", "digest")
        fields = dict(zip(names, struct.unpack(independent.PREAMBLE, data[:64]), strict=True))
        return struct.pack(independent.PREAMBLE, *(fields | self.preamble).values()) + data[64:]


def base_of(data: bytes) -> Base:
    """The parts of a valid file."""
    header, segments = independent.open_file(data)
    size = struct.unpack_from("<Q", data, 16)[0]
    encoded = data[64 : 64 + size]
    content = tuple(data[s.offset : s.offset + s.size] for s in segments)
    return Base(encoded, content, header["version"][1], tuple(tree(encoded)))


def bases() -> list[Base]:
    """The files that get damaged: fixtures, those of the tests, and some of every form."""
    paths = sorted(FIXTURES.rglob("*.trit"))
    files = [path.read_bytes() for path in paths if path.stat().st_size <= BASE_SIZE]
    files += [data for _, data in damaged.undamaged() if len(data) <= BASE_SIZE]
    for depth in range(1, 5):
        for dtype in independent.FORMATS:
            narrow = painted_trit([3, 17], depth, 4 - depth, 5, dtype)
            steps = list(STEPS)[depth % 4]
            files.append(independent.write({"w": narrow, "x": painted_trit([2, 5, 9], depth, steps=steps)}))
    files += [
        independent.write({dtype: independent.Raw([3], dtype, bytes([1] * 3 * size))})
        for dtype, size in independent.ELEMENT.items()
    ]
    return [base_of(data) for data in files]


# Changes of the header's bytes, value by value

# In hexadecimal, which reads better without quotes: hence each SIM905
BAD_VALUES = "C0 C1 C2 C3 CA3F800000 CB3FF0000000000000 E0 FF D0FF D1FFFF D2FFFFFFFF D001".split()  # noqa: SIM905  # a table: a list would fill the page
BAD_VALUES += "D3FFFFFFFFFFFFFFFF D40000 D50000 D6FF00000000 C70100FF C8000100FF".split()  # noqa: SIM905  # a table: a list would fill the page
BAD_TEXTS = "80 C0AF C3 E28280E2 EDA080 EDBFBF F08080AF F4908080 F5808080 FF FEFF".split()  # noqa: SIM905  # a table: a list would fill the page
OTHERS: dict[type, Value] = {int: 1, str: "x", bytes: b"x", list: [], dict: {}}
INTEGERS = [*range(10), 15, 16, 17, 31, 32, 64, 127, 128, 255, 256, 65535, 65536, 65537]
INTEGERS += [2**power for power in (24, 31, 32, 40, 48, 62, 63)]
INTEGERS += [2**32 - 1, 2**48 - 1, 2**48 + 1, 2**63 - 1, 2**64 - 1]
COUNTS = [number for number in INTEGERS if number < 2**32]
NAMES = ["", *"aAbé\uff5e\U0001f600\x7f\x9f\xa0\ue000\ufffe\U0010ffff"]
NAMES += ["weight", "e\u0301", "../x", "a\0b", "\x1b[m"]
NAMES += [*"\u2027\u2028\u202e\u202f\u2065\u2066\u2069\u206a\ufeff"]
NAMES += ["x" * size for size in (31, 32, 255, 256, 512, 513)] + ["é" * 256, "é" * 257]


def heads(node: Node) -> list[bytes]:
    """The longer forms of a head, none of them the shortest."""
    forms = [
        (w, f) for f, (k, w, shorter) in independent.WIDE.items() if k is node.kind and node.number <= shorter
    ]
    return [bytes([first]) + node.number.to_bytes(width, "big") for width, first in forms]


def random_value(random: Random, depth: int = 0) -> Value:
    """A value that a newer version might have."""
    pick = random.randrange(5 if depth < 3 else 3)
    if pick == 0:
        return random.choice(INTEGERS)
    if pick < 3:
        return random.choice(NAMES) if pick == 1 else random.randbytes(random.choice([0, 1, 32, 255, 256]))
    if pick == 3:
        return [random_value(random, depth + 1) for _ in range(random.choice([0, 1, 2, 15, 16]))]
    return {str(i): random_value(random, depth + 1) for i in range(random.randrange(3))}


Edit = tuple[int, int, bytes]  # start and end in the header, and what comes there
Change = tuple[list[Edit], Clauses]


def count(node: Node, by: int) -> Edit:
    """Its head with another count."""
    return node.start, node.body, independent.dumps_head(node.kind, node.number + by)


def bytes_of(draft: Draft, *nodes: Node) -> bytes:
    """What stands in the header from the first node to the last."""
    return draft.header[nodes[0].start : nodes[-1].end]


def longer_form(random: Random, _: Draft, node: Node) -> Change:
    """A head in a longer form."""
    forms = heads(node)
    return ([(node.start, node.body, random.choice(forms))], only("MP-2")) if forms else ([], None)


def bad_value(random: Random, _: Draft, node: Node) -> Change:
    """What is no value of the profile."""
    return [(node.start, node.end, bytes.fromhex(random.choice(BAD_VALUES)))], only("MP-1")


def retyped(random: Random, draft: Draft, node: Node) -> Change:
    """A value, or key, of another type."""
    kind = random.choice([kind for kind in OTHERS if kind is not node.kind])
    edit = node.start, node.end, independent.dumps(OTHERS[kind])
    if node.is_key:
        return [edit], only("MP-3")
    return [edit], where_known(node.path, draft.minor, "TYPE-1")


def bad_key(random: Random, _: Draft, node: Node) -> Change:
    """A key of another type, whose length is false as well."""
    kind = random.choice([bytes, list, dict])
    head = independent.dumps_head(kind, random.choice([1, 9, 15, 300, 2**32 - 1]))
    return ([(node.start, node.end, head)], only("MP-3")) if node.is_key else ([], None)


def bad_text(random: Random, _: Draft, node: Node) -> Change:
    """A str that is not UTF-8."""
    if node.kind is not str:
        return [], None
    text = bytes.fromhex(random.choice(BAD_TEXTS)).rjust(random.choice([0, 0, 31, 32, 600]), b"x")
    clauses = only("MP-4", "MP-3") if node.is_key else only("MP-4")
    return [(node.start, node.end, independent.dumps_head(str, len(text)) + text)], clauses


def other_text(random: Random, _: Draft, node: Node) -> Change:
    """Another str or key."""
    text = random.choice(NAMES) * random.choice([1, 1, 1, 2])
    return ([(node.start, node.end, independent.dumps(text))], None) if node.kind is str else ([], None)


def other_integer(random: Random, _: Draft, node: Node) -> Change:
    """Another integer."""
    number = random.choice([*INTEGERS, min(node.number + 1, 2**64 - 1), max(node.number - 1, 0)])
    return ([(node.start, node.end, independent.dumps(number))], None) if node.kind is int else ([], None)


def false_claim(random: Random, _: Draft, node: Node) -> Change:
    """A length or count that is another than that of what follows."""
    number = random.choice([*COUNTS, node.number + 1, max(node.number - 1, 0)])
    return (
        ([(node.start, node.body, independent.dumps_head(node.kind, number))], None)
        if node.kind is not int
        else ([], None)
    )


def nested(random: Random, _: Draft, node: Node) -> Change:
    """Nested arrays or maps, too deep or not."""
    levels, opening = (
        random.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 300, 5000]),
        random.choice([b"\x91", b"\x81\xa0"]),
    )
    return [(node.start, node.end, opening * levels + b"\x00")], None


def resized(random: Random, draft: Draft, node: Node) -> Change:
    """A bin with more or fewer bytes."""
    if node.kind is not bytes:
        return [], None
    old = draft.header[node.body : node.end]
    new = random.choice([old[:-1], old + b"\0", b"", old * 2, old + bytes(300)])
    key = node.path[2] if node.path[:1] == ("tensors",) and len(node.path) > 2 else ""
    clause = {"codebook": "CB-1", "sha256": "ENT-3"}.get(key)
    clauses = where_known(node.path, draft.minor, clause) if clause and new != old else None
    return [(node.start, node.end, independent.dumps(new))], clauses


def dropped(random: Random, draft: Draft, node: Node) -> Change:
    """One pair or item less."""
    if node.kind not in (list, dict) or not node.number:
        return [], None
    step = 2 if node.kind is dict else 1
    at = random.randrange(node.number) * step
    first, last = node.parts[at], node.parts[at + step - 1]
    missing = {(): "HDR-1", ("tensors", "*"): "ENT-1"}.get(node.path)
    clauses = (
        where_known(last.path, draft.minor, missing) if missing else only(None) if node.kind is dict else None
    )
    return [count(node, -1), (first.start, last.end, b"")], clauses


def doubled(random: Random, draft: Draft, node: Node) -> Change:
    """One pair or item twice."""
    if node.kind not in (list, dict) or not node.number:
        return [], None
    step = 2 if node.kind is dict else 1
    at = random.randrange(node.number) * step
    first, last = node.parts[at], node.parts[at + step - 1]
    return [count(node, 1), (last.end, last.end, bytes_of(draft, first, last))], only(
        "MP-3"
    ) if step == 2 else None


def exchanged(random: Random, draft: Draft, node: Node) -> Change:
    """Two neighbouring pairs or items that have changed places."""
    step = 2 if node.kind is dict else 1
    if node.kind not in (list, dict) or node.number < 2:
        return [], None
    at = random.randrange(node.number - 1) * step
    one, two = node.parts[at : at + step], node.parts[at + step : at + 2 * step]
    swapped = bytes_of(draft, *two) + bytes_of(draft, *one)
    return [(one[0].start, two[-1].end, swapped)], only("MP-3") if step == 2 else None


def unknown_key(random: Random, draft: Draft, node: Node) -> Change:
    """A pair more, in its place or not."""
    if node.kind is not dict:
        return [], None
    key = random.choice(["", "a", "dt", "dtypf", "name\0", "z", "zz", "é", "\U0001f600"])
    keys = [draft.header[part.body : part.end] for part in node.parts[::2]]
    if key.encode() in keys:
        return [], None
    before = sum(old < key.encode() for old in keys)
    at = node.parts[2 * before].start if before < len(keys) else node.end
    pair = independent.dumps(key) + independent.dumps(random_value(random))
    known = node.path in ((), ("tensors", "*"))
    clauses = None
    if known:
        clauses = only("VER-1") if draft.minor == 0 else only(None)
    return [count(node, 1), (at, at, pair)], clauses


def cut_or_continued(random: Random, draft: Draft, _: Node) -> Change:
    """A header that ends early or goes on after its value."""
    size = len(draft.header)
    if size > 1 and random.random() < 0.5:
        return [(random.randrange(1, size), size, b"")], only("MP-5")
    return [(size, size, random.choice([b"\0", b"\x80", b"\xc0", draft.header]))], only("MP-5")


EDITORS: list[Callable[[Random, Draft, Node], Change]]
EDITORS = [longer_form, bad_value, retyped, bad_key, bad_text, other_text, other_integer, false_claim, nested]
EDITORS += [resized, dropped, doubled, exchanged, unknown_key, cut_or_continued]


def change_value(random: Random, draft: Draft) -> Clauses:
    """Change one value, key, pair or item of the header, and nothing else."""
    nodes = draft.nodes
    for _ in range(20 if nodes else 0):
        editor, node = random.choice(EDITORS), random.choice(nodes)
        edits, clauses = editor(random, draft, node)
        if edits:
            break
    else:
        return change_bytes_of_header(random, draft)
    for start, end, new in sorted(edits, reverse=True):
        draft.header = draft.header[:start] + new + draft.header[end:]
    draft.how.append(f"{editor.__name__} at byte {64 + node.start}, {'.'.join(node.path) or 'header'}")
    return clauses


def change_bytes_of_header(random: Random, draft: Draft) -> Clauses:
    """Change bytes of the header, whatever they are."""
    draft.header = mangled(random, draft.header) or b"\x80"
    draft.how.append("bytes of the header")
    return None


def mangled(random: Random, data: bytes) -> bytes:
    """*data* with a few bytes changed, taken out, put in or repeated."""
    at, size = random.randrange(len(data) + 1), random.choice([1, 1, 1, 2, 4, 16])
    pick = random.randrange(5)
    if pick == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
    if pick == 1:
        return data[:at] + random.randbytes(size) + data[at + size :]
    if pick == 2:
        return data[:at] + data[at + size :]
    if pick == 3:
        return data[:at] + random.randbytes(size) + data[at:]
    other = random.randrange(len(data) + 1)
    return data[:at] + data[other : other + size] + data[at:]


# Changes of what the header says, to which the rest of the file is then made to fit


def reshape(random: Random, _: dict[str, Value], entry: dict[str, Value]) -> Clauses:
    """Another shape."""
    rank = random.choice([1, 1, 2, 2, 2, 3, 4, 8])
    entry["shape"] = [random.choice([1, 2, 3]) for _ in range(rank - 1)] + [random.randrange(1, 40)]
    if rank == 2:
        entry["shape"][0] = random.randrange(1, 12)
    if random.random() < 0.3:  # now a value that may be out of bounds
        entry["shape"] = random.choice(
            [
                entry["shape"] + [1] * (9 - rank),
                [],
                [*entry["shape"], 0],
                [random.choice(INTEGERS) for _ in range(rank)],
            ]
        )
        return None
    return only(None)


def reform(random: Random, _: dict[str, Value], entry: dict[str, Value]) -> Clauses:
    """Another depth, shift, group size or dtype."""
    key = random.choice(["depth", "shift", "group_size", "dtype", "kind"])
    if key == "dtype":
        entry[key] = random.choice([*independent.ELEMENT, "", "f32", "F32 ", "F4", "F64\0"])
    elif key == "kind":
        entry[key] = random.choice(["raw", "trit", "Trit", "", "raw "])
    elif entry["kind"] == "trit":
        entry[key] = random.choice([1, 2, 3, 4, *INTEGERS])
        if key == "group_size":
            return only(None) if 1 <= entry[key] <= 65536 else only("TEN-4")
    return None


# Bit patterns, in hexadecimal: limits of CB-2, and in the second row of CB-5
STEP_PATTERNS = "0 40 7FFFC0 800000 7F7FFFC0 7F800000 7FC00000 80000000 FF800000".split()  # noqa: SIM905  # a table: a list would fill the page
STEP_PATTERNS += "7E7FFFC0 7E800000 7D17B400 467FEFC0 467FF000 477FEFC0 7E7F7FC0".split()  # noqa: SIM905  # a table: a list would fill the page


def restep(random: Random, _: dict[str, Value], entry: dict[str, Value]) -> Clauses:
    """Another codebook."""
    if entry["kind"] != "trit":
        return None
    steps = list(struct.unpack("<27I", entry["codebook"]))
    at = random.choice([0, 1, 13, 25, 26])
    pick = random.randrange(5)
    if pick == 0:
        steps[at] = int(random.choice(STEP_PATTERNS), 16)
    elif pick == 1:
        steps[at] ^= 1 << random.randrange(32)
    elif pick == 2:
        steps = list(STEPS[random.choice(list(STEPS))])
    elif pick == 3:
        first, by = random.randrange(0x800000, 0x7F000000, 64), random.choice([64, 128, 0x40000, 0x700000])
        steps = [min(first + i * by, 0x7F7FFFC0 - 64 * (26 - i)) for i in range(27)]
    else:
        steps = sorted(random.randrange(0x20000, 0x1FE0000) * 64 for _ in range(27))
    entry["codebook"] = struct.pack("<27I", *steps)
    return only(*book_faults(steps, entry))


def book_faults(steps: list[int], entry: dict[str, Value]) -> set[str | None]:
    """All that is wrong with a codebook; None if nothing is."""
    wrong: set[str | None] = set()
    if not all(0x00800000 <= step <= 0x7F7FFFFF for step in steps):
        wrong.add("CB-2")
    if not all(a < b for a, b in pairwise(steps)):
        wrong.add("CB-3")
    if any(step % 64 for step in steps):
        wrong.add("CB-4")
    largest = 3 ** entry["shift"] * (3 ** entry["depth"] - 1) // 2
    infinity = independent.INFINITY[entry["dtype"]]
    if "CB-2" not in wrong and independent.weight(steps[26], largest, entry["dtype"]) == infinity:
        wrong.add("CB-5")
    return wrong or {None}


def rename(random: Random, header: dict[str, Value], entry: dict[str, Value]) -> Clauses:
    """Another name, in its place or not."""
    entry["name"] = random.choice(NAMES)
    if random.random() < 0.8:
        header["tensors"].sort(key=lambda other: other["name"].encode())
    return None


def retensor(random: Random, header: dict[str, Value], entry: dict[str, Value]) -> Clauses:
    """A tensor more, or less."""
    if random.random() < 0.3:
        header["tensors"].remove(entry)
        return only(None)
    names = {other["name"] for other in header["tensors"]}
    name = random.choice([name for name in ("0", "M", "aa", "zz", "ü", "c0") if name not in names] or ["~"])
    header["tensors"] = sorted(
        [*header["tensors"], entry | {"name": name}], key=lambda other: other["name"].encode()
    )
    return None if name in names else only(None)


def remeta(random: Random, header: dict[str, Value], _: dict[str, Value]) -> Clauses:
    """Other metadata."""
    header["metadata"] = {
        random.choice(NAMES): random.choice(NAMES) for _ in range(random.choice([0, 1, 2, 17]))
    }
    return None


def reversion(random: Random, header: dict[str, Value], _: dict[str, Value]) -> Clauses:
    """A newer minor version, with keys of its own."""
    header["version"] = [1, random.choice([0, 1, 2, 255, 65535])]
    place = random.choice([header, *header["tensors"]])
    key = random.choice(["z", "new", "a", "shapf"])
    place[key] = random_value(random)
    return only("VER-1") if header["version"][1] == 0 else only(None)


SETTERS: list[Callable[[Random, dict[str, Value], dict[str, Value]], Clauses]]
SETTERS = [reshape, reform, restep, rename, retensor, remeta, reversion]


def change_field(random: Random, draft: Draft) -> Clauses:
    """Change what the header says, and mostly make segments, digests and layout fit."""
    header = msgpack.unpackb(draft.header)
    if not header["tensors"]:
        header["tensors"] = [independent.entry_of("new", independent.Raw([1], "U8", b"x"))[0]]
        draft.content = [b"x"]
    setter = random.choice(SETTERS)
    clauses = setter(random, header, random.choice(header["tensors"]))
    fits = random.random() < 0.9 and refit(random, draft, header)
    draft.minor = header["version"][1]
    draft.header = msgpack.packb(ordered(header))
    draft.how.append(setter.__name__ + ("" if fits else ", the rest left as it was"))
    return clauses if fits or clauses is None or None not in clauses else None


def ordered(value: Value) -> Value:
    """The value with the keys of its maps in their order."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value, key=str.encode)}
    return [ordered(item) for item in value] if isinstance(value, list) else value


TO_TRITS = bytes(byte % 243 for byte in range(256))
PADDED = [  # by rows modulo 5: byte with the missing rows 0
    bytes(byte % 3**used + 3**used * ((3 ** (5 - used) - 1) // 2) for byte in range(256))
    for used in (5, 1, 2, 3, 4)
]
PADDED[0] = TO_TRITS


def fill(random: Random, entry: dict[str, Value], part: int, size: int) -> bytes:
    """*size* bytes of a segment that obeys PACK-2, PACK-3 and RAW-2."""
    data = random.randbytes(size)
    if entry["kind"] == "raw":
        return bytes(byte & 1 for byte in data) if entry["dtype"] == "BOOL" else data
    rows, columns = independent.planes_of(entry)[part]
    return data[: size - columns].translate(TO_TRITS) + data[size - columns :].translate(PADDED[rows % 5])


def refit(random: Random, draft: Draft, header: dict[str, Value]) -> bool:
    """New segments and digests for *header*; False where it is too large or too damaged for that."""
    if any(entry.get("depth", 1) not in (1, 2, 3, 4) for entry in header["tensors"]):
        return False
    try:
        segments, end = independent.layout(0, header["tensors"])
    except (KeyError, TypeError, ZeroDivisionError, IndexError, independent.Broken):
        return False
    if end > FILLED_SIZE or len(segments) > 200:
        return False
    draft.content = [fill(random, s.entry, s.index, s.size) for s in segments]
    for entry in header["tensors"]:
        entry["sha256"] = [b""] * (3 + entry["depth"]) if entry["kind"] == "trit" else b""
    for segment, data in zip(segments, draft.content, strict=True):
        put_digest(segment.entry, segment.index, data)
    return True


def put_digest(entry: dict[str, Value], part: int, data: bytes) -> None:
    """The digest of *data* for a segment."""
    digest = hashlib.sha256(data).digest()
    if entry["kind"] == "raw":
        entry["sha256"] = digest
    else:
        entry["sha256"][part] = digest


# Changes of segments, the preamble, and the file as it is


def change_segment(random: Random, draft: Draft) -> Clauses:
    """Change bytes of a segment, with a digest that fits or does not."""
    full = [i for i, data in enumerate(draft.content) if data]
    if not full:
        return change_bytes_of_header(random, draft)
    i = random.choice(full)
    old = draft.content[i]
    data = bytearray(old)
    for at in {
        random.choice([0, len(data) - 1, random.randrange(len(data))])
        for _ in range(random.choice([1, 1, 1, 4]))
    }:
        data[at] = random.choice([0, 1, 2, 120, 121, 122, 242, 243, 255, random.randrange(256)])
    draft.content[i] = bytes(data)
    if random.random() < 0.1:
        other = random.choice(full)
        draft.content[i], draft.content[other] = draft.content[other], draft.content[i]
    if random.random() < 0.8:  # among equal segments, the digest of the first is replaced
        digests = hashlib.sha256(old).digest(), hashlib.sha256(draft.content[i]).digest()
        draft.header = draft.header.replace(*digests, 1)
    draft.how.append(f"segment {i}")
    return None


def change_preamble(random: Random, draft: Draft) -> Clauses:
    """Change a field of the preamble, or leave one as it was before other changes."""
    size, length = len(draft.header), len(draft.seal())
    old = independent.seal(draft.base.header, list(draft.base.content), (1, draft.base.minor))
    pick = random.randrange(7)
    if pick == 0:
        draft.preamble["major"] = random.choice([0, 2, 256, 65535])
    elif pick == 1:
        draft.preamble["minor"] = random.choice([0, 1, 256, 65535])
    elif pick == 2:
        draft.preamble["flags"] = 1 << random.randrange(32)
    elif pick == 3:
        near = [
            size - 1,
            size + 1,
            size + 64,
            length - 64,
            length - 63,
            0,
            64 << 20,
            (64 << 20) + 1,
            2**63,
            2**64 - 1,
        ]
        draft.preamble["size"] = random.choice(near) % 2**64
    elif pick == 4:
        draft.preamble["length"] = random.choice([0, length - 1, length + 1, length + 64, 2**63, 2**64 - 1])
    elif pick == 5:
        draft.preamble["digest"] = random.choice([bytes(32), old[32:64]])
    else:
        draft.preamble["magic"] = mangled(random, independent.MAGIC)[:8].ljust(8, b"\0")
    draft.how.append("preamble")
    return None


def change_file(random: Random, data: bytes) -> bytes:
    """Change bytes of the file, or its length, and mostly make the file size fit."""
    pick = random.randrange(4)
    if pick == 0:
        data = data[: random.choice([random.randrange(len(data)), max(len(data) - 64, 0)])]
    elif pick == 1:
        data += random.choice([b"\0", bytes(64), b"\1" + bytes(63), data])
    elif pick == 2:
        at = random.randrange(len(data))
        data = data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
    else:
        data = mangled(random, data)
    if random.random() < 0.8 and len(data) >= 32:
        data = data[:24] + struct.pack("<Q", len(data)) + data[32:]
    return data


class Input(NamedTuple):
    """A damaged file, what was done to it, and what may be named (see Clauses)."""

    number: int
    data: bytes
    clauses: Clauses
    how: str


CHANGES = [change_field, change_value, change_segment, change_preamble]  # in the order in which they are made
WEIGHTS = [8, 9, 4, 1]


def make(seed: int, number: int, originals: Sequence[Base]) -> Input:
    """Input *number* of *seed*."""
    random = Random((seed << 48) + number)
    base = random.choice(originals)
    draft = Draft(base, base.header, list(base.content), base.minor)
    several = random.random() > SINGLE
    changes = sorted(random.choices(range(len(CHANGES)), WEIGHTS, k=random.randint(2, 4) if several else 1))
    changes = changes[max(changes.count(0) - 1, 0) :]  # change_field takes a valid header: once, and first
    clauses = [CHANGES[i](random, draft) for i in changes]
    data = draft.seal()
    expected = None if several else clauses[0]
    if random.random() < 0.08:
        data, expected = change_file(random, data), None
        draft.how.append("file")
    return Input(number, data, expected, "; ".join(draft.how))
