"""What reviewers ask and command: the queue, claims, decisions, suspensions. Whose an application is follows from its id."""

from __future__ import annotations

from collections.abc import Callable

from services.review import deciding, queries, views
from services.review.domain import Done, ReviewerFacts, Rules, ServiceApp, evolve, no_application
from services.review.facts import place_of, times_of
from services.review.opening import content_before, content_of, open_submitted
from services.review.refusals import Asking
from services.review.serving import Started
from shared.answering import Answering, Answers, reading, snapshot
from shared.clock import Clock
from shared.commands.base import Command
from shared.commands.review import SERVICE
from shared.commands.reviews import (
    ClaimReview,
    DecideReview,
    GetReview,
    LiftSuspension,
    ListReviews,
    ReleaseReview,
    RequestChanges,
    ReviewPage,
    ReviewView,
    SuspendServiceApp,
)
from shared.cursor import Cursors
from shared.eventlog.decision import Decision
from shared.events.review import ReviewEvent
from shared.postgres import Connection

Decide = Callable[[ServiceApp | None, ReviewerFacts], Decision[ReviewEvent, Done]]


class ReviewerHandlers(Answering[Started]):
    """Everything that reviewers are answered."""

    service = SERVICE

    def __init__(self, rules: Rules, cursors: Cursors, clock: Clock) -> None:
        super().__init__()
        self._rules = rules
        self._cursors = cursors
        self._clock = clock

    @property
    def answers(self) -> Answers:
        return {
            ListReviews: self.list_reviews,
            GetReview: self.get_review,
            ClaimReview: self.claim,
            ReleaseReview: self.release,
            RequestChanges: self.request_changes,
            DecideReview: self.decide,
            SuspendServiceApp: self.suspend,
            LiftSuspension: self.lift,
        }

    async def list_reviews(self, query: ListReviews) -> ReviewPage:
        due_us, drafted = (0, 0) if query.cursor is None else self._cursors.read(query.account, query.cursor)
        now = self._clock.now()
        async with snapshot(self.running.pool) as connection:
            rows = await queries.reviews(connection, query, (due_us, drafted), now, self._rules.reviewers)
        shown = rows[: query.limit]
        next_cursor = self._cursors.write(query.account, *shown[-1].place) if len(rows) > query.limit else None
        return ReviewPage(reviews=tuple(row.item for row in shown), next_cursor=next_cursor)

    async def get_review(self, query: GetReview) -> ReviewView:
        return await self._view(query.review_id, Asking(query.account, query.reviewer, reviewer=True))

    async def claim(self, command: ClaimReview) -> ReviewView:
        return await self._run(
            command, command.review_id, lambda state, facts: deciding.claim(state, facts, command, self._rules)
        )

    async def release(self, command: ReleaseReview) -> ReviewView:
        return await self._run(
            command, command.review_id, lambda state, facts: deciding.release(state, facts, command, self._rules)
        )

    async def request_changes(self, command: RequestChanges) -> ReviewView:
        return await self._run(
            command, command.review_id, lambda state, facts: deciding.request_changes(state, facts, command, self._rules)
        )

    async def decide(self, command: DecideReview) -> ReviewView:
        return await self._run(
            command, command.review_id, lambda state, facts: deciding.decide(state, facts, command, self._rules)
        )

    async def suspend(self, command: SuspendServiceApp) -> ReviewView:
        return await self._run(
            command, command.review_id, lambda state, facts: deciding.suspend(state, facts, command, self._rules)
        )

    async def lift(self, command: LiftSuspension) -> ReviewView:
        return await self._run(command, command.review_id, lambda state, facts: deciding.lift(state, facts, command, self._rules))

    # -- what they have in common

    async def _run(self, command: Command, review_id: str, decide: Decide) -> ReviewView:
        started = self.running
        async with reading(started.pool) as connection:
            place = await place_of(connection, review_id)
        if place is None:
            raise no_application()

        async def read(connection: Connection) -> ReviewerFacts:
            return ReviewerFacts(
                now=self._clock.now(),
                times=await times_of(connection, place.stream),
                forms=await started.forms.all(connection),
            )

        await started.transactor.run(command, place.stream, None, evolve, decide, Done, read)
        return await self._view(review_id, Asking(command.account, command.actor, reviewer=True))

    async def _view(self, review_id: str, asking: Asking) -> ReviewView:
        started = self.running
        async with snapshot(started.pool) as connection:
            opened = await open_submitted(connection, started, review_id)
            seen = opened.story.submitted
            assert seen is not None, "it was submitted"
            content = await content_of(connection, started, seen)
            before = await content_before(connection, started, opened)
            forms = await started.forms.all(connection)
        form = forms[seen.form_version]
        return views.review_view(opened.story, content, before, opened.app_name, form, self._rules, asking, self._clock.now())
