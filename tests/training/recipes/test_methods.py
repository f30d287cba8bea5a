"""Every served method, from prepared portraits to a picture by the running service."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from model.ages import LIFESPAN_CLUSTERS
from model.bundle import open_bundle
from model.portraits.parse import Parser
from tests.service.conftest import Server, pixels
from training.__main__ import PARSER, main
from training.comparison import read_sitter
from training.evaluate import Subject

TWO = {"clusters": "[[0,2],[50,69]]"}
SERVED = {
    "lifespan": ("smoke", {"reconstruction_images": 0, "discriminator_images": 0}, True),
    "stargan": ("smoke-stargan", {"discriminator_steps": 2}, False),
    "s2gan": ("smoke-s2gan", {"discriminator_steps": 2}, True),
    "cyclegan": ("smoke-cyclegan", TWO, False),
    "discogan": ("smoke-discogan", TWO, False),
}
"""A method's preset, what it is trained with here, whether it knows ages between anchors.

Pairwise methods have a network for each of their anchors: two are soon exported.
"""
TINY = {
    "batch": 8, "log_every": 48, "checkpoint_every": 48, "select_every": 0, "threads": 1,
    "held_out": 2,
}  # fmt: skip


def anchors_of(method):
    if SERVED[method][1] is TWO:
        return ["0-2", "50-69"]
    return [cluster.name for cluster in LIFESPAN_CLUSTERS]


def requested(method, **asked):
    return {"aligned": "true", "model": method} | asked


def fit(method, data, run, images):
    preset, settings, _ = SERVED[method]
    asked = TINY | settings | {"images": images}
    if method != "lifespan":
        asked["decay_from"] = 0
    given = [f"--set={name}={value}" for name, value in asked.items()]
    command = ["fit", "--preset", preset, "--data", str(data), "-o", str(run), "--device", "cpu"]
    assert main([*command, *given]) == 0


def export(method, data, run, models):
    command = ["export", str(run), "--data", str(data), "-o", str(models / method)]
    assert main([*command, "--precision", "float32"]) == 0


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """A run of each method that was ended halfway and taken up again."""
    folder = tmp_path_factory.mktemp("runs")
    for method in SERVED:
        for images in (144, 288):
            fit(method, prepared.path, folder / method, images)
    return folder


@pytest.fixture(scope="module")
def models(runs, prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for method in SERVED:
        export(method, prepared.path, runs / method, folder)
    return folder


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    settings = {"models": models, "parser": PARSER, "provider": "cpu"}
    server = Server(tmp_path_factory.mktemp("server") / "log", settings)
    server.wait_until_ready()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    Image.fromarray(photographs.astronaut()[16:189, 138:311]).save(path)
    return path


@pytest.mark.parametrize("method", SERVED)
def test_all_that_is_logged_is_finite(runs, method):
    lines = [json.loads(line) for line in (runs / method / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [48, 96, 144, 192, 240, 288]
    for line in lines:
        assert len(line) > 4
        assert all(math.isfinite(value) for value in line.values())


@pytest.mark.parametrize("method", SERVED)
def test_a_run_taken_up_ends_with_the_weights_of_one_left_alone(runs, prepared, tmp_path, method):
    fit(method, prepared.path, tmp_path, 288)
    halved, whole = (
        torch.load(run / "checkpoint.pt", weights_only=True)["averaged"]
        for run in (runs / method, tmp_path)
    )
    assert halved.keys() == whole.keys()
    for name, weight in whole.items():
        assert torch.equal(halved[name], weight), name


@pytest.mark.parametrize("method", SERVED)
def test_its_graphs_are_one_grey_level_off_at_most(models, method):
    manifest = open_bundle(models / method).manifest
    assert manifest.method == method
    assert manifest.parity.max_level_difference <= 1


def test_the_service_lists_methods_with_their_targets(server):
    listed = {model["name"]: model for model in server.client.get("/models").json()["models"]}
    assert {name: model["method"] for name, model in listed.items()} == {m: m for m in SERVED}
    for method, (_, _, continuous) in SERVED.items():
        assert listed[method]["anchors"] == anchors_of(method)
        assert listed[method]["continuous"] is continuous


@pytest.mark.parametrize("method", SERVED)
def test_the_service_renders_each_target_as_the_graphs_do(server, models, portrait, method):
    bundle = open_bundle(models / method)
    sitter = read_sitter(portrait, None, aligned=True)
    pictures = Subject(bundle).anchors(
        sitter.portrait(bundle, Parser.open(PARSER)), bundle.manifest.default_group
    )
    for place, name in enumerate(anchors_of(method)):
        files = {"image": portrait.read_bytes()}
        answer = server.client.post("/age", data=requested(method, target=name), files=files)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-model"] == f"{method} 0.1.0"
        off = np.abs(pixels(answer.content) - pictures.astype(float)).mean((1, 2, 3))
        assert off.argmin() == place
        # Portraits differ by a level here and there, which a hardly trained Lifespan amplifies.
        assert off[place] < (10 if method == "lifespan" else 0.5)


@pytest.mark.parametrize("method", SERVED)
def test_what_a_method_cannot_do_is_refused_with_the_reason(server, portrait, method):
    def ask(**asked):
        files = {"image": portrait.read_bytes()}
        return server.client.post("/age", data=requested(method, **asked), files=files)

    between = ask(age="25")
    if SERVED[method][2]:
        assert between.status_code == 200
    else:
        assert (between.status_code, between.json()["code"]) == (422, "not_continuous")
        assert "anchors" in between.json()["detail"]
    lacking = ask(target="15-19")
    if "15-19" in anchors_of(method):
        assert lacking.status_code == 200
    else:
        assert lacking.status_code == 422
        assert "0-2, 50-69" in lacking.json()["detail"]


@pytest.mark.parametrize("method", SERVED)
def test_a_life_is_answered_only_where_ages_between_anchors_are_known(server, portrait, method):
    files = {"image": portrait.read_bytes()}
    taken = server.client.post("/faces", data=requested(method), files=files)
    asked = {"face": taken.headers["x-face-id"], "model": method, "frames": 7}
    accept = {"accept": "image/webp"}
    answer = server.client.get("/interpolate", params=asked, headers=accept)
    if SERVED[method][2]:
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/webp"
    else:
        assert (answer.status_code, answer.json()["code"]) == (422, "not_continuous")
