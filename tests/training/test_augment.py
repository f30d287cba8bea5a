import pytest
import torch
from torch import nn

from training.augment import discriminator_views
from training.draws import Draws
from training.losses import adversarial_loss, discriminator_loss


def draws(batch, step=0):
    return Draws(0, step, batch)


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(6, 3, 32, 32) * 2 - 1


def test_no_strength_leaves_images_as_they_are(images):
    assert discriminator_views(images, 0.0, draws(6)) is images


def test_views_differ_from_image_to_image(images):
    views = discriminator_views(images[:1].repeat(4, 1, 1, 1), 1.0, draws(4))
    distances = [(views[0] - view).abs().mean() for view in views[1:]]
    assert min(distances) > 0.01


def test_an_image_moves_by_an_eighth_at_most_and_grey_enters():
    point = torch.zeros(64, 3, 32, 32)
    point[:, :, 16, 16] = 100.0  # far above the noise
    bright = discriminator_views(point, 1.0, draws(64)).mean(1)
    bright = bright - bright.amin((1, 2), keepdim=True)
    brightest = bright.flatten(1).argmax(1)
    for position in (brightest // 32, brightest % 32):
        assert position.min() >= 12
        assert position.max() <= 20
        assert len(position.unique()) > 4


def test_a_moved_image_shows_the_grey_of_masked_portraits_at_its_border():
    white = torch.ones(64, 3, 32, 32)
    corners = discriminator_views(white, 1.0, draws(64))[:, :, [0, -1]][..., [0, -1]]
    assert (corners == 0).any()


def test_sharpness_says_nothing_of_where_an_image_comes_from():
    line = torch.arange(32)
    chequers = (0.2 * (-1.0) ** (line[:, None] + line)).expand(512, 3, 32, 32)
    views = discriminator_views(chequers, 1.0, draws(512))[:, :, 6:-6, 6:-6]
    contrast = (views[..., 1:] - views[..., :-1]).abs().mean((1, 2, 3)) / 0.4
    assert contrast.min() < 0.3
    assert contrast.max() > 3


def test_what_is_not_detail_stays_on_average():
    slope = torch.linspace(-0.5, 0.5, 32).expand(256, 3, 32, 32)
    views = discriminator_views(slope, 0.5, draws(256))[:, :, 8:-8, 8:-8].mean((0, 1, 2))
    steps = views[1:] - views[:-1]
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / 31), atol=3e-3, rtol=0)


def test_noise_of_random_strength_lies_over_an_image():
    flat = torch.zeros(64, 3, 32, 32)
    noise = discriminator_views(flat, 1.0, draws(64))[:, :, 6:-6, 6:-6].std((1, 2, 3))
    assert noise.min() < 0.05
    assert 0.15 < noise.max() < 0.22


def test_every_pixel_that_stays_in_view_gets_a_gradient(images):
    images.requires_grad_()
    discriminator_views(images, 0.5, draws(6)).square().sum().backward()
    assert (images.grad[:, :, 4:-4, 4:-4] != 0).float().mean() > 0.99


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_says_how_many_images_are_changed(share):
    image = torch.rand(1, 3, 32, 32).repeat(400, 1, 1, 1)
    views = discriminator_views(image, 1.0, draws(400), share)
    changed = ((views - image).abs().amax((1, 2, 3)) > 1e-5).float().mean()
    assert abs(changed - share) < 0.06


def test_views_do_not_leak_into_what_a_generator_makes():
    """Real images differ little in brightness, their views much; G must learn the images."""
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Linear(1, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    made = nn.Parameter(torch.tensor([0.0, 0.3]))  # mean and spread of G's brightness
    learns_judge = torch.optim.Adam(judge.parameters(), 1e-2, (0.0, 0.9))
    learns_made = torch.optim.Adam([made], 5e-3, (0.0, 0.9))

    def judged(brightness, step):
        images = brightness.view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
        views = discriminator_views(images, 1.0, draws(256, step), 0.7)
        return judge(views.mean((1, 2, 3))[:, None])

    passed = []
    for step in range(800):
        real, noise = 0.2 + 0.05 * torch.randn(256), torch.randn(256)
        fake = made[0] + made[1] * noise
        loss = discriminator_loss(judged(real, 2 * step), judged(fake.detach(), 2 * step + 1))
        learns_judge.zero_grad()
        loss.backward()
        learns_judge.step()
        learns_made.zero_grad()
        adversarial_loss(judged(fake, 2 * step + 1)).backward()
        learns_made.step()
        passed.append(made.detach().clone())
    mean, spread = torch.stack(passed[-400:]).mean(0)
    views = discriminator_views(torch.full((4000, 3, 4, 4), 0.2), 1.0, draws(4000))
    assert views.mean((1, 2, 3)).std() > 0.12
    assert abs(mean - 0.2) < 0.03
    assert abs(spread) < 0.08
