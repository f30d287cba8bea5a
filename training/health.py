"""Whether a run is well: signs measured in every step, and findings that name what is wrong."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

WINDOW = 50
"""Moves of G over which signs are averaged before they are looked at."""

COLLAPSED = {
    "contrast": "pictures are blank",
    "diversity": "all portraits get one picture",
    "likeness": "pictures no longer depend on the portrait",
}


class CollapseError(RuntimeError):
    """A run that has failed; the message names how, with the numbers that show it."""


@torch.no_grad()
def vital_signs(real: Tensor, generated: Tensor) -> dict[str, Tensor]:
    """What generated images have of the portraits' own variety, both (N, C, H, W).

    `contrast` is the standard deviation within a picture and `diversity` that between pictures,
    relative to the portraits': 1 is as theirs, 0 is blank pictures, and one picture for all.
    `likeness` correlates how portraits and their pictures differ from the batch's mean: 0 is
    pictures that have nothing to do with the portraits they are made from. One sample has no batch
    to differ from, and gets `contrast` alone.
    """
    given, made = real.detach().float(), generated.detach().float()

    def ratio(axes: int | tuple[int, ...]) -> Tensor:
        spread = [images.std(axes, unbiased=False).mean() for images in (made, given)]
        return spread[0] / spread[1].clamp(min=1e-3)

    signs = {"contrast": ratio((1, 2, 3))}
    if len(real) > 1:
        signs["diversity"] = ratio(0)
        given, made = given - given.mean(0), made - made.mean(0)
        signs["likeness"] = (given * made).sum() / (given.norm() * made.norm()).clamp(min=1e-6)
    return signs


def overfitting(means: Mapping[str, float]) -> float | None:
    """How far D's logit of portraits held out has fallen from real to generated ones', 0 to 1.

    r_v of Karras et al. (2020): 0 where D judges them as those that it learns from, 1 where it
    takes them for generated. None where a logit is missing, or D knows nothing yet.
    """
    known = [means.get(name) for name in ("real_logit", "held_out_logit", "fake_logit")]
    real, held_out, fake = known
    if real is None or held_out is None or fake is None or real - fake < 1e-3:
        return None
    return (real - held_out) / (real - fake)


@dataclass
class Monitor:
    """Looks at the means of one window after another; its fields but the limits are its state."""

    least: float = 0.1
    """Contrast, diversity or likeness under which pictures have collapsed."""
    sure: float = 6.0
    """Logits, for real and against generated images, beyond which D has won: 99.75 % sure."""
    wild: float = 30.0
    """Logits beyond which D no longer judges but diverges."""
    patience: int = 4
    """Windows in a row before a sign is a finding."""
    grace: int = 40
    """Windows in which pictures that never were better may be as if collapsed: starts are slow."""
    windows: int = 0
    best: dict[str, float] = field(default_factory=dict)
    """The greatest contrast, diversity and likeness so far"""
    since: dict[str, int] = field(default_factory=dict)
    """Windows in a row that have shown a sign"""

    @property
    def calm(self) -> bool:
        """Whether the last window showed nothing suspicious."""
        return not self.since

    def state(self) -> dict[str, Any]:
        return {"windows": self.windows, "best": dict(self.best), "since": dict(self.since)}

    def observe(self, means: Mapping[str, float]) -> str | None:
        """A window's means of what the steps logged; returns what has gone wrong, if anything."""
        self.windows += 1
        infinite = [name for name, value in means.items() if not math.isfinite(value)]
        if infinite:
            return f"numbers are no longer finite: {', '.join(infinite)}"
        shown = dict(self._signs(means))
        self.since = {name: self.since.get(name, 0) + 1 for name in shown}
        found = [
            message
            for name, message in shown.items()
            if name == "wild" or self.since[name] >= self.patience
        ]
        return found[0] if found else None

    def _sunk(self, name: str, value: float) -> bool:
        self.best[name] = max(value, self.best.get(name, value))
        risen = self.best[name] > 3 * self.least or self.windows > self.grace
        return risen and value < self.least

    def _signs(self, means: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        for name, message in COLLAPSED.items():
            if name in means and self._sunk(name, means[name]):
                yield name, f"{message}: {name} {means[name]:.3f} where real portraits have 1"
        real, fake = means.get("real_logit", 0.0), means.get("fake_logit", 0.0)
        logits = f"logits {real:.1f} of real and {fake:.1f} of generated images"
        if max(abs(real), abs(fake)) > self.wild:
            yield "wild", f"D diverges: {logits}"
        elif min(real, -fake) > self.sure:
            yield "won", f"D wins outright: {logits}"
