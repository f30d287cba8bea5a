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
from model.portraits.composite import Place
from model.portraits.detect import DlibLandmarker, Landmarker, pick_face
from model.portraits.detect import Face as Detected
from model.portraits.errors import NoFace, PortraitError
from model.portraits.parse import Parser, mask_portrait
from model.portraits.photo import Photo, read_photo
from model.portraits.portrait import cut_portrait
from model.runtime import Provider, ProviderError
from service.batcher import Batcher, Lane
from service.costs import Costs, measured, sizes_up_to
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
from service.media import PictureFormat, Pixels, encode_picture, thumbnail
from service.models import DecodeJob, Model, Models, open_models
from service.observability import Metrics, Stage
from service.room import Room
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
        self._photos = Room(settings.max_photos_bytes)
        self._identities = IdentityCache(settings.identity_cache_bytes, settings.face_ttl_s)

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
        # At once, so that each reading thread has its own.
        rehearsals = (
            self._on(self._readers, self._parser.rehearse) for _ in range(self._settings.pool_size)
        )
        await asyncio.gather(*rehearsals)
        for model in self.models.values():
            await self._warm_up(model)

    async def _warm_up(self, model: Model) -> None:
        lanes = model.lanes
        if lanes.encode is not None:
            await self._measure(lanes.encode, model.rehearse_encoding)
        for decoder, lane in enumerate(lanes.decode):
            await self._measure(lane, partial(model.rehearse_decoding, decoder))
        # The other shape of each size: one face in all its pictures.
        for decoder, lane in enumerate(lanes.decode):
            for size in lane.costs.sizes:
                await self._batcher.call(partial(model.rehearse_decoding, decoder, size, 1))
        manifest = model.manifest
        self._metrics.model_info.labels(*_described(model)).set(1)
        # Shown from the start, so that a run counted later is a difference that can be seen.
        self._metrics.encoder_runs.labels(model.name)
        self._metrics.decoder_runs.labels(model.name)
        _log.info("%s %s is warm on %s", model.name, manifest.version, model.provider)

    async def _measure(self, lane: Lane, run: Callable[[int], None]) -> None:
        def timed(size: int) -> float:
            started = time.perf_counter()
            run(size)
            return time.perf_counter() - started

        sizes, settings = sizes_up_to(self._settings.max_batch), self._settings
        # Run by run, so that other models' pictures come between.
        lane.costs = await measured(
            lambda size: self._batcher.call(partial(timed, size)),
            sizes,
            settings.batch,
            settings.measuring_s,
        )
        self._metrics.best_batch.labels(lane.model, lane.stage).set(lane.costs.best)
        for size, seconds in lane.costs.seconds.items():
            self._metrics.run_seconds.labels(lane.model, lane.stage, size).set(seconds)
        _log.info("%s of %s: %d at once", lane.stage, lane.model, lane.costs.best)

    async def refresh(self) -> None:
        """Serves what the folder of models holds now; new bundles are warm before they answer.

        Requests in progress keep the model that they began with. Raises BundleError or
        ProviderError, and whatever a new graph raises: then all stays as it was.
        """
        settings, known = self._settings, tuple(self.models.values())
        models = await asyncio.to_thread(
            open_models,
            settings.models,
            settings.provider,
            settings.threads or None,
            settings.default_model,
            settings.max_batch,
            known,
        )
        for model in models.values():
            if model not in known:
                await self._warm_up(model)
        self.models = models
        for model in known:
            if model not in models.values():
                with suppress(KeyError):
                    self._metrics.model_info.remove(*_described(model))
                _log.info("%s %s is no longer served", model.name, model.manifest.version)

    def costs(self, model: Model) -> dict[Stage, Costs]:
        """What runs of a model's graphs cost; of several decoders, the first one's."""
        costs = {Stage.DECODE: model.lanes.decode[0].costs}
        encode = model.lanes.encode
        return costs if encode is None else {Stage.ENCODE: encode.costs, **costs}

    async def take_in(
        self,
        data: bytes,
        *,
        aligned: bool = False,
        face_index: int | None = None,
        keep_photo: bool = False,
        with_photo: bool = False,
    ) -> TakenFace:
        """Reads a photo, cuts one of its faces for every model, and keeps it under a new id.

        The largest face, unless `face_index` says which; `aligned` says that the picture is a
        portrait already; `with_photo` has the photo at hand, where there is room for it. Raises a
        Problem for what is wrong with the photo, Overloaded without room.
        """
        try:
            face, pixels = await self._on(
                self._readers, lambda: self._read(data, aligned, face_index, keep_photo)
            )
        except PortraitError as error:
            raise problem_of_portrait(error) from error
        if with_photo:
            self._photos.hold(pixels)
        return await self._keep(face, pixels if with_photo else None)

    async def beside(self, taken: TakenFace, indices: Sequence[int]) -> list[TakenFace]:
        """Faces of the same photo, which is at hand and as large as it came, in that order.

        The face itself is not taken in again; others are, and are kept without the photo. Raises
        NoSuchFace's problem for what is not in the photo, or PhotoNotKept.
        """
        photo, face = taken.photo, taken.face
        if photo is None:
            raise PhotoNotKept
        wanted = [index for index in indices if index != face.index]

        def cut() -> list[Face]:
            with self._metrics.stage(Stage.PORTRAIT):
                for index in wanted:
                    pick_face(face.found, index)
                if not wanted:
                    return []
                faces = self._landmarker.detect(photo)
                return [
                    replace(self._cut(photo, faces, index), animated=face.animated)
                    for index in wanted
                ]

        try:
            others = await self._on(self._readers, cut)
        except PortraitError as error:
            raise problem_of_portrait(error) from error
        kept = {
            index: await self._keep(other, photo)
            for index, other in zip(wanted, others, strict=True)
        }
        return [taken if index == face.index else kept[index] for index in indices]

    async def _keep(self, face: Face, pixels: Pixels | None) -> TakenFace:
        face_id = new_face_id()
        await self.store.put(face_id, face)
        self._metrics.faces_stored.inc()
        return TakenFace(face_id, face, pixels)

    async def look_up(self, face_id: str, *, with_photo: bool = False) -> TakenFace:
        """A face taken in earlier.

        Raises UnknownFace or StoreUnavailable; with its photo, PhotoNotKept or Overloaded.
        """
        face = await self.store.get(face_id)
        if not with_photo:
            return TakenFace(face_id, face)
        data = face.photo
        if data is None:
            raise PhotoNotKept
        photo = await self._on(self._readers, lambda: self._decode_photo(data))
        self._photos.hold(photo.pixels)
        return TakenFace(face_id, face, photo.pixels)

    async def with_smaller_photos(
        self, people: Sequence[TakenFace], longest_px: int
    ) -> list[TakenFace]:
        """Faces of one photo, at hand with all of them, made smaller where a side is longer."""
        photo = people[0].photo
        if photo is None:
            raise PhotoNotKept
        small = await self._on(self._readers, lambda: thumbnail(photo, longest_px))
        return [replace(taken, photo=small) for taken in people]

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
        return mask_portrait(cut.pixels, cut.kept, model.manifest.portrait.background)

    def alignment(self, face: Face, model: Model) -> Alignment:
        """Where the model's portrait lies in the photo. Raises FaceCutForAnotherModel."""
        return self._cut_of(face, model).alignment

    async def place(self, taken: TakenFace, model: Model) -> Place:
        """Where the face lies in its photo, for `in_photo`.

        Raises PhotoNotKept or FaceCutForAnotherModel.
        """
        return await self._on(self._writers, lambda: self._place(taken, model))

    def in_photo(self, place: Place, picture: Pixels) -> Pixels:
        """The photo with the head of `picture` in the place of its own. Blocks."""
        with self._metrics.stage(Stage.COMPOSITE):
            # Parsed too, so that its grey background stays out of the photo.
            return place.composite(picture, self._parser.parse(picture))

    async def together(
        self,
        people: Sequence[tuple[TakenFace, Target]],
        model: Model,
        group: str,
        caller: Hashable = None,
    ) -> Pixels:
        """The photo that the faces share, with each of them at its target.

        Raises PhotoNotKept or FaceCutForAnotherModel.
        """

        async def picture_of(taken: TakenFace, target: Target) -> Pixels:
            made = self.pictures(taken, model, group, [target], lambda picture: picture, caller)
            async with aclosing(made):
                return (await anext(made))[1]

        made = [asyncio.ensure_future(picture_of(*each)) for each in people]
        try:
            pictures = await asyncio.gather(*made)
        finally:
            for task in made:
                task.cancel()
        heads = [(taken, picture) for (taken, _), picture in zip(people, pictures, strict=True)]
        # Who is nearer is in front: the larger face comes later.
        heads.sort(key=lambda head: self._cut_of(head[0].face, model).alignment.side_px)

        def set_in() -> Pixels:
            photo = heads[0][0].photo
            for taken, picture in heads:
                photo = self.in_photo(self._place(replace(taken, photo=photo), model), picture)
            if photo is None:
                raise PhotoNotKept
            return photo

        return await self._on(self._writers, set_in)

    def _place(self, taken: TakenFace, model: Model) -> Place:
        if taken.photo is None:
            raise PhotoNotKept
        alignment = self._cut_of(taken.face, model).alignment
        if taken.photo.shape[:2] != (taken.face.height, taken.face.width):
            alignment = alignment.scaled(
                max(taken.photo.shape) / max(taken.face.height, taken.face.width)
            )
        look = model.manifest.portrait
        with self._metrics.stage(Stage.COMPOSITE):
            return Place.find(taken.photo, alignment, self._parser, look.removed, look.background)

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
        lanes = model.lanes.decode

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

    async def render(
        self,
        model: Model,
        portraits: Sequence[Pixels],
        group: str,
        targets: Sequence[Target],
        caller: Hashable = None,
    ) -> list[Pixels]:
        """Masked portraits (R, R, 3), each at its target: pictures alike. Nothing is kept."""
        requester = Requester(caller)

        async def one(number: int, portrait: Pixels, target: Target) -> Pixels:
            encode, admitted = model.lanes.encode, number > 0
            identity: Identity = portrait
            if encode is not None:
                identity = await self._batcher.submit(
                    encode, portrait, requester, admitted=admitted
                )
            weights = np.array(target.weights, np.float32)
            key = (f"{id(requester)}:{number}", model.bundle.digest)
            job = DecodeJob(key, identity, model.bundle.latent_of_weights(weights, group))
            decode = model.lanes.decode
            lane = decode[target.anchor if len(decode) > 1 else 0]
            return await self._batcher.submit(lane, job, requester, admitted=admitted)

        made = [
            asyncio.ensure_future(one(number, portrait, target))
            for number, (portrait, target) in enumerate(zip(portraits, targets, strict=True))
        ]
        try:
            return await asyncio.gather(*made)
        finally:
            for task in made:
                task.cancel()

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

    async def _identity(self, key: Key, face: Face, model: Model, requester: Requester) -> Identity:
        lane = model.lanes.encode
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
        with self._metrics.stage(Stage.PORTRAIT):
            faces = None
            if not aligned:
                faces = self._landmarker.detect(photo.pixels)
                if not faces:
                    raise NoFace
            face = self._cut(photo.pixels, faces, face_index or 0)
        kept = data if keep_photo else None
        return replace(face, animated=photo.animated, photo=kept), photo.pixels

    def _cut(self, photo: Pixels, faces: list[Detected] | None, index: int) -> Face:
        """One of the faces of a photo, cut for every model; None: the photo is a portrait itself.

        Raises PortraitError.
        """
        height, width = photo.shape[:2]
        landmarks = None if faces is None else pick_face(faces, index).landmarks
        found = tuple(FoundFace(face.box, float(face.score)) for face in faces or ())
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
            portrait = cut_portrait(photo, alignment, self._parser, cut.portrait.removed)
            portraits[cut.key] = CutPortrait(portrait.pixels, portrait.levels, alignment)
        return Face(
            portraits,
            width,
            height,
            found,
            index if found else None,
            expires_s=time.time() + self.store.ttl_s,
        )

    def _decode_photo(self, data: bytes) -> Photo:
        with self._metrics.stage(Stage.IMAGE_DECODING):
            return read_photo(data, self._settings.max_pixels)

    async def _on(self, pool: ThreadPoolExecutor, function: Callable[[], R]) -> R:
        # In the caller's context, so that what it costs is counted as this request's work.
        inside = copy_context()
        return await asyncio.get_running_loop().run_in_executor(pool, inside.run, function)


def _described(model: Model) -> tuple[str, str, str, str]:
    return model.name, model.manifest.version, model.bundle.digest[:12], model.provider.value


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


def _open_parser(settings: Settings, provider: Provider) -> Parser:
    """The parser where the models run, if it does there; one that is demanded raises."""
    # One thread a call: as many calls run at once as there are reading threads.
    try:
        return Parser.open(settings.parser, 1, provider)
    except ProviderError as error:
        if settings.provider is not Provider.AUTO:
            raise
        _log.warning("the parser runs on the CPU: %s", error)
        return Parser.open(settings.parser, 1)


@asynccontextmanager
async def open_predictor(settings: Settings, metrics: Metrics) -> AsyncIterator[Predictor]:
    """Opens and verifies all that the settings name; nothing has run yet, see `warm_up`.

    Raises BundleError, ProviderError, SettingsError or FileNotFoundError that names what is wrong.
    """
    credentials = open_credentials(settings.c2pa_certificate, settings.c2pa_key)
    threads = settings.threads or None
    models = open_models(
        settings.models, settings.provider, threads, settings.default_model, settings.max_batch
    )
    parser = _open_parser(settings, models[models.default].provider)
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
