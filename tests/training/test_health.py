import re

import pytest
import torch

from training.health import Monitor, overfitting, vital_signs

WELL = {"contrast": 0.9, "diversity": 0.8, "likeness": 0.7, "real_logit": 1.0, "fake_logit": -2.0}


@pytest.fixture
def real():
    torch.manual_seed(0)
    return torch.rand(4, 3, 16, 16) * 2 - 1


def test_pictures_like_the_real_ones_have_all_their_contrast_and_diversity(real):
    signs = vital_signs(real, real)
    assert signs == dict.fromkeys(("contrast", "diversity", "likeness"), pytest.approx(1))


def test_blank_pictures_have_no_contrast_and_one_picture_for_all_no_diversity(real):
    assert vital_signs(real, torch.full_like(real, 0.3))["contrast"] < 1e-4
    alike = vital_signs(real, real[:1].expand_as(real))
    assert alike["contrast"] > 0.9
    assert alike["diversity"] < 1e-4


def test_pictures_of_other_portraits_have_no_likeness(real):
    signs = vital_signs(real, real.flip(0))
    assert signs["diversity"] == pytest.approx(1)
    assert abs(signs["likeness"]) < 0.4
    torch.manual_seed(1)
    assert abs(vital_signs(real, torch.rand_like(real))["likeness"]) < 0.1


def test_a_single_picture_says_nothing_of_others(real):
    assert vital_signs(real[:1], real[:1]).keys() == {"contrast"}


@pytest.mark.parametrize(
    ("ill", "message"),
    [
        ({"contrast": 0.03}, r"blank: contrast 0\.030"),
        ({"diversity": 0.02}, r"one picture: diversity 0\.020"),
        ({"likeness": -0.02}, r"no longer depend on the portrait: likeness -0\.020"),
        ({"real_logit": 8.0, "fake_logit": -9.5}, r"D wins outright: logits 8\.0 .* -9\.5"),
    ],
)
def test_a_sign_that_stays_is_found_and_named(ill, message):
    monitor = Monitor()
    monitor.observe(WELL)
    seen = [monitor.observe(WELL | ill) for _ in range(monitor.patience)]
    assert seen[:-1] == [None] * (monitor.patience - 1)
    assert not monitor.calm
    assert re.search(message, seen[-1])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_found_at_once(number):
    finding = Monitor().observe(WELL | {"reconstruction": number})
    assert finding == "numbers are no longer finite: reconstruction"


def test_a_discriminator_that_diverges_is_found_at_once():
    finding = Monitor().observe(WELL | {"real_logit": -100.0, "fake_logit": -150.0})
    assert finding == "D diverges: logits -100.0 of real and -150.0 of generated images"


def test_a_start_may_be_slow_but_not_forever():
    monitor = Monitor()
    found = [monitor.observe(WELL | {"diversity": 0.05}) for _ in range(monitor.grace + 10)]
    assert found.index(next(filter(None, found))) == monitor.grace + monitor.patience - 1


def test_a_sign_that_passes_is_forgotten():
    monitor = Monitor()
    monitor.observe(WELL)
    for _ in range(10):
        for _ in range(monitor.patience - 1):
            assert monitor.observe(WELL | {"contrast": 0.01}) is None
        assert monitor.observe(WELL) is None
        assert monitor.calm


def test_windows_without_signs_are_well():
    monitor = Monitor()
    assert [monitor.observe({"reconstruction": 0.5}) for _ in range(9)] == [None] * 9


def test_a_monitor_goes_on_from_its_state():
    monitor = Monitor()
    monitor.observe(WELL)
    ill = WELL | {"contrast": 0.01}
    for _ in range(monitor.patience - 1):
        monitor.observe(ill)
    assert Monitor(**monitor.state()).observe(ill) is not None


@pytest.mark.parametrize(("held_out", "wanted"), [(1.0, 0.0), (-2.0, 1.0), (0.25, 0.25)])
def test_overfitting_is_how_far_the_held_out_logit_has_fallen(held_out, wanted):
    assert overfitting(WELL | {"held_out_logit": held_out}) == pytest.approx(wanted)


def test_overfitting_is_unknown_without_the_logits_or_a_judgement():
    assert overfitting(WELL) is None
    assert overfitting({"real_logit": 0.1, "fake_logit": 0.1, "held_out_logit": 0.1}) is None
