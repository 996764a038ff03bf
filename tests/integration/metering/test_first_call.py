"""Whether an application has ever made a call to a service: what a review asks before it begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.clock import SystemClock
from shared.commands.metering import FirstCall, GetFirstCall
from shared.commands.requester import ask
from shared.errors import InvalidInput, NotFound
from shared.events.usage import UsageRecord
from tests.integration.metering.test_corrections import record, void
from tests.support.metering_process import Meter, MeteringProcess, RegistryFeed, eventually, now_us, rows, used

A, B, N = "a" * 20, "b" * 20, "n" * 20


async def first_call(nc: Client, client_id: str = A, service: str = "csr", account: str = "acme") -> FirstCall:
    return await ask(nc, "metering", GetFirstCall(account=account, client_id=client_id, service=service), FirstCall, timeout_s=10)


async def counted_by_now(nc: Client, client_id: str = A, service: str = "csr") -> bool:
    """What is answered as soon as everything up to now is counted."""
    asked_at = SystemClock().now()
    found = await first_call(nc, client_id, service)

    async def up_to_date() -> bool:
        nonlocal found
        found = await first_call(nc, client_id, service)
        return found.as_of >= asked_at

    await eventually(up_to_date, True)
    return found.called


async def test_who_has_called_where(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    assert not await counted_by_now(nc, B)
    await meter.count(UsageRecord(B, "csr", now_us(), 1))
    assert await counted_by_now(nc, B)
    assert not await counted_by_now(nc, B, "clova-voice")
    assert not await counted_by_now(nc, A)


async def test_a_call_of_years_ago_is_a_call(nc: Client, worker: MeteringProcess, schema: ServiceDsn) -> None:
    at = datetime(2019, 3, 1, tzinfo=UTC) - timedelta(hours=9)
    await rows(schema, "SELECT make_shelf('m', $1)", datetime(2019, 1, 1, tzinfo=UTC))
    insert = """
        INSERT INTO counter (client_id, service, period, window_start, calls, units, late_units, after_close_units)
        VALUES ($1, 'csr', 'm', $2, 1, 1, 0, 0)
    """
    await rows(schema, insert, A, at)
    assert await counted_by_now(nc)


async def test_what_a_correction_took_back_was_called_even_so(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    await meter.send(record("r1", 5))
    await meter.send(void("v1", "r1"))
    assert await counted_by_now(nc)
    assert await rows(schema, "SELECT calls FROM counter WHERE client_id = $1 AND period = 'm'", A) == [(0,)]


async def test_what_a_gate_took_back_was_none(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    one = UsageRecord(A, "csr", now_us(), 1)
    await meter.count(one)
    await meter.count(one, retracted=True)
    await eventually(lambda: used(nc, A), 0)
    assert not await counted_by_now(nc)


async def test_an_application_registered_a_moment_ago_is_known(
    nc: Client, worker: MeteringProcess, registry: RegistryFeed
) -> None:
    await registry.register("m" * 20)
    assert not (await first_call(nc, "m" * 20)).called


async def test_of_others_and_of_nothing(nc: Client, worker: MeteringProcess, registry: RegistryFeed) -> None:
    with pytest.raises(NotFound):
        await first_call(nc, N)
    with pytest.raises(NotFound):
        await first_call(nc, "z" * 20)
    with pytest.raises(InvalidInput) as refused:
        await first_call(nc, service="nope")
    assert [one.field for one in refused.value.fields] == ["service"]
    await registry.delete(A)

    async def gone() -> bool:
        try:
            await first_call(nc)
        except NotFound:
            return True
        return False

    await eventually(gone, True)
