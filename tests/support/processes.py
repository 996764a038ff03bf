"""What the system knows about the processes of a running stack."""

from __future__ import annotations

from pathlib import Path

from tests.support.stack import StackProcess


def environment_of(stack: StackProcess, service: str) -> dict[str, str]:
    """What the running service was started with."""
    raw = Path(f"/proc/{stack.ready['pids'][service]}/environ").read_bytes()
    return dict(entry.split("=", 1) for entry in raw.decode().split("\0") if "=" in entry)


def resident_bytes(pid: int) -> int:
    """Memory that the process holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
