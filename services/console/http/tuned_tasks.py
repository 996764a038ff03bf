"""/v1/tuned-tasks: tasks of a model that the account has tuned, to be chosen in applications for service apps."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body, Response

from services.console.http.bodies import AsBody, addressed, example
from services.console.http.request import Behind, CommandId, Member, NothingAsked, TunedTaskIdInPath
from shared.commands import review

router = APIRouter(prefix="/v1/tuned-tasks", tags=["service apps"])

SAVE: Final = example("A summary as our lawyers want it", name="Legal summary", model="HCX-003", task="summarization")


@router.get("", operation_id="listTunedTasks")
async def list_tuned_tasks(principal: Member, behind: Behind, _: NothingAsked) -> review.TunedTasks:
    """All of the account's tuned tasks."""
    return await behind.ask(review.SERVICE, review.ListTunedTasks(account=principal.account), review.TunedTasks)


@router.post("", operation_id="saveTunedTask", status_code=201)
async def save_tuned_task(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    response: Response,
    _: NothingAsked,
    body: Annotated[review.SaveTunedTask, AsBody(), Body(openapi_examples=SAVE)],
) -> review.TunedTask:
    """Save a task that was tuned. Its `task_id` can be the `task` of an application with that model."""
    saved = await behind.ask(review.SERVICE, addressed(body, principal, command_id), review.TunedTask)
    response.headers["Location"] = f"/v1/tuned-tasks/{saved.task_id}"
    return saved


@router.delete("/{task_id}", operation_id="removeTunedTask", status_code=204)
async def remove_tuned_task(
    principal: Member, behind: Behind, command_id: CommandId, task_id: TunedTaskIdInPath, _: NothingAsked
) -> None:
    """Have it chosen no longer. Applications that have chosen it stay as they are."""
    command = review.RemoveTunedTask(command_id=command_id, account=principal.account, actor=principal.actor, task_id=task_id)
    await behind.ask(review.SERVICE, command, review.TunedTaskRemovedReply)
