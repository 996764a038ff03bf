"""How far behind a service's streams are, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shared.service import Readiness


class StreamMetrics(Collector):
    """`tollbook_stream_lag{part, source}` in messages and `tollbook_stream_ready{part}` (1 or 0), read when they are asked for.

    `parts` maps a name to the `readiness` of a Relay, Consumer or KvProjection.
    """

    def __init__(self, registry: CollectorRegistry, parts: Mapping[str, Callable[[], Readiness]]) -> None:
        self._parts = dict(parts)
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        lag = GaugeMetricFamily("tollbook_stream_lag", "Messages stored but not yet worked off", labels=["part", "source"])
        ready = GaugeMetricFamily("tollbook_stream_ready", "1 while the part does its work", labels=["part"])
        for part, readiness in self._parts.items():
            found = readiness()
            ready.add_metric([part], float(found.ready))
            for source, messages in found.lag.items():
                lag.add_metric([part, source], messages)
        yield lag
        yield ready
