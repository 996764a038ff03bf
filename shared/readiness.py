"""Whether the parts of a service can do their work, for /readyz and for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class Readiness:
    """Whether a part can do its work; `detail` says why not, or how far behind it is. `lag` is in messages, by source."""

    ready: bool
    detail: str = ""
    lag: Mapping[str, int] = field(default_factory=dict)


ReadinessCheck = Callable[[], Readiness]


class ReadinessMetrics(Collector):
    """`tollbook_ready{part}` (1 or 0) and `tollbook_lag_messages{part, source}`, read from the checks when they are asked for."""

    def __init__(self, checks: Mapping[str, ReadinessCheck]) -> None:
        self._checks = checks

    def collect(self) -> Iterator[GaugeMetricFamily]:
        ready = GaugeMetricFamily("tollbook_ready", "1 while the part does its work", labels=["part"])
        lag = GaugeMetricFamily("tollbook_lag_messages", "Messages stored but not yet worked off", labels=["part", "source"])
        for part, check in self._checks.items():
            found = check()
            ready.add_metric([part], float(found.ready))
            for source, messages in found.lag.items():
                lag.add_metric([part, source], messages)
        yield ready
        yield lag
