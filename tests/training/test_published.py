import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle import open_bundle
from model.networks.lifespan import DecoderShell, EncoderShell
from model.runtime import OnnxRuntimeGraph, Provider
from training.__main__ import main
from training.export import exported
from training.published import published_generator, translated

NAMES = Path(__file__).parents[1] / "data" / "lats_state_dict.tsv"
WITNESS = Path(__file__).parents[1] / "data" / "lats_reference_ngf8.npz"


@pytest.fixture(scope="module")
def published():
    """A state with every name and shape of a published checkpoint, random numbers in it."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    with NAMES.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            shape = tuple(int(n) for n in row["shape"].strip("()").split(",") if n.strip())
            state[row["name"]] = torch.randn(shape, generator=generator)
    return state


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


def test_an_imported_checkpoint_renders_what_the_network_renders(published, tmp_path, capsys):
    file = tmp_path / "latest_net_g_running.pth"
    torch.save(published, file)
    output = tmp_path / "bundle"
    arguments = ["import", str(file), "--group", "male", "--precision", "float32"]
    assert main([*arguments, "--resolution", "32", "-o", str(output)]) == 0
    bundle = open_bundle(output)
    assert bundle.manifest.groups == ("male",)
    assert bundle.manifest.portrait.scale == pytest.approx(2.2 / 1.8)

    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    index = np.array([1, 0, 1])
    (identity,) = OnnxRuntimeGraph(output / "encoder.onnx", Provider.CPU).run({"image": image})
    feeds = {"identity": identity, "index": index, "latent": bundle.latents[0, :3]}
    (given,) = OnnxRuntimeGraph(output / "decoder.onnx", Provider.CPU).run(feeds)
    network = published_generator(published).eval()
    with torch.no_grad():
        wanted = DecoderShell(network.decoder)(
            EncoderShell(network.identity_encoder)(torch.from_numpy(image)),
            torch.from_numpy(index),
            torch.from_numpy(bundle.latents[0, :3]),
        ).numpy()
    assert np.abs(given.astype(int) - wanted.astype(int)).max() <= 1


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
