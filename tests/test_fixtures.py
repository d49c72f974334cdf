"""The golden fixtures: the script makes what is stored, and package and independent codec agree on it.

That the package decodes each file and computes each vector as the manifest says is shown in test_conform.py.
"""

from __future__ import annotations

import fnmatch
import json
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import golden
import independent
import jsonschema  # type: ignore[import-untyped]  # has no types of its own
import pytest
from golden import Case
from helpers import seal

from tritcodec import verify_file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # a command, which stands in no package

import make_fixtures  # noqa: E402  # after the path is known

FIXTURES = ROOT / "fixtures"
MANIFEST: dict[str, Any] = json.loads((FIXTURES / "manifest.json").read_bytes())
CASES: list[dict[str, Any]] = MANIFEST["cases"]
VALID = [case for case in CASES if case["verdict"] == "valid"]
BROKEN = [case for case in CASES if case["verdict"] != "valid"]
CHAPTERS = sorted({case["id"].partition("/")[0] for case in CASES})
MOST_BYTES = 8_000_000
SMALL = 4096  # bytes: a larger file needs a reason
LARGE = {  # "unless size is the point"
    "codebook",  # 27 by 81 weights
    "header/1-025-pairs",
    "header/a-value-of",
    "layout/4096-zeros",
    "layout/aligned-to-4096",
    "layout/running-sum-wraps",
    "limits/1-024-pairs",
    "limits/a-value-of",
    "messagepack/array-65",
    "messagepack/arrays",
    "messagepack/bin-65",
    "messagepack/maps",
    "messagepack/str-65",
    "tensors/every-code-with-every-level",
}


def in_chapter(cases: list[dict[str, Any]], chapter: str) -> list[dict[str, Any]]:
    """The cases of a chapter."""
    return [case for case in cases if case["id"].startswith(chapter + "/")]


# The manifest and the files


def test_nothing_has_drifted() -> None:
    """Every stored byte is what the script makes."""
    wrong = make_fixtures.differences(make_fixtures.made())
    assert not wrong, f"{wrong[:5]}, {len(wrong)} in all; run: {make_fixtures.COMMAND}"


def test_check_finds_drift(tmp_path: Path) -> None:
    """A file that is changed, missing or unknown is found, and written or removed again."""
    files = {"valid/a/b.trit": b"b", "valid/a/c.trit": b"c", "manifest.json": b"{}"}
    make_fixtures.write(files, tmp_path)
    assert make_fixtures.differences(files, tmp_path) == []
    (tmp_path / "valid/a/b.trit").write_bytes(b"x")
    (tmp_path / "valid/a/c.trit").rename(tmp_path / "valid/a/d.trit")
    found = make_fixtures.differences(files, tmp_path)
    assert found == ["valid/a/d.trit: not known", "valid/a/b.trit: other bytes", "valid/a/c.trit: missing"]
    make_fixtures.write(files, tmp_path)
    assert make_fixtures.differences(files, tmp_path) == []


def test_manifest_has_its_form() -> None:
    """The manifest obeys its schema, and no object in the schema lets unknown keys pass."""
    schema = json.loads((FIXTURES / "manifest.schema.json").read_bytes())
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    assert [error.message[:200] for error in validator(schema).iter_errors(MANIFEST)] == []
    case, vector = CASES[0] | {"extra": 0}, MANIFEST["vectors"][0] | {"extra": 0}
    loose = MANIFEST | {"cases": [case], "vectors": [vector], "extra": 0}
    assert len(list(validator(schema).iter_errors(loose))) == 3


def test_counts_are_those_declared() -> None:
    """As many cases of each verdict, vectors and products as the manifest says, and as were asked for."""
    counts = Counter(case["verdict"] for case in CASES)
    counts |= Counter({part: len(MANIFEST[part]) for part in ("vectors", "products")})
    assert dict(counts) == MANIFEST["counts"]
    single = [case for case in BROKEN if case["verdict"] == "invalid" and "several" not in case["flags"]]
    assert len(single) >= 600
    assert len(VALID) >= 300


def test_the_pages_have_the_counts() -> None:
    """docs/fixtures.md, README.md and CHANGELOG.md give the counts of the manifest."""
    for name in ("README.md", "CHANGELOG.md"):
        assert f"{len(CASES):,} golden files" in (ROOT / name).read_text("utf-8")
    page = (ROOT / "docs/fixtures.md").read_text("utf-8")
    counts = MANIFEST["counts"]
    assert f"{counts['valid']} valid ones, {counts['invalid']:,} that break" in page
    assert f"{counts['unsupported']} that are unsupported, and {counts['vectors']} vectors" in page
    assert f"and {counts['products']} golden products" in page
    folders = MANIFEST["folders"]["counts"]
    assert f"{folders['valid']} folders that conform, {folders['invalid']} that do not" in page


def test_ids_and_files_are_unique() -> None:
    """Sorted by id, no id twice, no content twice, each file where its id says."""
    for rows in (CASES, MANIFEST["vectors"], MANIFEST["products"]):
        ids = [row["id"] for row in rows]
        assert ids == sorted(set(ids))
    assert len({case["sha256"] for case in CASES}) == len(CASES)
    requests = [json.dumps([vector["cmd"], vector["request"]]) for vector in MANIFEST["vectors"]]
    assert [request for request, count in Counter(requests).items() if count > 1] == []
    for case in CASES:
        folder = "valid" if case["verdict"] == "valid" else "invalid"
        assert case["file"] == f"{folder}/{case['id']}.trit"


def test_every_file_is_listed_with_its_digest() -> None:
    """No file is there that the manifest does not know, and each has the digest that it says."""
    listed = {case["file"]: case["sha256"] for case in CASES}
    for product in MANIFEST["products"]:
        listed |= product["sha256"]
    for folder in MANIFEST["folders"]["cases"]:
        listed |= {f"{folder['folder']}/{name}": digest for name, digest in folder["files"].items()}
    assert make_fixtures.stored() == listed.keys()
    for file, digest in listed.items():
        assert sha256((FIXTURES / file).read_bytes()).hexdigest() == digest, file


def test_a_case_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an id nor a content can stand there twice."""
    one = Case("a/b", None, "why", b"x")
    monkeypatch.setattr(make_fixtures, "appendix_cases", lambda: iter(()))
    monkeypatch.setattr(make_fixtures, "real_cases", lambda: iter(()))
    for other in (one._replace(data=b"y"), one._replace(id="a/c")):
        monkeypatch.setattr(golden, "cases", lambda other=other: iter([one, other]))
        with pytest.raises(SystemExit, match="are one case"):
            make_fixtures.all_cases()


def test_files_are_small() -> None:
    """All is less than 8 MB, and a file above 4 KiB is one whose size is the point."""
    sizes = {case["id"]: (FIXTURES / case["file"]).stat().st_size for case in CASES}
    made = ["manifest.json", *make_fixtures.stored()]
    assert sum((FIXTURES / name).stat().st_size for name in made) < MOST_BYTES
    large = {name for name, size in sizes.items() if size > SMALL}
    assert {name for name in large if not name.startswith(tuple(LARGE))} == set()


def test_every_cve_is_of_a_class() -> None:
    """Each CVE that is described is named by a class of faults."""
    used = {cve for fault in make_fixtures.FAULTS for cve in fault.cves}
    assert used == make_fixtures.CVES.keys()


def test_every_class_of_faults_has_cases() -> None:
    """Each class of the checklist has cases, each case a class, and notes are those classes."""
    used = Counter(flag for case in CASES for flag in case["flags"])
    assert list(MANIFEST["notes"]) == [fault.flag for fault in make_fixtures.FAULTS]
    assert used.keys() == MANIFEST["notes"].keys()
    for fault in make_fixtures.FAULTS:
        flagged = [case for case in CASES if fault.flag in case["flags"]]
        assert {case["clause"] for case in flagged} - {None} == set(fault.named.split()), fault.flag
        for pattern in fault.patterns.split():
            found = [case for case in flagged if fnmatch.fnmatchcase(case["id"], pattern)]
            assert found, f"no case of {fault.flag} is like {pattern}"


# Verdicts, by both


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_verdict_of_the_package(chapter: str) -> None:
    """The package names the clause of each case, and no other one (VERIFY-1)."""
    for case in in_chapter(CASES, chapter):
        report = verify_file(FIXTURES / case["file"])
        found = {finding.clause for finding in report.findings}
        assert (report.verdict, found) == (case["verdict"], {case["clause"]} - {None}), case["id"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_verdict_of_the_independent_codec(chapter: str) -> None:
    """So does the one that was made from SPEC.md alone."""
    for case in in_chapter(CASES, chapter):
        found = {clause for clause, _ in independent.defects((FIXTURES / case["file"]).read_bytes())}
        assert found == {case["clause"]} - {None}, case["id"]


# Vectors


def test_vectors_are_exhaustive() -> None:
    """All 256 bytes are unpacked, all levels of all depths split, and each error is met."""
    vectors = MANIFEST["vectors"]
    unpacked = {v["request"]["packed"] for v in vectors if v["cmd"] == "unpack" and v["request"]["rows"] == 5}
    assert {f"{byte:02x}" for byte in range(243)} <= unpacked
    above = {v["request"]["packed"][:2] for v in vectors if v["result"].get("error") == "PACK-2"}
    assert {f"{byte:02x}" for byte in range(243, 256)} <= above
    joined = [v["result"]["levels"] for v in vectors if v["cmd"] == "join" and "levels" in v["result"]]
    assert sum(len(levels) == 2 for levels in joined) == 3 + 9 + 27 + 81
    errors = {v["result"].get("error") for v in vectors} - {None}
    exchange = {f"XL-{number}" for number in range(1, 11)}
    assert errors == {"TRIT-1", "TRIT-2", "PACK-1", "PACK-2", "PACK-3", "TEN-2"} | exchange


# What is too much to store


@pytest.mark.parametrize("name", ["spec/appendix-a", "spec/appendix-b", "entries/raw-f32-2x3"])
def test_every_truncation(tmp_path: Path, name: str) -> None:
    """Cut after any byte, with its new length or not, a file is invalid to both for the same reason."""
    data = (FIXTURES / f"valid/{name}.trit").read_bytes()
    path = tmp_path / "x.trit"
    for size in range(len(data)):
        versions = [data[:size]] if size < 64 else [data[:size], golden.with_length(data[:size])]
        for cut in versions:
            path.write_bytes(cut)
            found = [finding.clause for finding in verify_file(path).findings]
            assert found == [clause for clause, _ in independent.defects(cut)], size
            assert len(found) == 1, size


def test_every_header_truncation(tmp_path: Path) -> None:
    """A header cut after any byte, with sizes and digest made right, is invalid to both: MP-5."""
    data = (FIXTURES / "valid/spec/appendix-b.trit").read_bytes()
    header = data[64:550]
    for size in range(1, len(header)):
        cut = seal(header[:size])
        (tmp_path / "x.trit").write_bytes(cut)
        found = [finding.clause for finding in verify_file(tmp_path / "x.trit").findings]
        assert found == [clause for clause, _ in independent.defects(cut)] == ["MP-5"], size


@pytest.mark.parametrize(("name", "step"), [("appendix-a", 1), ("appendix-b", 7)])
def test_every_single_bit(tmp_path: Path, name: str, step: int) -> None:
    """Any single bit of a file changed (of the larger one, each seventh) is detected; both find the same."""
    data = (FIXTURES / f"valid/spec/{name}.trit").read_bytes()
    path = tmp_path / "x.trit"
    for at in range(0, 8 * len(data), step):
        changed = golden.replaced(data, at // 8, data[at // 8] ^ 1 << at % 8)
        path.write_bytes(changed)
        found = {finding.clause for finding in verify_file(path).findings}
        assert found, at
        assert found == {clause for clause, _ in independent.defects(changed)}, at


# Single cases whose meaning is worth a test of its own


def test_appendices_are_the_files_of_the_spec() -> None:
    """The files that SPEC.md prints are those that the independent codec writes from what they hold."""
    for letter in "ab":
        data = (FIXTURES / f"valid/spec/appendix-{letter}.trit").read_bytes()
        metadata, tensors = independent.read(data)
        assert independent.write(tensors, metadata) == data


def test_wrapping_claims_wrap() -> None:
    """What the files that wrap claim is nothing in 32 bits, so that such a reader finds the file whole."""
    for name in ("claim-elements", "claim-product", "claim-align"):
        data = (FIXTURES / f"invalid/layout/{name}.trit").read_bytes()
        header = independent.parse(data[64 : 64 + int.from_bytes(data[16:24], "little")])
        sizes = [independent.sizes_of(entry)[0] for entry in header["tensors"]]
        assert sum(map(independent.align, sizes)) % 2**32 == 0
        assert sum(sizes) >= 2**32 - 64
