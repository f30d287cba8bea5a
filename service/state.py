"""What the application's lifespan hands to requests."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Header, Request, UploadFile

from service.errors import InvalidRequest, NotReady
from service.middleware import MAX_TIMEOUT_S
from service.observability import Metrics
from service.predictor import Predictor, TakenFace
from service.settings import Settings


@dataclass(eq=False)
class Service:
    """A running service.

    `not_ready` says why it cannot answer yet, and is empty once it can; `stopping` that it still
    answers, but should be sent no more.
    """

    settings: Settings
    metrics: Metrics
    predictor: Predictor
    not_ready: str = "The models are warming up."
    stopping: bool = False

    async def demand_ready(self) -> None:
        """Raises NotReady or StoreUnavailable where it should not be sent requests."""
        if self.not_ready or self.stopping:
            raise NotReady(self.not_ready or "The service is stopping.")
        await self.predictor.store.check()


async def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


RunningService = Annotated[Service, Depends(_service)]


async def _predictor(service: RunningService) -> Predictor:
    if service.not_ready:
        raise NotReady(service.not_ready)
    return service.predictor


ReadyPredictor = Annotated[Predictor, Depends(_predictor)]
"""The predictor; 503 until it is warm."""


async def timed(
    x_timeout_s: Annotated[
        float | None,
        Header(
            gt=0,
            le=MAX_TIMEOUT_S,
            description="Seconds until the answer must have begun: 503 before the body is read "
            "where it would not, 504 where it did not.",
        ),
    ] = None,
) -> None:
    """Documents a header that the admission has read already."""


def caller_of(request: Request) -> str:
    """Who asks, for taking turns: the holder of the API key, else the client's address."""
    address = request.client.host if request.client else ""
    return getattr(request.state, "holder", "") or address


async def taken_face(
    predictor: Predictor,
    image: UploadFile | None,
    face: str | None,
    *,
    aligned: bool = False,
    face_index: int | None = None,
    keep_photo: bool = False,
    with_photo: bool = False,
    longest_px: int | None = None,
) -> TakenFace:
    """The face of a request that brings either an image or a face's id.

    `with_photo` demands the photo of a face taken in earlier; `longest_px` makes a larger photo
    smaller. Raises InvalidRequest for both or neither, and what the predictor raises.
    """
    if (image is None) == (face is None):
        raise InvalidRequest("Send either an image or a face.")
    if image is not None:
        taken = await predictor.take_in(
            await image.read(),
            aligned=aligned,
            face_index=face_index,
            keep_photo=keep_photo,
            with_photo=with_photo,
        )
    else:
        assert face is not None
        taken = await predictor.look_up(face, with_photo=with_photo)
    if longest_px is None or not with_photo:
        return taken
    (taken,) = await predictor.with_smaller_photos([taken], longest_px)
    return taken
