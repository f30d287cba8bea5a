"""What decides a training run: one frozen record, presets as data, unknown keys as errors."""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, get_args, get_origin, get_type_hints

from model.ages import LIFESPAN_CLUSTERS, AgeCluster, check_clusters


class ConfigError(ValueError):
    """A setting that does not exist or cannot be; the message names it."""


@dataclass(frozen=True)
class FitConfig:
    """All settings of `anchorage-train fit`; written resolved before the first step."""

    method: str = "lifespan"
    resolution: int = 64
    """Side of the portraits in pixels: a power of two, 16 or more."""
    width: int = 16
    """Channels of the generator at full resolution; 64 in the publication."""
    discriminator_width: int = 16
    """Channels of the discriminator at full resolution; 64 in the publication."""
    elements: int = 50
    """Entries of the age code per (group, cluster)."""
    latent: int = 256
    style_gain: float = 1.0
    """How far styles scale the decoder's channels around 1; 1 in the publication."""
    decoder_start: Literal["random", "passing"] = "random"
    """Drawn as published, or so that each styled convolution passes its input on."""
    code_noise: float = 0.2
    """Standard deviation of the noise on age codes."""
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
    batch: int = 16
    """Images of a step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts in which a process takes its share of the batch, one after the other, to save memory.
    Multiples of 4 images a part give what one pass would."""
    images: int = 500_000
    """Images to see in all."""
    reconstruction_images: int = 0
    """Images at the start that train reconstruction alone, without an adversary."""
    reconstruction_rate: float = 3e-3
    """Learning rate of that start, whose Adam has momentum 0.9."""
    discriminator_images: int = 0
    """Images after that start that teach D alone, on real images, what belongs to which class."""
    learning_rate: float = 1e-3
    discriminator_rate: float = 1e-3
    """Learning rates of G and of D."""
    generator_betas: tuple[float, float] = (0.0, 0.999)
    discriminator_betas: tuple[float, float] = (0.0, 0.999)
    """Adam's decay of the gradient's mean and of its square."""
    slow_rate: float = 0.01
    """Factor on the rate for the mapping network and the style affines."""
    halve_at: tuple[int, ...] = ()
    """Numbers of images after which the rate is halved."""
    r1_gamma: float = 1.0
    r1_interval: int = 8
    """Steps between R1 penalties, which are then weighted by their number."""
    augment: float = 0.0
    """Strength of the random views that D sees of real and generated images; 0 is none."""
    augment_share: float = 1.0
    """Share of the images that D sees in such a view, the others as they are."""
    augment_target: float = 0.0
    """Where above 0, the share starts at `augment_share` and follows the overfitting of D: it grows
    while `overfitting` is above this target, and shrinks below (Karras et al. 2020)."""
    augment_ramp: int = 100_000
    """Images in which that share goes from 0 to 1 at most."""
    coarse_share: float = 0.0
    """Share of the steps in which D judges images halved in size; 0 gives D no such entrance."""
    heads: Literal["joint", "factored"] = "joint"
    """D's logits: one per (group, cluster), or one per cluster and one per group, which are added,
    so that the portraits of all groups teach one head what belongs to an age."""
    mismatch_weight: float = 1.0
    """Weight of real images under another cluster's logit, which D must call fake."""
    generator_loss: Literal["non_saturating", "minimax"] = "non_saturating"
    """What G lowers: -log D, or log(1 - D) as in the value function itself."""
    discriminator_steps: int = 1
    """Steps of D for each of G: k of Goodfellow et al. (2014)."""
    adversarial_weight: float = 1.0
    reconstruction_weight: float = 10.0
    polish_images: int = 0
    """Images at the end in which reconstruction weighs `polish_weight`: ages are learned while it
    weighs little, sharp faces while it weighs more."""
    polish_weight: float = 60.0
    cycle_weight: float = 10.0
    identity_weight: float = 1.0
    age_weight: float = 5.0
    consistency_interval: int = 1
    """Steps between the losses that encode a generated image again (cycle, identity, age), which
    are then weighted by their number."""
    average_half_life: float = 8_000.0
    """Images after which a weight counts half in the average."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 where the device computes in it, float32 elsewhere."""
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

    def __post_init__(self) -> None:
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            raise ConfigError(f"resolution: {self.resolution} is not a power of two of at least 16")
        for name in (
            "width",
            "discriminator_width",
            "elements",
            "latent",
            "batch",
            "images",
            "r1_interval",
            "consistency_interval",
            "accumulate",
            "discriminator_steps",
            "augment_ramp",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                known = ", ".join(get_args(hint))
                raise ConfigError(f"{name}: {getattr(self, name)!r} is none of {known}")
        if self.batch % self.accumulate:
            raise ConfigError(f"accumulate: {self.accumulate} does not divide batch {self.batch}")
        if not 0 <= self.neutral < 1:
            raise ConfigError("neutral: must be in [0, 1)")
        for name in ("coarse_share", "augment_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: must be in [0, 1]")
        if self.coarse_share and self.resolution < 32:
            raise ConfigError("coarse_share: needs a resolution of at least 32")
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
    """A configuration from plain values. Raises ConfigError that names an unknown or wrong key."""
    fields = {field.name: field for field in dataclasses.fields(FitConfig)}
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
    return FitConfig(**converted)


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
