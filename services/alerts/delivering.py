"""The delivery worker put together from the settings: channels, what protects them, and who tries and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from services.alerts.channels.breaker import Breaker
from services.alerts.channels.opening import open_channels
from services.alerts.channels.settings import ChannelSettings
from services.alerts.links import Links
from services.alerts.metrics import DeliveryMetrics
from services.alerts.rendering import Renderer
from services.alerts.sending import GRACE_S, Sender, Way
from services.alerts.settling import Recorder
from services.alerts.worker import Limits, Worker
from shared.clock import Clock
from shared.eventlog.log import EventLog
from shared.eventlog.vault import Vault
from shared.events.alerts import AlertsEvent, Method
from shared.postgres import Pool
from shared.service import Service


class Parts(NamedTuple):
    """What delivery stands on. `committed` is called after each commit to the log."""

    pool: Pool
    log: EventLog[AlertsEvent]
    vault: Vault
    clock: Clock
    committed: Callable[[], None]


def open_worker(service: Service, settings: ChannelSettings, links: Links, renderer: Renderer, parts: Parts) -> Worker:
    """The worker. Its channels are closed with the service's resources. Raises OSError as `open_channels`."""
    pool, log, vault, clock, committed = parts
    channels = open_channels(settings, clock)
    for channel in channels.values():
        service.resources.push_async_callback(channel.close)
    seconds: Mapping[Method, float] = {
        "email": settings.smtp_timeout_s,
        "sms": settings.sms_timeout_s,
        "webhook": settings.webhook_timeout_s,
    }
    at_once: Mapping[Method, int] = {
        "email": settings.email_concurrency,
        "sms": settings.sms_concurrency,
        "webhook": settings.webhook_concurrency,
    }
    metrics = DeliveryMetrics(service.metrics)
    breaker = Breaker(clock, probe_s=max(seconds.values()) + GRACE_S)
    metrics.resting(breaker.opened)
    ways = {method: Way(channel, seconds[method]) for method, channel in channels.items()}
    sender = Sender(ways, renderer, links, vault, breaker, metrics, clock)
    recorder = Recorder(pool, log, metrics, clock, committed)
    limits = {method: Limits(at_once[method], limit_s) for method, limit_s in seconds.items()}
    return Worker(pool, vault, sender, recorder, limits, metrics, clock)
