import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from model.bundle import open_bundle
from tests.service.conftest import Server, pixels
from training.__main__ import PARSER, main
from training.config import config_of
from training.data import open_prepared
from training.loop import fit
from training.recipes import METHODS
from training.run import Run

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
SETTINGS = {
    "method": "tint", "resolution": 32, "batch": 8, "images": 800, "learning_rate": 0.02,
    "log_every": 400, "sample_every": 400, "checkpoint_every": 400, "select_every": 400,
    "average_half_life": 40.0, "threads": 1, "held_out": 2,
}  # fmt: skip


@pytest.fixture
def tint(monkeypatch):
    """The method as the page gives it: two files and a line."""
    files = re.findall(r"`([a-z/]+)\.py`[^`]*```python\n(.*?)```", TEXT, re.DOTALL)
    assert [name for name, _ in files] == ["model/networks/tint", "training/recipes/tint"]
    for path, source in files:
        name = path.replace("/", ".")
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, f"{path}.py", "exec"), module.__dict__)
    ((method, recipe),) = re.findall(r'in `METHODS`: `"(\w+)": "(\w+)"`', TEXT)
    monkeypatch.setitem(METHODS, method, recipe)


def test_a_method_of_two_files_and_a_line_is_trained_exported_and_served(tint, prepared, tmp_path):
    folder, models = tmp_path / "run", tmp_path / "models"
    assert fit(Run(config_of(SETTINGS | {"images": 400}), prepared, folder, "cpu"))
    run = Run(config_of(SETTINGS), open_prepared(prepared.path), folder, "cpu")
    assert run.resumed
    assert fit(run)
    assert run.best["score"] >= 0
    colours = run.averaged.network.colours
    means = torch.stack(
        [
            run.portraits.images[run.portraits.clusters == place].float().mean((0, 2, 3))
            for place in range(6)
        ]
    )
    torch.testing.assert_close((colours + 1) * 127.5, means, rtol=0, atol=10.0)

    export = ["export", str(folder), "--data", str(prepared.path), "-o", str(models / "tint")]
    assert main([*export, "--name", "tint", "--precision", "float32"]) == 0
    manifest = open_bundle(models / "tint").manifest
    assert manifest.method == "tint"
    assert manifest.encoder is None
    assert not manifest.continuous
    assert manifest.parity.max_level_difference <= 1

    server = Server(tmp_path / "log", {"models": models, "parser": PARSER, "provider": "cpu"})
    try:
        server.wait_until_ready()
        photo = tmp_path / "photo.png"
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(photo)
        asked = {"aligned": "true", "model": "tint"}
        files = {"image": ("photo.png", photo.read_bytes())}
        young, old = (
            pixels(server.client.post("/age", data=asked | {"target": name}, files=files).content)
            for name in ("0-2", "50-69")
        )
        shown = [picture.mean((0, 1)) for picture in (young, old)]
        wanted = ((colours[[0, -1]] + 1) * 127.5).numpy()
        np.testing.assert_allclose(shown, wanted, atol=2)
        (listed,) = server.client.get("/models").json()["models"]
        assert (listed["method"], listed["continuous"]) == ("tint", False)
        refused = server.client.post("/age", data=asked | {"age": "40"}, files=files)
        assert (refused.status_code, refused.json()["code"]) == (422, "not_continuous")
    finally:
        assert server.stop() == 0


def test_an_unknown_method_is_told_with_the_known_ones(tint, capfd):
    fit = ["fit", "--preset", "smoke", "--data", "nowhere", "--set", 'method="pix2pix"']
    assert main(fit) == 2
    assert "unknown 'pix2pix'; known: lifespan" in capfd.readouterr().err
