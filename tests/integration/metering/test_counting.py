"""From the stream to the answer: every record once, in its own window, and visible to who asks and who watches."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from deploy.servers.roles import ServiceDsn
from shared.commands.metering import CredentialUse, GetCredentialUse
from shared.commands.requester import ask
from shared.errors import InvalidInput, NotFound
from shared.events.usage import UsageRecord
from shared.streams.publish import Outgoing
from shared.windows import civil, from_us
from tests.support.metering_process import (
    PARTITIONS,
    Meter,
    MeteringProcess,
    RegistryFeed,
    dead_letters,
    eventually,
    now_us,
    rows,
    usage,
    used,
)

A, B, N = "a" * 20, "b" * 20, "n" * 20
MARKED = (PARTITIONS, PARTITIONS)
"""The progress of a worker over a stream that had nothing."""


async def test_batches_count_once_by_application_and_service(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    at = now_us()
    await meter.count(UsageRecord(A, "csr", at, 2), UsageRecord(A, "csr", at, 3))
    await meter.count(UsageRecord(A, "csr", at, 2), UsageRecord(A, "csr", at, 3), again=True)
    await meter.count(UsageRecord(B, "csr", at, 1))
    last = await meter.count(UsageRecord(B, "clova-voice", at, 100))
    await eventually(lambda: used(nc, B, "clova-voice"), 100)
    answer = await usage(nc, A)
    assert (answer.used, answer.calls, answer.limit, answer.late, answer.zone) == (5, 2, None, 0, "Asia/Seoul")
    day = civil("Asia/Seoul").day(from_us(at))
    assert (answer.window_start, answer.resets_at) == day
    assert len(answer.history) == 31
    assert (answer.history[-1].window_start, answer.history[-1].used) == (day.start, 5)
    assert {window.used for window in answer.history[:-1]} == {0}
    month = await usage(nc, A, period="monthly")
    assert (month.used, month.window_start, len(month.history)) == (5, civil("Asia/Seoul").month(from_us(at)).start, 12)
    assert await used(nc, B) == 1
    assert (await usage(nc, B, "clova-voice")).position == last
    assert "tollbook_metering_records_total 4.0" in await worker.metrics()


async def test_what_is_asked_is_as_of_now_when_all_is_counted(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    await eventually(lambda: progress_of(schema), MARKED)
    before = datetime.now(UTC)
    answer = await usage(nc, A)
    assert before <= answer.as_of <= datetime.now(UTC)
    assert (answer.used, answer.position) == (0, PARTITIONS)
    sequence = await meter.count(UsageRecord(A, "csr", now_us()))
    await eventually(lambda: used(nc, A), 1)
    answer = await usage(nc, A)
    assert answer.position == sequence
    assert answer.as_of > before


async def test_a_worker_that_starts_marks_each_partition_once_and_that_counts_nothing(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    await eventually(lambda: progress_of(schema), MARKED)
    assert await rows(schema, "SELECT count(DISTINCT publisher), count(*) FROM publisher_position") == [(PARTITIONS, PARTITIONS)]
    for table in ("counter", "credential_use", "dead_letter", "limit_mark"):
        assert await rows(schema, f"SELECT count(*) FROM {table}") == [(0,)], table
    await asyncio.sleep(0.6)  # two rounds of whoever could publish more of them
    assert await meter.count(UsageRecord(A, "csr", now_us())) == PARTITIONS + 1
    assert await dead_letters(nc) == []


async def progress_of(schema: ServiceDsn) -> tuple[int, int]:
    """How many subjects are counted, and how far."""
    [(subjects, newest)] = await rows(schema, "SELECT count(*), coalesce(max(sequence), 0) FROM progress WHERE sequence > 0")
    return subjects, newest


async def test_history_is_bounded_and_checked(nc: Client, worker: MeteringProcess, registry: RegistryFeed) -> None:
    answer = await usage(nc, N, account="globex", from_="2026-03-07", to="2026-03-09")
    assert [window.window_start.isoformat() for window in answer.history] == [
        "2026-03-07T05:00:00+00:00",
        "2026-03-08T05:00:00+00:00",
        "2026-03-09T04:00:00+00:00",
    ]
    with pytest.raises(InvalidInput) as after:
        await usage(nc, A, from_="2026-03-07", to="2026-03-01")
    assert [problem.field for problem in after.value.fields] == ["from"]
    with pytest.raises(InvalidInput):
        await usage(nc, A, from_="2020-01-01", to="2026-03-01")
    assert len((await usage(nc, A, period="monthly", from_="2020-01-01", to="2026-03-01")).history) == 75
    with pytest.raises(InvalidInput) as unknown:
        await usage(nc, A, "no-such-service")
    assert [problem.field for problem in unknown.value.fields] == ["service"]
    for client_id, account in [(A, "globex"), ("z" * 20, "acme"), (A, "nobody")]:
        with pytest.raises(NotFound):
            await usage(nc, client_id, account=account)
        with pytest.raises(NotFound):
            await ask(nc, "metering", GetCredentialUse(account=account, client_id=client_id), CredentialUse, 10)
    await registry.delete(N, "globex")

    async def there() -> bool:
        try:
            await usage(nc, N, account="globex")
        except NotFound:
            return False
        return True

    await eventually(there, False)


async def test_late_usage_counts_in_its_own_window(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    now = datetime.now(UTC)
    windows = civil("America/New_York")
    earlier = windows.before("day", now, 3)
    at = int((earlier.start + timedelta(hours=1)).timestamp() * 1_000_000)
    await meter.count(UsageRecord(N, "csr", at, 7), UsageRecord(N, "csr", now_us(), 1))
    await eventually(lambda: used(nc, N, account="globex"), 1)
    answer = await usage(nc, N, account="globex")
    assert {window.window_start: window.used for window in answer.history if window.used} == {
        earlier.start: 7,
        windows.day(now).start: 1,
    }
    assert answer.late == 0
    if windows.month(earlier.start) == windows.month(now):
        assert (await usage(nc, N, account="globex", period="monthly")).late == 7


async def test_retracted_batches_count_nothing(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    record = UsageRecord(A, "csr", now_us(), 5)
    await meter.count(record)
    await eventually(lambda: used(nc, A), 5)
    await meter.count(record, retracted=True)
    await eventually(lambda: used(nc, A), 0)
    await meter.count(record, retracted=True)
    await meter.count(record, again=True)
    await meter.count(UsageRecord(A, "csr", now_us(), 1))
    await eventually(lambda: used(nc, A), 1)
    assert (await usage(nc, A)).calls == 1


async def test_single_events_count_once_and_conflicts_are_kept(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    def event(quantity: int, id_: str = "1") -> Outgoing:
        headers = {
            "ce-specversion": "1.0",
            "ce-type": "tollbook.usage.UsageRecorded.v1",
            "ce-source": "/meters/7",
            "ce-id": id_,
            "ce-time": datetime.now(UTC).strftime("%Y-%m-%dT%H:00:00Z"),
            "Content-Type": "application/json",
        }
        data = {"client_id": A, "service": "csr", "quantity": quantity}
        return Outgoing("usage.cloudevents", msgspec.json.encode(data), headers)

    first = event(2)
    await meter.send(first)
    await meter.send(first)
    conflict = await meter.send(event(3))
    await meter.send(event(10, "2"))
    await eventually(lambda: used(nc, A), 12)
    await meter.send(first)
    await meter.send(event(100, "3"))
    await eventually(lambda: used(nc, A), 112)
    [(headers, data)] = await dead_letters(nc)
    assert headers["tollbook-why"] == "conflict"
    assert headers["tollbook-sequence"] == str(conflict)
    assert headers["Nats-Msg-Id"] == f"USAGE-{conflict}"
    assert (headers["tollbook-original-ce-id"], headers["tollbook-subject"]) == ("1", "usage.cloudevents")
    assert json.loads(data)["quantity"] == 3


async def test_the_dashboard_bucket_follows(nc: Client, worker: MeteringProcess, meter: Meter, registry: RegistryFeed) -> None:
    bucket = await nc.jetstream().key_value("usage")

    async def value(client_id: str = A, service: str = "csr") -> tuple[int, int, int] | None:
        try:
            found = json.loads((await bucket.get(f"acme.{client_id}.{service}")).value or b"")
        except KeyNotFoundError:
            return None
        return found["daily"]["used"], found["monthly"]["used"], found["position"]

    async def first() -> tuple[int, int] | None:
        found = await value()
        return None if found is None else found[:2]

    await eventually(first, (0, 0))
    sequence = await meter.count(UsageRecord(A, "csr", now_us(), 4))
    await eventually(value, (4, 4, sequence))
    whole = json.loads((await bucket.get(f"acme.{A}.csr")).value or b"")
    day = civil("Asia/Seoul").day(datetime.now(UTC))
    assert datetime.fromisoformat(whole["daily"]["resets_at"]) == day.end
    assert (whole["client_id"], whole["service"], whole["unit"], whole["daily"]["calls"]) == (A, "csr", "second15", 1)
    await registry.edit(B, ["csr"])
    await eventually(lambda: value(B, "clova-voice"), None)
    await registry.delete(A)
    await eventually(value, None)


async def test_the_last_use_of_secrets(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    at = now_us()
    await meter.count(UsageRecord(A, "csr", at - 10, 1, "s1"), UsageRecord(A, "csr", at, 1, "s1"), UsageRecord(A, "csr", at))
    query = GetCredentialUse(account="acme", client_id=A)

    async def secrets() -> dict[str, datetime]:
        return (await ask(nc, "metering", query, CredentialUse, 10)).secrets

    await eventually(secrets, {"s1": from_us(at)})
    await meter.count(UsageRecord(A, "csr", at + 1_000_000, 1, "s1"))  # within the minute: not written
    await meter.count(UsageRecord(A, "csr", at + 61_000_000, 1, "s1"))
    await eventually(secrets, {"s1": from_us(at + 61_000_000)})


async def test_usage_of_an_app_registered_a_moment_ago_counts(
    nc: Client, worker: MeteringProcess, meter: Meter, registry: RegistryFeed
) -> None:
    for number in range(10):
        client_id = f"{number:020d}"
        await registry.register(client_id)
        await meter.count(UsageRecord(client_id, "csr", now_us()))
        await eventually(lambda client_id=client_id: used(nc, client_id), 1)  # type: ignore[misc]
    assert await dead_letters(nc) == []


async def test_counters_are_hourly_too(schema: ServiceDsn, nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    at = now_us()
    await meter.count(UsageRecord(A, "csr", at, 2))
    await eventually(lambda: used(nc, A), 2)
    found = await rows(schema, "SELECT window_start, units FROM counter WHERE client_id = $1 AND period = 'h'", A)
    assert found == [(civil("Asia/Seoul").hour(from_us(at)).start, 2)]
