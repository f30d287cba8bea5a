"""POST /age: a face at other ages."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from service.accept import choose
from service.answers import Asked, picture_offers
from service.errors import TooManyPictures
from service.media import PictureFormat
from service.schemas import OF_PICTURES, AgeForm, Pictures, View, documented, face_links
from service.state import ReadyPredictor, RunningService, caller_of, taken_face, timed
from service.targets import chosen, group_of

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
    """
    model = predictor.model(form.model)
    group = group_of(model.manifest, form.group)
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
    return await asked.answer(media_type)
