"""People who are told of limits while everything dies: who they are, and what must be true of what they were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from shared.events.alerts import Crossed, NotificationDelivered, NotificationFailed, NotificationRequested, rungs_of
from shared.events.metering import ThresholdCrossed
from tests.chaos.checks import LOGS, Database, read_log
from tests.support.inbox import mails, verified_contact

SERVICE: Final = "csr"
READERS: Final = 3
FIRST_PERCENT: Final = 10
TOLD_MAX: Final = 10


class Readers:
    """Contacts with verified mail addresses; each hears of its share of the applications, at every tenth of their limit."""

    def __init__(self, ready: dict[str, Any], seed: int) -> None:
        self._ready = ready
        self._seed = seed
        self._reader_of: dict[str, str] = {}

    async def subscribe(self, apps: Sequence[str], limit: int) -> None:
        """Before the faults: everybody is verified, every application has a monthly limit of so many units, and a rule."""
        headers = {"authorization": f"Bearer {self._ready['owner_token']}"}
        async with httpx.AsyncClient(base_url=self._ready["console_url"], headers=headers, timeout=15, trust_env=False) as http:
            inbox = Path(self._ready["inbox"])
            readers = [
                await verified_contact(http, inbox, f"Reader {number}", f"reader-{self._seed}-{number}@example.com")
                for number in range(READERS)
            ]
            for number, client_id in enumerate(apps):
                reader = self._reader_of[client_id] = readers[number % READERS]
                place = f"/v1/apps/{client_id}/services/{SERVICE}"
                rule = {"monthly": FIRST_PERCENT, "recipients": [{"contact_id": reader, "methods": ["email"]}]}
                (await http.put(f"{place}/notifications", json=rule)).raise_for_status()
                (await http.put(f"{place}/limits", json={"monthly": limit})).raise_for_status()

    async def check(self, database: Database) -> tuple[list[str], dict[str, int]]:
        """Each crossing was asked for once, each request was delivered once, and is in the inbox; with the figures."""
        crossed = Counter(
            (event.client_id, event.window_start, event.limit_version, event.percent)
            for event in await self._events(database, "metering")
            if isinstance(event, ThresholdCrossed)
            and event.client_id in self._reader_of
            and event.percent in rungs_of(FIRST_PERCENT)
        )
        events = await self._events(database, "alerts")
        asked = [event for event in events if isinstance(event, NotificationRequested)]
        told = Counter(
            (one.client_id, one.about.window_start, one.about.limit_version, one.about.percent)
            for one in asked
            if isinstance(one.about, Crossed) and self._reader_of.get(one.client_id) == one.contact_id
        )
        found = [f"{key} was crossed {crossed[key]} times and asked to be told {told[key]} times" for key in crossed | told
                 if (crossed[key], told[key]) != (1, 1)]  # fmt: skip
        delivered = Counter(event.request_id for event in events if isinstance(event, NotificationDelivered))
        found += [f"{one.request_id} was delivered {delivered[one.request_id]} times: {one}" for one in asked
                  if delivered[one.request_id] != 1]  # fmt: skip
        found += [f"failed: {event}" for event in events if isinstance(event, NotificationFailed)]
        messages = {event.message_id for event in events if isinstance(event, NotificationDelivered)}
        came = Counter(str(mail["Message-ID"]).strip("<>").partition("@")[0] for mail in mails(Path(self._ready["inbox"])))
        found += [f"the message {one} is not in the inbox" for one in messages - came.keys()]
        found += [f"the mail {one} is of no message that was delivered" for one in came.keys() - messages]
        figures = {
            "crossings told": sum(told.values()),
            "mails that told them, and codes": len(messages),
            "mails that came twice (sent, then killed)": sum(times - 1 for times in came.values()),
        }
        return found[:TOLD_MAX], figures

    @staticmethod
    async def _events(database: Database, service: str) -> list[Any]:
        return [LOGS[service].decode(recorded) for recorded in await read_log(database, service)]


async def all_told(database: Database) -> str:
    """What was crossed and is not asked for, or asked for and not settled."""
    head = await database.fetchval("SELECT position FROM metering.log_head")
    read = await database.fetchval("SELECT max(sequence) FROM alerts.checkpoint WHERE stream = 'METERING'")
    if read != head:
        return f"METERING: log {head}, alerts {read}"
    waiting = await database.fetchval("SELECT count(*) FROM alerts.notification WHERE state = 'waiting'")
    return f"{waiting} notifications wait" if waiting else ""
