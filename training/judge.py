"""The age judge: a small network that tells age and group of a portrait, for evaluation alone.

It learns from the training split of real portraits and never enters a generator's loss, so what it
says of generated pictures was not what they were made to please. It is kept as an ONNX graph with
half-precision weights, as everything that leaves training is, and a JSON file that says what it was
made from and how far it errs on real portraits it never saw; no figure of it means much without.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from model.ages import LIFESPAN_CLUSTERS, AgeCluster
from model.networks.layers import blur
from model.networks.parser import Residual
from model.runtime import OnnxRuntimeGraph, Provider
from training.config import FitConfig
from training.data import DataError, PortraitSet, PreparedSet, split_rows
from training.export import ExportError, exported, half_weights
from training.metrics import judged_clusters

BUNDLED = Path(str(resources.files("training") / "judges" / "judge.onnx"))
"""The bundled judge's graph; its JSON lies beside it."""
GROUPS = ("female", "male")
YEARS = 80
"""Ages that the judge tells apart: 0 to 79 years, one class each."""
WIDTHS = (24, 48, 96, 128)
BATCH = 64


@dataclass(frozen=True)
class JudgeConfig:
    """Everything that decides a run of the judge's training."""

    resolution: int = 64
    batch: int = 32
    images: int = 600_000
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    dropout: float = 0.2
    average: float = 0.995
    group_weight: float = 0.5
    held_out: int = 10
    seed: int = 0
    threads: int = 1


class AgeJudge(nn.Module):
    """Image (N, 3, R, R) in [-1, 1] -> age logits (N, YEARS), group logits (N, 2), features.

    Features (N, 128) are what both heads read: global means of the last feature map.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place, (inputs, outputs) in enumerate(zip((3, *widths), widths, strict=False)):
            kernel = 3 if place else 5
            layers += [
                nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            # At half the size a residual block costs as much as all the others and gains little.
            layers += [Residual(outputs) for _ in range(min(place, 2))]
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.age = nn.Linear(widths[-1], YEARS)
        self.group = nn.Linear(widths[-1], len(GROUPS))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.body(image).mean(dim=(2, 3))
        x = self.dropout(features)
        return self.age(x), self.group(x), features


class JudgeShell(nn.Module):
    """What is exported: image uint8 (N, R, R, 3) -> age in years (N,), group (N, 2), features.

    The age is the expectation over the age classes (Rothe et al. 2018), the group's are
    probabilities.
    """

    def __init__(self, judge: AgeJudge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        age, group, features = self.judge(image.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        return expected_years(age), torch.softmax(group, 1), features


def expected_years(logits: Tensor) -> Tensor:
    """Age logits (N, YEARS) -> expected age in years (N,)."""
    return torch.softmax(logits, 1) @ torch.arange(YEARS, device=logits.device).float()


def age_distribution(age_years: Tensor) -> Tensor:
    """Ages in years (N,) -> what the judge should answer (N, YEARS): a Gaussian around each.

    Its width grows with age, as errors and labels' vagueness do (label distributions, Gao et al.
    2017).
    """
    width = 1.0 + 0.06 * age_years[:, None]
    distance = (torch.arange(YEARS)[None] - age_years[:, None]) / width
    return torch.softmax(-0.5 * distance.square(), 1)


def judge_views(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, 3, R, R) in [-1, 1] moved, coloured, softened or sharpened, and made noisy.

    Generated pictures are softer than photographs, and skin is smoother in the young: details are
    scaled by factors that are independent of age, so that the judge cannot take one for the other.
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low

    angle, scale = uniform(-0.12, 0.12), torch.exp(uniform(-0.12, 0.12))
    turn = [torch.cos(angle) * scale, -torch.sin(angle) * scale, uniform(-0.08, 0.08)]
    rise = [torch.sin(angle) * scale, torch.cos(angle) * scale, uniform(-0.08, 0.08)]
    theta = torch.stack([torch.cat(turn, 3), torch.cat(rise, 3)], 2).view(count, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    # Zeros are the grey that lies behind every portrait.
    x = functional.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)
    soft = blur(x)
    softer = blur(blur(blur(soft)))
    x = softer + (soft - softer) * uniform(0.5, 1.5) + (x - soft) * uniform(0.0, 2.0)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(0.2, 1.6)
    x = x * torch.exp(uniform(-0.3, 0.3)) + uniform(-0.2, 0.2)
    x = x + (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * 0.2
    x = x + torch.randn(x.shape, generator=generator) * uniform(0.0, 0.08)
    return x.clamp(-1, 1)


class Verdict(NamedTuple):
    """What the judge says of N pictures."""

    age_years: NDArray[np.float32]
    """(N,)"""
    group: NDArray[np.float32]
    """(N, 2) probabilities of GROUPS"""
    features: NDArray[np.float32]
    """(N, 128)"""


class Judge:
    """An opened judge. Raises FileNotFoundError where the graph or its JSON is missing."""

    def __init__(self, path: Path = BUNDLED) -> None:
        self.information: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        if not path.is_file():
            raise FileNotFoundError(f"there is no judge at {path}")
        self._graph = OnnxRuntimeGraph(path, Provider.CPU, threads=1)

    @property
    def error(self) -> dict[str, Any]:
        """How far it errs on real portraits it never saw; see `judge_error`."""
        return self.information["error"]

    def __call__(self, pictures: NDArray[np.uint8]) -> Verdict:
        """Judges masked portraits (N, R, R, 3), brought to the judge's own size."""
        side = self.information["config"]["resolution"]
        parts = []
        for start in range(0, len(pictures), BATCH):
            image = np.stack([resized(p, side) for p in pictures[start : start + BATCH]])
            parts.append(self._graph.run({"image": image}))
        return Verdict(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def resized(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A square picture (R, R, 3) brought to (side, side, 3): means below its size, else bicubic."""
    if len(picture) == side:
        return picture
    smaller = side < len(picture)
    way = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize((side, side), way))


def judge_error(
    verdict: Verdict,
    age_years: NDArray[np.floating],
    groups: Sequence[str],
    clusters: Sequence[AgeCluster] = LIFESPAN_CLUSTERS,
) -> dict[str, Any]:
    """How far a verdict is from the labels: errors in years, the clusters' table, the groups.

    `table` counts portraits by labelled (row) and judged (column) cluster. Labels must lie in
    clusters.
    """
    wanted = judged_clusters(age_years, clusters)
    judged = judged_clusters(verdict.age_years, clusters)
    error = verdict.age_years - age_years
    right = np.array(GROUPS)[verdict.group.argmax(1)] == np.array(groups)
    table = np.zeros((len(clusters), len(clusters)), np.int64)
    np.add.at(table, (wanted, judged), 1)
    rows = {
        cluster.name: {
            "portraits": int((wanted == i).sum()),
            "mae_years": round(float(np.abs(error[wanted == i]).mean()), 2),
            "bias_years": round(float(error[wanted == i].mean()), 2),
            "group_share": round(float(right[wanted == i].mean()), 3),
        }
        for i, cluster in enumerate(clusters)
        if (wanted == i).any()
    }
    return {
        "portraits": len(error),
        "mae_years": round(float(np.abs(error).mean()), 2),
        "bias_years": round(float(error.mean()), 2),
        "cluster_share": round(float((wanted == judged).mean()), 3),
        "cluster_mean_share": round(
            float(np.mean([(judged[wanted == i] == i).mean() for i in np.unique(wanted)])), 3
        ),
        "group_share": round(float(right.mean()), 3),
        "clusters": rows,
        "table": table.tolist(),
    }


def _portraits(data: PreparedSet, config: JudgeConfig, rows: Any, balanced: bool) -> PortraitSet:
    fit = FitConfig(resolution=config.resolution, groups=GROUPS)
    return PortraitSet(data, fit, rows, torch.device("cpu"), balanced)


def fit_judge(data: PreparedSet, config: JudgeConfig) -> AgeJudge:
    """Trains on the training split without its selection part, every cluster and group as often."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    train, _, _ = split_rows(data, config.held_out)
    portraits = _portraits(data, config, train, balanced=True)
    ages = torch.tensor([row.age_years for row in portraits.rows])
    network = AgeJudge(dropout=config.dropout)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    averaged = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average),
        use_buffers=True,
    )
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
    steps = max(11, config.images // config.batch)  # OneCycleLR divides by 0 at 10
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=config.learning_rate, total_steps=steps, pct_start=0.1
    )
    network.train()
    with tqdm(total=steps * config.batch, unit="image", disable=None) as progress:
        for _ in range(steps):
            cells = (len(portraits.config.clusters), len(GROUPS))
            cluster, group = (torch.randint(n, (config.batch,), generator=generator) for n in cells)
            rows = portraits.rows_of(cluster, group, generator)
            flip = torch.rand(config.batch, generator=generator) < 0.5
            views = judge_views(portraits.portraits(rows, flip), generator)
            age, kind, _ = network(views.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(age, age_distribution(ages[rows]))
            loss = loss + 0.1 * (expected_years(age) - ages[rows]).abs().mean()
            loss = loss + config.group_weight * functional.cross_entropy(kind, group)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            averaged.update_parameters(network)
            progress.update(config.batch)
            if progress.n % (50 * config.batch) == 0:
                progress.set_postfix(loss=f"{loss.item():.3f}")
    network.load_state_dict(averaged.module.state_dict())
    return network.eval()


def export_judge(
    network: AgeJudge,
    data: PreparedSet,
    output: Path,
    config: JudgeConfig,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes `judge.onnx` and `judge.json` with its error on real portraits; returns the latter.

    The error is measured through the graph, on the test split, or on the selection part where the
    data has none; `selection_error` stands beside it. Raises ExportError when the graph's ages
    differ from the network's by more than a tenth of a year.
    """
    _, selection, test = split_rows(data, config.held_out)
    shell = JudgeShell(network).eval()
    noise = torch.randint(0, 256, (4, config.resolution, config.resolution, 3), dtype=torch.uint8)
    outputs = ["age_years", "group", "features"]
    graph = half_weights(exported(shell, {"image": noise}, outputs, {"image": {0: "N"}}))
    output.mkdir(parents=True, exist_ok=True)
    path = output / "judge.onnx"
    path.write_bytes(graph)
    information: dict[str, Any] = {"config": asdict(config), **provenance}
    (output / "judge.json").write_text(json.dumps(information))
    judge = Judge(path)
    with torch.no_grad():
        difference = np.abs(shell(noise)[0].numpy() - judge(noise.numpy()).age_years).max()
    if difference > 0.1:
        raise ExportError(f"the judge's graph differs from the network by {difference:.2f} years")
    errors = {}
    for name, rows in (("test", test), ("selection", selection)):
        if not rows:
            continue
        portraits = _portraits(data, config, rows, balanced=False)
        ages = np.array([row.age_years for row in portraits.rows])
        pictures = portraits.images.permute(0, 2, 3, 1).numpy()
        groups = [row.gender for row in portraits.rows]
        errors[name] = {"split": name, **judge_error(judge(pictures), ages, groups)}
    if not errors:
        raise DataError("no portrait is held out for the judge's error; prepare more than ten")
    information["error"] = errors.get("test", errors.get("selection"))
    information["selection_error"] = errors.get("selection")
    (output / "judge.json").write_text(json.dumps(information, indent=2) + "\n")
    return information
