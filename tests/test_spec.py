"""SPEC.md against the package: quotations, ids, examples, tables and appendices cannot drift apart."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from itertools import groupby
from pathlib import Path

import independent
import numpy as np
import pytest

from tritcodec import TritError, canonical, header, layout, tensor, trits
from tritcodec.model import index

ROOT = Path(__file__).parents[1]
SPEC = (ROOT / "SPEC.md").read_text("utf-8")
MODULES = sorted((ROOT / "tritcodec").rglob("*.py"))
QUOTING = [*MODULES, ROOT / "tests" / "independent.py"]  # who quotes SPEC.md, by rule 4 of the house
KEYWORD = r"\b(?:MUST NOT|MUST|SHOULD NOT|SHOULD|MAY)\b"
ID = r"[A-Z]+-[0-9]+"

VERIFIER = {"VERIFY-1", "VERIFY-2"}  # what a verifier as a whole does: no line of it obeys them


def name_of(path: Path) -> str:
    """A path as the tests show it."""
    return path.relative_to(ROOT).as_posix()


def plain(text: str) -> str:
    """*text* without marks of Markdown, with single spaces."""
    return " ".join(text.replace("`", "").replace("**", "").split())


@cache
def requirements() -> dict[str, str]:
    """The sentence of each requirement by its id."""
    paragraphs = re.findall(rf"^\*\*({ID})\.\*\* (.*?)\n\n", SPEC, re.MULTILINE | re.DOTALL)
    return {clause: plain(sentence) for clause, sentence in paragraphs}


def section(title: str) -> str:
    """The text of the section that begins with *title*, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(title)}\b.*?\n(.*?)(?=^#)", SPEC, re.MULTILINE | re.DOTALL)
    assert found, f"SPEC.md has no section {title}"
    return found[1]


def table(title: str, number: int = 0) -> list[list[str]]:
    """The rows, without the heading, of a table in a section."""
    blocks = re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in blocks[number].splitlines()]
    return rows[2:]


# Quotations


def prose(path: Path) -> Iterator[str]:
    """The docstrings of a module, and its comments, those that continue each other as one."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    with tokenize.open(path) as file:
        comments = [t for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.COMMENT]
    # Consecutive lines in the same column differ from their index by the same number.
    blocks = groupby(enumerate(comments), lambda pair: (pair[1].start[0] - pair[0], pair[1].start[1]))
    for _, block in blocks:
        yield " ".join(comment.string.lstrip("#") for _, comment in block)


def quotations(path: Path) -> list[str]:
    """What a module quotes: what holds a key word, or is a sentence."""
    quoted = [plain(text) for block in prose(path) for text in re.findall(r'"([^"]+)"', block)]
    return [text for text in quoted if re.search(KEYWORD, text) or re.fullmatch(r"[A-Z].*\.", text)]


@pytest.mark.parametrize("path", QUOTING, ids=name_of)
def test_quotations(path: Path) -> None:
    """Every quotation in a comment or docstring is a whole requirement of SPEC.md, or a sentence of it."""
    whole = requirements().values()
    wrong = [
        text for text in quotations(path) if text not in (whole if re.search(KEYWORD, text) else plain(SPEC))
    ]
    assert wrong == []


def test_quotations_are_found() -> None:
    """The package quotes SPEC.md often: the test above has something to look at."""
    assert sum(len(quotations(path)) for path in MODULES) > 40


@pytest.mark.parametrize("path", QUOTING, ids=name_of)
def test_references(path: Path) -> None:
    """Every section that a comment or docstring refers to, as "SPEC 5.1", is a heading of SPEC.md."""
    headings = set(re.findall(r"^#+ ([0-9]+(?:\.[0-9]+)?) ", SPEC, re.MULTILINE))
    named = re.findall(r"SPEC ((?:[0-9.]*[0-9](?:, | to | and )?)+)", " ".join(map(plain, prose(path))))
    assert {number for names in named for number in re.findall(r"[0-9]+(?:\.[0-9]+)?", names)} <= headings


# Requirements


def test_ids_are_unique() -> None:
    """No id stands for two requirements, and no paragraph with an id is overlooked."""
    ids = re.findall(rf"\*\*({ID})\.\*\*", SPEC)
    assert sorted(ids) == sorted(requirements())


@pytest.mark.parametrize("clause", requirements())
def test_requirement_is_one_sentence(clause: str) -> None:
    """A requirement is one sentence, and has one key word."""
    sentence = requirements()[clause]
    assert re.fullmatch(r"[A-Z].*\.", sentence)
    assert not re.search(r"[.!?] [A-Z]", sentence)
    assert len(re.findall(KEYWORD, sentence)) == 1


def test_key_words_stand_in_requirements() -> None:
    """ "Text without an id explains": no key word stands in it, but where 1.2 defines them."""
    rest = SPEC.replace(section("1.2 Terms"), "")
    rest = re.sub(rf"^\*\*{ID}\.\*\* .*?\n\n", "", rest, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(rf".*{KEYWORD}.*", rest) == []


@cache
def named_clauses() -> dict[str, set[str]]:
    """Each id that stands in the package as a str of its own, for an error, with the modules that have it."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and re.fullmatch(ID, str(node.value)) and node.value != "UTF-8":
                found.setdefault(str(node.value), set()).add(name_of(path))
    return found


def test_clauses_of_errors_are_requirements() -> None:
    """Every clause that an error of the package names is one of SPEC.md."""
    assert {clause: at for clause, at in named_clauses().items() if clause not in requirements()} == {}


def test_requirements_are_quoted() -> None:
    """Every requirement stands, word for word, above the code of the package that obeys it."""
    quoted = " ".join(text for path in MODULES for text in quotations(path))
    missing = [clause for clause, sentence in requirements().items() if sentence not in quoted]
    assert [clause for clause in missing if clause not in {*named_clauses(), *VERIFIER}] == []


# Examples


def test_examples() -> None:
    """Every Python example in SPEC.md gives what it shows; they are one session from first to last."""
    blocks = re.findall(r"^```python\n(.*?)^```", SPEC, re.MULTILINE | re.DOTALL)
    assert SPEC.count(">>> ") == sum(block.count(">>> ") for block in blocks)
    assert all(block.startswith(">>> ") for block in blocks)
    session = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "SPEC.md", "SPEC.md", 0)
    results = doctest.DocTestRunner().run(session)
    assert results.attempted > 15
    assert results.failed == 0


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings(path: Path) -> None:
    """Every example in a docstring of the package gives what it shows."""
    name = name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    results = doctest.testmod(importlib.import_module(name), extraglobs={"np": np})
    assert results.failed == 0


# Tables


def numbers(text: str) -> list[int]:
    """The integers in *text*: 2^48 - 1, 1,024 or 64 MiB."""
    text = text.replace("−", "-").replace("UTF-8", "")
    found = re.findall(r"2\^([0-9]+)(?: - ([0-9]))?|([0-9][0-9,]*)( KiB| MiB)?", text)
    unit = {"": 1, " KiB": 1 << 10, " MiB": 1 << 20}
    return [
        2 ** int(p) - int(less or 0) if p else int(n.replace(",", "")) * unit[u] for p, less, n, u in found
    ]


LIMITS = {
    "header": {1, canonical.MAX_HEADER_SIZE},
    "file": {layout.MAX_FILE_SIZE},
    "nesting of arrays and maps in the header": {canonical.MAX_NESTING},
    "tensors in a file": {header.MAX_TENSORS},
    "a tensor's name, a metadata key": {1, canonical.MAX_NAME_SIZE},
    "metadata entries": {header.MAX_METADATA},
    "a metadata value": {header.MAX_METADATA_VALUE},
    "rank of a tensor": {tensor.MAX_RANK},
    "product of a tensor's non-zero axes": {tensor.MAX_ELEMENTS},
    "group size": {1, tensor.MAX_GROUP_SIZE},
    "depth, and depth + shift": {1, trits.MAX_DEPTH},
    "index of a model folder": {index.MAX_INDEX_SIZE},
    "nesting of objects and arrays in the index": {index.MAX_NESTING},
    "a shard's name": {len("a.trit"), index.MAX_SHARD_NAME},
}


def test_limits() -> None:
    """The table of limits has the package's constants, and so has the requirement that each row names."""
    rows = {what: (set(numbers(limit)), clauses) for what, limit, clauses in table("1.4 Limits")}
    assert {what: limits for what, (limits, _) in rows.items()} == LIMITS
    for limits, clauses in rows.values():
        for clause in clauses.split(", "):
            assert max(limits) in numbers(requirements()[clause]), clause


def test_levels() -> None:
    """The table of depths has the package's largest levels."""
    rows = [list(map(int, row)) for row in table("2 Trits and levels")]
    assert rows == [
        [d, 2 * trits.largest_level(d) + 1, trits.largest_level(d)] for d in range(1, trits.MAX_DEPTH + 1)
    ]


def test_preamble() -> None:
    """The table of the preamble has no gaps, and the package's magic, version and size."""
    rows = table("6.1 Preamble")
    ends = [0]
    for offset, size, *_ in rows:
        assert int(offset) == ends[-1]
        ends.append(int(offset) + int(size))
    assert ends[-1] == header.PREAMBLE_SIZE == header.PREAMBLE.size
    values = [row[3] for row in rows]
    assert bytes.fromhex(values[0].strip("`")) == header.MAGIC
    assert values[1:4] == [str(header.MAJOR), str(header.MINOR), "0"]


def test_messagepack_forms() -> None:
    """The table of shortest forms has the first bytes that the package reads, and no others."""
    codes = [re.findall(r"`([0-9A-F.]+)`", row[1]) for row in table("6.2 Canonical MessagePack")]
    found: dict[str, list[int]] = {"short": [], "wide": []}
    for code in (code for row in codes for code in row):
        first, _, last = code.partition("..")
        found["short" if last else "wide"] += range(int(first, 16), int(last or first, 16) + 1)
    assert sorted(found["short"]) == sorted(canonical.SHORT_FORMS)
    assert sorted(found["wide"]) == sorted(canonical.WIDE_FORMS)


def test_control_characters() -> None:
    """The characters that NAME-2 excludes are those that the package refuses, of all there are."""
    sentence = next(
        line for line in section("6.3 Header").splitlines() if line.startswith("Control characters are")
    )
    bounds = re.findall(r"U\+([0-9A-F]{4})(?:\.\.U\+([0-9A-F]{4}))?", sentence)
    listed = {code for first, last in bounds for code in range(int(first, 16), int(last or first, 16) + 1)}
    for code in {*range(sys.maxunicode + 1)} - {*range(0xD800, 0xE000)}:
        with pytest.raises(TritError) if code in listed else nullcontext():
            canonical.check_name(chr(code).encode())


def test_keys() -> None:
    """The tables of the header and of the entries have the package's keys, in canonical order."""
    tables = {"trit": table("6.4 Entries", 0), "raw": table("6.4 Entries", 1), "header": table("6.3 Header")}
    keys = {kind: [row[0].strip("`") for row in rows] for kind, rows in tables.items()}
    assert all(names == sorted(names, key=str.encode) for names in keys.values())
    assert {kind: keys[kind] for kind in ("trit", "raw")} == {
        kind: sorted(names) for kind, names in header.ENTRY_KEYS.items()
    }
    assert set(keys["header"]) == {"metadata", "tensors", "version"}


def test_dtypes() -> None:
    """The table of dtypes has those of the package, with their sizes."""
    rows = {
        name: int(size) for size, names in table("6.4 Entries", 2) for name in re.findall(r"`(\w+)`", names)
    }
    assert rows == {name: dtype.itemsize for name, dtype in header.RAW_DTYPES.items()}


# Appendices


def dumped(name: str) -> bytes:
    """The bytes in the dump of an appendix, read from SPEC.md; offsets have to fit."""
    text = SPEC[SPEC.index(f"<!-- appendix {name}: ") : SPEC.index(f"<!-- end of appendix {name} -->")]
    data = b""
    row_form = r"^ *([0-9]+)  (00 \.\.\. 00 \([0-9]+ bytes\)|(?:[0-9A-F]{2}(?: |$))+)"
    for offset, row in re.findall(row_form, text, re.MULTILINE):
        assert int(offset) == len(data)
        zeros = re.fullmatch(r"00 \.\.\. 00 \(([0-9]+) bytes\)", row)
        data += bytes(int(zeros[1])) if zeros else bytes.fromhex(row)
    return data


def test_appendices_are_generated() -> None:
    """The dumps in SPEC.md are what the package writes; if not, run python tools/spec_appendix.py --write."""
    command = [sys.executable, str(ROOT / "tools" / "spec_appendix.py")]
    shown = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    marked = re.findall(
        r"^<!-- appendix .*? -->\n(.*?)\n<!-- end of appendix . -->", SPEC, re.MULTILINE | re.DOTALL
    )
    assert len(marked) == 2
    assert "\n\n".join(marked) + "\n" == shown


def test_appendix_a() -> None:
    """The bytes of appendix A are a valid file, of the size that is said, and the independent writer's."""
    data = dumped("A")
    assert data == independent.write({})
    claim = re.search(r"a header of ([0-9]+) bytes, in a file of ([0-9]+)", SPEC)
    assert claim is not None
    assert [len(independent.dumps(independent.open_file(data)[0])), len(data)] == [
        int(claim[1]),
        int(claim[2]),
    ]


def test_appendix_b() -> None:
    """The bytes of appendix B hold the tensors that are described, as the independent decoder reads them."""
    metadata, tensors = independent.read(dumped("B"))
    assert metadata == {"format": "pt"}
    bias, weights = tensors["bias"], tensors["weights"]
    assert isinstance(bias, independent.Raw)
    assert isinstance(weights, independent.Trit)
    levels = [[n * n % 251 % 9 - 4 for n in range(start, start + 20)] for start in (0, 20)]
    assert weights.levels() == levels
    assert weights.codes == [[0, 13], [26, 5]]
    steps = np.array(weights.steps, np.uint32).view(np.float32)
    assert (steps * 4096 == np.arange(32, 59)).all()
    assert (bias.shape, bias.dtype, np.frombuffer(bias.data, "<f4").tolist()) == ([3], "F32", [0.5, -2, 3])
    shown = "\n".join(" ".join(f"{level:2}" for level in row) for row in levels)
    assert f"```text\n{shown}\n```" in SPEC
