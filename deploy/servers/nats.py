"""nats-server 2.15 from its wheel: its program, and asking whether it is there."""

from __future__ import annotations

import os
import shutil
import socket
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.errors import StackError
from deploy.servers.program import Program

PROBE_TIMEOUT_S: Final = 2.0
FILE_STORE_MAX: Final = "1000TB"
ROOM_BYTES_MIN: Final = 16 * 1024 * 1024
"""Below this a server that ran out of disk is not started anew: it would run out again at once."""
_WRITE_FAILED: Final = ("Critical write error", "critical write error", "will be DISABLED")


def wheel_program(name: str) -> str:
    """The path of a program that a wheel put beside this Python."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise StackError(f"{name} is missing from the virtual environment: run `make clean`, then `make run` again.")
    return found


def program(config: Path) -> Program:
    """The server with the configuration file `config`."""
    return Program("nats", (wheel_program("nats-server"), "--config", str(config)))


def plain_config(port: int, store: Path) -> str:
    """For tests: JetStream as the stack has it, nobody has to say who they are."""
    return f"""\
listen: "127.0.0.1:{port}"
server_name: "tollbook-test"
{jetstream_block(store)}
"""


def jetstream_block(store: Path) -> str:
    """JetStream with every acknowledged write on the disk: the acknowledgement is the commit.

    The disk is the only limit. Left to itself the server takes three quarters of what is free when it starts, refuses every write
    beyond that, and never looks again, though there may be room since.
    """
    return f"""\
jetstream {{
  store_dir: "{store}"
  max_file_store: {FILE_STORE_MAX}
  sync_interval: always
}}"""


def last_error(lines: Sequence[str]) -> str:
    """Why the server ended, from its last lines: without process id and date."""
    telling = [line for line in lines if "[FTL]" in line or "[ERR]" in line] or [
        line for line in lines if line.startswith("nats-server:")
    ]
    chosen = (telling or list(lines) or ["it gave no reason"])[-1]
    return chosen.rpartition("] ")[2]


def is_stuck(line: str) -> bool:
    """Whether this line of the log tells of a failed write: the stream then acknowledges nothing any more until a new start."""
    return "[ERR]" in line and any(words in line for words in _WRITE_FAILED)


def has_room(store: Path) -> bool:
    """Whether the disk of the store folder can be written to again; makes the folder if somebody has deleted it."""
    probe = store / "probe"
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(store).free < ROOM_BYTES_MIN:
            return False
        try:
            with probe.open("wb") as file:  # a quota or a broken disk shows only here
                file.write(bytes(ROOM_BYTES_MIN // 16))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a NATS server greets on that port now."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False
