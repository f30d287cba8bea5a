"""API keys: who may ask, told from a file of names and keys. Only their hashes stay in memory."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from service.errors import Unauthorized

MIN_KEY_LENGTH = 24
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[\x21-\x7e]+")
_BEARER = re.compile(r"[Bb]earer +(\S+) *")


class KeyFileError(ValueError):
    """A file of API keys that cannot be read or is not valid; the message holds no key."""


class ApiKeys:
    """Keys by the names of their holders."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._hashes = {name: _hash(key) for name, key in keys.items()}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file with one `name:key` a line, besides empty lines and lines that begin with #.

        Names are 1 to 64 letters, digits, dots, dashes and underscores; keys are 24 or more visible
        ASCII characters. Raises KeyFileError that names the file and the line.
        """
        try:
            lines = path.read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not all of it is ASCII"
            raise KeyFileError(f"{path}: {reason}") from None
        keys: dict[str, str] = {}
        for number, line in enumerate(map(str.strip, lines), 1):
            if not line or line.startswith("#"):
                continue
            name, colon, key = (part.strip() for part in line.partition(":"))
            if not colon or not _NAME.fullmatch(name):
                raise KeyFileError(f"{path}, line {number}: not `name:key`")
            if len(key) < MIN_KEY_LENGTH or not _KEY.fullmatch(key):
                raise KeyFileError(
                    f"{path}, line {number}: the key must be {MIN_KEY_LENGTH} or more visible "
                    "ASCII characters"
                )
            if name in keys or key in keys.values():
                raise KeyFileError(f"{path}, line {number}: its name or key was there before")
            keys[name] = key
        if not keys:
            raise KeyFileError(f"{path}: there is no key in it")
        return cls(keys)

    def holder(self, authorization: str | None) -> str:
        """The name of whose key an Authorization header brings. Raises Unauthorized.

        Takes equally long for every key, known or not.
        """
        if authorization is None:
            raise Unauthorized("Send an API key: Authorization: Bearer KEY.", refused=False)
        bearer = _BEARER.fullmatch(authorization)
        given = _hash(bearer[1] if bearer else "")
        holders = [name for name, kept in self._hashes.items() if hmac.compare_digest(kept, given)]
        if not holders:
            raise Unauthorized("The API key is not known.", refused=True)
        return holders[0]


def _hash(key: str) -> bytes:
    # Keys are long and random, so that one round without salt cannot be turned back.
    return hashlib.sha256(key.encode()).digest()
