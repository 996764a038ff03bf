"""A registry to speak for, and a gate that listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from nats.aio.client import Client

from tests.support.gates import Gate, Registry, declare, running_gate
from tests.support.granting import Granting, Metering

KST = timedelta(hours=9)


@pytest.fixture
async def registry(nc: Client) -> Registry:
    await declare(nc)
    return Registry(nc)


@pytest.fixture
async def gate(nats_url: str, registry: Registry) -> AsyncIterator[Gate]:
    async with running_gate(nats_url) as running:
        yield running


@pytest.fixture
async def metering(nc: Client, registry: Registry) -> AsyncIterator[Metering]:
    running = Metering(nc, Granting(offset=KST))
    await running.start()
    yield running
    await running.stop()
