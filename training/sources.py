"""Image collections that `prepare` reads: a folder or a zip, with a table of ages and genders."""

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data import DataError

FFHQ_AGING = "ffhq_aging_labels.csv"
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
        self._zip = zipfile.ZipFile(path) if path.is_file() else None

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
        """A file's bytes. Raises KeyError or FileNotFoundError where there is none."""
        return self._zip.read(name) if self._zip is not None else (self.path / name).read_bytes()


def read_table(collection: Collection, labels: Path | None = None) -> list[Entry]:
    """The table of a collection: `labels`, else its own `labels.csv` or FFHQ-Aging's.

    Columns of ours: file, age (years) and gender; source and split are optional. Raises DataError
    that names the line and the column.
    """
    if labels is not None:
        return _entries(labels.read_text(), str(labels))
    names = list(collection.names())
    tables = [name for name in names if name.rsplit("/", 1)[-1] in ("labels.csv", FFHQ_AGING)]
    if not tables:
        raise DataError(f"{collection.path} holds neither labels.csv nor {FFHQ_AGING}")
    table = min(tables, key=len)
    text = collection.read(table).decode()
    if table.endswith(FFHQ_AGING):
        return _ffhq_aging_entries(text, names)
    folder = table.rpartition("/")[0]
    return _entries(text, table, f"{folder}/" if folder else "")


def _entries(text: str, name: str, folder: str = "") -> list[Entry]:
    reader = csv.DictReader(io.StringIO(text))
    missing = {"file", "age", "gender"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{name}: no column {', '.join(sorted(missing))}")
    entries = []
    for line, row in enumerate(reader, start=2):
        try:
            age = float(row["age"])
        except ValueError:
            raise DataError(f"{name}, line {line}: age {row['age']!r} is no number") from None
        gender = FEMALE_MALE.get(row["gender"].strip().lower(), "")
        entries.append(
            Entry(
                folder + row["file"],
                age,
                gender,
                row.get("source") or "data",
                row.get("split") or "train",
            )
        )
    return entries


def _ffhq_aging_entries(text: str, names: list[str]) -> list[Entry]:
    """FFHQ-Aging's own table and folders; its last 1,000 images are the test split.

    Ages are given as groups there: the middle of the group's bounds stands for the age.
    """
    files = {name.rsplit("/", 1)[-1].split(".")[0]: name for name in names if "parsing" not in name}
    entries = []
    for row in csv.DictReader(io.StringIO(text)):
        number = int(row["image_number"])
        file = files.get(f"{number:05d}")
        if file is None:
            continue
        low, _, high = row["age_group"].partition("-")
        age = (int(low) + int(high)) / 2 if high else float(low.rstrip("+"))
        split = "test" if number >= 69_000 else "train"
        gender = FEMALE_MALE.get(row["gender"].strip().lower(), "")
        entries.append(Entry(file, age, gender, "ffhq", split))
    return entries
