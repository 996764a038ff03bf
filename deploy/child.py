"""One running process: its lines go to the screen, its last ones are kept to say why it ended."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy import former
from deploy.servers.program import Program

LINES_KEPT: Final = 20
LINE_BYTES_MAX: Final = 1 << 20

ShowLine = Callable[[str], None]


class Child:
    """A started program. Its end is awaited by `wait`."""

    def __init__(self, program: Program, process: Process, show: ShowLine) -> None:
        self.program = program
        self.last_lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._process = process
        self._show = show
        self._pump = asyncio.create_task(self._copy_lines(), name=f"output of {program.name}")

    @classmethod
    async def start(cls, program: Program, run_folder: Path, show: ShowLine) -> Child:
        """Start `program` in a session of its own and record it in `run_folder`. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *program.arguments(),
            env=program.full_environment(),
            cwd=program.folder,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
            limit=LINE_BYTES_MAX,
        )
        with contextlib.suppress(OSError):  # without a record it still dies with its parent
            former.record(run_folder, program.name, process.pid, program.stop_signal)
        return cls(program, process, show)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        code = await self._process.wait()
        # A grandchild may hold the pipe open: what it says later is nobody's loss.
        done, _ = await asyncio.wait([self._pump], timeout=1)
        if not done:
            self._pump.cancel()
        return code

    def ask_to_stop(self) -> None:
        self._send(self.program.stop_signal)

    def kill(self) -> None:
        self._send(9)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _copy_lines(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:
                self._show("(a line of more than 1 MB was left out)")
                continue
            if not line:
                return
            text = line.decode("utf-8", errors="replace").rstrip()
            self.last_lines.append(text)
            self._show(text)
