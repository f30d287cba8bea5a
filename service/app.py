"""The application: routes, what surrounds them, and what lives as long as they do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match, Route

from model.bundle import BundleError
from model.runtime import ProviderError
from service.errors import (
    MEDIA_TYPE,
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    Problem,
    RateLimited,
    Unauthorized,
    problem_of_status,
)
from service.keys import ApiKeys, KeyFileError
from service.load import Load
from service.logs import CannotStart
from service.middleware import Admission, BodyLimit, Faults, Gate, RequestContext, SecureHeaders
from service.models import appearance_of
from service.observability import Metrics
from service.predictor import open_predictor
from service.rates import RateLimit
from service.routes import OPEN_ROUTERS, ROUTERS
from service.schemas import ProblemDocument, documented
from service.settings import Settings, SettingsError, setting_name
from service.state import Service
from service.version import anchorage_version

if TYPE_CHECKING:
    from service.traces import Traces

DESCRIPTION = (
    "One photographed face at any age of a life. Pictures are synthetic, and each says so itself: "
    "its XMP has IPTC's digital source type, and the model's name and version. "
    "Every error is problem+json (RFC 9457) with a stable `code`."
)
MAX_FIELD_BYTES = 8192
EXPOSED_HEADERS = (
    "Location",
    "Retry-After",
    "Server-Timing",
    "X-Effective-Age-Years",
    "X-Face-Id",
    "X-Face-Ids",
    "X-Group",
    "X-Model",
    "X-Note",
    "X-Request-ID",
    "X-Target",
)
"""Headers of an answer that scripts of another origin may read."""

_log = logging.getLogger(__name__)


def create_app(settings: Settings, *, warm_first: bool = False) -> FastAPI:
    """The application. Models are opened when it starts, and warm when /readyz says so.

    With `warm_first` its start ends only then, for those who send requests as soon as it did.

    Raises SettingsError where the file of API keys cannot be used, or spans cannot be made.
    """
    metrics = Metrics()
    traces = _traces(settings)
    open_routes: list[BaseRoute] = [route for router in OPEN_ROUTERS for route in router.routes]
    # The framework would move uploads over 1 MB to files; nothing of a face goes to disk.
    MultiPartParser.spool_max_size = settings.max_body_bytes
    app = FastAPI(
        title="Anchorage",
        description=DESCRIPTION,
        version=anchorage_version(),
        lifespan=_lifespan(settings, metrics, traces, warm_first),
        docs_url=None,
        redoc_url=None,
        form_limits={"max_files": 1, "max_fields": 256, "max_part_size": MAX_FIELD_BYTES},
        middleware=[
            Middleware(RequestContext, metrics=metrics, traces=traces),
            Middleware(SecureHeaders),
            *_other_origins(settings),
            Middleware(Faults, metrics=metrics),
            Middleware(
                Gate,
                metrics=metrics,
                keys=_api_keys(settings),
                rate=_rate(settings),
                open_routes=open_routes,
            ),
            Middleware(
                BodyLimit,
                metrics=metrics,
                max_bytes=settings.max_body_bytes,
                max_held_bytes=settings.max_bodies_bytes,
            ),
            Middleware(
                Admission,
                metrics=metrics,
                max_requests=settings.max_requests,
                max_wait_s=settings.max_wait_s,
                timeout_s=settings.request_timeout_s,
                load=Load(),
            ),
        ],
    )
    # The API's description belongs to its pages: whoever may read them may read it.
    open_routes += [
        route for route in app.routes if isinstance(route, Route) and route.path == app.openapi_url
    ]
    _answer_problems(app, metrics)
    for router in ROUTERS:
        app.include_router(router)
    paths = {route.path for route in open_routes if isinstance(route, Route)}
    _document(app, paths, keyed=settings.api_keys is not None)
    return app


def _other_origins(settings: Settings) -> list[Middleware]:
    if not settings.origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("Authorization", "Traceparent", "X-Request-ID", "X-Timeout-S"),
        expose_headers=EXPOSED_HEADERS,
    )
    return [cors]


def _api_keys(settings: Settings) -> ApiKeys | None:
    if settings.api_keys is None:
        return None
    try:
        return ApiKeys.read(settings.api_keys)
    except KeyFileError as error:
        raise SettingsError(f"{setting_name('api_keys')}: {error}") from None


def _rate(settings: Settings) -> RateLimit | None:
    if not settings.rate_per_minute:
        return None
    return RateLimit(settings.rate_per_minute, settings.rate_burst)


def _traces(settings: Settings) -> "Traces | None":
    if not settings.traces:
        return None
    try:
        from service.traces import Traces
    except ImportError:
        raise SettingsError(
            f"{setting_name('traces')}: needs an extra: pip install 'anchorage[tracing]'"
        ) from None
    return Traces(settings.traces)


def _lifespan(
    settings: Settings, metrics: Metrics, traces: "Traces | None", warm_first: bool
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if traces is not None:
                stack.push_async_callback(traces.close)
            try:
                predictor = await stack.enter_async_context(open_predictor(settings, metrics))
            except (BundleError, ProviderError, SettingsError, OSError) as error:
                _log.critical("cannot start: %s", error)
                raise CannotStart from None
            service = app.state.service = Service(settings, metrics, predictor)
            warm = asyncio.Event()
            warming = asyncio.create_task(_keep_models(service, warm))
            try:
                if warm_first:
                    await warm.wait()
                yield
            finally:
                warming.cancel()
                await asyncio.gather(warming, return_exceptions=True)

    return lifespan


async def _keep_models(service: Service, warm: asyncio.Event) -> None:
    """Warms the models up, sets `warm`, then follows their folder."""
    settings = service.settings
    seen, told = appearance_of(settings.models), ""
    await _warm_up(service)
    warm.set()
    while settings.models_check_s and not service.not_ready:
        await asyncio.sleep(settings.models_check_s)
        now = await asyncio.to_thread(appearance_of, settings.models)
        if now == seen:
            continue
        try:
            await service.predictor.refresh()
            seen, told = now, ""
        except Exception as error:
            # Half a bundle, perhaps, whose other half still comes: it is tried again.
            if str(error) != told:
                told = str(error)
                _log.error("the models stay as they are: %s", told)


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
        allow = _methods_of_path(request) if error.status_code == 405 else ""
        return answer(request, problem_of_status(error.status_code, str(error.detail), allow))


def _methods_of_path(request: Request) -> str:
    """For the header Allow: the methods of every route of the path, not of the first alone."""
    methods = {
        method
        for router in (request.app, *ROUTERS)
        for route in router.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return ", ".join(sorted(methods))


def _document(app: FastAPI, open_paths: Set[str], keyed: bool) -> None:
    """Adds to the OpenAPI document what surrounds the routes: keys, and problems of the bounds."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            components = schema.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    _document_bounds(operation, path in open_paths, keyed)
            if keyed:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi


def _document_bounds(operation: dict[str, Any], is_open: bool, keyed: bool) -> None:
    bounds = [BodyTooLarge, InternalError, *([] if is_open else [Unauthorized, RateLimited])]
    for status, answer in documented(*bounds).items():
        operation["responses"].setdefault(str(status), answer)
    if keyed and not is_open:
        operation["security"] = [{"key": []}]
