"""Readers that are wrong on purpose: is each caught by a fixture?

usage: python tests/mutants.py list                     the wrong testees, what is wrong, what catches them
       python tests/mutants.py NAME verify FILE         one of them, as a testee of tools/conform.py
       python tests/mutants.py NAME serve
       python tests/mutants.py score [MANIFEST]         every check of the reader removed in turn

The wrong testees are the Python reader (tools/testee.py) with a line of its source replaced. For the score,
every statement that raises or reports a clause is removed, and every limit lifted, one at a time, in memory;
a check whose removal no case of the suite notices survives.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import conform as conform  # noqa: E402  # a tool, no package; for the tests, too

Transform = Callable[[str], str | ast.Module]
CPU_SECONDS = 2.0  # a request; of its own time, so that a busy machine makes no case fail


class Wrong(NamedTuple):
    """A wrong testee: *old*, which stands once in a module, is replaced by *new*; a case catches it."""

    module: str
    old: str
    new: str
    case: str
    level: int = 2


_DECODED = "values = (scales * np.arange(-H, H + 1, dtype=np.float32)).astype(dtype)"
_PRODUCT = "product = scales * np.arange(-H, H + 1, dtype=np.float32); "
_AWAY = "values = np.nextafter(product, np.copysign(np.float32(np.inf), product)).astype(dtype)"
_FLUSHED = "values = np.where(abs(product) < 2**-14, np.float32(0), product).astype(dtype)"
_VANISHES = "values = np.where(abs(product) < 2**-24, product * np.float32(2**-24), product).astype(dtype)"
_CUT = "values = (product.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(dtype)"
_VERDICT = 'return {"verdict": report.verdict, '
_SPLIT_ROWS = "np.subtract(Q[:, :whole], threefold[:, :whole], out="
_FROM_BYTES = 'number = int.from_bytes(self.take(width), "big")'

ANY = "tensors/rows-9-columns-7"  # any case catches those that behave badly

WRONG: dict[str, Wrong] = {
    # What it accepts
    "accepts-243": Wrong("packing", "MAX_BYTE = 242", "MAX_BYTE = 243", "packing/byte-243-last-plane-0"),
    "ignores-padding": Wrong(
        "packing", "if not used or not last.size:", "if True:", "packing/1-rows-codes-all-minus"
    ),
    "skips-digests": Wrong(
        "reader", "if digest != segment.digest:", "if False:", "digests/a-trit-or-bit-of-tensor-a-segment-0"
    ),
    "skips-a-digest": Wrong(
        "reader",
        "if digest != segment.digest:",
        "if digest != segment.digest and segment.part != 1:",
        "digests/a-trit-or-bit-of-tensor-a-segment-1",
    ),
    "unsorted-keys": Wrong(
        "canonical", "previous is not None and key <= previous", "False", "messagepack/a-key-twice"
    ),
    "long-integers": Wrong(
        "canonical",
        "if number < least:",
        "if kind == 'str' and number < least:",
        "messagepack/integer-1-in-1-bytes",
    ),
    "ignores-flags": Wrong("header", "if flags:", "if False:", "preamble/flag-bit-23"),
    "ignores-gaps": Wrong("verify", "if zeros < len(gap):", "if False:", "layout/gap-byte-29"),
    "trailing-header": Wrong(
        "header", "if cursor.at != len(cursor.data):", "if False:", "messagepack/trailing-nil"
    ),
    "trailing-bytes": Wrong(
        "reader", "if end != source.length:", "if end > source.length:", "layout/one-zero-after-the-end"
    ),
    "counts-characters": Wrong(
        "canonical",
        "1 <= len(name) <= MAX_NAME_SIZE",
        "1 <= len(name.decode()) <= MAX_NAME_SIZE",
        "names/key-of-513-bytes-of-4",
    ),
    "sums-that-wrap": Wrong(
        "layout",
        "end = align(segment.end)",
        "end = align(segment.end) % 2**63",
        "layout/running-sum-wraps-to-0",
    ),
    # What it refuses
    "utf-16-order": Wrong(
        "header",
        "if name <= previous:",
        'if entry.name.encode("utf-16-be") <= previous.decode().encode("utf-16-be"):',
        "limits/names-in-the-order-of-utf-8-not-utf-16",
    ),
    "refuses-minor": Wrong(
        "header", "if major != MAJOR:", "if (major, minor) != (1, 0):", "header/metadata-misspelt"
    ),
    # What it computes
    "big-endian-codebook": Wrong("header", '"<f4").astype', '">f4").astype', "tensors/rows-9-columns-7"),
    "little-endian-lengths": Wrong(
        "canonical", _FROM_BYTES, _FROM_BYTES.replace("big", "little"), "header/1-025-pairs"
    ),
    "digits-reversed": Wrong(
        "packing",
        _SPLIT_ROWS,
        "np.subtract(Q[::-1, :whole], threefold[::-1, :whole], out=",
        "tensors/rows-9-columns-7",
    ),
    "forgets-the-shift": Wrong(
        "tensor", "np.float32(BASE**self.shift)", "np.float32(1)", "tensors/depth-2-shift-1-groups-of-17-5x33"
    ),
    "cuts-without-shift": Wrong(
        "tensor",
        "shift=self.shift + self.depth - depth",
        "shift=self.shift",
        "tensors/depth-2-shift-2-groups-of-1-4x16",
    ),
    "half-away": Wrong("tensor", _DECODED, _PRODUCT + _AWAY, "tensors/depth-2-shift-1-groups-of-17-5x33"),
    "flushes-subnormals": Wrong(
        "tensor", _DECODED, _PRODUCT + _FLUSHED, "tensors/depth-2-shift-1-groups-of-16-4x16"
    ),
    "rounds-the-least-to-zero": Wrong(
        "tensor",
        _DECODED,
        _PRODUCT + _VANISHES,
        "tensors/every-code-with-every-level-near-half-of-the-least-in-binary16",
    ),
    "cuts-instead-of-rounding": Wrong(
        "tensor", _DECODED, _PRODUCT + _CUT, "tensors/depth-1-shift-2-groups-of-65536-6x17"
    ),
    "planes-upside-down": Wrong(
        "tensor",
        "planes = self.planes[: CODE_TRITS - 1 : -1]",
        "planes = self.planes[CODE_TRITS:]",
        "tensors/depth-2-shift-2-groups-of-16-37",
    ),
    "tensor-by-tensor": Wrong(
        "layout",
        "for rank in range(MAX_DEPTH):",
        "for rank in (0, 2, 1, 3):",
        "tensors/depth-3-shift-1-groups-of-16-37",
    ),
    "two-bits-in-twos-complement": Wrong(
        "layouts", "words -= words >> np.uint32(1) & LOW_BITS", "pass", "exchange/two-bit-1-to-1-by-3"
    ),
    "odd-column-first": Wrong(
        "layouts",
        "out[...] = _fields(planes, len(out), 4)",
        "fields = _fields(planes, len(out), 4); out[...] = (fields << 4 | fields >> 4)",
        "exchange/int4-2-to-4-by-3",
    ),
    "forgets-the-fifth-trit": Wrong(
        "layouts",
        "fifth = digits[-1, ..., byte:] != 0",
        "fifth = digits[:0]",
        "exchange/tq1-0-1-from-51-byte-255",
    ),
    # How it encodes
    "highest-of-equals": Wrong("search", "(least < E).view", "(least <= E).view", "encode/zeros"),
    "sums-one-by-one": Wrong(
        "search",
        "pairs, m = [], len(terms)",
        "pairs, m = [(terms[:1], term[None]) for term in terms[1:]], 1",
        "encode/rounded-depth-3",
    ),
    "squares-without-scale": Wrong("search", "if ordinary.all():", "if True:", "encode/every-scale"),
    "halves-upwards": Wrong(
        "encode", "np.rint(k, out=k)", "np.floor(k + np.float32(0.5), out=k)", "encode/halves-depth-1"
    ),
    # How it behaves
    "hangs": Wrong("testee", _VERDICT, f"import time; time.sleep(600); {_VERDICT}", ANY, 1),
    "hangs-serving": Wrong("testee", _VERDICT, f"import time; time.sleep(600); {_VERDICT}", ANY),
    "ends-by-a-signal": Wrong("testee", _VERDICT, f"os.kill(os.getpid(), 11); {_VERDICT}", ANY, 1),
    "dies-serving": Wrong("testee", _VERDICT, f"os.kill(os.getpid(), 11); {_VERDICT}", ANY),
    "exit-status-0": Wrong(
        "testee", 'return STATUSES[result["verdict"]]', "return 0", "packing/byte-243-last-plane-0", 1
    ),
    "exit-status-5": Wrong("testee", 'return STATUSES[result["verdict"]]', "return 5", ANY, 1),
    "wrong-clause": Wrong(
        "testee",
        'result_of({"cmd": "verify", "file": path})',
        "dict(verdict='invalid', clause='PRE-1')",
        ANY,
        1,
    ),
    "garbage": Wrong("testee", "print(json.dumps(result))", "print('valid, I think')", ANY, 1),
    "two-lines": Wrong(
        "testee", "print(json.dumps(result))", "print(2 * (json.dumps(result) + chr(10)))", ANY, 1
    ),
    "garbage-served": Wrong("testee", "json.dumps(answer(line))", "'{]'", ANY),
    "endless": Wrong("testee", "print(json.dumps(result))", "while True: print('x' * 10**6)", ANY, 1),
    "eats-memory": Wrong("testee", _VERDICT, f"bytearray(4 << 30); {_VERDICT}", ANY),
    "wrong-seq": Wrong("testee", '"seq": seq, "result"', '"seq": seq + 1, "result"', ANY),
    "skips-all": Wrong("testee", "if command not in COMMANDS:", "if True:", ANY),
    "ends-badly": Wrong(
        "testee",
        "sys.stdout.flush()\n    return 0",
        "sys.stdout.flush()\n    return 1",
        "protocol/end-of-input",
    ),
}


# Changed modules


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module whose source has been transformed."""

    def __init__(self, name: str, path: str, transform: Transform) -> None:
        """As its base, and the transformation."""
        super().__init__(name, path)
        self.transform = transform

    def get_code(self, fullname: str) -> Any:
        """The code, never that of a cache."""
        changed = self.transform(Path(self.get_filename(fullname)).read_text("utf-8"))
        return compile(changed, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, to be transformed."""

    def __init__(self, module: str, transform: Transform) -> None:
        """A module of the package, or the testee."""
        self.name, self.path, self.transform = name_of(module), str(path_of(module)), transform

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """The spec of that module."""
        if fullname != self.name:
            return None
        loader = _Loader(fullname, self.path, self.transform)
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


def name_of(module: str) -> str:
    """The full name of a module of the package, or that of the testee."""
    return module if module == "testee" else f"tritcodec.{module}"


def path_of(module: str) -> Path:
    """Its source."""
    return ROOT / ("tools" if module == "testee" else "tritcodec") / f"{module}.py"


def load(module: str, transform: Transform) -> ModuleType:
    """tools/testee.py over a package in which one module is changed; the modules of this process stay."""
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if _concerned(name)}
    finder = _Finder(module, transform)
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("testee")
    finally:
        sys.meta_path.remove(finder)
        for name in list(sys.modules):
            if _concerned(name):
                del sys.modules[name]
        sys.modules.update(ours)


def _concerned(name: str) -> bool:
    return name.split(".")[0] in ("tritcodec", "testee")


def replaced(wrong: Wrong) -> Transform:
    """The transformation that makes a reader wrong."""

    def transform(source: str) -> str:
        if source.count(wrong.old) != 1:
            raise ValueError(f"{wrong.module}.py: {wrong.old!r} stands there {source.count(wrong.old)} times")
        return source.replace(wrong.old, wrong.new)

    return transform


# Every check, removed

MODULES = (
    "trits",
    "packing",
    "codebook",
    "tensor",
    "canonical",
    "header",
    "layout",
    "reader",
    "verify",
    "layouts",
)
REPORTING = {"fail", "_refuse", "_byte_error"}  # functions that are given a clause
GIVEN = {  # clauses that functions are given, one each: its cases are tried first
    "array": "HDR-4",
    "keys": "HDR-5",
    "utf8": "HDR-6",
    "check_name": "NAME-2",
    "binary": "CB-1",
    "_decode": "XL-3",
}
LIMITED = {"array": [ast.Constant(1 << 62), ast.Constant("")], "map_keys": [], "utf8": []}  # lifted limits

_API = "of an array or a value that a caller passes: neither a file nor a request gets there"
_WRITER = "of what a writer is given, not a reader"
_TWICE = (
    "found a second time behind it, with the same clause: it is there for READ-1, before anything is read"
)
EXEMPT: dict[str, str] = {  # checks that no case can notice, by Site.key, and why
    "codebook.check_codebook CB-1 raise": _API,
    "codebook.check_codes CODE-1 raise": _API,
    "tensor.Form.truncated TEN-2 raise": _API,
    "tensor.TritTensor.__post_init__ PACK-1 raise": _API,
    "tensor.check_shape TYPE-1 raise": _API,
    "tensor.float_name TEN-5 raise": _API,
    "tensor._least_depth TRIT-2 raise": _API,
    "tensor.check_shape SHAPE-1 raise": "the limit of `_HeaderReader.field`, for callers",
    "header.encode_header PRE-5 raise": _WRITER,
    "header._utf8 TYPE-1 raise": _WRITER,
    "header._utf8 MP-4 raise": _WRITER,
    "header._HeaderReader.version TYPE-1 array": _TWICE,
    "header._HeaderReader.field NAME-1 utf8": _TWICE,
    "header._HeaderReader.field SHAPE-1 array": _TWICE,
    "header._HeaderReader.digests ENT-3 array": _TWICE,
}


class Site(NamedTuple):
    """A check: where it stands, which clause, what it is, and the number by which `Remover` finds it."""

    module: str
    function: str
    clause: str
    what: str  # raise, or the function that is called
    line: int
    number: int

    @property
    def key(self) -> str:
        """What it is called here: stays the same while lines move."""
        return f"{self.module}.{self.function} {self.clause} {self.what}"

    def __str__(self) -> str:
        """Where it stands, for people."""
        return f"{self.module}.py:{self.line} {self.function} {self.clause}"


class Remover(ast.NodeTransformer):
    """Counts the checks of a module, and removes the one with a number."""

    def __init__(self, module: str, number: int = -1) -> None:
        """Without a number, it only counts."""
        self.module, self.number = module, number
        self.sites: list[Site] = []
        self.scope: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """A class is part of a function's name."""
        return self._inside(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function, by its name."""
        return self._inside(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """A raise that names a clause."""
        return self._statement(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """A call, or a yield, that names a clause."""
        return self._statement(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A call that bounds what is read."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and len(node.args) == 2 and self._found_limit(node):
            if node.func.attr == "binary":
                expect = ast.Call(
                    ast.Attribute(node.func.value, "expect", ast.Load()), [ast.Constant("bin")], []
                )
                return ast.Call(ast.Attribute(node.func.value, "take", ast.Load()), [expect], [])
            node.args = list(LIMITED[node.func.attr])
        return node

    def _inside(self, node: ast.ClassDef | ast.FunctionDef) -> ast.AST:
        self.scope.append(node.name)
        self.generic_visit(node)
        self.scope.pop()
        return node

    def _statement(self, node: ast.Raise | ast.Expr) -> ast.AST:
        for call in ast.walk(node):
            clause = _clause_of(call) if isinstance(call, ast.Call) else None
            if isinstance(call, ast.Call) and clause is not None:
                what = "raise" if isinstance(node, ast.Raise) else _name_of(call)
                return ast.Pass() if self._found(clause, what, node.lineno) else node
        self.generic_visit(node)
        return node

    def _found_limit(self, node: ast.Call) -> bool:
        name, clause = node.func.attr, node.args[1]  # type: ignore[attr-defined]  # an Attribute
        if name not in {*LIMITED, "binary"} or not isinstance(clause, ast.Constant):
            return False
        return self._found(str(clause.value), name, node.lineno)

    def _found(self, clause: str, what: str, line: int) -> bool:
        self.sites.append(Site(self.module, ".".join(self.scope), clause, what, line, len(self.sites)))
        return len(self.sites) - 1 == self.number


def _clause_of(call: ast.Call) -> str | None:
    """The clause that a call raises or reports, "" for one it is given; None for other calls."""
    for keyword in call.keywords:
        if keyword.arg == "clause" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    if _name_of(call) not in REPORTING:
        return None
    texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return next((text for text in texts if text[-1:].isdigit() and "-" in text), "")


def _name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def sites() -> list[Site]:
    """All checks of the reader."""
    found = []
    for module in MODULES:
        remover = Remover(module)
        remover.visit(ast.parse(path_of(module).read_text("utf-8")))
        found += remover.sites
    return found


def clause_of(site: Site) -> str:
    """The requirement whose cases should notice that a check is gone."""
    return site.clause or GIVEN[site.function.rpartition(".")[2]]


def removed(site: Site) -> Transform:
    """The transformation that removes a check."""

    def transform(source: str) -> ast.Module:
        tree = ast.parse(source)
        Remover(site.module, site.number).visit(tree)
        return ast.fix_missing_locations(tree)

    return transform


# Judging, within this process


class Mutant(conform.Testee):
    """A changed testee, asked without a process of its own."""

    level = 2

    def __init__(self, testee: ModuleType) -> None:
        """A module that `load` gave."""
        self.testee = testee

    def verify(self, path: Path) -> conform.Verdict:
        """The verdict on a file."""
        try:
            return conform.verdict_in(self.ask({"cmd": "verify", "file": str(path)}))
        except conform.Skipped:
            return conform.UNREADABLE

    def ask(self, request: dict[str, Any]) -> Any:
        """The result of a request."""
        answer = self.exchange(json.dumps({"seq": 1, **request}).encode())
        if "skipped" in answer:
            raise conform.Skipped(answer["skipped"])
        return answer["result"]

    def exchange(self, line: bytes) -> Any:
        """The answer to a line; whatever else is raised is a crash."""
        try:
            with alarm():
                return json.loads(json.dumps(self.testee.answer(line)))
        except Exception as error:
            raise conform.Crash(f"{type(error).__name__}: {error}") from None


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """Raise where what stands inside does not come to an end."""

    def ring(_: int, __: FrameType | None) -> None:
        raise conform.Crash(f"no answer in {CPU_SECONDS} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def caught_by(testee: ModuleType, checks: Sequence[conform.Check], clause: str = "") -> str | None:
    """The id of the first case that a testee fails; None where it passes all.

    Those of *clause* are tried first, and of these the shortest ids, which are the plain cases.
    """
    mutant = Mutant(testee)
    at_level_2 = [check for check in checks if 2 in check.levels]
    own = sorted((check for check in at_level_2 if check.clause == clause), key=lambda check: len(check.id))
    others = sorted((check for check in at_level_2 if check.clause != clause), key=lambda c: c.kind == "made")
    for check in [*own, *others]:
        try:
            check.levels[2](mutant)
        except (conform.Mismatch, conform.Skipped, conform.Crash):  # noqa: PERF203  # the first one
            return check.id
    return None


def score(manifest: Path) -> int:
    """Print what catches each removal; the exit status is 1 where one survives."""
    found = sites()
    survivors, caught = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        checks = conform.load_suite(manifest, Path(folder)).checks
        for site in found:
            case = (
                None
                if site.key in EXEMPT
                else caught_by(load(site.module, removed(site)), checks, clause_of(site))
            )
            caught += case is not None
            survivors += case is None and site.key not in EXEMPT
            reason = f"exempt: {EXEMPT[site.key]}" if site.key in EXEMPT else "SURVIVES"
            print(f"{site!s:<56} {case or reason}", flush=True)
    exempt = len(found) - caught - survivors
    print(f"{len(found)} checks: {caught} removals caught, {survivors} survive, {exempt} exempt")
    return 1 if survivors else 0


def main(arguments: Sequence[str]) -> int:
    """Be a wrong testee, or print the list or the score."""
    if arguments[:1] == ["score"]:
        return score(Path(arguments[1]) if arguments[1:] else conform.MANIFEST)
    if arguments and arguments[0] in WRONG:
        wrong = WRONG[arguments[0]]
        status: int = load(wrong.module, replaced(wrong)).main(list(arguments[1:]))
        return status
    if arguments != ["list"]:
        print(__doc__, file=sys.stderr)
        return 2
    for name, wrong in WRONG.items():
        print(f"{name:<26} {wrong.module + '.py':<14} level {wrong.level}  {wrong.case}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
