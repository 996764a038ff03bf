"""What the channels need to be told: which there are, and how they reach their providers."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, FilePath, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.alerts.channels.addresses import Network, networks
from services.alerts.channels.smtp_pool import Security
from shared.settings import Port

SMTP_PORTS: dict[Security, int] = {"none": 25, "starttls": 587, "tls": 465}
_HERE = ("localhost", "127.0.0.1", "::1")


def _networks(text: str) -> str:
    networks(text)
    return text


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("a base URL is http:// or https://, a host, and perhaps a port and a path")
    return text.rstrip("/")


def _from_address(text: str) -> str:
    try:
        parsed = validate_email(text, check_deliverability=False, globally_deliverable=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError("this is not a mail address") from error
    if parsed.ascii_email is None:
        raise ValueError("the part before the @ must be ASCII, or only servers with SMTPUTF8 could take mails")
    return parsed.ascii_email


TimeLimit = Annotated[float, Field(gt=0, le=120)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
PathPart = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:._-]{1,128}$")]
SenderName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029<>@,;:\"\\\[\]()]{1,64}$")]


class ChannelSettings(BaseSettings):
    """Which ways there are to reach people: mail if there is a server, text messages if there is a provider, webhooks always."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    smtp_host: Annotated[str, StringConstraints(pattern=r"^[^\s/@]{1,253}$")] | None = Field(
        None, description="The mail server that takes our mail; none: no mail is sent"
    )
    smtp_port: Port | None = Field(None, description="Its port; none: 587 with starttls, 465 with tls, 25 without")
    smtp_security: Security = Field("starttls", description="none, starttls (required, not tried) or tls from the first byte")
    smtp_ca_file: FilePath | None = Field(
        None, description="PEM file of who signed its certificate; none: the system's authorities"
    )
    smtp_user: str | None = Field(None, description="User name to sign in with; none: without signing in")
    smtp_password: SecretStr | None = Field(None, description="Password to sign in with")
    smtp_timeout_s: TimeLimit = Field(30.0, description="Seconds for handing over one mail, everything included")
    mail_from: Annotated[str, AfterValidator(_from_address)] | None = Field(None, description="Address that mails come from")
    mail_from_name: SenderName = Field("Tollbook", description="Name that mails come from")

    sms_provider: Literal["none", "sens", "twilio"] = Field("none", description="Who sends text messages; none: none are sent")
    sms_sender: Annotated[str, StringConstraints(pattern=r"^\+?[A-Za-z0-9 ]{3,16}$")] | None = Field(
        None, description="Sender's number: for SENS as registered there (0212345678), for Twilio as E.164 (+8221234567)"
    )
    sms_timeout_s: TimeLimit = Field(10.0, description="Seconds for handing over one text message")
    sens_base_url: BaseUrl = Field("https://sens.apigw.ntruss.com", description="Where SENS is")
    sens_service_id: PathPart | None = Field(None, description="Id of the SMS service (ncp:sms:kr:...)")
    sens_access_key: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")] | None = Field(
        None, description="Access key of NAVER Cloud"
    )
    sens_secret_key: SecretStr | None = Field(None, description="Secret key that requests are signed with")
    twilio_base_url: BaseUrl = Field("https://api.twilio.com", description="Where Twilio, or what speaks its API, is")
    twilio_account_sid: PathPart | None = Field(None, description="Account SID (AC...)")
    twilio_auth_token: SecretStr | None = Field(None, description="Auth token of the account")

    webhook_networks: Annotated[str, AfterValidator(_networks)] = Field(
        "", description="Comma-separated networks that webhooks may reach although they are private, local or reserved"
    )
    webhook_timeout_s: TimeLimit = Field(15.0, description="Seconds for one request to a webhook, everything included")

    email_concurrency: Annotated[int, Field(ge=1, le=64)] = Field(8, description="Mails, and connections to the server, at once")
    sms_concurrency: Annotated[int, Field(ge=1, le=64)] = Field(4, description="Text messages at once")
    webhook_concurrency: Annotated[int, Field(ge=1, le=64)] = Field(8, description="Requests to webhooks at once")

    def webhooks_allowed(self) -> tuple[Network, ...]:
        """`webhook_networks` taken apart."""
        return networks(self.webhook_networks)

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        problems = [*self._missing(), *self._wrong()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _missing(self) -> list[str]:
        """What belongs together and is not all there."""
        needed: list[tuple[bool, str, tuple[str, ...]]] = [
            (self.smtp_host is not None, "SMTP_HOST is set", ("mail_from",)),
            (self.smtp_user is not None, "SMTP_USER is set", ("smtp_host", "smtp_password")),
            (self.smtp_password is not None, "SMTP_PASSWORD is set", ("smtp_host", "smtp_user")),
            (
                self.sms_provider == "sens",
                "SMS_PROVIDER is sens",
                ("sms_sender", "sens_service_id", "sens_access_key", "sens_secret_key"),
            ),
            (self.sms_provider == "twilio", "SMS_PROVIDER is twilio", ("sms_sender", "twilio_account_sid", "twilio_auth_token")),
        ]
        problems = []
        for holds, because, names in needed:
            missing = [f"TOLLBOOK_{name.upper()}" for name in names if getattr(self, name) is None]
            if holds and missing:
                problems.append(f"TOLLBOOK_{because}, so that {', '.join(missing)} must be set too")
        return problems

    def _wrong(self) -> list[str]:
        problems = []
        if self.smtp_user is not None and self.smtp_security == "none" and self.smtp_host not in _HERE:
            problems.append(
                "TOLLBOOK_SMTP_SECURITY is none: the password would go over the network in the clear; use starttls or tls"
            )
        if self.sms_provider == "sens" and self.sms_sender is not None and not re.fullmatch(r"[0-9]{8,12}", self.sms_sender):
            problems.append("TOLLBOOK_SMS_SENDER: SENS wants the registered number in digits only, for example 0212345678")
        return problems
