"""What a photo may be, and what each bad one is told."""

import io
import struct
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import Server, encoded, pixels


def post(server: Server, image: bytes, **data: str) -> httpx.Response:
    fields = {"target": "30-39", **data}
    return server.client.post("/age", data=fields, files={"image": ("photo", image)})


@pytest.fixture(scope="module")
def expected(server: Server, astronaut: np.ndarray) -> np.ndarray:
    """The answer for the photo without loss."""
    return pixels(post(server, encoded(Image.fromarray(astronaut), "PNG")).content).astype(int)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file of any header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def assert_like(response: httpx.Response, expected: np.ndarray, levels: float = 6) -> None:
    assert response.status_code == 200, response.text
    assert np.abs(pixels(response.content) - expected).mean() < levels


def test_a_cmyk_photo_gives_the_same_face(
    server: Server, astronaut: np.ndarray, expected: np.ndarray
):
    image = Image.fromarray(astronaut).convert("CMYK")
    assert_like(post(server, encoded(image, "JPEG", quality=95)), expected)


def test_a_16_bit_photo_gives_the_same_face(
    server: Server, astronaut: np.ndarray, expected: np.ndarray
):
    rows = astronaut.astype(">u2").reshape(512, -1) * np.array(257, ">u2")
    filtered = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    assert_like(post(server, png(512, 512, 16, 2, filtered)), expected)


def test_a_16_bit_grey_photo_is_accepted(server: Server, astronaut: np.ndarray):
    grey = astronaut.mean(-1).astype(np.uint16) * 257
    assert post(server, encoded(Image.fromarray(grey), "PNG")).status_code == 200


def test_a_photo_with_alpha_gives_the_same_face(
    server: Server, astronaut: np.ndarray, expected: np.ndarray
):
    alpha = np.full((512, 512, 1), 255, np.uint8)
    alpha[400:] = 0
    image = Image.fromarray(np.concatenate([astronaut, alpha], -1))
    assert_like(post(server, encoded(image, "PNG")), expected)


def test_a_palette_photo_gives_almost_the_same_face(
    server: Server, astronaut: np.ndarray, expected: np.ndarray
):
    image = Image.fromarray(astronaut).quantize(256)
    assert_like(post(server, encoded(image, "PNG")), expected, 10)


def test_a_photo_turned_by_its_exif_note_gives_the_same_face(
    server: Server, astronaut: np.ndarray, expected: np.ndarray
):
    image = Image.fromarray(astronaut).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    response = post(server, encoded(image, "JPEG", quality=95, exif=exif))
    assert_like(response, expected)


def test_nothing_of_a_photo_s_notes_comes_out(server: Server, astronaut: np.ndarray):
    exif = Image.Exif()
    exif[0x010E] = "a private description"
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 0.0)}
    sent = encoded(Image.fromarray(astronaut), "JPEG", exif=exif, comment=b"a private comment")
    for data in ({}, {"view": "photo"}, {"format": "jpeg"}, {"format": "webp"}):
        answer = post(server, sent, **data).content
        assert b"private" not in answer
        assert not Image.open(io.BytesIO(answer)).getexif()


def test_a_face_at_the_border_is_accepted(server: Server, astronaut: np.ndarray):
    cut = np.ascontiguousarray(astronaut[40:260, 150:380])
    assert post(server, encoded(Image.fromarray(cut), "PNG")).status_code == 200


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_used_and_that_is_said(
    server: Server, astronaut: np.ndarray, expected: np.ndarray, image_format: str
):
    frames = [Image.fromarray(astronaut), Image.new("RGB", (512, 512))]
    sent = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
    response = post(server, sent)
    assert_like(response, expected, 10)
    assert "first frame" in response.headers["x-note"]
    document = post(server, sent, age="30").json()
    assert "first frame" in document["notes"][0]


@pytest.fixture(scope="module")
def bad_images(astronaut: np.ndarray, photo: bytes) -> dict[str, bytes]:
    canvas = np.full((512, 512, 3), 120, np.uint8)
    canvas[200:328, 200:328] = np.asarray(Image.fromarray(astronaut).resize((128, 128)))
    grey = Image.new("RGB", (400, 400), (90, 120, 90))
    return {
        "not an image": b"plain text, nothing else",
        "empty": b"",
        "a PDF": b"%PDF-1.7\n",
        "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "a TIFF": encoded(grey, "TIFF"),
        "a truncated JPEG": photo[: len(photo) // 2],
        "a JPEG's first bytes": photo[:20],
        "a PNG without data": png(64, 64, 8, 2, b""),
        "a huge header": png(20_000, 20_000, 8, 2, b"\0" * 100),
        "one pixel": png(1, 1, 8, 2, b"\0\x80\x80\x80"),
        "no face": encoded(grey, "PNG"),
        "a small face": encoded(Image.fromarray(canvas), "PNG"),
    }


BAD = {
    "not an image": (415, "unsupported_image"),
    "empty": (415, "unsupported_image"),
    "a PDF": (415, "unsupported_image"),
    "an SVG": (415, "unsupported_image"),
    "a TIFF": (415, "unsupported_image"),
    "a truncated JPEG": (422, "broken_image"),
    "a JPEG's first bytes": (422, "broken_image"),
    "a PNG without data": (422, "broken_image"),
    "a huge header": (413, "image_too_large"),
    "one pixel": (422, "no_face"),
    "no face": (422, "no_face"),
    "a small face": (422, "face_too_small"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_photo_has_its_own_code(server: Server, bad_images: dict[str, bytes], name: str):
    response = post(server, bad_images[name])
    assert (response.status_code, response.json()["code"]) == BAD[name]


def test_one_pixel_as_a_portrait_is_too_small(server: Server, bad_images: dict[str, bytes]):
    response = post(server, bad_images["one pixel"], aligned="true")
    assert (response.status_code, response.json()["code"]) == (422, "face_too_small")


def test_a_body_over_the_limit_is_refused(server: Server):
    response = post(server, bytes(21 * 1024 * 1024))
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_good_photo_is_answered_after_all_that(server: Server, photo: bytes):
    assert post(server, photo).status_code == 200
