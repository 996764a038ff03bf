"""`python -m services.console token ...` and `... account ...`: what an installation needs before anybody can sign in."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.console import app, queries
from services.console.commands import IssueToken, RevokeToken
from services.console.problems import DATABASE_ERRORS
from services.console.tokens import new_token
from shared.clock import SystemClock
from shared.commands.base import field_problems
from shared.commands.registry import AccountView, OpenAccount
from shared.commands.requester import ask
from shared.errors import TollbookError, Unavailable
from shared.ids import new_id
from shared.main import read_settings
from shared.postgres import Pool, open_pool

ACTOR: Final = "service:command-line"
REGISTRY_WAIT_S: Final = 30.0
RETRY_S: Final = 0.5
DAYS_MAX: Final = 3650


class TokenSettings(BaseSettings):
    """What issuing a token needs: no running console, only its database."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    postgres_dsn: SecretStr = Field(description="The console's own role")
    vault_key: SecretStr | None = None


class AccountSettings(BaseSettings):
    """What opening an account needs: NATS, as the console's user."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    nats_url: str = "nats://127.0.0.1:4222"
    nats_seed: SecretStr | None = None


def main(argv: Sequence[str]) -> int:
    """Run `token` or `account`; returns the exit code."""
    chosen = _parser().parse_args(argv)
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    try:
        if chosen.command == "account":
            return _account(chosen)
        return _token(chosen)
    except ValidationError as error:
        for problem in field_problems(error.errors(include_url=False, include_input=False)):
            sys.stderr.write(f"{problem.field}: {problem.problem} {problem.hint}\n".replace(" \n", "\n"))
        return 2
    except TollbookError as error:
        return _fail(error.detail)
    except (*DATABASE_ERRORS, NatsError) as error:
        return _fail(f"PostgreSQL or NATS does not answer: {type(error).__name__}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.console")
    commands = parser.add_subparsers(dest="command", required=True)
    token = commands.add_parser("token", help="make, list or revoke API tokens; a new one is printed once, alone on stdout")
    token.add_argument("--account", help="the account that the token belongs to")
    token.add_argument("--role", action="append", choices=("owner", "member", "reviewer", "operator"), help="may be repeated")
    token.add_argument("--name", help="what to call it: a-z, 0-9, dot, dash and underscore")
    token.add_argument("--expires-days", type=int, metavar="N", help=f"end it after N days, 1 to {DAYS_MAX}; without: it lasts")
    choice = token.add_mutually_exclusive_group()
    choice.add_argument("--list", action="store_true", help="list the tokens, of --account or of all accounts")
    choice.add_argument("--revoke", metavar="ID", help="have this token of --account (or of any) work no longer")
    account = commands.add_parser("account", help="open an account, if it is not open")
    account.add_argument("--account", required=True, help="its name: a-z, 0-9 and dash")
    account.add_argument("--zone", default="Asia/Seoul", help="the IANA zone that its days and months are counted in")
    return parser


def _token(chosen: argparse.Namespace) -> int:
    settings = read_settings(TokenSettings)  # type: ignore[type-var]  # reads any settings, whatever it declares
    if settings is None:
        return 2
    work: Callable[[Pool, app.Tokens], Awaitable[int]]
    if chosen.list:
        work = lambda pool, _: _list(pool, chosen.account)  # noqa: E731 - one of three
    elif chosen.revoke:
        work = lambda pool, tokens: _revoke(pool, tokens, chosen)  # noqa: E731 - one of three
    elif not (chosen.account and chosen.role and chosen.name):
        return _fail("A new token needs --account, --role and --name.", 2)
    elif chosen.expires_days is not None and not 1 <= chosen.expires_days <= DAYS_MAX:
        return _fail(f"--expires-days: give 1 to {DAYS_MAX}.", 2)
    else:
        work = lambda _, tokens: _issue(tokens, chosen)  # noqa: E731 - one of three
    return asyncio.run(_with_database(settings, work))


async def _with_database(settings: TokenSettings, work: Callable[[Pool, app.Tokens], Awaitable[int]]) -> int:
    pool = await open_pool(settings.postgres_dsn.get_secret_value(), app.NAME, 2)
    try:
        return await work(pool, app.Tokens(pool, settings.vault_key))
    finally:
        await pool.close()


async def _issue(tokens: app.Tokens, chosen: argparse.Namespace) -> int:
    token = new_token()
    lasts = chosen.expires_days
    command = IssueToken(
        command_id=new_id(),
        account=chosen.account,
        actor=ACTOR,
        token_id=token.token_id,
        roles=tuple(dict.fromkeys(chosen.role)),
        label=chosen.name,
        verifier=token.verifier,
        expires_at=None if lasts is None else SystemClock().now() + timedelta(days=lasts),
    )
    await tokens.issue(command)
    sys.stdout.write(f"{token.text}\n")
    return 0


async def _revoke(pool: Pool, tokens: app.Tokens, chosen: argparse.Namespace) -> int:
    row = await queries.token_by_id(pool, chosen.revoke)
    if row is None or chosen.account not in (None, row.account):
        return _fail(f"There is no token {chosen.revoke}.")
    await tokens.revoke(RevokeToken(command_id=new_id(), account=row.account, actor=ACTOR, token_id=row.token_id))
    sys.stdout.write(f"{row.token_id} is revoked\n")
    return 0


async def _list(pool: Pool, account: str | None) -> int:
    for row in await queries.list_tokens(pool, account):
        state = "revoked" if row.revoked_at else f"until {row.expires_at:%Y-%m-%d}" if row.expires_at else "valid"
        used = f"{row.last_used_at:%Y-%m-%dT%H:%MZ}" if row.last_used_at else "never"
        cells = (row.token_id, row.account, ",".join(row.roles), row.label, f"{row.issued_at:%Y-%m-%dT%H:%MZ}", used, state)
        sys.stdout.write("\t".join(cells) + "\n")
    return 0


def _account(chosen: argparse.Namespace) -> int:
    settings = read_settings(AccountSettings)  # type: ignore[type-var]  # reads any settings, whatever it declares
    if settings is None:
        return 2
    # The same command id each time: opening an account that is open is no error.
    command = OpenAccount(
        command_id=f"open-{chosen.account}-{chosen.zone}", account=chosen.account, actor=ACTOR, zone=chosen.zone
    )
    view = asyncio.run(_open_account(settings, command))
    sys.stdout.write(f"{view.account} is open, zone {view.zone}\n")
    return 0


async def _open_account(settings: AccountSettings, command: OpenAccount) -> AccountView:
    """Ask until the registry answers, for REGISTRY_WAIT_S at most."""
    clock = SystemClock()
    give_up_at = clock.monotonic() + REGISTRY_WAIT_S
    while True:
        try:
            nc = await _connect(settings)
            try:
                return await ask(nc, "registry", command, AccountView)
            finally:
                await nc.close()
        except (Unavailable, NatsError, OSError, TimeoutError) as error:
            if clock.monotonic() >= give_up_at:
                detail = error.detail if isinstance(error, Unavailable) else "NATS does not answer."
                raise Unavailable(f"{detail} Waited {REGISTRY_WAIT_S:.0f} seconds.") from error
            await asyncio.sleep(RETRY_S)


async def _connect(settings: AccountSettings) -> Client:
    async def quiet(_: Exception) -> None:
        """What fails is told once, at the end."""

    seed = settings.nats_seed.get_secret_value() if settings.nats_seed else None
    return await nats.connect(
        settings.nats_url.split(","),
        nkeys_seed_str=seed,
        inbox_prefix=f"_INBOX_{app.NAME}",
        allow_reconnect=False,
        connect_timeout=2,
        error_cb=quiet,
    )


def _fail(message: str, code: int = 1) -> int:
    sys.stderr.write(f"{message}\n")
    return code
