import email
import email.policy
import io
import zipfile

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.media import (
    AnimationFormat,
    Mp4Writer,
    MultipartWriter,
    PictureFormat,
    animation,
    contact_sheet,
    encode_picture,
    thumbnail,
    zip_of,
)


def frame(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth picture whose brightness rises with its number."""
    y, x = np.mgrid[:height, :width]
    planes = [x, y, np.full_like(x, 60)]
    return (np.stack(planes, -1) + 8 * number).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("picture_format", PictureFormat)
def test_a_picture_decodes_to_itself_within_its_quality(picture_format: PictureFormat):
    image = Image.open(io.BytesIO(encode_picture(frame(3), picture_format)))
    assert image.get_format_mimetype() == picture_format.media_type
    difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - frame(3))
    assert difference.mean() <= (0 if picture_format is PictureFormat.PNG else 3)


@pytest.mark.parametrize("picture_format", PictureFormat)
def test_a_picture_carries_no_notes(picture_format: PictureFormat):
    image = Image.open(io.BytesIO(encode_picture(frame(0), picture_format)))
    assert not image.getexif()
    assert not {"exif", "xmp", "icc_profile", "comment"} & set(image.info)


@pytest.mark.parametrize("animation_format", AnimationFormat)
def test_an_animation_has_all_frames_in_order_at_its_rate(animation_format: AnimationFormat):
    data = animation([frame(number) for number in range(10)], 20, animation_format)
    image = Image.open(io.BytesIO(data))
    assert getattr(image, "n_frames", 1) == 10
    assert image.info["loop"] == 0
    means = []
    for number in range(10):
        image.seek(number)
        image.load()
        assert image.info["duration"] == 50
        means.append(np.asarray(image.convert("RGB")).mean())
    assert np.all(np.diff(means) > 4)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (49, 65)])
def test_a_film_has_all_frames_in_order_at_its_rate(height: int, width: int):
    writer = Mp4Writer(12.5)
    parts = [writer.add(frame(number, height, width)) for number in range(10)]
    data = b"".join([*parts, writer.finish()])
    with av.open(io.BytesIO(data)) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "vp9"
        assert stream.average_rate == 12.5
        frames = [each.to_ndarray(format="rgb24") for each in film.decode(video=0)]
    assert len(frames) == 10
    assert frames[0].shape == (48, 64, 3)
    for number, decoded in enumerate(frames):
        assert np.abs(decoded.astype(int) - frame(number)).mean() < 6


def test_a_film_s_bytes_come_while_it_grows():
    writer = Mp4Writer(12)
    sizes = [len(writer.add(frame(number))) for number in range(6)]
    assert sizes[0] > 0
    assert all(sizes[2:])


def test_a_film_decodes_as_far_as_it_has_come():
    writer = Mp4Writer(12)
    begun = b"".join(writer.add(frame(number)) for number in range(6))
    with av.open(io.BytesIO(begun)) as film:
        assert len(list(film.decode(video=0))) >= 4
    writer.finish()


def test_a_sheet_shows_every_picture_in_reading_order():
    colours = [(20 * number, 0, 255 - 20 * number) for number in range(8)]
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    sheet = contact_sheet(pictures, [str(number) for number in range(8)])
    places = [np.argwhere((sheet == colour).all(-1)) for colour in colours]
    assert all(len(place) == 32 * 32 for place in places)
    corners = [place.min(0) for place in places]
    assert [tuple(corner) for corner in corners] == sorted(tuple(corner) for corner in corners)


def test_a_sheet_of_one_picture_is_as_wide_as_it_needs():
    assert contact_sheet([frame(0)], ["0-2"]).shape[1] == 64 + 8


@pytest.mark.parametrize(("size", "shown"), [((600, 1200), (256, 512)), ((64, 64), (64, 64))])
def test_a_thumbnail_keeps_its_proportions_and_is_never_larger(
    size: tuple[int, int], shown: tuple[int, int]
):
    assert thumbnail(frame(0, *size)).shape[:2] == shown


def test_an_archive_keeps_names_and_bytes_and_is_reproducible():
    files = [("000_0-2.png", b"one"), ("001_50-69.png", b"two")]
    data = zip_of(files)
    assert data == zip_of(files)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert [(name, archive.read(name)) for name in archive.namelist()] == files


def test_parts_are_read_back_by_a_mime_parser():
    writer = MultipartWriter()
    bodies = [b"one\r\n--\r\n", bytes(range(256)), b""]
    headers = {"Content-Type": "image/png", "X-Target": "0-2"}
    content = b"".join([*(writer.part(body, headers) for body in bodies), writer.end()])
    message = email.message_from_bytes(
        f"Content-Type: {writer.media_type}\r\n\r\n".encode() + content, policy=email.policy.HTTP
    )
    parts = list(message.iter_parts())
    assert [part.get_payload(decode=True) for part in parts] == bodies
    assert parts[0]["X-Target"] == "0-2"
