"""HTTP/1.1 as uvicorn speaks it, with a bound on how long a request's head may take to come."""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol


class PromptProtocol(H11Protocol):
    """Closes a connection on which no whole request head comes within `head_timeout_s`.

    The time begins when the connection is made and, after an answer, with the next head's first
    byte: until that byte the server's own timeout for connections kept alive holds.
    """

    head_timeout_s = 15.0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for a head."""
        super().connection_made(cast(asyncio.Transport, transport))
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
