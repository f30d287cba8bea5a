import json
import re

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from model.ages import LIFESPAN_CLUSTERS
from tests.service.conftest import Server, pixels
from training.__main__ import PARSER, main

TINY = {
    "batch": 4,
    "images": 64,
    "reconstruction_images": 16,
    "log_every": 16,
    "sample_every": 64,
    "checkpoint_every": 32,
    "held_out": 3,
    "threads": 1,
}


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    """The astronaut's portrait in five tints for each cluster and gender, with a table."""
    folder = tmp_path_factory.mktemp("portraits")
    portrait = photographs.astronaut()[16:189, 138:311].astype(float)
    random = np.random.default_rng(0)
    table = ["file,age,gender,split"]
    for cluster in LIFESPAN_CLUSTERS:
        for gender in ("female", "male"):
            for i in range(5):
                tinted = portrait * random.uniform(0.8, 1.1, 3)
                name = f"{cluster.name}-{gender}-{i}.png"
                Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8)).save(folder / name)
                split = "test" if i == 4 else "train"
                table.append(f"{name},{cluster.low_years},{gender},{split}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    return folder


def test_from_portraits_to_a_served_picture(portraits, tmp_path, capfd):
    data, run, bundle = tmp_path / "data", tmp_path / "run", tmp_path / "models" / "mine"
    prepare = ["prepare", str(portraits), "-o", str(data), "--aligned", "--resolution", "64"]
    assert main([*prepare, "--processes", "1"]) == 0
    assert json.loads((data / "data.json").read_text())["usable"] == 60
    settings = [f"--set={name}={value}" for name, value in TINY.items()]
    fit = ["fit", "--preset", "smoke", "--data", str(data), "-o", str(run), "--device", "cpu"]
    assert main([*fit, *settings]) == 0
    assert "finished: 64 images seen" in capfd.readouterr().out
    warm = tmp_path / "warm.pt"
    export = ["export", str(run), "--data", str(data), "-o", str(bundle), "--name", "mine"]
    assert main([*export, "--precision", "float32", "--warm-start", str(warm)]) == 0
    assert warm.stat().st_size > 0

    server = Server(
        tmp_path / "server.log", {"models": bundle.parent, "parser": PARSER, "provider": "cpu"}
    )
    try:
        server.wait_until_ready()
        files = {"image": ("a.png", (portraits / "30-39-female-0.png").read_bytes())}
        asked = {"aligned": "true", "target": "50-69"}
        answer = server.client.post("/age", data=asked, files=files)
        assert answer.headers["x-model"] == "mine 0.1.0"
        assert pixels(answer.content).shape == (32, 32, 3)
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--data", "nowhere"], "run prepare first"),
        (["fit", "--data", "nowhere", "--set", "colour=1"], "colour"),
        (["prepare", "nowhere"], "nowhere does not exist"),
        (["export", "nowhere"], "run fit first"),
        (["evaluate", "nowhere"], r"manifest\.json"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("anchorage-train: ")
    assert error.count("\n") == 1
    assert re.search(message, error)
