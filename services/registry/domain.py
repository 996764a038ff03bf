"""What the registry decides, and why not. Pure: the time, ids, secrets and what the read tables know come in as arguments.

Two aggregates: an account (stream `account/<account>`) and an application (stream `app/<client_id>`). Each has a state that is
`None` before its first event, and an `evolve`. Every command has one function that gives its Decision or raises its refusal;
a command that wants what is already so gives no events.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias, assert_never

import msgspec

from services.registry.selection import (
    check_mobile_environment,
    environments_view,
    reduce_environments,
    select_services,
    services_view,
)
from shared.catalog import Catalog
from shared.commands.registry import (
    AcceptTerms,
    AccountView,
    AppDeletedReply,
    AppIssued,
    AppView,
    DeleteApp,
    EditApp,
    OpenAccount,
    RegisterApp,
    Reissued,
    ReissueSecret,
    RevokeSecret,
    Secrets,
    TermsAcceptance,
    name_hints,
)
from shared.errors import Conflict, FieldProblem, NotFound
from shared.eventlog.decision import Decision
from shared.events.registry import (
    AccountOpened,
    AppDeleted,
    AppEdited,
    AppRegistered,
    Environments,
    RegistryEvent,
    SecretIssued,
    SecretReissued,
    SecretRevoked,
    SelectedService,
    ServiceActivated,
    ServiceResumed,
    ServiceSuspended,
    TermsAccepted,
)

APPS_MAX_DEFAULT: Final = 1_000
LaterEvent: TypeAlias = (
    AppEdited | SecretReissued | SecretRevoked | ServiceActivated | ServiceSuspended | ServiceResumed | AppDeleted
)
"""What happens to an application once it is registered."""


class Account(msgspec.Struct, frozen=True, gc=False):
    """An open account and the version of the terms that it accepted last."""

    account: str
    zone: str
    terms_version: str | None = None


class Secret(msgspec.Struct, frozen=True, gc=False):
    """A secret that was not ended: it works until `valid_until`, or for good when that is None (the current one)."""

    secret_id: str
    valid_until: datetime | None = None

    def works(self, now: datetime) -> bool:
        return self.valid_until is None or self.valid_until > now


class App(msgspec.Struct, frozen=True, gc=False):
    """An application. `secrets` from the oldest to the newest; `ended` are the ids of those that work no longer."""

    account: str
    client_id: str
    name: str
    services: tuple[SelectedService, ...]
    environments: Environments
    secrets: tuple[Secret, ...]
    ended: frozenset[str] = frozenset()
    deleted: bool = False


class Rules(msgspec.Struct, frozen=True):
    """What the deployment decides: services on sale, the terms of today, how many applications, whether secrets are kept."""

    catalog: Catalog
    terms_version: str
    apps_max: int = APPS_MAX_DEFAULT
    keep_secrets: bool = True


class NewSecret(msgspec.Struct, frozen=True):
    """Freshly made, in case the command is accepted."""

    secret_id: str
    secret: str
    verifier: str


class AccountFacts(msgspec.Struct, frozen=True):
    """What the read tables know about the command's account (None: not open), and the time."""

    now: datetime
    account: AccountView | None
    apps: int = 0


class AppFacts(msgspec.Struct, frozen=True):
    """What the read tables know about the command's application (None: there is none), and the time."""

    now: datetime
    app: AppView | None


def account_stream(account: str) -> str:
    return f"account/{account}"


def app_stream(client_id: str) -> str:
    return f"app/{client_id}"


def vault_id(client_id: str, secret_id: str) -> str:
    """Where the sealed secret lies in the vault."""
    return f"secret/{client_id}/{secret_id}"


def evolve_account(state: Account | None, event: RegistryEvent) -> Account | None:
    """The account after one more event of its stream."""
    match event:
        case AccountOpened():
            return Account(event.account, event.zone)
        case TermsAccepted():
            assert state is not None, "an account is opened first"
            return msgspec.structs.replace(state, terms_version=event.terms_version)
        case (AppRegistered() | AppEdited() | SecretReissued() | SecretRevoked() | AppDeleted()) | (
            ServiceActivated() | ServiceSuspended() | ServiceResumed()
        ):  # of an application's stream
            return state
        case _:
            assert_never(event)


def evolve_app(state: App | None, event: RegistryEvent) -> App | None:
    """The application after one more event of its stream."""
    if isinstance(event, AppRegistered):
        secrets = (Secret(event.secret.secret_id),)
        return App(event.account, event.client_id, event.name, event.services, event.environments, secrets)
    if state is None:
        assert isinstance(event, AccountOpened | TermsAccepted), "an application is registered first"
        return None
    return _evolve_registered(state, event)


def _evolve_registered(app: App, event: LaterEvent | AccountOpened | TermsAccepted) -> App:
    match event:
        case AppEdited():
            return msgspec.structs.replace(app, name=event.name, services=event.services, environments=event.environments)
        case SecretReissued():
            until, new = event.previous_valid_until, Secret(event.secret.secret_id)
            if until is None:
                return msgspec.structs.replace(app, secrets=(new,), ended=_ended(app))
            return msgspec.structs.replace(app, secrets=(*(_until(secret, until) for secret in app.secrets), new))
        case SecretRevoked():
            left = tuple(secret for secret in app.secrets if secret.secret_id != event.secret_id)
            return msgspec.structs.replace(app, secrets=left, ended=app.ended | {event.secret_id})
        case ServiceActivated():
            return _with_service(app, event.service, tier="live")
        case ServiceSuspended():
            return _with_service(app, event.service, suspended=True)
        case ServiceResumed():
            return _with_service(app, event.service, suspended=msgspec.UNSET)
        case AppDeleted():
            return msgspec.structs.replace(app, deleted=True, secrets=(), ended=_ended(app))
        case AccountOpened() | TermsAccepted():  # of an account's stream
            return app
        case _:
            assert_never(event)


def _with_service(app: App, service: str, **changed: Any) -> App:
    """With what has changed of one selected service."""
    services = (msgspec.structs.replace(one, **changed) if one.service == service else one for one in app.services)
    return msgspec.structs.replace(app, services=tuple(services))


def _ended(app: App) -> frozenset[str]:
    """The ids of all secrets so far, for now none of them works."""
    return app.ended.union([secret.secret_id for secret in app.secrets])


def _until(secret: Secret, until: datetime) -> Secret:
    return Secret(secret.secret_id, min(until, secret.valid_until or until))


def open_account(state: Account | None, facts: AccountFacts, command: OpenAccount) -> Decision[RegistryEvent, AccountView]:
    """Open it, once. Conflict: it is open with another zone, in which its usage has been counted."""
    if state is None:
        view = AccountView(account=command.account, zone=command.zone, opened_at=facts.now)
        return Decision([AccountOpened(account=command.account, zone=command.zone)], view, at=facts.now)
    if state.zone != command.zone:
        raise Conflict(f"The account is open with the time zone {state.zone}, in which its usage is counted.")
    assert facts.account is not None, "the read tables are never behind the log"
    return Decision([], facts.account)


def accept_terms(
    state: Account | None, facts: AccountFacts, command: AcceptTerms, rules: Rules
) -> Decision[RegistryEvent, TermsAcceptance]:
    """Agree to the terms of today; Conflict for any other version."""
    if state is None:
        raise no_account(command.account)
    if command.version != rules.terms_version:
        problem = FieldProblem(
            "version", f"The current version is {rules.terms_version}.", "Read the current terms, then accept them."
        )
        raise Conflict(f"Version {command.version} of the terms of service is not the current one.", [problem])
    if state.terms_version == command.version:
        assert facts.account is not None, "the read tables are never behind the log"
        assert facts.account.terms_accepted_at is not None, "the read tables are never behind the log"
        return Decision([], TermsAcceptance(version=command.version, accepted_at=facts.account.terms_accepted_at))
    event = TermsAccepted(account=command.account, terms_version=command.version, accepted_by=command.actor)
    return Decision([event], TermsAcceptance(version=command.version, accepted_at=facts.now), at=facts.now)


def register_app(
    state: App | None, facts: AccountFacts, command: RegisterApp, rules: Rules, client_id: str, new: NewSecret
) -> Decision[RegistryEvent, AppIssued]:
    """A new application with its first secret, if the terms are accepted and the catalog has what it asks for."""
    if state is not None:
        raise Conflict("An application with this new Client ID exists already. Ask again.")
    if facts.account is None:
        raise no_account(command.account)
    if facts.account.terms_version != rules.terms_version:
        raise _terms_not_accepted(facts.account, rules)
    if facts.apps >= rules.apps_max:
        raise Conflict(f"The account has {facts.apps} applications; at most {rules.apps_max} are possible. Delete one first.")
    services = select_services(command.services, (), rules.catalog)
    reduced = reduce_environments(command.environments, Environments())
    check_mobile_environment(services, reduced, rules.catalog)
    registered = AppRegistered(
        account=command.account,
        client_id=client_id,
        name=command.name,
        services=services,
        environments=reduced,
        secret=SecretIssued(new.secret_id, new.verifier),
    )
    reply = AppIssued(
        client_id=client_id,
        name=command.name,
        services=services_view(services),
        environments=environments_view(reduced),
        registered_at=facts.now,
        edited_at=facts.now,
        hints=name_hints(command.name),
        secret_id=new.secret_id,
        client_secret=new.secret,
    )
    revealed = vault_id(client_id, new.secret_id)
    return Decision([registered], reply, seal=_sealed(revealed, new, rules), reveals=revealed, at=facts.now)


def edit_app(state: App | None, facts: AppFacts, command: EditApp, rules: Rules) -> Decision[RegistryEvent, AppView]:
    """The application with what was given changed. Services that stay keep their tier, even if the catalog has dropped them."""
    app = _own(state, command.account)
    assert facts.app is not None, "the read tables are never behind the log"
    name = app.name if command.name is None else command.name
    services = app.services if command.services is None else select_services(command.services, app.services, rules.catalog)
    reduced = app.environments if command.environments is None else reduce_environments(command.environments, app.environments)
    if (name, services, reduced) == (app.name, app.services, app.environments):
        return Decision([], facts.app)
    if command.services is not None or command.environments is not None:
        check_mobile_environment(services, reduced, rules.catalog)
    edited = AppEdited(account=app.account, client_id=app.client_id, name=name, services=services, environments=reduced)
    reply = AppView(
        client_id=app.client_id,
        name=name,
        services=services_view(services),
        environments=environments_view(reduced),
        registered_at=facts.app.registered_at,
        edited_at=facts.now,
        hints=name_hints(name),
    )
    return Decision([edited], reply, at=facts.now)


def reissue_secret(
    state: App | None, now: datetime, command: ReissueSecret, rules: Rules, new: NewSecret
) -> Decision[RegistryEvent, Reissued]:
    """A new secret. With a grace period the one before it works on for so long; whatever is older ends now."""
    app = _own(state, command.account)
    previous = next((secret for secret in reversed(app.secrets) if secret.works(now)), None) if command.grace_seconds else None
    over = [secret for secret in app.secrets if secret != previous]
    until = None if previous is None else _until(previous, now + timedelta(seconds=command.grace_seconds)).valid_until
    ended = over if previous is not None else []  # without a previous one SecretReissued ends them all
    events: list[RegistryEvent] = [
        SecretRevoked(account=app.account, client_id=app.client_id, secret_id=secret.secret_id) for secret in ended
    ]
    issued = SecretIssued(new.secret_id, new.verifier)
    events.append(SecretReissued(account=app.account, client_id=app.client_id, secret=issued, previous_valid_until=until))
    reply = Reissued(
        client_id=app.client_id,
        secret_id=new.secret_id,
        client_secret=new.secret,
        issued_at=now,
        previous_valid_until=until,
    )
    revealed = vault_id(app.client_id, new.secret_id)
    shred = [vault_id(app.client_id, secret.secret_id) for secret in over]
    return Decision(events, reply, seal=_sealed(revealed, new, rules), shred=shred, reveals=revealed, at=now)


def revoke_secret(state: App | None, now: datetime, command: RevokeSecret) -> Decision[RegistryEvent, Secrets]:
    """End one secret at once. The application may be left without any until the next reissue."""
    app = _own(state, command.account)
    if command.secret_id in app.ended:
        return Decision([], _secrets_view(app, now))
    if command.secret_id not in {secret.secret_id for secret in app.secrets}:
        raise NotFound("The application has no such secret.")
    event = SecretRevoked(account=app.account, client_id=app.client_id, secret_id=command.secret_id)
    after = _evolve_registered(app, event)
    return Decision([event], _secrets_view(after, now), shred=[vault_id(app.client_id, command.secret_id)])


def delete_app(state: App | None, command: DeleteApp) -> Decision[RegistryEvent, AppDeletedReply]:
    """Delete it, with every secret that was kept. Deleting it again changes nothing."""
    reply = AppDeletedReply(client_id=command.client_id)
    if state is not None and state.deleted and state.account == command.account:
        return Decision([], reply)
    app = _own(state, command.account)
    shred = [vault_id(app.client_id, secret.secret_id) for secret in app.secrets]
    return Decision([AppDeleted(account=app.account, client_id=app.client_id)], reply, shred=shred)


def _own(state: App | None, account: str) -> App:
    """The application, if it is there for this account; another account's is as if there was none."""
    if state is None or state.account != account or state.deleted:
        raise no_app()
    return state


def no_app() -> NotFound:
    """What is said about an application that is not there, and about another account's."""
    return NotFound("There is no such application.")


def no_account(account: str) -> NotFound:
    """What is said about an account that was not opened."""
    return NotFound(f"The account {account} is not open.")


def _terms_not_accepted(account: AccountView, rules: Rules) -> Conflict:
    before = f" Version {account.terms_version} was accepted before." if account.terms_version else ""
    return Conflict(
        f"The API terms of service, version {rules.terms_version}, have to be accepted before an application is registered."
        f"{before}"
        f' Read them with GET /v1/terms and accept them with PUT /v1/terms/acceptance {{"version": "{rules.terms_version}"}}.'
    )


def _sealed(id_: str, new: NewSecret, rules: Rules) -> dict[str, bytes]:
    return {id_: new.secret.encode()} if rules.keep_secrets else {}


def _secrets_view(app: App, now: datetime) -> Secrets:
    return Secrets(client_id=app.client_id, secret_ids=tuple(s.secret_id for s in reversed(app.secrets) if s.works(now)))
