"""/v2, the Open Inference Protocol."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.bundles import ANCHORS, GROUP_TINT, GROUPS, STEP
from tests.service.conftest import Server


def tensors(levels: list[int], anchors: list[int]) -> list[dict[str, Any]]:
    """Grey portraits and weights, all on one anchor each."""
    image = np.stack([np.full((64, 64, 3), level) for level in levels])
    return [
        {
            "name": "image",
            "datatype": "UINT8",
            "shape": list(image.shape),
            "data": image.ravel().tolist(),
        },
        {
            "name": "weights",
            "datatype": "FP32",
            "shape": [len(anchors), 6],
            "data": np.eye(6)[anchors].tolist(),
        },
    ]


def infer(server: Server, **document: Any) -> httpx.Response:
    return server.client.post("/v2/models/tiny/infer", json=document)


def test_the_server_and_its_model_describe_themselves(server: Server):
    about = server.client.get("/v2").json()
    assert (about["name"], about["extensions"]) == ("anchorage", [])
    model = server.client.get("/v2/models/tiny").json()
    assert model["versions"] == ["1"]
    assert {tensor["name"]: tensor["shape"] for tensor in model["inputs"]} == {
        "image": [-1, 64, 64, 3],
        "weights": [-1, 6],
    }
    assert model["parameters"]["anchors"] == ANCHORS
    assert model["parameters"]["groups"] == list(GROUPS)
    assert server.client.get("/v2/models/tiny/versions/1").json() == model


def test_health_is_that_of_the_service(server: Server):
    assert server.client.get("/v2/health/live").status_code == 200
    assert server.client.get("/v2/health/ready").status_code == 200
    assert server.client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert server.client.get("/v2/models/tiny/versions/1/ready").status_code == 200


def test_portraits_are_rendered_each_at_its_weights(server: Server):
    answer = infer(server, id="mine", inputs=tensors([100, 40], [3, 0])).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", "1", "mine")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"]) == ("image", "UINT8")
    pictures = np.array(output["data"]).reshape(output["shape"])
    assert pictures.shape == (2, 64, 64, 3)
    neutral = np.array([0, 0, GROUP_TINT])
    np.testing.assert_array_equal(pictures[0, 5, 5], 100 + 3 * STEP + neutral)
    np.testing.assert_array_equal(pictures[1, 5, 5], 40 + neutral)


def test_a_group_is_a_parameter(server: Server):
    answer = infer(server, inputs=tensors([100], [0]), parameters={"group": "female"}).json()
    assert answer["outputs"][0]["data"][:3] == [100 + GROUP_TINT, 100, 100]


def changed(position: int, **fields: Any) -> list[dict[str, Any]]:
    asked = tensors([100], [0])
    asked[position].update(fields)
    return asked


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"inputs": changed(0, shape=[1, 32, 32, 3])}, "invalid_request"),
        ({"inputs": changed(0, shape=[0, 64, 64, 3])}, "invalid_request"),
        ({"inputs": changed(0, shape=[-1, 64, 64, 3])}, "invalid_request"),
        ({"inputs": changed(0, data=[1, 2, 3])}, "invalid_request"),
        ({"inputs": changed(0, data=["x"] * 12288)}, "invalid_request"),
        ({"inputs": changed(0, data=[[1], [2, 3]])}, "invalid_request"),
        ({"inputs": changed(0, data=[256] * 12288)}, "invalid_request"),
        ({"inputs": changed(0, data=[0.5] * 12288)}, "invalid_request"),
        ({"inputs": changed(0, datatype="FP32")}, "invalid_request"),
        ({"inputs": changed(0, shape=[10**9, 64, 64, 3])}, "too_many_pictures"),
        ({"inputs": changed(1, data=[0.5, 0, 0, 0, 0, 0])}, "invalid_weights"),
        ({"inputs": changed(1, data=[2, -1, 0, 0, 0, 0])}, "invalid_weights"),
        ({"inputs": changed(1, data=[1e400, 0, 0, 0, 0, 0])}, "invalid_request"),
        ({"inputs": changed(1, shape=[2, 6], data=[1, 0, 0, 0, 0, 0] * 2)}, "invalid_request"),
        ({"inputs": [tensors([1], [0])[0]] * 2}, "invalid_request"),
        ({"inputs": []}, "invalid_request"),
        ({"inputs": tensors([1], [0]), "parameters": {"group": "aliens"}}, "unknown_group"),
        ({"inputs": tensors([1], [0]), "parameters": {"group": 7}}, "invalid_request"),
        ({"inputs": tensors([1], [0]), "outputs": [{"name": "text"}]}, "invalid_request"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(server: Server, document: Any, code: str):
    body = json.dumps(document).replace("Infinity", "1e400")
    answer = server.client.post(
        "/v2/models/tiny/infer", content=body, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text


def test_another_model_or_version_is_refused(server: Server):
    unknown = server.client.get("/v2/models/huge")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_model")
    older = server.client.get("/v2/models/tiny/versions/0")
    assert (older.status_code, older.json()["code"]) == (422, "invalid_request")
