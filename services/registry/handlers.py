"""The registry's subscribers: commands and queries in, replies out. Subjects: `shared.commands.requester.subject_of`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from services.registry import domain, queries
from shared.answering import Answering, Answers, snapshot
from shared.catalog import TermsOfService
from shared.clock import Clock
from shared.commands.base import Command
from shared.commands.registry import (
    AcceptTerms,
    AccountView,
    AppDeletedReply,
    AppIssued,
    AppNames,
    AppPage,
    AppView,
    Authentication,
    CatalogService,
    DeleteApp,
    EditApp,
    GetAccount,
    GetApp,
    GetAppNames,
    GetAuthentication,
    GetTerms,
    ListApps,
    ListServices,
    OpenAccount,
    RegisterApp,
    Reissued,
    ReissueSecret,
    RevokeSecret,
    Secrets,
    SecretView,
    Services,
    Terms,
    TermsAcceptance,
)
from shared.credentials import verifier
from shared.cursor import Cursors
from shared.errors import NotFound
from shared.eventlog.facts import FactsOf
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.registry import RegistryEvent
from shared.ids import new_client_id, new_client_secret, new_id
from shared.postgres import Connection, Pool

SERVICE: Final = "registry"
NOT_KEPT: Final = "The secret was shown once, when it was issued, and is not kept. Reissue it to get a new one."
REVOKED: Final = "There is no current secret: it was revoked. Reissue it to get a new one."


class Database(NamedTuple):
    """What there is once the service has started."""

    pool: Pool
    transactor: Transactor[RegistryEvent]


class Handlers(Answering[Database]):
    """Everything that the registry answers."""

    service = SERVICE

    def __init__(self, rules: domain.Rules, terms: TermsOfService, vault: Vault, pepper: bytes, clock: Clock) -> None:
        super().__init__()
        self._rules = rules
        self._terms = terms
        self._vault = vault
        self._pepper = pepper
        self._cursors = Cursors(pepper, "registry")
        self._clock = clock

    @property
    def answers(self) -> Answers:
        return {
            OpenAccount: self.open_account,
            AcceptTerms: self.accept_terms,
            RegisterApp: self.register_app,
            EditApp: self.edit_app,
            ReissueSecret: self.reissue_secret,
            RevokeSecret: self.revoke_secret,
            DeleteApp: self.delete_app,
            GetAccount: self.get_account,
            GetTerms: self.get_terms,
            ListServices: self.list_services,
            ListApps: self.list_apps,
            GetApp: self.get_app,
            GetAppNames: self.get_app_names,
            GetAuthentication: self.get_authentication,
        }

    async def open_account(self, command: OpenAccount) -> AccountView:
        return await self.running.transactor.run(
            command,
            domain.account_stream(command.account),
            None,
            domain.evolve_account,
            lambda state, facts: domain.open_account(state, facts, command),
            AccountView,
            self._account_facts(command),
        )

    async def accept_terms(self, command: AcceptTerms) -> TermsAcceptance:
        return await self.running.transactor.run(
            command,
            domain.account_stream(command.account),
            None,
            domain.evolve_account,
            lambda state, facts: domain.accept_terms(state, facts, command, self._rules),
            TermsAcceptance,
            self._account_facts(command),
        )

    async def register_app(self, command: RegisterApp) -> AppIssued:
        client_id = new_client_id()
        new = self._new_secret(client_id)
        return await self.running.transactor.run(
            command,
            domain.app_stream(client_id),
            None,
            domain.evolve_app,
            lambda state, facts: domain.register_app(state, facts, command, self._rules, client_id, new),
            AppIssued,
            self._account_facts(command),
        )

    async def edit_app(self, command: EditApp) -> AppView:
        async def facts(connection: Connection) -> domain.AppFacts:
            row = await queries.find_app(connection, command.account, command.client_id)
            return domain.AppFacts(self._clock.now(), None if row is None else row.view)

        return await self.running.transactor.run(
            command,
            domain.app_stream(command.client_id),
            None,
            domain.evolve_app,
            lambda state, facts: domain.edit_app(state, facts, command, self._rules),
            AppView,
            facts,
        )

    async def reissue_secret(self, command: ReissueSecret) -> Reissued:
        new = self._new_secret(command.client_id)
        return await self.running.transactor.run(
            command,
            domain.app_stream(command.client_id),
            None,
            domain.evolve_app,
            lambda state, now: domain.reissue_secret(state, now, command, self._rules, new),
            Reissued,
            self._now,
        )

    async def revoke_secret(self, command: RevokeSecret) -> Secrets:
        return await self.running.transactor.run(
            command,
            domain.app_stream(command.client_id),
            None,
            domain.evolve_app,
            lambda state, now: domain.revoke_secret(state, now, command),
            Secrets,
            self._now,
        )

    async def delete_app(self, command: DeleteApp) -> AppDeletedReply:
        return await self.running.transactor.run(
            command,
            domain.app_stream(command.client_id),
            None,
            domain.evolve_app,
            lambda state, _: domain.delete_app(state, command),
            AppDeletedReply,
        )

    async def get_account(self, query: GetAccount) -> AccountView:
        async with snapshot(self.running.pool) as connection:
            return await self._account(connection, query.account)

    async def get_terms(self, query: GetTerms) -> Terms:
        async with snapshot(self.running.pool) as connection:
            account = await self._account(connection, query.account)
        return Terms(
            version=self._terms.version,
            text=self._terms.text,
            text_ko=self._terms.text_ko,
            accepted_version=account.terms_version,
            accepted_at=account.terms_accepted_at,
        )

    async def list_services(self, query: ListServices) -> Services:  # noqa: ARG002 - the catalog is the same for every account
        return Services(
            services=tuple(
                CatalogService(
                    id=entry.id,
                    name=entry.name.en,
                    name_ko=entry.name.ko,
                    unit=entry.unit,
                    docs=str(entry.docs),
                    pricing=str(entry.pricing),
                    requires_mobile_environment=entry.requires_mobile_environment,
                    review_required=entry.review_required,
                    test_quota=entry.test_quota,
                )
                for entry in self._rules.catalog.values()
            )
        )

    async def list_apps(self, query: ListApps) -> AppPage:
        before = None if query.cursor is None else self._cursors.read(query.account, query.cursor)[0]
        async with snapshot(self.running.pool) as connection:
            rows = await queries.page_of_apps(connection, query.account, before, query.limit + 1)
        shown = rows[: query.limit]
        more = len(rows) > query.limit
        next_cursor = self._cursors.write(query.account, shown[-1].registered) if more else None
        return AppPage(apps=tuple(row.view for row in shown), next_cursor=next_cursor)

    async def get_app(self, query: GetApp) -> AppView:
        async with snapshot(self.running.pool) as connection:
            return await self._app(connection, query.account, query.client_id)

    async def get_app_names(self, query: GetAppNames) -> AppNames:
        async with snapshot(self.running.pool) as connection:
            return AppNames(names=await queries.names_of_apps(connection, query.account, query.client_ids))

    async def get_authentication(self, query: GetAuthentication) -> Authentication:
        async with snapshot(self.running.pool) as connection:
            app = await self._app(connection, query.account, query.client_id)
            secrets = [
                SecretView(
                    secret_id=row.secret_id,
                    current=row.valid_until is None,
                    issued_at=row.issued_at,
                    valid_until=row.valid_until,
                    client_secret=await self._opened(connection, domain.vault_id(app.client_id, row.secret_id)),
                )
                for row in await queries.secrets_that_work(connection, app.client_id, self._clock.now())
            ]
        current = next((secret for secret in secrets if secret.current), None)
        kept = current is not None and current.client_secret is not None
        return Authentication(
            client_id=app.client_id,
            name=app.name,
            client_secret=current.client_secret if current is not None else None,
            secrets=tuple(secrets),
            environments=app.environments,
            secret_kept=kept,
            note="" if kept else REVOKED if current is None else NOT_KEPT,
        )

    async def _account(self, connection: Connection, account: str) -> AccountView:
        found = await queries.find_account(connection, account, self._rules.terms_version)
        if found is None:
            raise domain.no_account(account)
        return found

    async def _app(self, connection: Connection, account: str, client_id: str) -> AppView:
        row = await queries.find_app(connection, account, client_id)
        if row is None:
            raise domain.no_app()
        return row.view

    async def _opened(self, connection: Connection, vault_id: str) -> str | None:
        """The sealed secret; None when it is not kept."""
        try:
            return (await self._vault.get(connection, vault_id)).decode()
        except NotFound:
            return None

    def _account_facts(self, command: Command) -> FactsOf[domain.AccountFacts]:
        def make(row: Sequence[Any] | None) -> domain.AccountFacts:
            account, apps = (None, 0) if row is None else queries.account_and_apps(row, self._rules.terms_version)
            return domain.AccountFacts(self._clock.now(), account, apps)

        return FactsOf(queries.ACCOUNTS_AND_APPS, command.account, make)

    async def _now(self, _: Connection) -> datetime:
        return self._clock.now()

    def _new_secret(self, client_id: str) -> domain.NewSecret:
        secret = new_client_secret()
        return domain.NewSecret(new_id(), secret, verifier(self._pepper, client_id, secret))
