"""`python -m services.console`: run it, or `token`, `account`, `--check`, `--migrate`, `--rebuild`."""

from __future__ import annotations

import sys

from services.console import cli
from services.console.app import PROGRAM
from shared.main import main

if __name__ == "__main__":
    if sys.argv[1:2] in (["token"], ["account"]):
        sys.exit(cli.main(sys.argv[1:]))
    sys.exit(main(PROGRAM))
