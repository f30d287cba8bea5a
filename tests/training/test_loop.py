import json
import multiprocessing
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import train
from tests.training.conftest import TINY
from training.checkpoints import BEST, CHECKPOINT, load_checkpoint
from training.config import config_of
from training.health import CollapseError
from training.loop import SETBACKS, fit
from training.run import LOG, Run


def overrides(**changes):
    values = TINY | changes
    return [f"--set={name}={value}" for name, value in values.items()]


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


def test_a_run_killed_ten_times_ends_with_the_weights_of_one_left_alone(prepared, tmp_path):
    settings = TINY | {"images": 600, "checkpoint_every": 20, "sample_every": 200}
    settings |= {"augment": 0.5, "augment_share": 0.5, "augment_target": 0.3, "augment_ramp": 400}
    alone = Run(config_of(settings), prepared, tmp_path / "alone", "cpu")
    assert fit(alone)

    context = multiprocessing.get_context("forkserver")
    random, killed, folder = np.random.default_rng(), [], tmp_path / "killed"
    while not killed or killed[-1] < 600:
        process = context.Process(target=train, args=(settings, prepared.path, folder))
        process.start()
        if len(killed) < 10:
            before = _written(folder)
            while _written(folder) == before:  # so that each life gets somewhere
                assert process.is_alive()
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.1))
            process.kill()
        process.join()
        killed.append(_images_seen(folder))
    assert len(killed) == 11
    resumed, reference = load_checkpoint(folder), alone.state()
    assert resumed["augment_share"] == reference["augment_share"] != 0.5
    for part in ("averaged", "generator", "discriminator"):
        for name, tensor in reference[part].items():
            assert torch.equal(resumed[part][name], tensor), f"{part}.{name}"


def _written(folder):
    file = folder / CHECKPOINT
    return file.stat().st_mtime_ns if file.exists() else 0


def _images_seen(folder):
    state = load_checkpoint(folder)
    return -1 if state is None else state["images_seen"]


HEALTHY = TINY | {
    "resolution": 16, "width": 6, "discriminator_width": 4, "elements": 4, "latent": 32,
    "batch": 8, "images": 6400, "reconstruction_images": 2400, "discriminator_images": 0,
    "decoder_start": "passing", "style_gain": 0.2, "code_noise": 0.05,
    "reconstruction_weight": 60.0, "consistency_interval": 8, "log_every": 800,
    "sample_every": 8000, "checkpoint_every": 400,
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(prepared, tmp_path_factory):
    """A run that has learned to reconstruct, and is about to meet its adversary."""
    run = Run(config_of(HEALTHY), prepared, tmp_path_factory.mktemp("begun"), "cpu")
    while run.images_seen < 2400:
        run.window.add(run.step())
        if run.steps % 50 == 0:
            assert run.look() is None
    run.save()
    return run


def gone_on(begun, prepared, folder, **changes):
    shutil.copytree(begun.folder, folder, dirs_exist_ok=True)
    return Run(config_of(HEALTHY | changes), prepared, folder, "cpu")


def test_a_healthy_run_of_500_steps_raises_nothing(begun, prepared, tmp_path):
    run = gone_on(begun, prepared, tmp_path)
    assert fit(run)
    assert run.steps == begun.steps + 500
    assert "finding" not in (tmp_path / LOG).read_text()


@pytest.mark.parametrize(("discriminator_steps", "looks"), [(1, [50, 100]), (2, [100])])
def test_signs_are_looked_at_after_fifty_moves_of_the_generator(
    discriminator_steps, looks, prepared, tmp_path, monkeypatch
):
    settings = {"resolution": 16, "images": 480, "sample_every": 480, "checkpoint_every": 480}
    settings |= {"reconstruction_images": 0, "discriminator_images": 0}
    settings |= {"discriminator_steps": discriminator_steps}
    run = Run(config_of(TINY | settings), prepared, tmp_path, "cpu")
    seen = []
    monkeypatch.setattr(run, "look", lambda: seen.append(run.steps))
    assert fit(run)
    assert seen == looks


def test_a_collapse_from_thirty_times_the_rates_is_named_within_500_steps(
    begun, prepared, tmp_path
):
    run = gone_on(begun, prepared, tmp_path)
    run.rate_scale = 30.0
    with pytest.raises(CollapseError, match=r"pictures|portraits|diverges") as caught:
        fit(run)
    line = json.loads((tmp_path / LOG).read_text().splitlines()[-1])
    assert line["finding"] in str(caught.value)
    assert begun.images_seen < line["failed_at"] <= begun.images_seen + 500 * 8
    assert run.images_seen < line["failed_at"]
    assert load_checkpoint(tmp_path)["images_seen"] == run.images_seen


@pytest.mark.parametrize("times", [1, SETBACKS + 1])
def test_a_run_is_rolled_back_until_it_stays_well_or_is_given_up(
    times, begun, prepared, tmp_path, monkeypatch
):
    run = gone_on(begun, prepared, tmp_path, images=3200, on_collapse="roll_back")
    step, left = run.step, [times]

    def poisoned():
        logged = step()
        if left[0] and run.steps % 50 == 49:
            left[0] -= 1
            logged |= {"adversarial": torch.tensor(float("nan"))}
        return logged

    monkeypatch.setattr(run, "step", poisoned)
    if times > SETBACKS:
        with pytest.raises(CollapseError, match="no longer finite"):
            fit(run)
    else:
        assert fit(run)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    answers = [line["answer"] for line in lines if "answer" in line]
    assert run.setbacks == min(times, SETBACKS)
    assert answers[-1] == f"back to 2400 images, {0.5**run.setbacks:g} of the rates"
    assert run.rate_scale == 0.5**run.setbacks


def test_a_terminated_run_saves_and_says_how_to_go_on(prepared, tmp_path):
    command = [
        sys.executable, "-m", "training", "fit", "--preset", "smoke", "--device", "cpu",
        "--data", str(prepared.path), "-o", str(tmp_path), *overrides(images=100_000),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while _images_seen(tmp_path) <= 0:
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"the same command goes on" in output


@pytest.fixture(scope="module")
def selected(prepared, tmp_path_factory):
    settings = TINY | {"held_out": 2, "select_every": 60, "checkpoint_every": 160}
    run = Run(config_of(settings), prepared, tmp_path_factory.mktemp("selected"), "cpu")
    assert fit(run)
    return run


def test_the_average_is_scored_at_intervals_and_at_the_end(selected):
    lines = [json.loads(line) for line in (selected.folder / LOG).read_text().splitlines()]
    scores = {line["images"]: line for line in lines if "score" in line}
    assert list(scores) == [60, 120, 160]
    for line in scores.values():
        assert 0 <= line["score"] <= max(line["faithful"], line["aged"], line["natural"]) <= 1
    best = max(scores.values(), key=lambda line: line["score"])
    assert selected.best["images"] == best["images"]
    assert selected.best["score"] == pytest.approx(best["score"], abs=1e-4)


def test_the_checkpoint_of_the_highest_score_is_kept(selected):
    state = load_checkpoint(selected.folder, BEST)
    assert state["images_seen"] == selected.best["images"]
    assert state["best"] == selected.best


def test_the_highest_score_outlives_a_resumed_run_and_a_kill_between_both_files(
    selected, prepared, tmp_path
):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copyfile(selected.folder / BEST, folder / CHECKPOINT)
    again = Run(selected.config, prepared, folder, "cpu")
    assert again.best == selected.best
    again.begin()
    assert load_checkpoint(folder, BEST)["images_seen"] == selected.best["images"]
    again.best = {"score": 2.0, "images": 20}
    before = (folder / BEST).read_bytes()
    assert again.select() is not None
    assert (folder / BEST).read_bytes() == before


def test_scoring_changes_nothing_of_what_is_learned(selected, prepared, tmp_path):
    settings = selected.config.to_dict() | {"select_every": 0}
    alone = Run(config_of(settings), prepared, tmp_path, "cpu")
    assert fit(alone)
    for name, weight in alone.averaged.network.state_dict().items():
        assert torch.equal(weight, selected.averaged.network.state_dict()[name])


def test_data_with_too_few_portraits_trains_without_a_score(prepared, tmp_path, capsys):
    settings = TINY | {"images": 40, "select_every": 20}
    run = Run(config_of(settings), prepared, tmp_path, "cpu")
    assert fit(run)
    assert "too few portraits" in capsys.readouterr().out
    assert not (tmp_path / BEST).exists()
