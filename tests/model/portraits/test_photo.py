import contextlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from model.portraits.errors import BrokenImage, ImageTooLarge, PortraitError, UnsupportedImage
from model.portraits.photo import read_photo


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.fixture
def picture() -> Image.Image:
    """Red and blue halves beside each other (40, 60), with a green row at the top."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = (200, 20, 20)
    pixels[:, 30:] = (20, 20, 200)
    pixels[:8] = (20, 200, 20)
    return Image.fromarray(pixels)


def difference(pixels: NDArray[np.uint8], picture: Image.Image) -> float:
    return float(np.abs(pixels.astype(float) - np.asarray(picture, float)).mean())


@pytest.mark.parametrize(
    ("format", "options", "name"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, "JPEG"),
        ("PNG", {}, "PNG"),
        ("WEBP", {"quality": 95}, "WebP"),
        ("GIF", {}, "GIF"),
    ],
)
def test_each_accepted_format_gives_its_rgb_pixels(
    picture: Image.Image, format: str, options: dict[str, Any], name: str
) -> None:
    photo = read_photo(encoded(picture, format, **options))
    assert (photo.format, photo.animated) == (name, False)
    assert photo.pixels.shape == (40, 60, 3)
    assert photo.pixels.dtype == np.uint8
    assert difference(photo.pixels, picture) < 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_png_modes_become_the_rgb_they_show(picture: Image.Image, mode: str) -> None:
    shown = picture.convert(mode)
    photo = read_photo(encoded(shown, "PNG"))
    np.testing.assert_array_equal(photo.pixels, np.asarray(shown.convert("RGB")))


def test_cmyk_jpeg_keeps_its_colours(picture: Image.Image) -> None:
    photo = read_photo(encoded(picture.convert("CMYK"), "JPEG", quality=95, subsampling=0))
    assert difference(photo.pixels, picture) < 6


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, 0)
    pixels = read_photo(encoded(Image.fromarray(ramp), "PNG")).pixels
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(256))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_mid_grey(mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (255, 255, 255, 255)).convert(mode)
    image.putalpha(Image.fromarray(np.array([[0, 128, 255]], np.uint8)))
    pixels = read_photo(encoded(image, "PNG")).pixels
    np.testing.assert_allclose(pixels[0, :, 1], [128, 192, 255], atol=1)


def test_a_transparent_palette_entry_is_grey() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([250, 0, 0, 0, 250, 0])
    image.putpixel((1, 0), 1)
    pixels = read_photo(encoded(image, "PNG", transparency=1)).pixels
    assert pixels.tolist() == [[[250, 0, 0], [128, 128, 128]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_undone(picture: Image.Image, orientation: int, format: str) -> None:
    stored = {
        1: picture,
        2: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: picture.transpose(Image.Transpose.ROTATE_180),
        4: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: picture.transpose(Image.Transpose.TRANSPOSE),
        6: picture.transpose(Image.Transpose.ROTATE_90),
        7: picture.transpose(Image.Transpose.TRANSVERSE),
        8: picture.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(encoded(stored, format, exif=exif, quality=95))
    assert difference(photo.pixels, picture) < 5


def test_a_damaged_exif_note_does_not_spoil_the_picture(picture: Image.Image) -> None:
    data = encoded(picture, "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")
    np.testing.assert_array_equal(read_photo(data).pixels, np.asarray(picture))


def display_profile(gamma: float) -> bytes:
    """An ICC profile with sRGB's primaries and a plain power curve."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    name = b"Power\x00"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(80),
        b"cprt": b"text" + bytes(4) + b"none\x00",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.4360, 0.2225, 0.0139),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = b"", b""
    offset = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += content
    rest = struct.pack(">I", len(tags)) + table + body
    header = struct.pack(
        ">I4sI4s4s4s", 128 + len(rest), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    header += struct.pack(
        ">6H4s4sI4s4s8sI",
        2000,
        1,
        1,
        0,
        0,
        0,
        b"acsp",
        bytes(4),
        0,
        bytes(4),
        bytes(4),
        bytes(8),
        0,
    )
    header += struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return header.ljust(128, b"\x00") + rest


def test_an_embedded_profile_is_turned_into_srgb() -> None:
    image = Image.new("RGB", (4, 4), (128, 128, 128))
    linear = read_photo(encoded(image, "PNG", icc_profile=display_profile(1.0))).pixels
    assert abs(int(linear[0, 0, 0]) - 188) <= 2


@pytest.mark.parametrize(
    "profile", [b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()]
)
def test_an_unusable_profile_is_ignored(picture: Image.Image, profile: bytes) -> None:
    data = encoded(picture, "PNG", icc_profile=profile)
    np.testing.assert_array_equal(read_photo(data).pixels, np.asarray(picture))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame_and_says_so(picture: Image.Image, format: str) -> None:
    second = picture.transpose(Image.Transpose.ROTATE_180)
    photo = read_photo(encoded(picture, format, save_all=True, append_images=[second]))
    assert photo.animated
    assert difference(photo.pixels, picture) < 8


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7 and so on", b"RIFF1234WAVEfmt "])
def test_what_is_no_image_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="JPEG, PNG, WebP or GIF"):
        read_photo(data)


@pytest.mark.parametrize("format", ["BMP", "TIFF", "PPM"])
def test_other_image_formats_are_unsupported(picture: Image.Image, format: str) -> None:
    with pytest.raises(UnsupportedImage):
        read_photo(encoded(picture, format))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_broken(
    astronaut: NDArray[np.uint8], format: str, share: float
) -> None:
    data = encoded(Image.fromarray(astronaut), format)
    with pytest.raises(BrokenImage):
        read_photo(data[: int(len(data) * share)])


def test_damage_anywhere_is_a_portrait_error_or_a_picture(astronaut: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(astronaut[::8, ::8])
    for format in ("JPEG", "PNG", "WEBP", "GIF"):
        data = encoded(small, format)
        for _ in range(60):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[rng.integers(0, len(damaged), 4)] = rng.integers(0, 256, 4)
            with contextlib.suppress(PortraitError):
                assert read_photo(damaged.tobytes()).pixels.ndim == 3


def test_the_pixel_limit_is_decided_from_the_header() -> None:
    with pytest.raises(ImageTooLarge) as caught:
        read_photo(png_header(20_000, 20_000))
    assert (caught.value.pixels, caught.value.maximum) == (400_000_000, 50_000_000)
    with pytest.raises(ImageTooLarge):
        read_photo(png_header(10_000, 10_000))


def test_the_pixel_limit_is_inclusive(picture: Image.Image) -> None:
    data = encoded(picture, "PNG")
    assert read_photo(data, max_pixels=2400).pixels.shape == (40, 60, 3)
    with pytest.raises(ImageTooLarge):
        read_photo(data, max_pixels=2399)


def test_a_single_pixel_is_a_photo() -> None:
    assert read_photo(encoded(Image.new("L", (1, 1), 77), "PNG")).pixels.tolist() == [[[77] * 3]]


def test_threads_read_alike_and_leave_the_warning_filters_alone(picture: Image.Image) -> None:
    data = encoded(picture, "WEBP")
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        photos = list(pool.map(read_photo, [data] * 32))
    assert all(np.array_equal(photo.pixels, photos[0].pixels) for photo in photos)
    assert list(warnings.filters) == filters
