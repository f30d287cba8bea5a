"""Whether memory stays flat: many mixed requests to the service on networks of a few weights.

python -m benchmarks.serving.memory [--requests 20000] [--photo FILE]

Aligned portraits, photographs, faces taken in before, sequences, archives, broken pictures and
callers that leave, from 8 callers at once. What is kept of faces is bounded so low that the bounds
are reached within the first tenth. Prints resident memory along the way and the processor time of
the idle server; the exit status is 1 where the end is more than 3 % above the first tenth, an
answer is unexpected, or the idle server takes 1 % of a core.
"""

import argparse
import asyncio
import io
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from benchmarks.serving.client import Connection, form_request, request
from benchmarks.serving.servers import Contender, Running, running
from benchmarks.serving.table import warmed
from tests.bundles import write_tiny_bundle, write_tiny_parser
from training.machine import processors

CALLERS = 8
KEPT_BYTES = 4_000_000
GROWTH = 0.03
IDLE_SHARE = 0.01
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Traffic:
    """What callers send; `wrong` counts answers that are not the ones expected."""

    port: int
    portraits: list[bytes]
    photo: bytes
    draws: Random = field(default_factory=lambda: Random(0))
    faces: list[str] = field(default_factory=list)
    sent: int = 0
    wrong: dict[str, int] = field(default_factory=dict)

    async def ask(self, connection: Connection) -> None:
        """One request of some kind, and its answer."""
        self.sent += 1
        draw = self.draws.random()
        image = self.draws.choice(self.portraits)
        fields = {"target": "50-69", "aligned": "true"}
        if draw < 0.45:
            fields["format"] = self.draws.choice(("png", "jpeg", "webp"))
            await self._expect(connection, form_request("/age", fields, image), "age", 200)
        elif draw < 0.60 and self.faces:
            form = f"face={self.draws.choice(self.faces)}&target=0-2".encode()
            await self._expect(connection, request("POST", "/age", form, **FORM), "face", 200, 404)
        elif draw < 0.70 and self.faces:
            path = f"/interpolate?face={self.draws.choice(self.faces)}&frames=4"
            accept = self.draws.choice(("image/webp", "image/gif", "video/mp4", "application/zip"))
            await self._expect(
                connection, request("GET", path, Accept=accept), "interpolate", 200, 404
            )
        elif draw < 0.80:
            fields["target"] = "all"
            await self._expect(connection, form_request("/age", fields, image), "all", 200)
        elif draw < 0.90:
            broken = image[: self.draws.randrange(20, len(image) // 2)]
            await self._expect(
                connection, form_request("/age", fields, broken), "broken", 400, 415, 422
            )
        elif draw < 0.92:
            await self._expect(connection, form_request("/age", {}, self.photo), "photo", 200, 422)
        elif draw < 0.96:
            await self._leave(form_request("/age", fields, image))
        else:
            await self._expect(connection, request("GET", "/readyz"), "ready", 200)

    async def _expect(self, connection: Connection, data: bytes, kind: str, *statuses: int) -> None:
        answer = await connection.ask(data)
        if answer.status not in statuses:
            told = f"{kind}: {answer.status}"
            self.wrong[told] = self.wrong.get(told, 0) + 1
        elif face := answer.headers.get("x-face-id"):
            self.faces = [*self.faces[-63:], face]

    async def _leave(self, data: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        writer.close()


async def served(traffic: Traffic, server: Running, requests: int) -> list[float]:
    """Resident MB after each tenth of the requests."""
    resident: list[float] = []

    async def call(until: int) -> None:
        connection = Connection(traffic.port)
        while traffic.sent < until:
            await traffic.ask(connection)
        await connection.close()

    for tenth in range(1, 11):
        started = time.perf_counter()
        await asyncio.gather(*(call(requests * tenth // 10) for _ in range(CALLERS)))
        passed = time.perf_counter() - started
        resident.append(server.resident_bytes() / 1e6)
        print(
            f"{traffic.sent:6d} requests: {resident[-1]:.1f} MB, "
            f"{requests / 10 / passed:.0f} requests/s",
            flush=True,
        )
    return resident


def portraits(count: int = 8) -> list[bytes]:
    """Pictures to send: smooth random colours, PNG."""
    made = []
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((128, 128)).save(buffer, "PNG")
        made.append(buffer.getvalue())
    return made


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--photo", type=Path, help="a photograph of a face")
    options = parser.parse_args()
    pictures = portraits()
    photo = options.photo.read_bytes() if options.photo else pictures[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_bundle(folder / "models" / "tiny")
        write_tiny_parser(folder / "parser.onnx")
        environment = {
            "BUNDLE": str(folder / "models" / "tiny"),
            "PARSER": str(folder / "parser.onnx"),
            "ANCHORAGE_FACE_STORE_BYTES": str(KEPT_BYTES),
            "ANCHORAGE_IDENTITY_CACHE_BYTES": str(KEPT_BYTES),
        }
        print(processors())
        log = folder / "server.log"
        with running(Contender("anchorage", "benchmarks.serving.ours"), log, **environment) as it:
            fields = {"target": "50-69", "aligned": "true"}
            asyncio.run(warmed(it.port, form_request("/age", fields, pictures[0])))
            traffic = Traffic(it.port, pictures, photo)
            resident = asyncio.run(served(traffic, it, options.requests))
            time.sleep(2)
            before, seconds = it.processor_s(), 10
            time.sleep(seconds)
            idle = (it.processor_s() - before) / seconds
    growth = resident[-1] / resident[0] - 1
    print(
        f"the end is {100 * growth:+.1f} % from the first tenth; idle {100 * idle:.2f} % of a core"
    )
    if traffic.wrong:
        print(f"unexpected: {traffic.wrong}")
    return 1 if traffic.wrong or growth > GROWTH or idle >= IDLE_SHARE else 0


if __name__ == "__main__":
    sys.exit(main())
