import numpy as np
import pytest
import torch

from training.config import config_of, load_config
from training.data import Batch, PortraitSet
from training.draws import Draws
from training.losses import absolute_error, class_loss
from training.recipes.stargan import StarganRecipe

TINY = {
    "method": "stargan", "resolution": 16, "width": 4, "discriminator_width": 4, "residuals": 1,
}  # fmt: skip


@pytest.fixture
def recipe():
    torch.manual_seed(0)
    return StarganRecipe(config_of(TINY))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    source, target = torch.tensor([0, 1, 5, 3]), torch.tensor([2, 0, 1, 4])
    return Batch(torch.rand(4, 3, 16, 16) * 2 - 1, source, target, torch.zeros(4, dtype=torch.long))


def test_targets_are_the_labels_of_the_batch_in_another_order(prepared):
    settings = config_of(TINY | {"resolution": 32, "batch": 60, "held_out": 2})
    recipe = StarganRecipe(settings)
    portraits = PortraitSet(prepared, settings, prepared.rows, torch.device("cpu"))
    own = []
    for seed in range(20):
        batch = recipe.draw(portraits, torch.Generator().manual_seed(seed), 0, 0)
        assert torch.equal(batch.target.sort().values, batch.source.sort().values)
        own.append((batch.target == batch.source).double().mean())
    assert 0.1 < np.mean(own) < 0.25


def generator_loss(recipe, batch):
    _, loss = recipe.step(batch, 0, 4, Draws(0, 4, 4))
    return loss


def test_the_generator_pays_for_realness_class_and_the_way_back(recipe, batch):
    label = torch.eye(6)
    fake = recipe.generator(batch.real, label[batch.target])
    criticism, logits = recipe.discriminator(fake)
    cycle = absolute_error(recipe.generator(fake, label[batch.source]), batch.real)
    wanted = -criticism.mean() + class_loss(logits, batch.target) + 10 * cycle
    loss = generator_loss(recipe, batch)
    torch.testing.assert_close(loss.value, wanted)
    torch.testing.assert_close(loss.logged["cycle"], cycle)


def test_the_picture_itself_learns_from_the_way_back(batch):
    """Were the way back taken from a picture without its gradient, only half would arrive."""
    weights = {"adversarial_weight": 0.0, "fake_class_weight": 0.0, "cycle_weight": 1.0}
    torch.manual_seed(0)
    recipe = StarganRecipe(config_of(TINY | weights))
    parameter = recipe.generator.contracting[0].weight
    (given,) = torch.autograd.grad(generator_loss(recipe, batch).value, [parameter])
    label = torch.eye(6)
    fake = recipe.generator(batch.real, label[batch.target]).detach()
    half = absolute_error(recipe.generator(fake, label[batch.source]), batch.real)
    (less,) = torch.autograd.grad(half, [parameter])
    assert (given - less).norm() > 0.05 * given.norm()


def test_the_classifier_learns_to_tell_clusters_apart(recipe, batch):
    optimiser = torch.optim.Adam(recipe.discriminator.parameters(), 3e-3, betas=(0.5, 0.999))
    classes = []
    for step in range(60):
        loss = next(iter(recipe.step(batch, 0, 0, Draws(0, step, 4))))
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
        classes.append(loss.logged["class"].item())
    assert classes[-1] < 0.2 < 1.5 < classes[0]


def test_it_is_exported_without_an_encoder_and_without_ages_between_labels(recipe):
    parts = recipe.exportable(recipe.generator.eval())
    assert parts.encoder is None
    assert parts.interpolation_space is None
    assert parts.decoders == (recipe.generator,)
    np.testing.assert_array_equal(parts.latents, np.eye(6, dtype=np.float32)[None])
    assert parts.groups == ("all",)


def test_the_published_preset_is_the_published_setting():
    config = load_config("stargan-128")
    assert (config.resolution, config.width, config.discriminator_width) == (128, 64, 64)
    assert config.residuals == 6
    assert (config.learning_rate, config.discriminator_rate) == (1e-4, 1e-4)
    assert config.generator_betas == config.discriminator_betas == (0.5, 0.999)
    assert (config.batch, config.images // config.batch) == (16, 200_000)
    assert config.decay_from == config.images // 2
    assert config.discriminator_steps == 5
    weights = (config.penalty_weight, config.class_weight, config.fake_class_weight)
    assert (*weights, config.cycle_weight) == (10, 1, 1, 10)
