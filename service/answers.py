"""Pictures of a face as an HTTP answer: one file, a document, an archive, parts or a film."""

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Self

from fastapi.responses import JSONResponse, Response, StreamingResponse

from model.portraits.composite import Place
from service.marks import Mark
from service.media import (
    JSON,
    MP4,
    MULTIPART,
    ZIP,
    AnimationFormat,
    Mp4Writer,
    MultipartWriter,
    PictureFormat,
    Pixels,
    animation,
    contact_sheet,
    encode_picture,
    thumbnail,
    zip_of,
)
from service.models import Model
from service.predictor import Predictor, TakenFace
from service.schemas import Frames, Picture, Pictures, View
from service.targets import Target

FIRST_FRAME = "The image is animated: its first frame was used."
PICTURES = tuple(each.media_type for each in PictureFormat)
ANIMATIONS = tuple(each.media_type for each in AnimationFormat)
FILMS = (*ANIMATIONS, MP4, ZIP, MULTIPART, JSON)
"""Media types of a frame sequence, the default first."""


def picture_offers(count: int, picture_format: PictureFormat | None) -> tuple[str, ...]:
    """Media types of `count` pictures, the default first: the picture itself, or a document.

    Several pictures as an image are one contact sheet. A format that is asked for is the only one.
    """
    images = PICTURES if picture_format is None else (picture_format.media_type,)
    several = (JSON, MULTIPART, ZIP)
    return (*images, *several) if count == 1 else (*several, *images)


@dataclass(frozen=True, eq=False)
class Asked:
    """What is to be answered: targets of a face by a model, and the format of single pictures."""

    predictor: Predictor
    taken: TakenFace
    model: Model
    group: str
    targets: Sequence[Target]
    picture_format: PictureFormat
    view: View = View.FACE
    caller: Hashable = None
    """Who asks; callers take turns"""

    place: Place | None = None
    """Where the face lies in its photo, once it is known; see `placed`"""

    async def placed(self) -> Self:
        """With all that pictures in the photo have in common."""
        if self.view is not View.PHOTO:
            return self
        return replace(self, place=await self.predictor.place(self.taken, self.model))

    async def answer(self, media_type: str) -> Response:
        """The answer as one of `picture_offers`."""
        match media_type:
            case "application/json":
                return await self._document()
            case "application/zip":
                return await self._archive()
            case "multipart/mixed":
                return await self._parts()
        picture_format = PictureFormat(media_type.partition("/")[2])
        if len(self.targets) == 1:
            return await replace(self, picture_format=picture_format)._picture()
        return await self._sheet(picture_format)

    async def _sheet(self, sheet_format: PictureFormat) -> Response:
        # Made small one by one: several whole photos would not fit in memory.
        small = self._pictures(lambda picture: thumbnail(self._seen(picture)))
        pictures = [picture async for _, picture in small]
        labels = [target.label for target in self.targets]
        mark, media_type = self._mark, sheet_format.media_type

        def sheet() -> bytes:
            data = encode_picture(contact_sheet(pictures, labels), sheet_format, mark)
            return self.predictor.signed(data, media_type, mark)

        data = await self.predictor.write(sheet)
        return Response(data, media_type=media_type, headers=self._headers())

    async def _picture(self) -> Response:
        (pair,) = [pair async for pair in self._pictures(self._file)]
        target, data = pair
        headers = {**self._headers(), **_target_headers(target)}
        return Response(data, media_type=self.picture_format.media_type, headers=headers)

    async def _document(self) -> Response:
        pictures = [
            Picture(
                target=target.name,
                age_years=target.age_years,
                effective_age_years=round(target.effective_age_years, 4),
                weights=[round(weight, 6) for weight in target.weights],
                media_type=self.picture_format.media_type,
                image=base64.b64encode(data).decode(),
            )
            async for target, data in self._pictures(self._file)
        ]
        fields: dict[str, Any] = {
            "face_id": self.taken.face_id,
            "model": self.model.name,
            "version": self.model.manifest.version,
            "group": self.group,
            "pictures": pictures,
            "notes": notes_of(self.taken),
        }
        return JSONResponse(self._described(fields), headers=self._headers())

    def _described(self, fields: dict[str, Any]) -> dict[str, Any]:
        return Pictures(**fields).model_dump(mode="json")

    async def _archive(self) -> Response:
        suffix = self.picture_format.value
        files = [
            (f"{number:03}_{target.label}.{suffix}", data)
            for number, (target, data) in enumerate(
                [pair async for pair in self._pictures(self._file)]
            )
        ]
        data = await self.predictor.write(lambda: zip_of(files))
        return Response(data, media_type=ZIP, headers=self._headers())

    async def _parts(self) -> Response:
        writer = MultipartWriter()

        async def parts() -> AsyncGenerator[bytes]:
            async with aclosing(self._pictures(self._file)) as pairs:
                async for target, data in pairs:
                    yield writer.part(
                        data,
                        {
                            "Content-Type": self.picture_format.media_type,
                            "Content-Length": str(len(data)),
                            **_target_headers(target),
                        },
                    )
            yield writer.end()

        return await _streamed(parts(), writer.media_type, self._headers())

    def _pictures(self, finish: Callable[[Pixels], Any]) -> AsyncGenerator[tuple[Target, Any]]:
        return self.predictor.pictures(
            self.taken, self.model, self.group, self.targets, finish, self.caller
        )

    def _seen(self, picture: Pixels) -> Pixels:
        return picture if self.place is None else self.predictor.in_photo(self.place, picture)

    def _file(self, picture: Pixels) -> bytes:
        return self.predictor.encoded(self._seen(picture), self.picture_format, self._mark)

    @property
    def _mark(self) -> Mark:
        return Mark.of(self.model.manifest, in_photo=self.view is View.PHOTO)

    def _headers(self) -> dict[str, str]:
        return _headers(self.taken, self.model, self.group)


@dataclass(frozen=True, eq=False)
class AskedSequence(Asked):
    """Frames, `fps` of them a second, in place of single pictures."""

    fps: float = 12

    async def answer(self, media_type: str) -> Response:
        """The answer as one of FILMS."""
        if media_type == MP4:
            return await self._film()
        if media_type in ANIMATIONS:
            return await self._animation(AnimationFormat(media_type.partition("/")[2]))
        return await super().answer(media_type)

    async def _animation(self, animation_format: AnimationFormat) -> Response:
        frames = [picture async for _, picture in self._pictures(self._seen)]
        mark, media_type = self._mark, animation_format.media_type

        def animated() -> bytes:
            data = animation(frames, self.fps, animation_format, mark)
            return self.predictor.signed(data, media_type, mark)

        data = await self.predictor.write(animated)
        return Response(data, media_type=media_type, headers=self._headers())

    async def _film(self) -> Response:
        async def fragments() -> AsyncGenerator[bytes]:
            writer = Mp4Writer(self.fps, self._mark)
            async with aclosing(self._pictures(self._seen)) as pairs:
                async for _, picture in pairs:
                    yield await self.predictor.write(lambda picture=picture: writer.add(picture))
            yield await self.predictor.write(writer.finish)

        return await _streamed(fragments(), MP4, self._headers())

    def _described(self, fields: dict[str, Any]) -> dict[str, Any]:
        return Frames(fps=self.fps, **fields).model_dump(mode="json")


async def together(
    predictor: Predictor,
    people: Sequence[tuple[TakenFace, Target]],
    model: Model,
    group: str,
    picture_format: PictureFormat,
    caller: Hashable = None,
) -> Response:
    """The photo that several faces share, with each at its own target, as one picture."""
    photo = await predictor.together(people, model, group, caller)
    mark = Mark.of(model.manifest, in_photo=True)
    data = await predictor.write(lambda: predictor.encoded(photo, picture_format, mark))
    headers = _headers(people[0][0], model, group)
    headers["X-Face-Ids"] = ", ".join(taken.face_id for taken, _ in people)
    return Response(data, media_type=picture_format.media_type, headers=headers)


def notes_of(taken: TakenFace) -> list[str]:
    """What a caller should know of how the image was read."""
    return [FIRST_FRAME] if taken.face.animated else []


def _headers(taken: TakenFace, model: Model, group: str) -> dict[str, str]:
    headers = {
        "X-Face-Id": taken.face_id,
        "X-Model": f"{model.name} {model.manifest.version}",
        "X-Group": group,
        "Cache-Control": "private, no-store",
        "Vary": "Accept",
    }
    if notes := notes_of(taken):
        headers["X-Note"] = " ".join(notes)
    return headers


def _target_headers(target: Target) -> dict[str, str]:
    headers = {"X-Effective-Age-Years": f"{target.effective_age_years:g}"}
    if target.name is not None:
        headers["X-Target"] = target.name
    return headers


async def _streamed(
    chunks: AsyncGenerator[bytes], media_type: str, headers: dict[str, str]
) -> Response:
    """A streamed answer. It begins when its first bytes are there: until then it can fail whole."""
    first = await anext(chunks)

    async def all_chunks() -> AsyncIterator[bytes]:
        yield first
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    return StreamingResponse(all_chunks(), media_type=media_type, headers=headers)
