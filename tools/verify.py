"""Check .trit files and model folders against every requirement of SPEC.md, as `tritcodec verify` does.

usage: python tools/verify.py FILE|FOLDER... [--json]
"""

from __future__ import annotations

import sys

from tritcodec.cli import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
