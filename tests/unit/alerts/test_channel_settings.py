"""Settings of the channels: what belongs together is missed together, and what is not set up is not there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from services.alerts.channels.opening import open_channels
from services.alerts.channels.settings import ChannelSettings
from shared.clock import FixedClock
from shared.main import read_settings
from shared.settings import ServiceSettings

CLOCK = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
MAIL = {"smtp_host": "mail.example", "mail_from": "alerts@tollbook.example"}
SENS = {"sms_provider": "sens", "sms_sender": "0212345678", "sens_service_id": "ncp:sms:kr:1:x",
        "sens_access_key": "access", "sens_secret_key": "secret"}  # fmt: skip
TWILIO = {"sms_provider": "twilio", "sms_sender": "+12015550123", "twilio_account_sid": "AC1", "twilio_auth_token": "token"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ChannelSettings.model_fields:
        monkeypatch.delenv(f"TOLLBOOK_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    ("given", "methods"),
    [
        ({}, {"webhook"}),
        (MAIL, {"email", "webhook"}),
        (SENS, {"sms", "webhook"}),
        (MAIL | TWILIO, {"email", "sms", "webhook"}),
    ],
)
def test_what_is_not_set_up_is_not_there(given: dict[str, str], methods: set[str]) -> None:
    assert set(open_channels(ChannelSettings.model_validate(given), CLOCK)) == methods


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"smtp_host": "mail.example"}, ["MAIL_FROM"]),
        (MAIL | {"smtp_user": "u"}, ["SMTP_PASSWORD"]),
        ({"smtp_password": "p"}, ["SMTP_HOST", "SMTP_USER"]),
        ({"sms_provider": "sens"}, ["SMS_SENDER", "SENS_SERVICE_ID", "SENS_ACCESS_KEY", "SENS_SECRET_KEY"]),
        ({"sms_provider": "twilio", "smtp_host": "m"}, ["SMS_SENDER", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "MAIL_FROM"]),
    ],
)
def test_all_that_is_missing_is_said_at_once(given: dict[str, str], missing: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        ChannelSettings.model_validate(given)
    assert all(f"TOLLBOOK_{name}" in str(caught.value) for name in missing)


@pytest.mark.parametrize(
    "given",
    [
        MAIL | {"smtp_user": "u", "smtp_password": "hunter2", "smtp_security": "none"},
        MAIL | {"mail_from": "nobody"},
        MAIL | {"mail_from": "톨북@tollbook.example"},
        MAIL | {"mail_from_name": "a, <b@example.org>"},
        MAIL | {"mail_from_name": "a\r\nBcc: b@example.org"},
        MAIL | {"smtp_ca_file": "/nowhere.pem"},
        SENS | {"sms_sender": "+82212345678"},
        SENS | {"sens_base_url": "sens.example"},
        SENS | {"sens_service_id": "a/../b"},
        {"webhook_networks": "everywhere"},
        {"email_concurrency": 0},
        {"webhook_timeout_s": 0},
    ],
)
def test_what_cannot_be_is_an_error_that_shows_no_secret(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        ChannelSettings.model_validate(given)
    assert "hunter2" not in str(caught.value)


def test_a_password_may_be_sent_in_the_clear_on_this_machine() -> None:
    here = MAIL | {"smtp_host": "127.0.0.1", "smtp_user": "u", "smtp_password": "p", "smtp_security": "none"}
    assert "email" in open_channels(ChannelSettings.model_validate(here), CLOCK)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLBOOK_WEBHOOK_NETWORKS", "10.0.0.0/8, fd00::/8")
    monkeypatch.setenv("TOLLBOOK_EMAIL_CONCURRENCY", "3")
    settings = ChannelSettings()
    assert [str(network) for network in settings.webhooks_allowed()] == ["10.0.0.0/8", "fd00::/8"]
    assert settings.email_concurrency == 3


class ServiceWithChannels(ServiceSettings, ChannelSettings):
    """As a service has them."""


def test_a_service_that_is_started_without_them_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOLLBOOK_HTTP_PORT", "8085")
    monkeypatch.setenv("TOLLBOOK_SMTP_HOST", "mail.example")
    monkeypatch.setenv("TOLLBOOK_SMTP_PASSWORD", "hunter2")
    assert read_settings(ServiceWithChannels) is None
    said = capsys.readouterr().err
    assert "TOLLBOOK_SMTP_HOST is set, so that TOLLBOOK_MAIL_FROM must be set too" in said
    assert "TOLLBOOK_SMTP_PASSWORD is set, so that TOLLBOOK_SMTP_USER must be set too" in said
    assert "TOLLBOOK_:" not in said
    assert "hunter2" not in said
