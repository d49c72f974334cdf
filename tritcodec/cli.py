"""The command line: arguments and printing only."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from .encode import METHODS, check_method
from .errors import TritError
from .header import MAJOR, MINOR, RAW_DTYPES, Entry, RawEntry, TritEntry
from .model.export import dequantize_model, truncate_model
from .model.index import INDEX_NAME
from .model.measure import Distortion, distortion_against
from .model.plan import KNOWN, REPACKED, Planned, config_of
from .model.policy import Policy
from .model.repack import Repack, repack_job
from .model.run import Job, quantize_model, survey_all
from .model.shards import TritModel, model_file, open_model
from .model.source import ModelSource
from .model.spool import STATE
from .model.tasks import Recipe
from .model.verify import ModelReport, verify_model
from .model.workers import workers
from .progress import showing
from .tables import REPACK_HEADER, repack_json, repack_reasons, repack_rows, repack_total
from .tensor import GROUP_SIZE, TritTensor, check_group_size
from .verify import Report

EXIT_INVALID, EXIT_USAGE, EXIT_UNSUPPORTED = 1, 2, 3
EXIT_CRASH, EXIT_INTERRUPTED = 70, 130
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
KIB = 1024
UNLIMITED = (10_000, 24)  # columns and lines where output goes to no terminal: nothing is cut
REASON_WIDTH = 16  # a pattern that was typed may be longer
WEIGHTS_A_WORKER = 1 << 23  # a model of fewer is done before other processes have started
NAME_WIDTH = 12  # the least that a name is cut to in a table

MODEL_HELP = "a .trit file, or a folder with model.trit or with shards and their index"
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
  tritcodec inspect out/uniform-d2/model.trit --against fixtures/minilm""",
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
        _parser().parse_args(argv, arguments)
        status: int = arguments.run(arguments)
        if sys.stdout:  # None where the process was started without one
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has gone, and with it what we had to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except TritError as error:
        _complain(_one_line(error))
        return EXIT_USAGE
    except OSError as error:
        _complain(_one_line(error), arguments)
        return EXIT_USAGE
    except MemoryError as error:  # a sparse file can claim a terabyte
        _complain(f"not enough memory: {error}".translate(CONTROLS), arguments)
        return EXIT_USAGE
    except KeyboardInterrupt:
        _complain("interrupted", arguments)
        return EXIT_INTERRUPTED
    except Exception:  # a crash of ours: its status must not be that of an invalid file
        traceback.print_exc()
        return EXIT_CRASH


def _complain(message: str, arguments: argparse.Namespace | None = None) -> None:
    """Print one line to standard error; where a run of *arguments* has left something, what to do."""
    if arguments and "out" in arguments and Path(arguments.out, STATE).is_dir():
        message += "; what is done is kept: run the same command again to go on"
    print(f"tritcodec: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tritcodec", description="Pack balanced-ternary quantised weights into .trit files, and back."
    )
    about = f"%(prog)s {version('tritcodec')}, format {MAJOR}.{MINOR}"
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
    parser.add_argument("src", metavar="SRC", help="a folder with model.safetensors, or a safetensors file")
    parser.add_argument("out", metavar="OUT", help="a folder; gets one folder a config")
    parser.add_argument(
        "--configs",
        default="uniform-d2",
        metavar="NAME,...",
        help=f"what to make, all of it in one run: {KNOWN} (default: %(default)s)",
    )
    parser.add_argument(
        "--target-bpw",
        type=float,
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
    parser.add_argument("src", metavar="SRC", help="a folder with model.safetensors, or a safetensors file")
    parser.add_argument("out", metavar="OUT", help=f"a folder; gets the folder {REPACKED}")
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
        default=_processors(),
        metavar="N",
        help="processes to work in (default: the processors there are, %(default)s)",
    )
    place.add_argument("--dask", metavar="ADDRESS", help="work on the cluster of this dask scheduler instead")
    parser.add_argument(
        "--progress",
        choices=("auto", "bar", "lines", "json", "none"),
        default="auto",
        help="how to show it, on standard error (default: a bar on a terminal, else lines, if it takes long)",
    )


def _add_dequantize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", help=MODEL_HELP)
    parser.add_argument("out", metavar="OUT", help="a new folder for safetensors files and the other files")
    parser.add_argument(
        "--dtype",
        choices=("F32", "F16", "BF16"),
        help="of the quantised tensors (default: each source's own)",
    )
    _add_depth(parser, "decode the top trits only")


def _add_truncate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", help=MODEL_HELP)
    parser.add_argument("out", metavar="OUT", help="a file or a new folder, like SRC")
    _add_depth(parser, "trits a weight to keep").required = True


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", help=MODEL_HELP)
    parser.add_argument("--against", metavar="SOURCE", help="the model it was made from: show errors, too")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help=MODEL_HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON object a file or folder")


def _named_depth(text: str) -> tuple[str, int]:
    """The pattern and the depth in GLOB=N."""
    pattern, equals, depth = text.rpartition("=")
    if not (pattern and equals and depth in ("1", "2", "3", "4")):
        raise argparse.ArgumentTypeError(f"{text!a} is no GLOB=N with N from 1 to 4")
    return pattern, int(depth)


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
        names.append(f"bpw-{arguments.target_bpw:g}")
    configs = [config_of(name) for name in dict.fromkeys(names)]
    policy = Policy(arguments.keep, arguments.quantize, arguments.depth)
    check_method(arguments.method, arguments.nested, codebook=None)
    recipe = Recipe(check_group_size(arguments.group_size), arguments.method, arguments.nested)
    job = Job(ModelSource(arguments.src), configs, policy, recipe)
    count = _processes(job, arguments)
    with showing(arguments.progress) as progress, workers(count, arguments.dask) as (executor, width):
        if arguments.dry_run:
            surveys = survey_all(job, executor, width, progress=progress) if job.adaptive else {}
            plans = job.plans(surveys)
        else:
            plans = quantize_model(job, arguments.out, executor, width, progress)
    if arguments.dry_run:
        print(_plan_table(plans))
    for config, planned in plans.items() if not arguments.dry_run else ():
        _say(f"{Path(arguments.out, config)}: {_sizes(planned)}")
    return 0


def _processes(job: Job, arguments: argparse.Namespace) -> int:
    small = sum(math.prod(tensor.shape) for tensor in job.source.tensors) < WEIGHTS_A_WORKER
    return 1 if small else int(arguments.workers)


def _repack(arguments: argparse.Namespace) -> int:
    work = Repack(arguments.depth, arguments.strict_zeros)
    job, folder = repack_job(ModelSource(arguments.src), work, arguments.keep), Path(arguments.out, REPACKED)
    count = _processes(job, arguments)
    with showing(arguments.progress) as progress, workers(count, arguments.dask) as (executor, width):
        planned = quantize_model(job, arguments.out, executor, width, progress)[REPACKED]
    if arguments.json:
        print(repack_json(folder, planned))
        return 0
    rows = repack_rows(planned)
    print("\n".join([*([_table(REPACK_HEADER, rows), ""] if rows else []), *repack_reasons(planned), ""]))
    _say(f"{folder}: {repack_total(planned)}")
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
    _say(f"{arguments.out}: {tensors} tensors, {weights:,} weights")
    return 0


def _truncate(arguments: argparse.Namespace) -> int:
    with open_model(arguments.src) as model:  # SRC may be OUT
        before = model.size
    truncate_model(arguments.src, arguments.out, arguments.depth)
    with open_model(arguments.out) as model:
        _say(f"{model.path}: {_of_shards(model)}{model.size:,} bytes, from {before:,}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    source = ModelSource(arguments.against) if arguments.against else None
    with open_model(arguments.src) as model:
        _say(f"{model.path}: {_format(model)}{_of_shards(model)}{model.size:,} bytes")
        print(f"identity {model.identity}")
        for key, value in model.metadata.items():
            print(f"{key}: {ascii(value[:200])[1:-1]}")
        print()
        print(_inspect_table(model, source))
    return 0


def _format(model: TritModel) -> str:
    """The version of the format, of a lone file: shards have their own."""
    if model.index:
        return ""
    with model.shard(model.shards[0]) as file:
        return f"format {MAJOR}.{file.header.minor}, "


def _of_shards(model: TritModel) -> str:
    return f"{len(model.shards)} shards, " if model.index else ""


def _verify(arguments: argparse.Namespace) -> int:
    statuses = set()
    for name in arguments.files:
        try:
            path = model_file(name)
            with _progress(_bytes_to_verify(path), "B") as bar:
                report = verify_model(path, bar.update)
        except (TritError, OSError) as error:
            print(f"tritcodec: {_one_line(error)}", file=sys.stderr)
            statuses.add(EXIT_USAGE)
            continue
        print(_model_json(path, report) if arguments.json else _model_text(path, report))
        statuses.add({"valid": 0, "invalid": EXIT_INVALID, "unsupported": EXIT_UNSUPPORTED}[report.verdict])
    # A file that could not be read hides a verdict, an invalid one outweighs one of unknown version.
    return next((status for status in (EXIT_USAGE, EXIT_INVALID, EXIT_UNSUPPORTED) if status in statuses), 0)


def _bytes_to_verify(path: Path) -> int:
    """About how many, for the progress bar: a folder is not judged yet."""
    files = path.parent.glob("*.trit") if path.name == INDEX_NAME else [path]
    return sum(file.stat().st_size for file in files if file.exists())


def _model_text(path: Path, report: ModelReport) -> str:
    """The report on a file; or that on a folder, and those on its shards that have something to say."""
    if path.name in report.shards:
        return _report_text(path, report.shards[path.name])
    head = f"{path}: {report.verdict}".translate(CONTROLS)
    if report.ok:
        head += f", {len(report.shards)} shards, {report.tensors} tensors, {report.size:,} bytes"
        head += f", identity {report.identity}"
    shards = {path.with_name(name): shard for name, shard in report.shards.items()}
    said = [_report_text(file, shard) for file, shard in shards.items() if shard.findings or shard.notes]
    return "\n".join([head, *(f"  {finding}" for finding in report.findings), *said])


def _model_json(path: Path, report: ModelReport) -> str:
    """One line of ASCII, so that no name can forge another."""
    if path.name in report.shards:
        fields = _report_fields(report.shards[path.name])
    else:
        fields = asdict(report) | {"verdict": report.verdict, "tensors": report.tensors, "size": report.size}
        fields["shards"] = {name: _report_fields(shard) for name, shard in report.shards.items()}
    return json.dumps(fields | {"file": str(path)}, sort_keys=True)


def _report_text(path: Path, report: Report) -> str:
    head = f"{path}: {report.verdict}".translate(CONTROLS)
    if report.ok:
        head += f", {report.tensors} tensors, {report.size:,} bytes, identity {report.identity}"
    return "\n".join(
        [head, *(f"  {finding}" for finding in report.findings), *(f"  {note}" for note in report.notes)]
    )


def _report_fields(report: Report) -> dict[str, Any]:
    return asdict(report) | {"verdict": report.verdict}


def _inspect_table(model: TritModel, source: ModelSource | None) -> str:
    sources = {tensor.name: tensor for tensor in source.tensors} if source else {}
    header = ["tensor", "shape", "kind", "stored", "info"] + (["SQNR dB", "error %"] if source else [])
    rows, total, entries = [], Distortion(), sorted(model.entries(), key=lambda entry: entry.name)
    for entry in entries:
        row = [entry.name, _shape(entry.shape), *_kind(entry)]
        if source and isinstance(entry, TritEntry):
            if entry.name not in sources:
                raise TritError(f"the source has no tensor {entry.name!a}", where=str(source.path))
            tensor = model.get_tensor(entry.name)
            error = distortion_against(sources[entry.name], cast(TritTensor, tensor))
            total += error
            row += _error_cells(error)
        rows.append(row)
    return "\n".join([_table(header, rows), "", *_inspect_totals(entries, total if source else None)])


def _kind(entry: Entry) -> list[str]:
    """Cells for kind, bits stored and bits of information a weight."""
    if isinstance(entry, RawEntry):
        bits = str(8 * RAW_DTYPES[entry.dtype].itemsize)
        return [f"{entry.dtype} raw", bits, bits]
    form = entry.form
    kind = f"{form.dtype} d{form.depth}" + (f"+{form.shift}" if form.shift else "")
    return [kind, f"{form.bits_per_weight:.3f}", f"{form.information_bits_per_weight:.3f}"]


def _error_cells(error: Distortion) -> list[str]:
    return [f"{error.sqnr:.2f}", f"{100 * error.relative_error:.2f}"]


def _inspect_totals(entries: Sequence[Entry], error: Distortion | None) -> list[str]:
    forms = [entry.form for entry in entries if isinstance(entry, TritEntry)]
    raw = [entry for entry in entries if isinstance(entry, RawEntry)]
    weights = sum(math.prod(form.shape) for form in forms)
    lines = []
    if forms:
        stored = 8 * sum(form.nbytes for form in forms) / weights
        content = sum(form.information_bits_per_weight * math.prod(form.shape) for form in forms) / weights
        bits = f"{stored:.3f} bits a weight stored, {content:.3f} of information"
        lines.append(f"{len(forms)} quantised: {weights:,} weights, {bits}")
    if error and forms:
        sqnr, relative = _error_cells(error)
        lines.append(f"SQNR over all quantised weights: {sqnr} dB (error {relative} %)")
    lines.append(f"{len(raw)} raw: {sum(sum(entry.segment_sizes) for entry in raw):,} bytes")
    return lines


def _plan_table(plans: dict[str, list[Planned]]) -> str:
    configs = list(plans)
    header = [
        "tensor",
        "shape",
        "dtype",
        *(config.removeprefix("uniform-") for config in configs),
        "kept because",
    ]
    rows = []
    for items in zip(*plans.values(), strict=True):
        tensor = items[0].tensor
        sizes = [_size(item.stored) for item in items]
        reason = textwrap.shorten(items[0].reason or "", REASON_WIDTH, placeholder="…")
        rows.append([tensor.name, _shape(tensor.shape), tensor.dtype, *sizes, reason])
    totals = [f"{config}: {_sizes(planned)}" for config, planned in plans.items()]
    return "\n".join([_table(header, rows), "", *totals])


def _sizes(planned: list[Planned]) -> str:
    """What a config stores, in words."""
    quantized = [item for item in planned if item.reason is None]
    weights = sum(item.weights for item in quantized)
    packed = sum(item.stored for item in quantized)
    raw = sum(item.stored for item in planned if item.reason is not None)
    bits = f" ({8 * packed / weights:.3f} bits a weight)" if weights else ""
    return f"{weights:,} weights in {packed:,} bytes{bits}, and {raw:,} bytes raw"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Columns side by side; the first is cut where the terminal is narrow."""
    cells = [header, *(row + [""] * (len(header) - len(row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    room = shutil.get_terminal_size(UNLIMITED).columns - sum(widths[1:]) - 2 * (len(header) - 1)
    widths[0] = min(widths[0], max(NAME_WIDTH, room))
    lines = []
    for row in cells:
        name = _cut(row[0], widths[0])
        aligned = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    """The last *width* characters: the end of a name tells more than its start."""
    return text if len(text) <= width else "…" + text[1 - width :]


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _size(count: int) -> str:
    """Bytes in a few characters: 950, 36.2K, 1.4M (units of 1024)."""
    if count < KIB:
        return str(count)
    power = min(3, int(math.log(count, KIB)))
    return f"{count / KIB**power:.1f}{' KMG'[power]}"


def _progress(total: int, unit: str) -> tqdm[Any]:
    """A progress bar: on a terminal only."""
    silent = not (sys.stderr and sys.stderr.isatty())
    return tqdm(total=total, unit=unit, unit_scale=True, disable=silent, leave=False)


def _advance(bar: tqdm[Any]) -> Callable[[str, int], None]:
    def advance(name: str, weights: int) -> None:
        bar.set_postfix_str(name[-40:], refresh=False)
        bar.update(weights)

    return advance


def _say(line: str) -> None:
    """Print one line, whatever a path in it holds."""
    print(line.translate(CONTROLS))


def _one_line(error: Exception) -> str:
    """What and why, on one line, whatever a name or a path holds."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*names, error.strerror]).translate(CONTROLS)
    return str(error).translate(CONTROLS)


if __name__ == "__main__":
    sys.exit(main())
