"""The states of an application for a service app, and who may do what in each: one table, which the README shows. Pure.

What the table does not have is refused with Conflict (refusals.py). Besides, nobody decides about an application of the
own account, nobody approves the same revision twice, and another account's application is not there at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal, get_args

from shared.commands.review import State

Act = Literal["edit", "submit", "withdraw", "amend", "claim", "release", "decide", "request_changes", "suspend", "lift"]
"""`edit` of what is not a draft begins a new revision, which is one."""

Who = Literal["applicant", "reviewer", "claimer", "successor"]
"""`claimer`: the reviewer who has claimed it; `successor`: any reviewer once that claim has lapsed."""

STATES: Final[tuple[State, ...]] = get_args(State)
ACTS: Final[tuple[Act, ...]] = get_args(Act)

OPEN: Final[frozenset[State]] = frozenset({"draft", "submitted", "in_review", "changes_requested"})
"""States from which a decision is still to come. Of one service app, one application at most is in one of these."""
LIVE: Final[frozenset[State]] = frozenset({"approved", "suspended"})
"""States of the one application that stands. While it is suspended, its calls are refused."""
WAITING: Final[frozenset[State]] = frozenset({"submitted", "in_review"})
"""States in which a reviewer is to decide: only in these does the due time count."""

MAY: Final[Mapping[State, Mapping[Act, Who]]] = {
    "draft": {"edit": "applicant", "submit": "applicant"},
    "submitted": {"withdraw": "applicant", "claim": "reviewer"},
    "in_review": {
        "withdraw": "applicant",
        "claim": "successor",
        "release": "claimer",
        "decide": "claimer",
        "request_changes": "claimer",
    },
    "changes_requested": {"edit": "applicant", "withdraw": "applicant"},
    "approved": {"amend": "applicant", "suspend": "reviewer"},
    "suspended": {"lift": "reviewer"},
    "rejected": {"edit": "applicant"},
    "withdrawn": {"edit": "applicant"},
    "superseded": {},
    "retired": {},
}

_COLUMNS: Final[Mapping[Who, str]] = {
    "applicant": "The applicant",
    "reviewer": "Any reviewer",
    "claimer": "The reviewer who has claimed it",
    "successor": "Any reviewer, once the claim has lapsed",
}


def may(state: State, roles: Collection[Who]) -> tuple[Act, ...]:
    """What somebody who is all of these may do in that state, by the table."""
    return tuple(act for act, who in MAY[state].items() if who in roles)


def table() -> str:
    """The table as Markdown, for the README."""
    lines = [f"| State | {' | '.join(_COLUMNS.values())} |", f"|---{'|---' * len(_COLUMNS)}|"]
    for state in STATES:
        cells = (", ".join(act.replace("_", " ") for act in may(state, {who})) for who in _COLUMNS)
        lines.append(f"| `{state}` | {' | '.join(cell or '-' for cell in cells)} |")
    return "\n".join(lines)
