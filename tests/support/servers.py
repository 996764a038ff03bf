"""Real NATS and PostgreSQL for the tests. TOLLBOOK_TEST_SERVERS says where from:

embedded    (default) the servers of the embedded stack, as child processes
containers  testcontainers: TOLLBOOK_TEST_NATS_IMAGE (nats:2.15), TOLLBOOK_TEST_POSTGRES_IMAGE (postgres:18)
external    TOLLBOOK_TEST_NATS_URL, and TOLLBOOK_TEST_POSTGRES_DSN of a superuser. Its streams are deleted!
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import nats
from nats.aio.client import Client

from deploy.servers import nats as nats_server
from deploy.servers import postgres as postgres_server
from deploy.servers.program import Program, free_port
from deploy.servers.roles import (
    ServiceDsn,
    ServicePasswords,
    ensure_database,
    ensure_service,
    with_database,
)
from shared.ids import new_id
from shared.postgres import migrate, read_migrations

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
PASSWORD = "only-for-tests"


def server_source() -> str:
    source = os.environ.get("TOLLBOOK_TEST_SERVERS", "embedded")
    if source not in ("embedded", "containers", "external"):
        raise ValueError(f"TOLLBOOK_TEST_SERVERS is {source!r}: use embedded, containers or external")
    return source


class ServerProcess:
    """One child process that a test may stop, kill and start again."""

    def __init__(self, program: Program, answers: Callable[[], bool], log: Path) -> None:
        self._program = program
        self._answers = answers
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError with its output when it does not."""
        with self._log.open("ab") as output:
            self._process = self._program.start(output)
        wait_until(
            self._answers,
            f"{self._program.name} to answer",
            lambda: self._process is None or self._process.poll() is not None,
            self.output,
        )

    def output(self) -> str:
        return self._log.read_text("utf-8", errors="replace")[-4000:]

    def stop(self) -> None:
        """Ask it to stop and wait for its end."""
        self._end(self._program.stop_signal)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._end(9)

    def _end(self, signal_number: int) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal_number)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None


class NatsProcess(ServerProcess):
    """A nats-server of one's own, with the folder's JetStream: the same again after kill() and start()."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"nats://127.0.0.1:{port}"
        self.store = folder / "jetstream"
        config = folder / "nats.conf"
        config.write_text(nats_server.plain_config(port, self.store), "utf-8")
        super().__init__(nats_server.program(config), lambda: nats_server.answers(port), folder / "nats.log")


class PostgresProcess(ServerProcess):
    """A PostgreSQL of one's own in the folder, its data made on construction (about a second). `settings`: without fsync."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = postgres_server.TEST_SETTINGS) -> None:
        port = free_port()
        self.dsn = postgres_server.admin_dsn(port, PASSWORD)
        password_file = folder / "password"
        password_file.write_text(PASSWORD + "\n", "utf-8")
        data = folder / "data"
        if not data.exists():
            postgres_server.initialise(data, password_file, sync=False)
        program = postgres_server.program(data, port, settings)
        super().__init__(program, lambda: postgres_server.answers(port), folder / "postgres.log")


def wait_until(
    condition: Callable[[], bool], what: str, given_up: Callable[[], bool] = lambda: False, output: Callable[[], str] = str
) -> None:
    """Poll `condition`; raise RuntimeError after START_TIMEOUT_S or when `given_up`, with `output` in its text."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if given_up() or time.monotonic() > deadline:
            raise RuntimeError(f"waited in vain for {what}:\n{output()}")
        time.sleep(0.05)


@contextmanager
def running_nats() -> Iterator[str]:
    """A NATS server for the session: its URL."""
    match server_source():
        case "external":
            yield os.environ["TOLLBOOK_TEST_NATS_URL"]
        case "containers":
            from tests.support.containers import nats_container

            with nats_container() as url:
                yield url
        case _:
            with tempfile.TemporaryDirectory(prefix="tollbook-nats-") as folder:
                server = NatsProcess(Path(folder))
                server.start()
                try:
                    yield server.url
                finally:
                    server.stop()


@contextmanager
def running_postgres() -> Iterator[str]:
    """A PostgreSQL server for the session: a superuser's DSN."""
    match server_source():
        case "external":
            yield os.environ["TOLLBOOK_TEST_POSTGRES_DSN"]
        case "containers":
            from tests.support.containers import postgres_container

            with postgres_container() as dsn:
                yield dsn
        case _:
            with tempfile.TemporaryDirectory(prefix="tollbook-postgres-") as folder:
                server = PostgresProcess(Path(folder))
                server.start()
                try:
                    yield server.dsn
                finally:
                    server.stop()


class PostgresDatabase:
    """One test's own database. `owner_dsn` is a superuser's."""

    def __init__(self, owner_dsn: str) -> None:
        self.owner_dsn = owner_dsn

    async def service_schema(self, service: str, migrations: Sequence[Path] | None = None) -> ServiceDsn:
        """The schema and both roles of `service` as the stack makes them, with its migrations applied.

        `migrations`: the folders to apply; by default those of services.<service>.app, none when there is no such service.
        """
        dsn = await ensure_service(self.owner_dsn, service, ServicePasswords(PASSWORD, PASSWORD))
        folders = service_migrations(service) if migrations is None else migrations
        if folders:
            await migrate(dsn.owner_dsn, service, service, read_migrations(*folders))
        return dsn


def service_migrations(service: str) -> Sequence[Path]:
    """What `python -m services.<service> --migrate` applies."""
    if importlib.util.find_spec(f"services.{service}") is None:
        return ()
    folders: Sequence[Path] = importlib.import_module(f"services.{service}.app").PROGRAM.migrations
    return folders


async def create_database(admin_dsn: str) -> PostgresDatabase:
    """An empty database under a new name."""
    name = f"test_{new_id()}"
    await ensure_database(admin_dsn, name)
    return PostgresDatabase(with_database(admin_dsn, name))


async def drop_database(admin_dsn: str, database: PostgresDatabase) -> None:
    """Drop it, ending whatever is still connected."""
    connection = await asyncpg.connect(admin_dsn, timeout=10)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {database.owner_dsn.rpartition('/')[2]} WITH (FORCE)")
    finally:
        await connection.close(timeout=10)


async def connect_nats(url: str) -> Client:
    """A connection that keeps quiet about errors: a test that kills the server does not want each failed reconnect told.

    `url` may be several, comma-separated.
    """

    async def quiet(error: Exception) -> None:
        pass

    return await nats.connect(url.split(","), error_cb=quiet, max_reconnect_attempts=-1, reconnect_time_wait=0.1)


async def round_trip(nc: Client) -> None:
    """Until the server has answered all that was sent: a first ping may overtake what nats-py still holds back, a second not."""
    for _ in range(2):
        await nc.flush()


async def delete_streams(nc: Client) -> None:
    """Delete every stream, and so every consumer and KV bucket, of the account."""
    while names := json.loads((await nc.request("$JS.API.STREAM.NAMES", b"{}", timeout=10)).data).get("streams"):
        for name in names:
            await nc.request(f"$JS.API.STREAM.DELETE.{name}", b"", timeout=10)
