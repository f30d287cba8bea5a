"""A pool of processes: results come as they are ready, and few are under way at a time."""

import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 4
"""Tasks that a process is handed at a time."""
CHUNKS_AHEAD = 2
"""Chunks under way per process: the one it works on, and one so that it need not wait."""


class LostProcess(RuntimeError):
    """A process of the pool was killed, and its tasks were not done."""

    def __init__(self) -> None:
        super().__init__(
            "a worker process was killed, most likely for want of memory; "
            "the same command goes on, perhaps with fewer --processes"
        )


def unordered(
    make: Callable[[], Callable[[T], R]], tasks: Iterable[T], processes: int
) -> Generator[R, None, None]:
    """Results of `make()` for every task, in any order; each process calls `make` once.

    What tasks and `make()` raise comes out here, and LostProcess when a process is killed. One
    process is this one. Closing the iterator leaves undone what has not begun.
    """
    if processes == 1:
        made = functools.cache(make)
        yield from (made()(task) for task in tasks)
        return
    rest = iter(tasks)
    chunks = iter(lambda: list(itertools.islice(rest, CHUNK)), [])
    pool = ProcessPoolExecutor(processes, _context(make), _start, (make,))
    try:
        pending: set[Future[list[R]]] = set()
        for chunk in chunks:
            pending.add(pool.submit(_run, chunk))
            if len(pending) == processes * CHUNKS_AHEAD:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from _results(done)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from _results(done)
    except BrokenProcessPool as error:
        raise LostProcess from error
    finally:
        pool.shutdown(cancel_futures=True)


def _results(done: set[Future[list[R]]]) -> Iterator[R]:
    for future in done:
        yield from future.result()


def _context(make: Callable[[], Any]) -> BaseContext:
    """Processes that share what the modules of `make` import, where the system has them.

    PyTorch alone would cost each process 200 MB and seconds of importing.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, getattr(make, "func", make).__module__])
    return context


_make: Callable[[], Callable[[Any], Any]] | None = None
_function: Callable[[Any], Any] | None = None


def _start(make: Callable[[], Callable[[Any], Any]]) -> None:
    """Readies a process; `make` waits for the first task, whose failure is reported in full."""
    global _make
    _make = make
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its processes, which would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(chunk: list[Any]) -> list[Any]:
    global _function
    if _function is None:
        assert _make is not None
        _function = _make()
    return [_function(task) for task in chunk]
