"""Servers under test: how each is started, known to be ready, and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PEERS = ("litserve", "mosec", "bentoml", "rayserve")


@dataclass(frozen=True)
class Contender:
    """A server: the module that runs it, on the Python of `environment`."""

    name: str
    module: str
    environment: str = ""
    """Folder of a virtual environment; this one's unless set"""
    path: str = "/age"
    raw: bool = False
    """Takes the picture as its body, not a form"""

    @property
    def python(self) -> str:
        """The interpreter."""
        return (
            str(Path(self.environment) / "bin" / "python") if self.environment else sys.executable
        )


OURS = Contender("anchorage", "benchmarks.serving.ours")
UNBATCHED = Contender("anchorage, batcher taken out", "benchmarks.serving.unbatched")
PLAIN = Contender("plain FastAPI", "benchmarks.serving.peers.plain")


def peer(name: str, environment: str) -> Contender:
    """One of PEERS, installed in a virtual environment."""
    if name == "mosec":
        return Contender(name, f"benchmarks.serving.peers.{name}", environment, "/inference", True)
    return Contender(name, f"benchmarks.serving.peers.{name}", environment)


@dataclass
class Running:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int

    def family(self) -> list[psutil.Process]:
        """The process and all that descend from it."""
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def resident_bytes(self) -> int:
        """Proportional resident memory of all its processes."""
        return sum(each.memory_full_info().pss for each in self.family())

    def processor_s(self) -> float:
        """Processor time of all its processes so far."""
        return sum(sum(each.cpu_times()[:2]) for each in self.family())


@contextmanager
def running(contender: Contender, log: Path, **environment: str) -> Iterator[Running]:
    """Starts a server and waits until it listens; ends it and its descendants."""
    port = _free_port()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [contender.python, "-m", contender.module, str(port)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Running(process, port)
    try:
        _wait_until_it_listens(server, contender, log)
        yield server
    finally:
        family = server.family()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        for each in family:
            if each.is_running():
                each.kill()
        psutil.wait_procs(family, 10)


def _wait_until_it_listens(server: Running, contender: Contender, log: Path) -> None:
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        if server.process.poll() is not None:
            raise RuntimeError(f"{contender.name} did not start; see {log}")
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{contender.name} does not listen; see {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
