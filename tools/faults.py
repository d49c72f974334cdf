"""Faults of disks and machines against the writers: nothing valid is lost, nothing invalid gets a final name.

Small writes and small pipelines (tests/fault_cases.py) run under a library that is preloaded
(tests/faults/preload.c) and sees every call on their files. For each call in turn:

  EIO     it fails                          short   a read or write moves half of its bytes
  ENOSPC  it and all later changes fail     kill    the process ends before it, by SIGKILL
  EINTR   it is interrupted                 torn    the process ends in the middle of a write

`cut` is a power cut after the call: what was not flushed is gone, or zeros, or has its old name. Besides,
`race` lets two processes write to one place, `full` and `readonly` use a small disk of their own (for root),
and the clock jumps by 12 years at every look while the faults happen.

Every time it has to hold: what has a final name is whole, the old or the new; the input is
untouched; an OSError comes out and no other exception, and after it nothing is left but the state of a run;
and the same work, done again, ends with the bytes of an undisturbed run. What does not hold is
printed with the command that does it again; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import itertools
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import fault_cases  # noqa: E402  # the tests' folder is no package
from fault_cases import SCENARIOS, STATE, Call, Disk, Tree, grow, tree  # noqa: E402  # likewise

SOURCE = ROOT / "tests" / "faults" / "preload.c"
COUNT, FAIL, FAIL_ON, SHORT, KILL, TORN = range(6)  # as in the library
BOARD = 1 << 23  # bytes of what is recorded
DONE, OS_ERROR, OTHER = 0, 10, 11  # how a child ends
FULL_PAGES = range(1, 40)
MOUNT_BYTES = 1 << 24


class Kind(NamedTuple):
    """A fault: how a call goes wrong, with which error, and which calls can."""

    mode: int
    error: int
    fits: Callable[[Call], bool]


KINDS = {
    "EIO": Kind(FAIL, errno.EIO, lambda _: True),
    "ENOSPC": Kind(FAIL_ON, errno.ENOSPC, lambda call: call.changes or call.name == "fsync"),
    "EINTR": Kind(FAIL, errno.EINTR, lambda call: call.goes_on),
    "short": Kind(SHORT, 0, lambda call: call.name in ("read", "write")),
    "kill": Kind(KILL, 0, lambda call: call.changes),
    "torn": Kind(TORN, 0, lambda call: call.name == "write"),
}
UNSEEN = ("EINTR", "short")  # the caller goes on


class Broken(Exception):  # noqa: N818  # no error of this tool
    """What should hold and does not."""


class Case(NamedTuple):
    """A fault in a scenario: at a call, or with a number of its own."""

    scenario: str
    kind: str
    number: int
    call: str = ""

    @property
    def name(self) -> str:
        """As --case takes it."""
        return f"{self.scenario}:{self.kind}:{self.number}"


class Reference:
    """A scenario undisturbed: what is there before and after, and its calls in their order."""

    def __init__(self, name: str, folder: Path, library: Library) -> None:
        """Run it."""
        self.scenario, place = SCENARIOS[name], folder / name
        place.mkdir()
        self.scenario.prepare(place)
        self.before = tree(place)
        status, log = library.run(self.scenario.work, place, COUNT)
        if status != DONE:
            raise SystemExit(f"{name} fails without a fault")
        self.after = tree(place)
        self.calls = list(fault_cases.calls(log, str(place)))
        shutil.rmtree(place)

    def cases(self, name: str) -> Iterator[Case]:
        """All faults of all calls."""
        for number, call in enumerate(self.calls):
            said = f"{call.name} {call.path}"
            yield from (Case(name, kind, number, said) for kind in KINDS if KINDS[kind].fits(call))
            if call.changes or call.name == "fsync":
                yield Case(name, "cut", number, said)


class Library:
    """The preloaded library, and the memory that children record their calls in."""

    def __init__(self) -> None:
        """Find it in this process."""
        self.arm = ctypes.CDLL(os.environ["LD_PRELOAD"]).faults_arm
        self.memory = mmap.mmap(-1, BOARD)
        self.board = ctypes.c_char.from_buffer(self.memory)

    def run(
        self, work: Callable[[Path], object], place: Path, mode: int, call: int = -1, error: int = 0
    ) -> tuple[int, bytes]:
        """How a child ends that does the work, negative for a signal, and its log."""
        child = fork()
        if not child:
            ctypes.c_long.from_buffer(self.memory, 16).value = BOARD - 24
            self.arm(ctypes.byref(self.board), os.fsencode(place), ctypes.c_long(call), mode, error, 1)
            end(work, place, error)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        used = ctypes.c_long.from_buffer(self.memory, 8).value
        return status, self.memory[24 : 24 + used]


def fork() -> int:
    """os.fork, between whose sides no lock is held."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def end(work: Callable[[Path], object], place: Path, error: int) -> None:
    """Do the work and end this child; an OSError has to be the one that was injected, if one was."""
    status = OTHER
    try:
        work(place)
        status = DONE
    except OSError as failure:
        # The safetensors library has an error of its own for whatever keeps it from opening a file.
        status = OS_ERROR if failure.errno in (error, None) or not error else OTHER
        if status == OTHER:
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def final(content: Tree) -> dict[str, Tree]:
    """What has a final name: everything in `out` that is not hidden, by that name."""
    found: dict[str, Tree] = {}
    for path, data in content.items():
        parts = path.split("/")
        if parts[0] == "out" and len(parts) > 1 and not parts[1].startswith("."):
            found.setdefault(parts[1], {})[path] = data
    return found


def hidden(content: Tree) -> set[str]:
    """What is hidden in `out`."""
    return {path.split("/")[1] for path in content if path.startswith("out/.")}


def expect(holds: object, message: str) -> None:
    """Raise Broken where it does not hold."""
    if not holds:
        raise Broken(message)


def check_finals(reference: Reference, place: Path) -> None:
    """Every final name has what it had, or what it is to have; the input is as it was."""
    now = tree(place)
    old, new, found = final(reference.before), final(reference.after), final(now)
    for name, content in found.items():
        expect(content in (old.get(name), new.get(name)), f"{name} is neither the old nor the new")
    expect(old.keys() <= found.keys(), f"{sorted(old.keys() - found.keys())} is lost")
    given = {path: data for path, data in now.items() if path.startswith("in/")}
    expect(all(reference.before[path] == data for path, data in given.items()), "the input has changed")


def check_again(reference: Reference, place: Path) -> None:
    """The work, done again, is complete."""
    complete = final(tree(place)) == final(reference.after)
    if complete and f"out/{STATE}/run.json" not in tree(place):  # else there is a state to go on from
        return
    try:
        reference.scenario.work(place)
    except Exception as error:
        raise Broken(f"done again: {type(error).__name__}: {error}") from error
    expect(final(tree(place)) == final(reference.after), "done again, it gives something else")
    expect(STATE not in hidden(tree(place)), "done again, it leaves its state")


def check_error(reference: Reference, place: Path, case: Case, status: int) -> None:
    """What a child that met an error says and leaves."""
    expect(status in (DONE, OS_ERROR), f"no OSError of this number (status {status})")
    expect(status == DONE or case.kind not in UNSEEN, "an error where the caller is to go on")
    if status == DONE:
        expect(final(tree(place)) == final(reference.after), "said to be done, and is not")
    allowed = {STATE} if reference.scenario.keeps else set()
    expect(hidden(tree(place)) <= allowed, f"leaves {sorted(hidden(tree(place)))}")


def fault(library: Library, reference: Reference, case: Case, folder: Path) -> None:
    """A call goes wrong."""
    kind, place = KINDS[case.kind], folder / "place"
    grow(place, reference.before)
    status, _ = library.run(reference.scenario.work, place, kind.mode, case.number, kind.error)
    check_finals(reference, place)
    if kind.mode in (KILL, TORN):
        expect(status == -signal.SIGKILL, f"not killed (status {status})")
        for source in (place / "in").rglob("*.safetensors"):
            os.utime(source, (0, 0))  # somebody has set the clock
    else:
        check_error(reference, place, case, status)
    check_again(reference, place)


def cut(_: Library, reference: Reference, case: Case, folder: Path) -> None:
    """The power is cut after a call."""
    disk = Disk.of(reference.before)
    for call in reference.calls[: case.number + 1]:
        disk.do(call)
    for how, content in disk.after_a_cut().items():
        place = folder / how
        grow(place, content)
        try:
            check_finals(reference, place)
            check_again(reference, place)
        except Broken as error:
            raise Broken(f"{how}: {error}") from error


def race(_: Library, reference: Reference, case: Case, folder: Path) -> None:
    """Two processes do the same at once, the second a little later each time."""
    place = folder / "place"
    grow(place, reference.before)
    children = []
    for delay in (0, case.number * 0.0007):
        child = fork()
        if not child:
            time.sleep(delay)
            quiet(reference.scenario.work, place)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    expect(DONE in statuses, f"neither is done: {statuses}")
    expect(set(statuses) <= {DONE, OS_ERROR}, f"ends with {statuses}")
    check_finals(reference, place)
    check_again(reference, place)
    expect(not hidden(tree(place)), f"leaves {sorted(hidden(tree(place)))}")


def quiet(work: Callable[[Path], object], place: Path) -> None:
    """Do the work and end this child; that the other was first is an error like others, and no OSError."""
    from tritcodec import TritError

    try:
        work(place)
    except (OSError, TritError):
        os._exit(OS_ERROR)
    except BaseException:
        traceback.print_exc()
        os._exit(OTHER)
    os._exit(DONE)


def full(library: Library, reference: Reference, case: Case, folder: Path) -> None:
    """A disk on which only so many pages are free, and then more."""
    with mounted(folder) as place:
        fill(place, reference.before)
        used = sum(f.stat().st_blocks for f in place.rglob("*")) * 512
        remount(place, f"size={used + case.number * mmap.PAGESIZE}")
        status, _ = library.run(reference.scenario.work, place, COUNT, error=errno.ENOSPC)
        check_finals(reference, place)
        check_error(reference, place, case, status)
        remount(place, f"size={MOUNT_BYTES}")
        check_again(reference, place)


def readonly(library: Library, reference: Reference, _case: Case, folder: Path) -> None:
    """A disk that cannot be written to, and then can."""
    with mounted(folder) as place:
        fill(place, reference.before)
        remount(place, "ro")
        status, _ = library.run(reference.scenario.work, place, COUNT, error=errno.EROFS)
        expect(status == OS_ERROR, f"no OSError (status {status})")
        expect(tree(place) == reference.before, "something has changed")
        remount(place, "rw")
        check_again(reference, place)


def fill(place: Path, content: Tree) -> None:
    """`grow`, in a folder that is there."""
    for top in ("in/", "out/"):
        grow(place / top, {path[len(top) :]: data for path, data in content.items() if path.startswith(top)})


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MOUNT_BYTES}", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def remount(place: Path, option: str) -> None:
    """Change an option of a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{option}", place], check=True)


OTHERS = {"cut": cut, "race": race, "full": full, "readonly": readonly}


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a disk."""
    try:
        with mounted(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        shutil.rmtree(folder / "disk", ignore_errors=True)


def all_cases(references: dict[str, Reference], mounts: bool) -> list[Case]:
    """Every fault there is."""
    cases = [case for name, reference in references.items() for case in reference.cases(name)]
    for name in references:
        cases += [Case(name, "race", number) for number in range(40)]
        if mounts:
            cases += [Case(name, "full", pages) for pages in FULL_PAGES] + [Case(name, "readonly", 0)]
    return cases


def run(case: Case, library: Library, references: dict[str, Reference], folder: Path) -> str:
    """What does not hold; empty where all does."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        OTHERS.get(case.kind, fault)(library, references[case.scenario], case, place)
    except Broken as error:
        return f"BROKEN {case.scenario}, {case.kind} at call {case.number} ({case.call}): {error}"
    finally:
        shutil.rmtree(place)
    return ""


def work(options: argparse.Namespace) -> int:
    """Run the cases that are asked for, in this process, which has the library."""
    library, shared = Library(), Path("/dev/shm")
    found, done, ends = [], Counter[str](), time.monotonic() + (options.seconds or 1e9)
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        folder = Path(name)
        references = {scenario: Reference(scenario, folder, library) for scenario in options.scenarios}
        mounts = can_mount(folder)
        if not mounts:
            print("skipped: full and readonly, for no disk can be mounted here")
        cases = all_cases(references, mounts)
        if options.case:
            cases = [case for case in cases if f"{case.name}:".startswith(f"{options.case}:")]
        elif options.cases or options.seconds:
            Random(options.seed).shuffle(cases)
        for case in itertools.islice(cases, options.cases or None):
            message = run(case, library, references, folder)
            done[case.kind] += 1
            if message:
                again = f"python tools/faults.py {case.scenario} --case {case.name}"
                print(f"{message}\n  again: {again}", flush=True)
                found.append(message)
            if time.monotonic() > ends:
                break
    counts = ", ".join(f"{kind} {done[kind]}" for kind in sorted(done))
    calls = ", ".join(f"{name} {len(reference.calls)}" for name, reference in references.items())
    print(f"calls: {calls}\n{done.total()} of {len(cases)} cases: {counts}; {len(found)} do not hold")
    return 1 if found or not done else 0


def build(folder: Path) -> dict[str, str]:
    """The library, built in *folder*; gives the environment that preloads it."""
    library = folder / "faults.so"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return os.environ | {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"}


def preloaded(arguments: Sequence[str]) -> int:
    """Run this command again with the library."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *arguments]
        return subprocess.run(command, env=build(Path(folder)), check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb; gives the exit status: 0 where everything holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)} (default: all)"
    )
    parser.add_argument("--cases", type=int, default=0, help="so many, drawn by --seed (default: all)")
    parser.add_argument("--seconds", type=float, default=0, help="as many as take that long, drawn by --seed")
    parser.add_argument("--seed", type=int, default=1, help="(default: 1)")
    parser.add_argument("--case", metavar="SCENARIO:KIND:NUMBER", help="this one; or all that begin so")
    options = parser.parse_args(arguments)
    options.scenarios = options.scenarios or list(SCENARIOS)
    if unknown := set(options.scenarios) - SCENARIOS.keys():
        parser.error(f"no scenario {min(unknown)}: there are {', '.join(SCENARIOS)}")
    if "faults" in os.environ.get("LD_PRELOAD", ""):
        return work(options)
    return preloaded(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
