"""`python -m deploy`: run the embedded stack until Ctrl-C. See README.md beside this file."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Final

from pydantic import ValidationError

from deploy import first_start, former
from deploy.errors import StackError
from deploy.files import write_private
from deploy.first_start import FirstStart
from deploy.home import Home
from deploy.keys import load_keys
from deploy.ports import Ports
from deploy.screen import Screen
from deploy.secrets import Secrets
from deploy.services import SERVICES
from deploy.settings import StackSettings
from deploy.stack import Stack
from shared.clock import SystemClock

USAGE_ERROR: Final = 2
KILLED: Final = 130


def main() -> int:
    """Returns the exit code: 0 after a stop that was asked for, 1 when the stack cannot run, 2 for settings without sense."""
    try:
        settings = StackSettings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"TOLLBOOK_{name}: {problem['msg']}\n")
        return USAGE_ERROR
    home = Home(settings.home)
    try:
        home.hold()
        return asyncio.run(run(settings, home, Screen()))
    except StackError as error:
        sys.stderr.write(f"tollbook: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"tollbook: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
        return 1
    finally:
        home.release()


async def run(settings: StackSettings, home: Home, screen: Screen) -> int:
    """The stack's life. Raises StackError when it cannot start."""
    clock = SystemClock()
    home.ready_file.unlink(missing_ok=True)
    former.end_former(home.run, clock, screen.say)
    secrets = Secrets(home.secrets)
    keys = load_keys(secrets, home)
    ports = Ports(screen.say)
    chosen = ports.choose(settings.asked_ports())
    for name in [*(spec.name for spec in SERVICES if spec.port is None), "sample", "inbox", "sms"]:
        chosen[name] = ports.next_free()
    stack = Stack(home, secrets, keys, chosen, settings.log_level, screen, clock)
    stopped = _stop_on_signals(stack, screen)
    starting = asyncio.create_task(_start(stack, home, secrets, screen))
    waiting = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await waiting
        return 0
    finally:
        for task in (starting, waiting):
            task.cancel()
        await asyncio.gather(starting, waiting, return_exceptions=True)
        home.ready_file.unlink(missing_ok=True)
        await stack.stop()
        ports.release()
        screen.say("stopped")


async def _start(stack: Stack, home: Home, secrets: Secrets, screen: Screen) -> None:
    await stack.start()
    seeded = await first_start.prepare(stack, secrets)
    screen.plain(welcome(stack, seeded))
    write_private(home.ready_file, json.dumps(ready(stack, home, seeded), indent=2) + "\n")


def _stop_on_signals(stack: Stack, screen: Screen) -> asyncio.Event:
    """The event of being asked to stop. Being asked a second time kills everything."""
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            screen.say("killing everything")
            stack.kill()
            return
        screen.say("stopping (once more to kill)")
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopped


def ready(stack: Stack, home: Home, seeded: FirstStart) -> dict[str, object]:
    """What ready.json says."""
    return {
        "proxy_url": stack.url("proxy"),
        "console_url": stack.url("console"),
        "gate_url": stack.url("gate"),
        "nats_url": f"nats://127.0.0.1:{stack.ports['nats']}",
        "nats_websocket_url": f"ws://127.0.0.1:{stack.ports['nats_websocket']}",
        "postgres_dsn": stack.postgres_dsn(),
        "account": seeded.account,
        **{f"{role}_token": token for role, token in seeded.tokens.items()},
        "inbox": str(home.inbox),
        "sms": str(home.sms),
        "pids": stack.pids(),
    }


def welcome(stack: Stack, seeded: FirstStart) -> str:
    """The addresses, the first sign-in, and a call that works as it is printed."""
    lines = [
        "",
        "Tollbook is running.",
        "",
        f"  APIs (through the proxy)   {stack.url('proxy')}",
        f"  console (REST API)         {stack.url('console')}/v1   reference: {stack.url('console')}/v1/openapi.json",
        f"  gate                       {stack.url('gate')}",
        f"  NATS, over WebSocket       nats://127.0.0.1:{stack.ports['nats']}, ws://127.0.0.1:{stack.ports['nats_websocket']}",
        f"  data, keys and tokens      {stack.home.folder}",
        f"  mail, text messages        {stack.home.inbox}, {stack.home.sms}",
        "",
        f"First sign-in: account {seeded.account}, owner's token {seeded.tokens['owner']}",
        "",
    ]
    if seeded.client_secret is None:
        lines.append("The sample application was deleted, or its secret is not kept: register another, or reissue the secret.")
        return "\n".join([*lines, ""])
    audio = "'some audio'"
    call = f"curl -s -X POST '{stack.url('proxy')}/recog/v1/stt?lang=Kor'"
    call += f" -H 'X-NCP-APIGW-API-KEY-ID: {seeded.client_id}' -H 'X-NCP-APIGW-API-KEY: {seeded.client_secret}'"
    call += f" -H 'Content-Type: application/octet-stream' --data-binary {audio}"
    usage = f"curl -s '{stack.url('console')}/v1/apps/{seeded.client_id}/usage?service=csr&period=daily'"
    usage += f" -H 'Authorization: Bearer {seeded.tokens['owner']}'"
    further = (
        "Further: docs/quickstart.md, step by step; docs/how-to/set-limits.md, limits, and what callers see when one is reached."
    )
    return "\n".join(
        [*lines, "A call through the gate:", "", f"  {call}", "", "What it was counted as:", "", f"  {usage}", "", further, ""]
    )


if __name__ == "__main__":
    sys.exit(main())
