"""What requests for pictures cost, and so how long one would take if it were let in now."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.traces import RequestTrace

MEMORY = 0.2
"""Share of the newest request in what is known of a route."""


class Work:
    """What a request has cost so far."""

    def __init__(self, route: str = "") -> None:
        self.route = route
        self.by_stage_s: dict[str, float] = {}
        """Seconds that passed in each stage; stages overlap where a request has several pictures"""
        self.machine_s = 0.0
        """Seconds of the whole machine: of the accelerator, and of all processors together"""
        self.ran_until_s = 0.0
        """When its last run of a graph ended, on the performance counter"""
        self.trace: RequestTrace | None = None
        """Where its stages become spans"""

    def add(
        self,
        stage: str,
        passed_s: float,
        machine_s: float = 0.0,
        ended_s: float | None = None,
        **attributes: str | int,
    ) -> None:
        """Counts a stage's time, and what of the machine it took.

        It ended just now, or at `ended_s` on the performance counter; `attributes` say more of it
        in its span.
        """
        self.by_stage_s[stage] = self.by_stage_s.get(stage, 0.0) + passed_s
        self.machine_s += machine_s
        if self.trace is not None:
            ended_s = time.perf_counter() if ended_s is None else ended_s
            self.trace.stage(stage, ended_s - passed_s, ended_s, **attributes)

    @property
    def milliseconds(self) -> dict[str, float]:
        """Fields of a log line, such as `queue_ms`."""
        return {f"{stage}_ms": round(1000 * seconds, 1) for stage, seconds in self._stages}

    @property
    def server_timing(self) -> str:
        """The value of a Server-Timing header: milliseconds by stage."""
        return ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in self._stages)

    @property
    def _stages(self) -> tuple[tuple[str, float], ...]:
        # A copy: a thread of a request that was given up may still add to it.
        return tuple(self.by_stage_s.items())


_current: ContextVar[Work | None] = ContextVar("work", default=None)


def current_work() -> Work | None:
    """The work of the request that this code runs for, if there is one."""
    return _current.get()


@contextmanager
def counted(work: Work) -> Iterator[None]:
    """What runs in the block, and in tasks and threads that take its context, is `work`."""
    token = _current.set(work)
    try:
        yield
    finally:
        _current.reset(token)


class Load:
    """The requests in progress, and what those before them cost by route.

    Requests share the machine in turns, so another one delays a request by what is left of it, and
    by no more than the request's own cost: a long film keeps nobody waiting for its end.
    """

    def __init__(self) -> None:
        self._in_progress: set[Work] = set()
        self._cost_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._in_progress)

    def expected_s(self, route: str) -> float:
        """How long a request of `route` that began now would take; 0 while its cost is unknown."""
        own_s = self._cost_s.get(route, 0.0)
        return own_s + sum(min(self._left_s(work), own_s) for work in self._in_progress)

    def begin(self, route: str) -> Work:
        """Lets a request in."""
        work = Work(route)
        self._in_progress.add(work)
        return work

    def end(self, work: Work, *, answered: bool) -> None:
        """A request ended: `answered`, or given up by its caller or for its time."""
        self._in_progress.discard(work)
        if answered:
            known = self._cost_s.get(work.route)
            cost = work.machine_s if known is None else known + MEMORY * (work.machine_s - known)
            self._cost_s[work.route] = cost

    def _left_s(self, work: Work) -> float:
        return max(0.0, self._cost_s.get(work.route, 0.0) - work.machine_s)
