"""Shapes of faces by age, and the flow that bends a face of one age to another's shape."""

from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from training.data import DataError, PortraitSet, mirrored
from training.metrics import head_turn

FRONTAL = 0.2
"""Heads turned further do not count for the shape of an age (`head_turn`)."""
SMOOTHING = 1e-3
"""How far the flow may miss a landmark's move for a smoother course (Wahba 1990, section 2.4)."""
BORDER = 5
"""Points along each side of the picture that stay where they are."""


def mean_shapes(portraits: PortraitSet) -> Tensor:
    """Landmarks (clusters, 68, 2) of the mean face of each cluster, in shares of the side.

    The median over frontal faces of each cluster, group and source; then the mean over sources by
    their share of the draws, and over groups, made symmetric. Raises DataError for a set without
    landmarks, or without frontal faces in a cluster.
    """
    if portraits.landmarks is None or portraits.landmarks.isnan().all():
        raise DataError(
            "flow_images, flow_interval, look_weight: the set holds no landmarks; prepare it anew"
        )
    config, landmarks = portraits.config, portraits.landmarks.cpu()
    frontal = torch.tensor(
        [bool(np.isfinite(x).all()) and head_turn(x) < FRONTAL for x in landmarks.numpy()]
    )
    names = sorted({row.source for row in portraits.rows})
    sources = torch.tensor([names.index(row.source) for row in portraits.rows])
    shapes = []
    for number, cluster in enumerate(config.age_clusters):
        groups = []
        for group in range(len(config.groups)):
            here = frontal & (portraits.clusters == number) & (portraits.groups == group)
            found = [
                landmarks[chosen]
                for s in range(len(names))
                if (chosen := here & (sources == s)).any()
            ]
            if found:
                share = torch.tensor([len(x) ** config.source_temper for x in found])
                medians = torch.stack([x.median(0).values for x in found])
                groups.append((medians * (share / share.sum())[:, None, None]).sum(0))
        if not groups:
            raise DataError(
                f"flow_images, flow_interval, look_weight: no portrait of {cluster.name} shows a "
                "frontal face"
            )
        shapes.append(torch.stack(groups).mean(0))
    mean = torch.stack(shapes)
    return (mean + mirrored(mean)) / 2


def strengthened(shapes: Tensor, strength: float) -> Tensor:
    """Shapes (clusters, K, 2), each so many times as far from their mean."""
    return shapes.mean(0) + strength * (shapes - shapes.mean(0))


def bending_flow(landmarks: Tensor, moves: Tensor, side: int) -> Tensor:
    """Flow that takes each landmark along its move: (N, 2, side, side), in halves of the side.

    A thin-plate spline (Bookstein 1989) through the moved landmarks, smoothed, and through points
    of the border, which stay. At the place of a pixel of the bent picture it says how far away that
    pixel comes from, right and down. `landmarks` and `moves` (N, K, 2) in shares of the side.
    """
    count = len(landmarks)
    border = _border(landmarks.device).expand(count, -1, -1)
    knots = torch.cat([landmarks + moves, border], 1).double()
    values = torch.cat([-moves, torch.zeros_like(border)], 1).double()
    number = knots.shape[1]
    system = knots.new_zeros(count, number + 3, number + 3)
    smoothing = SMOOTHING * torch.eye(number, dtype=knots.dtype, device=knots.device)
    system[:, :number, :number] = _bending(knots, knots) + smoothing
    plane = torch.cat([torch.ones_like(knots[..., :1]), knots], -1)
    system[:, :number, number:], system[:, number:, :number] = plane, plane.transpose(1, 2)
    values = torch.cat([values, values.new_zeros(count, 3, 2)], 1)
    # Whether it could be solved is not asked of an accelerator: its answer would be waited for.
    checked = knots.device.type == "cpu"
    weights = torch.linalg.solve_ex(system, values, check_errors=checked).result
    line = (torch.arange(side, device=knots.device, dtype=knots.dtype) + 0.5) / side
    down, right = torch.meshgrid(line, line, indexing="ij")
    places = torch.stack([right, down], -1).flatten(0, 1).expand(count, -1, -1)
    known = torch.cat([_bending(places, knots), torch.ones_like(places[..., :1]), places], -1)
    flow = (known @ weights).transpose(1, 2).unflatten(2, (side, side))
    return 2 * flow.to(landmarks.dtype)


@cache
def _border(device: torch.device) -> Tensor:
    line = np.linspace(0, 1, BORDER)
    points = [(x, y) for x, y in product(line, line) if x in (0, 1) or y in (0, 1)]
    return torch.tensor(points, dtype=torch.float32, device=device)


def _bending(first: Tensor, second: Tensor) -> Tensor:
    """r^2 log r^2 over the distances of points (N, K, 2) and (N, L, 2): (N, K, L)."""
    squares = (first[:, :, None] - second[:, None]).square().sum(-1)
    return torch.special.xlogy(squares, squares)
