"""Files made by hand from SPEC.md, and what the port has to say of them.

    python3 tests/check.py PATH-OF-THE-BINARY

Needs only Python's standard library. Nothing here knows the port: it is asked as docs/protocol.md says.
"""
import hashlib
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SPEC = HERE.parents[2] / "SPEC.md"
BINARY = sys.argv[1]
sha = lambda data: hashlib.sha256(data).digest()


# A writer, from the SPEC.

class Raw(bytes):
    """Bytes of MessagePack to be put in as they are."""


def head(size, fixed, limit, *codes):
    if size < limit:
        return bytes([fixed + size])
    for code, width in codes:
        if size < 1 << 8 * width:
            return bytes([code]) + size.to_bytes(width, "big")


def encode(value):
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, int):
        return head(value, 0, 128, (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8))
    if isinstance(value, str):
        data = value.encode()
        return head(len(data), 0xA0, 32, (0xD9, 1), (0xDA, 2), (0xDB, 4)) + data
    if isinstance(value, bytes):
        return head(len(value), 0, 0, (0xC4, 1), (0xC5, 2), (0xC6, 4)) + value
    if isinstance(value, list):
        return head(len(value), 0x90, 16, (0xDC, 2), (0xDD, 4)) + b"".join(map(encode, value))
    pairs = sorted(value.items(), key=lambda pair: pair[0].encode()) if isinstance(value, dict) else value.pairs
    return head(len(pairs), 0x80, 16, (0xDE, 2), (0xDF, 4)) + b"".join(encode(x) for pair in pairs for x in pair)


class Pairs:
    """A map in the order given."""

    def __init__(self, *pairs):
        self.pairs = pairs


align = lambda x: -(-x // 64) * 64


def preamble(header, size, magic=b"\x89TRIT\r\n\x1a", major=1, minor=0, flags=0, header_size=None, digest=None):
    header_size = len(header) if header_size is None else header_size
    return magic + struct.pack("<HHIQQ", major, minor, flags, header_size, size) + (digest or sha(header))


def assemble(header, segments=(), minor=0, **kw):
    """A file of these header bytes and segments, in file order."""
    body = header + bytes(align(64 + len(header)) - 64 - len(header))
    for segment in segments:
        body += segment + bytes(align(len(segment)) - len(segment))
    return preamble(header, kw.pop("size", 64 + len(body)), minor=minor, **kw) + body


class Tensor:
    def __init__(self, name, entry, segments, **more):
        self.name, self.entry, self.segments = name, entry, segments
        self.__dict__.update(more)


def build(tensors=(), metadata=None, minor=0, extra=None, version=None, **kw):
    entries = [t.entry for t in sorted(tensors, key=lambda t: t.name.encode())]
    header = {"metadata": metadata or {}, "tensors": entries, "version": version or [1, minor], **(extra or {})}
    return assemble(encode(header), order(tensors), minor, **kw)


def order(tensors):
    tensors = sorted(tensors, key=lambda t: t.name.encode())
    trit = [t for t in tensors if len(t.segments) > 1]
    segments = [t.segments[0] for t in tensors if len(t.segments) == 1]
    segments += [s for t in trit for s in t.segments[:3]]
    return segments + [t.segments[p] for p in range(3, 7) for t in trit if p < len(t.segments)]


def pack(rows, columns, trits):
    get = lambda i, j: trits[i * columns + j] if i < rows else 0
    return bytes(sum((get(5 * r + i, j) + 1) * 3**i for i in range(5)) for r in range(-(-rows // 5)) for j in range(columns))


def raw(name, dtype, shape, data, **entry):
    fields = {"dtype": dtype, "kind": "raw", "name": name, "sha256": sha(data), "shape": shape, **entry}
    return Tensor(name, {k: v for k, v in fields.items() if v is not None}, [data], values=data)


STEPS = [0x3C000000 + 0x40 * (7 + 977 * n) for n in range(27)]


def codebook(steps=STEPS):
    return struct.pack(f"<{len(steps)}I", *steps)


def trit(name, shape, group=16, depth=2, shift=0, dtype="F32", steps=STEPS, seed=7, patch=None, **entry):
    rng = random.Random(seed)
    K, rows = shape[-1], 1
    for axis in shape[:-1]:
        rows *= axis
    G, H = -(-K // group), (3**depth - 1) // 2
    levels = [rng.randint(-H, H) for _ in range(rows * K)]
    codes = [rng.randrange(27) for _ in range(rows * G)]
    planes = [pack(rows, G, [c // 3**p % 3 - 1 for c in codes]) for p in range(3)]
    planes += [pack(rows, K, [(k + H) // 3**p % 3 - 1 for k in levels]) for p in reversed(range(depth))]
    if patch:
        patch(planes)
    fields = {"codebook": codebook(steps), "depth": depth, "dtype": dtype, "group_size": group, "kind": "trit",
              "name": name, "sha256": [sha(p) for p in planes], "shape": list(shape), "shift": shift, **entry}
    return Tensor(name, {k: v for k, v in fields.items() if v is not None}, planes, levels=levels, codes=codes,
                  shape=shape, group=group, depth=depth, shift=shift, steps=steps)


def decoded(t, depth, dtype):
    """The answer to `decode`, with floats of Python: a product of 24 bits is exact in binary64."""
    lost = t.depth - min(depth or 4, t.depth)
    levels = [round(k / 3**lost) for k in t.levels]
    K, G = t.shape[-1], -(-t.shape[-1] // t.group)
    step = [struct.unpack("<f", struct.pack("<I", s))[0] for s in t.steps]
    values = [step[t.codes[n // K * G + n % K // t.group]] * 3 ** (t.shift + lost) * k for n, k in enumerate(levels)]
    hexed = lambda data: sha(data).hex()
    return {"shape": t.shape, "levels": hexed(struct.pack(f"{len(levels)}b", *levels)), "codes": hexed(bytes(t.codes)),
            "values": hexed(b"".join(rounded(v + 0.0, dtype) for v in values))}


def rounded(value, dtype):
    if dtype == "F32":
        return struct.pack("<f", value)
    if dtype == "F16":
        try:
            return struct.pack("<e", value)
        except OverflowError:
            return b"\x00\x7c" if value > 0 else b"\x00\xfc"
    bits, = struct.unpack("<I", struct.pack("<f", value))
    return struct.pack("<H", bits + 0x7FFF + (bits >> 16 & 1) >> 16)


# The files.

def appendices():
    """The files that the SPEC prints byte by byte; what it does not print is padding."""
    for block in re.findall(r"```text\noffset.*?```", SPEC.read_text(), re.S):
        data = {}
        for offset, row in re.findall(r"^ *(\d+)  ((?:[0-9A-F]{2} ?)+)", block, re.M):
            data.update(enumerate(bytes.fromhex(row), int(offset)))
        size = int.from_bytes(bytes(data[n] for n in range(24, 32)), "little")
        yield bytes(data.get(n, 0) for n in range(size))


T = trit("w", [6, 40])
R = raw("r", "U8", [3], b"abc")
DTYPES = {1: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0", 2: "U16 I16 F16 BF16", 4: "U32 I32 F32", 8: "U64 I64 F64 C64"}
ALL_RAW = [raw(name, name, [2, 3], bytes(n % 2 for n in range(6 * size))) for size, names in DTYPES.items() for name in names.split()]
BIG_STEPS = [0x7F000000 + 64 * n for n in range(27)]  # just below 2^127
nested = lambda n: [nested(n - 1)] if n > 1 else []

VALID = {
    "no tensors": build(),
    **{f"Appendix {'AB'[n]}": data for n, data in enumerate(appendices())},
    **{f"depth {d}, shift {s}": build([trit("w", [7, 33], depth=d, shift=s)]) for d in range(1, 5) for s in range(5 - d)},
    "ragged groups": build([trit("w", [2, 3, 17], group=5)]),
    "a group above K": build([trit("w", [5, 3], group=65536)]),
    "groups of 1": build([trit("w", [11, 9], group=1)]),
    "rank 1": build([trit("w", [40]), raw("x", "F32", [1], bytes(4))]),
    "rank 8": build([trit("w", [1, 2, 1, 3, 1, 2, 1, 4]), raw("x", "U8", [1] * 8, b"\5")]),
    "rank 0": build([raw("x", "F64", [], bytes(8))]),
    "zero axes": build([raw("a", "U8", [0], b""), raw("b", "C64", [2**48, 0], b""), raw("c", "U8", [1], b"1")]),
    "all raw dtypes": build(ALL_RAW),
    "non-ASCII": build([raw("重み/😀", "U8", [1], b"\1")], {"größe": "\0\n\u202e", "\uff5e": "", "😀": "é" * 40}),
    "long metadata": build([], {"k" * 512: "v" * 2**20, **{f"{n:04}": "" for n in range(1023)}}),
    "many tensors": build([trit(f"t{n:03}", [n % 11 + 1, n % 7 + 1], depth=n % 4 + 1, group=3) for n in range(70)] + [R]),
    "BF16 and F16": build([trit("a", [9, 9], dtype="F16", depth=4), trit("b", [9, 9], dtype="BF16", depth=4)]),
    "largest step in F32": build([trit("w", [5, 5], depth=1, steps=BIG_STEPS)]),
    "subnormal halves": build([trit("w", [50, 9], depth=4, dtype="F16", steps=[0x31000000 + 0x00200040 * n for n in range(27)])]),
    "a newer minor version": build([T, R], minor=7, extra={"zzz": nested(7)}),
    "newer keys in entries": build([trit("w", [4, 4], new=[1, {"a": b"x"}]), raw("x", "U8", [1], b"1", depth="deep", zz=nested(5))], minor=1),
}
UNSUPPORTED = {
    "PRE-3": [build(major=2), build(major=0), build(major=2, flags=1)],
    "PRE-4": [build(flags=1), build(flags=1 << 31), build(minor=3, flags=2)],
}


def put(plane, at, byte):
    def patch(planes):
        data = bytearray(planes[plane])
        data[at] = byte
        planes[plane] = bytes(data)
    return patch


def shown(value):  # metadata with one value
    return assemble(encode({"metadata": {"k": value}, "tensors": [], "version": [1, 0]}))


def header(*pairs, **kw):
    return assemble(encode(Pairs(*pairs)), **kw)


def step(n, bits):
    return build([trit("w", [5, 5], steps=STEPS[:n] + [bits] + STEPS[n + 1:])])


def entry(**fields):
    return build([Tensor("w", {k: v for k, v in {**T.entry, **fields}.items() if v is not None}, T.segments)])


def raw_entry(**fields):
    return build([Tensor("r", {k: v for k, v in {**R.entry, **fields}.items() if v is not None}, R.segments)])


def damaged(data, at, byte):
    return data[:at] + bytes([byte]) + data[at + 1:]


M, S, V = ("metadata", {}), ("tensors", []), ("version", [1, 0])
GOOD, ALONE = build([T, R], {"k": "v"}), build([R])
HEADER = encode({"metadata": {}, "tensors": [], "version": [1, 0]})
END = align(64 + len(HEADER))
HUGE = [raw(f"{n:06}", "F64", [2**48], b"") for n in range(4097)]  # 2^63 bytes and a little

INVALID = {
    "PRE-1": [b"", b"\x89", GOOD[:63]],
    "PRE-2": [damaged(GOOD, 0, 0x88), damaged(GOOD, 7, 0x1B), bytes(64)],
    "PRE-5": [build(header_size=0), build(header_size=67108865), build(header_size=2**64 - 1)],
    "PRE-6": [build() + bytes(64), build(size=129), build(size=2**64 - 1), GOOD[:-1]],
    "PRE-7": [build(header_size=65), preamble(b"", 64, header_size=1)],
    "PRE-8": [build(digest=bytes(32)), damaged(GOOD, 70, GOOD[70] ^ 1)],
    "MP-1": [shown(Raw(b"\xc0")), shown(Raw(b"\xc3")), shown(Raw(b"\xcb" + bytes(8))), shown(Raw(b"\xc1")), shown(Raw(b"\xd4\0\0")),
             entry(shift=Raw(b"\xff")), entry(shift=Raw(b"\xd0\x00")), header((Raw(b"\xc0"), 1), M, S, V)],
    "MP-2": [entry(depth=Raw(b"\xcc\x02")), entry(depth=Raw(b"\xcf" + bytes(7) + b"\2")), entry(group_size=Raw(b"\xce\0\0\x01\0")),
             shown(Raw(b"\xd9\x1f" + b"a" * 31)), shown(Raw(b"\xda\0\xff" + b"a" * 255)), shown(Raw(b"\xdb\0\0\xff\xff" + b"a" * 65535)),
             entry(codebook=Raw(b"\xc5\0\x6c" + codebook())), entry(codebook=Raw(b"\xc6\0\0\0\x6c" + codebook())),
             header(("metadata", Raw(b"\xde\0\0")), S, V), header(("metadata", Raw(b"\xdf\0\0\0\0")), S, V),
             header(M, ("tensors", Raw(b"\xdc\0\0")), V), header(M, ("tensors", Raw(b"\xdd\0\0\0\x0f")), V)],
    "MP-3": [header(S, M, V), header(M, M, S, V), header(M, S, V, (1, 2)), header(("metadata", Pairs(("b", ""), ("aa", ""))), S, V),
             header(("metadata", Pairs(("😀", ""), ("\uff5e", ""))), S, V)],
    "MP-4": [shown(Raw(b"\xa1\xff")), shown(Raw(b"\xa2\xc0\x80")), shown(Raw(b"\xa3\xed\xa0\x80")), shown(Raw(b"\xa4\xf4\x90\x80\x80")),
             header((Raw(b"\xa1\x80"), 1), M, S, V)],
    "MP-5": [assemble(HEADER + b"\0"), assemble(HEADER[:-1]), assemble(HEADER[:1]), assemble(b"\xdf\xff\xff\xff\xff"), assemble(b"\xda\1"),
             header(M, ("tensors", Raw(b"\xdc\xff\xff"))), shown(Raw(b"\xdb\xff\xff\xff\xff"))],
    "MP-6": [build(minor=1, extra={"z": nested(8)}), build([trit("w", [5, 5], z=nested(6))], minor=1), shown(nested(7))],
    "TYPE-1": [assemble(b"\x90"), assemble(b"\x07"), shown(1), shown([]), header(("metadata", []), S, V), header(M, ("tensors", {}), V),
               header(M, S, ("version", 1)), header(M, S, ("version", [1])), header(M, S, ("version", [1, 0, 0])), header(M, S, ("version", [1, "0"])),
               header(M, ("tensors", [1]), V)]
              + [entry(**{key: value}) for key, value in [("codebook", "x"), ("depth", "2"), ("dtype", 1), ("group_size", b""), ("kind", 1), ("shift", []),
                 ("shape", 240), ("sha256", bytes(32)), ("sha256", ["x"] * 5)]]
              + [raw_entry(name=b"r"), raw_entry(sha256=[sha(b"abc")]), raw_entry(shape=["3"])],
    "HDR-1": [header(S, V), header(M, V), header(M, S), assemble(b"\x80")],
    "HDR-2": [build(version=[1, 1]), build(version=[2, 0]), build(minor=1, version=[1, 0]), build(version=[1, 65536])],
    "HDR-3": [assemble(encode({"metadata": {}, "tensors": [a.entry, b.entry], "version": [1, 0]}), [a.segments[0], b.segments[0]])
              for a, b in [(raw("b", "U8", [1], b"1"), raw("aa", "U8", [1], b"1")), (R, R), (raw("😀", "U8", [0], b""), raw("\uff5e", "U8", [0], b""))]],
    "HDR-4": [header(M, ("tensors", Raw(b"\xdd\0\x10\0\1")), V), header(M, ("tensors", Raw(b"\xdd\0\x10\0\1" + b"\x80" * 1048577)), V)],
    "HDR-5": [build([], {f"{n:04}": "" for n in range(1025)})],
    "HDR-6": [build([], {"k": "v" * (2**20 + 1)})],
    "NAME-1": [build([raw("", "U8", [0], b"")]), build([raw("n" * 513, "U8", [0], b"")]), build([], {"": ""}), build([], {"é" * 257: ""})],
    "NAME-2": [build([raw(f"a{chr(c)}", "U8", [0], b"")]) for c in (0, 0x1F, 0x7F, 0x80, 0x9F, 0x2028, 0x202E, 0x2066, 0x2069, 0xFEFF)]
              + [build([], {"a\nb": ""})],
    "ENT-1": [entry(**{key: None}) for key in T.entry] + [raw_entry(**{key: None}) for key in R.entry] + [header(M, ("tensors", [{}]), V)],
    "ENT-2": [entry(kind="sparse"), raw_entry(kind=""), entry(kind="Trit")],
    "ENT-3": [entry(sha256=T.entry["sha256"][:4]), entry(sha256=T.entry["sha256"] + [bytes(32)]), entry(sha256=[b""] * 5), entry(sha256=[]),
              raw_entry(sha256=bytes(31)), raw_entry(sha256=bytes(33))],
    "RAW-1": [raw_entry(dtype="U4"), raw_entry(dtype="u8"), raw_entry(dtype="")],
    "RAW-2": [build([raw("b", "BOOL", [70000], bytes(69999) + b"\2")]), build([raw("b", "BOOL", [1], b"\xff")])],
    "SHAPE-1": [raw_entry(shape=[1] * 9), build([trit("w", [1] * 9)])],
    "SHAPE-2": [raw_entry(shape=[2**48 + 1]), raw_entry(shape=[2**48, 2]), raw_entry(shape=[2**63, 2**63, 2**63]), raw_entry(shape=[2**63, 0, 2]),
                raw_entry(shape=[2**64 - 1]), entry(shape=[2**32, 2**32])],
    "TEN-1": [entry(shape=[]), entry(shape=[0, 40]), entry(shape=[6, 0])],
    "TEN-2": [entry(depth=0), entry(depth=5), entry(depth=2**64 - 1)],
    "TEN-3": [entry(shift=3), entry(shift=2**64 - 1), build([trit("w", [5, 5], depth=4, shift=1)])],
    "TEN-4": [entry(group_size=0), entry(group_size=65537), entry(group_size=2**64 - 1)],
    "TEN-5": [entry(dtype="F64"), entry(dtype="f32")],
    "CB-1": [entry(codebook=codebook()[:-1]), entry(codebook=codebook() + bytes(4)), entry(codebook=b"")],
    "CB-2": [step(0, 0), step(0, 0x007FFFC0), step(26, 0x7F800000), step(26, 0x7FC00000), step(0, 0x80800000), step(26, 0xFF800000)],
    "CB-3": [step(3, STEPS[4]), step(3, STEPS[5])],
    "CB-4": [step(3, STEPS[3] + 1), step(26, STEPS[26] + 32)],
    "CB-5": [build([trit("w", [5, 5], depth=2, steps=BIG_STEPS)]), build([trit("w", [5, 5], depth=1, shift=1, steps=BIG_STEPS)]),
             build([trit("w", [5, 5], depth=1, dtype="F16", steps=STEPS[:26] + [0x477FF000])]),
             build([trit("w", [5, 5], depth=1, dtype="BF16", steps=STEPS[:26] + [0x7F7F8000])])],
    "VER-1": [build(extra={"new": 1}), entry(new=1), raw_entry(depth=2), raw_entry(codebook=codebook()), build(extra={"": []})],
    "LAY-3": [damaged(GOOD, -1 % len(GOOD), 1), damaged(build(), END - 1, 1), damaged(build(), 64 + len(HEADER), 255)],
    "LAY-4": [assemble(HEADER, [bytes(1)]), assemble(encode({"metadata": {}, "tensors": [R.entry], "version": [1, 0]})),
              build([raw("x", "F64", [2**48], b"")]), preamble(HEADER, 64 + len(HEADER)) + HEADER, entry(shape=[2**20, 2**28])],
    "LAY-5": [build(HUGE)],
    "SEG-1": [build([raw("x", "U8", [3], b"abc", sha256=bytes(32))]), damaged(ALONE, len(ALONE) - 64, 0x62),
              build([trit("w", [6, 40], sha256=[bytes(32)] * 5)])],
    "PACK-2": [build([trit("w", [6, 40], patch=put(plane, at, byte))]) for plane, at, byte in [(0, 0, 243), (2, 5, 255), (3, 79, 250), (4, 0, 243)]],
    "PACK-3": [build([trit("w", [6, 40], patch=put(plane, at, byte))]) for plane, at, byte in [(0, 3, 0), (4, 79, 242), (4, 40, 0), (3, 41, 121 + 81)]],
}


# The questions.

class Server:
    def __init__(self):
        self.process = subprocess.Popen([BINARY, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.seq = 0

    def ask(self, cmd, **fields):
        self.seq += 1
        return self.line(json.dumps({"cmd": cmd, **fields, "seq": self.seq}).encode(), self.seq)

    def line(self, data, seq):
        self.process.stdin.write(data + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["seq"] == seq, answer
        return answer.get("result", answer)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(5) == 0


def verify(path):
    done = subprocess.run([BINARY, "verify", path], capture_output=True, timeout=5)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def equal(found, wanted, what):
    assert found == wanted, f"{what}: {found}, not {wanted}"


def main(folder):
    path, server = str(folder / "file ü.trit"), Server()

    def give(data):
        pathlib.Path(path).write_bytes(data)

    def check(data, verdict, clause, what):
        give(data)
        answer = {"verdict": verdict, "clause": clause}
        equal(verify(path), ({"valid": 0, "invalid": 1, "unsupported": 3}[verdict], answer), what)
        equal(server.ask("verify", file=path), answer, what)

    for what, data in VALID.items():
        check(data, "valid", None, what)
    for verdict, table in (("unsupported", UNSUPPORTED), ("invalid", INVALID)):
        for clause, files in table.items():
            for n, data in enumerate(files):
                check(data, verdict, clause, f"{clause} {n}")
    print(f"verdicts: {len(VALID)} valid files, {sum(map(len, {**UNSUPPORTED, **INVALID}.values()))} of {len({**UNSUPPORTED, **INVALID})} clauses")

    # "any single-bit change is detected", and no file is cut unnoticed
    small = build([trit("w", [2, 3], depth=1), R], {"k": "é"})
    for size in range(len(small)):
        give(small[:size])
        equal(server.ask("verify", file=path)["verdict"], "invalid", f"cut to {size}")
    counts = {}
    for bit in range(8 * len(small)):
        give(damaged(small, bit // 8, small[bit // 8] ^ 1 << bit % 8))
        answer = server.ask("verify", file=path)
        assert answer["verdict"] in ("invalid", "unsupported"), (bit, answer)
        counts[answer["clause"]] = counts.get(answer["clause"], 0) + 1
    print(f"{len(small)} truncations, {8 * len(small)} bit flips:", counts)

    # headers that are wrong in any way, with a right digest
    rng, verdicts = random.Random(1), {}
    size = struct.unpack("<Q", GOOD[16:24])[0]
    for _ in range(4000):
        data = bytearray(GOOD[64:64 + size])
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            data[at:at + rng.randint(0, 2)] = rng.choice([bytes([rng.randrange(256)]), b"", b"\xff" * 4, b"\xdd\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8, b"\x80"])
        give(assemble(bytes(data), order([T, R]), minor=rng.randrange(2)))
        answer = [server.ask("verify", file=path), server.ask("decode", file=path, tensor="w", depth=None, dtype="F16")]
        clause = answer[0]["clause"]
        verdicts[clause] = verdicts.get(clause, 0) + 1
        server.ask("header", file=path)
    print("4000 mutated headers:", verdicts)

    # header and decode
    tensors = [trit("a", [7, 33], depth=4), trit("b", [2, 3, 17], group=5, depth=3, shift=1), trit("c", [41], depth=1, dtype="F16"), R,
               trit("s", [50, 9], depth=4, dtype="F16", steps=[0x31000000 + 0x00200040 * n for n in range(27)]),
               trit("big", [9, 9], depth=4, steps=[0x46000000 + 0x00060000 * n for n in range(27)])]
    data = build(tensors, {"k": 'é"\\\n😀'})
    give(data)
    answer = server.ask("header", file=path)
    equal((answer["identity"], answer["version"], answer["metadata"]), (data[32:64].hex(), [1, 0], {"k": 'é"\\\n😀'}), "header")
    equal([t["name"] for t in answer["tensors"]], ["a", "b", "big", "c", "r", "s"], "names")
    for found in answer["tensors"]:
        t = next(t for t in tensors if t.name == found["name"])
        for offset, segment in zip(found["offsets"], t.segments, strict=True):
            equal(data[offset:offset + len(segment)], segment, "a segment")
        keys = ["kind", "dtype", "shape"] + (["depth", "shift", "group_size"] if t is not R else [])
        equal([found[k] for k in keys], [t.entry[k] for k in keys], "fields")
        equal(found.get("codebook"), None if t is R else t.entry["codebook"].hex(), "codebook")
    for t in tensors:
        for depth in (None, 1, 2, 3, 4):
            for dtype in ("F32", "F16", "BF16"):
                wanted = {"shape": [3], "values": sha(b"abc").hex()} if t is R else decoded(t, depth, dtype)
                equal(server.ask("decode", file=path, tensor=t.name, depth=depth, dtype=dtype), wanted, f"{t.name} {depth} {dtype}")
    give(damaged(data, len(data) - 64, data[len(data) - 64] ^ 1))
    equal(server.ask("decode", file=path, tensor="s", depth=4, dtype="F32"), {"error": "SEG-1"}, "damaged lowest plane")
    assert "values" in server.ask("decode", file=path, tensor="s", depth=3, dtype="F32")
    for clause in ("PACK-2", "PACK-3"):
        give(INVALID[clause][0])
        equal(server.ask("decode", file=path, tensor="w", depth=1, dtype="F32"), {"error": clause}, clause)
    give(INVALID["RAW-2"][0])
    equal(server.ask("decode", file=path, tensor="b", depth=None, dtype="F32"), {"error": "RAW-2"}, "RAW-2")

    give(VALID["Appendix B"])
    levels = [n * n % 251 % 9 - 4 for n in range(40)]
    steps = [(32 + c) / 4096 for c in [0] * 16 + [13] * 4 + [26] * 16 + [5] * 4]
    wanted = {"shape": [2, 20], "levels": sha(struct.pack("40b", *levels)).hex(), "codes": sha(bytes([0, 13, 26, 5])).hex(),
              "values": sha(b"".join(rounded(step * k, "F16") for step, k in zip(steps, levels))).hex()}
    equal(server.ask("decode", file=path, tensor="weights", depth=None, dtype="F16"), wanted, "Appendix B")
    equal(VALID["Appendix A"], VALID["no tensors"], "Appendix A")

    # pack, unpack, split, join: SPEC's examples and the edges
    ask = server.ask
    equal(ask("pack", rows=6, columns=2, trits="01ff0000ff01000000000100"), {"packed": "71817a79"}, "pack")
    equal(ask("unpack", rows=6, columns=2, packed="71817a79"), {"trits": "01ff0000ff01000000000100"}, "unpack")
    equal(ask("unpack", rows=2**64 - 1, columns=0, packed=""), {"trits": ""}, "no columns")
    equal(ask("unpack", rows=0, columns=2**64 - 1, packed=""), {"trits": ""}, "no rows")
    equal(ask("unpack", rows=2**64 - 1, columns=2**64 - 1, packed="79"), {"error": "PACK-1"}, "overflow")
    equal(ask("unpack", rows=1, columns=1, packed="f3"), {"error": "PACK-2"}, "PACK-2")
    equal(ask("unpack", rows=1, columns=1, packed="00"), {"error": "PACK-3"}, "PACK-3")
    equal(ask("pack", rows=1, columns=1, trits="02"), {"error": "TRIT-1"}, "TRIT-1")
    equal(ask("split", depth=3, levels="05"), {"planes": ["ff", "ff", "01"]}, "split")
    equal(ask("split", depth=3, levels="0e"), {"error": "TRIT-2"}, "TRIT-2")
    equal(ask("split", depth=4, levels="80"), {"error": "TRIT-2"}, "TRIT-2")
    equal(ask("split", depth=5, levels=""), {"error": "TEN-2"}, "TEN-2")
    equal(ask("join", planes=["ff", "ff", "01"]), {"levels": "05"}, "join")
    equal(ask("join", planes=["80"]), {"error": "TRIT-1"}, "TRIT-1")
    for fields in ({"planes": ["00", ""]}, {"planes": "00"}, {"planes": [1]}, {}):
        assert "skipped" in ask("join", **fields)
    for _ in range(100):
        rows, columns = rng.randrange(12), rng.randrange(5)
        trits = [rng.randint(-1, 1) for _ in range(rows * columns)]
        hexed, packed = struct.pack(f"{len(trits)}b", *trits).hex(), pack(rows, columns, trits).hex()
        equal(ask("pack", rows=rows, columns=columns, trits=hexed), {"packed": packed}, "pack")
        equal(ask("unpack", rows=rows, columns=columns, packed=packed), {"trits": hexed}, "unpack")

    # lines that are no requests, odd ones, and files that cannot be read
    for line in (b"{", b"[]", b"nul", b"\xff", b"[" * 100000, b'{"cmd": "\\ud800"}', b"x" * (2 << 20), b"{}", b'{"cmd": 1}', b'{"a":}'):
        assert "skipped" in server.line(line, None), line
    equal(server.line(b' {"x" : [1.5e3, {"y": null}], "\\u0073eq":-3 , "cmd":"join","planes":["01"]}\r', -3), {"levels": "01"}, "escapes")
    give(build([raw("😀", "U8", [1], b"x")]))
    equal(server.line(b'{"seq":1,"cmd":"decode","tensor":"\\uD83D\\ude00","file":%s}' % json.dumps(path).encode(), 1)["shape"], [1], "a pair")
    os.mkfifo(folder / "fifo")
    for unreadable in (folder, folder / "fifo", folder / "missing", "/dev/zero", "/dev/null"):
        equal(verify(str(unreadable)), (2, None), unreadable)
        assert "skipped" in ask("verify", file=str(unreadable))
    for arguments in ([], ["verify"], ["verify", "a", "b"], ["serve", "x"], ["decode"]):
        equal(subprocess.run([BINARY, *arguments], capture_output=True, timeout=5).returncode, 2, arguments)
    server.close()

    print("all well")


def check_quotes():
    """What stands in quotation marks after a requirement's id is the SPEC's sentence."""
    flat = lambda text: re.sub(r"\s+", " ", re.sub(r"[`*\\]", "", text))
    spec, found = flat(SPEC.read_text()), 0
    for file in sorted((HERE.parent / "src").glob("*.rs")):
        comments = flat(re.sub(r"\n\s*//[/!]? ?", " ", file.read_text()))
        for clause, sentence in re.findall(r'\b([A-Z]+-\d)\. "([^"]*)"', comments):
            assert f"{clause}. {sentence}" in spec, (file.name, clause, sentence)
            found += 1
    print(found, "quoted requirements stand in SPEC.md")


if __name__ == "__main__":
    check_quotes()
    with tempfile.TemporaryDirectory() as name:
        main(pathlib.Path(name))
