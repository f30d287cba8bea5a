"""Certificates of a signer of pictures and of the authority above it, made for one test run."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
}


@dataclass(frozen=True)
class Signer:
    """PEM files: `chain` of the signer and its authority, `key` of the signer, `root` alone."""

    chain: Path
    key: Path
    root: Path


def make_signer(
    folder: Path, kind: str = "p256", *, days: int = 30, for_signing: bool = True
) -> Signer:
    """Writes a signer whose certificate ends in `days`; one `for_signing` may sign for C2PA."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key, key = KEYS["p256"](), KEYS[kind]()
    authority = _certificate("Test authority", authority_key, "Test authority", authority_key)
    usage = ExtendedKeyUsageOID.EMAIL_PROTECTION if for_signing else ExtendedKeyUsageOID.SERVER_AUTH
    own = _certificate("Test signer", key, "Test authority", authority_key, usage, days)
    signer = Signer(folder / "chain.pem", folder / "key.pem", folder / "root.pem")
    signer.chain.write_bytes(_pem(own) + _pem(authority))
    signer.root.write_bytes(_pem(authority))
    signer.key.write_bytes(private_pem(key))
    return signer


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    locked = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(
    subject: str,
    key: Any,
    issuer: str,
    issuer_key: Any,
    usage: x509.ObjectIdentifier | None = None,
    days: int = 30,
) -> x509.Certificate:
    """An authority's certificate where there is no `usage`."""
    now = datetime.datetime.now(datetime.UTC)
    authority = usage is None
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=authority, path_length=None), True),
        (
            x509.KeyUsage(
                digital_signature=not authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        ),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
    ]
    if usage is not None:
        extensions.append((x509.ExtendedKeyUsage([usage]), False))
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    attributes = {NameOID.COMMON_NAME: text, NameOID.ORGANIZATION_NAME: "Anchorage tests"}
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes.items()])
