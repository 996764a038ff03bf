"""What the gate measures. The hot path only adds to a number; the numbers become metrics when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

COMMIT_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics(Collector):
    """The gate's metrics, to be registered once.

    `outcomes` counts decisions: `passed`, or the name of the refusal. `records` were acknowledged by JetStream; `retractions`
    are commits of unknown fate that were taken back, `voided` records that were acknowledged too late for their lease.
    `lease_requests` were sent to metering. `gauges` are asked when the metrics are.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.records = 0
        self.retractions = 0
        self.voided = 0
        self.lease_requests = 0
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._commit_seconds = Histogram(
            "tollbook_gate_commit_seconds", "Time to the acknowledgement of a group", registry=None, buckets=COMMIT_BUCKETS_S
        )

    def committed(self, records: int, seconds: float) -> None:
        """A group of that many records was acknowledged after that time."""
        self.records += records
        self._commit_seconds.observe(seconds)

    def collect(self) -> Iterable[Metric]:
        decisions = CounterMetricFamily("tollbook_gate_decisions", "Calls decided, by outcome", labels=["outcome"])
        for outcome, count in sorted(self.outcomes.items()):
            decisions.add_metric([outcome], count)
        yield decisions
        yield CounterMetricFamily("tollbook_gate_records", "Usage records that JetStream acknowledged", value=self.records)
        yield CounterMetricFamily("tollbook_gate_retractions", "Commits of unknown fate, taken back", value=self.retractions)
        yield CounterMetricFamily(
            "tollbook_gate_voided_records", "Records acknowledged too late for their quota lease, taken back", value=self.voided
        )
        yield CounterMetricFamily(
            "tollbook_gate_lease_requests", "Requests for quota leases sent to metering", value=self.lease_requests
        )
        for name, (description, value) in self.gauges.items():
            yield GaugeMetricFamily(f"tollbook_gate_{name}", description, value=value())
        yield from self._commit_seconds.collect()
