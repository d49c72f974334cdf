"""selftest.py TRIT: runs the port over the files of cases.py, and over truncated, flipped and mutated ones."""

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
import time

import cases
from make import Raw, Trit, file, mp

SPEC = pathlib.Path(__file__).parents[3] / "SPEC.md"
STATUS = {"valid": 0, "invalid": 1, "unsupported": 3}


class Testee:
    """A `serve` process."""

    def __init__(self, command):
        self.process = subprocess.Popen([*command, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.seq = 0

    def line(self, text):
        self.process.stdin.write(text + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def ask(self, cmd, **fields):
        self.seq += 1
        answer = self.line(json.dumps({"seq": self.seq, "cmd": cmd} | fields).encode())
        assert answer.pop("seq") == self.seq
        return answer.get("result", answer)

    def end(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


def sha(data):
    return hashlib.sha256(data).hexdigest()


def check_valid(testee, path, name, tensors, data):
    import make

    path.write_bytes(data)
    assert testee.ask("verify", file=str(path)) == {"verdict": "valid", "clause": None}, name
    header = testee.ask("header", file=str(path))
    size = struct.unpack_from("<Q", data, 16)[0]
    assert header["identity"] == sha(data[64:64 + size]) and header["version"] == [1, int(name == "minor")]
    tensors = sorted(tensors, key=lambda tensor: tensor.name.encode())
    offsets = make.offsets(size, tensors)
    assert len(header["tensors"]) == len(tensors)
    for tensor, said in zip(tensors, header["tensors"]):
        entry = tensor.entry() | {"offsets": offsets[tensor.name]}
        entry = {key: value.hex() if isinstance(value, bytes) else value for key, value in entry.items()}
        assert said == entry, (name, said, entry)
        for depth in (None, 1, 2, 3, 4) if isinstance(tensor, Trit) else (None,):
            for dtype in make.FLOATS:
                got = testee.ask("decode", file=str(path), tensor=tensor.name, depth=depth, dtype=dtype)
                want = {"shape": tensor.shape, "values": sha(tensor.segments()[0])}
                if isinstance(tensor, Trit):
                    levels, codes, values = tensor.decoded(depth or 4, dtype)
                    want |= {"levels": sha(levels), "codes": sha(codes), "values": sha(values)}
                assert got == want, (name, tensor.name, depth, dtype)
    return header


def check_invalid(testee, path, clause, data):
    path.write_bytes(data)
    verdict = "valid" if clause is None else "unsupported" if clause in ("PRE-3", "PRE-4") else "invalid"
    got = testee.ask("verify", file=str(path))
    assert got == {"verdict": verdict, "clause": clause}, (got, clause)
    if clause and clause.split("-")[0] not in ("SEG", "PACK", "RAW") and clause != "LAY-3":
        assert testee.ask("header", file=str(path)) == {"error": clause}
    elif clause and clause != "LAY-3":
        tensor = testee.ask("header", file=str(path)) if clause != "RAW-1" else None
        if tensor:
            name = tensor["tensors"][0]["name"]
            assert testee.ask("decode", file=str(path), tensor=name, depth=None, dtype="F32") == {"error": clause}


def check_damage(testee, path):
    """Every truncation and every flipped bit of a file of two tensors, trit and raw."""
    data, count = file([Trit("t", [3, 7], 4, 1), Raw("r", [3])], {"k": "é"}), 0
    path.write_bytes(data)
    assert testee.ask("verify", file=str(path))["verdict"] == "valid"
    changed = [data[:size] for size in range(len(data))]
    changed += [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:] for at in range(len(data)) for bit in range(8)]
    for damaged in changed:
        path.write_bytes(damaged)
        assert testee.ask("verify", file=str(path))["verdict"] in ("invalid", "unsupported")
        count += 1
    return count


def check_mutations(testee, path, count=3000):
    """Headers with random bytes, their digest made right again: any verdict, no crash; headers that still verify decode."""
    choose = random.Random(20261123)
    base = mp({"metadata": {"k": "v"}, "tensors": [], "version": [1, 1]})
    tensors = [Trit("t", [3, 7], 4, 2), Raw("r", [3])]
    whole = file(tensors, {"k": "é"}, minor=1)
    size = struct.unpack_from("<Q", whole, 16)[0]
    for _ in range(count):
        header = bytearray(whole[64:64 + size] if choose.random() < 0.8 else base)
        for _ in range(choose.randint(1, 3)):
            header[choose.randrange(len(header))] = choose.choice([0, 1, 0x80, 0x91, 0xA1, 0xC4, 0xCF, 0xDB, 0xDD, 0xDF, choose.randrange(256)])
        data = whole[:32] + hashlib.sha256(header).digest() + bytes(header) + whole[64 + len(header):]
        path.write_bytes(data[:16] + struct.pack("<Q", len(header)) + data[24:])
        assert testee.ask("verify", file=str(path))["verdict"] in STATUS
        for entry in testee.ask("header", file=str(path)).get("tensors", []):
            testee.ask("decode", file=str(path), tensor=entry["name"], depth=1, dtype="F16")


def check_arrays(testee):
    ask = testee.ask
    assert ask("pack", rows=6, columns=2, trits="01ff0000ff01000000000100") == {"packed": "71817a79"}
    assert ask("unpack", rows=6, columns=2, packed="71817a79") == {"trits": "01ff0000ff01000000000100"}
    for byte in range(256):
        want = {"error": "PACK-2"} if byte > 242 else {"trits": bytes(byte // 3**i % 3 - 1 & 255 for i in range(5)).hex()}
        assert ask("unpack", rows=5, columns=1, packed=f"{byte:02x}") == want
        if byte <= 242:
            assert ask("pack", rows=5, columns=1, trits=want["trits"]) == {"packed": f"{byte:02x}"}
            assert (ask("unpack", rows=2, columns=1, packed=f"{byte:02x}") == {"error": "PACK-3"}) == (byte // 9 != 13)
    for rows, columns in [(0, 5), (5, 0), (0, 0), (2**62, 0)]:
        assert ask("pack", rows=rows, columns=columns, trits="") == {"packed": ""}
        assert ask("unpack", rows=rows, columns=columns, packed="") == {"trits": ""}
    assert ask("unpack", rows=6, columns=2, packed="7181") == {"error": "PACK-1"}
    assert ask("pack", rows=2**63, columns=2, trits="") == ask("pack", rows=2**32, columns=2**32, trits="") == {"error": "PACK-1"}
    assert ask("pack", rows=1, columns=1, trits="02") == ask("join", planes=["02"]) == {"error": "TRIT-1"}
    for depth in range(1, 5):
        H = (3**depth - 1) // 2
        levels = bytes(k & 255 for k in range(-H, H + 1)).hex()
        planes = [bytes((k + H) // 3**p % 3 - 1 & 255 for k in range(-H, H + 1)).hex() for p in range(depth)]
        assert ask("split", depth=depth, levels=levels) == {"planes": planes}
        assert ask("join", planes=planes) == {"levels": levels}
        assert ask("split", depth=depth, levels=bytes([H + 1]).hex()) == {"error": "TRIT-2"}
        assert ask("split", depth=depth, levels=bytes([256 - H - 1]).hex()) == {"error": "TRIT-2"}
    assert ask("split", depth=5, levels="") == ask("join", planes=[]) == ask("join", planes=[""] * 5) == {"error": "TEN-2"}
    assert ask("split", depth=2, levels="") == {"planes": ["", ""]}


def check_requests(testee, path):
    """JSON as it may come, and as it may not."""
    name = "é\U0001f600\"\\/ é"
    path.write_bytes(file([Raw(name, [2])]))
    for ascii_only in (True, False):
        request = {"x": [{"y": [1.5e3, True, "]"]}, None], "cmd": "decode", "file": str(path), "tensor": name, "depth": None, "seq": -7}
        answer = testee.line(json.dumps(request, ensure_ascii=ascii_only).encode())
        assert answer == {"seq": -7, "result": {"shape": [2], "values": sha(bytes([0, 1]))}}, answer
    assert "skipped" in testee.ask("decode", file=str(path), tensor="none", depth=None, dtype="F32")
    assert "skipped" in testee.ask("verify", file=str(path) + "none")
    assert "skipped" in testee.ask("verify", file=str(path) + "\0")
    assert "skipped" in testee.ask("matmul") and "skipped" in testee.ask("pack", rows=-1, columns=1, trits="")
    bad = [b"", b"{}", b"[]", b"{", b'{"seq": 1', b'{"seq": 1} x', b'{"seq": 01}', b'{"seq": 1.0}', b'{"seq": "1"}', b'{"seq": -}', b'{"seq": 1,}',
           b'{"seq": 1, "cmd": "\\ud800"}', b'{"seq": 1, "cmd": "\\ud800 \\udc00"}', b'{"seq": 1, "cmd": "\\udc00"}', b'{"seq": 1, "cmd": "\\x"}',
           b'{"seq": 1, "cmd": "\\u12g4"}', b'{"seq": 1, "cmd": "', b'{"seq": 1, "cmd": "\\', b'{"seq": 1, "a": ' + b"[" * 100000, b'{"seq": 1, "a": tru}',
           b'{"seq": 1, "cmd": "a\tb"}', b'{"seq": 1}\0', b'{"seq": 1, "a": "' + b"x" * (1 << 20) + b'"}']
    for line in bad:
        assert "skipped" in testee.line(line), line
    most = json.dumps({"seq": 1, "cmd": "pack", "rows": 1, "columns": 524200, "trits": "00" * 524200}).encode()
    assert testee.line(most)["result"] == {"packed": "79" * 524200}


def appendix(letter):
    """The bytes of a dump in the appendices of SPEC.md."""
    text = SPEC.read_text().split(f"## Appendix {letter}:")[1].split("\n## ")[0]
    data = b""
    for line in text.splitlines():
        fill = re.match(r" *(\d+)  00 \.\.\. 00 \((\d+) bytes\)", line)
        row = re.match(r" *(\d*)  ((?:[0-9A-F]{2} ?)+)(?:  |$)", line)
        if fill or row:
            assert int((fill or row)[1]) == len(data), line
            data += bytes(int(fill[2])) if fill else bytes.fromhex(row[2])
    return data


def check_appendices(testee, path):
    weights = Trit("weights", [2, 20], 16, 2, codebook=[struct.unpack("<I", struct.pack("<f", (32 + c) / 4096))[0] for c in range(27)])
    weights.codes = [[0, 13], [26, 5]]
    weights.levels = [[n * n % 251 % 9 - 4 for n in range(20 * row, 20 * row + 20)] for row in range(2)]
    tensors = [Raw("bias", [3], "F32", struct.pack("<3f", 0.5, -2, 3)), weights]
    for letter, tensors, metadata in [("A", [], {}), ("B", tensors, {"format": "pt"})]:
        assert appendix(letter) == file(tensors, metadata)
        check_valid(testee, path, "appendix", tensors, appendix(letter))


def check_quotes():
    """Every sentence quoted in trit.c stands in SPEC.md, and every requirement that a file can break is checked."""
    here = pathlib.Path(__file__).parent.parent
    source, spec = ((here / "trit.c").read_text(), SPEC.read_text())
    flat = " ".join(spec.split())
    quotes = [" ".join(re.sub(r"\n\s*\*", " ", quote).split()) for quote in re.findall(r'[/*] "([^"]{12,})"', source)]
    for quote in quotes:
        assert quote in flat, quote
    chapters = spec.split("## 2 Trits")[1].split("## 8 Reading")[0]
    not_of_files = {"PACK-1", "CODE-1", "TEN-6", "TEN-7", "TEN-8", "TEN-9", "TEN-10", "LAY-1", "LAY-2"}
    for clause in set(re.findall(r"^\*\*([A-Z0-9]+-\d+)\.", chapters, re.M)) - not_of_files | {"SEG-1", "VER-1"}:
        assert f'"{clause}"' in source, clause
    return len(quotes)


def check_level_1(command, folder):
    """Exit statuses, and what cannot be read."""
    def run(*arguments):
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, timeout=30, check=False)
        return done.returncode, done.stdout

    path = folder / "one"
    for data, want in [(file(), ("valid", None)), (file(gap=1), ("invalid", "LAY-3")), (file(flags=1), ("unsupported", "PRE-4"))]:
        path.write_bytes(data)
        status, out = run("verify", path)
        assert status == STATUS[want[0]] and json.loads(out) == {"verdict": want[0], "clause": want[1]} and out.count(b"\n") == 1
    os.mkfifo(folder / "fifo")
    for arguments in [("verify", folder), ("verify", folder / "none"), ("verify", folder / "fifo"), ("verify", "/dev/zero"), ("verify", ""),
                      (), ("verify",), ("verify", path, path), ("serve", path), ("other",)]:
        assert run(*arguments) == (2, b""), arguments


def check_shrinking(command, folder):
    """A file that is cut while it is read is an error, not a crash; a sparse file keeps this cheap."""
    path = folder / "sparse"
    size = 1 << 28
    whole = file([Raw("r", [size], "U8", b"")])
    path.write_bytes(whole[:24] + struct.pack("<Q", len(whole) + size) + whole[32:])
    os.truncate(path, len(whole) + size)
    process = subprocess.Popen([*command, "verify", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.3)
    os.truncate(path, 4096)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"") and b"READ-4" in err, (process.returncode, out, err)


def main(command):
    testee, counts = Testee(command), {"valid": 0, "invalid": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = folder / "f.trit"
        for case, tensors, data in cases.valid():
            header = check_valid(testee, path, case, tensors, data)
            if case == "empty":
                assert len(data) == 128 and data[16] == 31
            if case == "names":
                assert header["metadata"]["näme"] == "Zoë\n\t\"\\\u202e \U0001f600" and len(header["metadata"]["long"]) == 524288
            counts["valid"] += 1
        clauses = set()
        for clause, data in cases.invalid():
            check_invalid(testee, path, clause, data)
            counts["invalid" if clause else "valid"] += 1
            clauses.add(clause)
        counts["clauses"] = len(clauses - {None})
        counts["damaged"] = check_damage(testee, path)
        check_mutations(testee, path)
        check_appendices(testee, path)
        counts["quotes"] = check_quotes()
        check_arrays(testee)
        check_requests(testee, path)
        testee.end()
        check_level_1(command, folder)
        if "qemu" not in command[0]:
            check_shrinking(command, folder)
    print(", ".join(f"{count} {what}" for what, count in counts.items()), "- all as they should be")


if __name__ == "__main__":
    main(sys.argv[1:])
