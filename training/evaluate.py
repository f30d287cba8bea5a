"""Measures a bundle on portraits of known age and group, through the graphs that are served."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from model.ages import film_ages
from model.bundle import Bundle
from model.portraits.detect import PORTRAIT_PX, DlibLandmarker, Face, Landmarker
from model.runtime import Provider, available_threads, open_graph
from training.data import DataError, PortraitSet
from training.descriptor import Descriptor
from training.judge import Judge, Verdict
from training.metrics import head_turn, psnr_db, sharpness, skin_luminance, ssim

Pictures = NDArray[np.uint8]
Floats = NDArray[np.floating]

EQUAL_DB = 99.0
"""What stands for the infinite ratio of two equal pictures."""
WALKS, FRAMES = 48, 60
"""Portraits that are taken through all ages, and in how many frames."""


class Subject:
    """A bundle's graphs, ready to render portraits; threads may share it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        encoder = bundle.manifest.encoder
        self._encoder = encoder and open_graph(bundle.path / encoder.file, Provider.CPU, threads=1)
        self._decoders = [
            open_graph(bundle.path / graph.file, Provider.CPU, threads=1)
            for graph in bundle.manifest.decoders
        ]

    def identities(self, portraits: Pictures) -> NDArray[np.generic]:
        """Portraits (M, R, R, 3) -> what the decoders take of them, (M, ...)."""
        if self._encoder is None:
            return portraits.astype(np.float32)
        (identity,) = self._encoder.run({"image": portraits})
        return identity

    def _decode(
        self, identity: NDArray[np.generic], index: Any, latents: Floats, decoder: int = 0
    ) -> Pictures:
        feeds = {"identity": identity, "index": np.asarray(index, np.int64), "latent": latents}
        (pictures,) = self._decoders[decoder].run(feeds)
        return pictures.astype(np.uint8)

    def _latents(self, group: str) -> NDArray[np.float32]:
        return self.bundle.latents[self.bundle.manifest.groups.index(group)]

    def anchors(self, portrait: Pictures, group: str) -> Pictures:
        """A portrait (R, R, 3) at every anchor: (anchors, R, R, 3)."""
        latents, identity = self._latents(group), self.identities(portrait[None])
        if len(self._decoders) == 1:
            return self._decode(identity, np.zeros(len(latents)), latents)
        each = [self._decode(identity, [0], latent[None], i) for i, latent in enumerate(latents)]
        return np.concatenate(each)

    def back(self, pictures: Pictures, cluster: int, group: str) -> Pictures:
        """Pictures (N, R, R, 3) rendered again at one anchor."""
        latents = np.tile(self._latents(group)[cluster], (len(pictures), 1))
        decoder = cluster if len(self._decoders) > 1 else 0
        return self._decode(self.identities(pictures), np.arange(len(pictures)), latents, decoder)

    def film_ages(self, frames: int = FRAMES) -> NDArray[np.float64]:
        """The ages (frames,) of `walk`."""
        clusters = self.bundle.manifest.clusters
        return film_ages(clusters[0].centre_years, clusters[-1].centre_years, frames, clusters)

    def walk(self, portrait: Pictures, group: str, frames: int = FRAMES) -> Pictures:
        """A portrait from first to last anchor at the anchors' pace: (frames, R, R, 3)."""
        latents = self.bundle.latent_of_age(self.film_ages(frames), group)
        return self._decode(self.identities(portrait[None]), np.zeros(frames), latents)


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was seen of N portraits at A anchors. NaN stands where a face was not found.

    Landmarks are in shares of the side. `figures.figures` makes figures of it.
    """

    bundle: Bundle
    judge: Judge
    group: str
    """The bundle's group that was asked for."""
    rows: NDArray[np.int64]
    """(N,) places in the portrait set"""
    clusters: NDArray[np.int64]
    """(N,) the portraits' own"""
    labels: NDArray[np.str_]
    """(N,) the groups that the data says"""
    sources: NDArray[np.str_]
    """(N,) the collections that the portraits are from"""
    skin: Floats
    """(N,) see `metrics.skin_luminance`; NaN where no face was found"""
    turn: Floats
    """(N,) see `metrics.head_turn`"""
    sharpness: Floats
    """(N, 1 + A): of the portrait, then of the pictures; so too the next four"""
    years: Floats
    """(N, 1 + A) judged ages"""
    kind: NDArray[np.int64]
    """(N, 1 + A) judged groups, places in `judge.GROUPS`"""
    features: Floats
    """(N, 1 + A, 128) of the judge"""
    landmarks: Floats
    """(N, 1 + A, 68, 2)"""
    descriptors: Floats
    """(N, 1 + A, 128) of dlib"""
    psnr_db: Floats
    ssim: Floats
    """(N,) portrait against itself rendered at its own anchor"""
    cycle_psnr_db: Floats
    cycle_ssim: Floats
    """(N, A) portrait against anchor and back to its own; NaN at its own"""
    own_years: Floats
    own_kind: Floats
    """(N, A) judged where the portrait's own group was asked for; NaN where that is not another"""
    walked: NDArray[np.int64]
    """(W,) which of the N portraits were taken through all ages"""
    walk_years: Floats
    """(W, FRAMES) judged ages along an interpolation"""
    walk_steps: Floats
    """(W, FRAMES - 1) mean difference of neighbouring frames in grey levels"""


class Eye:
    """Looks at portraits and pictures: faces, landmarks and descriptors."""

    def __init__(self, landmarker: Landmarker) -> None:
        self.landmarker = landmarker
        self.descriptor = Descriptor()

    def __call__(self, picture: Pictures) -> tuple[Floats, Floats]:
        """Landmarks (68, 2) and descriptor (128,) of a portrait (R, R, 3); NaN without a face."""
        size = (PORTRAIT_PX, PORTRAIT_PX)
        enlarged = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
        faces: list[Face] = self.landmarker.detect(enlarged)
        if not faces:
            return np.full((68, 2), np.nan), np.full(128, np.nan)
        return faces[0].landmarks / PORTRAIT_PX, self.descriptor(enlarged, faces[0])


def measure(
    bundle: Bundle,
    portraits: PortraitSet,
    group: str,
    limit: int = 0,
    landmarker: Landmarker | None = None,
    judge: Judge | None = None,
) -> Measurement:
    """Renders masked portraits of known cluster and measures the pictures.

    Where `group` is one of the data's, portraits of the others are left out. `limit` takes so many
    of the rest, evenly; 0 takes all.
    """
    subject, eye = Subject(bundle), Eye(landmarker or DlibLandmarker())
    judge = judge or Judge()
    images = portraits.images.permute(0, 2, 3, 1).cpu().numpy()
    labels = np.array([row.gender for row in portraits.rows])
    sources = np.array([row.source for row in portraits.rows])
    rows = np.arange(len(images))
    groups = portraits.config.groups
    if len(groups) > 1 and group in groups:  # one alone means everybody
        rows = rows[labels == group]
    if not len(rows):
        raise DataError(f"no portrait of group {group} to measure")
    if 0 < limit < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]
    clusters = portraits.clusters.numpy()

    def look(row: int) -> dict[str, Any]:
        return _look(subject, eye, judge, images[row], int(clusters[row]), str(labels[row]), group)

    def walk(row: int) -> dict[str, Any]:
        frames = subject.walk(images[row], group)
        steps = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
        return {"walk_years": judge(frames).age_years, "walk_steps": steps}

    seen = _in_threads(look, rows, "portraits")
    walked = np.linspace(0, len(rows) - 1, min(WALKS, len(rows))).round().astype(int)
    walks: dict[str, NDArray[Any]] = {
        "walk_years": np.empty((0, FRAMES)),
        "walk_steps": np.empty((0, FRAMES - 1)),
    }
    if bundle.manifest.continuous:
        walks = _in_threads(walk, rows[walked], "interpolations")
    return Measurement(
        bundle=bundle,
        judge=judge,
        group=group,
        rows=rows,
        clusters=clusters[rows],
        labels=labels[rows],
        sources=sources[rows],
        **seen,
        walked=walked[: len(walks["walk_years"])],
        **walks,
    )


def _in_threads(
    look: Callable[[int], dict[str, Any]], rows: NDArray[np.int64], what: str
) -> dict[str, NDArray[Any]]:
    """Each value of what `look` finds, stacked over the rows."""
    with ThreadPoolExecutor(available_threads()) as pool:
        found = list(tqdm(pool.map(look, rows.tolist()), desc=what, total=len(rows), disable=None))
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def _look(
    subject: Subject,
    eye: Eye,
    judge: Judge,
    portrait: Pictures,
    cluster: int,
    label: str,
    group: str,
) -> dict[str, Any]:
    aged = subject.anchors(portrait, group)
    everything = np.concatenate([portrait[None], aged])
    verdict: Verdict = judge(everything)
    landmarks, descriptors = zip(*map(eye, everything), strict=True)
    cycled = subject.back(aged, cluster, group)
    cycle_db = np.array([psnr_db(picture, portrait) or EQUAL_DB for picture in cycled])
    cycle_ssim = np.array([ssim(picture, portrait) for picture in cycled])
    cycle_db[cluster] = cycle_ssim[cluster] = np.nan
    own_years, own_kind = np.full(len(aged), np.nan), np.full(len(aged), np.nan)
    if label != group and label in subject.bundle.manifest.groups:
        own = judge(subject.anchors(portrait, label))
        own_years, own_kind = own.age_years, own.group.argmax(1).astype(float)
    return {
        "turn": head_turn(landmarks[0]),
        "skin": skin_luminance(portrait, landmarks[0]),
        "sharpness": np.array([sharpness(picture) for picture in everything]),
        "years": verdict.age_years,
        "kind": verdict.group.argmax(1),
        "features": verdict.features,
        "landmarks": np.stack(landmarks),
        "descriptors": np.stack(descriptors),
        "psnr_db": psnr_db(aged[cluster], portrait) or EQUAL_DB,
        "ssim": ssim(aged[cluster], portrait),
        "cycle_psnr_db": cycle_db,
        "cycle_ssim": cycle_ssim,
        "own_years": own_years,
        "own_kind": own_kind,
    }
