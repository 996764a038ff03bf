"""Metering's numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.metering.domain import Outcome
from shared.commands.quota import Answer


class Metrics:
    """Counts what was handled, including what a failed transaction has to do again."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._messages = Counter("tollbook_metering_messages", "Messages of USAGE handled", registry=registry)
        self._records = Counter("tollbook_metering_records", "Usage records counted", registry=registry)
        self._repeated = Counter("tollbook_metering_repeated", "Batches and events that were counted before", registry=registry)
        self._late = Counter("tollbook_metering_late_units", "Units reported after their day had ended", registry=registry)
        self._corrections = Counter("tollbook_metering_corrections", "Corrections of single records", registry=registry)
        self._rejected = Counter("tollbook_metering_dead_letters", "Records that do not count", ["why"], registry=registry)

    def counted(self, outcome: Outcome, messages: int) -> None:
        self._messages.inc(messages)
        self._records.inc(outcome.records)
        self._repeated.inc(outcome.repeated)
        self._late.inc(max(0, sum(count.late_units for key, count in outcome.counters.items() if key.period == "d")))
        self._corrections.inc(len(outcome.corrections))
        for one in outcome.rejected:
            self._rejected.labels(one.why.value).inc(one.records)


class QuotaMetrics:
    """What became of quota leases. The gauges are those of the worker that keeps them; the others show 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter("tollbook_metering_quota_answers", "Wishes for quota, answered", ["outcome"], registry=registry)
        self._recalls = Counter("tollbook_metering_quota_recalls", "Scopes whose leases were asked back", registry=registry)
        self._closed = Counter("tollbook_metering_quota_leases_closed", "Quota leases closed", registry=registry)
        self._open = Gauge("tollbook_metering_quota_leases_open", "Quota leases that are open", registry=registry)
        self._set_aside = Gauge("tollbook_metering_quota_units_set_aside", "What open leases may still bring", registry=registry)

    def answered(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self._answers.labels(type(answer).__name__.lower()).inc()

    def recalled(self) -> None:
        self._recalls.inc()

    def closed(self, leases: int) -> None:
        self._closed.inc(leases)

    def kept(self, leases: int, set_aside: int) -> None:
        self._open.set(leases)
        self._set_aside.set(set_aside)


class LetterMetrics:
    """Dead letters that nobody has settled. The gauge is that of the worker that counts them; the others show none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = Gauge("tollbook_metering_dead_letters_open", "Dead letters not settled", ["why"], registry=registry)

    def open(self, by_why: Mapping[str, int]) -> None:
        for why, count in by_why.items():
            self._open.labels(why).set(count)

    def forget(self) -> None:
        self._open.clear()
