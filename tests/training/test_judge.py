import dataclasses
import json

import numpy as np
import pytest
import torch

from training.__main__ import main
from training.data import split_rows
from training.judge import (
    BUNDLED,
    YEARS,
    Judge,
    JudgeConfig,
    Verdict,
    age_distribution,
    expected_years,
    fit_judge,
    judge_error,
    judge_views,
)


@pytest.fixture(scope="module")
def judge():
    return Judge()


def test_what_it_should_answer_peaks_at_the_age_and_is_vaguer_for_the_old():
    young, old = age_distribution(torch.tensor([4.0, 60.0]))
    assert young.argmax() == 4
    assert old.argmax() == 60
    assert young.max() > 3 * old.max()
    assert torch.stack([young, old]).sum(1).tolist() == pytest.approx([1, 1])


def test_the_expected_age_is_the_mean_of_the_classes():
    logits = torch.full((1, YEARS), -100.0)
    logits[0, [10, 30]] = 0
    assert expected_years(logits).item() == pytest.approx(20)


def test_views_are_in_range_and_repeat_with_their_generator():
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    first, again = (judge_views(images, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == images.shape
    assert first.abs().max() <= 1
    assert not torch.allclose(first, images, atol=0.1)


def test_held_out_portraits_teach_it_nothing(prepared):
    config = JudgeConfig(resolution=32, images=64, held_out=3)
    _, selection, test = split_rows(prepared, 3)
    spoiled = np.array(prepared.portraits)
    spoiled[[row.index for row in (*selection, *test)]] = 0
    weights = fit_judge(prepared, config).state_dict()
    others = fit_judge(dataclasses.replace(prepared, portraits=spoiled), config).state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_ten_steps_can_be_asked_for(prepared):
    config = JudgeConfig(resolution=32, batch=4, images=40)
    assert all(part.isfinite().all() for part in fit_judge(prepared, config).state_dict().values())


def test_errors_are_counted_by_cluster_and_group():
    verdict = Verdict(
        np.array([1.0, 8.0, 20.0], np.float32),
        np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32),
        np.zeros((3, 1), np.float32),
    )
    error = judge_error(verdict, np.array([2.0, 5.0, 17.0]), ["female", "female", "female"])
    assert error["mae_years"] == pytest.approx(7 / 3, abs=0.01)
    assert error["bias_years"] == pytest.approx(5 / 3, abs=0.01)
    assert error["cluster_share"] == pytest.approx(2 / 3, abs=0.01)
    assert error["group_share"] == pytest.approx(2 / 3, abs=0.01)
    assert error["clusters"]["3-6"] == {
        "portraits": 1,
        "mae_years": 3.0,
        "bias_years": 3.0,
        "group_share": 0.0,
    }
    assert error["table"][1] == [0, 0, 1, 0, 0, 0]


def test_the_command_writes_a_judge_that_tells_its_error_on_test_portraits(
    prepared, tmp_path, capsys
):
    output = tmp_path / "judge"
    arguments = ["judge", "--data", str(prepared.path), "-o", str(output), "--resolution", "32"]
    assert main([*arguments, "--images", "64", "--trained-on-data", "ellipses"]) == 0
    judge = Judge(output / "judge.onnx")
    assert judge.error["split"] == "test"
    assert judge.error["portraits"] == 12
    assert judge.information["data"] == ["ellipses"]
    assert judge.error == json.loads(capsys.readouterr().out)
    verdict = judge(np.asarray(prepared.portraits[:70]))
    assert verdict.age_years.shape == (70,)
    assert verdict.group.sum(1) == pytest.approx(np.ones(70), abs=1e-5)


def test_the_bundled_judge_says_what_it_is_and_is_small(judge):
    assert BUNDLED.stat().st_size < 4e6
    assert judge.error["split"] == "test"
    assert judge.error["mae_years"] < 8
    assert judge.information["data"]
    assert "esearch" in judge.information["licence"]


def test_it_sees_a_woman_of_middle_age_and_softness_does_not_make_her_younger(judge, astronaut):
    fine = astronaut.reshape(32, 2, 32, 2, 3).mean((1, 3))
    soft = fine.repeat(2, 0).repeat(2, 1).round().astype(np.uint8)
    verdict = judge(np.stack([astronaut, soft]))
    assert 20 < verdict.age_years[0] < 60
    assert verdict.group[0, 0] > 0.5
    assert abs(verdict.age_years[1] - verdict.age_years[0]) < 8


def test_larger_pictures_are_judged_at_its_own_size(judge, astronaut):
    larger = astronaut.repeat(2, 0).repeat(2, 1)
    assert judge(larger[None]).age_years == pytest.approx(judge(astronaut[None]).age_years)


def test_a_missing_judge_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"judge\.json"):
        Judge(tmp_path / "judge.onnx")
