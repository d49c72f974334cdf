"""The arguments of the command line, and what its help says."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .encode import METHODS
from .header import MAJOR, MINOR
from .model.plan import KNOWN, REPACKED
from .tensor import GROUP_SIZE
from .text import complain, show
from .version import __version__

Command = Callable[[argparse.Namespace], int]  # gives the exit status

SOURCE_HELP = "a folder with model.safetensors or with shards and their index, or a safetensors file"
MODEL_HELP = "a .trit file, or a folder with model.trit or with shards and their index"
FIRST_STEPS = """examples:
  tritcodec quantize fixtures/minilm out
  tritcodec verify out/uniform-d2
  tritcodec quantize --help"""
EXAMPLES = {
    "quantize": """examples:
  tritcodec quantize fixtures/minilm out --configs uniform-d2
  tritcodec quantize model.safetensors out --configs uniform-d1,uniform-d3 --dry-run
  tritcodec quantize fixtures/minilm out --keep '*.output.*' --quantize '*word_embeddings*'""",
    "dequantize": """examples:
  tritcodec dequantize out/uniform-d2 restored
  tritcodec dequantize out/uniform-d4 restored --depth 2 --dtype F16""",
    "repack": """examples:
  tritcodec repack model out
  tritcodec repack model.safetensors out --keep '*word_embeddings*' --json""",
    "truncate": """examples:
  tritcodec truncate out/uniform-d4/model.trit small.trit --depth 2
  tritcodec truncate out/uniform-d4 small --depth 2""",
    "inspect": """examples:
  tritcodec inspect out/uniform-d2
  tritcodec inspect out/uniform-d2/model.trit --against fixtures/minilm
  tritcodec inspect out/uniform-d2 --against fixtures/minilm --html report.html""",
    "verify": """examples:
  tritcodec verify out/uniform-d2
  tritcodec verify *.trit --json

exit status: 0 every file is valid, 1 one is invalid, 2 wrong usage or an
unreadable file, 3 an unsupported version or an unknown flag (and none invalid)""",
}


class _Parser(argparse.ArgumentParser):
    """Prints as the commands do: that help could not be written is an error, too."""

    def _print_message(self, message: str, file: Any = None) -> None:
        (show if file is sys.stdout else complain)(message, end="")


def make_parser(commands: dict[str, Command]) -> argparse.ArgumentParser:
    """The parser of the command line, each of whose *commands* gives `run`, and its other arguments."""
    parser = _Parser(
        prog="tritcodec",
        description="Pack balanced-ternary quantised weights into .trit files, and back.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    about = f"%(prog)s {__version__}, format {MAJOR}.{MINOR}"
    parser.add_argument("--version", action="version", version=about)
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run in commands.items():
        summary, add = ARGUMENTS[name]
        command = added.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        add(command)
    return parser


def _add_quantize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", type=_path, help=SOURCE_HELP)
    parser.add_argument("out", metavar="OUT", type=_path, help="a folder; gets one folder a config")
    parser.add_argument(
        "--configs",
        default="uniform-d2",
        metavar="NAME,...",
        help=f"what to make, all of it in one run: {KNOWN} (default: %(default)s)",
    )
    parser.add_argument(
        "--target-bpw",
        type=_bits,
        metavar="X",
        help="make a mixture of depths, too, of the least error within X bits a weight: the config bpw-X",
    )
    parser.add_argument(
        "--depth",
        action="append",
        default=[],
        type=_named_depth,
        metavar="GLOB=N",
        help="quantise tensors of such names at depth N, whatever the config says; repeatable",
    )
    _add_keep(parser)
    parser.add_argument(
        "--quantize",
        action="append",
        default=[],
        metavar="GLOB",
        help="quantise tensors of such names, whatever the recipe says; repeatable",
    )
    parser.add_argument(
        "--group-size",
        type=int,
        default=GROUP_SIZE,
        metavar="N",
        help="weights a scale (default: %(default)s)",
    )
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="the encoder (default: %(default)s)"
    )
    parser.add_argument(
        "--nested", action="store_true", help="choose codes so that truncations are good, too"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    _add_place(parser)


def _add_repack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", type=_path, help=SOURCE_HELP)
    parser.add_argument("out", metavar="OUT", type=_path, help=f"a folder; gets the folder {REPACKED}")
    _add_depth(parser, "of all matrices (default: the least that gives each one back)")
    _add_keep(parser)
    parser.add_argument(
        "--strict-zeros",
        action="store_true",
        help="keep matrices with a negative zero as they are: packed, it comes back as +0",
    )
    parser.add_argument("--json", action="store_true", help="print the report as a JSON object")
    _add_place(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    """Where a run works, and how it shows that; such a run goes on where it was interrupted."""
    parser.set_defaults(goes_on=True)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="processes to work in (default: as many as there are processors; one where a model is small)",
    )
    place.add_argument("--dask", metavar="ADDRESS", help="work on the cluster of this dask scheduler instead")
    parser.add_argument(
        "--progress",
        choices=("auto", "bar", "lines", "json", "none"),
        default="auto",
        help="how to show it, on standard error (default: a bar on a terminal, else lines, if it takes long)",
    )


def _add_dequantize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", type=_path, help=MODEL_HELP)
    parser.add_argument(
        "out", metavar="OUT", type=_path, help="a new folder for safetensors files and others"
    )
    parser.add_argument(
        "--dtype",
        choices=("F32", "F16", "BF16"),
        help="of the quantised tensors (default: each source's own, and F32 for F64)",
    )
    _add_depth(parser, "decode the top trits only")


def _add_truncate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", type=_path, help=MODEL_HELP)
    parser.add_argument(
        "out",
        metavar="OUT",
        type=_path,
        help="a file, which may replace a .trit file, or a new folder, like SRC",
    )
    _add_depth(parser, "trits a weight to keep").required = True


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", type=_path, help=MODEL_HELP)
    parser.add_argument(
        "--against", metavar="SOURCE", type=_path, help="the model it was made from: show errors, too"
    )
    parser.add_argument(
        "--html",
        type=_page,
        metavar="PAGE.html",
        help="write a report, too: sizes, errors, depths, histograms of levels and codes",
    )


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=_path, help=MODEL_HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON object a file or folder")


def _named_depth(text: str) -> tuple[str, int]:
    """The pattern and the depth in GLOB=N."""
    pattern, equals, depth = text.rpartition("=")
    if not (pattern and equals and depth in ("1", "2", "3", "4")):
        raise argparse.ArgumentTypeError(f"{text!a} is no GLOB=N with N from 1 to 4")
    return pattern, int(depth)


def _bits(text: str) -> float:
    """A budget of bits a weight."""
    with contextlib.suppress(ValueError):
        bits = float(text)
        if 0 < bits < math.inf:
            return bits
    raise argparse.ArgumentTypeError(f"{text!a} is no number of bits above 0")


def _path(text: str) -> str:
    """A path: an empty one, as of a variable that is not set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; the current folder is .")
    return text


def _page(text: str) -> Path:
    """The name of a page: nobody overwrites weights with one."""
    if not text.lower().endswith((".html", ".htm")):
        raise argparse.ArgumentTypeError(f"{text!a} does not end in .html")
    return Path(text)


def _positive(text: str) -> int:
    """An integer from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!a} is no integer from 1 on")
    return int(text)


def _add_keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="GLOB",
        help="keep tensors of such names as they are; repeatable",
    )


def _add_depth(parser: argparse.ArgumentParser, purpose: str) -> argparse.Action:
    return parser.add_argument("--depth", type=int, choices=(1, 2, 3, 4), help=purpose)


ARGUMENTS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], object]]] = {
    "quantize": ("quantise a model folder or a safetensors file", _add_quantize),
    "dequantize": ("write a safetensors folder again", _add_dequantize),
    "repack": ("pack a model that was dequantised, bit for bit", _add_repack),
    "truncate": ("cut a file to fewer trits a weight", _add_truncate),
    "inspect": ("show what is in a file", _add_inspect),
    "verify": ("check every requirement on files", _add_verify),
}
