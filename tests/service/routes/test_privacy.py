"""Nothing of a picture, its name or a face's id gets into the log, onto the disk or out."""

import base64
import re
import resource
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.conftest import RedisProcess
from tests.service.conftest import ROOT, Server, StartServer, encoded

KEY = "ann-0123456789-0123456789"
SECRETS = ("Grandmother", "Clara", "52.5163", "frames=3", "?face", "&face", KEY, "SharpCam")


@pytest.fixture(scope="module")
def noted_photos(astronaut: np.ndarray) -> list[bytes]:
    """Photos with private notes, as EXIF in JPEG, PNG and WebP, as a comment and as PNG text."""
    image = Image.fromarray(astronaut)
    exif = Image.Exif()
    exif[0x010E] = "Clara in the garden"
    exif[0x010F] = "SharpCam"
    exif[0x8825] = {1: "N", 2: (52.5163, 31.0, 0.0), 29: "Clara's day"}
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Author", "Clara")
    return [
        encoded(image, "JPEG", exif=exif, comment=b"Clara"),
        encoded(image, "PNG", exif=exif, pnginfo=text),
        encoded(image, "WEBP", exif=exif),
    ]


def use_every_route(client: httpx.Client, photos: list[bytes]) -> list[str]:
    """Asks each route well and badly; returns the ids of the faces, and their pictures' bytes."""
    found = []
    for photo in photos:
        name = "Grandmother Clara.jpg"
        image = {"image": (name, photo, "image/jpeg")}
        taken = client.post("/faces", data={"keep_photo": "true"}, files=image).json()
        face = taken["face_id"]
        found += [face, taken["portrait"][1000:1040]]
        for accept in ("image/png", "application/json", "application/zip", "multipart/mixed"):
            ask = {"face": face, "target": "all", "view": "photo"}
            answer = client.post("/age", data=ask, headers={"accept": accept})
            assert answer.status_code == 200, answer.text
        for accept in ("image/webp", "image/gif", "image/apng", "video/mp4"):
            query = {"face": face, "frames": 3}
            answer = client.get("/interpolate", params=query, headers={"accept": accept})
            assert answer.status_code == 200, answer.text
        made = client.post("/interpolate", data={"frames": "2"}, files=image)
        found.append(made.headers["x-face-id"])
        client.get(f"/faces/{face}")
        client.get(f"/nowhere/{face}?face={face}")
        client.get(f"/faces/{face}/{name}")
        client.request("PUT", f"/faces/{face}", content=photo)
        client.post(f"/age?face={face}&name=Clara", data={"face": face, "Clara": "Grandmother"})
        client.post("/age", data={"face": f"{face}x", "target": "Clara"})
        client.post("/age", files={"image": (name, photo[: len(photo) // 2])})
        client.post("/age", files={"image": (name, b"Clara" + photo)})
        client.post("/age", data={"age": "300"}, files=image)
        client.delete(f"/faces/{face}")
        client.delete(f"/faces/{face}")
    return found


@pytest.mark.parametrize(
    ("store", "log_format"), [("memory", "text"), ("redis", "text"), ("redis", "json")]
)
def test_log_and_metrics_hold_nothing_of_pictures_names_faces_or_keys(
    start_server: StartServer,
    noted_photos: list[bytes],
    redis_process: RedisProcess,
    tmp_path: Path,
    store: str,
    log_format: str,
):
    keys = tmp_path / "keys"
    keys.write_text(f"ann:{KEY}\n")
    url = "memory://" if store == "memory" else redis_process.url
    server = start_server(log_level="debug", log_format=log_format, api_keys=keys, face_store=url)
    server.client.headers["authorization"] = f"Bearer {KEY}"
    found = use_every_route(server.client, noted_photos)
    redis_process.stop()
    server.client.get(f"/faces/{found[0]}")
    server.client.post("/age", files={"image": ("Grandmother.jpg", noted_photos[0])})
    server.client.post("/age", data={"face": found[0]}, headers={"authorization": "Bearer Clara"})
    metrics, log = server.client.get("/metrics").text, server.log
    assert re.search(r"POST /age 200 \S+ s [0-9a-f]{16} ann", log)
    assert "GET /faces/{face_id} 200" in log
    assert len(found) == 9
    for secret in (*SECRETS, *found):
        assert secret not in log, secret
        assert secret not in metrics, secret
    # Nor as bytes: no line holds what cannot be read.
    assert log.isascii()
    assert not re.search(r"\\x[0-9a-f]{2}", log)


def test_the_log_of_a_fault_tells_where_it_was_and_no_picture(
    start_server: StartServer, tmp_path: Path, models_folder: Path, portrait: bytes
):
    # A model that is gone when it is needed is a fault that nothing foresees.
    (tmp_path / "sitecustomize.py").write_text(
        "import service.predictor\n"
        "def fail(*arguments, **options):\n"
        "    raise LookupError('the fault')\n"
        "service.predictor.mask_portrait = fail\n"
    )
    server = start_server(environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, log_level="debug")
    answer = server.client.post(
        "/age", data={"aligned": "true"}, files={"image": ("Clara.png", portrait)}
    )
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert f"request {answer.json()['request_id']} failed" in server.log
    assert "LookupError: the fault" in server.log
    assert "Clara" not in server.log
    assert base64.b64encode(portrait[100:130]).decode() not in server.log
    assert "PNG" not in server.log
    assert server.client.get("/readyz").status_code == 200


WATCH = """
import os, sys

# Its loop connects below what an audit hook sees; asyncio's does not.
sys.modules["uvloop"] = None

def watch(event, arguments):
    out = event in {"socket.connect", "socket.sendto", "socket.sendmsg", "urllib.Request"}
    run = event in {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
    write = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    change = event in {"os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink"}
    if out or run or write or change:
        os.write(2, f"SEEN {event} {arguments!r}\\n".encode())

sys.addaudithook(watch)
"""


def seen(server: Server) -> list[str]:
    return [line for line in server.log.splitlines() if line.startswith("SEEN")]


def test_no_request_opens_a_connection_or_a_file_or_a_process(
    start_server: StartServer, tmp_path: Path, noted_photos: list[bytes], redis_process
):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    server = start_server(environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    before = seen(server)
    use_every_route(server.client, noted_photos)
    urls = {"image": "http://127.0.0.1:9/photo.jpg", "face": "http://127.0.0.1:9/"}
    server.client.post("/age", data=urls)
    for path in ("/", "/docs", "/openapi.json", "/metrics", "/models"):
        assert server.client.get(path).status_code == 200
    assert seen(server) == before
    # The watch sees what there is to see: the store.
    stored = start_server(
        environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, face_store=redis_process.url
    )
    assert any("socket.connect" in line for line in seen(stored))


def test_photos_of_any_size_are_answered_where_no_file_can_be_written(
    start_server: StartServer, astronaut: np.ndarray
):
    server = start_server()
    log_bytes = len(server.log)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), np.uint8)
    noise[:512, :512] = astronaut
    photo = encoded(Image.fromarray(noise), "PNG", compress_level=0)
    assert 15 * 2**20 < len(photo) < 20 * 2**20
    ask = {"target": "0-2", "keep_photo": "true", "format": "jpeg"}
    made = server.client.post("/age", data=ask, files={"image": ("large.png", photo)})
    assert made.status_code == 200, made.text
    for accept in ("image/webp", "image/apng", "video/mp4", "application/zip"):
        query = {"face": made.headers["x-face-id"], "frames": 3}
        film = server.client.get("/interpolate", params=query, headers={"accept": accept})
        assert film.status_code == 200, film.text
    # The limit holds: even the log could not grow.
    assert len(server.log) == log_bytes
