"""What an application is made of: the form of today with the models and tasks, and the tasks that accounts have tuned."""

from __future__ import annotations

from collections.abc import Sequence

from services.review import facts, tuned, views
from services.review.domain import Rules
from services.review.serving import Started
from shared.answering import Answering, Answers, snapshot
from shared.clock import Clock
from shared.commands.review import (
    SERVICE,
    FormView,
    GetForm,
    ListTunedTasks,
    RemoveTunedTask,
    SaveTunedTask,
    TunedTask,
    TunedTaskRemovedReply,
    TunedTasks,
)
from shared.ids import new_id
from shared.postgres import Connection


class FormHandlers(Answering[Started]):
    """Everything that is answered about forms, models and tuned tasks."""

    service = SERVICE

    def __init__(self, rules: Rules, clock: Clock) -> None:
        super().__init__()
        self._rules = rules
        self._clock = clock

    @property
    def answers(self) -> Answers:
        return {
            GetForm: self.get_form,
            ListTunedTasks: self.list_tuned_tasks,
            SaveTunedTask: self.save_tuned_task,
            RemoveTunedTask: self.remove_tuned_task,
        }

    async def get_form(self, query: GetForm) -> FormView:
        return views.form_view(self._rules.form, self._rules.models, await self._tuned(query.account))

    async def list_tuned_tasks(self, query: ListTunedTasks) -> TunedTasks:
        return TunedTasks(tuned_tasks=tuple(await self._tuned(query.account)))

    async def save_tuned_task(self, command: SaveTunedTask) -> TunedTask:
        task_id = f"tuned-{new_id()}"

        async def read(connection: Connection) -> tuned.TunedFacts:
            rows = await facts.tuned_by(connection, command.account)
            return tuned.TunedFacts(self._clock.now(), {row.task_id: row.name for row in rows})

        return await self.running.transactor.run(
            command,
            tuned.tuned_task_stream(task_id),
            None,
            tuned.evolve,
            lambda state, known: tuned.save_tuned_task(state, known, command, self._rules.models, task_id),
            TunedTask,
            read,
        )

    async def remove_tuned_task(self, command: RemoveTunedTask) -> TunedTaskRemovedReply:
        return await self.running.transactor.run(
            command,
            tuned.tuned_task_stream(command.task_id),
            None,
            tuned.evolve,
            lambda state, _: tuned.remove_tuned_task(state, command),
            TunedTaskRemovedReply,
        )

    async def _tuned(self, account: str) -> Sequence[TunedTask]:
        async with snapshot(self.running.pool) as connection:
            return [TunedTask(**row._asdict()) for row in await facts.tuned_by(connection, account)]
