import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from model.portraits.gate import WIDTH, gated


class Room:
    """Counts who is in it at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def stay(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.01)
        with self._lock:
            self.inside -= 1


def test_few_threads_are_let_through_at_once() -> None:
    room = Room()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: gated(room.stay)(), range(24)))
    assert room.most == WIDTH


def test_work_within_such_work_waits_for_nobody() -> None:
    room = Room()
    outer = gated(gated(room.stay))
    with ThreadPoolExecutor(8) as threads:
        done = [threads.submit(outer) for _ in range(24)]
        for each in done:
            each.result(timeout=20)
    assert room.most == WIDTH


def test_work_that_fails_leaves_the_gate_open() -> None:
    @gated
    def fail() -> None:
        raise ValueError("no such picture")

    for _ in range(3 * WIDTH):
        with pytest.raises(ValueError, match="no such picture"):
            fail()
    assert gated(lambda: 7)() == 7
