"""HTTP/1.1 as uvicorn speaks it, with a bound on how long a request's head may take to come.

An answer's head and what follows it at once leave in one piece.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol


class Gathering:
    """A transport that sends what is written within one turn of the event loop in one piece.

    uvicorn writes an answer's head, its body and its end one after the other. Sent so, they cost
    three calls to the system, and nginx drops an answer whose body follows its head in a piece of
    its own just when the last of the request's body goes the other way.
    """

    most_bytes = 1 << 16

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends before the loop's next turn, at once where `most_bytes` have come together."""
        if not data:
            return
        if not self._pieces:
            self._loop.call_soon(self._send)
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes >= self.most_bytes:
            self._send()

    def close(self) -> None:
        """Sends what was written, then closes."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        pieces, self._pieces, self._bytes = self._pieces, [], 0
        if pieces:
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))


class PromptProtocol(H11Protocol):
    """Closes a connection on which no whole request head comes within `head_timeout_s`.

    The time begins when the connection is made and, after an answer, with the next head's first
    byte: until that byte the server's own timeout for connections kept alive holds.
    """

    head_timeout_s = 15.0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for a head."""
        gathering = Gathering(cast(asyncio.Transport, transport), self.loop)
        super().connection_made(cast(asyncio.Transport, gathering))
        self._follow()

    def data_received(self, data: bytes) -> None:
        """Reads; a head that is whole ends the wait, the first byte of the next one begins it."""
        super().data_received(data)
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        super().connection_lost(exc)
        self._stop()

    def _follow(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def _stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
