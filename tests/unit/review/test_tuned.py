"""Tuned tasks, and what can be chosen with them."""

from __future__ import annotations

from typing import Any

import pytest

from services.review import tuned
from services.review.models import Tuned, choices, model_views
from services.review.tuned import Saved, TunedFacts, remove_tuned_task, save_tuned_task
from shared.commands.review import TUNED_TASKS_MAX, RemoveTunedTask, SaveTunedTask
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events.review import TunedTaskRemoved, TunedTaskSaved
from tests.support.review_examples import ACCOUNT, NOW, OTHER, RULES, TUNED
from tests.support.scenario import Outcome, Scenario

TASKS: Scenario[Saved | None] = Scenario(None, tuned.evolve)
SAVED = TunedTaskSaved(account=ACCOUNT, task_id=TUNED, name="minutes", model="HCX-003", task="chat")
REMOVED = TunedTaskRemoved(account=ACCOUNT, task_id=TUNED)


def save(*past: Any, names: Any = (), **fields: Any) -> Outcome[Saved | None]:
    asked = {"name": "minutes", "model": "HCX-003", "task": "chat", **fields}
    command = SaveTunedTask(command_id="c1", account=ACCOUNT, actor="token:a1", **asked)
    facts = TunedFacts(NOW, {f"tuned-{number:032x}": name for number, name in enumerate(names)})
    return TASKS.given(*past).when(lambda state: save_tuned_task(state, facts, command, RULES.models, TUNED))


def remove(*past: Any, account: str = ACCOUNT) -> Outcome[Saved | None]:
    command = RemoveTunedTask(command_id="c1", account=account, actor="token:a1", task_id=TUNED)
    return TASKS.given(*past).when(lambda state: remove_tuned_task(state, command))


def test_a_tuned_task_is_saved() -> None:
    decision = save().then(SAVED)
    assert (decision.reply.task_id, decision.reply.saved_at) == (TUNED, NOW)
    assert tuned.tuned_task_stream(TUNED) == f"tuned-task/{TUNED}"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"model": "HCX-999"}, "model"), ({"task": "embedding"}, "task"), ({"task": "tuned-x"}, "task")],
)
def test_it_is_of_a_model_and_one_of_its_tasks(wrong: dict[str, str], field: str) -> None:
    save(**wrong).refused(InvalidInput, fields=(field,))


def test_a_name_is_used_once() -> None:
    save(names=["minutes"]).refused(Conflict, fields=("name",))


def test_there_are_so_many_at_most() -> None:
    save(names=[f"task {number}" for number in range(TUNED_TASKS_MAX)]).refused(Conflict, says="Remove one first")
    save(names=[f"task {number}" for number in range(TUNED_TASKS_MAX - 1)]).then(SAVED)


def test_an_id_is_not_given_twice() -> None:
    save(SAVED).refused(Conflict, says="Ask again")


def test_it_is_removed_once() -> None:
    remove(SAVED).then(REMOVED)
    remove(SAVED, REMOVED).then_nothing()


def test_another_accounts_is_not_there() -> None:
    remove(SAVED, account=OTHER).refused(NotFound)
    remove().refused(NotFound)


def test_it_can_be_chosen_with_its_model_and_no_other() -> None:
    saved = {TUNED: Tuned("HCX-003", "chat")}
    assert TUNED in choices(RULES.models, saved, "HCX-003")
    assert TUNED not in choices(RULES.models, saved, "LK-D2")
    assert choices(RULES.models, saved, "nope") == ()
    assert [model.id for model in model_views(RULES.models, saved) if TUNED in model.tasks] == ["HCX-003"]


def test_one_whose_task_the_model_has_dropped_cannot_be_chosen() -> None:
    assert TUNED not in choices(RULES.models, {TUNED: Tuned("HCX-003", "embedding")}, "HCX-003")
