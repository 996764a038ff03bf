"""One command on its way to being decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from shared.commands.base import Command
from shared.eventlog.decision import Decision


@dataclass(eq=False)
class Pending:
    """One command on its way. `Any`, because commands of all kinds wait in one queue; `run` gives the types back."""

    command: Command
    stream: str
    initial: Any
    evolve: Callable[[Any, Any], Any]
    decide: Callable[[Any, Any], Decision[Any, Any]]
    reply: type[Any]
    facts: Any
    done: asyncio.Future[Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.command.account, self.command.command_id

    @property
    def asked(self) -> bytes:
        """What was asked, not who asked: another token of the account may repeat a command."""
        body = self.command.model_dump_json(exclude={"command_id", "actor"})
        return f"{type(self.command).__name__}\x1f{body}".encode()

    def fold(self, events: Sequence[Any]) -> Any:
        """The state that the stream's events come to."""
        return reduce(self.evolve, events, self.initial)

    @property
    def reply_context(self) -> str:
        """What its stored reply is sealed under."""
        return f"reply:{self.command.account}:{self.command.command_id}"
