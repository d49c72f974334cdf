"""Print one of README.md's commands, so that CI runs what newcomers are told to run.

usage: python tools/readme.py {main,test}
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def command(name: str) -> str:
    """The shell command that README.md has after the marker of *name*."""
    found = re.search(rf"<!-- command: {name} -->\s*```sh\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    if found is None:
        raise SystemExit(f"README.md has no command marked {name!r}")
    return found[1].strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print one of the commands in README.md.")
    parser.add_argument("name", choices=("main", "test"))
    print(command(parser.parse_args().name))
