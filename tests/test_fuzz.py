"""tools/fuzz.py: nothing is found in the package, and whatever is planted there is."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tritcodec import canonical, header, reader, verify, verify_model
from tritcodec.model import index, shards

resource = pytest.importorskip("resource", reason="limits memory, which takes a POSIX system")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))  # a command, which stands in no package

import fuzz  # noqa: E402  # as above
import hostile  # noqa: E402  # as above


@pytest.fixture(autouse=True, scope="module")
def made_once() -> None:
    """What inputs are made from is there before a run forks."""
    for make in (fuzz.bases, fuzz.index_texts, fuzz.whole_folders):
        assert make()


def test_nothing_is_found() -> None:
    """A short run over every target."""
    assert fuzz.main(["header", "index", "--inputs", "1000"]) == 0
    assert fuzz.main(["file", "--inputs", "200"]) == 0
    assert fuzz.main(["folder", "--inputs", "40"]) == 0


def nothing(*_: object) -> None:
    """A check that is gone."""


def no_shortest_forms() -> dict[int, tuple[str, int, int]]:
    """Heads whose integer or length may have any form."""
    return {first: (kind, width, 0) for first, (kind, width, _) in canonical.WIDE_FORMS.items()}


def allocating(data: bytes, length: int) -> Any:
    """A preamble that is believed before it is checked."""
    bytearray(min(int.from_bytes(data[16:24], "little"), 1 << 40))
    return decode_preamble(data, length)


def crashing(*_: object) -> None:
    """What ends the process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def endless(name: str) -> None:
    """A check that does not end."""
    while len(name) > 100:
        pass


decode_preamble = header.decode_preamble
PLANTED: dict[str, tuple[str, object, str, object, str]] = {
    "forms that are not the shortest": (
        "header",
        canonical,
        "WIDE_FORMS",
        no_shortest_forms(),
        "written again, the header is another",
    ),
    "a crash": ("header", canonical.Cursor, "binary", crashing, "the process ended with signal SIGKILL"),
    "gaps": ("file", verify, "_verify_gap", nothing, "written again, the file is another"),
    "padding": ("file", reader, "invalid_padding", nothing, r"\[PACK-3\], and verifying finds set\(\)"),
    "digests": ("file", reader, "check_digest", nothing, "written again, the file is another"),
    "memory": ("file", reader, "decode_preamble", allocating, "MemoryError"),
    "another exception": ("index", index, "_number", int, "ValueError: "),
    "time": ("index", index, "check_shard_name", endless, "Slow: takes more than 1.0 s"),
    "identities": ("folder", shards, "check_shard", nothing, "entries and keys differ"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_what_is_planted_is_found(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a check, or with another defect, the run ends at an input that shows it, which is kept."""
    target, place, name, value, message = PLANTED[fault]
    arguments = [target, "--inputs", "2000", "--save", str(tmp_path)]
    with monkeypatch.context() as planting:
        planting.setattr(place, name, value)
        assert fuzz.main(arguments) == 1
    said = capfd.readouterr().out
    assert re.search(message, said), said
    again = re.search(r"again: python tools/fuzz\.py (\w+) --input (\S+)", said)
    assert again
    assert (again[1], Path(again[2]).parent) == (target, tmp_path)
    assert fuzz.main([target, "--input", again[2]]) == 0  # without the defect


def test_a_header_of_a_million_values_is_within_the_budget(tmp_path: Path) -> None:
    """What was slow once, and is rare in a stream: a megabyte of empty strings, the slowest of them."""
    (tmp_path / "long").write_bytes(hostile.long_header(b"\xa0", 1 << 20))
    assert fuzz.main(["header", "--input", str(tmp_path / "long")]) == 0


def test_a_change_of_a_folder_fits(tmp_path: Path) -> None:
    """What atheris changes in a shard has its digests again, and the index its identity, but for some."""
    before = fuzz.folder_seeds()[0]
    found = set()
    for seed in range(12):
        data = hostile.changed_folder(before, first_of_the_last_line, Random(seed))
        files = hostile.files_of(data)
        assert [name for name, old in hostile.files_of(before).items() if old != files[name]]
        if fuzz.check_folder(data, tmp_path):
            found.add("valid")
        else:
            found.update(finding.clause for finding in verify_model(tmp_path / "model").findings)
    assert found == {"valid", "IDX-11", "IDX-15"}  # the index changed; a shard, and not the index


def first_of_the_last_line(part: bytes) -> bytes:
    """*part* with a change in its last 64 bytes, where the last segment of a small shard begins."""
    return part[:-64] + bytes([part[-64] ^ 1]) + part[-63:]


def test_a_tool_that_fails_has_found_nothing_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An exception of the tool itself is no silent success."""

    def broken(*_: Callable[..., object]) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(hostile, "header", broken)
    assert fuzz.main(["header", "--inputs", "10"]) == 1
    assert "RuntimeError: broken" in capfd.readouterr().err
