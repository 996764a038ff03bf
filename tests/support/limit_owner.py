"""Somebody who sets limits, and hears what METERING tells of them."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from nats.aio.client import Client

from shared.commands.base import Reply
from shared.commands.limits import LimitsView, SetLimits
from shared.commands.requester import ask
from shared.ids import new_id

A = "a" * 20
R = TypeVar("R", bound=Reply)


class Owner:
    """Somebody of the account `acme` who asks metering."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc

    async def ask(self, message: type[Any], reply: type[R], **fields: Any) -> R:
        if "command_id" in message.model_fields:
            fields = {"command_id": new_id(), "actor": "token:t1", **fields}
        return await ask(self.nc, "metering", message(**{"account": "acme", "service": "csr", **fields}), reply, timeout_s=20)

    async def set(self, client_id: str = A, **fields: Any) -> LimitsView:
        return await self.ask(SetLimits, LimitsView, client_id=client_id, **fields)

    async def told(self) -> list[tuple[str, int, int]]:
        """(client_id, version, percent) of each crossing in the stream METERING, in order."""
        found = []
        for subject, data in await self.stream():
            if subject == "metering.events.ThresholdCrossed":
                found.append((data["client_id"], data["limit_version"], data["percent"]))
        return found

    async def stream(self) -> list[tuple[str, dict[str, Any]]]:
        """Subject and data of every message of METERING."""
        js = self.nc.jetstream()
        last = (await js.stream_info("METERING")).state.last_seq
        messages = [await js.get_msg("METERING", sequence) for sequence in range(1, last + 1)]
        return [(str(message.subject), json.loads(message.data or b"")) for message in messages]
