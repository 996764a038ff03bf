"""One try: whether the message may be sent now, what it says, handing it over, and what follows from the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from services.alerts.cards import addresses
from services.alerts.channels.breaker import Breaker, breaker_key
from services.alerts.channels.scrub import scrub
from services.alerts.links import Links
from services.alerts.messages import Addressee, Channel, Content, Outgoing, Receipt, Refused, TryLater
from services.alerts.metrics import DeliveryMetrics
from services.alerts.outbox import Loaded, Person
from services.alerts.rendering import Renderer
from services.alerts.settling import Delivered, Failed, Later, Outcome
from services.alerts.tokens import make_token
from services.alerts.trying import Coded, next_try, obstacle
from shared.clock import Clock
from shared.eventlog.vault import Vault
from shared.events.alerts import Method, Testing, Verifying

log = logging.getLogger(__name__)

GRACE_S: Final = 1.0
"""How much longer than its own time limit a channel may take before it is given up: it should not come to that."""
REST_S: Final = 1.0
"""A channel that is left alone is asked again this often; until then none of its messages is claimed."""
REST_OF_HOST_S: Final = 30.0
"""A message to a webhook whose host is left alone waits this long at most."""


class Way(NamedTuple):
    """A method that is set up: its channel, and how long a try takes at most."""

    channel: Channel
    limit_s: float


class Sender:
    """Tries messages. `ways` has no entry for a method that is not set up."""

    def __init__(
        self,
        ways: Mapping[Method, Way],
        renderer: Renderer,
        links: Links,
        vault: Vault,
        breaker: Breaker,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self._ways = ways
        self._renderer = renderer
        self._links = links
        self._vault = vault
        self._breaker = breaker
        self._metrics = metrics
        self._clock = clock
        self._rests: dict[Method, float] = {}

    def resting(self) -> int:
        """How many channels, and hosts of webhooks, are left alone after failures."""
        return self._breaker.opened()

    def rests(self, method: Method) -> bool:
        """Whether nothing of that method need be tried now. Its messages wait, and use up no attempts."""
        return self._clock.monotonic() < self._rests.get(method, 0.0)

    async def attempt(self, loaded: Loaded) -> Outcome:
        """What becomes of it. Nothing is sent under a claim that may end before the try does: a process that was stopped and
        wakes up would send what another one has sent."""
        claimed, now = loaded.claimed, self._clock.now()
        if claimed.deadline <= now:
            return Failed(claimed, claimed.attempts, "deadline", claimed.answer, by=now)
        reason = obstacle(now, loaded.standing, _coded(loaded))
        if reason is not None:
            return Failed(claimed, claimed.attempts, reason, claimed.answer)
        way = self._ways.get(claimed.method)
        if way is None:
            return Failed(claimed, claimed.attempts, "channel_not_set_up", claimed.answer)
        assert loaded.person is not None, "else its contact was removed"
        address = addresses(loaded.person.card).get(claimed.method, "")
        key = breaker_key(claimed.method, address)
        rest_s = self._breaker.ask(key)
        if rest_s > 0 and claimed.method == "webhook":
            return self._unsent(loaded, min(rest_s, REST_OF_HOST_S))
        if rest_s > 0:
            self._rests[claimed.method] = self._clock.monotonic() + min(rest_s, REST_S)
            return self._unsent(loaded, 0.0)
        if self._clock.monotonic() + way.limit_s + GRACE_S > claimed.until_s:
            self._breaker.unheard(key)
            return self._unsent(loaded, 0.0)
        try:
            outgoing = self._outgoing(loaded, loaded.person, address)
        except Exception as error:
            self._breaker.unheard(key)
            log.error("alerts: a message cannot be written: %s", type(error).__name__, exc_info=error)  # noqa: TRY400
            return self._later(loaded, claimed.attempts + 1, f"it cannot be written ({type(error).__name__})", None)
        return await self._try(loaded, way, key, outgoing)

    def _unsent(self, loaded: Loaded, after_s: float) -> Later:
        """Left as it is, for a later try: this was none."""
        claimed = loaded.claimed
        return Later(claimed, claimed.attempts, self._clock.now() + timedelta(seconds=after_s), claimed.answer)

    async def _try(self, loaded: Loaded, way: Way, key: str, outgoing: Outgoing) -> Outcome:
        claimed = loaded.claimed
        attempts = claimed.attempts + 1
        try:
            async with asyncio.timeout(way.limit_s + GRACE_S):
                receipt: Receipt = await way.channel.send(outgoing)
        except Refused as refused:
            self._breaker.worked(key)
            self._metrics.tried(claimed.method, "refused")
            return Failed(claimed, attempts, "refused", scrub(refused.answer, outgoing.address))
        except TryLater as later:
            (self._breaker.failed if later.ours else self._breaker.worked)(key)
            return self._later(loaded, attempts, scrub(later.answer, outgoing.address), later.retry_after_s)
        except asyncio.CancelledError:
            self._breaker.unheard(key)
            raise
        except Exception as error:
            # A channel raises nothing else. Should it, no provider is to blame, and nobody's message gets lost.
            log.error("alerts: the channel for %s is broken: %s", claimed.method, type(error).__name__, exc_info=error)  # noqa: TRY400
            self._breaker.failed(key)
            return self._later(loaded, attempts, f"the channel is broken ({type(error).__name__})", None)
        self._breaker.worked(key)
        self._metrics.tried(claimed.method, "taken")
        return Delivered(claimed, attempts, receipt.provider_id, scrub(receipt.answer, outgoing.address))

    def _later(self, loaded: Loaded, attempts: int, answer: str, retry_after_s: float | None) -> Outcome:
        """Another try, if there is time for one."""
        claimed = loaded.claimed
        self._metrics.tried(claimed.method, "later")
        next_at = next_try(self._clock.now(), claimed.message_id, attempts, retry_after_s)
        if next_at >= claimed.deadline:
            return Failed(claimed, attempts, "deadline", answer, by=next_at)
        return Later(claimed, attempts, next_at, answer)

    def _outgoing(self, loaded: Loaded, person: Person, address: str) -> Outgoing:
        claimed = loaded.claimed
        secret = person.card.webhook_secret if claimed.method == "webhook" else ""
        content = self._content(loaded, person)
        return Outgoing(claimed.message_id, address, secret, claimed.created_at, content)

    def _content(self, loaded: Loaded, person: Person) -> Content:
        """Another try says the same, but for what its reader has changed, and for the token in the link that unsubscribes: that
        is sealed anew each time."""
        claimed, about = loaded.claimed, loaded.items[0].about
        asked_for = isinstance(about, Verifying | Testing)
        token = "" if asked_for else make_token(self._vault, claimed.account, claimed.contact_id, claimed.method)
        return self._renderer.render(
            claimed.method,
            Addressee(person.card.name, person.locale, person.zone),
            loaded.items,
            code=loaded.codes[about.vault_id] if isinstance(about, Verifying) else None,
            unsubscribe_url=self._links.unsubscribe(token) if token else None,
            message_id=claimed.message_id,
            at=claimed.created_at,
        )


def _coded(loaded: Loaded) -> Coded | None:
    about = loaded.items[0].about
    if not isinstance(about, Verifying):
        return None
    current = loaded.person is not None and loaded.person.code_vault_id == about.vault_id
    return Coded(about.expires_at, current and about.vault_id in loaded.codes)


def gone(loaded: Loaded, now: datetime) -> Failed:
    """For a message that tells nothing any more: it is removed, and nothing else."""
    return Failed(loaded.claimed, loaded.claimed.attempts, "deadline", "", by=now)
