"""The commands in tools/ run, on real input."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MINILM = ROOT / "fixtures" / "minilm"


def tool(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `python tools/NAME.py ARGUMENTS` does."""
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_the_bits_are_those_that_are_pinned() -> None:
    """Encoding, decoding, packing and writing give the digests in fixtures/crosscheck.json here, too."""
    done = tool("crosscheck")
    assert done.returncode == 0, f"{done.stdout}\nintended? python tools/crosscheck.py --update"
    assert re.search(r"^\d{2,} cases, 0 not as pinned", done.stdout, re.MULTILINE)


def test_the_bits_do_not_depend_on_cpu_dispatch() -> None:
    """With NumPy's dispatch to newer instructions switched off, the digests are the same."""
    features = tool("crosscheck", "--features").stdout.strip()
    done = tool("crosscheck", NPY_DISABLE_CPU_FEATURES=features)
    assert done.returncode == 0, done.stdout + done.stderr


def test_optimal_is_ahead_at_every_depth() -> None:
    """tools/quality.py prints both tables, and the fitted codebook has the higher ratio at each depth."""
    done = tool("quality", MINILM)
    assert done.returncode == 0, done.stderr
    optimal, published = re.findall(r"^all weights +(.*)$", done.stdout, re.MULTILINE)
    assert len(optimal.split()) == 4
    for ours, theirs in zip(optimal.split(), published.split(), strict=True):
        assert float(ours) > float(theirs)


def test_the_fixture_says_where_it_comes_from() -> None:
    """The digest in fixtures/minilm/README.md is that of the weights that are there."""
    digest = hashlib.sha256((MINILM / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (MINILM / "README.md").read_text("utf-8")


def test_the_benchmark_runs() -> None:
    """tools/bench.py measures at a small size and prints a row for each thing that it was asked for."""
    done = tool("bench", "--size", 512, "--repeats", 1, "--only", "pack", "dequantize", "layouts")
    assert done.returncode == 0, done.stderr
    assert "pack, one plane" in done.stdout
    assert "dequantize F32, depth 4" in done.stdout
    assert "from_tq1_0, one plane" in done.stdout


@pytest.mark.parametrize(
    "name", ["bench", "crosscheck", "minilm", "quality", "readme", "spec_appendix", "traceability"]
)
def test_help_is_there(name: str) -> None:
    """Every tool says what it is for."""
    done = tool(name, "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout


@pytest.mark.skipif(shutil.which("cc") is None, reason="builds the C port, which needs a C compiler")
def test_the_c_port_agrees_on_damaged_files() -> None:
    """A short differential run: the package and the C port give the same verdicts, clauses and bits."""
    done = tool("fuzz_diff", "--seed", 1, "--inputs", 1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout
