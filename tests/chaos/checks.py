"""What must be true when all is quiet again. Each check gives what differs, in words; nothing when it holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec
from nats.aio.client import Client

from shared.clock import SystemClock
from shared.eventlog.log import ChainBroken, EventLog, Recorded
from shared.events import alerts as alerts_events
from shared.events import console as console_events
from shared.events import metering as metering_events
from shared.events import registry as registry_events
from shared.events import review as review_events
from shared.streams.declare import stream_state
from shared.streams.jetstream import api, stored_message
from tests.chaos.command_load import App, Sent
from tests.chaos.ledger import Ledger

LOGS: Final[dict[str, EventLog[Any]]] = {
    "registry": EventLog(registry_events.CODEC, SystemClock()),
    "metering": EventLog(metering_events.CODEC, SystemClock()),
    "alerts": EventLog(alerts_events.CODEC, SystemClock()),
    "review": EventLog(review_events.CODEC, SystemClock()),
    "console": EventLog(console_events.CODEC, SystemClock()),
}
STREAMS: Final = {"registry": "REGISTRY", "metering": "METERING", "alerts": "ALERTS", "review": "REVIEW"}
"""The logs that are relayed. The console's is its own affair."""
DECIDES: Final = {"register": "AppRegistered", "edit": "AppEdited", "reissue": "SecretReissued", "delete": "AppDeleted"}
TOLD_MAX: Final = 10

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def chains(database: Database) -> tuple[list[str], dict[str, int]]:
    """Every chain verifies; and how many events each log has."""
    found, lengths = [], {}
    for service, log in LOGS.items():
        await database.execute(f"SET search_path = {service}")
        try:
            lengths[f"events of {service} verified"] = await log.verify(database)
        except ChainBroken as broken:
            found.append(f"the chain of {service}: {broken}")
    return found, lengths


async def read_log(database: Database, service: str) -> list[Recorded]:
    """The whole log."""
    await database.execute(f"SET search_path = {service}")
    return [event async for page in LOGS[service].pages(database) for event in page]


async def streams(database: Database, nc: Client) -> list[str]:
    """Message N of the stream is event N of the log: type, data and hash."""
    found = []
    for service, stream in STREAMS.items():
        log = await read_log(database, service)
        state = await stream_state(nc, stream)
        if state is None or (state.messages, state.last) != (len(log), len(log)):
            found.append(f"{stream} is {state}, the log of {service} has {len(log)} events")
            continue
        for event in log:
            answer = await api(nc, f"STREAM.MSG.GET.{stream}", {"seq": event.position})
            subject, _, headers, data = stored_message(answer)
            said = (subject, headers.get("ce-id"), headers.get("ce-hash"), data)
            if said != (f"{service}.events.{event.type}", f"{service}-{event.position}", event.hash.hex(), event.data):
                found.append(f"message {event.position} of {stream} is not the event: {subject} {data[:200]!r}")
    return found[:TOLD_MAX]


async def usage(database: Database, ledger: Ledger) -> list[str]:
    """What was counted is what was acknowledged: by application and service, in hours, days and months alike."""
    counted: dict[tuple[str, str, str], tuple[int, int]] = {}
    rows = "SELECT client_id, service, period, sum(calls)::bigint, sum(units)::bigint FROM metering.counter GROUP BY 1, 2, 3"
    for client_id, service, period, calls, units in await database.fetch(rows):
        counted[client_id, service, period] = (calls, units)
    found = []
    for client_id, service in sorted({*ledger.usage, *((client_id, service) for client_id, service, _ in counted)}):
        expected = ledger.usage[client_id, service]
        for period in "hdm":
            calls, units = counted.get((client_id, service, period), (0, 0))
            more = calls - expected.calls
            if not 0 <= more <= expected.maybe or units - expected.units != more:
                found.append(
                    f"{client_id} {service} by {period}: {calls} calls and {units} units counted, {expected.calls} and"
                    f" {expected.units} acknowledged, {expected.maybe} without an answer"
                )
    return found[:TOLD_MAX]


async def dead_letters(nc: Client) -> list[str]:
    """Nothing that was published here is bad."""
    state = await stream_state(nc, "DEADLETTER")
    if state is None or state.messages == 0:
        return []
    answer = await api(nc, "STREAM.MSG.GET.DEADLETTER", {"seq": state.first})
    _, _, headers, _ = stored_message(answer)
    return [f"{state.messages} dead letters, the first: {headers.get('tollbook-why')}: {headers.get('tollbook-reason')}"]


async def commands(database: Database, sent: Sequence[Sent], apps: Sequence[App]) -> list[str]:
    """Each accepted command is in the log once; one that was refused is not, an abandoned one at most once; and the tables
    say what the customers were told."""
    by_command: dict[str, list[str]] = defaultdict(list)
    for event in await read_log(database, "registry"):
        meta = msgspec.json.decode(event.meta)
        by_command[meta.get("command_id", "")].append(event.type)
    kept = {row[0] for row in await database.fetch("SELECT command_id FROM registry.command")}
    found = []
    for one in sent:
        times = by_command[one.key].count(DECIDES.get(one.kind, ""))
        everything = len(by_command[one.key])
        if one.outcome == "accepted" and (times != 1 or one.key not in kept):
            found.append(f"the accepted {one.kind} {one.key} is {times} times in the log ({by_command[one.key]})")
        elif one.outcome == "refused" and (everything or one.key in kept):
            found.append(f"the refused command {one.key} is in the log: {by_command[one.key]}")
        elif one.outcome == "abandoned" and times > 1:
            found.append(f"the abandoned {one.kind} {one.key} is {times} times in the log")
    ours = {one.key for one in sent}
    strangers = {key for key in by_command if key.startswith("chaos-")} - ours
    if strangers:
        found.append(f"commands in the log that nobody gave: {sorted(strangers)[:TOLD_MAX]}")
    names = {row[0]: row[1] for row in await database.fetch("SELECT client_id, name FROM registry.app")}
    for app in apps:
        if (app.client_id in names) == app.deleted or (app.name is not None and names.get(app.client_id, app.name) != app.name):
            found.append(f"{app.client_id} should be {app}, but the table says {names.get(app.client_id)}")
    return found[:TOLD_MAX]
