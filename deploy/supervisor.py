"""Keeps processes running: starts them, asks after their health, starts them again when they end, stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from deploy import former
from deploy.backoff import Backoff
from deploy.child import Child
from deploy.errors import StackError
from deploy.screen import Screen
from deploy.servers.program import Program
from shared.clock import Clock

POLL_STARTING_S: Final = 0.1
POLL_RUNNING_S: Final = 1.0
SILENT_MAX_S: Final = 30.0
"""A process that answered once and then not at all for this long is taken for hung, and killed."""
STOP_GRACE_S: Final = 15.0
KILL_GRACE_S: Final = 5.0
NOT_READY_MAX_S: Final = 15.0
"""At the start: a process that runs and has said for so long that it is not ready is told of, and not waited for any more."""
ENDS_BEFORE_READY_MAX: Final = 3
"""At the first start: after so many ends without having been ready once, the reason is told and the stack gives up."""

_TELLING: Final = re.compile(r"(ERROR|CRITICAL|[\w.]*(Error|Exception|Changed|Broken))\b")


def last_error(lines: Sequence[str]) -> str:
    """The line of a Python process's output that tells most: an exception's or an error's last, else simply the last."""
    telling = [line for line in lines if _TELLING.match(line)]
    return (telling or list(lines) or ["it gave no reason"])[-1]


class Health(Enum):
    READY = "ready"
    NOT_READY = "not ready"
    SILENT = "silent"


@dataclass(frozen=True)
class Part:
    """One process of the stack. `health` is asked in a thread and may take seconds; `shows` picks the lines for the screen,
    `reason` the one that says why it ended. `stuck` picks the lines after which only a new start helps; it is given one as soon
    as `may_start_anew`, asked in a thread too, says that it would."""

    program: Program
    health: Callable[[], Health]
    shows: Callable[[str], bool] = lambda _line: True
    reason: Callable[[Sequence[str]], str] = last_error
    stuck: Callable[[str], bool] = lambda _line: False
    may_start_anew: Callable[[], bool] = lambda: True

    @property
    def name(self) -> str:
        return self.program.name


@dataclass
class Watch:
    """What the supervisor knows about a part."""

    part: Part
    backoff: Backoff = field(default_factory=Backoff)
    child: Child | None = None
    ready_since: float | None = None
    not_ready_since: float | None = None
    ends: int = 0
    stuck: bool = False
    was_ready: asyncio.Event = field(default_factory=asyncio.Event)
    gave_up: str | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """The processes of one stack. Start in groups; `stop` goes through the groups backwards."""

    def __init__(self, run_folder: Path, screen: Screen, clock: Clock) -> None:
        self._run = run_folder
        self._screen = screen
        self._clock = clock
        self._groups: list[list[Watch]] = []
        self._stopping = asyncio.Event()

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        return {watch.part.name: watch.child.pid for group in self._groups for watch in group if watch.child}

    async def start(self, parts: Sequence[Part], timeout_s: float) -> None:
        """Start the parts side by side and wait until each has been ready once, or says by itself that it is not.

        Raises StackError naming one that does neither.
        """
        group = [Watch(part) for part in parts]
        self._groups.append(group)
        for watch in group:
            watch.task = asyncio.create_task(self._keep(watch), name=f"keep {watch.part.name}")
        deadline = self._clock.monotonic() + timeout_s
        while self._clock.monotonic() < deadline and not all(self._settled(watch) for watch in group):  # noqa: ASYNC110
            await asyncio.sleep(POLL_STARTING_S)
        for watch in group:
            if watch.gave_up is not None:
                raise StackError(f"{watch.part.name} does not start: {watch.gave_up}")
            if not watch.was_ready.is_set():
                reason = watch.part.reason(list(watch.child.last_lines) if watch.child else [])
                if self._settled(watch):
                    self._screen.say(f"{watch.part.name} is not ready, the others are not kept waiting: {reason}")
                    continue
                raise StackError(f"{watch.part.name} was not ready after {timeout_s:.0f} s: {reason}")

    def _settled(self, watch: Watch) -> bool:
        if watch.was_ready.is_set():
            return True
        return watch.not_ready_since is not None and self._clock.monotonic() - watch.not_ready_since > NOT_READY_MAX_S

    async def stop(self) -> None:
        """Stop everything, last started first. Whatever does not end in time is killed."""
        self._stopping.set()
        while self._groups:
            group = self._groups[-1]
            await asyncio.gather(*(self._end(watch) for watch in group))
            self._groups.pop()

    def kill_all(self) -> None:
        """Kill every process now, without order."""
        self._stopping.set()
        for group in self._groups:
            for watch in group:
                if watch.child:
                    watch.child.kill()

    async def _end(self, watch: Watch) -> None:
        if watch.task is None:
            return
        if watch.child:
            watch.child.ask_to_stop()
        done, _ = await asyncio.wait([watch.task], timeout=STOP_GRACE_S)
        if not done and watch.child:
            self._screen.say(f"{watch.part.name} did not stop in {STOP_GRACE_S:.0f} s: killed")
            watch.child.kill()
            done, _ = await asyncio.wait([watch.task], timeout=KILL_GRACE_S)
        if not done:
            watch.task.cancel()

    async def _keep(self, watch: Watch) -> None:
        """Run the part again and again until the stack stops, or until it gives up at the first start."""
        while not self._stopping.is_set():
            ended = await self._run_once(watch)
            if self._stopping.is_set():
                return
            healthy_s = self._clock.monotonic() - watch.ready_since if watch.ready_since is not None else 0.0
            watch.ready_since = watch.not_ready_since = None
            watch.ends += 1
            if not watch.was_ready.is_set() and watch.ends >= ENDS_BEFORE_READY_MAX:
                watch.gave_up = ended
                watch.was_ready.set()
                return
            delay_s = watch.backoff.after_end(healthy_s)
            self._screen.say(f"{watch.part.name} ended ({ended}); starting it again in {delay_s:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _run_once(self, watch: Watch) -> str:
        """Start the part, watch it to its end, and return why it ended."""
        part = watch.part
        watch.stuck = False

        def show(line: str) -> None:
            watch.stuck = watch.stuck or part.stuck(line)
            if part.shows(line):
                self._screen.line(part.name, line)

        try:
            child = await Child.start(part.program, self._run, show)
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        watch.child = child
        if self._stopping.is_set():
            child.ask_to_stop()
        poll = asyncio.create_task(self._poll(watch, child), name=f"health of {part.name}")
        try:
            code = await child.wait()
        finally:
            poll.cancel()
            watch.child = None
        with contextlib.suppress(OSError):
            former.forget(self._run, part.name)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {part.reason(list(child.last_lines))}"

    async def _poll(self, watch: Watch, child: Child) -> None:
        """Ask after the part's health while it runs; say when it changes; kill it when it has fallen silent."""
        last = Health.SILENT
        last_heard: float | None = None
        while True:
            health = await asyncio.to_thread(self._look, watch)
            now = self._clock.monotonic()
            if health is not Health.SILENT:
                last_heard = now
            elif last_heard is not None and now - last_heard > SILENT_MAX_S:
                self._screen.say(f"{watch.part.name} has not answered for {SILENT_MAX_S:.0f} s: killed")
                child.kill()
                return
            if watch.stuck and await asyncio.to_thread(watch.part.may_start_anew):
                self._screen.say(f"{watch.part.name} cannot go on as it is: killed, to start anew")
                child.kill()
                return
            if health is not Health.NOT_READY:
                watch.not_ready_since = None
            elif watch.not_ready_since is None:
                watch.not_ready_since = now
            if health is Health.READY and watch.ready_since is None:
                watch.ready_since = now
                watch.was_ready.set()
            if health is not last and not (health is Health.SILENT and self._stopping.is_set()):
                self._screen.say(f"{watch.part.name} is {health.value}")
            last = health
            await asyncio.sleep(POLL_RUNNING_S if health is Health.READY or watch.stuck else POLL_STARTING_S)

    @staticmethod
    def _look(watch: Watch) -> Health:
        health = watch.part.health()
        return Health.NOT_READY if health is Health.READY and watch.stuck else health
