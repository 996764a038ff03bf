"""/v1/deadletters: usage that did not count, for operators, over all accounts."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from services.console.http.bodies import AsBody, addressed, example
from services.console.http.request import Behind, CommandId, NeverNull, NothingAsked, Operator
from shared.commands import deadletters, metering
from shared.commands.base import Message

router = APIRouter(prefix="/v1/deadletters", tags=["dead letters"])

RETRY: Final = example("Its application is registered now", note="registered on the phone, ticket 4711")
DISCARD: Final = example("Nothing is missing", note="a test of the publisher's")
Letter = Annotated[deadletters.LetterId, Path(description="The letter's number")]


class LettersQuery(Message):
    """Which dead letters: those with all that is given, stored from `from` to `to`, both included."""

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=False)

    why: Annotated[deadletters.Why | None, NeverNull(), Field(description="The reason, as the counts name it")] = None
    state: Annotated[deadletters.State | None, NeverNull()] = None
    sender: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=200)] | None,
        NeverNull(),
        Field(description="From whom: a batch's publisher, or an event's source"),
    ] = None
    from_: Annotated[AwareDatetime | None, NeverNull(), Field(alias="from")] = None
    to: Annotated[AwareDatetime | None, NeverNull()] = None
    limit: Annotated[int, Field(ge=1, le=deadletters.PAGE_MAX, description="How many at most")] = deadletters.PAGE_DEFAULT
    cursor: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")] | None,
        NeverNull(),
        Field(description="`next_cursor` of the page before"),
    ] = None


class Letters(BaseModel):
    """One page, the newest first. `next_cursor` leads to the next page; null: this was the last."""

    letters: tuple[deadletters.DeadLetterView, ...]
    next_cursor: str | None


@router.get("", operation_id="listDeadLetters")
async def list_letters(principal: Operator, behind: Behind, asked: Annotated[LettersQuery, Query()]) -> Letters:
    """What did not count: why, when, from whom, and what became of it."""
    query = deadletters.ListDeadLetters(
        account=principal.account,
        why=asked.why,
        state=asked.state,
        sender=asked.sender,
        from_=asked.from_,
        to=asked.to,
        limit=asked.limit,
        before=None if asked.cursor is None else int(asked.cursor),
    )
    page = await behind.ask(metering.SERVICE, query, deadletters.DeadLetterPage)
    return Letters(letters=page.letters, next_cursor=None if page.next_before is None else str(page.next_before))


@router.get("/counts", operation_id="countDeadLetters")
async def count_letters(principal: Operator, behind: Behind, _: NothingAsked) -> deadletters.DeadLetterCounts:
    """How many there are, by reason and state."""
    query = deadletters.CountDeadLetters(account=principal.account)
    return await behind.ask(metering.SERVICE, query, deadletters.DeadLetterCounts)


@router.get("/{letter}", operation_id="getDeadLetter")
async def get_letter(principal: Operator, behind: Behind, letter: Letter, _: NothingAsked) -> deadletters.DeadLetterContent:
    """One of them, with its original bytes (the first 64 KiB) and headers."""
    query = deadletters.GetDeadLetter(account=principal.account, letter=letter)
    return await behind.ask(metering.SERVICE, query, deadletters.DeadLetterContent)


@router.post("/{letter}/retry", operation_id="retryDeadLetter")
async def retry_letter(
    principal: Operator,
    behind: Behind,
    command_id: CommandId,
    letter: Letter,
    _: NothingAsked,
    body: Annotated[deadletters.RetryDeadLetter, AsBody(), Body(openapi_examples=RETRY)],
) -> deadletters.DeadLetterView:
    """Have it counted again, within seconds, as it came. What does not count again becomes a new dead letter."""
    command = addressed(body, principal, command_id, letter=letter)
    return await behind.ask(metering.SERVICE, command, deadletters.DeadLetterView)


@router.post("/{letter}/discard", operation_id="discardDeadLetter")
async def discard_letter(
    principal: Operator,
    behind: Behind,
    command_id: CommandId,
    letter: Letter,
    _: NothingAsked,
    body: Annotated[deadletters.DiscardDeadLetter, AsBody(), Body(openapi_examples=DISCARD)],
) -> deadletters.DeadLetterView:
    """Leave it at that. It stays, with the note."""
    command = addressed(body, principal, command_id, letter=letter)
    return await behind.ask(metering.SERVICE, command, deadletters.DeadLetterView)
