from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from model.ages import LIFESPAN_CLUSTERS, age_codes
from model.bundle import open_bundle
from model.networks.atlas import Atlas
from model.networks.lifespan import Decoder, LifespanGenerator, LifespanShape
from model.runtime import OnnxRuntimeGraph, Provider
from training import export as exporting
from training.export import ExportError, Trained, export, exported, half_weights, with_quality
from training.recipes import Exportable

PROVENANCE = {"data": ("random numbers",), "licence": "none needed"}


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    codes = age_codes(6, 2, 4)
    generator = LifespanGenerator(LifespanShape(8, codes.shape[-1], 16)).eval()
    with torch.no_grad():
        latents = generator.mapping(torch.from_numpy(codes)).numpy()
    groups = ("female", "male", "neutral")
    encoder, decoders = generator.identity_encoder, (generator.decoder,)
    parts = Exportable(encoder, decoders, latents, LIFESPAN_CLUSTERS, groups, "w")
    return Trained("lifespan", parts, 32, 123)


@pytest.fixture(scope="module")
def portraits():
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def bundle(trained, portraits, tmp_path_factory):
    return export(
        trained,
        tmp_path_factory.mktemp("export") / "bundle",
        portraits,
        name="tiny",
        version="1",
        precision="float32",
        provenance=PROVENANCE,
    )


def test_single_precision_graphs_are_one_grey_level_off_at_most(bundle):
    assert bundle.manifest.parity.portraits == 20
    assert bundle.manifest.parity.max_level_difference <= 1


def test_half_precision_weights_make_smaller_files_and_stay_above_the_gate(
    trained, portraits, bundle, tmp_path
):
    half = export(
        trained,
        tmp_path / "half",
        portraits,
        name="tiny",
        version="1",
        precision="float16",
        provenance=PROVENANCE,
    )
    assert half.manifest.parity.psnr_db > 45
    size = {b: (b / "encoder.onnx").stat().st_size for b in (half.path, bundle.path)}
    assert size[half.path] < size[bundle.path]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_batches_of_any_size_give_each_picture_as_alone(bundle, portraits, count):
    encoder = OnnxRuntimeGraph(bundle.path / "encoder.onnx", Provider.CPU)
    decoder = OnnxRuntimeGraph(bundle.path / "decoder.onnx", Provider.CPU)
    (identity,) = encoder.run({"image": portraits[:count]})
    index = np.arange(count, dtype=np.int64)
    latent = bundle.latents[0, index % 6]
    (together,) = decoder.run({"identity": identity, "index": index, "latent": latent})
    for i in range(count):
        (alone,) = encoder.run({"image": portraits[i : i + 1]})
        feeds = {"identity": alone, "index": np.zeros(1, np.int64), "latent": latent[i : i + 1]}
        difference = decoder.run(feeds)[0][0].astype(int) - together[i].astype(int)
        assert abs(difference).max() <= 1


@pytest.mark.parametrize(("softness", "prototypes"), [(0, (0, 0)), (2, (2, 6))])
def test_graphs_bend_and_overlay_a_portrait_as_the_network_does(
    trained, tmp_path, softness, prototypes
):
    torch.manual_seed(0)
    shape = LifespanShape(
        8, 12, 16, overlay=True, detail=2, softness=softness, prototypes=prototypes
    )
    generator = LifespanGenerator(shape).eval()
    with torch.no_grad():
        if flow := generator.decoder.overlay.flow:
            flow.last.weight.normal_()
        generator.decoder.overlay.to_mask.weight.normal_()
        if softness:
            generator.decoder.overlay.to_gain.weight.normal_()
        if atlas := generator.decoder.overlay.atlas:
            atlas.faces.normal_(std=0.3)
            atlas.hair_colours.normal_(std=0.3)
            atlas.greys.uniform_(0, 0.6)
            atlas.lines.normal_(std=0.1)
            atlas.fades.uniform_(0, 0.5)
            atlas.bends.normal_(std=0.1)
            atlas.means.normal_(std=0.3)
            for name in Atlas.PLACES:
                getattr(atlas, name).uniform_()
            atlas.bare[:3] = 1
            generator.identity_encoder.reader.shortfall.weight.normal_(std=0.02)
            generator.identity_encoder.reader.places.weight.mul_(3)
    parts = replace(
        trained.parts, encoder=generator.identity_encoder, decoders=(generator.decoder,)
    )
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    bundle = export(
        replace(trained, parts=parts, resolution=64),
        tmp_path / "bundle",
        noise,
        name="tiny",
        version="1",
        precision="float32",
        provenance=PROVENANCE,
    )
    assert bundle.manifest.resolution == 64
    assert bundle.manifest.parity.max_level_difference <= 1


def test_frames_of_one_face_share_one_identity(bundle, portraits):
    encoder = OnnxRuntimeGraph(bundle.path / "encoder.onnx", Provider.CPU)
    decoder = OnnxRuntimeGraph(bundle.path / "decoder.onnx", Provider.CPU)
    (identity,) = encoder.run({"image": portraits[:1]})
    index = np.zeros(6, np.int64)
    (frames,) = decoder.run({"identity": identity, "index": index, "latent": bundle.latents[0]})
    assert frames.shape == (6, 32, 32, 3)
    assert frames.dtype == np.uint8


def test_graphs_that_differ_from_the_network_make_no_bundle(
    trained, portraits, tmp_path, monkeypatch
):
    graphs = exporting.graphs_of
    torch.manual_seed(1)
    parts = replace(trained.parts, decoders=(Decoder(8, 16).eval(),))
    other = replace(trained, parts=parts)
    monkeypatch.setattr(exporting, "graphs_of", lambda _, *rest: graphs(other, *rest))
    with pytest.raises(ExportError, match="grey levels"):
        export(
            trained,
            tmp_path / "wrong",
            portraits,
            name="tiny",
            version="1",
            precision="float32",
            provenance=PROVENANCE,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_of_few_images_is_a_preview(bundle):
    assert bundle.manifest.preview
    assert bundle.manifest.provenance.images_seen == 123


def test_quality_is_added_to_a_manifest_and_its_hashes_hold(trained, portraits, tmp_path, bundle):
    with_quality(bundle.path, {"reconstruction_psnr_db": 20.0})
    again = open_bundle(bundle.path)
    assert again.manifest.quality == {"reconstruction_psnr_db": 20.0}
    assert again.digest != bundle.digest


def test_half_weights_compute_in_single_precision():
    layer = torch.nn.Linear(64, 64)
    graph = exported(layer, {"x": torch.zeros(2, 64)}, ["y"], {"x": {0: "N"}})
    session = onnxruntime.InferenceSession(half_weights(graph), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == "tensor(float)"
    x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    with torch.no_grad():
        wanted = torch.nn.functional.linear(
            torch.from_numpy(x), layer.weight.half().float(), layer.bias.half().float()
        )
    np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted.numpy(), atol=1e-5)
