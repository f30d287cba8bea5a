"""Sample sheets: rows of pictures in one file."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def levels(images: Tensor) -> NDArray[np.uint8]:
    """Images (N, 3, H, W) in [-1, 1] -> pictures (N, H, W, 3), as a bundle returns them."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def save_sheet(path: Path, rows: Tensor) -> None:
    """Writes rows of pictures (rows, columns, 3, R, R) in [-1, 1] as one PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    Image.fromarray(levels(sheet[None])[0]).save(path)
