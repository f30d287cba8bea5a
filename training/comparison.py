"""Several bundles on the same photographs: what each makes of a face, and what it moves."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from model.bundle import Bundle
from model.portraits.align import Alignment, Geometry, align
from model.portraits.detect import Landmarker, pick_face
from model.portraits.errors import NoFace, PortraitError
from model.portraits.parse import Parser, mask_portrait
from model.portraits.photo import read_photo
from model.portraits.portrait import cut_portrait
from training.data import DataError
from training.evaluate import Eye, Floats, Pictures, Subject
from training.machine import processor
from training.metrics import displacement
from training.page import document, percent, sheet_of, table, text
from training.sheets import Sheet


@dataclass(frozen=True, eq=False)
class Sitter:
    """A face in a photograph, not yet cut for any bundle."""

    name: str
    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB"""
    landmarks: NDArray[np.float64] | None
    """(68, 2) in pixels; None where the picture is a portrait already"""

    def portrait(self, bundle: Bundle, parser: Parser) -> Pictures:
        """The masked portrait that the bundle wants, (R, R, 3)."""
        manifest = bundle.manifest
        height, width = self.pixels.shape[:2]
        if self.landmarks is None:
            alignment = Alignment.of_aligned(width, height, manifest.resolution)
        else:
            geometry = Geometry(manifest.resolution, manifest.portrait.scale)
            alignment = align(self.landmarks, geometry)
        cut = cut_portrait(self.pixels, alignment, parser, manifest.portrait.removed)
        return mask_portrait(cut.pixels, cut.levels, manifest.portrait.background)


@dataclass(frozen=True, eq=False)
class Rendering:
    """What one bundle makes of P sitters at its A anchors."""

    bundle: Bundle
    portraits: Pictures
    """(P, R, R, 3)"""
    pictures: Pictures
    """(P, A, R, R, 3)"""
    displacement: Floats
    """(P, A) mean distance of a picture's landmarks from its portrait's, in shares of the side;
    NaN where a face was not found"""
    change: Floats
    """(P, A) mean absolute difference of picture and portrait, in grey levels"""
    picture_s: float
    """Median time of a picture, its share of encoding included"""

    @property
    def anchors(self) -> list[str]:
        return [anchor.name for anchor in self.bundle.manifest.anchors]

    def figures(self) -> dict[str, Any]:
        """What was measured, by target, with what the manifest says of the bundle."""
        manifest = self.bundle.manifest
        targets = {
            name: {
                "displacement_percent": _mean(100 * self.displacement[:, place], 2),
                "faces_found": int(np.isfinite(self.displacement[:, place]).sum()),
                "change_levels": _mean(self.change[:, place], 1),
            }
            for place, name in enumerate(self.anchors)
        }
        return {
            "name": manifest.name,
            "version": manifest.version,
            "method": manifest.method,
            "resolution_px": manifest.resolution,
            "images_seen": manifest.provenance.images_seen,
            "displacement_percent": _mean(100 * self.displacement, 2),
            "change_levels": _mean(self.change, 1),
            "picture_ms": round(1000 * self.picture_s, 2),
            "targets": targets,
            "evaluation": manifest.quality,
        }


def read_sitter(path: Path, landmarker: Landmarker, aligned: bool) -> Sitter:
    """The largest face of a photograph. Raises DataError that names the file and what is wrong."""
    try:
        pixels = read_photo(path.read_bytes()).pixels
        if aligned:
            return Sitter(path.stem, pixels, None)
        faces = landmarker.detect(pixels)
        if not faces:
            raise NoFace
        return Sitter(path.stem, pixels, pick_face(faces, 0).landmarks)
    except PortraitError as error:
        raise DataError(f"{path}: {error}") from error


def rendered(
    bundle: Bundle, sitters: Sequence[Sitter], parser: Parser, landmarker: Landmarker
) -> Rendering:
    """Renders every sitter at every anchor of the default group, on one CPU thread."""
    subject, eye = Subject(bundle), Eye(landmarker)
    group = bundle.manifest.default_group
    portraits, pictures, moved, seconds = [], [], [], []
    subject.anchors(sitters[0].portrait(bundle, parser), group)  # a first run is slow
    for sitter in tqdm(sitters, desc=bundle.manifest.name, disable=None):
        portrait = sitter.portrait(bundle, parser)
        started = time.perf_counter()
        aged = subject.anchors(portrait, group)
        seconds.append((time.perf_counter() - started) / len(aged))
        own, _ = eye(portrait)
        moved.append([displacement(own, eye(picture)[0]) for picture in aged])
        portraits.append(portrait)
        pictures.append(aged)
    portraits, pictures = np.stack(portraits), np.stack(pictures)
    difference = np.abs(pictures.astype(np.float32) - portraits[:, None])
    return Rendering(
        bundle,
        portraits,
        pictures,
        np.array(moved),
        difference.mean((2, 3, 4)),
        median(seconds),
    )


def anchors_of(renderings: Sequence[Rendering]) -> list[str]:
    """The names of all anchors that any of the bundles has, youngest first."""
    found = {
        anchor.name: (anchor.low_years, anchor.high_years)
        for rendering in renderings
        for anchor in rendering.bundle.manifest.anchors
    }
    return sorted(found, key=found.__getitem__)


def finding(renderings: Sequence[Rendering]) -> str:
    """Whether Lifespan moves landmarks more than the others do, in a sentence; empty without both.

    The claim: it changes the head's shape where the others change mostly texture.
    """
    means = {
        rendering.bundle.manifest.name: float(np.nanmean(rendering.displacement))
        for rendering in renderings
        if np.isfinite(rendering.displacement).any()
    }
    methods = {r.bundle.manifest.name: r.bundle.manifest.method for r in renderings}
    lifespan = {name: mean for name, mean in means.items() if methods[name] == "lifespan"}
    others = {name: mean for name, mean in means.items() if methods[name] != "lifespan"}
    if not lifespan or not others:
        return ""
    name, mean = max(lifespan.items(), key=lambda item: item[1])
    rival, most = max(others.items(), key=lambda item: item[1])
    word = "confirmed" if mean > most else "not confirmed"
    return (
        f"That Lifespan changes the head's shape more than the others is {word} here: "
        f"{name} moves landmarks by {100 * mean:.2f} % of the picture on average, "
        f"{rival}, which moves them most of the others, by {100 * most:.2f} %."
    )


def write_comparison(
    folder: Path, renderings: Sequence[Rendering], sitters: Sequence[Sitter]
) -> dict[str, Any]:
    """Writes `comparison.json`, a figure for each bundle, one of all, and a page; returns figures.

    They show the photographs of the sitters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "sitters": [sitter.name for sitter in sitters],
        "finding": finding(renderings),
        "bundles": [rendering.figures() for rendering in renderings],
    }
    (folder / "comparison.json").write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    for rendering in renderings:
        panel(rendering, sitters).save(folder / f"{rendering.bundle.manifest.name}.png")
    together(renderings, sitters).save(folder / "comparison.png")
    (folder / "comparison.html").write_text(page(renderings, sitters, found))
    return found


def panel(rendering: Rendering, sitters: Sequence[Sitter]) -> Image.Image:
    """A row for each sitter: the portrait, then every anchor; landmarks' displacement beneath."""
    figures = rendering.figures()
    sheet = Sheet(1 + len(rendering.anchors), len(sitters))
    sheet.head(["input", *rendering.anchors])
    for row, pictures in enumerate(zip(rendering.portraits, rendering.pictures, strict=True)):
        portrait, aged = pictures
        for column, picture in enumerate([portrait, *aged]):
            sheet.put(row, column, picture)
    moved = [figures["targets"][name]["displacement_percent"] for name in rendering.anchors]
    sheet.foot(["moved, %", *map(text, moved)])
    return sheet.image


def together(renderings: Sequence[Rendering], sitters: Sequence[Sitter]) -> Image.Image:
    """For each sitter a row of every bundle, targets in columns; blank where a bundle lacks one."""
    names = anchors_of(renderings)
    sheet = Sheet(1 + len(names), len(sitters) * len(renderings), labels=True)
    sheet.head(["input", *names])
    for place in range(len(sitters)):
        for order, rendering in enumerate(renderings):
            row = place * len(renderings) + order
            sheet.label(row, rendering.bundle.manifest.name)
            sheet.put(row, 0, rendering.portraits[place])
            for name, picture in zip(rendering.anchors, rendering.pictures[place], strict=True):
                sheet.put(row, 1 + names.index(name), picture)
    return sheet.image


CHIEF = {
    "judged_cluster_share": "Judged at the wanted age",
    "identity_share": "Same person (under 0.6)",
    "rank1_share": "Nearest is its own",
    "reconstruction_psnr_db": "Reconstruction, dB",
    "displacement_percent": "Landmarks 0-2 to 50-69, %",
}
"""What of an evaluation stands in the comparison, if the manifest has it."""


def page(renderings: Sequence[Rendering], sitters: Sequence[Sitter], found: dict[str, Any]) -> str:
    """All of it as one HTML document, pictures inside."""
    bundles, names = found["bundles"], anchors_of(renderings)
    summary = table(
        ["Bundle", "Method", "Side, px", "Images seen", "Landmarks moved, %", "Change, levels",
         "ms a picture", *CHIEF.values()],
        [
            [
                escape(one["name"]), one["method"], one["resolution_px"], f"{one['images_seen']:,}",
                one["displacement_percent"], one["change_levels"], one["picture_ms"],
                *(_measured(one["evaluation"], key) for key in CHIEF),
            ]
            for one in bundles
        ],
        "The last columns are the bundle's own evaluation on portraits held out; a dash is not "
        f"measured. Times on one core of {processor()}.",
    )  # fmt: skip
    by_target = [
        table(
            ["Bundle", *names],
            [
                [escape(one["name"]), *(one["targets"].get(name, {}).get(key) for name in names)]
                for one in bundles
            ],
            caption,
        )
        for key, caption in (
            ("displacement_percent", "Landmarks: mean distance from the portrait's, % of the side"),
            ("change_levels", "Mean absolute change of a pixel, grey levels of 255"),
        )
    ]
    sections = [
        f"<h1>{len(bundles)} models on {len(sitters)} photographs</h1>",
        f"<p>{escape(found['finding'])}</p>" if found["finding"] else "",
        summary,
        "<h2>By target</h2><p>A model that changes the head's shape moves landmarks; one that "
        "changes texture alone changes pixels and leaves them.</p>",
        f'<div class="pair">{"".join(by_target)}</div>',
        f"<h2>Side by side</h2>{sheet_of(together(renderings, sitters))}",
    ]
    for rendering, one in zip(renderings, bundles, strict=True):
        title = f"{one['name']} {one['version']}"
        figures = ", ".join(
            f"{label.lower()} {value}"
            for key, label in CHIEF.items()
            if (value := _measured(one["evaluation"], key)) is not None
        )
        note = figures or "Not evaluated"
        sections.append(
            f"<h2>{escape(title)}</h2>{sheet_of(panel(rendering, sitters))}"
            f'<p class="soft">{note}; {one["picture_ms"]} ms a picture.</p>'
        )
    return document("Comparison", sections)


def _measured(evaluation: dict[str, Any], key: str) -> str | None:
    value = evaluation.get(key)
    if value is None:
        return None
    return percent(value) if key.endswith("_share") else str(value)


def _mean(values: Floats, digits: int) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean()), digits) if known.size else None
