"""Records that came from a quota lease after it was closed: of calls that were refused, so they do not count. Pure.

A lease is closed when all that counts has come from it (docs/decisions/0013, invariants 4 to 6). Counting again decides the same
although leases are forgotten: for messages that were told about before, only the places that were kept are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Final, NamedTuple

from services.metering.decoding import Batch


class LeaseUse(NamedTuple):
    """What units were spent from: a lease, as far as it is this publisher's, for this application and civil day."""

    lease: str
    publisher: str
    subject: str
    client_id: str
    service: str
    day_start_us: int


class LapsedPlace(NamedTuple):
    """A record that does not count, or does under another name (letters.py): its message, and its place among the records as they
    were written."""

    subject: str
    sequence: int
    place: int


class Lapses(NamedTuple):
    """What has to be known of closed leases to count some messages.

    `ends` are the ends by (lease, publisher, subject), `told` how far each subject was told about, `places` those that were kept.
    """

    ends: Mapping[tuple[str, str, str], int]
    told: Mapping[str, int]
    places: Set[LapsedPlace]

    def any(self) -> bool:
        """Whether there is anything that does not count."""
        return bool(self.ends or self.places)

    def of(self, item: Batch) -> Sequence[int]:
        """The indexes of the batch's records that came after the end of their lease."""
        if not self.any():
            return ()
        subject, sequence = item.message.subject, item.message.sequence
        kept = {one.place for one in self.places if (one.subject, one.sequence) == (subject, sequence)}
        told = sequence <= self.told.get(subject, 0)
        publisher = item.batch.publisher
        return [
            index
            for index, record in enumerate(item.batch.records)
            if item.written(index) in kept
            or (not told and record.lease and sequence > self.ends.get((record.lease, publisher, subject), sequence))
        ]


NO_LAPSES: Final = Lapses({}, {}, frozenset())
