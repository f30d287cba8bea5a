"""/livez, /readyz, /metrics, /docs, /models, /anchors and the page."""

import re
import shutil
import signal
import time

import httpx
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
        ready=False, models=tmp_path / "models", max_batch=2, batch=2, threads=1, measuring_s=0
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
        ("GET", "/v2"), ("GET", "/v2/health/live"), ("GET", "/v2/health/ready"),
        *(
            (method, f"/v2/models/{{model}}{version}{what}")
            for version in ("", "/versions/{version}")
            for method, what in (("GET", ""), ("GET", "/ready"), ("POST", "/infer"))
        ),
    }  # fmt: skip
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    answers = schema["paths"]["/age"]["post"]["responses"]
    assert {"200", "404", "406", "409", "413", "415", "422", "503", "504"} <= set(answers)
    assert "application/problem+json" in answers["422"]["content"]
    assert set(answers["200"]["content"]) > {"image/png", "application/json"}
    assert "ProblemDocument" in schema["components"]["schemas"]


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


def answered_by(server: Server, face: str, model: str, wanted: str) -> None:
    """Asks until `wanted` answers; every answer on the way must be a picture."""
    deadline = time.monotonic() + 30
    while True:
        response = server.client.post("/age", data={"face": face, "model": model, "target": "0-2"})
        assert response.status_code == 200, response.text
        if response.headers["x-model"] == wanted:
            return
        assert time.monotonic() < deadline


def test_a_new_bundle_is_switched_to_without_a_break(
    start_server: StartServer, tmp_path, portrait: bytes
):
    folder = tmp_path / "models"
    write_tiny_bundle(folder / "tiny", version="1.0.0")
    server = start_server(models=folder, models_check_s=0.05, measuring_s=0, default_model="tiny")
    taken = server.client.post("/faces", data={"aligned": "true"}, files={"image": portrait})
    face = taken.json()["face_id"]
    answered_by(server, face, "tiny", "tiny 1.0.0")

    write_tiny_bundle(tmp_path / "next", version="2.0.0")
    (folder / "tiny").rename(folder / ".tiny-1")
    (tmp_path / "next").rename(folder / "tiny")
    answered_by(server, face, "tiny", "tiny 2.0.0")
    assert server.metric("model_info", version="2.0.0") == 1
    assert server.metric("model_info", version="1.0.0") == 0

    write_tiny_bundle(tmp_path / "more", name="other", version="1.0.0").path.rename(
        folder / "other"
    )
    deadline = time.monotonic() + 30
    while "other" not in server.client.get("/readyz").json()["models"]:
        assert time.monotonic() < deadline
    answered_by(server, face, "other", "other 1.0.0")
    shutil.rmtree(folder / "other")
    while "other" in server.client.get("/readyz").json()["models"]:
        assert time.monotonic() < deadline
    refused = server.client.post("/age", data={"face": face, "model": "other", "target": "0-2"})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")


def test_a_broken_bundle_changes_nothing_until_it_is_mended(
    start_server: StartServer, tmp_path, portrait: bytes
):
    folder = tmp_path / "models"
    write_tiny_bundle(folder / "tiny", version="1.0.0")
    server = start_server(models=folder, models_check_s=0.05, measuring_s=0, default_model="tiny")
    taken = server.client.post("/faces", data={"aligned": "true"}, files={"image": portrait})
    face = taken.json()["face_id"]
    other = write_tiny_bundle(tmp_path / "next", name="other", version="1.0.0")
    whole = (other.path / "decoder.onnx").read_bytes()
    (other.path / "decoder.onnx").write_bytes(whole[:-1])
    other.path.rename(folder / "other")
    deadline = time.monotonic() + 30
    while "the models stay as they are" not in server.log:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "decoder.onnx: sha256 differs" in server.log
    answered_by(server, face, "tiny", "tiny 1.0.0")
    (folder / "other" / "decoder.onnx").write_bytes(whole)
    while "other" not in server.client.get("/readyz").json()["models"]:
        assert time.monotonic() < deadline
    answered_by(server, face, "other", "other 1.0.0")
    assert server.log.count("the models stay as they are") == 1


def test_a_server_told_to_stop_is_not_ready_but_still_answers(
    start_server: StartServer, portrait: bytes
):
    server = start_server(drain_s=3)
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 3
    while (ready := httpx.get(f"{server.url}/readyz")).status_code == 200:
        assert time.monotonic() < deadline
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert httpx.get(f"{server.url}/v2/health/ready").status_code == 503
    asked = {"aligned": "true", "target": "0-2"}
    answer = httpx.post(f"{server.url}/age", data=asked, files={"image": portrait})
    assert answer.status_code == 200
    assert server.process.wait(30) == 0


def test_a_second_signal_ends_the_wait(start_server: StartServer):
    server = start_server(drain_s=600)
    for _ in range(2):
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert server.process.wait(30) == 0
