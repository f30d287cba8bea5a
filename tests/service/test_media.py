import email
import email.policy
import io
import struct
import zipfile

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.marks import Mark, Source
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
from tests.service.conftest import Exiftool

MARK = Mark(Source.MODEL, "tiny", "1")


def frame(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth picture whose brightness rises with its number."""
    y, x = np.mgrid[:height, :width]
    planes = [x, y, np.full_like(x, 60)]
    return (np.stack(planes, -1) + 8 * number).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("picture_format", PictureFormat)
def test_a_picture_decodes_to_itself_within_its_quality(picture_format: PictureFormat):
    image = Image.open(io.BytesIO(encode_picture(frame(3), picture_format, MARK)))
    assert image.get_format_mimetype() == picture_format.media_type
    difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - frame(3))
    assert difference.mean() <= (0 if picture_format is PictureFormat.PNG else 3)


@pytest.mark.parametrize("picture_format", PictureFormat)
@pytest.mark.parametrize("mark", [MARK, None])
def test_a_picture_carries_no_notes_but_its_mark(picture_format: PictureFormat, mark: Mark | None):
    image = Image.open(io.BytesIO(encode_picture(frame(0), picture_format, mark)))
    assert image.info.pop("xmp", None) == (mark.xmp() if mark else None)
    image.info.pop("XML:com.adobe.xmp", None)
    assert not image.getexif()
    assert not {"exif", "icc_profile", "comment"} & set(image.info)
    assert not getattr(image, "text", {}).keys() - {"XML:com.adobe.xmp"}


@pytest.mark.parametrize("animation_format", AnimationFormat)
def test_an_animation_carries_no_notes_but_its_mark(animation_format: AnimationFormat):
    data = animation([frame(number) for number in range(3)], 20, animation_format, MARK)
    image = Image.open(io.BytesIO(data))
    for number in range(3):
        image.seek(number)
        image.load()
    assert data.count(MARK.xmp()) == 1
    assert not image.getexif()
    assert not {"exif", "icc_profile", "comment"} & set(image.info)


def test_every_format_s_mark_is_read_by_another_program(exiftool: Exiftool):
    frames = [frame(number) for number in range(4)]
    writer = Mp4Writer(12, MARK)
    files = {
        **{f"picture.{each}": encode_picture(frames[0], each, MARK) for each in PictureFormat},
        **{f"animation.{each}": animation(frames, 12, each, MARK) for each in AnimationFormat},
        "film.mp4": b"".join([*(writer.add(each) for each in frames), writer.finish()]),
    }
    for name, tags in exiftool.read(files).items():
        found = {key: value for key, value in tags.items() if key.startswith("XMP")}
        found.pop("XMP-x:XMPToolkit", None)
        assert found == {
            "XMP-xmp:CreatorTool": MARK.tool,
            "XMP-iptcExt:DigitalSourceType": str(Source.MODEL),
            "XMP-iptcExt:AISystemUsed": "Anchorage tiny",
            "XMP-iptcExt:AISystemVersionUsed": 1,
        }, name
        # A film in fragments has boxes of one kind side by side, which it warns of.
        assert tags["ExifTool:Validate"] == "OK" or name == "film.mp4", (name, tags)
        assert "ExifTool:Error" not in tags, (name, tags)


@pytest.mark.parametrize("animation_format", AnimationFormat)
def test_an_animation_has_all_frames_in_order_at_its_rate(animation_format: AnimationFormat):
    data = animation([frame(number) for number in range(10)], 20, animation_format, MARK)
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
    writer = Mp4Writer(12.5, MARK)
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


def boxes(data: bytes) -> list[tuple[int, bytes]]:
    """Place and type of the boxes side by side in an MP4."""
    found, place = [], 0
    while place < len(data):
        found.append((place, data[place + 4 : place + 8]))
        place += int.from_bytes(data[place : place + 4])
    assert place == len(data)
    return found


def test_a_film_is_marked_before_its_first_frame():
    writer = Mp4Writer(12, MARK)
    begun = writer.add(frame(0))
    kinds = [kind for _, kind in boxes(begun)]
    assert kinds[:3] == [b"ftyp", b"moov", b"uuid"]
    assert MARK.xmp() in begun
    rest = b"".join([writer.add(frame(1)), writer.finish()])
    assert MARK.xmp() not in rest


def test_a_film_s_table_names_the_places_of_its_fragments():
    writer = Mp4Writer(12, MARK)
    data = b"".join([*(writer.add(frame(number)) for number in range(5)), writer.finish()])
    fragments = {place for place, kind in boxes(data) if kind == b"moof"}
    at = data.rindex(b"tfra") + 4
    assert data[at] == 1, "the version with offsets of eight bytes"
    assert data[at + 11] == 0, "numbers of one byte"
    (count,) = struct.unpack_from(">I", data, at + 12)
    entries = [struct.unpack_from(">QQ3x", data, at + 16 + 19 * number) for number in range(count)]
    assert count > 0
    assert {offset for _, offset in entries} <= fragments


def test_a_film_s_bytes_come_while_it_grows():
    writer = Mp4Writer(12, MARK)
    sizes = [len(writer.add(frame(number))) for number in range(6)]
    assert sizes[0] > 0
    assert all(sizes[2:])


def test_a_film_decodes_as_far_as_it_has_come():
    writer = Mp4Writer(12, MARK)
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
