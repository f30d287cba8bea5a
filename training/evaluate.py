"""Measures a bundle on portraits, through the graphs that are served."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from model.bundle import Bundle
from model.portraits.detect import DlibLandmarker, Landmarker
from model.runtime import Provider, open_graph
from training.data import PortraitSet
from training.export import psnr_db

ENLARGED_PX = 256
"""Portraits are enlarged to this side before landmarks are sought: dlib needs faces of 80 px."""


class Subject:
    """A bundle's graphs, ready to render portraits (N, R, R, 3) uint8."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        encoder = bundle.manifest.encoder
        assert encoder is not None
        self.encoder = open_graph(bundle.path / encoder.file, Provider.CPU)
        self.decoder = open_graph(bundle.path / bundle.manifest.decoders[0].file, Provider.CPU)

    def anchors(self, portrait: NDArray[np.uint8], group: str) -> NDArray[np.uint8]:
        """A portrait (R, R, 3) at every anchor: (anchors, R, R, 3)."""
        latents = self.bundle.latents[self.bundle.manifest.groups.index(group)]
        (identity,) = self.encoder.run({"image": portrait[None]})
        index = np.zeros(len(latents), np.int64)
        (pictures,) = self.decoder.run({"identity": identity, "index": index, "latent": latents})
        return pictures.astype(np.uint8)


def landmarks_of(landmarker: Landmarker, portrait: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """The landmarks (68, 2) of a portrait as shares of its side, or None where none are found."""
    size = (ENLARGED_PX, ENLARGED_PX)
    enlarged = Image.fromarray(portrait).resize(size, Image.Resampling.BICUBIC)
    faces = landmarker.detect(np.asarray(enlarged))
    return faces[0].landmarks / ENLARGED_PX if faces else None


def displacement(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Mean distance of two landmark sets (68, 2), in their unit."""
    return float(np.linalg.norm(first - second, axis=1).mean())


def evaluate(
    bundle: Bundle,
    portraits: PortraitSet,
    group: str,
    limit: int = 0,
    landmarker: Landmarker | None = None,
) -> dict[str, Any]:
    """Reconstruction and head shape on masked portraits of known cluster.

    `psnr_db` compares a portrait with itself rendered at its own cluster; `displacement` is the
    mean landmark distance between the youngest and the oldest anchor, in percent of the side,
    beside that between portrait and reconstruction; `share_three_times` counts the portraits where
    the first is at least thrice the second.
    """
    landmarker = landmarker or DlibLandmarker()
    subject = Subject(bundle)
    images = portraits.images.permute(0, 2, 3, 1).cpu().numpy()
    count = len(images)
    picked: Sequence[int] = range(count)
    if 0 < limit < count:
        picked = [int(i) for i in np.linspace(0, count - 1, limit).round()]
    ratios, aged, rebuilt, missed = [], [], [], 0
    for i in tqdm(picked, unit="portrait", disable=None):
        pictures = subject.anchors(images[i], group)
        own = pictures[int(portraits.clusters[i])]
        ratios.append(psnr_db(own, images[i]) or 99.0)
        found = [landmarks_of(landmarker, p) for p in (images[i], own, pictures[0], pictures[-1])]
        if any(points is None for points in found):
            missed += 1
            continue
        real, same, youngest, oldest = (points for points in found if points is not None)
        aged.append(displacement(youngest, oldest))
        rebuilt.append(displacement(real, same))
    aged_array, rebuilt_array = np.array(aged), np.array(rebuilt)
    measured = len(aged) > 0
    return {
        "portraits": len(picked),
        "group": group,
        "reconstruction_psnr_db": round(float(np.mean(ratios)), 2),
        "landmarks_not_found": missed,
        "displacement_percent": round(float(aged_array.mean()) * 100, 2) if measured else None,
        "reconstruction_displacement_percent": (
            round(float(rebuilt_array.mean()) * 100, 2) if measured else None
        ),
        "share_three_times": (
            round(float((aged_array >= 3 * rebuilt_array).mean()), 3) if measured else None
        ),
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes a report as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n")
