"""Image bytes from a caller -> an upright RGB photo in sRGB."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from model.portraits.errors import BrokenImage, ImageTooLarge, UnsupportedImage

READERS: dict[str, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
}

BEHIND_TRANSPARENCY = 128
ORIENTATION_TAG = 0x0112
UPRIGHTING = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Photo:
    """`pixels` uint8 (H, W, 3), RGB, upright; `format` is a key of READERS.

    `animated`: the image has further frames, which were not read.
    """

    pixels: NDArray[np.uint8]
    format: str
    animated: bool


def read_photo(data: bytes, max_pixels: int = 50_000_000) -> Photo:
    """Decodes a JPEG, PNG, WebP or GIF, told apart by content.

    EXIF orientation and an embedded colour profile are applied; transparency is laid over mid
    grey; of an animation the first frame is taken. Safe to call from several threads.

    Raises UnsupportedImage, ImageTooLarge (from the header, before anything is decoded) or
    BrokenImage.
    """
    kind = _kind(data)
    # Image.open would add a warning for large images, and take some JPEGs for another format.
    try:
        image = READERS[kind](io.BytesIO(data))
        if image.width * image.height > max_pixels:
            raise ImageTooLarge(max_pixels, image.width * image.height)
        animated = bool(getattr(image, "is_animated", False))
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(max_pixels) from error
    except (ImageTooLarge, MemoryError):
        raise
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise BrokenImage from error
    rgb = _rgb(image)
    orientation = _orientation(image)
    if orientation in UPRIGHTING:
        rgb = rgb.transpose(UPRIGHTING[orientation])
    return Photo(np.asarray(rgb), kind, animated)


def _kind(data: bytes) -> str:
    """Key of READERS for the file's signature. Raises UnsupportedImage."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    raise UnsupportedImage(tuple(READERS))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # as above; a damaged note does not spoil the picture
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """The image in any mode -> RGB in sRGB, over grey."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    rgb = _to_srgb(image, profile) if profile else image.convert("RGB")
    if alpha is not None:
        grey = Image.new("RGB", rgb.size, (BEHIND_TRANSPARENCY,) * 3)
        rgb = Image.composite(rgb, grey, alpha)
    return rgb


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """RGB, L or CMYK -> RGB, through its colour profile unless that is unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).startswith("sRGB"):
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image.convert("RGB")
    return converted if converted is not None else image.convert("RGB")
