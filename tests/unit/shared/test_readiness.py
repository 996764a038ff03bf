"""The numbers that /metrics shows."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from shared.readiness import Readiness, ReadinessMetrics


def test_lag_and_readiness_of_each_part() -> None:
    registry = CollectorRegistry()
    checks = {
        "usage": lambda: Readiness(True, "", {"USAGE usage.records.1": 7}),
        "relay": lambda: Readiness(False, "NATS is away"),
    }
    registry.register(ReadinessMetrics(checks))
    text = generate_latest(registry).decode()
    assert 'tollbook_lag_messages{part="usage",source="USAGE usage.records.1"} 7.0' in text
    assert 'tollbook_ready{part="usage"} 1.0' in text
    assert 'tollbook_ready{part="relay"} 0.0' in text
