"""/faces: what was taken in of a photo, and its end."""

import base64
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Query
from fastapi.responses import Response
from pydantic.json_schema import SkipJsonSchema

from service import errors, schemas
from service.answers import notes_of
from service.errors import InvalidRequest
from service.media import PictureFormat
from service.models import Model
from service.predictor import Predictor, TakenFace
from service.state import ReadyPredictor, timed

router = APIRouter(prefix="/faces", tags=["faces"])

FaceId = Annotated[str, Path(max_length=64)]
ModelName = Annotated[str | SkipJsonSchema[None], Query(alias="model", max_length=64)]
_LOOKUP = schemas.documented(
    errors.InvalidRequest,
    errors.UnknownModel,
    errors.UnknownFace,
    errors.FaceCutForAnotherModel,
    errors.StoreUnavailable,
    errors.NotReady,
    errors.InternalError,
)


@router.post(
    "",
    dependencies=[Depends(timed)],
    status_code=201,
    operation_id="take_in_face",
    responses={
        201: {"links": schemas.face_links("$response.body#/face_id")},
        **schemas.documented(*schemas.OF_PICTURES),
    },
)
async def take_in(
    predictor: ReadyPredictor,
    form: Annotated[schemas.FaceForm, Form(media_type="multipart/form-data")],
    response: Response,
) -> schemas.FaceAnswer:
    """Takes a face in: finds it, cuts its portrait, and keeps it for a while under an id."""
    model = predictor.model(form.model)
    if form.image is None:
        raise InvalidRequest("Send an image.")
    taken = await predictor.take_in(
        await form.image.read(),
        aligned=form.aligned,
        face_index=form.face_index,
        keep_photo=form.keep_photo,
    )
    response.headers["Location"] = f"/faces/{taken.face_id}"
    response.headers["X-Face-Id"] = taken.face_id
    return await _answer(predictor, taken, model, response)


@router.get("/{face_id}", operation_id="show_face", responses=_LOOKUP)
async def show(
    predictor: ReadyPredictor, face_id: FaceId, response: Response, model_name: ModelName = None
) -> schemas.FaceAnswer:
    """Shows what is kept of a face."""
    model = predictor.model(model_name)
    return await _answer(predictor, await predictor.look_up(face_id), model, response)


@router.delete("/{face_id}", status_code=204, operation_id="forget_face", responses=_LOOKUP)
async def forget(predictor: ReadyPredictor, face_id: FaceId) -> None:
    """Deletes a face and everything made of it that is kept."""
    await predictor.forget(face_id)


async def _answer(
    predictor: Predictor, taken: TakenFace, model: Model, response: Response
) -> schemas.FaceAnswer:
    response.headers["Cache-Control"] = "private, no-store"
    face = taken.face
    alignment = predictor.alignment(face, model)
    portrait = await predictor.write(
        lambda: predictor.encoded(predictor.masked_portrait(face, model), PictureFormat.PNG, None)
    )
    return schemas.FaceAnswer(
        face_id=taken.face_id,
        expires_at=datetime.fromtimestamp(face.expires_s, UTC).isoformat(timespec="seconds"),
        faces=[
            schemas.FoundFace(index=index, box=found.box, score=round(found.score, 3))
            for index, found in enumerate(face.found)
        ],
        face_index=face.index,
        width=face.width,
        height=face.height,
        model=model.name,
        alignment=schemas.Alignment(
            resolution=alignment.resolution,
            corners=[(float(x), float(y)) for x, y in alignment.corners()],
            side_px=alignment.side_px,
            angle_degrees=alignment.angle,
        ),
        portrait=base64.b64encode(portrait).decode(),
        photo_kept=face.photo is not None,
        notes=notes_of(taken),
    )
