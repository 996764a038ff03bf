"""Single events: what is known of each, and what changes when its publisher takes the record back or states it anew. Pure.

A correction changes the counters of those of the record's windows that are open when JetStream stores it. What has closed stays
as it was: there the correction stands on its own, for whoever has drawn on those counters already.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Set
from typing import Final, NamedTuple

from services.metering.decoding import Single, Void
from services.metering.growth import App, Group, Growth, Source
from services.metering.rejection import Rejected, Why
from shared.windows import SLOT_US, to_us

CORRECTABLE_DAYS: Final = 35
CORRECTABLE_US: Final = CORRECTABLE_DAYS * 86_400_000_000
"""How long after it was stored a record can be corrected: less than repetitions are remembered, so that forgetting a bit sooner
or later decides nothing."""


class Counted(NamedTuple):
    """A record of a single event as it counts now. `quantity` None: not at all, for it was taken back.

    `recorded_at_us` is when JetStream stored the event that reported it, in microseconds since 1970 UTC.
    """

    client_id: str
    service: str
    occurred_at_us: int
    recorded_at_us: int
    quantity: int | None


class Known(NamedTuple):
    """A single event that took effect. `digest` tells its payload; `counted` is None for a correction, which has no record."""

    digest: bytes
    counted: Counted | None


Effect = Known | Single | Void
"""A single event that took effect: as it is known, or, in the transaction in which it did, as it came."""


class Correction(NamedTuple):
    """One correction that took effect. `hour`, `day`, `month`: whether the counter of that window of the record was changed."""

    void: Void
    before: Counted
    hour: bool
    day: bool
    month: bool


def counted_of(effect: Effect) -> Counted | None:
    """The record as it counts now; None for a correction."""
    if isinstance(effect, Single):
        record = effect.record
        recorded_at_us = to_us(effect.message.recorded_at)
        return Counted(record.client_id, record.service, record.occurred_at_us, recorded_at_us, record.quantity)
    return effect.counted if isinstance(effect, Known) else None


class Singles:
    """The single events of one transaction. `events` hold, by their key, what is known of all that they name.

    `new` are the events that took effect, `corrected` the records that count otherwise now, by the key of their event.
    """

    def __init__(self, directory: Mapping[str, App], events: MutableMapping[bytes, Effect], growth: Growth) -> None:
        self.new: dict[bytes, Single | Void] = {}
        self.corrected: dict[bytes, Counted] = {}
        self.corrections: list[Correction] = []
        self._directory = directory
        self._events = events
        self._growth = growth

    def digest_of(self, item: Single | Void) -> bytes | None:
        """The payload with which this event took effect before; None if it is new."""
        known = self._events.get(item.key)
        return None if known is None else known.digest

    def learn(self, item: Single | Void) -> None:
        """That it took effect."""
        self._events[item.key] = self.new[item.key] = item

    def clients_of(self, void: Void) -> Set[str]:
        """The application whose record it corrects, if there is such a record."""
        counted = self._counted(void)
        return frozenset() if counted is None else frozenset((counted.client_id,))

    def correct(self, void: Void) -> Rejected | None:
        """Let the counters of open windows change by the difference, and learn that. Once for each event: look at `digest_of`."""
        before = self._counted(void)
        if before is None:
            return Rejected(void.message, Why.UNKNOWN_RECORD, _unknown(void))
        if before.client_id not in self._directory:
            reason = f"record_id: there is no application {before.client_id} any more"
            return Rejected(void.message, Why.UNKNOWN_APPLICATION, reason)
        calls = (void.quantity is not None) - (before.quantity is not None)
        units = (void.quantity or 0) - (before.quantity or 0)
        minute, recorded = before.occurred_at_us // SLOT_US, before.recorded_at_us // SLOT_US
        group = Group(before.client_id, before.service, "", "", minute, Source(recorded, "", ""))
        changed = self._growth.correct(group, to_us(void.message.recorded_at) // SLOT_US, calls, units)
        self.corrections.append(Correction(void, before, *changed))
        counted = self.corrected[void.record_key] = before._replace(quantity=void.quantity)
        self._events[void.record_key] = Known(self._events[void.record_key].digest, counted)
        self.learn(void)
        return None

    def _counted(self, void: Void) -> Counted | None:
        effect = self._events.get(void.record_key)
        counted = None if effect is None else counted_of(effect)
        if counted is None or to_us(void.message.recorded_at) - counted.recorded_at_us > CORRECTABLE_US:
            return None
        return counted


def _unknown(void: Void) -> str:
    return (
        f"record_id: no record that counted within {CORRECTABLE_DAYS} days before this is known by the id {void.record_id} from"
        f" {void.source}: send it again after the record"
    )
