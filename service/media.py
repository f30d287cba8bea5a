"""Pictures and frame sequences as bytes. Nothing of an input's metadata goes in.

What a model made carries its mark as an XMP packet, where the format's readers look for it.
"""

import io
import secrets
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from service.marks import Mark

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


def encode_picture(pixels: Pixels, picture_format: PictureFormat, mark: Mark | None) -> bytes:
    """A picture file: PNG without loss, JPEG and WebP at a quality of 95 and 92.

    `mark` is None for what no model made.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    xmp = mark.xmp() if mark else b""
    match picture_format:
        case PictureFormat.PNG:
            image.save(buffer, "PNG", compress_level=1, pnginfo=_png_notes(xmp))
        case PictureFormat.JPEG:
            image.save(buffer, "JPEG", quality=95, subsampling=0, xmp=xmp)
        case PictureFormat.WEBP:
            image.save(buffer, "WEBP", quality=92, method=2, xmp=xmp)
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


def animation(
    frames: Sequence[Pixels], fps: float, animation_format: AnimationFormat, mark: Mark
) -> bytes:
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
            images[0].save(buffer, "WEBP", quality=85, method=2, xmp=mark.xmp(), **options)
        case AnimationFormat.GIF:
            images[0].save(buffer, "GIF", disposal=1, optimize=False, **options)
            return _marked_gif(buffer.getvalue(), mark.xmp())
        case AnimationFormat.APNG:
            notes = _png_notes(mark.xmp())
            images[0].save(buffer, "PNG", compress_level=1, pnginfo=notes, **options)
    return buffer.getvalue()


def _png_notes(xmp: bytes) -> PngInfo:
    notes = PngInfo()
    if xmp:
        notes.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return notes


def _marked_gif(data: bytes, xmp: bytes) -> bytes:
    """The file with an application extension before its trailer (XMP part 3, section 1.1.2).

    The packet is not cut into sub-blocks. Whatever byte of it a reader takes for a length leads
    into the 256 falling bytes behind it, each of which points at the zero that ends the block.
    """
    trailer = bytes([1, *range(255, -1, -1), 0])
    return data[:-1] + b"\x21\xff\x0bXMP DataXMP" + xmp + trailer + data[-1:]


class Mp4Writer:
    """Frames in, a fragmented MP4 out, playable while it grows: VP9, which libvpx gives freely.

    Each call returns the bytes that came due; together they are the file. All frames have the
    first one's size; an odd row or column at the edge is left out, as the chroma needs. The mark
    stands before the first frame.
    """

    XMP_BOX = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac")
    """Extended type of the box that holds XMP (XMP part 3, section 1.1.4)."""

    def __init__(self, fps: float, mark: Mark) -> None:
        self._sink = _Sink()
        self._mark = _box(b"uuid", self.XMP_BOX.bytes + mark.xmp())
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
        return self._marked(self._sink.take()) if self._frames == 1 else self._sink.take()

    def finish(self) -> bytes:
        """The rest of the file. At least one frame must have been added."""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._moved(self._sink.take())

    def _marked(self, first: bytes) -> bytes:
        """The file's first bytes with the mark between its header and its first fragment."""
        (place,) = [end for kind, _, end in _boxes(first) if kind == b"moov"]
        return first[:place] + self._mark + first[place:]

    def _moved(self, last: bytes) -> bytes:
        """The file's last bytes, whose table of fragments was written without the mark."""
        moved = bytearray(last)
        for kind, start, end in _boxes(last):
            if kind == b"mfra":
                for inner, at, _ in _boxes(last, start + 8, end):
                    if inner == b"tfra":
                        self._move_entries(moved, at)
        return bytes(moved)

    def _move_entries(self, data: bytearray, at: int) -> None:
        """Adds the mark's length to every offset in a table (ISO/IEC 14496-12, section 8.8.10)."""
        long, sizes, count = (
            data[at + 8] == 1,
            data[at + 19],
            int.from_bytes(data[at + 20 : at + 24]),
        )
        width = 8 if long else 4
        entry = 2 * width + sum((sizes >> shift & 3) + 1 for shift in (4, 2, 0))
        for number in range(count):
            place = slice(at + 24 + number * entry + width, at + 24 + number * entry + 2 * width)
            data[place] = (int.from_bytes(data[place]) + len(self._mark)).to_bytes(width)


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


def _boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an MP4 side by side: type, first byte, and the byte behind the last."""
    end = len(data) if end is None else end
    while start < end:
        behind = start + int.from_bytes(data[start : start + 4])
        yield data[start + 4 : start + 8], start, behind
        start = behind


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
