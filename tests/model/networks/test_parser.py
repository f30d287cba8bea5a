import torch

from model.networks.parser import FaceParser, FaceParserShell


def test_logits_of_every_class_at_full_resolution():
    assert FaceParser()(torch.zeros(2, 3, 64, 64)).shape == (2, 19, 64, 64)


@torch.no_grad()
def test_the_shell_gives_probabilities_that_add_up_to_certainty():
    shell = FaceParserShell(FaceParser()).eval()
    image = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    probability = shell(image)
    assert probability.dtype == torch.uint8
    assert probability.shape == (2, 19, 32, 32)
    total = probability.float().sum(1)
    assert (total - 255).abs().max() <= 19 / 2
