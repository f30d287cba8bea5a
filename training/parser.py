"""Trains the face parser on pairs of portraits and CelebAMask-HQ label maps."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from model.networks.parser import FaceParser, FaceParserShell
from model.portraits.classes import CLASSES, MIRRORED, REMOVED, class_indices
from model.runtime import OnnxRuntimeGraph, Provider
from training.checkpoints import load_checkpoint, save_checkpoint
from training.config import ConfigError
from training.export import ExportError, exported, half_weights
from training.run import computes_bfloat16

RARE = ("necklace", "earring", "hat")
"""Classes reported apart: too few pixels and portraits for a steady figure."""


@dataclass(frozen=True)
class ParserConfig:
    """Everything that decides a run of the parser's training."""

    resolution: int = 128
    batch: int = 16
    images: int = 72_000
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    average: float = 0.99
    held_out: int = 10
    seed: int = 0


def read_maps(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, H, W, 3) and label maps (N, H, W) of a folder with `images/` and `masks/`."""
    masks = sorted((folder / "masks").glob("*.png"))
    if not masks:
        raise FileNotFoundError(f"no masks/*.png under {folder}")
    images = [
        np.asarray(Image.open(folder / "images" / f"{m.stem}.jpg").convert("RGB")) for m in masks
    ]
    return np.stack(images), np.stack([np.asarray(Image.open(mask)) for mask in masks])


def mirrored(labels: Tensor) -> Tensor:
    """Label maps (..., H, W) flipped left to right, with left and right classes exchanged."""
    table = torch.arange(256)
    for left, right in MIRRORED:
        table[left], table[right] = right, left
    return table.to(labels.device)[labels.long()].flip(-1)


class Augmentation:
    """Draws training views: geometry, colour, blur, hair tint and other backgrounds.

    The maps are of adults in studio light. A stretch and a wide range of scales stand in for
    children's heads, tints for hair that adults do not have, borrowed backgrounds for the street.
    """

    def __init__(self, config: ParserConfig, generator: torch.Generator) -> None:
        self.config = config
        self.generator = generator

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def _chance(self, probability: float, count: int) -> Tensor:
        return (torch.rand(count, generator=self.generator) < probability).view(-1, 1, 1, 1)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, H, W), (N, H, W) -> float (N, 3, R, R) in [-1, 1], int64 (N, R, R)."""
        count, size = len(images), self.config.resolution
        x = images.float() / 127.5 - 1.0
        flip = torch.rand(count, generator=self.generator) < 0.5
        x = torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)
        labels = torch.where(flip.view(-1, 1, 1), mirrored(labels), labels.long())

        angle = torch.randn(count, generator=self.generator) * 0.15
        scale = torch.exp(self._uniform(-0.3, 0.35, count))
        stretch = torch.exp(self._uniform(-0.12, 0.12, count))
        shift = self._uniform(-0.12, 0.12, count, 2)
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        theta = torch.stack(
            [
                torch.stack([cos * stretch, -sin * stretch, shift[:, 0]], 1),
                torch.stack([sin / stretch, cos / stretch, shift[:, 1]], 1),
            ],
            1,
        )
        grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
        x = functional.grid_sample(x, grid, "bilinear", "reflection", align_corners=False)
        planes = functional.grid_sample(
            labels.unsqueeze(1).float(), grid, "nearest", "reflection", align_corners=False
        )
        labels = planes.squeeze(1).long()
        return self._colours(x, labels), labels

    def _colours(self, x: Tensor, labels: Tensor) -> Tensor:
        count, size = len(x), x.shape[-1]
        behind = (labels == 0).unsqueeze(1) & self._chance(0.35, count)
        other = x.roll(1, 0).flip(2)
        plain = self._uniform(-1, 1, count, 3, 1, 1).expand_as(x)
        x = torch.where(behind, torch.where(self._chance(0.5, count), other, plain), x)
        hair = (labels == CLASSES.index("hair")).unsqueeze(1) & self._chance(0.3, count)
        tint = self._uniform(-0.7, 0.5, count, 3, 1, 1)
        x = torch.where(hair, x * self._uniform(0.5, 1.3, count, 1, 1, 1) + tint * 0.6, x)
        grey = x.mean(1, keepdim=True)
        saturation = self._uniform(0.3, 1.5, count, 1, 1, 1)
        x = grey + (x - grey) * torch.where(self._chance(0.12, count), torch.zeros(()), saturation)
        contrast = torch.exp(self._uniform(-0.35, 0.35, count, 1, 1, 1))
        x = x * contrast + self._uniform(-0.3, 0.3, count, 1, 1, 1)
        x = x + self._uniform(-0.12, 0.12, count, 3, 1, 1)
        small = functional.interpolate(x, scale_factor=0.4, mode="area")
        soft = functional.interpolate(
            small, size=(size, size), mode="bilinear", align_corners=False
        )
        x = torch.where(self._chance(0.2, count), soft, x)
        noise = torch.randn(x.shape, generator=self.generator) * self._uniform(
            0, 0.06, count, 1, 1, 1
        )
        return (x + noise).clamp(-1, 1)


def class_weights(labels: NDArray[np.uint8]) -> Tensor:
    """Inverse eighth root of the classes' frequencies, mean 1: rare classes count, not rule.

    The overlap of small parts suffers from more: at the fourth root eyes and brows swell.
    """
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES)).astype(np.float64) + 1.0
    weights = (counts / counts.sum()) ** -0.125
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice overlap, mean over the classes present (Milletari et al. 2016)."""
    probability = torch.softmax(logits, 1)
    wanted = functional.one_hot(labels, len(CLASSES)).permute(0, 3, 1, 2).float()
    overlap = (probability * wanted).sum((0, 2, 3))
    total = probability.sum((0, 2, 3)) + wanted.sum((0, 2, 3))
    present = wanted.sum((0, 2, 3)) > 0
    return 1.0 - (2 * overlap[present] / total[present]).mean()


def confusion(predicted: NDArray[np.integer], wanted: NDArray[np.integer]) -> NDArray[np.int64]:
    """Counts (19, 19) of pixels by wanted (row) and predicted (column) class."""
    size = len(CLASSES)
    index = wanted.astype(np.int64).ravel() * size + predicted.astype(np.int64).ravel()
    return np.bincount(index, minlength=size * size).reshape(size, size)


def parsing_scores(counts: NDArray[np.int64]) -> dict[str, object]:
    """Intersections over unions of a confusion table (19, 19), pooled over all pixels."""
    hit = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - hit
    per_class = {
        name: round(float(hit[i] / union[i]), 4) if union[i] else None
        for i, name in enumerate(CLASSES)
    }
    removed = np.isin(np.arange(len(CLASSES)), class_indices(REMOVED))
    binary = np.array(
        [[counts[np.ix_(a, b)].sum() for b in (removed, ~removed)] for a in (removed, ~removed)],
        float,
    )
    overlap = np.diag(binary) / (binary.sum(0) + binary.sum(1) - np.diag(binary))
    common = [v for name, v in per_class.items() if name not in RARE and v is not None]
    return {
        "iou_removed": round(float(overlap[0]), 4),
        "iou_kept": round(float(overlap[1]), 4),
        "mean_iou_common": round(float(np.mean(common)), 4),
        "iou": per_class,
    }


def batch_indices(step: int, count: int, batch: int, seed: int) -> Tensor:
    """Indices (batch,) below `count` of a step: every epoch is a shuffle of its own."""
    epoch, position = divmod(step, count // batch)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))
    return order[position * batch : (position + 1) * batch]


@torch.no_grad()
def evaluate_parser(
    network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.uint8], resolution: int
) -> dict[str, object]:
    """Scores of `network`, which sees images (N, H, W, 3) at `resolution`, on maps (N, H, W).

    Its probabilities are brought to the maps' own size.
    """
    network.eval()
    counts = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for image, label in zip(images, labels, strict=True):
        small = Image.fromarray(image).resize((resolution, resolution), Image.Resampling.BOX)
        x = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 127.5 - 1.0
        probability = functional.interpolate(
            torch.softmax(network(x), 1), size=label.shape, mode="bilinear", align_corners=False
        )
        counts += confusion(probability[0].argmax(0).numpy(), label)
    scores = parsing_scores(counts)
    portraits = {name: int((labels == CLASSES.index(name)).any(axis=(1, 2)).sum()) for name in RARE}
    return {**scores, "portraits": len(images), "portraits_with": portraits}


def fit_parser(
    folder: Path, output: Path, config: ParserConfig, checkpoint_every: int = 4_000
) -> dict[str, object]:
    """Trains on nine tenths of the maps in `folder`, scores on the last, saves `parser.pt`.

    The same call goes on from the last checkpoint, and ends with the weights of a run left alone.
    Raises ConfigError where `output` holds a run with other settings.
    """
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    images, labels = read_maps(folder)
    held_out = np.arange(len(images)) % config.held_out == 0
    pictures = torch.from_numpy(images[~held_out]).permute(0, 3, 1, 2).contiguous()
    maps = torch.from_numpy(labels[~held_out])
    augment = Augmentation(config, generator)
    network = FaceParser()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    averaged = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average),
        use_buffers=True,
    )
    weights = class_weights(labels[~held_out])
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
    steps = config.images // config.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=config.learning_rate, total_steps=steps, pct_start=0.1
    )
    parts = {"network": network, "averaged": averaged, "optimiser": optimiser, "schedule": schedule}
    output.mkdir(parents=True, exist_ok=True)
    state = load_checkpoint(output)
    if state is not None:
        if state["config"] != asdict(config):
            raise ConfigError(f"{output} holds a run with other settings; choose another folder")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        generator.set_state(state["draws"])
    first = 0 if state is None else int(state["steps"])
    low = torch.autocast("cpu", torch.bfloat16, enabled=computes_bfloat16(torch.device("cpu")))
    started = time.monotonic()
    network.train()
    for step in range(first, steps):
        index = batch_indices(step, len(pictures), config.batch, config.seed)
        x, wanted = augment(pictures[index], maps[index])
        with low:
            logits = network(x.contiguous(memory_format=torch.channels_last)).float()
        loss = functional.cross_entropy(logits, wanted, weights) + dice_loss(logits, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        averaged.update_parameters(network)
        seen = (step + 1) * config.batch
        if step % 100 == 0 or step == steps - 1:
            rate = (step + 1 - first) * config.batch / (time.monotonic() - started)
            print(
                f"{seen}/{config.images} images loss {loss.item():.4f} {rate:.1f} images/s",
                flush=True,
            )
        if seen // checkpoint_every != (seen - config.batch) // checkpoint_every:
            saved = {name: part.state_dict() for name, part in parts.items()}
            saved |= {"config": asdict(config), "steps": step + 1, "draws": generator.get_state()}
            save_checkpoint(output, saved)
    scores = evaluate_parser(averaged.module, images[held_out], labels[held_out], config.resolution)
    torch.save(averaged.module.state_dict(), output / "parser.pt")
    report = {"config": asdict(config), "images_seen": steps * config.batch, **scores}
    (output / "parser.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def export_parser(weights: Path, output: Path, resolution: int, report: dict[str, object]) -> Path:
    """Writes `parser.onnx`, half-precision weights, with `report` beside it as `parser.json`.

    Raises ExportError when the graph's classes differ from the network's on more than one pixel
    in a thousand of random pictures.
    """
    network = FaceParser()
    network.load_state_dict(torch.load(weights, weights_only=True))
    shell = FaceParserShell(network).eval()
    image = torch.randint(0, 256, (3, resolution, resolution, 3), dtype=torch.uint8)
    graph = half_weights(
        exported(shell, {"image": image[:2]}, ["probability"], {"image": {0: "N"}})
    )
    output.mkdir(parents=True, exist_ok=True)
    path = output / "parser.onnx"
    path.write_bytes(graph)
    (given,) = OnnxRuntimeGraph(path, Provider.CPU).run({"image": image.numpy()})
    with torch.no_grad():
        wanted = shell(image).numpy()
    different = float((given.argmax(1) != wanted.argmax(1)).mean())
    if different > 1e-3:
        raise ExportError(
            f"the parser's graph differs from the network on {different:.2%} of pixels"
        )
    (output / "parser.json").write_text(json.dumps(report, indent=2) + "\n")
    return path
