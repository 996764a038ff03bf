"""What the gate knows of limits: which calls need units of one, and whose leases a change of the registry or of a limit ends.

Pure. How many units there are is metering's to say; here it is only known that somebody has to be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.gate.domain import App, Apps, Pass
from shared.events.metering import AccountLimitChanged, LimitChanged, MeteringEvent
from shared.events.registry import (
    AccountOpened,
    AppRegistered,
    RegistryEvent,
    SecretReissued,
    SecretRevoked,
    SelectedService,
    TermsAccepted,
)

SUBJECTS: Final = ("metering.events.LimitChanged", "metering.events.AccountLimitChanged")
"""All that is read of metering's stream: crossings are many, and say nothing about who needs units."""

Revoke = Callable[[str, str, str], None]
"""Is called with (account, client_id, service): the leases of that scope end. client_id "": of all the account's applications."""


class Limits:
    """The limited scopes: the fold of metering's LimitChanged and AccountLimitChanged, kept in place.

    `tested` are the services of the catalog that have a test quota: a limit of every application that is in tier test there.
    """

    def __init__(self, tested: frozenset[str], revoke: Revoke) -> None:
        self._tested = tested
        self._revoke = revoke
        self._apps: set[tuple[str, str]] = set()
        self._accounts: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._apps) + len(self._accounts)

    def apply_to(self, call: Pass) -> bool:
        """Whether the call needs units of a limit."""
        service = call.service
        return (
            (call.client_id, service) in self._apps
            or (call.account, service) in self._accounts
            or (call.tier == "test" and service in self._tested)
        )

    def apply(self, event: MeteringEvent) -> None:
        """Fold `event` in: leases that were granted under the limit before it are not spent from any more."""
        match event:
            case LimitChanged():
                limited = event.daily is not None or event.monthly is not None
                _set(self._apps, (event.client_id, event.service), limited)
                self._revoke(event.account, event.client_id, event.service)
            case AccountLimitChanged():
                _set(self._accounts, (event.account, event.service), event.monthly is not None)
                self._revoke(event.account, "", event.service)
            case _:
                pass  # not about who is limited


def _set(scopes: set[tuple[str, str]], scope: tuple[str, str], limited: bool) -> None:
    if limited:
        scopes.add(scope)
    else:
        scopes.discard(scope)


def fold_registry(apps: Apps, revoke: Revoke, event: RegistryEvent) -> None:
    """Fold `event` into `apps`, and end the leases of what it took away or changed. Raises Contradiction."""
    if isinstance(event, AccountOpened | TermsAccepted | AppRegistered):
        apps.apply(event)
        return
    before = apps.get(event.client_id)
    apps.apply(event)
    if before is not None:
        for service in _ended(event, before, apps.get(event.client_id)):
            revoke(before.account, event.client_id, service.service)


def _ended(event: RegistryEvent, before: App, after: App | None) -> tuple[SelectedService, ...]:
    """The selections of `before` whose leases end: all of an application whose secrets changed or that is gone, else those that
    are not selected any more, or otherwise: in another tier, suspended."""
    if after is None or isinstance(event, SecretReissued | SecretRevoked):
        return before.services
    return tuple(service for service in before.services if service not in after.services)
