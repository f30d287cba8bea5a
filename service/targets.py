"""What a caller asks a model for: anchors, ages or weights, and the latents they become."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.ages import Pace, anchor_weights, film_ages
from model.bundle import Manifest
from service.errors import (
    AgeOutOfRange,
    InvalidFaceTarget,
    InvalidRequest,
    InvalidWeights,
    NotContinuous,
    UnknownAnchor,
    UnknownGroup,
)

ALL = "all"
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Target:
    """One picture asked for, as weights over the anchors that sum to 1.

    `name` is the anchor's where one was asked for; `age_years` the age where one was.
    """

    weights: tuple[float, ...]
    effective_age_years: float
    name: str | None = None
    age_years: float | None = None

    @property
    def anchor(self) -> int:
        """Index of the heaviest anchor."""
        return int(np.argmax(self.weights))

    @property
    def label(self) -> str:
        """For people and file names: the anchor, or the effective age in years."""
        return self.name if self.name is not None else f"{self.effective_age_years:.1f}"


def of_anchor(manifest: Manifest, name: str) -> Target:
    """An anchor itself. Raises UnknownAnchor."""
    names = tuple(anchor.name for anchor in manifest.anchors)
    if name not in names:
        raise UnknownAnchor(name, names)
    index = names.index(name)
    weights = tuple(float(i == index) for i in range(len(names)))
    return Target(weights, manifest.anchors[index].centre_years, name=name)


def of_age(manifest: Manifest, age_years: float) -> Target:
    """An age in years. Raises AgeOutOfRange or NotContinuous.

    The effective age is the nearest one between the outermost anchors' centres.
    """
    low, high = manifest.age_range_years
    if not low <= age_years <= high:
        raise AgeOutOfRange(age_years, low, high)
    _demand_continuous(manifest)
    weights = anchor_weights(age_years, manifest.clusters)
    centres = [anchor.centre_years for anchor in manifest.anchors]
    effective = min(max(age_years, centres[0]), centres[-1])
    return Target(tuple(weights.tolist()), effective, age_years=age_years)


def of_weights(manifest: Manifest, text: str) -> Target:
    """Numbers with commas between them, one per anchor. Raises InvalidWeights or NotContinuous."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidWeights("Weights are numbers with commas between them.") from None
    return mixed(manifest, numbers)


def mixed(manifest: Manifest, numbers: Sequence[float]) -> Target:
    """A mix of anchors, by one weight per anchor. Raises InvalidWeights or NotContinuous.

    All the weight on one anchor is that anchor, which every model knows.
    """
    count, weights = len(manifest.anchors), np.array(numbers)
    if weights.shape != (count,):
        raise InvalidWeights(
            f"One weight per anchor is needed, {count} in all.",
            anchors=[anchor.name for anchor in manifest.anchors],
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InvalidWeights("Weights must not be negative.")
    if abs(weights.sum() - 1) > SUM_TOLERANCE:
        raise InvalidWeights("Weights must sum to 1.")
    weights = weights / weights.sum()
    if np.count_nonzero(weights) > 1:
        _demand_continuous(manifest)
    centres = np.array([anchor.centre_years for anchor in manifest.anchors])
    return Target(tuple(weights.tolist()), float(weights @ centres))


def chosen(
    manifest: Manifest, names: Sequence[str], ages: Sequence[float], weights: Sequence[str]
) -> list[Target]:
    """Targets in the order anchors, ages, weights; every anchor where nothing is asked for."""
    if not (names or ages or weights):
        names = [ALL]
    anchors = [anchor.name for anchor in manifest.anchors]
    expanded = [each for name in names for each in (anchors if name == ALL else [name])]
    return [
        *(of_anchor(manifest, name) for name in expanded),
        *(of_age(manifest, age) for age in ages),
        *(of_weights(manifest, text) for text in weights),
    ]


def of_anchor_or_age(manifest: Manifest, text: str) -> Target:
    """An anchor's name or an age in years. Raises UnknownAnchor or AgeOutOfRange."""
    try:
        age_years = float(text)
    except ValueError:
        return of_anchor(manifest, text)
    return of_age(manifest, age_years)


def of_faces(manifest: Manifest, texts: Sequence[str]) -> dict[int, Target]:
    """Targets by the index of a face in its photo, of texts such as `0:50-69` or `2:7.5`.

    Raises InvalidFaceTarget, UnknownAnchor, AgeOutOfRange or NotContinuous.
    """
    found: dict[int, Target] = {}
    for text in texts:
        index, _, target = text.partition(":")
        if not (index.isascii() and index.isdigit() and target):
            raise InvalidFaceTarget(
                "A face target is a face's index, a colon, and an anchor or an age: `0:50-69`."
            )
        if int(index) in found:
            raise InvalidFaceTarget(f"Face {int(index)} has two targets.")
        found[int(index)] = of_anchor_or_age(manifest, target)
    return found


def between(
    manifest: Manifest,
    start: str | None,
    stop: str | None,
    frames: int,
    pace: Pace = Pace.ANCHORS,
) -> list[Target]:
    """`frames` ages at a pace, both ends included, by default from first to last anchor.

    Raises UnknownAnchor, AgeOutOfRange, NotContinuous, or InvalidRequest under 2 frames.
    """
    if frames < 2:
        raise InvalidRequest("An interpolation has at least 2 frames.")
    _demand_continuous(manifest)
    first = of_anchor_or_age(manifest, manifest.anchors[0].name if start is None else start)
    last = of_anchor_or_age(manifest, manifest.anchors[-1].name if stop is None else stop)
    ends = (first.effective_age_years, last.effective_age_years)
    ages = film_ages(*ends, frames, manifest.clusters, pace)
    return [of_age(manifest, float(age)) for age in ages]


def group_of(manifest: Manifest, name: str | None) -> str:
    """The group asked for, or the model's default. Raises UnknownGroup."""
    if name is None:
        return manifest.default_group
    if name not in manifest.groups:
        raise UnknownGroup(name, manifest.groups)
    return name


def _demand_continuous(manifest: Manifest) -> None:
    if not manifest.continuous:
        raise NotContinuous(manifest.name)
