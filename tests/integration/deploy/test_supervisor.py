"""Real processes under the supervisor, and what is left of them after the worst."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from deploy import former
from deploy.errors import StackError
from deploy.screen import Screen
from deploy.servers.program import Program, server_user
from deploy.supervisor import Health, Part, Supervisor
from shared.clock import SystemClock

SLEEP = "import time; time.sleep(60)"
PROJECT = Path(__file__).parents[3]


def part(name: str, code: str, ready_file: Path | None = None) -> Part:
    """A Python one-liner; ready at once, or when `ready_file` is there."""
    program = Program(name, (sys.executable, "-c", code))
    return Part(program, lambda: Health.READY if ready_file is None or ready_file.exists() else Health.SILENT)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.02)


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(tmp_path: Path, out: io.StringIO) -> Supervisor:
    return Supervisor(tmp_path, Screen(out), SystemClock())


async def test_a_process_that_dies_is_started_again(supervisor: Supervisor, out: io.StringIO, tmp_path: Path) -> None:
    await supervisor.start([part("baker", SLEEP)], 30)
    first = supervisor.pids()["baker"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.pids().get("baker", first) != first)
    assert "baker ended (signal 9: it gave no reason); starting it again in 0.2 s" in out.getvalue()
    await supervisor.stop()
    assert supervisor.pids() == {}
    assert former.read_records(tmp_path) == []


async def test_a_process_that_says_it_is_stuck_is_started_anew_once_that_helps(
    supervisor: Supervisor, out: io.StringIO, tmp_path: Path
) -> None:
    room = tmp_path / "room"
    code = f"import pathlib; print('' if pathlib.Path({str(room)!r}).exists() else '[ERR] disk full', flush=True); {SLEEP}"
    healthy = part("baker", code)
    await supervisor.start([Part(healthy.program, healthy.health, stuck=nothing_written, may_start_anew=room.exists)], 30)
    first = supervisor.pids()["baker"]
    await until(lambda: "baker is not ready" in out.getvalue())
    assert supervisor.pids()["baker"] == first, "a new start would not help yet"
    room.touch()
    await until(lambda: supervisor.pids().get("baker", first) != first)
    await until(lambda: out.getvalue().count("baker is ready") == 2)
    assert "baker cannot go on as it is: killed, to start anew" in out.getvalue()
    await supervisor.stop()


def nothing_written(line: str) -> bool:
    return line.startswith("[ERR]")


async def test_lines_are_shown_under_the_name(supervisor: Supervisor, out: io.StringIO) -> None:
    await supervisor.start([part("baker", f"print('bread', flush=True); {SLEEP}")], 30)
    await until(lambda: "baker     | bread\n" in out.getvalue())
    await supervisor.stop()


async def test_a_process_that_never_gets_ready_is_given_up_with_its_reason(supervisor: Supervisor, tmp_path: Path) -> None:
    never = part("baker", "import sys; sys.exit('no flour')", tmp_path / "never")
    with pytest.raises(StackError, match="baker does not start: exit code 1: no flour"):
        await supervisor.start([never], 30)
    await supervisor.stop()


async def test_a_process_that_does_not_answer_in_time_is_named(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="baker was not ready after 1 s"):
        await supervisor.start([part("baker", SLEEP, tmp_path / "never")], 1)
    await supervisor.stop()


async def test_groups_stop_last_started_first(supervisor: Supervisor, tmp_path: Path) -> None:
    note = "import signal, sys, time\ndef end(*_):\n open(r'{file}', 'a').write('{name} ')\n sys.exit()\n"
    note += "signal.signal(signal.SIGTERM, end)\nopen(r'{file}.{name}', 'w')\ntime.sleep(60)"
    file = tmp_path / "order"
    for name in ("oven", "baker", "shop"):
        await supervisor.start([part(name, note.format(file=file, name=name), tmp_path / f"order.{name}")], 30)
    await supervisor.stop()
    assert file.read_text() == "shop baker oven "


def test_a_child_dies_with_its_parent_however_it_died(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, time
from deploy.servers.program import Program
child = Program("child", (sys.executable, "-c", {SLEEP!r})).start(subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    child = former.Record("child", pid, former.start_time(pid) or 0, former.boot_id(), signal.SIGTERM)
    # The launcher asks to die with its parent before it becomes the program.
    wait_for(lambda: b"launch.py" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    wait_for(lambda: not former.is_running(child))


def test_what_a_former_run_left_is_ended_and_nothing_else(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", SLEEP])
    other = subprocess.Popen([sys.executable, "-c", SLEEP])
    former.record(tmp_path, "left", left.pid, signal.SIGTERM)
    # The id was given to another process since: the start time tells.
    wrong = former.Record("gone", other.pid, 1, former.boot_id(), signal.SIGKILL)
    (tmp_path / "gone.json").write_bytes(msgspec.json.encode(wrong))
    (tmp_path / "cut.json").write_bytes(b'{"name": "cu')
    said: list[str] = []
    try:
        former.end_former(tmp_path, SystemClock(), said.append)
        assert left.wait(10) == -signal.SIGTERM
        assert other.poll() is None
        assert said == [f"ending left (process {left.pid}) of a former run"]
        assert list(tmp_path.iterdir()) == []
    finally:
        other.kill()
        other.wait(10)


def test_a_pid_file_whose_number_another_process_has_now_is_removed(tmp_path: Path) -> None:
    pid_file = tmp_path / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{tmp_path}\n")
    former.clear_stale_pid_file(tmp_path)
    assert not pid_file.exists()
    former.clear_stale_pid_file(tmp_path)


def test_a_server_that_refuses_root_runs_as_somebody_else() -> None:
    user = server_user()
    program = Program("id", (sys.executable, "-c", "import os; print(os.geteuid())"), user=user)
    done = subprocess.run(
        program.arguments(), env=program.full_environment(), capture_output=True, text=True, timeout=30, check=True
    )
    assert int(done.stdout) == (user.uid if user else os.geteuid()) != 0


def wait_for(condition: Callable[[], bool]) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + 30
    while not condition():
        assert clock.monotonic() < deadline


async def test_one_that_says_it_is_not_ready_does_not_keep_the_others_from_starting(
    supervisor: Supervisor, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.supervisor.NOT_READY_MAX_S", 0.3)
    refuses = Part(
        Program("miller", (sys.executable, "-c", f"print('ERROR no grain', flush=True); {SLEEP}")), lambda: Health.NOT_READY
    )
    await supervisor.start([part("baker", SLEEP), refuses], 30)
    assert "miller is not ready, the others are not kept waiting: ERROR no grain" in out.getvalue()
    assert set(supervisor.pids()) == {"baker", "miller"}
    await supervisor.stop()
