"""That one commit always fits into one NATS message."""

from __future__ import annotations

import msgspec

from services.gate.commit import BATCH_BYTES_MAX, HEADERS, RECORD_BYTES_MAX
from shared.events.usage import QUANTITY_MAX, UsageBatch, UsageRecord

LONGEST = UsageRecord("c" * 20, "s" * 32, 2**63 - 1, QUANTITY_MAX, "i" * 64, "l" * 64)


def test_the_longest_record_fits_its_bound() -> None:
    assert len(msgspec.msgpack.encode(LONGEST)) <= RECORD_BYTES_MAX


def test_an_empty_batch_fits_its_bound() -> None:
    batch = UsageBatch(publisher="p" * 64, seq=2**62, records=[], retracted=True)
    headers = sum(len(name) + len(value) + 4 for name, value in HEADERS.items())
    assert len(msgspec.msgpack.encode(batch)) + headers + 300 <= BATCH_BYTES_MAX
