"""Requests that the console itself decides: API tokens. Everything else it hands to the service that owns it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.commands.base import Command, Reply
from shared.events.console import Role

TokenId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{12}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
"""What tells an account's tokens apart: a slug such as `first` or `ci-2026`."""


class IssueToken(Command):
    """Make a token known. Its text was made by the asker and stays there: this carries only its SHA-256."""

    token_id: TokenId
    roles: Annotated[tuple[Role, ...], Field(min_length=1, max_length=4)]
    label: Label
    verifier: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    expires_at: datetime | None = None


class RevokeToken(Command):
    """Have a token work no longer. Refused with NotFound when the account has no such token."""

    token_id: TokenId


class TokenKept(Reply):
    """Reply to both: the token that was issued or revoked."""

    token_id: str
