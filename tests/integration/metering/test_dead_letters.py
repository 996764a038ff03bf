"""What does not count is kept with its reason, and never stops what comes after it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js.errors import NoStreamResponseError

from deploy.servers.roles import ServiceDsn
from shared.events.usage import UsageBatch, UsageRecord, partition_of
from shared.streams.publish import Outgoing
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

A, B = "a" * 20, "b" * 20
DAY_US = 86_400_000_000
MINUTE_US = 60_000_000


def letter_of(sequence: int, letters: list[tuple[dict[str, str], bytes]]) -> list[tuple[dict[str, str], bytes]]:
    return [letter for letter in letters if letter[0]["tollbook-sequence"] == str(sequence)]


async def test_bad_records_of_a_batch_are_kept_and_the_rest_counts(
    nc: Client, worker: MeteringProcess, meter: Meter, registry: RegistryFeed
) -> None:
    now = now_us()
    bad = {
        "too_old": UsageRecord(A, "csr", now - 35 * DAY_US - MINUTE_US),
        "in_the_future": UsageRecord(A, "csr", now + 6 * MINUTE_US),
        "unknown_application": UsageRecord("u" * 20, "csr", now),
        "unknown_service": UsageRecord(A, "nope", now),
        "invalid_record": UsageRecord(A, "csr", now, 0),
    }
    good = [UsageRecord(A, "csr", now - 35 * DAY_US + MINUTE_US), UsageRecord(A, "csr", now + 4 * MINUTE_US)]
    sequence = await meter.count(UsageRecord(A, "csr", now), *bad.values(), *good)
    await eventually(lambda: meter_calls(nc), 3)
    letters = await dead_letters(nc)
    assert [headers["tollbook-why"] for headers, _ in letters] == list(bad)
    assert [headers["tollbook-record"] for headers, _ in letters] == ["1", "2", "3", "4", "5"]
    assert {headers["Nats-Msg-Id"] for headers, _ in letters} == {f"USAGE-{sequence}-{n}" for n in range(1, 6)}
    assert [msgspec.msgpack.decode(data, type=UsageRecord) for _, data in letters] == list(bad.values())
    assert {headers["tollbook-original-content-type"] for headers, _ in letters} == {"application/msgpack"}
    metrics = await worker.metrics()
    assert 'tollbook_metering_dead_letters_total{why="too_old"} 1.0' in metrics
    assert 'tollbook_lag_messages{part="usage",source="USAGE usage.cloudevents"} 0.0' in metrics


async def meter_calls(nc: Client) -> int:
    """Calls of A on record, whenever they were: today's, and those of the oldest and newest window that still count."""
    answer = await usage(nc, A, from_=None)
    history = await usage(nc, A, from_=_days_ago(36), to=_days_ago(-1))
    assert answer.used <= 3
    return sum(window.calls for window in history.history)


def _days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


async def test_messages_that_cannot_be_read_are_kept_whole(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    mine = f"usage.records.{partition_of(A, PARTITIONS)}"
    content = msgspec.json.encode(UsageBatch(publisher="p", seq=1, records=[UsageRecord(A, "csr", now_us())]))
    sent: list[tuple[Outgoing, str]] = [
        (Outgoing(mine, b"\xc1\x00", {"Content-Type": "application/msgpack"}), "unreadable"),
        (Outgoing(mine, content, {"Content-Type": "text/csv"}), "content_type"),
        (Outgoing(mine, content, {}), "content_type"),
        (Outgoing(mine, b"{" * 500_000, {"Content-Type": "application/json"}), "unreadable"),
        (Outgoing(mine, content.replace(b'"p"', b'"a\\u0000b"'), {"Content-Type": "application/json"}), "unreadable"),
        (Outgoing("usage.cloudevents", b"hello", {"X-Long": "x" * 65_000}), "unreadable"),
        (Outgoing("usage.cloudevents", b"", {"ce-specversion": "1.0", "ce-id": "\u00e9"}), "unreadable"),
        (Outgoing("usage.cloudevents", b"{}", _event("tollbook.usage.Other.v1")), "unknown_type"),
        (Outgoing("usage.cloudevents", b'{"quantity": 1.5}', _event("tollbook.usage.UsageRecorded.v1")), "invalid_record"),
    ]
    sequences = [(await meter.send(outgoing), outgoing, why) for outgoing, why in sent]
    await meter.send(Outgoing(mine, content, {"Content-Type": "application/json"}))
    await eventually(lambda: used(nc, A), 1)

    async def kept() -> int:
        return len(await dead_letters(nc))

    await eventually(kept, len(sent))
    letters = await dead_letters(nc)
    for sequence, outgoing, why in sequences:
        [(headers, data)] = letter_of(sequence, letters)
        assert (headers["tollbook-why"], data) == (why, outgoing.data), headers["tollbook-reason"]
        assert headers["tollbook-reason"]


def _event(type_: str) -> dict[str, str]:
    return {"ce-specversion": "1.0", "ce-type": type_, "ce-source": "/m", "ce-id": "1", "Content-Type": "application/json"}


async def test_a_message_as_big_as_the_server_takes_still_becomes_a_dead_letter(
    nc: Client, worker: MeteringProcess, meter: Meter
) -> None:
    headers = {"Content-Type": "application/json"}
    biggest = Outgoing("usage.cloudevents", b"", headers)
    biggest = biggest._replace(data=b"x" * (nc.max_payload - biggest.size))
    sequence = await meter.send(biggest)

    async def whys() -> list[str]:
        return [one["tollbook-why"] for one, _ in await dead_letters(nc)]

    await eventually(whys, ["unreadable"])
    [(kept, data)] = letter_of(sequence, await dead_letters(nc))
    assert biggest.data.startswith(data)
    assert "tollbook-left-out" in kept


@pytest.mark.parametrize(
    "headers",
    [
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nno colon\r\n\r\n",
        b"NATS/1.0\r\nX-\xff: \xff\xfe\r\nA b: c\r\nX-Bytes: " + b"\xff" * 65_000 + b"\r\n\r\n",
        b"NATS/1.0\r\nce-id: 1\r\nce-id: 2\r\nCE-ID: 3\r\nx!#$%&'*: ok\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 9\r\n\r\n",
        b"NATS/1.0 409 \xff\xff\r\n\r\n",
    ],
)
async def test_headers_that_no_client_would_write_stop_nothing(
    nc: Client, nats_url: str, worker: MeteringProcess, meter: Meter, headers: bytes
) -> None:
    await publish_raw(nats_url, "usage.cloudevents", headers, b"hello")
    await meter.send(Outgoing("usage.cloudevents", msgspec.json.encode({"client_id": A, "service": "csr"}), event_headers()))
    await eventually(lambda: used(nc, A), 1)
    [(kept, data)] = await dead_letters(nc)
    assert (kept["tollbook-why"], data) == ("unreadable", b"hello")


def event_headers() -> dict[str, str]:
    return _event("tollbook.usage.UsageRecorded.v1")


async def publish_raw(nats_url: str, subject: str, headers: bytes, data: bytes) -> None:
    """Publish to a stream with these very bytes as headers."""
    host, port = nats_url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB answers 1\r\n')
    writer.write(f"HPUB {subject} answers {len(headers)} {len(headers) + len(data)}\r\n".encode() + headers + data + b"\r\n")
    async with asyncio.timeout(10):
        answer = b""
        while b"}" not in answer.partition(b"MSG answers")[2]:
            answer += await reader.read(4096)
    assert b'"error"' not in answer, answer
    writer.close()
    await writer.wait_closed()


async def test_a_record_for_no_partition_is_refused_at_once(nc: Client, worker: MeteringProcess) -> None:
    for subject in (f"usage.records.{PARTITIONS}", "usage.records.x", "usage.other"):
        with pytest.raises(NoStreamResponseError):
            await nc.jetstream().publish(subject, b"x", timeout=5)


async def test_calls_after_a_deletion_are_kept_not_counted(
    nc: Client, worker: MeteringProcess, meter: Meter, registry: RegistryFeed, schema: ServiceDsn
) -> None:
    await meter.count(UsageRecord(B, "csr", now_us(), 1))
    await registry.delete(B)

    async def deleted() -> list[tuple[Any, ...]]:
        return await rows(schema, "SELECT client_id FROM app WHERE deleted_at IS NOT NULL")

    await eventually(deleted, [(B,)])
    await meter.count(UsageRecord(B, "csr", now_us() + 4 * MINUTE_US, 2))  # the gates had not heard yet
    last = await meter.count(UsageRecord(B, "csr", now_us() + 301 * 10**6 - 10**6, 4), UsageRecord(A, "csr", now_us(), 1))
    await eventually(lambda: used(nc, A), 1)
    counted = await rows(schema, "SELECT sum(units)::int FROM counter WHERE client_id = $1 AND period = 'd'", B)
    letters = await dead_letters(nc)
    assert (counted, [one["tollbook-why"] for one, _ in letter_of(last, letters)]) in (
        ([(3,)], ["deleted_application"]),
        ([(7,)], []),  # so slow a machine that the last one was inside the margin
    )


async def test_very_many_bad_records_do_not_flood(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    await meter.count(UsageRecord(A, "csr", now_us()), *[UsageRecord("u" * 20, "csr", now_us())] * 3_000)
    await eventually(lambda: used(nc, A), 1)
    letters = await dead_letters(nc)
    assert len(letters) == 101
    assert letters[-1][0]["tollbook-records"] == "2900"
    assert len(msgspec.msgpack.decode(letters[-1][1])) == 2_900
