import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.heads import PromptProtocol

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
TIMEOUT_S = 0.4


class Impatient(PromptProtocol):
    head_timeout_s = TIMEOUT_S


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers after the body is read and twice the head's time is over."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(2 * TIMEOUT_S)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, http=Impatient, lifespan="off", log_config=None, timeout_keep_alive=60
    )
    server = uvicorn.Server(config)
    # Without its handlers of signals, which belong to a main program.
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def answered(reader: asyncio.StreamReader) -> bool:
    """Whether an answer came, and not the connection's end."""
    line = await asyncio.wait_for(reader.readline(), 20 * TIMEOUT_S)
    if not line:
        return False
    assert line.startswith(b"HTTP/1.1 204")
    await reader.readuntil(b"\r\n\r\n")
    return True


@pytest.mark.parametrize("sent", [b"", GET], ids=["nothing", "half a head"])
def test_a_head_that_does_not_come_ends_the_connection(sent: bytes):
    async def test() -> None:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            started = time.monotonic()
            writer.write(sent)
            assert not await answered(reader)
            assert time.monotonic() - started > 0.9 * TIMEOUT_S
            writer.close()

    asyncio.run(test())


def test_bytes_that_trickle_do_not_prolong_the_time():
    async def test() -> None:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            waiting = asyncio.create_task(answered(reader))
            for _ in range(200):
                if waiting.done():
                    break
                writer.write(b"A: b\r\n")
                await asyncio.sleep(TIMEOUT_S / 10)
            assert not await waiting
            writer.close()

    asyncio.run(test())


def test_slow_answers_slow_bodies_and_connections_kept_alive_are_left():
    async def test() -> None:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
            for byte in (b"a", b"b"):
                await asyncio.sleep(1.5 * TIMEOUT_S)
                writer.write(byte)
            assert await answered(reader)
            await asyncio.sleep(1.5 * TIMEOUT_S)
            writer.write(GET + b"\r\n")
            assert await answered(reader)
            writer.write(GET)
            assert not await answered(reader)
            writer.close()

    asyncio.run(test())
