import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from training.pool import CHUNK, CHUNKS_AHEAD, LostProcess, unordered

ROOT = Path(__file__).parents[2]
UNTIL_KILLED = """
import os, time
from pathlib import Path
from training.pool import unordered

def make():
    def task(folder):
        Path(folder, str(os.getpid())).touch()
        time.sleep(60)
    return task

if __name__ == "__main__":
    list(unordered(make, ["{folder}"] * 8, 2))
"""


def squares():
    return lambda number: (number**2, os.getpid())


def no_tools():
    raise FileNotFoundError("there is no parser")


class Refusing:
    """Does its task, but for one."""

    def __init__(self, refused: int, killed: bool) -> None:
        self.refused, self.killed = refused, killed

    def __call__(self, number: int) -> int:
        if number == self.refused:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ZeroDivisionError(number)
        return number


@pytest.mark.parametrize("processes", [1, 2])
def test_every_task_is_done_once(processes):
    results = list(unordered(squares, range(50), processes))
    assert sorted(square for square, _ in results) == [number**2 for number in range(50)]
    assert (os.getpid() in {process for _, process in results}) == (processes == 1)


def test_tasks_are_drawn_only_as_they_are_needed():
    drawn = 0

    def tasks():
        nonlocal drawn
        for number in range(10_000):
            drawn += 1
            yield number

    results = unordered(squares, tasks(), 2)
    next(results)
    results.close()
    assert drawn <= 2 * CHUNKS_AHEAD * CHUNK


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_task_raises_comes_out(processes):
    with pytest.raises(ZeroDivisionError, match="7"):
        list(unordered(partial(Refusing, 7, False), range(20), processes))


@pytest.mark.parametrize("processes", [1, 2])
def test_tools_that_cannot_be_made_are_told_in_their_own_words(processes):
    with pytest.raises(FileNotFoundError, match="there is no parser"):
        list(unordered(no_tools, range(20), processes))


def test_a_killed_process_is_an_error_and_no_endless_wait():
    with pytest.raises(LostProcess, match="memory"):
        list(unordered(partial(Refusing, 7, True), range(20), 2))


def test_processes_end_when_their_parent_was_killed(tmp_path):
    script, pids = tmp_path / "until_killed.py", tmp_path / "pids"
    pids.mkdir()
    script.write_text(UNTIL_KILLED.format(folder=pids))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script], env=environment)
    try:
        assert _within_30_s(lambda: len(list(pids.iterdir())) == 2)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(file.name) for file in pids.iterdir()]
    assert _within_30_s(lambda: not any(_runs(worker) for worker in workers))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _within_30_s(condition) -> bool:
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False
