"""pyeventsourcing's own way: an aggregate with the same facts as our application, on PostgreSQL. Prints JSON.

event_sourced.py fill COUNT   save COUNT aggregates, many at a time, so that there is something to read
event_sourced.py read         select and decode all events, in pages of 5,000: events a second
event_sourced.py save SECONDS THREADS   save one new aggregate after the other in each thread: saves a second
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from uuid import uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

PAGE = 5_000
MANY = 500


@dataclass
class App(Aggregate):
    """What AppRegistered and AppEdited say."""

    account: str
    client_id: str
    name: str
    services: list[str]
    web: list[str]
    android: list[str]
    ios: list[str]
    secret_id: str
    verifier: str

    @event("Edited")
    def edit(self, name: str, services: list[str], android: list[str]) -> None:
        self.name = name
        self.services = services
        self.android = android


def new_app() -> App:
    client_id = uuid4().hex[:20]
    return App("acme", client_id, "Recorder", ["csr"], ["https://example.com"], ["com.example.app"], [], uuid4().hex, "0f" * 32)


def fill(app: Application, count: int) -> dict[str, float]:
    for start in range(0, count, MANY):
        several = [new_app() for _ in range(min(MANY, count - start))]
        for one in several:
            one.edit("Recorder 2", ["csr", "clova-voice"], ["com.example.two"])
        app.save(*several)
    return {"events": 2 * count}


def read(app: Application) -> dict[str, float]:
    began = time.perf_counter()
    events, start = 0, 1
    while page := app.recorder.select_notifications(start=start, limit=PAGE):
        for notification in page:
            app.mapper.to_domain_event(notification)
        events += len(page)
        start = int(page[-1].id) + 1
    return {"per_second": events / (time.perf_counter() - began), "events": events}


def save(app: Application, seconds: float, threads: int) -> dict[str, float]:
    saved = [0] * threads
    began = time.perf_counter()
    until = began + seconds

    def work(number: int) -> None:
        while time.perf_counter() < until:
            app.save(new_app())
            saved[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"per_second": sum(saved) / (time.perf_counter() - began)}


def main() -> None:
    task, *arguments = sys.argv[1:]
    with Application() as app:
        if task == "fill":
            answer = fill(app, int(arguments[0]))
        elif task == "read":
            answer = read(app)
        else:
            answer = save(app, float(arguments[0]), int(arguments[1]))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
