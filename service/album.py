"""Many photographs through one engine: each is read, aged and written beside the others."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from service.errors import InternalError, NoFaceFound, Problem, UnknownFace
from service.marks import Mark
from service.media import MP4, AnimationFormat, Mp4Writer, PictureFormat, Pixels, animation
from service.models import Model
from service.outputs import drop_parts, is_whole, write_output
from service.photographs import Photograph, PhotographsError
from service.predictor import Predictor, TakenFace
from service.targets import Target

UNREADABLE = "unreadable_file"
NOT_WRITTEN = "not_written"
"""Codes of what only files can bring; all others are those of the service's problems."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why a photograph has not all of its outputs; the code is stable."""

    code: str
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What became of a photograph.

    `outputs` are all that are there, `made` those of this run; `faces` is None where none were
    looked for.
    """

    photo: Path
    outputs: tuple[Path, ...] = ()
    made: tuple[Path, ...] = ()
    faces: int | None = None
    failure: Failure | None = None

    def document(self) -> dict[str, Any]:
        """For programs, as JSON."""
        return {
            "input": str(self.photo),
            "outputs": [str(path) for path in self.outputs],
            "made": len(self.made),
            "faces": self.faces,
            "error": self.failure and {"code": self.failure.code, "detail": self.failure.detail},
        }


class Making(Protocol):
    """What is made of every photograph."""

    @property
    def endings(self) -> Sequence[str]:
        """What follows a photograph's name in the names of its outputs."""
        ...

    def files(self, taken: TakenFace, wanted: Set[int]) -> AsyncGenerator[tuple[int, bytes]]:
        """The outputs of a face whose place in `endings` is `wanted`, each with that place."""
        ...


@dataclass(frozen=True, eq=False)
class Ageing:
    """One picture per target, of the face or of the photo with it in place."""

    predictor: Predictor
    model: Model
    group: str
    targets: Sequence[Target]
    picture_format: PictureFormat
    in_photo: bool = False

    @property
    def endings(self) -> Sequence[str]:
        suffix = _suffix(self.picture_format)
        return [f"_{target.label}.{suffix}" for target in self.targets]

    async def files(self, taken: TakenFace, wanted: Set[int]) -> AsyncGenerator[tuple[int, bytes]]:
        mark = Mark.of(self.model.manifest, in_photo=self.in_photo)

        place = await self.predictor.place(taken, self.model) if self.in_photo else None

        def finish(picture: Pixels) -> bytes:
            if place is not None:
                picture = self.predictor.in_photo(place, picture)
            return self.predictor.encoded(picture, self.picture_format, mark)

        places = iter(sorted(wanted))
        targets = [self.targets[place] for place in sorted(wanted)]
        pictures = self.predictor.pictures(taken, self.model, self.group, targets, finish)
        async with aclosing(pictures):
            async for _, data in pictures:
                yield next(places), data


@dataclass(frozen=True, eq=False)
class Together:
    """One picture: the photo with several of its faces in place, each at its own target."""

    predictor: Predictor
    model: Model
    group: str
    targets: Mapping[int, Target]
    """By the index of the face."""
    picture_format: PictureFormat

    @property
    def endings(self) -> Sequence[str]:
        return [f"_together.{_suffix(self.picture_format)}"]

    async def files(self, taken: TakenFace, wanted: Set[int]) -> AsyncGenerator[tuple[int, bytes]]:
        people = await self.predictor.beside(taken, list(self.targets))
        try:
            pairs = list(zip(people, self.targets.values(), strict=True))
            photo = await self.predictor.together(pairs, self.model, self.group)
        finally:
            for other in people:
                if other is not taken:
                    with suppress(UnknownFace):
                        await self.predictor.forget(other.face_id)
        mark = Mark.of(self.model.manifest, in_photo=True)
        encoded = self.predictor.encoded
        yield 0, await self.predictor.write(lambda: encoded(photo, self.picture_format, mark))


@dataclass(frozen=True, eq=False)
class Interpolation:
    """One frame sequence, in an animation's format or, where that is None, as an MP4."""

    predictor: Predictor
    model: Model
    group: str
    targets: Sequence[Target]
    fps: float
    animation_format: AnimationFormat | None
    ending: str

    @property
    def endings(self) -> Sequence[str]:
        return [self.ending]

    async def files(self, taken: TakenFace, wanted: Set[int]) -> AsyncGenerator[tuple[int, bytes]]:
        mark = Mark.of(self.model.manifest)
        pictures = self.predictor.pictures(
            taken, self.model, self.group, self.targets, lambda picture: picture
        )
        async with aclosing(pictures):
            frames = [picture async for _, picture in pictures]

        def film() -> bytes:
            if self.animation_format is not None:
                data = animation(frames, self.fps, self.animation_format, mark)
                return self.predictor.signed(data, self.animation_format.media_type, mark)
            writer = Mp4Writer(self.fps, mark)
            data = b"".join([*(writer.add(frame) for frame in frames), writer.finish()])
            return self.predictor.signed(data, MP4, mark)

        yield 0, await self.predictor.write(film)


def _suffix(picture_format: PictureFormat) -> str:
    return "jpg" if picture_format is PictureFormat.JPEG else picture_format.value


class Album:
    """Photographs whose outputs go to one folder; what is there and whole is not made again."""

    def __init__(
        self,
        predictor: Predictor,
        making: Making,
        output: Path,
        *,
        aligned: bool = False,
        face_index: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self._predictor = predictor
        self._making = making
        self._output = output
        self._aligned = aligned
        self._face_index = face_index
        self._overwrite = overwrite

    async def work(
        self, photographs: Sequence[Photograph], jobs: int, report: Callable[[Outcome], None]
    ) -> None:
        """Makes what is missing, `jobs` photographs beside one another.

        `report` is called for each as it is done. A photograph that fails stops no other.
        Raises PhotographsError where one would be written over, before anything is written.
        """
        self._spare(photographs)
        self._output.mkdir(parents=True, exist_ok=True)
        folders = {each.output(self._output, "").parent for each in photographs}
        await asyncio.to_thread(drop_parts, folders)
        waiting = iter(photographs)
        workers = [
            asyncio.create_task(_work_off(waiting, self._outcome, report)) for _ in range(jobs)
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _spare(self, photographs: Sequence[Photograph]) -> None:
        inputs = {each.path.resolve() for each in photographs}
        folder = self._output.resolve()
        for each in photographs:
            for ending in self._making.endings:
                path = each.output(folder, ending)
                if path in inputs:
                    raise PhotographsError(
                        f"{path}: is one of the photographs, and would be written over"
                    )

    async def _outcome(self, photograph: Photograph) -> Outcome:
        paths = [photograph.output(self._output, each) for each in self._making.endings]
        wanted = await asyncio.to_thread(self._missing, paths)
        made: set[int] = set()
        faces: int | None = None

        def ended(failure: Failure | None = None) -> Outcome:
            there = [place for place in range(len(paths)) if place not in wanted - made]
            return Outcome(
                photograph.path,
                tuple(paths[place] for place in there),
                tuple(paths[place] for place in sorted(made)),
                faces,
                failure,
            )

        if not wanted:
            return ended()
        try:
            data = await asyncio.to_thread(photograph.path.read_bytes)
        except OSError as error:
            return ended(Failure(UNREADABLE, error.strerror or str(error)))
        try:
            taken = await self._predictor.take_in(
                data, aligned=self._aligned, face_index=self._face_index, with_photo=True
            )
            faces = None if self._aligned else len(taken.face.found)
            try:
                async with aclosing(self._making.files(taken, wanted)) as files:
                    async for place, content in files:
                        await asyncio.to_thread(write_output, paths[place], content)
                        made.add(place)
            finally:
                # Gone already where the store had to make room.
                with suppress(UnknownFace):
                    await self._predictor.forget(taken.face_id)
        except NoFaceFound as problem:
            faces = 0
            return ended(Failure(problem.code, problem.detail))
        except Problem as problem:
            return ended(Failure(problem.code, problem.detail))
        except OSError as error:
            return ended(
                Failure(NOT_WRITTEN, f"{error.filename2 or error.filename}: {error.strerror}")
            )
        except Exception as error:
            _log.exception("%s failed", photograph.path)
            return ended(Failure(InternalError.code, f"{type(error).__name__}: {error}"))
        return ended()

    def _missing(self, paths: Sequence[Path]) -> set[int]:
        return {place for place, path in enumerate(paths) if self._overwrite or not is_whole(path)}


async def _work_off(
    waiting: Iterator[Photograph],
    make: Callable[[Photograph], Awaitable[Outcome]],
    report: Callable[[Outcome], None],
) -> None:
    for photograph in waiting:
        report(await make(photograph))
