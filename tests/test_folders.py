"""The golden folders: package and independent codec find what the manifest says."""

from __future__ import annotations

import fnmatch
import json
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import folder_cases
import independent
import pytest
from helpers import refused

from tritcodec import TritModel, open_model, verify_model

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures"
SECTION: dict[str, Any] = json.loads((FIXTURES / "manifest.json").read_bytes())["folders"]
CASES: list[dict[str, Any]] = SECTION["cases"]
VALID = [case for case in CASES if case["verdict"] == "valid"]
KINDS = sorted({case["id"].partition("-")[0] for case in CASES})
ELSEWHERE = {  # of chapter 15, what no folder of small files can break, and where it is shown
    "IDX-1": "test_index.py",
    "IDX-17": "test_shards.py",
    "IDX-18": "test_index.py",
}


def of_kind(kind: str) -> list[dict[str, Any]]:
    """The cases whose id begins with a word."""
    return [case for case in CASES if case["id"].partition("-")[0] == kind]


def files_of(case: dict[str, Any]) -> dict[str, bytes]:
    """The files of a case."""
    return {name: (FIXTURES / case["folder"] / name).read_bytes() for name in case["files"]}


def read_all(model: TritModel) -> None:
    """Every tensor of a model."""
    for name in model.keys():  # noqa: SIM118  # no mapping
        model.get_tensor(name)


# The manifest


def test_counts_are_those_declared() -> None:
    """As many folders of each verdict as the manifest says; sorted by id, none twice."""
    assert dict(Counter(case["verdict"] for case in CASES)) == SECTION["counts"]
    ids = [case["id"] for case in CASES]
    assert ids == sorted(set(ids))
    contents = [sha256(repr(sorted(files_of(case).items())).encode()).digest() for case in CASES]
    assert len(set(contents)) == len(CASES)


def test_every_class_of_faults_has_folders() -> None:
    """Each class has cases, each pattern, and each case is of one class at least (the schema says)."""
    assert list(SECTION["notes"]) == [fault[0] for fault in folder_cases.FAULTS]
    for _, _, _, _, patterns, _ in folder_cases.FAULTS:
        for pattern in patterns.split():
            assert fnmatch.filter([case["id"] for case in CASES], pattern), pattern


def test_every_requirement_has_folders() -> None:
    """Each requirement of chapter 15 that a folder of small files can break has a case that does."""
    spec = (ROOT / "SPEC.md").read_text("utf-8")
    requirements = set(re.findall(r"^\*\*(IDX-[0-9]+)\.\*\*", spec, re.MULTILINE))
    assert requirements - {case["clause"] for case in CASES} == ELSEWHERE.keys()


def test_any_system_can_store_the_names() -> None:
    """No two names in a folder differ in case alone, none is a device, and all characters are usual."""
    for case in CASES:
        names = [name.lower() for name in case["files"]]
        assert len(set(names)) == len(names)
        for name in names:
            assert re.fullmatch(r"[a-z0-9_./ -]+", name)
            assert name.partition(".")[0] not in independent.DEVICES


# Verdicts, by both


@pytest.mark.parametrize("kind", KINDS)
def test_verdict_of_the_package(kind: str) -> None:
    """The package finds the one fault, and names the shard: in its place, or in its own report."""
    for case in of_kind(kind):
        report = verify_model(FIXTURES / case["folder"])
        assert report.verdict == case["verdict"], case["id"]
        clauses = [finding.clause for finding in report.findings]
        inside = {name: shard.findings[0].clause for name, shard in report.shards.items() if shard.findings}
        assert clauses + list(inside.values()) == [case["clause"]] * (case["verdict"] != "valid"), case["id"]
        places = [finding.where for finding in report.findings] + [f"shard {name!a}" for name in inside]
        assert places == [f"shard {case['shard']!a}"] * len(places) or not case["shard"], case["id"]


@pytest.mark.parametrize("kind", KINDS)
def test_verdict_of_the_independent_codec(kind: str) -> None:
    """So does the one that was made from SPEC.md alone."""
    for case in of_kind(kind):
        expected = [] if case["verdict"] == "valid" else [(case["clause"], case["shard"] or "")]
        assert independent.folder_defects(files_of(case)) == expected, case["id"]


# What readers do


@pytest.mark.parametrize("case", VALID, ids=lambda case: case["id"])
def test_valid_folders_are_read(case: dict[str, Any]) -> None:
    """A lazy reader finds the identity and the tensors of each shard, and reads all of them."""
    with open_model(FIXTURES / case["folder"]) as model:
        assert model.identity == case["decoded"]["identity"]
        found: dict[str, list[str]] = {name: [] for name in model.shards}
        for name in model.keys():  # noqa: SIM118  # no mapping
            found[model.shard_of(name)].append(name)
        assert found == case["decoded"]["shards"]
        read_all(model)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"whole", "identity", "tensor", "shard"}))
def test_a_bad_index_or_folder_is_not_opened(kind: str) -> None:
    """What the index and the names in the folder show is refused at once."""
    for case in of_kind(kind):
        with refused(case["clause"]):
            open_model(FIXTURES / case["folder"])


@pytest.mark.parametrize("kind", ["identity", "tensor", "shard"])
def test_a_bad_shard_is_not_read(kind: str) -> None:
    """What a shard shows is refused when something of it is asked for, but for gaps, which hold no data."""
    for case in of_kind(kind):
        if case["clause"] != "LAY-3" and not case["id"].startswith("tensor-name"):
            with open_model(FIXTURES / case["folder"]) as model, refused(case["clause"]):
                read_all(model)
