"""Alerts: from a crossing in METERING to the mail server that has taken the mail, on a server that takes 50 ms for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Final, NamedTuple

import aiosmtplib
import httpx

from shared.clock import SystemClock
from shared.events import metering
from shared.postgres import open_pool
from shared.streams.declare import ensure_stream, log_stream
from tests.bench.measure import Aim, Row, interleaved, percentile, row, said
from tests.bench.place import Place, ServiceProcess, until
from tests.support.alerting import Alerts, crossing
from tests.support.alerts_process import VAULT_KEY
from tests.support.inbox import arrivals, verified_contact
from tests.support.metering_process import LogFeed, RegistryFeed
from tests.support.receivers import SmtpReceiver
from tests.support.stack import StackProcess

AT_ONCE: Final = 32
"""Mails that are on their way at a time, with us and with the reference."""
SERVER_S: Final = 0.05
CONTACTS: Final = 600
"""Each has an application of its own, so that each crossing is a mail."""
SINGLES: Final = 300
PAUSE_S: Final = 0.03
CALLERS: Final = 80
"""Fewer than the codes that an account may be sent in a day."""
SENDER: Final = "alerts@tollbook.example"


class Town(NamedTuple):
    """Alerts as a process, who is to be told, and the server that their mails arrive at."""

    alerts: Alerts
    meter: LogFeed
    inbox: SmtpReceiver

    async def crossed(self, version: int) -> float:
        """Let everybody's limit be approached at once: mails a second, from the first crossing published to the last recorded."""
        self.inbox.mails.clear()
        start = _today()
        events = [crossing(10, start, client_id=_app(number), version=version) for number in range(CONTACTS)]
        began = time.perf_counter()
        await self.meter.flood(events)

        async def all_recorded() -> bool:
            return await self.alerts.rows("SELECT FROM notification WHERE state = 'waiting' LIMIT 1") == [] and (
                len(self.inbox.mails) >= CONTACTS
            )

        await until(all_recorded, "every mail")
        took_s = time.perf_counter() - began
        assert len(self.inbox.mails) == CONTACTS
        return CONTACTS / took_s

    async def bare(self) -> float:
        """The same mails by AT_ONCE clients that do nothing else."""
        letters = [mail.content for mail in self.inbox.mails] or [_letter()] * CONTACTS
        self.inbox.mails.clear()
        waiting = iter(enumerate(letters))
        began = time.perf_counter()

        async def client() -> None:
            async with aiosmtplib.SMTP(hostname="127.0.0.1", port=self.inbox.port, local_hostname="bench") as smtp:
                for number, letter in waiting:
                    await smtp.sendmail(SENDER, [f"kim{number}@example.com"], letter)

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        return len(letters) / (time.perf_counter() - began)

    async def one_by_one(self) -> list[float]:
        """Crossings of many contacts, one after the other: how long each takes from published to arrived, in ms, sorted."""
        delays: list[float] = []
        start = _today()
        published: dict[str, float] = {}
        self.inbox.mails.clear()
        for number in range(SINGLES):
            published[f"kim{number}@example.com"] = time.perf_counter()
            await self.meter.flood([crossing(20, start, client_id=_app(number), version=99)])
            await asyncio.sleep(PAUSE_S)
            delays += self._arrived(published)

        async def all_arrived() -> bool:
            delays.extend(self._arrived(published))
            return not published

        await until(all_arrived, "every mail", pause_s=0.005)
        return sorted(1000 * delay for delay in delays)

    def _arrived(self, published: dict[str, float]) -> list[float]:
        now = time.perf_counter()
        found = [now - published.pop(mail.recipients[0]) for mail in self.inbox.mails if mail.recipients[0] in published]
        self.inbox.mails.clear()
        return found


def _app(number: int) -> str:
    return f"{number:020d}"


def _today() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)


def _letter() -> bytes:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = SENDER, "kim@example.com", "10 % of the limit"
    letter.set_content("Usage has come to 10 % of the limit.\n" * 40)
    return letter.as_bytes()


@asynccontextmanager
async def _town(place: Place) -> AsyncIterator[Town]:
    async with place.cleared() as (nc, database), SmtpReceiver() as inbox:
        inbox.delays["DATA"] = SERVER_S
        dsn = await database.service_schema("alerts")
        registry = RegistryFeed(nc)
        await registry.open_account()
        await ensure_stream(nc, log_stream("metering"))
        pool = await open_pool(dsn.dsn, "alerts")
        alerts = Alerts(pool, SystemClock())
        for number in range(CONTACTS):
            await alerts.rule(await alerts.contact(f"Kim{number}"), client_id=_app(number))
        settings: dict[str, object] = {
            "NATS_URL": place.nats_url,
            "POSTGRES_DSN": dsn.dsn,
            "CATALOG": "deploy/catalog.yaml",
            "VAULT_KEY": VAULT_KEY,
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": inbox.port,
            "SMTP_SECURITY": "none",
            "MAIL_FROM": SENDER,
            "EMAIL_CONCURRENCY": AT_ONCE,
        }
        process = ServiceProcess("services.alerts", place.folder, settings)
        try:
            await process.ready()
            yield Town(alerts, LogFeed(nc, metering.CODEC), inbox)
        finally:
            process.stop()
            await pool.close()


async def from_the_gate(place: Place) -> list[float]:
    """On the embedded stack: calls that reach a limit, each of another application that somebody else is told of. How long it
    takes from the call at the proxy to the mail's file in the inbox, in ms, sorted."""
    stack = StackProcess(place.folder / "told").start()
    headers = {"authorization": f"Bearer {stack.ready['owner_token']}"}
    inbox = Path(stack.ready["inbox"])
    try:
        async with (
            httpx.AsyncClient(base_url=stack.ready["console_url"], headers=headers, timeout=15, trust_env=False) as http,
            httpx.AsyncClient(base_url=stack.ready["proxy_url"], timeout=15, trust_env=False) as caller,
        ):
            keys = [await _told_of(http, inbox, number) for number in range(CALLERS)]
            await asyncio.sleep(1.0)  # the gate hears of the limits, metering of the rules
            called: dict[str, float] = {}
            for number, key in enumerate(keys):
                called[f"call{number}@example.com"] = time.time()
                (await caller.post("/tts-premium/v1/tts", content=b"text", headers=key)).raise_for_status()
                await asyncio.sleep(PAUSE_S)

            found: dict[str, float] = {}

            async def all_arrived() -> bool:
                found.update({to: at for to, at in arrivals(inbox).items() if at > called.get(to, at)})
                return found.keys() >= called.keys()

            await until(all_arrived, "every mail")
            return sorted(1000 * (found[to] - at) for to, at in called.items())
    finally:
        stack.stop()


async def _told_of(http: httpx.AsyncClient, inbox: Path, number: int) -> dict[str, str]:
    """The credentials of an application that may be called once a day, and whose contact hears of it."""
    contact_id = await verified_contact(http, inbox, f"Caller {number}", f"call{number}@example.com")
    added = (await http.post("/v1/apps", json={"name": f"Told {number}", "services": ["clova-voice"]})).raise_for_status().json()
    place = f"/v1/apps/{added['client_id']}/services/clova-voice"
    rule = {"daily": 100, "recipients": [{"contact_id": contact_id, "methods": ["email"]}]}
    (await http.put(f"{place}/notifications", json=rule)).raise_for_status()
    (await http.put(f"{place}/limits", json={"daily": 1})).raise_for_status()
    return {"X-NCP-APIGW-API-KEY-ID": added["client_id"], "X-NCP-APIGW-API-KEY": added["client_secret"]}


async def measure(place: Place) -> list[Row]:
    """Calls at the gate, then crossings in METERING, one by one to the mail's arrival; then many at once, beside bare SMTP
    clients."""
    called = await from_the_gate(place)
    said(f"  {len(called):,} calls timed")
    async with _town(place) as town:
        delays = await town.one_by_one()
        said(f"  {len(delays):,} crossings timed")
    async with _town(place) as town:
        versions = iter(range(1, 100))

        async def crossed() -> float:
            await town.alerts.rows("DELETE FROM recent_message")  # else they would wait for company, as they should
            return await town.crossed(next(versions))

        clients = f"{AT_ONCE} SMTP clients that send the same mails and do nothing else"
        found = await interleaved({"crossings": crossed, clients: town.bare})
    ours, bare = found.values()
    server = f"to a server that takes {1000 * SERVER_S:g} ms a mail, {AT_ONCE} at once"
    what = f"ThresholdCrossed in METERING to recorded as delivered, {CONTACTS} contacts at once, {server}"
    arrived = "ThresholdCrossed published to the mail's arrival, one by one"
    call = "call that reaches a limit at the gate, on the whole stack, to the mail's arrival"
    note, soon = "of it 250 ms waiting for company", Aim(most=2000)
    return [
        row("alerts", what, "mails/s", ours, bare, clients),
        Row(benchmark="alerts", what=f"{call}, p50", unit="ms", figure=percentile(called, 0.50), note=note),
        Row(benchmark="alerts", what=f"{call}, p99", unit="ms", figure=percentile(called, 0.99), aim=soon, note=note),
        Row(benchmark="alerts", what=f"{arrived}, p50", unit="ms", figure=percentile(delays, 0.50), note=note),
        Row(benchmark="alerts", what=f"{arrived}, p99", unit="ms", figure=percentile(delays, 0.99), note=note),
    ]
