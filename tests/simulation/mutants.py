"""Rules of leases and counting, each broken on purpose: what the simulation is worth is how soon it finds them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pytest

from services.gate import leases
from services.gate.leases import Held, Leases
from services.metering import grants, quota
from services.metering.domain import Tally
from services.metering.lapses import Lapses
from services.metering.quota import LEASE_S, MARGIN_S
from shared.commands.quota import Answer, Leased, Returned, Wish
from tests.simulation import database, metering
from tests.simulation.database import Database
from tests.simulation.scenes import Kind

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """`make` breaks one rule until the patch is undone; runs of `kind` find it."""

    kind: Kind
    make: Callable[[Patch], None]


def gate_without_margin(patch: Patch) -> None:
    """The gate spends a lease up to its end."""
    patch.setattr(leases, "may_spend", lambda now_s, asked_s, lease_s, _margin_s: now_s < asked_s + lease_s)


def metering_without_margin(patch: Patch) -> None:
    """Metering looks the end up as soon as its own timer shows the lease's length."""
    patch.setattr(quota, "may_look_for_end", lambda held_s: held_s >= LEASE_S)


def taking_back_too_early(patch: Patch) -> None:
    """Metering takes a lease for over at half its time."""
    patch.setattr(quota, "may_look_for_end", lambda held_s: held_s >= (LEASE_S + MARGIN_S) / 2)


def leases_never_end(patch: Patch) -> None:
    """What a dead gate has not spent stays set aside."""
    patch.setattr(quota, "may_look_for_end", lambda _held_s: False)


def not_waiting_for_the_checkpoint(patch: Patch) -> None:
    """A lease is closed though what came from it is not counted yet."""
    patch.setattr(quota, "may_close", lambda end, _reached: end is not None)


def ends_are_looked_up_instead_of_marked(patch: Patch) -> None:
    """Where a partition ends is what whoever leads the stream says, though another may lead it by now."""
    patch.setattr(metering.Worker, "find_end", lambda self, subject, found: found(self.newest(subject)))


def outstanding_not_counted(patch: Patch) -> None:
    """A grant looks at the counters only."""
    patch.setattr(quota, "outstanding", lambda _units, _counted, _stated: 0)


def a_return_frees_all(patch: Patch) -> None:
    """What a returned lease has spent and is not counted yet is given to others."""
    patch.setattr(quota, "outstanding", lambda units, counted, stated: 0 if stated is not None else max(0, units - counted))


def no_look_at_the_acknowledgement(patch: Patch) -> None:
    """A call passes because its lease was good when the units were taken."""
    patch.setattr(Leases, "still_good", lambda _self, _lease, _now_s: True)


def a_lease_outlives_its_day(patch: Patch) -> None:
    """The units of one day are spent in the next."""
    patch.setattr(Held, "covers", lambda self, now_s, _now_us: self.alive(now_s + leases.ACK_S))


def an_extension_does_not_restart_the_timer(patch: Patch) -> None:
    """Metering counts a lease's time from the grant, though it was extended."""
    patch.setattr(metering, "begins_anew", lambda _extensions, seen: seen == -1)


def an_end_is_noted_though_the_lease_was_extended(patch: Patch) -> None:
    """A keeper that was held up closes a lease which was extended meanwhile."""
    patch.setattr(database, "may_end", lambda _row, _extensions: True)


def the_gate_counts_from_the_answer(patch: Patch) -> None:
    """The gate's timer begins when the answer comes, not before it asked."""
    true = Leases.answered

    def answered(self: Leases, wish: Wish, answer: Answer, _asked_s: float, now_s: float) -> None:
        true(self, wish, answer, now_s, now_s)

    patch.setattr(Leases, "answered", answered)


def a_given_up_lease_comes_back(patch: Patch) -> None:
    """The answer to an extension is taken for a new lease, after the lease was given up."""
    true = Leases._leased

    def leased(self: Leases, demand: Any, wish: Wish, answer: Leased, asked_s: float, now_s: float) -> None:
        held = None if demand is None else demand.held
        if held is None or held.lease != answer.lease:
            self._known.pop(answer.lease, None)
            self._ended = deque(one for one in self._ended if one.lease != answer.lease)
            wish = msgspec.structs.replace(wish, lease="")
        true(self, demand, wish, answer, asked_s, now_s)

    patch.setattr(Leases, "_leased", leased)


def a_forgotten_lease_comes_back(patch: Patch) -> None:
    """So too, but only when the lease is over and forgotten by then."""
    true = Leases._leased

    def leased(self: Leases, demand: Any, wish: Wish, answer: Leased, asked_s: float, now_s: float) -> None:
        true(self, demand, msgspec.structs.replace(wish, lease=""), answer, asked_s, now_s)

    patch.setattr(Leases, "_leased", leased)


def who_waits_is_forgotten(patch: Patch) -> None:
    """Calls that wait do not keep their application from being forgotten, and then nobody asks for it."""
    true = Leases.wishes

    def wishes(self: Leases, waiting: Mapping[leases.Key, leases.Waiting], now_s: float, now_us: int) -> list[Wish]:
        known = {key: (self._demands[key], self._demands[key].seen_s) for key in waiting if key in self._demands}
        found = true(self, {key: waiting[key] for key in known}, now_s, now_us)
        for demand, seen_s in known.values():
            demand.seen_s = seen_s
        return found

    patch.setattr(Leases, "wishes", wishes)


def a_return_says_too_little(patch: Patch) -> None:
    """What is spent and not acknowledged yet is left out of a return."""
    patch.setattr(
        Leases, "returns", lambda self: [Returned(one.lease, max(0, one.spent - 1)) for one in self._returning.values()]
    )


def lapsed_records_count(patch: Patch) -> None:
    """What comes from a lease after it was closed is counted."""
    patch.setattr(Lapses, "of", lambda _self, _item: ())


def voids_are_passed_over(patch: Patch) -> None:
    """Records that are taken back one by one stay counted."""
    patch.setattr(Tally, "_take_back", lambda _self, _item, _places, _recorded_us: None)


def positions_are_forgotten(patch: Patch) -> None:
    """A batch that comes twice is counted twice."""
    true = Database._tally

    def tally(self: Database, messages: Any, lapses: Any, _known: Any, events: Any) -> Any:
        return true(self, messages, lapses, {}, events)

    patch.setattr(Database, "_tally", tally)


def the_account_is_passed_over(patch: Patch) -> None:
    """A grant looks at the application's own limits only."""
    true = grants.Book._constraints
    patch.setattr(grants.Book, "_constraints", lambda *args: [one for one in true(*args) if one.client_id])


def the_month_is_passed_over(patch: Patch) -> None:
    """A grant looks at the limits of the day only."""
    true = grants.Book._constraints
    patch.setattr(grants.Book, "_constraints", lambda *args: [one for one in true(*args) if one.period == "daily"])


_FOUND_BY: Final[tuple[tuple[Kind, Callable[[Patch], None]], ...]] = (
    ("last moments", gate_without_margin),
    ("last moments", metering_without_margin),
    ("last moments", taking_back_too_early),
    ("stalled", leases_never_end),
    ("stalled", not_waiting_for_the_checkpoint),
    ("old leader", ends_are_looked_up_instead_of_marked),
    ("scarce", outstanding_not_counted),
    ("scarce", a_return_frees_all),
    ("last moments", no_look_at_the_acknowledgement),
    ("steady", a_lease_outlives_its_day),
    ("steady", an_extension_does_not_restart_the_timer),
    ("late extension", an_end_is_noted_though_the_lease_was_extended),
    ("late extension", the_gate_counts_from_the_answer),
    ("scarce", a_given_up_lease_comes_back),
    ("stopped", a_forgotten_lease_comes_back),
    ("anything", who_waits_is_forgotten),
    ("scarce", a_return_says_too_little),
    ("last moments", lapsed_records_count),
    ("last moments", voids_are_passed_over),
    ("anything", positions_are_forgotten),
    ("scarce", the_account_is_passed_over),
    ("scarce", the_month_is_passed_over),
)
MUTANTS: Final[Mapping[str, Mutant]] = {make.__name__: Mutant(kind, make) for kind, make in _FOUND_BY}
