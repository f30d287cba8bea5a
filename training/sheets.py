"""Sheets: rows of pictures in one file, with or without words around them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
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


class Sheet:
    """Rows and columns of pictures, all brought to one size, with a head, a foot and row labels."""

    INK, SOFT, PAPER = (27, 31, 36), (89, 99, 110), (255, 255, 255)
    GAP = 4

    def __init__(self, columns: int, rows: int, cell: int = 128, labels: bool = False) -> None:
        self.cell, self.columns, self.rows = cell, columns, rows
        self.font = ImageFont.load_default(size=cell / 8)
        self.line = round(cell / 5)
        self.left = round(0.7 * cell) if labels else 0
        width = self.left + columns * (cell + self.GAP) - self.GAP
        height = 2 * self.line + rows * (cell + self.GAP) - self.GAP
        self.image = Image.new("RGB", (width, height), self.PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def _corner(self, row: int, column: int) -> tuple[int, int]:
        step = self.cell + self.GAP
        return self.left + column * step, self.line + row * step

    def put(self, row: int, column: int, picture: NDArray[np.uint8]) -> None:
        """A picture (R, R, 3) into a cell, brought to its size."""
        size = (self.cell, self.cell)
        image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
        self.image.paste(image, self._corner(row, column))

    def _words(self, y: float, words: Sequence[str], colour: tuple[int, int, int]) -> None:
        for column, word in enumerate(words):
            x = self._corner(0, column)[0] + self.cell / 2
            self._draw.text((x, y), word, colour, self.font, anchor="mm")

    def head(self, words: Sequence[str]) -> None:
        """A word over each column."""
        self._words(self.line / 2, words, self.INK)

    def foot(self, words: Sequence[str]) -> None:
        """A word under each column."""
        self._words(self.image.height - self.line / 2, words, self.SOFT)

    def label(self, row: int, word: str) -> None:
        """A word left of a row; needs `labels`."""
        y = self._corner(row, 0)[1] + self.cell / 2
        self._draw.text((self.left - 2 * self.GAP, y), word, self.INK, self.font, anchor="rm")
