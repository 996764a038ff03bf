"""What people and broken programs send: each time the documented error, nothing done, and no secret in the log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nats.aio.client import Client

from shared.commands.base import ERROR_HEADER
from shared.commands.registry import AppPage, Authentication, GetAuthentication, ListApps
from tests.support.registry_process import Customer, RegistryProcess

COMMAND = {"command_id": "c1", "account": "acme", "actor": "token:t1"}
REGISTER = {**COMMAND, "name": "speech", "services": ["papago-nmt"]}
SECRET = "SecretThatMustNotBeLogged0123456789abcdef"

BAD_FIELDS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("RegisterApp", {"nmae": "typo"}, ["nmae"]),
    ("RegisterApp", {"client_secret": SECRET}, ["client_secret"]),
    ("RegisterApp", {"name": 5}, ["name"]),
    ("RegisterApp", {"name": None}, ["name"]),
    ("RegisterApp", {"name": ""}, ["name"]),
    ("RegisterApp", {"name": " \t "}, ["name"]),
    ("RegisterApp", {"name": "x" * 21}, ["name"]),
    ("RegisterApp", {"name": "a\u0000b"}, ["name"]),
    ("RegisterApp", {"name": "\ud800"}, ["name"]),
    ("RegisterApp", {"name": "a\u202eb"}, ["name"]),
    ("RegisterApp", {"name": "x" * 900_000}, ["name"]),
    ("RegisterApp", {"services": []}, ["services"]),
    ("RegisterApp", {"services": "csr"}, ["services"]),
    ("RegisterApp", {"services": ["papago-nmt", "csr", "papago-nmt"]}, ["services[2]"]),
    ("RegisterApp", {"services": ["papago-nmt", "nope"]}, ["services[1]"]),
    ("RegisterApp", {"services": ["papago-nmt", "a b", 7]}, ["services[1]", "services[2]"]),
    ("RegisterApp", {"services": ["x"] * 51}, ["services"]),
    ("RegisterApp", {"services": ["csr"]}, ["environments"]),
    ("RegisterApp", {"environments": []}, ["environments"]),
    ("RegisterApp", {"environments": {"windows": ["x"]}}, ["environments.windows"]),
    (
        "RegisterApp",
        {"environments": {"web": ["http://ok.com", "ftp://x.com", 3, "http://co.kr"]}},
        ["environments.web[1]", "environments.web[2]", "environments.web[3]"],
    ),
    (
        "RegisterApp",
        {"name": "", "environments": {"web": ["http://a.com"] * 11, "android": ["nodots"], "ios": ["under_score"]}},
        ["name", "environments.web", "environments.android[0]", "environments.ios[0]"],
    ),
    ("RegisterApp", {"command_id": "has space"}, ["command_id"]),
    ("RegisterApp", {"command_id": ""}, ["command_id"]),
    ("RegisterApp", {"account": "../other"}, ["account"]),
    ("RegisterApp", {"actor": "a\nb"}, ["actor"]),
    ("OpenAccount", {"zone": "Mars/Olympus"}, ["zone"]),
    ("AcceptTerms", {"version": "../../etc"}, ["version"]),
    ("ReissueSecret", {"client_id": "short"}, ["client_id"]),
    ("ReissueSecret", {"client_id": "a" * 20, "grace_seconds": -1}, ["grace_seconds"]),
    ("ReissueSecret", {"client_id": "a" * 20, "grace_seconds": 604_801}, ["grace_seconds"]),
    ("ReissueSecret", {"client_id": "a" * 20, "grace_seconds": 1.5}, ["grace_seconds"]),
    ("ReissueSecret", {"client_id": "a" * 20, "grace_seconds": True}, ["grace_seconds"]),
    ("ReissueSecret", {"client_id": "a" * 20, "grace_seconds": "60"}, ["grace_seconds"]),
    ("ReissueSecret", {"client_id": "a" * 20, "grace_seconds": 10**30}, ["grace_seconds"]),
    ("RevokeSecret", {"client_id": "a" * 20, "secret_id": "x"}, ["secret_id"]),
    ("DeleteApp", {}, ["client_id"]),
]
NOT_OBJECTS = [b"", b"{", b"null", b"[]", b'"text"', b"5", b"\xff\xfe\x00", b"x" * 900_000, b'{"name": NaN}', b"[" * 100_000]


async def asked(
    nc: Client, subject: str, body: bytes, content_type: str | None = "application/json"
) -> tuple[str, dict[str, Any]]:
    """The error's code and the refusal."""
    headers = {"content-type": content_type} if content_type else None
    answer = await nc.request(subject, body, timeout=20, headers=headers)
    assert answer.headers is not None, answer.data[:200]
    assert ERROR_HEADER in answer.headers, answer.data[:200]
    assert len(answer.data) < 20_000
    return answer.headers[ERROR_HEADER], json.loads(answer.data)


async def test_each_wrong_field_is_named(customer: Customer, nc: Client, registry: RegistryProcess) -> None:
    for name, wrong, fields in BAD_FIELDS:
        body = {**(REGISTER if name == "RegisterApp" else COMMAND), **wrong}
        code, refusal = await asked(nc, f"registry.commands.{name}", json.dumps(body).encode())
        assert code == "invalid_input", (name, wrong, refusal)
        assert [problem["field"] for problem in refusal["fields"]] == fields, (name, wrong, refusal)
        assert all(problem["problem"] for problem in refusal["fields"])
    for limit in (0, 101, "20", 1.5):
        code, refusal = await asked(nc, "registry.queries.ListApps", json.dumps({"account": "acme", "limit": limit}).encode())
        assert (code, refusal["fields"][0]["field"]) == ("invalid_input", "limit")
    assert (await customer.ask(ListApps, AppPage)).apps == ()
    assert SECRET not in registry.log.read_text()


async def test_what_is_no_json_object_is_refused(customer: Customer, nc: Client, registry: RegistryProcess) -> None:
    for body in NOT_OBJECTS:
        for content_type in ("application/json", "text/plain", None):
            code, refusal = await asked(nc, "registry.commands.RegisterApp", body, content_type)
            assert code in ("malformed_request", "invalid_input"), (body[:20], content_type, refusal)
    assert (await customer.ask(ListApps, AppPage)).apps == ()
    assert (await registry.readiness())["ready"]


@pytest.mark.parametrize(
    "name", ["😀", "é", "e\u0301", "가나다라마바사아자차카타파하가나다라마바", "'; DROP TABLE app;--", "<b>&amp;"]
)
async def test_any_visible_name_is_kept_as_it_is(customer: Customer, name: str, nc: Client) -> None:
    issued = await customer.register(name=name)
    assert len(issued.name) <= 20
    assert (await customer.ask(ListApps, AppPage)).apps[0].name == issued.name


async def test_no_secret_is_logged(customer: Customer, registry: RegistryProcess, nc: Client) -> None:
    issued = await customer.register()
    await customer.ask(GetAuthentication, Authentication, client_id=issued.client_id)
    written = registry.log.read_text()
    for secret in (issued.client_secret, registry.env["TOLLBOOK_PEPPER"], registry.env["TOLLBOOK_VAULT_KEY"]):
        assert secret not in written
    assert registry.env["TOLLBOOK_PEPPER"] not in registry.printed("--check")
