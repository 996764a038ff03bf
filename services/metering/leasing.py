"""Quota leases put together: granting, the guard before it, the keeper after it."""

from __future__ import annotations

from collections.abc import Sequence

from services.metering.ends import Ends
from services.metering.granting import Granting, Started
from services.metering.grants import Terms
from services.metering.guard import Guard
from services.metering.keeper import Keeper
from services.metering.metrics import QuotaMetrics
from shared.clock import Clock
from shared.postgres import Pool
from shared.service import Service


class Leasing:
    """Answers LeaseQuota from when it is made, at first with Unavailable. `subjects`: USAGE's."""

    def __init__(
        self, service: Service, terms: Terms, subjects: Sequence[str], partitions: int, ends: Ends, clock: Clock
    ) -> None:
        self._service = service
        self._terms = terms
        self._subjects = subjects
        self._ends = ends
        self._clock = clock
        self._granting = Granting(terms, partitions, lambda: service.nc, clock)
        self._granting.subscribe(service.broker)

    def start(self, pool: Pool) -> Keeper:
        """Grant from now on. The keeper that comes back works while its part is held."""
        service, terms = self._service, self._terms
        metrics = QuotaMetrics(service.metrics)
        guard = Guard(pool, self._ends, self._subjects)
        keeper = Keeper(pool, self._ends, terms.lease_s, terms.margin_s, metrics, self._clock)
        service.background("quota guard", guard.run)
        service.background("quota keeper", keeper.run)
        service.readiness("quota guard", guard.readiness)
        service.readiness("quota keeper", keeper.readiness)
        self._granting.start(Started(pool, guard, metrics))
        return keeper
