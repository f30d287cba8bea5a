"""Bundles that training made, served: what a client gets is what the network gives."""

import base64
from pathlib import Path

import numpy as np
import torch

from model.bundle import open_bundle
from model.networks.shells import DecoderShell, EncoderShell
from tests.checkpoints import published_state
from tests.service.conftest import StartServer, pixels
from training.__main__ import main
from training.published import published_generator


def test_a_published_checkpoint_is_imported_and_served(
    start_server: StartServer, portrait: bytes, tmp_path: Path
):
    checkpoint, folder = tmp_path / "males.pth", tmp_path / "published"
    published = published_state()
    torch.save(published, checkpoint)
    arguments = ["import", str(checkpoint), "--group", "male", "--precision", "float32"]
    assert main([*arguments, "--resolution", "64", "-o", str(folder / "male")]) == 0

    server = start_server(models=folder)
    files = {"image": ("a.png", portrait)}
    taken = server.client.post("/faces", data={"aligned": "true"}, files=files).json()
    asked = {"face": taken["face_id"], "target": "3-6"}
    answer = server.client.post("/age", data=asked)
    assert answer.headers["x-group"] == "male"

    seen = torch.from_numpy(pixels(base64.b64decode(taken["portrait"])).copy())[None]
    network = published_generator(published).eval()
    latent = torch.from_numpy(open_bundle(folder / "male").latents[0, 1:2])
    with torch.no_grad():
        identity = EncoderShell(network.identity_encoder)(seen)
        wanted = DecoderShell(network.decoder)(identity, torch.tensor([0]), latent)[0].numpy()
    assert np.abs(pixels(answer.content).astype(int) - wanted.astype(int)).max() <= 1
