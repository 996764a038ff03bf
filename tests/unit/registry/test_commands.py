"""What the models of the commands say about fields, before anybody is asked."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.commands.base import field_problems
from shared.commands.registry import EditApp, ListApps, OpenAccount, RegisterApp, ReissueSecret, name_hints
from shared.errors import FieldProblem
from tests.support.registry_examples import CLIENT_ID, command


def problems(cls: type[Any], **fields: Any) -> list[FieldProblem]:
    with pytest.raises(ValidationError) as refused:
        command(cls, **fields)
    return list(field_problems(refused.value.errors(include_url=False, include_input=False)))


def register(**fields: Any) -> Any:
    return command(RegisterApp, **{"name": "speech", "services": ["csr"], **fields})


@pytest.mark.parametrize(
    ("entered", "kept"),
    [
        ("x", "x"),
        ("  speech demo \u3000", "speech demo"),
        ("x" * 20, "x" * 20),
        (" " + "x" * 20 + " ", "x" * 20),
        ("가" * 20, "가" * 20),
        ("\u1100\u1161" * 20, "가" * 20),
        ("e\u0301" * 20, "é" * 20),
        ("😀" * 20, "😀" * 20),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("مرحبا", "مرحبا"),
        ("<script>", "<script>"),
    ],
)
def test_a_name_of_1_to_20_characters_is_kept(entered: str, kept: str) -> None:
    assert register(name=entered).name == kept
    assert register(name=kept).name == kept


@pytest.mark.parametrize(
    ("entered", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("\u3164", "empty"),
        ("\u200d", "empty"),
        ("\u0301", "empty"),
        ("x" * 21, "longer than 20"),
        ("😀" * 21, "longer than 20"),
        ("x" * 1_000_000, "longer than 20"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("a\u0085b", "control"),
        ("a\u2028b", "control"),
        ("a\u200bb", "control"),
        ("a\ufeffb", "control"),
        ("a\uffffb", "control"),
        ("a\ud800b", "control"),
        ("a\u202eb", "writing direction"),
        ("a\u2066b", "writing direction"),
        ("a\u200fb", "writing direction"),
    ],
)
def test_a_name_that_is_none(entered: str, says: str) -> None:
    (problem,) = problems(RegisterApp, name=entered, services=["csr"])
    assert problem.field == "name"
    assert says in problem.problem
    assert problem.hint


def test_a_long_name_gets_a_hint() -> None:
    assert name_hints("x" * 10) == ()
    assert len(name_hints("x" * 11)) == 1


def test_everything_wrong_is_said_at_once() -> None:
    found = problems(
        RegisterApp,
        name="",
        services=["csr", "papago", "csr", "papago"],
        environments={"web": ["http://naver.com", "ftp://x"], "android": ["x"] * 11, "ios": ["a_b"], "windows": []},
        colour="red",
    )
    assert [problem.field for problem in found] == [
        "name",
        "services[2]",
        "services[3]",
        "environments.web[1]",
        "environments.android",
        "environments.ios[0]",
        "environments.windows",
        "colour",
    ]
    assert all(problem.hint for problem in found)


def test_ten_of_each_environment_are_possible() -> None:
    ten = {
        "web": [f"http://a{n}.com" for n in range(10)],
        "android": [f"com.a{n}" for n in range(10)],
        "ios": [f"com.a{n}" for n in range(10)],
    }
    assert len(register(environments=ten).environments.web) == 10
    for kind in ten:
        (problem,) = problems(RegisterApp, name="x", services=["csr"], environments={kind: [*ten[kind], ten[kind][0]]})
        assert (problem.field, "11" in problem.problem) == (f"environments.{kind}", True)


def test_an_edit_is_partial() -> None:
    asked = command(EditApp, client_id=CLIENT_ID, environments={"web": None})
    assert (asked.name, asked.services, asked.environments.web, asked.environments.ios) == (None, None, None, None)
    assert problems(EditApp, client_id=CLIENT_ID, services=[])[0].field == "services"


@pytest.mark.parametrize("zone", ["", "Mars/X", "asia/seoul", "localtime", "../../etc/passwd", "/etc/passwd", "UTC+9", "Factory"])
def test_no_zone(zone: str) -> None:
    assert problems(OpenAccount, zone=zone)[0].field == "zone"


@pytest.mark.parametrize("zone", ["Asia/Seoul", "America/New_York", "Australia/Lord_Howe", "UTC"])
def test_a_zone(zone: str) -> None:
    assert command(OpenAccount, zone=zone).zone == zone


@pytest.mark.parametrize("limit", [0, 101, -1, "20", 1.0, True, None])
def test_no_page(limit: Any) -> None:
    with pytest.raises(ValidationError):
        ListApps(account="acme", limit=limit)


def test_a_command_crosses_json_unchanged() -> None:
    asked = register(name="e\u0301", environments={"web": ["https://www.naver.com/x"], "ios": ["com.A"]})
    assert RegisterApp.model_validate_json(asked.model_dump_json()) == asked


def test_sixty_seconds_may_be_written_as_json_writes_numbers() -> None:
    for written in ("60", "60.0", "6e1"):
        fields = f'{{"command_id":"c","account":"a","actor":"t","client_id":"{CLIENT_ID}","grace_seconds":{written}}}'
        assert ReissueSecret.model_validate_json(fields).grace_seconds == 60
    for wrong in (1.5, 1e308, True, "60", float("inf"), float("nan")):
        assert [problem.field for problem in problems(ReissueSecret, client_id=CLIENT_ID, grace_seconds=wrong)] == [
            "grace_seconds"
        ]
