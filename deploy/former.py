"""What a former run may have left running: recorded at its start, ended before the next one.

Children die with their supervisor (deploy/servers/launch.py), so there is seldom anything left. A record holds the process's
start time besides its id, because ids are given out again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Final

import msgspec

from shared.clock import Clock

ASK_S: Final = 10.0
KILL_S: Final = 5.0
POLL_S: Final = 0.05


class Record(msgspec.Struct):
    """One process of a run. `started` is in clock ticks since boot, `boot` the kernel's id of that boot."""

    name: str
    pid: int
    started: int
    boot: str
    stop_signal: int


def record(folder: Path, name: str, pid: int, stop_signal: int) -> None:
    """Note a process that has just been started."""
    started = start_time(pid)
    if started is not None:
        note = Record(name, pid, started, boot_id(), stop_signal)
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(note))


def forget(folder: Path, name: str) -> None:
    (folder / f"{name}.json").unlink(missing_ok=True)


def end_former(folder: Path, clock: Clock, say: Callable[[str], None]) -> None:
    """End what former runs recorded and is still running: first asked, after a while killed."""
    running = [note for note in read_records(folder) if is_running(note)]
    for note in running:
        say(f"ending {note.name} (process {note.pid}) of a former run")
        _signal(note, note.stop_signal)
    _wait(running, clock, ASK_S)
    for note in running:
        if is_running(note):
            _signal(note, signal.SIGKILL)
    _wait(running, clock, KILL_S)
    for file in folder.glob("*.json"):
        file.unlink()


def read_records(folder: Path) -> list[Record]:
    """All records that can be read: one that was cut short by a full disk tells nothing."""
    records = []
    for file in sorted(folder.glob("*.json")):
        try:
            records.append(msgspec.json.decode(file.read_bytes(), type=Record))
        except (OSError, msgspec.DecodeError):
            continue
    return records


def is_running(note: Record) -> bool:
    """Whether this very process, not another one under its id, is alive."""
    return note.boot == boot_id() and start_time(note.pid) == note.started


def start_time(pid: int) -> int | None:
    """The process's start in clock ticks since boot; None when there is no such process or it is dead already (a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def boot_id() -> str:
    """Which boot of the machine this is; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def clear_stale_pid_file(data: Path) -> None:
    """Remove PostgreSQL's postmaster.pid when the process it names is no PostgreSQL of this folder.

    PostgreSQL itself only looks whether the number is in use, and in a container the numbers are soon in use again.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text("utf-8").split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        command = []
    except (OSError, ValueError):
        return
    if os.fsencode(data) not in command:
        pid_file.unlink(missing_ok=True)


def _signal(note: Record, number: int) -> None:
    try:
        os.kill(note.pid, number)
    except OSError:
        return


def _wait(records: list[Record], clock: Clock, seconds: float) -> None:
    deadline = clock.monotonic() + seconds
    while any(is_running(note) for note in records) and clock.monotonic() < deadline:
        sleep(POLL_S)
