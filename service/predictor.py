"""The domain calls behind the routes and the command line: a face in, aged pictures out.

Photos are read and pictures written on threads of their own, graphs run on the batcher's; the
event loop only hands things on.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
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
from service.credentials import Credentials, open_credentials
from service.errors import (
    FaceCutForAnotherModel,
    PhotoNotKept,
    UnknownModel,
    problem_of_portrait,
)
from service.faces import CutPortrait, Face, FaceStore, FoundFace, new_face_id, open_store
from service.identities import Identity, IdentityCache, Key
from service.marks import Mark
from service.media import PictureFormat, Pixels, encode_picture
from service.models import DecodeJob, Model, Models, open_models
from service.observability import Metrics, Stage
from service.settings import Settings
from service.targets import Target

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TakenFace:
    """A face with its id; `photo` are the pixels (H, W, 3), where they are at hand."""

    face_id: str
    face: Face
    photo: Pixels | None = None


@dataclass(frozen=True, eq=False)
class _Lanes:
    encode: Lane[Pixels, Identity]
    decode: list[Lane[DecodeJob, Pixels]]


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
        credentials: Credentials | None = None,
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
        self._credentials = credentials
        self._identities = IdentityCache(settings.identity_cache_bytes, settings.face_ttl_s)
        self._lanes = {model.name: _lanes_of(model) for model in models.values()}

    def model(self, name: str | None) -> Model:
        """The model of that name, or the default one. Raises UnknownModel."""
        if name is None:
            return self.models[self.models.default]
        if name not in self.models:
            raise UnknownModel(name, tuple(self.models))
        return self.models[name]

    async def warm_up(self) -> None:
        """Runs every graph at the smallest and at the largest batch. Raises what they raise."""
        for model in self.models.values():
            for batch in sorted({1, self._settings.max_batch}):
                await self._batcher.call(lambda model=model, batch=batch: model.warm_up(batch))
            manifest = model.manifest
            self._metrics.model_info.labels(
                model.name, manifest.version, model.bundle.digest[:12], model.provider
            ).set(1)
            # Shown from the start, so that a run counted later is a difference that can be seen.
            self._metrics.encoder_runs.labels(model.name)
            self._metrics.decoder_runs.labels(model.name)
            _log.info("%s %s is warm on %s", model.name, manifest.version, model.provider)

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
        cut = self._cut_of(taken.face, model)
        with self._metrics.stage(Stage.COMPOSITE):
            alpha = self._parser.parse(picture).kept(model.manifest.portrait.removed)
            return composite(taken.photo, picture, alpha, cut.alignment)

    async def pictures(
        self,
        taken: TakenFace,
        model: Model,
        group: str,
        targets: Sequence[Target],
        finish: Callable[[Pixels], R],
    ) -> AsyncGenerator[tuple[Target, R]]:
        """Each target with its picture (R, R, 3) through `finish`, in order, as they are ready.

        `finish` runs on a writing thread. The face is encoded once, whatever the number of
        targets. Only a few pictures are under way at a time, so a slow reader holds few of them.
        """
        key = (taken.face_id, f"{model.bundle.digest}:{model.provider}")
        identity = await self._identity(key, taken.face, model)
        lanes = self._lanes[model.name].decode
        caller = object()

        async def make(numbered: tuple[int, Target]) -> tuple[Target, R]:
            number, target = numbered
            weights = np.array(target.weights, np.float32)
            job = DecodeJob(key, identity, model.bundle.latent_of_weights(weights, group))
            lane = lanes[target.anchor if len(lanes) > 1 else 0]
            picture = await self._batcher.submit(lane, job, caller, admitted=number > 0)
            return target, await self._on(self._writers, lambda: finish(picture))

        window = 2 * self._settings.max_batch
        async with aclosing(_in_order(make, enumerate(targets), window)) as made:
            async for each in made:
                yield each

    def encoded(self, picture: Pixels, picture_format: PictureFormat, mark: Mark | None) -> bytes:
        """A picture file; `mark` is None for what no model made.

        Blocks, as `finish` of `pictures` may.
        """
        with self._metrics.stage(Stage.IMAGE_ENCODING):
            data = encode_picture(picture, picture_format, mark)
            return self.signed(data, picture_format.media_type, mark) if mark else data

    def signed(self, data: bytes, media_type: str, mark: Mark) -> bytes:
        """A whole file with content credentials, where the operator has a certificate. Blocks."""
        return self._credentials.signed(data, media_type, mark) if self._credentials else data

    async def write(self, function: Callable[[], R]) -> R:
        """Runs `function`, which makes one file of many pictures, on a writing thread."""

        def timed() -> R:
            with self._metrics.stage(Stage.IMAGE_ENCODING):
                return function()

        return await self._on(self._writers, timed)

    async def _identity(self, key: Key, face: Face, model: Model) -> Identity:
        if not model.has_encoder:
            return self.masked_portrait(face, model)
        self._metrics.identity_lookups.labels(str(self._identities.get(key) is not None)).inc()

        async def encode() -> Identity:
            portrait = self.masked_portrait(face, model)
            return await self._batcher.submit(self._lanes[model.name].encode, portrait, object())

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
        return await asyncio.get_running_loop().run_in_executor(pool, function)


def _lanes_of(model: Model) -> _Lanes:
    return _Lanes(
        Lane(model.name, Stage.ENCODE, model.encode),
        [
            Lane(model.name, Stage.DECODE, lambda jobs, index=index: model.decode(jobs, index))
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

    Raises BundleError, ProviderError, SettingsError or FileNotFoundError that names what is wrong.
    """
    credentials = open_credentials(settings.c2pa_certificate, settings.c2pa_key)
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
            Batcher(metrics, settings.max_batch, settings.max_queue, settings.batch_wait_s)
        )
        readers = stack.enter_context(ThreadPoolExecutor(settings.pool_size, "reader"))
        writers = stack.enter_context(ThreadPoolExecutor(settings.pool_size, "writer"))
        predictor = Predictor(
            settings,
            metrics,
            models,
            DlibLandmarker(),
            parser,
            store,
            batcher,
            readers,
            writers,
            credentials,
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
