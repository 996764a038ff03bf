"""Two applicants and three reviewers, one of whom is of an applicant's account: whatever they do in any order, it is what a plain
model says, and the log never tells of something that must not be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.review.content import content_hash
from services.review.domain import AppRow
from services.review.history import stories
from services.review.refusals import Asking, possible
from shared.errors import Conflict, Forbidden, InvalidInput, NotFound, TollbookError
from shared.events.review import (
    ApplicationSubmitted,
    ApprovalGiven,
    ChangesRequested,
    ReviewDecided,
    ReviewReleased,
    ReviewStarted,
)
from tests.support.review_examples import ACCOUNT, ALL_MET, HOUSE, NOT_MET, OTHER, R1, R2, R3, RULES, SERVICE, TWO, Desk

OPEN = {"draft", "submitted", "in_review", "changes_requested"}
LIVE = {"approved", "suspended"}
REVIEWERS = {R1: HOUSE, R2: HOUSE, R3: ACCOUNT}
NEEDED = {ACCOUNT: 1, OTHER: 2}

accounts = st.sampled_from([ACCOUNT, OTHER])
reviewers = st.sampled_from(["", "", "", "", *sorted(REVIEWERS)])  # mostly the one who has it
others = st.integers(0, 9).map(lambda n: n == 0)  # somebody of another account tries it
picks = st.sampled_from([0, 0, 0, 0, 0, -1, -2, -3])  # mostly one with which something can be done, else the newest ones
judgements = st.sampled_from([("approved", ALL_MET), ("approved", ALL_MET), ("rejected", NOT_MET), ("approved", NOT_MET)])
outcomes = st.sampled_from(["", "approved", "approved", "rejected"])
thens = st.sampled_from(["claimed", "claimed", "approved", "rejected"])
reasons = st.sampled_from(["Abuse.", "Spam."])


@dataclass
class One:
    """An application, as the model has it. `last`: what was done last to bring it where it is, by whom."""

    account: str
    state: str = "draft"
    revision: int = 1
    amends: str = ""
    submitted: bool = False
    claimer: str = ""
    claimed_at: datetime | None = None
    approvals: list[str] = field(default_factory=list)
    last: tuple[Any, ...] = ()


class Review(RuleBasedStateMachine):
    """`desks` is what is tested, by applicant; `model` what ought to be, by review id."""

    def __init__(self) -> None:
        super().__init__()
        self.desks = {ACCOUNT: Desk(RULES, ACCOUNT, "a" * 20), OTHER: Desk(TWO, OTHER, "b" * 20)}
        self.desks[OTHER].made = 1000
        self.model: dict[str, One] = {}
        self.hashes: dict[tuple[str, int], str] = {}
        self.words = 0

    # -- the model

    def of(self, account: str) -> dict[str, One]:
        return {id_: one for id_, one in self.model.items() if one.account == account}

    def pick(self, account: str, number: int, *states: str) -> str:
        known = list(self.of(account))
        fitting = [id_ for id_, one in self.of(account).items() if one.state in states]
        if fitting and not number:
            return fitting[-1]
        number = number or -1
        return known[number] if len(known) >= -number else known[-1] if known else "f" * 32

    def live(self, account: str) -> str:
        return next((id_ for id_, one in self.of(account).items() if one.state in LIVE), "")

    def another_open(self, account: str, review_id: str = "") -> bool:
        return any(one.state in OPEN for id_, one in self.of(account).items() if id_ != review_id)

    def do(self, error: type[TollbookError] | None, run: Callable[[], Any]) -> Any:
        """Run it; it is refused with just that error, which leaves nothing behind."""
        if error is None:
            return run()
        before = {account: list(desk.log) for account, desk in self.desks.items()}
        with pytest.raises(TollbookError) as refused:
            run()
        assert type(refused.value) is error, refused.value.detail
        assert {account: desk.log for account, desk in self.desks.items()} == before
        return None

    def applicant(self, review_id: str, account: str, fine: bool) -> type[TollbookError] | None:
        one = self.model.get(review_id)
        return NotFound if one is None or one.account != account else None if fine else Conflict

    def reviewer(self, review_id: str, actor: str, fine: bool) -> type[TollbookError] | None:
        one = self.model.get(review_id)
        if one is None or not one.submitted:
            return NotFound
        return Forbidden if one.account == REVIEWERS[actor] else None if fine else Conflict

    def wrote(self) -> dict[str, str]:
        self.words += 1
        return {"purpose": f"Purpose number {self.words}."}

    # -- what happens

    @initialize(decisions=st.tuples(outcomes, outcomes))
    def begin(self, decisions: tuple[str, str]) -> None:
        """Somebody applies, and mostly has a decision, so that few steps are spent on nothing."""
        for account, decision in zip(self.desks, decisions, strict=True):
            self.draft(account, False)
            if decision:
                self.go_on(account, [R1, R2], decision)

    @rule(account=accounts, hours=st.integers(0, 30))
    def time_passes(self, account: str, hours: int) -> None:
        self.desks[account].now += timedelta(hours=hours)

    @rule(account=accounts, foreign=others)
    def draft(self, account: str, foreign: bool) -> None:
        by = {ACCOUNT: OTHER, OTHER: ACCOUNT}[account] if foreign else account
        error: type[TollbookError] | None = Conflict if self.live(account) or self.another_open(account) else None
        review_id = self.do(NotFound if foreign else error, lambda: self.desks[account].draft(by))
        if review_id is not None:
            self.model[review_id] = One(account)

    @rule(account=accounts, number=picks, foreign=others)
    def edit(self, account: str, number: int, foreign: bool) -> None:
        review_id = self.pick(account, number, "draft", "changes_requested", "rejected", "withdrawn")
        one = self.model.get(review_id, One(""))
        by = OTHER if foreign and account == ACCOUNT else ACCOUNT if foreign else account
        goes_on = one.state in ("rejected", "withdrawn") and not self.another_open(account) and one.amends == self.live(account)
        fine = one.state in ("draft", "changes_requested") or goes_on
        form = self.wrote()
        if self.do(self.applicant(review_id, by, fine), lambda: self.desks[account].edit(review_id, by, form=form)):
            if one.state != "draft":
                one.revision, one.approvals = one.revision + 1, []
            one.state, one.last = "draft", ()

    @rule(account=accounts, number=picks, foreign=others)
    def submit(self, account: str, number: int, foreign: bool) -> None:
        review_id = self.pick(account, number, "draft")
        one = self.model.get(review_id, One(""))
        by = OTHER if foreign and account == ACCOUNT else ACCOUNT if foreign else account
        error = self.applicant(review_id, by, one.state in ("draft", "submitted"))
        if self.do(error, lambda: self.desks[account].submit(review_id, by)) and one.state == "draft":
            one.state, one.submitted, one.last = "submitted", True, ()

    @rule(account=accounts, number=picks, foreign=others)
    def withdraw(self, account: str, number: int, foreign: bool) -> None:
        review_id = self.pick(account, number, "submitted", "in_review", "changes_requested")
        one = self.model.get(review_id, One(""))
        by = OTHER if foreign and account == ACCOUNT else ACCOUNT if foreign else account
        fine = one.state in ("submitted", "in_review", "changes_requested", "withdrawn")
        if self.do(self.applicant(review_id, by, fine), lambda: self.desks[account].withdraw(review_id, by)):
            one.state, one.last = "withdrawn", ()

    @rule(account=accounts, number=picks, foreign=others)
    def amend(self, account: str, number: int, foreign: bool) -> None:
        review_id = self.live(account) or self.pick(account, number)
        one = self.model.get(review_id, One(""))
        by = OTHER if foreign and account == ACCOUNT else ACCOUNT if foreign else account
        fine = one.state == "approved" and not self.another_open(account)
        amendment = self.do(self.applicant(review_id, by, fine), lambda: self.desks[account].amend(review_id, by))
        if amendment is not None:
            self.model[amendment] = One(account, amends=review_id)

    @rule(account=accounts, really=st.integers(0, 5).map(lambda n: n == 5))
    def retire(self, account: str, really: bool) -> None:
        if not really:
            return
        self.desks[account].retire()
        for one in self.of(account).values():
            if one.state in OPEN | LIVE:
                one.state, one.last = "retired", ()

    @rule(account=accounts, number=picks, actor=reviewers)
    def claim(self, account: str, number: int, actor: str) -> None:
        review_id = self.pick(account, number, "submitted", "in_review")
        actor = actor or self.model.get(review_id, One("")).claimer or R2
        one, desk = self.model.get(review_id, One("")), self.desks[account]
        late = one.claimed_at is not None and desk.now >= one.claimed_at + timedelta(hours=24)
        again = one.state == "in_review" and one.claimer == actor and not late
        free = one.state == "submitted" or (one.state == "in_review" and late)
        error = self.reviewer(review_id, actor, again or (free and actor not in one.approvals))
        if self.do(error, lambda: desk.claim(review_id, actor, REVIEWERS[actor])) and not again:
            one.state, one.claimer, one.claimed_at, one.last = "in_review", actor, desk.now, ()

    @rule(account=accounts, number=picks, actor=reviewers)
    def release(self, account: str, number: int, actor: str) -> None:
        review_id = self.pick(account, number, "in_review")
        actor = actor or self.model.get(review_id, One("")).claimer or R2
        one, last = self.model.get(review_id, One("")), ("release", actor)
        has = one.state == "in_review" and one.claimer == actor
        error = self.reviewer(review_id, actor, has or (one.state == "submitted" and one.last == last))
        if self.do(error, lambda: self.desks[account].release(review_id, actor, REVIEWERS[actor])):
            one.state, one.last = "submitted", last

    @rule(account=accounts, number=picks, actor=reviewers)
    def request_changes(self, account: str, number: int, actor: str) -> None:
        review_id = self.pick(account, number, "in_review")
        actor = actor or self.model.get(review_id, One("")).claimer or R2
        one, last = self.model.get(review_id, One("")), ("request_changes", actor)
        has = one.state == "in_review" and one.claimer == actor
        error = self.reviewer(review_id, actor, has or (one.state == "changes_requested" and one.last == last))
        if self.do(error, lambda: self.desks[account].request_changes(review_id, actor, REVIEWERS[actor])):
            one.state, one.last = "changes_requested", last

    @rule(account=accounts, number=picks, actor=reviewers, judged=judgements)
    def decide(self, account: str, number: int, actor: str, judged: tuple[str, Any]) -> None:
        review_id = self.pick(account, number, "in_review")
        actor = actor or self.model.get(review_id, One("")).claimer or R2
        one, (decision, criteria), last = self.model.get(review_id, One("")), judged, ("decide", actor, judged[0])
        has = one.state == "in_review" and one.claimer == actor
        fits = (decision == "approved") == (criteria is ALL_MET)
        again = fits and one.last == last and one.state in ("approved", "rejected", "submitted")
        error = self.reviewer(review_id, actor, has or again)
        if error is None and has and not fits:
            error = InvalidInput
        enough = len({*one.approvals, actor}) >= NEEDED[account]
        amended = self.model.get(one.amends)
        if error is None and has and decision == "approved" and enough and amended is not None and amended.state == "suspended":
            error = Conflict
        done = self.do(error, lambda: self.desks[account].decide(review_id, decision, actor, REVIEWERS[actor], criteria))
        if done is None or again:
            return
        one.last = last
        if decision == "approved" and not enough:
            one.state = "submitted"
            one.approvals.append(actor)
            return
        one.state = decision
        if decision == "approved" and amended is not None:
            amended.state = "superseded"

    @rule(account=accounts, actor=reviewers, reason=reasons)
    def suspend(self, account: str, actor: str, reason: str) -> None:
        review_id = self.live(account) or self.pick(account, -1)
        actor = actor or self.model.get(review_id, One("")).claimer or R2
        one, last = self.model.get(review_id, One("")), ("suspend", actor, reason)
        again = one.state == "suspended" and one.last == last
        error = self.reviewer(review_id, actor, one.state == "approved" or again)
        if self.do(error, lambda: self.desks[account].suspend(review_id, actor, REVIEWERS[actor], reason)):
            one.state, one.last = "suspended", last

    @rule(account=accounts, actor=reviewers)
    def lift(self, account: str, actor: str) -> None:
        review_id = self.live(account) or self.pick(account, -1)
        actor = actor or self.model.get(review_id, One("")).claimer or R2
        one, last = self.model.get(review_id, One("")), ("lift", actor)
        again = one.state == "approved" and one.last == last
        error = self.reviewer(review_id, actor, one.state == "suspended" or again)
        if self.do(error, lambda: self.desks[account].lift(review_id, actor, REVIEWERS[actor])):
            one.state, one.last = "approved", last

    @rule(
        account=accounts, actors=st.permutations([R1, R2]), then=st.sampled_from(["claimed", "claimed", "approved", "rejected"])
    )
    def go_on(self, account: str, actors: list[str], then: str) -> None:
        """What mostly happens, so that the rare things after it happen too."""
        if not self.another_open(account):
            self.amend(account, 0, False)
            self.edit(account, 0, False)
        self.submit(account, 0, False)
        for actor in actors[: NEEDED[account]]:
            self.claim(account, 0, actor)
            if then == "claimed":
                return
            self.decide(account, 0, actor, (then, ALL_MET if then == "approved" else NOT_MET))

    # -- what is always so

    @invariant()
    def the_registry_follows(self) -> None:
        for account, desk in self.desks.items():
            desk.app = AppRow("speech", {SERVICE: "live" if self.live(account) else "test"})

    @invariant()
    def it_is_what_the_model_says(self) -> None:
        for review_id, one in self.model.items():
            found = self.desks[one.account].of(review_id)
            assert (found.state, found.revision, found.amends) == (one.state, one.revision, one.amends)

    @invariant()
    def at_most_one_is_open_and_one_stands(self) -> None:
        for account, desk in self.desks.items():
            states = [one.state for one in desk.state.applications.values()] if desk.state is not None else []
            assert sum(state in OPEN for state in states) <= 1
            assert sum(state in LIVE for state in states) <= 1
            assert desk.state is None or desk.state.live == self.live(account)

    @invariant()
    def whoever_decides_has_claimed_and_is_of_another_account(self) -> None:
        for account, desk in self.desks.items():
            claimed: dict[str, str] = {}
            approvals: dict[tuple[str, int], list[str]] = {}
            for event in desk.events:
                if isinstance(event, ReviewStarted):
                    claimed[event.review_id] = event.reviewer
                elif isinstance(event, ReviewReleased | ChangesRequested | ApprovalGiven):
                    assert claimed.pop(event.review_id) == event.reviewer
                elif isinstance(event, ReviewDecided):
                    assert claimed.pop(event.review_id) == event.reviewers[-1]
                for reviewer in getattr(event, "reviewers", (getattr(event, "reviewer", R1),)):
                    assert REVIEWERS[reviewer] != account
                if isinstance(event, ApprovalGiven):
                    approvals.setdefault((event.review_id, event.revision), []).append(event.reviewer)
                if isinstance(event, ReviewDecided) and event.decision == "approved":
                    given = approvals.get((event.review_id, event.revision), [])
                    assert (*given, event.reviewers[-1]) == event.reviewers
                    assert len(set(event.reviewers)) == len(event.reviewers) >= NEEDED[account]
                    assert {finding.criterion for finding in event.findings if finding.met} == set(ALL_MET)

    @invariant()
    def what_was_submitted_never_changes(self) -> None:
        for desk in self.desks.values():
            told = stories(desk.log)
            for event in desk.events:
                if isinstance(event, ApplicationSubmitted):
                    place = (event.review_id, event.revision)
                    assert self.hashes.setdefault(place, event.content_hash) == event.content_hash
                    revision = told[event.review_id].revision(event.revision)
                    assert revision is not None
                    assert content_hash(desk.vault[revision.vault_id]) == event.content_hash
                elif isinstance(event, ReviewDecided):
                    assert self.hashes[event.review_id, event.revision] == event.content_hash

    @invariant()
    def an_applicant_is_offered_nothing_of_a_reviewers(self) -> None:
        applying = {"edit", "submit", "withdraw", "amend"}
        for account, desk in self.desks.items():
            if desk.state is None:
                continue
            for one in desk.state.applications.values():
                assert set(possible(desk.state, one, Asking(account, R3, False), True)) <= applying
                assert not set(possible(desk.state, one, Asking(OTHER, R3, True), True)) & applying
                assert possible(desk.state, one, Asking(account, R3, True), True) == ()


TestReview = Review.TestCase
TestReview.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
