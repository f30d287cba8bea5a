"""What is wrong with a data set, found before hours are spent on it, and what to do about it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model.ages import cluster_of_age
from model.portraits.align import Alignment, Geometry, align, check_size
from model.portraits.detect import DlibLandmarker, Landmarker, pick_face
from model.portraits.errors import NoFace, PortraitError
from model.portraits.photo import read_photo
from training.config import FitConfig
from training.data import DataError, PreparedSet, Row, open_prepared
from training.pool import unordered
from training.prepare import spread
from training.sources import Collection, Entry, read_rows
from training.suspects import FEWEST, judge_labels, looks_of, same_photographs

SMALL_CELL = 100
"""Fewer training pictures of a cluster, group and source are told as few."""
CONFOUNDED = 0.25
"""Difference of a source's shares in two clusters from which it is told."""
GLASSES = 0.1
"""Difference of the shares that wear glasses in two clusters from which it is told."""
MANY_DROPPED = 0.1
SHOWN = 5
"""Items of a finding that the text shows."""


class Severity(StrEnum):
    """How bad a finding is: training fails or misleads; part of the data is lost or doubtful;
    good to know.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One kind of trouble, its places, and the remedy; `code` is stable."""

    severity: Severity
    code: str
    message: str
    remedy: str
    items: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.severity}: {self.message}", *(f"    {i}" for i in self.items[:SHOWN])]
        if len(self.items) > SHOWN:
            lines.append(f"    and {len(self.items) - SHOWN} more")
        return "\n".join([*lines, f"  {self.remedy}"])


@dataclass(frozen=True)
class Cell:
    """How many pictures of a cluster, a group and a source a split has."""

    cluster: str
    group: str
    source: str
    split: str
    pictures: int


@dataclass(frozen=True)
class Validation:
    """What was found in a data set."""

    path: Path
    pictures: int
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether there is no error; warnings are for the reader to weigh."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "passed": self.passed,
            "pictures": self.pictures,
            "cells": [asdict(cell) for cell in self.cells],
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        order = list(Severity)
        found = sorted(self.findings, key=lambda finding: order.index(finding.severity))
        counts = Counter(finding.severity for finding in found)
        summary = ", ".join(f"{counts[s]} {s}{'s' * (counts[s] != 1)}" for s in order)
        parts = [f"{self.path}: {self.pictures} pictures", _table(self.cells), *map(str, found)]
        return "\n\n".join([*filter(None, parts), summary])


def _table(cells: Sequence[Cell]) -> str:
    """Counts of every cell, a line for cluster, group and source, a column for each split."""
    splits = sorted({cell.split for cell in cells}, reverse=True)
    counts: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for cell in cells:
        counts[cell.cluster, cell.group, cell.source][cell.split] = cell.pictures
    rows = [("cluster", "group", "source", *splits)]
    rows += [
        (*names, *(str(of_split.get(split, 0)) for split in splits))
        for names, of_split in counts.items()
    ]
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    return "\n".join(
        "".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
        if cells
    )


def _group_of(row: Entry | Row, config: FitConfig) -> str | None:
    """The configured group that a row trains, or None."""
    if len(config.groups) == 1:
        return config.groups[0]
    return row.gender if row.gender in config.groups else None


def _cells(rows: Sequence[Entry | Row], config: FitConfig) -> tuple[Cell, ...]:
    counts: Counter[tuple[int, int, str, str]] = Counter()
    for row in rows:
        cluster, group = cluster_of_age(row.age_years, config.age_clusters), _group_of(row, config)
        if cluster is not None and group is not None:
            split = "test" if row.split == "test" else "train"
            counts[cluster, config.groups.index(group), row.source, split] += 1
    return tuple(
        Cell(config.age_clusters[cluster].name, config.groups[group], source, split, count)
        for (cluster, group, source, split), count in sorted(counts.items())
    )


def _row_findings(rows: Sequence[Entry | Row], config: FitConfig) -> Iterable[Finding]:
    """What ages, groups, sources and splits tell of a set."""
    between = [row for row in rows if cluster_of_age(row.age_years, config.age_clusters) is None]
    if between:
        names = ", ".join(cluster.name for cluster in config.age_clusters)
        yield Finding(
            Severity.NOTE,
            "between_clusters",
            f"{len(between)} pictures are of ages in no cluster ({names}): not trained on",
            "Nothing need be done; other clusters are a setting: --set 'clusters=[[0,5],...]'.",
        )
    ungrouped = [row.file for row in rows if _group_of(row, config) is None]
    if ungrouped:
        yield Finding(
            Severity.WARNING,
            "no_group",
            f"{len(ungrouped)} pictures have no gender of {', '.join(config.groups)}: "
            "not trained on",
            "Fill in the column gender (female, f, male, m), or train all together as one group: "
            "--set 'groups=[\"all\"]'.",
            tuple(ungrouped),
        )
    genders = {row.gender for row in rows if row.gender}
    if len(config.groups) == 1 and config.groups[0] in genders and len(genders) > 1:
        yield Finding(
            Severity.WARNING,
            "mixed_group",
            f"the one group is named {config.groups[0]}, and pictures of all genders train it",
            "Name the group otherwise, or leave the other rows out of the table.",
        )
    yield from _cell_findings(_cells(rows, config), config)


def _cell_findings(cells: Sequence[Cell], config: FitConfig) -> Iterable[Finding]:
    names = [cluster.name for cluster in config.age_clusters]
    for split in ("train", "test"):
        counts = {(name, group): 0 for name in names for group in config.groups}
        for cell in cells:
            if cell.split == split:
                counts[cell.cluster, cell.group] += cell.pictures
        empty = tuple(f"{group} {name}" for (name, group), count in counts.items() if not count)
        if split == "test" and empty:
            yield Finding(
                Severity.NOTE,
                "no_test_pictures",
                f"{len(empty)} of {len(counts)} cells have no picture to test on",
                "Write test into the column split of some rows; evaluate can do with the "
                "pictures that fit sets aside.",
                empty,
            )
        if split == "train" and empty:
            yield Finding(
                Severity.ERROR,
                "empty_cells",
                f"{len(empty)} of {len(counts)} cells have no picture to train on; fit refuses",
                "Add pictures, or choose clusters and groups that the data fills: "
                "--set 'clusters=[[0,5],...]'.",
                empty,
            )
    if small := tuple(_small(cells, config)):
        yield Finding(
            Severity.WARNING,
            "small_cells",
            f"{len(small)} cells of cluster, group and source train on fewer than {SMALL_CELL} "
            "pictures",
            "Draws are even over clusters and groups, so these come up often and are learned by "
            "heart: add pictures, choose wider clusters, or raise source_temper towards 1.",
            small,
        )
    confounded = tuple(_confounded(cells, names))
    if confounded:
        yield Finding(
            Severity.NOTE,
            "source_tells_age",
            "some sources are common at one age and rare at another",
            "Draws are tempered by source (source_temper: 0 draws them evenly); what sets the "
            "sources apart may still be learned as age.",
            confounded,
        )


def _small(cells: Sequence[Cell], config: FitConfig) -> Iterable[str]:
    """Small cells, with how often a picture of theirs is drawn."""
    training = [cell for cell in cells if cell.split == "train"]
    total = sum(cell.pictures for cell in training)
    tempered: dict[tuple[str, str], float] = defaultdict(float)
    for cell in training:
        tempered[cell.cluster, cell.group] += cell.pictures**config.source_temper
    for cell in training:
        if cell.pictures < SMALL_CELL:
            share = cell.pictures**config.source_temper / tempered[cell.cluster, cell.group]
            often = total * share / (cell.pictures * len(config.clusters) * len(config.groups))
            yield (
                f"{cell.group} {cell.cluster} {cell.source}: {cell.pictures}, each drawn "
                f"{often:.1f} times as often as the mean picture"
            )


def _confounded(cells: Sequence[Cell], names: Sequence[str]) -> Iterable[str]:
    totals, of_source = Counter[str](), Counter[tuple[str, str]]()
    for cell in cells:
        if cell.split == "train":
            totals[cell.cluster] += cell.pictures
            of_source[cell.source, cell.cluster] += cell.pictures
    for source in sorted({source for source, _ in of_source}):
        shares = {name: of_source[source, name] / totals[name] for name in names if totals[name]}
        most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
        if shares[most] - shares[least] > CONFOUNDED:
            yield (f"{source}: {shares[most]:.0%} of {most}, {shares[least]:.0%} of {least} years")


def _repeated_findings(groups: Sequence[Sequence[Entry | Row]]) -> Iterable[Finding]:
    """What to make of pictures that occur several times."""

    def told(group: Sequence[Entry | Row]) -> str:
        return " = ".join(f"{row.file} ({row.age_years:g}, {row.split})" for row in group)

    leaks = tuple(told(g) for g in groups if len({row.split == "test" for row in g}) > 1)
    if leaks:
        yield Finding(
            Severity.ERROR,
            "leaks",
            f"{len(leaks)} pictures are both in the training and in the test split, so that "
            "figures of the test split flatter",
            "Take one of each out of the table.",
            leaks,
        )
    contradicting = tuple(
        told(g) for g in groups if len({(row.age_years, row.gender) for row in g}) > 1
    )
    if contradicting:
        yield Finding(
            Severity.WARNING,
            "contradicting_labels",
            f"{len(contradicting)} pictures occur several times with different labels",
            "Keep the right row of each, or none.",
            contradicting,
        )
    repeated = sum(len(group) - 1 for group in groups)
    if repeated:
        yield Finding(
            Severity.NOTE,
            "repeated_pictures",
            f"{repeated} pictures repeat another",
            "One of each is enough: the others are drawn as if they were further people.",
            tuple(told(group) for group in groups),
        )


class Inspector:
    """One process's tools: looks whether `prepare` can use a picture, without parsing it."""

    def __init__(self, collection: Collection, minimum_px: int, aligned: bool) -> None:
        self.collection, self.minimum_px = collection, minimum_px
        self.landmarker: Landmarker | None = None if aligned else DlibLandmarker()

    def __call__(self, file: str) -> tuple[str, str]:
        """The file, and what is wrong with it or an empty text."""
        try:
            return file, self._trouble(file)
        except PortraitError as error:
            return file, error.code
        except OSError:
            return file, "unreadable_file"

    def _trouble(self, file: str) -> str:
        pixels = read_photo(self.collection.read(file)).pixels
        height, width = pixels.shape[:2]
        if self.landmarker is None:
            check_size(Alignment.of_aligned(width, height, 1), self.minimum_px)
            return "" if width == height else "not_square"
        faces = self.landmarker.detect(pixels)
        if not faces:
            raise NoFace
        alignment = align(pick_face(faces, 0).landmarks, Geometry(1))
        check_size(alignment, self.minimum_px)
        return "several_faces" if len(faces) > 1 else ""


TROUBLES = {
    "unreadable_file": ("cannot be read", "Copy them again; prepare drops them."),
    "unsupported_image": (
        "are no JPEG, PNG, WebP or GIF",
        "Convert them; prepare drops them.",
    ),
    "broken_image": ("are damaged or cut short", "Copy them again; prepare drops them."),
    "image_too_large": ("have too many pixels", "Make them smaller; prepare drops them."),
    "no_face": (
        "show no face that is found",
        "Portraits that are cut already need --aligned; else prepare drops these.",
    ),
    "implausible_face": ("show landmarks that no face can have", "prepare drops them."),
    "face_too_small": (
        "show a face smaller than --minimum-px",
        "Find larger pictures, or lower --minimum-px; prepare drops them.",
    ),
    "several_faces": (
        "show several faces",
        "prepare takes the largest: make sure that the label is of that face, or crop them.",
    ),
    "not_square": (
        "are not square, though --aligned says that they are portraits already",
        "prepare takes the middle of each; leave --aligned out if they are photographs.",
    ),
}


def validate_collection(
    source: Path,
    config: FitConfig,
    *,
    labels: Path | None = None,
    aligned: bool = False,
    minimum_px: int = 64,
    limit: int = 0,
    processes: int = 1,
) -> Validation:
    """Looks through a folder or a zip before `prepare`: its table, and its pictures.

    `limit` pictures, spread over the table, are opened and searched for faces; 0 takes all. Raises
    DataError where there is no table to read.
    """
    collection = Collection(source)
    found = read_rows(collection, labels)
    names = set(collection.names())
    entries = [row for row in found if isinstance(row, Entry)]
    present = list({entry.file: entry for entry in entries if entry.file in names}.values())
    findings = [*_table_findings(found, names)]
    picked = [entry.file for entry in spread(present, limit)]
    findings += _picture_findings(
        dict(_inspected(Inspector, collection, picked, minimum_px, aligned, processes))
    )
    by_file = {entry.file: entry for entry in present}
    repeated = collection.repeated(by_file)
    findings += _repeated_findings([[by_file[file] for file in group] for group in repeated])
    findings += _row_findings(present, config)
    return Validation(source, len(found), _cells(present, config), tuple(findings))


def _inspected(
    inspector: type[Inspector],
    collection: Collection,
    files: Sequence[str],
    minimum_px: int,
    aligned: bool,
    processes: int,
) -> Iterable[tuple[str, str]]:
    results = unordered(partial(inspector, collection, minimum_px, aligned), files, processes)
    with closing(results):
        yield from tqdm(results, total=len(files), unit="picture", disable=None)


def _table_findings(found: Sequence[Entry | DataError], names: set[str]) -> Iterable[Finding]:
    wrong = tuple(str(row) for row in found if isinstance(row, DataError))
    if wrong:
        yield Finding(
            Severity.ERROR,
            "wrong_rows",
            f"{len(wrong)} of {len(found)} rows of the table cannot be understood",
            "Correct or delete them: prepare stops at the first.",
            wrong,
        )
    rows: dict[str, list[Entry]] = defaultdict(list)
    for row in found:
        if isinstance(row, Entry):
            rows[row.file].append(row)
    missing = tuple(file for file in rows if file not in names)
    if missing:
        yield Finding(
            Severity.WARNING,
            "missing_files",
            f"{len(missing)} of {len(rows)} files of the table are not there",
            "Add them, or mend their paths, which count from the table's folder; prepare drops "
            "their rows.",
            missing,
        )
    repeated = {file: same for file, same in rows.items() if len(same) > 1}
    contradicting = tuple(file for file, same in repeated.items() if len(set(same)) > 1)
    if contradicting:
        yield Finding(
            Severity.ERROR,
            "contradicting_rows",
            f"{len(contradicting)} files have several rows that contradict one another",
            "Keep the right row of each: prepare takes the first.",
            contradicting,
        )
    if len(repeated) > len(contradicting):
        yield Finding(
            Severity.WARNING,
            "repeated_rows",
            f"{len(repeated) - len(contradicting)} files have several equal rows",
            "Nothing need be done: prepare takes the first.",
            tuple(file for file in repeated if file not in contradicting),
        )
    suffixes = (".jpg", ".jpeg", ".png", ".webp", ".gif")
    unlisted = tuple(
        sorted(name for name in names - rows.keys() if name.lower().endswith(suffixes))
    )
    if unlisted:
        yield Finding(
            Severity.NOTE,
            "unlisted_files",
            f"{len(unlisted)} pictures are not in the table",
            "Give them rows, or leave them: they are passed over.",
            unlisted,
        )


def _picture_findings(troubles: dict[str, str]) -> Iterable[Finding]:
    files: dict[str, list[str]] = defaultdict(list)
    for file, trouble in sorted(troubles.items()):
        files[trouble].append(file)
    for trouble, (message, remedy) in TROUBLES.items():
        if trouble in files:
            most = 2 * len(files[trouble]) > len(troubles)
            yield Finding(
                Severity.ERROR if most else Severity.WARNING,
                trouble,
                f"{len(files[trouble])} of {len(troubles)} pictures looked at {message}",
                remedy,
                tuple(files[trouble]),
            )


def validate_prepared(path: Path, config: FitConfig) -> Validation:
    """Looks through what `prepare` wrote: counts, drops, pictures that repeat, suspect labels.

    Raises DataError where there is no finished set.
    """
    data = open_prepared(path)
    findings = [*_drop_findings(data.information)]
    if data.resolution % config.resolution:
        findings.append(
            Finding(
                Severity.ERROR,
                "resolution",
                f"prepared at {data.resolution} px, which is no multiple of the "
                f"{config.resolution} px to train at",
                f"Prepare again with --resolution {config.resolution}.",
            )
        )
    beyond = tuple(row.file for row in data.rows if row.index >= len(data.portraits))
    if beyond:
        findings.append(
            Finding(
                Severity.ERROR,
                "rows_without_portrait",
                f"{len(beyond)} rows of table.csv have no portrait in portraits.npy",
                "The set was changed or copied in part: prepare again.",
                beyond,
            )
        )
    data = replace(data, rows=tuple(row for row in data.rows if row.index < len(data.portraits)))
    findings += _row_findings(data.rows, config)
    findings += _glasses_findings(data.rows, config)
    findings += _landmark_findings(data, config)
    if data.rows:
        looks = looks_of(data)
        blank = tuple(data.rows[int(i)].file for i in np.flatnonzero(looks.blank))
        if blank:
            findings.append(
                Finding(
                    Severity.ERROR,
                    "blank_portraits",
                    f"{len(blank)} portraits are black all over",
                    "The set was damaged: prepare into another folder.",
                    blank,
                )
            )
        groups = same_photographs(looks.thumbnails)
        findings += _repeated_findings([[data.rows[i] for i in group] for group in groups])
        findings.append(_label_finding(looks.features, data.rows))
    return Validation(path, len(data.rows), _cells(data.rows, config), tuple(findings))


def _drop_findings(information: dict[str, Any]) -> Iterable[Finding]:
    dropped: dict[str, int] = information.get("dropped", {})
    if dropped:
        count, pictures = sum(dropped.values()), information["pictures"]
        yield Finding(
            Severity.WARNING if count > MANY_DROPPED * pictures else Severity.NOTE,
            "dropped",
            f"prepare dropped {count} of {pictures} pictures",
            "dropped.csv names them; `validate` on the photographs says more.",
            tuple(f"{reason}: {number}" for reason, number in dropped.items()),
        )


def _glasses_findings(rows: Sequence[Row], config: FitConfig) -> Iterable[Finding]:
    if any(row.glasses is None for row in rows):
        if config.glasses_share < 1:
            yield Finding(
                Severity.ERROR,
                "glasses_unknown",
                "the set does not say who wears glasses, which glasses_share asks for",
                "It was prepared by an earlier version: prepare it anew, or train with "
                "--set glasses_share=1.",
            )
        return
    worn: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        cluster = cluster_of_age(row.age_years, config.age_clusters)
        if cluster is not None and row.split != "test":
            worn[config.age_clusters[cluster].name].append(bool(row.glasses))
    shares = {name: sum(each) / len(each) for name, each in worn.items()}
    least = min(shares.values(), default=0.0)
    if max(shares.values(), default=0.0) - least > GLASSES:
        capped = config.glasses_share < least + GLASSES
        yield Finding(
            Severity.NOTE if capped else Severity.WARNING,
            "glasses",
            "glasses go with age here, and will be taken for it",
            f"glasses_share is {config.glasses_share:g}: no cluster's draws have more."
            if capped
            else "Train with --set glasses_share=0.04, or add portraits without glasses.",
            tuple(f"{name}: {share:.0%} wear glasses" for name, share in shares.items()),
        )


def _landmark_findings(data: PreparedSet, config: FitConfig) -> Iterable[Finding]:
    if not (getattr(config, "flow_images", 0) or getattr(config, "flow_interval", 0)):
        return
    index = [row.index for row in data.rows]
    seen = data.landmarks is not None and bool(np.isfinite(data.landmarks[index]).any())
    if not seen:
        yield Finding(
            Severity.ERROR,
            "no_landmarks",
            "the set holds no landmarks, which lessons of the flow (flow_images) need",
            "Prepare it anew with --landmarks, or train with --set flow_images=0 and "
            "--set flow_interval=0.",
        )


def _label_finding(features: np.ndarray, rows: Sequence[Row]) -> Finding:
    ages_years = np.array([row.age_years for row in rows])
    if len(rows) < FEWEST or np.ptp(ages_years) == 0:
        return Finding(
            Severity.NOTE,
            "labels_not_judged",
            f"age labels were not judged: that takes {FEWEST} portraits of different ages",
            "Look at the portraits yourself.",
        )
    judgement = judge_labels(features, ages_years)
    quality = (
        f"a rough estimate: correlation with the labels {judgement.correlation:.2f}, half of the "
        f"portraits off by more than {judgement.error_years:.0f} years"
    )
    if not judgement.believed:
        return Finding(
            Severity.WARNING,
            "labels_not_seen",
            f"the portraits' looks say too little of their age labels ({quality})",
            "Unless the set is small or of very mixed pictures, many labels may be wrong: look at "
            "some portraits of each cluster.",
        )
    items = tuple(
        f"{rows[i].file}: labelled {rows[i].age_years:g}, looks {judgement.looks_years[i]:.0f}"
        for i in judgement.suspects
    )
    return Finding(
        Severity.WARNING if items else Severity.NOTE,
        "suspect_labels",
        f"{len(items)} portraits look far from their age label ({quality})",
        "Look at them, the most suspect first; in a good set most are only unusual views. Correct "
        "or delete their rows in the table and prepare again, which takes no work on pictures.",
        items,
    )
