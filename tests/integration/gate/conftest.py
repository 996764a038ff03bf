"""A registry to speak for, and a gate that listens."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client

from tests.support.gates import Gate, Registry, declare, running_gate


@pytest.fixture
async def registry(nc: Client) -> Registry:
    await declare(nc)
    return Registry(nc)


@pytest.fixture
async def gate(nats_url: str, registry: Registry) -> AsyncIterator[Gate]:
    async with running_gate(nats_url) as running:
        yield running
