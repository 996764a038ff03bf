"""Alerts' numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.events.alerts import METHODS

SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)


class DeliveryMetrics:
    """What becomes of notifications and of the messages that tell them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._settled = Counter(
            "tollbook_alerts_notifications", "Notifications settled", ["method", "outcome"], registry=registry
        )
        self._tries = Counter("tollbook_alerts_tries", "Messages handed to a channel", ["method", "outcome"], registry=registry)
        self._seconds = Histogram(
            "tollbook_alerts_delivery_seconds",
            "From when a notification was due to when it was delivered",
            ["method"],
            buckets=SECONDS,
            registry=registry,
        )
        self._waiting = Gauge("tollbook_alerts_waiting", "Notifications that wait", ["method"], registry=registry)
        self._resting = Gauge(
            "tollbook_alerts_channels_resting", "Channels, and hosts of webhooks, that are left alone", registry=registry
        )

    def settled(self, method: str, outcome: str, since_due: timedelta) -> None:
        """`outcome`: delivered, or why not."""
        self._settled.labels(method, outcome).inc()
        if outcome == "delivered":
            self._seconds.labels(method).observe(max(0.0, since_due.total_seconds()))

    def tried(self, method: str, outcome: str) -> None:
        """`outcome`: taken, refused or later."""
        self._tries.labels(method, outcome).inc()

    def waiting(self, by_method: Mapping[str, int]) -> None:
        for method in METHODS:
            self._waiting.labels(method).set(by_method.get(method, 0))

    def resting(self, count: Callable[[], int]) -> None:
        """`count` is asked when the numbers are."""
        self._resting.set_function(count)
