"""The report: figures and pictures of an evaluation on one page that needs no other file."""

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data import PortraitSet
from training.descriptor import SAME_PERSON
from training.evaluate import Measurement, Subject
from training.figures import LEAST, identity_distances, years_outside
from training.judge import GROUPS
from training.metrics import FRONTAL, TURNED

WORST = 4
"""Portraits shown of each kind that the bundle does worst."""
STRIP = 12
"""Frames shown of an interpolation."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --page: #fbfaf8; --card: #fff;
  --line: #dcdad5; --mark: #b4530a; --real: #2a6fb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --soft: #a3a9b0; --page: #15171a;
  --card: #1e2125; --line: #363a40; --mark: #f0954a; --real: #6fb1ea; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem } h2 { margin: 3rem 0 .25rem; font-size: 1.2rem }
p { margin: .25rem 0 .9rem; max-width: 46rem } .soft, figcaption, caption { color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr));
  gap: .75rem; margin: 1.25rem 0 }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .9rem }
.tile b { display: block; font-size: 1.55rem; font-weight: 600 } .tile span { font-size: .85rem }
.tile small { display: block; color: var(--soft); font-size: .8rem; line-height: 1.35 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: .9rem;
  font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line) }
th { font-weight: 600 } th:first-child, td:first-child { text-align: left; padding-left: 0 }
caption { text-align: left; font-size: .85rem; padding-bottom: .3rem }
.pair { display: flex; flex-wrap: wrap; gap: 0 3rem }
.heat td:not(:first-child) { text-align: center; min-width: 3.4rem;
  background: color-mix(in srgb, var(--mark) calc(var(--share) * 75%), transparent) }
.heat th { text-align: center }
.row { display: flex; gap: .3rem; margin-bottom: .6rem }
figure { margin: 0; flex: none; width: 8.6rem } figure img { width: 100%; border-radius: .3rem;
  display: block } figcaption { font-size: .72rem; line-height: 1.3; text-align: center }
.row:not(.strip) figure:first-child { margin-right: .6rem }
.strip figure { width: 5rem }
svg { max-width: 100%; height: auto; display: block } svg text { fill: var(--soft);
  font: 12px system-ui, sans-serif }
.key { white-space: nowrap } summary { cursor: pointer; margin: .5rem 0; color: var(--soft) }
.key i { display: inline-block; width: .75rem; height: .75rem; border-radius: 50%;
  vertical-align: -1px; margin: 0 .35rem 0 .6rem }
"""


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
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}: evaluation</title>\n<style>{STYLE}</style>\n"
        + "\n".join(sections)
        + "\n</html>\n"
    )


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
        f"{escape(error['split'])} part it errs by <b>{_text(error['mae_years'])} years</b> on "
        f"average (bias {_signed(error['bias_years'])}) and names the right cluster for "
        f"{_percent(error['cluster_mean_share'])} of each: no age below is surer. Shares of "
        "identity count a picture without a face as a failure.</p>"
    )


def _tiles(found: dict[str, Any]) -> str:
    ranges = found["details"]["intervals"]
    error = found["details"]["judge"]["error"]

    def within(name: str, text: Callable[[Any], str]) -> str:
        return f"95 %: {text(ranges[name][0])} to {text(ranges[name][1])}. " if ranges[name] else ""

    real = _percent(error["cluster_mean_share"])
    chance = 1 / len(found["details"]["clusters"]["names"])
    walks = found["details"]["interpolation"]
    travelled = ""
    if walks:
        travelled = f"Judged {walks['mean_years'][0]} to {walks['mean_years'][-1]} years on average"
    tiles = [
        (
            "Judged in the wanted cluster",
            _percent(found["judged_cluster_share"]),
            within("judged_cluster_share", _percent)
            + f"Real portraits: {real}; chance: {_percent(chance)}",
        ),
        (
            "The same person",
            _percent(found["identity_share"]),
            within("identity_share", _percent)
            + f"dlib distance under {SAME_PERSON}; mean {_text(found['identity_distance'])}",
        ),
        (
            "Nearest portrait is its own",
            _percent(found["rank1_share"]),
            within("rank1_share", _percent) + f"Among {found['portraits']} portraits",
        ),
        (
            "Group kept",
            _percent(found["group_kept_share"]),
            f"The judge on real portraits: {_percent(error['group_share'])}",
        ),
        (
            "Reconstruction",
            f"{_text(found['reconstruction_psnr_db'])} dB",
            within("reconstruction_psnr_db", _text) + f"SSIM {_text(found['reconstruction_ssim'])}",
        ),
        (
            "There and back",
            f"{_text(found['cycle_psnr_db'])} dB",
            f"SSIM {_text(found['cycle_ssim'])}",
        ),
        (
            "Landmarks, youngest to oldest",
            f"{_text(found['displacement_percent'])} %",
            within("displacement_percent", _text)
            + f"Reconstruction {_text(found['reconstruction_displacement_percent'])} %; three "
            f"times that in {_percent(found['share_three_times'])}",
        ),
        (
            "Sharpness",
            f"× {_text(found['sharpness_ratio'])}",
            "Of the portrait's; 1 is as sharp",
        ),
        (
            "Age rises along interpolations",
            _text(found["interpolation_rank_correlation"]),
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
    figures = "".join(_figure(p, c) for p, c in zip(pictures, captions, strict=True))
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
            _range(row["interval"]),
            row["real"]["portraits"],
            spread(row["real"]),
            row["judge_mae_years"],
            _signed(row["judge_bias_years"]),
        ]
        for row in rows
    ]
    return _table(head, body)


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
    table = found["details"]["clusters"]
    names, real = table["names"], table["real_portraits"]

    def heat(caption: str, shares: Sequence[Sequence[float | None]], labels: Sequence[str]) -> str:
        lines = "".join(
            f"<tr><td>{label}</td>"
            + "".join(f'<td style="--share:{share or 0}">{_percent(share)}</td>' for share in line)
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
        + heat(f"Pictures, {table['portraits']} a row", table["table"], names)
        + heat(
            "Real portraits of this part",
            table["real_table"],
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
            _range(row["interval"]),
            f"<b>{_percent(row['share'])}</b>",
            _percent(row["stranger_share"]),
            _percent(row["impostor_share"]),
            row["impostor_pairs"],
            _percent(row["rank1_share"]),
        ]
        for row in found["details"]["identity"]
    ]
    return (
        "<h2>Identity</h2><p>Distance of dlib's descriptor between picture and portrait; under 0.6 "
        "dlib calls two adults one person. Good is a share well above that of strangers: pictures "
        "against other portraits of their own portrait's cluster and group. Impostors are pairs of "
        "different real people of this anchor's cluster and group that fall under 0.6 as well: "
        "where they are many, as among children, the threshold says little. A bundle that changes "
        "nothing scores best here, so read it beside the ages.</p>" + _table(head, body)
    )


def _groups(found: dict[str, Any]) -> str:
    head = ["Anchor", "n", "Kept", "Kept, own group asked for", "Real n", "Judged right of real"]
    body = [
        [
            row["anchor"],
            row["portraits"],
            f"<b>{_percent(row['kept_share'])}</b>",
            _percent(row["own_group_kept_share"]),
            row["real_portraits"],
            _percent(row["real_share"]),
        ]
        for row in found["details"]["groups"]
    ]
    return (
        "<h2>Group kept</h2><p>Pictures judged of the group that the data says of their portrait. "
        "The judge itself is unsure of children.</p>" + _table(head, body)
    )


def _reproduction(found: dict[str, Any]) -> str:
    head = ["Anchor", "n", "PSNR, dB", "SSIM", "Cycles", "Cycle PSNR, dB", "Cycle SSIM"]
    keys = ["anchor", "portraits", "psnr_db", "ssim", "cycles", "cycle_psnr_db", "cycle_ssim"]
    return (
        "<h2>Reconstruction and cycle</h2><p>Portraits rendered at their own anchor, and portraits "
        "of other clusters rendered here and then back at their own. Over the whole masked "
        "portrait, grey included.</p>"
        + _table(head, ([row[key] for key in keys] for row in found["details"]["reproduction"]))
    )


def _distribution(found: dict[str, Any]) -> str:
    rows = found["details"]["distribution"]
    body = [
        [
            row["anchor"] or "all",
            row["label"] or "all",
            row["real"],
            row["generated"],
            f"<b>{_text(row['distance'])}</b>",
            row["floor"],
        ]
        for row in rows
    ]
    head = ["Anchor", "Group", "Real n", "Pictures n", "Distance", "Floor"]
    table = _table(head, body) if rows else f"<p>No set holds {LEAST} pictures.</p>"
    return (
        "<h2>Distribution</h2><p>Kernel distance (as KID, times 1000) between the judge's features "
        "of real portraits of the cluster and of pictures made of portraits of other clusters. The "
        "floor is what chance makes of two halves of the real portraits (95th percentile). Only "
        f"sets of {LEAST} and more are compared; all is the mean over the anchors, small ones "
        "included. Good is near the floor. The judge learned to overlook sharpness, so softness "
        f"does not show here.</p>{table}"
    )


def _texture(found: dict[str, Any]) -> str:
    head = ["Anchor", "n", "Sharpness to portrait", "Sharpness to real", "Landmarks moved, %"]
    keys = ["anchor", "portraits", "sharpness_ratio", "sharpness_to_real", "displacement_percent"]
    return (
        "<h2>Sharpness and shape</h2><p>Variance of the Laplacian in the middle of the picture: "
        "the median ratio to the portrait's, and the ratio of medians to real portraits of the "
        "cluster. 1 is as sharp; far above 1 means speckle. Landmarks: mean distance from the "
        "portrait's, in percent of the side.</p>"
        + _table(head, ([row[key] for key in keys] for row in found["details"]["texture"]))
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
            f"<b>{_text(walks['rank_correlation'])}</b>",
            _range(walks["interval"]),
            f"{_text(walks['largest_fall_years'])} years",
            f"{_text(walks['largest_jump_years'])} years",
            f"{_text(walks['largest_step_levels'])} levels",
            f"{_text(walks['mean_step_levels'])} levels",
        ]
    ]
    subject = Subject(m.bundle)
    centres = [anchor.centre_years for anchor in m.bundle.manifest.anchors]
    ages = np.linspace(centres[0], centres[-1], STRIP)
    strips = []
    for place in (len(m.rows) // 3, 2 * len(m.rows) // 3):
        frames = subject.walk(_portrait(m, portraits, place), m.group, STRIP)
        years = m.judge(frames).age_years
        figures = "".join(
            _figure(frame, f"{age:.0f}<br>judged {judged:.0f}")
            for frame, age, judged in zip(frames, ages, years, strict=True)
        )
        strips.append(f'<div class="row strip">{figures}</div>')
    return (
        "<h2>Interpolation</h2><p>Portraits taken from the first anchor's age to the last one's in "
        "equal steps. Rank correlation of judged age with time, how far the judged age falls back, "
        "its largest jump between neighbouring frames, and how far neighbouring frames differ; "
        "means over portraits.</p>"
        f"{_table(head, body)}{_walk_chart(walks, centres)}"
        f'<div class="scroll">{"".join(strips)}</div>'
    )


def _walk_chart(walks: dict[str, Any], centres: Sequence[float]) -> str:
    """Mean judged age over the age asked for, with the line where both are equal."""
    width, height, left, bottom = 420, 260, 40, 230
    years = walks["mean_years"]
    asked = np.linspace(centres[0], centres[-1], len(years))

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
        ("n", "portraits", _text),
        ("Judged in the wanted cluster", "cluster_share", _percent),
        ("Years outside it", "years_outside", _text),
        ("Distance to the portrait", "identity_distance", _text),
        ("The same person, under 0.6", "identity_share", _percent),
        ("Nearest portrait is its own", "rank1_share", _percent),
        ("Group kept", "group_kept_share", _percent),
        ("Reconstruction, dB", "psnr_db", _text),
        ("Reconstruction, SSIM", "ssim", _text),
        ("There and back, dB", "cycle_psnr_db", _text),
        ("There and back, SSIM", "cycle_ssim", _text),
        ("Kernel distance", "kernel_distance", _text),
        ("Its floor", "kernel_distance_floor", _text),
        ("Landmarks, youngest to oldest, %", "displacement_percent", _text),
        ("Sharpness", "sharpness_ratio", _text),
        ("Interpolations", "interpolations", _text),
        ("Rank correlation", "rank_correlation", _text),
        ("Pictures without a face", "faces_not_found", _text),
    ]

    def table(bins: Sequence[dict[str, Any]], caption: str) -> str:
        rows = ([name, *(text(one[key]) for one in bins)] for name, key, text in lines)
        return _table(["", *(one["bin"] for one in bins)], rows, caption)

    details = found["details"]
    return (
        "<h2>By head turn and by sharpness</h2><p>The same figures where portraits differ. A "
        "head's turn is where the nose's tip lies between the outer corners of the eyes, 0 in the "
        f"middle and 1 before a corner: near frontal under {FRONTAL}, far turned from {TURNED}. "
        "Sharpness is the portrait's own, in thirds. Good is no column far below the others.</p>"
        "<div class='pair'>"
        + table(details["by_turn"], "By head turn")
        + table(details["by_sharpness"], "By the portrait's sharpness")
        + "</div>"
    )


def _judge(m: Measurement) -> str:
    error = m.judge.error
    head = ["Cluster", "n", "Error, years", "Bias, years", "Group right"]
    body = [
        [name, row["portraits"], row["mae_years"], _signed(row["bias_years"]),
         _percent(row["group_share"])]
        for name, row in error["clusters"].items()
    ]  # fmt: skip
    data = m.judge.information.get("data", ())
    return (
        f"<h2>The judge</h2><p>A small network, trained on {escape(', '.join(data))} at "
        f"{m.judge.information['config']['resolution']} px, with random sharpness, colour and "
        "noise so that softness does not read as age. Its error on "
        f"{error['portraits']} real portraits of the {escape(error['split'])} part, which it never "
        f"saw:</p>{_table(head, body)}"
    )


def _portrait(m: Measurement, portraits: PortraitSet, place: int) -> NDArray[np.uint8]:
    return portraits.images[int(m.rows[place])].permute(1, 2, 0).cpu().numpy()


def _figure(picture: NDArray[np.uint8], caption: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img alt="" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    lines = "".join(
        "<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    titles = "".join(f"<th>{name}</th>" for name in head)
    named = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="scroll"><table>{named}<tr>{titles}</tr>{lines}</table></div>'


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


def _range(ends: Sequence[float] | None) -> str:
    return "–" if ends is None else f"{ends[0]} to {ends[1]}"
