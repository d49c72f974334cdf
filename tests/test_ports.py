"""The ports: built as their READMEs say, run over all fixtures, and fuzzed against the package.

What is built goes to temporary folders. A test is skipped where a compiler or Node is missing, and
says so; `.ci/run` installs them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tritcodec import verify_file

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
PORTS = ROOT / "ports"
SECONDS = 300  # for any one command
pytestmark = pytest.mark.xdist_group("ports")  # one worker builds them, once
HOSTILE = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1", "UBSAN_OPTIONS": "halt_on_error=1"}

Command = list[str]
Build = Callable[[str], Command]  # from the name of a port


def need(program: str) -> str:
    """The path of a program; skips the test, loudly, where it is not on this machine."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is MISSING, so that this port is NOT TESTED")
    return found


def run(command: Sequence[str], **options: Any) -> str:
    """The standard output of a command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **options)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    output: str = done.stdout
    return output


def build_c(folder: Path, program: str) -> Command:
    """The C port by its Makefile, warnings as errors; *program* is trit, or trit-asan with sanitizers."""
    need("cc")
    run([need("make"), "-C", str(PORTS / "c"), f"BUILD={folder}", str(folder / program)])
    return [str(folder / program)]


def build_rust(folder: Path) -> Command:
    """The Rust port, warnings as errors."""
    settings = os.environ | {"CARGO_TARGET_DIR": str(folder), "RUSTFLAGS": "-D warnings"}
    manifest = str(PORTS / "rust" / "Cargo.toml")
    run(
        [need("cargo"), "build", "--release", "--offline", "--locked", "--manifest-path", manifest],
        env=settings,
    )
    return [str(folder / "release" / "trit")]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a port, once."""
    built: dict[str, Command] = {}

    def command(name: str) -> Command:
        if name not in built:
            folder = tmp_path_factory.mktemp(name)
            if name == "rust":
                built[name] = build_rust(folder)
            elif name == "js":
                built[name] = [need("node"), str(PORTS / "js" / "main.js")]
            else:
                built[name] = build_c(folder, name)
        return built[name]

    return command


RUNS = {  # what is run, at which level, over which cases
    "C, a process a file": ("trit", ["--level", "1"]),
    "C, with sanitizers": ("trit-asan", ["--level", "2", "--memory", "0", "--timeout", "30"]),
    "JavaScript, a process a file": ("js", ["--level", "1", "--memory", "0", "--only", "order/*"]),
    "JavaScript": ("js", ["--level", "2", "--memory", "0", "--timeout", "30"]),
    "Rust, a process a file": ("rust", ["--level", "1"]),
    "Rust": ("rust", ["--level", "2"]),
}


@pytest.fixture(scope="session")
def running(build: Build) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The runs of tools/conform.py, all of them at once: each mostly waits for its testee."""
    processes = {}
    for name, (port, options) in RUNS.items():
        try:
            command = [
                sys.executable,
                str(TOOLS / "conform.py"),
                "--testee",
                shlex.join(build(port)),
                *options,
            ]
        except pytest.skip.Exception:
            continue  # the test of this port is skipped, and says why
        processes[name] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | HOSTILE
        )
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_sources_are_clean() -> None:
    """Nothing that is built or tested leaves a file in the ports' folders that Git would see."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository")
    ignored = {"c": "build/trit", "rust": "target/release/trit"}
    for port, product in ignored.items():
        run(["git", "check-ignore", "-q", str(PORTS / port / product)], cwd=ROOT)


@pytest.mark.parametrize("name", ["trit", "rust", "js"])
def test_its_own_tests(name: str, build: Build) -> None:
    """A port's own tests pass; they hold its quotations against SPEC.md."""
    command = build(name)
    if name == "trit":
        run([sys.executable, str(PORTS / "c" / "tests" / "selftest.py"), *command])
    elif name == "rust":
        manifest, target = str(PORTS / "rust" / "Cargo.toml"), str(Path(command[0]).parents[1])
        test = [need("cargo"), "test", "--offline", "--locked", "--manifest-path", manifest]
        assert "test result: ok. 7 passed" in run(test, env=os.environ | {"CARGO_TARGET_DIR": target})
    else:
        output = run([command[0], "--test", str(PORTS / "js" / "tests" / "core.test.mjs")])
        assert "every quoted sentence stands in SPEC.md under its id" in output


@pytest.mark.parametrize("name", RUNS)
def test_fixtures(name: str, build: Build, running: dict[str, subprocess.Popen[str]]) -> None:
    """All fixtures pass with no known failures, under AddressSanitizer and UBSan as well."""
    build(RUNS[name][0])  # skips where it cannot be built
    output, _ = running[name].communicate(timeout=SECONDS)
    assert running[name].returncode == 0, output
    assert "all as expected" in output


@pytest.mark.parametrize("argument", ["missing", "", "."])
@pytest.mark.parametrize("name", ["trit", "rust", "js"])
def test_what_cannot_be_read(name: str, argument: str, build: Build, tmp_path: Path) -> None:
    """A file that is not there, or is a folder, has no verdict but exit status 2."""
    path = str(tmp_path / argument) if argument else ""
    done = subprocess.run([*build(name), "verify", path], capture_output=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("name", ["trit", "js"])
def test_what_stands_after_the_header_is_placed(name: str, build: Build) -> None:
    """At the same byte of the file as the package places it."""
    path = ROOT / "fixtures" / "invalid" / "messagepack" / "trailing-nil.trit"
    (finding,) = verify_file(path).findings
    done = subprocess.run([*build(name), "verify", str(path)], capture_output=True, text=True, check=False)
    assert finding.clause in done.stdout
    assert re.findall(r"byte \d+", done.stderr) == [finding.where]


def test_c_example(tmp_path: Path) -> None:
    """The program in the C port's README decodes appendix B of SPEC.md as it says."""
    text = (PORTS / "c" / "README.md").read_text("utf-8")
    (tmp_path / "example.c").write_text(text.split("```c\n")[1].split("```")[0], "utf-8")
    program = str(tmp_path / "example")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror", f"-I{PORTS / 'c'}"]
    run([need("cc"), *flags, "-o", program, str(tmp_path / "example.c")])
    first = run([program, str(ROOT / "fixtures" / "valid" / "spec" / "appendix-b.trit")])
    assert first == "bd000000\n"
    assert f"it prints `{first.strip()}`" in text


def fuzz(testee: Command, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tools/fuzz_diff.py."""
    command = [sys.executable, str(TOOLS / "fuzz_diff.py"), "--testee", shlex.join(testee), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize(("name", "inputs"), [("trit", 3000), ("rust", 1500), ("js", 800)])
def test_fuzzing(name: str, inputs: int, build: Build, tmp_path: Path) -> None:
    """The package and each port agree on some thousand damaged files."""
    done = fuzz(build(name), "--seed", "1", "--inputs", str(inputs), "--save", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f" {inputs:,} inputs" in done.stdout
    assert " 0 failures" in done.stdout


WRONG = {  # what stands in trit.c, what a bug would make of it, and what the two then disagree on
    "padding forgotten": ("byte / POWER[used] != (POWER[5 - used] - 1) / 2", "0", "verdict"),
    "shift forgotten": ("t->shift + t->depth - depth", "t->shift", "decode"),
    "NaN for infinity": ("sign | 0x7C00", "sign | 0x7E00", "decode"),
    "a crash": ('return broken("MP-6", v.at)', "abort()", "the port crashes"),
    "another clause": (
        'return broken("MP-1"',
        'return broken("MP-2"',
        "requirement that was broken on purpose",
    ),
}
FIRST = {"NaN for infinity": 800}  # some way before the first input that shows it, where that is late
INPUTS = {"a crash": 100}  # fewer where each failure takes long to make smaller: the port is started again


@pytest.mark.parametrize("bug", WRONG)
def test_fuzzing_finds_bugs(bug: str, tmp_path: Path) -> None:
    """A port with a bug is found out, and the input is kept, made smaller."""
    compiler = need("cc")
    right, wrong, what = WRONG[bug]
    source = (PORTS / "c" / "trit.c").read_text("utf-8")
    assert right in source
    for file in ("main.c", "sha256.c"):
        shutil.copy(PORTS / "c" / file, tmp_path)
    (tmp_path / "trit.c").write_text(source.replace(right, wrong), "utf-8")
    run([compiler, "-std=c99", "-O1", "-w", "-o", str(tmp_path / "trit"), str(tmp_path / "main.c")])
    done = fuzz(
        [str(tmp_path / "trit")],
        "--first",
        str(FIRST.get(bug, 0)),
        "--inputs",
        str(INPUTS.get(bug, 400)),
        "--save",
        str(tmp_path / "kept"),
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stdout + done.stderr
    assert f"\n{what}: " in "\n" + done.stdout
    kept = sorted((tmp_path / "kept").glob("*.small.trit"))
    assert kept
    assert all(
        path.stat().st_size <= path.with_suffix("").with_suffix(".trit").stat().st_size for path in kept
    )


MISUSE = """
#include "trit.c"
#include <stdio.h>

int main(int count, char **arguments) {
    struct file f;
    if (open_file(&f, arguments[count - 1]) != NULL) return 1;
    for (size_t i = 0; i < f.count; i++) {
        struct tensor *t = &f.tensors[i];
        clause found = load(&f, t, t->is_trit ? t->depth + 1 : 1);
        puts(found == NULL ? "loaded" : found);
        if (t->is_trit && (load(&f, t, t->depth) != NULL || load(&f, t, 1) != NULL)) return 2;
        for (unsigned p = 4; p < MAX_SEGMENTS; p++)
            if (t->plane[p] != NULL) return 3;
    }
    close_file(&f);
    return 0;
}
"""


def test_c_loads_what_there_is(tmp_path: Path) -> None:
    """More planes than a tensor has, and planes of a raw one, are refused; loading anew leaks nothing."""
    (tmp_path / "misuse.c").write_text(MISUSE, "utf-8")
    program = str(tmp_path / "misuse")
    flags = ["-std=c99", "-g", "-fsanitize=address,undefined", "-Wno-unused-function", f"-I{PORTS / 'c'}"]
    run([need("cc"), *flags, "-o", program, str(tmp_path / "misuse.c")])
    said = run([program, str(ROOT / "fixtures/valid/spec/appendix-b.trit")], env=os.environ | HOSTILE)
    assert set(said.splitlines()) == {"the tensor has no such planes"}
