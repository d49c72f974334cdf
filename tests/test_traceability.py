"""The matrix of requirements has no hole; and whatever is taken away from it makes one.

Things are deleted in copies of the sources, in memory: each clause, quotation, check, test and case in turn.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # a command, which stands in no package

import traceability  # noqa: E402  # after the path is known
from traceability import NO_FILE, Row, Sources, cases_of, holes, matrix  # noqa: E402  # as above

SOURCES = traceability.load()
ROWS = {row.requirement.id: row for row in matrix(SOURCES)}


def smaller() -> Sources:
    """The sources with a valid and a broken file a requirement: what is taken away from these is missed."""
    kept = {name for row in ROWS.values() for name in (*row.valid[:1], *row.broken[:1])}
    return with_cases([case for case in cases_of(SOURCES.manifest) if case["id"] in kept])


def with_cases(cases: list[dict[str, Any]]) -> Sources:
    """The sources with other cases, those of folders among them, and their files."""
    stored = frozenset(case["file"] for case in cases)
    manifest = SOURCES.manifest | {
        "cases": [case for case in cases if "folder" not in case],
        "folders": {"cases": [case for case in cases if "folder" in case]},
    }
    return replace(SOURCES, manifest=manifest, stored=stored)


def with_text(kind: str, name: str, text: str) -> Sources:
    """The sources with another text of a module of the package, a test, or other prose."""
    return replace(SMALL, **{kind: getattr(SMALL, kind) | {name: text}})


NEW = f"LAY-{9}"  # an id that SPEC.md lacks, and this file, too
SMALL = smaller()
PAGE = traceability.page(SMALL)


def test_there_is_no_hole() -> None:
    """Every requirement is quoted, checked and shown, nothing names another, and the page says so."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "traceability.py"), "--check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert holes(SMALL) == []


# What is taken away


@pytest.mark.parametrize("clause", ROWS)
def test_a_clause_that_is_deleted(clause: str) -> None:
    """Without its paragraph in SPEC.md, each place that names the requirement does so in vain."""
    spec = re.sub(rf"^\*\*{clause}\.\*\* .*?\n\n", "", SMALL.spec, flags=re.MULTILINE | re.DOTALL)
    found = holes(replace(SMALL, spec=spec))
    row = ROWS[clause]
    for place in row.raised:
        assert f"{place} names {clause}, which SPEC.md lacks" in found
    for name in row.broken[:1]:
        assert f"the case {name} breaks {clause}, which SPEC.md lacks" in found
    assert [hole for hole in found if clause in hole and "lacks" in hole]


@pytest.mark.parametrize("clause", ROWS)
def test_a_quotation_that_is_deleted(clause: str) -> None:
    """Where the package quotes a requirement nowhere, that is said."""
    begin = '"' + ROWS[clause].requirement.sentence[:20]
    package = {name: text.replace(begin, '"Not ' + begin[1:]) for name, text in SMALL.package.items()}
    assert package != SMALL.package
    assert f"{clause} is quoted nowhere in the package" in holes(replace(SMALL, package=package))


def checks(source: str) -> Iterator[tuple[str, str]]:
    """Each clause that a module names, and the module without the statement that does.

    Where that is the head of a loop, only the name is taken away.
    """
    lines = source.splitlines(keepends=True)
    tree = traceability.parsed(source)
    simple = [
        node for node in ast.walk(tree) if isinstance(node, ast.Raise | ast.Expr | ast.Assign | ast.Return)
    ]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ROWS):
            continue
        inner = range(node.lineno, (node.end_lineno or 0) + 1)
        around = [s for s in simple if s.lineno <= inner[0] and inner[-1] <= (s.end_lineno or 0)]
        first, last, new = (
            node.lineno - 1,
            node.lineno,
            lines[node.lineno - 1].replace(f'"{node.value}"', '""'),
        )
        if around:
            first, last = around[-1].lineno - 1, around[-1].end_lineno or 0
            new = " " * around[-1].col_offset + "pass\n"
        yield node.value, "".join([*lines[:first], new, *lines[last:]])


CHECKS = [(name, *check) for name, text in SMALL.package.items() for check in checks(text)]


@pytest.mark.parametrize(
    ("module", "clause", "text"), [pytest.param(*check, id=f"{check[0]} {check[1]}") for check in CHECKS]
)
def test_a_check_that_is_deleted(module: str, clause: str, text: str) -> None:
    """Without its only check a requirement has a hole; without one of several, the page differs."""
    sources = with_text("package", module, text)
    row = next(row for row in matrix(sources) if row.requirement.id == clause)
    if not row.raised and (row.broken or row.vectors):
        assert f"{clause} has no check: the package does not name it" in holes(sources)
    elif row.raised == ROWS[clause].raised:  # its function names it twice
        assert text.count(f'"{clause}"') < SMALL.package[module].count(f'"{clause}"')
    else:
        assert traceability.page(sources) != PAGE


def test_every_check_was_deleted() -> None:
    """The test above had all of them: each place that the matrix has."""
    assert {clause for _, clause, _ in CHECKS} == {clause for clause, row in ROWS.items() if row.raised}


@pytest.mark.parametrize("clause", [clause for clause, row in ROWS.items() if row.broken])
def test_files_that_are_deleted(clause: str) -> None:
    """A requirement that no file breaks any more has a hole."""
    left = [
        case
        for case in cases_of(SMALL.manifest)
        if case["clause"] != clause or ("folder" in case) != traceability.is_of_folders(clause)
    ]
    found = holes(with_cases(left))
    assert found == [f"{clause} has no file that breaks it, and no reason for that"]


@pytest.mark.parametrize("clause", [clause for clause, row in ROWS.items() if row.valid])
def test_valid_files_that_are_deleted(clause: str) -> None:
    """So has one that is at stake in no valid file any more."""
    row = ROWS[clause]
    left = [case for case in cases_of(SMALL.manifest) if case["id"] not in row.valid]
    assert f"{clause} has no valid file with {row.stake}" in holes(with_cases(left))


@pytest.mark.parametrize("clause", [clause for clause, row in ROWS.items() if not row.broken])
def test_tests_that_are_deleted(clause: str) -> None:
    """Where no file can show a requirement, and no test names it any more, that is said."""
    tests = {name: text.replace(clause, "") for name, text in SMALL.tests.items()}
    found = holes(replace(SMALL, tests=tests))
    assert f"{clause} is shown by no test: no docstring names it" in found


def test_a_single_file_that_is_deleted() -> None:
    """A case without its file, and a file without its case, are found; and the page has other counts."""
    case, *others = cases_of(SMALL.manifest)
    missing = replace(SMALL, stored=SMALL.stored - {case["file"]})
    assert holes(missing) == [f"fixtures/{case['file']} is missing"]
    unknown = replace(with_cases(others), stored=SMALL.stored)
    assert f"fixtures/{case['file']} is no case of the manifest" in holes(unknown)
    every = cases_of(SOURCES.manifest)
    for one in SOURCES.manifest["cases"][::500]:
        left = [case for case in every if case is not one]
        assert traceability.page(with_cases(left)) != traceability.page(SOURCES)


# What is there, and should not be


@pytest.mark.parametrize(
    ("kind", "name", "text", "hole"),
    [
        ("package", "layout", f'CLAUSE = "{NEW}"\n', f"layout names {NEW}, which SPEC.md lacks"),
        ("package", "layout", f"# {NEW} is obeyed.\n", f"layout speaks of {NEW}, which SPEC.md lacks"),
        ("tests", "test_layout", f"# Shows {NEW}.\n", f"test_layout speaks of {NEW}, which SPEC.md lacks"),
        (
            "prose",
            "docs/protocol.md",
            f"See {NEW}.\n",
            f"docs/protocol.md speaks of {NEW}, which SPEC.md lacks",
        ),
    ],
)
def test_an_id_that_the_document_lacks(kind: str, name: str, text: str, hole: str) -> None:
    """An id that SPEC.md does not have is found in code, comments, tests and pages."""
    assert hole in holes(with_text(kind, name, getattr(SMALL, kind)[name] + text))


def test_a_fixture_of_an_unknown_requirement() -> None:
    """Neither a case nor a vector can name a requirement that is none."""
    case, vector = dict(SMALL.manifest["cases"][-1]), dict(SMALL.manifest["vectors"][0])
    case |= {"clause": "XX-1", "verdict": "invalid"}
    manifest = SMALL.manifest | {
        "cases": [*SMALL.manifest["cases"][:-1], case],
        "vectors": [vector | {"result": {"error": "XX-2"}}],
    }
    found = holes(replace(SMALL, manifest=manifest))
    assert f"the case {case['id']} breaks XX-1, which SPEC.md lacks" in found
    assert f"the vector {vector['id']} breaks XX-2, which SPEC.md lacks" in found


def test_a_new_requirement() -> None:
    """A requirement that was only written down lacks everything else."""
    spec = SMALL.spec.replace("**LAY-5.**", f"**{NEW}.** A file MUST be blue.\n\n**LAY-5.**")
    assert [hole for hole in holes(replace(SMALL, spec=spec)) if NEW in hole] == [
        f"{NEW} is quoted nowhere in the package",
        f"{NEW} has no valid file with {traceability.BEHAVIOUR}",
        f"{NEW} has no file that breaks it, and no reason for that",
    ]


def test_quoted_in_another_module_than_checked() -> None:
    """The sentence stands where the check is."""
    sentence = ROWS["LAY-5"].requirement.sentence
    package = SMALL.package | {
        "layout": SMALL.package["layout"].replace(sentence, "Not this."),
        "writer": SMALL.package["writer"] + f'# "{sentence}"\n',
    }
    found = holes(replace(SMALL, package=package))
    assert found == ["LAY-5 is checked in layout.layout, but quoted in writer"]


def test_tables_that_are_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason or a stake of a requirement that is gone is found, and a reason that is none."""
    stake = traceability.Stake("any file", "XX-1 PRE-1", lambda _: True)
    monkeypatch.setattr(traceability, "STAKES", [*traceability.STAKES, stake])
    monkeypatch.setattr(traceability, "NO_FILE", NO_FILE | {"XX-2": "why", "PRE-2": "why"})
    assert holes(SMALL) == [
        "STAKES has XX-1, which SPEC.md lacks",
        "STAKES has PRE-1 twice",
        "NO_FILE has XX-2, which SPEC.md lacks",
        f"PRE-2 is in NO_FILE, but {ROWS['PRE-2'].broken[0]} breaks it",
    ]


def test_rows_are_in_the_order_of_the_document() -> None:
    """A row a requirement, with its section."""
    assert list(ROWS) == re.findall(rf"^\*\*({traceability.ID})\.\*\*", SOURCES.spec, re.MULTILINE)
    row: Row = ROWS["PRE-1"]
    assert (row.requirement.section, row.quoted, row.raised) == (
        "6.1",
        ["header.decode_preamble"],
        ["header.decode_preamble"],
    )
