"""/v1/apps/{client_id}/corrections: what publishers took back or stated anew."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.console.http.request import Behind, ClientIdInPath, Member, NeverNull
from services.console.http.usage import ask_metering
from shared.commands import corrections, metering
from shared.commands.base import Message

router = APIRouter(prefix="/v1/apps", tags=["usage"])


class CorrectionsQuery(Message):
    """Which corrections: made from `from` to `to`, civil dates in the account's zone or instants, both included."""

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=False)

    service: Annotated[metering.ServiceId | None, NeverNull()] = None
    from_: Annotated[metering.Moment, Field(alias="from")] = None
    to: metering.Moment = None
    limit: Annotated[int, Field(ge=1, le=corrections.PAGE_MAX, description="How many at most")] = corrections.PAGE_DEFAULT
    cursor: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")] | None,
        NeverNull(),
        Field(description="`next_cursor` of the page before"),
    ] = None


class CorrectionList(BaseModel):
    """One page, the newest first. `next_cursor` leads to the next page; null: this was the last."""

    corrections: tuple[corrections.CorrectionView, ...]
    next_cursor: str | None


@router.get("/{client_id}/corrections", operation_id="listCorrections")
async def list_corrections(
    principal: Member, behind: Behind, client_id: ClientIdInPath, asked: Annotated[CorrectionsQuery, Query()]
) -> CorrectionList:
    """The corrections of the application's usage: what counted before, what counts now, and in which windows."""
    query = corrections.ListCorrections(
        account=principal.account,
        client_id=client_id,
        service=asked.service,
        from_=asked.from_,
        to=asked.to,
        limit=asked.limit,
        before=None if asked.cursor is None else int(asked.cursor),
    )
    page = await ask_metering(behind, query, corrections.CorrectionPage, client_id)
    next_cursor = None if page.next_before is None else str(page.next_before)
    return CorrectionList(corrections=page.corrections, next_cursor=next_cursor)
