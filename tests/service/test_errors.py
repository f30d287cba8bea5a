import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from model.portraits import errors as portrait_errors
from model.portraits.errors import PortraitError
from service import errors
from service.app import create_app
from service.errors import Problem, problem_of_portrait, problems
from service.settings import Settings

EXAMPLES: list[Problem] = [
    errors.InvalidRequest("x: is missing", errors=[]),
    errors.AgeOutOfRange(300, 0, 69),
    errors.InvalidFaceTarget("Face 0 has two targets."),
    errors.InvalidWeights("Weights must sum to 1."),
    errors.NotContinuous("tiny"),
    errors.TooManyPictures(9, 8),
    errors.UnknownAnchor("old", ("0-2", "50-69")),
    errors.UnknownGroup("all", ("neutral",)),
    errors.UnknownModel("x", ("tiny",)),
    errors.NoFaceFound("No face was found."),
    errors.ImplausibleFace("No face has such landmarks."),
    errors.FaceTooSmall("The face is too small."),
    errors.NoSuchFace("There is no face 3."),
    errors.BrokenImage("The image is damaged."),
    errors.Unauthorized("The API key is not known.", refused=True),
    errors.UnknownFace(),
    errors.NotFound("There is nothing at this path."),
    errors.MethodNotAllowed("This path does not take this method.", "GET"),
    errors.NotAcceptable(("image/png",)),
    errors.PhotoNotKept(),
    errors.FaceCutForAnotherModel(),
    errors.BodyTooLarge(1024),
    errors.ImageTooLarge("The image has too many pixels."),
    errors.UnsupportedImage("The image must be a JPEG."),
    errors.InternalError(),
    errors.InferenceFailed(),
    errors.RateLimited(2.1),
    errors.Overloaded(2.1),
    errors.NotReady("The models are warming up."),
    errors.StoreUnavailable(),
    errors.TimedOut(30),
]


@pytest.fixture(scope="module")
def raising_app() -> Iterator[FastAPI]:
    """The application with a route that raises the example of a code."""
    app = create_app(Settings.load())
    examples = {example.code: example for example in EXAMPLES}

    @app.get("/raise/{code}")
    async def fail(code: str) -> None:
        if code == "bug":
            raise RuntimeError("the secret detail")
        raise examples[code]

    return app


def get(app: FastAPI, path: str, headers: Any = None, method: str = "GET") -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(run())


def test_there_is_an_example_of_every_problem():
    assert {type(example) for example in EXAMPLES} == set(problems())


def test_codes_are_distinct_and_plain():
    codes = [kind.code for kind in problems()]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


def test_the_family_s_docstring_names_every_member():
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in problems() if kind.__name__ not in errors.__doc__] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.code)
def test_a_problem_is_answered_as_problem_json(raising_app: FastAPI, example: Problem):
    response = get(raising_app, f"/raise/{example.code}", {"X-Request-ID": "abc-1"})
    assert response.status_code == example.status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == "abc-1"
    document = response.json()
    assert document["code"] == example.code
    assert document["type"].endswith(example.code)
    assert document["status"] == example.status
    assert document["title"] == example.title
    assert document["detail"] == example.detail
    assert document["request_id"] == "abc-1"
    assert ("retry-after" in response.headers) == (example.status in (429, 503))
    assert ("www-authenticate" in response.headers) == (example.status == 401)


def test_retry_after_is_rounded_up_to_whole_seconds(raising_app: FastAPI):
    for code in ("overloaded", "rate_limited"):
        assert get(raising_app, f"/raise/{code}").headers["retry-after"] == "3"


def test_an_unforeseen_fault_is_a_problem_that_tells_nothing(raising_app: FastAPI):
    response = get(raising_app, "/raise/bug")
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert "secret" not in response.text


def test_a_wrong_path_and_a_wrong_method_are_problems(raising_app: FastAPI):
    assert get(raising_app, "/nowhere").json()["code"] == "not_found"
    wrong = get(raising_app, "/age")
    assert wrong.json()["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "POST"
    both = get(raising_app, "/faces/x", method="PUT")
    assert (both.status_code, both.headers["allow"]) == (405, "DELETE, GET")


@pytest.mark.parametrize("asked", ["a b", "x" * 65, "ü", ""])
def test_an_odd_request_id_is_replaced(raising_app: FastAPI, asked: str):
    headers = {b"X-Request-ID": asked.encode()}
    given = get(raising_app, "/nowhere", headers).headers["x-request-id"]
    assert given != asked
    assert len(given) == 16


PORTRAIT_EXAMPLES = [
    (portrait_errors.NoFace(), 422),
    (portrait_errors.ImplausibleFace(), 422),
    (portrait_errors.FaceTooSmall(10, 64), 422),
    (portrait_errors.NoSuchFace(3, 1), 422),
    (portrait_errors.BrokenImage(), 422),
    (portrait_errors.ImageTooLarge(100, 200), 413),
    (portrait_errors.UnsupportedImage(("JPEG", "PNG")), 415),
]


def test_there_is_an_example_of_every_portrait_error():
    assert {type(example) for example, _ in PORTRAIT_EXAMPLES} == set(
        PortraitError.__subclasses__()
    )


@pytest.mark.parametrize(
    ("example", "status"), PORTRAIT_EXAMPLES, ids=lambda value: getattr(value, "code", value)
)
def test_a_portrait_error_keeps_its_code_and_words(example: PortraitError, status: int):
    problem = problem_of_portrait(example)
    assert (problem.code, problem.detail, problem.status) == (example.code, str(example), status)
