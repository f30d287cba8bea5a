"""Every answer that a model made says so, and nothing of the photo's own notes is in it."""

import base64
import email
import email.policy
import io
import zipfile

import httpx
import pytest

from service.marks import Source
from tests.service.conftest import Exiftool, Server

SECRETS = ("Grace Private", "Hidden Street", "secret caption")
NOTES = (
    "-GPSLatitude=52.5163",
    "-GPSLatitudeRef=N",
    "-GPSLongitude=13.3777",
    "-GPSLongitudeRef=E",
    "-EXIF:Artist=Grace Private",
    "-XMP-dc:Creator=Grace Private",
    "-XMP-iptcExt:PersonInImage=Grace Private",
    "-XMP-iptcCore:Location=Hidden Street",
    "-IPTC:By-line=Grace Private",
    "-IPTC:Caption-Abstract=secret caption",
    "-IPTC:Sub-location=Hidden Street",
    "-Comment=secret caption",
)
PRIVATE = ("IPTC:", "IFD", "ExifIFD:", "File:Comment")
KNOWN = {
    "XMP-x:XMPToolkit",
    "XMP-xmp:CreatorTool",
    "XMP-iptcExt:DigitalSourceType",
    "XMP-iptcExt:AISystemUsed",
    "XMP-iptcExt:AISystemVersionUsed",
}


@pytest.fixture
def noted(exiftool: Exiftool, photo: bytes) -> bytes:
    """The photo with a place, names and words in EXIF, XMP, IPTC and a comment."""
    written = exiftool.write(photo, *NOTES)
    tags = exiftool.read({"noted.jpg": written})["noted.jpg"]
    given = {"GPS:GPSLatitude", "IFD0:Artist", "XMP-dc:Creator", "IPTC:By-line", "File:Comment"}
    assert given <= set(tags)
    return written


def ask(
    server: Server, path: str, image: bytes, accept: str = "*/*", **data: str
) -> httpx.Response:
    response = server.client.post(
        path, data=data, files={"image": ("Grace Private.jpg", image)}, headers={"accept": accept}
    )
    assert response.status_code < 300, response.text
    return response


def parts_of(response: httpx.Response) -> list[bytes]:
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    return [part.get_payload(decode=True) for part in message.iter_parts()]


def answers(server: Server, image: bytes, view: str) -> dict[str, bytes]:
    """Every file that POST /age gives, those inside others too, by a name."""
    files = {}
    for kind in ("png", "jpeg", "webp"):
        common = {"format": kind, "view": view}
        files[f"one.{kind}"] = ask(server, "/age", image, target="0-2", **common).content
        files[f"sheet.{kind}"] = ask(server, "/age", image, f"image/{kind}", view=view).content
        document = ask(server, "/age", image, "application/json", age="30", **common).json()
        (picture,) = document["pictures"]
        files[f"document.{kind}"] = base64.b64decode(picture["image"])
        archive = ask(server, "/age", image, "application/zip", target="0-2", **common).content
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            (name,) = members.namelist()
            files[f"member.{kind}"] = members.read(name)
        parts = parts_of(ask(server, "/age", image, "multipart/mixed", target="0-2", **common))
        files[f"part.{kind}"] = parts[0]
    return files


def sequences(server: Server, image: bytes) -> dict[str, bytes]:
    """Every kind of file that POST /interpolate gives."""
    files = {}
    for kind in ("image/webp", "image/gif", "image/apng", "video/mp4"):
        answer = ask(server, "/interpolate", image, kind, frames="3")
        files[f"life.{kind.partition('/')[2]}"] = answer.content
    archive = ask(server, "/interpolate", image, "application/zip", frames="2").content
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        files |= {f"frame_{name}": members.read(name) for name in members.namelist()}
    return files


def assert_marked(exiftool: Exiftool, files: dict[str, bytes], source: Source) -> None:
    read = exiftool.read(files)
    assert set(read) == set(files)
    for name, tags in read.items():
        assert tags["XMP-iptcExt:DigitalSourceType"] == source, name
        assert tags["XMP-iptcExt:AISystemUsed"] == "Anchorage tiny", name
        assert str(tags["XMP-iptcExt:AISystemVersionUsed"]) == "1", name
        assert tags["XMP-xmp:CreatorTool"].startswith("Anchorage "), name
        assert {key for key in tags if key.startswith("XMP")} <= KNOWN, name
        assert_without_notes(tags, files[name])


def assert_without_notes(tags: dict[str, object], data: bytes) -> None:
    assert not [key for key in tags if "GPS" in key or key.startswith(PRIVATE)]
    shown = " ".join(str(value) for value in tags.values())
    for secret in SECRETS:
        assert secret not in shown
        assert secret.encode() not in data


@pytest.mark.parametrize(("view", "source"), [("face", Source.MODEL), ("photo", Source.COMPOSITE)])
def test_every_picture_says_what_it_is(
    server: Server, exiftool: Exiftool, noted: bytes, view: str, source: Source
):
    assert_marked(exiftool, answers(server, noted, view), source)


def test_every_frame_sequence_says_what_it_is(server: Server, exiftool: Exiftool, noted: bytes):
    assert_marked(exiftool, sequences(server, noted), Source.MODEL)


def test_a_portrait_that_no_model_made_is_not_called_synthetic(
    server: Server, exiftool: Exiftool, noted: bytes
):
    answer = ask(server, "/faces", noted).json()
    portrait = base64.b64decode(answer["portrait"])
    tags = exiftool.read({"portrait.png": portrait})["portrait.png"]
    assert not [key for key in tags if key.startswith("XMP")]
    assert_without_notes(tags, portrait)


def test_the_documentation_tells_of_the_mark(server: Server):
    document = server.client.get("/openapi.json").json()
    for path, method in (("/age", "post"), ("/interpolate", "get"), ("/interpolate", "post")):
        described = document["paths"][path][method]["responses"]["200"]["description"]
        assert "trainedAlgorithmicMedia" in described
