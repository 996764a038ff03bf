"""What a message of a followed stream does to what the gate knows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.gate.domain import Apps
from services.gate.reactions import Followed, Unreadable, react
from shared.events.registry import CODEC, AppDeleted, AppRegistered, Environments, RegistryEvent, SecretIssued, SelectedService
from shared.streams.message import Message

ID = "k" * 20
REGISTERED = AppRegistered(
    account="acme",
    client_id=ID,
    name="app",
    services=(SelectedService("csr"),),
    environments=Environments(),
    secret=SecretIssued("s", "0" * 64),
)
DELETED = AppDeleted(account="acme", client_id=ID)


def message(sequence: int, event: RegistryEvent, ce_type: str | None = None, data: bytes | None = None) -> Message:
    name = type(event).__name__
    headers = {"ce-type": CODEC.ce_type(name, 1) if ce_type is None else ce_type}
    body = CODEC.encode(event) if data is None else data
    return Message("REGISTRY", f"registry.events.{name}", sequence, headers, body, datetime(2026, 3, 1, tzinfo=UTC))


def registry(apps: Apps, *subjects: str) -> Followed:
    return Followed("REGISTRY", CODEC, apps.apply, subjects)


def test_messages_are_applied_in_order() -> None:
    apps = Apps()
    assert react(registry(apps), message(1, REGISTERED), 0) == 1
    assert len(apps) == 1
    assert react(registry(apps), message(2, DELETED), 1) == 2
    assert len(apps) == 0


def test_a_message_that_was_applied_before_changes_nothing() -> None:
    apps = Apps()
    assert react(registry(apps), message(1, REGISTERED), 2) == 2
    assert len(apps) == 0


@pytest.mark.parametrize(
    "unreadable",
    [
        message(3, REGISTERED),
        message(1, DELETED),
        message(1, REGISTERED, ce_type=""),
        message(1, REGISTERED, ce_type="tollbook.registry.AppForgotten.v1"),
        message(1, REGISTERED, ce_type="tollbook.registry.AppRegistered.v2"),
        message(1, REGISTERED, ce_type="tollbook.metering.AppRegistered.v1"),
        message(1, REGISTERED, data=b""),
        message(1, REGISTERED, data=b"\xff"),
        message(1, REGISTERED, data=b'{"account": 1}'),
        message(1, REGISTERED, data=b"[]"),
    ],
)
def test_what_cannot_be_applied_is_said_with_its_place(unreadable: Message) -> None:
    apps = Apps()
    with pytest.raises(Unreadable, match=f"message {unreadable.sequence} of REGISTRY"):
        react(registry(apps), unreadable, 0)
    assert len(apps) == 0


def test_where_only_some_subjects_are_read_there_are_gaps() -> None:
    apps = Apps()
    followed = registry(apps, "registry.events.AppRegistered", "registry.events.AppDeleted")
    assert react(followed, message(3, REGISTERED), 0) == 3
    assert react(followed, message(3, REGISTERED), 3) == 3
    assert react(followed, message(9, DELETED), 3) == 9
    assert len(apps) == 0
