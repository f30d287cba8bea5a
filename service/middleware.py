"""What surrounds every request, in plain ASGI: its id, its log line, its bounds, its end."""

import asyncio
import ipaddress
import json
import logging
import math
import re
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import (
    MEDIA_TYPE,
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    Overloaded,
    Problem,
    RateLimited,
    TimedOut,
    Unauthorized,
)
from service.keys import ApiKeys
from service.load import Load, Work, counted
from service.logs import request_fields
from service.observability import Metrics
from service.rates import RateLimit

if TYPE_CHECKING:
    from service.traces import RequestTrace, Traces

PICTURE_PATHS = frozenset({"/age", "/faces", "/interpolate"})
INFERENCE_PATH = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")
MAX_TIMEOUT_S = 3600
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECURE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer brings, unless its route says otherwise."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("service.requests")


class RequestContext:
    """Gives a request its id, counts it, logs it, and traces it where there are `traces`.

    The id is the caller's X-Request-ID where that is 1 to 64 letters, digits, dots, dashes and
    underscores. The log line holds the route's pattern, never the path: that holds face ids. It
    ends with the name of whose key was sent, where keys are asked for. As JSON it has the
    milliseconds of each stage besides.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: "Traces | None" = None) -> None:
        self.app = app
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(8)
        fields = {"request_id": request_id}
        trace: RequestTrace | None = None
        if self._traces is not None:
            trace = self._traces.begin(headers.get("traceparent", ""))
            fields["trace_id"] = trace.trace_id
        scope.setdefault("state", {}).update(request_id=request_id, trace=trace)
        # Never reset: what the server itself logs of a request comes after this has returned.
        request_fields.set(fields)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            # A caller may send any word as a method: neither log nor metrics take it over.
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            route = getattr(scope.get("route"), "path", "unmatched")
            shown = str(status) if status else "none"
            holder = scope["state"].get("holder", "")
            self._metrics.requests.labels(method, route, shown).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            if trace is not None:
                trace.end(method, route, status)
            line = f"{method} {route} {shown} {seconds:.3f} s {request_id} {holder}"
            work: Work | None = scope["state"].get("work")
            told = {
                "method": method,
                "route": route,
                "status": status or None,
                "duration_ms": round(1000 * seconds, 1),
                **({"caller": holder} if holder else {}),
                **(work.milliseconds if work is not None else {}),
            }
            _log.info("%s", line.rstrip(), extra=told)


class Faults:
    """Answers what nothing else caught, and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        except Exception:
            _log.exception("request %s failed", scope["state"]["request_id"])
            if started:
                raise
            await send_problem(InternalError(), scope, send, self._metrics)


class SecureHeaders:
    """Adds SECURE_HEADERS to every answer that does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, secured_send)


class Gate:
    """Lets in who brings a known key, each as often as the rate allows; others are not read.

    Without `keys` anybody is let in, and the rate is that of a client's address. Requests that
    `open_routes` match pass in any case.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        keys: ApiKeys | None,
        rate: RateLimit | None,
        open_routes: Sequence[BaseRoute],
    ) -> None:
        self.app = app
        self._metrics = metrics
        self._keys = keys
        self._rate = rate
        self._open_routes = open_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope):
            try:
                self._admit(scope)
            except (Unauthorized, RateLimited) as problem:
                await send_problem(problem, scope, send, self._metrics)
                return
        await self.app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is not Match.NONE for route in self._open_routes)

    def _admit(self, scope: Scope) -> None:
        if self._keys is None:
            caller = _network_of(scope.get("client"))
        else:
            caller = self._keys.holder(Headers(scope=scope).get("authorization"))
            scope["state"]["holder"] = caller
        if self._rate is not None and (wait_s := self._rate.take(caller)):
            raise RateLimited(wait_s)


class BodyLimit:
    """Refuses bodies of more than `max_bytes`: from their length where it is told, else counted.

    A body that would bring those of all requests in progress above `max_held_bytes` is refused as
    Overloaded: a body counts until its request ends.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, max_bytes: int, max_held_bytes: int) -> None:
        self.app = app
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        told = int(length) if length.isdecimal() else 0
        if problem := self._refusal(told, told):
            await send_problem(problem, scope, send, self._metrics)
            return
        self._held_bytes += told
        try:
            await self._counted(told, scope, receive, send)
        finally:
            self._held_bytes -= told

    async def _counted(self, told: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application; what comes beyond the length told is held too."""
        read = more = 0
        problem: Problem | None = None
        answered = False

        async def counting_receive() -> Message:
            nonlocal read, more, problem
            message = await receive()
            read += len(message.get("body", b""))
            beyond = max(0, read - told - more)
            self._held_bytes += beyond
            more += beyond
            if beyond or read > self._max_bytes:
                problem = problem or self._refusal(read, 0)
            # The application is told that the caller left, and its answer is not sent.
            return {"type": "http.disconnect"} if problem else message

        async def sparing_send(message: Message) -> None:
            nonlocal answered
            if problem is None or answered:
                answered = True
                await send(message)

        try:
            await self.app(scope, counting_receive, sparing_send)
        except Exception:
            if problem is None or answered:
                raise
        finally:
            self._held_bytes -= more
        if problem and not answered:
            await send_problem(problem, scope, send, self._metrics)

    def _refusal(self, length: int, more: int) -> Problem | None:
        """Why a body of `length` is not read, of which `more` are not held yet."""
        if length > self._max_bytes:
            return BodyTooLarge(self._max_bytes)
        return Overloaded() if self._held_bytes + more > self._max_held_bytes else None


class Admission:
    """Bounds the requests for pictures: how many, how long they may take, and without progress.

    Refused before their body is read are more than `max_requests` at once, and one that is expected
    to take longer than `max_wait_s`, or than its own X-Timeout-S. One whose answer has not begun
    when its own timeout is over gets 504, and so does one that neither reads nor answers a byte for
    `timeout_s`. One whose caller leaves is cancelled, and so is its work that has not begun.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        max_requests: int,
        max_wait_s: float,
        timeout_s: float,
        load: Load,
    ) -> None:
        self.app = app
        self._metrics = metrics
        self._max_requests = max_requests
        self._max_wait_s = max_wait_s
        self._timeout_s = timeout_s
        self._load = load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_for_pictures(scope):
            await self.app(scope, receive, send)
            return
        try:
            own_s = _own_timeout_s(Headers(scope=scope))
            self._admit(scope["path"], min(self._max_wait_s, own_s or math.inf))
        except Problem as problem:
            await send_problem(problem, scope, send, self._metrics)
            return
        work = scope["state"]["work"] = self._load.begin(scope["path"])
        work.trace = scope["state"].get("trace")
        self._metrics.requests_in_progress.inc()
        answered = False

        async def send_with_timing(message: Message) -> None:
            if message["type"] == "http.response.start" and work.by_stage_s:
                MutableHeaders(scope=message)["Server-Timing"] = work.server_timing
            await send(message)

        try:
            watched = _Watched(
                self.app, scope, receive, send_with_timing, self._metrics, self._timeout_s, own_s
            )
            with counted(work):
                answered = await watched.run()
        finally:
            self._load.end(work, answered=answered)
            self._metrics.requests_in_progress.dec()

    def _admit(self, route: str, most_s: float) -> None:
        expected_s = self._load.expected_s(route)
        if len(self._load) >= self._max_requests:
            self._metrics.rejected_requests.labels("too_many").inc()
            raise Overloaded(expected_s)
        # A request that is alone is never refused for what others cost before.
        if len(self._load) and expected_s > most_s:
            self._metrics.rejected_requests.labels("too_long").inc()
            raise Overloaded(expected_s - most_s)


def _is_for_pictures(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "POST"):
        return False
    path = scope["path"]
    return path in PICTURE_PATHS or INFERENCE_PATH.fullmatch(path) is not None


def _own_timeout_s(headers: Headers) -> float | None:
    """Seconds of X-Timeout-S, None without it. Raises InvalidRequest for what is no such time."""
    asked = headers.get("x-timeout-s")
    if asked is None:
        return None
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise InvalidRequest(f"X-Timeout-S: must be seconds above 0, {MAX_TIMEOUT_S} at most.")
    return seconds


class _Watched:
    """One request, run beside a task that waits for its caller to leave."""

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        metrics: Metrics,
        timeout_s: float,
        own_s: float | None,
    ) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._own_s = own_s
        self._messages: asyncio.Queue[Message] = asyncio.Queue(1)
        self._started = self._ended = False
        self._began = self._moved = time.monotonic()

    async def run(self) -> bool:
        """False where it was given up: its caller left, or its time was over."""
        limit_s = self._timeout_s
        app = asyncio.ensure_future(self._app(self._scope, self._messages.get, self._forward))
        watch = asyncio.create_task(self._watch())
        try:
            while not app.done():
                limit_s, since = self._limit()
                left_s = since + limit_s - time.monotonic()
                if left_s <= 0:
                    break
                waiting = {app} if watch.done() else {app, watch}
                await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if watch.done() and not app.done() and not self._ended:
                    self._metrics.cancelled_requests.inc()
                    return False
            if app.done():
                await app
                return True
        finally:
            watch.cancel()
            app.cancel()
            await asyncio.gather(app, watch, return_exceptions=True)
        if self._started:
            # The server closes the connection, which tells the caller that the rest is missing.
            return False
        await send_problem(TimedOut(limit_s), self._scope, self._send, self._metrics)
        return False

    def _limit(self) -> tuple[float, float]:
        """The limit that is over first, in seconds, and since when it counts."""
        stall = self._timeout_s, self._moved
        if self._own_s is None or self._started:
            return stall
        return min(stall, (self._own_s, self._began), key=sum)

    async def _forward(self, message: Message) -> None:
        self._started = True
        await self._send(message)
        self._moved = time.monotonic()
        self._ended = message["type"] == "http.response.body" and not message.get("more_body")

    async def _watch(self) -> None:
        """Hands on what the caller sends; ends when the caller has left."""
        while True:
            message = await self._receive()
            self._moved = time.monotonic()
            await self._messages.put(message)
            if message["type"] == "http.disconnect":
                return


def _network_of(client: tuple[str, int] | None) -> str:
    """What counts as one client: an IPv4 address, or the 64 bits of IPv6 that one has to itself."""
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))


async def send_problem(problem: Problem, scope: Scope, send: Send, metrics: Metrics) -> None:
    """Answers a request with a problem."""
    metrics.problems.labels(problem.code).inc()
    body = json.dumps(problem.document(scope["state"]["request_id"])).encode()
    headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), **problem.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
