"""Measured facts: calls that passed. Stream USAGE.

Two ways in. `usage.records.<partition>` takes a `UsageBatch` as msgpack (Content-Type: application/msgpack) or JSON
(application/json), for publishers that count a lot. `usage.cloudevents` takes one `UsageRecorded` as a CloudEvent, in NATS binary
or structured mode, from anyone; and `UsageVoided`, which corrects one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec

from shared.events.codec import Codec, Event

STREAM: Final = "USAGE"
RECORDS_SUBJECT: Final = "usage.records"
CLOUDEVENTS_SUBJECT: Final = "usage.cloudevents"
MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"

QUANTITY_MAX: Final = 1_000_000_000
"""Units in one record, at most. Far above any call, far below where sums of them could overflow 64 bits."""
RECORDS_MAX: Final = 10_000
"""Records in one batch, at most."""

ClientId = Annotated[str, msgspec.Meta(pattern="^[a-z0-9]{20}$")]
ServiceId = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]
Quantity = Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
CorrectedQuantity = Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]
CorrectionReason = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
RecordId = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
PublisherId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=2**62)]


class UsageRecorded(Event, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call, as the data of a CloudEvent. The event's (source, id) makes it unique; `occurred_at` defaults to its time."""

    client_id: ClientId
    service: ServiceId
    quantity: Quantity = 1
    occurred_at: datetime | None = None


class UsageVoided(Event, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record that was reported should not have counted, or otherwise. Data of a CloudEvent, unique by (source, id) as well.

    `record_id` is the id of the CloudEvent that reported the record. Only its own source may correct it: `record_source`, if it
    is stated, has to be the source of this event. `quantity` is what should have been counted (0: a call of no units); None:
    nothing at all, not even a call. It replaces whatever was said before, so the last correction holds.
    """

    record_id: RecordId
    reason: CorrectionReason
    record_source: RecordId | None = None
    quantity: CorrectedQuantity | None = None


class UsageRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One call inside a batch, written as an array in this order.

    `occurred_at_us` is in microseconds since 1970 UTC; `secret_id` names the secret that was used ("" when unknown); `lease` is
    the quota lease that it was spent from ("" when the application has no limit).
    """

    client_id: str
    service: str
    occurred_at_us: int
    quantity: int = 1
    secret_id: str = ""
    lease: str = ""


class UsageBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Calls counted by one publisher, in order.

    `publisher` is new at each start of the publishing process, and keeps to one partition; `seq` is 1, 2, 3 ... for it: a batch
    whose seq was seen is a repetition and counts nothing. A batch with `retracted` says: seq was never acknowledged and its
    calls were refused, so none of it counts, whether or not the first message did arrive; `records` repeats what it held.
    With `voided`, only the records at these places are taken back: seq was acknowledged, but too late for the leases of these.
    One without records counts nothing; metering publishes such to learn where a partition ends.
    """

    publisher: PublisherId
    seq: Seq
    records: Annotated[list[UsageRecord], msgspec.Meta(max_length=RECORDS_MAX)]
    retracted: bool = False
    voided: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET


UsageEvent = UsageRecorded | UsageVoided

CODEC: Codec[UsageEvent] = Codec("usage", UsageEvent)


def partition_of(publisher: str, partitions: int) -> int:
    """The partition that a publisher's batches go to: FNV-1a of its name, as in NATS's own `partition()` subject mapping."""
    digest = 2166136261
    for byte in publisher.encode():
        digest = ((digest ^ byte) * 16777619) & 0xFFFFFFFF
    return digest % partitions
