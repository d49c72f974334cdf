"""The valid files, and for each clause that a file can break at least one that breaks it."""

import struct

from make import Coded, DTYPES, Raw, Trit, file, mp, steps

T = Trit("t", [3, 20])
R = Raw("r", [5])
HALF = [0x37800000 + 0x40000 * c for c in range(27)]  # about 2^-16: most binary16 values are subnormal
TINY = [0x31000000 + 0x00200000 * c for c in range(27)]  # about 2^-29: some round to 0 or to the least subnormal


def codebook(last, first=0x3F800000):
    return [first + 64 * c for c in range(26)] + [last]


def valid():
    ranks = [Trit("1", [7]), Trit("8", [1, 2, 1, 2, 1, 2, 1, 3]), Raw("r0", []), Raw("r0b", [], "F64"), Raw("r8", [1] * 8)]
    zeros = [Raw("z1", [0]), Raw("z2", [3, 0, 2], "F32"), Raw("z3", [2]), Raw("z4", [2**48, 0])]
    yield "empty", (), file()
    for depth in range(1, 5):
        for rows, K, group in [(1, 1, 1), (4, 15, 16), (5, 16, 16), (6, 17, 16), (11, 81, 27), (10, 7, 65536)]:
            tensors = [Trit("w", [rows, K], group, depth, 4 - depth if rows % 2 else 0, list("F32 F16 BF16".split())[K % 3])]
            yield f"depth-{depth}-{rows}-{K}-{group}", tensors, file(tensors)
    yield "ranks", ranks, file(ranks)
    yield "zeros", zeros, file(zeros)
    dtypes = [Raw(f"{i:02} {name}", [3, 3], name) for i, name in enumerate(DTYPES)]
    yield "dtypes", dtypes, file(dtypes)
    names = [Trit("b", [2, 2]), Trit("aa", [6, 40], 16, 4), Raw("\U0001f600", [1]), Raw("\uff5e", [2]), Trit("a/../-é\"\\", [5, 64], 5, 3)]
    metadata = {"format": "pt", "näme": "Zoë\n\t\"\\\u202e \U0001f600", "x": "", "long": "é" * 524288}
    yield "names", names, file(names, metadata)
    yield "limits", (), file(metadata={f"{i:0512}": "" for i in range(1024)})
    low = [Trit("half", [5, 81], 3, 4, 0, "F32", HALF), Trit("tiny", [5, 81], 3, 4, 0, "F16", TINY)]
    yield "rounding", low, file(low)
    high = [Trit("f32", [5, 27], 1, 1, 0, "F32", codebook(0x7F7FFFC0)), Trit("least", [5, 27], 1, 4, 0, "F32", codebook(0x3F900000, 0x00800000))]
    yield "extremes", high, file(high)  # and infinity when decoded to binary16 or bfloat16
    most = [Trit("bf16", [2, 27], 1, 1, 0, "BF16", codebook(0x7F7F7FC0)), Trit("f16", [2, 27], 1, 1, 0, "F16", codebook(0x477FEFC0))]
    yield "largest", most, file(most)
    deep = [[[[[[[]]]]]]]  # 7 arrays in the header's map
    extra = [T, R]
    yield "minor", extra, file(extra, minor=1, header=lambda h: h | {"also": deep, "zz": {"a": 2**64 - 1}},
                               entries=lambda e: [x | {"new": b"123", "zzz": [1, {"q": "é"}]} for x in e])


def set_(**keys):
    """Changes the first entry; None takes a key away."""
    return lambda entries: [{k: v for k, v in (entries[0] | keys).items() if v is not None}, *entries[1:]]


def raw_header(coded):
    return lambda header: Coded(coded)


def body(tensor, change):
    """A file of one tensor, whose segments *change* changes before the digests are made."""
    return file([tensor], segments=lambda t, segments: change(segments))


def patch(data, at, value):
    return data[:at] + bytes([value]) + data[at + 1:]


def book(values):
    return set_(codebook=struct.pack(f"<{len(values)}I", *values))


def invalid():
    one, both = file([T]), [T, R]
    yield "PRE-1", b""
    yield "PRE-1", one[:63]
    yield "PRE-2", patch(one, 7, 0)
    yield "PRE-3", file(major=2)
    yield "PRE-3", file(major=0, header_size=0)
    yield "PRE-4", file(flags=1)
    yield "PRE-4", file(flags=1 << 31)
    yield "PRE-5", file(header_size=0)
    yield "PRE-5", file(header_size=67108865)
    yield "PRE-5", file(header_size=2**64 - 1)
    yield "PRE-6", file(file_size=127)
    yield "PRE-6", file() + b"\0"
    yield "PRE-6", file(file_size=2**64 - 1)
    yield "PRE-7", file(header_size=65)
    yield "PRE-7", file(end=30)
    yield "PRE-8", file(digest=bytes(32))

    head = mp({"metadata": {}, "tensors": [], "version": [1, 0]})
    for coded in ["c0", "c2", "ca3f800000", "cb" + "00" * 8, "ff", "e0", "d000", "d100ff", "d6" + "00" * 5, "c1", "c70000", "c3"]:
        yield "MP-1", file(header=raw_header(head[:-1] + bytes.fromhex(coded)))
    for value in ["cc00", "cc7f", "cd00ff", "ce0000ffff", "cf00000000ffffffff", "d90161", "da002061", "db0000002061", "c5000161",
                  "c60000000161", "dc000100", "dd0000000100", "de0000", "df00000000"]:
        yield "MP-2", file(header=raw_header(head[:-1] + bytes.fromhex(value)))
    yield "MP-3", file(header=raw_header(head.replace(mp("version"), mp(7))))
    yield "MP-3", file(header=raw_header(head.replace(mp("version"), mp("tensors"))))
    yield "MP-3", file(header=raw_header(head.replace(mp("version"), mp("aa"))))
    yield "MP-3", file(header=lambda h: h | {"metadata": Coded(b"\x82" + mp("a") + mp("") + mp("a") + mp(""))})
    yield "MP-3", file(header=lambda h: h | {"metadata": Coded(b"\x82" + mp("\U0001f600") + mp("") + mp("\uff5e") + mp(""))})
    for text in ["80", "c0af", "c1bf", "e09fbf", "eda080", "edbfbf", "f08fbfbf", "f4908080", "f5808080", "c3", "e282", "f09f98", "c328", "ff"]:
        value = bytes.fromhex(text)
        yield "MP-4", file(header=lambda h: h | {"metadata": {"k": Coded(bytes([0xA0 + len(value)]) + value)}})
    yield "MP-4", file(header=lambda h: h | {"metadata": Coded(b"\x81\xa1\xff\xa0")})
    yield "MP-5", file(header=raw_header(head + b"\0"))
    for cut in range(1, len(head)):
        yield "MP-5", file(header=raw_header(head[:cut]))
    for claim in ["dfffffffff", "ddffffffff", "dbffffffff", "c6ffffffff", "cf00", "ce", "d9", "c4", "dc00"]:
        yield "MP-5", file(header=raw_header(bytes.fromhex(claim)))
    yield "MP-6", file(minor=1, header=lambda h: h | {"also": [[[[[[[[]]]]]]]]})
    yield "MP-6", file(minor=1, header=lambda h: h | {"also": Coded(b"\x91" * 100000 + b"\x90")})
    yield "MP-6", file(header=raw_header(b"\x81\xa0" * 100000 + b"\0"))

    for key, value in {"metadata": [], "tensors": {}, "version": "1.0"}.items():
        yield "TYPE-1", file(header=lambda h: h | {key: value})
    for version in ([1], [1, 0, 0], [1, "0"]):
        yield "TYPE-1", file(header=lambda h: h | {"version": version})
    yield "TYPE-1", file(header=raw_header(mp([head])))
    yield "TYPE-1", file(metadata={"k": 1})
    yield "TYPE-1", file([T], entries=lambda e: [1])
    for key, value in {"codebook": "", "depth": "2", "dtype": 1, "group_size": [], "kind": 1, "name": b"t", "sha256": bytes(32),
                       "shape": 60, "shift": {}}.items():
        yield "TYPE-1", file([T], entries=set_(**{key: value}))
    yield "TYPE-1", file([T], entries=set_(shape=[3, "20"]))
    yield "TYPE-1", file([T], entries=set_(sha256=[bytes(32)] * 4 + ["0" * 32]))
    yield "TYPE-1", file([R], entries=set_(sha256=[bytes(32)]))
    for key in ("metadata", "tensors", "version"):
        yield "HDR-1", file(header=lambda h: {k: v for k, v in h.items() if k != key})
    yield "HDR-1", file(header=lambda h: {})
    for version in ([1, 1], [2, 0], [1, 65536], [2**32 + 1, 0]):
        yield "HDR-2", file(header=lambda h: h | {"version": version})
    yield "HDR-2", file(minor=1, header=lambda h: h | {"version": [1, 0]})
    yield "HDR-3", file(both, entries=lambda e: e[::-1])
    yield "HDR-3", file([R], entries=lambda e: e * 2)
    yield "HDR-4", file(header=lambda h: h | {"tensors": [0] * 1048577})
    yield "HDR-5", file(metadata={str(i): "" for i in range(1025)})
    yield "HDR-6", file(metadata={"k": "x" * 1048577})
    for name in ("", "x" * 513, "é" * 257):
        yield "NAME-1", file([Raw(name, [1])])
        yield "NAME-1", file(metadata={name: ""})
    for point in [0, 0x1F, 0x7F, 0x80, 0x9F, 0x2028, 0x202E, 0x2066, 0x2069, 0xFEFF]:
        yield "NAME-2", file([Raw("a" + chr(point), [1])])
        yield "NAME-2", file(metadata={chr(point): ""})

    for key in "codebook depth dtype group_size kind name sha256 shape shift".split():
        yield "ENT-1", file([T], entries=set_(**{key: None}))
    for key in "dtype kind name sha256 shape".split():
        yield "ENT-1", file([R], entries=set_(**{key: None}))
    for kind in ("", "Trit", "trits", "raw\0"):
        yield "ENT-2", file([R], entries=set_(kind=kind))
    yield "ENT-3", file([T], entries=lambda e: set_(sha256=e[0]["sha256"][:-1])(e))
    yield "ENT-3", file([T], entries=lambda e: set_(sha256=e[0]["sha256"] * 2)(e))
    yield "ENT-3", file([T], entries=lambda e: set_(sha256=e[0]["sha256"][:-1] + [bytes(31)])(e))
    yield "ENT-3", file([R], entries=set_(sha256=bytes(33)))
    for dtype in ("", "f32", "F8", "U128", "F32\0"):
        yield "RAW-1", file([Raw("r", [5], dtype)])
    yield "RAW-2", file([Raw("r", [5], "BOOL", bytes([0, 1, 1, 0, 2]))])
    yield "SHAPE-1", file([Raw("r", [1] * 9)])
    yield "SHAPE-1", file([R], entries=set_(shape=[0] * 70000))
    for shape in ([2**48 + 1], [2**24, 2**24, 2], [2**63, 2], [2**64 - 1, 0], [2**32, 2**32], [3, 0, 2**47]):
        yield "SHAPE-2", file([R], entries=set_(shape=shape))
    for shape in ([], [0], [3, 0], [0, 20]):
        yield "TEN-1", file([T], entries=set_(shape=shape))
    for depth in (0, 5, 2**64 - 1):
        yield "TEN-2", file([T], entries=set_(depth=depth))
    for shift in (3, 2**64 - 1):
        yield "TEN-3", file([T], entries=set_(shift=shift))
    for size in (0, 65537, 2**64 - 1):
        yield "TEN-4", file([T], entries=set_(group_size=size))
    for dtype in ("F64", "U8", "", "bf16"):
        yield "TEN-5", file([T], entries=set_(dtype=dtype))

    yield "CB-1", file([T], entries=book(steps()[:26]))
    yield "CB-1", file([T], entries=set_(codebook=bytes(107)))
    for pattern in (0, 64, 0x007FFFC0, 0x80000000, 0xBF800000, 0xFFC00000):
        yield "CB-2", file([T], entries=book([pattern, *steps()[1:]]))
    for pattern in (0x7F800000, 0x7FC00000):
        yield "CB-2", file([T], entries=book([*steps()[:26], pattern]))
    yield "CB-3", file([T], entries=book(steps()[:26] + steps()[25:26]))
    yield "CB-3", file([T], entries=book(steps()[::-1]))
    yield "CB-4", file([T], entries=book([steps()[0] + 1, *steps()[1:]]))
    yield "CB-4", file([T], entries=book([*steps()[:26], steps()[26] + 32]))
    for dtype, last in {"F32": 0x7E800000, "F16": 0x467FF000, "BF16": 0x7E7F8000}.items():  # 4 times these is just too much
        wrong = Trit("t", [3, 20], 16, 2, 0, dtype, codebook(last))
        right = Trit("t", [3, 20], 16, 2, 0, dtype, codebook(last - 64))
        yield "CB-5", file([wrong])
        yield None, file([right])
    yield "CB-5", file([Trit("t", [3, 20], 16, 1, 3, "F32", codebook(0x7D17B440))])  # 27 times it: 2^128 / 27 is between
    yield None, file([Trit("t", [3, 20], 16, 1, 3, "F32", codebook(0x7D17B400))])

    yield "VER-1", file(header=lambda h: h | {"also": 1})
    yield "VER-1", file([T], entries=set_(also=1))
    yield "VER-1", file([R], entries=set_(depth=1))
    yield "LAY-4", file(end=31)
    yield "LAY-4", file(end=128)
    yield "LAY-4", file([T], end=len(one) - 64 - 64)
    yield "LAY-4", file([R], entries=set_(shape=[2**48]))
    yield "LAY-4", file([T], entries=set_(shape=[3, 2**46]))
    huge = [Raw(f"{i:04}", [2**48], "F64", b"") for i in range(4096)]
    yield "LAY-5", file(huge)
    yield "LAY-4", file(huge[:4095])
    yield "LAY-3", file([R], gap=1)
    yield "LAY-3", file(gap=128)
    yield "LAY-3", patch(one, len(one) - 1, 1)
    for segment in range(5):
        yield "PACK-2", body(T, lambda s: [patch(x, 0, 243) if i == segment else x for i, x in enumerate(s)])
        yield "PACK-2", body(T, lambda s: [patch(x, len(x) - 1, 255) if i == segment else x for i, x in enumerate(s)])
        yield "PACK-3", body(T, lambda s: [patch(x, 0, x[0] - 27) if i == segment else x for i, x in enumerate(s)])
        yield "PACK-3", body(T, lambda s: [patch(x, len(x) - 1, x[-1] + 81) if i == segment else x for i, x in enumerate(s)])
    yield "SEG-1", file([T], entries=lambda e: set_(sha256=e[0]["sha256"][::-1])(e))
    yield "SEG-1", file([R], entries=set_(sha256=bytes(32)))
    yield "SEG-1", file([Raw("r", [0])], entries=set_(sha256=bytes(32)))
