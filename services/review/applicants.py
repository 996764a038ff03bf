"""What applicants ask and command: their applications, and the code that calls what was approved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.review import applying, facts, queries, views
from services.review.code_samples import Call, code_view
from services.review.domain import ApplicantFacts, Done, New, Rules, ServiceApp, evolve, no_application, service_app_stream
from services.review.first_calls import FirstCalls
from services.review.following import CONSUMER
from services.review.opening import content_of, open_own
from services.review.refusals import Asking, happened
from services.review.serving import Started
from shared.answering import Answering, Answers, reading, snapshot
from shared.catalog import Catalog
from shared.clock import Clock
from shared.commands.base import Command
from shared.commands.review import SERVICE
from shared.commands.service_apps import (
    AmendApplication,
    ApplicationPage,
    ApplicationView,
    CodeView,
    DraftApplication,
    EditApplication,
    GetApplication,
    GetCode,
    GetRevision,
    ListApplications,
    ListTestApps,
    RevisionView,
    SubmitApplication,
    TestApps,
    WithdrawApplication,
)
from shared.cursor import Cursors
from shared.errors import Conflict, NotFound
from shared.eventlog.decision import Decision
from shared.events.registry import STREAM as REGISTRY
from shared.events.review import ReviewEvent
from shared.ids import new_id
from shared.postgres import Connection
from shared.streams.awaiting import await_applied, awaited
from shared.streams.jetstream import Connected

REGISTRY_WAIT_S: Final = 0.5
"""How long an application that was registered a moment ago is waited for."""
Decide = Callable[[ServiceApp | None, ApplicantFacts], Decision[ReviewEvent, Done]]


class ApplicantHandlers(Answering[Started]):
    """Everything that applicants are answered. `api_url`: where the reverse proxy has the services, for samples."""

    service = SERVICE

    def __init__(
        self, rules: Rules, catalog: Catalog, api_url: str, cursors: Cursors, first_calls: FirstCalls, nc: Connected, clock: Clock
    ) -> None:
        super().__init__()
        self._rules = rules
        self._catalog = catalog
        self._api_url = api_url
        self._cursors = cursors
        self._first_calls = first_calls
        self._nc = nc
        self._clock = clock

    @property
    def answers(self) -> Answers:
        return {
            DraftApplication: self.draft,
            EditApplication: self.edit,
            SubmitApplication: self.submit,
            WithdrawApplication: self.withdraw,
            AmendApplication: self.amend,
            ListApplications: self.list_applications,
            GetApplication: self.get_application,
            GetRevision: self.get_revision,
            GetCode: self.get_code,
            ListTestApps: self.list_test_apps,
        }

    async def draft(self, command: DraftApplication) -> ApplicationView:
        called = await self._tests(command) and await self._first_calls.made(command.account, command.client_id, command.service)
        new = _new()
        stream = service_app_stream(command.client_id, command.service)
        return await self._run(
            command,
            stream,
            lambda state, facts: applying.draft(state, facts, command, self._rules, new),
            client_id=command.client_id,
            called=called,
        )

    async def edit(self, command: EditApplication) -> ApplicationView:
        new = _new()
        return await self._run_on(
            command, command.review_id, lambda state, facts: applying.edit(state, facts, command, self._rules, new)
        )

    async def submit(self, command: SubmitApplication) -> ApplicationView:
        return await self._run_on(
            command, command.review_id, lambda state, facts: applying.submit(state, facts, command, self._rules)
        )

    async def withdraw(self, command: WithdrawApplication) -> ApplicationView:
        return await self._run_on(command, command.review_id, lambda state, facts: applying.withdraw(state, facts, command))

    async def amend(self, command: AmendApplication) -> ApplicationView:
        new = _new()
        return await self._run_on(command, command.review_id, lambda state, facts: applying.amend(state, facts, command, new))

    async def list_applications(self, query: ListApplications) -> ApplicationPage:
        before = None if query.cursor is None else self._cursors.read(query.account, query.cursor)[0]
        async with snapshot(self.running.pool) as connection:
            rows = await queries.applications_of(connection, query, before)
        shown = rows[: query.limit]
        next_cursor = self._cursors.write(query.account, shown[-1].drafted) if len(rows) > query.limit else None
        return ApplicationPage(service_apps=tuple(row.summary for row in shown), next_cursor=next_cursor)

    async def get_application(self, query: GetApplication) -> ApplicationView:
        return await self._view(query.account, query.review_id)

    async def get_revision(self, query: GetRevision) -> RevisionView:
        started = self.running
        async with snapshot(started.pool) as connection:
            opened = await open_own(connection, started, query.account, query.review_id)
            revision = opened.story.revision(query.revision)
            if revision is None:
                raise NotFound("The application has no such revision.")
            content = await content_of(connection, started, revision)
            forms = await started.forms.all(connection)
        return views.revision_view(opened.story, revision, content, forms[revision.form_version])

    async def get_code(self, query: GetCode) -> CodeView:
        started = self.running
        async with snapshot(started.pool) as connection:
            opened = await open_own(connection, started, query.account, query.review_id)
        story, application = opened.story, opened.story.application
        if application.state != "approved":
            what = happened(application, Asking(query.account, "", reviewer=False), story.since)
            raise Conflict(f"It is not live, so there is no code that calls it. {what}")
        service = self._catalog.get(story.service_app.service)
        if service is None:
            raise Conflict("The catalog has this service no longer.")
        endpoint = f"{self._api_url}{service.proxy_path}"
        call = Call(query.review_id, story.service_app.client_id, service.id, endpoint, application.model, application.task)
        return code_view(call)

    async def list_test_apps(self, query: ListTestApps) -> TestApps:
        async with snapshot(self.running.pool) as connection:
            return TestApps(test_apps=tuple(await queries.test_apps_of(connection, query.account, query.deprecated)))

    # -- what they have in common

    async def _run_on(self, command: Command, review_id: str, decide: Decide) -> ApplicationView:
        """Decide on an application that is there."""
        async with reading(self.running.pool) as connection:
            place = await facts.place_of(connection, review_id)
        if place is None or place.account != command.account:
            raise no_application()
        return await self._run(command, place.stream, decide, client_id=place.client_id, review_id=review_id)

    async def _run(
        self, command: Command, stream: str, decide: Decide, *, client_id: str, review_id: str = "", called: bool = False
    ) -> ApplicationView:
        vault = self.running.vault

        async def read(connection: Connection) -> ApplicantFacts:
            return ApplicantFacts(
                now=self._clock.now(),
                times=await facts.times_of(connection, stream),
                app=await facts.app_of(connection, command.account, client_id),
                called=called,
                content=await facts.content_of(connection, vault, review_id) if review_id else None,
                tuned=facts.choices_of(await facts.tuned_by(connection, command.account)),
            )

        done = await self.running.transactor.run(command, stream, None, evolve, decide, Done, read)
        return await self._view(command.account, done.review_id)

    async def _view(self, account: str, review_id: str) -> ApplicationView:
        started = self.running
        async with snapshot(started.pool) as connection:
            opened = await open_own(connection, started, account, review_id)
            content = await content_of(connection, started, opened.story.present)
            tuned = facts.choices_of(await facts.tuned_by(connection, account))
        asking = Asking(account, "", reviewer=False)
        return views.application_view(opened.story, content, opened.app_name, self._rules, tuned, asking)

    async def _tests(self, command: DraftApplication) -> bool:
        """Whether the application has the service in tier test. What the registry decided a moment ago is waited for."""
        async with reading(self.running.pool) as connection:

            async def find() -> bool | None:
                app = await facts.app_of(connection, command.account, command.client_id)
                return True if app is not None and app.services.get(command.service) == "test" else None

            async def applied() -> None:
                await await_applied(connection, self._nc, CONSUMER, REGISTRY, REGISTRY_WAIT_S, self._clock)

            return await awaited(find, applied) is True


def _new() -> New:
    return New(review_id=new_id(), vault_id=f"application/{new_id()}", salt=new_id())
