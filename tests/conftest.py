"""Fixtures for every test: a NATS and a PostgreSQL per session, a clean state on them per test; no sockets in unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from xdist.remote import Producer

from tests.support.preloaded import end_preloaded
from tests.support.servers import (
    NatsProcess,
    PostgresDatabase,
    connect_nats,
    create_database,
    delete_streams,
    drop_database,
    running_nats,
    running_postgres,
)
from tests.support.side_by_side import SideBySide, rank
from tests.support.stack import Customer, StackProcess

TESTS = Path(__file__).parent
UNIT = TESTS / "unit"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(UNIT):
            item.add_marker(pytest.mark.disable_socket)
    items.sort(key=lambda item: rank(item.path.relative_to(TESTS).parts[0]))


def pytest_sessionfinish() -> None:
    end_preloaded()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SideBySide:
    return SideBySide(config, log)


@pytest.fixture(scope="session")
def nats_session() -> Iterator[str]:
    with running_nats() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_session() -> Iterator[str]:
    with running_postgres() as dsn:
        yield dsn


@pytest.fixture
async def nats_url(nats_session: str) -> str:
    """A NATS server without any stream."""
    nc = await connect_nats(nats_session)
    try:
        await delete_streams(nc)
    finally:
        await nc.close()
    return nats_session


@pytest.fixture
async def nc(nats_url: str) -> AsyncIterator[Client]:
    """A connection to `nats_url`."""
    connection = await connect_nats(nats_url)
    yield connection
    await connection.close()


@pytest.fixture
async def postgres(postgres_session: str) -> AsyncIterator[PostgresDatabase]:
    """An empty database of the test's own."""
    database = await create_database(postgres_session)
    yield database
    await drop_database(postgres_session, database)


@pytest.fixture
def private_nats(tmp_path: Path) -> Iterator[NatsProcess]:
    """An embedded NATS server of the test's own, running, to be killed and started at will (always embedded)."""
    server = NatsProcess(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProcess]:
    """One stack for the tests that leave it whole; tests that break one make their own."""
    process = StackProcess(tmp_path_factory.mktemp("stack") / "home")
    try:
        yield process.start()
    finally:
        process.stop()


@pytest.fixture
async def owner(stack: StackProcess) -> AsyncIterator[Customer]:
    """The owner of the first account."""
    async with Customer(stack) as customer:
        yield customer
