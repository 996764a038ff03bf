"""The models of the deployment and their tasks, with those that an account has tuned: what can be chosen, and what fits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from shared.commands.review import ModelView, TaskView
from shared.errors import FieldProblem


class Models(msgspec.Struct, frozen=True):
    """Models and tasks by id, in the order of their file."""

    models: Mapping[str, ModelView]
    tasks: Mapping[str, TaskView]


class Tuned(NamedTuple):
    """A tuned task of the account: it is chosen instead of `task`, with that model and no other."""

    model: str
    task: str


def model_views(models: Models, tuned: Mapping[str, Tuned]) -> tuple[ModelView, ...]:
    """The models with all tasks that the account can choose. `tuned`: its tuned tasks by id."""
    return tuple(model.model_copy(update={"tasks": choices(models, tuned, id_)}) for id_, model in models.models.items())


def choices(models: Models, tuned: Mapping[str, Tuned], model: str) -> tuple[str, ...]:
    """The ids of the tasks that can be chosen with the model: none when there is no such model."""
    found = models.models.get(model)
    if found is None:
        return ()
    return (*found.tasks, *(id_ for id_, one in tuned.items() if one.model == model and one.task in found.tasks))


def choice_problems(models: Models, tuned: Mapping[str, Tuned], service: str, model: str, task: str) -> list[FieldProblem]:
    """What is wrong with these two; one that is "" is not chosen yet, which is not wrong."""
    of_service = [one.id for one in models.models.values() if one.service == service]
    if model and model not in of_service:
        return [FieldProblem("model", "The service has no such model.", _choose(of_service))]
    if not task:
        return []
    if not model:
        possible = [id_ for one in of_service for id_ in choices(models, tuned, one)]
        known = task in possible
        return [] if known else [FieldProblem("task", "No model of the service has this task.", _choose(sorted(set(possible))))]
    fitting = choices(models, tuned, model)
    return [] if task in fitting else [FieldProblem("task", "The model does not allow this task.", _choose(fitting))]


def choices_missing(models: Models, tuned: Mapping[str, Tuned], service: str, model: str, task: str) -> list[FieldProblem]:
    """What is missing or wrong about them before it can be submitted."""
    of_service = [one.id for one in models.models.values() if one.service == service]
    found = choice_problems(models, tuned, service, model, task)
    if not model:
        found.insert(0, FieldProblem("model", "No model is chosen.", _choose(of_service)))
    if not task:
        hint = _choose(choices(models, tuned, model)) if model in of_service else "Choose one of the model's."
        found.append(FieldProblem("task", "No task is chosen.", hint))
    return found


def _choose(ids: Sequence[str]) -> str:
    return f"Choose from: {', '.join(ids)}." if ids else "There is none to choose from."
