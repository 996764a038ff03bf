"""Beginning an application, writing it piece by piece, submitting it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from services.review.content import content_hash
from services.review.domain import AppRow
from services.review.forms import Form, form_from_definition
from services.review.models import Tuned
from shared.errors import Conflict, InvalidInput, NotFound, TollbookError
from shared.events.review import (
    ApplicationDrafted,
    ApplicationEdited,
    ApplicationRevised,
    ApplicationSubmitted,
)
from tests.support.review_examples import ACCOUNT, CLIENT_ID, FILLED, FORM, OTHER, SERVICE, TUNED, YES, Desk


def fields(refused: pytest.ExceptionInfo[TollbookError]) -> list[str]:
    return [problem.field for problem in refused.value.fields]


def newer_form(version: str = "2027-01") -> Form:
    """Another field is asked for, and `service_url` no more."""
    definition: dict[str, Any] = msgspec.json.decode(FORM.definition)
    properties = definition["schema"]["properties"]
    del properties["service_url"]
    properties["incidents"] = {"type": "string", "maxLength": 100}
    definition["schema"]["required"].append("incidents")
    return form_from_definition(version, msgspec.json.encode(definition, order="sorted").decode())


def with_form(desk: Desk, form: Form) -> None:
    desk.rules = msgspec.structs.replace(desk.rules, form=form)
    desk.forms[form.version] = form


# -- drafts


def test_a_draft_is_kept_as_it_was_written_with_its_hash() -> None:
    desk = Desk()
    review_id = desk.draft(task=None, form={"name": "Minutes", "service_url": None}, checklist={"ethics": True})
    (drafted,) = desk.events
    assert drafted == ApplicationDrafted(
        account=ACCOUNT,
        review_id=review_id,
        client_id=CLIENT_ID,
        service=SERVICE,
        model="HCX-003",
        task="",
        form_version=FORM.version,
        vault_id="vault-1",
        content_hash=content_hash(desk.vault["vault-1"]),
    )
    content = desk.content(review_id)
    assert (content.form, content.checklist) == ({"name": "Minutes"}, {"ethics": True})
    assert desk.vault["vault-1"].startswith(b'{"checklist":{"ethics":true},"client_id":"k3v')


def without_app(desk: Desk) -> None:
    desk.app = None


def deleted(desk: Desk) -> None:
    desk.app = AppRow("speech", {SERVICE: "test"}, deleted=True)


def not_selected(desk: Desk) -> None:
    desk.app = AppRow("speech", {"csr": "live"})


def live_already(desk: Desk) -> None:
    desk.app = AppRow("speech", {SERVICE: "live"})


def never_called(desk: Desk) -> None:
    desk.called = False


@pytest.mark.parametrize(
    ("lacks", "error", "says"),
    [
        (without_app, NotFound, "no such application"),
        (deleted, NotFound, "no such application"),
        (not_selected, Conflict, f"not selected {SERVICE}"),
        (live_already, Conflict, "live already"),
        (never_called, Conflict, "no successful call"),
    ],
)
def test_a_draft_needs_a_test_app_that_has_called(lacks: Callable[[Desk], None], error: type[TollbookError], says: str) -> None:
    desk = Desk()
    lacks(desk)
    with pytest.raises(error, match=says):
        desk.draft()
    assert not desk.log


def test_nobody_drafts_for_another_accounts_application() -> None:
    with pytest.raises(NotFound):
        Desk().draft(account=OTHER)


@pytest.mark.parametrize("way", [Desk.draft, Desk.submitted, Desk.in_review, Desk.approved])
def test_at_most_one_is_open_or_stands(way: Callable[[Desk], str]) -> None:
    desk = Desk()
    review_id = way(desk)
    with pytest.raises(Conflict, match=review_id):
        desk.draft()


def test_after_a_rejection_a_new_one_can_be_begun_and_then_the_rejected_one_rests() -> None:
    desk = Desk()
    rejected = desk.rejected()
    other = desk.draft()
    with pytest.raises(Conflict, match=f"is open: {other}"):
        desk.edit(rejected, task="chat")
    desk.submit(other)
    desk.claim(other)
    desk.decide(other)
    with pytest.raises(Conflict, match=f"approved by now: {other}. Amend"):
        desk.edit(rejected, task="chat")


def test_everything_that_does_not_fit_is_told_at_once() -> None:
    form = {**FILLED, "name": 5, "nope": 1, "samples": [{"prompt": "x" * 5001, "output": "y"}, 3]}
    with pytest.raises(InvalidInput) as refused:
        Desk().draft(model="HCX-999", task="chat", form=form, checklist={"nope": True})
    assert sorted(fields(refused)) == [
        "checklist.nope",
        "form.name",
        "form.nope",
        "form.samples[0].prompt",
        "form.samples[1]",
        "model",
    ]


@pytest.mark.parametrize(
    ("model", "task", "wrong"),
    [
        ("HCX-003", "embedding", ["task"]),
        ("EMB-001", "embedding", []),
        ("HCX-003", TUNED, []),
        ("LK-D2", TUNED, ["task"]),
        (None, TUNED, []),
        (None, "nope", ["task"]),
        ("hcx-003", None, ["model"]),
        ("HCX-003", "tuned-" + "b" * 32, ["task"]),
    ],
)
def test_a_task_has_to_fit_its_model(model: str | None, task: str | None, wrong: list[str]) -> None:
    desk = Desk()
    desk.tuned = {TUNED: Tuned("HCX-003", "chat")}
    if not wrong:
        desk.draft(model=model, task=task)
        return
    with pytest.raises(InvalidInput) as refused:
        desk.draft(model=model, task=task)
    assert fields(refused) == wrong


# -- editing


def test_pieces_take_the_place_of_what_was_there_and_null_removes() -> None:
    desk = Desk()
    review_id = desk.draft()
    desk.edit(
        review_id,
        form={"name": None, "purpose": "Another purpose."},
        checklist={"ethics": False},
        model="LK-D2",
        task="completion",
    )
    content = desk.content(review_id)
    assert content.form == {**{name: value for name, value in FILLED.items() if name != "name"}, "purpose": "Another purpose."}
    assert content.checklist == {**YES, "ethics": False}
    edited = desk.events[-1]
    assert isinstance(edited, ApplicationEdited)
    assert (edited.revision, edited.model, edited.task) == (1, "LK-D2", "completion")
    assert list(desk.vault) == [edited.vault_id], "the piece before is shredded"


def test_saving_what_is_there_changes_nothing() -> None:
    desk = Desk()
    review_id = desk.draft()
    desk.edit(review_id, form={"name": FILLED["name"], "service_url": None}, model="HCX-003")
    desk.edit(review_id)
    assert len(desk.events) == 1


def test_the_same_words_have_another_hash_each_time() -> None:
    desk = Desk()
    review_id = desk.draft()
    first = desk.of(review_id).content_hash
    desk.edit(review_id, task="completion")
    desk.edit(review_id, task="chat")
    assert desk.of(review_id).content_hash != first


def test_another_model_without_that_task_is_told() -> None:
    desk = Desk()
    review_id = desk.draft()
    with pytest.raises(InvalidInput) as refused:
        desk.edit(review_id, model="EMB-001")
    assert fields(refused) == ["task"]


def test_a_form_that_grows_too_large_piece_by_piece_is_refused() -> None:
    desk = Desk()
    review_id = desk.draft(form={})
    desk.edit(review_id, form={"samples": [{"prompt": "가" * 5000, "output": "나" * 1000}] * 10})
    texts = ("purpose", "risky_output_prevention", "abuse_monitoring", "abuse_response")
    with pytest.raises(InvalidInput) as refused:
        desk.edit(review_id, form=dict.fromkeys(texts, "가" * 3000))
    assert fields(refused) == ["form"]


def test_a_revision_keeps_the_one_before() -> None:
    desk = Desk()
    review_id = desk.rejected()
    kept = dict(desk.vault)
    desk.edit(review_id, form={"purpose": "Another purpose."})
    revised = desk.events[-1]
    assert isinstance(revised, ApplicationRevised)
    assert revised.revision == 2
    assert kept.items() <= desk.vault.items()
    desk.edit(review_id, form={"purpose": "Yet another purpose."})
    assert kept.items() <= desk.vault.items()
    assert len(desk.vault) == 2
    desk.submit(review_id)
    desk.check_hashes()


def test_going_on_with_a_rejected_one_as_it_is_begins_a_revision_too() -> None:
    desk = Desk()
    review_id = desk.rejected()
    assert desk.edit(review_id).revision == 2
    assert desk.content(review_id).form == FILLED


def test_a_revision_needs_its_test_app_still() -> None:
    desk = Desk()
    review_id = desk.rejected()
    desk.app = AppRow("speech", {})
    with pytest.raises(Conflict, match="not selected"):
        desk.edit(review_id)


# -- the form's version


@pytest.mark.parametrize("version", ["2020-01", "9999-01"])
def test_a_draft_is_made_on_the_form_of_today(version: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Desk().draft(form_version=version)
    assert fields(refused) == ["form_version"]
    assert FORM.version in refused.value.fields[0].problem


def test_a_draft_of_an_older_form_is_brought_to_the_newest_before_anything_else() -> None:
    desk = Desk()
    review_id = desk.draft(form={**FILLED, "service_url": "https://example.com"})
    with_form(desk, newer_form())
    for change in ({"task": "chat"}, {"form_version": FORM.version}, {}):
        with pytest.raises(InvalidInput) as refused:
            desk.edit(review_id, **change)
        assert fields(refused) == ["form_version"]
    with pytest.raises(InvalidInput) as refused:
        desk.submit(review_id)
    assert fields(refused) == ["form_version", "form.service_url", "form.incidents"]
    with pytest.raises(InvalidInput) as refused:
        desk.edit(review_id, form_version="2027-01")
    assert fields(refused) == ["form.service_url"]
    desk.edit(review_id, form_version="2027-01", form={"service_url": None, "incidents": "None."})
    assert desk.of(review_id).form_version == "2027-01"
    desk.submit(review_id)


# -- submitting


def test_submitting_fixes_what_was_written_and_says_when_it_is_due() -> None:
    desk = Desk()
    review_id = desk.submitted()
    submitted = desk.events[-1]
    assert isinstance(submitted, ApplicationSubmitted)
    assert submitted.content_hash == content_hash(desk.vault[desk.of(review_id).vault_id])
    assert submitted.due_at == datetime(2026, 11, 27, 9, tzinfo=UTC)  # a Tuesday, so Friday 18:00 in Seoul


def test_all_that_is_missing_is_told_at_once() -> None:
    desk = Desk()
    review_id = desk.draft(
        model=None,
        task=None,
        form={"name": "  ", "purpose": "short", "contact": {"name": "Kim"}, "samples": []},
        checklist={"ethics": True, "told": False},
    )
    with pytest.raises(InvalidInput) as refused:
        desk.submit(review_id)
    assert set(fields(refused)) == {
        "model",
        "task",
        "form.name",
        "form.purpose",
        "form.intended_users",
        "form.expected_daily_volume",
        "form.samples",
        "form.risky_output_prevention",
        "form.abuse_monitoring",
        "form.abuse_response",
        "form.contact.email",
        *(f"checklist.{item}" for item in YES if item != "ethics"),
    }
    assert all(problem.problem and problem.hint for problem in refused.value.fields)


def test_a_model_that_is_gone_by_now_is_told() -> None:
    desk = Desk()
    desk.tuned = {TUNED: Tuned("HCX-003", "chat")}
    review_id = desk.draft(task=TUNED)
    desk.tuned = {}
    desk.edit(review_id, form={"name": "Other"})
    with pytest.raises(InvalidInput) as refused:
        desk.submit(review_id)
    assert fields(refused) == ["task"]


@pytest.mark.parametrize("lacks", [without_app, deleted, not_selected, live_already])
def test_what_was_asked_of_the_application_is_asked_again(lacks: Callable[[Desk], None]) -> None:
    desk = Desk()
    review_id = desk.draft()
    lacks(desk)
    with pytest.raises(Conflict):
        desk.submit(review_id)
