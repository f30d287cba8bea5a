import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.observability import Stage
from tests.conftest import free_port
from tests.service.conftest import ROOT, StartServer
from tests.service.routes.test_privacy import KEY, SECRETS, use_every_route

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


class Collector:
    """An OTLP/HTTP receiver on a port of its own: what it was sent, as bytes and as spans."""

    def __init__(self, redirect: str = "") -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.headers: list[str] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                collector.paths.append(self.path)
                collector.headers.append(str(self.headers))
                collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(307 if redirect else 200)
                if redirect:
                    self.send_header("Location", redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resource(self) -> dict[str, Any]:
        (resource,) = ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans
        return attributes_of(resource.resource)


@contextmanager
def collecting(redirect: str = "") -> Iterator[Collector]:
    collector = Collector(redirect)
    thread = threading.Thread(target=collector.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        collector.http.shutdown()
        thread.join()
        collector.http.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def attributes_of(described: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value"))
        for each in described.attributes
    }


def request_span(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


def children_of(spans: list[Span], parent: Span) -> list[Span]:
    return [span for span in spans if span.parent_span_id == parent.span_id]


def test_a_request_goes_on_the_callers_trace_with_a_span_for_each_stage(
    start_server: StartServer, collector: Collector, portrait: bytes
):
    server = start_server(traces=collector.url, log_format="json")
    answer = server.client.post(
        "/age",
        data={"aligned": "true", "target": "0-2"},
        files={"image": ("Clara.png", portrait)},
        headers={"traceparent": CALLER, "tracestate": "clara=1", "baggage": "name=Clara"},
    )
    assert answer.status_code == 200
    assert server.stop() == 0
    assert set(collector.paths) == {"/v1/traces"}
    spans = collector.spans
    request = request_span(spans, "POST /age")
    assert request.kind == Span.SPAN_KIND_SERVER
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == CALLER.split("-")[2]
    assert attributes_of(request) == {
        "http.request.method": "POST",
        "http.route": "/age",
        "http.response.status_code": 200,
    }
    stages = children_of(spans, request)
    assert sorted(span.name for span in stages) == sorted(
        [
            Stage.IMAGE_DECODING,
            Stage.PORTRAIT,
            # Before the encoder, and before the decoder.
            Stage.QUEUE,
            Stage.QUEUE,
            Stage.ENCODE,
            Stage.DECODE,
            Stage.IMAGE_ENCODING,
        ]
    )
    for span in stages:
        assert span.trace_id.hex() == TRACE
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    decode = request_span(stages, "decode")
    assert attributes_of(decode) == {
        "anchorage.model": "tiny",
        "anchorage.batch.pictures": 1,
        "anchorage.batch.size": 1,
    }
    # The same time as the header's, but for its rounding.
    told = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    decode_ms = (decode.end_time_unix_nano - decode.start_time_unix_nano) / 1e6
    assert decode_ms == pytest.approx(float(told["decode"]), abs=0.06)
    assert {span.trace_state for span in spans} == {""}
    assert not any(b"lara" in body for body in collector.bodies)
    assert collector.resource["service.name"] == "anchorage"
    assert len(collector.resource["service.instance.id"]) == 36
    (line,) = [each for each in map(json.loads, server.log.splitlines()) if "/age" in str(each)]
    assert line["trace_id"] == TRACE


def test_frames_of_a_film_are_in_the_batches_of_its_spans(
    start_server: StartServer, collector: Collector, portrait: bytes
):
    server = start_server(traces=collector.url)
    form = {"aligned": "true", "frames": "24"}
    film = server.client.post("/interpolate", data=form, files={"image": portrait})
    assert film.status_code == 200
    assert server.stop() == 0
    spans = collector.spans
    stages = children_of(spans, request_span(spans, "POST /interpolate"))
    runs = [attributes_of(span) for span in stages if span.name == "decode"]
    assert sum(run["anchorage.batch.pictures"] for run in runs) == 24
    assert all(run["anchorage.batch.pictures"] <= run["anchorage.batch.size"] for run in runs)
    assert len([span for span in stages if span.name == "encode"]) == 1


def test_no_span_holds_anything_of_pictures_names_faces_or_keys(
    start_server: StartServer, collector: Collector, photo: bytes, tmp_path: Path
):
    keys = tmp_path / "keys"
    keys.write_text(f"clara:{KEY}\n")
    server = start_server(traces=collector.url, api_keys=keys)
    server.client.headers.update(
        {"authorization": f"Bearer {KEY}", "x-request-id": "Clara", "user-agent": "Clara/1"}
    )
    found = use_every_route(server.client, [photo])
    assert server.stop() == 0
    names = {span.name for span in collector.spans}
    assert names >= {"POST /age", "GET /interpolate", "GET /faces/{face_id}", "GET unmatched"}
    assert "composite" in names
    sent = b"".join(collector.bodies) + "".join(collector.headers).encode()
    for secret in (*SECRETS, *found, "clara"):
        assert secret.encode() not in sent, secret


def test_spans_of_failures_say_so(
    start_server: StartServer, collector: Collector, tmp_path: Path, portrait: bytes
):
    (tmp_path / "sitecustomize.py").write_text(
        "import service.predictor\n"
        "def fail(*arguments, **options):\n"
        "    raise LookupError('Clara')\n"
        "service.predictor.mask_portrait = fail\n"
    )
    server = start_server(environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, traces=collector.url)
    failed = server.client.post("/age", data={"aligned": "true"}, files={"image": portrait})
    refused = server.client.post("/faces", files={"image": b"no image"})
    assert (failed.status_code, refused.status_code) == (500, 415)
    assert server.stop() == 0
    statuses = {span.name: span.status.code for span in collector.spans if "/" in span.name}
    assert statuses["POST /age"] == Status.STATUS_CODE_ERROR
    assert statuses["POST /faces"] == Status.STATUS_CODE_UNSET
    assert b"Clara" not in b"".join(collector.bodies)


def test_a_caller_decides_whether_its_trace_is_kept_and_names_no_other_one(
    start_server: StartServer, collector: Collector
):
    server = start_server(traces=collector.url)
    for asked in (CALLER[:-2] + "00", "Clara", CALLER.replace("00-", "ff-"), f"00-{'0' * 32}-1-01"):
        server.client.get("/models", headers={"traceparent": asked})
    assert server.stop() == 0
    spans = [span for span in collector.spans if span.name == "GET /models"]
    assert len(spans) == 3
    assert all(span.parent_span_id == b"" and span.trace_id.hex() != TRACE for span in spans)
    assert len({span.trace_id for span in spans}) == 3


@contextmanager
def hanging() -> Iterator[str]:
    """A collector that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def gone() -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("dead", [gone, hanging])
def test_a_dead_collector_breaks_no_request_and_does_not_keep_the_service(
    start_server: StartServer, portrait: bytes, dead: Callable[[], Any]
):
    few = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "8",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
    }
    with dead() as url:
        server = start_server(traces=url, environment=few)
        form = {"aligned": "true", "target": "all"}
        for _ in range(20):
            answer = server.client.post("/age", data=form, files={"image": portrait})
            assert answer.status_code == 200
        assert server.client.get("/readyz").status_code == 200
        # Within the time of Server.stop.
        assert server.stop() == 0


@pytest.mark.parametrize("way", ["redirect", "proxy"])
def test_spans_go_nowhere_else_than_where_the_operator_said(
    start_server: StartServer, collector: Collector, way: str
):
    with ExitStack() as stack:
        redirect = f"{collector.url}/v1/traces" if way == "redirect" else ""
        named = stack.enter_context(collecting(redirect))
        proxy = collector.url if way == "proxy" else ""
        environment = {"HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}
        server = start_server(traces=named.url, environment=environment)
        assert server.client.get("/models").status_code == 200
        assert server.stop() == 0
        assert named.bodies
    assert collector.bodies == []


def test_nothing_is_sent_unless_the_service_itself_is_told_to(
    start_server: StartServer, collector: Collector
):
    environment: Mapping[str, str] = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    server = start_server(environment=environment)
    assert server.client.get("/models", headers={"traceparent": CALLER}).status_code == 200
    assert server.stop() == 0
    assert collector.bodies == []


def test_opentelemetrys_own_variables_name_the_service_and_set_headers(
    start_server: StartServer, collector: Collector
):
    environment = {
        "OTEL_SERVICE_NAME": "ageing",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=7",
    }
    server = start_server(traces=f"{collector.url}/", environment=environment)
    server.client.get("/models")
    assert server.stop() == 0
    assert collector.resource["service.name"] == "ageing"
    assert collector.resource["deployment.environment.name"] == "test"
    assert "x-tenant: 7" in collector.headers[0].lower()


def test_without_the_extra_the_start_ends_with_the_setting_and_the_extra():
    script = """
import sys
sys.modules["opentelemetry.sdk"] = None  # As where it is not installed.
from service.__main__ import main
sys.exit(main(["serve", "--port", "0", "--traces", "http://127.0.0.1:4318"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()
    assert "ANCHORAGE_TRACES (--traces)" in told
    assert "anchorage[tracing]" in told
