"""What alerts is told about mail and text messages leads to files that ready.json names."""

from __future__ import annotations

import json
import smtplib
import time
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import httpx

from deploy.sens import Account, signature
from tests.support.processes import environment_of
from tests.support.stack import StackProcess


def test_a_mail_as_alerts_would_send_it_lies_in_the_inbox(stack: StackProcess) -> None:
    told = environment_of(stack, "alerts")
    assert told["TOLLBOOK_SMTP_SECURITY"] == "none"
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = told["TOLLBOOK_MAIL_FROM"], "kim@example.com", "70 %"
    mail.set_content("csr")
    with smtplib.SMTP(told["TOLLBOOK_SMTP_HOST"], int(told["TOLLBOOK_SMTP_PORT"]), timeout=10) as client:
        client.send_message(mail)
    kept = [message_from_bytes(path.read_bytes(), policy=policy.default) for path in Path(stack.ready["inbox"]).glob("*.eml")]
    assert ("kim@example.com", "70 %") in {(one["To"], one["Subject"]) for one in kept}


def test_a_text_message_signed_with_what_alerts_is_told_lies_beside_it(stack: StackProcess) -> None:
    told = environment_of(stack, "alerts")
    account = Account.of(told)
    target = f"/sms/v2/services/{account.service_id}/messages"
    timestamp = str(int(time.time() * 1000))
    headers = {
        "x-ncp-apigw-timestamp": timestamp,
        "x-ncp-iam-access-key": account.access_key,
        "x-ncp-apigw-signature-v2": signature(account, "POST", target, timestamp),
    }
    body = {"type": "SMS", "from": told["TOLLBOOK_SMS_SENDER"], "content": "70 %", "messages": [{"to": "01012345678"}]}
    answer = httpx.post(told["TOLLBOOK_SENS_BASE_URL"] + target, json=body, headers=headers, timeout=10, trust_env=False)
    assert answer.status_code == 202, answer.text
    kept = [json.loads(path.read_text("utf-8")) for path in Path(stack.ready["sms"]).glob("*.json")]
    assert ("01012345678", "70 %", answer.json()["requestId"]) in {(one["to"], one["content"], one["requestId"]) for one in kept}
