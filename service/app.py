"""The application: routes, what surrounds them, and what lives as long as they do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware

from model.bundle import BundleError
from model.runtime import ProviderError
from service.errors import MEDIA_TYPE, InvalidRequest, Problem, problem_of_status
from service.middleware import Admission, BodyLimit, RequestContext
from service.observability import CannotStart, Metrics
from service.predictor import open_predictor
from service.routes import ROUTERS
from service.schemas import ProblemDocument
from service.settings import Settings, SettingsError
from service.state import Service
from service.version import anchorage_version

DESCRIPTION = (
    "One photographed face at any age of a life. Pictures are synthetic, and each says so itself: "
    "its XMP has IPTC's digital source type, and the model's name and version. "
    "Every error is problem+json (RFC 9457) with a stable `code`."
)
MAX_FIELD_BYTES = 8192

_log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application. Models are opened when it starts, and warm when /readyz says so."""
    metrics = Metrics()
    # The framework would move uploads over 1 MB to files; nothing of a face goes to disk.
    MultiPartParser.spool_max_size = settings.max_body_bytes
    app = FastAPI(
        title="Anchorage",
        description=DESCRIPTION,
        version=anchorage_version(),
        lifespan=_lifespan(settings, metrics),
        docs_url=None,
        redoc_url=None,
        form_limits={"max_files": 1, "max_fields": 256, "max_part_size": MAX_FIELD_BYTES},
        middleware=[
            Middleware(RequestContext, metrics=metrics),
            Middleware(BodyLimit, metrics=metrics, max_bytes=settings.max_body_bytes),
            Middleware(
                Admission,
                metrics=metrics,
                max_requests=settings.max_requests,
                timeout_s=settings.request_timeout_s,
            ),
        ],
    )
    _answer_problems(app, metrics)
    for router in ROUTERS:
        app.include_router(router)
    _document_problems(app)
    return app


def _lifespan(
    settings: Settings, metrics: Metrics
) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            try:
                predictor = await stack.enter_async_context(open_predictor(settings, metrics))
            except (BundleError, ProviderError, SettingsError, OSError) as error:
                _log.critical("cannot start: %s", error)
                raise CannotStart from None
            service = Service(settings, metrics, predictor)
            warming = asyncio.create_task(_warm_up(service))
            try:
                yield {"service": service}
            finally:
                warming.cancel()
                await asyncio.gather(warming, return_exceptions=True)

    return lifespan


async def _warm_up(service: Service) -> None:
    try:
        await service.predictor.warm_up()
    except Exception:
        _log.exception("the models do not run")
        service.not_ready = "The models do not run; the reason is in the log."
        return
    service.not_ready = ""
    _log.info("ready")


def _answer_problems(app: FastAPI, metrics: Metrics) -> None:
    """Answers the service's own problems and the framework's errors as problem+json."""

    def answer(request: Request, problem: Problem) -> JSONResponse:
        metrics.problems.labels(problem.code).inc()
        return JSONResponse(
            problem.document(request.state.request_id),
            problem.status,
            problem.headers,
            MEDIA_TYPE,
        )

    @app.exception_handler(Problem)
    async def own(request: Request, problem: Problem) -> JSONResponse:
        return answer(request, problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Only names and reasons: what was sent stays out.
        errors = [
            {"field": ".".join(map(str, each["loc"][1:])), "reason": each["msg"]}
            for each in error.errors()
        ]
        first = errors[0]
        detail = f"{first['field']}: {first['reason']}" if first["field"] else first["reason"]
        return answer(request, InvalidRequest(detail, errors=errors))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> JSONResponse:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        return answer(request, problem_of_status(error.status_code, str(error.detail), headers))


def _document_problems(app: FastAPI) -> None:
    """Puts the problem's schema where the routes' documentation refers to it."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi
