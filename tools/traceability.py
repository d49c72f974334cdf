"""Which code obeys each requirement of SPEC.md, and what shows that it does: the matrix, printed or checked.

usage: python tools/traceability.py            print docs/traceability.md as it would be now
       python tools/traceability.py --write    write it
       python tools/traceability.py --check    exit with 1 where the matrix has a hole, or the page is another

All is read from the sources: the sentences from SPEC.md, quotations and clauses from the package, cases from
fixtures/manifest.json, and from the docstrings of tests which requirement they show.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import functools
import io
import json
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = "docs/traceability.md"
COMMAND = "python tools/traceability.py --write"
KEYWORD = r"\b(?:MUST NOT|MUST|SHOULD NOT|SHOULD|MAY)\b"
ID = r"[A-Z]+-[1-9][0-9]*"
NO_ID = {"UTF-8"}  # a str of the package that looks like one
Json = dict[str, Any]
Scope = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# What a valid file has to hold for a requirement to be at stake in it; where there is a limit, to be at it.


class Stake(NamedTuple):
    """Valid files that could break a requirement, and do not."""

    words: str
    ids: str  # with spaces between them
    holds: Callable[[Json], bool]  # of a valid case of the manifest


def like(patterns: str) -> Callable[[Json], bool]:
    """Cases whose id is like one of *patterns*."""
    return lambda case: any(fnmatch.fnmatchcase(case["id"], pattern) for pattern in patterns.split())


def tensor_with(holds: Callable[[Json], bool]) -> Callable[[Json], bool]:
    """Cases of which a tensor is as asked."""
    return lambda case: any(map(holds, case["decoded"]["tensors"]))


def trit_with(holds: Callable[[Json], bool]) -> Callable[[Json], bool]:
    """Cases of which a trit tensor is as asked."""
    return tensor_with(lambda tensor: tensor["kind"] == "trit" and holds(tensor))


def metadata_with(holds: Callable[[dict[str, str]], bool]) -> Callable[[Json], bool]:
    """Cases whose metadata are as asked."""
    return lambda case: holds(case["decoded"]["metadata"])


def names_of(case: Json) -> list[str]:
    """All that NAME-1 is about."""
    return [*case["decoded"]["metadata"], *(tensor["name"] for tensor in case["decoded"]["tensors"])]


def beyond_ascii(case: Json) -> bool:
    """True where a str holds other characters than ASCII."""
    return not "".join([*names_of(case), *case["decoded"]["metadata"].values()]).isascii()


STAKES = [
    Stake(
        "any file",
        "PRE-1 PRE-2 PRE-3 PRE-4 PRE-5 PRE-6 PRE-7 PRE-8 MP-1 MP-5 TYPE-1 "
        "HDR-1 HDR-4 LAY-2 LAY-3 LAY-4 LAY-5",
        lambda _: True,
    ),
    Stake(
        "numbers and lengths at the ends of their forms",
        "MP-2",
        like(
            "messagepack/integer-* messagepack/str-* messagepack/bin-* messagepack/array-* messagepack/map-*"
        ),
    ),
    Stake("several keys in the metadata", "MP-3", metadata_with(lambda metadata: len(metadata) > 1)),
    Stake("text beyond ASCII", "MP-4", beyond_ascii),
    Stake("nested 8 deep", "MP-6", like("messagepack/*-8-deep limits/arrays-nested-8-*")),
    Stake("a newer minor version", "HDR-2", lambda case: case["decoded"]["version"] != [1, 0]),
    Stake(
        "unknown keys in a newer minor version",
        "VER-1",
        like("versions/*-in-1-1 limits/the-*unknown* messagepack/*"),
    ),
    Stake("several tensors", "HDR-3", lambda case: len(case["decoded"]["tensors"]) > 1),
    Stake("1,024 pairs", "HDR-5", metadata_with(lambda metadata: len(metadata) == 1024)),
    Stake(
        "names or keys of 1 or 512 bytes",
        "NAME-1",
        lambda case: any(len(name.encode()) in (1, 512) for name in names_of(case)),
    ),
    Stake("characters next to those", "NAME-2", like("limits/a-name-with-u-* names/metadata-key-u-*")),
    Stake("a tensor", "ENT-1 ENT-2 ENT-3 SEG-1", tensor_with(lambda _: True)),
    Stake("a raw tensor", "RAW-1", tensor_with(lambda tensor: tensor["kind"] == "raw")),
    Stake(
        "booleans",
        "RAW-2",
        tensor_with(lambda tensor: tensor["dtype"] == "BOOL" and 0 not in tensor["shape"]),
    ),
    Stake("rank 8", "SHAPE-1", tensor_with(lambda tensor: len(tensor["shape"]) == 8)),
    Stake(
        "non-zero axes of 2^48",
        "SHAPE-2",
        tensor_with(lambda tensor: prod(filter(None, tensor["shape"])) == 2**48),
    ),
    Stake(
        "a trit tensor",
        "TRIT-1 TRIT-2 PACK-1 PACK-2 CODE-1 CB-1 CB-2 CB-3 CB-4 TEN-1 TEN-5 TEN-6 TEN-7 TEN-8",
        trit_with(lambda _: True),
    ),
    Stake("rows that are no multiple of 5", "PACK-3", trit_with(lambda tensor: rows_of(tensor) % 5 != 0)),
    Stake(
        "a largest value just small enough",
        "CB-5",
        like("codebook/largest-value-*-just-small-enough limits/a-largest-value-*"),
    ),
    Stake("depth 1 or 4", "TEN-2", trit_with(lambda tensor: tensor["depth"] in (1, 4))),
    Stake("depth + shift = 4", "TEN-3", trit_with(lambda tensor: tensor["depth"] + tensor["shift"] == 4)),
    Stake("group size 1 or 65,536", "TEN-4", trit_with(lambda tensor: tensor["group_size"] in (1, 65536))),
    Stake("depth above 1", "TEN-9", trit_with(lambda tensor: tensor["depth"] > 1)),
    Stake(
        "a dtype that may be refused",
        "TEN-10",
        trit_with(lambda tensor: any(None in depth.values() for depth in tensor["depths"].values())),
    ),
    Stake("several trit tensors", "LAY-1", lambda case: len(trits_of(case)) > 1),
    Stake(
        "an index of any form",
        "IDX-2 IDX-6 IDX-7",
        like("whole-unknown-* whole-white-space whole-compact whole-other-order"),
    ),
    Stake("text beyond ASCII, and escapes", "IDX-3 IDX-4", like("whole-*-in-utf-8 whole-escaped-*")),
    Stake("nested 8 deep", "IDX-5", like("whole-unknown-8-deep")),
    Stake("names that are unusual", "IDX-8 IDX-9 IDX-10", like("whole-name-*")),
    Stake("several shards", "IDX-11 IDX-15 IDX-16", like("whole-three-shards whole-numbers-with-a-gap")),
    Stake("a folder", "IDX-12 IDX-14", like("whole-*-shards whole-*-shard")),
    Stake("other files in the folder", "IDX-13", like("whole-among-other-files")),
]


def trits_of(case: Json) -> list[Json]:
    """The trit tensors of a case."""
    return [tensor for tensor in case["decoded"]["tensors"] if tensor["kind"] == "trit"]


def rows_of(tensor: Json) -> int:
    """The rows of a trit tensor (SPEC 5.1)."""
    return prod(tensor["shape"][:-1])


BEHAVIOUR = "of what a reader, a writer or a verifier does, not of a file"
DECODED = "of what the bytes of a valid file mean: a reader that has it wrong decodes other values"
EXCHANGE = "of arrays for kernels, which no file holds"
PRODUCT = "of what is computed from a tensor, not of a file"
FOLDER = "an index at the limit and one above are too big to store; a test makes them"
TOO_BIG = "files at the limit and above are too big to store; tools/conform.py makes them"
OUTSIDE = frozenset([BEHAVIOUR, EXCHANGE, FOLDER, PRODUCT, TOO_BIG])  # why nothing in a file is at stake
NO_FILE = {  # requirements that no file in fixtures/ breaks, and why; a test has to show each of them
    "TRIT-1": "every byte up to 242 is five trits",
    "TRIT-2": "any d trits are a level of depth d",
    "PACK-1": "planes that are packed otherwise break PACK-2, PACK-3 or SEG-1, or are other weights",
    "CODE-1": "any three trits are a code",
    "HDR-6": TOO_BIG,
    "IDX-1": FOLDER,
    **dict.fromkeys(["TEN-6", "TEN-7", "TEN-8", "TEN-9", "TEN-10"], DECODED),
    **dict.fromkeys(
        ["LAY-1", "LAY-2"], "no offsets are stored: what stands elsewhere breaks SEG-1, LAY-3 or LAY-4"
    ),
    **dict.fromkeys(
        ["READ-1", "READ-2", "READ-3", "READ-4", "WRITE-1", "WRITE-2", "WRITE-3", "VERIFY-1", "VERIFY-2"],
        BEHAVIOUR,
    ),
    **dict.fromkeys(["IDX-17", "IDX-18"], BEHAVIOUR),
    **dict.fromkeys([f"XL-{number}" for number in range(1, 11)], EXCHANGE),
    **dict.fromkeys([f"MM-{number}" for number in range(1, 10)], PRODUCT),
}


# The sources


class Requirement(NamedTuple):
    """A requirement of SPEC.md, and the number of its section."""

    id: str
    sentence: str
    section: str


@dataclass(frozen=True)
class Sources:
    """All that is compared. Texts of modules and tests are by name: "header", "model.plan", "test_spec"."""

    spec: str
    package: dict[str, str]
    prose: dict[str, str]  # other files that name requirements, by path
    tests: dict[str, str]
    manifest: Json
    stored: frozenset[str]  # files in fixtures/valid and fixtures/invalid, folders in fixtures/folders


def load(root: Path = ROOT) -> Sources:
    """The sources as they are stored."""
    modules = sorted((root / "tritcodec").rglob("*.py"))
    fixtures = root / "fixtures"
    prose = [root / "README.md", root / "tests" / "independent.py", *sorted((root / "docs").glob("*.md"))]
    return Sources(
        spec=(root / "SPEC.md").read_text("utf-8"),
        package={
            module_name(path.relative_to(root / "tritcodec")): path.read_text("utf-8") for path in modules
        },
        prose={path.relative_to(root).as_posix(): path.read_text("utf-8") for path in prose},
        tests={path.stem: path.read_text("utf-8") for path in sorted((root / "tests").glob("test_*.py"))},
        manifest=json.loads((fixtures / "manifest.json").read_bytes()),
        stored=frozenset(
            path.relative_to(fixtures).as_posix()
            for name in ("valid", "invalid", "folders")
            for path in (fixtures / name).glob("*/*")
        ),
    )


def module_name(path: Path) -> str:
    """What a module of the package is called here."""
    return ".".join(path.with_suffix("").parts)


@functools.cache
def requirements(spec: str) -> dict[str, Requirement]:
    """The requirements by their ids, in the order of the document."""
    found, section = {}, ""
    for heading, clause, sentence in re.findall(
        rf"^#+ ([0-9.]+) |^\*\*({ID})\.\*\* (.*?)\n\n", spec, re.MULTILINE | re.DOTALL
    ):
        section = heading or section
        if clause:
            found[clause] = Requirement(clause, plain(sentence), section)
    return found


def plain(text: str) -> str:
    """*text* without marks of Markdown, with single spaces."""
    return " ".join(text.replace("`", "").replace("**", "").split())


# What stands in Python: quotations, clauses, docstrings


@functools.lru_cache(2)  # trees are large: the garbage collector would walk through hundreds of them
def parsed(source: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(source)


@functools.cache
def scopes(source: str) -> list[tuple[range, str, str]]:
    """The lines of each module, class and function, its name and its docstring; inner ones later."""
    tree = parsed(source)
    found = [(range(1, source.count("\n") + 2), "", ast.get_docstring(tree) or "")]

    def visit(node: ast.Module | Scope, name: str) -> None:
        for child in node.body:
            if isinstance(child, Scope):
                inner = dotted(name, child.name)
                lines = range(child.lineno, (child.end_lineno or child.lineno) + 1)
                found.append((lines, inner, ast.get_docstring(child) or ""))
                visit(child, inner)

    visit(tree, "")
    return found


def scope_at(source: str, line: int) -> str:
    """The name of the innermost function or class around a line."""
    return [name for lines, name, _ in scopes(source) if line in lines][-1]


@functools.cache
def prose(source: str) -> list[tuple[str, str]]:
    """Each docstring and comment of a module with the scope it stands in; comment lines in a row are one."""
    comments = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    # Consecutive lines in the same column differ from their index by the same number.
    blocks = groupby(enumerate(comments), lambda pair: (pair[1].start[0] - pair[0], pair[1].start[1]))
    found = [(name, docstring) for _, name, docstring in scopes(source)]
    for _, numbered in blocks:
        block = [comment for _, comment in numbered]
        text = " ".join(comment.string.lstrip("#") for comment in block)
        found.append((scope_at(source, block[0].start[0]), text))
    return found


@functools.cache
def quotations(source: str) -> list[tuple[str, str]]:
    """What a module quotes, with the scope: what holds a key word, or is a sentence."""
    quoted = [
        (scope, plain(text)) for scope, block in prose(source) for text in re.findall(r'"([^"]+)"', block)
    ]
    return [
        (scope, text)
        for scope, text in quoted
        if re.search(KEYWORD, text) or re.fullmatch(r"[A-Z].*\.", text)
    ]


@functools.cache
def clauses(source: str) -> list[tuple[str, str]]:
    """Each id that stands in a module as a str of its own, for an error, with the scope."""
    return [
        (scope_at(source, node.lineno), node.value)
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(ID, node.value) and node.value not in NO_ID
    ]


# The matrix


def cases_of(manifest: Json) -> list[Json]:
    """The cases of files, and behind them those of folders, with their place as the file."""
    folders = manifest["folders"]["cases"]
    return [*manifest["cases"], *(case | {"file": case["folder"]} for case in folders)]


def is_of_folders(clause: str) -> bool:
    """True for a requirement that cases of folders are of, not those of files."""
    return clause.startswith("IDX-")


class Row(NamedTuple):
    """What there is of a requirement."""

    requirement: Requirement
    quoted: list[str]  # functions, as module.function
    raised: list[str]
    stake: str
    valid: list[str]  # ids of cases
    broken: list[str]
    vectors: int  # that have it as their error
    tests: list[str]  # whose docstrings name it


def matrix(sources: Sources) -> list[Row]:
    """A row a requirement, in the order of SPEC.md."""
    vectors = Counter(vector["result"].get("error") for vector in sources.manifest["vectors"])
    stakes = {clause: stake for stake in STAKES for clause in stake.ids.split()}
    quoted, raised = index(sources, quotations), index(sources, clauses)
    valid: defaultdict[bool, list[Json]] = defaultdict(list)  # by whether they are folders
    broken: defaultdict[tuple[bool, str], list[str]] = defaultdict(list)
    for case in cases_of(sources.manifest):
        broken["folder" in case, case["clause"]].append(case["id"])
        if case["verdict"] == "valid":
            valid["folder" in case].append(case)
    tests: defaultdict[str, list[str]] = defaultdict(list)
    for module, text in sources.tests.items():
        for clause, names in tests_by_id(text).items():
            tests[clause] += [f"{module}.{name}" for name in names]
    rows = []
    for clause, requirement in requirements(sources.spec).items():
        stake = stakes.get(clause, Stake(BEHAVIOUR, "", lambda _: False))
        folders = is_of_folders(clause)
        row = Row(
            requirement=requirement,
            quoted=quoted[requirement.sentence],
            raised=raised[clause],
            stake=stake.words,
            valid=[case["id"] for case in valid[folders] if stake.holds(case)],
            broken=broken[folders, clause],
            vectors=vectors[clause],
            tests=tests[clause],
        )
        rows.append(row)
    return rows


def index(sources: Sources, find: Callable[[str], list[tuple[str, str]]]) -> defaultdict[str, list[str]]:
    """The functions of the package by what *find* finds in them, each once."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for module, text in sources.package.items():
        for scope, what in dict.fromkeys(find(text)):
            found[what].append(dotted(module, scope))
    return found


def dotted(outer: str, inner: str) -> str:
    """What stands in something else, by both names, of which one may be empty."""
    return f"{outer}.{inner}".strip(".")


@functools.cache
def tests_by_id(source: str) -> defaultdict[str, list[str]]:
    """The tests of a module by the ids that their docstrings name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for _, name, docstring in scopes(source):
        if name.startswith("test_"):
            for clause in ids_in(docstring):
                found[clause].append(name)
    return found


@functools.cache
def ids_in(text: str) -> frozenset[str]:
    """All that looks like an id in *text*."""
    return frozenset(re.findall(rf"\b{ID}\b", text))


def holes(sources: Sources) -> list[str]:
    """What is missing in the matrix, in words; none if all is there."""
    known = requirements(sources.spec)
    return [*unknown_ids(sources, set(known)), *files(sources), *tables(set(known)), *gaps(matrix(sources))]


def unknown_ids(sources: Sources, known: set[str]) -> Iterator[str]:
    """Ids that SPEC.md lacks, wherever one stands."""
    kinds, expected = {clause.partition("-")[0] for clause in known}, {*known, None}
    for name, source in sources.package.items():
        yield from (
            f"{dotted(name, scope)} names {c}, which SPEC.md lacks"
            for scope, c in clauses(source)
            if c not in known
        )
    for name, text in {**sources.package, **sources.prose, **sources.tests, "SPEC.md": sources.spec}.items():
        named = {clause for clause in ids_in(text) if clause.partition("-")[0] in kinds}
        yield from (f"{name} speaks of {c}, which SPEC.md lacks" for c in sorted(named - known))
    for case in cases_of(sources.manifest):
        if case["clause"] not in expected:
            yield f"the case {case['id']} breaks {case['clause']}, which SPEC.md lacks"
    for vector in sources.manifest["vectors"]:
        if vector["result"].get("error") not in expected:
            yield f"the vector {vector['id']} breaks {vector['result']['error']}, which SPEC.md lacks"


def files(sources: Sources) -> Iterator[str]:
    """Cases without their files, and files without a case."""
    named = {case["file"] for case in cases_of(sources.manifest)}
    yield from (f"fixtures/{name} is missing" for name in sorted(named - sources.stored))
    yield from (f"fixtures/{name} is no case of the manifest" for name in sorted(sources.stored - named))


def tables(known: set[str]) -> Iterator[str]:
    """Ids in the tables above that SPEC.md lacks, or that stand there twice."""
    staked = Counter(clause for stake in STAKES for clause in stake.ids.split())
    yield from (f"STAKES has {c}, which SPEC.md lacks" for c in staked if c not in known)
    yield from (f"STAKES has {c} twice" for c, count in staked.items() if count > 1)
    yield from (f"NO_FILE has {c}, which SPEC.md lacks" for c in NO_FILE if c not in known)


def gaps(rows: list[Row]) -> Iterator[str]:
    """What single requirements lack."""
    for row in rows:
        clause = row.requirement.id
        if not row.quoted:
            yield f"{clause} is quoted nowhere in the package"
        if (row.broken or row.vectors) and not row.raised:
            yield f"{clause} has no check: the package does not name it"
        if row.raised and not modules_of(row.quoted) & modules_of(row.raised):
            yield f"{clause} is checked in {', '.join(row.raised)}, but quoted in {', '.join(row.quoted)}"
        if not row.valid and NO_FILE.get(clause) not in OUTSIDE:
            yield f"{clause} has no valid file with {row.stake}"
        if not row.broken and clause not in NO_FILE:
            yield f"{clause} has no file that breaks it, and no reason for that"
        if row.broken and clause in NO_FILE:
            yield f"{clause} is in NO_FILE, but {row.broken[0]} breaks it"
        if clause in NO_FILE and not row.tests:
            yield f"{clause} is shown by no test: no docstring names it"


def modules_of(names: list[str]) -> set[str]:
    """The modules of functions, or the packages that hold these."""
    return {name.partition(".")[0] for name in names}


# The page

HEAD = f"""\
# Traceability

Every requirement of [SPEC.md](../SPEC.md): the functions of the package in which its sentence is quoted,
above the lines that obey it, those that name it in an error, and what shows it. A file in which it is *at
stake* is a valid one that could break it, at the limit where there is one; a file that *breaks* it breaks
nothing else, but for those in `order/`. Of the requirements IDX, these are folders. Names are those of
functions in `tritcodec`, of cases in [fixtures](fixtures.md), and of tests. Where no file can break a
requirement, the reason stands there.

This page is made by `{COMMAND}`. `tests/test_traceability.py` fails where it has a
hole: a requirement without a quotation, a check or files, an id that SPEC.md lacks, a file that is missing;
and it proves that by taking each of these away. That no check can be removed without a case noticing is
shown by `python tests/mutants.py score`.
"""


def page(sources: Sources) -> str:
    """The matrix as Markdown."""
    rows = matrix(sources)
    broken, vectors = sum(len(row.broken) for row in rows), sum(row.vectors for row in rows)
    lines = [HEAD, f"{len(rows)} requirements; {broken:,} files break one, and {vectors} vectors.", ""]
    headings = dict(re.findall(r"^#+ ([0-9.]+) (.*)$", sources.spec, re.MULTILINE))
    for section, group in groupby(rows, lambda row: row.requirement.section):
        lines += [f"## {section} {headings[section]}", ""]
        lines += [
            "| requirement | quoted in | named in | at stake in | broken by |",
            "| --- | --- | --- | --- | --- |",
        ]
        lines += [*map(line_of, group), ""]
    return "\n".join(lines)


def line_of(row: Row) -> str:
    """A row of the page."""
    sentence = row.requirement.sentence.replace("|", "\\|")
    cells = [
        f"**{row.requirement.id}** {sentence}",
        code(row.quoted),
        code(row.raised),
        stake_of(row),
        broken_of(row),
    ]
    return f"| {' | '.join(cells)} |"


def code(names: list[str]) -> str:
    """Names as code."""
    return ", ".join(f"`{name}`" for name in names) or "—"


def stake_of(row: Row) -> str:
    """The valid files, their number, and one of them."""
    return f"{len(row.valid)}: {row.stake}, `{row.valid[0]}`" if row.valid else "—"


def broken_of(row: Row) -> str:
    """The files that break a requirement, their number, and one of them; or what shows it otherwise."""
    vectors = f"{row.vectors} vectors" if row.vectors else ""
    if row.broken:
        return f"{len(row.broken)}: `{row.broken[0]}`" + (f"; {vectors}" if vectors else "")
    shown = "; ".join(filter(None, [vectors, code(row.tests)]))
    return f"none: {NO_FILE.get(row.requirement.id, '?')}. Shown by {shown}"


def main() -> int:
    """Print, write or check; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help=f"write {PAGE}")
    what.add_argument("--check", action="store_true", help="exit with 1 where something is missing")
    options = parser.parse_args()
    sources = load()
    now, found = page(sources), holes(sources)
    path = ROOT / PAGE
    if options.write:
        path.write_text(now, "utf-8")
    elif not options.check:
        print(now, end="")
    if path.read_text("utf-8") != now:
        found.append(f"{PAGE} is not what the sources say; run: {COMMAND}")
    for hole in found:
        print(hole, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
