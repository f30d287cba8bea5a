"""Encoded faces of this process: each is encoded once, however many ask for it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Identity = NDArray[np.generic]
Key = tuple[str, str]
"""Face id; digest of the bundle with the provider, whose arithmetic may differ."""


@dataclass
class _Encoding:
    task: "asyncio.Task[Identity]"
    waiters: int = 0


class IdentityCache:
    """Identities by face and model, the least recently used leave first.

    Bounded by `max_bytes`; none is kept longer than `ttl_s`, which is the faces' own.
    """

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self.used_bytes = 0
        self._kept: OrderedDict[Key, tuple[Identity, float]] = OrderedDict()
        self._encoding: dict[Key, _Encoding] = {}

    def get(self, key: Key) -> Identity | None:
        """The identity, if it is kept and fresh."""
        found = self._kept.get(key)
        if found is None:
            return None
        identity, expires_s = found
        if expires_s <= time.monotonic():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return identity

    async def get_or_encode(self, key: Key, encode: Callable[[], Awaitable[Identity]]) -> Identity:
        """The identity, encoded where it is not kept.

        Callers that ask meanwhile share one encoding; it is cancelled when all of them have left.
        """
        identity = self.get(key)
        if identity is not None:
            return identity
        encoding = self._encoding.get(key)
        if encoding is None:
            encoding = _Encoding(asyncio.ensure_future(self._encode(key, encode)))
            self._encoding[key] = encoding
        encoding.waiters += 1
        try:
            return await asyncio.shield(encoding.task)
        finally:
            encoding.waiters -= 1
            if not encoding.waiters and not encoding.task.done():
                encoding.task.cancel()
                self._forget(key, encoding)

    def drop_face(self, face_id: str) -> None:
        """Forgets a face in all models."""
        for key in [key for key in self._kept if key[0] == face_id]:
            self._drop(key)
        # What is being encoded still answers those who wait, and is not kept.
        for key in [key for key in self._encoding if key[0] == face_id]:
            del self._encoding[key]

    def drop_expired(self) -> None:
        """Forgets what is older than its time to live."""
        now = time.monotonic()
        for key in [key for key, (_, expires_s) in self._kept.items() if expires_s <= now]:
            self._drop(key)

    async def _encode(self, key: Key, encode: Callable[[], Awaitable[Identity]]) -> Identity:
        mine = self._encoding[key]
        try:
            identity = await encode()
            if self._encoding.get(key) is mine:
                self._keep(key, identity)
            return identity
        finally:
            self._forget(key, mine)

    def _forget(self, key: Key, encoding: _Encoding) -> None:
        if self._encoding.get(key) is encoding:
            del self._encoding[key]

    def _keep(self, key: Key, identity: Identity) -> None:
        if identity.nbytes > self.max_bytes:
            return
        self._drop(key)
        self._kept[key] = (identity, time.monotonic() + self.ttl_s)
        self.used_bytes += identity.nbytes
        while self.used_bytes > self.max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.used_bytes -= found[0].nbytes
