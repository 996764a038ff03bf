"""The mail server of the embedded stack, which keeps all mail and sends none: `python -m deploy.inbox PORT FOLDER`.

Each mail is a file FOLDER/<time>-<id>.eml as a mail program opens it, with the addresses of its envelope on top (Return-Path,
Delivered-To). It takes mail for anybody, up to MAIL_BYTES_MAX; of too many mails the oldest go. It listens on this machine only.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

from aiosmtpd.smtp import SMTP, Envelope, Session

from deploy.kept import KeptFiles
from shared.clock import SystemClock

MAIL_BYTES_MAX: Final = 2 * 1024 * 1024
RECIPIENTS_MAX: Final = 100
IDLE_S: Final = 120.0


class Inbox:
    """What aiosmtpd asks about each mail."""

    def __init__(self, files: KeptFiles) -> None:
        self._files = files

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:
        """Whether the mail may go to `address`, too."""
        if len(envelope.rcpt_tos) >= RECIPIENTS_MAX:
            return "452 4.5.3 Too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Keep the mail: 250 only when it is on the disk."""
        lines = [f"Return-Path: <{envelope.mail_from or ''}>", *(f"Delivered-To: {address}" for address in envelope.rcpt_tos)]
        top = "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")
        try:
            kept = await asyncio.to_thread(self._files.keep, top + (envelope.original_content or b""))
        except OSError as error:
            return f"452 4.3.1 The mail cannot be written: {error.strerror}"
        return f"250 2.0.0 OK: {kept.name}"


def protocol(files: KeptFiles, loop: asyncio.AbstractEventLoop) -> SMTP:
    """One connection's."""
    return SMTP(
        Inbox(files),
        data_size_limit=MAIL_BYTES_MAX,
        enable_SMTPUTF8=True,
        hostname="localhost",
        ident="Tollbook inbox",
        timeout=IDLE_S,
        loop=loop,
    )


async def serve(port: int, files: KeptFiles) -> None:
    """Take mail until asked to stop."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(lambda: protocol(files, loop), "127.0.0.1", port)
    await stopped.wait()
    server.close()  # without waiting for connections: what was not answered is sent again


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> None:
    port, folder = int(arguments[0]), Path(arguments[1])
    asyncio.run(serve(port, KeptFiles(folder, ".eml", SystemClock(), _say)))


if __name__ == "__main__":
    main(sys.argv[1:])
