import base64
import time

import numpy as np
import pytest

from tests.conftest import RedisProcess
from tests.service.conftest import Server, StartServer, pixels


def test_a_face_is_taken_in_with_its_portrait_and_place(server: Server, photo: bytes):
    response = server.client.post("/faces", files={"image": photo})
    assert response.status_code == 201
    answer = response.json()
    assert response.headers["location"] == f"/faces/{answer['face_id']}"
    assert response.headers["cache-control"] == "private, no-store"
    (found,) = answer["faces"]
    left, top, right, bottom = found["box"]
    assert 150 < left < right < 300
    assert 50 < top < bottom < 200
    assert (answer["width"], answer["height"]) == (512, 512)
    assert answer["face_index"] == 0
    assert not answer["photo_kept"]
    corners = np.array(answer["alignment"]["corners"])
    side = np.linalg.norm(corners[1] - corners[0])
    assert side == pytest.approx(answer["alignment"]["side_px"], rel=1e-6)
    portrait = pixels(base64.b64decode(answer["portrait"]))
    assert portrait.shape == (64, 64, 3)
    assert portrait[0, 0].tolist() == [128, 128, 128]
    assert portrait[32, 32, 0] > portrait[32, 32, 2] + 20


def test_a_kept_face_is_shown_again(server: Server, photo: bytes):
    taken = server.client.post("/faces", data={"keep_photo": "true"}, files={"image": photo}).json()
    shown = server.client.get(f"/faces/{taken['face_id']}")
    assert shown.status_code == 200
    assert shown.json() == taken
    assert taken["photo_kept"]


def test_a_ready_portrait_has_no_faces_to_choose_from(server: Server, portrait: bytes):
    answer = server.client.post(
        "/faces", data={"aligned": "true"}, files={"image": portrait}
    ).json()
    assert answer["faces"] == []
    assert answer["face_index"] is None
    assert answer["alignment"]["side_px"] == 173


def test_a_deleted_face_is_gone(server: Server, photo: bytes):
    face = server.client.post("/faces", files={"image": photo}).json()["face_id"]
    assert server.client.delete(f"/faces/{face}").status_code == 204
    for response in (
        server.client.get(f"/faces/{face}"),
        server.client.delete(f"/faces/{face}"),
        server.client.post("/age", data={"face": face}),
        server.client.get("/interpolate", params={"face": face}),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "unknown_face")


def test_an_expired_face_is_gone(start_server: StartServer, portrait: bytes):
    server = start_server(face_ttl_s=1)
    data = {"aligned": "true"}
    face = server.client.post("/faces", data=data, files={"image": portrait}).json()["face_id"]
    assert server.client.post("/age", data={"face": face}).status_code == 200
    time.sleep(1.1)
    response = server.client.post("/age", data={"face": face})
    assert (response.status_code, response.json()["code"]) == (404, "unknown_face")


def test_an_image_is_needed(server: Server):
    assert server.client.post("/faces").json()["code"] == "invalid_request"


def test_a_face_taken_in_by_one_replica_is_served_by_another(
    start_server: StartServer, redis_process: RedisProcess, photo: bytes
):
    one = start_server(face_store=redis_process.url)
    other = start_server(face_store=redis_process.url)
    taken = one.client.post("/age", data={"target": "50-69"}, files={"image": photo})
    face = taken.headers["x-face-id"]
    served = other.client.post("/age", data={"target": "50-69", "face": face})
    assert served.content == taken.content
    film = other.client.get("/interpolate", params={"face": face, "frames": 3})
    assert film.status_code == 200
    assert other.metric("encoder_runs_total") - 2 <= 1
    assert other.client.delete(f"/faces/{face}").status_code == 204
    assert one.client.post("/age", data={"face": face}).json()["code"] == "unknown_face"

    redis_process.stop()
    gone = one.client.post("/age", data={"target": "0-2"}, files={"image": photo})
    assert (gone.status_code, gone.json()["code"]) == (503, "store_unavailable")
    assert one.client.get("/readyz").json()["code"] == "store_unavailable"
    assert one.client.get("/livez").status_code == 200
    redis_process.start()
    assert one.client.get("/readyz").status_code == 200
    back = one.client.post("/age", data={"target": "0-2"}, files={"image": photo})
    assert back.status_code == 200
