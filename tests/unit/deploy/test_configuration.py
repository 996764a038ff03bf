"""What is generated, and the data it is generated from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydantic import ValidationError

from deploy.permissions import PERMISSIONS, inbox
from deploy.sample_api import AUDIO_BYTES_MAX, app, recognise
from deploy.screen import Screen
from deploy.servers.caddy import Route, caddyfile
from deploy.servers.nats_config import NatsUser, stack_config
from deploy.services import SERVICES
from deploy.settings import StackSettings


@pytest.mark.parametrize("log", ["registry", "metering", "alerts", "review"])
def test_only_its_owner_may_publish_to_a_log(log: str) -> None:
    others = {name for name in PERMISSIONS if name not in (log, "operator")}
    for name in others:
        assert not any(subject.startswith(f"{log}.events") or subject == ">" for subject in PERMISSIONS[name].publish)


def test_every_service_has_a_user_and_an_inbox_of_its_own() -> None:
    assert {spec.name for spec in SERVICES} <= set(PERMISSIONS)
    for name, permissions in PERMISSIONS.items():
        if name != "operator":
            inboxes = [subject for subject in permissions.subscribe if subject.startswith("_INBOX")]
            assert inboxes == [inbox(name)]


def test_nats_syncs_every_write_and_listens_on_loopback_only() -> None:
    users = {name: NatsUser(f"U{name}", permissions) for name, permissions in PERMISSIONS.items()}
    config = stack_config(4222, 4280, Path("/data"), users, "AISSUER")
    assert "sync_interval: always" in config
    assert config.count("127.0.0.1:") == config.count("listen:") == 2
    assert 'auth_users: ["Uregistry", "Umetering", ' in config


def test_caddy_asks_the_gate_before_every_api_and_strips_what_only_the_gate_may_say() -> None:
    config = caddyfile(8000, 8081, [Route("csr", "/recog/v1/stt", "127.0.0.1:9"), Route("nmt", "/nmt", "127.0.0.1:9")])
    assert config.count("forward_auth 127.0.0.1:8081") == 2
    assert "uri /authorize/csr" in config
    assert config.index("request_header -X-Tollbook-*") < config.index("forward_auth")
    assert "admin off" in config
    assert "auto_https off" in config


def test_ports_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLBOOK_GATE_PORT", "70000")
    with pytest.raises(ValidationError):
        StackSettings()
    monkeypatch.setenv("TOLLBOOK_GATE_PORT", "")
    assert StackSettings().asked_ports()["gate"] is None


def test_the_sample_api_hears_the_language_that_it_is_told() -> None:
    assert recognise("POST", "lang=Kor", b"sound") == (200, {"text": "안녕하세요"})
    assert recognise("POST", "lang=Xxx", b"sound")[0] == 400
    assert recognise("POST", "lang=Eng", b"")[0] == 400
    assert recognise("GET", "lang=Eng", b"")[0] == 405


async def test_the_sample_api_refuses_more_than_three_megabytes() -> None:
    parts = [{"body": b"x" * AUDIO_BYTES_MAX, "more_body": True}, {"body": b"x", "more_body": False}]
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return parts.pop(0)

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    await app({"type": "http", "path": "/recog/v1/stt", "method": "POST", "query_string": b"lang=Kor"}, receive, send)
    assert sent[0]["status"] == 413
    assert parts == []


async def test_the_sample_api_hands_on_what_is_left_of_a_limit() -> None:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"body": b"sound", "more_body": False}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    headers = [(b"x-tollbook-account", b"demo"), (b"x-tollbook-remaining", b"4")]
    call = {"type": "http", "path": "/recog/v1/stt", "method": "POST", "query_string": b"lang=Kor", "headers": headers}
    await app(call, receive, send)
    told = [line for line in sent[0]["headers"] if line[0].startswith(b"x-tollbook-")]  # type: ignore[attr-defined]
    assert (sent[0]["status"], told) == (200, headers[1:])


def test_lines_carry_the_name_of_their_process() -> None:
    out = io.StringIO()
    Screen(out).line("gate", "hello")
    assert out.getvalue() == "gate      | hello\n"


def test_the_screen_survives_a_terminal_that_went_away() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    screen = Screen(Gone())
    screen.say("nobody")
    screen.say("hears")
