"""What is entered about contacts and rules: taken in one form, or refused with everything that is wrong with it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from pydantic import ValidationError

from shared.commands.base import Command, field_problems
from shared.commands.contacts import AddContact, ConfirmVerification, EditContact, QuietHoursEntered

WHO = {"command_id": "1", "account": "demo", "actor": "token:1"}
ID = "0f" * 16


def problems(command: type[Command], **entered: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as refused:
        command.model_validate({**WHO, **entered})
    found = field_problems(refused.value.errors())
    assert all(problem.hint for problem in found), found
    assert not any("secret" in f"{problem.problem}{problem.hint}" for problem in found), "what was entered is not repeated"
    return {problem.field: problem.problem for problem in found}


def test_everything_that_is_wrong_is_told_at_its_place() -> None:
    hours = {"start": "25:00", "end": "7"}
    entered = {"name": "\x00secret", "email": "secret", "phone": "010-secret", "webhook_url": "ftp://secret", "locale": "fr"}
    for command, more in ((AddContact, {}), (EditContact, {"contact_id": ID})):
        found = problems(command, **entered, **more, zone="Mars/Secret", quiet_hours=hours, digest_at="24:00")
        assert found.keys() == {*entered, "zone", "quiet_hours.start", "quiet_hours.end", "digest_at"}


@pytest.mark.parametrize("entered", [{"start": "07:00", "end": "07:00"}, "22:00", 3, [], {"start": "07:00"}])
def test_quiet_hours_that_are_none(entered: object) -> None:
    for command, more in ((AddContact, {"name": "a", "email": "a@example.com"}), (EditContact, {"contact_id": ID})):
        [field] = problems(command, quiet_hours=entered, **more)
        assert field in ("quiet_hours", "quiet_hours.end")


def test_an_edit_keeps_removes_or_sets() -> None:
    for entered in (None, "", QuietHoursEntered(start="22:00", end="07:00")):
        command = EditContact.model_validate({**WHO, "contact_id": ID, "quiet_hours": entered, "email": "", "digest_at": ""})
        assert command.quiet_hours == entered
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert EditContact.model_validate_json(command.model_dump_json()) == command


@pytest.mark.parametrize("code", ["12345", "1234567", "12345a", "１２３４５６", "123456\n", " 12345"])
def test_what_is_no_code(code: str) -> None:
    assert problems(ConfirmVerification, contact_id=ID, method="email", code=code).keys() == {"code"}
    assert problems(ConfirmVerification, contact_id=ID[:-1], method="fax", code="123456").keys() == {"contact_id", "method"}


def test_the_document_shows_what_an_edit_takes() -> None:
    shown = EditContact.model_json_schema()["properties"]
    assert {"maxLength": 0, "type": "string"} in shown["quiet_hours"]["anyOf"]
    assert shown["digest_at"]["anyOf"][0]["pattern"].startswith("^(")
