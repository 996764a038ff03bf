"""What the stack's receivers of mail and text messages check and keep."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.kept import KeptFiles
from deploy.sens import Account, Refused, authenticate, read_sending, records
from shared.clock import FixedClock

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
ACCOUNT = Account("ncp:sms:kr:1:test", "access", "secret")
TARGET = "/sms/v2/services/ncp:sms:kr:1:test/messages"
TEXT = {"type": "SMS", "from": "0212345678", "content": "70 %", "messages": [{"to": "01012345678"}]}


def signed(at: datetime = NOW, target: str = TARGET, **other: str) -> dict[str, str]:
    """The headers of a good request, as SENS's own documentation makes them."""
    timestamp = str(int(at.timestamp() * 1000))
    text = f"POST {target}\n{timestamp}\naccess"
    made = base64.b64encode(hmac.new(b"secret", text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ncp-apigw-timestamp": timestamp, "x-ncp-iam-access-key": "access", "x-ncp-apigw-signature-v2": made}
    return headers | {name.replace("_", "-"): value for name, value in other.items()}


@pytest.mark.parametrize("minutes", [-5, 0, 5])
def test_a_request_that_the_account_has_signed_lately_is_let_in(minutes: int) -> None:
    authenticate(ACCOUNT, "POST", TARGET, signed(NOW + timedelta(minutes=minutes)), NOW)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(NOW - timedelta(minutes=5, milliseconds=1)),
        signed(NOW + timedelta(minutes=5, milliseconds=1)),
        signed(x_ncp_apigw_timestamp=str(int(NOW.timestamp()))),
        signed(x_ncp_apigw_timestamp="9" * 400),
        signed(x_ncp_apigw_timestamp="²"),
        signed(x_ncp_iam_access_key="another"),
        signed(x_ncp_apigw_signature_v2="é"),
        signed(x_ncp_apigw_signature_v2=""),
        signed(target=TARGET + "?x=1"),
    ],
)
def test_any_other_is_not(headers: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        authenticate(ACCOUNT, "POST", TARGET, headers, NOW)
    assert refused.value.status == 401
    assert refused.value.answer["error"]["message"] == "Authentication Failed"


def test_each_message_is_kept_with_its_own_text() -> None:
    body = {**TEXT, "countryCode": "1", "messages": [{"to": "01012345678"}, {"to": "2025550123", "content": "안녕"}]}
    kept = [json.loads(text) for text in records(read_sending(json.dumps(body).encode()), "r1", NOW)]
    assert [(one["to"], one["content"]) for one in kept] == [("01012345678", "70 %"), ("2025550123", "안녕")]
    assert {(one["from"], one["countryCode"], one["requestId"]) for one in kept} == {("0212345678", "1", "r1")}


@pytest.mark.parametrize(
    "changed",
    [
        {"from": "+82212345678"},
        {"content": ""},
        {"content": "가" * 46},
        {"messages": []},
        {"messages": [{"to": "010-1234-5678"}]},
        {"messages": [{"to": "01012345678", "content": "x" * 91}]},
        {"messages": [{"to": "01012345678"}] * 101},
        {"type": "FAX"},
        {"countryCode": "kr"},
    ],
)
def test_what_cannot_be_sent_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        read_sending(json.dumps({**TEXT, **changed}).encode())
    assert refused.value.status == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"null"])
def test_neither_can_what_is_no_request_at_all(body: bytes) -> None:
    with pytest.raises(Refused):
        read_sending(body)


def test_ninety_bytes_are_one_short_message_and_more_a_long_one() -> None:
    ninety = {**TEXT, "content": "가" * 45}
    assert read_sending(json.dumps(ninety).encode()).content == "가" * 45
    assert read_sending(json.dumps({**TEXT, "type": "LMS", "content": "가" * 46}).encode()).type == "LMS"


def test_the_account_comes_through_the_environment() -> None:
    assert Account.of(ACCOUNT.environment()) == ACCOUNT
    assert set(ACCOUNT.environment()) == {f"TOLLBOOK_SENS_{name}" for name in ("SERVICE_ID", "ACCESS_KEY", "SECRET_KEY")}


def test_what_is_kept_is_the_owners_and_whole(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    path = KeptFiles(folder, ".eml", FixedClock(NOW), print).keep(b"\xff\r\n")
    assert path.read_bytes() == b"\xff\r\n"
    assert path.name.startswith("20261122T030000.000000Z-")
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(folder.stat().st_mode)) == (0o600, 0o700)
    assert list(folder.iterdir()) == [path]


def test_the_oldest_go_and_that_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    clock = FixedClock(NOW)
    files = KeptFiles(tmp_path, ".json", clock, said.append, files_max=3)
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    paths = []
    for _ in range(6):
        clock.advance(1)
        paths.append(files.keep("{}"))
        assert len(list(tmp_path.glob("*.json"))) <= 3
    assert sorted(tmp_path.glob("*.json")) == paths[3:]
    assert said == [f"{tmp_path} holds 3 files: from now on the oldest go"]
    assert other.exists()


def test_a_folder_that_was_cleared_away_is_made_again_and_halves_of_a_killed_process_go(tmp_path: Path) -> None:
    folder = tmp_path / "sms"
    files = KeptFiles(folder, ".json", FixedClock(NOW), print)
    folder.rmdir()
    assert files.keep("{}").exists()
    half = folder / ".20261122-x.json.new"
    half.write_text("{")
    KeptFiles(folder, ".json", FixedClock(NOW), print)
    assert not half.exists()
