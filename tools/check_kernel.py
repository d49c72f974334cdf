"""Judge a kernel: its result y against the exact product of x and a tensor of a .trit file (SPEC 10.4).

x and y are .npy files (bfloat16 as the uint16 or the void of its bits). The kernel is right where each
element is the exact result or within what roundings explain, in any order of adding. Exit
status 0 where it is, 1 where an element is outside, 2 for wrong usage or a file that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt

import tritcodec as tc
from tritcodec.kernel import ARITHMETICS

EXAMPLES = """\
examples:
  python tools/check_kernel.py --weights model.trit --tensor NAME --probe x.npy     write an x to run it on
  python tools/check_kernel.py --weights model.trit --tensor NAME --x x.npy --y y.npy
  python tools/check_kernel.py --weights model.trit --tensor NAME --x x.npy --y y.npy --plot error.svg
"""


def read(path: str) -> npt.NDArray[np.generic]:
    """The array in a .npy file, mapped, with two-byte words that NumPy knows no float for as bfloat16."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):  # NumPy takes what it does not know for a pickle
        array = None
    if not isinstance(array, np.ndarray):
        raise tc.TritError("no array in the .npy format", where=path)
    if array.dtype in (np.dtype("V2"), np.dtype(np.uint16)):
        return array.view(ml_dtypes.bfloat16)
    return array


def worst_of(report: tc.KernelReport) -> dict[str, object] | None:
    """The worst element as JSON takes it: numbers exactly, in hexadecimal."""
    if report.worst is None:
        return None
    worst = report.worst
    exact = {name: getattr(worst, name).hex() for name in ("got", "expected", "exact", "bound", "scale")}
    return {"index": worst.index, "units": worst.units, "terms": worst.terms, **exact}


def plot(report: tc.KernelReport, title: str, path: str) -> None:
    """A picture of the error of every element in units of its bound, and how they are distributed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'tritcodec[plot]'") from None
    units = np.minimum(report.units.reshape(-1, report.units.shape[-1]), 2)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    image, histogram = figure.subplots(1, 2, width_ratios=[3, 2])
    shown = image.imshow(units, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
    image.plot(*np.argwhere(units > 1)[:, ::-1].T, "rx", label="outside the bound")
    image.set(xlabel="row of the weights", ylabel="row of x", title=title)
    figure.colorbar(shown, ax=image, label="error in units of the bound")
    histogram.hist(units.ravel(), bins=60, log=True)
    histogram.axvline(1, color="red")
    histogram.set(xlabel="error in units of the bound (2 and more as 2)", ylabel="elements")
    figure.savefig(path)


def parse(command: Sequence[str]) -> argparse.Namespace:
    """The command line; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="a .trit file")
    parser.add_argument("--tensor", required=True, metavar="NAME", help="a trit tensor in it")
    parser.add_argument("--depth", type=int, choices=range(1, 5), help="cut the tensor to this depth first")
    parser.add_argument(
        "--x", metavar="FILE", help="activations, (..., K): float32, float16, bfloat16 or int8"
    )
    parser.add_argument(
        "--y", metavar="FILE", help="the kernel's result, (..., rows): float32, float16 or bfloat16"
    )
    parser.add_argument("--scale", metavar="FILE", help="a float32 factor for each row of x")
    parser.add_argument(
        "--accumulate", choices=ARITHMETICS, default="float32", help="what the kernel computes in (float32)"
    )
    parser.add_argument(
        "--planes", action="store_true", help="the kernel adds up products with planes, times powers of 3"
    )
    parser.add_argument("--probe", metavar="FILE", help="write activations that show most faults, and end")
    parser.add_argument("--plot", metavar="FILE", help="draw the errors: .svg or .png (needs the extra plot)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(command)
    if not options.probe and not (options.x and options.y):
        parser.error("--x and --y are needed, or --probe")
    return options


def judge(options: argparse.Namespace, tensor: tc.TritTensor) -> int:
    """Judge y, print the report, and give the exit status."""
    scale = read(options.scale) if options.scale else None
    y, x = read(options.y), read(options.x)
    report = tc.check_matmul(y, x, tensor, options.accumulate, scale=scale, planes=options.planes)
    if options.plot:
        plot(report, options.tensor, options.plot)
    if options.json:
        fields = ("ok", "equal", "outside", "overflowing", "ulps", "accumulate", "dtype")
        text = {name: getattr(report, name) for name in fields}
        print(json.dumps({**text, "elements": report.units.size, "worst": worst_of(report)}))
    else:
        print(report)
    return int(not report.ok)


def main(command: Sequence[str]) -> int:
    """Judge, or write the probe; gives the exit status."""
    options = parse(command)
    try:
        with tc.open_file(options.weights) as file:
            tensor = file.get_tensor(options.tensor, options.depth)
        if not isinstance(tensor, tc.TritTensor):
            raise tc.TritError(f"tensor {options.tensor!a} is not quantised, but raw")
        if options.probe:
            np.save(Path(options.probe), tc.probe(tensor.shape[-1]))
            return 0
        return judge(options, tensor)
    except (tc.TritError, OSError) as error:
        print(f"check_kernel: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
