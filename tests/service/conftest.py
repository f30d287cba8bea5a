import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from tests.bundles import write_tiny_bundle, write_tiny_parser

ROOT = Path(__file__).parents[2]


class Server:
    """A real server process and a client of it."""

    def __init__(
        self,
        log: Path,
        settings: dict[str, object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        clean = {k: v for k, v in os.environ.items() if not k.upper().startswith("ANCHORAGE_")}
        flags = {f"ANCHORAGE_{name.upper()}": str(value) for name, value in settings.items()}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "service", "serve", "--port", "0"],
                env={**clean, **flags, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self.url = self._wait(r"running on (http://\S+)")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.client = httpx.Client(base_url=self.url, timeout=60)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> None:
        for _ in range(600):
            if self.client.get("/readyz").status_code == 200:
                return
            time.sleep(0.05)
        raise RuntimeError(f"the server is not ready\n{self.log}")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.client.get("/metrics").text.splitlines():
            match = re.fullmatch(r"anchorage_(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name:
                found = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                if labels.items() <= found.items():
                    total += float(match[3])
        return total

    def stop(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)

    def _wait(self, pattern: str) -> str:
        for _ in range(600):
            if match := re.search(pattern, self.log):
                return match[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start\n{self.log}")


@pytest.fixture(scope="session")
def parser_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parser") / "parser.onnx"
    write_tiny_parser(path)
    return path


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle, `tiny`."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_bundle(folder / "tiny")
    return folder


@pytest.fixture(scope="session")
def working_models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle, `tiny`, whose decoder takes some 20 ms a picture on one thread."""
    folder = tmp_path_factory.mktemp("working-models")
    write_tiny_bundle(folder / "tiny", work=6)
    return folder


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path, models_folder: Path, parser_file: Path) -> Iterator[StartServer]:
    """Starts servers with settings of their own; they end with the test."""
    servers: list[Server] = []

    def start(
        *, ready: bool = True, environment: Mapping[str, str] | None = None, **settings: object
    ) -> Server:
        defaults = {"models": models_folder, "parser": parser_file, "provider": "cpu"}
        log = tmp_path / f"server-{len(servers)}.log"
        server = Server(log, {**defaults, **settings}, environment)
        servers.append(server)
        if ready:
            server.wait_until_ready()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, models_folder: Path, parser_file: Path
) -> Iterator[Server]:
    """A server that tests share, with the default settings and a tiny model."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    settings = {"models": models_folder, "parser": parser_file, "provider": "cpu"}
    running = Server(log, settings)
    running.wait_until_ready()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """A photo (512, 512, 3) of one person."""
    return data.astronaut()


@pytest.fixture(scope="session")
def photo(astronaut: NDArray[np.uint8]) -> bytes:
    """That photo as a JPEG."""
    return encoded(Image.fromarray(astronaut), "JPEG", quality=95)


@pytest.fixture(scope="session")
def portrait(astronaut: NDArray[np.uint8]) -> bytes:
    """A ready portrait, 173 px square, as a PNG."""
    return encoded(Image.fromarray(astronaut[16:189, 138:311]), "PNG")


class Exiftool:
    """A reader and writer of metadata that is not the service's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """Each file's tags by their full names, and what validating it found."""
        for name, content in files.items():
            (self._folder / name).write_bytes(content)
        done = self._run("-json", "-G1", "-a", "-validate", "-warning", "-error", "-all", *files)
        found = json.loads(done.stdout)
        return {each.pop("SourceFile"): each for each in found}

    def write(self, jpeg: bytes, *tags: str) -> bytes:
        """The file with `tags`, such as `-XMP-dc:Creator=Ann`."""
        path = self._folder / "written.jpg"
        path.write_bytes(jpeg)
        self._run("-overwrite_original", *tags, path.name).check_returncode()
        return path.read_bytes()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["exiftool", *arguments], cwd=self._folder, capture_output=True, text=True
        )


@pytest.fixture
def exiftool(tmp_path: Path) -> Exiftool:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    return Exiftool(tmp_path)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def pixels(picture: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
