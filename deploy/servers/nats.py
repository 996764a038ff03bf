"""nats-server 2.15 from its wheel: its program, and asking whether it is there."""

from __future__ import annotations

import shutil
import socket
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.errors import StackError
from deploy.servers.program import Program

PROBE_TIMEOUT_S: Final = 2.0


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
    """JetStream with every acknowledged write on the disk: the acknowledgement is the commit."""
    return f"""\
jetstream {{
  store_dir: "{store}"
  sync_interval: always
}}"""


def last_error(lines: Sequence[str]) -> str:
    """Why the server ended, from its last lines: without process id and date."""
    telling = [line for line in lines if "[FTL]" in line or "[ERR]" in line] or [
        line for line in lines if line.startswith("nats-server:")
    ]
    chosen = (telling or list(lines) or ["it gave no reason"])[-1]
    return chosen.rpartition("] ")[2]


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a NATS server greets on that port now."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False
