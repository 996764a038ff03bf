"""Forms against anything that can be written on them: it is told in words what is wrong, and never what was entered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.review import forms
from services.review.content import Content, changed, content_hash, decode, encode
from services.review.forms import Form, draft_problems, form_from_definition, missing
from services.review.schemas import schema_problems
from shared.commands.base import field_problems
from shared.commands.review import FORM_BYTES_MAX, NUMBER_MAX, PublishForm
from shared.commands.service_apps import DraftApplication
from shared.errors import Conflict, FieldProblem, InvalidInput
from shared.events.review import FormPublished
from tests.support.review_examples import CLIENT_ID, FILLED, FORM, SERVICE, YES
from tests.support.scenario import Scenario

FORMS: Scenario[Form | None] = Scenario(None, forms.evolve)
SECRET = "zq7-echo-me-not"

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(SECRET)
any_json = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12
)
any_field = st.sampled_from([*FORM.schema["properties"], "nope", ""])


def content(form: Any, checklist: Any = YES) -> Content:
    return Content("0" * 32, "r", 1, CLIENT_ID, SERVICE, "HCX-003", "chat", FORM.version, form, checklist)


def problems(form: Any) -> dict[str, FieldProblem]:
    return {one.field: one for one in draft_problems(FORM, content(form))}


def lacks(form: Any, checklist: Any = YES) -> dict[str, FieldProblem]:
    return {one.field: one for one in missing(FORM, content(form, checklist))}


@given(st.dictionaries(any_field, any_json, max_size=6))
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_is_checked_and_never_repeated(form: dict[str, Any]) -> None:
    draft, whole = draft_problems(FORM, content(form)), missing(FORM, content(form))
    for problem in (*draft, *whole):
        assert problem.problem
        assert problem.hint
        assert SECRET not in problem.problem + problem.hint
        assert problem.field.split(".")[0] in ("form", "checklist")
    if not draft:  # what is saved can be sealed, and is read as it was
        kept = content(form)
        assert decode(encode(kept)) == kept
    assert {one.field for one in draft if one.problem.startswith("The form has no")} <= {one.field for one in whole}


@given(st.dictionaries(any_field, any_json, max_size=6))
@settings(max_examples=200, deadline=None)
def test_whatever_is_sent_is_refused_in_words_or_can_be_checked(form: dict[str, Any]) -> None:
    asked = {"client_id": CLIENT_ID, "service": SERVICE, "form": form}
    try:
        command = DraftApplication(command_id="c1", account="acme", actor="token:a1", **asked)
    except ValidationError as refused:
        found = field_problems(refused.errors(include_url=False, include_input=False))
        assert found
        assert all(SECRET not in one.problem + one.hint for one in found)
        return
    written = {name: value for name, value in command.form.items() if value is not None}
    if not draft_problems(FORM, content(written)):
        assert decode(encode(content(written))).form == written


def test_a_whole_form_lacks_nothing() -> None:
    assert lacks(FILLED) == {}
    assert problems(FILLED) == {}


def test_an_empty_draft_is_fine_and_lacks_everything() -> None:
    assert problems({}) == {}
    assert set(lacks({}, {})) == {
        *(f"form.{name}" for name in FORM.schema["required"]),
        *(f"checklist.{item}" for item in YES),
    }


@pytest.mark.parametrize(
    ("form", "field", "says"),
    [
        ({"name": 5}, "form.name", "not a text"),
        ({"name": ["x"]}, "form.name", "not a text"),
        ({"name": "x" * 51}, "form.name", "longer than 50 characters"),
        ({"purpose": "x" * 1_000_000}, "form.purpose", "longer than 3000"),
        ({"expected_daily_volume": 1.5}, "form.expected_daily_volume", "not a whole number"),
        ({"expected_daily_volume": True}, "form.expected_daily_volume", "not a whole number"),
        ({"expected_daily_volume": "7"}, "form.expected_daily_volume", "not a whole number"),
        ({"expected_daily_volume": 0}, "form.expected_daily_volume", "less than 1"),
        ({"expected_daily_volume": 10**30}, "form.expected_daily_volume", "more than"),
        ({"expected_daily_volume": float("nan")}, "form.expected_daily_volume", "not a whole number"),
        ({"expected_daily_volume": float("inf")}, "form.expected_daily_volume", "not a whole number"),
        ({"samples": {}}, "form.samples", "not a list"),
        ({"samples": [{"prompt": "x", "output": "y"}] * 11}, "form.samples", "at most 10"),
        ({"samples": [{"prompt": "x"}, 5]}, "form.samples[1]", "not an object"),
        ({"samples": [{"prompt": "x", "extra": 1}]}, "form.samples[0].extra", "no such field"),
        ({"contact": {"email": "kim@example"}}, "form.contact.email", "look as it should"),
        ({"contact": None}, "form.contact", "not an object"),
        ({"nope": 1}, "form.nope", "no such field"),
    ],
)
def test_what_does_not_fit_is_told_in_words(form: dict[str, Any], field: str, says: str) -> None:
    found = problems(form)
    assert set(found) == {field}
    assert says in found[field].problem
    assert field in lacks(form)


@pytest.mark.parametrize(
    "form",
    [
        {"name": ""},
        {"purpose": "x"},
        {"samples": []},
        {"samples": [{}]},
        {"contact": {}},
        {"contact": {"email": ""}},
        {"contact": {"email": "  "}},
    ],
)
def test_a_draft_may_be_short_of_anything(form: dict[str, Any]) -> None:
    assert problems(form) == {}
    assert any(field.startswith(f"form.{next(iter(form))}") for field in lacks(form))


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000"])
def test_a_text_of_spaces_is_empty(text: str) -> None:
    assert lacks({**FILLED, "name": text})["form.name"].problem == "This is empty."


def test_html_is_kept_as_text() -> None:
    form = {**FILLED, "purpose": "<script>alert('x')</script> & <b>more</b>"}
    assert lacks(form) == {}
    assert decode(encode(content(form))).form == form


def test_the_items_of_a_list_that_is_too_long_are_not_looked_at() -> None:
    found = problems({"samples": [{"nope": 1}] * 100_000})
    assert [(one.field, one.problem) for one in found.values()] == [("form.samples", "There should be at most 10 of these.")]


def test_hundreds_of_wrong_fields_are_not_all_told() -> None:
    form = {"contact": {f"n{number}": 1 for number in range(100_000)}}
    assert len(draft_problems(FORM, content(form))) == forms.PROBLEMS_MAX


def test_a_pattern_never_looks_at_a_text_that_is_too_long() -> None:
    """`x@` and many dots takes a pattern as long as it has pairs of them."""
    found = problems({"contact": {"email": "x@" + "." * 100_000 + "@"}})
    assert [one.problem for one in found.values()] == ["This is longer than 254 characters."]


@pytest.mark.parametrize("checklist", [{"nope": True}, {**YES, "nope": False}])
def test_an_item_that_is_not_asked_is_told(checklist: dict[str, bool]) -> None:
    (problem,) = draft_problems(FORM, content(FILLED, checklist))
    assert problem.field == "checklist.nope"
    assert "checklist.nope" in lacks(FILLED, checklist)


def test_each_item_that_is_not_answered_yes_is_told() -> None:
    found = lacks(FILLED, {**YES, "ethics": False})
    assert [(one.field, one.problem) for one in found.values()] == [("checklist.ethics", "This is not answered Yes.")]
    assert set(lacks(FILLED, {"ethics": True})) == {f"checklist.{item}" for item in YES if item != "ethics"}


# -- what the command says before anybody looks at the form


def sent(**asked: Any) -> list[FieldProblem]:
    fields = {"command_id": "c1", "account": "acme", "actor": "token:a1", "client_id": CLIENT_ID, "service": SERVICE, **asked}
    with pytest.raises(ValidationError) as refused:
        DraftApplication(**fields)
    return list(field_problems(refused.value.errors(include_url=False, include_input=False)))


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\u2028", "\u202e", "\u2066", "\ud800"])
def test_control_characters_are_refused_wherever_they_are(character: str) -> None:
    found = sent(form={"name": f"a{character}b", "samples": [{"prompt": "fine"}, {"prompt": f"{character}"}]})
    assert [one.field for one in found] == ["form.name", "form.samples[1].prompt"]


def test_lines_and_tabs_are_kept_and_texts_are_composed() -> None:
    form = {"purpose": "one\r\ntwo\tthree", "name": "\u1112\u1161\u11ab"}
    fields: Any = {"client_id": CLIENT_ID, "service": SERVICE, "form": form}
    command = DraftApplication(command_id="c1", account="acme", actor="token:a1", **fields)
    assert command.form == {"purpose": "one\ntwo\tthree", "name": "한"}


def test_a_megabyte_is_refused_with_its_field() -> None:
    (problem,) = sent(form={"purpose": "x" * 1_000_000})
    assert problem.field == "form"
    assert str(FORM_BYTES_MAX) in problem.problem
    assert "xxx" not in problem.problem + problem.hint


def test_what_is_nested_too_deep_is_refused() -> None:
    nested: Any = "x"
    for _ in range(9):
        nested = [nested]
    assert [one.problem for one in sent(form={"name": nested})] == ["It is nested too deep."]


@pytest.mark.parametrize("number", [10**30, -(2**53) - 1, 1e300, float("inf"), float("nan")])
def test_a_number_that_json_cannot_tell_exactly_is_refused(number: float) -> None:
    found = sent(form={"samples": [{"prompt": number}]})
    assert [(one.field, one.problem) for one in found] == [("form.samples[0].prompt", "This number is too large.")]


@pytest.mark.parametrize("answer", ["yes", 1, None, "true"])
def test_an_answer_is_true_or_false(answer: Any) -> None:
    assert [one.field for one in sent(checklist={"ethics": answer})] == ["checklist.ethics"]


# -- content


def test_the_content_is_canonical_json_and_its_hash_is_of_those_bytes() -> None:
    one = content({"b": 1, "a": {"d": "가", "c": [1, 2]}}, {"y": True, "x": False})
    assert (
        encode(one)
        == (
            '{"checklist":{"x":false,"y":true},"client_id":"k3v9x2m1q8w7e5r4t6y0","form":{"a":{"c":[1,2],"d":"가"},"b":1},'
            '"form_version":"2026-11","model":"HCX-003","review_id":"r","revision":1,'
            '"salt":"00000000000000000000000000000000","service":"clova-studio","task":"chat"}'
        ).encode()
    )
    assert content_hash(encode(one)) == content_hash(encode(msgspec.structs.replace(one, form=dict(reversed(one.form.items())))))
    assert content_hash(encode(one)) != content_hash(encode(msgspec.structs.replace(one, salt="1" * 32)))


def test_what_changed_is_told_by_field() -> None:
    one = content({"a": 1, "b": [1], "c": "x"}, {"y": True})
    other = msgspec.structs.replace(one, task="completion", form={"a": 1, "b": [2], "d": None}, checklist={"y": True, "z": False})
    assert changed(other, one) == ("task", "form.b", "form.d", "form.c", "checklist.z")
    assert changed(one, one) == ()


# -- publishing


def publish(form: Form = FORM, form_hash: str | None = None) -> PublishForm:
    said = {"form_version": form.version, "definition": form.definition, "form_hash": form_hash or form.form_hash}
    return PublishForm(command_id="c1", account="review", actor="service:review", **said)


PUBLISHED = FormPublished(form_version=FORM.version, definition=FORM.definition, form_hash=FORM.form_hash)


def test_a_form_is_published_once() -> None:
    FORMS.given().when(lambda state: forms.publish(state, publish())).then(PUBLISHED)
    FORMS.given(PUBLISHED).when(lambda state: forms.publish(state, publish())).then_nothing()


def test_a_published_form_stays_as_it_is() -> None:
    other = form_from_definition(FORM.version, FORM.definition.replace("Minutes", "").replace("50", "60"))
    assert other.form_hash != FORM.form_hash
    refused = FORMS.given(PUBLISHED).when(lambda state: forms.publish(state, publish(other)))
    refused.refused(Conflict, says="give the changed one a new version")


def test_a_form_comes_with_its_own_hash() -> None:
    asked = publish(form_hash="0" * 64)
    FORMS.given().when(lambda state: forms.publish(state, asked)).refused(InvalidInput, fields=("form_hash",))


def test_the_form_of_the_log_is_the_form_of_the_file() -> None:
    state = FORMS.given(PUBLISHED).state
    assert state is not None
    assert (state.schema, state.checklist, state.criteria) == (FORM.schema, FORM.checklist, FORM.criteria)
    assert forms.form_stream(FORM.version) == "form/2026-11"


# -- schemas that a form cannot have


def text(**extra: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {"a": {"type": "string", "maxLength": 5, **extra}}}


def one(schema: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {"a": schema}}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (True, "not a schema"),
        ({"type": "string", "maxLength": 5}, "the form itself is an object"),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}}, "additionalProperties: false"),
        ({"type": "object", "additionalProperties": False}, "needs properties"),
        ({**one({"type": "boolean"}), "required": ["b"]}, "required names"),
        (one({"type": "string"}), "schema.a: a text needs a maxLength"),
        (one({"type": "string", "maxLength": True}), "needs a maxLength"),
        (one({"type": "array", "items": {"type": "boolean"}}), "needs a maxItems"),
        (one({"type": "array", "maxItems": 3}), "schema.a.items: this is not a schema"),
        (one({"type": "array", "maxItems": 3, "items": {"type": "string"}}), "schema.a.items: a text needs"),
        (one({"type": "integer", "minimum": 1}), "needs a maximum"),
        (one({"type": "number", "minimum": 0, "maximum": NUMBER_MAX * 2}), "needs a maximum"),
        (one({"type": ["string", "null"], "maxLength": 5}), "type has to be one of"),
        (one({}), "type has to be one of"),
        (text(pattern="("), "no regular expression"),
        (text(**{"$ref": "https://example.com/schema"}), "not a keyword that a form can have"),
        (text(format="email"), "not a keyword"),
        (text(minLength=-1), "schema.properties.a.minLength"),
        ({"type": "object", "additionalProperties": False, "properties": {"ä": {"type": "boolean"}}}, "property's name"),
    ],
)
def test_a_schema_that_could_not_be_checked_or_spoken_about_is_refused(schema: Any, says: str) -> None:
    assert says in "; ".join(schema_problems(schema))


def test_a_schema_is_not_nested_deeper_than_what_can_be_sent() -> None:
    schema: Any = {"type": "boolean"}
    for _ in range(9):
        schema = one(schema)
    assert "nested deeper" in "; ".join(schema_problems(schema))


def test_the_form_that_is_delivered_is_fine() -> None:
    assert schema_problems(msgspec.json.decode(FORM.definition)["schema"]) == []
