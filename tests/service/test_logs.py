import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.observability import Stage
from tests.service.conftest import ROOT, Server, StartServer

FAULT = """
import service.predictor, warnings
def fail(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("an odd thing\\non two lines", RuntimeWarning)
    raise LookupError('the fault')
service.predictor.mask_portrait = fail
"""


def lines(server: Server) -> list[dict[str, Any]]:
    """The log's lines, each of which must be one JSON object."""
    found = [json.loads(line) for line in server.log.splitlines()]
    assert all(isinstance(each, dict) for each in found)
    return found


def test_every_line_is_one_json_object_from_start_to_end(
    start_server: StartServer, portrait: bytes
):
    server = start_server(log_format="json")
    asked = server.client.post(
        "/age",
        data={"aligned": "true", "target": "0-2"},
        files={"image": ("Clara.png", portrait)},
        headers={"x-request-id": "ann-1"},
    )
    face = asked.headers["x-face-id"]
    server.client.get(f"/faces/{face}?name=Clara")
    server.client.get(f"/nowhere/{face}")
    assert server.stop() == 0
    found = lines(server)
    for each in found:
        assert list(each)[:4] == ["time", "level", "logger", "message"]
        time = datetime.fromisoformat(each["time"])
        assert time.tzinfo == UTC
        assert abs(datetime.now(UTC) - time) < timedelta(minutes=10)
    assert {each["level"] for each in found} == {"INFO"}
    # The server's own lines too, and each once.
    (running,) = [each for each in found if "running on" in each["message"]]
    assert running["logger"] == "uvicorn.error"
    assert "request_id" not in running
    assert set(running) == {"time", "level", "logger", "message"}
    (age,) = [each for each in found if each.get("request_id") == "ann-1"]
    assert (age["method"], age["route"], age["status"]) == ("POST", "/age", 200)
    stages = {each.removesuffix("_ms") for each in age if each.endswith("_ms")} - {"duration"}
    assert stages == set(Stage) - {Stage.COMPOSITE}
    assert age["duration_ms"] > age["decode_ms"] >= 0
    told = re.findall(r"(\w+);dur=([\d.]+)", asked.headers["server-timing"])
    assert {stage: age[f"{stage}_ms"] for stage, _ in told} == {
        stage: float(value) for stage, value in told
    }
    others = {(each["route"], each["status"]) for each in found if "route" in each}
    assert others >= {("/faces/{face_id}", 200), ("unmatched", 404)}
    assert face not in server.log
    assert "Clara" not in server.log


def test_a_fault_and_a_warning_are_one_line_each_with_their_request(
    start_server: StartServer, tmp_path: Path, portrait: bytes
):
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    server = start_server(environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, log_format="json")
    answer = server.client.post("/age", data={"aligned": "true"}, files={"image": portrait})
    assert answer.status_code == 500
    assert server.stop() == 0
    asked = answer.json()["request_id"]
    warning, fault, access = [each for each in lines(server) if each.get("request_id") == asked]
    assert (warning["level"], warning["logger"]) == ("WARNING", "py.warnings")
    assert "an odd thing\non two lines" in warning["message"]
    assert fault["level"] == "ERROR"
    assert fault["exc_info"].startswith("Traceback")
    assert fault["exc_info"].endswith("LookupError: the fault")
    assert access["status"] == 500


def test_a_graph_that_fails_tells_whose_request_it_was(
    start_server: StartServer, tmp_path: Path, portrait: bytes
):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, service.models\n"
        "def decode(*arguments, made=service.models.Model.decode):\n"
        "    if os.path.exists(os.environ['FAULT']):\n"
        "        raise RuntimeError('no such kernel')\n"
        "    return made(*arguments)\n"
        "service.models.Model.decode = decode\n"
    )
    fault = tmp_path / "fault"
    server = start_server(
        environment={"PYTHONPATH": f"{tmp_path}:{ROOT}", "FAULT": str(fault)}, log_format="json"
    )
    fault.touch()
    asked = server.client.post("/age", data={"aligned": "true"}, files={"image": portrait})
    assert asked.status_code == 500
    assert server.stop() == 0
    failed = [each for each in lines(server) if "failed on a picture" in each["message"]]
    assert failed
    assert {each["request_id"] for each in failed} == {asked.headers["x-request-id"]}


@pytest.mark.parametrize(
    "setting",
    [{"api_keys": "/no/such/file"}, {"models": "/no/such/folder"}],
    ids=lambda setting: next(iter(setting)),
)
def test_what_stops_the_start_is_a_line_of_it_too(start_server: StartServer, setting):
    with pytest.raises(RuntimeError, match="did not start") as caught:
        start_server(log_format="json", **setting)
    _, *found = str(caught.value).splitlines()
    (told,) = [line for line in map(json.loads, found) if line["level"] == "CRITICAL"]
    assert told["message"].startswith("cannot start: ")
    assert next(iter(setting.values())) in told["message"]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("ann-1.b_2", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("Clara Grandmother", False),
        ('"},{"level":"x', False),
        ("caf\u00e9", False),
    ],
)
def test_a_request_id_of_the_callers_is_taken_where_it_is_safe(server: Server, asked, kept):
    answer = server.client.get("/livez", headers={"x-request-id": asked.encode("latin-1")})
    given = answer.headers["x-request-id"]
    if kept:
        assert given == asked
    else:
        assert re.fullmatch("[0-9a-f]{16}", given)
        assert not asked or asked not in server.log


def test_text_lines_are_as_they_were(server: Server):
    given = server.client.get("/livez").headers["x-request-id"]
    server.client.get("/livez")
    (line,) = [each for each in server.log.splitlines() if given in each]
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(
        rf"{stamp} INFO service\.requests GET /livez 200 \d+\.\d{{3}} s {given}", line
    )
