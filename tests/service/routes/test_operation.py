"""/livez, /readyz, /metrics, /docs, /models, /anchors and the page."""

import re
import signal

import pytest

from tests.bundles import ANCHORS, write_tiny_bundle
from tests.service.conftest import Server, StartServer


def test_a_warm_server_is_alive_and_ready(server: Server):
    assert server.client.get("/livez").json() == {"status": "alive"}
    assert server.client.get("/readyz").json() == {"status": "ready", "models": {"tiny": "cpu"}}


def test_a_server_is_not_ready_before_its_models_are_warm(
    start_server: StartServer, tmp_path, portrait: bytes
):
    write_tiny_bundle(tmp_path / "models" / "slow", work=60)
    server = start_server(
        ready=False, models=tmp_path / "models", max_batch=16, batch=16, threads=1
    )
    early = server.client.get("/readyz")
    assert server.client.get("/livez").status_code == 200
    refused = server.client.post("/age", files={"image": portrait})
    for response in (early, refused):
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert int(response.headers["retry-after"]) >= 1
    server.wait_until_ready()


def test_a_changed_bundle_stops_the_start_and_is_named(start_server: StartServer, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "models" / "tiny")
    with (bundle.path / "encoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(RuntimeError, match=r"encoder\.onnx: sha256 differs") as failure:
        start_server(models=tmp_path / "models")
    assert "Traceback" not in str(failure.value)


def test_a_missing_parser_stops_the_start_and_is_named(start_server: StartServer, tmp_path):
    with pytest.raises(RuntimeError, match=r"no parser at .*missing\.onnx"):
        start_server(parser=tmp_path / "missing.onnx")


def test_models_tell_their_terms_and_quality(server: Server):
    document = server.client.get("/models").json()
    (model,) = document["models"]
    assert document["default"] == model["name"] == "tiny"
    assert model["licence"] == "CC0-1.0"
    assert model["preview"] is True
    assert model["provider"] == "cpu"
    assert len(model["digest"]) == 64
    assert "research only" in document["notice"]
    assert "synthetic" in document["notice"]


def test_anchors_tell_what_can_be_asked(server: Server):
    document = server.client.get("/anchors").json()
    assert [anchor["name"] for anchor in document["anchors"]] == ANCHORS
    assert document["age_range_years"] == [0, 69]
    assert document["default_group"] == "neutral"
    assert document["groups"] == ["female", "male", "neutral"]
    unknown = server.client.get("/anchors", params={"model": "none"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_model")


@pytest.mark.parametrize("path", ["/", "/docs", "/web/page.js", "/web/page.css"])
def test_pages_name_no_outside_host(server: Server, path: str):
    response = server.client.get(path)
    assert response.status_code == 200
    assert re.findall(r"https?://", response.text) == []


def test_every_file_that_a_page_names_is_served(server: Server):
    for path in ("/", "/docs"):
        named = re.findall(r'(?:src|href)="([^"#:]+)"', server.client.get(path).text)
        assert named
        for name in named:
            url = name if name.startswith("/") else f"/{name}"
            assert server.client.get(url).status_code == 200, name


def test_docs_serve_no_other_file(server: Server):
    for name in ("redoc.standalone.js", "..%2f__init__.py", "%2e%2e"):
        assert server.client.get(f"/docs/{name}").status_code == 404


def test_the_page_runs_its_own_scripts_alone(server: Server):
    policy = server.client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_openapi_documents_every_route_with_its_problems(server: Server):
    schema = server.client.get("/openapi.json").json()
    documented = {
        (method.upper(), path) for path, item in schema["paths"].items() for method in item
    }
    assert documented == {
        ("POST", "/faces"), ("GET", "/faces/{face_id}"), ("DELETE", "/faces/{face_id}"),
        ("POST", "/age"), ("GET", "/interpolate"), ("POST", "/interpolate"),
        ("GET", "/anchors"), ("GET", "/models"),
        ("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics"),
    }  # fmt: skip
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    answers = schema["paths"]["/age"]["post"]["responses"]
    assert {"200", "404", "406", "409", "413", "415", "422", "503", "504"} <= set(answers)
    assert "application/problem+json" in answers["422"]["content"]
    assert set(answers["200"]["content"]) > {"image/png", "application/json"}
    assert "ProblemDocument" in schema["components"]["schemas"]


def test_the_log_tells_routes_but_no_ids_names_or_queries(start_server: StartServer, photo: bytes):
    server = start_server(log_level="debug")
    response = server.client.post(
        "/age", data={"target": "0-2"}, files={"image": ("grandmother.jpg", photo)}
    )
    face = response.headers["x-face-id"]
    server.client.get(f"/faces/{face}")
    server.client.get("/interpolate", params={"face": face, "frames": 3})
    server.client.get(f"/nowhere/{face}?face={face}")
    server.client.post("/age", files={"image": ("grandmother.jpg", photo[:500])})
    server.client.delete(f"/faces/{face}")
    metrics = server.client.get("/metrics").text
    log = server.log
    assert re.search(r"POST /age 200 .* " + response.headers["x-request-id"], log)
    assert "GET /faces/{face_id} 200" in log
    for secret in (face, "grandmother", "frames=3", "?face"):
        assert secret not in log
        assert secret not in metrics


def test_metrics_tell_batches_stages_and_problems(server: Server, portrait: bytes):
    data = {"aligned": "true", "age": "300"}
    before = server.metric("problems_total", code="age_out_of_range")
    server.client.post("/age", data=data, files={"image": portrait})
    assert server.metric("problems_total", code="age_out_of_range") == before + 1
    server.client.post("/age", data={"aligned": "true"}, files={"image": portrait})
    for stage in ("image_decoding", "portrait", "queue", "encode", "decode", "image_encoding"):
        assert server.metric("stage_seconds_count", stage=stage) > 0
    assert server.metric("batch_pictures_sum", graph="decode") >= 6
    assert server.metric("requests_total", route="/age", status="200") > 0
    assert server.metric("model_info", model="tiny", provider="cpu") == 1


def test_sigterm_ends_requests_in_progress_and_then_the_process(
    start_server: StartServer, working_models_folder, portrait: bytes
):
    server = start_server(models=working_models_folder, max_batch=1, batch=1, threads=1)
    data = {"aligned": "true"}
    face = server.client.post("/faces", data=data, files={"image": portrait}).json()["face_id"]
    query = {"face": face, "frames": 40}
    with server.client.stream(
        "GET", "/interpolate", params=query, headers={"accept": "multipart/mixed"}
    ) as response:
        chunks = response.iter_raw()
        body = next(chunks)
        server.process.send_signal(signal.SIGTERM)
        body += b"".join(chunks)
    assert body.count(b"Content-Type: image/png") == 40
    assert server.process.wait(20) == 0
