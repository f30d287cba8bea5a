from pathlib import Path

import pytest

from service.errors import Unauthorized
from service.keys import ApiKeys, KeyFileError

ANN, BOB = "ann's-key-0123456789abcdef", "bob's-key-0123456789abcdef"


def key_file(folder: Path, text: str) -> Path:
    path = folder / "keys"
    path.write_text(text)
    return path


def test_a_file_gives_each_key_its_holder(tmp_path: Path):
    keys = ApiKeys.read(key_file(tmp_path, f"# ours\n\nann:{ANN}\n bob : {BOB}\r\n"))
    assert keys.holder(f"Bearer {ANN}") == "ann"
    assert keys.holder(f"bearer  {BOB} ") == "bob"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", ANN, f"Basic {ANN}", f"Bearer {ANN[:-1]}", f"Bearer {ANN} x"],
)
def test_what_is_no_known_key_is_refused(header: str | None):
    with pytest.raises(Unauthorized) as refusal:
        ApiKeys({"ann": ANN}).holder(header)
    told = refusal.value.headers["WWW-Authenticate"]
    assert told.startswith('Bearer realm="anchorage"')
    assert ("invalid_token" in told) == (header is not None)


def test_only_hashes_stay_in_memory():
    assert ANN not in repr(vars(ApiKeys({"ann": ANN})))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no key"),
        ("# nothing\n", "no key"),
        (f"ann:{ANN}\n{BOB}\n", "line 2: not `name:key`"),
        (f"ann smith:{ANN}", "line 1: not `name:key`"),
        (f":{ANN}", "line 1: not `name:key`"),
        ("ann:short-and-secret", "line 1: the key must be 24"),
        ("ann:with a space in it, and long", "line 1: the key must be 24"),
        (f"ann:{ANN}\nann:{BOB}", "line 2: its name or key was there"),
        (f"ann:{ANN}\nbob:{ANN}", "line 2: its name or key was there"),
        ("ann:schlüssel-0123456789abcdef", "ASCII"),
    ],
)
def test_a_bad_file_is_refused_by_its_line_and_without_its_keys(
    tmp_path: Path, text: str, words: str
):
    path = key_file(tmp_path, text)
    with pytest.raises(KeyFileError, match=words) as refusal:
        ApiKeys.read(path)
    assert str(path) in str(refusal.value)
    for secret in ("key-0123", "short-and", "with a space"):
        assert secret not in str(refusal.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str):
    with pytest.raises(KeyFileError, match=str(tmp_path)):
        ApiKeys.read(tmp_path / name)
