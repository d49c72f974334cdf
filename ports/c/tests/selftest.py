"""selftest.py TRIT: what tools/conform.py does not ask of this port.

Its quotations, its command line, requests that are none, and a file that gets shorter while it is read.
What it finds in files, and what it decodes, is for the fixtures. Needs Python's standard library only.
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
import time

ROOT = pathlib.Path(__file__).parents[3]
SOURCE = "".join((ROOT / "ports" / "c" / name).read_text() for name in ("trit.c", "main.c"))
SECONDS = 60


def check_quotes():
    """Every sentence that is quoted stands in SPEC.md, and every requirement that a file can break is named."""
    spec = (ROOT / "SPEC.md").read_text()
    flat = " ".join(spec.split())
    quotes = [" ".join(re.sub(r"\n\s*\*", " ", quote).split()) for quote in re.findall(r'[/*] "([^"]{12,})"', SOURCE)]
    for quote in quotes:
        assert quote in flat, quote
    chapters = spec.split("## 2 Trits")[1].split("## 8 Reading")[0]
    of_no_file = {"CODE-1", "TEN-6", "TEN-7", "TEN-8", "TEN-9", "TEN-10", "LAY-1", "LAY-2"}
    for clause in set(re.findall(r"^\*\*([A-Z0-9]+-\d+)\.", chapters, re.M)) - of_no_file | {"SEG-1", "VER-1"}:
        assert f'"{clause}"' in SOURCE, clause
    return len(quotes)


def check_command_line(command, folder):
    """What is no verification, and what cannot be read, ends with 2 and says nothing on standard output."""
    (folder / "file").write_bytes(b"")
    wrong = [(), ("verify",), ("verify", "a", "b"), ("serve", "a"), ("other",), ("verify", folder / "none")]
    for arguments in [*wrong, ("verify", folder), ("verify", "/dev/zero"), ("verify", "")]:
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, timeout=SECONDS, check=False)
        assert (done.returncode, done.stdout) == (2, b""), arguments


def ask(command, lines):
    """The answers to requests, given as bytes."""
    done = subprocess.run([*command, "serve"], input=b"\n".join(lines) + b"\n", capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_requests(command):
    """Lines that are no requests are skipped, each with one answer; JSON that means the same is read the same."""
    none = [b"", b"[]", b"7", b"{", b"}", b"{}", b'{"seq": 1', b'{"seq": 1} x', b'{"seq": 1, "cmd": "pa', b'{"seq": 1, "cmd": "\\']
    none += [b'{"seq": null}', b'{"seq": "one"}', b'{"seq": []}', b'{"cmd": "pack"}', b'{"seq": 1, "x": "' + b"\\ud800" * 1000 + b'"}']
    none += [b'{"seq": 1, "x": "' + escape + b'"}' for escape in (b"\\u0000", b"\\udc00", b"\\ud800 \\udc00", b"\\ud800\\u0041", b"\\x", b"\\u12g4")]
    none += [b"[" * 100000, b'{"seq": 1, "a": ' + b"[" * 100000, b'{"seq": 1\0}', b"{" + b",".join(b'"%d": 0' % i for i in range(99)) + b"}"]
    for line, answer in zip(none, ask(command, none), strict=True):
        assert answer["seq"] is None and "skipped" in answer, line
    refused = ['"cmd": "other"', '"cmd": 5', '"cmd": "verify"', '"cmd": "verify", "file": 5', '"cmd": "decode", "file": ""']
    refused += ['"cmd": "pack", "columns": 0, "trits": ""', '"cmd": "pack", "rows": -1, "columns": 0, "trits": ""', '"cmd": "split", "depth": 1']
    refused += ['"cmd": "join", "planes": ["00", "0000"]', '"cmd": "join", "planes": ["0"]', '"cmd": "unpack", "rows": 0, "columns": 0, "packed": "0"']
    for text, answer in zip(refused, ask(command, [b'{"seq": -3, %s}' % text.encode() for text in refused]), strict=True):
        assert answer["seq"] == -3 and "skipped" in answer, text
    same = [b'{"seq":2,"cmd":"join","planes":["01","ff"]}', b' {"planes" : [ "\\u0030\\u0031" , "ff" ] , "cmd" : "join" , "seq" : 2 } \r']
    same += [b'{"x": [%s], "y": {"seq": 9, "z": ["cmd", {}]}, "cmd": "join", "planes": ["01", "ff"], "seq": 2}' % b",".join([b'"a"'] * 1000)]
    assert ask(command, same) == [{"seq": 2, "result": {"levels": "fe"}}] * 3
    far = [b'{"seq": 1, "cmd": "pack", "rows": %d, "columns": %d, "trits": "00"}' % pair for pair in [(2**63 - 1, 2**62), (2**99, 2), (2**62, 4)]]
    assert [answer["result"] for answer in ask(command, far)] == [{"error": "PACK-1"}] * 3
    most = json.dumps({"seq": 1, "cmd": "pack", "rows": 1, "columns": 524200, "trits": "00" * 524200}).encode()
    assert ask(command, [most]) == [{"seq": 1, "result": {"packed": "79" * 524200}}]
    return len(none) + len(refused)


def check_noise(command, count=3000):
    """Requests with random bytes in them get an answer each."""
    choose = random.Random(20261125)
    good = [b'{"seq": 1, "cmd": "unpack", "rows": 6, "columns": 2, "packed": "71817a79"}', b'{"seq": 1, "cmd": "join", "planes": ["01", "ff"]}']
    good += [b'{"seq": 1, "cmd": "split", "depth": 2, "levels": "fc04"}', b'{"seq": 1, "cmd": "header", "file": "\\ud83d\\ude00/\\u00e9\\n", "x": [{}]}']
    lines = []
    for _ in range(count):
        line = bytearray(choose.choice(good))
        for _ in range(choose.randint(1, 4)):
            at, noise = choose.randrange(len(line)), choose.choice([b'"', b"\\", b"\\u", b"{", b"}", b"[", b"]", b":", b",", b"", b"\xff", b"9" * 30])
            line[at:at + choose.randrange(3)] = noise
        lines.append(bytes(line))
    assert len(ask(command, lines)) == count
    return count


def check_shrinking(command, path):
    """A file that is cut while it is read could not be read; it is sparse, which keeps it cheap."""
    size = 1 << 28
    header = b"\x83\xa8metadata\x80\xa7tensors\x91\x85\xa5dtype\xa2U8\xa4kind\xa3raw\xa4name\xa1r\xa6sha256\xc4\x20" + bytes(32)
    header += b"\xa5shape\x91\xce" + struct.pack(">I", size) + b"\xa7version\x92\x01\x00"
    whole = -(-(64 + len(header)) // 64) * 64 + size
    preamble = struct.pack("<8sHHIQQ32s", b"\x89TRIT\r\n\x1a", 1, 0, 0, len(header), whole, hashlib.sha256(header).digest())
    path.write_bytes(preamble + header)
    os.truncate(path, whole)
    process = subprocess.Popen([*command, "verify", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.3)
    os.truncate(path, 4096)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (2, b"") and b"READ-4" in err, (process.returncode, out, err)


def main(command):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_command_line(command, folder)
        check_shrinking(command, folder / "sparse")
    print(f"{check_quotes()} quotations, {check_requests(command)} wrong requests, {check_noise(command)} noisy ones: all as they should be")


if __name__ == "__main__":
    main(sys.argv[1:])
