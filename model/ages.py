"""Age clusters, their anchor centres, and the ages between them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class AgeCluster:
    """A class of ages: both bounds belong to it (whole years at the last birthday)."""

    name: str
    low_years: int
    high_years: int
    centre_years: float

    def __post_init__(self) -> None:
        if not 0 <= self.low_years <= self.centre_years <= self.high_years + 1:
            raise ValueError(
                f"cluster {self.name}: centre {self.centre_years} is outside "
                f"{self.low_years}-{self.high_years}"
            )

    @classmethod
    def between(cls, low_years: int, high_years: int) -> "AgeCluster":
        """A cluster named "low-high", its centre halfway: 0-2 has 1, 50-69 has 59.5."""
        return cls(f"{low_years}-{high_years}", low_years, high_years, (low_years + high_years) / 2)


LIFESPAN_CLUSTERS = tuple(
    AgeCluster.between(*bounds) for bounds in ((0, 2), (3, 6), (7, 9), (15, 19), (30, 39), (50, 69))
)
"""The six anchor classes of Lifespan Age Transformation Synthesis (Or-El et al. 2020)."""


class Pace(StrEnum):
    """How fast a film goes through the ages."""

    ANCHORS = "anchors"
    """The same time between any two neighbouring anchors, as faces change most while young"""
    YEARS = "years"
    """The same time for every year"""


def age_range_years(clusters: Sequence[AgeCluster]) -> tuple[float, float]:
    """The youngest and the oldest age that the anchors answer for."""
    return float(clusters[0].low_years), float(clusters[-1].high_years)


def cluster_of_age(age_years: float, clusters: Sequence[AgeCluster]) -> int | None:
    """Index of the cluster that holds `age_years` (whole years count), or None between clusters."""
    years = int(np.floor(age_years))
    for index, cluster in enumerate(clusters):
        if cluster.low_years <= years <= cluster.high_years:
            return index
    return None


def check_clusters(clusters: Sequence[AgeCluster]) -> None:
    """Raises ValueError unless there are two or more, disjoint, in order, with distinct names."""
    if len(clusters) < 2:
        raise ValueError("at least two age clusters are needed")
    for younger, older in itertools.pairwise(clusters):
        if older.low_years <= younger.high_years:
            raise ValueError(f"cluster {older.name} starts inside or before {younger.name}")
    if len({cluster.name for cluster in clusters}) < len(clusters):
        raise ValueError("age clusters need distinct names")


def anchor_weights(
    age_years: ArrayLike, clusters: Sequence[AgeCluster] = LIFESPAN_CLUSTERS
) -> NDArray[np.float32]:
    """Convex weights over the anchors: shape of `age_years` + (anchors,).

    Linear between neighbouring anchor centres, constant outside them: every age of 0-2 up to
    its centre gives the first anchor itself.
    """
    ages = np.asarray(age_years, dtype=np.float64)
    centres = np.array([cluster.centre_years for cluster in clusters])
    position = np.interp(ages, centres, np.arange(len(centres)))
    distance = np.abs(position[..., None] - np.arange(len(centres)))
    return np.clip(1.0 - distance, 0.0, 1.0).astype(np.float32)


def film_ages(
    first_years: float,
    last_years: float,
    frames: int,
    clusters: Sequence[AgeCluster] = LIFESPAN_CLUSTERS,
    pace: Pace = Pace.ANCHORS,
) -> NDArray[np.float64]:
    """Ages (frames,) from the first to the last, both included, either of which may be the older.

    Ages outside the anchor centres, where nothing changes, take no time at the anchors' pace.
    """
    if pace is Pace.YEARS:
        return np.linspace(first_years, last_years, frames)
    centres = np.array([cluster.centre_years for cluster in clusters])
    places = np.arange(len(centres))
    first, last = np.interp([first_years, last_years], centres, places)
    ages = np.interp(np.linspace(first, last, frames), places, centres)
    ages[0], ages[-1] = first_years, last_years
    return np.clip(ages, min(first_years, last_years), max(first_years, last_years))


def age_codes(anchors: int, populations: int = 1, elements: int = 50) -> NDArray[np.float32]:
    """Noise-free age codes z: (groups, anchors, populations * anchors * elements).

    Each (population, anchor) owns `elements` entries: 1 for its own, 0 for the others (Or-El et
    al. 2020, section 3.1, one population). With several populations a last group, the neutral
    one, is the mean of theirs, so groups = populations + 1; ours, not the published method's.
    """
    owned = np.repeat(np.eye(populations * anchors, dtype=np.float32), elements, axis=1)
    codes = owned.reshape(populations, anchors, -1)
    if populations == 1:
        return codes
    return np.concatenate([codes, codes.mean(axis=0, keepdims=True)])
