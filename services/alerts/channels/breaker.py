"""A circuit breaker: what fails again and again is left alone for a while, then tried by one. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from shared.clock import Clock
    from shared.events.alerts import Method

KEYS_MAX: Final = 10_000


def breaker_key(method: Method, address: str) -> str:
    """What fails together: all mail, all text messages, and the webhooks of one host and port.

    A host is somebody's address: the key is for a Breaker only, never for a log line or a metric.
    """
    return f"webhook:{urlsplit(address).netloc.lower()}" if method == "webhook" else method


@dataclass(slots=True)
class _Trouble:
    """A key that failed last. Times are monotonic seconds."""

    failures: int = 0
    open_s: float = 0.0
    """How long it was opened for last; 0: it never was, so it is closed."""
    open_until: float = 0.0
    probing_until: float | None = None
    """One is trying whether it works again. If nothing is heard of it by then, another may."""


class Breaker:
    """Counts failures by key, in memory.

    Closed: everybody may try. After `failures` in a row it opens for `open_s` seconds: nobody may. Then it is half-open: one may,
    the probe; if that fails too it opens for twice as long as before, up to `open_max_s`; if it works it is closed.

    `probe_s`: how long a probe takes at most; one that is never told of (its process was cancelled) holds the key no longer. Keys
    that work take no memory. Of those that fail, `keys_max` are remembered, the ones that were touched last.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        failures: int = 5,
        open_s: float = 2.0,
        open_max_s: float = 300.0,
        probe_s: float = 60.0,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self._clock = clock
        self._failures = failures
        self._open_s = open_s
        self._open_max_s = open_max_s
        self._probe_s = probe_s
        self._keys_max = keys_max
        self._troubles: OrderedDict[str, _Trouble] = OrderedDict()

    def ask(self, key: str) -> float:
        """0: try now, and say how it went. Else in how many seconds to ask again. Half-open, the first who asks is the probe."""
        trouble = self._troubles.get(key)
        if trouble is None or not trouble.open_s:
            return 0.0
        now = self._clock.monotonic()
        if now < trouble.open_until:
            return trouble.open_until - now
        if trouble.probing_until is not None and now < trouble.probing_until:
            return trouble.probing_until - now
        trouble.probing_until = now + self._probe_s
        return 0.0

    def worked(self, key: str) -> None:
        """The channel answered, whatever it said of the one message: closed, and forgotten."""
        self._troubles.pop(key, None)

    def failed(self, key: str) -> None:
        """The channel itself failed (TryLater with `ours`)."""
        trouble = self._troubles.setdefault(key, _Trouble())
        self._troubles.move_to_end(key)
        now = self._clock.monotonic()
        if trouble.open_s and trouble.probing_until is None:
            return  # of one that began before it opened: says nothing new
        trouble.failures += 1
        if trouble.open_s or trouble.failures >= self._failures:
            trouble.open_s = min(2 * trouble.open_s or self._open_s, self._open_max_s)
            trouble.open_until = now + trouble.open_s
            trouble.probing_until = None
        while len(self._troubles) > self._keys_max:
            self._troubles.popitem(last=False)

    def unheard(self, key: str) -> None:
        """The try was broken off and says nothing: if it was the probe, another may be it at once."""
        if trouble := self._troubles.get(key):
            trouble.probing_until = None

    def opened(self) -> int:
        """How many keys are open or half-open."""
        return sum(1 for trouble in self._troubles.values() if trouble.open_s)
