"""Six anchors of one face: the exported graphs on each runtime against a PyTorch loop.

The loop is PyTorch in float32 on the same threads, which encodes once and decodes six times. Rounds
are interleaved, so that what else the machine does meets all alike; ratios are formed within one.

python -m benchmarks.serving.engine [--preset lifespan-256] [--rounds 5]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from model.networks.lifespan import LifespanGenerator
from model.runtime import Graph, OnnxRuntimeGraph, OpenVinoGraph, Provider, available_threads
from training.config import load_config
from training.export import DECODER, ENCODER, Trained, graphs_of
from training.machine import processors
from training.metrics import psnr_db
from training.recipes import recipe_of

BATCHES = (1, 2, 6)
Render = Callable[[], np.ndarray]


def torch_loop(trained: Trained, portrait: np.ndarray, latents: np.ndarray) -> Render:
    """Encodes once and decodes each anchor, in float32."""
    encode, (decode,) = trained.encoder, trained.decoders.values()
    assert encode is not None
    image, index = torch.from_numpy(portrait[None]), torch.tensor([0])

    def render() -> np.ndarray:
        with torch.inference_mode():
            identity = encode(image)
            return np.concatenate(
                [decode(identity, index, torch.from_numpy(each[None])).numpy() for each in latents]
            )

    return render


def runtime(
    encoder: Graph, decoder: Graph, portrait: np.ndarray, latents: np.ndarray, batch: int
) -> Render:
    """Encodes once and decodes the anchors in runs of `batch`."""

    def render() -> np.ndarray:
        (identity,) = encoder.run({"image": portrait[None]})
        pictures = []
        for start in range(0, len(latents), batch):
            some = latents[start : start + batch]
            index = np.zeros(len(some), np.int64)
            pictures += decoder.run({"identity": identity, "index": index, "latent": some})
        return np.concatenate(pictures)

    return render


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="lifespan-256")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(available_threads())
    config = load_config(options.preset)
    recipe = recipe_of(config)
    assert isinstance(recipe.generator, LifespanGenerator)
    # Kernels that pass their input on: pictures are then no noise, and a PSNR means something.
    recipe.generator.decoder.draw_passing()
    trained = Trained(
        config.method, recipe.exportable(recipe.generator.eval()), config.resolution, 0
    )
    side = config.resolution
    wave = np.sin(np.linspace(0, 9, side))
    portrait = np.stack([np.add.outer(wave, f * wave) for f in (0.5, 1.0, 1.5)], -1)
    portrait = np.rint(127.5 + 50 * portrait).clip(0, 255).astype(np.uint8)
    latents = trained.parts.latents[0]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, graph in graphs_of(trained, "float16").items():
            (folder / file).write_bytes(graph)
        pairs: dict[str, tuple[Graph, Graph]] = {
            "ONNX Runtime": (
                OnnxRuntimeGraph(folder / ENCODER, Provider.CPU),
                OnnxRuntimeGraph(folder / DECODER, Provider.CPU),
            )
        }
        for bf16 in (False, True):
            encoder, decoder = (OpenVinoGraph(folder / f, bf16=bf16) for f in (ENCODER, DECODER))
            if not bf16 or decoder.precision == "bfloat16":
                pairs[f"OpenVINO {decoder.precision}"] = (encoder, decoder)
        contenders = {"PyTorch": torch_loop(trained, portrait, latents)}
        for label, (encoder, decoder) in pairs.items():
            for batch in BATCHES:
                render = runtime(encoder, decoder, portrait, latents, batch)
                contenders[f"{label}, runs of {batch}"] = render
        pictures = {label: render() for label, render in contenders.items()}
        seconds: dict[str, list[float]] = {label: [] for label in contenders}
        for _ in range(options.rounds):
            for label, render in contenders.items():
                started = time.perf_counter()
                render()
                seconds[label].append(time.perf_counter() - started)

    print(f"Six anchors of a face, {options.preset}, {processors()}, {options.rounds} rounds")
    if not any("bfloat16" in label for label in contenders):
        print("bfloat16: not measured, this processor computes none")
    print("| engine | seconds | against PyTorch | PSNR to PyTorch |\n| --- | --- | --- | --- |")
    for label, times in seconds.items():
        ratios = [base / own for base, own in zip(seconds["PyTorch"], times, strict=True)]
        decibels = psnr_db(pictures[label], pictures["PyTorch"])
        print(
            f"| {label} | {statistics.median(times):.2f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f}) | "
            f"{'equal' if decibels is None else f'{decibels:.1f} dB'} |"
        )


if __name__ == "__main__":
    main()
