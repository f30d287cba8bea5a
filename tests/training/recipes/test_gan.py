import numpy as np
import pytest
import torch
from PIL import Image

from training.__main__ import main
from training.checkpoints import load_checkpoint
from training.config import ConfigError, config_of
from training.data import Batch
from training.draws import Draws
from training.loop import fit
from training.losses import adversarial_loss, minimax_loss
from training.recipes.gan import GanRecipe
from training.run import Run

TINY = {
    "method": "gan", "resolution": 32, "noise": 4, "hidden": 8, "units": 4, "pieces": 2, "batch": 8,
    "images": 160, "log_every": 80, "sample_every": 80, "checkpoint_every": 80, "held_out": 3,
    "average_half_life": 40.0, "learning_rate": 0.02, "discriminator_rate": 0.005, "threads": 1,
}  # fmt: skip


@pytest.fixture
def batch():
    torch.manual_seed(1)
    zeros = torch.zeros(8, dtype=torch.int64)
    return Batch(torch.rand(8, 3, 32, 32) * 2 - 1, zeros, zeros + 1, zeros)


@pytest.fixture(scope="module")
def drawn(prepared, tmp_path_factory):
    run = Run(config_of(TINY), prepared, tmp_path_factory.mktemp("gan"), "cpu")
    assert fit(run)
    return run


def losses(batch, steps=0, **changes):
    torch.manual_seed(0)
    recipe = GanRecipe(config_of(TINY | changes))
    return list(recipe.step(batch, 0, steps, Draws(0, steps, 8)))


@pytest.mark.parametrize(("steps", "moves"), [(0, False), (1, False), (2, True), (3, False)])
def test_the_discriminator_moves_k_times_for_each_move_of_the_generator(batch, steps, moves):
    found = [loss.optimiser for loss in losses(batch, steps, discriminator_steps=3)]
    assert found == ["discriminator"] + ["generator"] * moves


@pytest.mark.parametrize(
    ("kind", "loss"), [("non_saturating", adversarial_loss), ("minimax", minimax_loss)]
)
def test_the_generators_loss_is_the_one_that_the_configuration_names(batch, kind, loss):
    recipe = GanRecipe(config_of(TINY | {"generator_loss": kind}))
    with torch.no_grad():  # every logit is 0.7
        recipe.discriminator.last.weight.zero_()
        recipe.discriminator.last.bias.fill_(0.7)
    _, generator = recipe.step(batch, 0, 0, Draws(0, 0, 8))
    torch.testing.assert_close(generator.value, loss(torch.full((8,), 0.7)))


def test_a_run_goes_on_exactly_where_it_was(drawn, prepared, tmp_path):
    assert not fit_until(prepared, tmp_path, 80).resumed
    again = fit_until(prepared, tmp_path, 160)
    assert again.resumed
    for name, weight in drawn.averaged.network.state_dict().items():
        assert torch.equal(weight, again.averaged.network.state_dict()[name])


def fit_until(prepared, folder, images):
    run = Run(config_of(TINY | {"images": images}), prepared, folder, "cpu")
    assert fit(run)
    return run


def test_both_networks_have_learned(drawn, prepared, tmp_path):
    fresh = Run(config_of(TINY), prepared, tmp_path, "cpu")
    for name in ("generator", "discriminator"):
        before, after = (getattr(r.recipe, name).state_dict() for r in (fresh, drawn))
        assert not any(torch.equal(before[key], after[key]) for key in before)


def test_samples_come_from_the_seed_and_differ(drawn, tmp_path, capsys):
    sheets = []
    for seed in (0, 0, 1):
        path = tmp_path / f"{len(sheets)}.png"
        command = ["sample", str(drawn.folder), "-o", str(path), "--rows", "2", "--seed", str(seed)]
        assert main(command) == 0
        sheets.append(np.asarray(Image.open(path)))
    assert "4 portraits after 160 images" in capsys.readouterr().out
    assert sheets[0].shape == (64, 64, 3)
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert (sheets[0] != sheets[2]).any()
    assert (sheets[0][:32, :32] != sheets[0][32:, 32:]).any()


def test_it_is_not_exported_and_others_do_not_draw(drawn, prepared, finished, tmp_path, capfd):
    export = ["export", str(drawn.folder), "--data", str(prepared.path), "-o", str(tmp_path / "b")]
    assert main(export) == 2
    assert "anchorage-train sample" in capfd.readouterr().err
    assert main(["sample", str(finished.folder), "-o", str(tmp_path / "no.png")]) == 2
    assert "renders portraits" in capfd.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_sheet_and_a_checkpoint_are_left_and_no_score(drawn):
    assert (drawn.folder / "samples" / "000000160.png").exists()
    assert load_checkpoint(drawn.folder)["best"] == {}


@pytest.mark.parametrize(
    "setting", [{"kept_units": 0.0}, {"augment": 0.5}, {"augment_target": 0.3}]
)
def test_settings_that_would_be_wrong_or_unused_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        config_of(TINY | setting)
