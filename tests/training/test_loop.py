import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from training.checkpoints import CHECKPOINT, load_checkpoint, save_checkpoint
from training.config import ConfigError, config_of
from training.export import warm_start_bytes
from training.loop import LOG, Run, fit

TINY = {
    "resolution": 32,
    "width": 2,
    "discriminator_width": 2,
    "elements": 2,
    "latent": 8,
    "batch": 4,
    "images": 160,
    "reconstruction_images": 40,
    "discriminator_images": 40,
    "log_every": 40,
    "sample_every": 80,
    "checkpoint_every": 40,
    "average_half_life": 40.0,
    "threads": 1,
    "held_out": 3,
}


def overrides(**changes):
    values = TINY | changes
    return [f"--set={name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run = Run(config_of(TINY), prepared, folder, "cpu")
    assert fit(run)
    return run


def test_a_run_leaves_its_configuration_log_sheets_and_checkpoint(finished):
    assert json.loads((finished.folder / "config.json").read_text())["batch"] == 4
    lines = [json.loads(line) for line in (finished.folder / LOG).read_text().splitlines()]
    assert [line["images"] for line in lines] == [40, 80, 120, 160]
    assert (finished.folder / CHECKPOINT).exists()
    with Image.open(finished.folder / "samples" / "000000160.png") as sheet:
        assert sheet.width == 8 * 32


def test_all_losses_are_finite_and_the_adversary_starts_after_reconstruction(finished):
    lines = [json.loads(line) for line in (finished.folder / LOG).read_text().splitlines()]
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert "discriminator" not in lines[0]
    wanted = {"adversarial", "reconstruction", "cycle", "identity", "age", "discriminator", "r1"}
    assert wanted <= lines[-1].keys()


def test_reconstruction_improves(finished):
    lines = [json.loads(line) for line in (finished.folder / LOG).read_text().splitlines()]
    assert lines[-1]["reconstruction"] < lines[0]["reconstruction"]


def test_a_finished_run_has_moved_every_network(finished, prepared, tmp_path):
    fresh = Run(config_of(TINY), prepared, tmp_path, "cpu")
    for name in ("generator", "discriminator"):
        before = getattr(fresh.recipe, name).state_dict()
        after = getattr(finished.recipe, name).state_dict()
        unmoved = [key for key in before if torch.equal(before[key], after[key])]
        assert unmoved == []


def test_a_run_that_is_killed_ends_with_the_weights_of_one_left_alone(finished, prepared, tmp_path):
    command = [
        sys.executable, "-m", "training", "fit", "--preset", "smoke", "--device", "cpu",
        "--data", str(prepared.path), "-o", str(tmp_path), *overrides(),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while not (tmp_path / CHECKPOINT).exists():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    interrupted = load_checkpoint(tmp_path)
    assert 0 < interrupted["images_seen"] < 160

    subprocess.run(command, check=True, capture_output=True, timeout=300)
    resumed = load_checkpoint(tmp_path)
    reference = finished.state()
    for part in ("averaged", "generator", "discriminator"):
        for name, tensor in reference[part].items():
            assert torch.equal(resumed[part][name], tensor), f"{part}.{name}"


def test_a_terminated_run_saves_and_says_how_to_go_on(prepared, tmp_path):
    command = [
        sys.executable, "-m", "training", "fit", "--preset", "smoke", "--device", "cpu",
        "--data", str(prepared.path), "-o", str(tmp_path), *overrides(images=100_000),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while not (tmp_path / CHECKPOINT).exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"the same command goes on" in output


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


def test_more_images_may_be_asked_of_a_finished_run(finished, prepared):
    run = Run(config_of(TINY | {"images": 400}), prepared, finished.folder, "cpu")
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
