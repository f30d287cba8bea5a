import json
from dataclasses import asdict

import numpy as np
import pytest

from model.ages import LIFESPAN_CLUSTERS
from model.bundle import BundleError, Manifest, graph_contract, open_bundle, write_bundle

LATENTS = np.arange(3 * 6 * 4, dtype=np.float32).reshape(3, 6, 4)


def fields(**changes):
    encoder, decoders = graph_contract(16, 4, "encoder.onnx", ["decoder.onnx"])
    anchors = [asdict(cluster) for cluster in LIFESPAN_CLUSTERS]
    values = {
        "name": "tiny",
        "version": "1",
        "method": "lifespan",
        "resolution": 16,
        "anchors": anchors,
        "groups": ["female", "male", "neutral"],
        "default_group": "neutral",
        "latent_size": 4,
        "continuous": True,
        "encoder": encoder,
        "decoders": decoders,
        "precision": "float32",
        "preview": True,
        "provenance": {"data": ["numbers"], "licence": "none", "images_seen": 0},
        "parity": {"portraits": 0, "max_level_difference": 0},
    }
    return values | changes


GRAPHS = {"encoder.onnx": b"an encoder", "decoder.onnx": b"a decoder"}


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "tiny", fields(), GRAPHS, LATENTS, {"LICENCE": "terms"})


def edited(bundle, change):
    path = bundle.path / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return bundle.path


def test_a_written_bundle_opens_with_what_was_written(bundle):
    opened = open_bundle(bundle.path)
    assert opened.manifest == bundle.manifest
    assert opened.digest == bundle.digest
    np.testing.assert_array_equal(opened.latents, LATENTS)
    assert opened.manifest.age_range_years == (0, 69)
    assert set(opened.manifest.files) == {*GRAPHS, "latents.npy", "LICENCE"}


def test_the_latent_of_an_anchors_centre_is_its_own(bundle):
    np.testing.assert_array_equal(bundle.latent_of_age(17.0, "male"), LATENTS[1, 3])


def test_latents_between_anchors_are_linear(bundle):
    wanted = (LATENTS[2, 4] + LATENTS[2, 5]) / 2
    np.testing.assert_allclose(bundle.latent_of_age(47.0, "neutral"), wanted)


def test_several_ages_give_as_many_latents(bundle):
    assert bundle.latent_of_age(np.array([3.0, 60.0]), "female").shape == (2, 4)


def test_a_changed_file_is_named(bundle):
    (bundle.path / "decoder.onnx").write_bytes(b"another decoder")
    with pytest.raises(BundleError, match=r"decoder\.onnx: sha256 differs"):
        open_bundle(bundle.path)


def test_a_missing_file_is_named(bundle):
    (bundle.path / "encoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"encoder\.onnx: is missing"):
        open_bundle(bundle.path)


def test_a_folder_without_a_manifest_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"manifest\.json: cannot be read"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=2), "schema_version"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.update(default_group="other"), "default_group"),
        (lambda d: d.update(resolution="big"), "resolution"),
        (lambda d: d["anchors"].pop(0) and d["anchors"].append(d["anchors"][0]), "cluster"),
        (lambda d: d.pop("files"), "files"),
        (lambda d: d["files"].pop("latents.npy"), "latents.npy"),
        (lambda d: d["files"].update({"../../secret": "0"}), "plain file name"),
        (lambda d: d["portrait"].update(removed=["moustache"]), "moustache"),
        (lambda d: d.update(latent_size=5), "latents.npy"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_with_the_field(bundle, change, message):
    with pytest.raises(BundleError, match=message):
        open_bundle(edited(bundle, change))


def test_a_continuous_bundle_needs_one_decoder():
    encoder, decoders = graph_contract(16, 4, "e.onnx", [f"{i}.onnx" for i in range(6)])
    files = dict.fromkeys(["e.onnx", "latents.npy", *(f"{i}.onnx" for i in range(6))], "0")
    with pytest.raises(ValueError, match="continuous"):
        Manifest.model_validate(fields(encoder=encoder, decoders=decoders, files=files))
    separate = fields(encoder=encoder, decoders=decoders, files=files, continuous=False)
    assert len(Manifest.model_validate(separate).decoders) == 6


def test_a_failed_write_leaves_the_old_bundle_and_no_rest(bundle):
    with pytest.raises(ValueError, match="default_group"):
        write_bundle(bundle.path, fields(default_group="nobody"), GRAPHS, LATENTS)
    assert open_bundle(bundle.path).digest == bundle.digest
    assert [path.name for path in bundle.path.parent.iterdir()] == ["tiny"]


def test_a_second_write_replaces_the_first(bundle):
    again = write_bundle(bundle.path, fields(version="2"), GRAPHS, LATENTS)
    assert open_bundle(bundle.path).manifest.version == "2"
    assert again.digest != bundle.digest
    assert [path.name for path in bundle.path.parent.iterdir()] == ["tiny"]
