"""The command line: what each command calls, and what becomes of errors."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from .arguments import Command, make_parser
from .encode import check_method
from .errors import TritError
from .model.companions import left_out
from .model.export import dequantize_model, folder_of, truncate_model
from .model.folder import new_file
from .model.index import INDEX_NAME
from .model.measure import look
from .model.plan import REPACKED, config_of
from .model.policy import Policy
from .model.repack import Repack, repack_job
from .model.report import report
from .model.run import Job, quantize_model, survey_all
from .model.shards import TritModel, model_file, open_model
from .model.source import INDEX_NAME as SOURCE_INDEX
from .model.source import ModelSource
from .model.spool import STATE
from .model.tasks import Recipe
from .model.verify import verify_model
from .model.workers import AGAIN, workers
from .progress import bar_on_terminal, showing
from .repack_report import REPACK_HEADER, repack_json, repack_reasons, repack_rows, repack_total
from .tensor import check_group_size
from .text import (
    CONTROLS,
    complain,
    format_of,
    inspect_table,
    missing_lines,
    model_json,
    model_text,
    one_line,
    plan_table,
    say,
    shards_of,
    show,
    summary,
    table,
)

EXIT_INVALID, EXIT_USAGE, EXIT_UNSUPPORTED = 1, 2, 3
EXIT_CRASH, EXIT_INTERRUPTED, EXIT_TERMINATED = 70, 130, 143
SOME = 5  # files that are named
WEIGHTS_A_WORKER = 1 << 23  # a model of fewer is done before other processes have started


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with *argv* (default: the process's); gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may not fit the terminal's encoding
    arguments = argparse.Namespace()
    try:
        _let_sigterm_interrupt()
        make_parser(COMMANDS).parse_args(argv, arguments)
        status: int = arguments.run(arguments)
        return status
    except BrokenPipeError:  # whoever read our output has gone, and with it what we had to say
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
        complain(traceback.format_exc(), end="")
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
    given = vars(arguments) if arguments else {}
    goes_on = "goes_on" in given and not given.get("dry_run")
    if goes_on and os.path.isdir(Path(given["out"], STATE)):  # never an error
        message += "; what is done is kept"
        message += "" if AGAIN in message else f": {AGAIN}"
    complain(f"tritcodec: {message}")


def _quantize(arguments: argparse.Namespace) -> int:
    names = arguments.configs.split(",")
    if arguments.target_bpw is not None:
        names.append(f"bpw-{np.format_float_positional(arguments.target_bpw, trim='-')}")
    configs = [config_of(name) for name in dict.fromkeys(names)]
    policy = Policy(arguments.keep, arguments.quantize, arguments.depth)
    check_method(arguments.method, arguments.nested, codebook=None)
    recipe = Recipe(check_group_size(arguments.group_size), arguments.method, arguments.nested)
    job = Job(_source(arguments), configs, policy, recipe)
    _say_left_out(job.source.folder, _own_files(job.source), arguments.progress)
    count = _processes(job, arguments)
    with showing(arguments.progress) as progress, workers(count, arguments.dask) as (executor, width):
        if arguments.dry_run:
            surveys = survey_all(job, executor, width, progress=progress) if job.adaptive else {}
            plans = job.plans(surveys)
        else:
            plans = quantize_model(job, arguments.out, executor, width, progress)
    if arguments.dry_run:
        show(plan_table(plans))
    for config, planned in plans.items() if not arguments.dry_run else ():
        say(f"{Path(arguments.out, config)}: {summary(planned)}")
    return 0


def _source(arguments: argparse.Namespace) -> ModelSource:
    src = Path(arguments.src)
    return ModelSource(src.absolute() if arguments.dask else src)  # dask workers may be in another folder


def _own_files(source: ModelSource) -> list[Path]:
    return [*(shard.path for shard in source.shards), source.path / SOURCE_INDEX]


def _packed_files(model: TritModel) -> list[Path]:
    return [model.path, *(model.path.with_name(shard) for shard in model.shards)]


def _say_left_out(folder: Path | None, own: Sequence[Path], style: str = "") -> None:
    """Say which files of a *folder* do not go where the model goes, whose *own* files others are."""
    for reason, paths in left_out(folder, own).items() if folder else ():
        if style == "json":  # in which the progress is said on standard error
            complain(json.dumps({"left out": reason, "files": [str(path) for path in paths]}))
            continue
        names = ", ".join(map(str, paths[:SOME])) + (f" and {len(paths) - SOME} more" if paths[SOME:] else "")
        complain(f"tritcodec: left out, {reason}: {names}".translate(CONTROLS))


def _processes(job: Job, arguments: argparse.Namespace) -> int:
    if arguments.workers:
        return int(arguments.workers)
    small = sum(math.prod(tensor.shape) for tensor in job.source.tensors) < WEIGHTS_A_WORKER
    return 1 if small else _processors()


def _processors() -> int:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _repack(arguments: argparse.Namespace) -> int:
    work = Repack(arguments.depth, arguments.strict_zeros)
    job, folder = repack_job(_source(arguments), work, arguments.keep), Path(arguments.out, REPACKED)
    _say_left_out(job.source.folder, _own_files(job.source), arguments.progress)
    count = _processes(job, arguments)
    with showing(arguments.progress) as progress, workers(count, arguments.dask) as (executor, width):
        planned = quantize_model(job, arguments.out, executor, width, progress)[REPACKED]
    if arguments.json:
        show(repack_json(folder, planned))
        return 0
    rows = repack_rows(planned)
    show("\n".join([*([table(REPACK_HEADER, rows), ""] if rows else []), *repack_reasons(planned), ""]))
    say(f"{folder}: {repack_total(planned)}")
    return 0


def _dequantize(arguments: argparse.Namespace) -> int:
    with open_model(arguments.src) as model:
        tensors, weights = len(model.keys()), sum(math.prod(entry.shape) for entry in model.entries())
        own = _packed_files(model)
    with bar_on_terminal("dequantize", weights) as advance:
        dequantize_model(
            arguments.src, arguments.out, dtype=arguments.dtype, depth=arguments.depth, progress=advance
        )
    _say_left_out(folder_of(arguments.src), own)
    say(f"{arguments.out}: {tensors} tensors, {weights:,} weights")
    return 0


def _truncate(arguments: argparse.Namespace) -> int:
    with open_model(arguments.src) as model:  # SRC may be OUT
        before, own = model.size, _packed_files(model)
    folder = folder_of(arguments.src)
    truncate_model(arguments.src, arguments.out, arguments.depth)
    _say_left_out(folder, own)
    with open_model(arguments.out) as model:
        say(f"{model.path}: {shards_of(model)}{model.size:,} bytes, from {before:,}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    source = ModelSource(arguments.against) if arguments.against else None
    page = new_file(arguments.html) if arguments.html else contextlib.nullcontext()
    with open_model(arguments.src) as model:
        weights = sum(math.prod(entry.shape) for entry in model.entries())
        with page as out, bar_on_terminal("inspect", weights) as advance:
            found = look(model, source, counts=bool(out), progress=advance)
            if out:
                out.write(report(model, found))
        say(f"{model.path}: {format_of(model)}{shards_of(model)}{model.size:,} bytes")
        show(f"identity {model.identity}")
        for key, value in model.metadata.items():
            show(f"{key}: {ascii(value[:200])[1:-1]}")
        show(f"\n{inspect_table(found)}")
        for line in missing_lines(found, source) if source else ():
            say(line)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    statuses = set()
    for name in arguments.files:
        try:
            path = model_file(name)
            with bar_on_terminal("verify", _bytes_to_verify(path), "B") as advance:
                report = verify_model(path, partial(advance, ""))
        except (TritError, OSError) as error:
            complain(f"tritcodec: {one_line(error)}")
            statuses.add(EXIT_USAGE)
            continue
        show(model_json(path, report) if arguments.json else model_text(path, report))
        statuses.add({"valid": 0, "invalid": EXIT_INVALID, "unsupported": EXIT_UNSUPPORTED}[report.verdict])
    # A file that could not be read hides a verdict, an invalid one outweighs one of unknown version.
    return next((status for status in (EXIT_USAGE, EXIT_INVALID, EXIT_UNSUPPORTED) if status in statuses), 0)


def _bytes_to_verify(path: Path) -> int:
    """About how many, for the progress bar: a folder is not judged yet."""
    files = path.parent.glob("*.trit") if path.name == INDEX_NAME else [path]
    return sum(file.stat().st_size for file in files if file.exists())


COMMANDS: dict[str, Command] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "repack": _repack,
    "truncate": _truncate,
    "inspect": _inspect,
    "verify": _verify,
}

if __name__ == "__main__":
    sys.exit(main())
