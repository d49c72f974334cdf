"""tools/conform.py finds what is wrong: testees that are wrong on purpose, and checks that are removed."""

from __future__ import annotations

import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import mutants
import pytest
from mutants import conform

ROOT = Path(__file__).parents[1]
PYTHON = f"{sys.executable} {ROOT / 'tools' / 'testee.py'}"
SHRINKING = "made/shorter-than-it-says"
WIDE = "2G"  # of address space: NumPy takes some for every processor


class Done(NamedTuple):
    """What the runner ended with, and what it printed."""

    status: int
    output: str


def run(testee: str, *arguments: object) -> Done:
    """What the runner does with a testee: in this process, the testee in its own."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        status = conform.main(["--testee", testee, "--memory", WIDE, *map(str, arguments)])
    return Done(status, printed.getvalue())


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> conform.Suite:
    """All cases."""
    return conform.load_suite(conform.MANIFEST, tmp_path_factory.mktemp("made"))


def test_the_python_reader_passes_every_case() -> None:
    """Level 2, all cases and vectors; the counts are those of the manifest."""
    done = run(PYTHON, "--level", 2)
    assert done.status == 0, done.output
    for kind, count in json.loads(conform.MANIFEST.read_text("utf-8"))["counts"].items():
        assert f"{count} of {count} {kind}" in done.output


def test_the_python_reader_passes_every_folder() -> None:
    """Level 2, all model folders of the manifest; and nothing of them without --folders."""
    done = run(PYTHON, "--level", 2, "--folders", "--only", "folders/*")
    assert done.status == 0, done.output
    count = sum(json.loads(conform.MANIFEST.read_bytes())["folders"]["counts"].values())
    assert f"; {count} folders; " in done.output
    assert run(PYTHON, "--only", "folders/*").status == 2


def test_the_python_reader_passes_level_1() -> None:
    """Exit status and line of a process a file, on one case of each verdict and what cannot be read."""
    patterns = ("spec/*", "preamble/flag-bit-23", "messagepack/trailing-nil", "made/fifo", "made/missing")
    done = run(PYTHON, "--level", 1, *(part for pattern in patterns for part in ("--only", pattern)))
    assert done.status == 0, done.output


BEHAVING_BADLY = [name for name, wrong in mutants.WRONG.items() if wrong.module == "testee"]


@pytest.mark.parametrize("name", [name for name in mutants.WRONG if name not in BEHAVING_BADLY])
def test_a_wrong_reader_is_caught(name: str, suite: conform.Suite) -> None:
    """A reader that accepts, refuses or computes wrongly fails the case that is named for it.

    It is asked in this process, which takes a tenth of the time; that the runner sees what a process says is
    shown with `ignores-flags` below, and by those that behave badly.
    """
    wrong = mutants.WRONG[name]
    case = [check for check in suite.checks if check.id == wrong.case]
    assert mutants.caught_by(mutants.load(wrong.module, mutants.replaced(wrong)), case) == wrong.case


@pytest.mark.parametrize("name", BEHAVING_BADLY)
def test_a_testee_that_behaves_badly_is_caught(name: str, tmp_path: Path) -> None:
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
    assert done.status == 1, done.output
    outcomes = {case["id"]: case["outcome"] for case in json.loads(report.read_text("utf-8"))["cases"]}
    assert outcomes[wrong.case] in ("failed", "crashed")
    assert wrong.case in done.output


def test_a_known_failure_is_expected_and_its_pass_is_not(tmp_path: Path) -> None:
    """With a known-failures file a failure is no failure, and a pass is one."""
    known = tmp_path / "known.txt"
    case = mutants.WRONG["ignores-flags"].case
    known.write_text(f"{case}  # flags come later\n", "utf-8")
    wrong = f"{sys.executable} {ROOT / 'tests' / 'mutants.py'} ignores-flags"
    options = ("--level", 2, "--only", case, "--known", known)
    assert run(wrong, *options).status == 0
    done = run(PYTHON, *options)
    assert done.status == 1
    assert "passes, but is a known failure" in done.output


@pytest.mark.parametrize(("done", "status", "outcome"), [("()", 0, "skipped"), ("('two-bit',)", 1, "failed")])
def test_what_is_optional_is_skipped_as_a_whole(done: str, status: int, outcome: str, tmp_path: Path) -> None:
    """A testee without exchange layouts passes; one that does a part of them fails the others."""
    script, report = tmp_path / "testee.py", tmp_path / "report.json"
    path = str(ROOT / "tools")
    source = f"import sys; sys.path.insert(0, {path!r})\nimport testee\ntestee.LAYOUTS = {done}\n"
    script.write_text(f"{source}sys.exit(testee.main(sys.argv[1:]))\n", "utf-8")
    options = ("--level", 2, "--only", "exchange/*", "--report", report)
    result = run(f"{sys.executable} {script}", *options)
    assert result.status == status, result.output
    outcomes = {case["id"]: case["outcome"] for case in json.loads(report.read_text("utf-8"))["cases"]}
    for name, found in outcomes.items():
        skipped = name.startswith("exchange/") and (done == "()" or not name.startswith("exchange/two-bit"))
        assert found == (outcome if skipped else "passed"), name
    assert len(outcomes) > 200


def test_the_page_names_cases(suite: conform.Suite) -> None:
    """Each pattern that docs/implementing.md gives to --only is that of some case."""
    page = (ROOT / "docs" / "implementing.md").read_text("utf-8")
    patterns = re.findall(r"--only '([^']+)'", page)
    assert len(patterns) > 20
    for pattern in patterns:
        assert any(conform.is_chosen(c.id, c.clause, only=[pattern]) for c in suite.checks), pattern
    files = sum(suite.declared[verdict] for verdict in ("valid", "invalid", "unsupported"))
    assert f"each of {files:,} files" in page


SITES = [site for site in mutants.sites() if site.key not in mutants.EXEMPT]


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_removed_check_is_noticed(site: mutants.Site, suite: conform.Suite) -> None:
    """No check of the reader can be removed without a case that fails."""
    if site.clause == "READ-4" and not any(check.id == SHRINKING for check in suite.checks):
        pytest.skip("this system has no file that is shorter than it says")
    testee, clause = mutants.load(site.module, mutants.removed(site)), mutants.clause_of(site)
    own = [check for check in suite.checks if check.clause == clause or check.kind in ("vectors", "made")]
    assert mutants.caught_by(testee, own, clause)


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
    assert done.status == 2
    assert "changed in transfer" in done.output


def test_a_testee_that_is_not_there_passes_nothing() -> None:
    """Not even the end of its input; and what was run is no claim that it passed."""
    done = run(f"{sys.executable} nowhere.py", "--level", 2, "--only", "spec/*")
    assert done.status == 1
    assert "NOT as expected" in done.output
    assert re.search(r"^all +3 +0 ", done.output, re.MULTILINE), done.output
    assert "run: " in done.output


def test_vectors_are_chosen_by_the_requirement_that_they_break(suite: conform.Suite, tmp_path: Path) -> None:
    """As files are, and by nothing that they do not."""
    chosen = conform.load_suite(conform.MANIFEST, tmp_path, ["XL-1"]).checks
    assert {check.kind for check in chosen} == {"vectors"}
    assert 0 < len(chosen) < len(suite.checks)
