"""The embedded stack's mailbox, and people who read it: contacts over REST whose addresses are proved by the code that came."""

from __future__ import annotations

import asyncio
import email.policy
import re
from email.message import EmailMessage
from pathlib import Path
from typing import Final

import httpx

CODE_WITHIN_S: Final = 20.0


def mails(inbox: Path) -> list[EmailMessage]:
    """All that came, in order."""
    files = sorted(inbox.glob("*.eml"))
    return [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]


def arrivals(inbox: Path) -> dict[str, float]:
    """When the newest mail to each address came, in seconds since 1970."""
    files = sorted(inbox.glob("*.eml"))
    return {str(mail["To"]): file.stat().st_mtime for file, mail in zip(files, mails(inbox), strict=False)}


async def verified_contact(http: httpx.AsyncClient, inbox: Path, name: str, address: str) -> str:
    """The id of a new contact of whoever `http` is signed in as, to be told by mail."""
    added = await http.post("/v1/contacts", json={"name": name, "email": address})
    contact_id = str(added.raise_for_status().json()["contact_id"])
    place = f"/v1/contacts/{contact_id}/verification"
    (await http.post(place, json={"method": "email"})).raise_for_status()
    (await http.put(place, json={"method": "email", "code": await _code(inbox, address)})).raise_for_status()
    return contact_id


async def _code(inbox: Path, address: str) -> str:
    deadline = asyncio.get_running_loop().time() + CODE_WITHIN_S
    while asyncio.get_running_loop().time() < deadline:
        for mail in reversed(mails(inbox)):
            body = mail.get_body(("plain",))
            if mail["To"] == address and body is not None and (code := re.search(r"(?<!\d)\d{6}(?!\d)", body.get_content())):
                return code[0]
        await asyncio.sleep(0.05)
    raise AssertionError(f"no code came to {address}")
