"""What a first start leaves ready to be tried: an account with its owner, the terms accepted, one application; and the house's
own account, of its reviewers and operators.

All of it goes the way that everybody goes: the console's command line and the REST API. Every step may be repeated; what is kept
under HOME/secrets says what was done.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from deploy.errors import StackError
from deploy.local_http import Answer, request
from deploy.secrets import Secrets
from deploy.services import SERVICES, ServiceSpec
from deploy.stack import HOUSE, Stack, run_tool

ACCOUNT: Final = "demo"
ZONE: Final = "Asia/Seoul"
ACCOUNT_OF: Final = {"owner": ACCOUNT, "reviewer": HOUSE, "operator": HOUSE}
"""Which account the first token of each role belongs to."""
APP_NAME: Final = "Sample app"
APP: Final[dict[str, Any]] = {
    "name": APP_NAME,
    "services": ["csr"],
    "environments": {"android": ["com.example.sample"]},
}
TOOL_TIMEOUT_S: Final = 60.0
HTTP_TIMEOUT_S: Final = 10.0
CONSOLE: Final[ServiceSpec] = next(spec for spec in SERVICES if spec.name == "console")


@dataclass(frozen=True)
class FirstStart:
    """`tokens` by role. `client_secret` is None when the sample application was deleted, or its secret is not kept."""

    account: str
    tokens: dict[str, str]
    client_id: str
    client_secret: str | None


async def prepare(stack: Stack, secrets: Secrets) -> FirstStart:
    """Do what is still to be done, and say what there is. Raises StackError naming the step that failed."""
    kept = await asyncio.gather(*(_token(stack, secrets, role, account) for role, account in ACCOUNT_OF.items()))
    tokens = dict(zip(ACCOUNT_OF, kept, strict=True))
    client_id = secrets.read("sample-client-id")
    if client_id is None:
        client_id = secrets.keep("sample-client-id", await _register(stack, tokens["owner"]))
    return FirstStart(ACCOUNT, tokens, client_id, await _client_secret(stack, tokens["owner"], client_id))


async def _token(stack: Stack, secrets: Secrets, role: str, account: str) -> str:
    """The first token of that role: the one that is kept, if it is still good."""
    kept = secrets.read(f"token-{role}")
    speaks_for = None if kept is None else await _account_of(stack, kept, account)
    if kept is not None and speaks_for == account:
        return kept
    await _console(stack, "account", "--account", account, "--zone", ZONE)
    made = await _console(stack, "token", "--account", account, "--role", role, "--name", f"first-{role}")
    if kept is not None and speaks_for is not None:
        # Reviewers and operators were once of the first account, about whose applications they could not decide.
        await _console(stack, "token", "--revoke", kept.split("_")[1])
    return secrets.keep(f"token-{role}", made.strip())


async def _account_of(stack: Stack, token: str, expected: str) -> str | None:
    """Whose token it is; None: the database does not know it (any more), as one that was replaced by an empty one. While the
    registry cannot say, it is taken for `expected`."""
    answer = await _http(stack, token, "GET", "/v1/account")
    if answer.status == 401:
        return None
    account: str = answer.json()["account"] if answer.status == 200 else expected
    return account


async def _console(stack: Stack, *arguments: str) -> str:
    done = await run_tool(CONSOLE, arguments, stack.environment(CONSOLE), TOOL_TIMEOUT_S)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise StackError(f"the console's {arguments[0]} command failed: {reason}")
    return done.stdout


async def _register(stack: Stack, token: str) -> str:
    terms = await _http(stack, token, "GET", "/v1/terms")
    _expect(terms, 200, "read the terms")
    accepted = await _http(
        stack, token, "PUT", "/v1/terms/acceptance", {"version": terms.json()["version"]}, key="first-start-terms"
    )
    _expect(accepted, 200, "accept the terms")
    registered = await _http(stack, token, "POST", "/v1/apps", APP, key="first-start-sample-app")
    _expect(registered, 201, "register the sample application")
    client_id: str = registered.json()["client_id"]
    return client_id


async def _client_secret(stack: Stack, token: str, client_id: str) -> str | None:
    answer = await _http(stack, token, "GET", f"/v1/apps/{client_id}/authentication")
    if answer.status == 404:
        return None
    _expect(answer, 200, "read the sample application's authentication")
    secret: str | None = answer.json()["client_secret"]
    return secret


async def _http(stack: Stack, token: str, method: str, path: str, body: object = None, key: str = "") -> Answer:
    headers = {"authorization": f"Bearer {token}"}
    if key:
        headers["idempotency-key"] = key
    try:
        return await asyncio.to_thread(request, method, stack.url("console") + path, body, headers, HTTP_TIMEOUT_S)
    except OSError as error:
        raise StackError(f"the console did not answer {method} {path}: {error}") from None


def _expect(answer: Answer, status: int, step: str) -> None:
    if answer.status != status:
        # The answer to a request without secrets holds none, but a short look is enough.
        raise StackError(f"the first start could not {step}: {answer.status} {answer.body[:300].decode(errors='replace')}")
