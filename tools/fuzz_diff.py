"""Differential fuzzing: the package's reader against a port's, over damaged files with fitting digests.

The files come from tests/mutated.py; number n of a seed is always the same, and
`--seed S --first N --inputs 1` runs one again. Both readers have to agree:

  - on the verdict, always;
  - on where it ends: preamble, header, layout, or segments and gaps, which SPEC 9 orders;
  - in the preamble and the layout, on the requirement, which SPEC 6.1 and 9 fix;
  - in segments and gaps, the port names one of the package's findings;
  - in the header, where one change was made whose requirement is known, both name it (or one
    of the few in which it shows); of several faults there SPEC 9 leaves open which is named;
  - of a file that can be opened, on header, offsets, and the decoded bits of every tensor at
    some depth and dtype, or on refusing it.

A plain-integer third reader (tests/independent.py) judges every hundredth input, and says who
is right where two differ. What fails is made smaller, kept and printed; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import queue
import select
import shlex
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tritcodec import TritError, TritFile, TritTensor, open_file, verify_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import independent  # noqa: E402  # the tests' folder is no package
from mutated import Clauses, Input, Value, bases, count, make, tree  # noqa: E402  # likewise

BATCH = 64  # inputs in flight
PIPE = 1 << 15  # bytes of requests in flight: less than a pipe holds, so that neither side waits
ANSWER_SECONDS = 20
THIRD = 100  # of so many inputs the third reader judges one
DEPTHS = (None, 1, 2, 3, 4)
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
TRIALS = 400  # to make one smaller
CHAPTERS = {"PRE": "preamble", "LAY-3": "segments", "LAY": "layout"}
CHAPTERS |= dict.fromkeys(["SEG", "PACK", "RAW-2"], "segments")  # and all others: header

# The two readers


class Testee:
    """A port's `serve` process, to which requests go in bulk."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start *command*."""
        self.command = command
        self.start()

    def start(self) -> None:
        """Start the process."""
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self.process = subprocess.Popen(
            [*self.command, "serve"], stdin=pipe, stdout=pipe, stderr=null, bufsize=0
        )
        self.left = b""

    def send(self, requests: Sequence[dict[str, Value]]) -> None:
        """Send requests that take less than PIPE bytes together."""
        lines = [
            json.dumps({"seq": i} | request, ensure_ascii=False) + "\n" for i, request in enumerate(requests)
        ]
        assert self.process.stdin is not None  # a pipe
        with suppress(BrokenPipeError):
            self.process.stdin.write("".join(lines).encode())

    def receive(self, wanted: int) -> list[Value]:
        """The results of what was sent; None from where the process crashed or hung."""
        assert self.process.stdout is not None  # a pipe
        lines, pipe = self.left.split(b"\n"), self.process.stdout.fileno()
        while len(lines) <= wanted:
            ready, _, _ = select.select([pipe], [], [], ANSWER_SECONDS)
            more = os.read(pipe, 1 << 20) if ready else b""
            if not more:
                break
            lines[-1:] = (lines[-1] + more).split(b"\n")
        answers = [json.loads(line) for line in lines[:-1]]
        self.left = lines[-1]
        if len(answers) < wanted:
            self.process.kill()
            self.process.wait()
            self.start()
        if any(answer["seq"] != i for i, answer in enumerate(answers)):
            raise RuntimeError("answers in another order than the requests")
        results: list[Value] = [answer.get("result", answer) for answer in answers]
        return results + [None] * (wanted - len(results))

    def ask(self, requests: Sequence[dict[str, Value]]) -> list[Value]:
        """The results of any number of requests; None for one where the process crashed."""
        results: list[Value] = []
        while len(results) < len(requests):
            part: list[dict[str, Value]] = []
            size = 0
            for request in requests[len(results) :]:
                size += len(str(request)) * 4 + 32
                if part and size > PIPE:
                    break
                part.append(request)
            self.send(part)
            got = self.receive(len(part))
            crashed = got.index(None) + 1 if None in got else len(got)  # what came after it is asked again
            results += got[:crashed]
        return results

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None  # a pipe
        self.process.stdin.close()
        try:
            self.process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Verdict(NamedTuple):
    """A verdict, with all that was found."""

    verdict: str
    clauses: tuple[str, ...]


def judge(path: Path) -> Verdict:
    """The package's verdict; "crash" for any other exception than what it documents."""
    try:
        report = verify_file(path)
    except Exception as error:  # whatever it is, it is a bug, and to be reported as one
        return Verdict("crash", (f"{type(error).__name__}: {error}",))
    return Verdict(report.verdict, tuple(finding.clause for finding in report.findings))


def third(data: bytes) -> Verdict:
    """The verdict of tests/independent.py."""
    clauses = tuple(clause for clause, _ in independent.defects(data))
    if not clauses:
        return Verdict("valid", ())
    return Verdict("unsupported" if clauses[0] in ("PRE-3", "PRE-4") else "invalid", clauses)


def chapter(clause: str | None) -> str:
    """Where a verification ends that finds *clause*."""
    if clause is None:
        return ""
    return CHAPTERS.get(clause, CHAPTERS.get(clause.split("-")[0], "header"))


def differ(mine: Verdict, theirs: Value, clauses: Clauses) -> str:
    """What two verdicts disagree on; empty where nothing."""
    if mine.verdict == "crash":
        return "the package crashes"
    if theirs is None:
        return "the port crashes"
    if theirs.get("verdict") != mine.verdict:
        return "verdict"
    first, other = (mine.clauses or (None,))[0], theirs["clause"]
    if chapter(first) != chapter(other):
        return "chapter"
    if chapter(first) in ("preamble", "layout") and first != other:
        return "clause"
    if chapter(first) == "segments" and other not in mine.clauses:
        return "clause"
    if clauses is not None and not {first, other} <= clauses:
        return "requirement that was broken on purpose"
    return ""


def sha(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in hexadecimal."""
    return hashlib.sha256(array.tobytes()).hexdigest()


def header_of(file: TritFile) -> Value:
    """What `header` answers (docs/protocol.md)."""
    offsets: dict[str, list[int]] = {}
    for segment in file.segments:
        offsets.setdefault(segment.entry.name, []).append(segment.offset)
    tensors = []
    for name in file.keys():  # noqa: SIM118  # no mapping
        entry = file.entry(name)
        said = {
            "name": name,
            "kind": entry.kind,
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "offsets": offsets[name],
        }
        form = getattr(entry, "form", None)
        if form is not None:
            book = form.codebook.astype("<f4").tobytes().hex()
            said |= {
                "depth": form.depth,
                "shift": form.shift,
                "group_size": form.group_size,
                "codebook": book,
            }
        tensors.append(said)
    version = [1, file.preamble.minor]
    return {"identity": file.identity, "version": version, "metadata": file.metadata, "tensors": tensors}


def decode(file: TritFile, name: str, depth: int | None, dtype: str) -> Value:
    """What `decode` answers; "overflows" stands by what may be refused (TEN-10)."""
    try:
        tensor = file.get_tensor(name, depth)
    except TritError as error:
        return {"error": error.clause}
    if not isinstance(tensor, TritTensor):
        return {"shape": list(tensor.shape), "values": sha(tensor)}
    said = {"shape": list(tensor.shape), "levels": sha(tensor.levels()), "codes": sha(tensor.codes)}
    try:
        return said | {"values": sha(tensor.dequantize(dtype))}
    except TritError:  # the package refuses; a reader that does not gives infinity
        with np.errstate(over="ignore"):
            values = tensor.dequantize("F32").astype(DTYPES[dtype])
        return said | {"values": sha(values), "overflows": True}


def decoded_alike(mine: Value, theirs: Value) -> bool:
    """True where both refuse, or give the same bits."""
    if "overflows" in mine and theirs == {"error": "CB-5"}:
        return True
    if "error" in mine or theirs is None or "error" in theirs:
        return theirs is not None and "error" in mine and "error" in theirs
    return bool({key: value for key, value in mine.items() if key != "overflows"} == theirs)


# One worker


@dataclass
class Tally:
    """What was run, and what was found."""

    inputs: int = 0
    decoded: int = 0
    third: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add another's counts to these."""
        self.inputs += other.inputs
        self.decoded += other.decoded
        self.third += other.third
        self.verdicts.update(other.verdicts)
        self.failures += other.failures


class Pair:
    """The package and a port, and a folder for the files that both read."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        """Start the port."""
        self.testee, self.folder = Testee(command), folder
        self.paths = [folder / f"{i:02}.trit" for i in range(BATCH)]

    def compare(self, inputs: Sequence[Input], tally: Tally) -> Iterator[tuple[Input, str, str]]:
        """Run up to BATCH inputs; gives those that fail, what they fail in, and the details."""
        paths = self.paths[: len(inputs)]
        for path, one in zip(paths, inputs, strict=True):
            path.write_bytes(one.data)
        requests = [{"cmd": "verify", "file": str(path)} for path in paths]
        self.testee.send(requests)
        mine = [judge(path) for path in paths]  # while the port does the same
        theirs = self.testee.receive(len(paths))
        if None in theirs:
            theirs = [answer for request in requests for answer in self.testee.ask([request])]
        opened: list[tuple[Input, Path]] = []
        for one, path, verdict, answer in zip(inputs, paths, mine, theirs, strict=True):
            tally.inputs += 1
            tally.verdicts[(verdict.clauses or ("valid",))[0]] += 1
            what = differ(verdict, answer, one.clauses)
            if what or one.number % THIRD == 0:
                tally.third += 1
                judged = third(one.data)
                what = what or differ(
                    judged, {"verdict": verdict.verdict, "clause": (*verdict.clauses, None)[0]}, None
                )
                if what:
                    yield (
                        one,
                        what,
                        f"package {verdict}, port {answer}, third {judged}, expected {one.clauses}",
                    )
            if not what and chapter((*verdict.clauses, None)[0]) in ("", "segments"):
                opened.append((one, path))
        yield from self.compare_content(opened, tally)

    def compare_content(
        self, opened: Sequence[tuple[Input, Path]], tally: Tally
    ) -> Iterator[tuple[Input, str, str]]:
        """Compare headers and tensors of files that can be opened."""
        requests, mine, owners = [], [], []
        for one, path in opened:
            random = Random(one.number)
            with open_file(path) as file:
                asked: list[dict[str, Value]] = [{"cmd": "header", "file": str(path)}]
                said = [header_of(file)]
                for name in file.keys():  # noqa: SIM118  # no mapping
                    depth, dtype = random.choice(DEPTHS), random.choice(list(DTYPES))
                    view: dict[str, Any] = {"depth": depth, "dtype": dtype}
                    asked.append({"cmd": "decode", "file": str(path), "tensor": name} | view)
                    said.append(decode(file, name, **view))
            requests += asked
            mine += said
            owners += [one] * len(said)
        tally.decoded += len(requests)
        for request, expected, answer, one in zip(
            requests, mine, self.testee.ask(requests), owners, strict=True
        ):
            same = expected == answer if request["cmd"] == "header" else decoded_alike(expected, answer)
            if not same:
                yield one, request["cmd"], f"{request}: package {expected}, port {answer}"

    def fails(self, data: bytes) -> str:
        """What the two disagree on about a file; empty where nothing."""
        return next((what for _, what, _ in self.compare([Input(1, data, None, "")], Tally())), "")

    def minimise(self, data: bytes) -> bytes:
        """A smaller file that fails in the same way."""
        what, trials = self.fails(data), 0
        progress = bool(what)
        while progress and trials < TRIALS:
            progress = False
            for smaller in smaller_files(data):
                trials += 1
                if trials > TRIALS:
                    break
                if self.fails(smaller) == what:
                    data, progress = smaller, True
                    break
        return data


def smaller_files(data: bytes) -> Iterator[bytes]:
    """Files with less in them, the largest cuts first; with fitting digest and sizes, and without."""
    size = struct.unpack_from("<Q", data.ljust(24, b"\0"), 16)[0]
    header, rest = data[64 : 64 + size], data[64 + size :]
    minor = int.from_bytes(data[10:12], "little")
    if len(data) > 64:
        with suppress(independent.Broken, UnicodeDecodeError, RecursionError):  # nested too deep for a tree
            for node in tree(header):
                step = 2 if node.kind is dict else 1
                for at in range(0, len(node.parts), step):
                    cut = header[: node.parts[at].start] + header[node.parts[at + step - 1].end :]
                    start, body, head = count(node, -1)
                    yield independent.seal(cut[:start] + head + cut[body:], [rest.strip(b"\0")], (1, minor))
        yield independent.seal(header, [], (1, minor))
    half = len(data) // 2
    while half:
        for at in range(0, len(data), half):
            yield data[:at] + data[at + half :]
            cut = header[:at] + header[at + half :]
            if len(cut) < len(header):
                yield independent.seal(cut, [], (1, minor))
        half //= 4


def work(options: argparse.Namespace, job: int, results: multiprocessing.Queue[Tally | None]) -> None:
    """Run every --jobs-th input, and report about once a second; None says that all are done."""
    originals, tally = bases(), Tally()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        pair = Pair(options.testee, Path(name))
        number, stop = options.first + job, options.first + options.inputs if options.inputs else None
        end, told = time.monotonic() + options.seconds, time.monotonic()
        while (stop is None or number < stop) and (stop is not None or time.monotonic() < end):
            numbers = range(number, min(number + BATCH * options.jobs, stop or sys.maxsize), options.jobs)
            number = numbers[-1] + options.jobs
            inputs = [make(options.seed, n, originals) for n in numbers]
            failed = list(pair.compare(inputs, tally))  # all of them, before what follows writes other files
            tally.failures += [keep(options, pair, *failure) for failure in failed]
            if time.monotonic() - told > 1:
                results.put(tally)
                tally, told = Tally(), time.monotonic()
        pair.testee.close()
    results.put(tally)
    results.put(None)


def keep(options: argparse.Namespace, pair: Pair, one: Input, what: str, details: str) -> str:
    """Save an input that failed, made smaller; gives the lines to print."""
    path = Path(options.save) / f"{options.seed}-{one.number}.trit"
    path.write_bytes(one.data)
    small = pair.minimise(one.data)
    path.with_suffix(".small.trit").write_bytes(small)
    again = f"again: --seed {options.seed} --first {one.number} --inputs 1"
    sizes = f"{len(one.data)} bytes, {len(small)} made smaller"
    return f"{what}: {one.how}\n  {details}\n  {path}, {sizes}\n  {again}"


# All of it


def build_port(folder: Path) -> list[str]:
    """The command of the C port, built in *folder*."""
    subprocess.run(["make", "-s", "-C", str(ROOT / "ports" / "c"), f"BUILD={folder}"], check=True)
    return [str(folder / "trit")]


def run(options: argparse.Namespace) -> Tally:
    """Run all workers and print how far they are."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Tally | None] = context.Queue()
    workers = [context.Process(target=work, args=(options, job, results)) for job in range(options.jobs)]
    total, start = Tally(), time.monotonic()
    told, running = start, options.jobs
    for worker in workers:
        worker.start()
    while running:
        try:
            part = results.get(timeout=5)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("a worker ended with an error") from None
            continue
        if part is None:
            running -= 1
            continue
        total.add(part)
        for failure in part.failures:
            print(failure, flush=True)
        if time.monotonic() - told > options.every:
            told = time.monotonic()
            print(progress(total, told - start), flush=True)
    for worker in workers:
        worker.join()
    print(progress(total, time.monotonic() - start))
    return total


def progress(total: Tally, seconds: float) -> str:
    """A line that says how far a run is."""
    rate = total.inputs / max(seconds, 1e-9)
    parts = [f"{total.inputs:,} inputs, {total.verdicts['valid']:,} of them valid"]
    parts += [
        f"{total.decoded:,} headers and tensors compared",
        f"{total.third:,} judged by the third reader",
    ]
    return f"{seconds:7.1f} s: {', '.join(parts)}, {rate:,.0f}/s, {len(total.failures)} failures"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="of the inputs (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=60, help="how long to run, where --inputs is not given (default: 60)"
    )
    parser.add_argument("--inputs", type=int, default=0, help="how many inputs to run")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1), each with its own port")
    parser.add_argument(
        "--testee", type=shlex.split, metavar="CMD", help="another port (default: builds ports/c)"
    )
    parser.add_argument(
        "--save", metavar="FOLDER", help="where inputs that fail are kept (default: a new temporary folder)"
    )
    parser.add_argument(
        "--every", type=float, default=10, help="seconds between lines of progress (default: 10)"
    )
    options = parser.parse_args(arguments)
    options.save = options.save or tempfile.mkdtemp(prefix="fuzz-diff-")
    Path(options.save).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        options.testee = options.testee or build_port(Path(folder))
        total = run(options)
    clauses = sorted((clause, times) for clause, times in total.verdicts.items())
    print("first findings:", ", ".join(f"{clause} {times}" for clause, times in clauses))
    if total.failures:
        print(f"{len(total.failures)} failures, kept in {options.save}")
    elif not os.listdir(options.save):
        os.rmdir(options.save)
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
