"""The bundle: the only thing that crosses from training to serving.

A folder with `manifest.json`, ONNX graphs and `latents.npy`. Nothing is guessed from shapes: the
manifest says what the model is, how a portrait is cut for it, what it was made from and how good
it is, and carries the sha256 of every other file.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.ages import AgeCluster, age_range_years, anchor_weights, check_clusters
from model.portraits.classes import REMOVED, class_indices

MANIFEST = "manifest.json"
LATENTS = "latents.npy"
SCHEMA_VERSION = 1


class BundleError(ValueError):
    """A bundle that cannot be served; the message names the file and the field."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Anchor(_Record):
    """One age cluster the model was trained for."""

    name: str
    low_years: int = Field(ge=0)
    high_years: int = Field(ge=0)
    centre_years: float = Field(ge=0)

    def cluster(self) -> AgeCluster:
        return AgeCluster(self.name, self.low_years, self.high_years, self.centre_years)


class Portrait(_Record):
    """How a photograph becomes what the encoder was trained on."""

    alignment: Literal["ffhq"] = "ffhq"
    scale: float = Field(default=1.0, gt=0)
    """Side of the crop in units of FFHQ's own; the published in-the-wild crop is 2.2 / 1.8."""
    padding: Literal["reflect"] = "reflect"
    resampling: Literal["bicubic"] = "bicubic"
    removed: tuple[str, ...] = REMOVED
    background: int = Field(default=128, ge=0, le=255)

    @model_validator(mode="after")
    def _classes_exist(self) -> Self:
        class_indices(self.removed)
        return self


class Tensor(_Record):
    """Name, type and layout of a graph's input or output; letters are free, numbers fixed."""

    name: str
    dtype: Literal["uint8", "int64", "float32", "float16"]
    layout: tuple[str | int, ...]


class Graph(_Record):
    """An ONNX file of the bundle and its contract."""

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Provenance(_Record):
    """What the weights were made from."""

    data: tuple[str, ...]
    licence: str
    commit: str = ""
    images_seen: int = Field(ge=0)
    trained_on: str = ""


class Parity(_Record):
    """How far the exported graphs are from the network they came from, in grey levels of 255."""

    portraits: int
    max_level_difference: int
    psnr_db: float | None = None
    """Against the float32 network; None where the pictures are equal."""


class Manifest(_Record):
    """Everything a service must know of a model; see the fields."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str
    method: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{0,31}$")
    resolution: int = Field(ge=8)
    anchors: tuple[Anchor, ...]
    groups: tuple[str, ...] = Field(min_length=1)
    default_group: str
    latent_size: int = Field(ge=1)
    continuous: bool
    interpolation_space: Literal["w", "combinations"] | None = "w"
    """Where ages between anchors are mixed: Lifespan's latents, S2GAN's combinations of a basis."""
    portrait: Portrait = Portrait()
    encoder: Graph | None
    decoders: tuple[Graph, ...] = Field(min_length=1)
    """One for all targets, or one per anchor, in the anchors' order."""
    precision: Literal["float32", "float16"]
    """Type of the stored weights; arithmetic is the runtime's choice."""
    preview: bool
    """True while too few images were seen for the model to be called finished."""
    provenance: Provenance
    quality: dict[str, Any] = {}
    parity: Parity
    files: dict[str, str]
    """sha256 of every other file."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_clusters(self.clusters)
        if self.default_group not in self.groups:
            raise ValueError(f"default_group {self.default_group!r} is not among groups")
        if len(self.decoders) not in (1, len(self.anchors)):
            raise ValueError("decoders: one for all anchors or one per anchor is needed")
        if self.continuous and (len(self.decoders) > 1 or self.interpolation_space is None):
            raise ValueError("continuous: needs a single decoder and an interpolation_space")
        graphs = [*self.decoders, *([self.encoder] if self.encoder else [])]
        missing = {LATENTS, *(graph.file for graph in graphs)} - set(self.files)
        if missing:
            raise ValueError(f"files: no hash for {', '.join(sorted(missing))}")
        return self

    @property
    def clusters(self) -> tuple[AgeCluster, ...]:
        return tuple(anchor.cluster() for anchor in self.anchors)

    @property
    def age_range_years(self) -> tuple[float, float]:
        """Ages the model answers for: the first anchor's low bound to the last one's high bound."""
        return age_range_years(self.clusters)


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle."""

    path: Path
    manifest: Manifest
    latents: NDArray[np.float32]
    """(groups, anchors, latent_size)"""
    digest: str
    """sha256 of the manifest, which holds all other hashes: the bundle's identity."""

    def latent_of_weights(self, weights: NDArray[np.floating], group: str) -> NDArray[np.float32]:
        """Anchor weights (..., anchors) -> latents (..., latent_size) of `group`."""
        table = self.latents[self.manifest.groups.index(group)]
        return np.asarray(weights, np.float32) @ table

    def latent_of_age(self, age_years: NDArray[np.floating], group: str) -> NDArray[np.float32]:
        """Ages in years (...) -> latents (..., latent_size), piecewise linear between centres."""
        return self.latent_of_weights(anchor_weights(age_years, self.manifest.clusters), group)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_bundle(path: Path) -> Bundle:
    """Reads and verifies a bundle. Raises BundleError that names the file and the field."""
    manifest_path = path / MANIFEST
    try:
        text = manifest_path.read_bytes()
    except OSError as error:
        raise BundleError(f"{manifest_path}: cannot be read ({error.strerror})") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise BundleError(f"{manifest_path}: {field}: {first['msg']}") from error
    for name, wanted in manifest.files.items():
        file = path / name
        if Path(name).name != name:
            raise BundleError(f"{manifest_path}: files.{name}: must be a plain file name")
        if not file.is_file():
            raise BundleError(f"{file}: is missing (files.{name} of {MANIFEST})")
        if sha256_of(file) != wanted:
            raise BundleError(f"{file}: sha256 differs from files.{name} of {MANIFEST}")
    latents = np.load(path / LATENTS, allow_pickle=False)
    shape = (len(manifest.groups), len(manifest.anchors), manifest.latent_size)
    if latents.shape != shape or latents.dtype != np.float32:
        raise BundleError(
            f"{path / LATENTS}: {latents.dtype} {latents.shape}, expected float32 {shape}"
        )
    return Bundle(path, manifest, latents, hashlib.sha256(text).hexdigest())


def write_bundle(
    path: Path,
    fields: Mapping[str, Any],
    graphs: Mapping[str, bytes],
    latents: NDArray[np.float32],
    notes: Mapping[str, str] | None = None,
) -> Bundle:
    """Writes a bundle folder and opens it again; an existing one is replaced whole or not at all.

    `fields` are the manifest's but `files`; `graphs` the ONNX files by name; `notes` texts that
    travel with the bundle, such as a licence.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for name, data in graphs.items():
            (folder / name).write_bytes(data)
        for name, text in (notes or {}).items():
            (folder / name).write_text(text)
        np.save(folder / LATENTS, np.ascontiguousarray(latents, np.float32))
        hashes = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
        manifest = Manifest.model_validate({**fields, "files": hashes})
        document = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
        (folder / MANIFEST).write_text(document)
        folder.chmod(0o755)
        open_bundle(folder)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
            path.replace(old / path.name)
            folder.replace(path)
            shutil.rmtree(old)
        else:
            folder.replace(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return open_bundle(path)


def graph_contract(
    resolution: int, latent_size: int, encoder: str | None, decoders: Sequence[str]
) -> tuple[Graph | None, tuple[Graph, ...]]:
    """The tensors that every bundle's graphs have, under the given file names."""
    picture = ("R", "R", 3)
    image = Tensor(name="image", dtype="uint8", layout=("M", resolution, resolution, 3))
    identity = Tensor(name="identity", dtype="float32", layout=("M", "..."))
    index = Tensor(name="index", dtype="int64", layout=("N",))
    latent = Tensor(name="latent", dtype="float32", layout=("N", latent_size))
    aged = Tensor(name="image", dtype="uint8", layout=("N", resolution, resolution, picture[2]))
    return (
        Graph(file=encoder, inputs=(image,), outputs=(identity,)) if encoder else None,
        tuple(
            Graph(file=name, inputs=(identity, index, latent), outputs=(aged,)) for name in decoders
        ),
    )
