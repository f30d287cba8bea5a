"""Sample sheets: portraits beside what a generator makes of them."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from training.recipes import AnyRecipe


def levels(images: Tensor) -> NDArray[np.uint8]:
    """Images (N, 3, H, W) in [-1, 1] -> pictures (N, H, W, 3), as a bundle returns them."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def sample_sheet(
    recipe: AnyRecipe, generator: nn.Module, portraits: Tensor, clusters: Tensor, group: int
) -> Tensor:
    """Rows of portrait, reconstruction and every anchor: (3, N R, columns R) in [-1, 1]."""
    rebuilt = recipe.reconstruction(generator, portraits, clusters)
    aged = recipe.anchors(generator, portraits, group)
    rows = torch.cat([portraits.unsqueeze(1), rebuilt.unsqueeze(1), aged], dim=1)
    return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def save_sheet(path: Path, sheet: Tensor) -> None:
    """Writes a sheet as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels(sheet[None])[0]).save(path)
