"""What decides a training run: one frozen record, presets as data, unknown keys as errors."""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from model.ages import LIFESPAN_CLUSTERS, AgeCluster, check_clusters


class ConfigError(ValueError):
    """A setting that does not exist or cannot be; the message names it."""


@dataclass(frozen=True)
class FitConfig:
    """Settings of `anchorage-train fit` that every method has; each adds its own.

    Written resolved before the first step.
    """

    method: str = "lifespan"
    resolution: int = 64
    """Side of the portraits in pixels: a power of two, 16 or more."""
    width: int = 16
    """Channels of the generator at full resolution; 64 in all publications."""
    discriminator_width: int = 16
    """Channels of the discriminator at full resolution; 64 in all publications."""
    clusters: tuple[tuple[int, int], ...] = tuple(
        (cluster.low_years, cluster.high_years) for cluster in LIFESPAN_CLUSTERS
    )
    """Bounds in years, both inclusive, of the age clusters."""
    groups: tuple[str, ...] = ("female", "male")
    """Values of the data's gender column that are told apart; one name means all together."""
    neutral: float = 1 / 3
    """Share of draws in which the group is dropped; 0 trains no neutral group."""
    source_temper: float = 0.5
    """Sources are drawn with their size to this power: 0 evenly, 1 as they come."""
    glasses_share: float = 1.0
    """Largest share of a cluster's draws that may wear glasses: old people often do, children
    hardly ever, and a discriminator takes them for age."""
    batch: int = 16
    """Images of a step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts in which a process takes its share of the batch, one after the other, to save memory.
    Multiples of 4 images a part give what one pass would."""
    images: int = 500_000
    """Images to see in all."""
    learning_rate: float = 1e-3
    discriminator_rate: float = 1e-3
    """Learning rates of G and of D."""
    generator_betas: tuple[float, float] = (0.0, 0.999)
    discriminator_betas: tuple[float, float] = (0.0, 0.999)
    """Adam's decay of the gradient's mean and of its square."""
    halve_at: tuple[int, ...] = ()
    """Numbers of images after which the rate is halved."""
    decay_from: int = 0
    """Where above 0, the rates fall linearly from this number of images on, to zero at `images`."""
    augment: float = 0.0
    """Strength of the random views that D sees of real and generated images; 0 is none."""
    augment_share: float = 1.0
    """Share of the images that D sees in such a view, the others as they are."""
    augment_target: float = 0.0
    """Where above 0, the share starts at `augment_share` and follows the overfitting of D: it grows
    while `overfitting` is above this target, and shrinks below (Karras et al. 2020)."""
    augment_ramp: int = 100_000
    """Images in which that share goes from 0 to 1 at most."""
    discriminator_steps: int = 1
    """Steps of D for each of G: k of Goodfellow et al. (2014)."""
    average_half_life: float = 8_000.0
    """Images after which a weight counts half in the average."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 where the device computes in it, float32 elsewhere."""
    record: bool = True
    """Whether steps that are alike are recorded as CUDA graphs and repeated, on one GPU, with
    `accumulate` 1 and no `augment_target`, where the method knows which are."""
    log_every: int = 800
    sample_every: int = 8_000
    checkpoint_every: int = 4_000
    """Images between log lines, sample sheets and checkpoints."""
    select_every: int = 40_000
    """Images between selection scores; the checkpoint with the highest is kept. 0 takes none."""
    on_collapse: Literal["stop", "roll_back"] = "stop"
    """What follows when pictures collapse, D wins outright or numbers are no longer finite: stop
    with the reason, or go back to the last good checkpoint with half the rates."""
    held_out: int = 10
    """One in so many training portraits is kept for selection."""
    seed: int = 0
    threads: int = 0
    """CPU threads; 0 takes what the process may use."""
    shaping: ClassVar[tuple[str, ...]] = ("method", "width", "clusters", "groups")
    """Settings that decide what a generator's weights mean."""

    def __post_init__(self) -> None:
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            raise ConfigError(f"resolution: {self.resolution} is not a power of two of at least 16")
        self.at_least_one(
            "width",
            "discriminator_width",
            "batch",
            "images",
            "accumulate",
            "discriminator_steps",
            "augment_ramp",
        )
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                known = ", ".join(get_args(hint))
                raise ConfigError(f"{name}: {getattr(self, name)!r} is none of {known}")
        if self.batch % self.accumulate:
            raise ConfigError(f"accumulate: {self.accumulate} does not divide batch {self.batch}")
        if not 0 <= self.neutral < 1:
            raise ConfigError("neutral: must be in [0, 1)")
        self.shares("augment_share", "glasses_share")
        for name in ("generator_betas", "discriminator_betas"):
            betas = getattr(self, name)
            if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
                raise ConfigError(f"{name}: must be two numbers in [0, 1)")
        if self.held_out < 2:
            raise ConfigError("held_out: must be at least 2")
        if not self.groups:
            raise ConfigError("groups: at least one is needed")
        if len(set(self.bundle_groups)) < len(self.bundle_groups):
            raise ConfigError("groups: names must differ, from each other and from neutral")
        try:
            check_clusters(self.age_clusters)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"clusters: {error}; give pairs of whole years") from error

    def at_least_one(self, *names: str) -> None:
        """Raises ConfigError for a setting below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1")

    def shares(self, *names: str) -> None:
        """Raises ConfigError for a setting outside [0, 1]."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: must be in [0, 1]")

    @property
    def age_clusters(self) -> tuple[AgeCluster, ...]:
        return tuple(AgeCluster.between(low, high) for low, high in self.clusters)

    @property
    def bundle_groups(self) -> tuple[str, ...]:
        """Groups that a bundle of this run answers for; `neutral` last, when trained."""
        if len(self.groups) == 1:
            return self.groups
        return (*self.groups, "neutral")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def config_of(values: Mapping[str, Any]) -> FitConfig:
    """A configuration of the method that `values` name, from plain values.

    Raises ConfigError that names an unknown or wrong key.
    """
    from training.recipes import recipe_class

    kind = recipe_class(values.get("method", FitConfig.method)).settings
    fields = {field.name: field for field in dataclasses.fields(kind)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"unknown setting {name!r}; known: {', '.join(fields)}")
        default = fields[name].default
        value = _tuples(value)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            wanted, got = type(default).__name__, type(value).__name__
            raise ConfigError(f"{name}: {wanted} expected, {got} given")
        converted[name] = value
    return kind(**converted)


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    folder = resources.files("training") / "presets"
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def load_config(preset: str, overrides: Sequence[str] = ()) -> FitConfig:
    """The preset with `name=value` overrides, values written as in TOML. Raises ConfigError."""
    if preset not in preset_names():
        raise ConfigError(f"unknown preset {preset!r}; known: {', '.join(preset_names())}")
    text = (resources.files("training") / "presets" / f"{preset}.toml").read_text()
    values = tomllib.loads(text)
    for override in overrides:
        try:
            values.update(tomllib.loads(override))
        except tomllib.TOMLDecodeError:
            name, _, value = override.partition("=")
            if not value:
                raise ConfigError(f"{override!r} is not name=value") from None
            values[name.strip()] = value.strip()
    return config_of(values)
