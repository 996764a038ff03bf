"""The read tables and the vault while a group of commands is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from shared.eventlog.changes import Bound, Change, arrange, one_will_do, perform
from shared.eventlog.facts import no_facts
from shared.eventlog.pending import Pending
from shared.eventlog.vault import Vault
from shared.postgres import Connection


class Tables:
    """Changes wait until all are known, or until facts must show them. `rows`: what was read for facts of the kind `FactsOf`.

    Facts are of one account: they must show what was decided for it before in the group, and only that.
    """

    def __init__(self, connection: Connection, vault: Vault, rows: Mapping[Pending, Sequence[Any] | None]) -> None:
        self._connection = connection
        self._vault = vault
        self._rows = rows
        self._changes: list[Change] = []
        self._sealed: dict[str, bytes] = {}
        self._waiting: set[str] = set()
        self._decided: set[str] = set()

    def change(self, pending: Pending, changes: Sequence[Change], seal: Mapping[str, bytes]) -> None:
        """What was decided for a command."""
        self._changes.extend(changes)
        self._sealed |= seal
        self._waiting.add(pending.command.account)
        self._decided.add(pending.command.account)

    async def facts_for(self, pending: Pending) -> Any:
        """What the command is to be decided on, besides its stream."""
        account = pending.command.account
        if pending in self._rows and account not in self._decided:
            return pending.facts.make(self._rows[pending])
        if pending.facts is not no_facts and account in self._waiting:
            await self.write()
        return await pending.facts(self._connection)

    async def write(self, also: Sequence[Bound] = ()) -> None:
        """Make the changes that wait, together with other writes: all or none."""
        together = [*also, self._vault.keeps(self._sealed)] if self._sealed else also
        runs = arrange(self._changes)
        whole = one_will_do(runs, together) or self._connection.is_in_transaction()
        async with nullcontext() if whole else self._connection.transaction():
            await perform(self._connection, runs, together)
        self._changes.clear()
        self._sealed.clear()
        self._waiting.clear()
