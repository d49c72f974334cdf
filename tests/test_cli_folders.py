"""The command line on folders of shards: what it prints, as text and JSON, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folder_cases import FIRST, SECOND, SHARDS, THIRD, shard, sound
from helpers import with_bytes
from model_helpers import Stored, floats, tree, values, weights, write_model

from tritcodec import open_model
from tritcodec.cli import main
from tritcodec.model.index import INDEX_NAME

ROOT = Path(__file__).parents[1]
SIZE = sum(map(len, SHARDS.values()))
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tritcodec(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command: its status, and what it printed."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return main([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder of three shards."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in sound(SHARDS).items():
        (folder / name).write_bytes(data)
    return folder


def identity(folder: Path) -> str:
    """The identity of a folder."""
    with open_model(folder) as model:
        return model.identity


# verify


@pytest.mark.parametrize("by", ["", INDEX_NAME])
def test_a_valid_folder_is_one_line(tritcodec: Command, folder: Path, by: str) -> None:
    """Its shards, tensors, bytes and identity; a folder is named by its index, or itself."""
    status, out, err = tritcodec("verify", folder / by)
    what = f"valid, 3 shards, 8 tensors, {SIZE:,} bytes, identity {identity(folder)}"
    assert (status, out, err) == (0, f"{folder / INDEX_NAME}: {what}\n", "")


def test_what_is_wrong_stands_below_the_folder_and_the_shard(tritcodec: Command, folder: Path) -> None:
    """Findings of the folder first, then each shard that is not valid, as a file by itself."""
    (folder / "x.trit").write_bytes(b"")
    (folder / FIRST).write_bytes(with_bytes(SHARDS[FIRST], len(SHARDS[FIRST]) - 1, 1))
    (folder / SECOND).write_bytes(shard("c.w", depth=2, bias=1))
    status, out, err = tritcodec("verify", folder)
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == f"{folder / INDEX_NAME}: invalid"
    assert lines[1] == "  IDX-13: shard 'x.trit': is in the folder, and the index does not name it"
    assert lines[2].startswith(f"  IDX-15: shard {SECOND!a}: the identity is ")
    assert "\n".join(lines[3:]) + "\n" == tritcodec("verify", folder / FIRST)[1]


def test_a_folder_that_lacks_a_shard(tritcodec: Command, folder: Path) -> None:
    """What is missing is named; the others are verified all the same."""
    (folder / THIRD).unlink()
    status, out, _ = tritcodec("verify", folder)
    assert (status, out.splitlines()[1:]) == (1, [f"  IDX-12: shard {THIRD!a}: is missing"])


def test_statuses(tritcodec: Command, folder: Path, tmp_path: Path) -> None:
    """As for files: 3 for a newer shard, 1 for an invalid one, 2 where nothing could be judged."""
    (folder / SECOND).write_bytes(with_bytes(SHARDS[SECOND], 8, 2))
    assert tritcodec("verify", folder)[0] == 3
    (folder / INDEX_NAME).write_text("{}")
    assert tritcodec("verify", folder)[0] == 1
    status, out, err = tritcodec("verify", tmp_path, folder)
    assert status == 2
    assert out.startswith(f"{folder / INDEX_NAME}: invalid\n  IDX-6: the key metadata is missing\n")
    neither = f"neither model.trit nor {INDEX_NAME} in the folder"
    assert err == f"tritcodec: {tmp_path}: {neither}; there are packed models within: {folder.name}\n"


def test_json_is_one_object_a_folder(tritcodec: Command, folder: Path) -> None:
    """It has what the text has, and the whole report on each shard."""
    (folder / SECOND).write_bytes(with_bytes(SHARDS[SECOND], len(SHARDS[SECOND]) - 1, 1))
    (folder / "x\n\x1b.trit").write_bytes(b"")
    status, out, _ = tritcodec("verify", folder, folder / FIRST, "--json")
    first, second = out.splitlines()
    assert (status, out.isascii()) == (1, True)
    found: dict[str, Any] = json.loads(first)
    assert [finding["clause"] for finding in found.pop("findings")] == ["IDX-13"]
    shards = found.pop("shards")
    assert found == {
        "file": str(folder / INDEX_NAME),
        "verdict": "invalid",
        "identity": identity_of_bytes(folder / INDEX_NAME),
        "tensors": 8,
        "size": SIZE,
    }
    assert {name: (s["verdict"], len(s["findings"])) for name, s in shards.items()} == {
        FIRST: ("valid", 0),
        SECOND: ("invalid", 1),
        THIRD: ("valid", 0),
    }
    assert json.loads(second) == shards[FIRST] | {"file": str(folder / FIRST)}


def identity_of_bytes(path: Path) -> str:
    """The SHA-256 of a file, by another tool than ours."""
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:64]


def test_the_tool_takes_folders(folder: Path) -> None:
    """tools/verify.py is the command under another name, for folders, too."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "verify.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "valid, 3 shards" in done.stdout


# inspect, truncate, dequantize


def test_inspect_shows_all_shards_as_one(tritcodec: Command, folder: Path) -> None:
    """A row for each tensor, in order of the names, whatever the shard; totals over all."""
    status, out, _ = tritcodec("inspect", folder)
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"{folder / INDEX_NAME}: 3 shards, {SIZE:,} bytes"
    assert lines[1:4] == [f"identity {identity(folder)}", "format: pt", ""]
    rows = [line.split() for line in lines[5 : lines.index("", 5)]]
    assert [row[0] for row in rows] == ["a.w", "a.w.bias", "b.w", "c.w", "c.w.bias", "d.w", "d.w.bias", "e.w"]
    assert [row[2:4] for row in rows if row[0] == "c.w"] == [["F32", "d2"]]
    assert lines[-2].startswith("5 quantised: 90 weights, ")
    assert lines[-1] == "3 raw: 3 bytes"


def test_inspect_sorts_over_shards(tritcodec: Command, tmp_path: Path) -> None:
    """The order of the rows is that of the names, not of the shards."""
    for name, data in sound({FIRST: shard("b", "d"), SECOND: shard("a", "c")}).items():
        (tmp_path / name).write_bytes(data)
    _, out, _ = tritcodec("inspect", tmp_path)
    names = [line.split()[0] for line in out.splitlines() if " d1 " in line]
    assert names == ["a", "b", "c", "d"]


def test_inspect_compares_with_the_source(tritcodec: Command, folder: Path, tmp_path: Path) -> None:
    """--against adds the error of each trit tensor, in whichever shard it is."""
    source = write_model(tmp_path / "source", {f"{n}.w": floats(values(6, 3)) for n in "abcde"})
    status, out, _ = tritcodec("inspect", folder, "--against", source)
    assert status == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert all(len(rows[f"{name}.w"]) == 10 for name in "abcde")
    assert "SQNR over all quantised weights" in out
    assert "raw, and not as in the source: 3, " in out
    status, _, err = tritcodec("inspect", folder, "--against", write_model(tmp_path / "other", {}))
    assert (status, "the source has no tensor 'a.w'" in err) == (2, True)


def test_inspect_says_what_raw_tensors_differ_in(tritcodec: Command, tmp_path: Path) -> None:
    """Values, dtype and shape, and what only one of the two has; the last of many bytes counts, too."""
    plain = floats(values(1 << 19), "F32")
    made = {"a.weight": weights(4, 16), "big.bias": plain, "lost.bias": weights(5), "more.bias": weights(6)}
    tritcodec("quantize", write_model(tmp_path / "source", made), tmp_path / "out")
    packed = tmp_path / "out" / "uniform-d2"
    changed = Stored(plain.dtype, plain.shape, plain.data[:-1] + bytes([plain.data[-1] ^ 1]))
    others = made | {"big.bias": changed, "more.bias": weights(6, dtype="F16"), "new.bias": weights(1)}
    del others["lost.bias"]
    run = tritcodec("inspect", packed, "--against", write_model(tmp_path / "other", others))
    assert run[1].endswith(
        "raw, and not as in the source: 3, 'big.bias' the first: other values\n"
        "in the source, and not here: 1, 'new.bias' the first\n"
    )
    others = made | {"more.bias": weights(6, dtype="F16")}
    run = tritcodec("inspect", packed, "--against", write_model(tmp_path / "third", others))
    assert run[1].endswith("'more.bias' the first: F16 [6] in the source, F32 [6] here\n")
    del others["more.bias"]
    run = tritcodec("inspect", packed, "--against", write_model(tmp_path / "fourth", others))
    assert run[1].endswith("'more.bias' the first: the source has no such tensor\n")


def test_truncate_and_dequantize_say_what_they_made(
    tritcodec: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards, sizes, tensors and weights; what is made is valid, and a folder again."""
    monkeypatch.chdir(tmp_path)
    status, out, _ = tritcodec("truncate", folder, "cut", "--depth", 1)
    with open_model("cut") as model:
        size = model.size
    assert (status, out) == (0, f"{Path('cut', INDEX_NAME)}: 3 shards, {size:,} bytes, from {SIZE:,}\n")
    status, out, _ = tritcodec("dequantize", "cut", "back", "--dtype", "F16")
    assert (status, out) == (0, "back: 8 tensors, 93 weights\n")
    assert sorted(tree(Path("back"))) == sorted(
        ["model.safetensors.index.json", *(name.replace(".trit", ".safetensors") for name in SHARDS)]
    )
    assert tritcodec("verify", "cut")[0] == 0


@pytest.mark.parametrize("command", ["dequantize", "inspect", "truncate"])
def test_a_broken_folder_is_one_line(
    tritcodec: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The error names the index, the shard, and the requirement; nothing is left."""
    (folder / SECOND).unlink()
    more = {"dequantize": ["new/out"], "inspect": [], "truncate": ["new/out", "--depth", "1"]}[command]
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    status, out, err = tritcodec(command, folder, *more)
    assert (status, out) == (2, "")
    assert err == f"tritcodec: {folder / INDEX_NAME}: shard {SECOND!a}: is missing [IDX-12]\n"
    assert tree(tmp_path) == before
