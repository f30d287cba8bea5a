"""From a checkpoint to a bundle: ONNX graphs, latents, and a numeric gate against PyTorch."""

import io
import logging
import math
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from model.ages import LIFESPAN_CLUSTERS, age_codes
from model.bundle import Bundle, graph_contract, open_bundle, write_bundle
from model.networks.lifespan import LifespanGenerator
from model.networks.shells import DecoderShell, EncoderShell, TranslatorShell
from model.runtime import OnnxRuntimeGraph, Provider
from training.config import config_of
from training.metrics import psnr_db
from training.recipes import Exportable, recipe_class, recipe_of

OPSET = 20
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
MODEL_IMAGES, FINISHED_IMAGES = 100_000, 500_000
"""Fewer images than the first are no model; fewer than the second are a preview."""
GATE_LEVELS = 1
GATE_DB = 45.0
Precision = Literal["float32", "float16"]


class ExportError(RuntimeError):
    """An export whose graphs do not give what the network gives."""


@dataclass(frozen=True)
class Trained:
    """A generator's parts with what a bundle must say of it."""

    method: str
    parts: Exportable
    resolution: int
    images_seen: int

    @property
    def encoder(self) -> nn.Module | None:
        """Image uint8 (M, R, R, 3) -> identity, where there is an encoder."""
        return EncoderShell(self.parts.encoder).eval() if self.parts.encoder else None

    @property
    def decoders(self) -> dict[str, nn.Module]:
        """By file: identity, index, latent -> image uint8 (N, R, R, 3)."""
        parts = self.parts
        shell = DecoderShell if parts.encoder else TranslatorShell
        names = [DECODER]
        if len(parts.decoders) > 1:
            names = [f"decoder-{cluster.name}.onnx" for cluster in parts.clusters]
        return {
            name: shell(decoder).eval() for name, decoder in zip(names, parts.decoders, strict=True)
        }


def trained_of_checkpoint(state: Mapping[str, Any]) -> Trained:
    """The averaged generator of a run's checkpoint. Raises ConfigError where none is served."""
    config = config_of(state["config"])
    recipe = recipe_of(config)
    recipe.generator.load_state_dict(state["averaged"])
    parts = recipe.exportable(recipe.generator.eval())
    return Trained(config.method, parts, config.resolution, int(state["images_seen"]))


@torch.no_grad()
def trained_of_published(
    generator: LifespanGenerator, group: str, resolution: int = 256
) -> Trained:
    """A published generator, of one group and the six anchors it was trained on."""
    anchors = len(LIFESPAN_CLUSTERS)
    codes = age_codes(anchors, 1, generator.shape.code // anchors)
    latents = generator.eval().mapping(torch.from_numpy(codes[0]))[None].numpy()
    parts = Exportable(
        generator.identity_encoder,
        (generator.decoder,),
        latents,
        LIFESPAN_CLUSTERS,
        (group,),
        "w",
    )
    return Trained("lifespan", parts, resolution, 0)


def exported(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
) -> bytes:
    """The ONNX graph of a module, its named axes dynamic, as serialised bytes.

    `dynamic` maps an input's name to the names of its free axes; equal names are one size.
    """
    axes = {name for per_input in dynamic.values() for name in per_input.values()}
    sizes = {name: torch.export.Dim(name, min=1, max=1 << 16) for name in sorted(axes)}
    shapes = tuple(
        {axis: sizes[name] for axis, name in dynamic.get(key, {}).items()} for key in inputs
    )
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it reports operators of packages that are not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            optimize=True,
            verbose=False,
        )
    logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    onnx.checker.check_model(model)
    return model.SerializeToString()


def half_weights(graph: bytes, smallest: int = 64) -> bytes:
    """The graph with float32 weights stored as float16 and cast back where they are used.

    Arithmetic stays float32; a CPU folds the casts when it opens the graph.
    """
    model = onnx.load_model_from_string(graph)
    casts = []
    for tensor in list(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < smallest:
            continue
        stored = numpy_helper.from_array(
            numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}_half"
        )
        casts.append(helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT))
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(stored)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@torch.no_grad()
def graphs_of(trained: Trained, precision: Precision) -> dict[str, bytes]:
    """Encoder and decoders in their uint8 shells; see `model.bundle` for their contract."""
    side = trained.resolution
    image = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    graphs, identity = {}, image.float()
    if trained.encoder is not None:
        identity = trained.encoder(image)
        graphs[ENCODER] = exported(
            trained.encoder, {"image": image}, ["identity"], {"image": {0: "M"}}
        )
    latent = torch.zeros(3, trained.parts.latents.shape[-1])
    for name, decoder in trained.decoders.items():
        graphs[name] = exported(
            decoder,
            {"identity": identity, "index": torch.tensor([0, 1, 0]), "latent": latent},
            ["image"],
            {"identity": {0: "M"}, "index": {0: "N"}, "latent": {0: "N"}},
        )
    if precision == "float16":
        return {name: half_weights(graph) for name, graph in graphs.items()}
    return graphs


@torch.no_grad()
def parity(trained: Trained, folder: Path, portraits: NDArray[np.uint8]) -> dict[str, Any]:
    """Compares the graphs in `folder` with the network, picture by picture, in odd batch sizes.

    `portraits` uint8 (N, R, R, 3). Every portrait is decoded at one anchor of one group, in turn.
    """
    encode = trained.encoder
    encoder = OnnxRuntimeGraph(folder / ENCODER, Provider.CPU) if encode else None
    decoders = [
        (decode, OnnxRuntimeGraph(folder / name, Provider.CPU))
        for name, decode in trained.decoders.items()
    ]
    table = trained.parts.latents.reshape(-1, trained.parts.latents.shape[-1])
    worst, theirs, ours = 0, [], []
    start, sizes = 0, [1, 3, 5, 7, 2, 11]
    while start < len(portraits):
        size = sizes[len(theirs) % len(sizes)]
        decode, decoder = decoders[len(theirs) % len(decoders)]
        image = portraits[start : start + size]
        index = np.arange(len(image), dtype=np.int64)[::-1].copy()
        latent = table[(start + np.arange(len(image))) % len(table)]
        given, identity = image.astype(np.float32), torch.from_numpy(image).float()
        if encoder is not None and encode is not None:
            (given,) = encoder.run({"image": image})
            identity = encode(torch.from_numpy(image))
        (picture,) = decoder.run({"identity": given, "index": index, "latent": latent})
        wanted = decode(identity, torch.from_numpy(index), torch.from_numpy(latent)).numpy()
        difference = np.abs(picture.astype(np.int16) - wanted.astype(np.int16))
        worst = max(worst, int(difference.max()))
        theirs.append(wanted)
        ours.append(picture)
        start += size
    ratio = psnr_db(np.concatenate(ours), np.concatenate(theirs))
    return {
        "portraits": len(portraits),
        "max_level_difference": worst,
        "psnr_db": None if ratio is None else round(ratio, 2),
    }


def commit_of_tree() -> str:
    """The commit that the code was at, or an empty text outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.strip()


def export(
    trained: Trained,
    output: Path,
    portraits: NDArray[np.uint8],
    *,
    name: str,
    version: str,
    precision: Precision,
    provenance: Mapping[str, Any],
    portrait: Mapping[str, Any] | None = None,
    quality: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Bundle:
    """Writes the bundle, if its graphs pass the gate; raises ExportError otherwise.

    The gate: at most 1 grey level apart with float32 weights, at least 45 dB with float16 ones.
    """
    parts = trained.parts
    latent_size = parts.latents.shape[-1]
    encoder, decoders = graph_contract(
        trained.resolution,
        latent_size,
        ENCODER if parts.encoder else None,
        list(trained.decoders),
    )
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "method": trained.method,
        "resolution": trained.resolution,
        "anchors": [asdict(cluster) for cluster in parts.clusters],
        "groups": parts.groups,
        "default_group": "neutral" if "neutral" in parts.groups else parts.groups[0],
        "latent_size": latent_size,
        "continuous": parts.interpolation_space is not None,
        "interpolation_space": parts.interpolation_space,
        "portrait": dict(portrait or {}),
        "encoder": encoder,
        "decoders": decoders,
        "precision": precision,
        "preview": trained.images_seen < FINISHED_IMAGES,
        "provenance": {
            "images_seen": trained.images_seen,
            "commit": commit_of_tree(),
            **provenance,
        },
        "quality": dict(quality or {}),
        "parity": {"portraits": 0, "max_level_difference": 0},
    }
    graphs = graphs_of(trained, precision)
    draft = output.with_name(f".{output.name}-draft")
    write_bundle(draft, fields, graphs, parts.latents, notes)
    fields["parity"] = measured = parity(trained, draft, portraits)
    for file in draft.iterdir():
        file.unlink()
    draft.rmdir()
    if precision == "float32" and measured["max_level_difference"] > GATE_LEVELS:
        raise ExportError(
            f"the graphs differ by {measured['max_level_difference']} grey levels from the network"
        )
    if measured["psnr_db"] is not None and measured["psnr_db"] < GATE_DB:
        raise ExportError(f"the graphs are only {measured['psnr_db']} dB from the network")
    return write_bundle(output, fields, graphs, parts.latents, notes)


def with_quality(bundle: Path, quality: Mapping[str, Any]) -> Bundle:
    """The bundle rewritten with `quality` merged into its manifest's."""
    opened = open_bundle(bundle)
    fields = opened.manifest.model_dump(mode="json", exclude={"files"})
    fields["quality"] = {**fields["quality"], **quality}
    graphs = {}
    texts = {}
    for file in opened.manifest.files:
        if file.endswith(".onnx"):
            graphs[file] = (bundle / file).read_bytes()
        elif not file.endswith(".npy"):
            texts[file] = (bundle / file).read_text()
    return write_bundle(bundle, fields, graphs, opened.latents, texts)


def warm_start_bytes(state: Mapping[str, Any]) -> bytes:
    """A checkpoint's averaged generator and discriminator in half precision, for later runs.

    Without pictures that a method keeps in its discriminator's state.
    """
    pictures = recipe_class(config_of(state["config"]).method).pictures_in_state
    judge = {n: t for n, t in state["discriminator"].items() if not n.startswith(pictures)}

    def half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: t.half() if t.is_floating_point() else t for name, t in weights.items()}

    buffer = io.BytesIO()
    torch.save(
        {
            "config": state["config"],
            "images_seen": state["images_seen"],
            "generator": half(state["averaged"]),
            "discriminator": half(judge),
        },
        buffer,
    )
    return buffer.getvalue()
