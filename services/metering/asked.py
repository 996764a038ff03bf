"""At which percentages customers ask to be told, as alerts decided it, as rows of metering's own. Pure.

They come on top of a limit's own rungs. What is told is decided as for those (`thresholds.to_tell`): never twice, and nothing
below what was told already. So a rule that is set late tells what is still above that, from the next unit on that is counted.
"""

from __future__ import annotations

from typing import Final

from shared.eventlog.changes import Change
from shared.events.alerts import CODEC, SUBJECTS, NotificationRuleChanged, rungs_of
from shared.streams import facts
from shared.streams.message import Message

SUBJECT: Final = SUBJECTS.replace(">", NotificationRuleChanged.__name__)
"""The only events of ALERTS that metering reads."""

_ASK: Final = """
    INSERT INTO rung_asked (account, client_id, service, daily, monthly, position)
    SELECT account, client_id, service, daily::int[], monthly::int[], position
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
        AS n(account, client_id, service, daily, monthly, position)
    ON CONFLICT (account, client_id, service) DO UPDATE
    SET daily = excluded.daily, monthly = excluded.monthly, position = excluded.position
"""


def decode(message: Message) -> NotificationRuleChanged:
    """The event of a message under SUBJECT. Raises Unreadable."""
    event, _ = facts.decode(CODEC, message)
    if not isinstance(event, NotificationRuleChanged):
        raise facts.Unreadable(f"{type(event).__name__} does not belong under {message.subject}")
    return event


def ask(event: NotificationRuleChanged, position: int) -> list[Change]:
    """The row that changes with event number `position` of alerts' log: the newest rule of a scope is the one that counts."""
    daily = _ints(rungs_of(event.daily, event.daily_custom))
    monthly = _ints(rungs_of(event.monthly, event.monthly_custom))
    row = (event.account, event.client_id, event.service, daily, monthly, position)
    return [Change(_ASK, row, "/".join(row[:3]))]


def _ints(numbers: tuple[int, ...]) -> str:
    """As the text of an array, because an array of arrays would be taken apart."""
    return "{" + ",".join(map(str, numbers)) + "}"
