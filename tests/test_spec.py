"""SPEC.md against the package: quotations, ids, examples, tables and appendices cannot drift apart."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import independent
import numpy as np
import pytest

from tritcodec import TritError, canonical, header, layout, tensor, trits
from tritcodec.model import index

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # a command, which stands in no package

import traceability  # noqa: E402  # after the path is known
from traceability import ID, KEYWORD, plain  # noqa: E402  # as above

SPEC = (ROOT / "SPEC.md").read_text("utf-8")
MODULES = sorted((ROOT / "tritcodec").rglob("*.py"))
QUOTING = [*MODULES, ROOT / "tests" / "independent.py"]  # who quotes SPEC.md, by rule 4 of the house
REQUIREMENTS = traceability.requirements(SPEC)


def name_of(path: Path) -> str:
    """A path as the tests show it."""
    return path.relative_to(ROOT).as_posix()


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


@pytest.mark.parametrize("path", QUOTING, ids=name_of)
def test_quotations(path: Path) -> None:
    """Every quotation in a comment or docstring is a whole requirement of SPEC.md, or a sentence of it."""
    whole = [requirement.sentence for requirement in REQUIREMENTS.values()]
    wrong = [
        text
        for _, text in traceability.quotations(path.read_text("utf-8"))
        if text not in (whole if re.search(KEYWORD, text) else plain(SPEC))
    ]
    assert wrong == []


def test_quotations_are_found() -> None:
    """The package quotes SPEC.md often: the test above has something to look at."""
    assert sum(len(traceability.quotations(path.read_text("utf-8"))) for path in MODULES) > 40


@pytest.mark.parametrize("path", QUOTING, ids=name_of)
def test_references(path: Path) -> None:
    """Every section that a comment or docstring refers to, as "SPEC 5.1", is a heading of SPEC.md."""
    headings = set(re.findall(r"^#+ ([0-9]+(?:\.[0-9]+)?) ", SPEC, re.MULTILINE))
    text = " ".join(plain(block) for _, block in traceability.prose(path.read_text("utf-8")))
    named = re.findall(r"SPEC ((?:[0-9.]*[0-9](?:, | to | and )?)+)", text)
    assert {number for names in named for number in re.findall(r"[0-9]+(?:\.[0-9]+)?", names)} <= headings


# Requirements


def test_ids_are_unique() -> None:
    """No id stands for two requirements, and no paragraph with an id is overlooked."""
    ids = re.findall(rf"\*\*({ID})\.\*\*", SPEC)
    assert sorted(ids) == sorted(REQUIREMENTS)


@pytest.mark.parametrize("clause", REQUIREMENTS)
def test_requirement_is_one_sentence(clause: str) -> None:
    """A requirement is one sentence, and has one key word."""
    sentence = REQUIREMENTS[clause].sentence
    assert re.fullmatch(r"[A-Z].*\.", sentence)
    assert not re.search(r"[.!?] [A-Z]", sentence)
    assert len(re.findall(KEYWORD, sentence)) == 1


def test_key_words_stand_in_requirements() -> None:
    """ "Text without an id explains": no key word stands in it, but where 1.2 defines them."""
    rest = SPEC.replace(section("1.2 Terms"), "")
    rest = re.sub(rf"^\*\*{ID}\.\*\* .*?\n\n", "", rest, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(rf".*{KEYWORD}.*", rest) == []


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
            assert max(limits) in numbers(REQUIREMENTS[clause].sentence), clause


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
    for code in listed:
        with pytest.raises(TritError):
            canonical.check_name(chr(code).encode())
    others = sorted({*range(sys.maxunicode + 1)} - listed - {*range(0xD800, 0xE000)})
    for start in range(0, len(others), 128):  # a name of up to 512 bytes
        canonical.check_name("".join(map(chr, others[start : start + 128])).encode())


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
    """What a program put into SPEC.md is what it gives; if not, run python tools/spec_appendix.py --write."""
    command = [sys.executable, str(ROOT / "tools" / "spec_appendix.py")]
    shown = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    marked = re.findall(
        r"^<!-- appendix .*? -->\n(.*?)\n<!-- end of appendix . -->", SPEC, re.MULTILINE | re.DOTALL
    )
    assert len(marked) == 5
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


def marked(name: str) -> str:
    """What a program put into an appendix."""
    return SPEC[SPEC.index(f"<!-- appendix {name}: ") : SPEC.index(f"<!-- end of appendix {name} -->")]


def test_appendix_e() -> None:
    """Each of 243 pairs of bytes stands where its five trits are; TQ1_0's gives them by ggml's rule.

    That rule takes no ceiling: multiply by 3 in 8 bits, and take what a third multiplication carries out.
    """
    value = {"-": -1, "0": 0, "+": 1}
    heading, *lines = marked("E").splitlines()[2:-1]
    seen = {}
    for line in lines:
        label, *cells = line.split()
        pairs = list(zip(cells[::2], cells[1::2], strict=True))
        for first, (ours, theirs) in zip(heading.split(), pairs, strict=True):
            trits = [value[sign] for sign in first + label.removeprefix("..")]
            assert independent.unpack(bytes.fromhex(ours), 5, 1) == [[t] for t in trits]
            byte = int(theirs, 16)
            assert [(byte * 3**i % 256 * 3 >> 8) - 1 for i in range(5)] == trits
            seen[ours] = theirs
    assert len(seen) == len(set(seen.values())) == 243


def test_appendix_f() -> None:
    """The registry has every requirement once, in order, and says where it stands."""
    rows = re.findall(r"^\| ([A-Z]+-[0-9]+) \| ([0-9.]+) \|", marked("F"), re.MULTILINE)
    assert rows == [(clause, requirement.section) for clause, requirement in REQUIREMENTS.items()]


def test_appendix_g() -> None:
    """Each malformed value that is listed, put into a header, is refused for its requirement."""
    places = {  # a header of version 1.1 with the value in it
        "MP-1": lambda value: b"\x81\xa1x" + value,
        "MP-2": lambda value: b"\x81\xa1x" + value,
        "MP-3": lambda value: b"\x81" + value + b"\x00",
        "MP-4": lambda value: b"\x81\xa1x" + bytes([0xA0 + len(value)]) + value,
    }
    block = marked("G").partition("```text\n")[2].replace("\n      ", " ")
    tried = 0
    for clause, values in re.findall(r"^(MP-[0-9])  [a-z ]+: (.*)$", block, re.MULTILINE):
        for value in values.split(", "):
            data = places[clause](bytes.fromhex(value))
            with pytest.raises(TritError) as caught:
                canonical.Cursor(data).skip(1)
            assert caught.value.clause == clause, value
            tried += 1
    assert tried > 30
