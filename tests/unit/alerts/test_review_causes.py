"""What happens in a review into requests: what is told of it, to whom, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from services.alerts.holding import Wishes
from services.alerts.review_causes import of_review
from services.alerts.telling import Audience, Reached, react, rule_of
from shared.events import review
from shared.events.alerts import KINDS, NotificationRequested
from tests.support.alerting import APP
from tests.support.reviewing import DUE, SECRET, reviewing

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)
DAY = timedelta(days=1)
PLAIN = Wishes("Asia/Seoul", None, None, None)
QUIET = Wishes("Asia/Seoul", "10:00", "18:00", None)
REVIEWERS = "reviewers"
HERE, ELSEWHERE = ("acme", APP, "csr"), ("acme", APP, "clova-voice")
KIM, LEE, CHOI, PARK = (Reached(name, "email", PLAIN) for name in ("kim", "lee", "choi", "park"))
"""Kim and Lee are named by rules where there are any, Choi is by none; Park reviews."""
NOBODY = Audience({}, {}, {}, {})


def audience(*scopes: tuple[str, str, str], **everybody: tuple[Reached, ...]) -> Audience:
    """With rules of these scopes, the first naming Kim and the second Lee."""
    rules = {scope: rule_of(None, None, (), ()) for scope in scopes}
    known = {"acme": (KIM, LEE, CHOI), "reviewers": (PARK,), **everybody}
    return Audience(rules, dict(zip(scopes, ((KIM,), (LEE,)), strict=False)), {APP: "Weather"}, known)


def asked(
    event: review.ReviewEvent, known: Audience, *, at: datetime = NOW, reviewers: str | None = REVIEWERS
) -> list[NotificationRequested]:
    causes = of_review(event, at, NOW, "review-1", reviewers)
    return [one.request for one in react(causes, known, NOW, DAY)]


def told(found: list[NotificationRequested]) -> dict[str, str]:
    """Kinds by contact: each is told one thing at most."""
    kinds = {one.contact_id: str(one.about.__struct_config__.tag) for one in found}
    assert len(kinds) == len(found)
    return kinds


TABLE: dict[type[Any], dict[str, str]] = {
    review.ApplicationSubmitted: {"kim": "review_submitted", "park": "review_submitted"},
    review.ApplicationWithdrawn: {"park": "review_withdrawn"},
    review.ChangesRequested: {"kim": "review_changes_requested"},
    review.ReviewDecided: {"kim": "review_decided"},
    review.ReviewDueSoon: {"park": "review_due_soon"},
    review.ServiceAppSuspended: {"kim": "service_suspended", "park": "service_suspended"},
    review.SuspensionLifted: {"kim": "service_resumed"},
}
"""Everything else is told to nobody."""
EVENTS = list(review.CODEC.classes.values())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_each_event_is_told_to_whom_it_concerns_and_in_nothing_of_what_somebody_wrote(event: type[Any]) -> None:
    found = asked(reviewing(event), audience(HERE, ELSEWHERE))
    assert told(found) == TABLE.get(event, {})
    assert SECRET not in repr(found)
    assert "token:" not in repr(found)


def test_every_kind_about_a_review_is_told_by_an_event() -> None:
    kinds = {kind for row in TABLE.values() for kind in row.values()}
    assert kinds == {kind for kind in KINDS if kind.startswith(("review_", "service_"))}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_without_an_account_of_reviewers_they_are_told_nothing(event: type[Any]) -> None:
    wanted = {contact: kind for contact, kind in TABLE.get(event, {}).items() if contact != "park"}
    assert told(asked(reviewing(event), audience(HERE), reviewers=None)) == wanted


@pytest.mark.parametrize(
    ("scopes", "contacts"),
    [
        ((HERE, ELSEWHERE), {"kim"}),
        ((ELSEWHERE,), {"kim"}),
        (((*ELSEWHERE[:2], "x"), ELSEWHERE), {"kim", "lee"}),
        ((), {"kim", "lee", "choi"}),
        ((("acme", "b" * 20, "csr"), ("acme", "", "csr")), {"kim", "lee", "choi"}),
    ],
    ids=["of the service", "of another service", "of two others", "no rule", "of another application, of the account"],
)
def test_who_is_told_is_named_by_the_service_or_else_by_the_application_or_else_everybody(
    scopes: tuple[tuple[str, str, str], ...], contacts: set[str]
) -> None:
    found = asked(reviewing(review.ReviewDecided), audience(*scopes))
    assert set(told(found)) == contacts
    assert {(one.account, one.client_id, one.service, one.app_name) for one in found} == {(*HERE, "Weather")}


def test_a_rule_that_reaches_nobody_does_not_keep_a_decision_from_the_account() -> None:
    known = audience(HERE)._replace(reached={})
    assert set(told(asked(reviewing(review.ReviewDecided), known))) == {"kim", "lee", "choi"}
    assert asked(reviewing(review.ReviewDecided), NOBODY) == []


@pytest.mark.parametrize("event", [review.ApplicationSubmitted, review.ServiceAppSuspended])
def test_what_reviewers_are_told_is_of_their_account_and_of_none_of_its_applications(event: type[Any]) -> None:
    found = {one.contact_id: one for one in asked(reviewing(event), audience(HERE))}
    assert (found["kim"].account, found["kim"].client_id, found["kim"].app_name) == ("acme", APP, "Weather")
    assert (found["park"].account, found["park"].client_id, found["park"].app_name) == (REVIEWERS, "", "Weather")
    assert [getattr(found[name].about, "to_reviewers", None) for name in ("kim", "park")] == [False, True]


@pytest.mark.parametrize("event", [review.ApplicationSubmitted, review.ServiceAppSuspended])
def test_who_is_told_in_both_ways_is_told_once_as_an_applicant(event: type[Any]) -> None:
    """The reviewers' account applies itself: whom its rule names is told as an applicant, whoever else has reviews to do."""
    found = {one.contact_id: one for one in asked(reviewing(event), audience(HERE), reviewers="acme")}
    assert {name: getattr(one.about, "to_reviewers", None) for name, one in found.items()} == {
        "kim": False,
        "lee": True,
        "choi": True,
    }


@pytest.mark.parametrize("event", list(TABLE), ids=lambda event: event.__name__)
def test_what_is_heard_again_has_the_ids_that_it_had_and_what_happens_again_has_others(event: type[Any]) -> None:
    def ids(one: review.ReviewEvent, at: datetime = NOW) -> set[str]:
        return {request.request_id for request in asked(one, audience(HERE), at=at)}

    first = ids(reviewing(event))
    assert first == ids(reviewing(event))
    assert first.isdisjoint(ids(reviewing(event, review_id="d" * 32)))
    if "revision" in event.__struct_fields__:
        assert first == ids(reviewing(event), NOW - timedelta(minutes=1)), "a revision is submitted, decided and so on once"
        assert first.isdisjoint(ids(reviewing(event, revision=2)))
    else:
        assert first.isdisjoint(ids(reviewing(event), NOW + timedelta(microseconds=1))), "suspended again"


@pytest.mark.parametrize("event", list(TABLE), ids=lambda event: event.__name__)
def test_what_is_not_of_today_is_not_told(event: type[Any]) -> None:
    assert asked(reviewing(event), audience(HERE), at=NOW - DAY) != []
    assert asked(reviewing(event), audience(HERE), at=NOW - DAY - timedelta(microseconds=1)) == []


@pytest.mark.parametrize("event", list(TABLE), ids=lambda event: event.__name__)
def test_whether_calls_pass_and_what_is_to_be_done_soon_is_told_in_quiet_hours_too(event: type[Any]) -> None:
    known = Audience({}, {}, {}, {"acme": (Reached("kim", "email", QUIET),), REVIEWERS: (Reached("park", "sms", QUIET),)})
    at_once = event in {review.ServiceAppSuspended, review.SuspensionLifted, review.ReviewDueSoon}
    found = asked(reviewing(event), known)
    assert found != []
    assert {one.due_at for one in found} == {NOW if at_once else NOW + timedelta(hours=6)}


def test_a_request_says_when_and_by_when() -> None:
    (submitted, _) = asked(reviewing(review.ApplicationSubmitted), audience(HERE), at=NOW - timedelta(seconds=5))
    assert msgspec.to_builtins(submitted.about, builtin_types=(datetime,)) == {
        "type": "review_submitted",
        "at": NOW - timedelta(seconds=5),
        "review_id": "e" * 32,
        "due_at": DUE,
        "to_reviewers": False,
    }
