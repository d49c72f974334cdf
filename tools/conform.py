"""Does an implementation agree with SPEC.md? Runs any testee over the fixtures.

A testee is a command that speaks docs/protocol.md. Level 1 runs `CMD verify FILE` for every file; level 2
keeps one `CMD serve` and has it verify and decode every file, read damaged ones, and compute every vector.
Without --level, both are run, and a case passes that passes at both. Standard error is ignored.

examples:
  python tools/conform.py --testee "python tools/testee.py"
  python tools/conform.py --testee ports/c/build/trit --level 1 --only 'PRE-*' --only 'made/fifo'
  python tools/conform.py --testee "node ports/js/main.js" --memory 0 --known js.txt --report js.json

--known names a file of failures that are expected, an id a line, # before a comment. One that passes is a
failure, too. --only can be given several times; its pattern, with * and ?, is for the ids of cases or for
the requirements that they break.

--memory bounds the address space of each process (ulimit -v, where there is a /bin/sh; not RLIMIT_AS set
between fork and exec, since that is not safe beside threads). Address space is more than memory in use: Node
reserves gigabytes at its start and AddressSanitizer terabytes, so that these need --memory 0, no bound.

The exit status is 0 if all is as expected, 1 if not, and 2 for wrong usage or a broken manifest.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import functools
import hashlib
import io
import json
import math
import os
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).parents[1] / "fixtures" / "manifest.json"
FORMAT = "1.0"
KINDS = ("valid", "invalid", "unsupported", "vectors", "products")  # as in the manifest's counts
STATUSES = {0: "valid", 1: "invalid", 3: "unsupported"}  # of level 1
NO_VERDICT = 2
MAX_ANSWER = 64 << 20  # bytes; no right answer is nearly as long
WATCH = 0.05  # seconds between looks at the clock
GIVE_UP = 25  # crashes after which the rest of a level is not run
SHOWN = 40  # failures that are printed; the report has all
DTYPES = ("F32", "F16", "BF16")
OPTIONAL = frozenset(
    {"to_layout", "from_layout", "matmul", "group_dots", "encode"}
)  # commands that a testee may skip, all of it or nothing
MAX_DEPTH = 4
IN_DATA = frozenset({"SEG-1", "PACK-2", "PACK-3", "RAW-2", "LAY-3"})  # the header of such a file can be read
IN_SEGMENTS = IN_DATA - {"LAY-3"}  # `decode` reads segments alone

Verdict = tuple[str, str | None]  # of valid, invalid, unsupported, or:
UNREADABLE: Verdict = ("no verdict", None)


class Mismatch(Exception):  # noqa: N818  # a finding
    """The testee gave something else than what is right."""

    def __init__(self, expected: object, got: object) -> None:
        """What was expected and what came, as they are to be shown."""
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got = str(expected), str(got)


class Crash(Exception):  # noqa: N818  # a finding
    """The testee died, or gave no answer in time."""


class Skipped(Exception):  # noqa: N818  # an answer
    """The testee says that it does not do this."""


class BrokenManifest(Exception):  # noqa: N818  # it says what is broken
    """The fixtures are not as the manifest says."""


# The testee


@dataclass(frozen=True)
class Limits:
    """What a testee may take: seconds an answer, bytes of address space (0: any)."""

    timeout: float = 5.0
    memory: int = 512 << 20


class Child:
    """A process of the testee that is killed, with all that it started, when its time is over."""

    def __init__(self, command: Sequence[str], limits: Limits, talk: bool = False) -> None:
        """Start *command*; with *talk*, it gets a standard input to be written to."""
        if limits.memory and os.path.exists("/bin/sh"):
            script = 'ulimit -v "$1" && shift && exec "$@"'
            command = ["/bin/sh", "-c", script, "sh", str(limits.memory >> 10), *command]
        self.limits = limits
        self.late = False
        self.deadline = math.inf
        self.ended = threading.Event()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name == "posix",
        )
        # One thread for all answers: one for each would take as long as most answers do.
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def in_time(self) -> Iterator[None]:
        """Kill the process where what stands inside takes too long: every read then ends."""
        self.deadline = time.monotonic() + self.limits.timeout
        try:
            yield
        finally:
            self.deadline = math.inf

    def read(self) -> bytes:
        """All that it writes; it is killed where that is more than any answer."""
        assert self.process.stdout
        data = self.process.stdout.read(MAX_ANSWER)
        if len(data) == MAX_ANSWER:
            self.kill()
        return data

    def exchange(self, line: bytes) -> bytes:
        """The line that answers *line*; empty where there is none."""
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()
        return self.process.stdout.readline(MAX_ANSWER)

    def finish(self) -> int:
        """Its exit status, once its input has ended."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        with self.in_time():
            self.process.wait()
        return self.process.returncode

    def crash(self) -> Crash:
        """How the process, which gave no answer, ended."""
        if self.late:
            return Crash(f"no answer in {self.limits.timeout:g} s")
        with self.in_time():
            status = self.process.wait()
        if self.late:
            return Crash("closed its output without an answer")
        if status < 0:
            with contextlib.suppress(ValueError):
                return Crash(f"ended by {signal.Signals(-status).name}")
        return Crash(f"ended with exit status {status}")

    def kill(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def close(self) -> None:
        """End it, and let go of its pipes."""
        self.ended.set()
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _watch(self) -> None:
        while not self.ended.wait(WATCH):
            if time.monotonic() > self.deadline:
                self.late = True
                self.kill()
                return


class Testee:
    """What checks talk to; level 1 can only be asked for verdicts."""

    level = 1

    def verify(self, path: Path) -> Verdict:
        """The verdict on a file."""
        raise NotImplementedError

    def ask(self, request: dict[str, Any]) -> Any:
        """The result of a request; Skipped where there is none."""
        raise NotImplementedError

    def exchange(self, line: bytes) -> Any:
        """The answer to a line, whatever it is."""
        raise NotImplementedError

    def close(self) -> None:
        """End it."""


class Command(Testee):
    """Level 1: a process a file."""

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        """Nothing is started yet."""
        self.command, self.limits = command, limits

    def verify(self, path: Path) -> Verdict:
        """The verdict of `CMD verify FILE`, where exit status and line agree."""
        child = Child([*self.command, "verify", str(path)], self.limits)
        try:
            with child.in_time():
                output = child.read()
            if child.late:
                raise child.crash()
            status = child.finish()
            if child.late or status not in {*STATUSES, NO_VERDICT}:
                raise child.crash()
        finally:
            child.close()
        if status == NO_VERDICT:
            return UNREADABLE
        got = verdict_in(parsed(output))
        if got[0] != STATUSES[status]:
            raise Mismatch(f"the verdict of exit status {status}", show(got))
        return got


class Server(Testee):
    """Level 2: one process, started anew after a crash or an answer that cannot be understood."""

    level = 2

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        """Nothing is started yet."""
        self.command, self.limits = command, limits
        self.child: Child | None = None
        self.seq = 0

    def verify(self, path: Path) -> Verdict:
        """The verdict; a request that is skipped gave none."""
        try:
            return verdict_in(self.ask({"cmd": "verify", "file": str(path)}))
        except Skipped:
            return UNREADABLE

    def ask(self, request: dict[str, Any]) -> Any:
        """The result of a request."""
        self.seq += 1
        answer = self.exchange(json.dumps({"seq": self.seq, **request}).encode())
        if not isinstance(answer, dict) or answer.get("seq") != self.seq:
            self.close()  # whatever comes next may belong to this request
            raise Mismatch(f"an answer with seq {self.seq}", show(answer))
        if "skipped" in answer:
            raise Skipped(str(answer["skipped"]))
        if "result" not in answer:
            raise Mismatch("result or skipped", show(answer))
        return answer["result"]

    def exchange(self, line: bytes) -> Any:
        """The answer to a line."""
        if self.child is None:
            self.child = Child([*self.command, "serve"], self.limits, talk=True)
        child = self.child
        with child.in_time():
            output = child.exchange(line)
        try:
            if child.late or not output:
                raise child.crash()
            return parsed(output)
        except (Crash, Mismatch):
            self.close()
            raise

    def finish(self) -> None:
        """Check that it ends with 0 when its input does."""
        if self.child is None:  # the last case ended it
            self.child = Child([*self.command, "serve"], self.limits, talk=True)
        status = self.child.finish()
        late = self.child.late
        self.close()
        if late or status != 0:
            raise Mismatch("exit status 0 at the end of its input", "none in time" if late else status)

    def close(self) -> None:
        """End the process."""
        if self.child:
            self.child.close()
            self.child = None


def parsed(output: bytes) -> Any:
    """The JSON of one line."""
    try:
        if output.strip(b"\r\n").count(b"\n") == 0:
            return json.loads(output)
    except (ValueError, RecursionError):
        pass
    raise Mismatch("a line of JSON", repr(output[:80])[1:])


def verdict_in(result: Any) -> Verdict:
    """The verdict that a result holds."""
    if isinstance(result, dict) and set(result) == {"verdict", "clause"}:
        verdict, clause = result["verdict"], result["clause"]
        if verdict in STATUSES.values() and (clause is None or isinstance(clause, str)):
            return verdict, clause
    raise Mismatch("a verdict and a clause", show(result))


def show(value: object) -> str:
    """A value, in a few words."""
    if isinstance(value, tuple):
        return " ".join(str(part) for part in value if part is not None)
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def compare(expected: Any, got: Any, where: str = "") -> None:
    """Raise Mismatch with the first place where JSON values differ; True is not 1."""
    if isinstance(expected, dict) and isinstance(got, dict) and expected.keys() == got.keys():
        for key, value in expected.items():
            compare(value, got[key], f"{where} {key}".strip())
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for i, (one, other) in enumerate(zip(expected, got, strict=True)):
            compare(one, other, f"{where} {i}".strip())
    elif type(expected) is not type(got) or expected != got:
        place = f"{where}: " if where else ""
        raise Mismatch(place + show(expected), place + show(got))


# Checks: one a case. A check is given a testee, and raises what it finds.


@dataclass(frozen=True)
class Check:
    """A case: its id, what it counts as ("folders", "made": no file of the manifest), and what is done."""

    id: str
    kind: str
    why: str
    levels: dict[int, Callable[[Testee], None]]
    clause: str | None = None
    optional: str | None = None  # the command of OPTIONAL that it needs

    @property
    def chapter(self) -> str:
        """What the summary counts it under."""
        chapter = self.id.split("/")[0]
        return f"{chapter} (vectors)" if self.kind == "vectors" else chapter


def file_check(case: dict[str, Any], path: Path) -> Check:
    """The check of a file of the manifest."""
    expected = {(case["verdict"], case["clause"])}

    def verdict(testee: Testee) -> None:
        check_verdict(testee, path, expected)

    def all_of_it(testee: Testee) -> None:
        verdict(testee)
        if case["verdict"] == "valid":
            check_decoded(testee, path, case["decoded"])
        else:
            check_refused(testee, path, case["clause"])

    return Check(case["id"], case["verdict"], case["why"], {1: verdict, 2: all_of_it}, case["clause"])


def folder_checks(manifest: Path, only: Sequence[str]) -> Iterator[Check]:
    """The checks of the model folders of a manifest, on both levels; raises BrokenManifest."""
    for case in json.loads(manifest.read_bytes())["folders"]["cases"]:
        path, name = manifest.parent / case["folder"], f"folders/{case['id']}"
        for file, digest in case["files"].items():
            if hashlib.sha256((path / file).read_bytes()).hexdigest() != digest:
                raise BrokenManifest(f"{path / file} is not the file of the manifest")
        verdict = functools.partial(check_verdict, path=path, expected={(case["verdict"], case["clause"])})
        if not only or any(fnmatch.fnmatchcase(name, pattern) for pattern in only):
            yield Check(name, "folders", case["why"], {1: verdict, 2: verdict}, case["clause"])


def check_verdict(testee: Testee, path: Path, expected: set[Verdict]) -> None:
    """The verdict is one of those *expected*."""
    got = testee.verify(path)
    if got not in expected:
        raise Mismatch(" or ".join(sorted(map(show, expected))), show(got))


def check_decoded(testee: Testee, path: Path, decoded: dict[str, Any]) -> None:
    """The header and every tensor, at every depth and in every dtype, are as they should be."""
    beyond = {"codes", "depths", "values"}
    expected = {
        **decoded,
        "tensors": [{k: v for k, v in tensor.items() if k not in beyond} for tensor in decoded["tensors"]],
    }
    compare(expected, testee.ask({"cmd": "header", "file": str(path)}), "header:")
    for tensor in decoded["tensors"]:
        if tensor["kind"] == "raw":
            result = {"shape": tensor["shape"], "values": tensor["values"]}
            for depth in (None, 1):
                compare(result, decode(testee, path, tensor, depth, "F32"), decode_name(tensor, depth, "F32"))
            continue
        for depth in map(int, tensor["depths"]):
            for dtype in DTYPES:
                check_values(testee, path, tensor, depth, dtype)
        for whole in (MAX_DEPTH, None):  # neither is below the tensor's own depth
            check_values(testee, path, tensor, whole, tensor["dtype"])


def check_values(testee: Testee, path: Path, tensor: dict[str, Any], depth: int | None, dtype: str) -> None:
    """A trit tensor decodes as it should; where a value overflows the dtype, CB-5 is right, too (TEN-10)."""
    known = tensor["depths"][str(min(depth or MAX_DEPTH, tensor["depth"]))]
    result = {key: tensor[key] for key in ("shape", "codes")} | {"levels": known["levels"]}
    got = decode(testee, path, tensor, depth, dtype)
    where = decode_name(tensor, depth, dtype)
    if known[dtype] is None and got == {"error": "CB-5"}:
        return
    if known[dtype] is None and isinstance(got, dict):
        got = {key: value for key, value in got.items() if key != "values"}
    else:
        result["values"] = known[dtype]
    compare(result, got, where)


def decode(testee: Testee, path: Path, tensor: dict[str, Any], depth: int | None, dtype: str) -> Any:
    """The result of a decode request."""
    request = {"file": str(path), "tensor": tensor["name"], "depth": depth, "dtype": dtype}
    return testee.ask({"cmd": "decode", **request})


def decode_name(tensor: dict[str, Any], depth: int | None, dtype: str) -> str:
    """A decode request, in words."""
    return f"decode {tensor['name']!a} depth {json.dumps(depth)} {dtype}:"


def check_refused(testee: Testee, path: Path, clause: str) -> None:
    """A damaged file gives the error when its header is read, or a tensor whose segment is damaged."""
    header = testee.ask({"cmd": "header", "file": str(path)})
    if clause not in IN_DATA:
        compare({"error": clause}, header, "header:")
    elif not isinstance(header, dict) or not isinstance(header.get("tensors"), list):
        raise Mismatch("header: that of a file whose header is whole", show(header))
    elif clause in IN_SEGMENTS:
        dtypes = {"kind": "trit", "dtype": "F32"}
        results = [decode(testee, path, dtypes | tensor, None, "BF16") for tensor in header["tensors"]]
        if {"error": clause} not in results:
            raise Mismatch(f"decode of a damaged tensor: error {clause}", "data of every tensor, or others")


def vector_check(vector: dict[str, Any]) -> Check:
    """The check of a vector."""

    def compute(testee: Testee) -> None:
        compare(
            vector["result"], testee.ask({"cmd": vector["cmd"], **vector["request"]}), vector["cmd"] + ":"
        )

    optional = vector["cmd"] if vector["cmd"] in OPTIONAL else None
    return Check(vector["id"], "vectors", vector["why"], {2: compute}, optional=optional)


PRODUCTS = {"matmul": "y", "group_dots": "dots"}  # command: what it gives


def product_check(case: dict[str, Any], folder: Path, cmd: str) -> Check:
    """The check of a golden product by one of its commands."""
    for name, digest in case["sha256"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise BrokenManifest(f"{folder / name} is not the file of the manifest")
    arrays = {key: array_of(folder / case[key]) for key in ("x", "scale", PRODUCTS[cmd]) if key in case}
    request = {"cmd": cmd, "file": str(folder / case["weights"]), "tensor": "w", "dtype": case["dtype"]}
    result = {PRODUCTS[cmd]: arrays.pop(PRODUCTS[cmd])}
    if cmd == "group_dots":
        arrays.pop("scale", None)
    check = functools.partial(check_result, request={**request, **arrays}, result=result)
    suffix = "" if cmd == "matmul" else "-dots"
    kind = "products" if cmd == "matmul" else "made"
    return Check(case["id"] + suffix, kind, case["why"], {2: check}, optional=cmd)


def array_of(path: Path) -> str:
    """The elements in a .npy file of version 1.0, in hexadecimal."""
    data = path.read_bytes()
    return data[10 + int.from_bytes(data[8:10], "little") :].hex()


# Cases that are made at run time: too big to store, or no files at all

MAGIC = bytes.fromhex("89 54 52 49 54 0D 0A 1A")
PREAMBLE = "<8s2HIQQ32s"  # magic, major, minor, flags, header size, file size, digest (SPEC 6.1)
MEBIBYTE = 1 << 20
TERABYTE = 1 << 40
NESTING = 100_000


def made_file(header: bytes, minor: int = 0, size: int | None = None) -> bytes:
    """A file of zeros after its *header*, which says that it has *size* bytes."""
    end = -(-(64 + len(header)) // 64) * 64
    digest = hashlib.sha256(header).digest()
    preamble = struct.pack(PREAMBLE, MAGIC, 1, minor, 0, len(header), size or end, digest)
    return (preamble + header).ljust(end, b"\0")


def made_header(
    entries: bytes = b"\x90", minor: int = 0, extra: bytes = b"", value: bytes | None = None
) -> bytes:
    """A header with the bytes of its *entries*, *extra* for an unknown key, and a *value* in the metadata."""
    metadata = b"\x80" if value is None else b"\x81\xa1a\xdb" + len(value).to_bytes(4, "big") + value
    pairs = b"\xa8metadata" + metadata + b"\xa7tensors" + entries + b"\xa7version\x92\x01" + bytes([minor])
    return (b"\x84" if extra else b"\x83") + pairs + (b"\xa1x" + extra if extra else b"")


def write_nested(path: Path) -> None:
    """A file of version 1.1 with arrays nested 100,000 deep."""
    path.write_bytes(made_file(made_header(minor=1, extra=b"\x91" * (NESTING - 1) + b"\x90"), minor=1))


def write_sparse(path: Path, left: int = 0) -> None:
    """A sparse file of a terabyte, in which one tensor takes all after the header but *left*."""
    entry = b"\x91\x85\xa5dtype\xa2U8\xa4kind\xa3raw\xa4name\xa1a\xa6sha256\xc4\x20" + bytes(32)
    entry += b"\xa5shape\x91\xcf"
    elements = TERABYTE - left - len(made_file(made_header(entry + bytes(8))))
    path.write_bytes(made_file(made_header(entry + elements.to_bytes(8, "big")), size=TERABYTE))
    os.truncate(path, TERABYTE)


def made_checks(folder: Path, base: Path | None) -> Iterator[Check]:
    """All cases that the runner makes; *base* is a small valid file."""
    nested, short = folder / "nested.trit", folder / "short.trit"
    write_nested(nested)
    yield verdict_check("made/nested-100000", nested, "MP-6", "arrays nested 100,000 deep: no stack overflow")
    for size, clause in {MEBIBYTE: None, MEBIBYTE + 1: "HDR-6"}.items():
        path = folder / f"value-{size}.trit"
        path.write_bytes(made_file(made_header(value=b"x" * size)))
        yield verdict_check(
            f"made/value-of-{size}-bytes", path, clause, f"a metadata value of {size:,} bytes"
        )
    with contextlib.suppress(OSError):  # a file system that has no sparse files of this size
        write_sparse(short, left=64)
        yield verdict_check("made/sparse-short", short, "LAY-4", "a terabyte, 64 bytes more than the layout")
        yield sparse_header(folder / "sparse.trit")
    yield from unreadable_checks(folder)
    if base:
        yield from damage_checks(base, folder / "damaged.trit")
        yield from protocol_checks(base, folder)


def verdict_check(name: str, path: Path, clause: str | None, why: str) -> Check:
    """A made file that breaks *clause*, or is valid."""

    def verdict(testee: Testee) -> None:
        check_verdict(testee, path, {("invalid" if clause else "valid", clause)})

    return Check(name, "made", why, {1: verdict, 2: verdict})


def sparse_header(path: Path) -> Check:
    """The header of a terabyte, whose sizes are all right, is read in no time and without its data."""
    write_sparse(path)

    def ask(testee: Testee) -> None:
        got = testee.ask({"cmd": "header", "file": str(path)})
        if not isinstance(got, dict) or "tensors" not in got:
            raise Mismatch("the header of a terabyte", show(got))
        compare([TERABYTE - got["tensors"][0]["offsets"][0]], got["tensors"][0]["shape"], "shape")

    return Check("made/sparse-header", "made", "the header of a terabyte is read without its data", {2: ask})


def unreadable_checks(folder: Path) -> Iterator[Check]:
    """Paths that are no regular files, and a file that is shorter than it says."""
    places = {"missing": folder / "no such file", "directory": folder}
    if hasattr(os, "mkfifo"):
        places["fifo"] = folder / "fifo"
        os.mkfifo(places["fifo"])
    if os.path.exists("/dev/zero"):
        places["device"] = Path("/dev/zero")
    for name, path in places.items():
        check = functools.partial(check_verdict, path=path, expected={UNREADABLE})
        yield Check(f"made/{name}", "made", "exit status 2, and no waiting", {1: check, 2: check})
    # Files of sysfs say 4,096 bytes, and end after a few: as if cut off between the look and the read.
    shrinking = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    with contextlib.suppress(OSError):
        if shrinking.stat().st_size > len(shrinking.read_bytes()):
            answers = {UNREADABLE, ("invalid", "PRE-1"), ("invalid", "PRE-2")}
            check = functools.partial(check_verdict, path=shrinking, expected=answers)
            yield Check(
                "made/shorter-than-it-says", "made", "READ-4: an error, no loop", {1: check, 2: check}
            )


def damage_checks(base: Path, path: Path) -> Iterator[Check]:
    """Every truncation and every single-bit flip of a file; a few of them at level 1."""
    data = base.read_bytes()

    def truncations(testee: Testee) -> None:
        path.write_bytes(data)
        for size in range(len(data) - 1, -1, -1 if testee.level == 2 else -61):
            os.truncate(path, size)
            check_each(testee, path, {("invalid", "PRE-6" if size >= 64 else "PRE-1")}, f"{size} bytes")

    def flips(testee: Testee) -> None:
        path.write_bytes(data)
        with path.open("r+b", buffering=0) as file:
            for bit in range(0, 8 * len(data), 1 if testee.level == 2 else 509):
                overwrite(file, bit // 8, flipped(data, bit)[bit // 8])
                check_each(testee, path, flip_verdicts(data, bit), f"bit {bit % 8} of byte {bit // 8}")
                overwrite(file, bit // 8, data[bit // 8])

    why = f"{base.name}, cut off after every byte"
    yield Check("made/every-truncation", "made", why, {1: truncations, 2: truncations})
    yield Check("made/every-bit", "made", f"{base.name}, every bit changed alone", {1: flips, 2: flips})


def flipped(data: bytes, bit: int) -> bytes:
    """*data* with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def overwrite(file: io.FileIO, at: int, byte: int) -> None:
    """Put *byte* in its place in a file, which costs less than to write the file anew."""
    file.seek(at)
    file.write(bytes([byte]))


def flip_verdicts(data: bytes, bit: int) -> set[Verdict]:
    """What may be said of a file with one bit changed (SPEC 6.1, 8.3)."""
    at, size = bit // 8, struct.unpack(PREAMBLE, data[:64])[4]
    fields = [(8, "PRE-2"), (10, "PRE-3"), (12, "HDR-2"), (16, "PRE-4"), (24, ""), (32, "PRE-6")]
    clause = next((clause for end, clause in fields if at < end), "PRE-8" if at < 64 + size else None)
    if clause == "":
        claimed = struct.unpack(PREAMBLE, flipped(data, bit)[:64])[4]
        clause = "PRE-8" if 64 + claimed <= len(data) else "PRE-7"
        clause = clause if 1 <= claimed <= 64 << 20 else "PRE-5"
    if clause is None:
        return {("invalid", one) for one in IN_DATA}
    return {("unsupported" if clause in ("PRE-3", "PRE-4") else "invalid", clause)}


def check_each(testee: Testee, path: Path, expected: set[Verdict], name: str) -> None:
    """As check_verdict, but what is wrong says of which file."""
    try:
        check_verdict(testee, path, expected)
    except Mismatch as error:
        raise Mismatch(f"{name}: {error.expected}", error.got) from None
    except Crash as error:
        raise Crash(f"{name}: {error}") from None


def protocol_checks(base: Path, folder: Path) -> Iterator[Check]:
    """What docs/protocol.md says of requests, whatever they ask for."""
    far = folder / "wéights-\U0001f600.trit"
    far.write_bytes(base.read_bytes())
    unpack = {"cmd": "unpack", "rows": 6, "columns": 2, "packed": "71817a79"}
    trits = {"trits": "01ff0000ff01000000000100"}
    shuffled = {"x": [{"seq": 0, "y": None}, -1.5e3], **dict(reversed(unpack.items())), "z": '\\"\u2028'}
    escaped = b'{"\\u0073eq": 7, "cmd": "u\\u006Epack", "rows":6,"columns":2,"packed":"7181\\u0037a79" }'
    columns = 60_000
    large = {"cmd": "unpack", "rows": 5, "columns": columns, "packed": "79" * columns}
    name = "no such \U0001f600"  # travels as a pair of surrogates
    exact: dict[str, tuple[dict[str, Any], Any]] = {
        "keys-in-any-order": (shuffled, trits),
        "large-request": (large, {"trits": "00" * columns * 5}),
        "name-beyond-ascii": ({"cmd": "verify", "file": str(far)}, {"verdict": "valid", "clause": None}),
    }
    for case, (request, result) in exact.items():
        check = functools.partial(check_result, request=request, result=result)
        yield Check(f"protocol/{case}", "made", "docs/protocol.md, level 2", {2: check})
    skipped: dict[str, dict[str, Any]] = {
        "unknown-command": {"cmd": "no-such-command"},
        "no-command": {},
        "no-such-tensor": {"cmd": "decode", "file": str(base), "tensor": name, "depth": None, "dtype": "F32"},
        "no-such-file": {"cmd": "header", "file": str(folder / "none")},
        "half-a-byte": {"cmd": "unpack", "rows": 1, "columns": 1, "packed": "7"},
        "no-hexadecimal": {"cmd": "unpack", "rows": 1, "columns": 1, "packed": "zz"},
    }
    for case, request in skipped.items():
        check = functools.partial(check_skipped, request=request)
        yield Check(f"protocol/{case}", "made", "docs/protocol.md: answered with skipped", {2: check})
    lines = {"no-json": b'{"cmd": "verify"', "no-object": b"[7]", "deep": b"[" * NESTING, "empty-line": b""}
    for case, line in lines.items():
        check = functools.partial(check_line, line=line)
        yield Check(f"protocol/{case}", "made", "docs/protocol.md: skipped, seq null", {2: check})
    answer = {"seq": 7, "result": trits}
    check = functools.partial(check_line, line=escaped, answer=answer)
    yield Check("protocol/escapes", "made", "strings may hold any JSON escape", {2: check})
    yield Check("protocol/depth-of-the-caller", "made", "SPEC 5.4: depth 0 and 5", {2: depth_check(base)})


def check_result(testee: Testee, request: dict[str, Any], result: Any) -> None:
    """A request has just this result."""
    compare(result, testee.ask(request))


def check_skipped(testee: Testee, request: dict[str, Any]) -> None:
    """A request is skipped."""
    try:
        got = testee.ask(request)
    except Skipped:
        return
    raise Mismatch("skipped", show(got))


def check_line(testee: Testee, line: bytes, answer: dict[str, Any] | None = None) -> None:
    """A line has just this answer; by default, that no request could be read in it."""
    got = testee.exchange(line)
    if answer is None and isinstance(got, dict) and isinstance(got.pop("skipped", None), str):
        answer = {"seq": None}
    compare(answer or {"seq": None, "skipped": "why"}, got)


def depth_check(base: Path) -> Callable[[Testee], None]:
    """A depth that is not 1 to 4 is an error of the caller: TEN-2."""

    def ask(testee: Testee) -> None:
        tensors = testee.ask({"cmd": "header", "file": str(base)})["tensors"]
        name = next(tensor["name"] for tensor in tensors if tensor["kind"] == "trit")
        for depth in (0, 5, -1):
            got = decode(testee, base, {"name": name}, depth, "F32")
            compare({"error": "TEN-2"}, got, f"decode depth {depth}:")

    return ask


# The manifest


@dataclass
class Suite:
    """The cases to run, and what the manifest says of their number."""

    checks: list[Check]
    declared: dict[str, int]
    format: str
    whole: bool = True  # nothing left out by --only


def load_suite(manifest: Path, folder: Path, only: Sequence[str] = ()) -> Suite:
    """The checks of a manifest, and those made in *folder*, that *only* asks for; or BrokenManifest."""
    chosen = functools.partial(is_chosen, only=only)
    try:
        content = json.loads(manifest.read_bytes())
        cases, vectors, products = content["cases"], content["vectors"], content["products"]
        base: Path | None = small_file(cases, manifest.parent)
        checks = [
            file_check(case, path_of(case, manifest.parent))
            for case in cases
            if chosen(case["id"], case["clause"])
        ]
        checks += [
            vector_check(vector) for vector in vectors if chosen(vector["id"], vector["result"].get("error"))
        ]
        checks += [
            product_check(one, manifest.parent, cmd)
            for one in products
            for cmd, result in PRODUCTS.items()
            if result in one and chosen(one["id"])
        ]
        kinds = [*["vectors"] * len(vectors), *["products"] * len(products)]
        counts = Counter([*(case["verdict"] for case in cases), *kinds])
        declared = {kind: content["counts"][kind] for kind in KINDS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenManifest(f"{manifest}: {type(error).__name__}: {error}") from None
    if content["format"] != FORMAT:
        raise BrokenManifest(f"{manifest} is of format {content['format']}; this runner knows {FORMAT}")
    if declared != {kind: counts[kind] for kind in KINDS}:
        raise BrokenManifest(f"{manifest} says {declared}, and holds {dict(counts)}")
    made = list(made_checks(folder, base))
    ids = [*(case["id"] for case in (*cases, *vectors)), *(check.id for check in made)]
    ids += [one["id"] + end for one in products for end in (["", "-dots"] if "dots" in one else [""])]
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise BrokenManifest(f"{manifest}: the id {twice[0]!r} stands there twice")
    checks += [check for check in made if chosen(check.id)]
    return Suite(checks, declared, content["format"], len(checks) == len(ids))


def is_chosen(name: str, clause: str | None = None, *, only: Sequence[str]) -> bool:
    """True for a case whose id, or the requirement that it breaks, is like one of *only*, if it has any."""
    names = [name, clause or name]
    return not only or any(fnmatch.fnmatchcase(one, pattern) for one in names for pattern in only)


def small_file(cases: list[dict[str, Any]], root: Path) -> Path | None:
    """The smallest valid file that holds a trit tensor."""
    trit: list[Path] = [
        root / case["file"]
        for case in cases
        if case["verdict"] == "valid" and any(one["kind"] == "trit" for one in case["decoded"]["tensors"])
    ]
    return min(trit, key=lambda path: path.stat().st_size, default=None)


def path_of(case: dict[str, Any], root: Path) -> Path:
    """The file of a case, proved to be the one that is meant."""
    path = (root / str(case["file"])).resolve()
    if hashlib.sha256(path.read_bytes()).hexdigest() != case["sha256"]:
        raise ValueError(f"{case['file']} is not the file of the manifest; was it changed in transfer?")
    return path


# Running


@dataclass
class Outcome:
    """What came of a case."""

    check: Check
    outcome: str = "passed"  # or skipped, failed, crashed, known, unexpected pass
    level: int = 0
    expected: str = ""
    got: str = ""

    @property
    def ok(self) -> bool:
        """True where that was expected."""
        return self.outcome in ("passed", "skipped", "known")


@dataclass
class Run:
    """All outcomes, by id."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    crashes: Counter[int] = field(default_factory=Counter)  # by level

    def one(self, check: Check, level: int, testee: Testee) -> None:
        """Run a check at a level; a failure of a lower level is not run again."""
        outcome = self.outcomes.setdefault(check.id, Outcome(check))
        if outcome.outcome != "passed":
            return
        expected, got, kind = "an answer", "", "crashed"
        try:
            if self.crashes[level] >= GIVE_UP:
                raise Crash(f"not run, after {GIVE_UP} crashes")
            check.levels[level](testee)
            return
        except Mismatch as error:
            expected, got, kind = error.expected, error.got, "failed"
        except Skipped as why:
            got, kind = f"skipped: {show(str(why))}", "skipped" if check.optional else "failed"
        except Crash as error:
            self.crashes[level] += 1
            got = str(error)
        outcome.outcome, outcome.level, outcome.expected, outcome.got = kind, level, expected, got

    def all(self, checks: Sequence[Check], level: int, testee: Testee) -> None:
        """Run checks one after the other."""
        for check in checks:
            self.one(check, level, testee)

    def settle(self) -> None:
        """What is optional is skipped as a whole: where a part of a command is done, skipping is failing."""
        skipped = [one for one in self.outcomes.values() if one.outcome == "skipped"]
        done = {one.check.optional for one in self.outcomes.values() if one.outcome != "skipped"}
        for one in skipped:
            if one.check.optional in done:
                one.outcome = "failed"

    def expect(self, known: set[str]) -> None:
        """Tell the failures that are *known* from others, and find those that are none."""
        for name, outcome in self.outcomes.items():
            if name in known:
                outcome.outcome = "unexpected pass" if outcome.outcome == "passed" else "known"


def run(suite: Suite, command: Sequence[str], levels: Iterable[int], limits: Limits, jobs: int) -> Run:
    """Run a testee over a suite."""
    result = Run()
    if 1 in levels:
        testee = Command(command, limits)
        checks = [check for check in suite.checks if 1 in check.levels]
        # Those of made/ share a file, and take longest: one after the other, beside the rest.
        made = [check for check in checks if check.kind == "made"]
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(result.all, made, 1, testee)]
            futures += [pool.submit(result.one, c, 1, testee) for c in checks if c.kind != "made"]
            for future in futures:
                future.result()
    if 2 in levels:
        server = Server(command, limits)
        try:
            result.all([check for check in suite.checks if 2 in check.levels], 2, server)
            end = Check("protocol/end-of-input", "made", "docs/protocol.md", {2: lambda _: server.finish()})
            result.one(end, 2, server)
        finally:
            server.close()
    return result


# Reporting


def summary(result: Run) -> str:
    """A row a chapter."""
    columns = ("cases", "passed", "skipped", "failed", "known", "crashed")
    rows: dict[str, Counter[str]] = {}
    for outcome in sorted(result.outcomes.values(), key=lambda one: one.check.chapter):
        kind = "failed" if outcome.outcome == "unexpected pass" else outcome.outcome
        rows.setdefault(outcome.check.chapter, Counter()).update(["cases", kind])
    rows["all"] = sum(rows.values(), Counter())
    width = max(map(len, rows)) + 2
    lines = ["chapter".ljust(width) + "".join(f"{column:>9}" for column in columns)]
    return "\n".join(
        lines + [name.ljust(width) + "".join(f"{row[c]:>9}" for c in columns) for name, row in rows.items()]
    )


def failures(result: Run) -> str:
    """What is not as expected, the first of it in words."""
    wrong = [one for one in result.outcomes.values() if not one.ok]
    lines = []
    for one in wrong[:SHOWN]:
        if one.outcome == "unexpected pass":
            lines.append(f"{one.check.id}: passes, but is a known failure")
        else:
            lines.append(f"{one.check.id} (level {one.level}, {one.outcome}): {one.check.why}")
            lines.append(f"    expected {one.expected}")
            lines.append(f"    got      {one.got}")
    if len(wrong) > SHOWN:
        lines.append(f"... and {len(wrong) - SHOWN} more; --report has all")
    return "\n".join(lines)


def counts(suite: Suite, result: Run) -> tuple[str, bool]:
    """How many of each kind were run, beside the manifest's numbers."""
    ran = Counter(one.check.kind for one in result.outcomes.values())
    parts = [f"{ran[kind]} of {suite.declared[kind]} {kind}" for kind in KINDS]
    complete = all(ran[kind] == suite.declared[kind] for kind in KINDS)
    folders = f"{ran['folders']} folders; " if ran["folders"] else ""
    return f"run: {', '.join(parts)}; {folders}{ran['made']} made at run time", complete


def report_of(suite: Suite, result: Run, testee: str, levels: Sequence[int], ok: bool) -> dict[str, Any]:
    """The report for machines."""
    ran = Counter(one.check.kind for one in result.outcomes.values())
    return {
        "testee": testee,
        "format": suite.format,
        "levels": list(levels),
        "ok": ok,
        "declared": suite.declared,
        "ran": {kind: ran[kind] for kind in (*KINDS, "folders", "made")},
        "outcomes": dict(Counter(one.outcome for one in result.outcomes.values())),
        "cases": [
            {
                "id": one.check.id,
                "kind": one.check.kind,
                "clause": one.check.clause,
                "outcome": one.outcome,
                **({"level": one.level, "expected": one.expected, "got": one.got} if one.level else {}),
            }
            for one in result.outcomes.values()
        ],
    }


def read_known(path: str | None, suite: Suite) -> set[str]:
    """The ids of a known-failures file; each has to be that of a case."""
    if path is None:
        return set()
    lines = (line.split("#")[0].strip() for line in Path(path).read_text("utf-8").splitlines())
    known = {line for line in lines if line}
    unknown = known - {check.id for check in suite.checks} - {"protocol/end-of-input"}
    if unknown and suite.whole:
        raise BrokenManifest(f"{path}: no case {min(unknown)!r}")
    return known


def size_in_bytes(text: str) -> int:
    """A number of bytes, K, M or G."""
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1:] in units else int(text)


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--testee", required=True, metavar="CMD", help="the command, as in a shell")
    parser.add_argument("--level", type=int, choices=(1, 2), help="run only this level")
    parser.add_argument("--known", metavar="FILE", help="ids of the failures that are expected")
    parser.add_argument("--report", metavar="FILE", help="write a report in JSON")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="GLOB",
        help="ids, or requirements, of the cases to run",
    )
    parser.add_argument("--folders", action="store_true", help="model folders, too (SPEC.md, chapter 15)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at level 1; 2")
    parser.add_argument("--timeout", type=float, default=5, metavar="S", help="seconds an answer; 5")
    parser.add_argument("--memory", type=size_in_bytes, default="512M", metavar="SIZE", help="512M; 0: any")
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="fixtures/manifest.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite and print what came of it."""
    options = arguments_of(arguments)
    levels = (options.level,) if options.level else (1, 2)
    command = shlex.split(options.testee, posix=os.name == "posix")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="conform-") as folder:
        try:
            suite = load_suite(options.manifest, Path(folder), options.only)
            if options.folders:
                suite.checks += folder_checks(options.manifest, options.only)
            known = read_known(options.known, suite)
            if not suite.checks:
                raise BrokenManifest(f"no case matches {' '.join(options.only)}")
            result = run(suite, command, levels, Limits(options.timeout, options.memory), options.jobs)
        except (BrokenManifest, OSError) as error:
            print(f"conform: {error}", file=sys.stderr)
            return 2
    result.settle()
    result.expect(known)
    numbers, complete = counts(suite, result)
    expected_all = suite.whole and 2 in levels  # level 1 has no vectors
    ok = all(one.ok for one in result.outcomes.values()) and (complete or not expected_all)
    if options.report:
        report = report_of(suite, result, options.testee, levels, ok)
        Path(options.report).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(*filter(None, [failures(result), summary(result)]), sep="\n\n")
    print(f"\n{numbers}; level {' and '.join(map(str, levels))}, {time.monotonic() - started:.0f} s")
    print("all as expected" if ok else "NOT as expected")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
