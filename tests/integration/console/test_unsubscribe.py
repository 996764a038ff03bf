"""The page that ends mails: no sign-in, GET changes nothing, POST does, in the reader's language."""

from __future__ import annotations

import logging

import pytest
from pydantic import SecretStr

from services.alerts.tokens import make_token
from shared.eventlog.vault import Vault
from tests.integration.console.conftest import Alerted, House
from tests.support.alerts_process import VAULT_KEY
from tests.support.consoles import ACCOUNT, client, make_console, running

ONE_CLICK = {"List-Unsubscribe": "One-Click"}
UNKNOWN = "/unsubscribe/nobodyHasIssuedThis"


def link(contact_id: str) -> str:
    """Where the header List-Unsubscribe of a mail to that contact leads."""
    return f"/unsubscribe/{make_token(Vault(SecretStr(VAULT_KEY)), ACCOUNT, contact_id, 'email')}"


async def unsubscribed(alerted: Alerted, contact_id: str) -> bool:
    [mail] = (await alerted.api.get(f"/v1/contacts/{contact_id}")).json()["methods"]
    return bool(mail["unsubscribed"])


async def test_only_the_button_ends_mails(alerted: Alerted) -> None:
    contact_id = (await alerted.verified())["contact_id"]
    where = link(contact_id)
    async with client(alerted.house.url) as reader:
        shown = await reader.get(where)
        assert (shown.status_code, await unsubscribed(alerted, contact_id)) == (200, False)
        assert '<form method="post">' in shown.text
        for _ in range(2):
            done = await reader.post(where, data=ONE_CLICK)
            assert (done.status_code, await unsubscribed(alerted, contact_id)) == (200, True)
            assert "<form" not in done.text
        for page in (shown, done):
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["x-robots-tag"].startswith("noindex")
            assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-store", "no-referrer")
            assert "form-action 'self'" in page.headers["content-security-policy"]
            assert "kim" not in page.text.lower(), "who has only the link learns nothing of whose it is"


async def test_who_has_verified_again_may_end_mails_again(alerted: Alerted) -> None:
    contact_id = (await alerted.verified())["contact_id"]
    async with client(alerted.house.url) as reader:
        assert (await reader.post(link(contact_id), files={"List-Unsubscribe": (None, "One-Click")})).status_code == 200
        assert await unsubscribed(alerted, contact_id)
        await alerted.api.patch(f"/v1/contacts/{contact_id}", json={"email": "kim2@example.com"})
        body = {"method": "email", "code": await alerted.code(contact_id)}
        await alerted.api.put(f"/v1/contacts/{contact_id}/verification", json=body)
        assert not await unsubscribed(alerted, contact_id)
        assert (await reader.post(link(contact_id))).status_code == 200
        assert await unsubscribed(alerted, contact_id)


async def test_tokens_that_nobody_issued_are_told_and_limited(alerted: Alerted) -> None:
    gone = (await alerted.add())["contact_id"]
    await alerted.api.delete(f"/v1/contacts/{gone}")
    contact_id = (await alerted.verified())["contact_id"]
    async with client(alerted.house.url, **{"Accept-Language": "en-GB, ko;q=0.5"}) as reader:
        for where in (UNKNOWN, link(gone), "/unsubscribe/a%20b", f"/unsubscribe/{'a' * 501}", f"{link(contact_id)}x"):
            answer = await reader.post(where, data=ONE_CLICK)
            assert (answer.status_code, answer.headers["content-language"]) == (404, "en")
            assert "not known" in answer.text
        assert [(await reader.post(UNKNOWN)).status_code for _ in range(5)] == [404] * 5
        refused = await reader.post(link(contact_id), data=ONE_CLICK)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert not await unsubscribed(alerted, contact_id), "signing in is counted apart"


async def test_the_page_speaks_korean_and_english(alone: House) -> None:
    for accepted, language, word in (
        ("en", "en", "Unsubscribe"),
        ("ko-KR,en;q=0.9", "ko", "수신 거부"),
        ("fr", "ko", "수신 거부"),
    ):
        async with client(alone.url, **{"Accept-Language": accepted}) as reader:
            shown = await reader.get(UNKNOWN)
            assert (shown.status_code, shown.headers["content-language"]) == (200, language)
            assert shown.headers["vary"] == "Accept-Language"
            assert word in shown.text
            assert (await reader.get("/unsubscribe/%3Cscript%3E")).status_code == 404


async def test_without_alerts_the_page_says_so(alone: House) -> None:
    async with client(alone.url, **{"Accept-Language": "en"}) as reader:
        answer = await reader.post(UNKNOWN, data=ONE_CLICK)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "alerts" in answer.text
        assert '<form method="post">' in answer.text


async def test_a_body_that_nobody_signed_in_for_is_small(alone: House) -> None:
    async with client(alone.url) as reader:
        answer = await reader.post(UNKNOWN, content=b"x" * 5000)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        other = await reader.put(UNKNOWN)
        assert (other.status_code, other.headers["allow"]) == (405, "GET, POST")
        assert (await reader.get("/unsubscribe/")).status_code == 404


async def test_clients_are_counted_apart_behind_a_proxy(alone: House) -> None:
    async with running(make_console(alone.nats_url, alone.dsn, trusted_proxies="127.0.0.0/8")) as url:
        for number, status in ((1, 429), (2, 404)):
            async with client(url, **{"X-Forwarded-For": f"192.0.2.{number}"}) as reader:
                for _ in range(11 if number == 1 else 1):
                    last = await reader.post("/unsubscribe/not.a.token")
                assert last.status_code == status


async def test_no_token_is_logged(alone: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with client(alone.url) as reader:
            await reader.get(UNKNOWN)
            await reader.post(UNKNOWN)
    # The reader's own log is not the console's; and a console that is started as a program logs no access (test_rest.py looks).
    others = ("httpx", "httpcore", "uvicorn.access")
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(others)]
    assert not any("nobodyHasIssuedThis" in line for line in ours)
