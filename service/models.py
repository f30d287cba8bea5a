"""The models served: bundles with their graphs opened."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.bundle import MANIFEST, Bundle, BundleError, Manifest, Portrait, open_bundle
from model.runtime import Graph, Provider, open_graph
from service.batcher import Lane
from service.costs import Costs
from service.observability import Stage

BUNDLED_DEFAULT = "lifespan"
LEAST_AGREEMENT_DB = 40.0
"""Pictures in bfloat16 that agree less with those in float32 are not good enough."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cut:
    """How a model wants its portraits; models that want the same share them."""

    portrait: Portrait
    resolution: int

    @cached_property
    def key(self) -> str:
        """The same for equal cuts, in any process."""
        return f"{self.resolution}:{self.portrait.model_dump_json()}"


@dataclass(frozen=True, eq=False)
class DecodeJob:
    """One picture to decode. Jobs of one face carry the same `identity_key`."""

    identity_key: tuple[str, str]
    identity: NDArray[np.generic]
    latent: NDArray[np.float32]


@dataclass(frozen=True)
class Lanes:
    """Where a model's jobs queue."""

    encode: Lane[NDArray[np.uint8], NDArray[np.generic]] | None
    decode: tuple[Lane[DecodeJob, NDArray[np.uint8]], ...]

    @property
    def all(self) -> tuple[Lane, ...]:
        """Those there are."""
        return self.decode if self.encode is None else (self.encode, *self.decode)


class Model:
    """A bundle that can be run. Methods block: they belong on the accelerator's thread.

    `lanes` are where its jobs queue, by graph: the encoder's, where there is one, and decoders'.
    """

    def __init__(
        self, bundle: Bundle, provider: Provider, threads: int | None, max_batch: int = 8
    ) -> None:
        """Raises ProviderError where a graph does not open on `provider`."""
        self.bundle = bundle
        self._open(provider, threads)
        if any(graph.precision == "bfloat16" for graph in self._graphs):
            self._check_agreement(provider, threads)
        encoder = self._encoder
        self._grey_identity: NDArray[np.generic] | None = None
        self.lanes = Lanes(
            Lane(self.name, Stage.ENCODE, self.encode, Costs.unmeasured(max_batch))
            if encoder
            else None,
            tuple(
                Lane(
                    self.name,
                    Stage.DECODE,
                    lambda jobs, size, decoder=decoder: self.decode(jobs, decoder, size),
                    Costs.unmeasured(max_batch),
                )
                for decoder in range(len(self._decoders))
            ),
        )

    def _open(self, provider: Provider, threads: int | None, bf16: bool = True) -> None:
        path, encoder = self.bundle.path, self.manifest.encoder
        self._encoder: Graph | None = encoder and open_graph(
            path / encoder.file, provider, threads, bf16=bf16
        )
        self._decoders: list[Graph] = [
            open_graph(path / graph.file, provider, threads, bf16=bf16)
            for graph in self.manifest.decoders
        ]

    def _check_agreement(self, provider: Provider, threads: int | None) -> None:
        """Keeps bfloat16 only where its pictures agree with those in float32."""
        rounded = self._trial_pictures()
        self._open(provider, threads, bf16=False)
        agreement_db = psnr_db(rounded, self._trial_pictures())
        told = "%s in bfloat16 agrees with float32 to %.1f dB: %s is taken"
        if agreement_db < LEAST_AGREEMENT_DB:
            _log.warning(told, self.name, agreement_db, "float32")
        else:
            _log.info(told, self.name, agreement_db, "bfloat16")
            self._open(provider, threads)

    @property
    def _graphs(self) -> list[Graph]:
        return self._decoders if self._encoder is None else [self._encoder, *self._decoders]

    def _trial_pictures(self) -> NDArray[np.uint8]:
        """Pictures (N, R, R, 3) of two portraits of soft colours, at each anchor."""
        side, draws = self.manifest.resolution, np.random.default_rng(0)
        pictures = []
        for name in "ab":
            coarse = draws.integers(0, 255, (8, 8, 3), np.uint8)
            portrait = np.asarray(Image.fromarray(coarse).resize((side, side)))
            identity = self.encode([portrait], 1)[0] if self.has_encoder else portrait
            for anchor, latent in enumerate(self.bundle.latents[0]):
                job = DecodeJob((name, ""), identity, latent)
                pictures += self.decode([job], anchor if self.decoders > 1 else 0, 1)
        return np.stack(pictures)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def name(self) -> str:
        """The model's name, which requests use."""
        return self.manifest.name

    @cached_property
    def cut(self) -> Cut:
        """How this model wants its portraits."""
        return Cut(self.manifest.portrait, self.manifest.resolution)

    @property
    def provider(self) -> Provider:
        """The execution provider that really runs the decoder."""
        return self._decoders[0].provider

    @property
    def has_encoder(self) -> bool:
        """False where the method has nothing to encode, and decoders take portraits."""
        return self._encoder is not None

    @property
    def decoders(self) -> int:
        """Number of decoders: one, or one per anchor."""
        return len(self._decoders)

    def encode(
        self, portraits: Sequence[NDArray[np.uint8]], size: int
    ) -> list[NDArray[np.generic]]:
        """Masked portraits (R, R, 3) -> identities, without their batch axis, by a run of `size`.

        Rows beyond the portraits repeat the first, so that only known shapes are run.
        """
        assert self._encoder is not None
        rows = np.stack(_padded(portraits, size))
        (identities,) = self._encoder.run({self._encoder.inputs[0]: rows})
        # Copies, so that a cached identity does not keep its whole batch alive.
        return [identity.copy() for identity in identities[: len(portraits)]]

    def decode(self, jobs: Sequence[DecodeJob], decoder: int, size: int) -> list[NDArray[np.uint8]]:
        """Pictures (R, R, 3), one per job, by a run of `size`; jobs of one face share one identity.

        A run holds one identity or `size` of them, so that only two shapes of a size are run.
        """
        rows: dict[tuple[str, str], int] = {}
        identities = []
        for job in jobs:
            if job.identity_key not in rows:
                rows[job.identity_key] = len(identities)
                identities.append(job.identity)
        if len(identities) > 1:
            identities = _padded(identities, size)
        padded = _padded(jobs, size)
        contract = self.manifest.decoders[decoder].inputs
        values = (
            # Where there is no encoder an identity is a portrait, of another type than asked.
            np.stack(identities).astype(contract[0].dtype, copy=False),
            np.array([rows[job.identity_key] for job in padded], np.int64),
            np.stack([job.latent for job in padded]),
        )
        feeds = {tensor.name: value for tensor, value in zip(contract, values, strict=True)}
        (pictures,) = self._decoders[decoder].run(feeds)
        return [np.asarray(picture, np.uint8) for picture in pictures[: len(jobs)]]

    def rehearse_encoding(self, size: int) -> None:
        """Encodes grey portraits in a run of `size`."""
        self.encode([self._grey] * size, size)

    def rehearse_decoding(self, decoder: int, size: int, faces: int | None = None) -> None:
        """Decodes grey pictures in a run of `size`, of as many faces unless `faces` says otherwise.

        Raises BundleError for pictures of another size than the manifest says.
        """
        for picture in self.decode(self._grey_jobs(size, faces or size), decoder, size):
            if picture.shape != self._grey.shape:
                raise BundleError(
                    f"{self.bundle.path / self.manifest.decoders[decoder].file}: gives "
                    f"{picture.shape}, expected {self._grey.shape}"
                )

    @property
    def _grey(self) -> NDArray[np.uint8]:
        side = self.manifest.resolution
        return np.full((side, side, 3), self.manifest.portrait.background, np.uint8)

    def _grey_jobs(self, count: int, faces: int) -> list[DecodeJob]:
        if self._grey_identity is None:
            self._grey_identity = (
                self.encode([self._grey], 1)[0] if self.has_encoder else self._grey
            )
        latent = self.bundle.latents[0, 0]
        return [
            DecodeJob(("", str(row % faces)), self._grey_identity, latent) for row in range(count)
        ]


def psnr_db(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of pictures, in dB; infinite where they are equal."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _padded(rows: Sequence[T], size: int) -> list[T]:
    """`rows`, and the first of them again up to `size`."""
    return [*rows, *[rows[0]] * (size - len(rows))]


class Models(Mapping[str, Model]):
    """Models by name, in order of name. `default` answers where a request names none."""

    def __init__(self, models: Sequence[Model], default: str = "") -> None:
        """Raises BundleError for two models of one name, for none, or for an unknown default."""
        self._models: dict[str, Model] = {}
        for model in sorted(models, key=lambda model: model.name):
            if model.name in self._models:
                raise BundleError(
                    f"{model.bundle.path}: name: {model.name} is also the name of "
                    f"{self._models[model.name].bundle.path}"
                )
            self._models[model.name] = model
        names = list(self._models)
        if not names:
            raise BundleError("there is no model to serve")
        if not default and len(names) > 1:
            default = BUNDLED_DEFAULT
        self.default = default or names[0]
        if self.default not in self._models:
            raise BundleError(
                f"default_model: {self.default!r} is not among the models: {', '.join(names)}"
            )

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self):
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


def open_models(
    folders: Iterable[Path],
    provider: Provider,
    threads: int | None = None,
    default: str = "",
    max_batch: int = 8,
    known: Iterable[Model] = (),
) -> Models:
    """Opens every bundle in `folders`: each of their subfolders with a manifest, verified.

    Bundles that one of `known` was opened from are not opened again. Raises BundleError or
    ProviderError that names what is wrong.
    """
    paths = []
    for folder in folders:
        if not folder.is_dir():
            raise BundleError(f"{folder}: there is no such folder of models")
        found = _bundle_paths(folder)
        if not found:
            raise BundleError(f"{folder}: there is no bundle in this folder")
        paths += found
    opened = {(model.bundle.path, model.bundle.digest): model for model in known}
    models = []
    for path in paths:
        bundle = open_bundle(path)
        model = opened.get((bundle.path, bundle.digest))
        models.append(model or Model(bundle, provider, threads, max_batch))
    return Models(models, default)


def appearance_of(folders: Iterable[Path]) -> frozenset[tuple[Path, int, int]]:
    """What changes where a bundle in `folders` comes, goes or changes: cheap to look at."""
    found = set()
    for folder in folders:
        for path in _bundle_paths(folder):
            with suppress(FileNotFoundError):
                about = (path / MANIFEST).stat()
                found.add((path, about.st_mtime_ns, about.st_ino))
    return frozenset(found)


def _bundle_paths(folder: Path) -> list[Path]:
    paths = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return [path for path in paths if not path.name.startswith(".")]
