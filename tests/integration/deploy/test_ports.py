from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from deploy.errors import StackError
from deploy.ports import Ports
from deploy.servers.program import free_port


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_busy_port_that_was_asked_for_is_an_error(busy: int) -> None:
    with pytest.raises(StackError, match=rf"TOLLBOOK_GATE_PORT={busy}: the port is in use"):
        Ports(print).choose({"gate": busy})


def test_a_busy_usual_port_moves_to_the_next_free_one_and_that_is_said(monkeypatch: pytest.MonkeyPatch, busy: int) -> None:
    monkeypatch.setattr("deploy.ports.DEFAULT_PORTS", {"gate": busy})
    said: list[str] = []
    ports = Ports(said.append)
    chosen = ports.choose({"gate": None})
    assert chosen["gate"] > busy
    assert said == [f"port {busy} is in use: gate takes {chosen['gate']} (TOLLBOOK_GATE_PORT chooses another)"]
    ports.release()


def test_two_stacks_that_start_at_once_do_not_choose_the_same_port() -> None:
    first, second = Ports(print), Ports(print)
    port = free_port()
    assert first.next_free(port) == port
    assert second.next_free(port) != port
    first.release()
    third = Ports(print)
    assert third.next_free(port) == port
    second.release()
    third.release()


def test_the_same_port_asked_for_twice_is_an_error() -> None:
    ports = Ports(print)
    port = free_port()
    with pytest.raises(StackError, match="for something else"):
        ports.choose({"gate": port, "console": port})
    ports.release()
