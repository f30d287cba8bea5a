import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from training.losses import (
    absolute_error,
    added_colour,
    adversarial_loss,
    age_loss,
    class_loss,
    critic_adversarial_loss,
    critic_loss,
    discriminator_loss,
    feature_matching_loss,
    fine_changes,
    gradient_penalty,
    least_squares_adversarial_loss,
    least_squares_discriminator_loss,
    minimax_loss,
    mismatch_loss,
    r1_penalty,
    squared_error,
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


def test_at_the_end_of_the_game_the_value_function_is_minus_log_four():
    value = -discriminator_loss(torch.zeros(8), torch.zeros(8))
    assert value.item() == pytest.approx(-math.log(4))


def test_the_minimax_loss_is_the_generators_part_of_the_value_function():
    fake = torch.tensor([-2.0, 0.5])
    wanted = torch.log(1 - torch.sigmoid(fake)).mean()
    torch.testing.assert_close(minimax_loss(fake), wanted)


def density(x, mean, deviation):
    return torch.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))


def judge_of_numbers():
    return nn.Sequential(
        nn.Linear(1, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)
    )


def learns(parameters, rate, steps):
    """An optimiser whose rate falls to zero over so many steps, as a function of a loss."""
    optimiser = torch.optim.Adam(parameters, rate, (0.5, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def lower(loss):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    return lower


def test_the_best_discriminator_is_the_share_of_the_data_in_the_density():
    """p_data = N(1, 0.5), p_G = N(-0.5, 1): D is p_data / (p_data + p_G) where either has mass."""
    torch.manual_seed(0)
    judge = judge_of_numbers()
    lower = learns(judge.parameters(), 2e-2, 1500)
    for _ in range(1500):
        real, fake = 1 + 0.5 * torch.randn(2048, 1), -0.5 + torch.randn(2048, 1)
        lower(discriminator_loss(judge(real), judge(fake)))
    x = torch.linspace(-4, 4, 401)
    data, generated = density(x, 1, 0.5), density(x, -0.5, 1)
    somewhere = (data + generated) > 0.02
    found = torch.sigmoid(judge(x[:, None])[:, 0])
    wanted = data / (data + generated)
    assert (found - wanted)[somewhere].abs().max() < 0.03


@pytest.mark.parametrize("generator_loss", [minimax_loss, adversarial_loss])
def test_training_both_brings_the_discriminator_to_a_half(generator_loss):
    """G shifts and scales noise to N(1, 0.5); k = 2 steps of D for each of G."""
    torch.manual_seed(0)
    judge, made = judge_of_numbers(), nn.Parameter(torch.tensor([0.0, 1.0]))
    lower_judge = learns(judge.parameters(), 5e-3, 1600)
    lower_made = learns([made], 1e-2, 800)
    for step in range(1600):
        real, fake = 1 + 0.5 * torch.randn(512, 1), made[0] + made[1] * torch.randn(512, 1)
        lower_judge(discriminator_loss(judge(real), judge(fake.detach())))
        if step % 2:
            lower_made(generator_loss(judge(fake)))
    x = torch.linspace(0, 2, 101)[:, None]
    assert (torch.sigmoid(judge(x)) - 0.5).abs().max() < 0.05
    assert abs(made[0] - 1) < 0.05
    assert abs(abs(made[1]) - 0.5) < 0.05


def linear_critic(slope, image):
    return (image * slope).sum((1, 2, 3))


@pytest.mark.parametrize("length", [0.0, 0.5, 1.0, 13.0])
def test_the_gradient_penalty_of_a_linear_critic_is_its_slopes_distance_from_one(length):
    slope = torch.tensor([3.0, 4.0, 12.0]).view(1, 3, 1, 1) / 13 * length
    image = torch.randn(5, 3, 1, 1, requires_grad=True)
    penalty = gradient_penalty(linear_critic(slope, image), image)
    assert penalty.item() == pytest.approx((length - 1) ** 2)


def test_the_gradient_penalty_is_a_mean_over_images_of_their_summed_patches():
    image = torch.randn(2, 3, 2, 2, requires_grad=True)
    slopes = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)  # each of 2x2 patches has this one
    patches = (image[:, :1] * slopes)[:, :, :1, :1].expand(2, 1, 2, 2)
    assert gradient_penalty(patches, image).item() == pytest.approx((3**2 + 11**2) / 2)


def test_the_gradient_penalty_moves_a_flat_critic_to_finite_weights_and_a_steep_one_down():
    slope = torch.nn.Parameter(torch.tensor([0.0, 3.0]).view(2, 1, 1, 1))
    image = torch.randn(2, 1, 1, 1, requires_grad=True)
    gradient_penalty(linear_critic(slope, image), image).backward()
    assert slope.grad.flatten().tolist() == [0.0, 2.0]  # (2 / 2 images) (|slope| - 1)


def test_the_gradient_penalty_of_a_half_precision_critic_is_that_of_the_full_one():
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.01), nn.Conv2d(16, 1, 4, 2, 1))
    image = torch.randn(4, 3, 16, 16, requires_grad=True)
    given = []
    for half in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            penalty = gradient_penalty(40 * judge(image), image)
        gradients = torch.autograd.grad(penalty, [judge[0].weight, judge[2].weight])
        given.append([penalty, *gradients])
    for half, full in zip(*given, strict=True):
        assert half.dtype == torch.float32
        assert (half - full).norm() < 0.03 * full.norm()


def test_a_critic_of_slope_one_measures_the_distance_of_two_points():
    real, fake = torch.full((4, 1, 2, 2), 3.0), torch.full((4, 1, 2, 2), -1.0)
    assert -critic_loss(real, fake).item() == 4
    assert critic_adversarial_loss(fake).item() == 1


def test_the_class_loss_is_the_negative_logarithm_of_the_right_clusters_probability():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])) + 7
    wanted = -(math.log(0.3) + math.log(0.8)) / 2
    assert class_loss(logits, torch.tensor([1, 2])).item() == pytest.approx(wanted)


def test_least_squares_want_a_one_for_real_and_a_nought_for_generated_patches():
    real, fake = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    loss = least_squares_discriminator_loss(real, fake)
    assert loss.item() == (((0 + 4) / 2) + ((0 + 0 + 4 + 16) / 4)) / 2
    assert least_squares_discriminator_loss(torch.ones(4), torch.zeros(4)) == 0


def test_least_squares_want_a_one_for_what_the_generator_made():
    assert least_squares_adversarial_loss(torch.tensor([[1.0, 0.0], [3.0, 1.0]])).item() == 5 / 4


def test_the_best_least_squares_score_is_the_share_of_the_data_in_the_density():
    """Mao et al. (2017), eq. 5 for labels 1 and 0: p_data / (p_data + p_G)."""
    data, generated = torch.tensor([0.2, 0.8]), torch.tensor([0.6, 0.4])
    scores = torch.full((2,), 0.5, requires_grad=True)
    pictures = torch.tensor([0] * 2 + [1] * 8), torch.tensor([0] * 6 + [1] * 4)
    for _ in range(100):
        loss = least_squares_discriminator_loss(*(scores[which] for which in pictures))
        (gradient,) = torch.autograd.grad(loss, scores)
        scores = (scores - 0.5 * gradient).detach().requires_grad_()
    torch.testing.assert_close(scores.detach(), data / (data + generated))


def test_squared_error_is_the_mean_squared_distance():
    assert squared_error(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0])).item() == 5.0


def test_features_match_when_their_batch_means_do():
    real, fake = torch.randn(6, 4, 2, 2), torch.randn(6, 4, 2, 2)
    shuffled = fake - fake.mean(0) + real.mean(0)
    assert feature_matching_loss([real], [shuffled]).item() == pytest.approx(0, abs=1e-12)
    assert feature_matching_loss([real], [fake]) > 1e-2


def test_feature_matching_adds_up_the_layers_mean_squared_differences():
    real = [torch.zeros(2, 1, 2, 2), torch.zeros(3, 4)]
    fake = [torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2), torch.full((3, 4), 3.0)]
    assert feature_matching_loss(real, fake).item() == 2.0**2 + 3.0**2


def chequers(side, width):
    """A chessboard of 0 and 1, its fields `width` pixels wide: (1, 3, side, side)."""
    place = torch.arange(side) // width
    return ((place[:, None] + place) % 2).expand(1, 3, side, side).float()


def test_fine_changes_are_broken_patches_and_not_shading():
    bent = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert not fine_changes(bent, bent).any()
    wave = torch.sin(torch.linspace(0, math.pi, 32))
    shading = 0.3 * wave[:, None] * wave
    patches = 0.3 * (1 - 2 * chequers(32, 1))
    found = fine_changes(torch.cat([bent[:1] + patches, bent[1:] + shading]), bent)
    assert found[0] == pytest.approx(0.09, rel=0.1)
    assert found[1] < 0.0002
    half = fine_changes(bent[:1] + patches / 2, bent[:1])
    assert half.item() == pytest.approx(found[0].item() / 4)


def test_more_scales_find_wider_blotches():
    bent = torch.zeros(1, 3, 64, 64)
    wide = 0.3 * chequers(64, 8)
    fine, half, quarter = (fine_changes(wide, bent, scales).item() for scales in (1, 2, 3))
    halved = functional.avg_pool2d(wide, 2)
    found = fine_changes(halved, torch.zeros_like(halved)).item()
    assert half - fine == pytest.approx(found)
    assert quarter - half > half - fine > fine


def test_colour_costs_where_it_is_added_and_not_where_it_fades():
    random = torch.Generator().manual_seed(0)
    bent = torch.rand(2, 3, 8, 8, generator=random) * 2 - 1
    grey = bent.mean(1, keepdim=True).expand_as(bent)
    assert added_colour(bent, bent) == 0
    assert added_colour(grey, bent) == 0
    assert added_colour(bent + 0.4, bent) == pytest.approx(0, abs=1e-6)
    assert added_colour(bent, grey) > 0.1
    # Red of 0.3 has a luma of 0.0897 and is (0.2103, -0.0897, -0.0897) from its grey.
    red = torch.tensor([0.3, 0.0, 0.0])[:, None, None].expand(1, 3, 8, 8)
    wanted = 0.2103**2 + 2 * 0.0897**2
    assert added_colour(red, torch.zeros(1, 3, 8, 8)) == pytest.approx(wanted, rel=0.02)
