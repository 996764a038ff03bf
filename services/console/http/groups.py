"""/v1/contact-groups: contacts that are named as one."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body, Response

from services.console.http.bodies import AsBody, addressed, empty, example
from services.console.http.request import Behind, CommandId, GroupIdInPath, Member, NothingAsked
from shared.commands import contacts

router = APIRouter(prefix="/v1/contact-groups", tags=["contacts"])

ADD: Final = example("Two who take turns", name="On call", contacts=["0f" * 16, "1e" * 16])
EDIT: Final = example("The group is only these from now on", contacts=["0f" * 16])


@router.get("", operation_id="listContactGroups")
async def list_groups(principal: Member, behind: Behind, _: NothingAsked) -> contacts.Groups:
    """All of the account's groups, by name."""
    return await behind.ask(contacts.SERVICE, contacts.ListGroups(account=principal.account), contacts.Groups)


@router.post("", operation_id="addContactGroup", status_code=201)
async def add_group(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    response: Response,
    _: NothingAsked,
    body: Annotated[contacts.AddGroup, AsBody(), Body(openapi_examples=ADD)],
) -> contacts.GroupView:
    """Make a group of contacts. Who is told by it follows the group as it changes."""
    added = await behind.ask(contacts.SERVICE, addressed(body, principal, command_id), contacts.GroupView)
    response.headers["Location"] = f"/v1/contact-groups/{added.group_id}"
    return added


@router.get("/{group_id}", operation_id="getContactGroup")
async def get_group(principal: Member, behind: Behind, group_id: GroupIdInPath, _: NothingAsked) -> contacts.GroupView:
    """One group, and who is in it."""
    query = contacts.GetGroup(account=principal.account, group_id=group_id)
    return await behind.ask(contacts.SERVICE, query, contacts.GroupView)


@router.patch("/{group_id}", operation_id="editContactGroup")
async def edit_group(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    group_id: GroupIdInPath,
    _: NothingAsked,
    body: Annotated[contacts.EditGroup, AsBody(), Body(openapi_examples=EDIT)],
) -> contacts.GroupView:
    """Change what is given; what is left out, or null, stays as it is. `contacts` is whole: who is not in it leaves the group."""
    command = addressed(body, principal, command_id, group_id=group_id)
    return await behind.ask(contacts.SERVICE, command, contacts.GroupView)


@router.delete("/{group_id}", operation_id="removeContactGroup", status_code=204)
async def remove_group(
    principal: Member, behind: Behind, command_id: CommandId, group_id: GroupIdInPath, _: NothingAsked
) -> None:
    """Remove the group, from recipients too. Its contacts stay."""
    command = addressed(empty(contacts.RemoveGroup), principal, command_id, group_id=group_id)
    await behind.ask(contacts.SERVICE, command, contacts.GroupRemovedReply)
