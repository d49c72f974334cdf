"""Check .trit files against every requirement of SPEC.md; `tritcodec verify` under another name.

usage: python tools/verify.py FILE... [--json]
"""

from __future__ import annotations

import sys

from tritcodec.cli import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
