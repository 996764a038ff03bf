"""Processes of a service that do not import it anew each time.

A service imports for the best part of a second before it does anything, and the tests start hundreds. So one process for each
service has imported what `python -m services.<service>` imports, and does nothing else: it has no thread, loop or connection. For
each start it forks, and the child runs the same `__main__` with its own environment and output: a process as any other, that is
killed and judged by its exit code. Whoever tests the command line or the stack starts from nothing.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
START_TIMEOUT_S: Final = 60


class Preloaded:
    """The process that forks. It ends when its standard input does, and so with whoever started it."""

    def __init__(self, service: str) -> None:
        self._address = Path(tempfile.mkdtemp(prefix="tollbook-preloaded-")) / "socket"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self._address))
            listening.listen()
            command = [sys.executable, "-m", "tests.support.preloaded", service, str(listening.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=(listening.fileno(),))

    def start(self, environment: Mapping[str, str], log: Path) -> Child:
        """Have it fork. The child's output goes to the end of `log`."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(START_TIMEOUT_S)
        connection.connect(str(self._address))
        connection.sendall(json.dumps({"environment": dict(environment), "log": str(log)}).encode() + b"\n")
        return Child(connection)

    def end(self) -> None:
        """End it, and with it what it forked."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(START_TIMEOUT_S)
        self._address.unlink()
        self._address.parent.rmdir()


class Child:
    """A process that was forked, in the words of subprocess.Popen."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("r")
        said = self._lines.readline()
        if not said:
            raise RuntimeError("the service could not be imported: its traceback is in what pytest captured")
        self.pid = int(said)
        self.returncode: int | None = None

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has ended. Raises TimeoutExpired."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_RUNNING: Final[dict[str, Preloaded]] = {}


def preloaded(service: str) -> Preloaded:
    """The one of that service, for this session."""
    if service not in _RUNNING:
        _RUNNING[service] = Preloaded(service)
    return _RUNNING[service]


def end_preloaded() -> None:
    """At the end of the session."""
    while _RUNNING:
        _RUNNING.popitem()[1].end()


class Forking:
    """What the process that forks does: wait for requests, for children that end, and for its own end."""

    def __init__(self, service: str, listening: socket.socket) -> None:
        self._service = service
        self._listening = listening
        self._children: dict[int, socket.socket] = {}
        self._ended, ending = socket.socketpair()
        ending.setblocking(False)
        self._ending = ending

    def serve(self) -> Callable[[], None] | None:
        """Until standard input ends: None. In a forked child: what it is to run."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends whoever asks here
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._ending.fileno())
        with selectors.DefaultSelector() as selector:
            for what in (self._listening, self._ended, sys.stdin):
                selector.register(what, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._ended in ready:
                    self._ended.recv(4096)
                    self._reap()
                if sys.stdin in ready:
                    break
                if self._listening in ready and (job := self._fork()):
                    return job
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        return None

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._answer(self._children.pop(pid), os.waitstatus_to_exitcode(status)).close()

    def _answer(self, connection: socket.socket, number: int) -> socket.socket:
        with suppress(OSError):  # nobody waits any more
            connection.sendall(b"%d\n" % number)
        return connection

    def _fork(self) -> Callable[[], None] | None:
        connection, _ = self._listening.accept()
        with connection.makefile("r") as lines:
            asked = json.loads(lines.readline())
        pid = os.fork()
        if pid:
            self._children[pid] = self._answer(connection, pid)
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for former in (connection, self._listening, self._ended, self._ending, *self._children.values()):
            former.close()
        with Path(asked["log"]).open("ab") as log, Path(os.devnull).open("rb") as nothing:
            for number, file in enumerate((nothing, log, log)):
                os.dup2(file.fileno(), number)
        os.environ.clear()
        os.environ.update(asked["environment"])
        return self._run

    def _run(self) -> None:
        sys.argv = [f"services.{self._service}"]
        runpy.run_module(f"services.{self._service}", run_name="__main__", alter_sys=True)


def main(service: str, descriptor: int) -> None:
    for name in (f"services.{service}.app", "shared.main"):
        importlib.import_module(name)
    assert threading.active_count() == 1, "a thread would not be there after a fork"
    gc.freeze()
    job = Forking(service, socket.socket(fileno=descriptor)).serve()
    if job:
        job()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
