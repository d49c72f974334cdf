"""The C port on other machines: one big-endian, one of 32 bits; tested under emulation.

"All integers and floating-point numbers in a file are little-endian", on any host, is a claim until a
big-endian one has read them, and "products and sums" are checked for wrapping where size_t has 32 bits.

Builds ports/c with warnings as errors for each machine, statically, runs the port's self-test and all
fixtures (tools/conform.py) under QEMU's user-mode emulation, and prints a table.

The exit status is 0 if all passed, 1 if something failed, 2 if packages are missing. With --install,
root gets Debian's packages first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PORT = ROOT / "ports" / "c"
SECONDS = 900  # for a step: emulation is slow


class Machine(NamedTuple):
    """A machine, its compiler, how its programs are run, and Debian's packages for that."""

    name: str
    compiler: str
    emulator: str
    packages: tuple[str, ...]


MACHINES = {
    "s390x": Machine(
        "64 bits, big-endian",
        "s390x-linux-gnu-gcc",
        "qemu-s390x-static",
        ("gcc-s390x-linux-gnu", "libc6-dev-s390x-cross", "qemu-user-static"),
    ),
    "armhf": Machine(
        "32 bits, little-endian",
        "arm-linux-gnueabihf-gcc",
        "qemu-arm-static",
        ("gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross", "qemu-user-static"),
    ),
}


class Row(NamedTuple):
    """A step on a machine, and how it went."""

    machine: str
    step: str
    passed: bool
    seconds: float
    last: str  # line that it printed


def missing(names: Sequence[str]) -> list[str]:
    """The packages of what is not on this machine."""
    packages = {
        package
        for name in names
        for package in MACHINES[name].packages
        if not (shutil.which(MACHINES[name].compiler) and shutil.which(MACHINES[name].emulator))
    }
    return sorted(packages)


def install(packages: Sequence[str]) -> None:
    """Install Debian's *packages*."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "install", "-qy", "--no-install-recommends", *packages], check=True, env=environment
    )


def run(machine: str, step: str, command: Sequence[str]) -> Row:
    """Run a step; everything it printed is shown where it failed."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False
        )
        passed, output = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired:
        passed, output = False, f"not done after {SECONDS} s"
    if not passed:
        print(f"{machine}, {step}: {' '.join(command)}\n{output}", file=sys.stderr)
    lines = output.strip().splitlines() or [""]
    return Row(machine, step, passed, time.monotonic() - start, lines[-1])


def check(name: str, folder: Path) -> list[Row]:
    """Build the port for a machine and run all tests there."""
    machine = MACHINES[name]
    make = ["make", "-C", str(PORT), f"CC={machine.compiler}", "LDFLAGS=-static", f"BUILD={folder / name}"]
    rows = [run(name, "build", make)]
    testee = [machine.emulator, str(folder / name / "trit")]
    if rows[0].passed:
        rows.append(run(name, "self-test", [sys.executable, str(PORT / "tests" / "selftest.py"), *testee]))
    if rows[0].passed:
        conform = [sys.executable, str(ROOT / "tools" / "conform.py"), "--memory", "0", "--timeout", "60"]
        rows.append(run(name, "fixtures", [*conform, "--testee", " ".join(testee)]))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all machines, and print a row for each step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "machines", nargs="*", metavar="MACHINE", help=f"{', '.join(MACHINES)} (default: all)"
    )
    parser.add_argument("--install", action="store_true", help="install missing packages with apt-get")
    options = parser.parse_args(arguments)
    names = options.machines or list(MACHINES)
    if unknown := [name for name in names if name not in MACHINES]:
        parser.error(f"no machine {unknown[0]!r}: there are {', '.join(MACHINES)}")
    if options.install and missing(names):
        install(missing(names))
    if packages := missing(names):
        print(f"missing: apt-get install {' '.join(packages)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in names for row in check(name, Path(folder))]
    for row in rows:
        what = f"{row.machine:6} {MACHINES[row.machine].name:22}  {row.step:9}"
        print(f"{what}  {'ok' if row.passed else 'FAILED':6} {row.seconds:6.1f} s  {row.last[:90]}")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
