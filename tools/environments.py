"""The same bits everywhere: the digests of tools/crosscheck.py in many environments, as a table.

  - fresh environments of every Python there is (--pythons; python3.10 to python3.14 on the path, and
    pyenv's) with NumPy 1.26, 2.0 and the newest, as far as pip has them for each other;
  - in those of this Python, NumPy's dispatch reduced feature by feature, each kernel of OpenBLAS that the CPU
    can run, one and two threads, and `python -O`;
  - other machines (--machines), whose Python comes from Debian (by debootstrap, unpacked and not installed)
    and whose NumPy comes from pip, under QEMU's user-mode emulation. That takes root, and minutes.

Prints a row for each, and with --write puts the table into docs/environments.md. The exit status is 0 if all
digests that were to be computed are those in fixtures/crosscheck.json; what could not be had is said.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CROSSCHECK = ROOT / "tools" / "crosscheck.py"
PAGE = ROOT / "docs" / "environments.md"
NUMPYS = ("1.26.*", "2.0.*", "")  # the last: the newest there is
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
CORES = {  # of OpenBLAS, and what a CPU needs for them, as /proc/cpuinfo says it
    "Prescott": "sse3 pni",
    "Nehalem": "sse4_2",
    "Sandybridge": "avx",
    "Haswell": "avx2",
    "Zen": "avx2",
    "SkylakeX": "avx512f",
}
DEBIAN = "trixie"
MIRROR = "http://deb.debian.org/debian"
MACHINES = {"arm64": ("aarch64", "64 bits, little-endian"), "s390x": ("s390x", "64 bits, big-endian")}
BEGIN, END = "<!-- made by tools/environments.py -->\n", "<!-- end -->\n"


class Row(NamedTuple):
    """An environment, and what came of it."""

    machine: str
    python: str
    numpy: str
    what: str
    result: str  # the digest of all cases, or why there is none
    cases: int = 0
    wrong: tuple[str, ...] = ()
    crashed: bool = False  # the corpus was begun, and did not come to its end

    @property
    def cells(self) -> list[str]:
        """The row as it is printed."""
        why = "crashed" if self.crashed else "not run"
        verdict = f"`{self.result[:16]}`" if self.cases else f"{why}: {self.result}"
        if self.wrong:
            verdict += f", {len(self.wrong)} of {self.cases} not as pinned"
        return [self.machine, self.python, self.numpy, self.what, verdict]


class Failed(Exception):  # noqa: N818  # no error of this tool
    """What could not be had, in a few words."""


def command(*words: object, **environment: str) -> str:
    """What a command prints; Failed with the last line of its errors."""
    texts, variables = [str(word) for word in words], os.environ | environment
    done = subprocess.run(texts, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Failed((lines or [f"exit status {done.returncode}"])[-1][:160])
    return done.stdout


# This machine


def pythons() -> dict[str, str]:
    """Interpreters by version, 3.10 and later."""
    found = {HERE: sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for minor in range(10, 15):
        version = f"3.{minor}"
        places = [*sorted(pyenv.glob(f"{version}.*/bin/python{version}")), shutil.which(f"python{version}")]
        for place in filter(None, places):
            found.setdefault(version, str(place))
    return dict(sorted(found.items(), key=lambda pair: int(pair[0].split(".")[1])))


def environment(python: str, numpy: str, folder: Path) -> Path:
    """The interpreter of a fresh environment with the package and a NumPy."""
    command(python, "-m", "venv", folder)
    interpreter = folder / "bin" / "python"
    wanted = f"numpy=={numpy}" if numpy else "numpy"
    command(interpreter, "-m", "pip", "install", "-q", "--only-binary=numpy,ml_dtypes", ROOT, wanted)
    return interpreter


def ask(what: str, *words: object, **variables: str) -> Row:
    """Run the corpus with an interpreter, and perhaps options or an emulator."""
    try:
        said = json.loads(command(*words, CROSSCHECK, "--print", **variables))
    except Failed as failure:
        return Row("", "", "", what, str(failure), crashed=True)
    if "OpenBLAS" in what:
        what = f"OpenBLAS: {said['blas'] or 'none'}"
    machine = f"{said['machine']}, {said['byteorder']}-endian"
    numbers = machine, said["python"], said["numpy"], what, said["total"], said["cases"], tuple(said["wrong"])
    return Row(*numbers)


def here(versions: dict[str, str]) -> Iterator[Row]:
    """Rows for this machine."""
    for version, python in versions.items():
        for numpy in NUMPYS:
            with tempfile.TemporaryDirectory() as name:
                try:
                    interpreter = environment(python, numpy, Path(name))
                except Failed as failure:
                    yield Row(platform.machine(), version, numpy or "the newest", "", str(failure))
                    continue
                row = ask("", interpreter)
                if not row.cases:
                    yield row._replace(
                        machine=platform.machine(), python=version, numpy=numpy or "the newest"
                    )
                    continue
                yield row
                if version == HERE:
                    yield from variants(interpreter)


def variants(interpreter: Path) -> Iterator[Row]:
    """Rows for one environment under other circumstances."""
    features = command(interpreter, CROSSCHECK, "--features").split()
    for left in reversed(range(len(features))):
        off = " ".join(features[left:])
        yield ask(f"without {off}", interpreter, NPY_DISABLE_CPU_FEATURES=off)
    flags = Path("/proc/cpuinfo").read_text().split()
    for core, needs in CORES.items():
        if set(needs.split()) & set(flags):
            yield ask(f"OpenBLAS {core}", interpreter, OPENBLAS_CORETYPE=core)
    for threads in ("1", "2"):
        yield ask(f"{threads} thread{'s' * (threads > '1')}", interpreter, OPENBLAS_NUM_THREADS=threads)
    yield ask("python -O", interpreter, "-O")


# Other machines


def emulated(name: str, folder: Path) -> Iterator[Row]:
    """Rows for a machine that is emulated."""
    arch, words = MACHINES[name]
    try:
        words = f"{arch}, {words}"
        python, libraries = unpacked(name, arch, folder)
    except Failed as failure:
        yield Row(words, "", "", f"emulated, Python of Debian {DEBIAN}", str(failure))
        return
    runner = [f"qemu-{arch}-static", "-L", folder / "root", "-E", f"PYTHONPATH={libraries}:{ROOT}"]
    runner += ["-E", "PYTHONDONTWRITEBYTECODE=1", "-E", "OPENBLAS_NUM_THREADS=1"]
    row = ask("emulated", *runner, python)
    if not row.cases:
        yield row._replace(machine=words)
        return
    yield row
    features = command(*runner, python, CROSSCHECK, "--features").strip()
    yield ask(f"emulated, without {features}", *runner, "-E", f"NPY_DISABLE_CPU_FEATURES={features}", python)


def unpacked(name: str, arch: str, folder: Path) -> tuple[Path, Path]:
    """The interpreter of a machine, and the folder of its wheels; nothing has to run for that."""
    tools = ("debootstrap", "dpkg-deb", f"qemu-{arch}-static")
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        raise Failed(f"{', '.join(missing)} missing: apt-get install debootstrap qemu-user-static")
    libraries = folder / "wheels"
    tags = [f"manylinux_2_{n}_{arch}" for n in (28, 27, 17)] + [f"manylinux2014_{arch}"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    options = ["--only-binary=:all:", "--no-deps", "--python-version", "3.13", "--implementation", "cp"]
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", libraries, *options, *platforms]
    try:
        command(*install, "numpy", "ml_dtypes", "msgpack")
    except Failed as failure:
        raise Failed(f"pip has no wheel for it ({failure})") from None
    root = folder / "root"
    only_unpacked = [f"--arch={name}", "--foreign", "--variant=minbase", "--include=python3"]
    command("debootstrap", *only_unpacked, DEBIAN, root, MIRROR)
    for package in sorted((root / "var" / "cache" / "apt" / "archives").glob("*.deb")):
        command("dpkg-deb", "-x", package, root)
    return root / "usr" / "bin" / "python3.13", libraries


# The table


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    head = ["machine", "Python", "NumPy", "what else", "digest of all cases"]
    lines = [head, ["---"] * len(head), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write(rows: Sequence[Row]) -> None:
    """Put the table where it belongs in the page."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all environments; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pythons", default=",".join(pythons()), help="versions (default: %(default)s)")
    parser.add_argument("--machines", default=",".join(MACHINES), help="(default: %(default)s; none: '')")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    versions = {version: path for version, path in pythons().items() if version in options.pythons.split(",")}
    rows: list[Row] = []

    def keep(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            print(" | ".join(row.cells), flush=True)

    keep(here(versions))
    for name in filter(None, options.machines.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            keep(emulated(name, Path(folder)))
    if options.write:
        write(rows)
    ran = [row for row in rows if row.cases]
    wrong, crashed = [row for row in ran if row.wrong], [row for row in rows if row.crashed]
    absent = len(rows) - len(ran) - len(crashed)
    print(f"{len(ran)} environments, {len(wrong)} not as pinned; {len(crashed)} crashed, {absent} not run")
    return 1 if wrong or crashed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
