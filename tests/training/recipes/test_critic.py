import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model.runtime import OnnxRuntimeGraph, Provider
from training.config import ConfigError, config_of
from training.data import Batch
from training.draws import Draws
from training.export import export, trained_of_checkpoint
from training.health import COLLAPSED
from training.loop import fit
from training.losses import class_loss
from training.recipes import recipe_of
from training.run import LOG, Run

TINY = {
    "stargan": {"method": "stargan", "residuals": 1},
    "s2gan": {"method": "s2gan", "bases": 3, "basis_channels": 2},
}
SMALL = {"resolution": 16, "width": 4, "discriminator_width": 4}
RUN = {
    "resolution": 32, "width": 2, "discriminator_width": 2, "batch": 4, "images": 80,
    "decay_from": 48, "log_every": 20, "sample_every": 40, "checkpoint_every": 20,
    "select_every": 0, "average_half_life": 40.0, "threads": 1, "held_out": 3,
    "learning_rate": 1e-3, "discriminator_rate": 1e-3, "precision": "float32",
}  # fmt: skip

pytestmark = pytest.mark.parametrize("method", TINY)


@pytest.fixture
def recipe(method):
    torch.manual_seed(0)
    return recipe_of(config_of(TINY[method] | SMALL))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    source, target = torch.tensor([0, 1, 5, 3]), torch.tensor([2, 0, 1, 4])
    return Batch(torch.rand(4, 3, 16, 16) * 2 - 1, source, target, torch.zeros(4, dtype=torch.long))


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """Finished runs of each method, made when first asked for."""
    made = {}

    def finished(method):
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            made[method] = Run(config_of(TINY[method] | RUN), prepared, folder, "cpu")
            assert fit(made[method])
        return made[method]

    return finished


@pytest.fixture
def finished(runs, method):
    return runs(method)


def draws(step=0):
    return Draws(0, step, 4)


def lines_of(run):
    return [json.loads(line) for line in (run.folder / LOG).read_text().splitlines()]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("steps", [0, 3, 4, 5, 9])
def test_the_critic_moves_five_times_for_each_move_of_the_generator(
    method, batch, steps, accumulate
):
    recipe = recipe_of(config_of(TINY[method] | SMALL | {"accumulate": accumulate}))
    moved = [loss.optimiser for loss in recipe.step(batch, 0, steps, draws())]
    assert moved == ["discriminator"] + ["generator"] * (steps in (4, 9))


def test_each_loss_moves_its_own_network_alone(recipe, batch):
    for loss, name in zip(
        recipe.step(batch, 0, 4, draws()), ("discriminator", "generator"), strict=True
    ):
        mine = list(getattr(recipe, name).parameters())
        assert {id(p) for g in recipe.optimisers()[name].param_groups for p in g["params"]} == {
            id(p) for p in mine
        }
        assert loss.optimiser == name
        gradients = torch.autograd.grad(loss.value, mine, retain_graph=True)
        assert all(gradient.abs().max() > 0 for gradient in gradients)
        if name == "discriminator":
            theirs = list(recipe.generator.parameters())
            leaked = torch.autograd.grad(loss.value, theirs, allow_unused=True, retain_graph=True)
            assert set(leaked) == {None}


def test_the_critic_learns_from_the_pictures_that_the_generator_draws(recipe, batch):
    """Whether G's pictures of a step are kept for its own loss or drawn without a gradient."""
    first, last = (next(iter(recipe.step(batch, 0, steps, draws()))) for steps in (0, 4))
    torch.testing.assert_close(first.value, last.value)
    with torch.no_grad():
        fake = recipe.generator(batch.real, torch.eye(6)[batch.target])
        criticism, _ = recipe.discriminator(fake)
        real_criticism, logits = recipe.discriminator(batch.real)
    torch.testing.assert_close(first.logged["critic_fake"].detach(), criticism.mean())
    torch.testing.assert_close(first.logged["critic_real"].detach(), real_criticism.mean())
    torch.testing.assert_close(first.logged["class"].detach(), class_loss(logits, batch.source))


def test_the_critics_loss_is_its_parts_by_their_weights(recipe, batch):
    (loss,) = recipe.step(batch, 0, 0, draws())
    logged = loss.logged
    apart = logged["critic_fake"] - logged["critic_real"]
    torch.testing.assert_close(loss.value, apart + 10 * logged["penalty"] + logged["class"])


def test_the_penalty_is_taken_at_random_places_between_real_and_generated(
    recipe, batch, monkeypatch
):
    """Of a critic that doubles the sum of squares, the slope at x is 4 x."""
    real, fake = batch.real, torch.zeros_like(batch.real)
    monkeypatch.setattr(type(recipe.generator), "forward", lambda *_: fake)
    monkeypatch.setattr(
        type(recipe.discriminator),
        "forward",
        lambda _, x: (2 * x.square().sum((1, 2, 3)), torch.zeros(len(x), 6)),
    )
    (loss,) = recipe.step(batch, 0, 0, draws())
    share = draws().uniform(1, 1, 1)
    assert share.unique().numel() == 4
    wanted = ((4 * share * real).flatten(1).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(loss.logged["penalty"], wanted)


def test_the_signs_of_a_collapse_are_logged_and_logits_of_a_logistic_judge_are_not(recipe, batch):
    (loss,) = recipe.step(batch, 0, 0, draws())
    assert COLLAPSED.keys() <= loss.logged.keys()
    assert not {"real_logit", "fake_logit"} & loss.logged.keys()


def test_the_first_pictures_are_neither_blank_nor_one_for_all(recipe, batch):
    (loss,) = recipe.step(batch, 0, 0, draws())
    assert loss.logged["contrast"] > 0.3
    assert loss.logged["diversity"] > 0.15


def test_anchors_are_the_pictures_at_each_label_and_a_reconstruction_that_at_its_own(recipe, batch):
    aged = recipe.anchors(recipe.generator, batch.real, 0)
    assert aged.shape == (4, 6, 3, 16, 16)
    for place in (0, 5):
        wanted = recipe.generator(batch.real, torch.eye(6)[[place] * 4])
        torch.testing.assert_close(aged[:, place], wanted)
    rebuilt = recipe.reconstruction(recipe.generator, batch.real, batch.source)
    torch.testing.assert_close(rebuilt, aged[torch.arange(4), batch.source])


@pytest.mark.parametrize(
    ("name", "value"), [("groups", ("female", "male")), ("augment", 0.5), ("augment_target", 0.2)]
)
def test_settings_that_the_method_would_ignore_are_refused(method, name, value):
    with pytest.raises(ConfigError, match=f"{name}: {method}"):
        config_of({"method": method, name: value})


def test_all_people_are_one_population_unless_named_otherwise(method):
    assert config_of({"method": method}).bundle_groups == ("all",)


def test_a_run_is_finite_and_moves_every_weight(finished, prepared, tmp_path, method):
    lines = lines_of(finished)
    assert [line["images"] for line in lines] == [20, 40, 60, 80]
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert {"critic", "penalty", "class", "adversarial", "fake_class"} <= lines[-1].keys()
    assert (finished.folder / "samples" / "000000080.png").exists()
    fresh = Run(finished.config, prepared, tmp_path, "cpu")
    for name in ("generator", "discriminator"):
        before = getattr(fresh.recipe, name).state_dict()
        after = getattr(finished.recipe, name).state_dict()
        assert [key for key in before if torch.equal(before[key], after[key])] == []


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_left_alone(
    finished, prepared, tmp_path, method
):
    """Stopped after eight steps: in the midst of a round of five."""
    settings = finished.config.to_dict()
    assert fit(Run(config_of(settings | {"images": 32}), prepared, tmp_path, "cpu"))
    resumed = Run(config_of(settings), prepared, tmp_path, "cpu")
    assert (resumed.images_seen, resumed.steps) == (32, 8)
    assert fit(resumed)
    state, reference = resumed.state(), finished.state()
    for part in ("averaged", "generator", "discriminator"):
        for name, tensor in reference[part].items():
            assert torch.equal(state[part][name], tensor), f"{part}.{name}"


def test_an_accumulated_step_does_what_one_pass_does(prepared, tmp_path, method):
    whole, parts = (
        Run(
            config_of(TINY[method] | RUN | {"accumulate": n, "width": 4}),
            prepared,
            tmp_path / str(n),
            "cpu",
        )
        for n in (1, 2)
    )
    for step in range(5):
        parts.restore(copy.deepcopy(whole.state()))
        logged = [run.step() for run in (whole, parts)]
        assert ("adversarial" in logged[0]) == (step == 4)
        for name in logged[0].keys() - COLLAPSED.keys():  # ratios over what is seen together
            torch.testing.assert_close(logged[1][name], logged[0][name], rtol=1e-4, atol=1e-5)
    for name in ("generator", "discriminator"):
        networks = [dict(getattr(run.recipe, name).named_parameters()) for run in (whole, parts)]
        for key, parameter in networks[0].items():
            error = (networks[1][key].grad - parameter.grad).norm()
            assert error <= 1e-3 * parameter.grad.norm() + 1e-7, key


@pytest.fixture(scope="module")
def bundles(runs, tmp_path_factory):
    made = {}

    def bundle(method):
        if method not in made:
            portraits = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
            made[method] = export(
                trained_of_checkpoint(runs(method).state()),
                tmp_path_factory.mktemp("export") / method,
                portraits,
                name=method,
                version="1",
                precision="float32",
                provenance={"data": ("random numbers",), "licence": "none needed"},
            )
        return made[method]

    return bundle


def served(bundle, portraits, index, latent):
    """What the bundle's graphs make of portraits, as a service runs them."""
    folder: Path = bundle.path
    identity = portraits.astype(np.float32)
    if bundle.manifest.encoder is not None:
        graph = OnnxRuntimeGraph(folder / bundle.manifest.encoder.file, Provider.CPU)
        (identity,) = graph.run({"image": portraits})
    decoder = OnnxRuntimeGraph(folder / bundle.manifest.decoders[0].file, Provider.CPU)
    (pictures,) = decoder.run({"identity": identity, "index": index, "latent": latent})
    return pictures.astype(int)


def test_the_exported_graphs_are_one_grey_level_off_at_most(bundles, method):
    manifest = bundles(method).manifest
    assert manifest.parity.portraits == 12
    assert manifest.parity.max_level_difference <= 1
    assert (manifest.method, manifest.groups) == (method, ("all",))
    assert manifest.latent_size == len(manifest.anchors) == 6


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_served_graphs_give_each_picture_of_a_batch_as_alone(bundles, method, count):
    bundle = bundles(method)
    portraits = np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8)
    index = np.arange(count)[::-1].astype(np.int64).copy()
    latent = bundle.latents[0, np.arange(count) % 6]
    together = served(bundle, portraits, index, latent)
    for i, place in enumerate(index):
        one = portraits[place : place + 1]
        alone = served(bundle, one, np.zeros(1, np.int64), latent[i : i + 1])
        assert abs(alone[0] - together[i]).max() <= 1
