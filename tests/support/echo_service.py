"""A service of the tests' own (`python -m tests.support.echo_service`): it echoes, refuses, breaks and dies on demand."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from pydantic import Field

from shared.commands.base import Command, Query, Reply
from shared.commands.responder import respond_to
from shared.errors import Conflict, FieldProblem, TooManyRequests
from shared.main import Program, main
from shared.readiness import Readiness
from shared.service import Service
from shared.settings import ServiceSettings

REFUSED = {
    "refuse": Conflict("It was said before.", [FieldProblem("text", "said before", "Say something else.")]),
    "often": TooManyRequests("That is too often.", retry_after_s=7),
}


class Echo(Command):
    text: str
    count: Annotated[int, Field(ge=1, le=3)] = 1


class Ask(Query):
    text: str


class Echoed(Reply):
    text: str


def build(settings: ServiceSettings) -> Service:
    service = Service("echo", settings, "Says it again.")
    dying = asyncio.Event()

    async def echo(command: Echo) -> Echoed:
        if command.text in REFUSED:
            raise REFUSED[command.text]
        if command.text == "break":
            raise RuntimeError("the secret is open sesame")
        if command.text == "slow":
            await asyncio.sleep(30)
        return Echoed(text=command.text * command.count)

    async def ask(query: Ask) -> Echoed:
        if query.text == "die":
            dying.set()
        return Echoed(text=query.text)

    respond_to(service.broker, "echo.commands.Echo", "echo", Echo, echo, workers=4)
    respond_to(service.broker, "echo.queries.Ask", "echo", Ask, ask, workers=4)

    async def mortal() -> None:
        await dying.wait()

    async def start() -> None:
        if settings.log_level == "ERROR":
            raise ConnectionRefusedError("nobody listens there")

    service.starter(start)
    service.background("mortal", mortal)
    service.readiness("voice", lambda: Readiness(True, "", {"words": 3}))
    return service


if __name__ == "__main__":
    sys.exit(main(Program("echo", ServiceSettings, build)))
