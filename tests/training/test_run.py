import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.conftest import TINY
from tests.training.test_shapes import face
from training.checkpoints import CHECKPOINT, GOOD, load_checkpoint, save_checkpoint
from training.config import ConfigError, config_of
from training.export import warm_start_bytes
from training.health import COLLAPSED
from training.processes import Processes
from training.run import Run


def test_other_settings_do_not_resume_a_run(finished, prepared):
    changed = config_of(TINY | {"learning_rate": 1e-4})
    with pytest.raises(ConfigError, match="learning_rate"):
        Run(changed, prepared, finished.folder, "cpu")


def test_a_run_saved_before_a_setting_existed_goes_on_with_its_default(
    finished, prepared, tmp_path
):
    state = load_checkpoint(finished.folder)
    assert state is not None
    del state["config"]["polish_images"]
    save_checkpoint(tmp_path, state)
    assert Run(config_of(TINY), prepared, tmp_path, "cpu").images_seen == 160
    with pytest.raises(ConfigError, match="polish_images"):
        Run(config_of(TINY | {"polish_images": 8}), prepared, tmp_path, "cpu")


@pytest.mark.parametrize("changed", [{"images": 400}, {"images": 400, "decay_from": 200}])
def test_more_images_and_another_end_may_be_asked_of_a_finished_run(finished, prepared, changed):
    run = Run(config_of(TINY | changed), prepared, finished.folder, "cpu")
    assert run.images_seen == 160


def test_a_partial_checkpoint_is_never_read(finished, prepared, tmp_path):
    (tmp_path / f"{CHECKPOINT}.partial").write_bytes(b"half of a file")
    assert load_checkpoint(tmp_path) is None


def test_a_warm_start_begins_with_the_averaged_weights(finished, prepared, tmp_path):
    file = tmp_path / "warm.pt"
    file.write_bytes(warm_start_bytes(finished.state()))
    run = Run(config_of(TINY | {"images": 400}), prepared, tmp_path / "run", "cpu")
    run.warm_start(torch.load(file, weights_only=True))
    assert run.images_seen == 160
    for name, tensor in finished.averaged.network.state_dict().items():
        assert torch.equal(run.recipe.generator.state_dict()[name], tensor.half().float())


@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.5, 0.0), (0.5, 1.0)])
def test_a_warm_start_keeps_the_discriminator_whether_it_judged_coarse_images_or_not(
    shares, prepared, tmp_path
):
    before, after = (
        Run(config_of(TINY | {"coarse_share": share}), prepared, tmp_path / f"{number}", "cpu")
        for number, share in enumerate(shares)
    )
    for tensor in before.recipe.discriminator.state_dict().values():
        tensor.normal_()
    after.warm_start(torch.load(io.BytesIO(warm_start_bytes(before.state())), weights_only=True))
    old, new = (run.recipe.discriminator.state_dict() for run in (before, after))
    assert ("from_coarse_rgb.weight" in new) == (shares[1] > 0)
    for name in old.keys() & new.keys():
        assert torch.equal(new[name], old[name].half().float())


@pytest.mark.parametrize("changes", [{"style_gain": 0.2}, {"width": 4}, {"groups": ("female",)}])
def test_a_warm_start_of_another_generator_names_the_setting(changes, finished, prepared, tmp_path):
    weights = torch.load(io.BytesIO(warm_start_bytes(finished.state())), weights_only=True)
    run = Run(config_of(TINY | changes), prepared, tmp_path / "run", "cpu")
    with pytest.raises(ConfigError, match=f"{next(iter(changes))}: the warm start was made with"):
        run.warm_start(weights)


def test_a_warm_start_goes_on_with_styles_of_lengths_of_their_own(prepared, tmp_path):
    gentle = {"latent": 32, "style_gain": 0.2, "decoder_start": "passing"}
    first, alike, moved, back = (
        Run(config_of(TINY | gentle | changes), prepared, tmp_path / name, "cpu")
        for name, changes in {
            "first": {},
            "alike": {"style_norm": False},
            "moved": {"style_norm": False, "style_reach": (1, 1, 1, 1, 1, 2)},
            "back": {},
        }.items()
    )
    weights = torch.load(io.BytesIO(warm_start_bytes(first.state())), weights_only=True)
    weights["generator"] = first.averaged.network.state_dict()  # without rounding to half precision
    alike.warm_start(weights)
    moved.warm_start(weights)
    portraits = alike.selection.portraits(torch.arange(2))
    with torch.no_grad():
        before, same, further = (
            run.recipe.anchors(run.averaged.network, portraits, 2) for run in (first, alike, moved)
        )
    torch.testing.assert_close(same, before, atol=1e-3, rtol=0)
    torch.testing.assert_close(further[:, :5], same[:, :5], atol=1e-3, rtol=0)
    assert (further[:, 5] - same[:, 5]).abs().max() > 0.01
    weights = torch.load(io.BytesIO(warm_start_bytes(alike.state())), weights_only=True)
    with pytest.raises(ConfigError, match="style_norm: "):
        back.warm_start(weights)


def test_a_warm_start_goes_on_with_an_overlay_or_without_it(prepared, tmp_path):
    first, laid, back = (
        Run(config_of(TINY | {"overlay": overlay}), prepared, tmp_path / name, "cpu")
        for name, overlay in {"first": False, "laid": True, "back": False}.items()
    )
    weights = torch.load(io.BytesIO(warm_start_bytes(first.state())), weights_only=True)
    laid.warm_start(weights)
    overlay = laid.recipe.generator.decoder.overlay
    assert not overlay.flow.last.weight.any()
    with torch.no_grad():
        overlay.to_mask.bias.fill_(100.0)
        portraits = laid.selection.portraits(torch.arange(2))
        all_drawn = laid.recipe.anchors(laid.recipe.generator, portraits, 2)
        back.warm_start(torch.load(io.BytesIO(warm_start_bytes(laid.state())), weights_only=True))
        plain = back.recipe.anchors(back.averaged.network, portraits, 2)
    torch.testing.assert_close(all_drawn, plain, atol=1e-2, rtol=0)


def test_a_warm_start_goes_on_with_a_soft_mapped_overlay_or_a_hard_one(prepared, tmp_path):
    landmarks = np.tile(face(0.9).numpy(), (len(prepared.portraits), 1, 1))
    prepared = replace(prepared, landmarks=landmarks)
    hard, soft, back = (
        Run(config_of(TINY | {"overlay": True, **settings}), prepared, tmp_path / name, "cpu")
        for name, settings in {
            "hard": {},
            "soft": {"softness": 3, "prototypes": True, "flow_interval": 4},
            "back": {},
        }.items()
    )
    with torch.no_grad():
        hard.recipe.generator.decoder.overlay.to_mask.bias.fill_(1.0)
    hard.averaged.network.load_state_dict(hard.recipe.generator.state_dict())
    soft.warm_start(torch.load(io.BytesIO(warm_start_bytes(hard.state())), weights_only=True))
    overlay = soft.recipe.generator.decoder.overlay
    assert overlay.to_mask.bias == 1
    assert not overlay.to_gain.weight.any()
    assert overlay.flow is None
    readers = [g.identity_encoder.reader for g in (soft.recipe.generator, soft.averaged.network)]
    for own, average in zip(*(reader.parameters() for reader in readers), strict=True):
        torch.testing.assert_close(average, own)
    faces = overlay.atlas.faces.clone()
    assert faces.any()
    torch.testing.assert_close(soft.averaged.network.decoder.overlay.atlas.faces, faces)
    back.warm_start(torch.load(io.BytesIO(warm_start_bytes(soft.state())), weights_only=True))
    overlay = back.recipe.generator.decoder.overlay
    assert overlay.to_mask.bias == 1
    assert not overlay.flow.last.weight.any()


def test_mean_faces_are_those_of_the_set_that_a_run_trains_on(prepared, tmp_path):
    landmarks = np.tile(face(0.9).numpy(), (len(prepared.portraits), 1, 1))
    settings = {"overlay": True, "softness": 2, "prototypes": True, "flow_interval": 4}
    config = config_of(TINY | settings)
    first = Run(config, replace(prepared, landmarks=landmarks), tmp_path / "first", "cpu")
    inverted = replace(prepared, portraits=255 - prepared.portraits, landmarks=landmarks)
    second = Run(config, inverted, tmp_path / "second", "cpu")
    own = second.recipe.generator.decoder.overlay.atlas.faces.clone()
    with torch.no_grad():
        first.recipe.generator.decoder.overlay.atlas.asked.bias.fill_(0.25)
    first.averaged.network.load_state_dict(first.recipe.generator.state_dict())
    second.warm_start(torch.load(io.BytesIO(warm_start_bytes(first.state())), weights_only=True))
    atlas = second.recipe.generator.decoder.overlay.atlas
    assert (atlas.asked.bias == 0.25).all()
    torch.testing.assert_close(atlas.faces, own)
    assert (atlas.faces - first.recipe.generator.decoder.overlay.atlas.faces).abs().max() > 0.1


def test_fewer_numbers_in_a_latent_than_classes_cannot_tell_their_styles(
    finished, prepared, tmp_path
):
    weights = torch.load(io.BytesIO(warm_start_bytes(finished.state())), weights_only=True)
    run = Run(config_of(TINY | {"style_norm": False}), prepared, tmp_path / "run", "cpu")
    with pytest.raises(ConfigError, match="latent: styles of 18 classes"):
        run.warm_start(weights)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_an_accumulated_step_does_what_one_pass_does(accumulate, prepared, tmp_path):
    """Parts of 4 images, so that the minibatch deviation compares the same ones."""
    settings = TINY | {"batch": 16, "reconstruction_images": 0, "discriminator_images": 0}
    settings |= {"augment": 0.5, "coarse_share": 0.5, "width": 4, "decoder_start": "passing"}
    whole, parts = (
        Run(config_of(settings | {"accumulate": n}), prepared, tmp_path / str(n), "cpu")
        for n in (1, accumulate)
    )
    for _ in range(5):
        # Each step begins alike: from random weights, rounding errors grow a thousandfold a step.
        parts.restore(copy.deepcopy(whole.state()))
        logged = [run.step() for run in (whole, parts)]
        for name in logged[0].keys() - COLLAPSED.keys():  # ratios over what is seen together
            torch.testing.assert_close(logged[1][name], logged[0][name], rtol=1e-5, atol=1e-5)
        for name in ("generator", "discriminator"):
            gradients = [
                {n: p.grad for n, p in getattr(run.recipe, name).named_parameters()}
                for run in (whole, parts)
            ]
            for key, gradient in gradients[0].items():
                if gradient is not None:
                    error = (gradients[1][key] - gradient).norm()
                    assert error <= 1e-2 * gradient.norm(), key


def test_a_batch_that_does_not_divide_among_processes_is_refused(prepared, tmp_path):
    with pytest.raises(ConfigError, match="3 parts"):
        Run(config_of(TINY), prepared, tmp_path, "cpu", Processes(0, 3))


@pytest.mark.parametrize(("target", "moves"), [(0.0, 0), (0.2, 1), (0.9, -1)])
def test_the_share_of_views_follows_overfitting(target, moves, prepared, tmp_path):
    settings = {"augment": 0.5, "augment_share": 0.5, "augment_target": target}
    run = Run(config_of(TINY | settings | {"augment_ramp": 1000}), prepared, tmp_path, "cpu")
    logits = {"real_logit": 1.0, "held_out_logit": 0.0, "fake_logit": -1.0}
    run.window.add({name: torch.tensor(value) for name, value in logits.items()})
    assert run.look() is None
    assert run.recipe.augment_share == pytest.approx(0.5 + moves * 50 * 4 / 1000)


def test_a_checkpoint_is_good_only_after_the_window_that_it_falls_in(prepared, tmp_path):
    run = Run(config_of(TINY), prepared, tmp_path, "cpu")
    run.begin()
    run.window.add(run.step() | {"adversarial": torch.tensor(float("inf"))})
    run.save()
    assert run.look() is not None
    run.return_to_good()
    assert run.images_seen == 0
    run.window.add(run.step())
    run.save()
    assert load_checkpoint(tmp_path, GOOD)["images_seen"] == 0
    assert run.look() is None
    assert load_checkpoint(tmp_path, GOOD)["images_seen"] == 4


def test_a_run_rolls_back_to_the_last_good_checkpoint_with_half_the_rates(prepared, tmp_path):
    run = Run(config_of(TINY), prepared, tmp_path, "cpu")
    run.begin()
    run.window.add(run.step())
    run.save()
    assert run.look() is None
    good = {name: t.clone() for name, t in run.recipe.generator.state_dict().items()}
    for _ in range(3):
        run.step()
    run.window.add({"adversarial": torch.tensor(float("nan"))})
    run.save()
    assert run.look() is not None
    run.roll_back()
    assert (run.images_seen, run.rate_scale, run.setbacks) == (4, 0.5, 1)
    torch.testing.assert_close(run.recipe.generator.state_dict(), good, rtol=0, atol=0)
    again = Run(config_of(TINY), prepared, tmp_path, "cpu")
    assert (again.images_seen, again.rate_scale, again.setbacks) == (4, 0.5, 1)
    for each in (run, again):
        each.step()
        rates = [group["lr"] for group in each.optimisers["reconstruction"].param_groups]
        assert rates == [each.config.reconstruction_rate / 2]
