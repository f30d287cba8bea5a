"""C2PA content credentials: a signed statement of a picture's making, inside the picture.

Off unless the operator names a certificate and its key. What is signed is what the mark says, by
the action `c2pa.created` with its digital source type; there is no thumbnail and no time stamp of
an authority, and the network is never used. Needs the extra `c2pa`.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from service.marks import Mark, Source
from service.media import MP4, AnimationFormat, PictureFormat, encode_picture
from service.settings import SettingsError, setting_name
from service.version import anchorage_version

CONTAINERS: Mapping[str, str] = {
    **{each.media_type: each.media_type for each in PictureFormat},
    AnimationFormat.GIF.media_type: "image/gif",
    AnimationFormat.APNG.media_type: "image/png",
    MP4: MP4,
}
"""Media types that can be signed, with the name the library has for the container."""

_LIBRARY_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    # Signing is checked once, when the service starts.
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {"allowed_network_hosts": []},
}


class Credentials:
    """Signs pictures with the operator's certificate. May be used from several threads."""

    def __init__(self, certificate: bytes, key: bytes, algorithm: str) -> None:
        """PEM of the chain, the signer's certificate first, and of its key.

        Raises c2pa.C2paError for what cannot sign.
        """
        import c2pa

        self._c2pa = c2pa
        self._context = c2pa.Context(
            c2pa.Settings.from_dict(_LIBRARY_SETTINGS),
            c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, certificate, key, None)),
        )

    def signed(self, data: bytes, media_type: str, mark: Mark) -> bytes:
        """A whole file of one of CONTAINERS, with its credentials in it."""
        agent = {"name": mark.system, "version": mark.version}
        action = {
            "action": "c2pa.created",
            "digitalSourceType": mark.source.value,
            "softwareAgent": agent,
        }
        manifest = {
            "claim_generator_info": [{"name": "Anchorage", "version": anchorage_version()}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        signed = io.BytesIO()
        with self._c2pa.Builder.from_json(json.dumps(manifest), self._context) as builder:
            builder.sign(CONTAINERS[media_type], io.BytesIO(data), signed)
        return signed.getvalue()


def open_credentials(certificate: Path | None, key: Path | None) -> Credentials | None:
    """What the settings `c2pa_certificate` and `c2pa_key` name; None where they name nothing.

    Raises SettingsError, which names the setting, for one without the other, for files that cannot
    be read or do not belong together, and for a certificate that the library does not sign with.
    """
    if certificate is None and key is None:
        return None
    if certificate is None:
        raise _refused("c2pa_certificate", "c2pa_key is set, and its certificate is missing")
    if key is None:
        raise _refused("c2pa_key", "c2pa_certificate is set, and its key is missing")
    try:
        import c2pa
    except ImportError as error:
        raise _refused(
            "c2pa_certificate", "signing needs the extra c2pa: pip install 'anchorage[c2pa]'"
        ) from error
    chain, secret = _read("c2pa_certificate", certificate), _read("c2pa_key", key)
    algorithm = _algorithm(certificate, chain, key, secret)
    try:
        credentials = Credentials(chain, secret, algorithm)
        _try_out(credentials)
    except c2pa.C2paError as error:
        raise _refused(
            "c2pa_certificate", f"{certificate}: does not sign content credentials: {error}"
        ) from error
    return credentials


def _try_out(credentials: Credentials) -> None:
    """Signs one pixel, and lets the library judge it. Raises c2pa.C2paError."""
    import c2pa

    mark = Mark(Source.MODEL, "trial", "0")
    pixel = encode_picture(np.zeros((1, 1, 3), np.uint8), PictureFormat.PNG, mark)
    signed = credentials.signed(pixel, PictureFormat.PNG.media_type, mark)
    # Whom a reader trusts is the reader's affair.
    settings = {**_LIBRARY_SETTINGS, "verify": {"verify_trust": False}}
    context = c2pa.Context(c2pa.Settings.from_dict(settings))
    with c2pa.Reader("image/png", io.BytesIO(signed), context=context) as reader:
        results = reader.get_validation_results() or {}
        failures = results.get("activeManifest", {}).get("failure", [])
    if failures:
        raise c2pa.C2paError("; ".join(each.get("explanation", each["code"]) for each in failures))


def _algorithm(certificate: Path, chain: bytes, key: Path, secret: bytes) -> str:
    """C2PA's name of the algorithm of a key, which must be the first certificate's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        signer = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise _refused("c2pa_certificate", f"{certificate}: holds no PEM certificate") from error
    try:
        private: Any = serialization.load_pem_private_key(secret, None)
    except (ValueError, TypeError) as error:
        raise _refused("c2pa_key", f"{key}: holds no PEM key without a password") from error
    if private.public_key() != signer.public_key():
        raise _refused("c2pa_key", f"{key}: is not the key of {certificate}")
    match private:
        case ed25519.Ed25519PrivateKey():
            return "ed25519"
        case rsa.RSAPrivateKey():
            return "ps256"
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return "es256"
        case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
            return "es384"
        case ec.EllipticCurvePrivateKey(curve=ec.SECP521R1()):
            return "es512"
    raise _refused("c2pa_key", f"{key}: C2PA signs with RSA, Ed25519, P-256, P-384 and P-521 only")


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused(setting, f"{path}: {error.strerror}") from error


def _refused(setting: str, reason: str) -> SettingsError:
    return SettingsError(f"{setting_name(setting)}: {reason}")
