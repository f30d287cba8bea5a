import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from model.ages import LIFESPAN_CLUSTERS
from model.bundle import open_bundle
from tests.service.conftest import Server, pixels
from training.__main__ import PARSER, main
from training.checkpoints import BEST, keep_checkpoint, load_checkpoint, save_checkpoint

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
    bent = {"overlay": "true", "flow_images": 16, "glasses_share": 0.1}
    settings = [f"--set={name}={value}" for name, value in (TINY | bent).items()]
    fit = ["fit", "--preset", "smoke", "--data", str(data), "-o", str(run), "--device", "cpu"]
    assert main([*fit, *settings]) == 0
    assert "finished: 64 images seen" in capfd.readouterr().out
    warm = tmp_path / "warm.pt"
    export = ["export", str(run), "--data", str(data), "-o", str(bundle), "--name", "mine"]
    written = ["--precision", "float32", "--detail", "2", "--warm-start", str(warm)]
    assert main([*export, *written]) == 0
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
        assert pixels(answer.content).shape == (64, 64, 3), "trained at 32, bent at 64"
    finally:
        assert server.stop() == 0


FOUR_CLUSTERS = ((0, 5), (6, 12), (18, 40), (60, 90))


def test_other_clusters_and_one_group_are_used_alike_from_data_to_service(
    portraits, tmp_path, capfd
):
    data, run, models = tmp_path / "data", tmp_path / "run", tmp_path / "models"
    rows = ["file,age,gender,split"]
    for i, picture in enumerate(sorted(portraits.glob("*.png"))):
        rows.append(f"{picture.name},{FOUR_CLUSTERS[i % 4][i // 4 % 2]},,train")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    labels = ["--labels", str(tmp_path / "labels.csv"), "--aligned"]
    clusters = f"clusters={[list(bounds) for bounds in FOUR_CLUSTERS]}".replace(" ", "")
    settings = [f"--set={clusters}", '--set=groups=["everyone"]']
    prepare = ["prepare", str(portraits), "-o", str(data), "--resolution", "32", *labels]
    assert main([*prepare, "--processes", "1"]) == 0
    assert main(["validate", str(data), "--preset", "smoke", *settings]) == 0
    assert "18-40    " in capfd.readouterr().out
    fit = ["fit", "--preset", "smoke", "--data", str(data), "-o", str(run), "--device", "cpu"]
    tiny = {**TINY, "images": 8, "reconstruction_images": 0, "discriminator_images": 0}
    assert main([*fit, *settings, *(f"--set={k}={v}" for k, v in tiny.items())]) == 0
    export = ["export", str(run), "--data", str(data), "-o", str(models / "four")]
    assert main([*export, "--precision", "float32"]) == 0

    names = [f"{low}-{high}" for low, high in FOUR_CLUSTERS]
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    code = state["generator"]["mapping.layers.0.weight"].shape[1]
    assert code == 4 * state["config"]["elements"]
    assert len(state["discriminator"]["head.bias"]) == 4
    bundle = open_bundle(models / "four")
    assert [anchor.name for anchor in bundle.manifest.anchors] == names
    assert bundle.manifest.groups == ("everyone",)
    assert bundle.latents.shape[:2] == (1, 4)
    report = tmp_path / "report"
    evaluate = ["evaluate", str(models / "four"), "--data", str(data), "--report", str(report)]
    assert main([*evaluate, "--limit", "4"]) == 0
    assert json.loads((report / "report.json").read_text())["portraits"] == 4

    server = Server(tmp_path / "log", {"models": models, "parser": PARSER, "provider": "cpu"})
    try:
        server.wait_until_ready()
        files = {"image": ("a.png", next(portraits.glob("*.png")).read_bytes())}

        def age(**asked):
            return server.client.post("/age", data={"aligned": "true", **asked}, files=files)

        told = server.client.get("/anchors").json()
        assert [anchor["name"] for anchor in told["anchors"]] == names
        assert told["groups"] == ["everyone"]
        for target in (*names, "50"):
            assert age(**{"target" if "-" in target else "age": target}).status_code == 200
        refused = age(age="95")
        assert refused.status_code == 422
        assert (refused.json()["low_years"], refused.json()["high_years"]) == (0, 90)
        assert age(target="0-2").json()["code"] == "unknown_anchor"
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--data", "nowhere"], "run prepare first"),
        (["fit", "--data", "nowhere", "--set", "colour=1"], "colour"),
        (["prepare", "nowhere"], "nowhere does not exist"),
        (["export", "nowhere"], "run fit first"),
        (["export", "nowhere", "--best"], r"holds no best\.pt"),
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


def test_the_best_checkpoint_and_further_latents_are_exported_on_request(
    finished, prepared, tmp_path, capfd
):
    state = load_checkpoint(finished.folder)
    # Styles that no norm holds, of weights that were learned with one, would be wildly long.
    weights = {
        name: tensor * 0.1 if "affine" in name else tensor
        for name, tensor in state["averaged"].items()
    }
    loose = state | {"config": state["config"] | {"style_norm": False}, "averaged": weights}
    save_checkpoint(tmp_path, loose | {"images_seen": 80})
    keep_checkpoint(tmp_path, BEST)
    save_checkpoint(tmp_path, state)
    reach = ["--reach", "1", "1", "1", "1", "2.5", "0.5"]

    def export(name, *asked):
        command = ["export", str(tmp_path), "--data", str(prepared.path), "-o", tmp_path / name]
        return main([*map(str, command), "--precision", "float32", *asked])

    assert export("last") == export("best", "--best", *reach) == 0
    last, best = (open_bundle(tmp_path / name) for name in ("last", "best"))
    assert last.manifest.provenance.images_seen == 160
    assert best.manifest.provenance.images_seen == 80
    assert last.manifest.name == "lifespan", "the method's by default"
    mean = last.latents[-1].mean(0)
    wanted = mean + np.array(reach[1:], np.float32)[:, None] * (last.latents - mean)
    np.testing.assert_allclose(best.latents, wanted, atol=1e-5)

    capfd.readouterr()
    for asked, reason in (
        (reach, "--reach: needs a run of Lifespan without style_norm"),
        (["--best", *reach[:3]], "--reach: 6 numbers are needed"),
        (["--best", "--lean", "0", "0.2"], "--lean: 6 numbers are needed"),
        (["--detail", "2"], "--detail: needs a run of Lifespan with overlay"),
    ):
        assert export("none", *asked) == 2
        assert reason in capfd.readouterr().err
