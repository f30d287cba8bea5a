"""Which part of a portrait is what: 19 classes, and the grey background they lead to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.portraits.classes import CLASSES, class_indices
from model.portraits.gate import gated
from model.runtime import CudaGraph, OnnxRuntimeGraph, Provider

BACKGROUND = 128
SMALLEST_ISLAND = 0.005
DOUBT = 0.25
"""Shares closer than this to 0 or 1 count as 0 or 1, or clothes and walls would shine through."""

COLOURS = np.array(
    [
        (0, 0, 0), (226, 176, 142), (232, 132, 98), (92, 214, 222), (52, 96, 214), (52, 96, 214),
        (146, 92, 40), (146, 92, 40), (238, 200, 92), (238, 200, 92), (124, 24, 44),
        (224, 72, 96), (190, 44, 72), (88, 58, 128), (60, 168, 84), (248, 232, 60),
        (248, 160, 220), (196, 148, 116), (110, 122, 134),
    ],
    np.uint8,
)  # fmt: skip
"""Preview colour of each class, RGB; left and right share one."""


@dataclass(frozen=True, eq=False)
class ParsingMap:
    """`probability` uint8 (19, R, R), 255 = certain, of a portrait `resolution` pixels wide."""

    probability: NDArray[np.uint8]
    resolution: int

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The likeliest class of each portrait pixel, uint8 (resolution, resolution)."""
        layers = [_resized(layer, self.resolution) for layer in self.probability]
        return np.argmax(layers, axis=0).astype(np.uint8)

    def share(self, names: Sequence[str]) -> NDArray[np.float32]:
        """How much of each of the map's own pixels, (R, R), belongs to classes, 0 to 1.

        Raises ValueError for a name that is no class.
        """
        total = np.maximum(self.probability.sum(0, np.uint16), 1).astype(np.float32)
        part = self.probability[class_indices(list(names))].sum(0, np.uint16)
        return part.astype(np.float32) / total

    @gated
    def kept(
        self, removed: Sequence[str], smallest_island: float = SMALLEST_ISLAND
    ) -> NDArray[np.float32]:
        """Share of each portrait pixel outside the classes `removed`, (resolution, resolution).

        From 0 to 1, soft at edges; shares within DOUBT of either end count as that end. Specks
        smaller than `smallest_island` of the portrait are left out. Raises
        ValueError for a name that is no class.
        """
        kept = 1 - self.share(removed)
        kept = np.clip((kept - DOUBT) / (1 - 2 * DOUBT), 0, 1)
        kept[_islands(kept > 0.5, smallest_island * kept.size)] = 0
        return np.clip(_resized(kept, self.resolution), 0, 1)


class Parser:
    """A parsing network behind a function.

    `run` takes portraits uint8 (N, R, R, 3), R = `resolution`, and gives class probabilities
    uint8 (N, 19, R, R), 255 = certain. It may be called from several threads at once, as an
    ONNX Runtime session may.
    """

    def __init__(
        self, run: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], resolution: int
    ) -> None:
        self.run = run
        self.resolution = resolution

    @classmethod
    def open(
        cls, path: Path, threads: int | None = None, provider: Provider = Provider.CPU
    ) -> Self:
        """The parser in an ONNX graph from `image` to `probability`, on CUDA or else on the CPU.

        `threads` is for one call; None takes what the process may use. Raises FileNotFoundError
        where there is no file, ValueError where the graph is none of a parser, ProviderError where
        it does not open on CUDA.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no parser at {path}")
        if provider in (Provider.CUDA, Provider.TENSORRT):
            graph = CudaGraph(path, threads)
        else:
            graph = OnnxRuntimeGraph(path, Provider.CPU, threads)
        if graph.inputs != ("image",) or graph.outputs != ("probability",):
            raise ValueError("a parser takes `image` and gives `probability`")
        resolution = graph.shape_of("image")[1]
        if not isinstance(resolution, int):
            raise ValueError("a parser's graph must fix the size of `image`")

        def run(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return graph.run({"image": image})[0].astype(np.uint8, copy=False)

        return cls(run, resolution)

    def rehearse(self) -> None:
        """Parses grey: what runs first on an accelerator takes long."""
        side = self.resolution
        self.run(np.full((1, side, side, 3), BACKGROUND, np.uint8))

    def parse(self, portrait: NDArray[np.uint8]) -> ParsingMap:
        """The map of a portrait, uint8 (R0, R0, 3) RGB of any size."""
        image = portrait
        if portrait.shape[0] != self.resolution:
            size = (self.resolution, self.resolution)
            image = np.asarray(Image.fromarray(portrait).resize(size, Image.Resampling.LANCZOS))
        (probability,) = self.run(np.ascontiguousarray(image)[None])
        expected = (len(CLASSES), self.resolution, self.resolution)
        if probability.shape != expected:
            raise ValueError(f"a parser must give {expected}, not {probability.shape}")
        return ParsingMap(probability, portrait.shape[0])


@gated
def mask_portrait(
    portrait: NDArray[np.uint8], kept: NDArray[np.uint8], background: int = BACKGROUND
) -> NDArray[np.uint8]:
    """`portrait` (R, R, 3) over grey: `kept` (R, R), 255 = all, is how much of it remains."""
    share = kept[..., None].astype(np.uint16)
    ground = np.uint16(background) * (255 - share)
    # Rounded to the nearest: no sum of both lies halfway between two multiples of 255.
    return ((portrait * share + (ground + np.uint16(127))) // np.uint16(255)).astype(np.uint8)


def preview(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels (H, W) below 19 in colours (H, W, 3), for people to look at."""
    return COLOURS[labels]


def _resized(layer: NDArray[np.generic], side: int) -> NDArray[np.float32]:
    """(R, R) -> float32 (side, side): linear, antialiased where it shrinks."""
    image = Image.fromarray(layer.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _islands(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Where the connected parts (four neighbours) of `mask` have fewer than `smallest` pixels.

    The largest part always stays. Labels spread to neighbours, then jump to their label's label.
    """
    height, width = mask.shape
    labels = np.zeros((height + 2, width + 2), np.int64)
    inside = labels[1:-1, 1:-1]
    indices = np.arange(labels.size).reshape(labels.shape)[1:-1, 1:-1]
    inside[mask] = indices[mask]
    while True:
        before = inside.copy()
        spread = np.maximum.reduce(
            [inside, labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]]
        )
        inside[mask] = labels.ravel()[spread[mask]]
        if np.array_equal(inside, before):
            break
    sizes = np.bincount(inside[mask], minlength=1)
    small = sizes < min(smallest, sizes.max(initial=0))
    return mask & small[inside]
