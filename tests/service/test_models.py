import json
from pathlib import Path

import numpy as np
import pytest

from model.bundle import BundleError
from model.runtime import Feeds, Graph, Provider, open_graph
from service import models
from service.models import DecodeJob, Model, open_models
from tests.bundles import GROUP_TINT, STEP, write_tiny_bundle


@pytest.fixture
def tiny(models_folder: Path) -> Model:
    return open_models([models_folder], Provider.CPU, 1)["tiny"]


def portraits_of_grey(*levels: int) -> list[np.ndarray]:
    return [np.full((64, 64, 3), level, np.uint8) for level in levels]


def jobs_of(tiny: Model, identities: list[np.ndarray], faces: list[int]) -> list[DecodeJob]:
    latents = tiny.bundle.latents[2]
    return [
        DecodeJob((str(face), "digest"), identities[face], latents[place % 6])
        for place, face in enumerate(faces)
    ]


def test_encoding_a_batch_gives_what_encoding_alone_gives(tiny: Model):
    portraits = portraits_of_grey(10, 90, 200)
    alone = [tiny.encode([portrait], 1)[0] for portrait in portraits]
    for size in (3, 4):
        np.testing.assert_array_equal(tiny.encode(portraits, size), alone)


def test_jobs_of_several_faces_decode_in_one_run_as_alone(tiny: Model):
    identities = tiny.encode(portraits_of_grey(10, 90, 150), 4)
    jobs = jobs_of(tiny, identities, [2, 0, 0, 1, 2, 0])
    alone = [tiny.decode([job], 0, 1)[0] for job in jobs]
    for size in (6, 8):
        np.testing.assert_array_equal(tiny.decode(jobs, 0, size), alone)


def test_a_run_carries_one_identity_or_as_many_as_pictures(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
):
    identities = tiny.encode(portraits_of_grey(10, 90), 2)
    graph = tiny._decoders[0]
    seen = []
    run = graph.run
    monkeypatch.setattr(graph, "run", lambda feeds: seen.append(feeds) or run(feeds))
    assert len(tiny.decode(jobs_of(tiny, identities, [1, 0, 1]), 0, 4)) == 3
    assert len(tiny.decode(jobs_of(tiny, identities, [1, 1, 1]), 0, 4)) == 3
    assert [feeds["identity"].shape[0] for feeds in seen] == [4, 1]
    assert [feeds["index"].tolist() for feeds in seen] == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_a_picture_shows_its_group_and_anchor(tiny: Model):
    (identity,) = tiny.encode(portraits_of_grey(100), 1)
    female, male = tiny.bundle.latents[:2, 3]
    pictures = tiny.decode(
        [DecodeJob(("f", "d"), identity, female), DecodeJob(("f", "d"), identity, male)], 0, 2
    )
    assert pictures[0][0, 0].tolist() == [100 + 3 * STEP + GROUP_TINT, 136, 136]
    assert pictures[1][0, 0].tolist() == [136, 100 + 3 * STEP + GROUP_TINT, 136]


def test_the_only_model_is_the_default(models_folder: Path):
    assert open_models([models_folder], Provider.CPU, 1).default == "tiny"


def test_of_several_models_the_bundled_one_is_the_default(tmp_path: Path):
    for name in ("another", "lifespan"):
        write_tiny_bundle(tmp_path / name, name=name)
    models = open_models([tmp_path], Provider.CPU, 1)
    assert list(models) == ["another", "lifespan"]
    assert models.default == "lifespan"
    assert open_models([tmp_path], Provider.CPU, 1, "another").default == "another"


def test_an_unknown_default_is_named(models_folder: Path):
    with pytest.raises(BundleError, match=r"default_model.*'missing'"):
        open_models([models_folder], Provider.CPU, 1, "missing")


def test_models_of_several_folders_are_served_together(tmp_path: Path, models_folder: Path):
    write_tiny_bundle(tmp_path / "a", name="another")
    found = open_models([models_folder, tmp_path], Provider.CPU, 1, "tiny")
    assert {"tiny", "another"} <= set(found)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="empty: there is no bundle"):
        open_models([models_folder, tmp_path / "empty"], Provider.CPU, 1)


def test_two_models_of_one_name_are_refused(tmp_path: Path):
    for folder in ("a", "b"):
        write_tiny_bundle(tmp_path / folder)
    with pytest.raises(BundleError, match="name: tiny"):
        open_models([tmp_path], Provider.CPU, 1)


def test_a_folder_without_bundles_is_named(tmp_path: Path):
    with pytest.raises(BundleError, match=str(tmp_path)):
        open_models([tmp_path], Provider.CPU, 1)


def test_a_changed_file_stops_the_start_by_its_name(tmp_path: Path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with (bundle.path / "decoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"decoder\.onnx.*sha256"):
        open_models([tmp_path], Provider.CPU, 1)


def test_an_unknown_schema_stops_the_start_by_its_field(tmp_path: Path):
    manifest = write_tiny_bundle(tmp_path / "tiny").path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema_version": 99}))
    with pytest.raises(BundleError, match="schema_version"):
        open_models([tmp_path], Provider.CPU, 1)


class Stubborn:
    """A graph that gives pictures of 8 px whatever it is asked."""

    provider = Provider.CPU
    precision = "float32"
    inputs = ("identity", "index", "latent")
    outputs = ("image",)

    def run(self, feeds: Feeds) -> list[np.ndarray]:
        return [np.zeros((len(feeds["index"]), 8, 8, 3), np.uint8)]


def test_a_rehearsal_finds_pictures_of_another_size(tiny: Model):
    tiny._decoders = [Stubborn()]
    with pytest.raises(BundleError, match=r"decoder\.onnx.*\(8, 8, 3\).*\(64, 64, 3\)"):
        tiny.rehearse_decoding(0, 1)


def test_models_that_cut_alike_share_their_cut(tmp_path: Path):
    one = Model(write_tiny_bundle(tmp_path / "one", name="one"), Provider.CPU, 1)
    two = Model(write_tiny_bundle(tmp_path / "two", name="two"), Provider.CPU, 1)
    wide = write_tiny_bundle(tmp_path / "wide", name="wide", portrait={"scale": 1.2})
    assert one.cut.key == two.cut.key != Model(wide, Provider.CPU, 1).cut.key


class Rounded:
    """A graph that says it computes in bfloat16, and is off by `error` grey levels."""

    precision = "bfloat16"

    def __init__(self, graph: Graph, error: float) -> None:
        self._graph = graph
        self._error = error
        self.provider, self.inputs, self.outputs = graph.provider, graph.inputs, graph.outputs

    def run(self, feeds: Feeds) -> list[np.ndarray]:
        (output,) = self._graph.run(feeds)
        if output.dtype != np.uint8:
            return [output]
        off = self._error * np.random.default_rng(0).choice([-1.0, 1.0], output.shape)
        return [np.clip(output + np.rint(off), 0, 255).astype(np.uint8)]


@pytest.mark.parametrize(("error", "precision"), [(1, "bfloat16"), (5, "float32")])
def test_half_the_precision_is_taken_where_its_pictures_agree(
    error: float,
    precision: str,
    models_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    def opened(path: Path, provider: Provider, threads: int | None, *, bf16: bool) -> Graph:
        graph = open_graph(path, provider, threads)
        return Rounded(graph, error) if bf16 else graph

    monkeypatch.setattr(models, "open_graph", opened)
    with caplog.at_level("INFO"):
        model = open_models([models_folder], Provider.CPU, 1)["tiny"]
    assert {graph.precision for graph in model._graphs} == {precision}
    assert f"{precision} is taken" in caplog.text
