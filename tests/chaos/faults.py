"""Hurting the processes of one stack: found by what its supervisor recorded, so no other process is ever touched."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from deploy.former import Record, is_running, read_records
from tests.chaos.plan import Fault, Pace

BACK_WITHIN_S: Final = 40.0
"""The supervisor's longest back-off, and a start on a busy machine."""
LOOK_S: Final = 0.05


class Processes:
    """The processes that the stack in `home` runs now."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "run"

    def find(self, name: str) -> Record | None:
        """The process, None while it is not running."""
        for record in read_records(self._folder):
            if record.name == name and is_running(record):
                return record
        return None

    async def wait_for(self, name: str) -> Record:
        """The process, when it runs (again)."""
        deadline = time.monotonic() + BACK_WITHIN_S
        while (found := self.find(name)) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} was not started again within {BACK_WITHIN_S:.0f} s")
            await asyncio.sleep(LOOK_S)
        return found

    async def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        record = await self.wait_for(name)
        send(record, signal.SIGKILL)
        while is_running(record):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)

    def settings(self, name: str) -> dict[str, str]:
        """The settings (TOLLBOOK_...) that a running service was started with."""
        record = self.find(name)
        assert record is not None, f"{name} does not run"
        lines = Path(f"/proc/{record.pid}/environ").read_bytes().decode().split("\0")
        return dict(line.split("=", 1) for line in lines if line.startswith("TOLLBOOK_"))


def send(record: Record, number: int) -> bool:
    """Send a signal to just this process; False when it is gone."""
    if not is_running(record):
        return False
    try:
        os.kill(record.pid, number)
    except ProcessLookupError:
        return False
    return True


class Hurting:
    """Works off the schedule; `dealt` counts the blows that met a running process, by kind and target."""

    def __init__(self, processes: Processes, pace: Pace, say: Callable[[str], None]) -> None:
        self.dealt: Counter[str] = Counter()
        self._processes = processes
        self._pace = pace
        self._say = say
        self._paused: list[asyncio.Task[None]] = []

    async def run(self, planned: Sequence[Fault]) -> None:
        """All of it, then nothing stands still any more."""
        for number, fault in enumerate(planned, 1):
            self._pace.next(fault.after_s)
            await asyncio.sleep(fault.after_s)
            record = await self._processes.wait_for(fault.target)
            self._say(f"fault {number}/{len(planned)}: {fault}")
            self.dealt[f"{fault.kind} {fault.target}"] += 1
            if fault.kind == "kill":
                send(record, signal.SIGKILL)
            else:
                send(record, signal.SIGSTOP)
                self._paused.append(asyncio.create_task(_continue(record, fault.pause_s)))
        await asyncio.gather(*self._paused)
        self._pace.end()


async def _continue(record: Record, after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        send(record, signal.SIGCONT)
