"""POST /age: a face at other ages."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from service.accept import choose
from service.answers import PICTURES, Asked, picture_offers, together
from service.errors import InvalidFaceTarget, TooManyPictures
from service.media import PictureFormat
from service.models import Model
from service.predictor import Predictor
from service.schemas import OF_PICTURES, AgeForm, Pictures, View, documented, face_links
from service.state import ReadyPredictor, RunningService, Service, caller_of, taken_face, timed
from service.targets import chosen, group_of, of_faces

router = APIRouter(tags=["ageing"])

BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/age",
    dependencies=[Depends(timed)],
    operation_id="age",
    response_class=Response,
    responses={
        200: {
            "description": "One picture asked: its bytes. Several: a document, or by Accept the "
            "parts, an archive or one contact sheet. Each picture is marked as synthetic in its "
            "XMP: `trainedAlgorithmicMedia`, or `compositeWithTrainedAlgorithmicMedia` with "
            "`view=photo`; where the operator signs, with C2PA content credentials too.",
            "model": Pictures,
            "links": face_links("$response.header.X-Face-Id"),
            "content": {
                "image/png": BINARY,
                "image/jpeg": BINARY,
                "image/webp": BINARY,
                "multipart/mixed": BINARY,
                "application/zip": BINARY,
            },
        },
        **documented(*OF_PICTURES),
    },
)
async def age(
    request: Request,
    service: RunningService,
    predictor: ReadyPredictor,
    form: Annotated[AgeForm, Form(media_type="multipart/form-data")],
) -> Response:
    """Shows a face at anchors, at ages in years, or at a mix of anchors.

    Send an `image`, or the `face` id of an earlier answer. The answer's `X-Face-Id` is for
    later requests, which then need no image.

    With `view=photo` and a `face_target` for each of several faces, all of them are shown in one
    picture; `X-Face-Ids` then has their ids, in the order of the targets.
    """
    model = predictor.model(form.model)
    group = group_of(model.manifest, form.group)
    if form.face_target:
        return await _together(request, service, predictor, form, model, group)
    targets = chosen(model.manifest, form.target, form.age, form.weights)
    if len(targets) > service.settings.max_pictures:
        raise TooManyPictures(len(targets), service.settings.max_pictures)
    media_type = choose(request.headers.get("accept"), picture_offers(len(targets), form.format))
    taken = await taken_face(
        predictor,
        form.image,
        form.face,
        aligned=form.aligned,
        face_index=form.face_index,
        keep_photo=form.keep_photo,
        with_photo=form.view is View.PHOTO,
        longest_px=form.longest_px,
    )
    asked = Asked(
        predictor,
        taken,
        model,
        group,
        targets,
        form.format or PictureFormat.PNG,
        form.view,
        caller_of(request),
    )
    return await (await asked.placed()).answer(media_type)


async def _together(
    request: Request,
    service: Service,
    predictor: Predictor,
    form: AgeForm,
    model: Model,
    group: str,
) -> Response:
    if form.view is not View.PHOTO:
        raise InvalidFaceTarget("Targets of several faces need view=photo.")
    if form.target or form.age or form.weights or form.aligned or form.face_index is not None:
        raise InvalidFaceTarget(
            "Targets of several faces go with no target, age, weights, face_index or aligned."
        )
    if len(form.face_target) > service.settings.max_pictures:
        raise TooManyPictures(len(form.face_target), service.settings.max_pictures)
    targets = of_faces(model.manifest, form.face_target)
    offers = PICTURES if form.format is None else (form.format.media_type,)
    media_type = choose(request.headers.get("accept"), offers)
    taken = await taken_face(
        predictor,
        form.image,
        form.face,
        face_index=next(iter(targets)),
        keep_photo=form.keep_photo,
        with_photo=True,
    )
    people = await predictor.beside(taken, list(targets))
    if form.longest_px is not None:
        people = await predictor.with_smaller_photos(people, form.longest_px)
    return await together(
        predictor,
        list(zip(people, targets.values(), strict=True)),
        model,
        group,
        PictureFormat(media_type.partition("/")[2]),
        caller_of(request),
    )
