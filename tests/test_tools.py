"""The commands in tools/ run, on real input."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import independent
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tritcodec as tc

ROOT = Path(__file__).parents[1]
MINILM = ROOT / "fixtures" / "minilm"
sys.path.insert(0, str(ROOT / "tools"))  # commands, which stand in no package

import crosscheck  # noqa: E402  # as above
import environments  # noqa: E402  # as above
import fuzz_diff  # noqa: E402  # as above


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


@pytest.mark.parametrize(("crashes", "status"), [(False, 0), (True, 1)])
def test_an_environment_that_crashes_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], crashes: bool, status: int
) -> None:
    """Where the corpus does not come to its end, that is no success; what cannot be had is only said."""
    good = {"machine": "m", "byteorder": "little", "python": "3", "numpy": "2", "total": "0" * 64}
    said = json.dumps({**good, "cases": 1, "wrong": [], "blas": None})
    number = 0

    def command(*words: object, **_: str) -> str:  # the first NumPy fails, as pip or in the corpus
        nonlocal number
        corpus = environments.CROSSCHECK in words
        number += "pip" in words
        if number == 1 and ("pip" in words or corpus) and corpus == crashes:
            raise environments.Failed("the last line")
        return said

    monkeypatch.setattr(environments, "command", command)
    monkeypatch.setattr(environments, "variants", lambda _: iter(()))
    assert environments.main(["--pythons", environments.HERE, "--machines", ""]) == status
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.endswith(f"| 1.26.* |  | {'crashed' if crashes else 'not run'}: the last line")
    assert last.endswith("1 crashed, 0 not run" if crashes else "0 crashed, 1 not run")


def test_the_table_of_environments_is_of_these_digests() -> None:
    """Every row of docs/environments.md that has a digest has that of the cases as they are pinned now."""
    rows = re.findall(
        r"^\| .*`([0-9a-f]{16})` \|$", (ROOT / "docs" / "environments.md").read_text(), re.MULTILINE
    )
    pinned = crosscheck.total(json.loads(crosscheck.PINNED.read_text()))
    assert len(rows) > 20
    assert set(rows) == {pinned[:16]}, "python tools/environments.py --write"


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


def test_the_benchmark_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in Markdown with the rows and the targets that were missed; pictures with what it lists."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench_report = importlib.import_module("bench_report")
    name = "encoder.layer.0.output.dense.weight"
    weights = load_file(MINILM / "model.safetensors")[name][:64, :512]
    save_file({name: np.ascontiguousarray(weights)}, tmp_path / "model.safetensors")
    rows = [
        bench_report.Row(f"quantize, depth 2, {10**n:,}", f"{n}.25 ns/weight", "float32 copy", n / 2, 2.5)
        for n in (5, 6)
    ]
    headings = {"growth": "As they grow."}
    bench_report.write(tmp_path / "page.md", ["command"], {"growth": rows}, headings, tmp_path)
    page = (tmp_path / "page.md").read_text("utf-8")
    assert f"over the 32,768 weights of the linear layers of {tmp_path.name}." in page
    assert "| quantize, depth 2, 100,000 | 5.25 ns/weight | 2.50 | float32 copy | 2.50 |" in page
    assert "| quantize, depth 2, 1,000,000 | 6.25 ns/weight | 3.00 | float32 copy | 2.50 missed |" in page
    listed = re.findall(r"^\| (?:optimal|gguf-py) \| (.*?) \| [0-9.]+ \| [0-9.]+ \|$", page, re.MULTILINE)
    assert listed == ["depth 1", "depth 2", "depth 3", "depth 4", "TQ1_0", "TQ2_0", "Q4_0", "Q5_0", "Q8_0"]
    quality, growth = ((tmp_path / "page" / f"{name}.svg").read_text() for name in ("quality", "growth"))
    assert [part for part in listed if f"<!-- {part} -->" not in quality] == []
    assert "<!-- quantize, depth 2 -->" in growth


def test_big_models_come_to_the_same_bytes_whatever_happens() -> None:
    """A small one, killed and run again: every file has the digest of the undisturbed run."""
    done = tool("big_model", "--weights", 2e5, "--kills", 1, "--seed", 10)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^killed 1 times: [\d.]+ s, 8 files, all the same$", done.stdout, re.MULTILINE)


def test_whole_models_are_measured() -> None:
    """tools/bench_model.py has a row for memory, within its target."""
    done = tool("bench_model", "--only", "memory", "--rows", 100)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^quantize 1 of 100 x 8000: memory .* yes$", done.stdout, re.MULTILINE)
    assert re.search(r"^the same, each of two workers .* yes$", done.stdout, re.MULTILINE)


NO_COMMANDS = ("bench_report", "testee")  # a part of bench; what speaks the protocol alone
TOOLS = [path.stem for path in sorted((ROOT / "tools").glob("*.py")) if path.stem not in NO_COMMANDS]


@pytest.mark.parametrize("name", TOOLS)
def test_help_is_there(name: str) -> None:
    """Every tool says what it is for."""
    done = tool(name, "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout


@pytest.mark.skipif(shutil.which("cc") is None, reason="builds the C port, which needs a C compiler")
def test_the_c_port_agrees_on_damaged_files() -> None:
    """A short differential run: the package and the C port give the same verdicts, clauses and bits."""
    done = tool("fuzz_diff", "--seed", 1, "--inputs", 300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout


def test_a_file_that_is_nested_without_end_is_made_smaller() -> None:
    """Deeper than Python recurses, there is no tree to cut values out of; bytes are cut out all the same."""
    deep = independent.seal(b"\x91" * 2000 + b"\0", [])
    smaller = list(fuzz_diff.smaller_files(deep))
    assert smaller
    assert min(map(len, smaller)) < len(deep) // 2


def test_products_that_are_hard_to_round() -> None:
    """A short campaign against the definition in integers finds nothing wrong."""
    done = tool("fuzz_matmul", "--elements", 60_000, "--seed", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 wrong" in done.stdout


def test_kernels_are_judged(tmp_path: Path) -> None:
    """A product in .npy files: right, wrong, with the probe that the tool writes, and drawn."""
    weights = tc.quantize(np.sin(np.arange(60 * 100)).reshape(60, 100).astype(np.float32), 3)
    tc.save_file({"w": weights, "b": np.zeros(3)}, tmp_path / "k.trit")
    common = ["--weights", tmp_path / "k.trit", "--tensor", "w"]
    files = ["--x", tmp_path / "x.npy", "--y", tmp_path / "y.npy"]
    assert tool("check_kernel", *common, "--probe", tmp_path / "x.npy").returncode == 0
    x = np.load(tmp_path / "x.npy")
    y = x @ weights.dequantize("F32").T
    np.save(tmp_path / "y.npy", y)
    done = tool("check_kernel", *common, *files)
    assert (done.returncode, done.stdout[:4]) == (0, "ok: "), done.stderr
    planes = tool("check_kernel", *common, *files, "--planes", "--json")  # a wider bound, and smaller errors
    assert json.loads(planes.stdout)["worst"]["units"] < float(done.stdout.split(", ")[-1].split()[0])
    y[3, 5] *= 1.001
    np.save(tmp_path / "y.npy", y)
    done = tool("check_kernel", *common, *files, "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["outside"], report["worst"]["index"]) == (False, 1, [3, 5])
    assert float.fromhex(report["worst"]["got"]) == y[3, 5]
    done = tool("check_kernel", *common, *files, "--plot", tmp_path / "error.svg")
    assert done.returncode == 1, done.stderr
    assert "<svg" in (tmp_path / "error.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tensor", "w", "--x", "x.npy"], "--x and --y are needed"),
        (["--tensor", "w", "--x", "none.npy", "--y", "x.npy"], "No such file or directory: 'none.npy'"),
        (["--tensor", "none", "--x", "x.npy", "--y", "x.npy"], "no tensor 'none' among the 2"),
        (["--tensor", "b", "--x", "x.npy", "--y", "x.npy"], "tensor 'b' is not quantised, but raw"),
        (["--tensor", "w", "--x", "x.npy", "--y", "x.npy"], "y must be float32, float16 or bfloat16"),
        (["--tensor", "w", "--x", "k.trit", "--y", "x.npy"], "k.trit: no array in the .npy format"),
    ],
)
def test_kernels_that_cannot_be_judged(arguments: list[str], message: str, tmp_path: Path) -> None:
    """Wrong usage and unfit files: one line that says what and why, exit status 2."""
    weights = tc.quantize(np.ones((3, 16), np.float32), 1)
    tc.save_file({"w": weights, "b": np.zeros(3)}, tmp_path / "k.trit")
    np.save(tmp_path / "x.npy", np.ones((2, 16), np.float32))
    command = [sys.executable, str(ROOT / "tools" / "check_kernel.py"), "--weights", "k.trit", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
