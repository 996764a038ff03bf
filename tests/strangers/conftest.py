"""What the tests with other people's clients stand on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.pages import JAVASCRIPT, Programs


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Runs the programs that pages show; before that a wheel's npm installs the JavaScript packages of the committed lock."""
    modules = JAVASCRIPT / "node_modules"
    installed, lock = modules / ".package-lock.json", JAVASCRIPT / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = [Programs.npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=JAVASCRIPT, capture_output=True, text=True, timeout=110, env=Programs.environment({}))
        if done.returncode != 0:
            pytest.fail(
                f"npm ci in tests/strangers/js: the JavaScript NATS client cannot be installed:\n{done.stdout}{done.stderr}"
            )
    # Node.js looks for packages from where a program lies.
    folder: Path = modules / ".pages"
    folder.mkdir(exist_ok=True)
    return Programs(folder)
