"""What the gate knows of the applications, and whether a call may pass. Pure: no I/O, the time comes in with the call."""

from __future__ import annotations

import hmac
import sys
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, assert_never

import msgspec
from msgspec import UNSET, structs

from shared.credentials import verifier
from shared.environments import android_matches, ios_matches, web_matches
from shared.events.registry import (
    AccountOpened,
    AppDeleted,
    AppEdited,
    AppRegistered,
    Environments,
    RegistryEvent,
    SecretReissued,
    SecretRevoked,
    SelectedService,
    ServiceActivated,
    ServiceResumed,
    ServiceSuspended,
    TermsAccepted,
    Tier,
)


class Reason(StrEnum):
    """Why a call does not pass. The value is the name of the outcome in the metrics."""

    UNKNOWN_SERVICE = "unknown_service"
    CREDENTIALS_MISSING = "credentials_missing"
    CREDENTIALS_TWICE = "credentials_twice"
    CREDENTIALS_WRONG = "credentials_wrong"
    SERVICE_NOT_SELECTED = "service_not_selected"
    SERVICE_SUSPENDED = "service_suspended"
    WEB_NOT_REGISTERED = "web_not_registered"
    ANDROID_NOT_REGISTERED = "android_not_registered"
    IOS_NOT_REGISTERED = "ios_not_registered"
    QUANTITY_INVALID = "quantity_invalid"


class Contradiction(ValueError):
    """An event about an application that is not there: the stream is not what the registry decided."""


class Secret(msgspec.Struct, frozen=True, gc=False):
    """A Client Secret that works, until `valid_until` if that is set. Only its verifier is known here."""

    secret_id: str
    verifier: str
    valid_until: datetime | None = None


class App(msgspec.Struct, frozen=True, gc=False):
    """One application, in as little memory as the decision needs."""

    account: str
    services: tuple[SelectedService, ...]
    environments: Environments
    secrets: tuple[Secret, ...]


NO_ENVIRONMENTS: Final = Environments()
SELECTIONS_REMEMBERED: Final = 4096


def evolve(app: App | None, event: RegistryEvent) -> App | None:
    """The application after `event`; None is an application that does not exist. Raises Contradiction."""
    match event:
        case AccountOpened() | TermsAccepted():
            return app
        case AppRegistered():
            secret = Secret(event.secret.secret_id, event.secret.verifier)
            return App(sys.intern(event.account), _one(event.services), _compact(event.environments), (secret,))
        case AppEdited():
            known = _known(app, event.client_id)
            return App(known.account, _one(event.services), _compact(event.environments), known.secrets)
        case SecretReissued():
            known = _known(app, event.client_id)
            kept = _superseded(known.secrets, event.previous_valid_until)
            return _with_secrets(known, (*kept, Secret(event.secret.secret_id, event.secret.verifier)))
        case SecretRevoked():
            known = _known(app, event.client_id)
            return _with_secrets(known, tuple(s for s in known.secrets if s.secret_id != event.secret_id))
        case ServiceActivated():
            return _with_service(_known(app, event.client_id), event.service, tier="live")
        case ServiceSuspended():
            return _with_service(_known(app, event.client_id), event.service, suspended=True)
        case ServiceResumed():
            return _with_service(_known(app, event.client_id), event.service, suspended=UNSET)
        case AppDeleted():
            _known(app, event.client_id)
            return None
        case _:
            assert_never(event)


def _known(app: App | None, client_id: str) -> App:
    if app is None:
        raise Contradiction(f"an event speaks of application {client_id}, which is not registered")
    return app


@lru_cache(SELECTIONS_REMEMBERED)
def _one(services: tuple[SelectedService, ...]) -> tuple[SelectedService, ...]:
    """The same object for equal selections: few differ, and a hundred thousand applications have one each."""
    return services


def _compact(environments: Environments) -> Environments:
    return environments if environments.web or environments.android or environments.ios else NO_ENVIRONMENTS


def _with_secrets(app: App, secrets: tuple[Secret, ...]) -> App:
    return App(app.account, app.services, app.environments, secrets)


def _with_service(app: App, service: str, **changed: Any) -> App:
    """With what has changed of one selected service."""
    services = tuple(structs.replace(one, **changed) if one.service == service else one for one in app.services)
    return App(app.account, _one(services), app.environments, app.secrets)


def _superseded(secrets: tuple[Secret, ...], until: datetime | None) -> tuple[Secret, ...]:
    """Earlier secrets work until then, or until their own earlier end: a second reissue never prolongs a secret."""
    if until is None:
        return ()
    return tuple(Secret(s.secret_id, s.verifier, min(until, s.valid_until or until)) for s in secrets)


class Apps:
    """All applications by Client ID: the fold of the registry's events, kept in place because it is large."""

    def __init__(self) -> None:
        self._by_client_id: dict[str, App] = {}

    def __len__(self) -> int:
        return len(self._by_client_id)

    def get(self, client_id: str) -> App | None:
        return self._by_client_id.get(client_id)

    def apply(self, event: RegistryEvent) -> None:
        """Fold `event` in. Raises Contradiction."""
        if isinstance(event, AccountOpened | TermsAccepted):
            return
        app = evolve(self._by_client_id.get(event.client_id), event)
        if app is None:
            del self._by_client_id[event.client_id]
        else:
            self._by_client_id[event.client_id] = app


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """What the caller says it is. Never logged."""

    client_id: str
    secret: str


class Call(msgspec.Struct, frozen=True, gc=False):
    """One call as it was presented.

    `credentials` is a Reason when they could not even be read. `web`, `android` and `ios` are "" when the caller presents none.
    `quantity` is 0 when what was presented is no whole number in range.
    """

    credentials: Credentials | Reason
    web: str = ""
    android: str = ""
    ios: str = ""
    quantity: int = 1


class Rules(msgspec.Struct, frozen=True):
    """What the decision goes by besides the applications: the catalog's services, and the pepper of the verifiers."""

    services: frozenset[str]
    pepper: bytes


class Pass(msgspec.Struct, frozen=True, gc=False):
    """The call may go on, once its usage is recorded. (The quota lease of an application with a limit will be named here.)"""

    client_id: str
    account: str
    service: str
    tier: Tier
    secret_id: str
    quantity: int


def decide(apps: Apps | Mapping[str, App], rules: Rules, service: str, call: Call, now: datetime) -> Pass | Reason:
    """Whether `call` to `service` may pass at `now`, or the first reason why not, in the documented order."""
    if service not in rules.services:
        return Reason.UNKNOWN_SERVICE
    credentials = call.credentials
    if isinstance(credentials, Reason):
        return credentials
    app = apps.get(credentials.client_id)
    secret_id = _authenticate(app, credentials, rules.pepper, now)
    if app is None or secret_id is None:
        return Reason.CREDENTIALS_WRONG
    selected = _selected(app, service)
    if selected is None:
        return Reason.SERVICE_NOT_SELECTED
    if selected.suspended:
        return Reason.SERVICE_SUSPENDED
    stranger = _foreign_environment(app.environments, call)
    if stranger is not None:
        return stranger
    if call.quantity < 1:
        return Reason.QUANTITY_INVALID
    return Pass(credentials.client_id, app.account, service, selected.tier, secret_id, call.quantity)


_NO_SECRETS: Final = (Secret("", "0" * 64),)
"""Compared with when there is nothing to compare with, so that an unknown Client ID takes as long as a wrong secret."""


def _authenticate(app: App | None, credentials: Credentials, pepper: bytes, now: datetime) -> str | None:
    """The id of the secret that was presented, or None. Every secret is compared, in constant time, whatever the outcome."""
    presented = verifier(pepper, credentials.client_id, credentials.secret)
    found = None
    for secret in (app.secrets if app is not None else ()) or _NO_SECRETS:
        equal = hmac.compare_digest(presented, secret.verifier)
        if equal and (secret.valid_until is None or now < secret.valid_until):
            found = secret.secret_id
    return found


def _selected(app: App, service: str) -> SelectedService | None:
    for selected in app.services:
        if selected.service == service:
            return selected
    return None


def _foreign_environment(registered: Environments, call: Call) -> Reason | None:
    """The kind of environment that the caller presents without being registered for it. One that presents none is a server."""
    if call.web and not web_matches(registered.web, call.web):
        return Reason.WEB_NOT_REGISTERED
    if call.android and not android_matches(registered.android, call.android):
        return Reason.ANDROID_NOT_REGISTERED
    if call.ios and not ios_matches(registered.ios, call.ios):
        return Reason.IOS_NOT_REGISTERED
    return None
