"""Turns a collection of photographs into a set to train on: aligned, parsed, packed, reported."""

import csv
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.portraits.align import Alignment, Geometry, align, check_size
from model.portraits.classes import REMOVED
from model.portraits.detect import DlibLandmarker, Landmarker, pick_face
from model.portraits.errors import NoFace, PortraitError
from model.portraits.parse import Parser
from model.portraits.photo import read_photo
from model.portraits.portrait import Portrait, cut_portrait
from training.data import SCHEMA_VERSION, DataError
from training.sources import Collection, Entry, read_table

WAITING, USABLE, DROPPED = 0, 1, 2
KEPT_SHARE = (0.08, 0.98)
"""A portrait whose kept classes cover less or more of it is dropped: the map cannot be right."""


@dataclass(frozen=True)
class PrepareConfig:
    """What decides a prepared set; a folder begun with other values is not resumed."""

    resolution: int = 128
    aligned: bool = False
    """The pictures are portraits already: only scaled, not searched for faces."""
    scale: float = 1.0
    """Side of the crop in units of FFHQ's own."""
    minimum_px: int = 64
    """Smallest side of the crop in the photograph, in pixels."""
    limit: int = 0
    """Stop after so many pictures, spread over the table; 0 takes all."""


class _Worker:
    """One process's tools: reads a picture, cuts and parses it."""

    def __init__(self, collection: Collection, config: PrepareConfig, parser: Path) -> None:
        self.collection, self.config = collection, config
        self.parser = Parser.open(parser, threads=1)
        self.landmarker: Landmarker | None = None if config.aligned else DlibLandmarker()

    def portrait(self, entry: Entry) -> Portrait:
        """The portrait of an entry. Raises PortraitError, KeyError or OSError."""
        pixels = read_photo(self.collection.read(entry.file)).pixels
        if self.landmarker is None:
            height, width = pixels.shape[:2]
            alignment = Alignment.of_aligned(width, height, self.config.resolution)
        else:
            faces = self.landmarker.detect(pixels)
            if not faces:
                raise NoFace
            geometry = Geometry(self.config.resolution, self.config.scale)
            alignment = align(pick_face(faces, 0).landmarks, geometry)
        check_size(alignment, self.config.minimum_px)
        return cut_portrait(pixels, alignment, self.parser, REMOVED)

    def prepare(self, entry: Entry) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | str:
        """Portrait (R, R, 3) and kept share (R, R) of an entry, or why it was dropped."""
        try:
            portrait = self.portrait(entry)
        except PortraitError as error:
            return error.code
        except (KeyError, OSError):
            return "unreadable_file"
        if not KEPT_SHARE[0] < float(portrait.kept.mean()) < KEPT_SHARE[1]:
            return "implausible_map"
        return portrait.pixels, np.rint(portrait.kept * 255).astype(np.uint8)


_worker: _Worker | None = None


def _start(collection: Collection, config: PrepareConfig, parser: Path) -> None:
    global _worker
    _worker = _Worker(collection, config, parser)


def _work(
    task: tuple[int, Entry],
) -> tuple[int, tuple[NDArray[np.uint8], NDArray[np.uint8]] | str]:
    assert _worker is not None
    return task[0], _worker.prepare(task[1])


def _array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    mode = "r+" if path.exists() else "w+"
    return np.lib.format.open_memmap(path, mode, np.uint8, None if mode == "r+" else shape)


def _spread(entries: list[Entry], limit: int) -> list[Entry]:
    if not 0 < limit < len(entries):
        return entries
    picked = np.linspace(0, len(entries) - 1, limit).round().astype(int)
    return [entries[i] for i in picked]


def _results(
    tasks: Iterable[tuple[int, Entry]],
    processes: int,
    start: tuple[Collection, PrepareConfig, Path],
) -> Iterator[tuple[int, tuple[NDArray[np.uint8], NDArray[np.uint8]] | str]]:
    if processes == 1:
        _start(*start)
        yield from map(_work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, start) as pool:
        yield from pool.imap_unordered(_work, tasks, chunksize=8)


def prepare(
    source: Path,
    output: Path,
    parser: Path,
    config: PrepareConfig,
    labels: Path | None = None,
    processes: int = 1,
) -> dict[str, object]:
    """Prepares `source` into `output` and returns the report; the same call resumes.

    Raises DataError for an unusable table or an `output` begun with other settings.
    """
    collection = Collection(source)
    entries = _spread(read_table(collection, labels), config.limit)
    output.mkdir(parents=True, exist_ok=True)
    begun = {"config": asdict(config), "pictures": len(entries)}
    marker = output / "begun.json"
    if marker.exists() and json.loads(marker.read_text()) != begun:
        raise DataError(
            f"{output} was begun with other settings or pictures; choose another folder"
        )
    marker.write_text(json.dumps(begun, indent=2) + "\n")

    count, side = len(entries), config.resolution
    portraits = _array(output / "portraits.npy", (count, side, side, 3))
    kept = _array(output / "kept.npy", (count, side, side))
    status = _array(output / "status.npy", (count,))
    reasons_file = output / "dropped.csv"
    waiting = [(i, entry) for i, entry in enumerate(entries) if status[i] == WAITING]
    with (
        reasons_file.open("a", newline="") as file,
        tqdm(total=count, initial=count - len(waiting), unit="portrait", disable=None) as bar,
    ):
        writer = csv.writer(file)
        for i, result in _results(waiting, processes, (collection, config, parser)):
            if isinstance(result, str):
                writer.writerow([entries[i].file, result])
                file.flush()
                status[i] = DROPPED
            else:
                portraits[i], kept[i] = result
                status[i] = USABLE
            bar.update()
    for array in (portraits, kept, status):
        array.flush()
    return _finish(output, config, entries, np.asarray(status), source)


def _finish(
    output: Path,
    config: PrepareConfig,
    entries: list[Entry],
    status: NDArray[np.uint8],
    source: Path,
) -> dict[str, object]:
    usable = [(i, entry) for i, entry in enumerate(entries) if status[i] == USABLE]
    with (output / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "file", "age", "gender", "source", "split"])
        for i, entry in usable:
            writer.writerow(
                [i, entry.file, entry.age_years, entry.gender, entry.source, entry.split]
            )
    with (output / "dropped.csv").open(newline="") as file:
        dropped = dict(row for row in csv.reader(file) if len(row) == 2)
    report: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "source": source.name,
        "config": asdict(config),
        "removed": list(REMOVED),
        "pictures": len(entries),
        "usable": len(usable),
        "dropped": dict(Counter(dropped.values())),
        "no_gender": sum(not entry.gender for _, entry in usable),
    }
    (output / "data.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
