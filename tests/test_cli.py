"""The command line: what it says, where it says it, and with which status it ends."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from glob import glob
from hashlib import sha256
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import header, seal
from model_helpers import (
    CONFIGS,
    MINILM,
    MODEL,
    TRIT,
    Stored,
    floats,
    library_takes,
    read_safetensors,
    tree,
    untouched,
    values,
    weights,
    write_model,
)

from tritcodec import TritTensor, open_file, progress, save_file
from tritcodec.cli import main
from tritcodec.encode import quantize
from tritcodec.header import Preamble, RawEntry, encode_header, encode_preamble
from tritcodec.model.spool import STATE
from tritcodec.model.workers import workers
from tritcodec.text import _size as size_in_table

COMMANDS = ["quantize", "dequantize", "repack", "truncate", "inspect", "verify"]
ALL_CONFIGS = ("--configs", ",".join(CONFIGS))
PREAMBLE_SIZE = 64
MAJOR_AT, FLAGS_AT, HEADER_SIZE_AT, DIGEST_AT = 8, 12, 16, 32  # in the preamble (SPEC 6.1)
TOOL = MINILM.parents[1] / "tools" / "verify.py"
posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")


class Run(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


Command = Callable[..., Run]


@pytest.fixture
def tritcodec(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, run in this process, and silent however slow that is."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", math.inf)

    def run(*arguments: object) -> Run:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:  # of argparse
            status = int(str(error.code))
        return Run(status, *capsys.readouterr())

    return run


def spawn(*arguments: object, options: Sequence[str] = (), **others: Any) -> Run:
    """The command, run in a process of its own."""
    command = [sys.executable, *options, "-m", "tritcodec.cli", *map(str, arguments)]
    return ended(command, **others)


def ended(command: Sequence[str], **options: Any) -> Run:
    """A process that has ended."""
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=60, **options
    )
    return Run(done.returncode, done.stdout, done.stderr)


def assert_error(run: Run, *words: str) -> None:
    """It failed with one printable line that says what and why."""
    assert run.status == 2, run
    assert_one_line(run.err)
    for word in words:
        assert word in run.err


def assert_one_line(text: str) -> None:
    """An error of ours is one line that nothing in a name or a path can break or colour."""
    assert text.startswith("tritcodec: ")
    assert text.endswith("\n")
    assert text[:-1].isprintable(), text


# The files that the commands are tried on


def flipped(data: bytes, at: int) -> bytes:
    """*data* with one bit of one byte turned."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    """A file with a name replaced by one as long, and the header's digest right again."""
    assert len(old) == len(new)
    size = int.from_bytes(data[HEADER_SIZE_AT : HEADER_SIZE_AT + 8], "little")
    header = data[PREAMBLE_SIZE : PREAMBLE_SIZE + size].replace(old, new)
    preamble = data[:DIGEST_AT] + sha256(header).digest()
    return preamble + header + data[PREAMBLE_SIZE + size :]


def endless() -> bytes:
    """A file of 64 bytes and a header, whose tensors would take 2^63 bytes."""
    header = encode_header([RawEntry(f"{i:04}", "F64", (1 << 48,)) for i in range(1 << 12)], {})
    size = PREAMBLE_SIZE + len(header)
    return encode_preamble(Preamble(len(header), size, sha256(header).digest())) + header


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and files, good and bad; nobody writes to it."""
    folder = tmp_path_factory.mktemp("shelf")
    write_sources(folder)
    tensors: dict[str, TritTensor | np.ndarray] = {
        "a.weight": quantize(values(7, 40).astype(np.float32), 3),
        "b.weight": quantize(values(11, 20).astype(np.float16), 1),
        "raw": np.arange(5),
    }
    save_file(tensors, folder / "good.trit", {"origin": "painted"})
    good = (folder / "good.trit").read_bytes()
    with open_file(folder / "good.trit") as file:
        last = file.segments[-1]
    (folder / "damaged.trit").write_bytes(flipped(good, last.offset + 1))
    (folder / "header.trit").write_bytes(flipped(good, PREAMBLE_SIZE + 9))
    (folder / "cut.trit").write_bytes(good[:-64])
    (folder / "newer.trit").write_bytes(flipped(flipped(good, MAJOR_AT), MAJOR_AT + 1))
    (folder / "flagged.trit").write_bytes(flipped(good, FLAGS_AT))
    (folder / "foreign.trit").write_bytes(b"GGUF" + bytes(96))
    (folder / "empty.trit").write_bytes(b"")
    (folder / "endless.trit").write_bytes(endless())
    save_file({"a_b": np.ones(1, np.uint8)}, folder / "named.trit")
    hostile = renamed((folder / "named.trit").read_bytes(), b"a_b", b"a\nb")
    (folder / "hostile.trit").write_bytes(hostile)
    save_file({"big": quantize(values(2, 9).astype(np.float32) * 1e6, 2)}, folder / "big.trit")
    return folder


def write_sources(folder: Path) -> None:
    """The models of the shelf."""
    model = {
        "a.weight": weights(7, 40),
        "b.weight": weights(11, 20, dtype="F16"),
        "raw": Stored("I64", (5,), np.arange(5).tobytes()),
        "model.norm.weight": weights(20),
        "none": Stored("F32", (0, 4), b""),
    }
    write_model(folder / "model", model, {"format": "pt"})
    (folder / "model" / "config.json").write_text("{}")
    write_model(folder / "lone.safetensors", model)
    (folder / "sharded").mkdir()
    (folder / "sharded" / f"{MODEL}.index.json").write_text("{}")
    (folder / "taken" / "uniform-d2").mkdir(parents=True)
    (folder / "text.safetensors").write_text("no weights at all")
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "cut.safetensors").write_bytes((folder / "lone.safetensors").read_bytes()[:-1])
    sources = {
        "nan": {"fine.weight": weights(2, 2), "w.weight": floats([[1, np.nan], [np.inf, 2]])},
        "nine": {"deep": Stored("U8", (1,) * 9, b"1")},
        "long": {"n" * 600: weights(2, 2)},
        "nameless": {"": weights(2, 2)},
        "hostile": {"a\x1b[2J\nuniform-d2: 1 weights": weights(2, 2)},
        "packed": {"w.weight": Stored("F4", (8,), bytes(4))},
        "others": {"a.weight": weights(40, 7), "raw": weights(5)},
        "zeros": {"a.weight": floats(np.zeros((7, 40))), "b.weight": floats(np.zeros((11, 20)))},
        "huge": {"a.weight": floats(np.full((7, 40), 1e300), "F64"), "b.weight": weights(11, 20)},
        "complex": {"a.weight": Stored("C64", (7, 40), bytes(8 * 280)), "b.weight": weights(11, 20)},
    }
    for name, tensors in sources.items():
        write_model(folder / f"{name}.safetensors", tensors)


@pytest.fixture
def at_shelf(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shelf, as the working directory."""
    monkeypatch.chdir(shelf)
    return shelf


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture model, quantised to all configs by the command."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert main(["quantize", str(MINILM), str(out), *ALL_CONFIGS]) == 0
    return out


# The README's path, on real weights


def test_quantize_says_what_it_made(tritcodec: Command, made: Path, tmp_path: Path) -> None:
    """One line a config with the folder, weights, bytes and bits; nothing on stderr; folders as before."""
    run = tritcodec("quantize", MINILM, tmp_path / "out", *ALL_CONFIGS)
    assert (run.status, run.err) == (0, "")
    lines = run.out.splitlines()
    assert len(lines) == 4
    for depth, bits, line in zip((1, 2, 3, 4), ("1.908", "3.512", "5.116", "6.720"), lines, strict=True):
        folder = re.escape(str(tmp_path / "out" / f"uniform-d{depth}"))
        sizes = rf"1,769,472 weights in [\d,]+ bytes \({bits} bits a weight; 6 at d{depth}\)"
        assert re.fullmatch(f"{folder}: {sizes}, and 505,600 bytes raw", line)
    assert tree(tmp_path / "out") == tree(made)


def test_verify_says_that_the_made_files_are_valid(tritcodec: Command, made: Path) -> None:
    """A folder stands for its model.trit; one line a file with count, size and identity."""
    folders = [made / config for config in CONFIGS]
    run = tritcodec("verify", *folders)
    assert (run.status, run.err) == (0, "")
    for folder, line in zip(folders, run.out.splitlines(), strict=True):
        with open_file(folder / TRIT) as file:
            identity = file.identity
        size = (folder / TRIT).stat().st_size
        assert line == f"{folder / TRIT}: valid, 22 tensors, {size:,} bytes, identity {identity}"


def test_inspect_shows_every_tensor(tritcodec: Command, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Format, size, identity, metadata; a row a tensor with shape, kind, stored bits and information."""
    monkeypatch.setenv("COLUMNS", "200")
    run = tritcodec("inspect", made / "uniform-d2")
    assert (run.status, run.err) == (0, "")
    with open_file(made / "uniform-d2" / TRIT) as file:
        names, identity = file.keys(), file.identity
    assert f"identity {identity}\nformat: pt\ntritcodec.config: uniform-d2\n" in run.out
    rows = {line.split()[0]: line.split()[1:] for line in run.out.splitlines() if line}
    assert set(names) < rows.keys()
    assert rows["encoder.layer.0.output.dense.weight"] == ["384x1536", "F16", "d2", "3.511", "3.467"]
    assert rows["encoder.layer.0.output.dense.bias"] == ["384", "F16", "raw", "16", "16"]
    assert rows["embeddings.position_ids"] == ["1x128", "I64", "raw", "64", "64"]
    assert "6 quantised: 1,769,472 weights, 3.512 bits a weight stored, 3.467 of information\n" in run.out
    layers = run.out.split("\n\n")[2].splitlines()
    assert layers[0].split() == ["layer", "quantised", "weights", "depth", "stored", "info", "bytes", "raw"]
    sizes = ["3.512", "3.467", "758.6K", "9.8K"]
    assert layers[1].split() == ["encoder.layer.0", "6", "1,769,472", "d2", *sizes]
    assert layers[2].split() == ["outside", "layers", "0", "0", "0", "484.0K"]
    assert run.out.endswith("16 raw: 505,600 bytes\n")


@pytest.mark.parametrize("config", CONFIGS)
def test_inspect_against_the_source_shows_the_error(
    tritcodec: Command, made: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    """Signal to noise in decibels and the relative error: what NumPy finds in the dequantised weights."""
    monkeypatch.setenv("COLUMNS", "200")
    run = tritcodec("inspect", made / config, "--against", MINILM)
    assert (run.status, run.err) == (0, "")
    name = "encoder.layer.0.attention.self.key.weight"
    source, _ = read_safetensors(MINILM / MODEL)
    w = np.frombuffer(source[name].data, "<f2").astype(np.float64)
    with open_file(made / config / TRIT) as file:
        tensor = file.get_tensor(name)
    assert not isinstance(tensor, np.ndarray)
    errors = np.square(w - tensor.dequantize("F32").ravel())
    noise = errors.sum() / np.square(w).sum()
    groups = (errors.reshape(384, 24, 16).sum(2) / np.square(w).reshape(384, 24, 16).sum(2)).ravel()
    worst = [f"{100 * np.sqrt(groups.max()):.2f}", f"{groups.argmax() // 24}:{groups.argmax() % 24}"]
    row = next(line for line in run.out.splitlines() if line.startswith(name))
    assert row.split()[-4:] == [f"{-10 * np.log10(noise):.2f}", f"{100 * np.sqrt(noise):.2f}", *worst]
    assert re.search(r"SQNR over all quantised weights: \d+\.\d\d dB \(error \d+\.\d\d %\)\n", run.out)
    all_worst = re.search(r"worst group: error ([\d.]+) %, group \d+ of row \d+ of 'encoder\.", run.out)
    assert all_worst is not None
    assert float(all_worst[1]) >= float(worst[0])


def test_dequantize_and_truncate_say_what_they_made(tritcodec: Command, made: Path, tmp_path: Path) -> None:
    """One line each on stdout; the folders are there and good."""
    run = tritcodec("dequantize", made / "uniform-d4", tmp_path / "back", "--depth", 2, "--dtype", "F32")
    found, _ = read_safetensors(tmp_path / "back" / MODEL)
    count = sum(int(np.prod(tensor.shape)) for tensor in found.values())
    assert run == (0, f"{tmp_path / 'back'}: {len(found)} tensors, {count:,} weights\n", "")
    assert found["encoder.layer.0.output.dense.weight"].dtype == "F32"
    run = tritcodec("truncate", made / "uniform-d4", tmp_path / "cut", "--depth", 2)
    before, after = (path.stat().st_size for path in (made / "uniform-d4" / TRIT, tmp_path / "cut" / TRIT))
    assert run == (0, f"{tmp_path / 'cut' / TRIT}: {after:,} bytes, from {before:,}\n", "")
    assert tritcodec("verify", tmp_path / "cut").status == 0


def test_the_command_is_installed() -> None:
    """`tritcodec` on the path is this `main`."""
    (script,) = entry_points(group="console_scripts", name="tritcodec")
    assert script.load() is main


# Errors: one line, status 2, nothing written

EXISTS, MISSING, FOREIGN = "exists already", "No such file or directory", "not a valid safetensors file"
FAILING: list[tuple[str, list[str]]] = [
    # sources of quantize
    ("quantize nowhere x", ["nowhere", MISSING]),
    ("quantize nowhere/deep x", ["nowhere/deep", MISSING]),
    ("quantize lone.safetensors/deep x", ["lone.safetensors/deep", "Not a directory"]),
    ("quantize sharded x", ["sharded", "no weight_map"]),
    ("quantize taken x", ["taken", f"neither {MODEL}"]),
    ("quantize text.safetensors x", ["text.safetensors", FOREIGN]),
    ("quantize empty.safetensors x", ["empty.safetensors", FOREIGN]),
    ("quantize cut.safetensors x", ["cut.safetensors", FOREIGN]),
    ("quantize good.trit x", ["good.trit", FOREIGN]),
    ("quantize /dev/null x", ["/dev/null", "not a regular file"]),
    ("quantize nan.safetensors x", ["'w.weight'", "1 are NaN and 1 are infinite"]),
    ("quantize nan.safetensors new/x/y", ["'w.weight'", "1 are NaN and 1 are infinite"]),
    ("quantize nine.safetensors x", ["'deep'", "rank 9"]),
    ("quantize long.safetensors x", ["600 bytes"]),
    ("quantize long.safetensors x --dry-run", ["600 bytes"]),
    ("quantize nameless.safetensors x", ["0 bytes"]),
    ("quantize hostile.safetensors x", ["hostile.safetensors", r"a\x1b[2J\nuniform", "control character"]),
    ("quantize hostile.safetensors x --dry-run", [r"a\x1b[2J\nuniform", "control character"]),
    ("quantize packed.safetensors x", ["packed.safetensors"]),
    # arguments of quantize
    ("quantize model x --configs uniform-d5", ["'uniform-d5'", "uniform-d1 to uniform-d4"]),
    ("quantize model x --configs ''", ["unknown config ''"]),
    ("quantize model x --configs uniform-d1,", ["unknown config ''"]),
    ("quantize model x --configs 'uniform-d1\n'", [r"'uniform-d1\n'"]),
    ("quantize model x --configs nope --dry-run", ["'nope'"]),
    ("quantize model x --keep 'nothing*'", ["'nothing*'", "matches no tensor"]),
    ("quantize model x --quantize 'nothing*' --dry-run", ["'nothing*'", "matches no tensor"]),
    ("quantize model x --depth raw=3", ["'raw'", "kept raw", "integer I64"]),
    (f"quantize model {'x' * 300}", ["File name too long"]),
    (f"dequantize good.trit {'x' * 300}", ["File name too long"]),
    (f"repack model {'x' * 300}", ["File name too long"]),
    ("quantize model x --quantize raw", ["'raw'", "--quantize raw", "integer I64"]),
    ("quantize model x --quantize none", ["'none'", "empty"]),
    ("quantize model x --quantize '*'", ["--quantize *", "cannot be quantised"]),
    ("quantize model x --group-size 0", ["group size", "not 0"]),
    ("quantize model x --group-size 65537", ["group size", "not 65537"]),
    ("quantize model x --method tritllm-v2 --nested", ["tritllm-v2", "nested"]),
    ("quantize model x --method tritllm-v2 --nested --dry-run", ["tritllm-v2", "nested"]),
    # targets of quantize
    ("quantize model taken", ["taken/uniform-d2", EXISTS]),
    ("quantize model taken --configs uniform-d1,uniform-d2", ["taken/uniform-d2", EXISTS]),
    ("quantize model good.trit", ["good.trit", "Not a directory"]),
    ("quantize model good.trit/x", ["good.trit/x", "Not a directory"]),
    # dequantize
    ("dequantize nowhere x", ["nowhere", MISSING]),
    ("dequantize model x", [f"model: neither {TRIT} nor"]),
    ("dequantize foreign.trit x", ["foreign.trit", "no .trit file"]),
    ("dequantize lone.safetensors x", ["lone.safetensors", "no .trit file"]),
    ("dequantize empty.trit x", ["empty.trit", "PRE-1"]),
    ("dequantize cut.trit x", ["cut.trit", "PRE-6"]),
    ("dequantize header.trit x", ["header.trit", "PRE-8"]),
    ("dequantize newer.trit x", ["newer.trit", "major version", "PRE-3"]),
    ("dequantize flagged.trit x", ["flagged.trit", "flags", "PRE-4"]),
    ("dequantize damaged.trit x", ["'a.weight'", "SEG-1"]),
    ("dequantize damaged.trit new/x", ["'a.weight'", "SEG-1"]),
    ("dequantize hostile.trit x", ["hostile.trit", r"'a\nb'", "NAME-2"]),
    ("dequantize big.trit x --dtype F16", ["'big'", "overflows F16"]),
    ("dequantize good.trit taken", ["taken", EXISTS]),
    ("dequantize good.trit good.trit", ["good.trit", EXISTS]),
    ("dequantize good.trit text.safetensors/x", ["text.safetensors", "Not a directory"]),
    # truncate
    ("truncate nowhere x --depth 1", ["nowhere", MISSING]),
    ("truncate damaged.trit x --depth 3", ["'a.weight'", "SEG-1"]),
    ("truncate foreign.trit x --depth 1", ["foreign.trit", "PRE-2"]),
    ("truncate cut.trit x --depth 1", ["cut.trit", "PRE-6"]),
    ("truncate model x --depth 1", [f"model: neither {TRIT} nor"]),
    ("truncate good.trit taken --depth 1", ["taken", "directory"]),
    ("truncate good.trit nowhere/x.trit --depth 1", ["nowhere", MISSING]),
    ("truncate good.trit text.safetensors/x.trit --depth 1", ["text.safetensors", "irectory"]),
    # inspect
    ("inspect nowhere", ["nowhere", MISSING]),
    ("inspect taken", [f"taken: neither {TRIT} nor"]),
    ("inspect foreign.trit", ["foreign.trit", "PRE-2"]),
    ("inspect header.trit", ["header.trit", "PRE-8"]),
    ("inspect endless.trit", ["endless.trit: the tensors take", "LAY-5"]),
    ("inspect hostile.trit", ["hostile.trit", r"'a\nb'", "NAME-2"]),
    ("inspect good.trit --against nowhere", ["nowhere", MISSING]),
    ("inspect good.trit --against good.trit", ["good.trit", FOREIGN]),
    ("inspect foreign.trit --against model", ["foreign.trit", "PRE-2"]),
    ("inspect good.trit --against nan.safetensors", ["nan.safetensors", "no tensor 'a.weight'"]),
    ("inspect good.trit --against others.safetensors", ["'a.weight'", "[40, 7]", "[7, 40]"]),
    ("inspect damaged.trit --against model", ["'a.weight'", "SEG-1"]),
    # verify
    ("verify nowhere", ["nowhere", MISSING]),
    ("verify taken", [f"taken: neither {TRIT} nor"]),
    ("verify /dev/null", ["/dev/null", "not a regular file"]),
]


@pytest.mark.parametrize(("line", "words"), FAILING, ids=[ascii(line)[1:-1] for line, _ in FAILING])
def test_an_error_is_one_line(tritcodec: Command, at_shelf: Path, line: str, words: list[str]) -> None:
    """It says what and why, with status 2, in the user's names; nothing is written or changed."""
    with untouched(at_shelf):
        run = tritcodec(*shlex.split(line))
    assert_error(run, *words)
    assert ".partial" not in run.err
    assert not run.out or line.startswith("inspect")


WRONG_USAGE = [
    "",
    "unheard-of",
    "quantize",
    "quantize model",
    "quantize model x y",
    "quantize model x --depth 2",
    "quantize model x --depth =2",
    "quantize model x --workers 1 --dask tcp://x:1",
    "quantize model x --target-bpw nan",
    "quantize model x --target-bpw 0",
    "quantize model x --target-bpw many",
    "quantize '' x",
    "quantize model ''",
    "repack model ''",
    "dequantize '' x",
    "truncate good.trit '' --depth 1",
    "inspect good.trit --against ''",
    "verify ''",
    "quantize model x --group-size many",
    "quantize model x --method best",
    "quantize model x --keep",
    "dequantize good.trit",
    "dequantize good.trit x --dtype F64",
    "dequantize good.trit x --depth 0",
    "dequantize good.trit x --depth 5",
    "truncate good.trit x",
    "truncate good.trit x --depth 5",
    "truncate good.trit x --depth two",
    "inspect",
    "inspect good.trit good.trit",
    "verify",
    "verify --json",
]


@pytest.mark.parametrize("line", WRONG_USAGE)
def test_wrong_usage_is_status_2(tritcodec: Command, at_shelf: Path, line: str) -> None:
    """The usage is printed to stderr, and what is wrong in its last line."""
    with untouched(at_shelf):
        run = tritcodec(*shlex.split(line))
    assert run.status == 2
    assert run.out == ""
    assert run.err.startswith("usage: tritcodec")
    assert re.match(r"tritcodec( \w+)?: error: .", run.err.splitlines()[-1])


@posix
def test_a_path_with_control_characters(tritcodec: Command, tmp_path: Path) -> None:
    """Neither errors nor results of a file can be forged by its name: a line a file, all printable."""
    assert_error(tritcodec("verify", tmp_path / "x\nfake: valid\x1b[2J\x9b"), r"x\x0afake: valid\x1b[2J\x9b")
    path = tmp_path / "x\nfake.trit: valid\x1b[2J"
    path.write_bytes(b"foreign")
    for line in (["inspect", path], ["dequantize", path, "x"], ["quantize", path, "x"]):
        assert_error(tritcodec(*line), r"x\x0afake.trit: valid\x1b[2J")
    save_file({}, path)
    for command in (["verify", path], ["inspect", path], ["truncate", path, f"{path}2", "--depth", "1"]):
        run = tritcodec(*command)
        assert run.status == 0
        assert "fake.trit" in run.out.splitlines()[0]
        assert all(line.isprintable() for line in run.out.splitlines())


@posix
def test_a_pipe_is_not_waited_for(tritcodec: Command, tmp_path: Path) -> None:
    """A named pipe that nobody writes to is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    for line in ("quantize {} x", "dequantize {} x", "truncate {} x --depth 1", "inspect {}", "verify {}"):
        assert_error(tritcodec(*line.format(tmp_path / "pipe").split()), "pipe", "not a regular file")


@pytest.mark.usefixtures("at_shelf")
def test_an_error_without_a_signal_is_not_0_percent(tritcodec: Command) -> None:
    """Where the source's weights are all zero and the file's are not, nothing says 0 %."""
    run = tritcodec("inspect", "good.trit", "--against", "zeros.safetensors")
    assert (run.status, run.err) == (0, "")
    rows = [line.split() for line in run.out.splitlines() if line.startswith(("a.weight ", "b.weight "))]
    assert [row[-4:-1] for row in rows] == [["-inf", "inf", "inf"]] * 2
    assert "error 0.00 %" not in run.out


@pytest.mark.usefixtures("at_shelf")
def test_a_source_of_huge_numbers_is_compared_in_silence(tritcodec: Command) -> None:
    """Squares beyond double precision print no warning."""
    run = tritcodec("inspect", "good.trit", "--against", "huge.safetensors")
    assert (run.status, run.err) == (0, "")


@pytest.mark.usefixtures("at_shelf")
@pytest.mark.parametrize("name", ["b", "byte", "t", "tensor", "h"])
def test_short_names_of_files_are_said(tritcodec: Command, name: str) -> None:
    """A name that the place of an error begins with, too, stands before that place."""
    cut = Path("good.trit").read_bytes()[:100]
    Path(name).write_bytes(cut)
    assert_error(tritcodec("inspect", name), f"{name}: byte 24: says")


@pytest.mark.usefixtures("at_shelf")
def test_a_source_of_complex_numbers_is_not_compared(tritcodec: Command) -> None:
    """NumPy would drop the imaginary part, with a warning: the error names tensor and dtype instead."""
    if not library_takes("C64"):
        pytest.skip("this safetensors has no C64")
    assert_error(tritcodec("inspect", "good.trit", "--against", "complex.safetensors"), "'a.weight'", "C64")


@pytest.mark.usefixtures("at_shelf")
def test_an_interrupt_is_one_line(
    tritcodec: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends with the shell's status for it, and says that the run can go on; it does."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tritcodec.model.tasks.Recipe.encode", interrupt)
        run = tritcodec("quantize", "model", tmp_path / "new" / "out")
    assert run.status == 128 + signal.SIGINT
    assert run.err == f"tritcodec: interrupted{GO_ON}\n"
    assert tritcodec("quantize", "model", tmp_path / "new" / "out").status == 0
    assert os.listdir(tmp_path / "new" / "out") == ["uniform-d2"]


EACH = """
import shlex, sys
from tritcodec.cli import main
for line in sys.argv[1:]:
    main(shlex.split(line))
"""


def test_optimised_python_gives_the_same_errors(tritcodec: Command, at_shelf: Path) -> None:
    """Nothing hangs on assertions, which `python -O` leaves out."""
    lines = [line for line, _ in FAILING]
    with untouched(at_shelf):
        run = ended([sys.executable, "-O", "-c", EACH, *lines])
    assert run.status == 0
    expected = "".join(tritcodec(*shlex.split(line)).err for line in lines)
    assert without_random(run.err) == without_random(expected)


def without_random(text: str) -> str:
    """*text* with the random part of temporary names left out."""
    return re.sub(r"\.[0-9a-f]{8}\.partial", "", text)


# verify


VERDICTS = {"good.trit": 0, "damaged.trit": 1, "nowhere.trit": 2, "newer.trit": 3}
RANK = [2, 1, 3, 0]  # which status wins


@pytest.mark.usefixtures("at_shelf")
@pytest.mark.parametrize(
    "names", [names for count in (1, 2, 3) for names in itertools.permutations(VERDICTS, count)], ids="+".join
)
def test_the_worst_verdict_is_the_status(tritcodec: Command, names: tuple[str, ...]) -> None:
    """Unreadable before invalid before unsupported before valid, in whatever order; each file is reported."""
    run = tritcodec("verify", *names)
    assert run.status == min((VERDICTS[name] for name in names), key=RANK.index)
    reported = [line.split(":")[0] for line in run.out.splitlines() if not line.startswith(" ")]
    assert reported == [name for name in names if name != "nowhere.trit"]
    assert run.err.count("\n") == names.count("nowhere.trit")


@pytest.mark.parametrize("name", ["newer.trit", "flagged.trit"])
def test_what_a_newer_version_may_allow_is_unsupported(tritcodec: Command, at_shelf: Path, name: str) -> None:
    """Status 3 and the word, with the clause."""
    run = tritcodec("verify", at_shelf / name)
    assert run.status == 3
    assert re.match(rf".*{name}: unsupported\n  PRE-[34]: byte (8|12): ", run.out)


@pytest.mark.parametrize(
    ("name", "clauses"),
    [
        ("damaged.trit", ["SEG-1: tensor 'a.weight', weight plane 2"]),
        ("header.trit", ["PRE-8: byte 32"]),
        ("cut.trit", ["PRE-6: byte 24"]),
        ("foreign.trit", ["PRE-2: byte 0"]),
        ("empty.trit", ["PRE-1: byte 0"]),
        ("hostile.trit", ["NAME-2: entry 0", r"'a\nb'"]),
    ],
)
def test_an_invalid_file_says_where(tritcodec: Command, shelf: Path, name: str, clauses: list[str]) -> None:
    """Below the verdict stand the clause, the tensor and the byte."""
    run = tritcodec("verify", shelf / name)
    assert (run.status, run.err) == (1, "")
    head, *findings = run.out.splitlines()
    assert head == f"{shelf / name}: invalid"
    assert all(clause in "\n".join(findings) for clause in clauses)


def test_a_file_that_cannot_be_opened_hides_no_other(tritcodec: Command, at_shelf: Path) -> None:
    """Whatever is wrong with one name, the other files are reported."""
    run = tritcodec("verify", "n" * 300, at_shelf / "damaged.trit", at_shelf / "good.trit")
    assert run.status == 2
    assert_one_line(run.err)
    assert "damaged.trit: invalid\n" in run.out
    assert "good.trit: valid" in run.out


def test_json_is_one_ascii_object_a_line(tritcodec: Command, at_shelf: Path) -> None:
    """It parses, names file and verdict, and no name of a tensor can forge a line."""
    names = ["good.trit", "damaged.trit", "hostile.trit", "newer.trit", "nowhere.trit"]
    run = tritcodec("verify", *(at_shelf / name for name in names), "--json")
    assert run.status == 2
    assert run.out.isascii()
    reports = [json.loads(line) for line in run.out.splitlines()]
    assert [Path(report["file"]).name for report in reports] == names[:-1]
    assert [report["verdict"] for report in reports] == ["valid", "invalid", "invalid", "unsupported"]
    assert [len(report["findings"]) for report in reports] == [0, 1, 1, 1]
    assert reports[0]["tensors"] == 3
    assert reports[0]["size"] == (at_shelf / "good.trit").stat().st_size
    assert reports[1]["findings"][0].keys() == {"clause", "where", "message"}
    assert_one_line(run.err)


def test_the_tool_is_the_command_under_another_name(tritcodec: Command, at_shelf: Path) -> None:
    """`python tools/verify.py` prints and exits like `tritcodec verify`."""
    for arguments in (["good.trit", "damaged.trit", "hostile.trit"], ["newer.trit", "--json"], ["nowhere"]):
        run = ended([sys.executable, str(TOOL), *arguments], cwd=at_shelf)
        assert run == tritcodec("verify", *arguments)


# Tables


@pytest.mark.parametrize("columns", [80, 100])
def test_tables_fit_the_terminal(
    tritcodec: Command, made: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """The plan of four configs and the errors against a source keep within 80 columns; long names are cut."""
    monkeypatch.setenv("COLUMNS", str(columns))
    plan = tritcodec("quantize", MINILM, "x", *ALL_CONFIGS, "--dry-run")
    errors = tritcodec("inspect", made / "uniform-d4", "--against", MINILM)
    for run in (plan, errors):
        assert (run.status, run.err) == (0, "")
        tables = re.findall(r"^(?:tensor|layer) .*\n(?:.+\n)*", run.out, re.MULTILINE)
        assert len(tables) == (1 if run is plan else 2)
        assert max(len(line) for table in tables for line in table.splitlines()) <= columns
        assert "…" in tables[0]
    assert ("info" in errors.out.split("\n\n")[2]) == (columns == 100)  # what can be spared goes


def test_tables_stand_straight_in_an_encoding_without_an_ellipsis(made: Path) -> None:
    """What was cut is marked by characters that the encoding has: an escape would be longer."""
    environment = os.environ | {"COLUMNS": "80", "PYTHONIOENCODING": "ascii"}
    run = spawn("inspect", made / "uniform-d2", "--against", MINILM, env=environment)
    head, *rows = run.out.split("\n\n")[1].splitlines()
    cut = [row for row in rows if row.startswith("...") and " d2 " in row]
    assert len(cut) == 6
    assert {len(row) for row in cut} == {len(head)}


def test_a_plan_of_a_mixture_shows_the_depths(tritcodec: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name of a config does not say it: before the bytes of each tensor, and in the sums."""
    monkeypatch.setenv("COLUMNS", "200")
    options = ["--configs", "uniform-d2,bpw-3", "--depth", "*query*=4", "--dry-run"]
    run = tritcodec("quantize", MINILM, "x", *options)
    rows = {row.split()[0]: row.split()[3:] for row in run.out.splitlines() if row}
    assert rows["encoder.layer.0.attention.self.query.weight"] == ["d4", "121.0K", "d4", "121.0K"]
    assert rows["encoder.layer.0.output.dense.weight"] == ["252.8K", "d1", "137.3K"]
    assert rows["encoder.layer.0.output.dense.bias"] == ["768", "768", "rank", "1"]
    assert "uniform-d2: 1,769,472 weights in 835,944 bytes (3.779 bits a weight; 5 at d2, 1 at d4)" in run.out


def test_a_long_pattern_does_not_break_the_table(tritcodec: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason that holds what was typed keeps the table within the terminal, too."""
    monkeypatch.setenv("COLUMNS", "80")
    run = tritcodec(
        *("quantize", MINILM, "x", *ALL_CONFIGS, "--dry-run"), "--keep", "encoder.layer.0.attention.*"
    )
    assert run.status == 0
    assert "--keep" in run.out
    assert max(map(len, run.out.split("\n\n")[0].splitlines())) <= 80


def test_a_wide_terminal_shows_whole_names(
    tritcodec: Command, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is room nothing is cut."""
    monkeypatch.setenv("COLUMNS", "200")
    for arguments in (["quantize", MINILM, "x", "--dry-run"], ["inspect", made / "uniform-d1"]):
        run = tritcodec(*arguments)
        source, _ = read_safetensors(MINILM / MODEL)
        assert all(re.search(rf"^{re.escape(name)} ", run.out, re.MULTILINE) for name in source)


def test_a_table_lines_up(tritcodec: Command, at_shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns end where their headings end."""
    monkeypatch.setenv("COLUMNS", "80")
    table = tritcodec("inspect", at_shelf / "good.trit").out.split("\n\n")[1].splitlines()
    ends = [match.end() for match in re.finditer(r"\S+", table[0])][1:]
    assert [line[end - 1 : end + 2].strip() != "" for line in table[1:] for end in ends] == [True] * 12
    assert all(len(line) == ends[-1] for line in table[1:])


# The plan


def test_a_dry_run_writes_nothing_and_says_why(tritcodec: Command, at_shelf: Path) -> None:
    """A row a tensor, with bytes for what is to be made and the reason for what is kept."""
    with untouched(at_shelf):
        run = tritcodec("quantize", "model", "taken", "--configs", "uniform-d1,uniform-d4", "--dry-run")
    assert (run.status, run.err) == (0, "")
    header, *rows = run.out.split("\n\n")[0].splitlines()
    assert header.split() == ["tensor", "shape", "dtype", "d1", "d4", "kept", "because"]
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    assert cells["a.weight"][:2] == ["7x40", "F32"]
    assert len(cells["a.weight"]) == 4
    assert cells["raw"] == ["5", "I64", "40", "40", "integer", "I64"]
    assert cells["model.norm.weight"] == ["20", "F32", "80", "80", "rank", "1"]
    assert cells["none"] == ["0x4", "F32", "0", "0", "empty"]


@pytest.mark.parametrize("source", ["model", "lone.safetensors", str(MINILM)])
def test_a_dry_run_tells_the_sizes_of_what_is_written(
    tritcodec: Command, at_shelf: Path, tmp_path: Path, source: str
) -> None:
    """Its totals are those of the real run, and of the tensors in the files."""
    dry = tritcodec("quantize", at_shelf / source, tmp_path / "out", *ALL_CONFIGS, "--dry-run")
    assert not (tmp_path / "out").exists()
    real = tritcodec("quantize", at_shelf / source, tmp_path / "out", *ALL_CONFIGS)
    totals = dry.out.split("\n\n")[1]
    assert real.out == "".join(f"{tmp_path / 'out'}{os.sep}{line}\n" for line in totals.splitlines())
    for depth, line in zip((1, 2, 3, 4), totals.splitlines(), strict=True):
        with open_file(tmp_path / "out" / f"uniform-d{depth}" / TRIT) as file:
            tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118  # no mapping
        packed = [tensor for tensor in tensors if not isinstance(tensor, np.ndarray)]
        raw = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, np.ndarray))
        stored = sum(tensor.nbytes for tensor in packed)
        count = sum(int(np.prod(tensor.shape)) for tensor in packed)
        bits = f"{8 * stored / count:.3f} bits a weight; {len(packed)} at d{depth}"
        sizes = f"{count:,} weights in {stored:,} bytes ({bits})"
        assert line == f"uniform-d{depth}: {sizes}, and {raw:,} bytes raw"


@pytest.mark.parametrize(
    ("options", "quantised"),
    [
        ([], {"a.weight", "b.weight"}),
        (["--keep", "a.weight"], {"b.weight"}),
        (["--keep", "a.weight", "--keep", "b.weight"], set()),
        (["--quantize", "*norm*"], {"a.weight", "b.weight", "model.norm.weight"}),
        (["--keep", "[ab].*", "--quantize", "b.weight"], set()),
        (["--keep", "*", "--quantize", "*"], set()),
    ],
)
def test_patterns_change_the_policy(
    tritcodec: Command, at_shelf: Path, tmp_path: Path, options: list[str], quantised: set[str]
) -> None:
    """--keep and --quantize repeat; keeping wins; the plan and the file agree."""
    run = tritcodec("quantize", at_shelf / "model", tmp_path / "out", "--configs", "uniform-d2", *options)
    assert run.status == 0
    with open_file(tmp_path / "out" / "uniform-d2" / TRIT) as file:
        assert {name for name in file.keys() if file.entry(name).kind == "trit"} == quantised  # noqa: SIM118  # no mapping
    dry = tritcodec("quantize", at_shelf / "model", "x", "--configs", "uniform-d2", "--dry-run", *options)
    rows = [row.split() for row in dry.out.split("\n\n")[0].splitlines()[1:]]
    assert {row[0] for row in rows if len(row) == 4} == quantised


def test_the_same_config_twice_is_made_once(tritcodec: Command, at_shelf: Path, tmp_path: Path) -> None:
    """A repeated name is no reason to fail on one's own output."""
    run = tritcodec("quantize", at_shelf / "model", tmp_path / "out", "--configs", "uniform-d2,uniform-d2")
    assert run.status == 0
    assert os.listdir(tmp_path / "out") == ["uniform-d2"]


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(tritcodec: Command, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Every command explains itself, with examples of its own, within the terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    run = tritcodec(command, "--help")
    assert (run.status, run.err) == (0, "")
    assert run.out.startswith(f"usage: tritcodec {command} ")
    assert len(examples(run.out)) >= 2
    assert all(example[:2] == ["tritcodec", command] for example in examples(run.out))


def examples(text: str) -> list[list[str]]:
    """The command lines below "examples:"."""
    block = text.split("examples:\n")[1].split("\n\n")[0]
    return [shlex.split(line) for line in block.splitlines()]


def test_help_lists_the_commands(tritcodec: Command) -> None:
    """All of them, with a word on each, and examples."""
    for option in ("--help", "-h"):
        run = tritcodec(option)
        assert (run.status, run.err) == (0, "")
        assert re.findall(r"^    (\w+)\s+\w", run.out, re.MULTILINE) == COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_example_runs(
    tritcodec: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """In a folder that has what they name, with a whole sentence-embedding model as `model`, they succeed."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("tritcodec.progress.QUIET_SECONDS", 1e9)  # the machine may be busy
    for number, (_, *arguments) in enumerate(examples(tritcodec(*command.split(), "--help").out)):
        place = tmp_path / str(number)
        (place / "fixtures").mkdir(parents=True)
        shutil.copytree(MINILM, place / "fixtures" / "minilm")
        shutil.copyfile(MINILM / MODEL, place / MODEL)
        tensors, metadata = read_safetensors(MINILM / MODEL)
        write_model(place / "model", tensors | {"pooler.dense.weight": weights(384, 384)}, metadata)
        if arguments[0] != "quantize":
            shutil.copytree(made, place / "out")
            shutil.copyfile(made / "uniform-d1" / TRIT, place / "some.trit")
        monkeypatch.chdir(place)
        expanded = [found for word in arguments for found in ("*.trit" in word and glob(word)) or [word]]
        run = tritcodec(*expanded)
        assert (run.status, run.err) == (0, ""), arguments


def test_the_version(tritcodec: Command) -> None:
    """Of the package and of the format."""
    assert tritcodec("--version") == (0, f"tritcodec {version('tritcodec')}, format 1.0\n", "")


# Terminals, pipes, encodings


def on_terminal(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    """Status, stdout and what a terminal of 80 columns was sent as stderr."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "tritcodec.cli", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=False, cwd=cwd, timeout=60)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
        while chunk := os.read(reader, 1 << 16):
            shown += chunk
    os.close(reader)
    return done.returncode, done.stdout.decode(), shown.decode()


@posix
@pytest.mark.parametrize(
    ("line", "phase", "unit"),
    [
        ("quantize {minilm} x --progress bar", "survey", "weight/s"),
        ("dequantize {made} x", "dequantize", "weight/s"),
        ("verify {made}", "verify", "B/s"),
    ],
)
def test_progress_shows_on_a_terminal_only(
    made: Path, tmp_path: Path, line: str, phase: str, unit: str
) -> None:
    """A bar on stderr where that is a terminal, wiped at the end; stdout has the result alone."""
    arguments = line.format(minilm=MINILM, made=made / "uniform-d4").split()
    status, out, shown = on_terminal(*arguments, cwd=tmp_path)
    assert status == 0
    assert (out.count("\n"), out.count("\r")) == (1, 0)
    start, first, *_, last, end = shown.split("\r")
    assert start == end == last.strip() == ""
    assert first.startswith(f"{phase}:   0%|")
    assert unit in first
    assert "\n" not in shown


@posix
def test_an_error_on_a_terminal_stands_on_its_own_line(tmp_path: Path) -> None:
    """The bar is wiped before the error is printed."""
    matrices = {f"{name}.weight": weights(5, 16) for name in "abc"}
    matrices["c.weight"] = floats(np.full((5, 16), np.nan))  # found when the others are done
    write_model(tmp_path / "model", matrices)
    status, out, shown = on_terminal("quantize", "model", "x", cwd=tmp_path)
    assert (status, out) == (2, "")
    *_, wiped, error, end = shown.split("\r")
    assert (wiped.strip(), end) == ("", "\n")
    assert_one_line(f"{error}\n")


def test_names_in_an_encoding_that_lacks_them(tmp_path: Path) -> None:
    """With an ASCII terminal names are escaped, never a reason to fail."""
    odd = {"重み.é.weight": weights(3, 4), "n" * 90: weights(3, 4)}
    write_model(tmp_path / "model", odd, {"ключ": "é"})
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    for arguments in (
        ["quantize", "model", "out", "--dry-run"],
        ["quantize", "model", "out"],
        ["inspect", "out/uniform-d2", "--against", "model"],
    ):
        run = spawn(*arguments, cwd=tmp_path, env=environment)
        assert (run.status, run.err) == (0, "")
        assert run.out.isascii()
    run = spawn("verify", "Ω.trit", cwd=tmp_path, env=environment)
    assert_error(run, MISSING)
    assert run.err.isascii()


def with_closed_pipe(unbuffered: str, *arguments: object) -> Run:
    """The command, writing to a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tritcodec.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, env=environment, text=True, check=False, timeout=60
    )
    os.close(writer)
    return Run(done.returncode, "", done.stderr)


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_no_error(made: Path, unbuffered: str) -> None:
    """`tritcodec inspect … | head -1` prints no traceback."""
    for arguments in (["inspect", made / "uniform-d1"], ["--help"]):
        assert with_closed_pipe(unbuffered, *arguments).err == ""


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_page_is_written_whoever_reads_the_table(made: Path, tmp_path: Path, unbuffered: str) -> None:
    """`tritcodec inspect --html PAGE … | head -1` writes the page."""
    page = tmp_path / "page.html"
    assert with_closed_pipe(unbuffered, "inspect", made / "uniform-d1", "--html", page).err == ""
    assert page.read_text(encoding="utf-8").endswith("</html>\n")


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_makes_no_bad_file_good(shelf: Path, unbuffered: str) -> None:
    """`set -o pipefail; tritcodec verify … | grep -q valid` must not succeed on an invalid file."""
    run = with_closed_pipe(unbuffered, "verify", shelf / "damaged.trit")
    assert run.err == ""
    assert run.status != 0


@posix
@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_closed_stream_changes_no_verdict(shelf: Path, stream: str) -> None:
    """Without stdout or stderr (`>&-`) a valid file is still valid, an invalid one invalid."""
    script = f'"$0" -m tritcodec.cli verify "$1" {stream}>&-'
    good = ended(["sh", "-c", script, sys.executable, str(shelf / "good.trit")])
    bad = ended(["sh", "-c", script, sys.executable, str(shelf / "damaged.trit")])
    assert (good.status, good.err, bad.status, bad.err) == (0, "", 1, "")


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["verify", "good.trit"], ["--help"]])
def test_output_that_cannot_be_written_is_an_error(
    shelf: Path, tmp_path: Path, arguments: list[str], unbuffered: str
) -> None:
    """A full disk behind stdout is one line and status 2, not silence."""
    script = 'ulimit -f 0; exec "$0" -m tritcodec.cli "$@" > "$OUT"'
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered, "OUT": str(tmp_path / "log")}
    run = ended(["sh", "-c", script, sys.executable, *arguments], cwd=shelf, env=environment)
    assert_error(run, "standard output: File too large")


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_complaints_that_nobody_can_read_are_dropped(shelf: Path, tmp_path: Path, unbuffered: str) -> None:
    """Where standard error is full or closed the status says it alone; no line strays into the output."""
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered, "OUT": str(tmp_path / "log")}
    for closing in ("2>&-", '2> "$OUT"', '> "$OUT" 2>&1'):
        script = f'ulimit -f 0; exec "$0" -m tritcodec.cli "$@" {closing}'
        run = ended(
            ["sh", "-c", script, sys.executable, "verify", "missing.trit"], cwd=shelf, env=environment
        )
        assert (run.status, run.out, run.err) == (2, "", "")


@posix
@pytest.mark.parametrize("style", ["bar", "lines", "json", "auto"])
@pytest.mark.parametrize("closing", ["2>&-", '2> "$OUT"'])
def test_progress_that_nobody_can_see_stops_no_run(
    shelf: Path, tmp_path: Path, closing: str, style: str
) -> None:
    """The work goes on, and standard output has the report alone."""
    script = (
        "import sys; from tritcodec import cli, progress; progress.QUIET_SECONDS = 0; sys.exit(cli.main())"
    )
    line = f'"$0" -c \'{script}\' repack model "$1" --json --progress {style} {closing}'
    environment = os.environ | {"OUT": "/dev/full" if os.path.exists("/dev/full") else os.devnull}
    run = ended(["sh", "-c", line, sys.executable, str(tmp_path / "out")], cwd=shelf, env=environment)
    assert (run.status, run.err) == (0, "")
    assert json.loads(run.out)["folder"] == str(tmp_path / "out" / "repacked")


@posix
def test_what_is_left_out_of_a_folder_is_said(tritcodec: Command, tmp_path: Path) -> None:
    """Of quantize, its plan too, repack, dequantize and truncate: a line for each reason, and some names."""
    source = write_model(tmp_path / "model", {"a.weight": weights(4, 16)})
    for number in range(7):
        (source / f"{number}\n.bin").write_text("")
    said = "tritcodec: left out, weights, not of this model: "
    said += ", ".join(f"{number}\\x0a.bin" for number in range(5)) + " and 2 more\n"
    assert tritcodec("quantize", source, tmp_path / "out", "--dry-run").err == said
    assert tritcodec("quantize", source, tmp_path / "out").err == said
    err = tritcodec("quantize", source, tmp_path / "json", "--progress", "json").err
    assert json.loads(err.splitlines()[0])["files"] == [f"{number}\n.bin" for number in range(7)]
    assert all(json.loads(line) for line in err.splitlines())
    assert tritcodec("repack", source, tmp_path / "out").err == said
    packed = tmp_path / "out" / "uniform-d2"
    (packed / "other.bin").write_text("")
    said = "tritcodec: left out, weights, not of this model: other.bin\n"
    assert tritcodec("dequantize", packed, tmp_path / "back").err == said
    assert tritcodec("truncate", packed, tmp_path / "cut", "--depth", 1).err == said
    assert_error(tritcodec("dequantize", packed, tmp_path / "back"), "exists already")
    assert tritcodec("dequantize", packed / TRIT, tmp_path / "alone").err == ""
    assert tritcodec("quantize", source / MODEL, tmp_path / "lone").err == ""


def test_what_keeps_nothing_does_not_say_so(tritcodec: Command, tmp_path: Path) -> None:
    """Only runs that can go on speak of what is kept."""
    (tmp_path / "out" / STATE).mkdir(parents=True)
    for line in ("dequantize nowhere {}", "truncate nowhere {} --depth 1", "quantize nowhere {} --dry-run"):
        run = tritcodec(*line.format(tmp_path / "out").split())
        assert run.status == 2
        assert "kept" not in run.err


# Full disks and kills, for real

LIMITED = """
import resource, sys
from tritcodec.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
sys.exit(main(sys.argv[1:]))
"""
TINY_DISK = """
mount -t tmpfs -o size={size} none "$1" || exit 99
shift
"$@"
status=$?
find "$OUT" -type f -not -path '*/.tritcodec/*' 1>&2
exit $status
"""
GO_ON = "; what is done is kept: run the same command again to go on"
WRITING = ["quantize {minilm} {out}/new/out --configs uniform-d1,uniform-d2", "dequantize {made} {out}/back"]
WRITING += ["truncate {made} {out}/cut --depth 2", f"truncate {{made}}/{TRIT} {{out}}/cut.trit --depth 2"]


def left(folder: Path) -> list[str]:
    """The files in *folder* that are no state of a run that can go on."""
    return [path for path, data in tree(folder).items() if data is not None and STATE not in path]


@posix
@pytest.mark.parametrize("line", WRITING)
def test_a_file_that_may_not_grow(made: Path, tmp_path: Path, line: str) -> None:
    """The system stops a write in the middle: one line that says where and why, and nothing is left."""
    arguments = line.format(minilm=MINILM, made=made / "uniform-d4", out=tmp_path).split()
    run = ended([sys.executable, "-c", LIMITED, *arguments])
    assert_error(run, str(tmp_path), "File too large")
    assert left(tmp_path) == []


@posix
@pytest.mark.parametrize(
    "size", ["4k", "1200k"]
)  # too small for the other files of a model, and for the weights
@pytest.mark.parametrize("line", WRITING)
def test_a_disk_that_is_full(made: Path, tmp_path: Path, line: str, size: str) -> None:
    """On a real, tiny file system: one line that says where and why, status 2, nothing left."""
    arguments = line.format(minilm=MINILM, made=made / "uniform-d4", out=tmp_path).split()
    script = TINY_DISK.format(size=size)
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path)]
    command += [sys.executable, "-m", "tritcodec.cli", *arguments]
    try:
        run = ended(command, env={**os.environ, "OUT": str(tmp_path)})
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "unshare" in run.err or run.status == 99:
        pytest.skip(f"no file system can be mounted here: {run.err}")
    assert_error(run, str(tmp_path), "No space left on device")


@posix
@pytest.mark.parametrize("line", WRITING)
def test_the_line_on_a_full_disk_says_where(
    tritcodec: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """What could not be written is named, by the path that was asked for."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    run = tritcodec(*line.format(minilm=MINILM, made=made / "uniform-d4", out=tmp_path).split())
    assert_error(run, str(tmp_path), "No space left on device")
    assert left(tmp_path) == []


@posix
@pytest.mark.skipif(not hasattr(os, "preadv"), reason="reads otherwise")
@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("quantize model {out}/new/out", f"model/{MODEL}"),
        ("dequantize good.trit {out}/back", "good.trit"),
        ("truncate good.trit {out}/cut.trit --depth 1", "good.trit"),
        ("inspect good.trit --against model", ""),
        ("verify good.trit", "good.trit"),
    ],
)
def test_a_disk_that_cannot_be_read(
    tritcodec: Command,
    at_shelf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    source: str,
) -> None:
    """The line names the file that could not be read, and not the one to be written; nothing is left."""
    read = os.preadv

    def fail(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        if offset > (at_shelf / "good.trit").stat().st_size // 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail)
    with untouched(at_shelf):
        run = tritcodec(*line.format(out=tmp_path).split())
    assert_error(run, source, "Input/output error")
    assert left(tmp_path) == []


INTERRUPTED = """
import os, signal, sys
from tritcodec.cli import main
from tritcodec.model import tasks

read = tasks.read_rows
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def interrupted(*arguments):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return read(*arguments)

tasks.read_rows = interrupted
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("typed", "made"), [([], []), (["--workers", "1"], []), (["--workers", "2"], [2])])
def test_workers_that_are_typed_are_made(
    tritcodec: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], made: list[int]
) -> None:
    """A small model has one, and no process for it, unless it was asked for more."""
    counts: list[int] = []

    def counted(count: int = 1, dask: str | None = None) -> Any:
        counts.append(count)
        return workers(1, dask)

    monkeypatch.setattr("tritcodec.cli.workers", counted)
    assert tritcodec("quantize", MINILM, tmp_path / "out", *typed).status == 0
    assert [count for count in counts if count > 1] == made


def test_a_rate_is_of_this_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What an earlier run did is done, and counts for no speed; a phase begins where the one before ended."""
    clock = iter([0.0, 1.0, 5.0, 6.0, 8.0])
    monkeypatch.setattr("tritcodec.progress.time.monotonic", lambda: next(clock))
    show = progress.Json()
    for step in (
        ("survey", 700, True),
        ("survey", 300, False),
        ("encode", 600, True),
        ("encode", 400, False),
    ):
        show(step[0], "w", step[1], 1000, step[2])
    steps = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(step["done"], step["rate"]) for step in steps] == [(700, 0), (1000, 60), (600, 0), (1000, 133)]


@posix
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGKILL", -9), ("SIGTERM", 143)])
def test_a_signal_in_the_middle(shelf: Path, tmp_path: Path, name: str, status: int) -> None:
    """No config appears, only what is needed to go on; where anything can be said, that is."""
    arguments = ["quantize", str(shelf / "model"), str(tmp_path / "new" / "out"), *ALL_CONFIGS]
    run = ended([sys.executable, "-c", INTERRUPTED, name, *arguments])
    assert run.status == status
    said = {"SIGINT": "interrupted", "SIGTERM": "terminated"}.get(name)
    assert run.err == (f"tritcodec: {said}{GO_ON}\n" if said else "")
    assert os.listdir(tmp_path / "new" / "out") == [STATE]


def test_a_pattern_may_hold_an_equals_sign(tritcodec: Command, tmp_path: Path) -> None:
    """The depth is behind the last one."""
    write_model(tmp_path / "model", {"a=b.weight": weights(4, 16), "c.weight": weights(4, 16)})
    run = tritcodec("quantize", tmp_path / "model", tmp_path / "x", "--depth", "a=*=3")
    assert "1 at d2, 1 at d3" in run.out


@pytest.mark.parametrize("name", ["p.htm", "P.HTML", "p.html"])
def test_what_a_page_may_be_called(tritcodec: Command, shelf: Path, tmp_path: Path, name: str) -> None:
    """Any spelling of .html or .htm."""
    assert tritcodec("inspect", shelf / "good.trit", "--html", tmp_path / name).status == 0
    assert (tmp_path / name).read_text("utf-8").startswith("<!doctype html>")


def test_a_budget_is_named_by_its_digits(tritcodec: Command, tmp_path: Path) -> None:
    """--target-bpw 3 is bpw-3, not bpw-3.0."""
    write_model(tmp_path / "model", {"a.weight": weights(40, 64)})
    assert tritcodec("quantize", tmp_path / "model", tmp_path / "x", "--target-bpw", "4").status == 0
    assert "bpw-4" in os.listdir(tmp_path / "x")


def test_what_a_newer_minor_version_added_is_said(tritcodec: Command, tmp_path: Path) -> None:
    """A valid file with an unknown key: a line says that it was ignored, and where."""
    entry = {"dtype": "U8", "kind": "raw", "name": "a", "sha256": sha256(b"").digest(), "shape": [0], "zz": 1}
    (tmp_path / "new.trit").write_bytes(seal(header(entry, version=[1, 1]), minor=1))
    run = tritcodec("verify", tmp_path / "new.trit")
    assert (run.status, run.err) == (0, "")
    assert "ignored, from a newer minor version: entry 0: key 'zz'" in run.out


def test_output_in_memory_is_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a caller took standard output to where it has no encoding."""
    monkeypatch.setenv("COLUMNS", "80")
    write_model(tmp_path / "model", {"n" * 300: weights(4, 16)})
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["quantize", str(tmp_path / "model"), str(tmp_path / "x"), "--dry-run"]) == 0
    assert "...nnn" in out.getvalue()


@pytest.mark.parametrize(
    ("count", "text"),
    [(1023, "1023"), (1024, "1.0K"), (2**20, "1.0M"), (2**41, "2048.0G"), (5 * 2**30, "5.0G")],
)
def test_sizes_in_tables(count: int, text: str) -> None:
    """Units of 1,024, up to the last there is."""
    assert size_in_table(count) == text


def test_no_delete_reaches_a_terminal(tritcodec: Command, tmp_path: Path) -> None:
    """U+007F in a path is escaped like other control characters."""
    run = tritcodec("verify", tmp_path / "a\x7fb.trit")
    assert_error(run, "a\\x7fb.trit")
    assert "\x7f" not in run.err


def test_a_raw_tensor_of_another_shape_is_another(tritcodec: Command, tmp_path: Path) -> None:
    """The same bytes are not enough, nor the same dtype."""
    write_model(tmp_path / "model", {"a.weight": weights(4, 16), "b": weights(4)})
    write_model(tmp_path / "other", {"a.weight": weights(4, 16), "b": weights(2, 2)})
    assert tritcodec("quantize", tmp_path / "model", tmp_path / "x").status == 0
    run = tritcodec("inspect", tmp_path / "x" / "uniform-d2", "--against", tmp_path / "other")
    assert "1, 'b' the first: F32 [2, 2] in the source, F32 [4] here" in run.out


def test_memory_that_is_not_there_is_one_line(
    tritcodec: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, as for other things that the machine has not."""

    def fail(*_: object) -> None:
        raise MemoryError("a terabyte")

    monkeypatch.setattr("tritcodec.cli.model_file", fail)
    assert_error(tritcodec("verify", tmp_path), "not enough memory: a terabyte")
