"""What those who answer have in common: the parts that are there once the service has started."""

from __future__ import annotations

from typing import NamedTuple

from services.review.facts import Forms
from shared.eventlog.log import EventLog
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.review import ReviewEvent
from shared.postgres import Pool


class Started(NamedTuple):
    """What there is once the service has started."""

    pool: Pool
    transactor: Transactor[ReviewEvent]
    log: EventLog[ReviewEvent]
    vault: Vault
    forms: Forms
