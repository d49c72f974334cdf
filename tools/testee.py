"""The Python reader as a testee: both levels of docs/protocol.md over the package.

usage: python tools/testee.py verify FILE     one line of JSON; exit status 0, 1, 2 or 3
       python tools/testee.py serve           requests on standard input, answers on standard output
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tritcodec import (
    TritError,
    TritFile,
    TritTensor,
    group_dots,
    join,
    layouts,
    matmul,
    open_file,
    pack,
    quantize,
    split,
    unpack,
    verify_model,
)
from tritcodec.codebook import CODES, FLOATS
from tritcodec.header import MAJOR, RawEntry
from tritcodec.packing import packed_rows
from tritcodec.tensor import GROUP_SIZE, MAX_RANK
from tritcodec.trits import check_depth

STATUSES = {"valid": 0, "invalid": 1, "unsupported": 3}
NO_VERDICT = 2
MAX_REQUEST = 1 << 20
READ_FAILS = "READ-4"  # a file that became shorter: no verdict
LAYOUTS = ("two-bit", "int4", "tq1-0")
STEPS = np.arange(1, 28, dtype=np.float32)  # any codebook: layouts hold no scales

Request = dict[str, Any]
Result = dict[str, Any]


class Skip(Exception):  # noqa: N818  # no error, but an answer of the protocol
    """What is not done, and why."""


def verify(request: Request) -> Result:
    """The verdict on a file or a model folder, and the first clause that it breaks."""
    report = verify_model(path(request))
    findings = [*report.findings, *(finding for one in report.shards.values() for finding in one.findings)]
    return {"verdict": report.verdict, "clause": findings[0].clause if findings else None}


def header(request: Request) -> Result:
    """What a file says of itself and of its tensors."""
    with open_file(path(request)) as file:
        return {
            "identity": file.identity,
            "version": [MAJOR, file.header.minor],
            "metadata": file.metadata,
            "tensors": [describe(file, name) for name in file.keys()],  # noqa: SIM118  # no mapping
        }


def describe(file: TritFile, name: str) -> Result:
    """What the directory says of tensor *name*."""
    entry = file.entry(name)
    offsets = [segment.offset for segment in file.segments if segment.entry is entry]
    common = {"name": name, "kind": entry.kind, "dtype": entry.dtype, "shape": list(entry.shape)}
    if isinstance(entry, RawEntry):
        return {**common, "offsets": offsets}
    form = entry.form
    numbers = {"depth": form.depth, "shift": form.shift, "group_size": form.group_size}
    return {**common, "offsets": offsets, **numbers, "codebook": form.codebook.astype("<f4").tobytes().hex()}


def decode(request: Request) -> Result:
    """The digests of what a tensor decodes to."""
    depth, dtype = request.get("depth"), field(request, "dtype", str)
    if depth is not None:
        depth = check_depth(field(request, "depth", int))
    if dtype not in FLOATS:
        raise Skip(f"no dtype {dtype!a}")
    with open_file(path(request)) as file:
        tensor = file.get_tensor(field(request, "tensor", str), depth)
        if not isinstance(tensor, TritTensor):
            return {"shape": list(tensor.shape), "values": digest(tensor)}
        return {
            "shape": list(tensor.shape),
            "levels": digest(tensor.levels()),
            "codes": digest(tensor.codes),
            "values": digest(tensor.dequantize(dtype)),
        }


def request_pack(request: Request) -> Result:
    """A plane of trits, packed."""
    rows, columns = size(request)
    trits = plane(request, "trits", rows, columns).view(np.int8)
    return {"packed": pack(trits).tobytes().hex()}


def request_unpack(request: Request) -> Result:
    """The trits of a packed plane."""
    rows, columns = size(request)
    packed = octets(field(request, "packed", str))
    if columns and packed.size % columns == 0:
        packed = packed.reshape(-1, columns)  # too many byte rows or too few: `unpack` says so
    else:
        packed = plane(request, "packed", packed_rows(rows), columns)
    return {"trits": unpack(packed, rows).tobytes().hex()}


def request_split(request: Request) -> Result:
    """The trit planes of levels."""
    levels = octets(field(request, "levels", str)).view(np.int8)
    return {"planes": [plane.tobytes().hex() for plane in split(levels, field(request, "depth", int))]}


def request_join(request: Request) -> Result:
    """The levels of trit planes."""
    planes = [octets(text).view(np.int8) for text in field(request, "planes", list)]
    check_depth(len(planes))
    if len({len(plane) for plane in planes}) > 1:
        raise TritError("planes of several lengths", clause="PACK-1")
    return {"levels": join(np.stack(planes)).tobytes().hex()}


def request_to_layout(request: Request) -> Result:
    """Levels in an exchange layout."""
    layout, depth, rows, columns = layout_of(request)
    levels = plane(request, "levels", rows, columns).view(np.int8)
    codes = np.zeros((rows, -(-columns // GROUP_SIZE)), np.uint8)
    tensor = TritTensor.from_levels(levels, codes, STEPS, depth=depth)
    arrays: dict[str, Callable[[], np.ndarray]] = {
        "two-bit": lambda: layouts.to_two_bit(tensor, 0),
        "int4": lambda: layouts.to_int4(tensor),
        "tq1-0": lambda: layouts.to_tq1_0(tensor, 0),
    }
    return {"packed": arrays[layout]().tobytes().hex()}


def request_from_layout(request: Request) -> Result:
    """The levels in an exchange layout."""
    layout, depth, rows, columns = layout_of(request)
    data = octets(field(request, "packed", str))
    arrays: dict[str, Callable[[], np.ndarray]] = {
        "two-bit": lambda: layouts.from_two_bit(in_rows(data, rows, 4).view("<u4")[..., 0], columns),
        "int4": lambda: layouts.from_int4(in_rows(data, rows, 1)[..., 0], columns, depth),
        "tq1-0": lambda: layouts.from_tq1_0(in_rows(data, rows, 52), columns),
    }
    return {"levels": arrays[layout]().tobytes().hex()}


def in_rows(data: np.ndarray, rows: int, item: int) -> np.ndarray:
    """Bytes (rows, items, *item*); empty where they are no whole rows, which `layouts` refuses."""
    whole = data.size % (rows * item) == 0
    return data[: data.size if whole else 0].reshape(rows, -1, item)


def layout_of(request: Request) -> tuple[str, int, int, int]:
    """The layout, depth, rows and columns of a request."""
    layout, depth = field(request, "layout", str), field(request, "depth", int)
    if layout not in LAYOUTS or (layout != "int4" and depth != 1):
        raise Skip(f"no layout {layout!a} of depth {depth}")
    rows, columns = size(request)
    if not rows or not columns:
        raise Skip("no rows or no columns")
    return layout, depth, rows, columns


def request_matmul(request: Request) -> Result:
    """The exact product of x and a tensor."""
    x, tensor = operands(request)
    scale = None
    if request.get("scale") is not None:
        scale = octets(request["scale"]).view("<f4").astype(np.float32)
    return {"y": matmul(x, tensor, scale=scale).astype("<f4").tobytes().hex()}


def request_group_dots(request: Request) -> Result:
    """The dots of the groups of x and a tensor."""
    return {"dots": group_dots(*operands(request)).astype("<i4").tobytes().hex()}


def operands(request: Request) -> tuple[np.ndarray, TritTensor]:
    """x, rows as long as those of the tensor, and the tensor."""
    dtypes = {**FLOATS, "I8": np.dtype(np.int8)}
    with open_file(path(request)) as file:
        tensor = file.get_tensor(field(request, "tensor", str))
    if not isinstance(tensor, TritTensor) or request.get("dtype") not in dtypes:
        raise Skip("matmul takes a trit tensor, and x of dtype F32, F16, BF16 or I8")
    dtype = dtypes[request["dtype"]]
    data = octets(field(request, "x", str))
    if data.size % (dtype.itemsize * tensor.shape[-1]):
        raise Skip(f"x is no whole rows of {tensor.shape[-1]}")
    x = data.view(dtype.newbyteorder("<")).astype(dtype, copy=False)
    return x.reshape(-1, tensor.shape[-1]), tensor


def request_encode(request: Request) -> Result:
    """The codes and levels of weights, with a codebook that is given."""
    shape, w, codebook = (
        field(request, "shape", list),
        floats(request, "weights"),
        floats(request, "codebook"),
    )
    if not 0 < len(shape) <= MAX_RANK or not all(type(axis) is int and axis > 0 for axis in shape):
        raise Skip("shape is to be of 1 to 8 axes, each an integer above 0")
    if math.prod(shape) != w.size or codebook.size != CODES:
        raise Skip("weights are to be as many as the shape says, and steps 27")
    depth, group_size = field(request, "depth", int), field(request, "group_size", int)
    nested = field(request, "nested", bool)
    tensor = quantize(w.reshape(shape), depth, group_size=group_size, nested=nested, codebook=codebook)
    return {"codes": tensor.codes.tobytes().hex(), "levels": tensor.levels().tobytes().hex()}


def floats(request: Request, key: str) -> np.ndarray:
    """The binary32 values of *key*."""
    data = octets(field(request, key, str))
    if data.size % 4:
        raise Skip(f"{key} is to be of 4 bytes a value")
    return data.view("<f4").astype(np.float32)


COMMANDS: dict[str, Callable[[Request], Result]] = {
    "verify": verify,
    "header": header,
    "decode": decode,
    "pack": request_pack,
    "unpack": request_unpack,
    "split": request_split,
    "join": request_join,
    "to_layout": request_to_layout,
    "from_layout": request_from_layout,
    "matmul": request_matmul,
    "group_dots": request_group_dots,
    "encode": request_encode,
}


def field(request: Request, key: str, kind: type) -> Any:
    """The value of *key*, of a type."""
    value = request.get(key)
    if type(value) is not kind:  # True is no integer
        raise Skip(f"{key} is to be of type {kind.__name__}")
    return value


def path(request: Request) -> str:
    """The path in a request."""
    text: str = field(request, "file", str)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise Skip("file is no path") from None
    if "\0" in text:
        raise Skip("file is no path")
    return text


def size(request: Request) -> tuple[int, int]:
    """The rows and columns of a request."""
    rows, columns = field(request, "rows", int), field(request, "columns", int)
    if min(rows, columns) < 0 or max(rows, columns) > MAX_REQUEST:
        raise Skip(f"no plane of {rows} rows and {columns} columns")
    return rows, columns


def plane(request: Request, key: str, rows: int, columns: int) -> np.ndarray:
    """The bytes of a plane, or TritError (PACK-1) where there are not as many."""
    data = octets(field(request, key, str))
    if data.size != rows * columns:
        raise TritError(f"{data.size} bytes, not {rows * columns}", clause="PACK-1")
    return data.reshape(rows, columns)


def octets(text: object) -> np.ndarray:
    """The bytes of a hexadecimal *text*."""
    try:
        return np.frombuffer(bytes.fromhex(text if isinstance(text, str) else "?"), np.uint8)
    except ValueError:
        raise Skip("an array is to be a string of hexadecimal digits") from None


def digest(array: np.ndarray) -> str:
    """The SHA-256 of the bytes of an array, little-endian."""
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


def result_of(request: Request) -> Result:
    """What a request gives; raises Skip for what is not done."""
    command = field(request, "cmd", str)
    if command not in COMMANDS:
        raise Skip(f"no command {command!a}")
    try:
        return COMMANDS[command](request)
    except TritError as error:
        if error.clause is None or error.clause == READ_FAILS:
            raise Skip(str(error)) from None
        return {"error": error.clause}
    except (OSError, MemoryError) as error:
        raise Skip(f"{type(error).__name__}: {error}") from None


def answer(line: bytes) -> Request:
    """The answer to a line."""
    seq = None
    try:
        try:
            request = json.loads(line) if len(line) <= MAX_REQUEST else None
        except (ValueError, RecursionError):
            raise Skip("no JSON") from None
        if not isinstance(request, dict):
            raise Skip("no JSON object of at most 1 MiB")
        seq = field(request, "seq", int)
        return {"seq": seq, "result": result_of(request)}
    except Skip as why:
        return {"seq": seq, "skipped": str(why)}


def serve() -> int:
    """Answer requests until there are no more."""
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()
    return 0


def verdict(path: str) -> int:
    """Print the verdict on a file; the exit status."""
    try:
        result = result_of({"cmd": "verify", "file": path})
    except Skip as why:
        print(why, file=sys.stderr)
        return NO_VERDICT
    print(json.dumps(result))
    return STATUSES[result["verdict"]]


def main(arguments: list[str]) -> int:
    """Run one of the two levels."""
    if arguments == ["serve"]:
        return serve()
    if len(arguments) == 2 and arguments[0] == "verify":
        return verdict(arguments[1])
    print(__doc__, file=sys.stderr)
    return NO_VERDICT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
