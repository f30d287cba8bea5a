"""A gate for work of many short operations, at which many threads only hinder each other."""

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

WIDTH = 2
"""Threads that are let through at once."""

_gate = threading.BoundedSemaphore(WIDTH)
_inside = threading.local()


def gated(work: Callable[P, R]) -> Callable[P, R]:
    """`work`, which few threads do at once; others wait.

    Array operations let go of the interpreter's lock, and each of many threads waits for it again
    after every one. Work that is done within other such work needs no second turn.
    """

    @functools.wraps(work)
    def through(*args: P.args, **kwargs: P.kwargs) -> R:
        if getattr(_inside, "yes", False):
            return work(*args, **kwargs)
        with _gate:
            _inside.yes = True
            try:
                return work(*args, **kwargs)
            finally:
                _inside.yes = False

    return through
