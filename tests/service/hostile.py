"""Broken and hostile images, made here, each with the answer that it must get from POST /faces."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from skimage import data

TAKEN = (201, "")
BROKEN = (422, "broken_image")
NO_FACE = (422, "no_face")
TOO_LARGE = (413, "image_too_large")
UNSUPPORTED = (415, "unsupported_image")

OTHER_FORMATS = (
    *("TIFF", "BMP", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS", "JPEG2000", "AVIF", "PDF", "EPS"),
    *("ICNS", "MSP", "XBM", "SPIDER"),
)

Answer = tuple[int, str]
"""Status and problem code, which is empty for 201."""


@dataclass(frozen=True)
class Specimen:
    """A file and the answers it may get: one, where what a decoder makes of it can be told."""

    name: str
    file: bytes
    answers: tuple[Answer, ...]
    file_name: str = "photo"
    media_type: str = "application/octet-stream"


def specimens() -> list[Specimen]:
    """The whole corpus; names are distinct."""
    return [
        *_truncated(),
        *_damaged_jpegs(),
        *_damaged_pngs(),
        *_bombs(),
        *_disguised(),
        *_polyglots(),
        *_other_formats(),
        *_exif_abuse(),
        *_profile_abuse(),
        *_odd_but_sound(),
        *_tiny(),
    ]


def _photo() -> Image.Image:
    """A face, 240 px square."""
    return Image.fromarray(np.ascontiguousarray(data.astronaut()[:240, 100:340]))


def _file(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _jpeg(**options: Any) -> bytes:
    return _file(_photo(), "JPEG", **{"quality": 90, **options})


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


# Formats, taken apart.


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _header(width: int, height: int, depth: int = 8, colour: int = 2, *rest: int) -> bytes:
    compression, filtering, interlace = rest or (0, 0, 0)
    fields = (width, height, depth, colour, compression, filtering, interlace)
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))


def _rows() -> bytes:
    """The photo's rows with PNG's filter byte 0, compressed."""
    pixels = np.asarray(_photo()).reshape(240, -1)
    return zlib.compress(np.pad(pixels, ((0, 0), (1, 0))).tobytes())


def _png(*before: bytes, header: bytes | None = None, rows: bytes | None = None) -> bytes:
    """The photo as a PNG, with chunks before its data, or with another header or other data."""
    start = SIGNATURE + (header or _header(240, 240)) + b"".join(before)
    return start + _chunk(b"IDAT", rows or _rows()) + _chunk(b"IEND", b"")


def _png_chunks(file: bytes) -> Iterator[tuple[int, str]]:
    """Where each chunk begins, and its kind."""
    place = len(SIGNATURE)
    while place < len(file):
        (length,) = struct.unpack_from(">I", file, place)
        yield place, file[place + 4 : place + 8].decode()
        place += 12 + length


def _jpeg_markers(file: bytes) -> Iterator[tuple[int, str]]:
    """Where each marker stands, restart markers included, and its code in hexadecimal."""
    place = 0
    while place < len(file):
        code = file[place + 1]
        yield place, f"{code:02x}"
        place += 2
        if code == 0xD8 or 0xD0 <= code <= 0xD7:
            length = 0
        elif code == 0xD9:
            return
        else:
            (length,) = struct.unpack_from(">H", file, place)
        place += length
        if code == 0xDA or 0xD0 <= code <= 0xD7:
            while file[place] != 0xFF or file[place + 1] == 0:
                place += 1


def _webp_chunks(file: bytes) -> Iterator[tuple[int, str]]:
    place = 12
    while place < len(file):
        kind, length = struct.unpack_from("<4sI", file, place)
        yield place, kind.decode().strip()
        place += 8 + length + length % 2


# The corpus, kind by kind.


def _truncated() -> Iterator[Specimen]:
    """Cut off at every marker or chunk: before it, within its head, and within its body."""
    exif = _orientation(1)
    jpegs = {
        "baseline": _jpeg(exif=exif, icc_profile=_srgb(), comment=b"a comment"),
        "progressive": _jpeg(progressive=True),
        "restarting": _jpeg(restart_marker_rows=10),
    }
    for kind, file in jpegs.items():
        for place, code in _jpeg_markers(file):
            for more in (0, 1, 3, 40):
                cut = file[: place + more]
                if len(cut) < len(file):
                    # All that is missing at the end is the mark of the end.
                    answers = (BROKEN, TAKEN) if code == "d9" else (BROKEN,)
                    answers = (UNSUPPORTED,) if len(cut) < 3 else answers
                    yield Specimen(f"{kind} JPEG cut at {code} {place}+{more}", cut, answers)
    text = _chunk(b"tEXt", b"Comment\0text")
    profile = _chunk(b"iCCP", b"name\0\0" + zlib.compress(_srgb()))
    note = _chunk(b"eXIf", exif.tobytes()[6:])
    rows = _rows()
    middle = len(rows) // 2
    png = (
        SIGNATURE
        + b"".join([_header(240, 240), profile, text, note])
        + b"".join([_chunk(b"IDAT", rows[:middle]), _chunk(b"IDAT", rows[middle:])])
        + _chunk(b"IEND", b"")
    )
    for place, kind in _png_chunks(png):
        for more in (0, 2, 6, 9):
            answers = (BROKEN, TAKEN) if kind == "IEND" else (BROKEN,)
            yield Specimen(f"PNG cut at {kind} {place}+{more}", png[: place + more], answers)
    with_alpha = _photo().copy()
    with_alpha.putalpha(200)
    webps = {
        "lossy": _file(_photo(), "WEBP", quality=90),
        "extended": _file(with_alpha, "WEBP", quality=90, exif=exif, icc_profile=_srgb()),
        "lossless": _file(_photo(), "WEBP", lossless=True),
        "animated": _file(_photo(), "WEBP", save_all=True, append_images=[with_alpha]),
    }
    for kind, file in webps.items():
        for place, code in _webp_chunks(file):
            for more in (0, 6, 12):
                answers = (BROKEN, TAKEN) if code in ("EXIF", "ANMF") else (BROKEN,)
                name = f"{kind} WebP cut at {code} {place}+{more}"
                yield Specimen(name, file[: place + more], answers)
    gif = _file(_photo(), "GIF")
    for share in (7, 13, 400, 790, 1000, len(gif) // 2, len(gif) - 300):
        yield Specimen(f"GIF cut at {share}", gif[:share], (BROKEN,))


def _damaged_jpegs() -> Iterator[Specimen]:
    """Lengths that lie, tables that are gone, frames that cannot be."""
    file = _jpeg()
    for place, code in _jpeg_markers(file):
        if code in ("d8", "d9"):
            continue
        for length in (0, 1, 2, 0xFFFF):
            bad = file[: place + 2] + struct.pack(">H", length) + file[place + 4 :]
            # Lengths that skip or repeat parts may still leave a picture, though not this one.
            answers = (BROKEN, TAKEN, NO_FACE)
            yield Specimen(f"JPEG whose {code} at {place} has length {length}", bad, answers)
    frame = file.index(b"\xff\xc0")
    changes = {
        "0 rows": (5, b"\0\0"),
        "0 columns": (7, b"\0\0"),
        "12 bits": (4, b"\x0c"),
        "0 components": (9, b"\0"),
        "200 components": (9, b"\xc8"),
        "no sampling": (11, b"\0"),
        "sampling beyond all": (11, b"\xff"),
    }
    for name, (offset, value) in changes.items():
        place = frame + offset
        bad = file[:place] + value + file[place + len(value) :]
        yield Specimen(f"JPEG of {name}", bad, (BROKEN,))
    for code in (0xC1, 0xC3, 0xC5, 0xC9, 0xCB, 0xCF):
        bad = file[: frame + 1] + bytes([code]) + file[frame + 2 :]
        answers = (TAKEN,) if code == 0xC1 else (BROKEN, NO_FACE, TAKEN)
        yield Specimen(f"JPEG of frame kind {code:x}", bad, answers)
    scan = file.index(b"\xff\xda") + 20
    noise = np.random.default_rng(7).integers(0, 255, 4000, np.uint8).tobytes()
    yield Specimen("JPEG with a scan of noise", file[:scan] + noise, (BROKEN, NO_FACE))
    flood = b"\xff\xfe\xff\xff" + bytes(65533)
    yield Specimen("JPEG behind 4 MB of comments", file[:2] + flood * 64 + file[2:], (TAKEN,))
    empty = b"\xff\xe1\0\2"
    yield Specimen("JPEG behind 50,000 empty notes", file[:2] + empty * 50_000 + file[2:], (TAKEN,))


def _damaged_pngs() -> Iterator[Specimen]:
    whole = _png()
    for name, header in {
        "0 columns": _header(0, 240),
        "0 rows": _header(240, 0),
        "depth 3": _header(240, 240, 3),
        "colour 5": _header(240, 240, 8, 5),
        "a palette without one": _header(240, 240, 8, 3),
        "compression 9": _header(240, 240, 8, 2, 9, 0, 0),
        "filtering 9": _header(240, 240, 8, 2, 0, 9, 0),
        "interlacing 9": _header(240, 240, 8, 2, 0, 0, 9),
        "twice the rows": _header(240, 480),
    }.items():
        # What a decoder overlooks shows the picture; a palette is then grey, and rows that a
        # stream ends without are black.
        lenient = name[-1] == "9" or "palette" in name or "twice" in name
        answers = (BROKEN, TAKEN, NO_FACE) if lenient else (BROKEN,)
        yield Specimen(f"PNG of {name}", _png(header=header), answers)
    yield Specimen("PNG without a header", SIGNATURE + whole[33:], (BROKEN,))
    yield Specimen("PNG without data", SIGNATURE + _header(240, 240), (BROKEN,))
    rows = {
        "no zlib": b"not compressed",
        "half of its rows": zlib.compress(bytes(721 * 120)),
        "an unknown filter": zlib.compress((b"\x09" + bytes(720)) * 240),
    }
    for name, body in rows.items():
        answers = (BROKEN, NO_FACE) if "half" in name else (BROKEN,)
        yield Specimen(f"PNG with {name}", _png(rows=body), answers)
    for place, kind in _png_chunks(whole):
        body = place + 8
        for length in (0, 0x7FFFFFFF, 0xFFFFFFFF):
            bad = whole[:place] + struct.pack(">I", length) + whole[place + 4 :]
            # All the rows are there before the file ends.
            sound = kind == "IEND" and not length
            lenient = (TAKEN,) if sound else (BROKEN, TAKEN)
            answers = (BROKEN,) if kind == "IHDR" or not (length or sound) else lenient
            yield Specimen(f"PNG whose {kind} has length {length}", bad, answers)
        if kind != "IEND":
            bad = whole[:body] + bytes([whole[body] ^ 1]) + whole[body + 1 :]
            yield Specimen(f"PNG whose {kind} has a wrong sum", bad, (BROKEN,))


def _bombs() -> Iterator[Specimen]:
    """Small files that claim or become large ones."""
    for side in (8192, 20_000, 65_535, 0x7FFFFFFF):
        header = _header(side, side)
        yield Specimen(f"PNG header of {side} px", _png(header=header, rows=b"x"), (TOO_LARGE,))
    whole = zlib.compress(bytes(8192 * 2000), 1)
    header = _header(65_528, 2000, 1, 0)
    yield Specimen("PNG of 131 million real pixels", _png(header=header, rows=whole), (TOO_LARGE,))
    jpeg = _jpeg()
    frame = jpeg.index(b"\xff\xc0") + 5
    for rows, columns in ((65_500, 65_500), (65_500, 800), (800, 65_500)):
        bad = jpeg[:frame] + struct.pack(">HH", rows, columns) + jpeg[frame + 4 :]
        yield Specimen(f"JPEG header of {rows} rows, {columns} columns", bad, (TOO_LARGE,))
    gif = b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0\0\0"
    image = b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02D\x01\0;"
    yield Specimen("GIF screen of 65,535 px", gif + image, (TOO_LARGE,))
    large = b"," + struct.pack("<HHHH", 0, 0, 65_535, 65_535) + b"\0\x02\x02D\x01\0;"
    small = b"GIF89a" + struct.pack("<HH", 1, 1) + b"\0\0\0"
    yield Specimen("GIF frame larger than its screen", small + large, (TOO_LARGE, BROKEN))
    flags = struct.pack("<I", 0) + b"\xff\x3f\0\xff\x3f\0"
    extended = b"VP8X" + struct.pack("<I", 10) + flags
    lossless = _file(_photo(), "WEBP", lossless=True)[12:]
    body = b"WEBP" + extended + lossless
    file = b"RIFF" + struct.pack("<I", len(body)) + body
    yield Specimen("WebP canvas of 16,384 px", file, (TOO_LARGE, BROKEN))
    claim = struct.pack("<I", 0x3FFF | 0x3FFF << 14)
    chunk = b"VP8L" + struct.pack("<I", 6) + b"\x2f" + claim + b"\0"
    file = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
    yield Specimen("WebP header of 16,384 px", file, (TOO_LARGE, BROKEN))
    for image_format, side in (("PNG", 7000), ("GIF", 3000), ("WEBP", 3000)):
        options = {"lossless": True, "method": 0} if image_format == "WEBP" else {}
        file = _file(Image.new("L", (side, side), 128), image_format, **options)
        yield Specimen(f"{image_format} of {side} px, all of one grey", file, (NO_FACE,))
    bomb = zlib.compress(bytes(100_000_000), 1)
    yield Specimen(
        "PNG with a profile of 100 MB", _png(_chunk(b"iCCP", b"x\0\0" + bomb)), (BROKEN, TAKEN)
    )
    yield Specimen(
        "PNG with a text of 100 MB", _png(_chunk(b"zTXt", b"x\0\0" + bomb)), (BROKEN, TAKEN)
    )
    international = b"x\0\x01\0\0\0" + bomb
    yield Specimen(
        "PNG with an iTXt of 100 MB", _png(_chunk(b"iTXt", international)), (BROKEN, TAKEN)
    )
    megabyte = _chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1_000_000), 9))
    yield Specimen("PNG with 90 texts of 1 MB", _png(*[megabyte] * 90), (BROKEN,))
    yield Specimen("PNG with 100,000 texts", _png(_chunk(b"tEXt", b"x\0y") * 100_000), (TAKEN,))
    yield Specimen("PNG with 100 MB behind its rows", _png(rows=_with_tail(bomb)), (TAKEN, BROKEN))
    frames = _chunk(b"acTL", struct.pack(">II", 0x7FFFFFFF, 0))
    yield Specimen("APNG of 2 billion frames", _png(frames), (TAKEN, BROKEN))
    frame = b"!\xf9\x04\0\0\0\0\0," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02D\x01\0"
    file = b"GIF89a" + struct.pack("<HH", 64, 64) + b"\0\0\0" + frame * 100_000 + b";"
    yield Specimen("GIF of 100,000 frames", file, (NO_FACE, BROKEN))


def _with_tail(bomb: bytes) -> bytes:
    """The photo's rows with 100 MB of zeros in the same stream."""
    pixels = np.asarray(_photo()).reshape(240, -1)
    return zlib.compress(np.pad(pixels, ((0, 0), (1, 0))).tobytes() + zlib.decompress(bomb), 1)


def _disguised() -> Iterator[Specimen]:
    """Content decides; names and media types do not."""
    files = {
        "JPEG": _jpeg(),
        "PNG": _png(),
        "WebP": _file(_photo(), "WEBP", quality=90),
        "GIF": _file(_photo(), "GIF"),
    }
    for kind, file in files.items():
        for name, media_type in (
            ("photo.exe", "application/x-msdownload"),
            ("photo.svg", "image/svg+xml"),
            ("../../etc/passwd", "text/html"),
            ("photo.jpg\r\nX: y", "image/tiff"),
        ):
            yield Specimen(f"{kind} named {name!r}", file, (TAKEN,), name, media_type)
    for name, file in {
        "text": b"plain text",
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "a shell script": b"#!/bin/sh\nexit\n",
        "an ELF file": b"\x7fELF\x02\x01\x01" + bytes(200),
        "a Windows program": b"MZ" + bytes(200),
        "a URL": b"http://127.0.0.1/photo.jpg",
        "a path": b"/etc/passwd",
        "a pickle": b"\x80\x04\x95\x1b\0\0\0\0\0\0\0\x8c\x05posix\x94",
    }.items():
        yield Specimen(f"{name} named photo.jpg", file, (UNSUPPORTED,), "photo.jpg", "image/jpeg")


def _polyglots() -> Iterator[Specimen]:
    archive = b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)
    script = b"<?php system($_GET['c']); ?><script>alert(1)</script>"
    jpeg, png, gif = _jpeg(), _png(), _file(_photo(), "GIF")
    webp = _file(_photo(), "WEBP", quality=90)
    for kind, file in {"JPEG": jpeg, "PNG": png, "GIF": gif, "WebP": webp}.items():
        for name, tail in {"ZIP": archive, "script": script, "PDF": b"%PDF-1.7\n%%EOF"}.items():
            yield Specimen(f"{kind} with a {name} behind", file + tail, (TAKEN,))
            yield Specimen(f"{kind} with a {name} before", tail + file, (UNSUPPORTED,))
        yield Specimen(f"{kind} behind a line feed", b"\n" + file, (UNSUPPORTED,))
        yield Specimen(f"{kind} behind a byte order mark", b"\xef\xbb\xbf" + file, (UNSUPPORTED,))
    yield Specimen("JPEG with a script as comment", _jpeg(comment=script), (TAKEN,))
    yield Specimen("PNG with a script as text", _png(_chunk(b"tEXt", b"x\0" + script)), (TAKEN,))
    yield Specimen("GIF that is JavaScript", b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)", (BROKEN,))
    yield Specimen("PNG in JPEG's clothes", b"\xff\xd8\xff" + png, (BROKEN,))
    yield Specimen("JPEG in PNG's clothes", SIGNATURE + jpeg, (BROKEN,))
    yield Specimen("JPEG in WebP's clothes", b"RIFF\0\0\0\0WEBP" + jpeg, (BROKEN,))
    two = jpeg + jpeg
    yield Specimen("two JPEGs in one file", two, (TAKEN,))
    buffer = io.BytesIO()
    _photo().save(buffer, "MPO", save_all=True, append_images=[_photo()])
    yield Specimen("JPEG of several pictures", buffer.getvalue(), (TAKEN,))


def _other_formats() -> Iterator[Specimen]:
    """Readable by Pillow, or by others, and not accepted."""
    for image_format in OTHER_FORMATS:
        image = _photo()
        if image_format in ("MSP", "XBM"):
            image = image.convert("1")
        elif image_format == "SPIDER":
            image = image.convert("F")
        yield Specimen(f"{image_format} file", _file(image, image_format), (UNSUPPORTED,))
    laughs = b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><svg>&b;</svg>'
    for name, file in {
        "SVG that laughs": laughs,
        "HEIC file": b"\0\0\0\x18ftypheic" + bytes(100),
        "JPEG XL file": b"\xff\x0a" + bytes(100),
        "PSD file": b"8BPS\0\1" + bytes(100),
        "WAV file": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
        "AVI file": b"RIFF\x24\0\0\0AVI LIST" + bytes(40),
        "MP4 file": b"\0\0\0\x18ftypmp42" + bytes(100),
        "gzip file": b"\x1f\x8b\x08" + bytes(100),
    }.items():
        yield Specimen(name, file, (UNSUPPORTED,))


def _exif_abuse() -> Iterator[Specimen]:
    """Notes that loop, lie or make no sense do not spoil a picture."""

    def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]

    def tiff(*entries: bytes, following: int = 0) -> bytes:
        table = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)
        return b"Exif\0\0II*\0\x08\0\0\0" + table

    orientation = entry(0x0112, 3, 1, b"\x01\0")
    notes = {
        "that loops": tiff(orientation, following=8),
        "whose GPS table is the table itself": tiff(entry(0x8825, 4, 1, b"\x08\0\0\0")),
        "whose tables are one another": tiff(
            entry(0x8769, 4, 1, b"\x08\0\0\0"), entry(0x8825, 4, 1, b"\x08\0\0\0")
        ),
        "with 4 billion values": tiff(entry(0x0112, 3, 0xFFFFFFFF, b"\x08\0\0\0")),
        "whose value lies beyond": tiff(entry(0x0112, 3, 9, b"\xff\xff\xff\x7f")),
        "whose table lies beyond": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "of 65,535 entries": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + orientation * 5000,
        "of an unknown kind": tiff(entry(0x0112, 99, 1, b"\x06\0")),
        "without values": tiff(entry(0x0112, 3, 0, b"")),
        "in words": tiff(entry(0x0112, 2, 4, b"six\0")),
        "over zero": tiff(entry(0x0112, 5, 1, b"\x08\0\0\0")),
        "with a thumbnail beyond": tiff(orientation, following=26)
        + struct.pack("<H", 2)
        + entry(0x0201, 4, 1, b"\xff\xff\xff\x7f")
        + entry(0x0202, 4, 1, b"\xff\xff\xff\x7f"),
        "of neither byte order": b"Exif\0\0XX*\0\x08\0\0\0",
        "of BigTIFF": b"Exif\0\0II+\0\x08\0\0\0" + bytes(8),
        "that is empty": b"Exif\0\0",
        "of noise": b"Exif\0\0" + np.random.default_rng(3).bytes(5000),
        "of 60 KB": b"Exif\0\0II*\0\x08\0\0\0\1\0" + orientation + bytes(60_000),
    }
    for value in (0, 9, 255, 65_535):
        notes[f"of orientation {value}"] = tiff(entry(0x0112, 3, 1, struct.pack("<H", value)))
    for name, note in notes.items():
        yield Specimen(f"JPEG note {name}", _jpeg(exif=note), (TAKEN,))
        yield Specimen(f"PNG note {name}", _png(_chunk(b"eXIf", note[6:])), (TAKEN,))
        yield Specimen(
            f"WebP note {name}", _file(_photo(), "WEBP", quality=90, exif=note), (TAKEN,)
        )
    first = _jpeg(exif=_orientation(1))
    length = struct.unpack_from(">H", first, 4)[0]
    twice = first[: 4 + length] + _jpeg(exif=_orientation(3))[2:]
    yield Specimen("JPEG with two notes that differ", twice, (TAKEN, NO_FACE))


def _profile_abuse() -> Iterator[Specimen]:
    srgb = _srgb()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profiles = {
        "that is empty": b"\0",
        "of words": b"no profile at all",
        "of a head alone": srgb[:128],
        "cut in half": srgb[: len(srgb) // 2],
        "of 4 billion bytes": b"\xff\xff\xff\xff" + srgb[4:],
        "of 4 billion tags": srgb[:128] + b"\xff\xff\xff\xff" + srgb[132:],
        "whose tags lie beyond": srgb[:136] + b"\x7f\xff\xff\xff" + srgb[140:],
        "whose tags are themselves": srgb[:136] + struct.pack(">II", 128, 0x7FFFFFFF) + srgb[144:],
        "of Lab": lab,
        "of CMYK": srgb[:16] + b"CMYK" + srgb[20:],
        "of grey": srgb[:16] + b"GRAY" + srgb[20:],
        "of 15 channels": srgb[:16] + b"FCLR" + srgb[20:],
        "of noise": np.random.default_rng(5).bytes(3000),
        "of noise behind a head": srgb[:200] + np.random.default_rng(5).bytes(3000),
        "of 2 MB": srgb + bytes(2_000_000),
    }
    for name, profile in profiles.items():
        yield Specimen(f"JPEG profile {name}", _jpeg(icc_profile=profile), (TAKEN,))
        chunk = _chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))
        # More than a megabyte is refused as a text would be.
        answers = (BROKEN, TAKEN) if "MB" in name else (TAKEN,)
        yield Specimen(f"PNG profile {name}", _png(chunk), answers)
        webp = _file(_photo(), "WEBP", quality=90, icc_profile=profile)
        yield Specimen(f"WebP profile {name}", webp, (TAKEN,))
    yield Specimen(
        "PNG profile that is not compressed", _png(_chunk(b"iCCP", b"x\0\0abc")), (BROKEN, TAKEN)
    )
    yield Specimen(
        "PNG profile of an unknown method", _png(_chunk(b"iCCP", b"x\0\7abc")), (BROKEN, TAKEN)
    )
    jpeg = _jpeg()
    parts = [(3, 200), (1, 2), (2, 2), (1, 1), (0, 0)]
    head = b"ICC_PROFILE\0"
    for number, count in parts:
        body = head + bytes([number, count]) + srgb[:400]
        segment = b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body
        file = jpeg[:2] + segment + jpeg[2:]
        yield Specimen(f"JPEG profile of part {number} of {count}", file, (TAKEN,))


def _odd_but_sound() -> Iterator[Specimen]:
    """Pictures that show the face in unusual ways."""
    photo = _photo()
    pixels = np.asarray(photo)
    alpha = photo.copy()
    alpha.putalpha(255)
    for mode in ("L", "CMYK", "YCbCr"):
        yield Specimen(f"JPEG of {mode}", _file(photo.convert(mode), "JPEG", quality=90), (TAKEN,))
    for mode in ("L", "LA", "P", "RGBA"):
        yield Specimen(f"PNG of {mode}", _file(photo.convert(mode), "PNG"), (TAKEN,))
    one_bit = (TAKEN, NO_FACE)
    yield Specimen("PNG of one bit", _file(photo.convert("1"), "PNG"), one_bit)
    yield Specimen("GIF of one bit", _file(photo.convert("1"), "GIF"), one_bit)
    grey = pixels.mean(-1)
    deep = Image.fromarray((grey * 257).astype(np.uint16))
    yield Specimen("PNG of 16 bits of grey", _file(deep, "PNG"), (TAKEN,))
    wide = (pixels.astype(">u2") * 257).reshape(240, -1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    header = _header(240, 240, 16, 2)
    yield Specimen("PNG of 16 bits", _png(header=header, rows=zlib.compress(rows)), (TAKEN,))
    for bits in (2, 4):
        levels = (grey.astype(np.uint8) >> (8 - bits)).reshape(240, -1, 8 // bits)
        packed = np.zeros(levels.shape[:2], np.uint8)
        for place in range(8 // bits):
            packed = packed << bits | levels[:, :, place]
        rows = b"".join(b"\0" + row.tobytes() for row in packed)
        header = _header(240, 240, bits, 0)
        file = _png(header=header, rows=zlib.compress(rows))
        yield Specimen(f"PNG of {bits} bits of grey", file, (TAKEN, NO_FACE))
    yield Specimen("JPEG that is progressive", _jpeg(progressive=True), (TAKEN,))
    yield Specimen("JPEG of quality 1", _jpeg(quality=1), (TAKEN, NO_FACE))
    quantised = photo.quantize(64)
    palette = _file(quantised, "PNG", transparency=bytes([255] * 64))
    yield Specimen("PNG of a palette with alpha", palette, (TAKEN,))
    gone = photo.copy()
    gone.putalpha(0)
    yield Specimen("PNG that is transparent all over", _file(gone, "PNG"), (NO_FACE,))
    others = [photo.transpose(Image.Transpose.ROTATE_180)] * 3
    for image_format in ("GIF", "WEBP", "PNG"):
        file = _file(photo, image_format, save_all=True, append_images=others)
        yield Specimen(f"{image_format} that moves", file, (TAKEN,))
    yield Specimen("PNG of resolution 0", _png(_chunk(b"pHYs", bytes(9))), (TAKEN,))
    yield Specimen("PNG of gamma 0", _png(_chunk(b"gAMA", bytes(4))), (TAKEN,))
    yield Specimen("PNG of no colours", _png(_chunk(b"cHRM", bytes(32))), (TAKEN,))
    yield Specimen("PNG with an empty palette", _png(_chunk(b"PLTE", b"")), (TAKEN, BROKEN))
    yield Specimen("PNG with odd transparency", _png(_chunk(b"tRNS", b"\1")), (TAKEN, BROKEN))
    yield Specimen("PNG with a chunk of its own", _png(_chunk(b"zzZz", bytes(9))), (TAKEN,))


def _tiny() -> Iterator[Specimen]:
    """Hardly a file, or hardly a picture."""
    for name, file in {
        "nothing": b"",
        "a zero byte": b"\0",
        "two bytes of a JPEG": b"\xff\xd8",
        "seven bytes of a PNG": SIGNATURE[:7],
        "WebP's outer head": b"RIFF\0\0\0\0",
        "five bytes of a GIF": b"GIF89",
        "zeros": bytes(2048),
        "ones": b"\xff" * 2048,
    }.items():
        yield Specimen(f"file of {name}", file, (UNSUPPORTED,))
    for name, file in {
        "JPEG": b"\xff\xd8\xff",
        "PNG": SIGNATURE,
        "WebP": b"RIFF\x04\0\0\0WEBP",
        "GIF": b"GIF89a",
    }.items():
        yield Specimen(f"{name} signature alone", file, (BROKEN,))
    for width, height in ((1, 1), (1, 2), (3, 1), (1, 20_000), (20_000, 1), (7, 2000)):
        for image_format in ("PNG", "JPEG", "WEBP", "GIF"):
            if image_format == "WEBP" and max(width, height) > 16_383:
                continue
            file = _file(Image.new("RGB", (width, height), (9, 99, 9)), image_format)
            yield Specimen(f"{image_format} of {width} x {height}", file, (NO_FACE,))
