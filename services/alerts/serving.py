"""What those who answer have in common: the parts that are there once the service has started."""

from __future__ import annotations

from typing import Final, NamedTuple

from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.alerts import AlertsEvent
from shared.postgres import Pool

REGISTRY_CONSUMER: Final = "alerts-registry"
METERING_CONSUMER: Final = "alerts-metering"
REVIEW_CONSUMER: Final = "alerts-review"
"""Under which names the checkpoints are kept."""


class Started(NamedTuple):
    """What there is once the service has started."""

    pool: Pool
    transactor: Transactor[AlertsEvent]
    vault: Vault
