"""What the registry decided: accounts, applications and their credentials. Stream REGISTRY, subjects registry.events.<Type>."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from shared.events.codec import Codec, Event

Tier = Literal["test", "live"]


class SelectedService(msgspec.Struct, frozen=True, gc=False):
    """One service of the catalog that an application may call. `test` until a review has activated it.

    `suspended` is there, and true, while a reviewer has calls of the application to it refused.
    """

    service: str
    tier: Tier = "live"
    suspended: Literal[True] | UnsetType = UNSET


class Environments(msgspec.Struct, frozen=True, gc=False):
    """Where the application runs, in the reduced form of `shared.environments`: what a caller presents must match one."""

    web: tuple[str, ...] = ()
    android: tuple[str, ...] = ()
    ios: tuple[str, ...] = ()


class SecretIssued(msgspec.Struct, frozen=True, gc=False):
    """A Client Secret, never itself: `verifier` is hex(HMAC-SHA-256(pepper, client_id ":" secret))."""

    secret_id: str
    verifier: str


class AccountOpened(Event, frozen=True, kw_only=True):
    """A customer's account exists. `zone` is the IANA zone in which its days and months are counted."""

    account: str
    zone: str


class TermsAccepted(Event, frozen=True, kw_only=True):
    """The account agreed to this version of the API terms of service. `accepted_by` is a member's id, never a name."""

    account: str
    terms_version: str
    accepted_by: str


class AppRegistered(Event, frozen=True, kw_only=True):
    """An application exists and may call its services with its first secret."""

    account: str
    client_id: str
    name: str
    services: tuple[SelectedService, ...]
    environments: Environments
    secret: SecretIssued


class AppEdited(Event, frozen=True, kw_only=True):
    """The application's name, services and environments are now these (the whole of them, not the difference)."""

    account: str
    client_id: str
    name: str
    services: tuple[SelectedService, ...]
    environments: Environments


class SecretReissued(Event, frozen=True, kw_only=True):
    """A new secret works from now on; every earlier one works no longer than until `previous_valid_until` (None: it ends now)."""

    account: str
    client_id: str
    secret: SecretIssued
    previous_valid_until: datetime | None


class SecretRevoked(Event, frozen=True, kw_only=True):
    """That secret works no longer, at once."""

    account: str
    client_id: str
    secret_id: str


class ServiceActivated(Event, frozen=True, kw_only=True):
    """A review has approved this service for this application: its tier is now live."""

    account: str
    client_id: str
    service: str


class ServiceSuspended(Event, frozen=True, kw_only=True):
    """A reviewer has suspended what the review `review_id` approved: calls of the application to this service are refused."""

    account: str
    client_id: str
    service: str
    review_id: str


class ServiceResumed(Event, frozen=True, kw_only=True):
    """The suspension was lifted: calls of the application to this service pass again."""

    account: str
    client_id: str
    service: str
    review_id: str


class AppDeleted(Event, frozen=True, kw_only=True):
    """The application is gone; none of its secrets works."""

    account: str
    client_id: str


RegistryEvent = (
    AccountOpened
    | TermsAccepted
    | AppRegistered
    | AppEdited
    | SecretReissued
    | SecretRevoked
    | ServiceActivated
    | ServiceSuspended
    | ServiceResumed
    | AppDeleted
)

CODEC: Codec[RegistryEvent] = Codec("registry", RegistryEvent)
STREAM = "REGISTRY"
SUBJECTS = "registry.events.>"
