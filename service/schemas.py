"""What requests may hold and what answers hold, as the API documents them."""

from enum import StrEnum
from typing import Annotated, Any

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from model.ages import Pace
from service.errors import MEDIA_TYPE, MethodNotAllowed, NotFound, Problem, problems
from service.media import PictureFormat

FaceId = Annotated[str, Field(description="Id of a face taken in earlier.", max_length=64)]
Image = Annotated[
    UploadFile | SkipJsonSchema[None],
    Field(
        description="A photograph: JPEG, PNG, WebP or GIF, told apart by content.",
        json_schema_extra={"format": "binary"},
    ),
]


class View(StrEnum):
    """What a picture shows: the aged portrait, or the photo with it in place."""

    FACE = "face"
    PHOTO = "photo"


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Intake(_Form):
    image: Image = None
    aligned: bool = Field(
        False, description="The image is a portrait already: it is only scaled and parsed."
    )
    face_index: int | SkipJsonSchema[None] = Field(
        None, ge=0, le=1000, description="Which face of the photo, the largest first; the largest."
    )
    keep_photo: bool = Field(
        False, description="Keep the photo with the face, for `view=photo` later."
    )


class FaceForm(_Intake):
    """POST /faces."""

    model: str | SkipJsonSchema[None] = Field(
        None, max_length=64, description="Whose portrait to show; the default model's."
    )


class _Pictures(_Form):
    model: str | SkipJsonSchema[None] = Field(
        None, max_length=64, description="The default model unless given."
    )
    group: str | SkipJsonSchema[None] = Field(
        None, max_length=64, description="The model's default group unless given."
    )
    format: PictureFormat | SkipJsonSchema[None] = Field(
        None, description="Format of single pictures, also inside JSON, ZIP and multipart; PNG."
    )
    view: View = Field(
        View.FACE, description="`face`: the aged portrait; `photo`: the photo with it in place."
    )
    longest_px: int | SkipJsonSchema[None] = Field(
        None,
        ge=64,
        le=65_535,
        description="Longest side of the photo with `view=photo`: larger ones are made smaller "
        "first; unless given, the photo keeps its size.",
    )


class AgeForm(_Pictures, _Intake):
    """POST /age."""

    face: FaceId | SkipJsonSchema[None] = None
    target: list[Annotated[str, Field(max_length=64)]] = Field(
        [], description="Anchors such as `50-69`, or `all`; all if nothing is asked for."
    )
    age: list[float] = Field([], description="Ages in years, within the model's range.")
    weights: list[str] = Field(
        [], description="Weights over the anchors with commas between them; they sum to 1."
    )
    face_target: list[Annotated[str, Field(max_length=64)]] = Field(
        [],
        description="With `view=photo`: a face of the photo, the largest being 0, and its anchor "
        "or age, such as `1:50-69`. Each has its own; all are shown in one picture.",
    )


class _Sequence(_Pictures):
    start: str | SkipJsonSchema[None] = Field(
        None, max_length=64, description="Anchor or age in years; the first anchor."
    )
    stop: str | SkipJsonSchema[None] = Field(
        None, max_length=64, description="Anchor or age in years; the last anchor."
    )
    frames: int = Field(24, ge=2, description="Number of frames, both ends included.")
    pace: Pace = Field(
        Pace.ANCHORS,
        description="`anchors`: as many frames between any two neighbouring anchors, as faces "
        "change most while young; `years`: as many frames for every year.",
    )
    fps: float = Field(12, ge=1, le=60, description="Frames a second.")


class InterpolationQuery(_Sequence):
    """GET /interpolate."""

    face: FaceId


class InterpolationForm(_Sequence, _Intake):
    """POST /interpolate."""

    face: FaceId | SkipJsonSchema[None] = None


class Anchor(BaseModel):
    """An age cluster that a model was trained for."""

    name: str
    low_years: int
    high_years: int
    centre_years: float


class AnchorList(BaseModel):
    """What a model can be asked for."""

    model: str
    anchors: list[Anchor]
    age_range_years: tuple[float, float]
    continuous: bool = Field(description="Whether ages between anchors can be asked for.")
    groups: list[str]
    default_group: str


class Runs(BaseModel):
    """What runs of a graph cost here, by the number of pictures in them."""

    best: int = Field(description="Pictures that a run takes at most.")
    seconds: dict[int, float] = Field(
        description="Seconds of a run by its pictures, measured at the start and followed since."
    )


class ServedModel(BaseModel):
    """A model and what its bundle says of it."""

    name: str
    version: str
    default: bool
    method: str
    resolution: int
    anchors: list[str]
    age_range_years: tuple[float, float]
    continuous: bool
    groups: list[str]
    default_group: str
    precision: str
    preview: bool = Field(description="Trained on too few images to be called finished.")
    licence: str = Field(description="Terms of the weights.")
    data: list[str] = Field(description="What the weights were trained on.")
    images_seen: int
    quality: dict[str, Any]
    parity: dict[str, Any]
    digest: str = Field(description="sha256 of the manifest: the bundle's identity.")
    provider: str = Field(description="The execution provider that really runs it.")
    runs: dict[str, Runs] = Field(description="By graph: `encode`, where there is one, `decode`.")


class ModelList(BaseModel):
    """All models served."""

    models: list[ServedModel]
    default: str
    notice: str


class FoundFace(BaseModel):
    """A face of the photo: left, top, right, bottom in its pixels."""

    index: int
    box: tuple[float, float, float, float]
    score: float


class Alignment(BaseModel):
    """Where the portrait lies in the photo: its corners, clockwise from the top left."""

    resolution: int
    corners: list[tuple[float, float]]
    side_px: float
    angle_degrees: float


class FaceAnswer(BaseModel):
    """A face that was taken in."""

    face_id: str
    expires_at: str = Field(description="When it is forgotten, in UTC.")
    faces: list[FoundFace] = Field(description="All faces found, the largest first.")
    face_index: int | None = Field(description="Which of them this is; null for a ready portrait.")
    width: int
    height: int
    model: str
    alignment: Alignment
    portrait: str = Field(
        description="What the model sees of the face: a PNG in base64. It is cut from the photo, "
        "not made by a model, and so bears no mark."
    )
    photo_kept: bool
    notes: list[str]


class Picture(BaseModel):
    """One aged picture."""

    target: str | None = Field(description="The anchor, where one was asked for.")
    age_years: float | None = Field(description="The age, where one was asked for.")
    effective_age_years: float = Field(
        description="The age it shows: ages beyond the outermost anchors' centres show those."
    )
    weights: list[float] = Field(description="Share of each anchor.")
    media_type: str
    image: str = Field(description="The picture file in base64, marked as synthetic in its XMP.")


class Pictures(BaseModel):
    """Aged pictures of one face."""

    face_id: str
    model: str
    version: str
    group: str
    pictures: list[Picture]
    notes: list[str]


class Frames(Pictures):
    """A frame sequence: `pictures` in the order of time."""

    fps: float


class Readiness(BaseModel):
    """A service that can answer: its models and what runs them."""

    status: str
    models: dict[str, str]


class ProblemDocument(BaseModel):
    """problem+json (RFC 9457). Further members depend on the code."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


OF_PICTURES = tuple(kind for kind in problems() if kind not in (NotFound, MethodNotAllowed))
"""What a route that takes a photo may answer."""


def face_links(face: str) -> dict[str, Any]:
    """OpenAPI links from an answer to requests for its face; `face` says where the id stands."""
    return {
        "show": {"operationId": "show_face", "parameters": {"face_id": face}},
        "forget": {"operationId": "forget_face", "parameters": {"face_id": face}},
        "interpolate": {"operationId": "interpolate", "parameters": {"face": face}},
        "age": {"operationId": "age", "requestBody": {"face": face}},
    }


def documented(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the problems that a route may answer."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for status in sorted({kind.status for kind in kinds}):
        codes = sorted(kind.code for kind in kinds if kind.status == status)
        by_status[status] = {
            "description": "Problem: " + ", ".join(f"`{code}`" for code in codes),
            "content": {
                MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}},
            },
        }
    return by_status
