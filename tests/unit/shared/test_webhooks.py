"""Signing as Standard Webhooks says, checked by hand and by its reference package; and what may be a webhook's URL."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from shared.ids import new_webhook_secret
from shared.webhooks import WebhookUrlProblem, sign, webhook_id, webhook_url

# Of the standard's own examples: https://github.com/standard-webhooks/standard-webhooks
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'


def test_the_standards_own_example() -> None:
    assert sign(SECRET, ID, 1614265330, BODY) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_reference_package_believes_what_we_sign_and_nothing_that_was_changed() -> None:
    secret, now_s = new_webhook_secret(), int(datetime.now(UTC).timestamp())
    body = '{"한도": 70}'.encode()
    headers = {"webhook-id": webhook_id("ab" * 16), "webhook-timestamp": str(now_s)}
    headers["webhook-signature"] = sign(secret, headers["webhook-id"], now_s, body)
    assert Webhook(secret).verify(body, headers) == {"한도": 70}
    for changed in ({"webhook-id": "msg_other"}, {"webhook-timestamp": str(now_s + 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers | changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_webhook_secret()).verify(body, headers)


def test_a_secret_is_whsec_and_32_random_bytes() -> None:
    secrets = {new_webhook_secret() for _ in range(20)}
    assert len(secrets) == 20
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32 for secret in secrets)


@pytest.mark.parametrize("secret", ["", "whsec_", SECRET[6:], "whsec_!!!!", "whsec_c2hvcnQ="])
def test_a_secret_that_is_none_is_an_error_that_does_not_show_it(secret: str) -> None:
    with pytest.raises(ValueError) as caught:
        sign(secret, ID, 1, b"")
    assert "c2hvcnQ" not in str(caught.value)


@pytest.mark.parametrize(
    "entered",
    ["https://hooks.example.com/a?b=c", " http://example.com ", "https://example.com:8443", "https://예시.한국/경로",
     "http://[2606:4700::1]:8080/x", "http://10.0.0.1/", "HTTPS://Example.com/"],
)  # fmt: skip
def test_what_may_be_a_webhook(entered: str) -> None:
    assert webhook_url(entered) == entered.strip()


@pytest.mark.parametrize(
    ("entered", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("https://example.com/" + "a" * 2048, "longer"),
        ("https://exa mple.com/", "space"),
        ("https://example.com/\n", "control"),
        ("https://example.com\\@evil.example/", "backslash"),
        ("ftp://example.com/", "https://"),
        ("example.com/hook", "https://"),
        ("//example.com/hook", "https://"),
        ("https:///hook", "host"),
        ("https://", "host"),
        ("https://user:password@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com:99999/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:http/", "port"),
        ("http://[::1/", "host"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("http://ex%61mple.com/", "host"),
    ],
)
def test_what_may_not_and_why(entered: str, says: str) -> None:
    with pytest.raises(WebhookUrlProblem) as caught:
        webhook_url(entered)
    assert says in caught.value.problem
    assert caught.value.hint
    assert "password" not in caught.value.problem.replace("user name or password", "")
