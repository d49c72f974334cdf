"""The same bits everywhere: the digests of tools/crosscheck.py in many environments, as a table.

  - fresh environments of every Python there is (--pythons; python3.10 to python3.14 on the path, and
    pyenv's) with NumPy 1.26, 2.0 and the newest, as far as pip has them for each other;
  - in those of this Python, NumPy's dispatch reduced feature by feature, each kernel of OpenBLAS that the CPU
    can run, one and two threads, and `python -O`;
  - other machines (--machines), one of them big-endian, under QEMU's user-mode emulation, with Debian's
    Python and NumPy (by debootstrap, unpacked and not installed) and with ml_dtypes, which Debian lacks,
    built for them from its source; there all golden files and vectors, too. That takes root, cross compilers,
    and a quarter of an hour.

Prints a row for each, and with --write puts the table into docs/environments.md. The exit status is 0 if all
digests that were to be computed are those in fixtures/crosscheck.json; what could not be had is said.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CROSSCHECK, CONFORM, TESTEE = (ROOT / "tools" / f"{name}.py" for name in ("crosscheck", "conform", "testee"))
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
DEBIAN = "sid"  # of stable releases, mirrors may lack files for s390x
MIRROR = "http://deb.debian.org/debian"
MACHINES = {"arm64": ("aarch64", "64 bits, little-endian"), "s390x": ("s390x", "64 bits, big-endian")}
BEGIN, END = "<!-- made by tools/environments.py -->\n", "<!-- end -->\n"


class Row(NamedTuple):
    """An environment, and what came of it."""

    machine: str
    python: str
    numpy: str
    what: str
    result: str  # the digest of all cases, what else came of them, or why there are none
    cases: int = 0
    wrong: tuple[str, ...] = ()
    crashed: bool = False  # the corpus was begun, and did not come to its end

    @property
    def cells(self) -> list[str]:
        """The row as it is printed."""
        why = "crashed" if self.crashed else "not run"
        verdict = self.result if self.cases else f"{why}: {self.result}"
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
    digest = f"`{said['total'][:16]}`"
    return Row(machine, said["python"], said["numpy"], what, digest, said["cases"], tuple(said["wrong"]))


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
    words = f"{arch}, {words}"
    try:
        python, variables = unpacked(name, arch, folder)
    except Failed as failure:
        yield Row(words, "", "", f"emulated, Python of Debian {DEBIAN}", str(failure))
        return
    runner = [f"qemu-{arch}-static", "-L", folder]
    runner += [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    row = ask("emulated", *runner, python)
    if not row.cases:
        yield row._replace(machine=words)
        return
    yield row
    yield conform(row, [*runner, python, TESTEE])
    if features := command(*runner, python, CROSSCHECK, "--features").strip():
        yield ask(
            f"emulated, without {features}", *runner, "-E", f"NPY_DISABLE_CPU_FEATURES={features}", python
        )


def conform(row: Row, testee: Sequence[object]) -> Row:
    """The row of what *testee* makes of the golden files and vectors."""
    row = row._replace(what=f"{row.what}, {CONFORM.name}")
    options = ["--level", "2", "--folders", "--memory", "0", "--timeout", "120"]
    try:
        said = command(sys.executable, CONFORM, *options, "--testee", shlex.join(map(str, testee)))
    except Failed as failure:
        return row._replace(result=str(failure), cases=0, crashed=True)
    cases = int(re.findall(r"^all +(\d+)", said, re.MULTILINE)[0])
    return row._replace(result=f"{cases:,} cases, all as expected", cases=cases)


def unpacked(name: str, arch: str, root: Path) -> tuple[Path, dict[str, str]]:
    """The interpreter of a machine, unpacked into *root*, and its variables; nothing has to run for that."""
    compiler = f"{arch}-linux-gnu-g++"
    tools = ("debootstrap", "dpkg-deb", f"qemu-{arch}-static", compiler)
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        packages = f"debootstrap qemu-user-static g++-{arch}-linux-gnu"
        raise Failed(f"{', '.join(missing)} missing: apt-get install {packages}")
    wanted = "python3,libpython3-dev,python3-numpy,python3-msgpack,libopenblas0-pthread"
    options = [f"--arch={name}", "--foreign", "--variant=minbase", f"--include={wanted}"]
    command("debootstrap", *options, DEBIAN, root, MIRROR)
    for package in sorted((root / "var" / "cache" / "apt" / "archives").glob("*.deb")):
        command("dpkg-deb", "-x", package, root)
    libraries = root / "usr" / "lib"
    [python] = root.glob("usr/bin/python3.??")
    [numpy] = libraries.glob("*/python3-numpy/numpy/_core/include")
    [blas] = libraries.glob("*/openblas-pthread")
    ml_dtypes = build_ml_dtypes(compiler, root, python.name, numpy)
    paths = [ml_dtypes, libraries / "python3" / "dist-packages", ROOT]
    variables = {"PYTHONPATH": ":".join(map(str, paths)), "LD_LIBRARY_PATH": str(blas)}
    return python, variables | {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}


def build_ml_dtypes(compiler: str, root: Path, python: str, numpy: Path) -> Path:
    """A folder in *root* with ml_dtypes, built for the *python* there and for NumPy's headers *numpy*."""
    built, headers = root / "built", root / "usr" / "include"
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=ml_dtypes"]
    command(*download, "-d", built, "ml_dtypes")
    [archive] = built.iterdir()
    shutil.unpack_archive(archive, built)
    [source] = built.glob("ml_dtypes-*/")
    package = built / "ml_dtypes"
    shutil.copytree(source / "ml_dtypes", package)
    includes = [source, source / "third_party" / "eigen", numpy, headers / python]
    options = ["-std=c++17", "-DEIGEN_MPL2_ONLY", "-ftrapping-math", "-O1", "-fPIC", "-shared"]
    options += [*(f"-I{folder}" for folder in includes), f"-idirafter{headers}"]  # the compiler has a libc
    command(compiler, *options, *(package / "_src").glob("*.cc"), "-o", package / "_ml_dtypes_ext.so")
    return built


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
