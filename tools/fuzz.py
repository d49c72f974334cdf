"""Hostile input against the readers: only TritError comes out, in little memory and time.

Targets: `header` (decode_header), `file` (verify_file, open_file, load_file), `index` (decode_index) and
`folder` (verify_model, open_model). Inputs come from tests/hostile.py: valid ones, changed where it hurts,
sizes and digests mostly repaired. With --guided they come from atheris, which prefers what reaches new
code (`pip install -e '.[fuzz]'`). Of every input it has to hold that

  - nothing but a TritError that names a requirement and prints on one line comes out, and no warning;
  - the process stays within its memory of the start and --memory, by RLIMIT_AS;
  - it takes at most a second of CPU, and a second more a megabyte;
  - what verifies loads and decodes, and what loads verifies but for gaps, which loading does not read;
  - what verifies is written again, by the package's writer, as the same bytes.

A finding ends the run with status 1; the input is kept, and the command that runs it again printed.
A crash of the process is a finding, too: the input lies in memory that it shares with its parent.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads' stacks would count as memory

import argparse
import functools
import hashlib
import importlib.util
import inspect
import itertools
import math
import mmap
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

import msgpack
import numpy as np

from tritcodec import (
    TritError,
    TritTensor,
    load_file,
    open_file,
    open_model,
    save_file,
    verify_file,
    verify_model,
)
from tritcodec.header import Preamble, decode_header, encode_header
from tritcodec.model.index import INDEX_NAME, Index, decode_index, encode_index, index_bytes
from tritcodec.model.shards import read_shard
from tritcodec.reader import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import hostile  # noqa: E402  # the tests' folder is no package
import mutated  # noqa: E402  # likewise

SECONDS, SECONDS_A_MEGABYTE = 1.0, 1.0  # of CPU
MEMORY = 256  # MiB
HANG = 60  # seconds on one input, when not even a signal ends it
ROOM = 1 << 24  # bytes that an input has at most
LOOKED_AT = 1 << 14  # bytes of an input of --guided at most
READ_BY_LOADING = {"LAY-3"}  # loading does not look at gaps: all that may be wrong with what loads
T = TypeVar("T")
bases = functools.cache(mutated.bases)
index_texts = functools.cache(hostile.indexes)
whole_folders = functools.cache(hostile.originals_of_folders)


class Finding(Exception):  # noqa: N818  # no error of this tool
    """An input for which something does not hold."""


class Slow(BaseException):
    """An input takes too long. No Exception: nobody is to catch it on the way."""


def expect(holds: object, message: str) -> None:
    """Raise Finding where it does not hold."""
    if not holds:
        raise Finding(message)


def outcome(function: Callable[..., T], *arguments: object) -> T | TritError:
    """What the function gives, or the TritError it raises, which names a requirement and is one line."""
    try:
        return function(*arguments)
    except TritError as error:
        expect(error.clause, f"a TritError without a requirement: {error}")
        expect(str(error).isprintable(), f"a message that does not print: {str(error)!a}")
        return error


# What is to hold; each gives True where the input is valid


def check_header(data: bytes, _: Path) -> bool:
    """A header in memory."""
    minor, body = data[:1] + b"\0", data[1:]
    preamble = Preamble(len(body), len(body), hashlib.sha256(body).digest(), minor[0])
    header = outcome(decode_header, body, preamble)
    if isinstance(header, TritError):
        return False
    if minor[0] == 0:
        expect(encode_header(header.entries, header.metadata) == body, "written again, the header is another")
    return True


def check_file(data: bytes, folder: Path) -> bool:
    """A file, verified, loaded, decoded and written again."""
    path = folder / "in.trit"
    path.write_bytes(data)
    report = verify_file(path)
    found = {finding.clause for finding in report.findings}
    expect("" not in found, f"findings without a requirement: {report.findings}")
    tensors = outcome(load_file, path)
    if isinstance(tensors, TritError):
        expect(tensors.clause in found, f"{tensors}, and verifying finds {found}")
        return False
    expect(found <= READ_BY_LOADING, f"loads, and verifying finds {found}")
    for tensor in tensors.values():
        check_values(tensor)
    with open_file(path) as file:
        metadata, minor = file.metadata, file.preamble.minor
    again = folder / "again.trit"
    save_file(tensors, again, metadata)
    if report.ok and minor == 0:
        expect(again.read_bytes() == data, "written again, the file is another")
    else:
        expect(verify_file(again).ok, "written again, the file is not valid")
    return report.ok


def check_values(tensor: Tensor) -> None:
    """Decode a trit tensor in its own dtype: all is finite."""
    if isinstance(tensor, TritTensor):
        values = tensor.dequantize()
        expect(values.shape == tensor.shape, "a decoded tensor has another shape")
        expect(np.isfinite(values.astype(np.float32)).all(), "a decoded value is not finite")


def check_index(data: bytes, _: Path) -> bool:
    """An index in memory."""
    index = outcome(decode_index, data)
    if isinstance(index, TritError):
        return False
    expect(outcome(decode_index, rewritten(index)) == index, "written again, the index is another")
    return True


def rewritten(index: Index) -> bytes:
    """The index in the package's own form."""
    fields = {"shards": index.shards, "weight_map": index.weight_map}
    return index_bytes(fields | {"metadata": {"total_size": index.total_size}})


def check_folder(data: bytes, folder: Path) -> bool:
    """A model folder, verified and loaded."""
    place = folder / "model"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, content in hostile.files_of(data).items():
        (place / name).write_bytes(content)
    if not {INDEX_NAME, "model.trit"} & set(os.listdir(place)):
        return False
    report = verify_model(place)
    findings = [*report.findings, *(finding for part in report.shards.values() for finding in part.findings)]
    found = {finding.clause for finding in findings}
    loaded = outcome(load_model, place)
    if isinstance(loaded, TritError):
        expect(loaded.clause in found, f"{loaded}, and verifying finds {found}")
        return False
    expect(found <= READ_BY_LOADING, f"loads, and verifying finds {found}")
    if (place / INDEX_NAME).exists():
        index = decode_index((place / INDEX_NAME).read_bytes())
        made = encode_index({name: read_shard(place / name) for name in index.shards})
        expect(decode_index(made) == index, "written again, the index is another")
    return report.ok


def load_model(place: Path) -> int:
    """Read all there is in a model; gives the number of its tensors."""
    with open_model(place) as model:
        expect(model.size >= 0 and isinstance(model.metadata, dict), "no size or metadata")
        expect(sorted(entry.name for entry in model.entries()) == model.keys(), "entries and keys differ")
        for name in model.keys():  # noqa: SIM118  # no mapping
            check_values(model.get_tensor(name))
        return len(model.keys())


# Targets: a stream of inputs, what to check, and how atheris is to change one


class Target(NamedTuple):
    """What gets fuzzed."""

    check: Callable[[bytes, Path], bool]
    stream: Callable[[Random], Iterator[bytes]]
    seeds: Callable[[], list[bytes]]  # for --guided
    changed: hostile.Changed = hostile.changed_bytes


def headers(random: Random) -> Iterator[bytes]:
    """Headers without end."""
    while True:
        yield hostile.header(random, bases())


def files(random: Random) -> Iterator[bytes]:
    """Files without end."""
    while True:
        yield hostile.file(random, bases())


def indexes(random: Random) -> Iterator[bytes]:
    """Indexes without end."""
    while True:
        yield hostile.index(random, index_texts())


def folders(random: Random) -> Iterator[bytes]:
    """Folders without end."""
    while True:
        yield hostile.folder(random, whole_folders(), bases())


def header_seeds() -> list[bytes]:
    """The headers that get changed."""
    return [bytes([base.minor & 1]) + base.header for base in bases()]


def file_seeds() -> list[bytes]:
    """The files that get changed."""
    return [mutated.Draft(base, base.header, list(base.content), base.minor).seal() for base in bases()]


def folder_seeds() -> list[bytes]:
    """The folders that get changed."""
    return [msgpack.packb(files) for files in whole_folders()]


TARGETS = {
    "header": Target(check_header, headers, header_seeds),
    "file": Target(check_file, files, file_seeds, hostile.changed_file),
    "index": Target(check_index, indexes, index_texts),
    "folder": Target(check_folder, folders, folder_seeds, hostile.changed_folder),
}


# A run


class Board:
    """What a run has done, in memory that it shares with its parent: counts, and the input at work."""

    FIELDS = struct.Struct(
        "<QQQdQ"
    )  # inputs, valid ones, whether a finding was told, seconds of the slowest, size

    def __init__(self) -> None:
        """Nothing done yet."""
        self.memory = mmap.mmap(-1, self.FIELDS.size + ROOM)
        self.inputs = self.valid = self.told = self.size = 0
        self.slowest = 0.0

    def begin(self, data: bytes) -> None:
        """*data* is at work."""
        self.inputs, self.size = self.inputs + 1, len(data)
        self.memory[self.FIELDS.size : self.FIELDS.size + len(data)] = data
        self.store()

    def store(self) -> None:
        """Let the parent see the counts."""
        self.FIELDS.pack_into(self.memory, 0, self.inputs, self.valid, self.told, self.slowest, self.size)

    def load(self) -> bytes:
        """See what the child has stored; gives the input at work."""
        fields = self.FIELDS.unpack_from(self.memory, 0)
        self.inputs, self.valid, self.told, self.slowest, self.size = fields
        return self.memory[self.FIELDS.size : self.FIELDS.size + self.size]


class Run:
    """A target under fire, in a process of its own."""

    def __init__(self, name: str, options: argparse.Namespace, board: Board, folder: Path) -> None:
        """Nothing run yet."""
        self.name, self.options, self.board, self.folder = name, options, board, folder
        self.target = TARGETS[name]
        self.end = time.monotonic() + options.seconds if options.seconds else math.inf

    def protect(self) -> None:
        """Limit memory to what there is and a little, time by a signal, and let warnings be errors."""
        warnings.simplefilter("error")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * mmap.PAGESIZE + (self.options.memory << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.signal(signal.SIGPROF, self.stop)

    def stop(self, *_: object) -> None:
        """End an input that takes too long."""
        raise Slow(f"takes more than {SECONDS} s and {SECONDS_A_MEGABYTE} s a megabyte")

    def one(self, data: bytes) -> None:
        """Run an input; a finding ends the process."""
        self.board.begin(data)
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS + SECONDS_A_MEGABYTE * len(data) / 1e6)
        try:
            self.board.valid += self.target.check(data, self.folder)
        except (Exception, Slow) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            traceback.print_exc()
            tell(self.name, data, f"{type(error).__name__}: {error}", self.options)
            self.board.told = 1
            self.board.store()
            os._exit(1)
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.board.slowest = max(self.board.slowest, time.process_time() - start)

    def all(self) -> None:
        """The one input that was asked for, or as many as were."""
        if self.options.input:
            self.protect()
            self.one(self.options.input.read_bytes())
        elif self.options.guided:
            self.guided()
        else:
            self.blind()

    def blind(self) -> None:
        """Inputs of a seed, one after the other."""
        stream = self.target.stream(Random(self.options.seed))
        first = next(stream)  # what it is made from is there now
        self.protect()
        for data in itertools.islice(itertools.chain([first], stream), self.options.inputs or None):
            self.one(data)
            if time.monotonic() > self.end:
                break

    def guided(self) -> None:
        """Inputs of atheris, which ends the process."""
        import atheris  # an optional extra

        instrument(atheris)
        corpus = self.folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(self.target.seeds()):
            (corpus / str(number)).write_bytes(seed)

        def mutate(data: bytes, room: int, seed: int) -> bytes:
            def change(part: bytes) -> bytes:  # within the room, with what makes it fit again
                return bytes(atheris.Mutate(part, max(1, room - 64 - (len(data) - len(part)))))

            return self.target.changed(data, change, Random(seed))

        limits = [f"-runs={self.options.inputs or -1}", f"-max_total_time={math.ceil(self.options.seconds)}"]
        flags = [
            *limits,
            f"-seed={self.options.seed}",
            f"-max_len={LOOKED_AT}",
            "-verbosity=0",
            "-rss_limit_mb=0",
        ]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], self.one, custom_mutator=mutate)
        self.protect()
        atheris.Fuzz()


def instrument(atheris: Any) -> None:
    """Let atheris see which branches of the package are taken."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] != "tritcodec":
            continue
        holders = [module, *(item for item in vars(module).values() if inspect.isclass(item))]
        for holder in holders:
            for item in list(vars(holder).values()):
                function = item.fget if isinstance(item, property) else item
                if inspect.isfunction(function) and function.__module__ == name:
                    with suppress(RuntimeError):  # it has been seen in another holder
                        atheris.instrument_func(function)


def tell(name: str, data: bytes, message: str, options: argparse.Namespace) -> None:
    """Keep an input, and print what is wrong with it and how to run it again."""
    path = Path(
        options.save or tempfile.mkdtemp(prefix="fuzz-"), f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"FOUND in {name}: {message}\n  again: python tools/fuzz.py {name} --input {path}", flush=True)


def fuzz(name: str, options: argparse.Namespace) -> bool:
    """Run a target in a child; True where nothing was found."""
    board, shared, start = Board(), Path("/dev/shm"), time.monotonic()
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        status = wait(fork(Run(name, options, board, Path(folder))), board)
    data, seconds = board.load(), time.monotonic() - start
    if status and not board.told:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        tell(name, data, f"the process ended with {how}", options)
    print(
        f"{name}: {board.inputs:,} inputs, {board.valid:,} of them valid, in {seconds:.1f} s, "
        f"{board.inputs / seconds:,.0f}/s, the slowest {board.slowest * 1000:.0f} ms of CPU; "
        f"{'1 finding' if status else 'nothing found'}",
        flush=True,
    )
    return not status


def fork(run: Run) -> int:
    """The child that does the run."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: ours hold no lock
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        run.all()
        status = 0
    except BaseException:  # a defect of this tool
        traceback.print_exc()
    finally:
        run.board.store()
        sys.stdout.flush()
        os._exit(status)


def wait(child: int, board: Board) -> int:
    """The exit status of the child, negative for a signal; one that hangs is killed."""
    seen, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        board.load()
        if board.inputs != seen:
            seen, since = board.inputs, time.monotonic()
        if seen > 0 and time.monotonic() - since > HANG:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz; gives the exit status: 0 where nothing was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (default: all in turn)"
    )
    parser.add_argument("--inputs", type=int, default=0, help="how many, of each target")
    parser.add_argument("--seconds", type=float, default=0, help="how long, each target (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the inputs (default: 1)")
    parser.add_argument("--guided", action="store_true", help="guided by coverage, with atheris")
    parser.add_argument(
        "--memory", type=int, default=MEMORY, help="MiB more than at the start (default: %(default)s)"
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="run this one input of one target")
    parser.add_argument(
        "--save", metavar="FOLDER", help="where findings are kept (default: a temporary folder)"
    )
    options = parser.parse_args(arguments)
    names = options.targets or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"no target {min(unknown)}: there are {', '.join(TARGETS)}")
    if options.guided and not importlib.util.find_spec("atheris"):
        parser.error("--guided takes atheris: pip install -e '.[fuzz]'")
    if options.input and len(names) != 1:
        parser.error("--input is for one target")
    if not options.inputs and not options.seconds:
        options.seconds = 60
    found = [name for name in names if not fuzz(name, options)]
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
