"""Reading REGISTRY and ALERTS and counting USAGE again from their first messages: the proof that the rows hold nothing that they
do not."""

from __future__ import annotations

from typing import Final

import asyncpg
from nats.aio.client import Client

from services.metering.directory import REGISTRY_CONSUMER
from services.metering.following import ALERTS_CONSUMER, follow_registry, follow_rules
from services.metering.following import RULES as RULES_SOURCE
from services.metering.retention import Policy
from services.metering.streams import LETTERS_CONSUMER, USAGE_CONSUMER
from shared.commands.metering import SERVICE
from shared.errors import Conflict
from shared.events.alerts import STREAM as ALERTS
from shared.events.registry import STREAM as REGISTRY
from shared.events.usage import STREAM as USAGE
from shared.postgres import Connection
from shared.streams.checkpoints import Source
from shared.streams.declare import DEADLETTER, StreamState, stream_state
from shared.streams.jetstream import MESSAGE_NOT_FOUND, ApiError, api
from shared.streams.rereading import Facts, connected, end_of, has_changed, read_again

TIMEOUT_S: Final = 10.0


APPLICATIONS: Final = Facts(REGISTRY_CONSUMER, Source(REGISTRY), "TRUNCATE app, account", follow_registry)
# Not emptied by TRUNCATE: evaluators go on with what was asked for until all of it is read again.
RULES: Final = Facts(ALERTS_CONSUMER, RULES_SOURCE, "DELETE FROM rung_asked", follow_rules)

# Checkpoints first: that waits for the transactions that move one, and whoever comes later finds it gone, writes nothing and
# starts from the beginning. Leases last: workers that have nothing to do take them again, and so read the checkpoints again.
# Grants wait before they hold anything: they read and write what is locked after this, in another order.
_HOLD_GRANTS: Final = "SELECT pg_advisory_xact_lock(hashtextextended('tollbook quota ' || current_schema(), 0))"
_FORGET_CHECKPOINTS: Final = "DELETE FROM checkpoint WHERE consumer = $1"
# What the policy keeps by now is counted again, whatever it was when the rows were dropped.
_KEEP: Final = """
    UPDATE kept SET since = (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(
        months => CASE period WHEN 'h' THEN $1::int ELSE $2::int END)) AT TIME ZONE 'UTC'
"""
# A worker that remembers such a shelf would put on it what another leaves out.
_DROP_OLD: Final = """
    SELECT drop_shelf(kept.period, shelf.first) FROM kept, LATERAL (
        SELECT to_date(right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' AS first
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = ('counter_' || kept.period)::regclass) AS shelf
    WHERE shelf.first < kept.since
"""
# Leases stay, and so do the places of what came from them too late: what comes from a lease is counted again for it, too.
_FORGET_COUNTS: Final = """
    LOCK TABLE quota_lease IN EXCLUSIVE MODE;
    UPDATE quota_lease SET counted = 0;
    TRUNCATE counter, counted_event, correction, publisher_position, credential_use;
    UPDATE progress SET sequence = 0, recorded_at = NULL
"""
_FORGET_LETTERS: Final = "TRUNCATE dead_letter"
_FORGET_TOLD: Final = "UPDATE progress SET told = 0"
_FORGET_LEASES: Final = "UPDATE lease SET worker = NULL, expires_at = NULL"


async def count_again(owner_dsn: str, nats_url: str, nats_seed: str | None, policy: Policy) -> str:
    """Read the applications and the rules again and forget all counts, in one transaction; what was done, in words. Workers may
    run.

    Hours and days that the policy keeps no longer are not counted again; months are.

    Dead letters are not published a second time, unless the stream REGISTRY has another history now: then others may be bad.
    Raises Conflict when USAGE does not begin with its first message any more. If REGISTRY or ALERTS has another history, these
    are read again even so, and the counts stay.
    """
    async with connected(SERVICE, nats_url, nats_seed) as nc:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=TIMEOUT_S)
        try:
            await connection.execute(f"SET search_path = {SERVICE}; SET lock_timeout = '60s'")
            async with connection.transaction():
                return await _rebuild(connection, nc, policy)
        finally:
            await connection.close(timeout=TIMEOUT_S)


async def _rebuild(connection: Connection, nc: Client, policy: Policy) -> str:
    usage = await stream_state(nc, USAGE)
    changed = await has_changed(connection, nc, APPLICATIONS.consumer, APPLICATIONS.source)
    whole = usage is not None and usage.whole and usage.first <= 1
    if not whole and not changed and not await has_changed(connection, nc, RULES.consumer, RULES.source):
        raise _cannot_count(usage)
    if whole:
        await connection.execute(_FORGET_CHECKPOINTS, USAGE_CONSUMER)
    await connection.execute(_HOLD_GRANTS)
    events = await read_again(connection, nc, APPLICATIONS, await end_of(nc, REGISTRY, "the registry"))
    rules = await _read_rules(connection, nc)
    if whole:
        await connection.execute(_FORGET_COUNTS)
        await connection.execute(_KEEP, policy.hours, policy.days)
        await connection.execute(_DROP_OLD)
    if changed:
        await connection.execute(_FORGET_TOLD)
    await _forget_letters(connection, nc)
    await connection.execute(_FORGET_LEASES)
    read = f"the applications were read again from {events} events, the rules of alerts from {rules}"
    if usage is None or not whole:
        return f"{read}; the counts stay, for USAGE has lost its beginning"
    return (
        f"{read}; every count is forgotten, and workers, as soon as they run, count the {usage.messages} messages of USAGE again"
    )


async def _forget_letters(connection: Connection, nc: Client) -> None:
    """Have the dead letters listed again, if the stream has all of them. What was decided about them is in the log."""
    state = await stream_state(nc, DEADLETTER)
    if state is not None and state.whole and state.first <= 1:
        await connection.execute(_FORGET_CHECKPOINTS, LETTERS_CONSUMER)
        await connection.execute(_FORGET_LETTERS)


async def _read_rules(connection: Connection, nc: Client) -> int:
    """What customers ask to be told of as ALERTS has it now; from how many events. What was read stays while there is no such
    stream: alerts is not deployed, or has still to write it again. Raises Conflict."""
    if await stream_state(nc, ALERTS) is None:
        return 0
    await end_of(nc, ALERTS, "alerts")
    return await read_again(connection, nc, RULES, await _last_rule(nc))


async def _last_rule(nc: Client) -> int:
    """Where the newest rule is in ALERTS; 0: there is none."""
    try:
        answer = await api(nc, f"STREAM.MSG.GET.{ALERTS}", {"last_by_subj": RULES.source.subject})
    except ApiError as error:
        if error.err_code == MESSAGE_NOT_FOUND:
            return 0
        raise
    return int(answer["message"]["seq"])


def _cannot_count(usage: StreamState | None) -> Conflict:
    if usage is None:
        return Conflict("There is no stream USAGE: every count would be lost. Restore the stream first.")
    return Conflict(
        f"USAGE begins at message {usage.first}: what was counted before that could not be counted again and would be lost."
        " Restore the whole stream first."
    )
