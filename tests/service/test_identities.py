import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from service.identities import Identity, IdentityCache

IDENTITY = np.zeros(100, np.uint8)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))  # type: ignore[arg-type]


class Encoder:
    """Gives identities of 100 bytes once `go` is set, and counts."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.started = self.cancelled = 0

    async def __call__(self) -> Identity:
        self.started += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return IDENTITY


def test_callers_at_once_share_one_encoding():
    async def test() -> None:
        cache, encoder = IdentityCache(1000, 60), Encoder()
        tasks = [
            asyncio.ensure_future(cache.get_or_encode(("face", "model"), encoder)) for _ in range(5)
        ]
        await asyncio.sleep(0)
        encoder.go.set()
        assert all(identity is IDENTITY for identity in await asyncio.gather(*tasks))
        assert await cache.get_or_encode(("face", "model"), encoder) is IDENTITY
        assert encoder.started == 1

    run(test)


def test_an_encoding_goes_on_while_one_caller_waits():
    async def test() -> None:
        cache, encoder = IdentityCache(1000, 60), Encoder()
        leaves = asyncio.ensure_future(cache.get_or_encode(("face", "model"), encoder))
        stays = asyncio.ensure_future(cache.get_or_encode(("face", "model"), encoder))
        await asyncio.sleep(0.01)
        leaves.cancel()
        await asyncio.sleep(0.01)
        encoder.go.set()
        assert await stays is IDENTITY
        assert encoder.cancelled == 0

    run(test)


def test_an_encoding_ends_when_all_its_callers_left():
    async def test() -> None:
        cache, encoder = IdentityCache(1000, 60), Encoder()
        tasks = [
            asyncio.ensure_future(cache.get_or_encode(("face", "model"), encoder)) for _ in range(3)
        ]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert encoder.cancelled == 1
        encoder.go.set()
        assert await cache.get_or_encode(("face", "model"), encoder) is IDENTITY

    run(test)


def test_a_failure_reaches_every_caller_and_is_not_kept():
    async def test() -> None:
        cache = IdentityCache(1000, 60)

        async def fail() -> Identity:
            raise RuntimeError("no")

        tasks = [cache.get_or_encode(("face", "model"), fail) for _ in range(2)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, RuntimeError) for result in results)
        encoder = Encoder()
        encoder.go.set()
        assert await cache.get_or_encode(("face", "model"), encoder) is IDENTITY

    run(test)


def test_the_least_recently_used_leaves_first():
    async def test() -> None:
        cache, encoder = IdentityCache(250, 60), Encoder()
        encoder.go.set()
        for face in ("a", "b"):
            await cache.get_or_encode((face, "model"), encoder)
        cache.get(("a", "model"))
        await cache.get_or_encode(("c", "model"), encoder)
        assert cache.get(("b", "model")) is None
        assert cache.get(("a", "model")) is not None
        assert cache.used_bytes == 200

    run(test)


def test_what_is_too_large_is_given_but_not_kept():
    async def test() -> None:
        cache, encoder = IdentityCache(50, 60), Encoder()
        encoder.go.set()
        assert await cache.get_or_encode(("a", "model"), encoder) is IDENTITY
        assert cache.get(("a", "model")) is None

    run(test)


def test_identities_expire(monkeypatch: pytest.MonkeyPatch):
    async def test() -> None:
        cache, encoder = IdentityCache(1000, 60), Encoder()
        encoder.go.set()
        await cache.get_or_encode(("a", "model"), encoder)
        later = time.monotonic() + 61
        monkeypatch.setattr("service.identities.time.monotonic", lambda: later)
        cache.drop_expired()
        assert cache.used_bytes == 0

    run(test)


def test_a_deleted_face_is_forgotten_in_all_models_even_while_it_is_encoded():
    async def test() -> None:
        cache, encoder = IdentityCache(1000, 60), Encoder()
        encoder.go.set()
        await cache.get_or_encode(("a", "one"), encoder)
        await cache.get_or_encode(("b", "one"), encoder)
        encoder.go.clear()
        late = asyncio.ensure_future(cache.get_or_encode(("a", "two"), encoder))
        await asyncio.sleep(0.01)
        cache.drop_face("a")
        encoder.go.set()
        assert await late is IDENTITY
        assert cache.get(("a", "one")) is None
        assert cache.get(("a", "two")) is None
        assert cache.get(("b", "one")) is not None

    run(test)
