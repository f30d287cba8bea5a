"""A prepared data set, resident on the device, and balanced draws from it."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.ages import cluster_of_age
from training.config import FitConfig

SCHEMA_VERSION = 1

Share = Literal["hair", "eyeglasses"]
SHARES: tuple[Share, ...] = get_args(Share)
"""What a set may say how much there is of, of each pixel."""


class DataError(ValueError):
    """A data set that cannot be trained on; the message says what is missing."""


@dataclass(frozen=True)
class Row:
    """One usable portrait of a prepared set."""

    index: int
    file: str
    age_years: float
    gender: str
    source: str
    split: str
    glasses: bool | None = None
    """Whether the parser saw glasses; None where `prepare` did not look yet"""


@dataclass(frozen=True)
class PreparedSet:
    """What `prepare` wrote: arrays mapped from disk and a table of the usable rows."""

    path: Path
    portraits: NDArray[np.uint8]
    """(N, R, R, 3) RGB, unmasked"""
    kept: NDArray[np.uint8]
    """(N, R, R) share of the kept classes, 255 = all"""
    rows: tuple[Row, ...]
    information: dict[str, object]
    landmarks: NDArray[np.float32] | None = None
    """(N, 68, 2), right and down in shares of the side, NaN where no face was seen; None where
    `prepare` did not look"""
    hair: NDArray[np.uint8] | None = None
    """(N, R, R) share of hair, 255 = all; None where `prepare` did not look"""
    eyeglasses: NDArray[np.uint8] | None = None
    """(N, R, R) share of eyeglasses and what is seen through them, likewise"""

    @property
    def resolution(self) -> int:
        return self.portraits.shape[1]


def open_prepared(path: Path) -> PreparedSet:
    """Opens a folder written by `prepare`. Raises DataError when it is none or unfinished."""
    try:
        information = json.loads((path / "data.json").read_text())
    except FileNotFoundError:
        raise DataError(f"{path} holds no finished set (data.json); run prepare first") from None
    if information.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{path / 'data.json'}: schema_version is not {SCHEMA_VERSION}")
    with (path / "table.csv").open(newline="") as file:
        rows = tuple(
            Row(
                int(row["index"]),
                row["file"],
                float(row["age"]),
                row["gender"],
                row["source"],
                row["split"],
                row["glasses"] == "1" if "glasses" in row else None,
            )
            for row in csv.DictReader(file)
        )
    portraits = np.load(path / "portraits.npy", mmap_mode="r")
    kept = np.load(path / "kept.npy", mmap_mode="r")
    landmarks, hair, eyeglasses = (
        np.load(found, mmap_mode="r") if (found := path / name).exists() else None
        for name in ("landmarks.npy", "hair.npy", "eyeglasses.npy")
    )
    return PreparedSet(path, portraits, kept, rows, information, landmarks, hair, eyeglasses)


def masked(portraits: Tensor, kept: Tensor, background: int = 128) -> Tensor:
    """Portraits (N, H, W, 3) over grey by `kept` (N, H, W), both uint8 -> uint8 (N, 3, H, W)."""
    share = kept.unsqueeze(-1).float() / 255.0
    blended = portraits.float() * share + background * (1.0 - share)
    return blended.round().to(torch.uint8).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Batch:
    """What a step sees. `group` counts the configured groups; their number itself is neutral."""

    real: Tensor
    """(N, 3, R, R) float in [-1, 1]"""
    source: Tensor
    """(N,) cluster of each image"""
    target: Tensor
    """(N,) wanted cluster, another unless a method draws its own"""
    group: Tensor
    """(N,) group whose codes and heads count"""
    landmarks: Tensor | None = None
    """(N, 68, 2), right and down in shares of the side, NaN where no face was seen"""
    shown: Tensor | None = None
    """(N,) group that each image is of, even where `group` is neutral"""
    hair: Tensor | None = None
    """(N, 1, R, R) share of hair, 0 to 1"""
    eyeglasses: Tensor | None = None
    """(N, 1, R, R) share of eyeglasses, likewise"""

    def part(self, index: int, parts: int) -> "Batch":
        """Every sample that counts `index` modulo `parts`.

        Samples that D compares with each other (the minibatch deviation's groups of 4) stay in
        one part, where parts are multiples of 4.
        """
        rows = slice(index, None, parts)
        return Batch(
            self.real[rows],
            self.source[rows],
            self.target[rows],
            self.group[rows],
            *(
                None if noted is None else noted[rows]
                for noted in (self.landmarks, self.shown, self.hair, self.eyeglasses)
            ),
        )


class PortraitSet:
    """Masked portraits of one split on a device, at the run's resolution, drawn in balance.

    Uniform over clusters, then over groups, then over sources tempered by their size: source is
    confounded with age in the usual data, and a cell may hold a few dozen images. So are glasses,
    of which no cell's draws have more than `glasses_share`.
    """

    def __init__(
        self,
        data: PreparedSet,
        config: FitConfig,
        rows: tuple[Row, ...],
        device: torch.device,
        balanced: bool = True,
    ) -> None:
        if data.resolution % config.resolution:
            raise DataError(
                f"prepared at {data.resolution} px, which is no multiple of {config.resolution}"
            )
        self.config, self.device = config, device
        clusters = config.age_clusters
        usable = [
            (row, cluster, config.groups.index(row.gender) if len(config.groups) > 1 else 0)
            for row in rows
            if (cluster := cluster_of_age(row.age_years, clusters)) is not None
            and (len(config.groups) == 1 or row.gender in config.groups)
        ]
        if not usable:
            raise DataError("no portrait is in a configured cluster and group")
        self.rows = tuple(row for row, _, _ in usable)
        self.clusters = torch.tensor([cluster for _, cluster, _ in usable])
        self.groups = torch.tensor([group for _, _, group in usable])
        self._set = data
        self.images = self._load(np.arange(len(self.rows)), config.resolution)
        self.landmarks: Tensor | None = None
        """(N, 68, 2) on the device, where the set has them"""
        if data.landmarks is not None:
            index = np.array([row.index for row in self.rows])
            self.landmarks = torch.from_numpy(data.landmarks[index]).to(device)
        self.shares: dict[Share, Tensor] = {}
        """(N, 1, R, R) uint8, 255 = all, on the device, after `load_shares`"""
        if balanced:
            self._check_cells()
            self._check_glasses()

    @cached_property
    def _cells(self) -> list[list[tuple[Tensor, Tensor]]]:
        return self._draw_tables()

    def _empty_cells(self) -> list[str]:
        config = self.config
        held = {(int(c), int(g)) for c, g in zip(self.clusters, self.groups, strict=True)}
        return [
            f"{name} {cluster.name}"
            for c, cluster in enumerate(config.age_clusters)
            for g, name in enumerate(config.groups)
            if (c, g) not in held
        ]

    @cached_property
    def complete(self) -> bool:
        """Whether every cluster and group holds a portrait, so that `draw` can be balanced."""
        return not self._empty_cells()

    def _check_cells(self) -> None:
        empty = self._empty_cells()
        if empty:
            raise DataError(f"no training portrait of {', '.join(empty)}")

    def _check_glasses(self) -> None:
        if self.config.glasses_share < 1 and any(row.glasses is None for row in self.rows):
            raise DataError(
                "glasses_share: the set does not say who wears glasses; prepare it anew, or take 1"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def load_shares(self) -> None:
        """Loads where hair and eyeglasses are, which batches then say too.

        A set prepared without one of them says nothing of it.
        """
        index, side = np.array([row.index for row in self.rows]), self.config.resolution
        for name in SHARES:
            known: NDArray[np.uint8] | None = getattr(self._set, name)
            if known is None:
                continue
            share = torch.empty(len(index), 1, side, side, dtype=torch.uint8, device=self.device)
            for start in range(0, len(index), 256):
                chunk = torch.from_numpy(known[index[start : start + 256]])[:, None]
                factor = chunk.shape[-1] // side
                if factor > 1:
                    chunk = functional.avg_pool2d(chunk.float(), factor).round().to(torch.uint8)
                share[start : start + 256] = chunk
            self.shares[name] = share

    def _load(self, rows: NDArray[np.int64], side: int) -> Tensor:
        index = np.array([self.rows[row].index for row in rows])
        factor = self._set.resolution // side
        images = torch.empty(len(index), 3, side, side, dtype=torch.uint8, device=self.device)
        for start in range(0, len(index), 256):
            chunk = index[start : start + 256]
            image = masked(
                torch.from_numpy(self._set.portraits[chunk]),
                torch.from_numpy(self._set.kept[chunk]),
            )
            if factor > 1:
                image = functional.avg_pool2d(image.float(), factor).round().to(torch.uint8)
            images[start : start + 256] = image
        return images

    def _draw_tables(self) -> list[list[tuple[Tensor, Tensor]]]:
        """Per cluster and group: the rows' indices and their probabilities."""
        names = sorted({row.source for row in self.rows})
        sources = torch.tensor([names.index(row.source) for row in self.rows])
        glasses = torch.tensor([bool(row.glasses) for row in self.rows])
        tables = []
        for cluster in range(len(self.config.clusters)):
            per_group = []
            for group in range(len(self.config.groups)):
                index = torch.nonzero((self.clusters == cluster) & (self.groups == group)).flatten()
                counts = torch.bincount(sources[index], minlength=len(names)).double()
                share = counts**self.config.source_temper * (counts > 0)
                share = share / share.sum()
                probability = (share / counts.clamp(min=1))[sources[index]]
                worn = glasses[index]
                seen = probability[worn].sum()
                if self.config.glasses_share < seen < 1:
                    wanted = self.config.glasses_share
                    probability[worn] *= wanted / seen
                    probability[~worn] *= (1 - wanted) / (1 - seen)
                per_group.append((index, probability))
            tables.append(per_group)
        return tables

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """A batch of `count`; all randomness comes from `generator`, which lives on the CPU."""
        clusters = len(self.config.clusters)
        source = torch.randint(clusters, (count,), generator=generator)
        step = torch.randint(1, clusters, (count,), generator=generator)
        return self._drawn(source, (source + step) % clusters, generator)

    def draw_pair(self, target: int, count: int, generator: torch.Generator) -> Batch:
        """A batch of `count`, the first half of every cluster but `target`, the second of `target`.

        The first half's clusters, drawn evenly, are the second half's targets. Raises ValueError
        for an odd `count`.
        """
        if count % 2:
            raise ValueError(f"{count} portraits do not divide into two halves")
        clusters = len(self.config.clusters)
        step = torch.randint(1, clusters, (count // 2,), generator=generator)
        others, same = (target + step) % clusters, torch.full_like(step, target)
        return self._drawn(torch.cat([others, same]), torch.cat([same, others]), generator)

    def _drawn(self, source: Tensor, target: Tensor, generator: torch.Generator) -> Batch:
        """Portraits of clusters `source` (N,), some of them without their group, some flipped."""
        config, count, groups = self.config, len(source), len(self.config.groups)
        shown = group = torch.randint(groups, (count,), generator=generator)
        flip = torch.rand(count, generator=generator) < 0.5
        dropped = torch.rand(count, generator=generator) < config.neutral
        rows = self.rows_of(source, group, generator)
        if groups > 1:
            group = torch.where(dropped, groups, group)
        return Batch(
            self.portraits(rows, flip),
            source.to(self.device),
            target.to(self.device),
            group.to(self.device),
            self._landmarks_of(rows, flip),
            shown.to(self.device),
            *(self.share_of(name, rows, flip) for name in SHARES),
        )

    def _landmarks_of(self, rows: Tensor, flip: Tensor) -> Tensor | None:
        if self.landmarks is None:
            return None
        landmarks = self.landmarks[rows.to(self.device)]
        return torch.where(flip.to(self.device).view(-1, 1, 1), mirrored(landmarks), landmarks)

    def share_of(self, name: Share, rows: Tensor, flip: Tensor | None = None) -> Tensor | None:
        """Share of hair or eyeglasses (N, 1, R, R), 0 to 1, of rows (N,), flipped by `flip`.

        None where it is not loaded or not known.
        """
        if name not in self.shares:
            return None
        share = self.shares[name][rows.to(self.device)].float() / 255
        if flip is None:
            return share
        return torch.where(flip.to(self.device).view(-1, 1, 1, 1), share.flip(-1), share)

    def rows_of(self, clusters: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """A row (N,) of each cell (cluster, group), both (N,), drawn by the tempered sources."""
        rows = torch.empty(len(clusters), dtype=torch.int64)
        for i in range(len(clusters)):
            index, probability = self._cells[int(clusters[i])][int(groups[i])]
            rows[i] = index[torch.multinomial(probability, 1, generator=generator)]
        return rows

    def portraits(self, rows: Tensor, flip: Tensor | None = None) -> Tensor:
        """Rows (N,) as float images (N, 3, R, R) in [-1, 1], flipped where `flip` says so."""
        image = self.images[rows.to(self.device)].float() / 127.5 - 1.0
        if flip is None:
            return image
        return torch.where(flip.to(self.device).view(-1, 1, 1, 1), image.flip(-1), image)

    def finer_portraits(self, rows: Tensor, side: int) -> Tensor:
        """Rows (N,) as `portraits` has them, but up to `side` across where the set has them so."""
        side = min(side, self._set.resolution)
        if side <= self.config.resolution:
            return self.portraits(rows)
        return self._load(rows.cpu().numpy(), side).float() / 127.5 - 1.0


MIRRORED = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip
"""Of each of the 68 landmarks, the one that takes its place in a mirrored picture."""


def mirrored(landmarks: Tensor) -> Tensor:
    """Landmarks (N, 68, 2), right and down in shares of the side, of the mirrored pictures."""
    other = landmarks[:, MIRRORED]
    return torch.stack([1 - other[..., 0], other[..., 1]], -1)


def split_rows(
    data: PreparedSet, held_out: int
) -> tuple[tuple[Row, ...], tuple[Row, ...], tuple[Row, ...]]:
    """Training, selection and test rows: one in `held_out` of the training split is for selection.

    A set without a `test` split has an empty third part.
    """
    train = [row for row in data.rows if row.split != "test"]
    selection = tuple(row for i, row in enumerate(train) if i % held_out == held_out - 1)
    rest = tuple(row for i, row in enumerate(train) if i % held_out != held_out - 1)
    return rest, selection, tuple(row for row in data.rows if row.split == "test")
