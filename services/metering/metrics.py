"""Metering's numbers for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from services.metering.domain import Outcome


class Metrics:
    """Counts what was handled, including what a failed transaction has to do again."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._messages = Counter("tollbook_metering_messages", "Messages of USAGE handled", registry=registry)
        self._records = Counter("tollbook_metering_records", "Usage records counted", registry=registry)
        self._repeated = Counter("tollbook_metering_repeated", "Batches and events that were counted before", registry=registry)
        self._late = Counter("tollbook_metering_late_units", "Units reported after their day had ended", registry=registry)
        self._rejected = Counter("tollbook_metering_dead_letters", "Records that do not count", ["why"], registry=registry)

    def counted(self, outcome: Outcome, messages: int) -> None:
        self._messages.inc(messages)
        self._records.inc(outcome.records)
        self._repeated.inc(outcome.repeated)
        self._late.inc(max(0, sum(count.late_units for key, count in outcome.counters.items() if key.period == "d")))
        for one in outcome.rejected:
            self._rejected.labels(one.why.value).inc(one.records)
