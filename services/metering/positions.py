"""How far publishers are counted, and what that has to be told before messages are counted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Set
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from services.metering.decoding import Batch, Item, Packed, Single, Void, digest_of, unpack

_CLIENT_ID_OF: Final = attrgetter("client_id")


class Position(msgspec.Struct):
    """How far one publisher was counted in one partition: the batch with the highest seq, and how it was counted.

    `recorded_at_us` is JetStream's time of that batch and `rejected` the indexes of its records that do not count, or do no more:
    a retraction takes back just what was counted. `digest` tells its records; it is worked out from `item` only when it is
    needed.
    """

    seq: int
    retracted: bool
    recorded_at_us: int
    rejected: tuple[int, ...] = ()
    digest: bytes = b""
    item: Batch | Packed | None = None

    def fingerprint(self) -> bytes:
        if self.item is not None:
            item = unpack(self.item) if isinstance(self.item, Packed) else self.item
            assert isinstance(item, Batch), "it was counted"
            self.digest, self.item = digest_of(item.batch.records), None
        return self.digest


PublisherKey = tuple[str, int]
"""(publisher, partition)"""


class Needs(NamedTuple):
    """What a tally of some messages has to be told of. Client IDs are as they came: any text. Those of packed batches and of
    what is corrected are not looked at: `Tally.add` asks for what it misses."""

    client_ids: set[str]
    publishers: set[PublisherKey]
    events: set[bytes]


def needs(items: Iterable[Item]) -> Needs:
    """What the items speak of."""
    found = Needs(set(), set(), set())
    for item in items:
        if isinstance(item, Batch):
            found.client_ids.update(map(_CLIENT_ID_OF, item.batch.records))
            found.publishers.add((item.batch.publisher, item.partition))
        elif isinstance(item, Packed):
            found.publishers.add((item.publisher, item.partition))
        elif isinstance(item, Single):
            found.client_ids.add(item.record.client_id)
            found.events.add(item.key)
        elif isinstance(item, Void):
            found.events.update((item.key, item.record_key))
    return found


NO_SUCH_PLACE: Final = "voided: it names a record that the batch does not have"


def voided_of(item: Batch) -> Set[int] | None:
    """The indexes of the records that a retraction voids, of those that can be read; None if it names one that is not there."""
    if not item.batch.retracted or not item.batch.voided:
        return frozenset()
    if not all(0 <= place < item.written_records() for place in item.batch.voided):
        return None
    voided = set(item.batch.voided)
    return frozenset(index for index in range(len(item.batch.records)) if item.written(index) in voided)
