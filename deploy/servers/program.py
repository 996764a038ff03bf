"""One program as it is started: its command, its environment, its user, and the signal that asks it to stop."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, NamedTuple

from deploy.errors import StackError

LAUNCHER: Final = Path(__file__).with_name("launch.py")
INHERITED: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH")
"""Of the caller's environment, what a child gets. Everything else, TOLLBOOK_* above all, is given to it by name."""


class RunAs(NamedTuple):
    """The user that a program runs as when the stack itself runs as root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Program:
    """A command and all that it needs. `folder` is where it runs; `stop_signal` it also gets when its parent dies."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    folder: Path | None = None
    user: RunAs | None = None

    def arguments(self) -> list[str]:
        """The whole command line: the launcher, then the program."""
        uid, gid = (self.user.uid, self.user.gid) if self.user else (-1, -1)
        launch = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(self.stop_signal)), str(uid), str(gid)]
        return [*launch, *self.command]

    def full_environment(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {**inherited, **self.environment}

    def start(self, output: IO[bytes] | int) -> subprocess.Popen[bytes]:
        """Start it in a session of its own: Ctrl-C at the terminal reaches only the parent. All its output goes to `output`."""
        return subprocess.Popen(
            self.arguments(),
            env=self.full_environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def server_user() -> RunAs | None:
    """Whom a server that refuses root runs as: nobody, or the first other ordinary user; None when this process is not root.

    Raises StackError when root is all there is.
    """
    if os.geteuid() != 0:
        return None
    entries = sorted(pwd.getpwall(), key=lambda entry: (entry.pw_name != "nobody", entry.pw_uid))
    for entry in entries:
        if entry.pw_uid != 0:
            return RunAs(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise StackError("PostgreSQL does not run as root, and this machine has no other user: add one (useradd tollbook).")


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
