"""Makes the files of the self-test, from SPEC.md and the standard library alone: python3 make_files.py FOLDER.

Writes one file a case, and manifest.json: for each the clause (null: valid), and for some valid ones what `header` and
`decode` have to answer, computed here with fractions.
"""

import json
import struct
import sys
from fractions import Fraction
from functools import cache
from hashlib import sha256
from math import prod
from pathlib import Path

MAGIC = bytes.fromhex("8954524954 0d0a1a".replace(" ", ""))
ELEMENT_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2,
                 "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8}


class Wire(bytes):
    """Bytes that stand in the header as they are."""


# MessagePack


def head(size, fixed, forms):
    first, count = fixed
    if size < count:
        return bytes([first + size])
    code, width = next((code, width) for code, width in forms if size < 256**width)
    return bytes([code]) + size.to_bytes(width, "big")


def encode(value):
    if isinstance(value, Wire):
        return bytes(value)
    if isinstance(value, int):
        return head(value, (0, 128), [(0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)])
    if isinstance(value, str):
        data = value.encode()
        return head(len(data), (0xA0, 32), [(0xD9, 1), (0xDA, 2), (0xDB, 4)]) + data
    if isinstance(value, bytes):
        return head(len(value), (0, 0), [(0xC4, 1), (0xC5, 2), (0xC6, 4)]) + value
    if isinstance(value, list):
        return head(len(value), (0x90, 16), [(0xDC, 2), (0xDD, 4)]) + b"".join(map(encode, value))
    pairs = sorted(value.items(), key=lambda pair: pair[0].encode())
    return map_of(*((encode(key), encode(each)) for key, each in pairs))


def map_of(*pairs):
    """A map of encoded pairs, in the order given."""
    return Wire(head(len(pairs), (0x80, 16), [(0xDE, 2), (0xDF, 4)]) + b"".join(map(b"".join, pairs)))


# Tensors


def pack(rows):
    """Rows of trits as the bytes of a plane."""
    columns = len(rows[0])
    rows = rows + [[0] * columns] * (-len(rows) % 5)
    return bytes(sum((rows[r + i][j] + 1) * 3**i for i in range(5))
                 for r in range(0, len(rows), 5) for j in range(columns))


def plane(rows, depth, p):
    H = (3**depth - 1) // 2
    return pack([[(k + H) // 3**p % 3 - 1 for k in row] for row in rows])


# 27 steps with 18 significant bits, from 2^-20 to 2^6, whose odd significands make ties and near ties in rounding.
STEPS = [(127 - 20 + c) << 23 | (c * 9973 % 2**17) << 6 for c in range(27)]
TINY = [(127 - 26 + c // 4) << 23 | (c % 4 * 32768 + 1) << 6 for c in range(27)]  # subnormal and zero in binary16


def steps(bits):
    return struct.pack(f"<{len(bits)}I", *bits)


def tie_steps():
    """Steps of 12 significant bits: products with 1 lie exactly between two values of binary16 (11 bits)."""
    return [(127 - 13 + c) << 23 | (2 * c + 1) << 12 for c in range(27)]


def trit(name, shape, group_size=16, depth=1, shift=0, dtype="F32", bits=STEPS):
    """A trit tensor, painted: level 7 i + 3 and code 5 i + 1, modulo their number."""
    K, rows = shape[-1], prod(shape[:-1])
    G = -(-K // group_size)
    H = (3**depth - 1) // 2
    levels = [[(7 * (i * K + j) + 3) % (2 * H + 1) - H for j in range(K)] for i in range(rows)]
    codes = [[(5 * (i * G + g) + 1) % 27 for g in range(G)] for i in range(rows)]
    segments = [plane([[c - 13 for c in row] for row in codes], 3, p) for p in range(3)]
    segments += [plane(levels, depth, p) for p in reversed(range(depth))]
    entry = {"codebook": steps(bits), "depth": depth, "dtype": dtype, "group_size": group_size, "kind": "trit",
             "name": name, "sha256": [sha256(s).digest() for s in segments], "shape": list(shape), "shift": shift}
    return {"entry": entry, "segments": segments, "levels": levels, "codes": codes, "bits": bits}


def raw(name, dtype="U8", shape=(3,), data=None):
    size = prod(shape) * ELEMENT_BYTES.get(dtype, 1)
    data = bytes((11 * i + 5) % (2 if dtype == "BOOL" else 251) for i in range(size)) if data is None else data
    entry = {"dtype": dtype, "kind": "raw", "name": name, "sha256": sha256(data).digest(), "shape": list(shape)}
    return {"entry": entry, "segments": [data]}


def edit(tensor, **fields):
    """The tensor, whose entry says something else."""
    return {**tensor, "entry": {**tensor["entry"], **fields}}


def without(tensor, key):
    return {**tensor, "entry": {k: v for k, v in tensor["entry"].items() if k != key}}


# Files


def place(tensors):
    """The segments in the order of the file, as (tensor, number)."""
    order = [(t, 0) for t in tensors if len(t["segments"]) == 1]
    trits = [t for t in tensors if len(t["segments"]) > 1]
    order += [(t, p) for t in trits for p in range(3)]
    return order + [(t, p) for p in range(3, 7) for t in trits if p < len(t["segments"])]


def preamble(header, size, **change):
    f = {"magic": MAGIC, "major": 1, "minor": 0, "flags": 0, "header_size": len(header), "file_size": size,
         "digest": sha256(header).digest(), **change}
    return f["magic"] + struct.pack("<HHIQQ", f["major"], f["minor"], f["flags"], f["header_size"], f["file_size"]) + f["digest"]


def padded(data):
    return data + bytes(-len(data) % 64)


def build(*tensors, metadata=None, version=None, header=None, change=None, top=None, **fields):
    """A file; *fields* override the preamble's, *top* adds to the header's keys, *change* edits the bytes after it."""
    minor = fields.get("minor", 0)
    if header is None:
        header = encode({"metadata": metadata or {}, "tensors": [t["entry"] for t in tensors],
                         "version": [1, minor] if version is None else version, **(top or {})})
    data = bytearray(padded(bytes(64) + header))
    for tensor, number in place(tensors):
        data += tensor["segments"][number]
        data = bytearray(padded(data))
    if change:
        data = change(data)
    data[:64] = preamble(header, len(data), **fields)
    return bytes(data)


def flip(at, byte=1):
    def change(data):
        data[at] ^= byte
        return data
    return change


# Expected answers


@cache
def bits_of(value, dtype):
    """The bits of a Fraction in *dtype*, to nearest, ties to even, infinity where it overflows."""
    significant, least, largest, width = {"F32": (24, -149, 2**128, 32), "F16": (11, -24, 65520, 16),
                                          "BF16": (8, -133, 2**128 - 2**119, 16)}[dtype]
    if value == 0:
        return 0
    sign, value = int(value < 0) << (width - 1), abs(value)
    exponent_at = width - 1 - {"F32": 8, "F16": 5, "BF16": 8}[dtype]
    if value >= largest:
        return sign | (2 ** (width - 1 - exponent_at) - 1) << exponent_at
    exponent = least
    while value / Fraction(2) ** exponent >= 2**significant:
        exponent += 1
    n = round(value / Fraction(2) ** exponent)  # Python rounds a Fraction's ties to even
    return sign | n + (exponent - least << exponent_at)


def expected(tensor, depth, dtype):
    e = tensor["entry"]
    d = min(depth or e["depth"], e["depth"])
    cut = 3 ** (e["depth"] - d)
    H, h = (3 ** e["depth"] - 1) // 2, (3**d - 1) // 2
    step = [Fraction(struct.unpack("<f", struct.pack("<I", b))[0]) for b in tensor["bits"]]
    levels = [[(k + H) // cut - h for k in row] for row in tensor["levels"]]
    values = [bits_of(step[tensor["codes"][i][j // e["group_size"]]] * 3 ** e["shift"] * cut * k, dtype)
              for i, row in enumerate(levels) for j, k in enumerate(row)]
    return {"shape": e["shape"],
            "levels": sha256(b"".join(struct.pack(f"{len(row)}b", *row) for row in levels)).hexdigest(),
            "codes": sha256(b"".join(map(bytes, tensor["codes"]))).hexdigest(),
            "values": sha256(struct.pack(f"<{len(values)}{'I' if dtype == 'F32' else 'H'}", *values)).hexdigest()}


# Cases


def valid():
    yield "empty", build()
    yield "metadata", build(metadata={"author": "Ω ⟨é⟩ 😀", "b": "", "aa": "x\u2028\x1b", "～": "", "😀": "z" * 70000})
    yield "metadata-limits", build(metadata={f"{i:04}": "" for i in range(1023)} | {"k" * 512: "v" * 2**20})
    yield "limits-of-names", build(raw("a"), raw("n" * 512), raw("～"), raw("😀"))
    yield "no-control", build(*(raw(c) for c in "\u0020\u007e\u00a0\u2027\u202f\u2065\u206a\ufefe\uff00"))
    yield "raw-dtypes", build(*(raw(dtype, dtype, (3, 2)) for dtype in sorted(ELEMENT_BYTES)))
    yield "raw-shapes", build(raw("0", "F32", ()), raw("1", "F64", (0,)), raw("2", "U8", (2**48, 0)), raw("3", "U8", (1,) * 8),
                              raw("4", "C64", (0, 7, 0)), raw("5", "BOOL", (64,)))
    for depth in 1, 2, 3, 4:
        for rows in 4, 5, 6, 11:
            yield f"depth-{depth}-rows-{rows}", build(trit("w", (rows, 37), 16, depth, shift=4 - depth))
    yield "ragged", build(trit("a", (3, 1), 1), trit("b", (2, 17), 16, 2), trit("c", (7, 5), 65536, 3), trit("d", (33,), 32, 4))
    yield "ranks", build(trit("a", (9,), 4, 2), trit("b", (1, 2, 1, 3, 1, 1, 2, 5), 2, 3), trit("c", (6, 40), 16, 2), raw("r"))
    yield "long-row", build(trit("w", (2, 70001), 7, 2), trit("x", (1, 140000), 40000, 1))
    for dtype in "F32", "F16", "BF16":
        yield f"dtype-{dtype}", build(trit("w", (27, 81), 3, 4, dtype=dtype))
        yield f"tiny-{dtype}", build(trit("w", (27, 81), 3, 4, dtype=dtype, bits=TINY))
        yield f"ties-{dtype}", build(trit("w", (27, 27), 3, 1, dtype=dtype, bits=tie_steps()))
    for dtype, bits in ("F32", 0x7F7FFFC0), ("BF16", 0x7F7F7FC0), ("F16", 0x477FEFC0):
        yield f"largest-{dtype}", build(trit("w", (27, 27), 3, 1, dtype=dtype, bits=STEPS[:26] + [bits]))
    yield "newer-minor", build(edit(trit("w", (2, 3)), zz=Wire(b"\xdd\x00\x01\x00\x00" + b"\x01" * 65536), aa="é"),
                               edit(raw("x"), depth="not an integer", later=[{}]), minor=1,
                               top={"other": Wire(b"\x91" * 6 + b"\x90")})
    html = "<img src=x onerror='globalThis.broken = 1'><script>globalThis.broken = 2</script>"
    yield "hostile", build(trit(html, (6, 20)), metadata={html: html, "__proto__": "toString"})
    yield "newest-minor", build(minor=65535)
    yield "lengths", build(metadata={"k": "v" * 31, "l": "v" * 32, "m": "v" * 255, "n": "v" * 256, "o": "v" * 65535,
                                     "p": "v" * 65536}, top={})


def broken():
    """Pairs of a name that begins with the clause, and a file."""
    w = trit("w", (6, 20), 16, 2)
    whole = build(raw("r", "BOOL", (70,)), w, metadata={"k": "v"})
    yield "PRE-1 empty", b""
    yield "PRE-1 63 bytes", whole[:63]
    yield "PRE-2 text", build(magic=b"\x89TRIT\n\x1a\n")
    yield "PRE-3 major 2", build(major=2)
    yield "PRE-3 major 0", build(major=0)
    for flags in 1, 2**31:
        yield f"PRE-4 {flags}", build(flags=flags)
    for size in 0, 2**26 + 1, 2**63, 2**64 - 1:
        yield f"PRE-5 {size}", build(header_size=size)
    for size in 0, 127, 129, 2**32 + 128, 2**53 + 128, 2**63 + 128, 2**64 - 1:
        yield f"PRE-6 {size}", build(file_size=size)
    yield "PRE-6 cut", whole[:-64]
    yield "PRE-7", build(header_size=65)
    yield "PRE-7 large", build(header_size=2**26)
    yield "PRE-8", build(digest=bytes(32))

    values = {"nil": b"\xc0", "unused": b"\xc1", "false": b"\xc2", "true": b"\xc3", "ext8": b"\xc7\1\1\1", "ext32": b"\xc9\0\0\0\0\1",
              "float": b"\xca\0\0\0\0", "double": b"\xcb" + bytes(8), "int8": b"\xd0\1", "int64": b"\xd3" + bytes(8),
              "fixext": b"\xd4\1\1", "negative": b"\xff", "negative-32": b"\xe0"}
    for name, data in values.items():
        yield f"MP-1 {name}", build(metadata={"k": Wire(data)})
        yield f"MP-1 ignored {name}", build(top={"x": [Wire(data)]}, minor=1)
    longer = {"u8": b"\xcc\x7f", "u16": b"\xcd\0\xff", "u32": b"\xce\0\0\xff\xff", "u64": b"\xcf\0\0\0\0\xff\xff\xff\xff",
              "str8": b"\xd9\1a", "str16": b"\xda\0\1a", "str32": b"\xdb\0\0\0\1a", "bin16": b"\xc5\0\0", "bin32": b"\xc6\0\0\0\0",
              "array16": b"\xdc\0\0", "array32": b"\xdd\0\0\0\0", "map16": b"\xde\0\0", "map32": b"\xdf\0\0\0\0"}
    for name, data in longer.items():
        yield f"MP-2 {name}", build(top={"x": Wire(data)}, minor=1)
    yield "MP-2 version", build(version=[Wire(b"\xcc\1"), 0])
    yield "MP-2 metadata", build(metadata=Wire(b"\xde\0\0"))
    yield "MP-2 key", build(metadata=Wire(b"\x81\xd9\1k\xa0"))

    pair = {key: (encode(key), encode("")) for key in ["b", "aa", "～", "😀"]}
    yield "MP-3 length first", build(metadata=map_of(pair["b"], pair["aa"]))
    yield "MP-3 UTF-16", build(metadata=map_of(pair["😀"], pair["～"]))
    yield "MP-3 twice", build(metadata=map_of(pair["b"], pair["b"]))
    yield "MP-3 bin key", build(metadata=map_of((encode(b"b"), encode(""))))
    yield "MP-3 integer key", build(top={"x": map_of((encode(1), encode("")))}, minor=1)
    parts = [(encode("version"), encode([1, 0])), (encode("tensors"), encode([])), (encode("metadata"), encode({}))]
    yield "MP-3 header", build(header=map_of(*parts))
    for name, data in {"overlong": b"\xc0\x80", "surrogate": b"\xed\xa0\x80", "above": b"\xf4\x90\x80\x80", "cut": b"\xe2\x82",
                       "alone": b"\x80", "latin1": b"caf\xe9", "fe": b"\xfe"}.items():
        text = Wire(bytes([0xA0 + len(data)]) + data)
        yield f"MP-4 value {name}", build(metadata={"k": text})
        yield f"MP-4 key {name}", build(metadata=map_of((text, encode(""))))
        yield f"MP-4 ignored {name}", build(top={"x": text}, minor=1)
        yield f"MP-4 tensor {name}", build(edit(raw("r"), name=text))
    header = encode({"metadata": {"k": "v"}, "tensors": [], "version": [1, 0]})
    for size in range(1, len(header)):
        yield f"MP-5 cut at {size}", build(header=header[:size])
    yield "MP-5 after", build(header=header + b"\xc0")
    yield "MP-5 long str", build(metadata={"k": Wire(b"\xda\x7f\xff")})
    yield "MP-5 long array", build(top={"x": Wire(b"\xdd\xff\xff\xff\xff")}, minor=1)
    yield "MP-5 long tensors", build(header=header[:-12].replace(b"\xa7tensors\x90", b"\xa7tensors\xdd\0\x0f\xff\xff"))
    yield "MP-6 arrays", build(top={"x": Wire(b"\x91" * 7 + b"\x90")}, minor=1)
    yield "MP-6 maps", build(top={"x": Wire(b"\x81\xa0" * 7 + b"\x80")}, minor=1)
    yield "MP-6 in an entry", build(edit(raw("r"), zz=Wire(b"\x91" * 5 + b"\x90")), minor=1)
    yield "MP-6 very deep", build(metadata={"k": Wire(b"\x91" * 100000 + b"\x90")})

    for name, data in {"array": encode([]), "integer": encode(3), "str": encode("")}.items():
        yield f"TYPE-1 header {name}", build(header=data)
        yield f"TYPE-1 metadata {name}", build(top={"metadata": Wire(data)})
        yield f"TYPE-1 entry {name}", build(top={"tensors": [Wire(data)]})
    yield "TYPE-1 metadata bin", build(metadata={"k": b"v"})
    yield "TYPE-1 tensors", build(top={"tensors": {}})
    for version in ["1.0", [1], [1, 0, 0], ["1", 0], [], [[1], 0]]:
        yield f"TYPE-1 version {version}", build(version=version)
    for key in w["entry"]:
        for other in 7, "seven", b"7", [], {}:
            if type(other) is not type(w["entry"][key]):
                yield f"TYPE-1 trit {key} {type(other).__name__}", build(edit(w, **{key: other}))
    for key, good in raw("r")["entry"].items():
        for other in 7, "seven", b"7", [], {}:
            if type(other) is not type(good):
                yield f"TYPE-1 raw {key} {type(other).__name__}", build(edit(raw("r"), **{key: other}))
    yield "TYPE-1 axis", build(edit(raw("r"), shape=["3"]))
    yield "TYPE-1 digest", build(edit(w, sha256=[7] * 5))

    for key in "metadata", "tensors", "version":
        fields = {"metadata": {}, "tensors": [], "version": [1, 0]}
        del fields[key]
        yield f"HDR-1 {key}", build(header=encode(fields))
    for version in [1, 1], [2, 0], [0, 0], [1, 2**64 - 1], [2**32 + 1, 0]:
        yield f"HDR-2 {version}", build(version=version)
    yield "HDR-2 newer", build(version=[1, 0], minor=1)
    yield "HDR-3 order", build(raw("b"), raw("aa"))
    yield "HDR-3 twice", build(raw("b"), raw("b"))
    yield "HDR-3 UTF-16", build(raw("😀"), raw("～"))
    yield "HDR-4", build(top={"tensors": Wire(b"\xdd\x00\x10\x00\x01" + b"\x80" * (2**20 + 1))})
    yield "HDR-4 most", build(top={"tensors": Wire(b"\xdd\xff\xff\xff\xff")})
    yield "HDR-5", build(metadata={f"{i:04}": "" for i in range(1025)})
    yield "HDR-6", build(metadata={"k": "v" * (2**20 + 1)})
    for name in "", "n" * 513:
        yield f"NAME-1 name {len(name)}", build(raw(name))
        yield f"NAME-1 key {len(name)}", build(metadata={name: ""})
    for code in [0, 9, 0x1F, 0x7F, 0x80, 0x9F, 0x2028, 0x202A, 0x202E, 0x2066, 0x2069, 0xFEFF]:
        yield f"NAME-2 name {code:x}", build(raw(chr(code)))
        yield f"NAME-2 key {code:x}", build(metadata={"a" + chr(code): ""})

    for key in w["entry"]:
        yield f"ENT-1 trit {key}", build(without(w, key))
    for key in raw("r")["entry"]:
        yield f"ENT-1 raw {key}", build(without(raw("r"), key))
    yield "ENT-2", build(edit(raw("r"), kind="rat"))
    digests = w["entry"]["sha256"]
    yield "ENT-3 fewer", build(edit(w, sha256=digests[:-1]))
    yield "ENT-3 more", build(edit(w, sha256=digests + digests[:1]))
    yield "ENT-3 short", build(edit(w, sha256=digests[:-1] + [bytes(31)]))
    yield "ENT-3 raw", build(edit(raw("r"), sha256=bytes(33)))

    yield "SHAPE-1 raw", build(raw("r", "U8", (1,) * 9))
    yield "SHAPE-1 trit", build(trit("w", (1,) * 9))
    yield "SHAPE-1 lies", build(edit(raw("r"), shape=Wire(b"\xdd\xff\xff\xff\xff")))
    for shape in [2**48 + 1], [2**24, 2**24, 2], [2**48 + 1, 0], [2**64 - 1] * 8, [2**32, 0, 2**32], [2**63, 2]:
        yield f"SHAPE-2 {shape}", build(edit(raw("r"), shape=shape))
        yield f"SHAPE-2 trit {shape}", build(edit(w, shape=shape))
    yield "TEN-1 rank", build(edit(w, shape=[]))
    yield "TEN-1 axis", build(edit(w, shape=[0, 20]))
    yield "TEN-1 K", build(edit(w, shape=[6, 0]))
    for depth in 0, 5, 256 + 2, 2**64 - 1:
        yield f"TEN-2 {depth}", build(edit(w, depth=depth))
    for shift in 3, 2**32, 2**64 - 1:
        yield f"TEN-3 {shift}", build(trit("w", (6, 20), 16, 2, shift=shift))
    for size in 0, 65537, 2**64 - 1:
        yield f"TEN-4 {size}", build(edit(w, group_size=size))
    for dtype in "F64", "U8", "f32", "":
        yield f"TEN-5 {dtype}", build(edit(w, dtype=dtype))

    for size in 0, 26, 28:
        yield f"CB-1 {size}", build(trit("w", (6, 20), bits=(STEPS + [STEPS[-1] + 64])[:size]))
    for name, bits in {"zero": 0, "subnormal": 0x7FFFC0, "negative": 0xBF800000}.items():
        yield f"CB-2 {name}", build(trit("w", (6, 20), bits=[bits] + STEPS[1:]))
    for name, bits in {"infinity": 0x7F800000, "NaN": 0x7FC00000}.items():
        yield f"CB-2 {name}", build(trit("w", (6, 20), bits=STEPS[:26] + [bits]))
    yield "CB-3 equal", build(trit("w", (6, 20), bits=STEPS[:26] + STEPS[25:26]))
    yield "CB-3 first", build(trit("w", (6, 20), bits=[STEPS[1] + 64] + STEPS[1:]))
    for bit in range(6):
        yield f"CB-4 {bit}", build(trit("w", (6, 20), bits=STEPS[:13] + [STEPS[13] | 1 << bit] + STEPS[14:]))
    for dtype, bits in ("F16", 0x477FF000), ("BF16", 0x7F7F8000):
        yield f"CB-5 {dtype}", build(trit("w", (6, 20), dtype=dtype, bits=STEPS[:26] + [bits]))
    yield "CB-5 F32 depth", build(trit("w", (6, 20), depth=2, bits=STEPS[:26] + [0x7E800000]))
    yield "CB-5 F32 shift", build(trit("w", (6, 20), shift=3, bits=STEPS[:26] + [0x7E000000]))

    yield "RAW-1", build(raw("r", "F8", (3,)))
    yield "RAW-2", build(raw("r", "BOOL", (3,), b"\0\1\2"))
    start = 64 * -(-(64 + len(encode({"metadata": {"k": "v"}, "tensors": [t["entry"] for t in (raw("r", "BOOL", (70,)), w)],
                                      "version": [1, 0]}))) // 64)
    r = raw("r", "BOOL", (70,))
    make = lambda change: build(r, w, metadata={"k": "v"}, change=change)
    yield "LAY-3 after the header", make(flip(start - 1))
    yield "LAY-3 after raw", make(flip(start + 70))
    yield "LAY-3 at the end", make(flip(-1, 128))
    yield "LAY-4 more", make(lambda data: data + bytes(64))
    yield "LAY-4 one more", make(lambda data: data + bytes(1))
    yield "LAY-4 less", make(lambda data: data[:-64])
    yield "LAY-4 cut", make(lambda data: data[:-1])
    yield "LAY-4 empty", build(change=lambda data: data + bytes(64))
    yield "LAY-4 lies", build(edit(raw("r"), shape=[2**48]))
    yield "LAY-4 lies, trit", build(edit(w, shape=[2**24, 2**24]))
    huge = raw("x", "U8", (0,))["entry"]
    yield "LAY-5", build(top={"tensors": [{**huge, "name": f"{i:04}", "dtype": "F64", "shape": [2**48]} for i in range(4096)]})
    yield "LAY-4 at LAY-5", build(top={"tensors": [{**huge, "name": f"{i:04}", "dtype": "F64", "shape": [2**48]} for i in range(4095)]})
    for number in range(5):
        for byte in 243, 255:
            segments = list(w["segments"])
            segments[number] = bytes([byte]) + segments[number][1:]
            t = {**w, "segments": segments, "entry": {**w["entry"], "sha256": [sha256(s).digest() for s in segments]}}
            yield f"PACK-2 {number} {byte}", build(t)
        for i in 1, 4:  # row 5 is the last of 6: byte row 1 holds it and four trits of padding
            segments = list(w["segments"])
            last = segments[number][-1]
            segments[number] = segments[number][:-1] + bytes([last + 3**i])
            t = {**w, "segments": segments, "entry": {**w["entry"], "sha256": [sha256(s).digest() for s in segments]}}
            yield f"PACK-3 {number} {i}", build(t)
        yield f"SEG-1 {number}", build(edit(w, sha256=digests[:number] + [bytes(32)] + digests[number + 1:]))
    yield "SEG-1 and LAY-3", build(edit(trit("w", (6, 20)), sha256=[bytes(32)] * 4), change=flip(-1))
    yield "SEG-1 raw", make(flip(start))
    yield "VER-1 header", build(top={"other": 1})
    yield "VER-1 before", build(top={"a": 1})
    yield "VER-1 trit", build(edit(w, offset=0))
    yield "VER-1 raw", build(edit(raw("r"), zero_point=0))
    yield "VER-1 trit key in raw", build(edit(raw("r"), depth=1))


def main(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = []
    for name, data in valid():
        manifest.append({"name": name, "clause": None, "file": f"valid-{name}.trit"})
        (folder / manifest[-1]["file"]).write_bytes(data)
    for number, (name, data) in enumerate(broken()):
        manifest.append({"name": name, "clause": name.split()[0], "file": f"broken-{number:03}-{name.split()[0]}.trit"})
        (folder / manifest[-1]["file"]).write_bytes(data)
    names = [case["name"] for case in manifest]
    assert len(set(names)) == len(names), "a name stands twice"

    answers = []
    for dtype in "F32", "F16", "BF16":
        for name, tensor in [(f"dtype-{dtype}", trit("w", (27, 81), 3, 4, dtype=dtype)),
                             (f"tiny-{dtype}", trit("w", (27, 81), 3, 4, dtype=dtype, bits=TINY)),
                             (f"ties-{dtype}", trit("w", (27, 27), 3, 1, dtype=dtype, bits=tie_steps())),
                             ("ranks", trit("b", (1, 2, 1, 3, 1, 1, 2, 5), 2, 3)),
                             ("ragged", trit("c", (7, 5), 65536, 3)), ("ragged", trit("d", (33,), 32, 4)),
                             ("largest-F32", trit("w", (27, 27), 3, 1, bits=STEPS[:26] + [0x7F7FFFC0])),
                             ("depth-3-rows-11", trit("w", (11, 37), 16, 3, shift=1)),
                             ("long-row", trit("w", (2, 70001), 7, 2)), ("long-row", trit("x", (1, 140000), 40000, 1))]:
            depths = (None, 1) if name == "long-row" else (None, 1, 2, 3, 4)
            answers += [{"file": f"valid-{name}.trit", "tensor": tensor["entry"]["name"], "depth": depth, "dtype": out,
                         "result": expected(tensor, depth, out)} for depth in depths for out in ("F32", "F16", "BF16")
                        if name != "long-row" or out == "F16"]
    (folder / "manifest.json").write_text(json.dumps({"cases": manifest, "decode": answers}))


main(sys.argv[1])
