"""Applications, their events and their usage, in quantities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeVar

import msgspec
from nats.aio.client import Client

from shared.credentials import verifier
from shared.events.registry import (
    CODEC,
    AccountOpened,
    AppDeleted,
    AppEdited,
    AppRegistered,
    Environments,
    RegistryEvent,
    SecretIssued,
    SecretReissued,
    SelectedService,
)
from shared.events.usage import CLOUDEVENTS_SUBJECT, MSGPACK, RECORDS_SUBJECT, UsageBatch, UsageRecord, UsageRecorded
from shared.events.usage import CODEC as USAGE_CODEC
from shared.ids import new_client_id, new_client_secret, new_id
from shared.streams.cloudevents import cloudevent_headers
from shared.streams.declare import ensure_stream, log_stream
from shared.streams.publish import Outgoing, publish_batch, split_batches

PEPPER: Final = "0f" * 32
ACCOUNT: Final = "acme"
T = TypeVar("T")


class Issued(msgspec.Struct, frozen=True):
    """An application and its secret."""

    client_id: str
    secret: str
    secret_id: str

    def registered(self) -> AppRegistered:
        """The event that made it."""
        return AppRegistered(
            account=ACCOUNT,
            client_id=self.client_id,
            name="Recorder",
            services=(SelectedService("csr"),),
            environments=Environments(android=("com.example.app",)),
            secret=SecretIssued(self.secret_id, verifier(bytes.fromhex(PEPPER), self.client_id, self.secret)),
        )


def issue(count: int) -> list[Issued]:
    return [Issued(new_client_id(), new_client_secret(), new_id()) for _ in range(count)]


def opened() -> AccountOpened:
    return AccountOpened(account=ACCOUNT, zone="Asia/Seoul")


def lives(apps: Sequence[Issued]) -> Iterator[tuple[str, RegistryEvent]]:
    """(stream, event) of whole lives, four events each and a fifth for one in ten: registered, edited, secret reissued, edited,
    deleted; as they come when many applications live beside each other: first all are registered, then all are edited, ..."""
    edits = (("Recorder 2", "com.example.two"), ("Recorder 3", "com.example.three"))
    for app in apps:
        yield f"app/{app.client_id}", app.registered()
    for number, (name, package) in enumerate(edits):
        for app in apps:
            services = (SelectedService("csr"), SelectedService("clova-voice"))
            environments = Environments(android=(package,))
            yield (
                f"app/{app.client_id}",
                AppEdited(account=ACCOUNT, client_id=app.client_id, name=name, services=services, environments=environments),
            )
        if number == 0:
            for app in apps:
                secret = SecretIssued(new_id(), "ab" * 32)
                yield (
                    f"app/{app.client_id}",
                    SecretReissued(account=ACCOUNT, client_id=app.client_id, secret=secret, previous_valid_until=None),
                )
    for app in apps[::10]:
        yield f"app/{app.client_id}", AppDeleted(account=ACCOUNT, client_id=app.client_id)


def on_the_wire(events: Iterable[RegistryEvent], after: int = 0) -> Iterator[Outgoing]:
    """The events as the registry's relay publishes them."""
    at = datetime.now(UTC)
    for position, event in enumerate(events, after + 1):
        name = type(event).__name__
        headers = cloudevent_headers(
            id_=f"registry-{position}",
            source="/tollbook/registry",
            type_=CODEC.ce_type(name, 1),
            time=at,
            extensions={"hash": f"{position:064x}"},
        )
        yield Outgoing(f"registry.events.{name}", CODEC.encode(event), headers)


async def publish_registry(nc: Client, events: Iterable[RegistryEvent]) -> int:
    """Make the stream REGISTRY of these; its last sequence."""
    await ensure_stream(nc, log_stream("registry"))
    last = 0
    for batch in split_batches(on_the_wire(events)):
        last = await publish_batch(nc, batch, expected_last_sequence=last)
    return last


def usage_batches(
    apps: Sequence[Issued],
    batches: int,
    records: int,
    publisher: str,
    partition: int,
    leases: Mapping[str, str] | None = None,
) -> Iterator[Outgoing]:
    """`batches` messages of `records` calls each, going round the applications, a call every 10 microseconds until now.

    `leases`: the quota lease of each application, by its Client ID, if they have limits.
    """
    encode = msgspec.msgpack.Encoder().encode
    at_us = int(datetime.now(UTC).timestamp() * 1_000_000) - batches * records * 10
    number, lease_of = 0, (leases or {}).get
    for seq in range(1, batches + 1):
        calls = []
        for _ in range(records):
            app = apps[number % len(apps)]
            calls.append(UsageRecord(app.client_id, "csr", at_us + number * 10, 1, app.secret_id, lease_of(app.client_id, "")))
            number += 1
        content = encode(UsageBatch(publisher=publisher, seq=seq, records=calls))
        yield Outgoing(f"{RECORDS_SUBJECT}.{partition}", content, {"Content-Type": MSGPACK})


def usage_events(apps: Sequence[Issued], count: int) -> Iterator[Outgoing]:
    """`count` calls as CloudEvents in binary mode, as a publisher of one's own would send them."""
    at, run = datetime.now(UTC), new_id()
    for number in range(count):
        event = UsageRecorded(client_id=apps[number % len(apps)].client_id, service="csr", quantity=1)
        headers = cloudevent_headers(
            id_=f"{run}-{number}", source="/bench", type_=USAGE_CODEC.ce_type("UsageRecorded", 1), time=at
        )
        yield Outgoing(CLOUDEVENTS_SUBJECT, USAGE_CODEC.encode(event), headers)


def cut(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Runs of `size` items; the last one may be shorter."""
    iterator = iter(items)
    while run := list(islice(iterator, size)):
        yield run
