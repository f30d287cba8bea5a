from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from model.networks.layers import laid_along
from model.networks.reader import Reading
from tests.training.test_shapes import face
from training.config import config_of
from training.data import Batch, PortraitSet, split_rows
from training.draws import Draws
from training.export import trained_of_checkpoint
from training.losses import adversarial_loss, age_loss, minimax_loss
from training.prototypes import Prototypes
from training.recipes.lifespan import LifespanRecipe
from training.shapes import strengthened

TINY = {
    "resolution": 16, "width": 2, "discriminator_width": 2, "elements": 2, "latent": 8,
    "code_noise": 0.0, "reconstruction_images": 100, "discriminator_images": 50,
}  # fmt: skip


@pytest.fixture
def recipe():
    torch.manual_seed(0)
    return LifespanRecipe(config_of(TINY))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    source, target = torch.tensor([0, 1, 5, 3]), torch.tensor([2, 0, 1, 4])
    return Batch(torch.rand(4, 3, 16, 16) * 2 - 1, source, target, torch.tensor([0, 1, 2, 2]))


def draws(step=0):
    return Draws(0, step, 4)


@pytest.mark.parametrize(
    ("images_seen", "updates"),
    [
        (0, ["reconstruction"]),
        (99, ["reconstruction"]),
        (100, ["discriminator"]),
        (149, ["discriminator"]),
        (150, ["discriminator", "generator"]),
    ],
)
def test_reconstruction_then_the_discriminator_then_both_are_trained(
    recipe, batch, images_seen, updates
):
    made = [loss.optimiser for loss in recipe.step(batch, images_seen, 1, draws())]
    assert made == updates


def test_the_age_encoder_learns_from_real_images_alone(recipe, batch):
    parameters = list(recipe.generator.age_encoder.parameters())
    _, loss = recipe.step(batch, 150, 1, draws())
    gradients = torch.autograd.grad(loss.value, parameters)
    code = recipe.codes[batch.group, batch.source]
    alone = recipe.config.age_weight * age_loss(recipe.generator.age_encoder(batch.real), code)
    for given, wanted in zip(gradients, torch.autograd.grad(alone, parameters), strict=True):
        torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize(("steps", "factor"), [(4, 2.0), (5, 0.0)])
def test_lazy_consistency_losses_are_weighted_by_the_steps_between(batch, steps, factor):
    gradients = {}
    for interval in (1, 2):
        torch.manual_seed(0)
        recipe = LifespanRecipe(config_of(TINY | {"consistency_interval": interval}))
        parameters = list(recipe.generator.age_encoder.parameters())
        _, loss = recipe.step(batch, 150, steps, draws())
        gradients[interval] = torch.autograd.grad(
            loss.value, parameters, allow_unused=True, materialize_grads=True
        )
        assert ("cycle" in loss.logged) == (steps % interval == 0)
    for every, lazy in zip(gradients[1], gradients[2], strict=True):
        torch.testing.assert_close(lazy, factor * every)


@pytest.mark.parametrize(("images_seen", "weight"), [(150, 20.0), (199, 20.0), (200, 60.0)])
def test_the_last_images_weigh_reconstruction_more(batch, images_seen, weight):
    others = ("adversarial_weight", "cycle_weight", "identity_weight", "age_weight")
    schedule = {
        "images": 250, "polish_images": 50, "reconstruction_weight": 20.0, "polish_weight": 60.0
    }  # fmt: skip
    recipe = LifespanRecipe(config_of(TINY | schedule | dict.fromkeys(others, 0.0)))
    _, loss = recipe.step(batch, images_seen, 1, draws())
    torch.testing.assert_close(loss.value, weight * loss.logged["reconstruction"])


def test_the_judged_age_of_a_generated_image_moves_the_decoder(recipe, batch):
    weights = dict.fromkeys(
        ("adversarial_weight", "reconstruction_weight", "cycle_weight", "identity_weight"), 0.0
    )
    recipe.config = config_of(TINY | weights)
    _, loss = recipe.step(batch, 150, 1, draws())
    (gradient,) = torch.autograd.grad(loss.value, recipe.generator.decoder.to_rgb.weight)
    assert gradient.abs().max() > 0


def test_a_real_image_under_a_wrong_cluster_is_called_fake(recipe, batch):
    optimiser = recipe.optimisers()["discriminator"]
    logged = []
    for step in range(150):
        (loss,) = recipe.step(batch, 100, 1, draws(step))
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
        logged.append(loss.logged)
    first, last = logged[0], logged[-1]
    assert last["told_apart"] == 1
    assert last["wrong_logit"] < first["wrong_logit"]
    assert last["real_logit"] > first["real_logit"]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_coarse_judgement_asks_nothing_of_single_pixels(share):
    torch.manual_seed(0)
    recipe = LifespanRecipe(config_of(TINY | {"resolution": 32, "coarse_share": share}))
    batch = Batch(
        torch.rand(4, 3, 32, 32) * 2 - 1,
        torch.tensor([0, 1, 5, 3]),
        torch.tensor([2, 0, 1, 4]),
        torch.tensor([0, 1, 2, 2]),
    )
    image = batch.real.requires_grad_()
    coarse = draws().coin(share)
    recipe.selected(
        recipe.judged(image, draws(), coarse), batch.group, batch.target
    ).sum().backward()
    blocks = image.grad.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert bool((blocks.amax(-1) == blocks.amin(-1)).all()) == (share == 1)
    for loss in recipe.step(batch, 150, 1, draws()):
        loss.value.backward()


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_the_discriminator_moves_k_times_for_each_move_of_the_generator(batch, steps):
    recipe = LifespanRecipe(config_of(TINY | {"discriminator_steps": 3}))
    moved = [loss.optimiser for loss in recipe.step(batch, 150, steps, draws())]
    assert moved == ["discriminator"] + ["generator"] * (steps == 2)


@pytest.mark.parametrize(
    ("kind", "loss"), [("non_saturating", adversarial_loss), ("minimax", minimax_loss)]
)
def test_the_adversarial_loss_is_the_one_that_the_configuration_names(batch, kind, loss):
    torch.manual_seed(0)
    recipe = LifespanRecipe(config_of(TINY | {"generator_loss": kind}))
    logged = [given.logged for given in recipe.step(batch, 150, 1, draws())][1]
    judge = recipe.discriminator
    with torch.no_grad():
        fake = recipe.generator(batch.real, recipe.codes[batch.group, batch.target])
        wanted = loss(recipe.selected(judge(fake), batch.group, batch.target))
    torch.testing.assert_close(logged["adversarial"], wanted)


def test_what_is_held_out_is_judged_as_real_under_its_own_cluster(recipe, batch):
    wanted = recipe.selected(recipe.discriminator(batch.real), batch.group, batch.source).mean()
    given = recipe.held_out(batch, draws())
    torch.testing.assert_close(given, {"held_out_logit": wanted.detach()})


def test_a_passing_start_draws_the_decoder_so_and_nothing_else():
    torch.manual_seed(0)
    drawn = LifespanRecipe(config_of(TINY | {"width": 8})).generator
    torch.manual_seed(0)
    passing = LifespanRecipe(config_of(TINY | {"width": 8, "decoder_start": "passing"})).generator
    kernel = passing.decoder.blocks[0].first.weight.detach()
    assert kernel[:, :, 1, 1].diag().mean() > 6 > 1 > kernel.std()
    assert drawn.decoder.blocks[0].first.weight.std() > 0.9
    torch.testing.assert_close(
        passing.identity_encoder.state_dict(), drawn.identity_encoder.state_dict()
    )


def test_the_style_gain_of_a_run_is_that_of_its_exported_network():
    recipe = LifespanRecipe(config_of(TINY | {"style_gain": 0.2}))
    weights = recipe.generator.state_dict()
    state = {"config": recipe.config.to_dict(), "averaged": weights, "images_seen": 1}
    image, code = torch.rand(1, 3, 16, 16), recipe.codes[:1, 0]
    wanted = recipe.generator(image, code)
    parts = trained_of_checkpoint(state).parts
    latent = recipe.generator.mapping(code)
    torch.testing.assert_close(parts.decoders[0](parts.encoder(image), latent), wanted)
    other = LifespanRecipe(config_of(TINY)).generator
    other.load_state_dict(weights)
    assert (other(image, code) - wanted).abs().max() > 1e-3


def test_neutral_counts_the_mean_of_both_populations_logits(recipe):
    logits = torch.arange(12.0)[None].repeat(3, 1)
    cluster = torch.full((3,), 2)
    female, male, neutral = recipe.selected(logits, torch.tensor([0, 1, 2]), cluster)
    assert neutral == (female + male) / 2
    assert female != male


def test_factored_heads_add_a_clusters_logit_to_a_groups():
    recipe = LifespanRecipe(config_of(TINY | {"heads": "factored"}))
    logits = torch.arange(8.0)[None].expand(4, 8)  # six clusters, then female and male
    group, cluster = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 3, 3, 0])
    selected = recipe.selected(logits, group, cluster)
    assert selected.tolist() == [3 + 6, 3 + 7, 3 + 6.5, 0 + 6.5]


def test_factored_heads_learn_an_age_from_portraits_of_all_groups(batch):
    """Joint heads of men say nothing of ages after a step on women; factored ones do."""
    women = Batch(batch.real, batch.source, batch.target, torch.zeros(4, dtype=torch.int64))
    for kind, shared in (("joint", False), ("factored", True)):
        torch.manual_seed(0)
        recipe = LifespanRecipe(config_of(TINY | {"heads": kind}))
        (loss,) = recipe.step(women, 100, 1, draws())
        (gradient,) = torch.autograd.grad(loss.value, [recipe.discriminator.head.weight])
        men = torch.einsum("ak,kchw->achw", recipe.heads[1], gradient)
        of_ages = men - men.mean(0)
        assert bool(of_ages.abs().max() > 0) == shared


def test_exported_latents_are_the_mapping_of_the_noise_free_codes(recipe):
    parts = recipe.exportable(recipe.generator.eval())
    with torch.no_grad():
        wanted = recipe.generator.mapping(recipe.codes[2])
    torch.testing.assert_close(torch.from_numpy(parts.latents[2]), wanted)
    assert parts.latents.shape == (3, 6, 8)


def test_a_warm_start_turns_joint_heads_into_the_nearest_factored_ones(batch):
    joint = LifespanRecipe(config_of(TINY))
    with torch.no_grad():
        for heads in (joint.discriminator.head.weight, joint.discriminator.head.bias):
            age, group = torch.randn(1, 6, *heads.shape[1:]), torch.randn(2, 1, *heads.shape[1:])
            heads.copy_((age + group).flatten(0, 1))
    factored = LifespanRecipe(config_of(TINY | {"heads": "factored"}))
    weights = factored.warm_discriminator(joint.discriminator.state_dict())
    factored.discriminator.load_state_dict(weights)
    logits = [recipe.judged(batch.real, draws()) for recipe in (joint, factored)]
    for group in range(3):
        groups = torch.full((4,), group)
        given, wanted = (
            recipe.selected(each, groups, batch.source)
            for recipe, each in zip((factored, joint), reversed(logits), strict=True)
        )
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_an_overlay_and_its_detail_train_with_the_rest(batch):
    config = config_of(TINY | {"resolution": 32, "overlay": True, "detail": 2})
    recipe = LifespanRecipe(config)
    wide = replace(batch, real=batch.real.repeat(1, 1, 2, 2))
    *_, generator_loss = recipe.step(wide, 200, 0, draws())
    assert generator_loss.optimiser == "generator"
    generator_loss.value.backward()
    silent = [n for n, p in recipe.generator.named_parameters() if p.grad is None]
    assert silent == []
    assert recipe.generator.decoder.overlay.flow.last.weight.grad.abs().sum() > 0
    assert recipe.anchors(recipe.generator, wide.real, 2).shape == (4, 6, 3, 32, 32)


def test_identities_are_compared_by_their_features_and_not_by_the_carried_portrait(batch):
    recipe = LifespanRecipe(config_of(TINY | {"overlay": True}))
    *_, generator_loss = recipe.step(batch, 200, 0, draws())
    generator = recipe.generator
    codes = recipe.codes[batch.group, batch.target]
    with torch.no_grad():
        fake = generator(batch.real, codes)
        features = [generator.identity_encoder(x)[:, :8] for x in (batch.real, fake)]
    expected = (features[0] - features[1]).abs().mean()
    torch.testing.assert_close(generator_loss.logged["identity"].detach(), expected)


def test_the_flow_alone_learns_the_moves_between_mean_faces(batch):
    settings = {"overlay": True, "flow_images": 100, "discriminator_images": 0, "elements": 4}
    recipe = LifespanRecipe(config_of(TINY | settings | {"reconstruction_images": 0, "width": 4}))
    recipe.shapes = torch.rand(6, 68, 2, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.45
    places = torch.rand(4, 68, 2, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2
    places[3] = float("nan")
    seen = replace(batch, landmarks=places)
    before = {name: tensor.clone() for name, tensor in recipe.generator.state_dict().items()}
    optimiser = recipe.optimisers()["flow"]
    errors = []
    for step in range(150):
        (loss,) = recipe.step(seen, 0, step, draws(step))
        assert loss.optimiser == "flow"
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
        errors.append(float(loss.logged["flow_error"].detach()))
    assert errors[0] == pytest.approx(1, abs=0.4)
    assert sum(errors[-10:]) / 10 < 0.6
    changed = {
        name for name, tensor in recipe.generator.state_dict().items()
        if not torch.equal(tensor, before[name])
    }  # fmt: skip
    assert changed
    assert all(name.startswith("decoder.overlay.flow.") for name in changed)
    assert next(recipe.step(seen, 100, 0, draws())).optimiser == "discriminator"


COSTS = {
    "restraint": "restraint_weight",
    "growth": "growth_weight",
    "added_colour": "colour_weight",
}


@pytest.mark.parametrize("name", COSTS)
def test_what_changes_the_bent_portraits_costs_by_its_weight(batch, name):
    setting = COSTS[name]
    free, held = (
        LifespanRecipe(config_of(TINY | {"overlay": True, setting: weight}))
        for weight in (0.0, 50.0)
    )
    held.generator.load_state_dict(free.generator.state_dict())
    held.discriminator.load_state_dict(free.discriminator.state_dict())
    (*_, plain), (*_, restrained) = (r.step(batch, 200, 0, draws()) for r in (free, held))
    cost = restrained.logged[name]
    assert cost > 0
    assert name not in plain.logged
    torch.testing.assert_close(restrained.value, plain.value + 50 * cost)


def test_growing_younger_costs_nothing_and_growing_older_by_its_clusters(batch):
    recipe = LifespanRecipe(config_of(TINY | {"overlay": True, "growth_weight": 1.0}))
    costs = []
    for step in (-2, 1, 2):
        source = torch.full_like(batch.source, 2)
        pair = replace(batch, source=source, target=torch.full_like(source, 2 + step))
        *_, loss = recipe.step(pair, 200, 0, draws())
        costs.append(loss.logged["growth"].item())
    younger, older, oldest = costs
    assert younger == 0
    assert 0 < older < oldest


@pytest.fixture
def looking(batch, monkeypatch):
    """A recipe with prototypes that darken the face with age, and portraits with landmarks."""
    monkeypatch.setattr("model.networks.departure.UNLIKE", 1e6)
    # Random landmarks are not where a face's are.
    monkeypatch.setattr("model.networks.atlas.STRETCHED", (-1e6, -1e5))
    settings = {"overlay": True, "look_weight": 1.0, "look_strength": 2.0}
    recipe = LifespanRecipe(config_of(TINY | settings))
    darker = (
        -0.1 * torch.arange(6.0).view(1, 6, 1, 1, 1) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)
    )
    everywhere = torch.ones(16, 16)
    recipe.prototypes = Prototypes(
        torch.rand(1, 68, 2).expand(6, -1, -1),
        darker.expand(2, 6, 3, 16, 16),
        torch.zeros(2, 6, 2, 16, 16),
        torch.zeros(2, 6, 32, 32),
        torch.zeros(2, 6, 32, 32),
        everywhere,
        everywhere,
        torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]).view(1, 6, 1).expand(2, 6, 3),
        torch.zeros(2, 6),
        50 * darker.expand(2, 6, 3, 16, 16),  # nothing is too far beyond them
        everywhere,
        everywhere,
        0 * everywhere,
        0 * everywhere,
        0 * everywhere,
        0 * everywhere,
        torch.zeros(2, 6),
    )
    landmarks = torch.rand(4, 68, 2)
    landmarks[3] = float("nan")
    shown = torch.tensor([0, 1, 1, 0])
    hair = torch.zeros(4, 1, 16, 16)
    hair[..., :8] = 1
    return recipe, replace(batch, landmarks=landmarks, shown=shown, hair=hair)


def test_a_picture_costs_by_how_far_it_is_from_what_the_mean_faces_say(looking):
    recipe, batch = looking
    *_, loss = recipe.step(batch, 200, 0, draws())
    generator = recipe.generator
    with torch.no_grad():
        codes = recipe.codes[batch.group, batch.target]
        layers = generator.decoder.layers(
            generator.identity_encoder(batch.real), generator.mapping(codes)
        )
    light = (layers.bent + 1) / 2
    steps = (batch.target - batch.source).view(4, 1, 1, 1)
    hair = laid_along(batch.hair, layers.flow)
    shade = steps * (0.4 * hair - 0.2 * torch.tensor([1, 3, 3, 1]).view(4, 1, 1, 1))
    wanted = 2 * light * shade.exp() - 1
    missed = (layers.image - wanted.clamp(-1, 1)).square().mean(dim=(1, 2, 3))
    # The last portrait shows no landmarks, so nothing is known of it.
    torch.testing.assert_close(loss.logged["look"].detach(), missed[:3].sum() / 4)


@pytest.fixture
def mapped(looking):
    """The same with an atlas of those prototypes in the generator."""
    plain, batch = looking
    settings = {
        "overlay": True, "softness": 2, "prototypes": True, "flow_images": 100, "elements": 4,
        "reconstruction_images": 0, "discriminator_images": 0, "width": 4, "reader_rate": 4e-3,
    }  # fmt: skip
    torch.manual_seed(0)
    recipe = LifespanRecipe(config_of(TINY | settings))
    recipe.prototypes, recipe.shapes = plain.prototypes, plain.prototypes.shapes
    return recipe, batch


def test_lessons_teach_an_atlas_the_face_the_hair_the_person_and_the_target(mapped):
    recipe, batch = mapped
    places = face(0.9) + 0.05 * torch.arange(4.0).view(4, 1, 1) - 0.1
    batch = replace(batch, landmarks=places)
    recipe.shapes = face(0.9).expand(6, -1, -1)
    before = {name: tensor.clone() for name, tensor in recipe.generator.state_dict().items()}
    optimiser = recipe.optimisers()["flow"]
    logged = []
    for step in range(80):
        (loss,) = recipe.step(batch, 0, step, draws(step))
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
        logged.append(loss.logged)
    for name in ("place_error", "hair", "shown", "asked"):
        first, last = (float(sum(x[name].detach() for x in part))
                       for part in (logged[:5], logged[-5:]))  # fmt: skip
        assert last < 0.9 * first, name
    changed = {
        name for name, tensor in recipe.generator.state_dict().items()
        if not torch.equal(tensor, before[name])
    }  # fmt: skip
    learned = ("identity_encoder.reader.", "decoder.overlay.atlas.asked.")
    assert all(name.startswith(learned) for name in changed)
    for part in ("places", "hair", "people", "shortfall"):
        assert any(name.startswith(f"identity_encoder.reader.{part}.") for name in changed)
    assert "decoder.overlay.atlas.asked.weight" in changed


class Marked(nn.Module):
    """Reads a portrait's cluster in its green, and knows how far it falls short by its red."""

    def __init__(self):
        super().__init__()
        self.shortfall = nn.Linear(1, 6)
        nn.init.zeros_(self.shortfall.weight)
        nn.init.zeros_(self.shortfall.bias)

    def forward(self, image):
        red, green, _ = image.mean((2, 3)).unbind(1)
        shares = (1 - (green[:, None] - torch.arange(6)).abs()).clamp(min=1e-9)
        people = (shares / 2).log().repeat(1, 2)
        hair = image[:, :1]
        return Reading(image[:, :2], people, hair, self.shortfall(red[:, None]), hair)


def marked(red, green):
    """Pictures of these marks (N,)."""
    return torch.stack([red, green, 0 * red], 1)[:, :, None, None].expand(-1, -1, 16, 16)


def test_lessons_teach_how_far_short_a_portrait_falls(mapped):
    """Here each stays too old by its red, whatever is asked for, but for what is asked beyond."""
    recipe, batch = mapped
    reader = Marked()

    def changed(image, code):
        target = [int(torch.nonzero((recipe.codes[-1] == z).all(1))) for z in code]
        target = torch.tensor(target)
        reading = reader(image)
        short = reading.shortfall.gather(1, target[:, None])[:, 0].clamp(-0.7, 0.7)
        return marked(image[:, 0, 0, 0], target + image[:, 0, 0, 0] - short)

    recipe.generator = changed
    red = torch.tensor([0.4, -0.2, 0.1, 0.3])
    source = torch.tensor([1, 2, 3, 4])
    optimiser = torch.optim.Adam(reader.parameters(), 0.05)
    left = []
    for step in range(150):
        target = source.roll(step % 3 + 1)
        real = marked(red, source.float())
        given = replace(batch, real=real, source=source, target=target)
        loss, missed = recipe._shortfall(reader, given)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        left.append(missed.item())
    assert left[0] == pytest.approx(0.25, abs=1e-4)
    assert max(left[-10:]) < 0.03
    for target in (1, 4):
        found = reader(marked(red, source.float())).shortfall[:, target]
        torch.testing.assert_close(found, red, atol=0.05, rtol=0)
    assert not reader.shortfall.bias[[0, 5]].any()  # of which the batch has none


def test_of_its_own_age_no_portrait_falls_short(mapped):
    recipe, batch = mapped
    reader = Marked()
    recipe.generator = lambda image, code: image + 0.5
    own = torch.tensor([1, 2, 3, 4])
    given = replace(batch, real=marked(0.1 * own, own.float()), source=own, target=own)
    loss, left = recipe._shortfall(reader, given)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert left.item() == pytest.approx(0, abs=1e-6)


def test_an_exported_atlas_gets_just_what_each_latent_asks_for():
    torch.manual_seed(0)
    settings = {"overlay": True, "softness": 2, "prototypes": True, "flow_images": 1, "latent": 64}
    recipe = LifespanRecipe(config_of(TINY | settings))
    parts = recipe.exportable(recipe.generator.eval())
    asked = recipe.generator.decoder.overlay.atlas.asked
    with torch.no_grad():
        for latents in torch.from_numpy(parts.latents):
            torch.testing.assert_close(asked(latents), torch.eye(6), atol=1e-3, rtol=0)


def test_no_other_loss_moves_an_atlas_that_lessons_teach(mapped):
    recipe, batch = mapped
    recipe.config = replace(recipe.config, flow_interval=4)
    moved = {
        name: {id(p) for group in optimiser.param_groups for p in group["params"]}
        for name, optimiser in recipe.optimisers().items()
    }
    generator = recipe.generator
    atlas = {
        id(p)
        for part in (generator.decoder.overlay.atlas, generator.identity_encoder.reader)
        for p in part.parameters()
    }
    assert moved["flow"] == atlas
    assert not atlas & moved["generator"]
    *_, flow = recipe.step(batch, 100, 4, draws())
    assert {"place_error", "shown"} <= set(flow.logged)


def test_studying_a_set_draws_its_mean_faces(prepared):
    landmarks = np.tile(face(0.9).numpy(), (len(prepared.portraits), 1, 1))
    noted = replace(prepared, landmarks=landmarks)
    settings = {"overlay": True, "softness": 2, "prototypes": True, "flow_images": 100}
    config = config_of(TINY | settings | {"resolution": 32, "look_strength": 3.0})
    recipe = LifespanRecipe(config)
    portraits = PortraitSet(noted, config, split_rows(noted, 10)[0], torch.device("cpu"))
    recipe.study(portraits)
    drawn = recipe.generator.decoder.overlay.atlas.faces.view(2, 6, 5, 64, 64)
    learned = recipe.prototypes
    wanted = 3 * learned.tone * learned.looks
    found = functional.avg_pool2d(drawn[:, :, :3].flatten(0, 1), 2).unflatten(0, (2, 6))
    torch.testing.assert_close(found, wanted, atol=0.1, rtol=0.2)
    # All faces of the set are of one shape.
    assert recipe.generator.decoder.overlay.atlas.bends.abs().max() < 1e-6


@pytest.mark.parametrize("settings", [{"prototypes": True, "softness": 2}, {}])
def test_shapes_are_strengthened_as_a_set_is_studied(prepared, settings):
    landmarks = np.tile(face(0.9).numpy(), (len(prepared.portraits), 1, 1))
    landmarks += 0.02 * np.arange(len(landmarks)).reshape(-1, 1, 1) / len(landmarks)
    noted = replace(prepared, landmarks=landmarks)
    shapes = []
    for strength in (1.0, 2.0):
        config = config_of(
            TINY | {"overlay": True, "flow_images": 9, "shape_strength": strength} | settings
        )
        recipe = LifespanRecipe(config)
        rows = split_rows(noted, 10)[0]
        recipe.study(PortraitSet(noted, config, rows, torch.device("cpu")))
        shapes.append(recipe.shapes)
        if settings:
            assert recipe.prototypes.shapes is recipe.shapes
    torch.testing.assert_close(shapes[1], strengthened(shapes[0], 2.0))
    assert (shapes[1] - shapes[0]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["growth", "added_colour"])
def test_other_costs_count_from_the_look_that_is_taught(looking, name):
    recipe, batch = looking
    weights = {"growth": {"growth_weight": 1.0}, "added_colour": {"colour_weight": 1.0}}[name]
    recipe.config = replace(recipe.config, **weights)
    *_, loss = recipe.step(batch, 200, 0, draws())
    recipe.config = replace(recipe.config, look_weight=0.0)
    *_, plain = recipe.step(batch, 200, 0, draws())
    assert loss.logged[name] != plain.logged[name]


def test_lessons_of_the_flow_go_on_at_their_interval_and_nothing_else_moves_it(batch):
    recipe = LifespanRecipe(config_of(TINY | {"overlay": True, "flow_interval": 4}))
    recipe.shapes = torch.rand(6, 68, 2) * 0.1 + 0.45
    seen = replace(batch, landmarks=torch.rand(4, 68, 2))
    taught = [
        [loss.optimiser for loss in recipe.step(seen, 200, step, draws(step))].count("flow")
        for step in range(8)
    ]
    assert taught == [1, 0, 0, 0, 1, 0, 0, 0]
    moved = {
        name: {id(p) for group in optimiser.param_groups for p in group["params"]}
        for name, optimiser in recipe.optimisers().items()
    }
    flow = {id(p) for p in recipe.generator.decoder.overlay.flow.parameters()}
    assert moved["flow"] == flow
    assert not moved["generator"] & flow
    everything = {id(p) for p in recipe.generator.parameters()}
    assert moved["generator"] | flow == everything


def test_the_start_teaches_drawing_whole_pictures_whatever_the_mask(batch):
    config = config_of(TINY | {"resolution": 32, "overlay": True, "detail": 2})
    recipe = LifespanRecipe(config)
    wide = replace(batch, real=batch.real.repeat_interleave(2, 2).repeat_interleave(2, 3))
    losses = []
    for logit in (0.0, -100.0):
        with torch.no_grad():
            recipe.generator.decoder.overlay.to_mask.bias.fill_(logit)
        (loss,) = recipe.step(wide, 0, 0, draws())
        losses.append(loss.logged["reconstruction"].detach())
        recipe.generator.zero_grad()
        loss.value.backward()
        assert recipe.generator.decoder.to_rgb.weight.grad.abs().sum() > 0
    assert losses[0] == losses[1] > 0.1
