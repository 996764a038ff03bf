"""Commands: registering applications through NATS, 16 at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.ids import new_client_id
from tests.bench.examples import PEPPER
from tests.bench.measure import Aim, Row, interleaved, row
from tests.bench.place import Place, ServiceProcess
from tests.bench.replay import peer
from tests.support.registry_process import VAULT_KEY, Customer
from tests.support.servers import create_database, drop_database

AT_ONCE: Final = 16
SECONDS: Final = 4.0
PEER_SECONDS: Final = 2.0


def registry_settings(place: Place, dsn: ServiceDsn) -> dict[str, object]:
    return {
        "NATS_URL": place.nats_url,
        "POSTGRES_DSN": dsn.dsn,
        "CATALOG": "deploy/catalog.yaml",
        "TERMS": "deploy/terms.yaml",
        "PEPPER": PEPPER,
        "VAULT_KEY": VAULT_KEY,
    }


async def registered(nc: Client) -> float:
    """Register applications for SECONDS, AT_ONCE of them at a time: commands a second, each answered after its commit.

    Each of those who ask has an account of its own, as customers have.
    """
    customers = [await Customer(nc, new_client_id()).opened() for _ in range(AT_ONCE)]
    began = time.perf_counter()
    until = began + SECONDS
    done = 0

    async def work(customer: Customer) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await customer.register()
            done += 1

    await asyncio.gather(*map(work, customers))
    return done / (time.perf_counter() - began)


async def measure(place: Place) -> list[Row]:
    """RegisterApp beside pyeventsourcing's save of one aggregate, by one thread and by as many as ours are at once."""
    async with place.cleared() as (nc, database):
        dsn = await database.service_schema("registry")
        peers_own = await create_database(place.postgres_dsn)
        process = ServiceProcess("services.registry", place.folder, registry_settings(place, dsn))
        try:
            await process.ready()

            async def saved(threads: int) -> float:
                return float((await peer(peers_own, "save", PEER_SECONDS, threads))["per_second"])

            found = await interleaved(
                {
                    "RegisterApp": lambda: registered(nc),
                    "pyeventsourcing, one thread": lambda: saved(1),
                    f"pyeventsourcing, {AT_ONCE} threads": lambda: saved(AT_ONCE),
                }
            )
        finally:
            process.stop()
            await drop_database(place.postgres_dsn, peers_own)
    ours, one, several = found.values()
    best, how = (one, "one thread") if one.median >= several.median else (several, f"{AT_ONCE} threads")
    what = f"RegisterApp through NATS, {AT_ONCE} at a time"
    name = f"pyeventsourcing: save of one aggregate (the better of 1 and {AT_ONCE} threads: {how})"
    return [row("commands", what, "commands/s", ours, best, name, Aim(2.0))]
