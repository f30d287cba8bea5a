"""The report: figures and pictures of an evaluation on one page that needs no other file."""

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data import PortraitSet
from training.descriptor import SAME_PERSON
from training.evaluate import Measurement, Subject
from training.figures import LEAST, identity_distances, years_outside
from training.judge import GROUPS
from training.metrics import FRONTAL, TURNED
from training.page import document, figure, percent, signed, spanned, table, text

WORST = 4
"""Portraits shown of each kind that the bundle does worst."""
STRIP = 12
"""Frames shown of an interpolation."""


def write_report(
    folder: Path, m: Measurement, portraits: PortraitSet, found: dict[str, Any]
) -> None:
    """Writes `report.json` and `report.html`: the figures, and the page that shows them.

    `found` is what `figures` made of the measurement. The page holds photographs of people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    (folder / "report.html").write_text(page(m, portraits, found))


def page(m: Measurement, portraits: PortraitSet, found: dict[str, Any]) -> str:
    """The report as one HTML document, pictures inside."""
    manifest = m.bundle.manifest
    title = f"{manifest.name} {manifest.version}"
    sections = [
        _opening(m, found, title),
        _tiles(found),
        _sheets(m, portraits),
        _ages(m, found),
        _clusters(found),
        _identity(found),
        _groups(found),
        _reproduction(found),
        _distribution(found),
        _texture(found),
        _interpolation(m, portraits, found),
        _bins(found),
        _judge(m),
    ]
    return document(f"{title}: evaluation", sections)


def _opening(m: Measurement, found: dict[str, Any], title: str) -> str:
    manifest = m.bundle.manifest
    error = m.judge.error
    return (
        f"<h1>{escape(title)}</h1>"
        f'<p class="soft">{found["portraits"]} portraits of the {found.get("split", "given")} part '
        f"at {manifest.resolution} px, each rendered at {len(manifest.anchors)} anchors, "
        f"group {escape(m.group)}. {manifest.provenance.images_seen:,} images seen in training"
        f"{', a preview' if manifest.preview else ''}.</p>"
        f"<p>Ages are estimated by a judge that learned from real portraits of the training split "
        f"and from no generated one. On {error['portraits']} real portraits of the "
        f"{escape(error['split'])} part it errs by <b>{text(error['mae_years'])} years</b> on "
        f"average (bias {signed(error['bias_years'])}) and names the right cluster for "
        f"{percent(error['cluster_mean_share'])} of each: no age below is surer. Shares of "
        "identity count a picture without a face as a failure.</p>"
    )


def _tiles(found: dict[str, Any]) -> str:
    ranges = found["details"]["intervals"]
    error = found["details"]["judge"]["error"]

    def within(name: str, text: Callable[[Any], str]) -> str:
        return f"95 %: {text(ranges[name][0])} to {text(ranges[name][1])}. " if ranges[name] else ""

    real = percent(error["cluster_mean_share"])
    chance = 1 / len(found["details"]["clusters"]["names"])
    walks = found["details"]["interpolation"]
    travelled = ""
    if walks:
        travelled = f"Judged {walks['mean_years'][0]} to {walks['mean_years'][-1]} years on average"
    tiles = [
        (
            "Judged in the wanted cluster",
            percent(found["judged_cluster_share"]),
            within("judged_cluster_share", percent)
            + f"Real portraits: {real}; chance: {percent(chance)}",
        ),
        (
            "The same person",
            percent(found["identity_share"]),
            within("identity_share", percent)
            + f"dlib distance under {SAME_PERSON}; mean {text(found['identity_distance'])}",
        ),
        (
            "Nearest portrait is its own",
            percent(found["rank1_share"]),
            within("rank1_share", percent) + f"Among {found['portraits']} portraits",
        ),
        (
            "Group kept",
            percent(found["group_kept_share"]),
            f"The judge on real portraits: {percent(error['group_share'])}",
        ),
        (
            "Reconstruction",
            f"{text(found['reconstruction_psnr_db'])} dB",
            within("reconstruction_psnr_db", text) + f"SSIM {text(found['reconstruction_ssim'])}",
        ),
        (
            "There and back",
            f"{text(found['cycle_psnr_db'])} dB",
            f"SSIM {text(found['cycle_ssim'])}",
        ),
        (
            "Landmarks, youngest to oldest",
            f"{text(found['displacement_percent'])} %",
            within("displacement_percent", text)
            + f"Reconstruction {text(found['reconstruction_displacement_percent'])} %; three "
            f"times that in {percent(found['share_three_times'])}",
        ),
        (
            "Sharpness",
            f"× {text(found['sharpness_ratio'])}",
            "Of the portrait's; 1 is as sharp",
        ),
        (
            "Age rises along interpolations",
            text(found["interpolation_rank_correlation"]),
            "Rank correlation; 1 rises at every frame. " + travelled,
        ),
    ]
    cards = "".join(
        f'<div class="tile"><span>{name}</span><b>{value}</b><small>{note}</small></div>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{cards}</div>'


def _sheets(m: Measurement, portraits: PortraitSet) -> str:
    cells = [
        np.flatnonzero((m.clusters == cluster) & (m.labels == label))
        for cluster in range(len(m.bundle.manifest.anchors))
        for label in GROUPS
    ]
    typical = [int(cell[len(cell) // 2]) for cell in cells if len(cell)]
    distances = identity_distances(m)
    strange = np.where(np.isnan(distances), np.inf, distances).mean(1)
    strange[np.isnan(m.descriptors[:, 0, 0])] = -1
    outside = years_outside(m.years[:, 1:], m.bundle.manifest.clusters).mean(1)
    subject = Subject(m.bundle)
    rows = {
        "One portrait of each cluster and group, unchosen": typical,
        "Least like themselves": np.argsort(-strange, kind="stable")[:WORST].tolist(),
        "Judged furthest from the wanted ages": np.argsort(-outside, kind="stable")[
            :WORST
        ].tolist(),
    }
    parts = [
        "<h2>Pictures</h2><p>The portrait as the model sees it, then every anchor. Beneath each: "
        "the judged age in years, and the descriptor's distance to the portrait.</p>"
    ]
    for name, places in rows.items():
        sheets = "".join(_sheet(m, subject, portraits, place) for place in places)
        parts.append(f'<p class="soft">{name}</p><div class="scroll">{sheets}</div>')
    return "".join(parts)


def _sheet(m: Measurement, subject: Subject, portraits: PortraitSet, place: int) -> str:
    portrait = _portrait(m, portraits, place)
    own = m.bundle.manifest.anchors[int(m.clusters[place])].name
    years = m.years[place]
    captions = [f"{escape(str(m.labels[place]))} {own}<br>judged {years[0]:.0f}"]
    for anchor, age, distance in zip(
        m.bundle.manifest.anchors, years[1:], identity_distances(m)[place], strict=True
    ):
        far = "no face" if np.isnan(distance) else f"{distance:.2f}"
        captions.append(f"<b>{anchor.name}</b><br>judged {age:.0f} · {far}")
    pictures = [portrait, *subject.anchors(portrait, m.group)]
    figures = "".join(figure(p, c) for p, c in zip(pictures, captions, strict=True))
    return f'<div class="row">{figures}</div>'


def _ages(m: Measurement, found: dict[str, Any]) -> str:
    rows = found["details"]["ages"]
    together = [row for row in rows if row["label"] is None]
    return (
        "<h2>Estimated age</h2><p>Years, as the judge estimates them: mean ± spread. Good is a "
        "mean beside that of real portraits of the cluster, which the judge reads with the same "
        "bias, and a spread no wider. <span class='key'><i style='background:var(--mark)'></i>"
        "pictures</span> <span class='key'><i style='background:var(--real)'></i>real portraits"
        f"</span></p>{_age_chart(m, together)}{_age_table(together, by_group=False)}"
        "<details><summary>By the portraits' group, and with their own group asked for</summary>"
        f"{_age_table([row for row in rows if row['label']], by_group=True)}</details>"
    )


def _age_table(rows: Sequence[dict[str, Any]], by_group: bool) -> str:
    def spread(seen: dict[str, Any]) -> str:
        if seen["mean_years"] is None:
            return "–"
        return f"{seen['mean_years']} ± {seen['spread_years']}"

    head = [
        "Anchor", *(("Portraits of", "Asked for") if by_group else ()), "n", "Centre", "Judged",
        "95 % of the mean", "Real n", "Real", "Judge errs by", "Bias",
    ]  # fmt: skip
    body = [
        [
            row["anchor"],
            *((row["label"], row["group"]) if by_group else ()),
            row["portraits"],
            row["centre_years"],
            f"<b>{spread(row)}</b>",
            spanned(row["interval"]),
            row["real"]["portraits"],
            spread(row["real"]),
            row["judge_mae_years"],
            signed(row["judge_bias_years"]),
        ]
        for row in rows
    ]
    return table(head, body)


def _age_chart(m: Measurement, rows: Sequence[dict[str, Any]]) -> str:
    """Mean and spread of pictures and of real portraits per anchor; the cluster's bounds behind."""
    width, height, left, top = 720, 260, 40, 10
    bottom = height - 30

    def y(years: float) -> float:
        return bottom - (bottom - top) * min(max(years, 0), 80) / 80

    parts = [
        f'<text x="{left - 8}" y="{y(tick) + 4}" text-anchor="end">{tick}</text>'
        f'<line x1="{left}" x2="{width}" y1="{y(tick)}" y2="{y(tick)}" stroke="var(--line)"/>'
        for tick in range(0, 81, 20)
    ]
    step = (width - left) / len(rows)
    clusters = {cluster.name: cluster for cluster in m.bundle.manifest.clusters}
    for place, row in enumerate(rows):
        x = left + step * (place + 0.5)
        cluster = clusters[row["anchor"]]
        high, low = y(cluster.high_years + 1), y(cluster.low_years)
        parts.append(
            f'<rect x="{x - step * 0.38:.1f}" width="{step * 0.76:.1f}" y="{high:.1f}" '
            f'height="{low - high:.1f}" fill="var(--soft)" opacity=".16"/>'
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{cluster.name}</text>'
        )
        for shift, colour, seen in ((-9, "--mark", row), (9, "--real", row["real"])):
            mean, spread = seen["mean_years"], seen["spread_years"]
            if mean is None:
                continue
            parts.append(
                f'<line x1="{x + shift:.1f}" x2="{x + shift:.1f}" y1="{y(mean - spread):.1f}" '
                f'y2="{y(mean + spread):.1f}" stroke="var({colour})" stroke-width="3"/>'
                f'<circle cx="{x + shift:.1f}" cy="{y(mean):.1f}" r="6" fill="var({colour})"/>'
            )
    return f'<svg viewBox="0 0 {width} {height}" width="{width}">{"".join(parts)}</svg>'


def _clusters(found: dict[str, Any]) -> str:
    counts = found["details"]["clusters"]
    names, real = counts["names"], counts["real_portraits"]

    def heat(caption: str, shares: Sequence[Sequence[float | None]], labels: Sequence[str]) -> str:
        lines = "".join(
            f"<tr><td>{label}</td>"
            + "".join(f'<td style="--share:{share or 0}">{percent(share)}</td>' for share in line)
            + "</tr>"
            for label, line in zip(labels, shares, strict=True)
        )
        head = "".join(f"<th>{name}</th>" for name in ("", *names))
        return (
            f'<div class="scroll"><table class="heat"><caption>{caption}</caption>'
            f"<tr>{head}</tr>{lines}</table></div>"
        )

    return (
        "<h2>Wanted against judged cluster</h2><p>Rows are wanted, columns judged. Good is a heavy "
        "diagonal, no lighter than that of real portraits.</p><div class='pair'>"
        + heat(f"Pictures, {counts['portraits']} a row", counts["table"], names)
        + heat(
            "Real portraits of this part",
            counts["real_table"],
            [f"{name} (n {n})" for name, n in zip(names, real, strict=True)],
        )
        + "</div>"
    )


def _identity(found: dict[str, Any]) -> str:
    head = [
        "Anchor", "n", "No face", "Distance", "95 %", "Under 0.6", "Strangers under 0.6",
        "Impostors", "Pairs", "Nearest is its own",
    ]  # fmt: skip
    body = [
        [
            row["anchor"],
            row["portraits"],
            row["faces_not_found"],
            row["distance"],
            spanned(row["interval"]),
            f"<b>{percent(row['share'])}</b>",
            percent(row["stranger_share"]),
            percent(row["impostor_share"]),
            row["impostor_pairs"],
            percent(row["rank1_share"]),
        ]
        for row in found["details"]["identity"]
    ]
    return (
        "<h2>Identity</h2><p>Distance of dlib's descriptor between picture and portrait; under 0.6 "
        "dlib calls two adults one person. Good is a share well above that of strangers: pictures "
        "against other portraits of their own portrait's cluster and group. Impostors are pairs of "
        "different real people of this anchor's cluster and group that fall under 0.6 as well: "
        "where they are many, as among children, the threshold says little. A bundle that changes "
        "nothing scores best here, so read it beside the ages.</p>" + table(head, body)
    )


def _groups(found: dict[str, Any]) -> str:
    head = ["Anchor", "n", "Kept", "Kept, own group asked for", "Real n", "Judged right of real"]
    body = [
        [
            row["anchor"],
            row["portraits"],
            f"<b>{percent(row['kept_share'])}</b>",
            percent(row["own_group_kept_share"]),
            row["real_portraits"],
            percent(row["real_share"]),
        ]
        for row in found["details"]["groups"]
    ]
    return (
        "<h2>Group kept</h2><p>Pictures judged of the group that the data says of their portrait. "
        "The judge itself is unsure of children.</p>" + table(head, body)
    )


def _reproduction(found: dict[str, Any]) -> str:
    head = ["Anchor", "n", "PSNR, dB", "SSIM", "Cycles", "Cycle PSNR, dB", "Cycle SSIM"]
    keys = ["anchor", "portraits", "psnr_db", "ssim", "cycles", "cycle_psnr_db", "cycle_ssim"]
    return (
        "<h2>Reconstruction and cycle</h2><p>Portraits rendered at their own anchor, and portraits "
        "of other clusters rendered here and then back at their own. Over the whole masked "
        "portrait, grey included.</p>"
        + table(head, ([row[key] for key in keys] for row in found["details"]["reproduction"]))
    )


def _distribution(found: dict[str, Any]) -> str:
    rows = found["details"]["distribution"]
    body = [
        [
            row["anchor"] or "all",
            row["label"] or "all",
            row["real"],
            row["generated"],
            f"<b>{text(row['distance'])}</b>",
            row["floor"],
        ]
        for row in rows
    ]
    head = ["Anchor", "Group", "Real n", "Pictures n", "Distance", "Floor"]
    shown = table(head, body) if rows else f"<p>No set holds {LEAST} pictures.</p>"
    return (
        "<h2>Distribution</h2><p>Kernel distance (as KID, times 1000) between the judge's features "
        "of real portraits of the cluster and of pictures made of portraits of other clusters. The "
        "floor is what chance makes of two halves of the real portraits (95th percentile). Only "
        f"sets of {LEAST} and more are compared; all is the mean over the anchors, small ones "
        "included. Good is near the floor. The judge learned to overlook sharpness, so softness "
        f"does not show here.</p>{shown}"
    )


def _texture(found: dict[str, Any]) -> str:
    head = ["Anchor", "n", "Sharpness to portrait", "Sharpness to real", "Landmarks moved, %"]
    keys = ["anchor", "portraits", "sharpness_ratio", "sharpness_to_real", "displacement_percent"]
    return (
        "<h2>Sharpness and shape</h2><p>Variance of the Laplacian in the middle of the picture: "
        "the median ratio to the portrait's, and the ratio of medians to real portraits of the "
        "cluster. 1 is as sharp; far above 1 means speckle. Landmarks: mean distance from the "
        "portrait's, in percent of the side.</p>"
        + table(head, ([row[key] for key in keys] for row in found["details"]["texture"]))
    )


def _interpolation(m: Measurement, portraits: PortraitSet, found: dict[str, Any]) -> str:
    walks = found["details"]["interpolation"]
    if walks is None:
        return "<h2>Interpolation</h2><p>This bundle has anchors only.</p>"
    head = [
        "n", "Frames", "First", "Last", "Rank correlation", "95 %", "Largest fall",
        "Largest jump", "Largest step", "Mean step",
    ]  # fmt: skip
    body = [
        [
            walks["portraits"],
            walks["frames"],
            f"{walks['mean_years'][0]} years",
            f"{walks['mean_years'][-1]} years",
            f"<b>{text(walks['rank_correlation'])}</b>",
            spanned(walks["interval"]),
            f"{text(walks['largest_fall_years'])} years",
            f"{text(walks['largest_jump_years'])} years",
            f"{text(walks['largest_step_levels'])} levels",
            f"{text(walks['mean_step_levels'])} levels",
        ]
    ]
    subject = Subject(m.bundle)
    ages = subject.film_ages(STRIP)
    strips = []
    for place in (len(m.rows) // 3, 2 * len(m.rows) // 3):
        frames = subject.walk(_portrait(m, portraits, place), m.group, STRIP)
        years = m.judge(frames).age_years
        figures = "".join(
            figure(frame, f"{age:.0f}<br>judged {judged:.0f}")
            for frame, age, judged in zip(frames, ages, years, strict=True)
        )
        strips.append(f'<div class="row strip">{figures}</div>')
    return (
        "<h2>Interpolation</h2><p>Portraits taken from the first anchor's age to the last one's, "
        "with as many frames between any two anchors. Rank correlation of judged age with time, "
        "how far the judged age falls back, its largest jump between neighbouring frames, and how "
        "far neighbouring frames differ; means over portraits.</p>"
        f"{table(head, body)}{_walk_chart(walks, subject.film_ages())}"
        f'<div class="scroll">{"".join(strips)}</div>'
    )


def _walk_chart(walks: dict[str, Any], asked: NDArray[np.float64]) -> str:
    """Mean judged age over the age asked for, with the line where both are equal."""
    width, height, left, bottom = 420, 260, 40, 230
    years = walks["mean_years"]

    def x(age: float) -> float:
        return left + (width - left - 10) * age / 80

    def y(age: float) -> float:
        return bottom - (bottom - 10) * min(max(age, 0), 80) / 80

    ticks = "".join(
        f'<line x1="{left}" x2="{width - 10}" y1="{y(t)}" y2="{y(t)}" stroke="var(--line)"/>'
        f'<text x="{left - 8}" y="{y(t) + 4}" text-anchor="end">{t}</text>'
        f'<text x="{x(t)}" y="{bottom + 18}" text-anchor="middle">{t}</text>'
        for t in range(0, 81, 20)
    )
    points = " ".join(f"{x(a):.1f},{y(v):.1f}" for a, v in zip(asked, years, strict=True))
    return (
        f'<p class="soft">Mean judged age over the age asked for, years</p>'
        f'<svg viewBox="0 0 {width} {height}" width="{width}">{ticks}'
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(80)}" y2="{y(80)}" stroke="var(--soft)" '
        f'stroke-dasharray="4 4"/><polyline points="{points}" fill="none" stroke="var(--mark)" '
        f'stroke-width="3"/></svg>'
    )


def _bins(found: dict[str, Any]) -> str:
    lines: list[tuple[str, str, Callable[[Any], str]]] = [
        ("n", "portraits", text),
        ("Judged in the wanted cluster", "cluster_share", percent),
        ("Years outside it", "years_outside", text),
        ("Portraits, outside their own, clusters alike", "real_years_outside", text),
        ("Distance to the portrait", "identity_distance", text),
        ("The same person, under 0.6", "identity_share", percent),
        ("Nearest portrait is its own", "rank1_share", percent),
        ("Group kept", "group_kept_share", percent),
        ("Reconstruction, dB", "psnr_db", text),
        ("Reconstruction, SSIM", "ssim", text),
        ("There and back, dB", "cycle_psnr_db", text),
        ("There and back, SSIM", "cycle_ssim", text),
        ("Kernel distance", "kernel_distance", text),
        ("Its floor", "kernel_distance_floor", text),
        ("Landmarks, youngest to oldest, %", "displacement_percent", text),
        ("Sharpness", "sharpness_ratio", text),
        ("Interpolations", "interpolations", text),
        ("Rank correlation", "rank_correlation", text),
        ("Pictures without a face", "faces_not_found", text),
    ]

    def split(bins: Sequence[dict[str, Any]], caption: str) -> str:
        rows = ([name, *(text(one[key]) for one in bins)] for name, key, text in lines)
        return table(["", *(one["bin"] for one in bins)], rows, caption)

    details = found["details"]
    return (
        "<h2>By head turn, sharpness, skin, group and source</h2><p>The same figures where "
        "portraits differ. A head's turn is where the nose's tip lies between the outer corners "
        f"of the eyes, 0 in the middle and 1 before a corner: near frontal under {FRONTAL}, far "
        f"turned from {TURNED}. "
        "Sharpness is the portrait's own, in thirds, and so is the luminance of cheeks and nose, "
        "which light changes as much as skin does. Good is no column far below the others.</p>"
        "<div class='pair'>"
        + split(details["by_turn"], "By head turn")
        + split(details["by_sharpness"], "By the portrait's sharpness")
        + "</div><div class='pair'>"
        + split(details["by_skin"], "By the luminance of the skin")
        + split(details["by_label"], "By the group that the data says")
        + "</div>"
        + split(details["by_source"], "By source")
    )


def _judge(m: Measurement) -> str:
    error = m.judge.error
    head = ["Cluster", "n", "Error, years", "Bias, years", "Group right"]
    body = [
        [name, row["portraits"], row["mae_years"], signed(row["bias_years"]),
         percent(row["group_share"])]
        for name, row in error["clusters"].items()
    ]  # fmt: skip
    data = m.judge.information.get("data", ())
    return (
        f"<h2>The judge</h2><p>A small network, trained on {escape(', '.join(data))} at "
        f"{m.judge.information['config']['resolution']} px, with random sharpness, colour and "
        "noise so that softness does not read as age. Its error on "
        f"{error['portraits']} real portraits of the {escape(error['split'])} part, which it never "
        f"saw:</p>{table(head, body)}"
    )


def _portrait(m: Measurement, portraits: PortraitSet, place: int) -> NDArray[np.uint8]:
    return portraits.images[int(m.rows[place])].permute(1, 2, 0).cpu().numpy()
