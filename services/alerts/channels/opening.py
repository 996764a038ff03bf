"""Makes the channels that the settings speak of."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from pydantic import SecretStr

from services.alerts.channels.email import EmailChannel
from services.alerts.channels.mime import Sender
from services.alerts.channels.sens import SensAccount, SensChannel
from services.alerts.channels.settings import SMTP_PORTS, ChannelSettings
from services.alerts.channels.smtp_pool import SmtpServer
from services.alerts.channels.twilio import TwilioAccount, TwilioChannel
from services.alerts.channels.webhook import WebhookChannel
from services.alerts.messages import Channel
from shared.clock import Clock
from shared.events.alerts import Method


def open_channels(settings: ChannelSettings, clock: Clock) -> Mapping[Method, Channel]:
    """By method; one that is not set up is not in it. Nothing is connected yet. Close each in the end.

    Raises OSError or ssl.SSLError when the file of authorities cannot be read.
    """
    channels: dict[Method, Channel] = {
        "webhook": WebhookChannel(clock, settings.webhook_timeout_s, settings.webhooks_allowed()),
    }
    if settings.smtp_host is not None:
        channels["email"] = _email(settings, clock)
    if settings.sms_provider == "sens":
        account = SensAccount(
            settings.sens_base_url,
            settings.sens_service_id or "",
            settings.sens_access_key or "",
            _secret(settings.sens_secret_key),
            settings.sms_sender or "",
        )
        channels["sms"] = SensChannel(clock, settings.sms_timeout_s, account)
    elif settings.sms_provider == "twilio":
        twilio = TwilioAccount(
            settings.twilio_base_url,
            settings.twilio_account_sid or "",
            _secret(settings.twilio_auth_token),
            settings.sms_sender or "",
        )
        channels["sms"] = TwilioChannel(clock, settings.sms_timeout_s, twilio)
    return channels


def _email(settings: ChannelSettings, clock: Clock) -> EmailChannel:
    sender = Sender(settings.mail_from_name, settings.mail_from or "")
    security = settings.smtp_security
    server = SmtpServer(
        settings.smtp_host or "",
        settings.smtp_port or SMTP_PORTS[security],
        security,
        settings.smtp_user or "",
        _secret(settings.smtp_password),
        sender.domain,
        None if security == "none" else ssl.create_default_context(cafile=settings.smtp_ca_file),
    )
    return EmailChannel(clock, settings.smtp_timeout_s, server, sender, size=settings.email_concurrency)


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""
