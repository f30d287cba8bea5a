"""The end of a server: no longer ready, then no new connections, then what is under way."""

import asyncio
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.state import Service


class DrainingServer(uvicorn.Server):
    """Once told to stop, says 503 at /readyz for `drain_s` while it still answers all requests.

    Whoever sends it requests has that long to notice. A second signal ends the wait.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._stopping = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What a signal does."""
        service: Service | None = getattr(self._app.state, "service", None)
        first, self._stopping = not self._stopping, True
        if service is None or not self._drain_s or not first:
            super().handle_exit(sig, frame)
            return
        service.stopping = True
        loop, end = asyncio.get_running_loop(), super().handle_exit
        loop.call_soon_threadsafe(loop.call_later, self._drain_s, end, sig, frame)
