"""Unit tests are pure: the network is closed to them."""

from __future__ import annotations

import asyncio
import socket

import pytest
import pytest_socket


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_a_unit_test_cannot_open_a_socket() -> None:
    with pytest.raises(pytest_socket.SocketBlockedError):
        socket.create_connection(("127.0.0.1", 9), timeout=1)


async def test_a_unit_test_can_still_run_an_event_loop() -> None:
    await asyncio.sleep(0)
