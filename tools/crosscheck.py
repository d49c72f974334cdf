"""The same bits everywhere: digests of what the codec makes of a fixed corpus, in many environments.

Without an option, computes the digests here and compares them with those in
fixtures/crosscheck.json. With --matrix, does so in fresh environments with
several NumPy versions, each with NumPy's CPU dispatch as it is and switched
off, and prints a row for each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

import tritcodec as tc

ROOT = Path(__file__).parents[1]
PINNED = ROOT / "fixtures" / "crosscheck.json"
MODEL = ROOT / "fixtures" / "minilm" / "model.safetensors"
NUMPYS = ("1.26.4", "2.0.2", "")  # the last: the newest there is
DEPTHS = (1, 2, 3, 4)
METHODS: dict[str, dict[str, Any]] = {
    "optimal": {},
    "nested": {"nested": True},
    "tritllm-v2": {"method": "tritllm-v2"},
}
REAL = {  # real matrices, one of each kind, and the cut that is taken
    "query": ("encoder.layer.0.attention.self.query.weight", slice(None)),
    "output": ("encoder.layer.0.output.dense.weight", slice(0, 128)),
}
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)


def corpus() -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Named float32 matrices: real, painted, and made to hurt."""
    real = load_file(MODEL)
    for name, (tensor, cut) in REAL.items():
        yield name, real[tensor][cut].astype(np.float32)
    # 251 is prime: no group, row or byte has a cycle of its own. All values are exact in float32.
    painted = (np.arange(37 * 101) * 97 % 251 - 125).reshape(37, 101)
    yield "painted", painted.astype(np.float32) / np.float32(64)
    yield "huge", painted.astype(np.float32) * np.float32(2.0**120)
    yield "tiny", painted.astype(np.float32) * np.float32(2.0**-149)
    yield "ties", (painted % 9).astype(np.float32) / np.float32(2)
    yield "outlier", np.where(painted == 125, 2.0**40, painted / 64).astype(np.float32)
    yield "narrow", painted[:, :10].astype(np.float32)
    yield "zero", np.zeros((6, 40), np.float32)


def digests() -> dict[str, str]:
    """The digest of every case, by name."""
    found = {}
    for name, weights in corpus():
        for method, options in METHODS.items():
            for depth in DEPTHS:
                found[f"{name}/{method}/d{depth}"] = _digest(tc.quantize(weights, depth, **options))
    weights = dict(corpus())["painted"]
    for dtype in DTYPES:
        found[f"painted/{np.dtype(dtype).name}"] = _digest(tc.quantize(weights.astype(dtype), 2))
    found["file"] = _file_digest(weights)
    return found


def _digest(tensor: tc.TritTensor) -> str:
    """Of codebook, planes, and the values in every dtype that they fit."""
    digest = sha256(tensor.codebook.astype("<f4").tobytes())
    for plane in tensor.planes:
        digest.update(plane.tobytes())
    for dtype in ("F32", "BF16"):
        digest.update(tensor.dequantize(dtype).tobytes())
    digest.update(tc.pack(tc.split(tensor.levels(), tensor.depth), axis=-1).tobytes())
    return digest.hexdigest()


def _file_digest(weights: npt.NDArray[np.float32]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.trit")
        tensors = {"b.weight": tc.quantize(weights, 3), "a.bias": weights[0].astype(np.float16)}
        tc.save_file(tensors, path, {"format": "pt", "note": "\u00b11"})
        return sha256(path.read_bytes()).hexdigest()


def total(found: dict[str, str]) -> str:
    """One digest for all."""
    return sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def compare(found: dict[str, str]) -> list[str]:
    """The names of the cases that are not as pinned."""
    pinned = json.loads(PINNED.read_text())
    return sorted(name for name in found.keys() | pinned.keys() if found.get(name) != pinned.get(name))


def run_matrix(pythons: list[str], numpys: list[str]) -> int:
    """Print a row for every environment; gives the exit status."""
    print(f"{platform.machine()}, {platform.system()}; the digest of all cases, in each environment\n")
    print(f"{'python':<10}{'numpy':<10}{'CPU dispatch':<14}digest")
    seen = set()
    for python in pythons:
        for numpy in numpys:
            with tempfile.TemporaryDirectory() as folder:
                interpreter = _environment(folder, python, numpy)
                for dispatch in ("on", "off"):
                    row = _run(interpreter, dispatch)
                    print(
                        f"{row['python']:<10}{row['numpy']:<10}{dispatch:<14}{row['total'][:32]}", flush=True
                    )
                    seen.add(row["total"])
    same = seen == {total(json.loads(PINNED.read_text()))}
    print(f"\n{'all as pinned' if same else 'NOT all the same: see the rows'}")
    return 0 if same else 1


def _environment(folder: str, python: str, numpy: str) -> Path:
    """The interpreter of a fresh environment with the package and the NumPy version."""
    if python:
        subprocess.run([python, "-m", "venv", folder], check=True)
    else:
        venv.create(folder, with_pip=True)
    interpreter = Path(folder, "bin", "python")
    wanted = f"numpy=={numpy}" if numpy else "numpy"
    subprocess.run([interpreter, "-m", "pip", "install", "-q", str(ROOT), wanted], check=True)
    return interpreter


def _run(interpreter: Path, dispatch: str) -> dict[str, str]:
    environment = dict(os.environ)
    if dispatch == "off":
        features = subprocess.run(
            [interpreter, __file__, "--features"], check=True, capture_output=True, text=True
        )
        environment["NPY_DISABLE_CPU_FEATURES"] = features.stdout.strip()
    done = subprocess.run(
        [interpreter, __file__, "--print"], check=True, capture_output=True, text=True, env=environment
    )
    row: dict[str, str] = json.loads(done.stdout)
    return row


def features() -> str:
    """What this NumPy dispatches to on this CPU, as NPY_DISABLE_CPU_FEATURES takes it."""
    package = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    core = importlib.import_module(f"{package}._multiarray_umath")
    return " ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name))


def main() -> int:
    """Parse arguments and run; gives the exit status: 0 where all is as pinned."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--matrix", action="store_true", help="run in fresh environments")
    parser.add_argument(
        "--numpy", default=",".join(NUMPYS), help="versions for --matrix (default: %(default)s)"
    )
    parser.add_argument("--python", default="", metavar="PATH,...", help="interpreters for --matrix")
    parser.add_argument("--update", action="store_true", help="pin the digests that this environment gives")
    parser.add_argument("--print", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--features", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.features:
        print(features())
        return 0
    if arguments.matrix:
        return run_matrix(arguments.python.split(","), arguments.numpy.split(","))
    found = digests()
    if arguments.print:
        row = {"python": platform.python_version(), "numpy": np.__version__, "total": total(found)}
        print(json.dumps(row))
        return 0
    if arguments.update:
        PINNED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    wrong = compare(found)
    for name in wrong:
        print(f"{name}: not as pinned")
    print(f"{len(found)} cases, {len(wrong)} not as pinned; all together {total(found)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
