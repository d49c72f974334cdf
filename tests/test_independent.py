"""The package against a second reading of SPEC.md (tests/independent.py): bit for bit, clause for clause."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damaged
import golden
import independent
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from independent import Raw, Trit, dumps, planes_from
from painted import STEPS, painted, painted_trit
from safetensors.numpy import load_file as load_safetensors

from tritcodec import (
    TritError,
    TritTensor,
    load_file,
    open_file,
    pack,
    quantize,
    save_file,
    unpack,
    verify_file,
)

ROOT = Path(__file__).parents[1]
ROWS_PER_BYTE = 5
EDGES = [k * ROWS_PER_BYTE + off for k in (1, 2) for off in (-1, 0, 1)]  # rows around a byte row
FORMS = [(depth, shift) for depth in (1, 2, 3, 4) for shift in range(5 - depth)]
FORMATS = tuple(independent.FORMATS)
# Files that are too large to store; those in fixtures/ are tried in test_fixtures.py and test_conform.py.
LARGE = [(clause, why, data) for clause, why, data in damaged.damaged() if why in golden.LEFT_OUT]
LARGE_VALID = [(why, data) for why, data in damaged.undamaged() if why in golden.LEFT_OUT]
VECTORS = json.loads((ROOT / "fixtures" / "manifest.json").read_bytes())["vectors"]


def steps_of(trit: Trit) -> np.ndarray:
    """The codebook as float32."""
    return np.array(trit.steps, np.uint32).view(np.float32)


def packaged(trit: Trit) -> TritTensor:
    """The same tensor, made by the package."""
    return TritTensor.from_levels(
        np.array(trit.levels(), np.int8).reshape(trit.shape),
        np.array(trit.codes, np.uint8).reshape(*trit.shape[:-1], -1),
        steps_of(trit),
        depth=len(trit.planes),
        group_size=trit.group_size,
        shift=trit.shift,
        dtype=trit.dtype,
    )


def assert_tensors_alike(tensor: object, trit: Trit, formats: tuple[str, ...]) -> None:
    """Fail unless both decode to the same levels, codes and bit patterns."""
    assert isinstance(tensor, TritTensor)
    fields = (list(tensor.shape), tensor.dtype, tensor.depth, tensor.shift, tensor.group_size)
    assert fields == (trit.shape, trit.dtype, len(trit.planes), trit.shift, trit.group_size)
    assert tensor.codebook.view(np.uint32).tolist() == trit.steps
    rows = len(trit.codes)
    assert tensor.codes.reshape(rows, -1).tolist() == trit.codes
    assert tensor.levels().reshape(rows, -1).tolist() == trit.levels()
    for dtype in formats:
        values = tensor.dequantize(dtype)
        assert values.view(f"u{values.itemsize}").reshape(rows, -1).tolist() == trit.values(dtype), dtype


def assert_read_alike(path: Path, formats: tuple[str, ...] = FORMATS) -> None:
    """Fail unless both find *path* valid, decode it alike at every depth, and write the same bytes."""
    data = path.read_bytes()
    assert [str(finding) for finding in verify_file(path).findings] == []
    metadata, tensors = independent.read(data)
    with open_file(path) as file:
        assert (file.metadata, file.keys()) == (metadata, list(tensors))
        for name, tensor in tensors.items():
            mine = file.get_tensor(name)
            if isinstance(tensor, Raw):
                assert (file.entry(name).dtype, list(mine.shape)) == (tensor.dtype, tensor.shape)
                assert isinstance(mine, np.ndarray)
                assert mine.tobytes() == tensor.data
                continue
            assert_tensors_alike(mine, tensor, formats)
            for depth in range(1, len(tensor.planes)):
                assert_tensors_alike(file.get_tensor(name, depth), tensor.cut(depth), formats)
    assert independent.write(tensors, metadata) == data
    save_file(load_file(path), path.with_suffix(".again"), metadata)
    assert path.with_suffix(".again").read_bytes() == data


def assert_written_alike(path: Path, trit: Trit, formats: tuple[str, ...] = FORMATS) -> None:
    """Fail unless both write *trit* with the same bytes, and read them alike."""
    save_file({"w": packaged(trit)}, path)
    assert path.read_bytes() == independent.write({"w": trit})
    assert_read_alike(path, formats)


@pytest.mark.parametrize("rows", EDGES)
@pytest.mark.parametrize("columns", [1, 7])
def test_planes(rows: int, columns: int) -> None:
    """One plane is packed to the same bytes and unpacked to the same trits."""
    plane = [[t - 1 for t in painted(rows * columns, 3)[r::rows]] for r in range(rows)]
    packed = pack(np.array(plane, np.int8))
    assert packed.tobytes() == independent.pack(plane)
    assert unpack(packed, rows).tolist() == independent.unpack(packed.tobytes(), rows, columns) == plane


@pytest.mark.parametrize("rows", EDGES)
@pytest.mark.parametrize("group_size", [1, 5, 16, 17, 64])
def test_rows_and_groups(tmp_path: Path, rows: int, group_size: int) -> None:
    """Rows around whole byte rows, and groups that do not divide a row or are longer than it, read alike."""
    assert_written_alike(tmp_path / "x.trit", painted_trit([rows, 40], 2, group_size=group_size), ("F32",))


@pytest.mark.parametrize(("depth", "shift"), FORMS)
@pytest.mark.parametrize("shape", [[37], [7, 37], [2, 3, 17], [2, 1, 3, 16]])
def test_depths_and_ranks(tmp_path: Path, depth: int, shift: int, shape: list[int]) -> None:
    """Every depth with every shift reads alike in ranks 1 to 4, also where it is truncated."""
    assert_written_alike(tmp_path / "x.trit", painted_trit(shape, depth, shift))


@pytest.mark.parametrize("steps", ["plain", "least", "ties in binary16", "ties in bfloat16"])
@pytest.mark.parametrize("dtype", FORMATS)
def test_every_code_with_every_level(tmp_path: Path, steps: str, dtype: str) -> None:
    """All 27 codes with all 81 levels have the same bits: ties, subnormals, zeros of both signs."""
    levels, codes = [list(range(-40, 41))] * 27, [[c] for c in range(27)]
    trit = Trit([27, 81], dtype, 81, 0, STEPS[steps], codes, planes_from(levels, 4))
    assert_written_alike(tmp_path / "x.trit", trit)


def test_the_greatest_values(tmp_path: Path) -> None:
    """Products just below 2^128 are exact in binary32, with depth 4 and with depth 1 and shift 3."""
    for depth, shift in [(4, 0), (1, 3)]:
        assert_written_alike(
            tmp_path / "x.trit", painted_trit([27, 81], depth, shift, 3, steps="greatest"), ("F32",)
        )


def test_raw_tensors(tmp_path: Path) -> None:
    """Raw tensors of every dtype, of rank 0 and with axes of 0 among them, read alike."""
    tensors: dict[str, Trit | Raw] = {}
    for dtype, size in independent.ELEMENT.items():
        for shape in ([], [0], [3, 0, 2], [7], [2, 3]):
            content = bytes(painted(math.prod(shape) * size, 2 if dtype == "BOOL" else 251))
            tensors[f"{dtype} {shape}"] = Raw(shape, dtype, content)
    (tmp_path / "x.trit").write_bytes(independent.write(tensors))
    assert_read_alike(tmp_path / "x.trit")


def test_several_tensors(tmp_path: Path) -> None:
    """Several tensors of all depths, raw ones between them: planes stand where the other looks for them."""
    trits = {
        "d": painted_trit([6, 40], 2),
        "a": painted_trit([5, 64], 4, group_size=5),
        "B": painted_trit([11, 3], 1, 2, group_size=1),
        "é": painted_trit([1, 1], 3),
    }
    arrays = {"empty": np.empty(0, "<i8"), "c": np.arange(5, dtype="<f4")}
    raw = {"c": Raw([5], "F32", arrays["c"].tobytes()), "empty": Raw([0], "I64", b"")}
    package: dict[str, TritTensor | np.ndarray] = {
        **{name: packaged(trit) for name, trit in trits.items()},
        **arrays,
    }
    save_file(package, tmp_path / "x.trit", {"b": "", "aa": ""})
    assert (tmp_path / "x.trit").read_bytes() == independent.write({**trits, **raw}, {"aa": "", "b": ""})
    assert_read_alike(tmp_path / "x.trit")


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_binary32_by_binary64(operation: Callable[[Any, Any], Any]) -> None:
    """An operation in binary64, rounded again, is the one in binary32: of any bits, near ones, integers."""
    rng = np.random.default_rng(0)
    any_bits = rng.integers(0, 2**32, (2, 20_000), np.uint32).view(np.float32)
    near = rng.integers(0x3F80_0000, 0x4100_0000, (2, 20_000), np.uint32).view(np.float32)
    pairs = np.concatenate(
        [any_bits, near, rng.integers(1, 2**24 + 1, (2, 20_000)).astype(np.float32)], axis=1
    )
    x, y = pairs[:, np.isfinite(pairs).all(axis=0) & (pairs[1] != 0)]
    with np.errstate(all="ignore"):
        once = operation(x, y)
    twice = [independent.fl(operation(a, b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert twice == once.tolist()


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["cmd"] == "encode"], ids=lambda v: str(v["id"]))
def test_encoding(vector: dict[str, Any]) -> None:
    """Both encoders choose the codes and levels that are stored (SPEC 11.2)."""
    request = dict(vector["request"])
    w, steps = (np.frombuffer(bytes.fromhex(request.pop(key)), "<f4") for key in ("weights", "codebook"))
    w = w.reshape(request.pop("shape"))
    tensor = quantize(w, codebook=steps, **request)
    codes, levels = independent.encode(w.reshape(-1, w.shape[-1]).tolist(), steps.tolist(), **request)
    assert tensor.codes.reshape(len(codes), -1).tolist() == codes
    assert tensor.levels().reshape(len(levels), -1).tolist() == levels
    stored = {"codes": tensor.codes.tobytes().hex(), "levels": tensor.levels().tobytes().hex()}
    assert stored == vector["result"]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"format": "pt"},
        {"Größe": "日本語 \U0001f600", "b": "\n\x1b[31m", "aa": "", "\U0001f600": "x" * 300, "\uff5e": "2"},
    ],
)
def test_metadata(tmp_path: Path, metadata: dict[str, str]) -> None:
    """Metadata in any script, with control characters in values and keys in the order of UTF-8."""
    save_file({}, tmp_path / "x.trit", metadata)
    assert (tmp_path / "x.trit").read_bytes() == independent.write({}, metadata)
    assert_read_alike(tmp_path / "x.trit")


def encoded(weights: np.ndarray, depth: int) -> TritTensor:
    """A plain encoding: the least step that holds a group's largest weight, and the nearest levels."""
    H, size = (3**depth - 1) // 2, 16
    steps = np.float32(np.abs(weights).max() / H) * np.float32(0.85) ** np.arange(
        26, -1, -1, dtype=np.float32
    )
    steps = ((steps.view(np.uint32) + 63) // 64 * 64).view(np.float32)
    largest = np.maximum.reduceat(np.abs(weights), range(0, weights.shape[1], size), axis=1)
    codes = np.searchsorted(steps, largest / H).clip(0, 26).astype(np.uint8)
    scales = np.repeat(steps[codes], size, axis=1)[:, : weights.shape[1]]
    levels = np.rint(weights / scales).clip(-H, H).astype(np.int8)
    return TritTensor.from_levels(levels, codes, steps, depth=depth, dtype="F16")


def test_real_weights(tmp_path: Path) -> None:
    """A layer of a real model, 11 rows of each matrix, reads alike at every depth."""
    tensors: dict[str, TritTensor | np.ndarray] = {}
    for index, (name, array) in enumerate(
        load_safetensors(ROOT / "fixtures/minilm/model.safetensors").items()
    ):
        matrix = array.ndim == 2 and array.dtype == np.float16
        tensors[name] = encoded(array[:11].astype(np.float32), index % 4 + 1) if matrix else array[:100]
    assert sum(isinstance(tensor, TritTensor) for tensor in tensors.values()) >= 8
    save_file(tensors, tmp_path / "x.trit", {"format": "pt"})
    assert_read_alike(tmp_path / "x.trit")


# Verdicts


def verdict(found: set[str]) -> str:
    """What chapter 6.1 calls a file with these broken clauses."""
    return "unsupported" if found & {"PRE-3", "PRE-4"} else "invalid" if found else "valid"


def verdicts(folder: Path, data: bytes) -> tuple[set[str], set[str]]:
    """The clauses that the package and the independent decoder find broken; their verdicts are the same."""
    (folder / "x.trit").write_bytes(data)
    report = verify_file(folder / "x.trit")
    mine, other = (
        {finding.clause for finding in report.findings},
        {clause for clause, _ in independent.defects(data)},
    )
    assert report.verdict == verdict(other), (mine, other)
    return mine, other


@pytest.mark.parametrize(
    ("clause", "data"), [pytest.param(clause, data, id=f"{clause}: {why}") for clause, why, data in LARGE]
)
def test_large_damaged_file(tmp_path: Path, clause: str, data: bytes) -> None:
    """A file with one fault: both name its clause and no other, and a reader refuses it for that."""
    assert verdicts(tmp_path, data) == ({clause}, {clause})
    with pytest.raises(TritError) as caught:
        load_file(tmp_path / "x.trit")
    assert caught.value.clause == clause


@pytest.mark.parametrize("data", [pytest.param(data, id=why) for why, data in LARGE_VALID])
def test_large_undamaged_file(tmp_path: Path, data: bytes) -> None:
    """A file on the right side of a limit: both find it valid."""
    assert verdicts(tmp_path, data) == (set(), set())


@pytest.mark.parametrize("first", range(1, 9))
def test_preamble_in_order(tmp_path: Path, first: int) -> None:
    """Of several faults in the preamble, both report the first: clauses PRE-*first* to PRE-8 are broken."""
    data = damaged.whole()
    fields = {"magic": b"x" * 8, "major": 2, "flags": 1, "size": 0, "length": 1, "digest": bytes(32)}
    order = ["magic", "major", "flags", "size", "length", "size", "digest"]  # PRE-2 to PRE-8
    broken = {name: fields[name] for name in order[max(first - 2, 0) :]}
    if first in (6, 7):  # PRE-7, and not PRE-5
        broken["size"] = len(data)
    cut = damaged.preamble(**broken)
    assert verdicts(tmp_path, cut[: 63 if first == 1 else None]) == ({f"PRE-{first}"}, {f"PRE-{first}"})


quick = settings(max_examples=400, deadline=None)
FILE = damaged.whole()
HEADER = dumps(damaged.parts()[0])
SEGMENTS = independent.open_file(FILE)[1]
REGIONS = [range(64), range(64, 64 + len(HEADER))]  # each is as likely to be hit
REGIONS += [range(segment.offset, independent.align(segment.offset + segment.size)) for segment in SEGMENTS]
OFFSETS = st.sampled_from(REGIONS).flatmap(st.sampled_from)


@given(st.dictionaries(OFFSETS, st.integers(1, 255), min_size=1, max_size=3))
@quick
def test_changed_bytes(tmp_path_factory: pytest.TempPathFactory, masks: dict[int, int]) -> None:
    """Bytes changed anywhere in a file: never valid, and both find the same clauses broken."""
    data = bytearray(FILE)
    for at, mask in masks.items():
        data[at] ^= mask
    mine, other = verdicts(tmp_path_factory.getbasetemp(), bytes(data))
    assert mine == other != set()


@given(st.integers(0, len(FILE)))
@quick
def test_cut_file(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    """A file that is cut off anywhere: PRE-1 or PRE-6."""
    mine, other = verdicts(tmp_path_factory.getbasetemp(), FILE[:length])
    assert mine == other == ({"PRE-1"} if length < 64 else {"PRE-6"} if length < len(FILE) else set())


class Heads(independent.Parser):
    """A parser that notes where each value begins, its type and its number."""

    def __init__(self, data: bytes) -> None:
        """Nothing is noted yet."""
        super().__init__(data)
        self.found: list[tuple[int, int, type, int]] = []

    def head(self) -> tuple[type, int]:
        """The next value's, noted."""
        start = self.at
        kind, number = super().head()
        self.found.append((start, self.at, kind, number))
        return kind, number


def heads_of(header: bytes) -> list[tuple[int, int, type, int]]:
    """Where each value of a header begins, where its head ends, its type, and its integer or length."""
    parser = Heads(header)
    parser.value()
    return parser.found


HEADS = heads_of(HEADER)


def test_long_forms(tmp_path: Path) -> None:
    """Each integer, length and count of a header in every form that is longer than the shortest: MP-2."""
    tried = 0
    for start, end, kind, number in HEADS:
        for first, (its_kind, width, _) in independent.WIDE.items():
            if its_kind is kind and 1 + width > end - start:
                head = bytes([first]) + number.to_bytes(width, "big")
                assert verdicts(tmp_path, damaged.whole(HEADER[:start] + head + HEADER[end:])) == (
                    {"MP-2"},
                    {"MP-2"},
                )
                tried += 1
    assert tried > 200


INTEGERS = st.sampled_from([0, 1, 2, 3, 4, 5, 16, 40, 64, 65536, 65537, 2**24, 2**48, 2**48 + 1, 2**64 - 1])
TEXTS = st.sampled_from(["", "BOOL", "U8", "F32", "F16", "BF16", "B", "b", "é", "x\n", "x" * 513])
BYTES = st.sampled_from([b"", bytes(32), bytes(33), bytes(108)])
SHAPES = st.lists(INTEGERS, max_size=9)
KINDS = st.sampled_from(["raw", "trit", "x"])
MAPS = st.dictionaries(st.sampled_from(["", "a", "depth", "x"]), INTEGERS, max_size=2)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of everything in a header."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def change_one(draw: st.DrawFn, header: Any) -> None:
    """Give a value another value or type, leave it out, or add a key: one fault at the most."""
    leaves = [(c, k) for c, k in places(header) if k != "kind" and not isinstance(c[k], list | dict)]
    container, key = draw(st.sampled_from(leaves))
    same = {int: INTEGERS, str: TEXTS, bytes: BYTES}[type(container[key])]
    change = draw(st.sampled_from(["value", "value", "type", "remove", "add"]))
    if change == "value":
        container[key] = draw(same)
    elif change == "type":
        container[key] = draw(INTEGERS | TEXTS | BYTES | SHAPES | MAPS)
    elif change == "remove":
        del container[key]
    elif isinstance(container, dict):
        container["x"] = draw(INTEGERS | TEXTS | BYTES | SHAPES | MAPS)


def change_much(draw: st.DrawFn, header: Any) -> None:
    """Replace, copy, remove or add anything."""
    container, key = draw(st.sampled_from(places(header)))
    change = draw(st.sampled_from(["replace", "copy", "remove", "add"]))
    if change == "replace":
        container[key] = draw(INTEGERS | TEXTS | KINDS | BYTES | SHAPES | MAPS)
    elif change == "copy":
        other, name = draw(st.sampled_from(places(header)))
        container[key] = copy.deepcopy(other[name])
    elif change == "remove":
        del container[key]
    elif isinstance(container, dict):
        new = draw(st.sampled_from(["", "depth", "name", "shape", "sha256", "x", "a\n"]))
        container[new] = draw(INTEGERS | TEXTS | KINDS | BYTES | SHAPES | MAPS)
    else:
        container.insert(key, copy.deepcopy(container[key]))


def fitted(header: Any, minor: int, content: list[bytes], redigested: bool) -> list[bytes]:
    """The segments, cut or filled up to what a valid *header* says; its digests follow if asked."""
    try:
        independent.check_header(header, minor)
        segments, end = independent.layout(len(dumps(header)), header["tensors"])
    except independent.Broken:
        return content
    if end > 2**16:
        return content
    fit = [
        (old + bytes([121]) * s.size)[: s.size]
        for old, s in zip(content + [b""] * len(segments), segments, strict=False)
    ]
    for new, s in zip(fit, segments, strict=True):
        if redigested and s.entry["kind"] == "raw":
            s.entry["sha256"] = hashlib.sha256(new).digest()
        elif redigested:
            s.entry["sha256"][s.index] = hashlib.sha256(new).digest()
    return fit


@st.composite
def changed_files(draw: st.DrawFn, change: Callable[[st.DrawFn, Any], None]) -> bytes:
    """A file with a *change* in its header's value, and everything else made to fit."""
    minor = draw(st.sampled_from([0, 0, 1]))
    header, content = damaged.parts()
    header["version"] = [1, minor]
    change(draw, header)
    content = fitted(header, minor, content, redigested=draw(st.booleans()))
    return damaged.whole(header, content, minor)


@given(changed_files(change_one))
@quick
def test_changed_value(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """A header with one value changed, removed or added: both find the same clauses broken, or none."""
    mine, other = verdicts(tmp_path_factory.getbasetemp(), data)
    assert mine == other


@given(changed_files(change_much))
@quick
def test_changed_header(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """A header with anything exchanged for anything, many faults at once: both come to the same verdict."""
    verdicts(tmp_path_factory.getbasetemp(), data)


PLACES = st.just(len(HEADER)) | st.sampled_from([start for start, *_ in HEADS]) | st.integers(0, len(HEADER))
FIRST_BYTES = st.sampled_from([bytes([first]) for first in (0x00, 0x80, 0x90, 0xA0, *range(0xC0, 0xE1))])
CHANGES = st.tuples(PLACES, st.integers(0, 2), FIRST_BYTES | st.binary(max_size=6))


@given(st.lists(CHANGES, min_size=1, max_size=2))
@quick
def test_changed_header_bytes(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, bytes]]
) -> None:
    """Bytes of the header replaced, put in or taken out, a digest to fit: the verdict is the same."""
    header = HEADER
    for at, removed, new in changes:
        header = header[:at] + new + header[at + removed :]
    verdicts(tmp_path_factory.getbasetemp(), damaged.whole(header))
