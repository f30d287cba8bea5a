"""Lifespan Age Transformation Synthesis (Or-El et al., ECCV 2020), one network for all groups.

Where this differs from the publication: codes, heads and latents per (group, cluster), and a
neutral group (mean code, mean logit) trained by dropping the group in a share of the draws; R1 is
Mescheder's on the selected logit, lazily; D's last LeakyReLU is left out; D learns from real
images under a wrong class too, and may see random views; the age loss is squared, and E_age learns
from real images alone, so that it cannot agree with G on a sign for an age; the losses that encode
a generated image again may be taken lazily; a start that trains reconstruction, then D, alone; the
average of weights is measured in images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Adam, Optimizer, RAdam

from model.ages import age_codes
from model.networks.atlas import Atlas
from model.networks.discriminator import Discriminator
from model.networks.layers import laid_along, resized
from model.networks.lifespan import LifespanGenerator, LifespanShape
from model.networks.reader import Reader
from training.augment import discriminator_views
from training.config import ConfigError, FitConfig
from training.data import Batch, PortraitSet
from training.draws import Draws
from training.health import vital_signs
from training.lessons import Lesson, alike, misread
from training.losses import (
    absolute_error,
    added_colour,
    adversarial_loss,
    age_loss,
    discriminator_loss,
    fine_changes,
    minimax_loss,
    mismatch_loss,
    r1_penalty,
    squared_error,
)
from training.prototypes import Prototypes, prototypes
from training.recipes import Exportable, Loss, Recipe
from training.shapes import bending_flow, mean_shapes, strengthened
from training.styles import reach_out, refit

ENTRANCE = "from_coarse_rgb."
"""Weights of a discriminator that only `coarse_share` gives it."""
OVERLAY = ("decoder.overlay.", "identity_encoder.reader.")
STUDIED = tuple(
    f"decoder.overlay.atlas.{name}"
    for name in (
        *("faces", "hair_colours", "greys", "lines", "fades", "bends", "means"),
        *(*Atlas.PLACES, "bare"),
    )
)
"""What comes of the set that a run trains on, not of its warm start."""
READER_DECAY = 0.1
"""Weight decay (Loshchilov and Hutter 2019) of an atlas's reader."""


@dataclass(frozen=True)
class LifespanConfig(FitConfig):
    """Settings of the method; weights are the publication's unless a preset says otherwise."""

    elements: int = 50
    """Entries of the age code per (group, cluster)."""
    latent: int = 256
    style_gain: float = 1.0
    """How far styles scale the decoder's channels around 1; 1 in the publication."""
    style_norm: bool = True
    """Whether all styles have the length that `style_gain` says, as published, or learn it."""
    style_reach: tuple[float, ...] = ()
    """For a warm start, a factor for every anchor on how far its styles are from their mean; ()
    takes them as they are. Needs `style_norm` to be off."""
    overlay: bool = False
    """Whether G bends the portrait and draws over it where a mask says so, or, as published, draws
    all of a picture."""
    detail: int = 1
    """With `overlay`, pixels of a picture, across, for each that the networks draw: portraits are
    bent at `resolution`, and drawn over at `resolution / detail`."""
    softness: int = 0
    """With `overlay`, passes of a blur over what is laid over the portrait; above 0 fine detail is
    the bent portrait's, times a gain that G maps."""
    prototypes: bool = False
    """With `overlay`, whether the portrait first changes, in shape too, as mean faces of the set's
    clusters say (`Atlas`). Lessons then teach what reads portraits (`Reader`), which no other loss
    moves, in place of a flow. Needs landmarks."""
    decoder_start: Literal["random", "passing"] = "random"
    """Drawn as published, or so that each styled convolution passes its input on."""
    code_noise: float = 0.2
    """Standard deviation of the noise on age codes."""
    reconstruction_images: int = 0
    """Images at the start that train reconstruction alone, without an adversary."""
    reconstruction_rate: float = 3e-3
    """Learning rate of that start, whose Adam has momentum 0.9."""
    discriminator_images: int = 0
    """Images after that start that teach D alone, on real images, what belongs to which class."""
    flow_images: int = 0
    """With `overlay`, images after those that teach G's flow alone: to move each landmark by the
    difference of the mean faces of two clusters. Needs landmarks in the set."""
    flow_rate: float = 3e-3
    """Learning rate of that part."""
    reader_rate: float = 1e-3
    """Learning rate of what reads portraits for `prototypes`, likewise."""
    flow_interval: int = 0
    """With `overlay`, steps between further such lessons while all trains, in which no other loss
    moves the flow's weights; 0 gives none, and leaves the flow to the other losses."""
    slow_rate: float = 0.01
    """Factor on the rate for the mapping network and the style affines."""
    r1_gamma: float = 1.0
    r1_interval: int = 8
    """Steps between R1 penalties, which are then weighted by their number."""
    coarse_share: float = 0.0
    """Share of the steps in which D judges images halved in size; 0 gives D no such entrance."""
    heads: Literal["joint", "factored"] = "joint"
    """D's logits: one per (group, cluster), or one per cluster and one per group, which are added,
    so that the portraits of all groups teach one head what belongs to an age."""
    mismatch_weight: float = 1.0
    """Weight of real images under another cluster's logit, which D must call fake."""
    generator_loss: Literal["non_saturating", "minimax"] = "non_saturating"
    """What G lowers: -log D, or log(1 - D) as in the value function itself."""
    adversarial_weight: float = 1.0
    reconstruction_weight: float = 10.0
    polish_images: int = 0
    """Images at the end in which reconstruction weighs `polish_weight`: ages are learned while it
    weighs little, sharp faces while it weighs more."""
    polish_weight: float = 60.0
    cycle_weight: float = 10.0
    identity_weight: float = 1.0
    age_weight: float = 5.0
    restraint_weight: float = 0.0
    """With `overlay`, weight of the fine detail in what changes the bent portrait
    (`fine_changes`)."""
    growth_weight: float = 0.0
    """With `overlay`, weight of fine changes at three sizes for every cluster that the target is
    older than the source: children made old are what breaks up first."""
    look_weight: float = 0.0
    """With `overlay`, weight of the mean square by which a picture departs from what the mean faces
    of both clusters make of the bent portrait (`Prototypes.taught`). `growth_weight` and
    `colour_weight` then count what goes beyond that. Needs landmarks in the set."""
    look_strength: float = 2.0
    """Factor on all differences of two mean faces, which are weaker than those of faces."""
    line_strength: float = 2.0
    """Likewise on the lines that older faces have."""
    shape_strength: float = 1.0
    """Likewise on those of their shapes."""
    colour_weight: float = 0.0
    """With `overlay`, weight of the colour that the bent portrait gains (`added_colour`)."""
    consistency_interval: int = 1
    """Steps between the losses that encode a generated image again (cycle, identity, age), which
    are then weighted by their number."""
    shaping: ClassVar[tuple[str, ...]] = (*FitConfig.shaping, "elements", "latent", "style_gain")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("elements", "latent", "r1_interval", "consistency_interval")
        self.shares("coarse_share")
        if self.coarse_share and self.resolution < 32:
            raise ConfigError("coarse_share: needs a resolution of at least 32")
        if self.detail < 1 or self.resolution % (4 * self.detail):
            raise ConfigError("detail: must be at least 1, and 4 times it a divisor of resolution")
        if self.detail > 1 and not self.overlay:
            raise ConfigError("detail: needs overlay")
        if self.softness < 0:
            raise ConfigError("softness: must not be negative")
        for name in (
            "flow_images",
            "flow_interval",
            "restraint_weight",
            "growth_weight",
            "look_weight",
            "colour_weight",
            "softness",
            "prototypes",
        ):
            if getattr(self, name) and not self.overlay:
                raise ConfigError(f"{name}: needs overlay")
        if self.prototypes and not self.softness:
            raise ConfigError("prototypes: needs softness")
        if self.prototypes and not (self.flow_interval or self.flow_images):
            raise ConfigError("prototypes: needs flow_interval or flow_images")
        if self.style_reach and self.style_norm:
            raise ConfigError("style_reach: needs style_norm to be off")
        if len(self.style_reach) not in (0, len(self.clusters)):
            raise ConfigError("style_reach: one factor for each cluster, or none")


def generator_shape(config: LifespanConfig) -> LifespanShape:
    """Sizes of the generator that a configuration asks for."""
    code = age_codes(len(config.clusters), len(config.groups), config.elements).shape[-1]
    return LifespanShape(
        config.width,
        code,
        config.latent,
        config.style_gain,
        config.style_norm,
        config.overlay,
        config.detail,
        config.softness,
        (len(config.groups), len(config.clusters)) if config.prototypes else (0, 0),
    )


def head_weights(anchors: int, populations: int, kind: str) -> Tensor:
    """How much each of D's logits counts for a group and a cluster: (groups, anchors, logits).

    Groups as in `age_codes`, the neutral one last. `joint`: the class's own logit, for neutral the
    mean over populations. `factored`: the cluster's logit and the group's, for neutral the mean of
    all groups'.
    """
    if kind == "joint":
        heads = torch.from_numpy(age_codes(anchors, populations, 1))
        return heads / heads.sum(-1, keepdim=True)
    own = torch.eye(populations)
    groups = own if populations == 1 else torch.cat([own, own.mean(0, keepdim=True)])
    shape = (len(groups), anchors)
    return torch.cat(
        [
            torch.eye(anchors).expand(*shape, anchors),
            groups[:, None].expand(*shape, populations),
        ],
        -1,
    )


def _told(people: Tensor, clusters: int) -> Tensor:
    """How far people of these logits (N, groups clusters) are of each cluster: (N, clusters)."""
    return people.float().softmax(1).unflatten(1, (-1, clusters)).sum(1)


_PARTS = ("reconstruction", "discriminator", "flow", "all")
"""Of a run, one after the other: what trains in its steps."""


@dataclass(frozen=True)
class _Kind:
    """What a step consists of."""

    part: str
    coarse: bool
    """Whether D judges images halved in size"""
    penalised: bool
    """Whether R1 is taken"""
    moves: bool
    """Whether G learns in it too"""
    polishing: bool
    cycled: bool
    """Whether a generated image is encoded again"""
    lesson: bool


@dataclass(frozen=True)
class _Rendered:
    """A step's pictures by G, in the graph that its losses go back through."""

    identity: Tensor
    source_latent: Tensor
    rebuilt: Tensor
    fake: Tensor
    bent: Tensor | None
    """The bent portraits under both, one after the other, with `overlay`"""
    flow: Tensor | None
    """What bends them"""


class LifespanRecipe(Recipe[LifespanConfig, LifespanGenerator, Discriminator]):
    """Networks, optimisers and the step of Lifespan; see `Recipe` for the contract."""

    settings = LifespanConfig

    def __init__(self, config: LifespanConfig) -> None:
        self.config = config
        self.augment_share = config.augment_share
        anchors, populations = len(config.clusters), len(config.groups)
        codes = age_codes(anchors, populations, config.elements)
        self.codes = torch.from_numpy(codes)
        """(groups, anchors, code)"""
        self.heads = head_weights(anchors, populations, config.heads)
        """(groups, anchors, classes): which logits count, by how much"""
        self.shapes: Tensor | None = None
        """(anchors, 68, 2): the mean faces, where a flow learns from them"""
        self.prototypes: Prototypes | None = None
        self.generator = LifespanGenerator(generator_shape(config))
        if config.decoder_start == "passing":
            self.generator.decoder.draw_passing()
        self.discriminator = Discriminator(
            config.resolution,
            self.heads.shape[-1],
            config.discriminator_width,
            coarse=config.coarse_share > 0,
        )

    def to(self, device: str) -> Self:
        super().to(device)
        self.codes, self.heads = self.codes.to(device), self.heads.to(device)
        return self

    def study(self, portraits: PortraitSet) -> None:
        if self.config.look_weight or self.config.prototypes:
            learned = prototypes(portraits)
            shapes = strengthened(learned.shapes, self.config.shape_strength)
            self.prototypes, self.shapes = replace(learned, shapes=shapes), shapes
        elif self.config.flow_images or self.config.flow_interval:
            shapes = mean_shapes(portraits).to(portraits.device)
            self.shapes = strengthened(shapes, self.config.shape_strength)
        overlay = self.generator.decoder.overlay
        if self.prototypes is not None and overlay is not None and overlay.atlas is not None:
            self.prototypes.draw(
                overlay.atlas, self.config.look_strength, self.config.line_strength
            )

    def optimisers(self) -> Mapping[str, Optimizer]:
        config, rate = self.config, self.config.learning_rate
        slow, fast = (
            list(self.generator.slow_parameters()),
            list(self.generator.fast_parameters()),
        )
        optimisers: dict[str, Optimizer] = {}
        if overlay := self.generator.decoder.overlay:
            if overlay.atlas is None:
                assert overlay.flow is not None
                lessons = list(overlay.flow.parameters())
                optimisers["flow"] = Adam(lessons, config.flow_rate, fused=True)
            else:
                reader = self.generator.identity_encoder.reader
                assert reader is not None
                # Linear in what is known, both are learned as fast.
                linear = [*overlay.atlas.parameters(), *reader.shortfall.parameters()]
                known = {id(parameter) for parameter in linear}
                read = [p for p in reader.parameters() if id(p) not in known]
                lessons = [*read, *linear]
                # Adam's first steps are too far for a reader: it then tells nothing apart for long.
                optimisers["flow"] = RAdam(
                    [
                        {"params": read, "lr": config.reader_rate, "weight_decay": READER_DECAY},
                        {"params": linear, "lr": config.flow_rate},
                    ],
                    decoupled_weight_decay=True,
                )
            if config.flow_interval or overlay.atlas is not None:
                taught = {id(parameter) for parameter in lessons}
                fast = [parameter for parameter in fast if id(parameter) not in taught]
        groups = [{"params": fast, "lr": rate}, {"params": slow, "lr": rate * config.slow_rate}]
        judge = self.discriminator.parameters()
        return optimisers | {
            # Codes and styles stay as they are drawn: noise on the code only disturbs a
            # reconstruction, which would teach the mapping to give all ages one latent.
            "reconstruction": Adam(fast, config.reconstruction_rate, betas=(0.9, 0.99), fused=True),
            "generator": Adam(groups, betas=config.generator_betas, fused=True),
            "discriminator": Adam(
                judge, config.discriminator_rate, config.discriminator_betas, fused=True
            ),
        }

    def noisy_code(self, group: Tensor, cluster: Tensor, draws: Draws) -> Tensor:
        """Codes z (N, code) of groups and clusters (N,), noise on every element."""
        code = self.codes[group, cluster]
        return code + self.config.code_noise * draws.normal(code.shape[1])

    def selected(self, logits: Tensor, group: Tensor, cluster: Tensor) -> Tensor:
        """The logits (N,) that count: the class's own, the mean over populations for neutral."""
        return (logits.float() * self.heads[group, cluster]).sum(1)

    def judged(self, image: Tensor, draws: Draws, coarse: bool = False) -> Tensor:
        """D's logits (N, classes) of random views of the images, or of their halved copies."""
        if coarse:
            image = functional.avg_pool2d(image, 2)
        views = discriminator_views(image, self.config.augment, draws, self.augment_share)
        return self.discriminator(views)

    def kind(self, images_seen: int, steps: int, draws: Draws) -> _Kind:
        config = self.config
        ends = list(
            accumulate(
                (config.reconstruction_images, config.discriminator_images, config.flow_images)
            )
        )
        part = _PARTS[sum(images_seen >= end for end in ends)]
        judged = part in ("discriminator", "all")
        moves = part == "all" and (steps + 1) % config.discriminator_steps == 0
        generator_steps = steps // config.discriminator_steps
        return _Kind(
            part,
            # One size of images in a step, at random, so that both mix.
            coarse=judged and draws.coin(config.coarse_share),
            penalised=judged and steps % config.r1_interval == 0,
            moves=moves,
            polishing=moves and images_seen >= config.images - config.polish_images,
            cycled=moves and generator_steps % config.consistency_interval == 0,
            lesson=part == "flow"
            or (part == "all" and config.flow_interval > 0 and steps % config.flow_interval == 0),
        )

    def step(self, batch: Batch, images_seen: int, steps: int, draws: Draws) -> Iterator[Loss]:
        config, kind = self.config, self.kind(images_seen, steps, draws)
        if kind.part == "reconstruction":
            yield self._reconstruction_loss(batch, draws)
        if kind.part == "discriminator":
            yield self._discriminator_loss(batch, None, kind, draws)
        if kind.part == "all":
            codes = [self.noisy_code(batch.group, c, draws) for c in (batch.source, batch.target)]
            # D learns from G's own pictures of the step, so that they are drawn once; a part of a
            # batch keeps none of them while the other parts pass.
            rendered = None
            if kind.moves and config.accumulate == 1:
                rendered = self._rendered(batch, codes)
                fake = rendered.fake.detach()
            else:
                with torch.no_grad():
                    fake = self.generator(batch.real, codes[1])
            yield self._discriminator_loss(batch, fake, kind, draws)
            if kind.moves:
                rendered = rendered or self._rendered(batch, codes)
                yield self._generator_loss(batch, rendered, codes, kind, draws)
        if kind.lesson:
            yield self._lesson_loss(batch, draws)

    def _reconstruction_loss(self, batch: Batch, draws: Draws) -> Loss:
        config, generator = self.config, self.generator
        code = self.noisy_code(batch.group, batch.source, draws)
        # All of a picture is drawn here: a mask would close at once, and leave nothing to learn.
        identity = generator.identity_encoder(batch.real)
        rebuilt = generator.decoder.layers(identity, generator.mapping(code)).drawn
        real = batch.real
        if config.detail > 1:
            real = functional.avg_pool2d(real, config.detail)
        logged = {
            "reconstruction": absolute_error(rebuilt, real),
            "age": age_loss(generator.age_encoder(batch.real), code),
        }
        loss = (
            config.reconstruction_weight * logged["reconstruction"]
            + config.age_weight * logged["age"]
        )
        return Loss("reconstruction", loss, logged | vital_signs(real, rebuilt))

    def _lesson_loss(self, batch: Batch, draws: Draws) -> Loss:
        """What lessons teach the flow, or an atlas in its place; no other part learns."""
        overlay = self.generator.decoder.overlay
        assert overlay is not None
        assert self.shapes is not None
        assert batch.landmarks is not None
        if overlay.atlas is not None:
            return self._atlas_loss(overlay.atlas, batch, draws)
        assert overlay.flow is not None
        generator = self.generator
        own, other = (self.noisy_code(batch.group, c, draws) for c in (batch.source, batch.target))
        with torch.no_grad():
            identity = generator.identity_encoder(batch.real)
            latents = generator.mapping(torch.cat([own, other]))
            coarse = generator.decoder.coarse(identity.repeat(2, 1, 1, 1), latents)
        still, flow = overlay.flow(coarse).chunk(2)
        seen = batch.landmarks.isfinite().all(dim=(1, 2))
        places = torch.where(seen[:, None, None], batch.landmarks, self.shapes[batch.source])
        moves = self.shapes[batch.target] - self.shapes[batch.source]
        wanted = bending_flow(places, moves, flow.shape[-1])
        missed = (flow - wanted).square().mean(dim=(1, 2, 3)) * seen
        loss = missed.mean() + still.square().mean() / len(self.shapes)
        logged = {
            "flow_error": missed.sum() / seen.sum().clamp(min=1) / wanted.square().mean(),
            "unmoved": still.square().mean() / wanted.square().mean(),
        }
        return Loss("flow", loss, logged)

    def _atlas_loss(self, atlas: Atlas, batch: Batch, draws: Draws) -> Loss:
        """To read portraits, and which cluster a latent asks for."""
        assert self.shapes is not None
        assert batch.landmarks is not None
        assert batch.shown is not None
        with torch.no_grad():
            latent = self.generator.mapping(self.noisy_code(batch.group, batch.target, draws))
        wanted = functional.one_hot(batch.target, atlas.clusters).float()
        asked = squared_error(atlas.asked(latent), wanted)
        people = alike(atlas.groups, atlas.clusters, batch.shown.device)
        people = people[batch.shown * atlas.clusters + batch.source]
        image, hair, eyeglasses = (
            None if x is None else resized(x, Reader.SIDE)
            for x in (batch.real, batch.hair, batch.eyeglasses)
        )
        assert image is not None
        lesson = Lesson(image, batch.landmarks, people, hair, eyeglasses).viewed(draws)
        reader = self.generator.identity_encoder.reader
        assert reader is not None
        loss, parts = misread(reader, lesson, self.shapes.mean(0), draws)
        short, parts = self._shortfall(reader, batch), {**parts, "asked": asked}
        return Loss("flow", loss + asked + short[0], {**parts, "short": short[1]})

    def _shortfall(self, reader: Reader, batch: Batch) -> tuple[Tensor, Tensor]:
        """To know how far portraits fall short of a cluster, and how far off that is, in clusters.

        G changes them, and what is left is how much older the reader finds them than the batch's
        portraits of the cluster; of one that has none nothing is learned. Only what it knows of
        that moves: a picture teaches nothing of ages.
        """
        clusters = len(self.config.clusters)
        reading = reader(resized(batch.real, Reader.SIDE))
        with torch.no_grad():
            picture = self.generator(batch.real, self.codes[-1, batch.target])
            people = reader(resized(picture, Reader.SIDE)).people
            found, own = (_told(x, clusters) for x in (people, reading.people))
            places = torch.arange(clusters, device=own.device, dtype=own.dtype)
            ages = own @ places
            same = (batch.target[:, None] == batch.source).float()
            wanted = same @ ages / same.sum(1).clamp(min=1)
            left = found @ places - wanted
            known = (same.sum(1) > 0) * (1 - own.gather(1, batch.target[:, None])[:, 0])
        said = reading.shortfall.float().gather(1, batch.target[:, None])[:, 0]
        better = (said.detach() + left).clamp(-Atlas.SHORT, Atlas.SHORT)
        return (known * (said - better).square()).mean(), (known * left.abs()).mean()

    def _look(self, batch: Batch, rendered: _Rendered) -> tuple[Tensor, Tensor]:
        """What is taught, (N, 3, R, R), and the mean square by which the pictures depart from it.

        A portrait without landmarks teaches nothing, and counts as what it is.
        """
        taught, seen = self._taught(batch, rendered)
        return taught, ((rendered.fake - taught).square().mean(dim=(1, 2, 3)) * seen).mean()

    @torch.no_grad()
    def _taught(self, batch: Batch, rendered: _Rendered) -> tuple[Tensor, Tensor]:
        """What the mean faces make of the bent portraits, and where (N,) landmarks let them."""
        assert self.prototypes is not None
        assert rendered.bent is not None
        assert rendered.flow is not None
        assert batch.landmarks is not None
        assert batch.shown is not None
        shapes, flow = self.prototypes.shapes, rendered.flow.chunk(2)[1]
        hair, eyeglasses = (
            None if x is None else laid_along(x, flow) for x in (batch.hair, batch.eyeglasses)
        )
        bent = laid_along(batch.real, flow)
        seen = batch.landmarks.isfinite().all(dim=(1, 2))
        places = batch.landmarks + shapes[batch.target] - shapes[batch.source]
        places = torch.where(seen[:, None, None], places, shapes[batch.target])
        taught = self.prototypes.taught(
            bent,
            places,
            batch.source,
            batch.target,
            batch.shown,
            self.config.look_strength,
            hair,
            self.config.line_strength,
            eyeglasses,
        )
        under = rendered.bent.chunk(2)[1]
        return torch.where(seen[:, None, None, None], taught, under), seen

    def _rendered(self, batch: Batch, codes: Sequence[Tensor]) -> _Rendered:
        generator = self.generator
        latents = generator.mapping(torch.cat(list(codes)))
        identity = generator.identity_encoder(batch.real)
        layers = generator.decoder.layers(torch.cat([identity, identity]), latents)
        rebuilt, fake = layers.image.chunk(2)
        return _Rendered(identity, latents.chunk(2)[0], rebuilt, fake, layers.bent, layers.flow)

    def _generator_loss(
        self,
        batch: Batch,
        rendered: _Rendered,
        codes: Sequence[Tensor],
        kind: _Kind,
        draws: Draws,
    ) -> Loss:
        config, generator = self.config, self.generator
        real, fake, (source_code, target_code) = batch.real, rendered.fake, codes
        judged = self.judged(fake, draws, kind.coarse)
        judged = self.selected(judged, batch.group, batch.target)
        adversarial = minimax_loss if config.generator_loss == "minimax" else adversarial_loss
        logged = {
            "adversarial": adversarial(judged),
            "reconstruction": absolute_error(rendered.rebuilt, real),
        }
        weight = config.polish_weight if kind.polishing else config.reconstruction_weight
        loss = config.adversarial_weight * logged["adversarial"] + weight * logged["reconstruction"]
        if rendered.bent is not None:
            both = torch.cat([rendered.rebuilt, fake])
            base = rendered.bent
            if config.restraint_weight:
                logged["restraint"] = fine_changes(both, base).mean()
                loss = loss + config.restraint_weight * logged["restraint"]
            if config.look_weight:
                taught, logged["look"] = self._look(batch, rendered)
                base = torch.cat([base.chunk(2)[0], taught])
                loss = loss + config.look_weight * logged["look"]
            if config.growth_weight:
                older = (batch.target - batch.source).clamp(min=0)
                wide = fine_changes(fake, base.chunk(2)[1], scales=3)
                logged["growth"] = (older * wide).mean()
                loss = loss + config.growth_weight * logged["growth"]
            if config.colour_weight:
                logged["added_colour"] = added_colour(both, base)
                loss = loss + config.colour_weight * logged["added_colour"]
        if kind.cycled:
            fake_identity = generator.identity_encoder(fake)
            cycled = generator.decoder(fake_identity, rendered.source_latent)
            encoder = generator.age_encoder
            features = generator.identity_encoder.features
            fixed = {name: p.detach() for name, p in encoder.named_parameters()}
            logged |= {
                "cycle": absolute_error(cycled, real),
                "identity": absolute_error(
                    fake_identity[:, :features], rendered.identity[:, :features]
                ),
                "age": age_loss(encoder(real), source_code),
                "fake_age": age_loss(functional_call(encoder, fixed, (fake,)), target_code),
            }
            loss = loss + config.consistency_interval * (
                config.cycle_weight * logged["cycle"]
                + config.identity_weight * logged["identity"]
                + config.age_weight * (logged["age"] + logged["fake_age"])
            )
        return Loss("generator", loss, logged)

    def _real_logits(self, batch: Batch, real: Tensor, draws: Draws, coarse: bool) -> Tensor:
        """Logits (N, anchors) of real images, their own cluster's first."""
        logits = self.judged(real, draws, coarse)
        every = torch.einsum("nk,nak->na", logits.float(), self.heads[batch.group])
        steps_on = torch.arange(every.shape[1], device=every.device)
        return every.gather(1, (batch.source[:, None] + steps_on) % every.shape[1])

    def _discriminator_loss(
        self, batch: Batch, fake: Tensor | None, kind: _Kind, draws: Draws
    ) -> Loss:
        """D against generated images, or, without them, real ones under right and wrong classes."""
        config = self.config
        real = batch.real.detach().requires_grad_(kind.penalised)
        every = self._real_logits(batch, real, draws, kind.coarse)
        real_logits, wrong_logits = every[:, 0], every[:, 1:]
        mismatch = mismatch_loss(wrong_logits)
        logged = {
            "real_logit": real_logits.mean(),
            "wrong_logit": wrong_logits.mean(),
            "told_apart": (real_logits[:, None] > wrong_logits).float().mean(),
        }
        if fake is None:
            loss = adversarial_loss(real_logits) + mismatch
        else:
            judged = self.judged(fake, draws, kind.coarse)
            fake_logits = self.selected(judged, batch.group, batch.target)
            logged |= {"fake_logit": fake_logits.mean()} | vital_signs(batch.real, fake)
            loss = discriminator_loss(real_logits, fake_logits) + config.mismatch_weight * mismatch
        logged["discriminator"] = loss
        if kind.penalised:
            penalty = r1_penalty(real_logits, real)
            loss = loss + config.r1_gamma * config.r1_interval * penalty
            logged["r1"] = penalty
        return Loss("discriminator", loss, logged)

    @torch.no_grad()
    def held_out(self, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
        coarse = draws.coin(self.config.coarse_share)
        return {"held_out_logit": self._real_logits(batch, batch.real, draws, coarse)[:, 0].mean()}

    def warm_generator(
        self, weights: Mapping[str, Tensor], config: FitConfig
    ) -> Mapping[str, Tensor]:
        """Styles of one length may go on with lengths of their own, moved by `style_reach`."""
        before = cast(LifespanConfig, config)
        weights = self._warm_overlay(weights)
        if before.style_norm == self.config.style_norm and not self.config.style_reach:
            return weights
        if self.config.style_norm:
            raise ConfigError("style_norm: the warm start's styles have lengths of their own")
        classes = len(self.codes.flatten(0, 1))
        if self.config.latent < classes:
            raise ConfigError(f"latent: styles of {classes} classes need as many numbers")
        settings = ("overlay", "detail", "softness", "prototypes")
        mine = {name: getattr(self.config, name) for name in settings}
        before = replace(before, **mine)
        source, target = (LifespanGenerator(generator_shape(c)) for c in (before, self.config))
        source.load_state_dict(weights)
        reach = self.config.style_reach or (1.0,) * len(self.config.clusters)
        reach_out(source, target, self.codes.cpu(), reach)
        return target.state_dict()

    def _warm_overlay(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """An overlay that only one of the two has starts anew, or is left out."""
        mine = self.generator.state_dict()
        new = {name: tensor for name, tensor in mine.items() if name.startswith(OVERLAY)}
        return new | {
            name: tensor
            for name, tensor in weights.items()
            if (name in mine or not name.startswith(OVERLAY)) and name not in STUDIED
        }

    def warm_discriminator(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """An entrance for coarse images that only one of the two has is left as it is, or out."""
        mine = self.discriminator.state_dict()
        entrance = {name: tensor for name, tensor in mine.items() if name.startswith(ENTRANCE)}
        rest = {n: t for n, t in weights.items() if n in mine or not n.startswith(ENTRANCE)}
        for name in ("head.weight", "head.bias"):
            rest[name] = self._warm_heads(rest[name])
        return entrance | rest

    def _warm_heads(self, heads: Tensor) -> Tensor:
        """Joint heads as the factored ones that are nearest to them, where those are wanted."""
        anchors, populations = len(self.config.clusters), len(self.config.groups)
        if self.config.heads == "joint" or len(heads) != populations * anchors:
            return heads
        table = heads.unflatten(0, (populations, anchors))
        clusters = table.mean(0)
        return torch.cat([clusters, table.mean(1) - clusters.mean(0)])

    def anchors(self, generator: nn.Module, image: Tensor, group: int) -> Tensor:
        network = cast(LifespanGenerator, generator)
        latents = network.mapping(self.codes[group])
        identity = network.identity_encoder(image)
        count, anchors = len(image), len(latents)
        pictures = network.decoder(identity.repeat_interleave(anchors, 0), latents.repeat(count, 1))
        return pictures.unflatten(0, (count, anchors))

    def reconstruction(self, generator: nn.Module, image: Tensor, cluster: Tensor) -> Tensor:
        network = cast(LifespanGenerator, generator)
        return network.decoder(
            network.identity_encoder(image), network.mapping(self.codes[-1, cluster])
        )

    @torch.no_grad()
    def exportable(self, generator: nn.Module) -> Exportable:
        network, config = cast(LifespanGenerator, generator), self.config
        codes = self.codes.cpu()
        latents = network.mapping(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])
        overlay = network.decoder.overlay
        if overlay is not None and overlay.atlas is not None:
            # Lessons taught it of noisy codes, and the mapping has moved on since.
            clusters = torch.eye(len(config.clusters)).repeat(len(codes), 1)
            refit(overlay.atlas.asked, latents.flatten(0, 1), clusters)
        return Exportable(
            network.identity_encoder,
            (network.decoder,),
            latents.numpy(),
            config.age_clusters,
            config.bundle_groups,
            "w",
        )
