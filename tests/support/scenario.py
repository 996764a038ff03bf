"""given / when / then: a rule of a domain, as a test that reads like the rule.

scenario = Scenario(None, evolve_app)
scenario.given(registered).when(lambda app: delete_app(app, command)).then(AppDeleted(...))
scenario.given().when(lambda app: delete_app(app, command)).refused(NotFound)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pytest

from shared.errors import TollbookError
from shared.eventlog.decision import Decision

S = TypeVar("S")


class Outcome(Generic[S]):
    """What a decision came to."""

    def __init__(self, decide: Callable[[], Decision[Any, Any]]) -> None:
        self._decide = decide

    def then(self, *events: Any) -> Decision[Any, Any]:
        """It gave exactly these events; returns the decision, for a look at its reply, seal and shred."""
        decision = self._decide()
        assert list(decision.events) == list(events)
        return decision

    def then_nothing(self) -> Decision[Any, Any]:
        """It was already so: no event."""
        return self.then()

    def refused(self, error: type[TollbookError], *, says: str = "", fields: tuple[str, ...] = ()) -> TollbookError:
        """It was refused with exactly this class; `says` is in its detail, `fields` are the fields it names, in order."""
        with pytest.raises(error) as refusal:
            self._decide()
        assert type(refusal.value) is error
        assert says in refusal.value.detail
        if fields:
            assert tuple(problem.field for problem in refusal.value.fields) == fields
        return refusal.value


class Given(Generic[S]):
    """A state, made by past events."""

    def __init__(self, state: S) -> None:
        self.state = state

    def when(self, decide: Callable[[S], Decision[Any, Any]]) -> Outcome[S]:
        """What `decide` makes of the state."""
        return Outcome(lambda: decide(self.state))


class Scenario(Generic[S]):
    """One aggregate: its state before any event, and its `evolve`."""

    def __init__(self, initial: S, evolve: Callable[[S, Any], S]) -> None:
        self._initial = initial
        self._evolve = evolve

    def given(self, *events: Any) -> Given[S]:
        """The state after these events."""
        state = self._initial
        for event in events:
            state = self._evolve(state, event)
        return Given(state)
