"""How often one caller may ask: a bucket of tokens for each."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CALLERS = 10_000


class RateLimit:
    """Each caller may make `burst` requests at once, and `per_minute` a minute in the long run.

    At most MAX_CALLERS are remembered: whoever was away longest is forgotten first, and begins
    anew with a full bucket. `clock` gives seconds.
    """

    def __init__(
        self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Counts one request: 0 where it may be made, else the seconds until the next one may."""
        now = self._clock()
        tokens, filled_s = self._buckets.pop(caller, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - filled_s) * self._per_s)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._per_s
