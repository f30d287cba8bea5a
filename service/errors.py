"""What a caller can be told: one family, answered as problem+json (RFC 9457).

Problem
├── InvalidRequest 422
│   ├── AgeOutOfRange, InvalidFaceTarget, InvalidWeights, NotContinuous, TooManyPictures
│   ├── UnknownAnchor, UnknownGroup, UnknownModel
│   └── NoFaceFound, ImplausibleFace, FaceTooSmall, NoSuchFace, BrokenImage
├── Unauthorized 401                                            with WWW-Authenticate
├── UnknownFace 404, NotFound 404, MethodNotAllowed 405, NotAcceptable 406
├── PhotoNotKept 409, FaceCutForAnotherModel 409
├── BodyTooLarge 413, ImageTooLarge 413, UnsupportedImage 415
├── InternalError 500, InferenceFailed 500
├── TryLater                                                    with Retry-After
│   ├── RateLimited 429
│   └── Unavailable 503: Overloaded, NotReady, StoreUnavailable
└── TimedOut 504

`code` is stable and part of the API; the detail is plain English for a person, and holds nothing
of the image, its name or the face's id.
"""

import http
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from model.portraits.errors import PortraitError

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is not what was asked for.

    `members` are problem+json extensions: facts a program can act on, such as the ages accepted.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the problem."""
        return {}

    def document(self, request_id: str) -> dict[str, Any]:
        """The problem+json body."""
        return {
            "type": problem_type(self.code),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **self.members,
        }


def problem_type(code: str) -> str:
    """The URI that names a kind of problem."""
    return f"urn:anchorage:problem:{code}"


class InvalidRequest(Problem):
    """A parameter is missing, unknown or malformed; `errors` lists each with its reason."""

    status = 422
    code = "invalid_request"
    title = "The request is not valid"


class UnknownAnchor(InvalidRequest):
    """A target names no anchor of the model."""

    code = "unknown_anchor"
    title = "Unknown anchor"

    def __init__(self, name: str, anchors: tuple[str, ...]) -> None:
        super().__init__(
            f"{name!r} is not an anchor; there are {', '.join(anchors)}.", anchors=anchors
        )


class UnknownGroup(InvalidRequest):
    """The model has no such group."""

    code = "unknown_group"
    title = "Unknown group"

    def __init__(self, name: str, groups: tuple[str, ...]) -> None:
        super().__init__(f"{name!r} is not a group; there are {', '.join(groups)}.", groups=groups)


class UnknownModel(InvalidRequest):
    """No such model is served."""

    code = "unknown_model"
    title = "Unknown model"

    def __init__(self, name: str, models: tuple[str, ...]) -> None:
        super().__init__(
            f"{name!r} is not a model served here; there are {', '.join(models)}.", models=models
        )


class AgeOutOfRange(InvalidRequest):
    """The model does not answer for this age."""

    code = "age_out_of_range"
    title = "Age out of range"

    def __init__(self, age_years: float, low_years: float, high_years: float) -> None:
        super().__init__(
            f"The age {age_years:g} is out of range: this model answers for {low_years:g} to "
            f"{high_years:g} years.",
            low_years=low_years,
            high_years=high_years,
        )


class InvalidWeights(InvalidRequest):
    """A weight vector is not one non-negative number per anchor with the sum 1."""

    code = "invalid_weights"
    title = "Invalid weights"


class InvalidFaceTarget(InvalidRequest):
    """What faces of one photo are to become is not told, or is not told clearly."""

    code = "invalid_face_target"
    title = "Invalid face target"


class NotContinuous(InvalidRequest):
    """The model knows its anchors only, not the ages between them."""

    code = "not_continuous"
    title = "No ages between anchors"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The model {model} knows its anchors only: ask for targets, not for ages or weights."
        )


class TooManyPictures(InvalidRequest):
    """More pictures or frames than one request may ask for."""

    code = "too_many_pictures"
    title = "Too many pictures"

    def __init__(self, asked: int, maximum: int) -> None:
        super().__init__(
            f"{asked} pictures were asked for, and one request may have {maximum}.", maximum=maximum
        )


class NoFaceFound(InvalidRequest):
    """No face was found in the photo."""

    code = "no_face"
    title = "No face"


class ImplausibleFace(InvalidRequest):
    """What was found in the photo cannot be a face."""

    code = "implausible_face"
    title = "No plausible face"


class FaceTooSmall(InvalidRequest):
    """The face covers too few pixels of the photo."""

    code = "face_too_small"
    title = "Face too small"


class NoSuchFace(InvalidRequest):
    """`face_index` counts beyond the faces in the photo."""

    code = "no_such_face"
    title = "No such face in the photo"


class BrokenImage(InvalidRequest):
    """The image is truncated or corrupt."""

    code = "broken_image"
    title = "Broken image"


class Unauthorized(Problem):
    """The request brings no API key, or one that is not known."""

    status = 401
    code = "unauthorized"
    title = "An API key is needed"

    def __init__(self, detail: str, *, refused: bool) -> None:
        super().__init__(detail)
        self._refused = refused

    @property
    def headers(self) -> dict[str, str]:
        # RFC 6750: the error is told only where a key was sent.
        reason = ', error="invalid_token"' if self._refused else ""
        return {"WWW-Authenticate": f'Bearer realm="anchorage"{reason}'}


class NotFound(Problem):
    """There is nothing at this path."""

    status = 404
    code = "not_found"
    title = "Not found"


class UnknownFace(Problem):
    """The face expired, was deleted or never was."""

    status = 404
    code = "unknown_face"
    title = "Unknown face"

    def __init__(self) -> None:
        super().__init__("There is no such face: it expired, was deleted or never was.")


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"

    def __init__(self, detail: str, allow: str = "") -> None:
        super().__init__(detail)
        self._allow = allow

    @property
    def headers(self) -> dict[str, str]:
        return {"Allow": self._allow} if self._allow else {}


class NotAcceptable(Problem):
    """None of the media types in Accept can be given."""

    status = 406
    code = "not_acceptable"
    title = "Not acceptable"

    def __init__(self, offers: tuple[str, ...]) -> None:
        super().__init__(f"This can be answered as {', '.join(offers)}.", offers=offers)


class PhotoNotKept(Problem):
    """The photo behind a face was not kept, and is needed."""

    status = 409
    code = "photo_not_kept"
    title = "The photo was not kept"

    def __init__(self) -> None:
        super().__init__(
            "The photo of this face was not kept: send it again, or with keep_photo=true."
        )


class FaceCutForAnotherModel(Problem):
    """The stored face has no portrait as this model needs it."""

    status = 409
    code = "face_cut_for_another_model"
    title = "The face was cut for another model"

    def __init__(self) -> None:
        super().__init__("This face was taken in for models that cut it otherwise: send it again.")


class BodyTooLarge(Problem):
    """The request's body is over the limit."""

    status = 413
    code = "body_too_large"
    title = "The body is too large"

    def __init__(self, maximum: int) -> None:
        super().__init__(
            f"The request is too large: at most {maximum} bytes are accepted.", maximum=maximum
        )


class ImageTooLarge(Problem):
    """The image has more pixels than the limit."""

    status = 413
    code = "image_too_large"
    title = "The image is too large"


class UnsupportedImage(Problem):
    """The file is no image of an accepted format."""

    status = 415
    code = "unsupported_image"
    title = "Unsupported image"


class InternalError(Problem):
    """A fault of the service."""

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(self) -> None:
        super().__init__("The service failed; the fault is in its log under this request's id.")


class InferenceFailed(Problem):
    """A graph failed on this one picture."""

    status = 500
    code = "inference_failed"
    title = "Inference failed"

    def __init__(self) -> None:
        super().__init__("The model failed on this picture.")


class TryLater(Problem):
    """Not now; `retry_after_s` says when to ask again, in whole seconds."""

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = max(1, math.ceil(retry_after_s))

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s)}


class RateLimited(TryLater):
    """More requests than one caller may make."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("You ask more often than one caller may.", retry_after_s)


class Unavailable(TryLater):
    """The service cannot answer now."""

    status = 503


class Overloaded(Unavailable):
    """More work is waiting than the bounds allow."""

    code = "overloaded"
    title = "Overloaded"

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__("The service is busy.", retry_after_s)


class NotReady(Unavailable):
    """The models are not warm yet, or the service is stopping."""

    code = "not_ready"
    title = "Not ready"


class StoreUnavailable(Unavailable):
    """The store of faces does not answer, or has no room."""

    code = "store_unavailable"
    title = "The store of faces is unavailable"

    def __init__(self) -> None:
        super().__init__("The store of faces does not answer, or has no room.", 2.0)


class TimedOut(Problem):
    """The request made no progress for longer than the limit, or missed its own deadline."""

    status = 504
    code = "timed_out"
    title = "Timed out"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The request was not answered within {seconds:g} seconds.")


OF_PORTRAITS: Mapping[str, type[Problem]] = {
    problem.code: problem
    for problem in (
        NoFaceFound,
        ImplausibleFace,
        FaceTooSmall,
        NoSuchFace,
        BrokenImage,
        ImageTooLarge,
        UnsupportedImage,
    )
}
"""What each code of the portraits' own family becomes; the codes stay."""


def problem_of_portrait(error: PortraitError) -> Problem:
    """The problem for something that is wrong with a photo."""
    return OF_PORTRAITS[error.code](str(error))


def problem_of_status(status: int, detail: str, allow: str = "") -> Problem:
    """The problem for an error that the framework raises with an HTTP status.

    `allow` lists the methods that the path takes, for 405.
    """
    if status == 404:
        return NotFound("There is nothing at this path.")
    if status == 405:
        return MethodNotAllowed("This path does not take this method.", allow)
    if 400 <= status < 500:
        # The framework's few others, such as a form that is no form, are all malformed requests.
        return InvalidRequest(detail or http.HTTPStatus(status).phrase)
    return InternalError()


def problems() -> list[type[Problem]]:
    """Every problem there is, by status and code."""
    found: list[type[Problem]] = []
    waiting = Problem.__subclasses__()
    while waiting:
        kind = waiting.pop()
        if "code" in vars(kind):
            found.append(kind)
        waiting.extend(kind.__subclasses__())
    return sorted(found, key=lambda kind: (kind.status, kind.code))
