"""Faces kept between requests: in this process's memory, or in Redis for several replicas.

A face is biometric data: it is kept under an id that cannot be guessed, for a bounded time, in
bounded space, and is gone when it is deleted. Nothing is written to disk.
"""

import asyncio
import json
import re
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import redis.asyncio
from numpy.typing import NDArray
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from model.portraits.align import Alignment
from service.errors import StoreUnavailable, UnknownFace

MAGIC = b"ANCHFACE"
FORMAT = 1
_ID = re.compile(r"[A-Za-z0-9_-]{32}")
_HEADER = struct.Struct(">8sHI")


def new_face_id() -> str:
    """32 characters, 192 random bits."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class FoundFace:
    """A face of a photo: `box` (left, top, right, bottom) in photo pixels."""

    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, eq=False)
class CutPortrait:
    """A portrait (R, R, 3) RGB as it lies in the photo, before anything is painted grey.

    `kept` (R, R), 0 to 255, is how much of each pixel the model sees and paints.
    """

    pixels: NDArray[np.uint8]
    kept: NDArray[np.uint8]
    alignment: Alignment


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photo, ready for every model whose cut is a key of `portraits`.

    `index` is its place in `found`; both are empty for a ready portrait. `photo` is the caller's
    file where it was to be kept.
    """

    portraits: dict[str, CutPortrait]
    width: int
    height: int
    found: tuple[FoundFace, ...] = ()
    index: int | None = None
    animated: bool = False
    photo: bytes | None = None
    expires_s: float = 0.0
    """Seconds since 1970."""


def to_bytes(face: Face) -> bytes:
    """The face as bytes: a header, a JSON document, then the arrays it lists."""
    arrays: list[NDArray[np.uint8]] = []
    portraits = []
    for key, cut in face.portraits.items():
        portraits.append(
            {"key": key, "side": cut.pixels.shape[0], "alignment": cut.alignment.to_dict()}
        )
        arrays += [cut.pixels, cut.kept]
    document = {
        "portraits": portraits,
        "width": face.width,
        "height": face.height,
        "found": [asdict(each) for each in face.found],
        "index": face.index,
        "animated": face.animated,
        "photo_bytes": None if face.photo is None else len(face.photo),
        "expires_s": face.expires_s,
    }
    text = json.dumps(document).encode()
    parts = [_HEADER.pack(MAGIC, FORMAT, len(text)), text]
    parts += [array.tobytes() for array in arrays]
    parts.append(face.photo or b"")
    return b"".join(parts)


def from_bytes(data: bytes) -> Face:
    """The inverse of `to_bytes`. Raises ValueError for anything else."""
    try:
        return _from_bytes(data)
    except (struct.error, KeyError, TypeError, IndexError) as error:
        raise ValueError("these bytes are no face") from error


def _from_bytes(data: bytes) -> Face:
    magic, version, length = _HEADER.unpack_from(data)
    if magic != MAGIC or version != FORMAT:
        raise ValueError("these bytes are no face of this version")
    document: dict[str, Any] = json.loads(data[_HEADER.size : _HEADER.size + length])
    position = _HEADER.size + length

    def array(shape: tuple[int, ...]) -> NDArray[np.uint8]:
        nonlocal position
        count = int(np.prod(shape))
        values = np.frombuffer(data, np.uint8, count, position).reshape(shape)
        position += count
        return values

    portraits = {}
    for each in document["portraits"]:
        side = int(each["side"])
        pixels, kept = array((side, side, 3)), array((side, side))
        alignment = Alignment.from_dict(each["alignment"])
        portraits[each["key"]] = CutPortrait(pixels, kept, alignment)
    photo = None
    if document["photo_bytes"] is not None:
        photo = data[position : position + document["photo_bytes"]]
        if len(photo) != document["photo_bytes"]:
            raise ValueError("a face's photo is cut off")
    return Face(
        portraits,
        document["width"],
        document["height"],
        tuple(FoundFace(tuple(each["box"]), each["score"]) for each in document["found"]),
        document["index"],
        document["animated"],
        photo,
        document["expires_s"],
    )


class FaceStore(Protocol):
    """Keeps faces until they expire, are deleted, or have to make room."""

    ttl_s: int

    async def put(self, face_id: str, face: Face) -> None:
        """Keeps a face. Raises StoreUnavailable."""
        ...

    async def get(self, face_id: str) -> Face:
        """The face. Raises UnknownFace or StoreUnavailable."""
        ...

    async def delete(self, face_id: str) -> None:
        """Forgets the face. Raises UnknownFace or StoreUnavailable."""
        ...

    async def check(self) -> None:
        """Raises StoreUnavailable where the store does not answer."""
        ...

    async def drop_expired(self) -> None:
        """Forgets what has expired, where the store does not by itself."""
        ...

    async def close(self) -> None:
        """Ends connections; what is kept in this process is gone."""
        ...


class MemoryFaceStore:
    """Faces in this process, at most `max_bytes` of them: the least recently used leave first.

    `on_eviction` is called for each face that leaves to make room.
    """

    def __init__(
        self, ttl_s: int, max_bytes: int, on_eviction: Callable[[], None] = lambda: None
    ) -> None:
        self.ttl_s = ttl_s
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._on_eviction = on_eviction
        self._kept: OrderedDict[str, tuple[Face, int]] = OrderedDict()

    async def put(self, face_id: str, face: Face) -> None:
        size = _size_bytes(face)
        if size > self.max_bytes:
            raise StoreUnavailable
        self._drop(face_id)
        self._kept[face_id] = (face, size)
        self.used_bytes += size
        while self.used_bytes > self.max_bytes:
            self._drop(next(iter(self._kept)))
            self._on_eviction()

    async def get(self, face_id: str) -> Face:
        if face_id not in self._kept:
            raise UnknownFace
        face, _ = self._kept[face_id]
        if face.expires_s <= time.time():
            self._drop(face_id)
            raise UnknownFace
        self._kept.move_to_end(face_id)
        return face

    async def delete(self, face_id: str) -> None:
        await self.get(face_id)
        self._drop(face_id)

    async def check(self) -> None:
        return

    async def drop_expired(self) -> None:
        now = time.time()
        for face_id in [key for key, (face, _) in self._kept.items() if face.expires_s <= now]:
            self._drop(face_id)

    async def close(self) -> None:
        self._kept.clear()
        self.used_bytes = 0

    def _drop(self, face_id: str) -> None:
        found = self._kept.pop(face_id, None)
        if found is not None:
            self.used_bytes -= found[1]


class RedisFaceStore:
    """Faces in Redis, shared by replicas. Redis expires them, and bounds them by `maxmemory`."""

    PREFIX = "anchorage:face:"

    def __init__(self, url: str, ttl_s: int, timeout_s: float = 5.0) -> None:
        self.ttl_s = ttl_s
        self._redis = redis.asyncio.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Once more at once, for a connection that died idle; then the caller is told.
            retry=Retry(NoBackoff(), 1),
        )

    async def put(self, face_id: str, face: Face) -> None:
        # Milliseconds, so that the store and the face's own time agree.
        left_ms = max(1, round((face.expires_s - time.time()) * 1000))
        data = await asyncio.to_thread(to_bytes, face)
        try:
            await self._redis.set(self.PREFIX + face_id, data, px=left_ms)
        except RedisError as error:
            raise StoreUnavailable from error

    async def get(self, face_id: str) -> Face:
        if not _ID.fullmatch(face_id):
            raise UnknownFace
        try:
            data: Any = await self._redis.get(self.PREFIX + face_id)
        except RedisError as error:
            raise StoreUnavailable from error
        if data is None:
            raise UnknownFace
        try:
            return from_bytes(data)
        except ValueError as error:
            # Written by another version of the service: as good as gone.
            raise UnknownFace from error

    async def delete(self, face_id: str) -> None:
        if not _ID.fullmatch(face_id):
            raise UnknownFace
        try:
            deleted = await self._redis.delete(self.PREFIX + face_id)
        except RedisError as error:
            raise StoreUnavailable from error
        if not deleted:
            raise UnknownFace

    async def check(self) -> None:
        try:
            await self._redis.ping()
        except RedisError as error:
            raise StoreUnavailable from error

    async def drop_expired(self) -> None:
        return

    async def close(self) -> None:
        await self._redis.aclose()


def open_store(
    url: str, ttl_s: int, max_bytes: int, on_eviction: Callable[[], None] = lambda: None
) -> FaceStore:
    """The store at `memory://` or a `redis://` address; nothing is connected to yet."""
    if url == "memory://":
        return MemoryFaceStore(ttl_s, max_bytes, on_eviction)
    return RedisFaceStore(url, ttl_s)


def _size_bytes(face: Face) -> int:
    portraits = sum(cut.pixels.nbytes + cut.kept.nbytes for cut in face.portraits.values())
    return 2048 + portraits + len(face.photo or b"")
