"""What each NATS user may publish and subscribe to, as data: the least that its work needs. The server refuses anything else.

Only `registry` may publish to registry.events, only `metering` may write the usage projection, and so on: that the events in a
stream are the owner's own is held by these lists, not by good manners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Permissions:
    """Allow lists of subjects. `responds`: may answer, once, whoever sent it a request."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responds: bool = False


def reads(stream: str) -> tuple[str, ...]:
    """Consume the stream with consumers of one's own, and look at its messages and its state."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.INFO.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    )


def owns(stream: str) -> tuple[str, ...]:
    """Declare the stream, change it, and empty it, besides reading it."""
    return (
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.UPDATE.{stream}",
        f"$JS.API.STREAM.PURGE.{stream}",
        f"$JS.API.STREAM.DELETE.{stream}",
        *reads(stream),
    )


def looks_at(stream: str) -> tuple[str, ...]:
    """The stream's state and single messages, no consumers."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    )


def inbox(user: str) -> str:
    """Where the user gets its replies. Nobody else's."""
    return f"_INBOX_{user}.>"


FOLLOWED: Final = ("REGISTRY", "METERING", "ALERTS", "REVIEW", "USAGE")
"""The streams of decided and measured facts that a service of somebody else's may follow."""
ACCOUNT_INFO: Final = "$JS.API.INFO"

PERMISSIONS: Final[dict[str, Permissions]] = {
    "registry": Permissions(
        publish=("registry.events.>", "$KV.apps.>", ACCOUNT_INFO, *owns("REGISTRY"), *owns("KV_apps"), *reads("REVIEW")),
        subscribe=("registry.commands.>", "registry.queries.>", inbox("registry")),
        responds=True,
    ),
    "metering": Permissions(
        publish=(
            "metering.events.>",
            "metering.recall",
            "$KV.usage.>",
            "$KV.limits.>",
            "deadletter.usage",
            "usage.records.*",  # dead letters that are retried, and markers of where partitions end
            "usage.cloudevents",
            ACCOUNT_INFO,
            *owns("USAGE"),
            *owns("DEADLETTER"),
            *owns("METERING"),
            *owns("KV_usage"),
            *owns("KV_limits"),
            *reads("REGISTRY"),
            *reads("ALERTS"),
        ),
        subscribe=("metering.commands.>", "metering.queries.>", inbox("metering")),
        responds=True,
    ),
    "alerts": Permissions(
        publish=(
            "alerts.events.>",
            "$KV.notifications.>",
            ACCOUNT_INFO,
            *owns("ALERTS"),
            *owns("KV_notifications"),
            *reads("METERING"),
            *reads("REGISTRY"),
            *reads("REVIEW"),
        ),
        subscribe=("alerts.commands.>", "alerts.queries.>", inbox("alerts")),
        responds=True,
    ),
    "review": Permissions(
        publish=(
            "review.events.>",
            "$KV.reviews.>",
            "metering.queries.GetFirstCall",
            ACCOUNT_INFO,
            *owns("REVIEW"),
            *owns("KV_reviews"),
            *reads("REGISTRY"),
        ),
        subscribe=("review.commands.>", "review.queries.>", inbox("review")),
        responds=True,
    ),
    "gate": Permissions(
        publish=(
            "usage.records.>",
            "metering.commands.LeaseQuota",
            ACCOUNT_INFO,
            *reads("REGISTRY"),
            *reads("METERING"),
            *looks_at("USAGE"),
        ),
        subscribe=("metering.recall", inbox("gate")),
    ),
    "console": Permissions(
        publish=(
            "*.commands.>",
            "*.queries.>",
            "dashboards.api.STREAM.>",
            ACCOUNT_INFO,
            *reads("KV_apps"),
            *reads("KV_usage"),
            *reads("KV_limits"),
            *reads("KV_notifications"),
            *reads("KV_reviews"),
        ),
        subscribe=("$SYS.REQ.USER.AUTH", inbox("console")),
        responds=True,
    ),
    "publisher": Permissions(
        publish=("usage.records.>", "usage.cloudevents"),
        subscribe=(inbox("publisher"),),
    ),
    "follower": Permissions(
        publish=tuple(subject for stream in FOLLOWED for subject in reads(stream)),
        subscribe=(inbox("follower"),),
    ),
    "operator": Permissions(publish=(">",), subscribe=(">",), responds=True),
}
"""By user. `publisher` is for other sources of usage than the gate; `follower` for services of the house's own that follow what
happens: it can change nothing, but has the server deliver to where its consumers say, so its key is not for strangers;
`operator` for people with the keys of the house."""
