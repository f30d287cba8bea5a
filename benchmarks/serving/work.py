"""The work that every server does: an aligned portrait's bytes in, a PNG of it at an anchor out."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import model
from model.bundle import open_bundle
from model.portraits.align import Alignment
from model.portraits.parse import Parser, mask_portrait
from model.portraits.photo import read_photo
from model.portraits.portrait import cut_portrait
from model.runtime import Provider, open_graph

BUNDLES = Path(model.__file__).parent / "bundles"
Pixels = NDArray[np.uint8]


class Ageing:
    """The work in its three steps, on the CPU; a server puts its own batching between them.

    The bundle is that of the environment variable BUNDLE, the bundled Lifespan model unless set;
    the parser that of PARSER likewise.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.bundle = open_bundle(Path(os.environ.get("BUNDLE", BUNDLES / "lifespan")))
        manifest = self.bundle.manifest
        assert manifest.encoder is not None
        assert len(manifest.decoders) == 1
        path = self.bundle.path
        parser = Path(os.environ.get("PARSER", BUNDLES / "parser" / "parser.onnx"))
        self._parser = Parser.open(parser, threads=1)
        self._encoder = open_graph(path / manifest.encoder.file, Provider.CPU, threads)
        self._decoder = open_graph(path / manifest.decoders[0].file, Provider.CPU, threads)
        self._latents = self.bundle.latents[manifest.groups.index(manifest.default_group)]
        self._anchors = [anchor.name for anchor in manifest.anchors]

    def read(self, data: bytes) -> Pixels:
        """A picture file -> the masked portrait (R, R, 3). Raises PortraitError."""
        manifest = self.bundle.manifest
        photo = read_photo(data).pixels
        alignment = Alignment.of_aligned(photo.shape[1], photo.shape[0], manifest.resolution)
        cut = cut_portrait(photo, alignment, self._parser, manifest.portrait.removed)
        return mask_portrait(cut.pixels, cut.levels, manifest.portrait.background)

    def run(self, portraits: Sequence[Pixels], targets: Sequence[str]) -> Pixels:
        """Portraits, each at its target -> pictures (N, R, R, 3)."""
        (identities,) = self._encoder.run({"image": np.stack(portraits)})
        latents = np.stack([self._latents[self._anchors.index(target)] for target in targets])
        index = np.arange(len(portraits))
        (pictures,) = self._decoder.run({"identity": identities, "index": index, "latent": latents})
        return pictures.astype(np.uint8)

    def write(self, picture: Pixels) -> bytes:
        """The picture as PNG, as the service writes it."""
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
