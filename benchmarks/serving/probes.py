"""How servers behave when something is wrong: broken pictures, callers that leave, crowds, an end.

python -m benchmarks.serving.probes IMAGE [--bundle FOLDER] [--peers VENV]
"""

import asyncio
import os
import re
import signal
import tempfile
import time
from pathlib import Path

from benchmarks.serving.client import Answer, Connection, request
from benchmarks.serving.servers import OURS, PLAIN, Contender, Running, running
from benchmarks.serving.table import asked, call_parser, peers_of, percentile, warmed
from training.machine import processors

DEADLINE_S = 4.0


async def answers_of(port: int, requests: list[bytes]) -> list[Answer | OSError]:
    """Answers of requests sent at once, each on a connection of its own."""

    async def one(data: bytes) -> Answer | OSError:
        connection = Connection(port)
        try:
            return await connection.ask(data)
        except OSError as error:
            return error
        finally:
            await connection.close()

    return list(await asyncio.gather(*(one(data) for data in requests)))


def good(answers: list[Answer | OSError]) -> list[Answer]:
    """Those that are pictures."""
    return [each for each in answers if isinstance(each, Answer) and each.status == 200]


async def beside_broken(port: int, fine: bytes, broken: bytes) -> str:
    """Six times, seven good requests beside one broken: how many of 42 were answered."""
    served, told = 0, set()
    for _ in range(6):
        answers = await answers_of(port, [fine] * 3 + [broken] + [fine] * 4)
        bad = answers.pop(3)
        told.add(bad.status if isinstance(bad, Answer) else "no answer")
        served += len(good(answers))
    return f"{served} of 42 good requests answered; the broken one: {told}"


async def after_abandoned(port: int, fine: bytes) -> str:
    """How long a request takes after 80 callers have left, and alone."""
    connection = Connection(port)
    alone = sorted([(await connection.ask(fine)).seconds for _ in range(7)])[3]
    streams = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(80)))
    for _, writer in streams:
        writer.write(fine)
    await asyncio.gather(*(writer.drain() for _, writer in streams))
    await asyncio.sleep(0.1)
    for _, writer in streams:
        writer.close()
    later = (await connection.ask(fine)).seconds
    await connection.close()
    return f"{1000 * later:.0f} ms after 80 abandoned requests, {1000 * alone:.0f} ms alone"


async def crowd(port: int, contender: Contender, image: bytes, log: Path) -> str:
    """300 at once: who was served, when, and how fast the others were refused.

    Our own log tells the time from headers read to answer; for others the client's clock stands.
    """
    logged = log.stat().st_size
    plain = asked(contender, image)
    data = plain.replace(b"\r\n\r\n", f"\r\nX-Timeout-S: {DEADLINE_S}\r\n\r\n".encode(), 1)
    answers = await answers_of(port, [data] * 300)
    served = good(answers)
    known = [each for each in answers if isinstance(each, Answer)]
    refused = [each for each in known if each.status in (429, 503)]
    late = [each for each in served if each.seconds > DEADLINE_S]
    text = f"300 at once: {len(served)} served, the last after "
    text += f"{max((each.seconds for each in served), default=0):.1f} s ({len(late)} late)"
    if refused:
        text += f"; {len(refused)} refused, p95 {percentile(refused, 0.95):.0f} ms for the client"
        lines = log.read_bytes()[logged:].decode(errors="replace")
        inside = sorted(float(each) for each in re.findall(r" 503 (\d+\.\d+) s ", lines))
        if inside:
            p95 = 1000 * inside[int(0.95 * len(inside))]
            text += f", {p95:.0f} ms from its headers ({len(inside)} log lines)"
    others = len(answers) - len(served) - len(refused)
    return text + (f"; {others} otherwise: " + str(_kinds(answers)) if others else "")


def _kinds(answers: list[Answer | OSError]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in answers:
        kind = str(each.status) if isinstance(each, Answer) else "no answer"
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def idle(server: Running, seconds: float = 5) -> str:
    """Share of a core that an idle server uses."""
    before = server.processor_s()
    time.sleep(seconds)
    return f"idle: {100 * (server.processor_s() - before) / seconds:.1f} % of a core"


async def _asked_then_ended(server: Running, fine: bytes) -> list[Answer | OSError]:
    waiting = asyncio.ensure_future(answers_of(server.port, [fine] * 16))
    await asyncio.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    return await waiting


def ending(server: Running, fine: bytes) -> str:
    """SIGTERM with 16 requests under way."""
    family = server.family()
    started = time.perf_counter()
    answers = asyncio.run(_asked_then_ended(server, fine))
    try:
        code: int | str = server.process.wait(30)
    except Exception:
        code = "none after 30 s"
    seconds = time.perf_counter() - started
    orphans = [each for each in family if each.is_running() and each.status() != "zombie"]
    return (
        f"SIGTERM: {len(good(answers))} of 16 answered, exit {code} after {seconds:.1f} s, "
        f"{len(orphans)} processes left"
    )


async def beside_a_film(port: int, image: bytes) -> str:
    """A single picture's median time, idle and while a film of 240 frames is made (ours alone)."""
    connection = Connection(port)
    taken = await connection.ask(asked(OURS, image))
    face = taken.headers["x-face-id"]
    form = f"face={face}&target=50-69".encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    single = request("POST", "/age", form, **kind)
    alone = [await connection.ask(single) for _ in range(30)]
    film = request("GET", f"/interpolate?face={face}&frames=240", Accept="application/zip")
    filming = asyncio.ensure_future(Connection(port).ask(film))
    await asyncio.sleep(0.05)
    beside = []
    while not filming.done():
        beside.append(await connection.ask(single))
    seconds = (await filming).seconds
    listed = (await connection.ask(request("GET", "/models"))).body.decode()
    await connection.close()
    return (
        f"a picture takes {percentile(alone, 0.5):.1f} ms alone, {percentile(beside, 0.5):.1f} ms "
        f"beside a film of 240 frames ({len(beside)} pictures in {seconds:.1f} s); runs cost "
        f"{listed[listed.index('runs') + 6 : listed.index('runs') + 220]}"
    )


def probed(contender: Contender, image: bytes, log: Path, environment: dict[str, str]) -> None:
    """Prints all probes of a server."""
    fine = asked(contender, image)
    broken = asked(contender, image[: len(image) // 2])
    with running(contender, log, **environment) as server:
        asyncio.run(warmed(server.port, fine))
        print(f"{contender.name}")
        for line in (
            asyncio.run(beside_broken(server.port, fine, broken)),
            asyncio.run(after_abandoned(server.port, fine)),
            asyncio.run(crowd(server.port, contender, image, log)),
        ):
            print(f"  {line}", flush=True)
        time.sleep(2)
        print(f"  {idle(server)}")
        if contender is OURS:
            print(f"  {asyncio.run(beside_a_film(server.port, image))}")
        print(f"  {ending(server, fine)}", flush=True)


def main() -> None:
    """Probes the service and its peers."""
    options = call_parser(__doc__ or "").parse_args()
    image = options.image.read_bytes()
    environment = {"BUNDLE": str(options.bundle.resolve())} if options.bundle else {}
    os.environ.update(environment)
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    print(f"{processors()}; logs of the servers: {log}")
    for contender in [OURS, PLAIN, *peers_of(options)]:
        probed(contender, image, log, environment)


if __name__ == "__main__":
    main()
