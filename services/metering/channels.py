"""What AsyncAPI shows of metering beside its commands and queries: its events, the subjects that it reads, quota leases, and dead
letters."""

from __future__ import annotations

import inspect

from services.metering import asked, deadletters
from shared.asyncapi import ChannelDoc, MessageDoc, event_docs
from shared.commands import quota
from shared.commands.quota import LeaseQuota, Recall
from shared.events.alerts import CODEC as ALERTS
from shared.events.alerts import NotificationRuleChanged
from shared.events.metering import CODEC as METERING
from shared.events.registry import CODEC as REGISTRY
from shared.events.registry import SUBJECTS as REGISTRY_SUBJECTS
from shared.events.usage import CLOUDEVENTS_SUBJECT, CODEC, JSON, MSGPACK, RECORDS_SUBJECT, UsageBatch

_LETTER = {
    "tollbook-why": "The reason, for programs",
    "tollbook-reason": "The reason, for people",
    "tollbook-stream": "Where the original is",
    "tollbook-sequence": "Its sequence there",
    "tollbook-subject": "Its subject",
    "tollbook-sender": "Whose it is: a batch's publisher, an event's source",
    "tollbook-recorded-at": "When the stream took it",
    "tollbook-record": "Which record of a batch, from 0; absent: the whole message",
    "tollbook-records": "How many records this letter is about",
    "tollbook-left-out": "What did not fit",
}


def _json(body: type) -> MessageDoc:
    return MessageDoc(body.__name__, body, inspect.getdoc(body) or "")


def channels() -> list[ChannelDoc]:
    """METERING, USAGE in its three forms, the registry's events, the rules of alerts, quota leases, and DEADLETTER."""
    text = inspect.getdoc(UsageBatch) or ""
    batches = tuple(
        MessageDoc(name, UsageBatch, text, media, {"Content-Type": f"Says the encoding: {media}"}, ("Content-Type",))
        for name, media in (("UsageBatchMsgpack", MSGPACK), ("UsageBatchJson", JSON))
    )
    letter = MessageDoc(
        "DeadLetter", None, "The original's bytes; its own headers are there as tollbook-original-<name>.",
        "application/octet-stream", _LETTER, ("tollbook-why", "tollbook-reason", "tollbook-stream", "tollbook-sequence"),
    )  # fmt: skip
    rules = tuple(message for message in event_docs(ALERTS) if message.name == NotificationRuleChanged.__name__)
    events = [
        ChannelDoc(
            message.name,
            f"metering.events.{message.name}",
            "send",
            (message,),
            "In the stream METERING, where message N is event N of the log.",
        )
        for message in event_docs(METERING)
    ]
    return [
        *events,
        ChannelDoc(
            "UsageBatches",
            f"{RECORDS_SUBJECT}.{{partition}}",
            "receive",
            batches,
            "Many calls as one message, from the gates and other publishers that count a lot. Stream USAGE.",
            {"partition": "FNV-1a of the publisher modulo TOLLBOOK_PARTITIONS"},
        ),
        ChannelDoc(
            "UsageEvents",
            CLOUDEVENTS_SUBJECT,
            "receive",
            event_docs(CODEC),
            "One call, or its correction, as a CloudEvent in NATS binary mode (as shown), or structured.",
        ),
        ChannelDoc("RegistryEvents", REGISTRY_SUBJECTS, "receive", event_docs(REGISTRY), "Whose applications there are."),
        ChannelDoc("NotificationRules", asked.SUBJECT, "receive", rules, "At which percentages to tell, besides a limit's own."),
        ChannelDoc(
            "LeaseQuota", quota.SUBJECT, "receive", (_json(LeaseQuota),), "Units set aside for a gate. Reply: QuotaLeases."
        ),
        ChannelDoc("Recalls", quota.RECALL_SUBJECT, "send", (_json(Recall),), "Core NATS: return what you have not spent."),
        ChannelDoc("DeadLetters", deadletters.SUBJECT, "send", (letter,), "What did not count, and why. Stream DEADLETTER."),
    ]
