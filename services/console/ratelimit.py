"""How many failed sign-ins are borne from one address, or for one token, before they are refused unread. In bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

FAILURES_MAX: Final = 10
WINDOW_S: Final = 60.0
KEYS_MAX: Final = 10_000


class FailureLimit:
    """Counts failures by key in windows of WINDOW_S that begin with a key's first failure.

    At most KEYS_MAX keys are kept: beyond that the one that failed longest ago is forgotten, so that whoever sends from a million
    addresses costs no memory (and gains nothing: a token has 238 random bits).
    """

    def __init__(self, monotonic: Callable[[], float], failures_max: int = FAILURES_MAX, window_s: float = WINDOW_S) -> None:
        self._monotonic = monotonic
        self._failures_max = failures_max
        self._window_s = window_s
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def retry_after_s(self, *keys: str) -> int:
        """Whole seconds until none of `keys` is over the limit any more; 0: none is."""
        now = self._monotonic()
        waits = [0.0]
        for key in keys:
            began, count = self._failures.get(key, (now, 0))
            if count >= self._failures_max:
                waits.append(began + self._window_s - now)
        return max(0, math.ceil(max(waits)))

    def failed(self, *keys: str) -> None:
        """Count one failure for each of `keys`."""
        now = self._monotonic()
        for key in keys:
            began, count = self._failures.pop(key, (now, 0))
            if now >= began + self._window_s:
                began, count = now, 0
            self._failures[key] = (began, count + 1)
            if len(self._failures) > KEYS_MAX:
                self._failures.popitem(last=False)


class Remembered:
    """The digests of tokens that were good lately: a bounded set that forgets after `ttl_s`."""

    def __init__(self, monotonic: Callable[[], float], size_max: int = KEYS_MAX, ttl_s: float = 900.0) -> None:
        self._monotonic = monotonic
        self._size_max = size_max
        self._ttl_s = ttl_s
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, digest: bytes) -> None:
        """Remember `digest` from now on."""
        self._until.pop(digest, None)
        self._until[digest] = self._monotonic() + self._ttl_s
        if len(self._until) > self._size_max:
            self._until.popitem(last=False)

    def discard(self, digest: bytes) -> None:
        """Forget `digest`."""
        self._until.pop(digest, None)

    def __contains__(self, digest: bytes) -> bool:
        return self._until.get(digest, -math.inf) > self._monotonic()
