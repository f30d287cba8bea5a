import base64
import email
import email.policy
import io
import zipfile

import av
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import Server, StartServer, pixels


@pytest.fixture(scope="module")
def face(server: Server, photo: bytes) -> str:
    response = server.client.post("/faces", files={"image": photo})
    return response.json()["face_id"]


def get(server: Server, accept: str = "*/*", **query: object) -> httpx.Response:
    return server.client.get("/interpolate", params=query, headers={"accept": accept})


def frames_of(animation: bytes) -> list[tuple[int, np.ndarray]]:
    """An animation's frames, each with the milliseconds it is shown."""
    image = Image.open(io.BytesIO(animation))
    found = []
    for number in range(image.n_frames):
        image.seek(number)
        image.load()
        found.append((image.info["duration"], np.asarray(image.convert("RGB"))))
    return found


def test_24_frames_after_an_age_run_no_encode(server: Server, photo: bytes):
    answer = server.client.post("/age", data={"target": "50-69"}, files={"image": photo})
    encodes = server.metric("encoder_runs_total")
    decoded = server.metric("batch_pictures_sum", graph="decode")
    response = get(server, face=answer.headers["x-face-id"], frames=24)
    assert response.status_code == 200
    assert server.metric("batch_pictures_sum", graph="decode") == decoded + 24
    assert server.metric("encoder_runs_total") == encodes


def test_the_default_is_an_animated_webp_of_the_whole_life(server: Server, face: str):
    response = get(server, face=face)
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["cache-control"] == "private, no-store"
    shown = frames_of(response.content)
    assert sum(milliseconds for milliseconds, _ in shown) == 24 * round(1000 / 12)
    greys = [picture[:4, :4].mean() for _, picture in shown]
    assert greys == sorted(greys)


@pytest.mark.parametrize(
    ("accept", "image_format"),
    [("image/gif", "GIF"), ("image/apng", "PNG"), ("image/webp", "WEBP")],
)
def test_accept_picks_the_animation(server: Server, face: str, accept: str, image_format: str):
    response = get(server, accept, face=face, frames=7, fps=10)
    assert response.headers["content-type"] == accept
    image = Image.open(io.BytesIO(response.content))
    assert image.format == image_format
    assert sum(milliseconds for milliseconds, _ in frames_of(response.content)) == 700


def test_a_film_has_its_frames_and_rate(server: Server, face: str):
    response = get(server, "video/mp4", face=face, frames=9, fps=6)
    assert response.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(response.content)) as film:
        assert film.streams.video[0].average_rate == 6
        assert len(list(film.decode(video=0))) == 9


def test_a_document_tells_each_frame_s_age(server: Server, face: str):
    response = get(server, "application/json", face=face, start="0-2", stop="50-69", frames=4)
    document = response.json()
    ages = [picture["effective_age_years"] for picture in document["pictures"]]
    assert ages == pytest.approx([1, 6 + 5 / 6, 22 + 5 / 6, 59.5], abs=1e-3)
    assert (document["face_id"], document["fps"]) == (face, 12)
    first = pixels(base64.b64decode(document["pictures"][0]["image"]))
    anchor = server.client.post("/age", data={"face": face, "target": "0-2"})
    np.testing.assert_array_equal(first, pixels(anchor.content))


def test_an_archive_has_its_frames_in_order(server: Server, face: str):
    response = get(server, "application/zip", face=face, start="10", stop="12", frames=3)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.namelist() == ["000_10.0.png", "001_11.0.png", "002_12.0.png"]


def test_parts_have_their_frames_in_order(server: Server, face: str):
    query = {"face": face, "start": "50-69", "stop": "20", "frames": 5, "pace": "years"}
    response = get(server, "multipart/mixed", **query)
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    ages = [float(part["X-Effective-Age-Years"]) for part in message.iter_parts()]
    assert ages == pytest.approx(np.linspace(59.5, 20, 5), abs=1e-3)


def test_view_photo_shows_every_frame_in_the_photo(server: Server, photo: bytes):
    data = {"keep_photo": "true"}
    face = server.client.post("/faces", data=data, files={"image": photo}).json()["face_id"]
    query = {"face": face, "frames": 3, "view": "photo", "longest_px": 256}
    document = get(server, "application/json", **query).json()
    frames = [pixels(base64.b64decode(picture["image"])) for picture in document["pictures"]]
    asked = {"face": face, "target": "50-69", "view": "photo", "longest_px": "256"}
    last = pixels(server.client.post("/age", data=asked).content)
    np.testing.assert_array_equal(frames[-1], last)
    assert last.shape == (256, 256, 3)
    with av.open(io.BytesIO(get(server, "video/mp4", **query).content)) as film:
        assert (film.streams.video[0].width, film.streams.video[0].height) == (256, 256)


def test_view_photo_of_frames_needs_the_photo(server: Server, face: str, photo: bytes):
    refused = get(server, face=face, view="photo")
    assert (refused.status_code, refused.json()["code"]) == (409, "photo_not_kept")
    data = {"view": "photo", "longest_px": "128", "frames": "2"}
    sent = server.client.post("/interpolate", data=data, files={"image": photo})
    assert Image.open(io.BytesIO(sent.content)).size == (128, 128)


@pytest.mark.parametrize("accept", ["multipart/mixed", "video/mp4"])
def test_frames_are_streamed_as_they_are_ready(
    start_server: StartServer, working_models_folder: str, portrait: bytes, accept: str
):
    server = start_server(models=working_models_folder, max_batch=2, batch=2, threads=1)
    answer = server.client.post(
        "/faces", data={"aligned": "true"}, files={"image": portrait}
    ).json()
    before = server.metric("decoder_runs_total")
    query = {"face": answer["face_id"], "frames": 60}
    with server.client.stream(
        "GET", "/interpolate", params=query, headers={"accept": accept}
    ) as response:
        chunks = response.iter_raw()
        next(chunks)
        early = server.metric("decoder_runs_total") - before
        rest = sum(1 for _ in chunks)
    assert early < 20
    assert rest > 30
    assert server.metric("decoder_runs_total") - before >= 30


def test_post_takes_an_image_and_answers_in_one_call(server: Server, photo: bytes):
    response = server.client.post(
        "/interpolate", data={"frames": "5", "fps": "5"}, files={"image": photo}
    )
    assert sum(milliseconds for milliseconds, _ in frames_of(response.content)) == 1000
    face = response.headers["x-face-id"]
    again = get(server, face=face, frames=5, fps=5)
    assert again.content == response.content


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"start": "80-99"}, "unknown_anchor"),
        ({"stop": "300"}, "age_out_of_range"),
        ({"frames": "241"}, "too_many_pictures"),
        ({"frames": "1"}, "invalid_request"),
        ({"fps": "0"}, "invalid_request"),
        ({"fps": "nan"}, "invalid_request"),
        ({"group": "everybody"}, "unknown_group"),
        ({"model": "none"}, "unknown_model"),
        ({"speed": "2"}, "invalid_request"),
        ({"pace": "slow"}, "invalid_request"),
    ],
)
def test_a_bad_parameter_has_its_own_code(
    server: Server, face: str, query: dict[str, str], code: str
):
    response = get(server, face=face, **query)
    assert (response.status_code, response.json()["code"]) == (422, code)


def test_a_missing_face_is_refused(server: Server):
    assert get(server).json()["code"] == "invalid_request"
    assert get(server, face="x" * 32).json()["code"] == "unknown_face"
    assert server.client.post("/interpolate").json()["code"] == "invalid_request"
