"""Many callers at once, on a real server."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.bundles import ANCHORS, write_tiny_bundle
from tests.service.conftest import Server, StartServer, encoded


def faces_of(server: Server, portrait: bytes, count: int) -> list[str]:
    data = {"aligned": "true", "target": "0-2"}
    return [
        server.client.post("/age", data=data, files={"image": portrait}).headers["x-face-id"]
        for _ in range(count)
    ]


def test_32_concurrent_pictures_take_at_most_12_decoder_runs(
    start_server: StartServer, working_models_folder, portrait: bytes
):
    server = start_server(models=working_models_folder, max_batch=8, batch=8, threads=1)
    faces = faces_of(server, portrait, 8)
    alone = {
        (face, name): server.client.post("/age", data={"face": face, "target": name}).content
        for face in faces[:2]
        for name in ANCHORS
    }
    before = server.metric("decoder_runs_total")
    gate = threading.Barrier(32)

    def ask(number: int) -> tuple[str, str, httpx.Response]:
        face, name = faces[number % 8], ANCHORS[number % 6]
        gate.wait(10)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            return face, name, client.post("/age", data={"face": face, "target": name})

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(32)))
    assert all(response.status_code == 200 for _, _, response in answers)
    assert server.metric("decoder_runs_total") - before <= 12
    for face, name, response in answers:
        if (face, name) in alone:
            assert response.content == alone[face, name]


def test_a_picture_that_fails_takes_no_other_with_it(
    start_server: StartServer, tmp_path, portrait: bytes
):
    write_tiny_bundle(tmp_path / "models" / "tiny", poison=True, portrait={"removed": []})
    server = start_server(models=tmp_path / "models")
    white = encoded(Image.fromarray(np.full((128, 128, 3), 255, np.uint8)), "PNG")
    images = [white if number % 7 == 3 else portrait for number in range(14)]

    def ask(image: bytes) -> httpx.Response:
        data = {"aligned": "true", "target": "0-2"}
        return httpx.post(f"{server.url}/age", data=data, files={"image": image}, timeout=60)

    with ThreadPoolExecutor(14) as pool:
        answers = list(pool.map(ask, images))
    for image, answer in zip(images, answers, strict=True):
        if image is white:
            assert (answer.status_code, answer.json()["code"]) == (500, "inference_failed")
        else:
            assert answer.status_code == 200


@pytest.fixture
def slow_server(start_server: StartServer, tmp_path) -> Server:
    """A server whose decoder takes half a second or so a picture."""
    write_tiny_bundle(tmp_path / "slow-models" / "tiny", work=150)
    return start_server(
        models=tmp_path / "slow-models",
        threads=1,
        max_batch=1,
        batch=1,
        max_requests=3,
        request_timeout_s=2,
    )


def test_a_slow_server_refuses_times_out_and_drops(slow_server: Server, portrait: bytes):
    server = slow_server
    data = {"aligned": "true"}
    face = server.client.post("/faces", data=data, files={"image": portrait}).json()["face_id"]
    ask = {"face": face, "target": "all"}

    def post() -> httpx.Response:
        return httpx.post(f"{server.url}/age", data=ask, timeout=60)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: post(), range(6)))
    codes = sorted(answer.json()["code"] for answer in answers)
    assert codes == ["overloaded"] * 3 + ["timed_out"] * 3
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1

    # Callers that leave: what they asked for is not run.
    before = server.metric("decoder_runs_total")
    body = f"face={face}&target=all".encode()
    head = (
        f"POST /age HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(0.1)
    deadline = time.monotonic() + 10
    while server.metric("cancelled_requests_total") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.metric("requests_in_progress") == 0
    assert server.client.post("/age", data={"face": face, "target": "0-2"}).status_code == 200
    assert server.metric("decoder_runs_total") - before <= 6
