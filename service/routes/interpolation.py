"""/interpolate: a face through the years, as a frame sequence."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from service.accept import choose
from service.answers import FILMS, AskedSequence
from service.errors import TooManyPictures
from service.media import PictureFormat
from service.predictor import Predictor
from service.routes.age import BINARY
from service.schemas import (
    OF_PICTURES,
    Frames,
    InterpolationForm,
    InterpolationQuery,
    View,
    documented,
    face_links,
)
from service.state import ReadyPredictor, RunningService, Service, caller_of, taken_face, timed
from service.targets import between, group_of

router = APIRouter(tags=["ageing"])

_RESPONSES = {
    200: {
        "description": "By Accept: an animation (WebP unless told otherwise), a film, an archive "
        "of pictures, parts or a document. Films and parts come frame by frame. Each file is "
        "marked as `trainedAlgorithmicMedia` in its XMP; where the operator signs, all but "
        "MP4, which is sent while it grows, carry C2PA content credentials too.",
        "model": Frames,
        "links": face_links("$response.header.X-Face-Id"),
        "content": {media_type: BINARY for media_type in FILMS if media_type != "application/json"},
    },
    **documented(*OF_PICTURES),
}


@router.get(
    "/interpolate",
    operation_id="interpolate",
    dependencies=[Depends(timed)],
    response_class=Response,
    responses=_RESPONSES,
)
async def interpolate(
    request: Request,
    service: RunningService,
    predictor: ReadyPredictor,
    query: Annotated[InterpolationQuery, Query()],
) -> Response:
    """Shows a face taken in earlier at ages from `start` to `stop`.

    Nothing is encoded that was encoded before: frames only cost their decoding.
    """
    return await _answer(request, service, predictor, query)


@router.post(
    "/interpolate",
    dependencies=[Depends(timed)],
    operation_id="interpolate_image",
    response_class=Response,
    responses=_RESPONSES,
)
async def interpolate_image(
    request: Request,
    service: RunningService,
    predictor: ReadyPredictor,
    form: Annotated[InterpolationForm, Form(media_type="multipart/form-data")],
) -> Response:
    """Takes an image in and shows its face from `start` to `stop`, in one call."""
    return await _answer(request, service, predictor, form)


async def _answer(
    request: Request,
    service: Service,
    predictor: Predictor,
    asked: InterpolationQuery | InterpolationForm,
) -> Response:
    model = predictor.model(asked.model)
    group = group_of(model.manifest, asked.group)
    if asked.frames > service.settings.max_frames:
        raise TooManyPictures(asked.frames, service.settings.max_frames)
    targets = between(model.manifest, asked.start, asked.stop, asked.frames, asked.pace)
    media_type = choose(request.headers.get("accept"), FILMS)
    if isinstance(asked, InterpolationForm):
        taken = await taken_face(
            predictor,
            asked.image,
            asked.face,
            aligned=asked.aligned,
            face_index=asked.face_index,
            keep_photo=asked.keep_photo,
            with_photo=asked.view is View.PHOTO,
            longest_px=asked.longest_px,
        )
    else:
        taken = await taken_face(
            predictor,
            None,
            asked.face,
            with_photo=asked.view is View.PHOTO,
            longest_px=asked.longest_px,
        )
    picture_format = asked.format or PictureFormat.PNG
    sequence = AskedSequence(
        predictor,
        taken,
        model,
        group,
        targets,
        picture_format,
        asked.view,
        caller_of(request),
        fps=asked.fps,
    )
    return await (await sequence.placed()).answer(media_type)
