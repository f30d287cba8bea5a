import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import c2pa
import numpy as np
import pytest
from PIL import Image

from service.credentials import CONTAINERS, Credentials, open_credentials
from service.marks import Mark, Source
from service.media import (
    MP4,
    AnimationFormat,
    Mp4Writer,
    PictureFormat,
    animation,
    encode_picture,
)
from service.settings import SettingsError
from tests.service.conftest import Exiftool, StartServer, pixels
from tests.service.signers import KEYS, Signer, make_signer, private_pem

MARK = Mark(Source.MODEL, "tiny", "1")
SIDE = 64


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def credentials(signer: Signer) -> Credentials:
    opened = open_credentials(signer.chain, signer.key)
    assert opened is not None
    return opened


def picture(number: int = 0) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """An unsigned file of every media type that can be signed."""
    frames = [picture(number) for number in range(3)]
    writer = Mp4Writer(12, MARK)
    made = {each.media_type: encode_picture(frames[0], each, MARK) for each in PictureFormat}
    made |= {
        each.media_type: animation(frames, 12, each, MARK)
        for each in (AnimationFormat.GIF, AnimationFormat.APNG)
    }
    made[MP4] = b"".join([*(writer.add(frame) for frame in frames), writer.finish()])
    return made


def verdict(data: bytes, media_type: str, root: Path) -> tuple[str, dict[str, Any]]:
    """The library's verdict on a file, for a reader who trusts `root`, and its manifest."""
    settings = {
        "trust": {"user_anchors": root.read_text()},
        "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
        "core": {"allowed_network_hosts": []},
    }
    context = c2pa.Context(c2pa.Settings.from_dict(settings))
    with c2pa.Reader(CONTAINERS[media_type], io.BytesIO(data), context=context) as reader:
        manifest = reader.get_active_manifest()
        assert manifest is not None
        return reader.get_validation_state() or "", manifest


def test_there_is_a_file_of_every_kind_that_can_be_signed(files: dict[str, bytes]):
    assert set(files) == set(CONTAINERS)


@pytest.mark.parametrize("media_type", CONTAINERS)
def test_a_signed_file_is_trusted_and_says_how_it_was_made(
    files: dict[str, bytes], credentials: Credentials, signer: Signer, media_type: str
):
    signed = credentials.signed(files[media_type], media_type, MARK)
    state, manifest = verdict(signed, media_type, signer.root)
    assert state == "Trusted"
    (actions,) = [each for each in manifest["assertions"] if "actions" in each["label"]]
    (action,) = actions["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == Source.MODEL
    assert action["softwareAgent"]["name"] == "Anchorage tiny"
    assert action["softwareAgent"]["version"] == "1"
    assert manifest["signature_info"]["common_name"] == "Test signer"
    assert "time" not in manifest["signature_info"]
    assert "thumbnail" not in manifest
    assert not manifest.get("ingredients")


@pytest.mark.parametrize("media_type", CONTAINERS)
def test_a_signed_file_that_was_tampered_with_is_not_valid(
    files: dict[str, bytes], credentials: Credentials, signer: Signer, media_type: str
):
    signed = credentials.signed(files[media_type], media_type, MARK)
    # A byte of the picture itself, found where the unsigned file has it.
    middle = files[media_type][-400:-368]
    place = signed.rindex(middle)
    broken = signed[:place] + bytes([middle[0] ^ 1]) + signed[place + 1 :]
    assert verdict(signed, media_type, signer.root)[0] == "Trusted"
    assert verdict(broken, media_type, signer.root)[0] == "Invalid"


def test_a_mark_that_was_changed_makes_a_signed_file_invalid(
    files: dict[str, bytes], credentials: Credentials, signer: Signer
):
    signed = credentials.signed(files["image/jpeg"], "image/jpeg", MARK)
    changed = signed.replace(b"trainedAlgorithmicMedia</", b"digitalCapture_________</")
    assert changed != signed
    assert verdict(changed, "image/jpeg", signer.root)[0] == "Invalid"


def test_a_signer_whose_authority_is_unknown_is_valid_but_not_trusted(
    files: dict[str, bytes], credentials: Credentials, tmp_path: Path
):
    signed = credentials.signed(files["image/png"], "image/png", MARK)
    other = make_signer(tmp_path)
    assert verdict(signed, "image/png", other.root)[0] != "Trusted"


@pytest.mark.parametrize("media_type", CONTAINERS)
def test_a_signed_file_decodes_as_the_unsigned_one(
    files: dict[str, bytes], credentials: Credentials, media_type: str
):
    signed = credentials.signed(files[media_type], media_type, MARK)

    def decoded(data: bytes) -> list[np.ndarray]:
        if media_type == MP4:
            with av.open(io.BytesIO(data)) as film:
                return [each.to_ndarray(format="rgb24") for each in film.decode(video=0)]
        image = Image.open(io.BytesIO(data))
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.asarray(image.convert("RGB")))
        return found

    np.testing.assert_array_equal(decoded(signed), decoded(files[media_type]))


def test_a_signed_file_keeps_its_mark(
    files: dict[str, bytes], credentials: Credentials, exiftool: Exiftool
):
    suffixes = {name: f"signed.{name.partition('/')[2]}" for name in files}
    signed = {suffixes[name]: credentials.signed(data, name, MARK) for name, data in files.items()}
    for name, tags in exiftool.read(signed).items():
        assert tags["XMP-iptcExt:DigitalSourceType"] == Source.MODEL, name


@pytest.mark.parametrize("kind", [kind for kind in KEYS if kind != "brainpool"])
def test_every_algorithm_of_c2pa_signs(files: dict[str, bytes], tmp_path: Path, kind: str):
    own = make_signer(tmp_path, kind)
    opened = open_credentials(own.chain, own.key)
    assert opened is not None
    signed = opened.signed(files["image/png"], "image/png", MARK)
    assert verdict(signed, "image/png", own.root)[0] == "Trusted"


def test_threads_sign_beside_one_another(
    files: dict[str, bytes], credentials: Credentials, signer: Signer
):
    with ThreadPoolExecutor(4) as threads:
        signed = list(
            threads.map(
                lambda _: credentials.signed(files["image/webp"], "image/webp", MARK), range(24)
            )
        )
    assert {verdict(each, "image/webp", signer.root)[0] for each in signed} == {"Trusted"}


def test_nothing_is_signed_unless_a_certificate_is_named():
    assert open_credentials(None, None) is None


def wrong(folder: Path, case: str) -> tuple[Path | None, Path | None]:
    """The settings of an operator's mistake."""
    good = make_signer(folder)
    missing, garbage, locked = (folder / name for name in ("none.pem", "garbage.pem", "locked.pem"))
    garbage.write_bytes(b"-----BEGIN NOTHING-----\n")
    locked.write_bytes(private_pem(KEYS["p256"](), b"password"))
    other = make_signer(folder / "other")
    match case:
        case "no key":
            return good.chain, None
        case "no certificate":
            return None, good.key
        case "certificate missing":
            return missing, good.key
        case "key missing":
            return good.chain, missing
        case "key is a folder":
            return good.chain, folder
        case "certificate is garbage":
            return garbage, good.key
        case "key is garbage":
            return good.chain, garbage
        case "key is locked":
            return good.chain, locked
        case "key of another":
            return good.chain, other.key
        case "authority first":
            return good.root, good.key
        case "curve unknown":
            unknown = make_signer(folder / "unknown", "brainpool")
            return unknown.chain, unknown.key
        case "certificate expired":
            old = make_signer(folder / "old", days=-1)
            return old.chain, old.key
    web = make_signer(folder / "web", for_signing=False)
    return web.chain, web.key


@pytest.mark.parametrize(
    ("case", "setting", "words"),
    [
        ("no key", "C2PA_KEY", "its key is missing"),
        ("no certificate", "C2PA_CERTIFICATE", "its certificate is missing"),
        ("certificate missing", "C2PA_CERTIFICATE", "none.pem: No such file"),
        ("key missing", "C2PA_KEY", "none.pem: No such file"),
        ("key is a folder", "C2PA_KEY", "Is a directory"),
        ("certificate is garbage", "C2PA_CERTIFICATE", "holds no PEM certificate"),
        ("key is garbage", "C2PA_KEY", "holds no PEM key"),
        ("key is locked", "C2PA_KEY", "without a password"),
        ("key of another", "C2PA_KEY", "is not the key of"),
        ("authority first", "C2PA_KEY", "is not the key of"),
        ("curve unknown", "C2PA_KEY", "P-256, P-384 and P-521 only"),
        ("certificate expired", "C2PA_CERTIFICATE", "does not sign content credentials"),
        ("certificate of a web server", "C2PA_CERTIFICATE", "does not sign content credentials"),
    ],
)
def test_an_operator_s_mistake_names_the_setting(
    tmp_path: Path, case: str, setting: str, words: str
):
    with pytest.raises(SettingsError, match=f"ANCHORAGE_{setting} ") as caught:
        open_credentials(*wrong(tmp_path, case))
    assert words in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_key_that_may_not_be_read_names_the_setting(tmp_path: Path):
    own = make_signer(tmp_path)
    own.key.chmod(0)
    with pytest.raises(SettingsError, match=r"ANCHORAGE_C2PA_KEY .*Permission denied"):
        open_credentials(own.chain, own.key)


def test_a_server_with_a_wrong_key_does_not_start(tmp_path: Path, start_server: StartServer):
    chain, key = wrong(tmp_path, "key of another")
    with pytest.raises(RuntimeError, match=r"ANCHORAGE_C2PA_KEY \(--c2pa-key\)"):
        start_server(c2pa_certificate=chain, c2pa_key=key, ready=False)


def test_a_server_with_a_certificate_signs_what_it_answers(
    start_server: StartServer, signer: Signer, portrait: bytes
):
    server = start_server(c2pa_certificate=signer.chain, c2pa_key=signer.key)
    sent = {"image": portrait}

    def ask(path: str, accept: str, **data: str) -> bytes:
        answer = server.client.post(
            path, data={"aligned": "true", **data}, files=sent, headers={"accept": accept}
        )
        assert answer.headers["content-type"] == accept
        return answer.content

    signed = {
        "image/jpeg": ask("/age", "image/jpeg", target="0-2"),
        "image/png": ask("/age", "image/png", target="all"),
        "image/webp": ask("/interpolate", "image/webp", frames="3"),
        "image/gif": ask("/interpolate", "image/gif", frames="3"),
        "image/apng": ask("/interpolate", "image/apng", frames="3"),
    }
    for media_type, data in signed.items():
        state, manifest = verdict(data, media_type, signer.root)
        assert state == "Trusted", media_type
        assert Source.MODEL in json.dumps(manifest), media_type
    pasted = ask("/age", "image/png", target="0-2", view="photo")
    assert Source.COMPOSITE in json.dumps(verdict(pasted, "image/png", signer.root)[1])
    assert pixels(pasted).shape == (173, 173, 3)
    # Sent while it grows, and so before there is a whole file to sign.
    film = ask("/interpolate", MP4, frames="3")
    with pytest.raises(c2pa.C2paError, match="ManifestNotFound"):
        verdict(film, MP4, signer.root)
    unmade = server.client.post("/faces", data={"aligned": "true"}, files=sent).json()
    assert unmade["portrait"]


WITHOUT = """
import sys
sys.modules["c2pa"] = None
from pathlib import Path
from service.credentials import open_credentials
from service.settings import SettingsError
assert open_credentials(None, None) is None
try:
    open_credentials(Path(sys.argv[1]), Path(sys.argv[2]))
except SettingsError as error:
    print(error)
"""


def test_without_the_library_a_certificate_is_refused_with_what_to_install(signer: Signer):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(signer.chain), str(signer.key)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ANCHORAGE_C2PA_CERTIFICATE" in done.stdout
    assert "anchorage[c2pa]" in done.stdout
