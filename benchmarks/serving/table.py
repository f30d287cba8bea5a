"""Requests a second, beside other stacks on the same graphs and beside a loop without a server.

Rounds are interleaved: in each, every server is started, warmed and measured with 1, 8 and 32
callers that ask again as soon as they are answered, and the loop is measured too. Figures are
medians over rounds with the smallest and the largest; ratios are formed within a round.

python -m benchmarks.serving.table IMAGE [--bundle FOLDER] [--peers VENV] [--rounds 3] [--tiny]

`--tiny` is for what is left where networks cost nothing: bundle and parser are a few weights each.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.client import Answer, Connection, closed_loop, form_request, request
from benchmarks.serving.servers import OURS, PEERS, PLAIN, UNBATCHED, Contender, peer, running
from benchmarks.serving.work import Ageing
from tests.bundles import write_tiny_bundle, write_tiny_parser
from training.machine import processors

TARGET = "50-69"
CALLERS = (1, 8, 32)
BATCHES = (1, 2, 4, 8)


@dataclass
class Point:
    """A server under some callers in one round."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    resident_mb: float


def asked(contender: Contender, image: bytes) -> bytes:
    """The bytes of the request for a picture."""
    if contender.raw:
        return request("POST", contender.path, image)
    return form_request(contender.path, {"target": TARGET, "aligned": "true"}, image)


def bare_loop(image: bytes, seconds: float) -> float:
    """Pictures a second of a loop that reads, runs and writes, at its best batch."""
    ageing = Ageing()
    best = 0.0
    for batch in BATCHES:
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds / len(BATCHES):
            portraits = [ageing.read(image) for _ in range(batch)]
            for picture in ageing.run(portraits, [TARGET] * batch):
                ageing.write(picture)
            done += batch
        best = max(best, done / (time.perf_counter() - started))
    return best


async def warmed(port: int, data: bytes) -> None:
    """Asks until a picture comes, and then some more."""
    ends, connection = time.monotonic() + 120, Connection(port)
    while time.monotonic() < ends:
        try:
            if (await connection.ask(data)).status == 200:
                break
        except OSError:
            pass
        await asyncio.sleep(0.2)
    await connection.close()
    await closed_loop(port, data, 8, 1.5)


def percentile(answers: list[Answer], share: float) -> float:
    """Milliseconds within which that share of answers came."""
    times = sorted(answer.seconds for answer in answers)
    return 1000 * times[min(len(times) - 1, int(share * len(times)))]


def measured(
    contender: Contender, image: bytes, seconds: float, log: Path, environment: dict[str, str]
) -> dict[int, Point]:
    """A server's points of one round, by callers."""
    data = asked(contender, image)
    points = {}
    with running(contender, log, **environment) as server:
        asyncio.run(warmed(server.port, data))
        for callers in CALLERS:
            before, started = server.processor_s(), time.perf_counter()
            answers = asyncio.run(closed_loop(server.port, data, callers, seconds))
            passed = max(answer.answered_s for answer in answers) - started
            wrong = [answer.status for answer in answers if answer.status != 200]
            if wrong:
                print(f"{contender.name}, {callers} callers: {len(wrong)} answers {set(wrong)}")
            good = [answer for answer in answers if answer.status == 200]
            points[callers] = Point(
                len(good) / passed,
                percentile(good, 0.5),
                percentile(good, 0.99),
                1000 * (server.processor_s() - before) / len(good),
                server.resident_bytes() / 1e6,
            )
    return points


def shown(values: list[float], digits: int = 0) -> str:
    """The median, and smallest to largest."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def call_parser(about: str) -> argparse.ArgumentParser:
    """What the table and the probes are called with."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("image", type=Path, help="an aligned portrait")
    parser.add_argument("--bundle", type=Path, help="the bundled Lifespan model unless given")
    parser.add_argument("--peers", help="virtual environment with the peers' requirements")
    parser.add_argument("--only", nargs="*", default=list(PEERS), help=f"of {', '.join(PEERS)}")
    return parser


def peers_of(options: argparse.Namespace) -> list[Contender]:
    """The peers that a call asks for; none without their environment."""
    if not options.peers:
        return []
    return [peer(name, str(Path(options.peers).resolve())) for name in options.only]


def main() -> None:
    """Measures and prints the table."""
    parser = call_parser(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--tiny", action="store_true", help="networks of a few weights")
    options = parser.parse_args()
    image = options.image.read_bytes()
    environment = {"BUNDLE": str(options.bundle.resolve())} if options.bundle else {}
    if options.tiny:
        folder = Path(tempfile.mkdtemp())
        write_tiny_bundle(folder / "models" / "tiny")
        write_tiny_parser(folder / "parser.onnx")
        environment = {
            "BUNDLE": str(folder / "models" / "tiny"),
            "PARSER": str(folder / "parser.onnx"),
        }
    contenders = [OURS, UNBATCHED, PLAIN, *peers_of(options)]
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    print(f"{processors()}; logs of the servers: {log}")
    os.environ.update(environment)
    loops: list[float] = []
    rounds: list[dict[str, dict[int, Point]]] = []
    for number in range(options.rounds):
        order = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
        loops.append(bare_loop(image, options.seconds))
        found = {}
        for contender in order:
            found[contender.name] = measured(contender, image, options.seconds, log, environment)
            line = ", ".join(
                f"{n}: {point.per_s:.0f}" for n, point in found[contender.name].items()
            )
            print(
                f"round {number + 1}: {contender.name}: {line} /s; loop {loops[-1]:.0f}", flush=True
            )
        rounds.append(found)
    print(f"\nA loop without a server, best batch: {shown(loops)} pictures/s\n")
    columns = ["server", "callers", "per s", "of the loop", "p50 ms", "p99 ms", "CPU ms", "MB"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for contender in contenders:
        for callers in CALLERS:
            points = [found[contender.name][callers] for found in rounds]
            shares = [point.per_s / loop for point, loop in zip(points, loops, strict=True)]
            cells = [
                contender.name,
                str(callers),
                shown([point.per_s for point in points]),
                shown(shares, 2),
                shown([point.p50_ms for point in points], 1),
                shown([point.p99_ms for point in points], 1),
                f"{statistics.median(point.cpu_ms for point in points):.1f}",
                f"{statistics.median(point.resident_mb for point in points):.0f}",
            ]
            print(f"| {' | '.join(cells)} |")
    for callers in CALLERS:
        shares = [
            found[OURS.name][callers].per_s / found[UNBATCHED.name][callers].per_s
            for found in rounds
        ]
        print(f"{callers} callers: {shown(shares, 3)} of the service with its batcher taken out")


if __name__ == "__main__":
    main()
