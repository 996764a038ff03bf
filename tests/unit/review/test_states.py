"""Every state, every act, everybody: what follows, or how it is refused. The expectations are written out, not computed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

from services.review.refusals import Asking, possible
from services.review.states import ACTS, LIVE, MAY, OPEN, STATES, table
from shared.commands.review import State
from shared.errors import Conflict, Forbidden, NotFound, TollbookError
from tests.support.review_examples import ACCOUNT, HOUSE, R1, R2, Desk

README = Path(__file__).parents[3] / "services" / "review" / "README.md"


def revised(desk: Desk) -> str:
    review_id = desk.rejected()
    desk.edit(review_id)
    return review_id


def then(way: Callable[[Desk], str], *acts: str) -> Callable[[Desk], str]:
    def go(desk: Desk) -> str:
        review_id = way(desk)
        for act in acts:
            getattr(desk, act)(review_id)
        return review_id

    return go


def superseded(desk: Desk) -> str:
    review_id = desk.approved()
    amendment = desk.amend(review_id)
    desk.submit(amendment)
    desk.claim(amendment)
    desk.decide(amendment)
    return review_id


def retired(desk: Desk) -> str:
    review_id = desk.approved()
    desk.retire()
    return review_id


WAYS: dict[str, Callable[[Desk], str]] = {
    "draft": Desk.draft,
    "revised": revised,  # a draft too, but of one that reviewers know
    "submitted": Desk.submitted,
    "in_review": Desk.in_review,
    "changes_requested": then(Desk.in_review, "request_changes"),
    "approved": Desk.approved,
    "suspended": then(Desk.approved, "suspend"),
    "rejected": Desk.rejected,
    "withdrawn": then(Desk.submitted, "withdraw"),
    "superseded": superseded,
    "retired": retired,
}
APPLYING = ("edit", "submit", "withdraw", "amend")

# (state, act): who may, and the state after it. "same": of whoever does it a second time, with no event.
LEGAL: dict[tuple[str, str], dict[str, str]] = {
    ("draft", "edit"): {"applicant": "draft"},
    ("draft", "submit"): {"applicant": "submitted"},
    ("revised", "edit"): {"applicant": "draft"},
    ("revised", "submit"): {"applicant": "submitted"},
    ("submitted", "submit"): {"applicant": "same"},
    ("submitted", "withdraw"): {"applicant": "withdrawn"},
    ("submitted", "claim"): {"claimer": "in_review", "reviewer": "in_review"},
    ("in_review", "withdraw"): {"applicant": "withdrawn"},
    ("in_review", "claim"): {"claimer": "same"},
    ("in_review", "release"): {"claimer": "submitted"},
    ("in_review", "decide"): {"claimer": "approved"},
    ("in_review", "request_changes"): {"claimer": "changes_requested"},
    ("changes_requested", "edit"): {"applicant": "draft"},
    ("changes_requested", "withdraw"): {"applicant": "withdrawn"},
    ("changes_requested", "request_changes"): {"claimer": "same"},
    ("approved", "amend"): {"applicant": "approved"},
    ("approved", "suspend"): {"claimer": "suspended", "reviewer": "suspended"},
    ("approved", "decide"): {"claimer": "same"},
    ("suspended", "lift"): {"claimer": "approved", "reviewer": "approved"},
    ("suspended", "suspend"): {"claimer": "same"},
    ("rejected", "edit"): {"applicant": "draft"},
    ("withdrawn", "edit"): {"applicant": "draft"},
    ("withdrawn", "withdraw"): {"applicant": "same"},
}
LAPSED: dict[tuple[str, str], dict[str, str]] = {
    **LEGAL,
    ("in_review", "claim"): {"claimer": "in_review", "reviewer": "in_review"},
}
PEOPLE = {"applicant": (ACCOUNT, "token:a1"), "claimer": (HOUSE, R1), "reviewer": (HOUSE, R2)}


def act(desk: Desk, name: str, review_id: str, who: str) -> Any:
    account, actor = PEOPLE[who]
    do = getattr(desk, name)
    if name == "edit":
        return do(review_id, account, task="summarization")
    return do(review_id, account) if name in APPLYING else do(review_id, reviewer=actor, account=account)


def refusal(start: str, name: str, who: str) -> type[TollbookError]:
    if name in APPLYING:
        return Conflict if who == "applicant" else NotFound
    if start == "draft":
        return NotFound
    return Forbidden if who == "applicant" else Conflict


@pytest.mark.parametrize("late", [False, True], ids=["in time", "claim lapsed"])
@pytest.mark.parametrize(("start", "name", "who"), list(product(WAYS, ACTS, PEOPLE)))
def test_every_cell(start: str, name: str, who: str, late: bool) -> None:
    desk = Desk()
    review_id = WAYS[start](desk)
    before, since = desk.of(review_id), desk.story(review_id).since
    assert before.state == {"revised": "draft"}.get(start, start)
    desk.now += timedelta(hours=25 if late else 1)
    events = list(desk.events)
    after = (LAPSED if late else LEGAL).get((start, name), {}).get(who)
    if after is None:
        with pytest.raises(TollbookError) as refused:
            act(desk, name, review_id, who)
        assert type(refused.value) is refusal(start, name, who)
        assert desk.events == events
        if isinstance(refused.value, Conflict) and before.state != "draft":
            assert f"{since:%Y-%m-%dT%H:%M:%SZ}" in refused.value.detail
        if isinstance(refused.value, Conflict):
            assert "you can" in refused.value.detail.lower()
        return
    act(desk, name, review_id, who)
    if after == "same":
        assert desk.events == events
    else:
        assert len(desk.events) == len(events) + 1
        assert desk.of(review_id).state == after
    desk.check_hashes()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("start", "who"), list(product(WAYS, PEOPLE)))
def test_what_somebody_is_told_that_they_can_do_they_can(start: str, who: str, late: bool) -> None:
    desk = Desk()
    review_id = WAYS[start](desk)
    state = desk.state
    assert state is not None
    asking = Asking(*PEOPLE[who], reviewer=who != "applicant")
    told = set(possible(state, desk.of(review_id), asking, late))
    cells = LAPSED if late else LEGAL
    assert told == {name for name in ACTS if cells.get((start, name), {}).get(who, "same") != "same"}


def test_an_applicants_own_reviewer_can_do_nothing_and_is_told_nothing_more() -> None:
    for start, way in WAYS.items():
        desk = Desk()
        review_id = way(desk)
        state = desk.state
        assert state is not None
        assert possible(state, desk.of(review_id), Asking(ACCOUNT, R1, reviewer=True), lapsed=True) == (), start


def test_the_table_has_every_state() -> None:
    assert set(MAY) == set(STATES) == set(get_args(State)) == {*WAYS} - {"revised"}
    assert not OPEN & LIVE


def test_the_table_is_in_the_readme() -> None:
    _, shown, _ = README.read_text("utf-8").split("<!-- states -->")
    assert shown.strip() == table()
