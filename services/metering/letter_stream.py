"""Reading single messages of the stream DEADLETTER, which has the bytes."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from nats.aio.client import Client

from shared.errors import Unavailable
from shared.streams.declare import DEADLETTER
from shared.streams.jetstream import MESSAGE_NOT_FOUND, STREAM_NOT_FOUND, ApiError, api, stored_message
from shared.streams.message import Message

LOST: Final = "the stream DEADLETTER has lost it"


async def fetch_letter(nc: Client, sequence: int) -> Message | None:
    """The dead letter; None if the stream does not have it any more. Raises Unavailable."""
    try:
        answer = await api(nc, f"STREAM.MSG.GET.{DEADLETTER}", {"seq": sequence})
    except ApiError as error:
        if error.err_code in (MESSAGE_NOT_FOUND, STREAM_NOT_FOUND):
            return None
        raise Unavailable(str(error)) from error
    subject, found, headers, data = stored_message(answer)
    return Message(DEADLETTER, subject, found, headers, data, datetime.fromisoformat(answer["message"]["time"]))
