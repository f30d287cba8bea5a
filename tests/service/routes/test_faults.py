"""What breaks around the service ends in a typed error or not at all, and the next is answered."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import write_tiny_bundle
from tests.conftest import RedisProcess
from tests.service.conftest import Server, StartServer, encoded

ALIGNED = {"aligned": "true", "target": "0-2"}


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 10)


def wait_for(server: Server, name: str, value: float) -> None:
    deadline = time.monotonic() + 15
    while server.metric(name) != value:
        assert time.monotonic() < deadline, f"{name} is {server.metric(name)}"
        time.sleep(0.05)


def test_a_store_that_hangs_is_unavailable_until_it_answers_again(
    start_server: StartServer, redis_process: RedisProcess, portrait: bytes
):
    server = start_server(face_store=redis_process.url)
    made = server.client.post("/age", data=ALIGNED, files={"image": portrait})
    face = made.headers["x-face-id"]
    assert redis_process._process is not None
    redis_process._process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(3) as pool:
            answers = list(
                pool.map(
                    lambda path: server.client.get(path),
                    [f"/faces/{face}", "/readyz", f"/interpolate?face={face}"],
                )
            )
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert server.client.get("/livez").status_code == 200
    finally:
        redis_process._process.send_signal(signal.SIGCONT)
    assert server.client.get(f"/faces/{face}").status_code == 200


def test_what_a_store_holds_that_is_no_face_is_an_unknown_face(
    start_server: StartServer, redis_process: RedisProcess, portrait: bytes
):
    redis = pytest.importorskip("redis")
    server = start_server(face_store=redis_process.url)
    made = server.client.post("/age", data=ALIGNED, files={"image": portrait})
    face = made.headers["x-face-id"]
    with redis.Redis.from_url(redis_process.url) as store:
        (key,) = store.keys()
        whole = store.get(key)
        for damaged in (b"", b"ANCHFACE", whole[:-1], whole[:40], bytes(len(whole))):
            store.set(key, damaged)
            shown = server.client.get(f"/faces/{face}")
            assert (shown.status_code, shown.json()["code"]) == (404, "unknown_face")
        store.set(key, whole)
    assert server.client.get(f"/faces/{face}").status_code == 200


def test_a_bundle_that_is_damaged_while_it_is_served_is_served_on_and_found_at_the_next_start(
    start_server: StartServer, tmp_path: Path, portrait: bytes
):
    bundle = write_tiny_bundle(tmp_path / "models" / "tiny")
    server = start_server(models=tmp_path / "models")
    before = server.client.post("/age", data=ALIGNED, files={"image": portrait})
    for name in ("decoder.onnx", "encoder.onnx", "latents.npy", "manifest.json"):
        path = bundle.path / name
        path.write_bytes(path.read_bytes()[:-7])
    after = server.client.post("/age", data=ALIGNED, files={"image": portrait})
    assert after.status_code == 200
    assert after.content == before.content
    with pytest.raises(RuntimeError, match=r"manifest\.json"):
        start_server(models=tmp_path / "models")


def test_a_graph_that_raises_fails_its_picture_and_not_the_next(
    start_server: StartServer, tmp_path: Path, portrait: bytes
):
    write_tiny_bundle(tmp_path / "models" / "tiny", poison=True, portrait={"removed": []})
    server = start_server(models=tmp_path / "models")
    white = encoded(Image.fromarray(np.full((128, 128, 3), 255, np.uint8)), "PNG")
    for _ in range(3):
        failed = server.client.post("/age", data=ALIGNED, files={"image": white})
        assert (failed.status_code, failed.json()["code"]) == (500, "inference_failed")
        assert server.client.post("/age", data=ALIGNED, files={"image": portrait}).is_success


def test_callers_who_send_slowly_hold_their_places_for_a_while_and_are_told(
    start_server: StartServer, portrait: bytes
):
    server = start_server(max_requests=3, request_timeout_s=1)
    head = b"POST /age HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    head += b"Content-Length: 5000\r\n\r\n--b\r\n"
    slow = [connect(server) for _ in range(3)]
    for connection in slow:
        connection.sendall(head)
    wait_for(server, "requests_in_progress", 3)
    crowded = server.client.post("/age", data=ALIGNED, files={"image": portrait})
    assert (crowded.status_code, crowded.json()["code"]) == (503, "overloaded")
    for connection in slow:
        with connection:
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 504 ")
            assert b"timed_out" in answer + connection.recv(65536)
    assert server.metric("requests_in_progress") == 0
    assert server.client.post("/age", data=ALIGNED, files={"image": portrait}).is_success


def test_a_caller_who_stops_reading_is_cut_off_and_the_rest_is_not_made(
    start_server: StartServer, photo: bytes
):
    server = start_server(request_timeout_s=1.5, max_batch=2)
    taken = server.client.post("/faces", data={"keep_photo": "true"}, files={"image": photo})
    ages = "".join(f"&age={age}" for age in range(2, 62))
    body = f"face={taken.json()['face_id']}&view=photo{ages}".encode()
    head = (
        f"POST /age HTTP/1.1\r\nHost: x\r\nAccept: multipart/mixed\r\nContent-Length: {len(body)}"
        "\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(head.encode() + body)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        # Others are answered meanwhile.
        other = server.client.post("/age", data={"face": taken.json()["face_id"], "age": "30"})
        assert other.status_code == 200
        wait_for(server, "requests_in_progress", 0)
        assert server.metric("batch_pictures_sum", graph="decode") < 55
    assert server.client.get("/readyz").status_code == 200


def test_callers_who_talk_no_http_are_turned_away(start_server: StartServer, portrait: bytes):
    server = start_server()
    for words in (
        b"\x16\x03\x01\x02\0" * 50,
        b"GET / HTTP/9\r\n\r\n",
        b"A" * 200_000,
        b"\0\r\n\r\n",
    ):
        with connect(server) as connection:
            connection.settimeout(10)
            connection.sendall(words)
            try:
                answer = connection.recv(65536)
            except ConnectionResetError:
                continue
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert server.client.post("/age", data=ALIGNED, files={"image": portrait}).is_success
