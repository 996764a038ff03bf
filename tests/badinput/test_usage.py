"""Hostile publishers of usage, and users of NATS who try what is not theirs, on the running stack."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, NamedTuple

import msgspec
import nats.errors
import pytest
from nats.aio.client import Client

from shared.events.usage import UsageBatch, UsageRecord
from tests.badinput.conftest import PERSONAL, SECRET, nats_user
from tests.support.stack import Customer, StackProcess

EVENTS = "usage.cloudevents"
RECORDS = "usage.records.3"
JSON, MSGPACK = {"Content-Type": "application/json"}, {"Content-Type": "application/msgpack"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
EVENT = {"ce-specversion": "1.0", "ce-type": "tollbook.usage.UsageRecorded.v1", "ce-source": "/bad", "ce-id": "1", **JSON}
QUANTITIES = [
    "-1",
    "0",
    "1.5",
    str(2**63),
    str(2**64),
    "1e308",
    "1e400",
    "9" * 5_000,
    "1000000001",
    '"1"',
    "true",
    "null",
    "NaN",
    "[]",
]


class Bad(NamedTuple):
    what: str
    subject: str
    headers: dict[str, str]
    data: bytes
    whys: tuple[str, ...] = ("unreadable",)


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in EVENT.items() if key != name}


def binary(client_id: str) -> list[Bad]:
    """CloudEvents in binary mode, wrong in every attribute."""
    data = json.dumps({"client_id": client_id, "service": "csr"}).encode()
    found = [Bad(f"no {name}", EVENTS, without(name), data) for name in EVENT if name != "Content-Type"]
    found += [Bad(f"empty {name}", EVENTS, EVENT | {name: ""}, data) for name in EVENT if name != "Content-Type"]
    found += [Bad(f"version {v}", EVENTS, EVENT | {"ce-specversion": v}, data) for v in ("0.3", "2.0", "1", "one", "1.0.0")]
    for kind in (
        "Other.v1",
        "UsageRecorded.v0",
        "UsageRecorded.v2",
        "UsageRecorded",
        "UsageRecorded.v-1",
        "UsageRecorded.v" + "9" * 50,
    ):
        found.append(Bad(kind[:30], EVENTS, EVENT | {"ce-type": f"tollbook.usage.{kind}"}, data, ("unknown_type", "unreadable")))
    for kind in ("tollbook.registry.AppDeleted.v1", "com.example.call", "x" * 5_000, PERSONAL):
        found.append(Bad(kind[:30], EVENTS, EVENT | {"ce-type": kind}, data, ("unknown_type", "unreadable")))
    for text in (
        "now",
        "2026-13-01T00:00:00Z",
        "2026-01-01",
        "9999-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "2020-01-01T00:00:00Z",
    ):
        whys = ("unreadable", "too_old", "in_the_future", "invalid_record")
        found.append(Bad(f"time {text}", EVENTS, EVENT | {"ce-time": text}, data, whys))
    found += [Bad("escapes", EVENTS, EVENT | {"ce-id": text}, data) for text in ("%", "%zz", "%ff", "%ed%a0%80")]
    return found


def bodies(client_id: str) -> list[Bad]:
    """Data that is none, or is of something else."""
    wrong = [b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"x" * 1_000_000, b"{}"]
    good = {"client_id": client_id, "service": "csr"}
    fields: list[dict[str, Any]] = [
        {"client_id": None}, {"client_id": "\u202e"}, {"client_id": PERSONAL}, {"client_id": "a" * 100_000}, {"service": 5},
        {"service": "CSR "}, {"extra": SECRET}, {"occurred_at": "today"}, {"occurred_at": 5},
        {"occurred_at": "2026-01-01T00:00:00"},
    ]  # fmt: skip
    wrong += [json.dumps(good | field).encode() for field in fields]
    wrong += [b'{"client_id":"%s","service":"csr","quantity":%s}' % (client_id.encode(), q.encode()) for q in QUANTITIES]
    wrong += [b'{"client_id":"\\ud800","service":"csr"}']
    whys = ("invalid_record", "unreadable")
    found = [Bad(f"data {data[:60]!r}", EVENTS, EVENT, data, whys) for data in wrong]
    return [*found, Bad("xml", EVENTS, EVENT | {"Content-Type": "text/xml", "ce-datacontenttype": "text/xml"}, b"<a/>", whys)]


def corrections(client_id: str) -> list[Bad]:
    """Corrections that are none, or of what never counted."""
    good = {"record_id": "1", "reason": "wrong"}
    fields: list[dict[str, Any]] = [
        {"record_id": None}, {"record_id": ""}, {"record_id": "x" * 100_000}, {"reason": None}, {"reason": ""},
        {"reason": "x" * 201}, {"reason": "a\u0000b"}, {"record_source": "/other"}, {"record_source": 5},
        {"client_id": client_id}, {"extra": SECRET},
    ]  # fmt: skip
    data = [json.dumps(good | field).encode() for field in fields]
    data += [b'{"record_id":"1","reason":"wrong","quantity":%s}' % q.encode() for q in QUANTITIES if q not in ("0", "null")]
    data += [b"", b"null", b"[]", b"{}", b"\xff", b'{"record_id":"\\ud800","reason":"wrong"}']
    headers = EVENT | {"ce-type": "tollbook.usage.UsageVoided.v1"}
    found = [Bad(f"correction {one[:80]!r}", EVENTS, headers, one, ("invalid_record",)) for one in data]
    unknown = [good, good | {"record_id": PERSONAL}, good | {"quantity": 0}, good | {"record_id": "\u202e"}]
    return found + [Bad(f"of {one}", EVENTS, headers, json.dumps(one).encode(), ("unknown_record",)) for one in unknown]


def structured(client_id: str) -> list[Bad]:
    """CloudEvents in structured mode, wrong in every attribute."""
    data = {"client_id": client_id, "service": "csr"}
    good = {"specversion": "1.0", "type": EVENT["ce-type"], "source": "/bad", "id": "1", "data": data}
    wrong: list[Any] = [None, [], 7, "text", {}]
    wrong += [{key: value for key, value in good.items() if key != name} for name in good]
    wrong += [good | {name: value} for name in good for value in (None, 5, True, [], {}, "", "\ud800", PERSONAL)]
    wrong += [good | {"data_base64": "e30="}, {**good, "data": None, "data_base64": "%%%"}, good | {"time": "now"}]
    content = [json.dumps(one).encode() for one in wrong if one != good | {"source": PERSONAL} and one != good | {"id": PERSONAL}]
    content += [b"", b"{", b"\xff", b"[" * 100_000, json.dumps(good).encode("utf-16")]
    whys = ("unreadable", "invalid_record", "unknown_type", "too_old")
    return [Bad(f"structured {data_[:80]!r}", EVENTS, STRUCTURED, data_, whys) for data_ in content]


def bombs(client_id: str) -> list[Bad]:
    """Batches that promise more than they have, and garbage."""
    huge = [b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"]  # array, map, bytes, text, extension: with a length of 32 bits
    data = [kind + b"\xff\xff\xff\xff" for kind in huge]
    head = b"\x83\xa9publisher\xa1b\xa3seq\x01\xa7records"
    data += [head + kind + b"\xff\xff\xff\xff" for kind in huge]
    data += [head + b"\x91" * 900_000, b"\x91" * 1_000_000, b"\x81\xa1a" * 300_000, bytes(range(256)) * 4_000, b"\xc1", b""]
    data += [head + b"\xdc\x27\x11" + b"\x93\xa1a\xa1b\x01" * 10_001]
    found = [Bad(f"msgpack {one[:12]!r}", RECORDS, MSGPACK, one, ("unreadable", "invalid_record")) for one in data]
    batch = '{"publisher":"bad-%d","seq":1,"records":[["%s","csr",%d,%s]]}'
    now = time.time_ns() // 1000
    for number, quantity in enumerate(QUANTITIES):
        text = batch % (number, client_id, now, quantity)
        found.append(Bad(f"record of {quantity[:20]}", RECORDS, JSON, text.encode(), ("invalid_record", "unreadable")))
    for seq in ("0", "-1", "1.5", str(2**62 + 1), str(2**64), "null", '"1"'):
        text = f'{{"publisher":"bad","seq":{seq},"records":[]}}'
        found.append(Bad(f"seq {seq}", RECORDS, JSON, text.encode()))
    for publisher in ("", " ", "a" * 65, "\u0000", "\u202e", "가"):
        text = json.dumps({"publisher": publisher, "seq": 1, "records": []})
        found.append(Bad(f"publisher {publisher[:10]!r}", RECORDS, JSON, text.encode()))
    found += [
        Bad("csv", RECORDS, {"Content-Type": "text/csv"}, b"a,b", ("content_type",)),
        Bad("untyped", RECORDS, {}, b"{}", ("content_type",)),
    ]
    return found


async def published(nc: Client, subject: str, data: bytes, headers: dict[str, str]) -> int:
    """The sequence that JetStream gave the message."""
    answer = json.loads((await nc.request(subject, data, headers=headers, timeout=15)).data)
    assert "error" not in answer, answer
    return int(answer["seq"])


async def stream_last(operator: Client, stream: str) -> int:
    return int(json.loads((await operator.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=10)).data)["state"]["last_seq"])


async def letters(operator: Client, after: int) -> dict[int, dict[str, str]]:
    """The headers of the dead letters after that one, by the sequence of the original."""
    found: dict[int, dict[str, str]] = {}
    for number in range(after + 1, await stream_last(operator, "DEADLETTER") + 1):
        message = await operator.jetstream().get_msg("DEADLETTER", seq=number)
        assert message.headers is not None
        found[int(message.headers["tollbook-sequence"])] = message.headers
    return found


@pytest.mark.parametrize("kind", [binary, bodies, corrections, structured, bombs])
async def test_each_becomes_a_dead_letter_that_says_why_and_counts_nothing(
    owner: Customer, stack: StackProcess, kind: Any
) -> None:
    client_id, secret = await owner.register("Target")
    async with nats_user(stack, "publisher") as publisher, nats_user(stack, "operator") as operator:
        before = await stream_last(operator, "DEADLETTER")
        cases: list[Bad] = kind(client_id)
        sent = [(await published(publisher, bad.subject, bad.data, bad.headers), bad) for bad in cases]
        assert (await owner.call(client_id, secret)).status_code == 200
        await owner.wait_used(client_id, 1, 30)
        found: dict[int, dict[str, str]] = {}
        for _ in range(150):
            found = await letters(operator, before)
            if len(found) >= len(sent):
                break
            await asyncio.sleep(0.1)
        assert [bad.what for sequence, bad in sent if sequence not in found] == []
        wrong = [(bad.what, found[n]["tollbook-why"], found[n]["tollbook-reason"]) for n, bad in sent]
        assert [one for one, (_, bad) in zip(wrong, sent, strict=True) if one[1] not in bad.whys] == []
        assert all(reason for _, _, reason in wrong)
        assert await owner.used(client_id) == 1


async def test_a_publisher_that_lies_about_its_sequence_counts_nothing_twice(owner: Customer, stack: StackProcess) -> None:
    client_id, _ = await owner.register("Liar")

    def batch(seq: int, quantity: int, retracted: bool = False) -> bytes:
        records = [UsageRecord(client_id, "csr", time.time_ns() // 1000, quantity)]
        return msgspec.msgpack.encode(UsageBatch(publisher=f"liar-{client_id}", seq=seq, records=records, retracted=retracted))

    async with nats_user(stack, "publisher") as publisher:
        # It jumps, goes back, uses a number again for other records, takes back what it never said, and goes on.
        says = [batch(1, 1), batch(100, 10), batch(50, 100), batch(100, 1_000), batch(100, 10_000, True), batch(7, 10, True)]
        for data in [*says, batch(101, 100_000), batch(2**62, 1_000_000), batch(102, 10_000_000)]:
            await published(publisher, RECORDS, data, MSGPACK)
        await owner.wait_used(client_id, 1_100_011, 30)


@pytest.mark.parametrize("user", ["publisher", "gate", "console"])
async def test_what_is_not_theirs_nobody_can_touch(owner: Customer, stack: StackProcess, user: str) -> None:
    subjects = ["registry.events.AppDeleted", "$JS.API.STREAM.DELETE.USAGE", "$JS.API.STREAM.PURGE.REGISTRY", "$KV.apps.demo.x"]
    subjects += ["deadletter.usage", "$KV.usage.demo.x", "$SYS.REQ.SERVER.PING", "$JS.API.STREAM.UPDATE.REGISTRY"]
    errors: list[str] = []
    async with nats_user(stack, "operator") as operator, nats_user(stack, user, errors) as nc:
        streams = ("REGISTRY", "DEADLETTER", "KV_apps")
        before = [await stream_last(operator, stream) for stream in streams]
        for subject in subjects:
            with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
                await nc.request(subject, b'{"client_id":"x"}', timeout=0.3)
        await nc.flush()
        assert sum("permissions violation for publish" in text.lower() for text in errors) == len(subjects), errors
        assert [await stream_last(operator, stream) for stream in streams] == before


@pytest.mark.parametrize("subject", ["registry.commands.RegisterApp", "registry.queries.GetApp", "metering.queries.GetUsage"])
async def test_questions_that_are_none_are_refused_in_words(stack: StackProcess, owner: Customer, subject: str) -> None:
    bodies_ = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b"x" * 900_000,
        b'{"account":"\\ud800"}',
        b'{"account":"demo"}',
        b'{"quantity":NaN}',
    ]
    async with nats_user(stack, "console") as nc:
        for body in bodies_:
            for headers in ({"content-type": "application/json"}, {"content-type": "x" * 10_000}, None):
                answer = await nc.request(subject, body, headers=headers, timeout=15)
                assert answer.headers is not None
                assert answer.headers["tollbook-error"] in ("malformed_request", "invalid_input"), (body[:20], answer.data[:300])
                assert len(answer.data) < 20_000
