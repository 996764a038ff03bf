"""One stack for the tests that leave it whole; tests that break one make their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.stack import Customer, StackProcess


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProcess]:
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
