"""The embedded stack, put together: servers, schemas, services, the proxy, in that order."""

from __future__ import annotations

import asyncio
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import asyncpg

from deploy import former
from deploy.errors import StackError
from deploy.files import write_private
from deploy.home import Home
from deploy.keys import POSTGRES_ADMIN, Keys
from deploy.local_http import request
from deploy.screen import Screen
from deploy.secrets import Secrets, public_key
from deploy.servers import caddy, nats, postgres
from deploy.servers.nats_config import DASHBOARDS, DASHBOARDS_API, stack_config
from deploy.servers.program import Program
from deploy.servers.roles import ServiceDsn, ensure_database, ensure_service
from deploy.services import PROJECT, SERVICES, ServiceSpec, program
from deploy.supervisor import Health, Part, Supervisor
from shared.catalog import CatalogBroken, load_catalog
from shared.clock import Clock

DATABASE: Final = "tollbook"
CATALOG: Final = PROJECT / "deploy" / "catalog.yaml"
TERMS: Final = PROJECT / "deploy" / "terms.yaml"
MODELS: Final = PROJECT / "deploy" / "models.yaml"
REVIEW: Final = PROJECT / "deploy" / "review.yaml"
SAMPLE: Final = "sample"
"""The one upstream that this stack has: the sample API. An entry of the catalog with another one is not proxied here."""
BUCKETS: Final = ("apps", "usage", "limits", "notifications", "reviews")
"""The KV buckets that dashboards may watch."""
HOUSE: Final = "tollbook"
"""The account of those who run this stack: of its reviewers and operators. Nobody reviews their own account's applications."""
PARTITIONS: Final = 16
SERVERS_TIMEOUT_S: Final = 60.0
SERVICES_TIMEOUT_S: Final = 90.0
MIGRATE_TIMEOUT_S: Final = 120.0
SMTP_TIMEOUT_S: Final = 3.0
NATS_SHOWN: Final = ("[WRN]", "[ERR]", "[FTL]")
NATS_USUAL: Final = "Websocket not configured with TLS"


class Stack:
    """One running stack. `ports` has a port for each name of settings.DEFAULT_PORTS, and for each service, the sample API,
    and the two that take mail and text messages (`inbox`, `sms`)."""

    def __init__(
        self, home: Home, secrets: Secrets, keys: Keys, ports: dict[str, int], log_level: str, screen: Screen, clock: Clock
    ) -> None:
        self.home = home
        self.secrets = secrets
        self.ports = ports
        self._keys = keys
        self._log_level = log_level
        self._screen = screen
        self._supervisor = Supervisor(home.run, screen, clock)
        self._dsn: dict[str, ServiceDsn] = {}

    async def start(self) -> None:
        """Start everything and wait until it answers. Raises StackError; what was started by then runs until `stop`."""
        await self._start_servers()
        await self._prepare_database()
        for spec in SERVICES:
            self._write_environment(spec)
        # Before the services, so that it is there when they send, and still there when they stop.
        await self._supervisor.start([self._inbox(), self._sms_receiver()], SERVERS_TIMEOUT_S)
        await asyncio.gather(*(self._migrate(spec) for spec in SERVICES if spec.schema))
        await self._supervisor.start([self._service(spec) for spec in SERVICES], SERVICES_TIMEOUT_S)
        await self._supervisor.start([self._sample_api(), self._proxy()], SERVERS_TIMEOUT_S)

    async def stop(self) -> None:
        await self._supervisor.stop()

    def kill(self) -> None:
        self._supervisor.kill_all()

    def pids(self) -> dict[str, int]:
        return self._supervisor.pids()

    def url(self, name: str) -> str:
        """The HTTP address of `proxy`, `console`, `gate` or any service."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def postgres_dsn(self) -> str:
        """The superuser's address of the stack's database."""
        return postgres.admin_dsn(self.ports["postgres"], self._keys.postgres_admin, DATABASE)

    def environment(self, spec: ServiceSpec) -> dict[str, str]:
        """All settings of one service."""
        told = {
            "CATALOG": str(CATALOG),
            "TERMS": str(TERMS),
            "MODELS": str(MODELS),
            "REVIEW": str(REVIEW),
            "PEPPER": self._keys.pepper,
            "VAULT_KEY": self._keys.vault.get(spec.name, ""),
            "PARTITIONS": str(PARTITIONS),
            "WORKER": "metering-1",
            "NATS_CALLOUT_SEED": self._keys.callout,
            "NATS_DASHBOARDS_ACCOUNT": DASHBOARDS,
            "NATS_DASHBOARDS_API": DASHBOARDS_API,
            "CONSOLE_URL": self.url("console"),
            "API_URL": self.url("proxy"),
            "REVIEWERS_ACCOUNT": HOUSE,
            **self._channels(),
        }
        values = {name: told[name] for name in spec.told}
        values["NATS_URL"] = f"nats://127.0.0.1:{self.ports['nats']}"
        values["NATS_SEED"] = self._keys.nats[spec.name]
        values["HTTP_PORT"] = str(self.ports[spec.name])
        values["LOG_LEVEL"] = self._log_level
        if spec.schema:
            values["POSTGRES_DSN"] = self._dsn[spec.name].dsn
        return {"PYTHONUNBUFFERED": "1", **{f"TOLLBOOK_{name}": value for name, value in values.items()}}

    def _channels(self) -> dict[str, str]:
        """How mail and text messages come to this stack's own receivers."""
        return {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(self.ports["inbox"]),
            "SMTP_SECURITY": "none",
            "MAIL_FROM": "tollbook@tollbook.test",
            "SMS_PROVIDER": "sens",
            "SMS_SENDER": "0212345678",
            "SENS_BASE_URL": self.url("sms"),
            **{f"SENS_{name.upper()}": value for name, value in self._keys.sens._asdict().items()},
        }

    async def _start_servers(self) -> None:
        config = self.home.run / "nats.conf"
        users = self._keys.nats_users()
        callout = public_key(self._keys.callout)
        text = stack_config(self.ports["nats"], self.ports["nats_websocket"], self.home.jetstream, users, callout, BUCKETS)
        write_private(config, text)
        if not self.home.postgres.exists():
            self._screen.say(f"first start: making the database in {self.home.postgres}")
            await asyncio.to_thread(postgres.initialise, self.home.postgres, self.secrets.path(POSTGRES_ADMIN))
        postgres.check_data(self.home.postgres)
        former.clear_stale_pid_file(self.home.postgres)
        database = postgres.program(self.home.postgres, self.ports["postgres"])
        parts = [
            Part(
                nats.program(config),
                _yes_or_silent(partial(nats.answers, self.ports["nats"])),
                _nats_shows,
                nats.last_error,
                nats.is_stuck,
                partial(nats.has_room, self.home.jetstream),
            ),
            Part(
                database, _yes_or_silent(partial(postgres.answers, self.ports["postgres"])), _postgres_shows, postgres.last_error
            ),
        ]
        try:
            await self._supervisor.start(parts, SERVERS_TIMEOUT_S)
        except StackError as error:
            raise StackError(f"{error} (its data is in {self.home.folder}; move that away to start empty)") from None

    async def _prepare_database(self) -> None:
        try:
            admin = postgres.admin_dsn(self.ports["postgres"], self._keys.postgres_admin)
            await ensure_database(admin, DATABASE)
            for spec in SERVICES:
                if spec.schema:
                    passwords = self._keys.postgres[spec.name]
                    self._dsn[spec.name] = await ensure_service(self.postgres_dsn(), spec.name, passwords)
        except asyncpg.InvalidPasswordError:
            raise StackError(
                f"PostgreSQL in {self.home.postgres} does not know the password in {self.secrets.path(POSTGRES_ADMIN)}:"
                " the two belong to different folders."
            ) from None
        except (asyncpg.PostgresError, OSError, TimeoutError) as error:
            raise StackError(f"PostgreSQL in {self.home.postgres} cannot be prepared: {error or type(error).__name__}") from None

    def _write_environment(self, spec: ServiceSpec) -> None:
        """Keep `run/<service>.env`, from which an operator's shell takes the settings for the service's own commands."""
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in self.operator_environment(spec).items())
        write_private(self.home.run / f"{spec.name}.env", "".join(lines))

    def operator_environment(self, spec: ServiceSpec) -> dict[str, str]:
        """The service's settings, and the right to change its schema."""
        owner = {"TOLLBOOK_POSTGRES_OWNER_DSN": self._dsn[spec.name].owner_dsn} if spec.schema else {}
        return self.environment(spec) | owner

    async def _migrate(self, spec: ServiceSpec) -> None:
        """Bring the service's schema up to date, with a process of its own as any operator would, whom run/<name>.env is for."""
        done = await run_tool(spec, ["--migrate"], self.operator_environment(spec), MIGRATE_TIMEOUT_S)
        if done.returncode != 0:
            raise StackError(
                f"the schema of {spec.name} cannot be brought up to date: {postgres.last_error(done.stderr.splitlines())}"
            )

    def _service(self, spec: ServiceSpec) -> Part:
        url = f"{self.url(spec.name)}/readyz"
        return Part(program(spec, self.environment(spec)), partial(_http_health, url))

    def _sample_api(self) -> Part:
        command = (sys.executable, "-m", "deploy.sample_api", str(self.ports["sample"]))
        return Part(Program("sample", command, folder=PROJECT), partial(_http_health, f"{self.url('sample')}/healthz"))

    def _inbox(self) -> Part:
        port = self.ports["inbox"]
        command = (sys.executable, "-m", "deploy.inbox", str(port), str(self.home.inbox))
        return Part(Program("inbox", command, folder=PROJECT), _yes_or_silent(partial(smtp_answers, port)))

    def _sms_receiver(self) -> Part:
        command = (sys.executable, "-m", "deploy.sms_receiver", str(self.ports["sms"]), str(self.home.sms))
        program = Program("sms", command, self._keys.sens.environment(), folder=PROJECT)
        return Part(program, partial(_http_health, f"{self.url('sms')}/healthz"))

    def _proxy(self) -> Part:
        sample = f"127.0.0.1:{self.ports['sample']}"
        try:
            entries = load_catalog(CATALOG).values()
        except CatalogBroken as error:
            raise StackError(str(error)) from None
        routes = [caddy.Route(entry.id, entry.proxy_path, sample) for entry in entries if entry.upstream == SAMPLE]
        config = self.home.run / "Caddyfile"
        write_private(config, caddy.caddyfile(self.ports["proxy"], self.ports["gate"], routes))
        # Any answer will do: a path that no API has is 404.
        health = partial(_http_health, f"{self.url('proxy')}/", ready_status=404)
        return Part(caddy.program(config, self.home.caddy), health)


async def run_tool(
    spec: ServiceSpec, arguments: Sequence[str], environment: dict[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """`python -m services.<name> ARGUMENT...`: its exit code, output and errors. Raises StackError when it takes too long."""
    tool = program(spec, environment)
    command = Program(f"{spec.name} {arguments[0]}", (*tool.command, *arguments), environment, folder=tool.folder)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command.command,
            env=command.full_environment(),
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    try:
        return await asyncio.to_thread(run)
    except subprocess.TimeoutExpired:
        raise StackError(f"{command.name} took longer than {timeout_s:.0f} s.") from None


def _yes_or_silent(answers: Callable[[], bool]) -> Callable[[], Health]:
    return lambda: Health.READY if answers() else Health.SILENT


def smtp_answers(port: int) -> bool:
    """Whether a mail server greets on that port of this machine now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=SMTP_TIMEOUT_S) as connection:
            return connection.recv(4) == b"220 "
    except OSError:
        return False


def _http_health(url: str, ready_status: int = 200) -> Health:
    try:
        status = request("GET", url).status
    except OSError:
        return Health.SILENT
    return Health.READY if status == ready_status else Health.NOT_READY


def _nats_shows(line: str) -> bool:
    return any(mark in line for mark in NATS_SHOWN) and NATS_USUAL not in line


def _postgres_shows(line: str) -> bool:
    return not line.startswith("LOG:")
