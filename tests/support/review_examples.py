"""One service app, its applicant, three reviewers and the deployment's own form: what the tests of review talk about.

A Desk is a service app with its stream and vault in memory: what is asked of it is decided as the service decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.review import applying, deciding
from services.review.config import load_models, load_review
from services.review.content import Content, content_hash, decode
from services.review.domain import (
    ApplicantFacts,
    Application,
    AppRow,
    New,
    ReviewerFacts,
    Rules,
    ServiceApp,
    evolve,
)
from services.review.forms import Form
from services.review.history import Recorded, Story, stories
from services.review.models import Tuned
from shared.catalog import load_catalog
from shared.commands.reviews import (
    ClaimReview,
    DecideReview,
    LiftSuspension,
    NoteDueSoon,
    ReleaseReview,
    RequestChanges,
    SuspendServiceApp,
)
from shared.commands.service_apps import (
    AmendApplication,
    DraftApplication,
    EditApplication,
    RetireServiceApp,
    SubmitApplication,
    WithdrawApplication,
)
from shared.eventlog.decision import Decision

DEPLOY = Path(__file__).parents[2] / "deploy"
CATALOG = load_catalog(DEPLOY / "catalog.yaml")
CONFIG = load_review(DEPLOY / "review.yaml", CATALOG)
FORM: Form = CONFIG.form
RULES = Rules(load_models(DEPLOY / "models.yaml", CATALOG), FORM, CONFIG.calendar)
TWO = Rules(RULES.models, FORM, CONFIG.calendar, {"clova-studio": 2})

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)  # a Tuesday, noon in Seoul
ACCOUNT, OTHER, HOUSE = "acme", "other", "house"
CLIENT_ID, SERVICE = "k3v9x2m1q8w7e5r4t6y0", "clova-studio"
R1, R2, R3 = "token:r1", "token:r2", "token:r3"
TUNED = "tuned-" + "a" * 32

FILLED: Mapping[str, Any] = {
    "name": "Minutes",
    "purpose": "Meetings are summed up for those who were not there.",
    "intended_users": "Employees",
    "expected_daily_volume": 2000,
    "samples": [{"prompt": "Sum this up: ...", "output": "They agreed."}],
    "risky_output_prevention": "Outputs pass a filter before anybody reads them.",
    "abuse_monitoring": "Prompts are sampled and read every day.",
    "abuse_response": "The user is locked out, and the reviewer told.",
    "contact": {"name": "Kim", "email": "kim@example.com"},
}
YES: Mapping[str, bool] = {item.id: True for item in FORM.checklist}
ALL_MET: Mapping[str, Any] = {criterion.id: {"met": True} for criterion in FORM.criteria}
NOT_MET: Mapping[str, Any] = {**ALL_MET, "monitoring": {"met": False, "reason": "Nobody would notice."}}
COMMENTS = [{"field": "form.purpose", "comment": "For whom?"}]


class Desk:
    """One service app. Every event is recorded a second after the one before."""

    def __init__(self, rules: Rules = RULES, account: str = ACCOUNT, client_id: str = CLIENT_ID) -> None:
        self.rules, self.account, self.client_id = rules, account, client_id
        self.now, self.made = NOW, 0
        self.log: list[Recorded] = []
        self.vault: dict[str, bytes] = {}
        self.app: AppRow | None = AppRow("speech", {SERVICE: "test"})
        self.called = True
        self.tuned: dict[str, Tuned] = {}
        self.forms = {rules.form.version: rules.form}

    @property
    def state(self) -> ServiceApp | None:
        state: ServiceApp | None = None
        for recorded in self.log:
            state = evolve(state, recorded.event)
        return state

    def of(self, review_id: str) -> Application:
        state = self.state
        assert state is not None
        return state.applications[review_id]

    def story(self, review_id: str) -> Story:
        return stories(self.log)[review_id]

    def content(self, review_id: str) -> Content:
        return decode(self.vault[self.of(review_id).vault_id])

    def run(self, decide: Callable[[ServiceApp | None], Decision[Any, Any]]) -> Any:
        """What is decided is recorded; returns the reply. Deciding gives the same twice, and only new vault ids are sealed."""
        decision = decide(self.state)
        again = decide(self.state)
        assert (list(again.events), again.reply, again.seal) == (list(decision.events), decision.reply, decision.seal)
        assert not set(decision.seal) & set(self.vault)
        self.now += timedelta(seconds=1)
        self.log += [Recorded(self.now, event) for event in decision.events]
        self.vault |= decision.seal
        for id_ in decision.shred:
            del self.vault[id_]
        return decision.reply

    @property
    def events(self) -> list[Any]:
        return [recorded.event for recorded in self.log]

    def new(self) -> New:
        self.made += 1
        return New(f"{self.made:032x}", f"vault-{self.made}", f"{self.made:032d}")

    def facts(self, account: str, review_id: str | None = None) -> ApplicantFacts:
        own, state = account == self.account, self.state
        content = None
        if own and review_id and state is not None and review_id in state.applications:
            content = self.content(review_id)
        times = [recorded.at for recorded in self.log]
        return ApplicantFacts(self.now, times, self.app if own else None, self.called, content, self.tuned)

    def reviewing(self) -> ReviewerFacts:
        return ReviewerFacts(self.now, [recorded.at for recorded in self.log], self.forms)

    def command(self, cls: type[Any], account: str, actor: str, **fields: Any) -> Any:
        return cls(command_id="c1", account=account, actor=actor, **fields)

    # -- the applicant's

    def draft(self, account: str = "", **fields: Any) -> str:
        """Of a whole application, but for `fields`; its review id."""
        whole = {"model": "HCX-003", "task": "chat", "form": FILLED, "checklist": YES}
        asked = {"client_id": self.client_id, "service": SERVICE, **whole, **fields}
        command = self.command(DraftApplication, account or self.account, "token:a1", **asked)
        facts, new = self.facts(command.account), self.new()
        review_id: str = self.run(lambda state: applying.draft(state, facts, command, self.rules, new)).review_id
        return review_id

    def edit(self, review_id: str, account: str = "", **fields: Any) -> Any:
        command = self.command(EditApplication, account or self.account, "token:a1", review_id=review_id, **fields)
        facts, new = self.facts(command.account, review_id), self.new()
        return self.run(lambda state: applying.edit(state, facts, command, self.rules, new))

    def submit(self, review_id: str, account: str = "") -> Any:
        command = self.command(SubmitApplication, account or self.account, "token:a1", review_id=review_id)
        facts = self.facts(command.account, review_id)
        return self.run(lambda state: applying.submit(state, facts, command, self.rules))

    def withdraw(self, review_id: str, account: str = "") -> Any:
        command = self.command(WithdrawApplication, account or self.account, "token:a1", review_id=review_id)
        facts = self.facts(command.account, review_id)
        return self.run(lambda state: applying.withdraw(state, facts, command))

    def amend(self, review_id: str, account: str = "") -> str:
        command = self.command(AmendApplication, account or self.account, "token:a1", review_id=review_id)
        facts, new = self.facts(command.account, review_id), self.new()
        amendment: str = self.run(lambda state: applying.amend(state, facts, command, new)).review_id
        return amendment

    def retire(self) -> Any:
        command = self.command(RetireServiceApp, self.account, "service:review", client_id=self.client_id, service=SERVICE)
        return self.run(lambda state: applying.retire(state, command))

    # -- the reviewers'

    def review(self, act: Callable[..., Decision[Any, Any]], cls: type[Any], reviewer: str, account: str, **fields: Any) -> Any:
        command, facts = self.command(cls, account, reviewer, **fields), self.reviewing()
        return self.run(lambda state: act(state, facts, command, self.rules))

    def claim(self, review_id: str, reviewer: str = R1, account: str = HOUSE) -> Any:
        return self.review(deciding.claim, ClaimReview, reviewer, account, review_id=review_id)

    def release(self, review_id: str, reviewer: str = R1, account: str = HOUSE) -> Any:
        return self.review(deciding.release, ReleaseReview, reviewer, account, review_id=review_id)

    def request_changes(self, review_id: str, reviewer: str = R1, account: str = HOUSE, comments: Any = COMMENTS) -> Any:
        return self.review(deciding.request_changes, RequestChanges, reviewer, account, review_id=review_id, comments=comments)

    def decide(
        self,
        review_id: str,
        decision: str = "approved",
        reviewer: str = R1,
        account: str = HOUSE,
        criteria: Mapping[str, Any] | None = None,
    ) -> Any:
        found = criteria or (ALL_MET if decision == "approved" else NOT_MET)
        asked = {"review_id": review_id, "decision": decision, "criteria": found}
        return self.review(deciding.decide, DecideReview, reviewer, account, **asked)

    def suspend(self, review_id: str, reviewer: str = R1, account: str = HOUSE, reason: str = "Abuse.") -> Any:
        return self.review(deciding.suspend, SuspendServiceApp, reviewer, account, review_id=review_id, reason=reason)

    def lift(self, review_id: str, reviewer: str = R1, account: str = HOUSE, reason: str = "") -> Any:
        return self.review(deciding.lift, LiftSuspension, reviewer, account, review_id=review_id, reason=reason)

    def note_due_soon(self, review_id: str, revision: int = 1) -> Any:
        command = self.command(NoteDueSoon, self.account, "service:review", review_id=review_id, revision=revision)
        return self.run(lambda state: deciding.note_due_soon(state, command))

    # -- ways to a state

    def submitted(self) -> str:
        review_id = self.draft()
        self.submit(review_id)
        return review_id

    def in_review(self) -> str:
        review_id = self.submitted()
        self.claim(review_id)
        return review_id

    def approved(self) -> str:
        review_id = self.in_review()
        self.decide(review_id)
        return review_id

    def rejected(self) -> str:
        review_id = self.in_review()
        self.decide(review_id, "rejected")
        return review_id

    def check_hashes(self) -> None:
        """What the vault has under the ids of events is what their hashes say; what was submitted is still there."""
        for story in stories(self.log).values():
            for revision in story.revisions:
                assert content_hash(self.vault[revision.vault_id]) == revision.content_hash
