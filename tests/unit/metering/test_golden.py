"""What publishers have written to USAGE can be read for ever: it is counted again from its first message."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shared.events.usage import CODEC, UsageBatch, UsageRecord
from tests.support.golden import GOLDEN, check_golden, check_none_is_missing, golden_events

EVENTS = golden_events("usage")

BATCH = UsageBatch(
    publisher="gate-0123456789abcdef",
    seq=7,
    records=[
        UsageRecord("k3v9x2m1q8w7e5r4t6y0", "csr", 1795316645678901, 3, "0123456789abcdef0123456789abcdef"),
        UsageRecord("k3v9x2m1q8w7e5r4t6y0", "clova-voice", 1795316645678902),
    ],
)
VOIDED = msgspec.structs.replace(BATCH, retracted=True, voided=(1,))


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_a_golden_event_is_read_and_written_the_same(path: Path) -> None:
    check_golden(CODEC, path)


def test_there_is_one_of_every_version_of_every_event() -> None:
    check_none_is_missing(CODEC, EVENTS)


def test_a_golden_batch_of_before_records_could_be_voided_is_read_as_ever() -> None:
    assert msgspec.msgpack.decode((GOLDEN / "usage" / "UsageBatch.msgpack").read_bytes(), type=UsageBatch) == BATCH
    assert msgspec.json.decode((GOLDEN / "usage" / "UsageBatch.json").read_bytes(), type=UsageBatch) == BATCH


def test_a_golden_batch_is_read_and_written_the_same_as_msgpack() -> None:
    written = (GOLDEN / "usage" / "UsageBatch.with-voided.msgpack").read_bytes()
    assert msgspec.msgpack.decode(written, type=UsageBatch) == VOIDED
    assert msgspec.msgpack.encode(VOIDED) == written


def test_a_golden_batch_is_read_and_written_the_same_as_json() -> None:
    written = (GOLDEN / "usage" / "UsageBatch.with-voided.json").read_bytes().removesuffix(b"\n")
    assert msgspec.json.decode(written, type=UsageBatch) == VOIDED
    assert msgspec.json.encode(VOIDED) == written


@pytest.mark.parametrize("record", [["k3v9x2m1q8w7e5r4t6y0", "csr", 1], ["k3v9x2m1q8w7e5r4t6y0", "csr", 1, 2, "s", "l", "new"]])
def test_a_record_may_leave_out_what_has_a_default_and_have_fields_of_a_later_release(record: list[object]) -> None:
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=UsageRecord)
    assert (read.client_id, read.occurred_at_us) == ("k3v9x2m1q8w7e5r4t6y0", 1)
