"""The domain calls behind the routes and the command line: a face in, aged pictures out.

Photos are read and pictures written on threads of their own, graphs run on the batcher's; the
event loop only hands things on.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from model.portraits.align import Alignment, Geometry, align, check_size
from model.portraits.composite import composite
from model.portraits.detect import DlibLandmarker, Landmarker, pick_face
from model.portraits.errors import NoFace, PortraitError
from model.portraits.parse import Parser, mask_portrait
from model.portraits.photo import Photo, read_photo
from model.portraits.portrait import cut_portrait
from service.batcher import Batcher, Lane
from service.costs import Costs, measured, sizes_up_to
from service.errors import (
    FaceCutForAnotherModel,
    PhotoNotKept,
    UnknownModel,
    problem_of_portrait,
)
from service.faces import CutPortrait, Face, FaceStore, FoundFace, new_face_id, open_store
from service.identities import Identity, IdentityCache, Key
from service.media import PictureFormat, Pixels, encode_picture, thumbnail
from service.models import DecodeJob, Model, Models, open_models
from service.observability import Metrics, Stage
from service.settings import Settings
from service.targets import Target
from service.turns import Requester

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TakenFace:
    """A face with its id; `photo` are the pixels (H, W, 3), where they are at hand.

    They may have been made smaller than the face's own `width` and `height` say.
    """

    face_id: str
    face: Face
    photo: Pixels | None = None


@dataclass(frozen=True, eq=False)
class _Lanes:
    encode: Lane[Pixels, Identity] | None
    decode: list[Lane[DecodeJob, Pixels]]

    @property
    def all(self) -> list[Lane]:
        return self.decode if self.encode is None else [self.encode, *self.decode]


class Predictor:
    """Models, the portraits they eat, and the store of faces; see `open_predictor`."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        models: Models,
        landmarker: Landmarker,
        parser: Parser,
        store: FaceStore,
        batcher: Batcher,
        readers: ThreadPoolExecutor,
        writers: ThreadPoolExecutor,
    ) -> None:
        self.models = models
        self.store = store
        self._settings = settings
        self._metrics = metrics
        self._landmarker = landmarker
        self._parser = parser
        self._batcher = batcher
        self._readers = readers
        self._writers = writers
        self._identities = IdentityCache(settings.identity_cache_bytes, settings.face_ttl_s)
        self._lanes = {
            model.name: _lanes_of(model, settings.max_batch) for model in models.values()
        }

    def model(self, name: str | None) -> Model:
        """The model of that name, or the default one. Raises UnknownModel."""
        if name is None:
            return self.models[self.models.default]
        if name not in self.models:
            raise UnknownModel(name, tuple(self.models))
        return self.models[name]

    async def warm_up(self) -> None:
        """Runs every graph at every size, and measures which size is the best one.

        Raises what they raise.
        """
        for model in self.models.values():
            lanes = self._lanes[model.name]
            if lanes.encode is not None:
                await self._measure(lanes.encode, model.rehearse_encoding)
            for decoder, lane in enumerate(lanes.decode):
                await self._measure(lane, partial(model.rehearse_decoding, decoder))
            sizes = sorted({size for lane in lanes.all for size in lane.costs.sizes})
            await self._batcher.call(partial(model.warm_up, sizes))
            manifest = model.manifest
            self._metrics.model_info.labels(
                model.name, manifest.version, model.bundle.digest[:12], model.provider
            ).set(1)
            # Shown from the start, so that a run counted later is a difference that can be seen.
            self._metrics.encoder_runs.labels(model.name)
            self._metrics.decoder_runs.labels(model.name)
            _log.info("%s %s is warm on %s", model.name, manifest.version, model.provider)

    async def _measure(self, lane: Lane, run: Callable[[int], None]) -> None:
        sizes = sizes_up_to(self._settings.max_batch)
        lane.costs = await self._batcher.call(
            lambda: measured(run, sizes, self._settings.batch, self._settings.measuring_s)
        )
        costs = lane.costs
        self._metrics.best_batch.labels(lane.model, lane.stage).set(costs.best)
        for size, seconds in costs.seconds.items():
            self._metrics.run_seconds.labels(lane.model, lane.stage, size).set(seconds)
        _log.info("%s of %s: %d at once", lane.stage, lane.model, costs.best)

    def costs(self, model: Model) -> dict[Stage, Costs]:
        """What runs of a model's graphs cost; of several decoders, the first one's."""
        lanes = self._lanes[model.name]
        costs = {Stage.DECODE: lanes.decode[0].costs}
        return costs if lanes.encode is None else {Stage.ENCODE: lanes.encode.costs, **costs}

    @property
    def expected_wait_s(self) -> float:
        """How long a picture queued now would wait for the accelerator."""
        return self._batcher.expected_wait_s

    async def take_in(
        self,
        data: bytes,
        *,
        aligned: bool = False,
        face_index: int | None = None,
        keep_photo: bool = False,
    ) -> TakenFace:
        """Reads a photo, cuts one of its faces for every model, and keeps it under a new id.

        The largest face, unless `face_index` says which; `aligned` says that the picture is a
        portrait already. Raises a Problem for what is wrong with the photo.
        """
        try:
            face, pixels = await self._on(
                self._readers, lambda: self._read(data, aligned, face_index, keep_photo)
            )
        except PortraitError as error:
            raise problem_of_portrait(error) from error
        face_id = new_face_id()
        await self.store.put(face_id, face)
        self._metrics.faces_stored.inc()
        return TakenFace(face_id, face, pixels)

    async def look_up(self, face_id: str, *, with_photo: bool = False) -> TakenFace:
        """A face taken in earlier. Raises UnknownFace, StoreUnavailable or PhotoNotKept."""
        face = await self.store.get(face_id)
        if not with_photo:
            return TakenFace(face_id, face)
        data = face.photo
        if data is None:
            raise PhotoNotKept
        with_pixels = await self._on(self._readers, lambda: self._decode_photo(data))
        return TakenFace(face_id, face, with_pixels.pixels)

    async def with_smaller_photo(self, taken: TakenFace, longest_px: int) -> TakenFace:
        """The face with its photo at hand made smaller, where a side is longer."""
        photo = taken.photo
        if photo is None:
            raise PhotoNotKept
        small = await self._on(self._readers, lambda: thumbnail(photo, longest_px))
        return replace(taken, photo=small)

    async def forget(self, face_id: str) -> None:
        """Deletes a face and what was encoded of it. Raises UnknownFace or StoreUnavailable."""
        self._identities.drop_face(face_id)
        await self.store.delete(face_id)

    async def drop_expired(self) -> None:
        """Forgets faces and identities whose time is over."""
        self._identities.drop_expired()
        await self.store.drop_expired()

    def masked_portrait(self, face: Face, model: Model) -> Pixels:
        """What `model` sees of a face, (R, R, 3). Raises FaceCutForAnotherModel."""
        cut = self._cut_of(face, model)
        return mask_portrait(cut.pixels, cut.alpha, model.manifest.portrait.background)

    def alignment(self, face: Face, model: Model) -> Alignment:
        """Where the model's portrait lies in the photo. Raises FaceCutForAnotherModel."""
        return self._cut_of(face, model).alignment

    def in_photo(self, taken: TakenFace, model: Model, picture: Pixels) -> Pixels:
        """The photo with the head of `picture` in the place of the face. Raises PhotoNotKept.

        The picture is parsed too, so that its grey background stays out of the photo.
        """
        if taken.photo is None:
            raise PhotoNotKept
        alignment = self._cut_of(taken.face, model).alignment
        if taken.photo.shape[:2] != (taken.face.height, taken.face.width):
            alignment = alignment.scaled(
                max(taken.photo.shape) / max(taken.face.height, taken.face.width)
            )
        with self._metrics.stage(Stage.COMPOSITE):
            alpha = self._parser.parse(picture).kept(model.manifest.portrait.removed)
            return composite(taken.photo, picture, alpha, alignment)

    async def pictures(
        self,
        taken: TakenFace,
        model: Model,
        group: str,
        targets: Sequence[Target],
        finish: Callable[[Pixels], R],
        caller: Hashable = None,
    ) -> AsyncGenerator[tuple[Target, R]]:
        """Each target with its picture (R, R, 3) through `finish`, in order, as they are ready.

        `finish` runs on a writing thread. The face is encoded once, whatever the number of
        targets. Only a few pictures are under way at a time, so a slow reader holds few of them.
        Callers take turns on the accelerator, each with its requests in turn.
        """
        key = (taken.face_id, f"{model.bundle.digest}:{model.provider}")
        requester = Requester(caller)
        identity = await self._identity(key, taken.face, model, requester)
        lanes = self._lanes[model.name].decode

        async def make(numbered: tuple[int, Target]) -> tuple[Target, R]:
            number, target = numbered
            weights = np.array(target.weights, np.float32)
            job = DecodeJob(key, identity, model.bundle.latent_of_weights(weights, group))
            lane = lanes[target.anchor if len(lanes) > 1 else 0]
            picture = await self._batcher.submit(lane, job, requester, admitted=number > 0)
            return target, await self._on(self._writers, lambda: finish(picture))

        window = 2 * self._settings.max_batch
        async with aclosing(_in_order(make, enumerate(targets), window)) as made:
            async for each in made:
                yield each

    def encoded(self, picture: Pixels, picture_format: PictureFormat) -> bytes:
        """A picture file. Blocks, as `finish` of `pictures` may."""
        with self._metrics.stage(Stage.IMAGE_ENCODING):
            return encode_picture(picture, picture_format)

    async def write(self, function: Callable[[], R]) -> R:
        """Runs `function`, which makes one file of many pictures, on a writing thread."""

        def timed() -> R:
            with self._metrics.stage(Stage.IMAGE_ENCODING):
                return function()

        return await self._on(self._writers, timed)

    async def _identity(self, key: Key, face: Face, model: Model, requester: Requester) -> Identity:
        lane = self._lanes[model.name].encode
        if lane is None or not model.has_encoder:
            return self.masked_portrait(face, model)
        self._metrics.identity_lookups.labels(str(self._identities.get(key) is not None)).inc()

        async def encode() -> Identity:
            portrait = self.masked_portrait(face, model)
            return await self._batcher.submit(lane, portrait, requester)

        return await self._identities.get_or_encode(key, encode)

    def _cut_of(self, face: Face, model: Model) -> CutPortrait:
        cut = face.portraits.get(model.cut.key)
        if cut is None:
            raise FaceCutForAnotherModel
        return cut

    def _read(
        self, data: bytes, aligned: bool, face_index: int | None, keep_photo: bool
    ) -> tuple[Face, Pixels]:
        """A photo's bytes -> one of its faces. Raises PortraitError. Runs on a reading thread."""
        photo = self._decode_photo(data)
        height, width = photo.pixels.shape[:2]
        with self._metrics.stage(Stage.PORTRAIT):
            found: tuple[FoundFace, ...] = ()
            landmarks = None
            if not aligned:
                faces = self._landmarker.detect(photo.pixels)
                if not faces:
                    raise NoFace
                landmarks = pick_face(faces, face_index or 0).landmarks
                found = tuple(FoundFace(face.box, float(face.score)) for face in faces)
            portraits: dict[str, CutPortrait] = {}
            for model in self.models.values():
                cut = model.cut
                if cut.key in portraits:
                    continue
                if landmarks is None:
                    alignment = Alignment.of_aligned(width, height, cut.resolution)
                else:
                    geometry = Geometry(cut.resolution, cut.portrait.scale)
                    alignment = align(landmarks, geometry)
                check_size(alignment, self._settings.min_face_px)
                portrait = cut_portrait(photo.pixels, alignment, self._parser, cut.portrait.removed)
                kept = np.rint(portrait.kept * 255).astype(np.uint8)
                portraits[cut.key] = CutPortrait(portrait.pixels, kept, alignment)
        face = Face(
            portraits,
            width,
            height,
            found,
            (face_index or 0) if found else None,
            photo.animated,
            data if keep_photo else None,
            time.time() + self.store.ttl_s,
        )
        return face, photo.pixels

    def _decode_photo(self, data: bytes) -> Photo:
        with self._metrics.stage(Stage.IMAGE_DECODING):
            return read_photo(data, self._settings.max_pixels)

    async def _on(self, pool: ThreadPoolExecutor, function: Callable[[], R]) -> R:
        # In the caller's context, so that what it costs is counted as this request's work.
        inside = copy_context()
        return await asyncio.get_running_loop().run_in_executor(pool, inside.run, function)


def _lanes_of(model: Model, most: int) -> _Lanes:
    return _Lanes(
        Lane(model.name, Stage.ENCODE, model.encode, Costs.unmeasured(most))
        if model.has_encoder
        else None,
        [
            Lane(
                model.name,
                Stage.DECODE,
                lambda jobs, size, index=index: model.decode(jobs, index, size),
                Costs.unmeasured(most),
            )
            for index in range(model.decoders)
        ],
    )


async def _in_order(
    make: Callable[[T], Awaitable[R]], items: Iterable[T], window: int
) -> AsyncGenerator[R]:
    """`make` of each item, in order, with `window` of them under way."""
    pending: deque[asyncio.Future[R]] = deque()
    try:
        for item in items:
            pending.append(asyncio.ensure_future(make(item)))
            if len(pending) >= window:
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


@asynccontextmanager
async def open_predictor(settings: Settings, metrics: Metrics) -> AsyncIterator[Predictor]:
    """Opens and verifies all that the settings name; nothing has run yet, see `warm_up`.

    Raises BundleError, ProviderError or FileNotFoundError that names what is wrong.
    """
    threads = settings.threads or None
    models = open_models(settings.models, settings.provider, threads, settings.default_model)
    # One thread a call: as many calls run at once as there are reading threads.
    parser = Parser.open(settings.parser, threads=1)
    async with AsyncExitStack() as stack:
        store = open_store(
            settings.face_store,
            settings.face_ttl_s,
            settings.face_store_bytes,
            metrics.faces_evicted.inc,
        )
        stack.push_async_callback(store.close)
        batcher = await stack.enter_async_context(
            Batcher(metrics, settings.max_queue, settings.batch_wait_s)
        )
        readers = stack.enter_context(ThreadPoolExecutor(settings.pool_size, "reader"))
        writers = stack.enter_context(ThreadPoolExecutor(settings.pool_size, "writer"))
        predictor = Predictor(
            settings, metrics, models, DlibLandmarker(), parser, store, batcher, readers, writers
        )
        sweeping = asyncio.create_task(_sweep(predictor, min(60.0, settings.face_ttl_s / 2)))
        try:
            yield predictor
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping


async def _sweep(predictor: Predictor, period_s: float) -> None:
    while True:
        await asyncio.sleep(period_s)
        await predictor.drop_expired()
