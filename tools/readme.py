"""Execute README.md: its console sessions and its Python, in a scratch folder with tools and real weights.

python tools/readme.py check    compare the output with what README.md shows; exit 1 where it differs
python tools/readme.py update   write the output into README.md
python tools/readme.py main     print the command that installs and runs (CI runs what newcomers run)
python tools/readme.py test     print the command that installs and tests
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import doctest
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COLUMNS = "100"  # the width that tables are printed in


def command(name: str) -> str:
    """The shell command that README.md has after the marker of *name*."""
    found = re.search(rf"<!-- command: {name} -->\s*```sh\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    if found is None:
        raise SystemExit(f"README.md has no command marked {name!r}")
    return found[1].strip()


def executed(text: str) -> str:
    """*text* with the output of every console and Python block as it is now."""
    variables: dict[str, Any] = {}

    def run(block: re.Match[str]) -> str:
        body = _console(block[2]) if block[1] == "console" else _python(block[2], variables)
        return f"```{block[1]}\n{body}```"

    with tempfile.TemporaryDirectory() as folder:
        for name in ("fixtures/minilm", "tools"):
            shutil.copytree(ROOT / name, Path(folder, name))
        os.chdir(folder)
        result = re.sub(r"```(console|python)\n(.*?)```", run, text, flags=re.DOTALL)
        os.chdir(ROOT)  # Windows removes no folder that one stands in
    return result


def _console(body: str) -> str:
    environment = {
        **os.environ,
        "COLUMNS": COLUMNS,
        "PYTHONIOENCODING": "utf-8",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    result = ""
    for line in re.findall(r"^\$ (.*)\n", body, re.MULTILINE):
        done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True)
        result += f"$ {line}\n{done.stdout}{done.stderr}"
    return result


def _python(body: str, variables: dict[str, Any]) -> str:
    result = ""
    for example in doctest.DocTestParser().get_examples(body):
        first, *rest = example.source.splitlines()
        result += f">>> {first}\n" + "".join(f"... {line}\n" for line in rest)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example.source, "README.md", "single"), variables)
        result += printed.getvalue()
    return result


def main() -> int:
    """Parse arguments and run; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("check", "update", "main", "test"))
    action = parser.parse_args().action
    if action in ("main", "test"):
        print(command(action))
        return 0
    shown = README.read_text("utf-8")
    now = executed(shown)
    if action == "update":
        README.write_text(now, "utf-8")
        return 0
    difference = difflib.unified_diff(shown.splitlines(), now.splitlines(), "README.md", "now", lineterm="")
    print("\n".join(difference))
    return int(shown != now)


if __name__ == "__main__":
    sys.exit(main())
