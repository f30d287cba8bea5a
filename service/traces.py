"""Spans: a request and what its time went to, sent to an OpenTelemetry collector.

Off unless the operator names a collector. A span has the route's pattern, never a path or a query
string, and nothing of a picture, a file's name, a face's id or a key. Needs the extra `tracing`.
"""

import asyncio
import logging
import threading
import time
import uuid

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.version import anchorage_version

FLUSH_S = 3.0
"""How long the end of the service may wait for the last spans to be taken."""


class Traces:
    """Makes spans and sends them to the collector at `url`, from a thread of its own.

    They wait in a bounded queue, and are dropped where it is full: neither a slow collector nor one
    that is gone delays a request. OpenTelemetry's own variables set the rest: the service's name,
    headers, a certificate, timeouts, sampling.
    """

    def __init__(self, url: str) -> None:
        ours = {
            "service.name": "anchorage",
            "service.version": anchorage_version(),
            "service.instance.id": str(uuid.uuid4()),
        }
        session = requests.Session()
        # Straight to the collector: no proxy or password that the environment has for others.
        session.trust_env = False
        exporter = OTLPSpanExporter(f"{url.rstrip('/')}/v1/traces", session=session)
        self._provider = TracerProvider(
            resource=Resource(ours).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("anchorage", anchorage_version())
        # One line for each batch that was lost, none for each try.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)

    def begin(self, traceparent: str) -> "RequestTrace":
        """The span of a request that begins; it goes on the caller's trace where it names one."""
        return RequestTrace(self._tracer, traceparent)

    async def close(self) -> None:
        """Sends what is left, for FLUSH_S at most."""
        # A daemon thread, for a collector that hangs must not keep the process.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH_S)


class RequestTrace:
    """The span of one request. May be used from several threads."""

    def __init__(self, tracer: Tracer, traceparent: str) -> None:
        # Of what the caller sends, the ids and whether it is sampled, and no text of its own.
        caller = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
        self._tracer = tracer
        self._span = tracer.start_span("request", caller, SpanKind.SERVER)
        self._inside = set_span_in_context(self._span, Context())
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return format_trace_id(self._span.get_span_context().trace_id)

    def stage(self, name: str, began_s: float, ended_s: float, **attributes: str | int) -> None:
        """A child span from `began_s` to `ended_s`, on the performance counter."""
        if not self._span.is_recording():
            return
        named = {f"anchorage.{key}": value for key, value in attributes.items()}
        began_ns, ended_ns = (self._epoch_ns + round(1e9 * each) for each in (began_s, ended_s))
        self._tracer.start_span(name, self._inside, attributes=named, start_time=began_ns).end(
            ended_ns
        )

    def end(self, method: str, route: str, status: int) -> None:
        """The request has ended; `status` is 0 where it had no answer."""
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes({"http.request.method": method, "http.route": route})
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
