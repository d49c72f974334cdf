"""Makes .trit files, right and wrong, from SPEC.md alone: Python's standard library and integers, nothing of the port."""

import functools
import hashlib
import struct
from fractions import Fraction

MAGIC = bytes.fromhex("89545249540D0A1A")
BYTES = {"BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0": 1, "U16 I16 F16 BF16": 2, "U32 I32 F32": 4, "U64 I64 F64 C64": 8}
DTYPES = {name: size for names, size in BYTES.items() for name in names.split()}
FLOATS = {"F32": (23, -126, 8), "F16": (10, -14, 5), "BF16": (7, -126, 8)}  # fraction bits, least exponent, exponent bits


class Coded(bytes):
    """MessagePack bytes that stand as they are."""


def sized(size, fixed, limit, forms):
    if size < limit:
        return bytes([fixed + size])
    width = next(width for width in forms if size < 256**width)
    return bytes([forms[width]]) + size.to_bytes(width, "big")


def mp(value):
    """Canonical MessagePack (6.2)."""
    if isinstance(value, Coded):
        return bytes(value)
    if isinstance(value, int):
        return sized(value, 0, 128, {1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF})
    if isinstance(value, str):
        data = value.encode()
        return sized(len(data), 0xA0, 32, {1: 0xD9, 2: 0xDA, 4: 0xDB}) + data
    if isinstance(value, bytes):
        return sized(len(value), 0, 0, {1: 0xC4, 2: 0xC5, 4: 0xC6}) + value
    if isinstance(value, list):
        return sized(len(value), 0x90, 16, {2: 0xDC, 4: 0xDD}) + b"".join(map(mp, value))
    pairs = sorted((key.encode(), item) for key, item in value.items())
    return sized(len(pairs), 0x80, 16, {2: 0xDE, 4: 0xDF}) + b"".join(mp(k.decode()) + mp(v) for k, v in pairs)


def product(axes):
    total = 1
    for axis in axes:
        total *= axis
    return total


def pack(rows, columns, trit):
    """Bytes of the plane of trit(i, j) (3.1)."""
    padded = [[trit(i, j) if i < rows else 0 for j in range(columns)] for i in range(-(-rows // 5) * 5)]
    return bytes(sum((padded[5 * r + i][j] + 1) * 3**i for i in range(5)) for r in range(len(padded) // 5) for j in range(columns))


def steps(first=0x3C000000, stride=0x00100040 & ~63):
    return [first + stride * c for c in range(27)]


def trits(number, digits):
    """Trits of a number counted from 0, least significant first."""
    return [number // 3**p % 3 - 1 for p in range(digits)]


class Trit:
    """A trit tensor: levels cycle through all of -H..H with a length coprime to 5 and 16, codes through all 27."""

    def __init__(self, name, shape, group_size=16, depth=2, shift=0, dtype="F32", codebook=None):
        self.name, self.shape, self.group_size, self.depth, self.shift, self.dtype = name, shape, group_size, depth, shift, dtype
        self.codebook = codebook or steps()
        self.K, self.rows = shape[-1], product(shape[:-1])
        self.G = -(-self.K // group_size)
        self.H = (3**depth - 1) // 2
        self.levels = [[(7 * (i * self.K + j) + i) % (2 * self.H + 1) - self.H for j in range(self.K)] for i in range(self.rows)]
        self.codes = [[(5 * (i * self.G + g) + 3) % 27 for g in range(self.G)] for i in range(self.rows)]

    def segments(self):
        code = [pack(self.rows, self.G, lambda i, g: trits(self.codes[i][g], 3)[p]) for p in range(3)]
        planes = range(self.depth - 1, -1, -1)
        return code + [pack(self.rows, self.K, lambda i, j: trits(self.levels[i][j] + self.H, self.depth)[p]) for p in planes]

    def entry(self):
        return {"codebook": struct.pack("<27I", *self.codebook), "depth": self.depth, "dtype": self.dtype,
                "group_size": self.group_size, "kind": "trit", "name": self.name, "shape": self.shape, "shift": self.shift}

    def decoded(self, depth, dtype):
        """Levels, codes and values, as bytes, of the top *depth* planes."""
        cut = max(self.depth - depth, 0)
        levels = [[(k + self.H) // 3**cut - (3 ** (self.depth - cut) - 1) // 2 for k in row] for row in self.levels]
        scale = 3 ** (self.shift + cut)
        values = b"".join(weight(self.codebook[self.codes[i][j // self.group_size]], scale * k, dtype)
                          for i, row in enumerate(levels) for j, k in enumerate(row))
        return b"".join(struct.pack(f"{self.K}b", *row) for row in levels), b"".join(map(bytes, self.codes)), values


class Raw:
    def __init__(self, name, shape, dtype="U8", data=None):
        self.name, self.shape, self.dtype = name, shape, dtype
        size = product(shape) * DTYPES.get(dtype, 1)
        self.data = data if data is not None else bytes(i % (2 if dtype == "BOOL" else 251) for i in range(size))

    def segments(self):
        return [self.data]

    def entry(self):
        return {"dtype": self.dtype, "kind": "raw", "name": self.name, "shape": self.shape}


def exact(pattern):
    """The value of a positive normal binary32."""
    return Fraction(0x800000 | pattern & 0x7FFFFF) * Fraction(2) ** ((pattern >> 23) - 150)


@functools.cache
def weight(step, multiple, dtype):
    return bits(exact(step) * multiple, dtype)


def bits(value, dtype):
    """An exact value rounded once to nearest even, as little-endian bytes: by search for the exponent, in fractions."""
    fraction, least, width = FLOATS[dtype]
    magnitude, exponent = abs(value), least
    if magnitude:  # start below it, so that the search is short
        exponent = max(least, magnitude.numerator.bit_length() - magnitude.denominator.bit_length() - 1)
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    units = round(magnitude / Fraction(2) ** (exponent - fraction))  # Python rounds ties to even
    pattern = min(units + ((exponent - least) << fraction), ((1 << width) - 1) << fraction)
    pattern |= (value < 0) << (fraction + width)
    return pattern.to_bytes((fraction + width + 1) // 8, "little")


def align(x):
    return -(-x // 64) * 64


def file(tensors=(), metadata=None, minor=0, header=None, entries=None, segments=None, gap=0, end=None, **preamble):
    """A file. *header* and *entries* change the dicts, *segments* the list of a tensor's bytes, before digests are made;
    *gap* is what gaps are filled with, *end* the length in the place of what 7 says; preamble fields are named."""
    data, made = {}, []
    for tensor in tensors:
        data[tensor.name] = tensor.segments() if segments is None else segments(tensor, tensor.segments())
        digests = [hashlib.sha256(segment).digest() for segment in data[tensor.name]]
        made.append(tensor.entry() | {"sha256": digests[0] if isinstance(tensor, Raw) else digests})
    made.sort(key=lambda entry: entry["name"].encode())
    value = {"metadata": metadata or {}, "tensors": entries(made) if entries else made, "version": [1, minor]}
    value = header(value) if header else value
    coded = mp(value)
    by_name = sorted(tensors, key=lambda tensor: tensor.name.encode())
    order = [data[t.name][0] for t in by_name if isinstance(t, Raw)]
    order += [segment for t in by_name if isinstance(t, Trit) for segment in data[t.name][:3]]
    order += [data[t.name][3 + rank] for rank in range(4) for t in by_name if isinstance(t, Trit) and rank < t.depth]
    body = coded
    for segment in [*order, b""]:
        body += bytes([gap]) * (align(64 + len(body)) - 64 - len(body)) + segment
    body = body[:end] if end is None or end < len(body) else body + bytes(end - len(body))
    fields = {"magic": MAGIC, "major": 1, "minor": minor, "flags": 0, "header_size": len(coded), "file_size": 64 + len(body),
              "digest": hashlib.sha256(coded).digest()} | preamble
    return struct.pack("<8sHHIQQ32s", *fields.values()) + body


def offsets(header_size, tensors):
    """{name: offsets in the order of 5.2} for tensors in directory order."""
    place, where = align(64 + header_size), {t.name: {} for t in tensors}
    raw, trit = [t for t in tensors if isinstance(t, Raw)], [t for t in tensors if isinstance(t, Trit)]
    order = [(t, 0) for t in raw] + [(t, p) for t in trit for p in range(3)]
    order += [(t, 3 + rank) for rank in range(4) for t in trit if rank < t.depth]
    for tensor, p in order:
        where[tensor.name][p] = place
        place = align(place + len(tensor.segments()[p]))
    return {name: [at[p] for p in sorted(at)] for name, at in where.items()}
