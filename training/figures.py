"""From a measurement to figures: a few flat ones for the manifest, the rest under `details`.

Shares of identity count a picture without a face as a failure, means leave it out. The judge says
something of every picture, of grey ones by chance. None stands where nothing could be measured.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.ages import AgeCluster
from training.descriptor import SAME_PERSON
from training.evaluate import Floats, Measurement
from training.judge import GROUPS
from training.metrics import (
    FRONTAL,
    TURNED,
    displacement,
    distances,
    interval,
    judged_clusters,
    kernel_distance_floor,
    mean_kernel_distance,
    rank_correlation,
    standardised,
)

Mask = NDArray[np.bool_]
LEAST = 100
"""Pictures that both sets must hold for a kernel distance."""


def figures(m: Measurement) -> dict[str, Any]:
    """All figures of a measurement, rounded, ready for JSON."""
    names = [cluster.name for cluster in m.bundle.manifest.clusters]
    everything = np.ones(len(m.rows), bool)
    chief = chief_figures(m, everything)
    flat = {
        "portraits": len(m.rows),
        "group": m.group,
        "reconstruction_psnr_db": chief["psnr_db"],
        "reconstruction_ssim": chief["ssim"],
        "cycle_psnr_db": chief["cycle_psnr_db"],
        "cycle_ssim": chief["cycle_ssim"],
        **head_shape(m),
        "judged_age_years": dict(
            zip(names, (_mean(column, 1) for column in m.years[:, 1:].T), strict=True)
        ),
        "judged_cluster_share": chief["cluster_share"],
        "judge_mae_years": m.judge.error["mae_years"],
        "identity_distance": chief["identity_distance"],
        "identity_share": chief["identity_share"],
        "rank1_share": chief["rank1_share"],
        "group_kept_share": chief["group_kept_share"],
        "sharpness_ratio": chief["sharpness_ratio"],
        "interpolation_rank_correlation": chief["rank_correlation"],
    }
    details = {
        "judge": m.judge.information,
        "ages": ages(m),
        "clusters": wanted_table(m),
        "identity": identity(m),
        "groups": groups_kept(m),
        "reproduction": reproduction(m),
        "distribution": distribution(m),
        "texture": texture(m),
        "interpolation": interpolation(m),
        "intervals": intervals(m),
        "by_turn": by_turn(m),
        "by_sharpness": by_sharpness(m),
        "by_label": [_bin(m, name, m.labels == name) for name in sorted(set(m.labels.tolist()))],
        "by_source": [_bin(m, name, m.sources == name) for name in sorted(set(m.sources.tolist()))],
        "by_skin": by_skin(m),
    }
    return {**flat, "details": details}


def head_shape(m: Measurement) -> dict[str, Any]:
    """Landmarks between youngest and oldest anchor, beside portrait and reconstruction.

    In percent of the side. `share_three_times` counts the portraits where the first, not being
    nothing, is at least thrice the second.
    """
    own = m.landmarks[np.arange(len(m.rows)), 1 + m.clusters]
    aged = _displacements(m.landmarks[:, 1], m.landmarks[:, -1])
    rebuilt = _displacements(m.landmarks[:, 0], own)
    found = ~np.isnan(aged) & ~np.isnan(rebuilt)
    three_times = (aged[found] > 0) & (aged[found] >= 3 * rebuilt[found])
    return {
        "landmarks_not_found": int((~found).sum()),
        "displacement_percent": _mean(aged[found] * 100),
        "reconstruction_displacement_percent": _mean(rebuilt[found] * 100),
        "share_three_times": _mean(three_times, 3),
    }


def chief_figures(m: Measurement, mask: Mask) -> dict[str, Any]:
    """The figures that stand for all, of the portraits in `mask` (N,)."""
    wanted = np.arange(m.years.shape[1] - 1)
    clusters = m.bundle.manifest.clusters
    years = m.years[mask, 1:]
    to_own = identity_distances(m)
    seen = mask & ~np.isnan(m.descriptors[:, 0, 0])
    kept = m.kind[:, 1:] == _label_places(m)[:, None]
    return {
        "portraits": int(mask.sum()),
        "cluster_share": _mean(judged_clusters(years, clusters) == wanted, 3),
        "years_outside": _mean(years_outside(years, clusters)),
        "real_years_outside": _real_years_outside(m, mask),
        "identity_distance": _mean(to_own[mask], 3),
        "identity_share": _mean(to_own[seen] < SAME_PERSON, 3),
        "rank1_share": _mean(nearest_is_own(m)[seen], 3),
        "group_kept_share": _mean(kept[mask], 3),
        "psnr_db": _mean(m.psnr_db[mask]),
        "ssim": _mean(m.ssim[mask], 3),
        "cycle_psnr_db": _mean(m.cycle_psnr_db[mask]),
        "cycle_ssim": _mean(m.cycle_ssim[mask], 3),
        "displacement_percent": _mean(
            100 * _displacements(m.landmarks[mask, 1], m.landmarks[mask, -1])
        ),
        "sharpness_ratio": _median(sharpness_ratios(m)[mask]),
        "rank_correlation": _mean(rank_correlations(m)[mask[m.walked]], 3),
        "interpolations": int(mask[m.walked].sum()),
        "faces_not_found": int(np.isnan(m.landmarks[mask, 1:, 0, 0]).sum()),
    }


def years_outside(years: Floats, clusters: tuple[AgeCluster, ...]) -> Floats:
    """How far ages (N, A) or (N, 1) are from the bounds of each anchor's cluster; 0 inside."""
    low = np.array([cluster.low_years for cluster in clusters])
    high = np.array([cluster.high_years for cluster in clusters])
    return np.maximum(0, np.maximum(low - years, years - high))


def _real_years_outside(m: Measurement, mask: Mask) -> float | None:
    """How far the portraits' own judged ages are from their cluster's bounds.

    What the judge's error alone makes of `years_outside`: portraits are of their cluster. The mean
    over clusters that the portraits in `mask` show, since as many pictures are of each.
    """
    outside = years_outside(m.years[:, :1], m.bundle.manifest.clusters)
    own = outside[np.arange(len(m.rows)), m.clusters]
    shown = np.unique(m.clusters[mask])
    return _mean(np.array([own[mask & (m.clusters == place)].mean() for place in shown]))


def identity_distances(m: Measurement) -> Floats:
    """Distance of each picture's descriptor to its portrait's: (N, A)."""
    return np.linalg.norm(m.descriptors[:, 1:] - m.descriptors[:, :1], axis=-1)


def nearest_is_own(m: Measurement) -> Mask:
    """Whether a picture's nearest portrait, of all that were measured, is its own: (N, A)."""
    inputs, own = m.descriptors[:, 0], np.arange(len(m.rows))
    columns = []
    for place in range(1, m.descriptors.shape[1]):
        table = distances(m.descriptors[:, place], inputs)
        missing = np.isnan(table)
        nearest = np.where(missing, np.inf, table).argmin(1)
        columns.append((nearest == own) & ~missing[own, own])
    return np.stack(columns, axis=1)


def sharpness_ratios(m: Measurement) -> Floats:
    """Sharpness of each picture in units of its portrait's: (N, A)."""
    return m.sharpness[:, 1:] / np.maximum(m.sharpness[:, :1], 1e-6)


def rank_correlations(m: Measurement) -> Floats:
    """How steadily judged age rises along each interpolation: (W,), 1 where it only rises."""
    return np.array([rank_correlation(years) for years in m.walk_years])


def ages(m: Measurement) -> list[dict[str, Any]]:
    """Judged ages per anchor: of all, of each label, and of each label in its own group.

    `real` are this split's portraits of the cluster, `judge` the judge's error there.
    """
    rows = []
    for place, cluster in enumerate(m.bundle.manifest.clusters):
        for label in (None, *GROUPS):
            mask = np.ones(len(m.rows), bool) if label is None else m.labels == label
            real = m.years[mask & (m.clusters == place), 0]
            error = m.judge.error["clusters"].get(cluster.name, {})
            asked = {m.group: m.years[mask, 1 + place]}
            if label is not None:
                asked[label] = m.own_years[mask, place]
            for group, years in asked.items():
                if not np.isfinite(years).any():
                    continue
                rows.append(
                    {
                        "anchor": cluster.name,
                        "centre_years": cluster.centre_years,
                        "label": label,
                        "group": group,
                        **_spread(years),
                        "interval": _interval(years, 1),
                        "real": _spread(real),
                        "judge_mae_years": error.get("mae_years"),
                        "judge_bias_years": error.get("bias_years"),
                    }
                )
    return rows


def wanted_table(m: Measurement) -> dict[str, Any]:
    """Shares (A, A) of wanted (row) against judged (column) cluster: of pictures, of portraits."""
    clusters = m.bundle.manifest.clusters
    count = len(clusters)
    table, real = np.zeros((count, count)), np.zeros((count, count))
    judged = judged_clusters(m.years, clusters)
    for place in range(count):
        table[place] = np.bincount(judged[:, 1 + place], minlength=count)
        real[place] = np.bincount(judged[m.clusters == place, 0], minlength=count)
    return {
        "names": [cluster.name for cluster in clusters],
        "portraits": len(m.rows),
        "table": _shares(table),
        "real_portraits": real.sum(1).astype(int).tolist(),
        "real_table": _shares(real),
    }


def identity(m: Measurement) -> list[dict[str, Any]]:
    """Per anchor: distance to the portrait, and what the descriptor says of strangers.

    `impostor_share`: pairs of different portraits of one (cluster, group) of this anchor that are
    under the threshold; `stranger_share`: the pictures against other portraits of their own
    portrait's cell.
    """
    to_own, own = identity_distances(m), nearest_is_own(m)
    inputs = m.descriptors[:, 0]
    seen = ~np.isnan(inputs[:, 0])
    same_cell = (m.clusters[:, None] == m.clusters) & (m.labels[:, None] == m.labels)
    same_cell &= ~np.eye(len(m.rows), dtype=bool) & seen
    between = distances(inputs, inputs)
    rows = []
    for place, cluster in enumerate(m.bundle.manifest.clusters):
        pairs = same_cell & (m.clusters == place)[:, None] & seen[:, None]
        strangers = distances(m.descriptors[:, 1 + place], inputs)
        found = same_cell & ~np.isnan(strangers)
        rows.append(
            {
                "anchor": cluster.name,
                "portraits": int(seen.sum()),
                "faces_not_found": int(np.isnan(m.descriptors[:, 1 + place, 0]).sum()),
                "distance": _mean(to_own[:, place], 3),
                "interval": _interval(to_own[:, place], 3),
                "share": _mean(to_own[seen, place] < SAME_PERSON, 3),
                "stranger_share": _mean(strangers[found] < SAME_PERSON, 3),
                "impostor_share": _mean(between[pairs] < SAME_PERSON, 3),
                "impostor_pairs": int(pairs.sum()) // 2,
                "rank1_share": _mean(own[seen, place], 3),
            }
        )
    return rows


def groups_kept(m: Measurement) -> list[dict[str, Any]]:
    """Per anchor: pictures judged of their portrait's labelled group, beside real portraits."""
    labels = _label_places(m)
    kept = m.kind == labels[:, None]
    own = np.where(np.isnan(m.own_kind), np.nan, m.own_kind == labels[:, None])
    return [
        {
            "anchor": cluster.name,
            "portraits": len(m.rows),
            "kept_share": _mean(kept[:, 1 + place], 3),
            "own_group_kept_share": _mean(own[:, place], 3),
            "real_portraits": int((m.clusters == place).sum()),
            "real_share": _mean(kept[m.clusters == place, 0], 3),
        }
        for place, cluster in enumerate(m.bundle.manifest.clusters)
    ]


def reproduction(m: Measurement) -> list[dict[str, Any]]:
    """Per anchor: its own portraits rebuilt, and all others taken there and back."""
    rows = []
    for place, cluster in enumerate(m.bundle.manifest.clusters):
        here = m.clusters == place
        rows.append(
            {
                "anchor": cluster.name,
                "portraits": int(here.sum()),
                "psnr_db": _mean(m.psnr_db[here]),
                "ssim": _mean(m.ssim[here], 3),
                "cycles": int((~here).sum()),
                "cycle_psnr_db": _mean(m.cycle_psnr_db[:, place]),
                "cycle_ssim": _mean(m.cycle_ssim[:, place], 3),
            }
        )
    return rows


def distribution(m: Measurement, mask: Mask | None = None) -> list[dict[str, Any]]:
    """Kernel distances of pictures to real portraits of the wanted cluster, times 1000.

    By (anchor, group), by anchor and, as a mean over the anchors, for all, where both sets hold
    100; of the portraits in `mask` (N,). Pictures of portraits that were of the cluster already are
    left out. `floor` is what chance makes of halves of the portraits.
    """
    mask = np.ones(len(m.rows), bool) if mask is None else mask
    features = standardised(m.features, m.features[:, 0])
    rows, anchors = [], []

    def add(anchor: str | None, label: str | None, pairs: list[tuple[Floats, Floats]]) -> None:
        real, generated = (sum(len(pair[i]) for pair in pairs) for i in range(2))
        if min(real, generated) >= LEAST:
            rows.append(
                {
                    "anchor": anchor,
                    "label": label,
                    "real": real,
                    "generated": generated,
                    "distance": _rounded(1000 * mean_kernel_distance(pairs)),
                    "floor": _rounded(1000 * kernel_distance_floor([pair[0] for pair in pairs])),
                }
            )

    for place, cluster in enumerate(m.bundle.manifest.clusters):
        here, others = mask & (m.clusters == place), mask & (m.clusters != place)
        for label in GROUPS:
            own = m.labels == label
            pair = features[here & own, 0], features[others & own, 1 + place]
            add(cluster.name, label, [pair])
        pair = features[here, 0], features[others, 1 + place]
        add(cluster.name, None, [pair])
        if min(map(len, pair)) >= 4:
            anchors.append(pair)
    add(None, None, anchors)
    return rows


def texture(m: Measurement) -> list[dict[str, Any]]:
    """Per anchor: sharpness against the portrait's and real faces', landmarks against its."""
    ratios = sharpness_ratios(m)
    rows = []
    for place, cluster in enumerate(m.bundle.manifest.clusters):
        real = np.median(m.sharpness[m.clusters == place, 0]) if place in m.clusters else np.nan
        real = np.maximum(real, 1e-6)
        moved = 100 * _displacements(m.landmarks[:, 0], m.landmarks[:, 1 + place])
        rows.append(
            {
                "anchor": cluster.name,
                "portraits": len(m.rows),
                "sharpness_ratio": _median(ratios[:, place]),
                "sharpness_to_real": _rounded(np.median(m.sharpness[:, 1 + place]) / real),
                "displacement_percent": _mean(moved),
            }
        )
    return rows


def interpolation(m: Measurement) -> dict[str, Any] | None:
    """How judged age goes along interpolations from anchor to anchor; None without any."""
    if not len(m.walk_years):
        return None
    back = (np.maximum.accumulate(m.walk_years, 1) - m.walk_years).max(1)
    correlations = rank_correlations(m)
    return {
        "portraits": len(m.walk_years),
        "frames": m.walk_years.shape[1],
        "rank_correlation": _mean(correlations, 3),
        "interval": _interval(correlations, 3),
        "largest_fall_years": _mean(back),
        "largest_jump_years": _mean(np.abs(np.diff(m.walk_years, axis=1)).max(1)),
        "largest_step_levels": _mean(m.walk_steps.max(1)),
        "mean_step_levels": _mean(m.walk_steps),
        "mean_years": [_rounded(value, 1) for value in m.walk_years.mean(0)],
    }


def intervals(m: Measurement) -> dict[str, Any]:
    """The 95 % intervals of the chief means, portraits drawn again with all their pictures."""
    seen = ~np.isnan(m.descriptors[:, 0, 0])
    wanted = np.arange(m.years.shape[1] - 1)
    hits = judged_clusters(m.years[:, 1:], m.bundle.manifest.clusters) == wanted
    moved = 100 * _displacements(m.landmarks[:, 1], m.landmarks[:, -1])
    return {
        "reconstruction_psnr_db": _interval(m.psnr_db),
        "reconstruction_ssim": _interval(m.ssim, 3),
        "judged_cluster_share": _interval(hits.mean(1), 3),
        "identity_share": _interval((identity_distances(m)[seen] < SAME_PERSON).mean(1), 3),
        "rank1_share": _interval(nearest_is_own(m)[seen].mean(1), 3),
        "displacement_percent": _interval(moved),
    }


def by_turn(m: Measurement) -> list[dict[str, Any]]:
    """The chief figures by how far the portrait's head is turned."""
    bins = {
        "near frontal": m.turn < FRONTAL,
        "turned": (m.turn >= FRONTAL) & (m.turn < TURNED),
        "far turned": m.turn >= TURNED,
    }
    return [_bin(m, name, mask) for name, mask in bins.items()]


def by_sharpness(m: Measurement) -> list[dict[str, Any]]:
    """The chief figures by thirds of the portraits' sharpness."""
    return _thirds(m, m.sharpness[:, 0], ("soft", "middling", "crisp"))


def by_skin(m: Measurement) -> list[dict[str, Any]]:
    """The chief figures by thirds of the luminance of the portraits' skin, where it was seen."""
    return _thirds(m, m.skin, ("darker", "medium", "lighter"))


def _thirds(m: Measurement, values: Floats, names: tuple[str, str, str]) -> list[dict[str, Any]]:
    known = np.flatnonzero(np.isfinite(values))
    third = np.full(len(values), -1)
    third[known[np.argsort(values[known], kind="stable")]] = np.arange(len(known)) * 3 // len(known)
    return [_bin(m, name, third == i) for i, name in enumerate(names)]


def _bin(m: Measurement, name: str, mask: Mask) -> dict[str, Any]:
    together = [row for row in distribution(m, mask) if row["anchor"] is None]
    whole = together[0] if together else {}
    return {
        "bin": name,
        **chief_figures(m, mask),
        "kernel_distance": whole.get("distance"),
        "kernel_distance_floor": whole.get("floor"),
    }


def _label_places(m: Measurement) -> NDArray[np.int64]:
    return np.array([GROUPS.index(label) if label in GROUPS else -1 for label in m.labels])


def _displacements(first: Floats, second: Floats) -> Floats:
    return np.array([displacement(a, b) for a, b in zip(first, second, strict=True)])


def _shares(table: Floats) -> list[list[float | None]]:
    total = table.sum(1, keepdims=True)
    return [
        [_rounded(v / n, 3) if n else None for v in row]
        for row, (n,) in zip(table, total, strict=True)
    ]


def _rounded(value: float | np.floating, digits: int = 2) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _known(values: Any) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]


def _mean(values: Any, digits: int = 2) -> float | None:
    known = _known(values)
    return round(float(known.mean()), digits) if len(known) else None


def _median(values: Any, digits: int = 2) -> float | None:
    known = _known(values)
    return round(float(np.median(known)), digits) if len(known) else None


def _spread(values: Any) -> dict[str, Any]:
    known = _known(values)
    return {
        "portraits": len(known),
        "mean_years": _mean(known, 1),
        "spread_years": round(float(known.std()), 1) if len(known) else None,
    }


def _interval(values: Any, digits: int = 2) -> list[float] | None:
    found = interval(_known(values))
    return [round(end, digits) for end in found] if found else None
