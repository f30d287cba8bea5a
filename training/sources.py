"""Image collections that `prepare` reads: a folder or a zip, with a table of ages and genders."""

import csv
import hashlib
import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from training.data import DataError

FFHQ_AGING = "ffhq_aging_labels.csv"
OLDEST_YEARS = 130
FEMALE_MALE = {"f": "female", "m": "male", "female": "female", "male": "male"}


@dataclass(frozen=True)
class Entry:
    """A picture of the collection and what its table says of it."""

    file: str
    age_years: float
    gender: str
    source: str
    split: str


class Collection:
    """A folder or a zip; `read` may be called in other processes, which open it again."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise DataError(f"{path} does not exist")
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path) if path.is_file() else None
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is neither a folder nor a whole zip file") from error

    def __reduce__(self) -> tuple[type["Collection"], tuple[Path]]:
        return Collection, (self.path,)

    def names(self) -> Iterator[str]:
        """Names of all files, with / between folders."""
        if self._zip is not None:
            yield from (name for name in self._zip.namelist() if not name.endswith("/"))
        else:
            for file in sorted(self.path.rglob("*")):
                if file.is_file():
                    yield file.relative_to(self.path).as_posix()

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises OSError where there is none or it cannot be read."""
        if self._zip is None:
            return (self.path / name).read_bytes()
        try:
            return self._zip.read(name)
        except (KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise OSError(f"{name} cannot be read from {self.path}") from error

    def repeated(self, names: Iterable[str]) -> list[list[str]]:
        """Groups of these files that hold the same bytes; only those of one size are read."""
        same_size: dict[object, list[str]] = defaultdict(list)
        for name in names:
            same_size[self._size(name)].append(name)
        same_bytes: dict[bytes, list[str]] = defaultdict(list)
        for group in same_size.values():
            for name in group if len(group) > 1 else ():
                with suppress(OSError):
                    same_bytes[hashlib.sha256(self.read(name)).digest()].append(name)
        return [group for group in same_bytes.values() if len(group) > 1]

    def _size(self, name: str) -> object:
        if self._zip is None:
            return (self.path / name).stat().st_size
        information = self._zip.getinfo(name)
        return information.file_size, information.CRC


def read_rows(collection: Collection, labels: Path | None = None) -> list[Entry | DataError]:
    """Every row of a collection's table, or what is wrong with it, naming line and column.

    The table is `labels`, else the collection's own `labels.csv` or FFHQ-Aging's. Columns of ours:
    file, age (years) and gender; source and split are optional. Raises DataError where there is no
    such table or a column is missing.
    """
    if labels is not None:
        return list(_rows(_text(labels.read_bytes(), str(labels)), str(labels)))
    names = list(collection.names())
    tables = [name for name in names if name.rsplit("/", 1)[-1] in ("labels.csv", FFHQ_AGING)]
    if not tables:
        raise DataError(f"{collection.path} holds neither labels.csv nor {FFHQ_AGING}")
    table = min(tables, key=len)
    text = _text(collection.read(table), table)
    if table.endswith(FFHQ_AGING):
        return list(_ffhq_aging_rows(text, table, names))
    folder = table.rpartition("/")[0]
    return list(_rows(text, table, f"{folder}/" if folder else ""))


def read_table(collection: Collection, labels: Path | None = None) -> list[Entry]:
    """The table of a collection; see `read_rows`. Raises DataError for the first wrong row."""
    entries = []
    for row in read_rows(collection, labels):
        if isinstance(row, DataError):
            raise row
        entries.append(row)
    if not entries:
        raise DataError(f"the table of {collection.path} names no picture")
    return entries


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")  # a spreadsheet may begin its tables with a mark
    except UnicodeDecodeError:
        raise DataError(f"{name} is not UTF-8 text; save it as CSV in UTF-8") from None


def _table(text: str, name: str, columns: set[str]) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text), restval="")
    missing = columns - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{name}: no column {', '.join(sorted(missing))}")
    return reader


def _rows(text: str, name: str, folder: str = "") -> Iterator[Entry | DataError]:
    reader = _table(text, name, {"file", "age", "gender"})
    for line, row in enumerate(reader, start=2):
        try:
            age = float(row["age"])
        except ValueError:
            yield DataError(f"{name}, line {line}: age {row['age']!r} is no number")
            continue
        if not 0 <= age <= OLDEST_YEARS:
            yield DataError(f"{name}, line {line}: age {row['age']} is not 0 to {OLDEST_YEARS}")
            continue
        yield Entry(
            folder + row["file"],
            age,
            FEMALE_MALE.get(row["gender"].strip().lower(), ""),
            row.get("source") or "data",
            row.get("split") or "train",
        )


def _ffhq_aging_rows(text: str, name: str, names: list[str]) -> Iterator[Entry | DataError]:
    """FFHQ-Aging's own table and folders; its last 1,000 images are the test split.

    Ages are given as groups there: the middle of the group's bounds stands for the age. Rows
    without a picture are passed over, so that a part of the images can be used.
    """
    files = {name.rsplit("/", 1)[-1].split(".")[0]: name for name in names if "parsing" not in name}
    reader = _table(text, name, {"image_number", "age_group", "gender"})
    for line, row in enumerate(reader, start=2):
        low, _, high = row["age_group"].partition("-")
        try:
            number = int(row["image_number"])
            age = (int(low) + int(high)) / 2 if high else float(low.rstrip("+"))
        except ValueError:
            yield DataError(f"{name}, line {line}: image_number or age_group is no number")
            continue
        file = files.get(f"{number:05d}")
        if file is not None:
            split = "test" if number >= 69_000 else "train"
            gender = FEMALE_MALE.get(row["gender"].strip().lower(), "")
            yield Entry(file, age, gender, "ffhq", split)
