"""Whose turn it is: jobs of many callers' requests, one of each in turn."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job")


@dataclass(frozen=True)
class Requester:
    """Who asks: a caller, and which of its requests. Another object is another request."""

    caller: Hashable
    request: object = field(default_factory=object)


class Turns(Generic[Job]):
    """A queue in which callers take turns, and within a caller its requests.

    So neither a caller of many requests nor a request of many jobs keeps others waiting for more
    than one job of it at a time.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, OrderedDict[object, deque[Job]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Job]:
        """All jobs, in no promised order."""
        for requests in self._waiting.values():
            for jobs in requests.values():
                yield from jobs

    def add(self, requester: Requester, job: Job) -> None:
        """Queues a job behind the others of its request."""
        requests = self._waiting.setdefault(requester.caller, OrderedDict())
        requests.setdefault(requester.request, deque()).append(job)
        self._count += 1

    def pop(self) -> Job:
        """The next job; its caller and its request move behind the others. Raises IndexError."""
        if not self._count:
            raise IndexError("no job is waiting")
        caller, requests = next(iter(self._waiting.items()))
        request, jobs = next(iter(requests.items()))
        job = jobs.popleft()
        self._count -= 1
        if jobs:
            requests.move_to_end(request)
        else:
            del requests[request]
        if requests:
            self._waiting.move_to_end(caller)
        else:
            del self._waiting[caller]
        return job

    def drop(self, unwanted: Callable[[Job], bool]) -> int:
        """Removes the jobs that are unwanted; returns how many."""
        before = self._count
        for caller, requests in list(self._waiting.items()):
            for request, jobs in list(requests.items()):
                kept = deque(job for job in jobs if not unwanted(job))
                self._count -= len(jobs) - len(kept)
                if kept:
                    requests[request] = kept
                else:
                    del requests[request]
            if not requests:
                del self._waiting[caller]
        return before - self._count
