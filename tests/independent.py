"""A second codec for .trit files, made from SPEC.md alone.

Whoever wrote it had not seen the package (of chapters 11 and 14 they had): where the two disagree, one
of them is wrong or the document has a gap. It needs only Python's integers, lists and bytes, and
in chapter 11 floats, and takes its time. The order is that of the document, its chapters stand above the
parts, and what is in quotation marks are its words.

    defects(data)    what is wrong with a file: (clause, where) each, none if it is valid
    read(data)       its metadata and tensors, or Broken with the clause
    write(tensors)   the bytes of a file
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

Matrix = list[list[int]]
Weights = list[list[float]]  # rows of values of binary32
Entry = dict[str, Any]  # as in 6.4, straight from the header


class Broken(Exception):  # noqa: N818  # what it is about is the file
    """The requirement *clause* is broken at *where*."""

    def __init__(self, clause: str, where: str) -> None:
        """Both go into the message, too."""
        super().__init__(f"{clause}: {where}")
        self.clause, self.where = clause, where


def need(obeyed: bool, clause: str, where: str) -> None:
    """Raise Broken unless *obeyed*."""
    if not obeyed:
        raise Broken(clause, where)


# 2 Trits and levels: `k = t_0 + 3*t_1 + ... + 3^(d-1)*t_(d-1)`


def split(k: int, depth: int) -> list[int]:
    """Trits of the level *k*, least significant first: "add H and write the sum in base 3"."""
    H = (3**depth - 1) // 2
    need(-H <= k <= H, "TRIT-2", f"level {k} of depth {depth}")
    return [(k + H) // 3**p % 3 - 1 for p in range(depth)]


def join(trits: tuple[int, ...]) -> int:
    """Level of *trits*, least significant first."""
    return sum(t * 3**p for p, t in enumerate(trits))


# 3 Packing: "Five consecutive rows share a byte, column by column"


def pack(plane: Matrix) -> bytes:
    """Bytes of a plane, which is given as rows of trits."""
    rows = plane + [[0] * len(plane[0])] * (-len(plane) % 5)  # PACK-3
    fives = [zip(*rows[r : r + 5], strict=True) for r in range(0, len(rows), 5)]
    return bytes(sum((t + 1) * 3**i for i, t in enumerate(five)) for columns in fives for five in columns)


def unpack(packed: bytes, rows: int, columns: int) -> Matrix:
    """Rows of trits: `t[5r+i, j] = byte[r, j] // 3^i % 3 - 1`."""
    byte_rows = [packed[at : at + columns] for at in range(0, len(packed), columns)]
    return [[byte // 3 ** (row % 5) % 3 - 1 for byte in byte_rows[row // 5]] for row in range(rows)]


def packing_defects(packed: bytes, rows: int, columns: int) -> dict[str, int]:
    """PACK-2 and PACK-3 if they are broken, with the first byte that does."""
    padding = range(rows % 5, 5) if rows % 5 else range(0)
    first: dict[str, int] = {}
    for at, byte in enumerate(packed):
        if byte > 242:
            first.setdefault("PACK-2", at)
        elif at >= len(packed) - columns and any(byte // 3**i % 3 != 1 for i in padding):
            first.setdefault("PACK-3", at)
    return first


# 4 Codebook and codes. A format: bits of its exponent, bits of its fraction

FORMATS = {"F32": (8, 23), "F16": (5, 10), "BF16": (8, 7)}
INFINITY: dict[str, int] = {
    name: 2 ** (exponent + fraction) - 2**fraction for name, (exponent, fraction) in FORMATS.items()
}


def check_codebook(book: bytes, largest: int, dtype: str, where: str) -> None:
    """Check 27 steps; *largest* is the greatest integer that multiplies one."""
    need(len(book) == 27 * 4, "CB-1", where)
    steps = struct.unpack("<27I", book)
    need(all(0x00800000 <= step <= 0x7F7FFFFF for step in steps), "CB-2", where)
    need(all(a < b for a, b in itertools.pairwise(steps)), "CB-3", where)
    need(all(step % 64 == 0 for step in steps), "CB-4", where)
    need(weight(steps[26], largest, dtype) != INFINITY[dtype], "CB-5", where)


# 5 Trit tensors


@functools.cache
def weight(step: int, k: int, dtype: str) -> int:
    """Bit pattern in *dtype* of *k* times the step whose binary32 pattern is *step*.

    "The exact value rounded once, to nearest, ties to even": it is n * 2^e, and becomes
    m * 2^ulp, where 2^ulp is what the last bit of the format is worth there.
    """
    exponent, fraction = FORMATS[dtype]
    bias = (1 << (exponent - 1)) - 1
    n, e = abs(k) * (2**23 + step % 2**23), step // 2**23 - 127 - 23
    if k == 0:
        return 0  # "A weight of level 0 MUST decode to +0."
    ulp = max(n.bit_length() - 1 + e, 1 - bias) - fraction
    unit, n = 1 << max(ulp - e, 0), n << max(e - ulp, 0)
    m, rest = divmod(n, unit)
    m += 2 * rest > unit or (2 * rest == unit and m % 2 == 1)
    # The leading bit of m makes up for the 1 that the exponent lacks; without it m is subnormal.
    pattern = ((ulp + fraction + bias - 1) << fraction) + m
    return min(pattern, INFINITY[dtype]) + ((k < 0) << (exponent + fraction))


class Trit(NamedTuple):
    """A trit tensor: bit patterns of the steps, codes (rows by G), planes (rows by K), the top one first."""

    shape: list[int]
    dtype: str
    group_size: int
    shift: int
    steps: list[int]
    codes: Matrix
    planes: list[Matrix]

    def cut(self, depth: int) -> Trit:
        """The top planes, "read as a tensor of depth d' whose shift is greater by d - d'"."""
        dropped = max(len(self.planes) - depth, 0)
        return self._replace(planes=self.planes[:depth], shift=self.shift + dropped)

    def levels(self) -> Matrix:
        """Levels, rows by K."""
        return [
            [join(trits[::-1]) for trits in zip(*row, strict=True)] for row in zip(*self.planes, strict=True)
        ]

    def values(self, dtype: str) -> Matrix:
        """Bit patterns in *dtype* of `step[c] * 3^shift * k`, rows by K."""
        factor, size = 3**self.shift, self.group_size
        return [
            [weight(self.steps[codes[j // size]], factor * k, dtype) for j, k in enumerate(levels)]
            for codes, levels in zip(self.codes, self.levels(), strict=True)
        ]


class Raw(NamedTuple):
    """A tensor that is not quantised, its elements as bytes."""

    shape: list[int]
    dtype: str
    data: bytes


# 6.1 Preamble: "A reader checks in this order, and reports the first that fails"

MAGIC = bytes.fromhex("89 54 52 49 54 0D 0A 1A")
PREAMBLE = "<8s2HIQQ32s"  # magic, major, minor, flags, header size, file size, digest


def read_preamble(data: bytes) -> tuple[bytes, int]:
    """Bytes of the header, and the minor version."""
    need(len(data) >= 64, "PRE-1", f"{len(data)} bytes")
    magic, major, minor, flags, size, length, digest = struct.unpack(PREAMBLE, data[:64])
    need(magic == MAGIC, "PRE-2", "magic")
    need(major == 1, "PRE-3", f"version {major}.{minor}")
    need(flags == 0, "PRE-4", f"flags {flags:#x}")
    need(1 <= size <= 67108864, "PRE-5", f"header size {size}")
    need(length == len(data), "PRE-6", f"file size {length}, not {len(data)}")
    need(64 + size <= len(data), "PRE-7", f"header size {size}")
    need(hashlib.sha256(data[64 : 64 + size]).digest() == digest, "PRE-8", "digest of the header")
    return data[64 : 64 + size], minor


# 6.2 Canonical MessagePack

FIXED = {int: (0x00, 128), dict: (0x80, 16), list: (0x90, 16), str: (0xA0, 32)}  # from which byte, how many
# first byte: what it begins, bytes of the number that follows, the largest number that has a shorter form
WIDE: dict[int, tuple[type, int, int]] = {
    **{0xCC: (int, 1, 127), 0xCD: (int, 2, 2**8 - 1), 0xCE: (int, 4, 2**16 - 1), 0xCF: (int, 8, 2**32 - 1)},
    **{0xD9: (str, 1, 31), 0xDA: (str, 2, 2**8 - 1), 0xDB: (str, 4, 2**16 - 1)},
    **{0xC4: (bytes, 1, -1), 0xC5: (bytes, 2, 2**8 - 1), 0xC6: (bytes, 4, 2**16 - 1)},
    **{0xDC: (list, 2, 15), 0xDD: (list, 4, 2**16 - 1), 0xDE: (dict, 2, 15), 0xDF: (dict, 4, 2**16 - 1)},
}
# depth and key: the most that a map or array there may hold, "from the count alone, whatever follows"
COUNTS = {(2, "metadata"): (1024, "HDR-5"), (2, "tensors"): (1048576, "HDR-4")}


class Parser:
    """Reads values from the front of *data*; `at` is the next byte."""

    def __init__(self, data: bytes) -> None:
        """Nothing of *data* is read yet."""
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        """The next *size* bytes."""
        need(self.at + size <= len(self.data), "MP-5", f"byte {self.at}: {size} bytes expected")
        self.at += size
        return self.data[self.at - size : self.at]

    def head(self) -> tuple[type, int]:
        """The type of the next value, and its number: the integer itself, or a length."""
        first = self.take(1)[0]
        for kind, (least, many) in FIXED.items():
            if least <= first < least + many:
                return kind, first - least
        need(first in WIDE, "MP-1", f"byte {self.at - 1}: {first:02X}")
        kind, width, shorter = WIDE[first]
        number = int.from_bytes(self.take(width), "big")
        need(number > shorter, "MP-2", f"byte {self.at}: {number} in {width} bytes")
        return kind, number

    def value(self, depth: int = 1, key: str = "") -> Any:
        """The next value, *depth* deep if an array or a map, and in a map that of *key*."""
        kind, number = self.head()
        if kind is int:
            return number
        if kind is bytes:
            return self.take(number)
        if kind is str:
            return self.text(number)
        need(depth <= 8, "MP-6", f"byte {self.at}")
        most, clause = COUNTS.get((depth, key), (number, ""))
        need(number <= most, clause, f"byte {self.at}: {number} in {key}")
        if kind is list:
            return [self.value(depth + 1) for _ in range(number)]
        return self.pairs(number, depth)

    def text(self, size: int) -> str:
        """A str of *size* bytes."""
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise Broken("MP-4", f"byte {self.at}") from None

    def pairs(self, count: int, depth: int) -> dict[str, Any]:
        """A map of *count* pairs."""
        found: dict[str, Any] = {}
        last = None
        for _ in range(count):
            kind, size = self.head()
            need(kind is str, "MP-3", f"byte {self.at}: key of another type")
            key = self.text(size)
            need(last is None or last.encode() < key.encode(), "MP-3", f"key {key!r} after {last!r}")
            last, found[key] = key, self.value(depth + 1, key)
        return found


def parse(header: bytes) -> Any:
    """The value of the header, "exactly one value, with nothing cut off and nothing after it"."""
    parser = Parser(header)
    value = parser.value()
    need(parser.at == len(header), "MP-5", f"byte {parser.at}: bytes after the value")
    return value


# 6.3 Header

CONTROL = {*range(0x00, 0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF}


def check_type(value: Any, kind: type, where: str) -> Any:
    """*value* itself."""
    need(isinstance(value, kind), "TYPE-1", f"{where} is no {kind.__name__}")
    return value


def check_keys(found: dict[str, Any], keys: set[str], missing: str, minor: int, where: str) -> None:
    """Check that *found* has the *keys*, or else breaks the clause *missing*, and by VER-1 no others."""
    need(keys <= found.keys(), missing, f"{where}: no {sorted(keys - found.keys())}")
    need(minor > 0 or found.keys() <= keys, "VER-1", f"{where}: {sorted(found.keys() - keys)}")


def check_name(name: str, where: str) -> None:
    """Check a tensor's name or a metadata key."""
    need(1 <= len(name.encode()) <= 512, "NAME-1", where)
    need(CONTROL.isdisjoint(map(ord, name)), "NAME-2", f"{where} {name!r}")


def check_header(header: Any, minor: int) -> None:
    """Check everything in the header but what chapter 7 says."""
    check_keys(
        check_type(header, dict, "header"), {"metadata", "tensors", "version"}, "HDR-1", minor, "header"
    )
    version = check_type(header["version"], list, "version")
    need(len(version) == 2 and all(isinstance(part, int) for part in version), "TYPE-1", "version")
    need(version == [1, minor], "HDR-2", f"version {version}")
    check_metadata(check_type(header["metadata"], dict, "metadata"))
    entries = check_type(header["tensors"], list, "tensors")
    last = b""
    for index, entry in enumerate(entries):
        check_entry(entry, minor, f"entry {index}")
        need(last < entry["name"].encode(), "HDR-3", f"entry {index}: {entry['name']!r}")
        last = entry["name"].encode()


def check_metadata(metadata: dict[str, Any]) -> None:
    """Check the pairs of the metadata."""
    for key, value in metadata.items():
        where = f"metadata {key!r}"
        check_name(key, "metadata key")
        need(len(check_type(value, str, where).encode()) <= 1048576, "HDR-6", where)


# 6.4 Entries, with the requirements of chapter 5 on their fields

COMMON = {"dtype": str, "kind": str, "name": str, "shape": list}
FIELDS: dict[str, dict[str, type]] = {
    "trit": {**COMMON, "codebook": bytes, "depth": int, "group_size": int, "sha256": list, "shift": int},
    "raw": {**COMMON, "sha256": bytes},
}
ELEMENT = {
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"], 1),
    **dict.fromkeys(["U16", "I16", "F16", "BF16"], 2),
    **dict.fromkeys(["U32", "I32", "F32"], 4),
    **dict.fromkeys(["U64", "I64", "F64", "C64"], 8),
}


def check_entry(entry: Any, minor: int, where: str) -> None:
    """Check an entry of the directory; its kind first, which says what else there is."""
    need("kind" in check_type(entry, dict, where), "ENT-1", f"{where}: no kind")
    need(check_type(entry["kind"], str, where) in FIELDS, "ENT-2", f"{where}: {entry['kind']!r}")
    fields = FIELDS[entry["kind"]]
    check_keys(entry, set(fields), "ENT-1", minor, where)
    for key, kind in fields.items():
        check_type(entry[key], kind, f"{where} {key}")
    check_name(entry["name"], f"{where} name")
    need(len(entry["shape"]) <= 8, "SHAPE-1", where)
    nonzero = [axis for axis in entry["shape"] if check_type(axis, int, f"{where} axis")]
    need(math.prod(nonzero) <= 2**48, "SHAPE-2", where)
    if entry["kind"] == "trit":
        check_trit(entry, where)
    else:
        need(entry["dtype"] in ELEMENT, "RAW-1", f"{where}: {entry['dtype']!r}")
        need(len(entry["sha256"]) == 32, "ENT-3", where)


def check_trit(entry: Entry, where: str) -> None:
    """Check what only trit entries have."""
    depth, shift = entry["depth"], entry["shift"]
    need(len(entry["shape"]) >= 1 and 0 not in entry["shape"], "TEN-1", f"{where}: shape {entry['shape']}")
    need(1 <= depth <= 4, "TEN-2", f"{where}: depth {depth}")
    need(depth + shift <= 4, "TEN-3", f"{where}: depth {depth}, shift {shift}")
    need(1 <= entry["group_size"] <= 65536, "TEN-4", f"{where}: group size {entry['group_size']}")
    need(entry["dtype"] in FORMATS, "TEN-5", f"{where}: {entry['dtype']!r}")
    check_codebook(entry["codebook"], 3**shift * (3**depth - 1) // 2, entry["dtype"], where)
    sizes = [len(check_type(digest, bytes, f"{where} digest")) for digest in entry["sha256"]]
    need(sizes == [32] * (3 + depth), "ENT-3", where)


# 7 Layout: "No offsets and no sizes are stored"


@dataclass(frozen=True)
class Segment:
    """Where the segment *index* of a tensor's 1 or 3 + depth lies."""

    entry: Entry
    index: int
    offset: int
    size: int


def align(x: int) -> int:
    """The next multiple of 64."""
    return -(-x // 64) * 64


def planes_of(entry: Entry) -> list[tuple[int, int]]:
    """Rows and columns of each plane of a trit tensor, in the order of 5.2."""
    rows, K = math.prod(entry["shape"][:-1]), entry["shape"][-1]
    return [(rows, -(-K // entry["group_size"]))] * 3 + [(rows, K)] * entry["depth"]


def sizes_of(entry: Entry) -> list[int]:
    """Bytes of each segment of a tensor."""
    if entry["kind"] == "raw":
        return [math.prod(entry["shape"]) * ELEMENT[entry["dtype"]]]
    return [-(-rows // 5) * columns for rows, columns in planes_of(entry)]


def layout(header_size: int, entries: list[Entry]) -> tuple[list[Segment], int]:
    """The segments, in file order, and the end of the file."""
    trit = [entry for entry in entries if entry["kind"] == "trit"]
    order = [(entry, 0) for entry in entries if entry["kind"] == "raw"]
    order += [(entry, index) for entry in trit for index in range(3)]
    order += [(entry, index) for index in range(3, 7) for entry in trit if index < 3 + entry["depth"]]
    segments, end = [], align(64 + header_size)
    for entry, index in order:
        segments.append(Segment(entry, index, end, sizes_of(entry)[index]))
        end = align(end + segments[-1].size)
    need(end <= 2**63 - 1, "LAY-5", f"the end would be {end}")
    return segments, end


# 8 and 9 Reading and verification


def open_file(data: bytes) -> tuple[dict[str, Any], list[Segment]]:
    """Header and segments, with all checks but those of what the segments and gaps hold."""
    encoded, minor = read_preamble(data)
    header = parse(encoded)
    check_header(header, minor)
    segments, end = layout(len(encoded), header["tensors"])
    need(end == len(data), "LAY-4", f"the end is {end}, not {len(data)}")
    return header, segments


def segment_defects(content: bytes, entry: Entry, index: int) -> Iterator[tuple[str, str]]:
    """What is wrong with the bytes of a segment."""
    where = f"{entry['name']!r} segment {index}"
    digest = entry["sha256"][index] if entry["kind"] == "trit" else entry["sha256"]
    if hashlib.sha256(content).digest() != digest:
        yield "SEG-1", where
    if entry["kind"] == "trit":
        for clause, at in packing_defects(content, *planes_of(entry)[index]).items():
            yield clause, f"{where} byte {at}"
    elif entry["dtype"] == "BOOL" and not set(content) <= {0, 1}:
        yield "RAW-2", where


def defects(data: bytes) -> list[tuple[str, str]]:
    """All that is wrong: one defect of preamble, header or layout, or those of every gap and segment."""
    try:
        _, segments = open_file(data)
    except Broken as broken:
        return [(broken.clause, broken.where)]
    found, end = [], 64 + struct.unpack(PREAMBLE, data[:64])[4]
    for segment in [*segments, None]:
        start = segment.offset if segment else len(data)
        if any(data[end:start]):
            found.append(("LAY-3", f"between bytes {end} and {start}"))
        if segment:
            end = start + segment.size
            found += segment_defects(data[start:end], segment.entry, segment.index)
    return found


def read(data: bytes) -> tuple[dict[str, str], dict[str, Trit | Raw]]:
    """Metadata and tensors of a valid file."""
    for clause, where in defects(data):
        raise Broken(clause, where)
    header, segments = open_file(data)
    content: dict[str, list[bytes]] = {}
    for segment in segments:  # those of one tensor come in their own order
        content.setdefault(segment.entry["name"], []).append(data[segment.offset :][: segment.size])
    return header["metadata"], {e["name"]: tensor_of(e, content[e["name"]]) for e in header["tensors"]}


def tensor_of(entry: Entry, content: list[bytes]) -> Trit | Raw:
    """The tensor of *entry* from the bytes of its segments."""
    if entry["kind"] == "raw":
        return Raw(entry["shape"], entry["dtype"], content[0])
    planes = [unpack(packed, *size) for packed, size in zip(content, planes_of(entry), strict=True)]
    codes = [[join(trits) + 13 for trits in zip(*row, strict=True)] for row in zip(*planes[:3], strict=True)]
    steps = list(struct.unpack("<27I", entry["codebook"]))
    return Trit(entry["shape"], entry["dtype"], entry["group_size"], entry["shift"], steps, codes, planes[3:])


# 11.1 and 11.2 The reference encoder, with steps that are given: "`fl(x)` is x rounded to binary32"

SCALES = {2.0**-96: 2.0**127, 2.0**-32: 2.0**64, 2.0**32: 1.0, 2.0**96: 2.0**-64, math.inf: 2.0**-96}


def fl(x: float) -> float:
    """*x* in binary32; infinite beyond its range.

    Floats are binary64: what + - * / make of two values of binary32 is rounded to 53 bits, and then here. It
    is as good as rounded once, unless 53 bits end on a midpoint m of binary32 (M * 2^e, M < 2^25) from beside
    it. A product is exact: 48 bits. A quotient a/b other than m is off it by 2^-49 of it or more: a has 24
    bits and m*b 49, and a - m*b is at least the last bit of one of them. A sum that takes more than 53 bits
    has one term below 2^-4 of the last place of the other, and both roundings give that other.
    """
    try:
        return float(struct.unpack("<f", struct.pack("<f", x))[0])
    except OverflowError:
        return math.copysign(math.inf, x)


def fold(terms: list[float]) -> float:
    """Sum "by halves"."""
    while len(terms) > 1:
        h = -(-len(terms) // 2)
        terms = [fl(t + u) for t, u in zip(terms, terms[h:], strict=False)] + terms[len(terms) - h : h]
    return terms[0]


def error_of(a: list[float], s: float, depth: int, nested: bool) -> float:
    """The error E of the magnitudes *a* under the step *s*, or the sum of those of all depths."""
    k = [round(min(fl(x / s), (3**depth - 1) // 2)) for x in a]  # H is whole: as well before as after
    cost = 0.0
    for d in range(depth, 0, -1):
        rests = [fl(x - s * (3 ** (depth - d) * n)) for x, n in zip(a, k, strict=True)]
        E = fold([fl(rest * rest) for rest in rests])
        if not nested:
            return E
        cost = fl(cost + fl(9**d * E))
        k = [round(n / 3) for n in k]
    return cost


def code_of(group: list[float], steps: list[float], depth: int, nested: bool) -> int:
    """Code of the least error, for which all 27 are computed."""
    m = max(map(abs, group))
    scale = next(scale for edge, scale in SCALES.items() if m < edge) if m else 1.0
    a = [fl(abs(w) * scale) for w in group]
    errors = [error_of(a, min(max(s * scale, 2.0**-90), 2.0**40), depth, nested) for s in steps]
    return errors.index(min(errors))  # "Of the 27 codes the one with the least E, the lowest of equals."


def encode(
    w: Weights, steps: list[float], depth: int, group_size: int, nested: bool
) -> tuple[Matrix, Matrix]:
    """Codes, rows by G, and levels, rows by K, of *w*."""
    H, g, codes, levels = (3**depth - 1) // 2, min(group_size, len(w[0])), [], []
    for row in w:
        groups = [row[at : at + g] for at in range(0, len(row), g)]
        codes.append([code_of(group + [0.0] * (g - len(group)), steps, depth, nested) for group in groups])
        s = [steps[c] for c in codes[-1] for _ in range(g)]
        levels.append([round(min(max(fl(x / s), -H), H)) for x, s in zip(row, s, strict=False)])
    return codes, levels


# 14 Exchange layouts, of rows of trits or levels. A row "is filled up to" a multiple of so many columns

CODES = {0: 0, 1: 1, -1: 2}
TQ1_0_COLUMNS = [
    *([m, 32 + m, 64 + m, 96 + m, 128 + m] for m in range(32)),
    *([128 + m, 144 + m, 160 + m, 176 + m, 192 + m] for m in range(32, 48)),
    *([192 + m, 196 + m, 200 + m, 204 + m] for m in range(48, 52)),
]


def filled(row: list[int], multiple: int) -> list[int]:
    """*row* with the zeros that pad it."""
    return row + [0] * (-len(row) % multiple)


def cut(row: list[int], columns: int, clause: str) -> list[int]:
    """*row* without its padding, which has to be 0."""
    need(not any(row[columns:]), clause, f"padding {row[columns:]}")
    return row[:columns]


def rows_of(data: bytes, rows: int, size: int, clause: str) -> list[bytes]:
    """The bytes of each of *rows* rows of *size* bytes."""
    need(len(data) == rows * size, clause, f"{len(data)} bytes for {rows} rows of {size}")
    return [data[r * size : (r + 1) * size] for r in range(rows)]


def to_two_bit(plane: Matrix) -> bytes:
    """Words of two-bit trits."""
    words = [
        sum(CODES[t] * 4**i for i, t in enumerate(row[at : at + 16]))
        for row in (filled(row, 64) for row in plane)
        for at in range(0, len(row), 16)
    ]
    return struct.pack(f"<{len(words)}I", *words)


def from_two_bit(data: bytes, rows: int, columns: int) -> Matrix:
    """Rows of trits."""
    plane = []
    for row in rows_of(data, rows, 16 * -(-columns // 64), "XL-1"):
        words = struct.unpack(f"<{len(row) // 4}I", row)
        codes = [word // 4**i % 4 for word in words for i in range(16)]
        need(3 not in codes, "XL-2", f"code 3 in column {codes.index(3) if 3 in codes else 0}")
        plane.append(cut([{0: 0, 1: 1, 2: -1}[code] for code in codes], columns, "XL-3"))
    return plane


def to_int4(levels: Matrix, depth: int) -> bytes:
    """Int4 pairs."""
    need(depth in (1, 2), "XL-4", f"depth {depth}")
    rows = [filled(row, 2) for row in levels]
    return bytes(row[j] % 16 + 16 * (row[j + 1] % 16) for row in rows for j in range(0, len(row), 2))


def from_int4(data: bytes, rows: int, columns: int, depth: int) -> Matrix:
    """Rows of levels."""
    need(depth in (1, 2), "XL-4", f"depth {depth}")
    levels, H = [], (3**depth - 1) // 2
    for row in rows_of(data, rows, -(-columns // 2), "XL-5"):
        nibbles = [nibble for byte in row for nibble in (byte % 16, byte // 16)]
        found = [nibble - 16 * (nibble >= 8) for nibble in nibbles]
        need(all(-H <= k <= H for k in found), "TRIT-2", f"levels {found} of depth {depth}")
        levels.append(cut(found, columns, "XL-6"))
    return levels


def to_tq1_0(plane: Matrix) -> bytes:
    """Blocks of TQ1_0 without scales."""
    values = [
        sum((row[at + c] + 1) * 3 ** (4 - n) for n, c in enumerate(columns))
        for row in (filled(row, 256) for row in plane)
        for at in range(0, len(row), 256)
        for columns in TQ1_0_COLUMNS
    ]
    return bytes(-(-v * 256 // 243) for v in values)


def from_tq1_0(data: bytes, rows: int, columns: int) -> Matrix:
    """Rows of trits."""
    plane, known = [], {-(-v * 256 // 243): v for v in range(243)}
    for row in rows_of(data, rows, 52 * -(-columns // 256), "XL-7"):
        need(known.keys() >= set(row), "XL-8", f"bytes {sorted(set(row) - known.keys())}")
        trits = [0] * (len(row) // 52 * 256)
        for at, byte in enumerate(row):
            places, v = TQ1_0_COLUMNS[at % 52], known[byte]
            need(len(places) == 5 or v % 3 == 0, "XL-9", f"byte {at}: v {v}")
            for n, c in enumerate(places):
                trits[at // 52 * 256 + c] = v // 3 ** (4 - n) % 3 - 1
        plane.append(cut(trits, columns, "XL-10"))
    return plane


# 15 Shards and the index. A folder is given as its files: their bytes by their names

INDEX = "model.trit.index.json"
NAME_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def load_json(data: bytes) -> Any:
    """The JSON value in *data*, with what a general decoder lets pass refused (IDX-2 to IDX-5)."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        need(len(set(keys)) == len(keys), "IDX-4", f"keys {keys}")
        return dict(pairs)

    def none(constant: str) -> None:
        raise Broken("IDX-2", constant)

    try:  # a number stays text: only digits make an integer here
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=once,
            parse_int=Number,
            parse_float=Number,
            parse_constant=none,
        )
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Broken("IDX-2", str(error)) from None
    except RecursionError:
        raise Broken("IDX-5", "nesting") from None
    check_json(value, 1)
    return value


class Number(str):
    """A number of JSON, as it is written."""


def check_json(value: Any, level: int) -> None:
    """IDX-3 and IDX-5 for *value* and what is in it, an object or array being at *level*."""
    if isinstance(value, str):
        need(not any(0xD800 <= ord(c) <= 0xDFFF for c in value), "IDX-3", ascii(value))
    if isinstance(value, dict | list):
        need(level <= 8, "IDX-5", f"level {level}")
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            check_json(item, level + 1)


def read_index(data: bytes) -> dict[str, Any]:
    """The keys of the table of 15.1 from an index that obeys IDX-1 to IDX-11."""
    need(len(data) <= 67_108_864, "IDX-1", f"{len(data)} bytes")
    index = load_json(data)
    need(type(index) is dict, "IDX-2", "no object")
    for key in ("metadata", "shards", "weight_map"):
        need(key in index, "IDX-6", key)
        need(type(index[key]) is dict, "IDX-7", key)
    need("total_size" in index["metadata"], "IDX-6", "total_size")
    total = index["metadata"]["total_size"]
    need(type(total) is Number and total.isdigit() and len(total) < 20, "IDX-7", "total_size")
    need(int(total) < 2**63, "IDX-7", "total_size")
    for shard, identity in index["shards"].items():
        need(type(identity) is str, "IDX-7", shard)
        need(len(identity) == 64 and set(identity) <= set("0123456789abcdef"), "IDX-7", shard)
    for name, shard in index["weight_map"].items():
        need(type(shard) is str, "IDX-7", name)
        check_name(name, f"weight_map {name!r}")
    check_shard_names(set(index["shards"]), set(index["weight_map"].values()))
    found = {key: index[key] for key in ("shards", "weight_map")}
    return found | {"total_size": int(total)}


def check_shard_names(keys: set[str], values: set[str]) -> None:
    """IDX-8 to IDX-11."""
    for name in keys | values:
        fits = 6 <= len(name) <= 128 and set(name) <= set(NAME_CHARACTERS) and name[0] not in "-."
        need(fits and name.endswith(".trit") and ".." not in name, "IDX-8", ascii(name))
        lower = name.lower()
        need(lower != "model.trit" and lower[: lower.index(".")] not in DEVICES, "IDX-9", name)
    need(len({name.lower() for name in keys}) == len(keys), "IDX-10", "names")
    need(keys == values, "IDX-11", f"{keys ^ values}")


def folder_defects(files: dict[str, bytes]) -> list[tuple[str, str]]:
    """All that is wrong with a folder of regular files: (clause, shard, or nothing)."""
    if INDEX not in files:
        return [(clause, "model.trit") for clause, _ in defects(files["model.trit"])]
    try:
        index = read_index(files[INDEX])
    except Broken as broken:
        return [(broken.clause, "")]
    shards = index["shards"]
    found = [("IDX-12", name) for name in shards if name not in files]
    there = {name for name in {name.partition("/")[0] for name in files} if name.endswith(".trit")}
    found += [("IDX-13", name) for name in there if name not in shards and name[0] != "."]
    size = sum(len(files[name]) for name in shards if name in files)
    if shards.keys() <= files.keys() and size != index["total_size"]:
        found.append(("IDX-14", ""))
    for name in shards.keys() & files.keys():
        found += [(clause, name) for clause in shard_defects(name, files[name], index)]
    return found


def shard_defects(name: str, data: bytes, index: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a shard, in itself or against the index."""
    yield from (clause for clause, _ in defects(data))
    try:
        header, _ = open_file(data)
    except Broken:
        return
    held = {entry["name"] for entry in header["tensors"]}
    if data[32:64].hex() != index["shards"][name]:
        yield "IDX-15"
    elif held != {tensor for tensor, shard in index["weight_map"].items() if shard == name}:
        yield "IDX-16"


def index_of(shards: dict[str, bytes]) -> dict[str, Any]:
    """The index of *shards*, which are valid files."""
    return {
        "metadata": {"total_size": sum(map(len, shards.values()))},
        "shards": {name: data[32:64].hex() for name, data in shards.items()},
        "weight_map": {tensor: name for name, data in shards.items() for tensor in read(data)[1]},
    }


# Writing. `dumps` and `seal` take what breaks rules, too, so that tests can make such files.


def dumps(value: Any) -> bytes:
    """Canonical MessagePack of an integer, str, bytes, list or dict."""
    if isinstance(value, int):
        return dumps_head(int, value)
    if isinstance(value, str):
        return dumps_head(str, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return dumps_head(bytes, len(value)) + value
    if isinstance(value, list):
        return dumps_head(list, len(value)) + b"".join(map(dumps, value))
    pairs = [dumps(key) + dumps(value[key]) for key in sorted(value, key=str.encode)]
    return dumps_head(dict, len(value)) + b"".join(pairs)


def dumps_head(kind: type, number: int) -> bytes:
    """The shortest form of *number*, as an integer or the length of a *kind*."""
    least, many = FIXED.get(kind, (0, 0))
    if number < many:
        return bytes([least + number])
    first = max(first for first, (k, _, shorter) in WIDE.items() if k is kind and number > shorter)
    return bytes([first]) + number.to_bytes(WIDE[first][1], "big")


def seal(header: bytes, content: list[bytes], version: tuple[int, int] = (1, 0)) -> bytes:
    """The file of a *header* and the *content* of the segments in file order."""
    body = header + bytes(-(64 + len(header)) % 64)
    for segment in content:
        body += segment + bytes(-len(segment) % 64)
    digest = hashlib.sha256(header).digest()
    return struct.pack(PREAMBLE, MAGIC, *version, 0, len(header), 64 + len(body), digest) + body


def planes_from(levels: Matrix, depth: int) -> list[Matrix]:
    """Planes of *levels*, the most significant first."""
    return [[[split(k, depth)[p] for k in row] for row in levels] for p in reversed(range(depth))]


def entry_of(name: str, tensor: Trit | Raw) -> tuple[Entry, list[bytes]]:
    """The entry of *tensor*, and the bytes of its segments."""
    entry: Entry = {"name": name, "shape": tensor.shape, "dtype": tensor.dtype}
    if isinstance(tensor, Raw):
        return entry | {"kind": "raw", "sha256": hashlib.sha256(tensor.data).digest()}, [tensor.data]
    codes = [[c - 13 for c in row] for row in tensor.codes]
    content = [pack(plane) for plane in planes_from(codes, 3)[::-1] + tensor.planes]
    entry |= {
        "kind": "trit",
        "depth": len(tensor.planes),
        "shift": tensor.shift,
        "group_size": tensor.group_size,
    }
    digests = [hashlib.sha256(packed).digest() for packed in content]
    return entry | {"codebook": struct.pack("<27I", *tensor.steps), "sha256": digests}, content


def parts_of(tensors: dict[str, Trit | Raw], metadata: dict[str, str]) -> tuple[dict[str, Any], list[bytes]]:
    """The header of a file of version 1.0, and its segments in file order."""
    made = {name: entry_of(name, tensors[name]) for name in sorted(tensors, key=str.encode)}
    entries = [entry for entry, _ in made.values()]
    content = [made[segment.entry["name"]][1][segment.index] for segment in layout(0, entries)[0]]
    return {"metadata": metadata, "tensors": entries, "version": [1, 0]}, content


def write(tensors: dict[str, Trit | Raw], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a file of *tensors*."""
    header, content = parts_of(tensors, metadata or {})
    return seal(dumps(header), content)
