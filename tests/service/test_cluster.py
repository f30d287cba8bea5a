"""Replicas of the service on Ray Serve; `make test-cluster` runs this, where Ray is installed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from service.cluster import Scale, application
from service.settings import Settings, SettingsError
from tests.conftest import RedisProcess, free_port

pytest.importorskip("ray", reason="the extra `cluster` is not installed")
# Ray's own use of pydantic is out of date.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(tmp_path: Path, models_folder: Path, parser_file: Path, redis_process: RedisProcess):
    """Two replicas behind one address, by the command that a user calls."""
    port = free_port()
    command = [
        sys.executable, "-m", "service", "cluster", "--replicas", "2", "--processors", "0.5",
        "--port", str(port), "--models", str(models_folder), "--parser", str(parser_file),
        "--face-store", redis_process.url, "--provider", "cpu",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not ready(url):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.3)
        yield url, process.pid
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        for each in family:
            if each.is_running():
                each.kill()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def replicas(parent: int) -> list[psutil.Process]:
    return [
        each
        for each in psutil.Process(parent).children(recursive=True)
        if "ServeReplica" in " ".join(each.cmdline()) and each.status() != "zombie"
    ]


def test_any_replica_answers_for_a_face_and_a_killed_one_loses_no_request(cluster, portrait: bytes):
    url, parent = cluster
    assert len(replicas(parent)) == 2
    taken = httpx.post(f"{url}/faces", data={"aligned": "true"}, files={"image": portrait})
    assert taken.status_code == 201
    asked = {"face": taken.headers["x-face-id"], "target": "50-69"}
    first = httpx.post(f"{url}/age", data=asked).content
    film = httpx.get(f"{url}/interpolate", params={"face": asked["face"], "frames": 4})
    assert film.status_code == 200

    outcomes: Counter[str] = Counter()
    ends = time.monotonic() + 8

    def ask() -> None:
        while time.monotonic() < ends:
            for attempt in range(2):
                try:
                    answer = httpx.post(f"{url}/age", data=asked, timeout=30)
                except httpx.HTTPError:
                    continue
                if answer.status_code == 200:
                    assert answer.content == first
                    outcomes["at once" if attempt == 0 else "at the second try"] += 1
                    break
                time.sleep(1)
            else:
                outcomes["lost"] += 1

    callers = [threading.Thread(target=ask) for _ in range(6)]
    for caller in callers:
        caller.start()
    time.sleep(3)
    replicas(parent)[0].kill()
    for caller in callers:
        caller.join()
    assert outcomes["lost"] == 0
    assert outcomes["at once"] > 20
    deadline = time.monotonic() + 60
    while len(replicas(parent)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_replicas_without_a_shared_store_are_refused():
    with pytest.raises(SettingsError, match="FACE_STORE"):
        application(Settings.load(), {}, Scale(2, 2))


@pytest.mark.parametrize("numbers", [(0, 1), (2, 1), (1, 1, -0.5), (1, 1, 0.0, 0.0)])
def test_impossible_numbers_are_refused(numbers):
    with pytest.raises(SettingsError, match="--"):
        Scale(*numbers)
