"""tools/conform.py finds what is wrong: testees that are wrong on purpose, and checks that are removed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mutants
import pytest
from mutants import conform

ROOT = Path(__file__).parents[1]
PYTHON = f"{sys.executable} {ROOT / 'tools' / 'testee.py'}"
WIDE = "2G"  # of address space: NumPy takes some for every processor


def run(testee: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What the runner does with a testee."""
    command = [sys.executable, str(ROOT / "tools" / "conform.py"), "--testee", testee, "--memory", WIDE]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> conform.Suite:
    """All cases."""
    return conform.load_suite(conform.MANIFEST, tmp_path_factory.mktemp("made"))


def test_the_python_reader_passes_every_case() -> None:
    """Level 2, all cases and vectors; the counts are those of the manifest."""
    done = run(PYTHON, "--level", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind, count in json.loads(conform.MANIFEST.read_text("utf-8"))["counts"].items():
        assert f"{count} of {count} {kind}" in done.stdout


def test_the_python_reader_passes_every_folder() -> None:
    """Level 2, all model folders of the manifest; and nothing of them without --folders."""
    done = run(PYTHON, "--level", 2, "--folders", "--only", "folders/*")
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(json.loads(conform.MANIFEST.read_bytes())["folders"]["counts"].values())
    assert f"; {count} folders; " in done.stdout
    assert run(PYTHON, "--only", "folders/*").returncode == 2


def test_the_python_reader_passes_level_1() -> None:
    """Exit status and line of a process a file, on one case of each verdict and what cannot be read."""
    patterns = ("spec/*", "preamble/flag-bit-23", "messagepack/trailing-nil", "made/fifo", "made/missing")
    done = run(PYTHON, "--level", 1, *(part for pattern in patterns for part in ("--only", pattern)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", mutants.WRONG)
def test_a_wrong_testee_is_caught(name: str, tmp_path: Path) -> None:
    """Each fails the case that is named for it, in a run of that case."""
    wrong, report = mutants.WRONG[name], tmp_path / "report.json"
    testee = f"{sys.executable} {ROOT / 'tests' / 'mutants.py'} {name}"
    options = (
        "--level",
        wrong.level,
        "--only",
        wrong.case,
        "--only",
        mutants.ANY,
        "--timeout",
        2,
        "--report",
        report,
    )
    done = run(testee, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    outcomes = {case["id"]: case["outcome"] for case in json.loads(report.read_text("utf-8"))["cases"]}
    assert outcomes[wrong.case] in ("failed", "crashed")
    assert wrong.case in done.stdout


def test_a_known_failure_is_expected_and_its_pass_is_not(tmp_path: Path) -> None:
    """With a known-failures file a failure is no failure, and a pass is one."""
    known = tmp_path / "known.txt"
    case = mutants.WRONG["ignores-flags"].case
    known.write_text(f"{case}  # flags come later\n", "utf-8")
    wrong = f"{sys.executable} {ROOT / 'tests' / 'mutants.py'} ignores-flags"
    options = ("--level", 2, "--only", case, "--known", known)
    assert run(wrong, *options).returncode == 0
    done = run(PYTHON, *options)
    assert done.returncode == 1
    assert "passes, but is a known failure" in done.stdout


def test_removed_checks_are_noticed(suite: conform.Suite) -> None:
    """A sample of them; `python tests/mutants.py score` tries all."""
    for site in [site for site in mutants.sites() if site.key not in mutants.EXEMPT][::16]:
        testee = mutants.load(site.module, mutants.removed(site))
        own = [
            check for check in suite.checks if site.clause in (check.clause, "") or check.kind == "vectors"
        ]
        assert mutants.caught_by(testee, own or suite.checks, site.clause), (
            f"no case notices that {site} is gone"
        )


def test_the_unchanged_reader_passes_in_this_process(suite: conform.Suite) -> None:
    """What catches a mutant is the mutation, not the way in which mutants are loaded and asked."""
    checks = [check for check in suite.checks if check.kind != "made"][::12]
    assert mutants.caught_by(mutants.load("packing", lambda source: source), checks) is None


def test_every_exemption_is_that_of_a_check() -> None:
    """No exemption outlives its check."""
    assert mutants.EXEMPT.keys() <= {site.key for site in mutants.sites()}


def test_a_changed_fixture_is_refused(tmp_path: Path) -> None:
    """A file that is not that of the manifest, as after a transfer as text, is an error of usage."""
    content = json.loads(conform.MANIFEST.read_text("utf-8"))
    case = next(case for case in content["cases"] if case["verdict"] == "invalid")
    content |= {"cases": [case], "vectors": []}
    content["counts"] = {"valid": 0, "invalid": 1, "unsupported": 0, "vectors": 0}
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(content), "utf-8")
    (tmp_path / case["file"]).parent.mkdir(parents=True)
    (tmp_path / case["file"]).write_bytes(b"other bytes")
    done = run(PYTHON, "--manifest", manifest)
    assert done.returncode == 2
    assert "changed in transfer" in done.stderr
