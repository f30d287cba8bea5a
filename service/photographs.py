"""Photographs on disk: which of them a call names, and where what is made of each goes."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
"""Names that count as photographs in a folder; of a file that is named, only the content counts."""


class PhotographsError(ValueError):
    """Paths that name no photographs, or none that can be told from what is made of them."""


@dataclass(frozen=True)
class Photograph:
    """A file, and `stem`: the beginning of its outputs' paths, below the folder they go to."""

    path: Path
    stem: Path

    def output(self, folder: Path, ending: str) -> Path:
        """Where one output goes; `ending` is what follows the stem."""
        return folder / self.stem.with_name(self.stem.name + ending)


def find_photographs(
    paths: Sequence[Path], output: Path, *, recursive: bool = False
) -> list[Photograph]:
    """The files that are named, and those in the folders that are, in order, each once.

    Outputs of a folder's photographs lie as they do; of two with one name, such as `a.jpg` and
    `a.png`, they keep the suffix. `output`, where outputs go, is not looked into, nor is what is
    hidden. Raises PhotographsError for a path that is not there, a folder without photographs or
    that cannot be read, one that is also the output's, and for two files of one name.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for path in paths:
        for each, below in _named(path, output, recursive):
            found.setdefault(each.resolve(), (each, below))
    names = Counter(_key(below.with_suffix("")) for _, below in found.values())
    photographs: dict[str, Photograph] = {}
    for each, below in found.values():
        short = below.with_suffix("")
        photograph = Photograph(each, short if names[_key(short)] == 1 else below)
        other = photographs.setdefault(_key(photograph.stem), photograph)
        if other is not photograph:
            raise PhotographsError(
                f"{other.path} and {each}: their outputs would have the same names; make them by "
                "two calls, or name the folder above both with --recursive"
            )
    return list(photographs.values())


def _named(path: Path, output: Path, recursive: bool) -> list[tuple[Path, Path]]:
    """A path's photographs, each with its place below the output."""
    if not path.is_dir():
        if not path.exists():
            raise PhotographsError(f"{path}: there is no such file or folder")
        return [(path, Path(path.name))]
    if path.resolve() == output.resolve():
        raise PhotographsError(
            f"{path}: what is made would lie among the photographs: name another folder with -o"
        )
    found = [(each, each.relative_to(path)) for each in _in_folder(path, output, recursive)]
    if not found:
        hint = "" if recursive else "; --recursive also looks into the folders in it"
        raise PhotographsError(
            f"{path}: there is no photograph in this folder ({', '.join(SUFFIXES)}){hint}"
        )
    return found


def _in_folder(folder: Path, output: Path, recursive: bool) -> Iterator[Path]:
    for place, folders, files in os.walk(folder, onerror=_refuse):
        inside = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if recursive
            and not name.startswith(".")
            and (inside / name).resolve() != output.resolve()
        )
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield inside / name


def _refuse(error: OSError) -> None:
    raise PhotographsError(f"{error.filename}: {error.strerror}")


def _key(path: Path) -> str:
    """The same for paths that a file system may hold to be one."""
    return str(path).casefold()
