"""Tuned tasks: tasks of a model that an account has tuned and can choose in its applications. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from services.review.models import Models
from shared.commands.review import (
    TUNED_TASKS_MAX,
    RemoveTunedTask,
    SaveTunedTask,
    TunedTask,
    TunedTaskRemovedReply,
)
from shared.errors import Conflict, FieldProblem, InvalidInput, NotFound
from shared.eventlog.decision import Decision
from shared.events.review import ReviewEvent, TunedTaskRemoved, TunedTaskSaved


class Saved(msgspec.Struct, frozen=True):
    """A tuned task, which may have been removed since."""

    account: str
    task_id: str
    removed: bool = False


class TunedFacts(NamedTuple):
    """The time, and the names of the account's tuned tasks by id."""

    now: datetime
    names: Mapping[str, str]


def tuned_task_stream(task_id: str) -> str:
    """The stream of a tuned task."""
    return f"tuned-task/{task_id}"


def evolve(state: Saved | None, event: ReviewEvent) -> Saved | None:
    """The tuned task after one more event of its stream."""
    match event:
        case TunedTaskSaved():
            return Saved(event.account, event.task_id)
        case TunedTaskRemoved():
            return Saved(event.account, event.task_id, removed=True)
        case _:  # of other streams
            return state


def save_tuned_task(
    state: Saved | None, facts: TunedFacts, command: SaveTunedTask, models: Models, task_id: str
) -> Decision[ReviewEvent, TunedTask]:
    """Keep it. `task_id` is freshly made: "tuned-" and 32 hexadecimal digits."""
    if state is not None:
        raise Conflict("A tuned task with this new id exists already. Ask again.")
    if len(facts.names) >= TUNED_TASKS_MAX:
        raise Conflict(
            f"The account has {len(facts.names)} tuned tasks; at most {TUNED_TASKS_MAX} are possible. Remove one first."
        )
    problems = _problems(command, models)
    if problems:
        raise InvalidInput("A tuned task is of a model and of one of its tasks.", problems)
    if command.name in facts.names.values():
        problem = FieldProblem("name", "Another tuned task has this name.", "Choose another one.")
        raise Conflict("Another tuned task has this name.", [problem])
    saved = TunedTaskSaved(account=command.account, task_id=task_id, name=command.name, model=command.model, task=command.task)
    reply = TunedTask(task_id=task_id, name=command.name, model=command.model, task=command.task, saved_at=facts.now)
    return Decision([saved], reply, at=facts.now)


def remove_tuned_task(state: Saved | None, command: RemoveTunedTask) -> Decision[ReviewEvent, TunedTaskRemovedReply]:
    """It cannot be chosen any more. Removing it again changes nothing."""
    if state is None or state.account != command.account:
        raise NotFound("There is no such tuned task.")
    reply = TunedTaskRemovedReply(task_id=command.task_id)
    if state.removed:
        return Decision([], reply)
    return Decision([TunedTaskRemoved(account=state.account, task_id=state.task_id)], reply)


def _problems(command: SaveTunedTask, models: Models) -> list[FieldProblem]:
    model = models.models.get(command.model)
    if model is None:
        return [FieldProblem("model", "There is no such model.", f"Choose from: {', '.join(models.models)}.")]
    if command.task not in model.tasks:
        return [FieldProblem("task", "The model does not allow this task.", f"Choose from: {', '.join(model.tasks)}.")]
    return []
