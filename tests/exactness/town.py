"""Real servers, gate and metering processes on them, and how they are hurt."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import httpx
from nats.aio.client import Client

from deploy.servers.program import free_port
from shared.commands.base import Reply
from shared.commands.limits import SetAccountLimit, SetLimits
from shared.commands.requester import ask
from shared.errors import NotFound, Unavailable
from shared.events.registry import AccountOpened
from shared.ids import new_id, new_vault_key
from shared.streams.declare import ensure_stream, log_stream
from tests.exactness.hammer import Door
from tests.support.gates import CATALOG, PEPPER, Issued, Registry, until
from tests.support.servers import NatsProcess, PostgresDatabase, PostgresProcess, connect_nats, create_database

ROOT: Final = Path(__file__).parents[2]
PARTITIONS: Final = 4
LEASE_S: Final = 2.0
MARGIN_S: Final = 0.3
START_S: Final = 60.0
ACCOUNT: Final = "acme"


class Midnight(NamedTuple):
    """A zone, and by how many seconds clocks have to be behind, so that the zone's midnight comes at a wanted moment."""

    zone: str
    behind_s: float


def midnight_at(moment: datetime) -> Midnight:
    """The last full hour before `moment` is midnight in one of the zones of full hours: clocks that far behind see it then."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    east = -hour.hour if hour.hour <= 12 else 24 - hour.hour
    zone = "Etc/GMT" if east == 0 else f"Etc/GMT{-east:+d}"  # POSIX signs: Etc/GMT-9 is nine hours east
    return Midnight(zone, (moment - hour).total_seconds())


class Worker:
    """A service process that is started again at the same port after it was killed."""

    def __init__(self, service: str, folder: Path, name: str, behind_s: float, settings: Mapping[str, object]) -> None:
        self.port = free_port()
        self.log = folder / f"{name}.log"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("TOLLBOOK_")}
        told = {f"TOLLBOOK_{key}": str(value) for key, value in settings.items()}
        self._env = {**clean, **told, "TOLLBOOK_HTTP_PORT": str(self.port)}
        self._command = [sys.executable, "-m", "tests.exactness.shifted", service, str(behind_s)]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def door(self) -> Door:
        return Door(self.port, lambda: self.pid)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=self._env, stdout=output, stderr=output)

    def kill(self) -> int:
        """kill -9, and start it again; which process it was."""
        assert self._process is not None
        gone = self._process.pid
        self._process.kill()
        self._process.wait(10)
        self.start()
        return gone

    async def pause(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after that time."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    async def ready(self) -> None:
        """Wait until /readyz says so."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:

            async def is_ready() -> bool:
                try:
                    return (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            try:
                await until(is_ready, f"{self.log.stem} to be ready", START_S)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log.read_text()[-3000:]}") from None


class Town:
    """Everything that runs. `nc` goes on working when NATS is killed and started again."""

    def __init__(self, nats: NatsProcess, nc: Client, database: asyncpg.Pool[asyncpg.Record]) -> None:
        self.nats = nats
        self.nc = nc
        self.database = database
        self.registry = Registry(nc)
        self.gates: list[Worker] = []
        self.workers: list[Worker] = []

    async def register(self) -> Issued:
        return await self.registry.registers()

    async def limit(self, app: Issued, daily: int | None, monthly: int | None) -> None:
        """Set the limits of an application, as soon as metering has heard of it."""
        command = SetLimits(
            command_id=new_id(),
            account=ACCOUNT,
            actor="service:test",
            client_id=app.client_id,
            service="csr",
            daily=daily,
            monthly=monthly,
        )
        await self._ask(command)

    async def limit_account(self, monthly: int) -> None:
        await self._ask(
            SetAccountLimit(command_id=new_id(), account=ACCOUNT, actor="service:test", service="csr", monthly=monthly)
        )

    async def _ask(self, command: SetLimits | SetAccountLimit) -> None:
        async def done() -> bool:
            try:
                await ask(self.nc, "metering", command, Reply)
            except (NotFound, Unavailable):
                return False
            return True

        await until(done, "a limit to be set", START_S)

    async def counted(self, client_id: str, period: str = "d") -> dict[datetime, int]:
        """Units by window."""
        rows = await self.database.fetch(
            "SELECT window_start, units FROM counter WHERE client_id = $1 AND period = $2 AND units <> 0", client_id, period
        )
        return {row["window_start"]: row["units"] for row in rows}

    async def set_aside(self) -> int:
        """Leases that are not closed."""
        return int(await self.database.fetchval("SELECT count(*) FROM quota_lease WHERE closed_at IS NULL"))


@asynccontextmanager
async def running_town(folder: Path, gates: int, midnight_after_s: float) -> AsyncIterator[Town]:
    """A town of so many gates and two metering workers, in whose zone midnight comes that long after it was begun."""
    midnight = midnight_at(datetime.now(UTC) + timedelta(seconds=midnight_after_s))
    nats, postgres = NatsProcess(folder), PostgresProcess(folder)
    nats.start()
    postgres.start()
    nc = await connect_nats(nats.url)
    town: Town | None = None
    try:
        database: PostgresDatabase = await create_database(postgres.dsn)
        dsn = await database.service_schema("metering")
        async with asyncpg.create_pool(
            dsn.owner_dsn, server_settings={"search_path": "metering"}, min_size=1, max_size=2
        ) as pool:
            town = Town(nats, nc, pool)
            await ensure_stream(nc, log_stream("registry"))
            await town.registry.says(AccountOpened(account=ACCOUNT, zone=midnight.zone))
            common = {"NATS_URL": nats.url, "CATALOG": CATALOG, "PARTITIONS": PARTITIONS}
            counting = {
                **common,
                "POSTGRES_DSN": dsn.dsn,
                "VAULT_KEY": new_vault_key(),
                "LEASE_S": LEASE_S,
                "LEASE_MARGIN_S": MARGIN_S,
            }
            town.workers = [Worker("metering", folder, f"metering-{n}", midnight.behind_s, counting) for n in range(2)]
            await town.workers[0].ready()
            town.gates = [
                Worker("gate", folder, f"gate-{n}", midnight.behind_s, {**common, "PEPPER": PEPPER}) for n in range(gates)
            ]
            for gate in town.gates:
                await gate.ready()
            yield town
    finally:
        for process in (*town.gates, *town.workers) if town is not None else ():
            process.end()
        await nc.close()
        postgres.stop()
        nats.stop()
