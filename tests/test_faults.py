"""tools/faults.py: a sample of all faults does no harm, and where a precaution is missing it shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_cases import Call, Disk
from test_tools import ROOT, tool

sys.path.insert(0, str(ROOT / "tools"))  # a command, which stands in no package

import faults

preload = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="preloads a library in C, on Linux"
)


@preload
def test_a_sample_of_all_faults() -> None:
    """Failing calls, kills, power cuts, races, full disks: nothing is lost, and done again it is complete."""
    done = tool("faults", "--cases", 20, "--seed", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 of " in done.stdout
    assert "; 0 do not hold" in done.stdout


CARELESS = """
import os, sys
sys.path.insert(0, sys.argv[1])
import faults
os.fsync = lambda _: None
os.unlink = lambda path, unlink=os.unlink, **places: unlink(path, **places) if places else None
sys.exit(faults.main(["save", "--case", "save:cut"]) and faults.main(["save", "--case", "save:EIO"]))
"""


@preload
def test_what_is_missing_shows(tmp_path: Path) -> None:
    """A writer that does not flush, and one that does not clean up."""
    command = [sys.executable, "-c", CARELESS, str(ROOT / "tools")]
    done = subprocess.run(command, env=faults.build(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "cut: model.trit is neither the old nor the new" in done.stdout
    assert "leaves ['." in done.stdout
    assert "again: python tools/faults.py save --case save:EIO:" in done.stdout


def test_a_power_cut() -> None:
    """Bytes last once a file is flushed, and names once a folder is; a rename takes its file along."""
    disk = Disk.of({"out": None, "out/a": b"old"})
    create = os.O_CREAT | os.O_WRONLY
    for call in [
        Call("open", "out/t", create),
        Call("write", "out/t", 0, b"new"),
        Call("truncate", "out/t", 4),
    ]:
        disk.do(call)
    assert disk.names["out/t"]
    assert disk.after_a_cut()["lost"] == {"out": None, "out/a": b"old"}
    disk.do(Call("rename", "out/t", to="out/a"))
    assert disk.after_a_cut() == {
        "cut": {"out": None, "out/a": b""},
        "zeros": {"out": None, "out/a": bytes(4)},
        "lost": {"out": None, "out/a": b"old"},
    }
    disk.do(Call("fsync", "out/a"))
    assert disk.after_a_cut()["cut"] == {"out": None, "out/a": b"new\0"}
    assert disk.after_a_cut()["lost"] == {"out": None, "out/a": b"old"}
    disk.do(Call("fsync", "out"))
    assert disk.after_a_cut()["lost"] == {"out": None, "out/a": b"new\0"}


def test_what_is_in_a_folder_lasts_when_the_folder_does() -> None:
    """The order of flushes does not matter; until the last, nothing is there."""
    disk = Disk.of({"out": None})
    for call in [
        Call("mkdir", "out/d"),
        Call("open", "out/d/f", os.O_CREAT),
        Call("write", "out/d/f", 0, b"x"),
    ]:
        disk.do(call)
    for path in ("out/d/f", "out/d"):
        disk.do(Call("fsync", path))
        assert disk.after_a_cut()["lost"] == {"out": None}
    disk.do(Call("fsync", "out"))
    assert disk.after_a_cut()["lost"] == {"out": None, "out/d": None, "out/d/f": b"x"}
