"""The service keeps what its OpenAPI document says."""

from pathlib import Path

from tests.service.conformance import hold_to_openapi
from tests.service.conftest import Server, StartServer


def test_answers_are_those_that_the_document_allows(start_server: StartServer, tmp_path: Path):
    server = start_server()
    found = hold_to_openapi(server.url, tmp_path, examples=5)
    assert found.passed, found.report[-5000:]
    assert found.cases > 300
    assert server.metric("requests_total", route="/faces", status="201") > 0
    assert server.metric("requests_total", route="/age", status="200") > 0
    assert server.client.get("/readyz").status_code == 200


def test_links_of_a_face_lead_to_operations_that_there_are(server: Server):
    schema = server.client.get("/openapi.json").json()
    operations = {
        operation["operationId"]: operation
        for item in schema["paths"].values()
        for operation in item.values()
    }
    linked = [operations[name] for name in ("take_in_face", "age", "interpolate")]
    for operation in [*linked, operations["interpolate_image"]]:
        links = next(
            answer["links"] for answer in operation["responses"].values() if "links" in answer
        )
        assert set(links) == {"show", "forget", "interpolate", "age"}
        for link in links.values():
            named = {each["name"] for each in operations[link["operationId"]].get("parameters", [])}
            assert set(link.get("parameters", {})) <= named


def test_no_form_field_is_said_to_take_null(server: Server):
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("AgeForm", "FaceForm", "InterpolationForm"):
        assert '"null"' not in str(schemas[name]).replace("'", '"')
