import asyncio
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.portraits.align import Alignment
from service.errors import StoreUnavailable, UnknownFace
from service.faces import (
    CutPortrait,
    Face,
    FoundFace,
    MemoryFaceStore,
    RedisFaceStore,
    from_bytes,
    new_face_id,
    open_store,
    to_bytes,
)
from tests.conftest import RedisProcess


def face_of(side: int = 8, *, photo: bytes | None = None, ttl_s: float = 60) -> Face:
    rng = np.random.default_rng(side)
    cut = CutPortrait(
        rng.integers(0, 256, (side, side, 3), np.uint8),
        rng.integers(0, 256, (side, side), np.uint8),
        Alignment(side, 1.5, -2.25, 3.0, 0.125),
    )
    found = (FoundFace((1.0, 2.0, 3.0, 4.5), 1.25), FoundFace((0.0, 0.0, 1.0, 1.0), 0.5))
    return Face({"cut": cut}, 640, 480, found, 1, True, photo, time.time() + ttl_s)


def assert_equal(one: Face, other: Face) -> None:
    assert replace(one, portraits={}).__dict__ == replace(other, portraits={}).__dict__
    assert one.portraits.keys() == other.portraits.keys()
    for key, cut in one.portraits.items():
        np.testing.assert_array_equal(cut.pixels, other.portraits[key].pixels)
        np.testing.assert_array_equal(cut.kept, other.portraits[key].kept)
        assert cut.alignment == other.portraits[key].alignment


@given(side=st.integers(1, 20), photo=st.none() | st.binary(max_size=300))
def test_a_face_survives_its_bytes(side: int, photo: bytes | None):
    face = face_of(side, photo=photo)
    assert_equal(from_bytes(to_bytes(face)), face)


def test_a_face_without_findings_survives_its_bytes():
    face = replace(face_of(), found=(), index=None)
    assert_equal(from_bytes(to_bytes(face)), face)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.99])
def test_cut_off_bytes_are_refused(share: float):
    data = to_bytes(face_of(photo=b"photo" * 20))
    with pytest.raises(ValueError):
        from_bytes(data[: int(share * len(data))])


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes):
    with pytest.raises(ValueError):
        from_bytes(data)


def test_ids_are_long_and_distinct():
    ids = {new_face_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", face_id) for face_id in ids)


def test_memory_gives_back_what_was_put_until_it_is_deleted():
    async def test() -> None:
        store = MemoryFaceStore(60, 10**6)
        face = face_of()
        await store.put("a", face)
        assert await store.get("a") is face
        await store.delete("a")
        for call in (store.get, store.delete):
            with pytest.raises(UnknownFace):
                await call("a")
        assert store.used_bytes == 0

    asyncio.run(test())


def test_memory_is_bounded_and_the_least_recently_used_leaves_first():
    async def test() -> None:
        evicted = []
        store = MemoryFaceStore(60, 150_000, lambda: evicted.append(1))
        for name in ("a", "b", "c"):
            await store.put(name, face_of(100))
        await store.get("a")
        await store.put("d", face_of(100))
        assert evicted == [1]
        assert store.used_bytes <= 150_000
        with pytest.raises(UnknownFace):
            await store.get("b")
        await store.get("a")

    asyncio.run(test())


def test_a_kept_photo_counts_in_memory_s_bound():
    async def test() -> None:
        store = MemoryFaceStore(60, 10_000)
        with pytest.raises(StoreUnavailable):
            await store.put("a", face_of(photo=b"x" * 10_000))

    asyncio.run(test())


def test_memory_forgets_what_expired():
    async def test() -> None:
        store = MemoryFaceStore(60, 10**6)
        await store.put("a", face_of(ttl_s=-1))
        await store.put("b", face_of(ttl_s=-1))
        with pytest.raises(UnknownFace):
            await store.get("a")
        await store.drop_expired()
        assert store.used_bytes == 0

    asyncio.run(test())


def test_redis_gives_back_what_was_put_until_it_is_deleted(redis_process: RedisProcess):
    async def test() -> None:
        store = open_store(redis_process.url, 60, 0)
        other = open_store(redis_process.url, 60, 0)
        face_id, face = new_face_id(), face_of(photo=b"photo")
        await store.put(face_id, face)
        assert_equal(await other.get(face_id), face)
        await other.delete(face_id)
        for call in (store.get, store.delete):
            with pytest.raises(UnknownFace):
                await call(face_id)
        await store.close()
        await other.close()

    asyncio.run(test())


def test_redis_forgets_a_face_by_itself(redis_process: RedisProcess):
    async def test() -> None:
        store = RedisFaceStore(redis_process.url, 60)
        face_id = new_face_id()
        await store.put(face_id, face_of(ttl_s=0.2))
        await asyncio.sleep(0.3)
        with pytest.raises(UnknownFace):
            await store.get(face_id)
        await store.close()

    asyncio.run(test())


@pytest.mark.parametrize("face_id", ["", "a", "*", "../x", "x" * 33, "é" * 32])
def test_redis_is_not_asked_for_what_is_no_id(face_id: str):
    async def test() -> None:
        store = RedisFaceStore("redis://127.0.0.1:1/0", 60)
        with pytest.raises(UnknownFace):
            await store.get(face_id)
        with pytest.raises(UnknownFace):
            await store.delete(face_id)
        await store.close()

    asyncio.run(test())


def test_a_redis_that_is_gone_is_unavailable_and_comes_back(redis_process: RedisProcess):
    async def test() -> None:
        store = RedisFaceStore(redis_process.url, 60)
        await store.check()
        redis_process.stop()
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.put(new_face_id(), face_of())
        with pytest.raises(StoreUnavailable):
            await store.get(new_face_id())
        with pytest.raises(StoreUnavailable):
            await store.delete(new_face_id())
        with pytest.raises(StoreUnavailable):
            await store.check()
        assert time.monotonic() - started < 2
        redis_process.start()
        face_id = new_face_id()
        await store.put(face_id, face_of())
        await store.get(face_id)
        await store.close()

    asyncio.run(test())


def test_a_face_of_another_version_is_unknown(redis_process: RedisProcess):
    async def test() -> None:
        store = RedisFaceStore(redis_process.url, 60)
        face_id = new_face_id()
        await store._redis.set(RedisFaceStore.PREFIX + face_id, b"\x80\x04pickle")
        with pytest.raises(UnknownFace):
            await store.get(face_id)
        await store.close()

    asyncio.run(test())
