"""Turns a collection of photographs into a set to train on: aligned, parsed, packed, reported."""

import csv
import hashlib
import io
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.portraits.align import Alignment, Geometry, align, check_size, crop
from model.portraits.classes import REMOVED
from model.portraits.detect import PORTRAIT_PX, DlibLandmarker, Landmarker, pick_face
from model.portraits.errors import NoFace, PortraitError
from model.portraits.parse import Parser
from model.portraits.photo import read_photo
from model.portraits.portrait import parsed_portrait
from model.portraits.raster import resized
from training.data import SCHEMA_VERSION, DataError
from training.pool import LostProcess, unordered
from training.signals import stop_requests
from training.sources import Collection, Entry, read_table

WAITING, USABLE = 0, 1
REASONS = (
    "unreadable_file",
    "implausible_map",
    "implausible_face",
    "unsupported_image",
    "broken_image",
    "image_too_large",
    "no_face",
    "face_too_small",
)
"""Why pictures are dropped; a picture's status is 2 and the place of its reason here."""
RETRIED = 2 + REASONS.index("unreadable_file")
"""Such a file may have been missing; the next call looks again."""
REPEATED_ROW = "repeated_row"
"""Reason of a table's row whose picture an earlier row named."""
KEPT_SHARE = (0.08, 0.98)
"""A portrait whose kept classes cover less or more of it is dropped: the map cannot be right."""
GLASSES = 0.004
"""Share of the portrait from which on a part of it that looks like glasses counts as glasses."""
SETTLE_S = 5.0
"""Time between the moments when portraits are forced to disk and noted as done."""


@dataclass(frozen=True, eq=False)
class Cut:
    """What is packed of a picture."""

    pixels: NDArray[np.uint8]
    """uint8 (R, R, 3) RGB"""
    kept: NDArray[np.uint8]
    """uint8 (R, R), 255 = all"""
    glasses: NDArray[np.uint8]
    """uint8 (), 1 where they are worn"""
    hair: NDArray[np.uint8]
    """uint8 (R, R), 255 = all"""
    eyeglasses: NDArray[np.uint8]
    """uint8 (R, R), 255 = all: frames and what is seen through them"""
    landmarks: NDArray[np.float32]
    """float32 (68, 2), right and down in shares of the portrait's side; NaN where none were seen"""


Result = tuple[int, Cut | str]
"""A picture's place with what was cut out of it, or why it was dropped."""


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
    landmarks: bool = True
    """Note where the 68 landmarks of each face are, which portraits are searched for."""


class Cutter:
    """One process's tools: reads a picture, cuts and parses it."""

    def __init__(self, collection: Collection, config: PrepareConfig, parser: Path) -> None:
        self.collection, self.config = collection, config
        self.parser = Parser.open(parser, threads=1)
        wanted = config.landmarks or not config.aligned
        self.landmarker: Landmarker | None = DlibLandmarker() if wanted else None

    def __call__(self, task: tuple[int, str]) -> Result:
        """Takes the place and the file of a picture, gives the place and what became of it."""
        place, file = task
        try:
            cut = self.cut(file)
        except PortraitError as error:
            return place, error.code
        except OSError:
            return place, "unreadable_file"
        except Exception as error:
            error.add_note(f"while preparing {file}")
            raise
        if not KEPT_SHARE[0] < float(cut.kept.mean()) / 255 < KEPT_SHARE[1]:
            return place, "implausible_map"
        return place, cut

    def cut(self, file: str) -> Cut:
        """What is packed of a file. Raises PortraitError or OSError."""
        pixels = read_photo(self.collection.read(file)).pixels
        alignment, landmarks = self._aligned(pixels) if self.config.aligned else self._found(pixels)
        check_size(alignment, self.config.minimum_px)
        portrait, parsing = parsed_portrait(pixels, alignment, self.parser, REMOVED)
        shares = {name: parsing.share([name]) for name in ("hair", "eyeglasses")}
        hair, eyeglasses = (
            np.rint(resized(share, portrait.pixels.shape[0]) * 255).astype(np.uint8)
            for share in shares.values()
        )
        return Cut(
            portrait.pixels,
            portrait.levels,
            np.array(shares["eyeglasses"].mean() > GLASSES, np.uint8),
            hair,
            eyeglasses,
            (alignment.to_portrait(landmarks) / alignment.resolution).astype(np.float32),
        )

    def _found(self, pixels: NDArray[np.uint8]) -> tuple[Alignment, NDArray[np.floating]]:
        """Alignment and landmarks, in the photo, of its largest face."""
        assert self.landmarker is not None
        faces = self.landmarker.detect(pixels)
        if not faces:
            raise NoFace
        landmarks = pick_face(faces, 0).landmarks
        return align(landmarks, Geometry(self.config.resolution, self.config.scale)), landmarks

    def _aligned(self, pixels: NDArray[np.uint8]) -> tuple[Alignment, NDArray[np.floating]]:
        """The same of a picture that is a portrait, whose face need not be found."""
        height, width = pixels.shape[:2]
        alignment = Alignment.of_aligned(width, height, self.config.resolution)
        searched = alignment.at(max(PORTRAIT_PX, alignment.resolution))
        faces = self.landmarker.detect(crop(pixels, searched)) if self.landmarker else []
        if not faces:
            return alignment, np.full((68, 2), np.nan)
        return alignment, searched.to_photo(faces[0].landmarks)


class PackedRows:
    """A `.npy` file of rows that are written in place.

    It is written, not mapped: a full disk is an error then and no crash, and what was written
    does not count as this process's memory.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: type[np.generic] = np.uint8
    ) -> None:
        if not path.exists():
            draft = path.with_name(f"{path.name}.partial")
            np.lib.format.open_memmap(draft, "w+", dtype, shape)
            draft.replace(path)
        mapped = np.load(path, mmap_mode="r")
        if mapped.shape != shape:
            raise DataError(f"{path} is {mapped.shape}, not {shape}; choose another folder")
        self.path = path
        self._start = mapped.offset
        self._row_bytes = math.prod(shape[1:]) * mapped.itemsize
        self._file = path.open("r+b", buffering=0)

    def __setitem__(self, place: int, row: NDArray[np.generic]) -> None:
        self._file.seek(self._start + place * self._row_bytes)
        if self._file.write(row.tobytes()) != self._row_bytes:
            raise OSError(f"{self.path} could not be written: is the disk full?")

    def settle(self) -> None:
        """Forces to disk what was written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Progress:
    """A prepared set under way: its arrays, and which pictures are done.

    A picture is noted as done only after its portrait is on disk, so that whatever stops the
    process, or the machine, costs the last seconds and never leaves a portrait half written.
    """

    def __init__(self, output: Path, count: int, side: int) -> None:
        self.portraits = PackedRows(output / "portraits.npy", (count, side, side, 3))
        self.kept = PackedRows(output / "kept.npy", (count, side, side))
        self.glasses = PackedRows(output / "glasses.npy", (count,))
        self.hair = PackedRows(output / "hair.npy", (count, side, side))
        self.eyeglasses = PackedRows(output / "eyeglasses.npy", (count, side, side))
        self.landmarks = PackedRows(output / "landmarks.npy", (count, 68, 2), np.float32)
        self._packed = PackedRows(output / "status.npy", (count,))
        self.status: NDArray[np.uint8] = np.load(output / "status.npy")
        self._cut = (
            *(self.portraits, self.kept, self.glasses, self.hair, self.eyeglasses),
            self.landmarks,
        )
        self._unsettled: list[int] = []
        self._settled_s = time.monotonic()

    def put(self, result: Result) -> None:
        """Takes in what became of a picture."""
        place, outcome = result
        if isinstance(outcome, str):
            self.status[place] = 2 + REASONS.index(outcome)
        else:
            self.portraits[place], self.kept[place] = outcome.pixels, outcome.kept
            self.glasses[place], self.landmarks[place] = outcome.glasses, outcome.landmarks
            self.hair[place], self.eyeglasses[place] = outcome.hair, outcome.eyeglasses
            self.status[place] = USABLE
        self._unsettled.append(place)
        if time.monotonic() - self._settled_s > SETTLE_S:
            self.settle()

    def settle(self) -> None:
        """Forces portraits to disk, then notes them as done."""
        for rows in self._cut:
            rows.settle()
        for place in self._unsettled:
            self._packed[place] = self.status[place]
        self._packed.settle()
        self._unsettled.clear()
        self._settled_s = time.monotonic()

    def close(self) -> None:
        for rows in (*self._cut, self._packed):
            rows.close()


def spread(entries: list[Entry], limit: int) -> list[Entry]:
    """`limit` of the entries at even distances, or all where it is 0 or more than there are."""
    if not 0 < limit < len(entries):
        return entries
    picked = np.linspace(0, len(entries) - 1, limit).round().astype(int)
    return [entries[i] for i in picked]


def prepare(
    source: Path,
    output: Path,
    parser: Path,
    config: PrepareConfig,
    labels: Path | None = None,
    processes: int = 1,
) -> dict[str, object] | None:
    """Prepares `source` into `output` and returns the report, or None when asked to stop.

    The same call resumes, looks again for files that could not be read, and takes over what the
    table says by then of ages, genders, sources and splits; rows may have left it.

    Raises DataError for an unusable table, or an `output` begun with other settings or pictures;
    LostProcess when a worker process was killed.
    """
    collection = Collection(source)
    entries = spread(read_table(collection, labels), config.limit)
    output.mkdir(parents=True, exist_ok=True)
    notes = {"glasses": GLASSES, "hair": True, "eyeglasses": True}
    begun = {"config": asdict(config), "parser": _sha256(parser), **notes}
    places = _begin(output, begun, entries)
    progress = Progress(output, len(places), config.resolution)
    wanted = dict.fromkeys(entry.file for entry in entries)
    waiting = [
        (places[file], file)
        for file in wanted
        if progress.status[places[file]] in (WAITING, RETRIED)
    ]
    results = unordered(partial(Cutter, collection, config, parser), waiting, processes)
    done = len(wanted) - len(waiting)
    with (
        stop_requests() as stop,
        closing(progress),
        closing(results),
        tqdm(total=len(wanted), initial=done, unit="picture", disable=None) as bar,
    ):
        try:
            for result in results:
                progress.put(result)
                bar.update()
                if stop:
                    return None
        except LostProcess:
            if stop:  # whoever asked this process to stop asked its workers too
                return None
            raise
        finally:
            progress.settle()
    return _finish(output, config, entries, places, progress.status, source)


def _begin(output: Path, begun: dict[str, object], entries: list[Entry]) -> dict[str, int]:
    """Each file's place in the arrays; it is kept when rows have left the table since."""
    marker = output / "begun.json"
    if not marker.exists():
        files = list(dict.fromkeys(entry.file for entry in entries))
        write_whole(marker, json.dumps({**begun, "files": files}, indent=1) + "\n")
    found = json.loads(marker.read_text())
    places = {file: place for place, file in enumerate(found.pop("files", ()))}
    if found != begun or not all(entry.file in places for entry in entries):
        raise DataError(
            f"{output} was begun with other settings or pictures; choose another folder"
        )
    return places


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it is there whole or not at all."""
    partial_file = path.with_name(f"{path.name}.partial")
    with partial_file.open("w", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial_file.replace(path)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()


def _finish(
    output: Path,
    config: PrepareConfig,
    entries: list[Entry],
    places: dict[str, int],
    status: NDArray[np.uint8],
    source: Path,
) -> dict[str, object]:
    """Writes the table, what was dropped, and last the report, which says that the set is whole."""
    seen: set[str] = set()
    usable, dropped = [], []
    for entry in entries:
        place = places[entry.file]
        if entry.file in seen:
            dropped.append((entry.file, REPEATED_ROW))
        elif status[place] == USABLE:
            usable.append((place, entry))
        else:
            dropped.append((entry.file, REASONS[status[place] - 2]))
        seen.add(entry.file)
    glasses = np.load(output / "glasses.npy")
    landmarks = np.load(output / "landmarks.npy", mmap_mode="r")
    table = [(i, e.file, e.age_years, e.gender, e.source, e.split, glasses[i]) for i, e in usable]
    header = ("index", "file", "age", "gender", "source", "split", "glasses")
    write_whole(output / "table.csv", _csv([header, *table]))
    write_whole(output / "dropped.csv", _csv([("file", "reason"), *dropped]))
    report: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "source": source.name,
        "config": asdict(config),
        "removed": list(REMOVED),
        "pictures": len(entries),
        "usable": len(usable),
        "dropped": dict(sorted(Counter(reason for _, reason in dropped).items())),
        "no_gender": sum(not entry.gender for _, entry in usable),
        "glasses": sum(int(glasses[place]) for place, _ in usable),
        "no_landmarks": int(np.isnan(landmarks[[place for place, _ in usable], 0, 0]).sum()),
    }
    write_whole(output / "data.json", json.dumps(report, indent=2) + "\n")
    return report
