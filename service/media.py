"""Pictures and frame sequences as bytes. Nothing of an input's metadata goes in."""

import io
import secrets
import zipfile
from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
"""RGB, (H, W, 3)."""

SHEET_COLUMNS = 6
SHEET_PICTURE_PX = 512
SHEET_GAP_PX = 4
BACKGROUND = (255, 255, 255)
INK = (32, 32, 32)


class PictureFormat(StrEnum):
    """Formats of single pictures."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        """The format's media type."""
        return f"image/{self.value}"


class AnimationFormat(StrEnum):
    """Formats of a whole sequence in one picture file."""

    WEBP = "webp"
    GIF = "gif"
    APNG = "apng"

    @property
    def media_type(self) -> str:
        """The format's media type."""
        return f"image/{self.value}"


MP4 = "video/mp4"
ZIP = "application/zip"
MULTIPART = "multipart/mixed"
JSON = "application/json"


def encode_picture(pixels: Pixels, picture_format: PictureFormat) -> bytes:
    """A picture file: PNG without loss, JPEG and WebP at a quality of 95 and 92."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    match picture_format:
        case PictureFormat.PNG:
            image.save(buffer, "PNG", compress_level=1)
        case PictureFormat.JPEG:
            image.save(buffer, "JPEG", quality=95, subsampling=0)
        case PictureFormat.WEBP:
            image.save(buffer, "WEBP", quality=92, method=2)
    return buffer.getvalue()


def thumbnail(picture: Pixels, longest_px: int = SHEET_PICTURE_PX) -> Pixels:
    """The picture, made smaller where a side is longer than `longest_px`."""
    if max(picture.shape) <= longest_px:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return np.asarray(image)


def contact_sheet(pictures: Sequence[Pixels], labels: Sequence[str]) -> Pixels:
    """All pictures on one, up to six in a row, each above its label. They may differ in size."""
    width = max(picture.shape[1] for picture in pictures)
    height = max(picture.shape[0] for picture in pictures)
    text_px = min(24, max(10, width // 10))
    font = ImageFont.load_default(text_px)
    columns = min(SHEET_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    step_x, step_y = width + SHEET_GAP_PX, height + SHEET_GAP_PX + round(text_px * 1.5)
    sheet = Image.new(
        "RGB", (columns * step_x + SHEET_GAP_PX, rows * step_y + SHEET_GAP_PX), BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    for place, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x = SHEET_GAP_PX + place % columns * step_x
        y = SHEET_GAP_PX + place // columns * step_y
        sheet.paste(Image.fromarray(picture), (x, y))
        draw.text((x + width / 2, y + height + 2), label, INK, font, anchor="ma")
    return np.asarray(sheet)


def animation(frames: Sequence[Pixels], fps: float, animation_format: AnimationFormat) -> bytes:
    """An endless animation.

    Neighbours that hardly differ may become one frame, shown for as long as both. GIF holds 256
    colours and whole hundredths of a second a frame.
    """
    images = [Image.fromarray(frame) for frame in frames]
    options: dict[str, Any] = {
        "save_all": True,
        "append_images": images[1:],
        "duration": round(1000 / fps),
        "loop": 0,
    }
    buffer = io.BytesIO()
    match animation_format:
        case AnimationFormat.WEBP:
            images[0].save(buffer, "WEBP", quality=85, method=2, **options)
        case AnimationFormat.GIF:
            images[0].save(buffer, "GIF", disposal=1, optimize=False, **options)
        case AnimationFormat.APNG:
            images[0].save(buffer, "PNG", compress_level=1, **options)
    return buffer.getvalue()


class Mp4Writer:
    """Frames in, a fragmented MP4 out, playable while it grows: VP9, which libvpx gives freely.

    Each call returns the bytes that came due; together they are the file. All frames have the
    first one's size; an odd row or column at the edge is left out, as the chroma needs.
    """

    def __init__(self, fps: float) -> None:
        self._sink = _Sink()
        self._container = av.open(
            self._sink,
            "w",
            format="mp4",
            options={"movflags": "frag_every_frame+empty_moov+default_base_moof"},
            container_options={"fflags": "+bitexact"},
        )
        self._rate = Fraction(fps).limit_denominator(1000)
        self._stream: Any = None
        self._frames = 0

    def add(self, pixels: Pixels) -> bytes:
        """One frame, (H, W, 3)."""
        height, width = (side // 2 * 2 for side in pixels.shape[:2])
        if self._stream is None:
            options = {"deadline": "realtime", "cpu-used": "4", "crf": "18", "b": "0"}
            self._stream = self._container.add_stream(
                "libvpx-vp9", rate=self._rate, options={**options, "lag-in-frames": "0"}
            )
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels[:height, :width]), format="rgb24"
        )
        frame.pts = self._frames
        frame.time_base = 1 / self._rate
        self._frames += 1
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        return self._sink.take()

    def finish(self) -> bytes:
        """The rest of the file. At least one frame must have been added."""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """Collects what a container writes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def zip_of(files: Sequence[tuple[str, bytes]]) -> bytes:
    """A ZIP of compressed files, stored as they are; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


class MultipartWriter:
    """The body of a multipart/mixed answer, part by part."""

    def __init__(self) -> None:
        self.boundary = secrets.token_hex(16)
        self._first = True

    @property
    def media_type(self) -> str:
        """Content-Type of the whole answer."""
        return f"{MULTIPART}; boundary={self.boundary}"

    def part(self, body: bytes, headers: dict[str, str]) -> bytes:
        """One part; `headers` hold at least its Content-Type."""
        lead = "" if self._first else "\r\n"
        self._first = False
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{lead}--{self.boundary}\r\n{lines}\r\n".encode() + body

    def end(self) -> bytes:
        """What follows the last part."""
        return f"\r\n--{self.boundary}--\r\n".encode()
