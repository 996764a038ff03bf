"""Which TCP ports the stack listens on: those asked for, or the usual ones, or the next free ones."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final

from deploy.errors import StackError
from deploy.settings import DEFAULT_PORTS

LOOPBACK: Final = "127.0.0.1"
INTERNAL_FROM: Final = 8090
"""Where the ports that nobody has to know begin: health of the services without an edge, the sample API. Below the range that
the kernel takes for outgoing connections, so that a service finds its port free when it is started again."""
TRIES_MAX: Final = 1000


class Ports:
    """The ports of one stack. They stay reserved against other stacks of this machine until `release`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._reserved: dict[int, socket.socket | None] = {}

    def choose(self, asked: Mapping[str, int | None]) -> dict[str, int]:
        """A port for each name of `asked`. Raises StackError when one that was asked for cannot be had."""
        chosen = {name: self._exactly(name, port) for name, port in asked.items() if port is not None}
        for name, port in asked.items():
            if port is None:
                usual = DEFAULT_PORTS[name]
                chosen[name] = self.next_free(usual)
                if chosen[name] != usual:
                    self._say(
                        f"port {usual} is in use: {name} takes {chosen[name]} (TOLLBOOK_{name.upper()}_PORT chooses another)"
                    )
        return chosen

    def next_free(self, first: int = INTERNAL_FROM) -> int:
        """The first port from `first` on that is free."""
        for port in range(first, min(first + TRIES_MAX, 65536)):
            if self._reserve(port) is None:
                return port
        raise StackError(f"no free port between {first} and {first + TRIES_MAX}.")

    def release(self) -> None:
        """Give up the reservations."""
        for reservation in self._reserved.values():
            if reservation is not None:
                reservation.close()
        self._reserved.clear()

    def _exactly(self, name: str, port: int) -> int:
        problem = self._reserve(port)
        if problem is not None:
            raise StackError(f"TOLLBOOK_{name.upper()}_PORT={port}: {problem}. Choose another, or leave it out.")
        return port

    def _reserve(self, port: int) -> str | None:
        """None when the port is ours now, else what is in the way."""
        if port in self._reserved:
            return "this stack uses the port for something else"
        try:
            reservation = _reservation(port)
        except OSError:
            return "another stack has taken the port"
        problem = _problem(port)
        if problem is None:
            self._reserved[port] = reservation
        elif reservation is not None:
            reservation.close()
        return problem


def _problem(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return "the port is in use" if error.errno == errno.EADDRINUSE else f"the port cannot be had ({error.strerror})"
    return None


def _reservation(port: int) -> socket.socket | None:
    """A name that only one process of the machine can hold, and that goes with it, so that two stacks that start at the same
    moment do not choose the same port. Linux only; raises OSError when it is held."""
    if sys.platform != "linux":
        return None
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(f"\0tollbook-port-{port}")
    except OSError:
        held.close()
        raise
    return held
