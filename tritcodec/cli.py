"""The command line: arguments, and what each command calls."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from .encode import METHODS, check_method
from .errors import TritError
from .header import MAJOR, MINOR
from .model.export import dequantize_model, truncate_model
from .model.folder import new_file
from .model.index import INDEX_NAME
from .model.measure import look
from .model.plan import KNOWN, REPACKED, config_of
from .model.policy import Policy
from .model.repack import Repack, repack_job
from .model.report import report
from .model.run import Job, quantize_model, survey_all
from .model.shards import model_file, open_model
from .model.source import ModelSource
from .model.spool import STATE
from .model.tasks import Recipe
from .model.verify import verify_model
from .model.workers import AGAIN, workers
from .progress import showing
from .repack_report import REPACK_HEADER, repack_json, repack_reasons, repack_rows, repack_total
from .tensor import GROUP_SIZE, check_group_size
from .text import (
    CONTROLS,
    format_of,
    inspect_table,
    model_json,
    model_text,
    one_line,
    plan_table,
    say,
    shards_of,
    summary,
    table,
)
from .version import __version__

EXIT_INVALID, EXIT_USAGE, EXIT_UNSUPPORTED = 1, 2, 3
EXIT_CRASH, EXIT_INTERRUPTED, EXIT_TERMINATED = 70, 130, 143
WEIGHTS_A_WORKER = 1 << 23  # a model of fewer is done before other processes have started

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with *argv* (default: the process's); gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may not fit the terminal's encoding
    arguments = argparse.Namespace()
    try:
        _let_sigterm_interrupt()
        _parser().parse_args(argv, arguments)
        status: int = arguments.run(arguments)
        if sys.stdout:  # None where the process was started without one
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has gone, and with it what we had to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except TritError as error:
        _complain(one_line(error))
        return EXIT_USAGE
    except OSError as error:
        _complain(one_line(error), arguments)
        return EXIT_USAGE
    except MemoryError as error:  # a sparse file can claim a terabyte
        _complain(f"not enough memory: {error}".translate(CONTROLS), arguments)
        return EXIT_USAGE
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted", arguments)
        return EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED
    except Exception:  # a crash of ours: its status must not be that of an invalid file
        traceback.print_exc()
        return EXIT_CRASH


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a scheduler or a container sends. It leaves behind as little as Ctrl-C."""


def _let_sigterm_interrupt() -> None:
    def terminate(*_: object) -> NoReturn:
        raise Terminated("terminated")

    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)


def _complain(message: str, arguments: argparse.Namespace | None = None) -> None:
    """Print one line to standard error; where a run of *arguments* has left something, what to do."""
    if arguments and "out" in arguments and os.path.isdir(Path(arguments.out, STATE)):  # never an error
        message += "; what is done is kept"
        message += "" if AGAIN in message else f": {AGAIN}"
    print(f"tritcodec: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tritcodec",
        description="Pack balanced-ternary quantised weights into .trit files, and back.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    about = f"%(prog)s {__version__}, format {MAJOR}.{MINOR}"
    parser.add_argument("--version", action="version", version=about)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_quantize(_command(commands, "quantize", _quantize, "quantise a model folder or a safetensors file"))
    _add_dequantize(_command(commands, "dequantize", _dequantize, "write a safetensors folder again"))
    _add_repack(_command(commands, "repack", _repack, "pack a model that was dequantised, bit for bit"))
    _add_truncate(_command(commands, "truncate", _truncate, "cut a file to fewer trits a weight"))
    _add_inspect(_command(commands, "inspect", _inspect, "show what is in a file"))
    _add_verify(_command(commands, "verify", _verify, "check every requirement on files"))
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
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
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="GLOB",
        help="keep tensors of such names as they are; repeatable",
    )
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
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="GLOB",
        help="keep tensors of such names as they are; repeatable",
    )
    parser.add_argument(
        "--strict-zeros",
        action="store_true",
        help="keep matrices with a negative zero as they are: packed, it comes back as +0",
    )
    parser.add_argument("--json", action="store_true", help="print the report as a JSON object")
    _add_place(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    """Where a run works, and how it shows that."""
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
        help="of the quantised tensors (default: each source's own)",
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


def _processors() -> int:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _add_depth(parser: argparse.ArgumentParser, purpose: str) -> argparse.Action:
    return parser.add_argument("--depth", type=int, choices=(1, 2, 3, 4), help=purpose)


def _quantize(arguments: argparse.Namespace) -> int:
    names = arguments.configs.split(",")
    if arguments.target_bpw is not None:
        names.append(f"bpw-{np.format_float_positional(arguments.target_bpw, trim='-')}")
    configs = [config_of(name) for name in dict.fromkeys(names)]
    policy = Policy(arguments.keep, arguments.quantize, arguments.depth)
    check_method(arguments.method, arguments.nested, codebook=None)
    recipe = Recipe(check_group_size(arguments.group_size), arguments.method, arguments.nested)
    job = Job(_source(arguments), configs, policy, recipe)
    count = _processes(job, arguments)
    with showing(arguments.progress) as progress, workers(count, arguments.dask) as (executor, width):
        if arguments.dry_run:
            surveys = survey_all(job, executor, width, progress=progress) if job.adaptive else {}
            plans = job.plans(surveys)
        else:
            plans = quantize_model(job, arguments.out, executor, width, progress)
    if arguments.dry_run:
        print(plan_table(plans))
    for config, planned in plans.items() if not arguments.dry_run else ():
        say(f"{Path(arguments.out, config)}: {summary(planned)}")
    return 0


def _source(arguments: argparse.Namespace) -> ModelSource:
    src = Path(arguments.src)
    return ModelSource(src.absolute() if arguments.dask else src)  # dask workers may be in another folder


def _processes(job: Job, arguments: argparse.Namespace) -> int:
    if arguments.workers:
        return int(arguments.workers)
    small = sum(math.prod(tensor.shape) for tensor in job.source.tensors) < WEIGHTS_A_WORKER
    return 1 if small else _processors()


def _repack(arguments: argparse.Namespace) -> int:
    work = Repack(arguments.depth, arguments.strict_zeros)
    job, folder = repack_job(_source(arguments), work, arguments.keep), Path(arguments.out, REPACKED)
    count = _processes(job, arguments)
    with showing(arguments.progress) as progress, workers(count, arguments.dask) as (executor, width):
        planned = quantize_model(job, arguments.out, executor, width, progress)[REPACKED]
    if arguments.json:
        print(repack_json(folder, planned))
        return 0
    rows = repack_rows(planned)
    print("\n".join([*([table(REPACK_HEADER, rows), ""] if rows else []), *repack_reasons(planned), ""]))
    say(f"{folder}: {repack_total(planned)}")
    return 0


def _dequantize(arguments: argparse.Namespace) -> int:
    with open_model(arguments.src) as model:
        tensors, weights = len(model.keys()), sum(math.prod(entry.shape) for entry in model.entries())
    with _progress(weights, "weight") as bar:
        dequantize_model(
            arguments.src,
            arguments.out,
            dtype=arguments.dtype,
            depth=arguments.depth,
            progress=_advance(bar),
        )
    say(f"{arguments.out}: {tensors} tensors, {weights:,} weights")
    return 0


def _truncate(arguments: argparse.Namespace) -> int:
    with open_model(arguments.src) as model:  # SRC may be OUT
        before = model.size
    truncate_model(arguments.src, arguments.out, arguments.depth)
    with open_model(arguments.out) as model:
        say(f"{model.path}: {shards_of(model)}{model.size:,} bytes, from {before:,}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    source = ModelSource(arguments.against) if arguments.against else None
    page = new_file(arguments.html) if arguments.html else contextlib.nullcontext()
    with open_model(arguments.src) as model, page as out:
        say(f"{model.path}: {format_of(model)}{shards_of(model)}{model.size:,} bytes")
        print(f"identity {model.identity}")
        for key, value in model.metadata.items():
            print(f"{key}: {ascii(value[:200])[1:-1]}")
        with _progress(sum(math.prod(entry.shape) for entry in model.entries()), "weight") as bar:
            found = look(model, source, counts=bool(out), progress=_advance(bar))
        if out:
            out.write(report(model, found))
        print()
        print(inspect_table(found))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    statuses = set()
    for name in arguments.files:
        try:
            path = model_file(name)
            with _progress(_bytes_to_verify(path), "B") as bar:
                report = verify_model(path, bar.update)
        except (TritError, OSError) as error:
            print(f"tritcodec: {one_line(error)}", file=sys.stderr)
            statuses.add(EXIT_USAGE)
            continue
        print(model_json(path, report) if arguments.json else model_text(path, report))
        statuses.add({"valid": 0, "invalid": EXIT_INVALID, "unsupported": EXIT_UNSUPPORTED}[report.verdict])
    # A file that could not be read hides a verdict, an invalid one outweighs one of unknown version.
    return next((status for status in (EXIT_USAGE, EXIT_INVALID, EXIT_UNSUPPORTED) if status in statuses), 0)


def _bytes_to_verify(path: Path) -> int:
    """About how many, for the progress bar: a folder is not judged yet."""
    files = path.parent.glob("*.trit") if path.name == INDEX_NAME else [path]
    return sum(file.stat().st_size for file in files if file.exists())


def _progress(total: int, unit: str) -> tqdm[Any]:
    """A progress bar: on a terminal only."""
    silent = not (sys.stderr and sys.stderr.isatty())
    return tqdm(total=total, unit=unit, unit_scale=True, disable=silent, leave=False)


def _advance(bar: tqdm[Any]) -> Callable[[str, int], None]:
    def advance(name: str, weights: int) -> None:
        bar.set_postfix_str(name[-40:], refresh=False)
        bar.update(weights)

    return advance


if __name__ == "__main__":
    sys.exit(main())
