import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar, cast

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

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
async def served(
    app: ASGIApp = app, protocol: type[PromptProtocol] = Impatient
) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, http=protocol, lifespan="off", log_config=None, timeout_keep_alive=60
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


class Recorder:
    """A transport that notes in which pieces it was written to."""

    pieces: ClassVar[list[bytes]] = []

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.pieces.append(data)
        self._transport.write(data)


class Recorded(PromptProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.BaseTransport, Recorder(transport)))


async def sent(app: ASGIApp) -> list[bytes]:
    """The pieces in which an answer was sent, which arrived whole."""
    Recorder.pieces = []
    async with served(app, Recorded) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + b"Connection: close\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 20) == b"".join(Recorder.pieces)
        writer.close()
    return Recorder.pieces


def test_an_answer_leaves_in_one_piece_and_a_stream_in_those_that_it_comes_in():
    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"Clara", "more_body": True})
        await send({"type": "http.response.body", "body": b"Anna"})

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for name in (b"Clara", b"Anna"):
            await send({"type": "http.response.body", "body": name, "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b""})

    (piece,) = asyncio.run(sent(whole))
    assert piece.startswith(b"HTTP/1.1 200")
    assert piece.endswith(b"5\r\nClara\r\n4\r\nAnna\r\n0\r\n\r\n")
    pieces = asyncio.run(sent(stream))
    assert pieces[0].endswith(b"\r\n\r\n5\r\nClara\r\n")
    assert pieces[1:] == [b"4\r\nAnna\r\n", b"0\r\n\r\n"]


def test_long_answers_arrive_whole():
    parts = [bytes([number]) * 50_000 for number in range(100)]

    async def long(scope: Scope, receive: Receive, send: Send) -> None:
        length = str(sum(map(len, parts))).encode()
        headers = [(b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    answer = b"".join(asyncio.run(sent(long)))
    assert answer.partition(b"\r\n\r\n")[2] == b"".join(parts)
