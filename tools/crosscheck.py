"""The same bits everywhere: digests of what the codec makes of a fixed corpus.

Computes the digests here and compares them with those in fixtures/crosscheck.json; --update pins those that
come out. tools/environments.py does so in many environments, and on other machines.

Encoding, decoding, packing, products and files have cases of their own. What is decoded, multiplied and
written is painted by a rule and depends on no encoder: where only encoding changes, only its cases do.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

import tritcodec as tc
from tritcodec import layouts

ROOT = Path(__file__).parents[1]
PINNED = ROOT / "fixtures" / "crosscheck.json"
MODEL = ROOT / "fixtures" / "minilm" / "model.safetensors"
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


FORMS = [(depth, shift) for depth in DEPTHS for shift in range(5 - depth)]  # all that there are
STEPS = (0x3C123440 + np.arange(27, dtype=np.uint32) * 0x197C0).view(np.float32)  # 18 significant bits
Array = npt.NDArray[Any]
Digests = Iterator[tuple[str, str]]


def real_weights() -> dict[str, Array]:
    """The matrices of the model in fixtures/minilm that REAL names; read here, for any machine."""
    data = MODEL.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, found = json.loads(data[8:start]), {}
    for name, (tensor, cut) in REAL.items():
        entry = header[tensor]
        begin, end = entry["data_offsets"]
        dtype = {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]
        array = np.frombuffer(data[start + begin : start + end], dtype).reshape(entry["shape"])
        found[name] = array[cut].astype(np.float32)
    return found


def painted(rows: int, columns: int) -> Array:
    """Integers from -125 to 125. 251 is prime: no group, row or byte has a cycle of its own."""
    return (np.arange(rows * columns) * 97 % 251 - 125).reshape(rows, columns)


def corpus() -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Named float32 matrices: real, painted, and made to hurt."""
    yield from real_weights().items()
    integers = painted(37, 101)  # all values are exact in float32
    yield "painted", integers.astype(np.float32) / np.float32(64)
    yield "huge", integers.astype(np.float32) * np.float32(2.0**120)
    yield "tiny", integers.astype(np.float32) * np.float32(2.0**-149)
    yield "ties", (integers % 9).astype(np.float32) / np.float32(2)
    yield "outlier", np.where(integers == 125, 2.0**40, integers / 64).astype(np.float32)
    yield "narrow", integers[:, :10].astype(np.float32)
    yield "zero", np.zeros((6, 40), np.float32)


def tensor(
    depth: int, shift: int = 0, shape: tuple[int, int] = (37, 101), dtype: str = "F32"
) -> tc.TritTensor:
    """A painted trit tensor."""
    H, groups = (3**depth - 1) // 2, -(-shape[1] // 16)
    levels = (painted(*shape) % (2 * H + 1) - H).astype(np.int8)
    codes = (painted(shape[0], groups) % 27).astype(np.uint8)
    return tc.TritTensor.from_levels(levels, codes, STEPS, depth=depth, shift=shift, dtype=dtype)


def digests() -> dict[str, str]:
    """The digest of every case, by name."""
    return dict(pair for part in (encoded, decoded, multiplied, laid_out, files) for pair in part())


def encoded() -> Digests:
    """Every matrix by every method at every depth, and every dtype."""
    for name, weights in corpus():
        for method, options in METHODS.items():
            for depth in DEPTHS:
                yield f"encode/{name}/{method}/d{depth}", of_tensor(tc.quantize(weights, depth, **options))
    weights = dict(corpus())["painted"]
    for dtype in DTYPES:
        yield f"encode/painted/{np.dtype(dtype).name}", of_tensor(tc.quantize(weights.astype(dtype), 2))


def decoded() -> Digests:
    """Every depth and shift in every dtype, and what is cut."""
    for depth, shift in FORMS:
        t = tensor(depth, shift)
        values = [t.dequantize(dtype) for dtype in ("F32", "F16", "BF16")]
        yield f"decode/d{depth}/s{shift}", of(*values, t.scales())
        yield f"cut/d{depth}/s{shift}", of(*(t.truncate(d).dequantize() for d in range(1, depth + 1)))


def activations(columns: int) -> dict[str, Array]:
    """Rows of every dtype; and some whose terms cancel, overflow or vanish."""
    integers = painted(5, columns)
    floats = integers.astype(np.float32) / np.float32(7)
    spread = np.ldexp(floats, integers % 61 - 30).astype(np.float32)
    spread[:, 1::2] = -spread[:, :-1:2]  # of a pair only what the weights make of it is left
    return {
        "F32": floats,
        "F16": floats.astype(np.float16),
        "BF16": floats.astype(ml_dtypes.bfloat16),
        "I8": integers.astype(np.int8),
        "cancelling": spread,
        "huge": np.ldexp(floats, 120),
        "tiny": np.ldexp(floats, -140),
    }


def multiplied() -> Digests:
    """Exact products of every dtype of activations, with scales; dots of groups; with real activations."""
    scale = painted(5, 1)[:, 0].astype(np.float32) / np.float32(3)
    for depth in DEPTHS:
        t = tensor(depth, 4 - depth)
        for name, x in activations(t.shape[1]).items():
            yield f"matmul/d{depth}/{name}", of(tc.matmul(x, t))
        x = activations(t.shape[1])["I8"]
        yield f"matmul/d{depth}/I8/scaled", of(tc.matmul(x, t, scale=scale))
        yield f"group_dots/d{depth}", of(tc.group_dots(x, t))
    for name, x in real_weights().items():
        yield f"matmul/real/{name}", of(tc.matmul(x, tensor(3, shape=(40, x.shape[1]))))


def laid_out() -> Digests:
    """Planes, packed along both axes, and every exchange layout."""
    for depth in DEPTHS:
        t = tensor(depth)
        trits = tc.split(t.levels(), depth)
        yield f"pack/d{depth}", of(tc.pack(trits, axis=-1), tc.pack(trits, axis=1))
        planes = [layouts.to_two_bit(t, p) for p in range(depth)] + [
            layouts.to_tq1_0(t, p) for p in range(depth)
        ]
        yield f"layouts/d{depth}", of(*planes, *([layouts.to_int4(t)] if depth <= 2 else []))


def files() -> Digests:
    """Files: written at once, cut, and written segment by segment from the last to the first."""
    tensors: dict[str, tc.TritTensor | Array] = {
        "w": tensor(3, dtype="BF16"),
        "a.bias": painted(1, 9).astype(np.float16),
        "\u00e9": np.array([True, False]),
        "scalar": np.array(1.5),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tc.save_file(tensors, folder / "a.trit", {"format": "pt", "note": "\u00b11"})
        yield "file/saved", of_file(folder / "a.trit")
        tc.truncate_file(folder / "a.trit", folder / "b.trit", 1)
        yield "file/cut", of_file(folder / "b.trit")
        with tc.open_file(folder / "a.trit") as file:
            entries, segments = file.header.entries, file.segments
            with tc.TritWriter(folder / "c.trit", entries, file.metadata) as writer:
                for segment in reversed(segments):
                    writer.write(segment.entry.name, segment.part, file.blocks(segment))
        yield "file/streamed", of_file(folder / "c.trit")
        loaded = tc.load_file(folder / "a.trit")
        yield "file/loaded", of_tensor(loaded.pop("w")) + of(*loaded.values())


def of_tensor(t: Any) -> str:
    """Of codebook, planes, and the values in every dtype that they fit."""
    values = [t.dequantize(dtype) for dtype in ("F32", "BF16")]
    return of(t.codebook, *t.planes, *values, tc.pack(tc.split(t.levels(), t.depth), axis=-1))


def of(*arrays: Any) -> str:
    """Of dtypes, shapes and values, as little-endian bytes."""
    digest = sha256()
    for array in arrays:
        digest.update(f"{array.dtype.name} {array.shape}".encode())
        digest.update(np.asarray(array, array.dtype.newbyteorder("<"), order="C").tobytes())
    return digest.hexdigest()


def of_file(path: Path) -> str:
    """Of a file's bytes."""
    return sha256(path.read_bytes()).hexdigest()


def total(found: dict[str, str]) -> str:
    """One digest for all."""
    return sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def compare(found: dict[str, str]) -> list[str]:
    """The names of the cases that are not as pinned."""
    pinned = json.loads(PINNED.read_text())
    return sorted(name for name in found.keys() | pinned.keys() if found.get(name) != pinned.get(name))


def features() -> str:
    """What this NumPy dispatches to on this CPU, as NPY_DISABLE_CPU_FEATURES takes it."""
    package = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    core = importlib.import_module(f"{package}._multiarray_umath")
    return " ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name))


def blas() -> str:
    """The kernels that OpenBLAS uses here, where NumPy came with one."""
    for path in Path(np.__file__).parents[1].glob("numpy.libs/*openblas*"):
        library = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_get_corename64_", "openblas_get_corename64_"):
            if hasattr(library, name):
                function = getattr(library, name)
                function.restype = ctypes.c_char_p
                return str(function().decode())
    return ""


def row(found: dict[str, str]) -> dict[str, object]:
    """What tools/environments.py wants to know."""
    return {
        "machine": platform.machine(),
        "byteorder": sys.byteorder,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "ml_dtypes": ml_dtypes.__version__,
        "blas": blas(),
        "cases": len(found),
        "wrong": compare(found),
        "total": total(found),
    }


def main() -> int:
    """Parse arguments and run; gives the exit status: 0 where all is as pinned."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="pin the digests that this environment gives")
    parser.add_argument("--print", action="store_true", help="print what this environment is, as JSON")
    parser.add_argument("--features", action="store_true", help="print what NumPy dispatches to on this CPU")
    arguments = parser.parse_args()
    if arguments.features:
        print(features())
        return 0
    found = digests()
    if arguments.print:
        print(json.dumps(row(found)))
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
