import math

import pytest
import torch

from training.losses import (
    absolute_error,
    adversarial_loss,
    age_loss,
    discriminator_loss,
    mismatch_loss,
    r1_penalty,
)


def test_r1_of_a_linear_discriminator_is_half_its_squared_slope():
    slope = torch.tensor([3.0, 4.0, 0.0]).view(1, 3, 1, 1)
    real = torch.randn(5, 3, 1, 1, requires_grad=True)
    logits = (real * slope).sum((1, 2, 3))
    assert r1_penalty(logits, real).item() == pytest.approx(12.5)


def test_r1_does_not_depend_on_the_batch_size():
    slope = torch.randn(1, 3, 2, 2)
    values = []
    for count in (2, 8):
        real = torch.randn(count, 3, 2, 2, requires_grad=True)
        values.append(r1_penalty((real * slope).sum((1, 2, 3)), real).item())
    assert values[0] == pytest.approx(values[1])


def test_an_undecided_discriminator_pays_twice_the_logarithm_of_two():
    loss = discriminator_loss(torch.zeros(4), torch.zeros(4))
    assert loss.item() == pytest.approx(2 * math.log(2))


def test_the_discriminator_gains_by_telling_real_from_fake():
    right = discriminator_loss(torch.full((4,), 5.0), torch.full((4,), -5.0))
    wrong = discriminator_loss(torch.full((4,), -5.0), torch.full((4,), 5.0))
    assert right < 0.02 < 9 < wrong


def test_the_generators_gradient_does_not_vanish_when_it_is_found_out():
    fake = torch.tensor([-20.0], requires_grad=True)
    adversarial_loss(fake).backward()
    assert fake.grad.item() == pytest.approx(-1, abs=1e-6)


def test_absolute_error_is_the_mean_distance():
    assert absolute_error(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0])).item() == 2.0


def test_calling_a_real_image_one_of_another_class_costs_more_the_surer_it_is_done():
    assert mismatch_loss(torch.tensor([-9.0])) < 0.01 < 5 < mismatch_loss(torch.tensor([5.0]))


def test_the_best_answer_to_a_rare_code_is_its_frequency_and_not_zero():
    codes = torch.eye(12)
    answers = [torch.full_like(codes, value) for value in (0.0, 1 / 12, 1.0)]
    zero, frequency, one = (age_loss(answer, codes).item() for answer in answers)
    assert frequency < zero < one
