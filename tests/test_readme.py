"""README.md is executed, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def readme(action: str) -> subprocess.CompletedProcess[str]:
    """What tools/readme.py does for *action*."""
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "readme.py", action], capture_output=True, text=True, check=False
    )


def test_output_is_what_readme_shows() -> None:
    """Every console and Python block gives exactly the output that stands in README.md, digests included."""
    done = readme("check")
    assert done.returncode == 0, f"python tools/readme.py update\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", ["main", "test"])
def test_commands_begin_in_a_fresh_environment(name: str) -> None:
    """The two commands are found, and make their own environment."""
    assert readme(name).stdout.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install")


def test_main_command_is_the_one_shown() -> None:
    """What a newcomer runs first is what the first session shows."""
    first = re.search(r"```console\n\$ (.*)\n", README)
    assert first is not None
    assert readme("main").stdout.split("&&")[-1].strip() == first[1]


def test_readme_shows_output() -> None:
    """The sessions are not empty: each of the six commands is run at least once."""
    for name in ("quantize", "dequantize", "repack", "truncate", "inspect", "verify"):
        assert re.search(rf"^\$ tritcodec {name} .*\n(?!\$|```)", README, re.MULTILINE), name


@pytest.mark.parametrize("document", sorted(path.name for path in ROOT.glob("*.md")))
def test_links_lead_somewhere(document: str) -> None:
    """Every relative link in a document leads to a file that exists."""
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text("utf-8")):
        assert (ROOT / target).exists(), target


def test_no_section_is_empty_or_unfinished() -> None:
    """Every heading has text, and no placeholder in capitals is left."""
    assert not re.search(r"^## .*\n+(?=## |\Z)", README, re.MULTILINE)
    assert not re.search(r"^[A-Z]{4,}$", README, re.MULTILINE)


SPEED = {  # rows of the README's table, and those of the benchmark page that they are of
    "`pack`, `unpack` of one plane": ["pack, one plane", "unpack, one plane"],
    "`dequantize` to float32, depth 1 / 2 / 3 / 4": [
        f"dequantize F32, depth {depth}" for depth in range(1, 5)
    ],
    "`dequantize`, depth 1, new array": ["dequantize, depth 1, new array"],
    "`quantize`, codebook fitted, depth 1 / 2 / 3 / 4": [f"quantize optimal, depth {d}" for d in range(1, 5)],
    "`repack`, from file to file, FP16, depth 1 / 2 / 3 / 4": [
        f"repack, depth {depth}" for depth in range(1, 5)
    ],
    "`matmul` of 1 / 8 / 32 / 256 rows, weights ready in float64": [
        f"matmul core, {rows} x 4096 x 4096" for rows in (1, 8, 32, 256)
    ],
    "`matmul` of 32 / 256 rows, from packed weights": [
        f"matmul of a trit tensor, {rows} x 4096 x 4096" for rows in (32, 256)
    ],
    "`matmul`, all zeros / ties / cancelling": [
        f"matmul, all {what}, 8 x 1024 x 1024" for what in ("zeros", "ties", "cancelling")
    ],
    "`verify_file` of 14 MB": ["verify_file, depth 4"],
}


def test_speed_is_that_of_the_benchmark_page() -> None:
    """Every ratio of the table stands there, with the same digits or more; the table has no other row."""
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    ratios = dict(re.findall(r"^\| (.+?) \| .+? \| (\d+\.\d+) \| .+? \|.*\|$", page, re.MULTILINE))
    table = README[README.index("| what | reference | ratio of time |") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert {row[0] for row in rows} == SPEED.keys()
    for what, _, said in rows:
        numbers = re.findall(r"\d+(?:\.\d+)?", said.split(":")[0])
        for number, name in zip(numbers, SPEED[what], strict=True):
            places = len(number.partition(".")[2])
            assert f"{float(ratios[name]):.{places}f}" == number, name
