from pathlib import Path

import numpy as np
import pytest
import torch

from model.runtime import OnnxRuntimeGraph, Provider
from tests.checkpoints import published_state
from training.export import exported
from training.published import published_generator, translated

WITNESS = Path(__file__).parents[1] / "data" / "lats_reference_ngf8.npz"


@pytest.fixture(scope="module")
def published():
    return published_state()


def test_every_published_tensor_has_its_place(published):
    generator = published_generator(published)
    assert generator.shape.width == 64
    blurs = [name for name in published if "blur" in name]
    assert len(generator.state_dict()) == len(published) - len(blurs)


def test_a_foreign_state_names_what_is_wrong(published):
    broken = dict(published)
    broken["somebody.else"] = broken.pop("decoder.conv_img.0.conv.weight_orig")
    with pytest.raises(ValueError, match=r"somebody\.else.*decoder\.conv_img"):
        translated(broken)


def test_graphs_without_the_shell_equal_the_published_network(tmp_path):
    with np.load(WITNESS) as file:
        witness = {name: file[name] for name in file.files}
    prefix = "state/"
    network = published_generator(
        {k.removeprefix(prefix): torch.from_numpy(v) for k, v in witness.items() if prefix in k}
    ).eval()
    image, latent = torch.from_numpy(witness["image"]), torch.from_numpy(witness["latent"])
    identity = torch.from_numpy(witness["identity"])
    graphs = {
        "encoder": exported(
            network.identity_encoder, {"image": image}, ["identity"], {"image": {0: "M"}}
        ),
        "decoder": exported(
            network.decoder,
            {"identity": identity, "latent": latent[:2]},
            ["image"],
            {"identity": {0: "N"}, "latent": {0: "N"}},
        ),
    }
    opened = {}
    for name, graph in graphs.items():
        (tmp_path / name).write_bytes(graph)
        opened[name] = OnnxRuntimeGraph(tmp_path / name, Provider.CPU)
    (given,) = opened["encoder"].run({"image": witness["image"]})
    np.testing.assert_allclose(given, witness["identity"], atol=1e-4)
    for anchor in range(6):
        feeds = {"identity": given, "latent": np.repeat(witness["latent"][anchor][None], 2, 0)}
        (picture,) = opened["decoder"].run(feeds)
        np.testing.assert_allclose(picture, witness["output"][:, anchor], atol=1e-4)
