"""Publishers with the official CloudEvents SDK and with the JavaScript NATS client, as docs/how-to/report-usage.md shows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import DeliverPolicy

from tests.support.pages import Programs
from tests.support.stack import Customer, StackProcess

PAGE = "report-usage.md"
CORRECTING = "correct-usage.md"
WITHIN_S = 5.0
"""Usage shows within a second on a machine with nothing else to do."""
PUBLISHERS = [("python", "binary"), ("python", "structured"), ("js", "binary")]


class Publisher:
    """One of the page's programs, for one application."""

    def __init__(self, programs: Programs, stack: StackProcess, language: str, mode: str, client_id: str) -> None:
        self._programs, self._language = programs, language
        self._told = {
            "NATS_URL": stack.ready["nats_url"],
            "NATS_SEED_FILE": str(stack.home / "secrets" / "nats-publisher"),
            "CLIENT_ID": client_id,
            "MODE": mode,
            "USED_AT": (datetime.now(UTC) - timedelta(seconds=2)).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    async def publish(self, event_id: str, quantity: int, **changes: str) -> int:
        """The stream's sequence number of the event."""
        told = self._told | {"EVENT_ID": event_id, "QUANTITY": str(quantity)} | changes
        printed = await asyncio.to_thread(self._programs.run, PAGE, self._language, told)
        stream, sequence = printed.split()
        assert stream == "USAGE"
        return int(sequence)


@pytest.fixture
async def operator(stack: StackProcess) -> AsyncIterator[Client]:
    seed = (stack.home / "secrets" / "nats-operator").read_text().strip()
    client = await nats.connect(stack.ready["nats_url"], nkeys_seed_str=seed, inbox_prefix="_INBOX_operator")
    yield client
    await client.close()


async def dead_letter_of(operator: Client, sequence: int) -> dict[str, str]:
    """The headers of the dead letter that message `sequence` of USAGE became."""
    letters = await operator.jetstream().subscribe(
        "deadletter.usage", stream="DEADLETTER", ordered_consumer=True, deliver_policy=DeliverPolicy.ALL
    )
    try:
        while True:
            headers = (await letters.next_msg(timeout=WITHIN_S)).headers or {}
            if headers["tollbook-sequence"] == str(sequence):
                return headers
    finally:
        await letters.unsubscribe()


@pytest.mark.parametrize(("language", "mode"), PUBLISHERS)
async def test_what_strangers_publish_is_counted_once(
    language: str, mode: str, programs: Programs, stack: StackProcess, owner: Customer, operator: Client
) -> None:
    client_id, _ = await owner.register(f"Reported by {language}")
    publisher = Publisher(programs, stack, language, mode, client_id)
    event = f"job-{client_id}"
    first = await publisher.publish(event, 7)
    assert await publisher.publish(event, 7) > first, "it is stored again, and known by its source and id"
    await owner.wait_used(client_id, 7, WITHIN_S)
    await publisher.publish(f"{event}-zweite ✓" if language == "python" else f"{event}-2", 35)
    await owner.wait_used(client_id, 42, WITHIN_S)

    conflict = await publisher.publish(event, 8)
    letter = await dead_letter_of(operator, conflict)
    assert letter["tollbook-why"] == "conflict", letter
    unknown = await publisher.publish(f"{event}-3", 1, CLIENT_ID="nobodysapplication00")
    assert (await dead_letter_of(operator, unknown))["tollbook-why"] == "unknown_application"
    await owner.wait_used(client_id, 42, WITHIN_S)


async def test_the_same_event_in_both_modes_and_from_both_languages_is_one(
    programs: Programs, stack: StackProcess, owner: Customer
) -> None:
    client_id, _ = await owner.register("Reported by all")
    used_at = (datetime.now(UTC) - timedelta(seconds=2)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for language, mode in PUBLISHERS:
        publisher = Publisher(programs, stack, language, mode, client_id)
        await publisher.publish(f"one-{client_id}", 5, USED_AT=used_at)
    await owner.wait_used(client_id, 5, WITHIN_S)


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_what_a_stranger_takes_back_or_states_anew_counts_so_and_is_listed(
    mode: str, programs: Programs, stack: StackProcess, owner: Customer, operator: Client
) -> None:
    client_id, _ = await owner.register(f"Undone {mode}")
    publisher = Publisher(programs, stack, "python", mode, client_id)
    for event, quantity in [("one", 7), ("two", 5)]:
        await publisher.publish(f"{event}-{client_id}", quantity)
    await owner.wait_used(client_id, 12, WITHIN_S)

    async def correct(event: str, record: str, **quantity: str) -> int:
        told = {"EVENT_ID": f"{event}-{client_id}", "RECORD_ID": f"{record}-{client_id}", "MODE": mode, **quantity}
        told |= {"NATS_URL": stack.ready["nats_url"], "NATS_SEED_FILE": str(stack.home / "secrets" / "nats-publisher")}
        printed = await asyncio.to_thread(programs.run, CORRECTING, "python", told)
        return int(printed.split()[1])

    await correct("undo", "one")
    await correct("undo", "one")
    await owner.wait_used(client_id, 5, WITHIN_S)
    await correct("less", "two", QUANTITY="2")
    await owner.wait_used(client_id, 2, WITHIN_S)
    usage = (await owner.http.get(f"/v1/apps/{client_id}/usage", params={"service": "csr"})).json()
    assert (usage["corrected"], usage["calls"], usage["history"][-1]["corrected"]) == (-10, 1, -10)

    listed = (await owner.http.get(f"/v1/apps/{client_id}/corrections")).json()["corrections"]
    assert [(one["record_id"], one["old"], one["new"]) for one in listed] == [
        (f"two-{client_id}", 5, 2),
        (f"one-{client_id}", 7, None),
    ]
    assert "day" in listed[0]["counted_in"]
    assert await owner.http.get(f"/v1/apps/{client_id}/corrections", params={"limit": 1, "cursor": listed[0]["position"]})

    unknown = await correct("nothing", "three")
    assert (await dead_letter_of(operator, unknown))["tollbook-why"] == "unknown_record"
