"""Tiny bundles and parsers: real graphs, written here, that do something simple to a picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.ages import LIFESPAN_CLUSTERS
from model.bundle import Bundle, Graph, graph_contract, write_bundle
from model.portraits.classes import CLASSES

OPSET, IR_VERSION = 17, 10
ANCHORS = [cluster.name for cluster in LIFESPAN_CLUSTERS]
GROUPS = ("female", "male", "neutral")
LATENT = 4
STEP = 12
"""Grey levels that a picture is lighter at each anchor than at the one before."""
GROUP_TINT = 20
"""Grey levels of red, green, blue that the groups add."""


def write_tiny_bundle(
    path: Path,
    *,
    name: str = "tiny",
    resolution: int = 64,
    work: int = 0,
    poison: bool = False,
    decoder_per_anchor: bool = False,
    **fields: Any,
) -> Bundle:
    """A bundle whose pictures are the portrait in blocks of 4 px, shifted by age and group.

    `work` is a number of wide convolutions without effect, about 5 ms a picture each at 64 px.
    With `poison` the encoder fails on a batch that holds a portrait that is white all over. With
    `decoder_per_anchor` each anchor has its own decoder, which adds the anchor's step again.
    """
    names = [f"decoder-{name}.onnx" for name in ANCHORS] if decoder_per_anchor else ["decoder.onnx"]
    encoder, decoders = graph_contract(resolution, LATENT, "encoder.onnx", names)
    latents = np.zeros((len(GROUPS), len(ANCHORS), LATENT), np.float32)
    latents[:, :, 0] = STEP * np.arange(len(ANCHORS))
    latents[:, :, 1:] = GROUP_TINT * np.eye(3)[:, None]
    document = {
        **_document(name, resolution, LATENT, encoder, decoders),
        "continuous": not decoder_per_anchor,
    }
    graphs = {
        "encoder.onnx": _encoder(resolution, poison),
        **{name: _decoder(resolution, work, STEP * place) for place, name in enumerate(names)},
    }
    return write_bundle(path, {**document, **fields}, graphs, latents)


def write_unchanged_bundle(path: Path, resolution: int = 64) -> Bundle:
    """A bundle that returns its input as it is, whatever age is asked for."""
    nodes = [
        helper.make_node("Gather", ["identity", "index"], ["levels"], axis=0),
        helper.make_node("Cast", ["levels"], ["image"], to=TensorProto.UINT8),
    ]
    return _write_plain_bundle(path, "unchanged", resolution, nodes, {})


def write_picture_bundle(path: Path, pictures: NDArray[np.uint8]) -> Bundle:
    """A bundle that returns the same pictures (anchors, R, R, 3) of whomever it is given.

    Between the anchors they fade into each other.
    """
    resolution = pictures.shape[1]
    nodes = [
        helper.make_node("MatMul", ["latent", "pictures"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["levels"]),
        helper.make_node("Round", ["levels"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["image"], to=TensorProto.UINT8),
    ]
    constants = {
        "pictures": pictures.reshape(len(pictures), -1).astype(np.float32),
        "shape": np.array([-1, resolution, resolution, 3], np.int64),
    }
    return _write_plain_bundle(path, "pictures", resolution, nodes, constants)


def _write_plain_bundle(
    path: Path,
    name: str,
    resolution: int,
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
) -> Bundle:
    """A bundle whose identity is the portrait and whose latents are the anchors' weights."""
    encoder, decoders = graph_contract(resolution, len(ANCHORS), "encoder.onnx", ["decoder.onnx"])
    sides = [resolution, resolution, 3]
    identity = helper.make_tensor_value_info("identity", TensorProto.FLOAT, ["M", *sides])
    graphs = {
        "encoder.onnx": helper.make_graph(
            [helper.make_node("Cast", ["image"], ["identity"], to=TensorProto.FLOAT)],
            "encoder",
            [_uint8("image", ["M", *sides])],
            [identity],
        ),
        "decoder.onnx": helper.make_graph(
            nodes,
            "decoder",
            [
                identity,
                helper.make_tensor_value_info("index", TensorProto.INT64, ["N"]),
                helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", len(ANCHORS)]),
            ],
            [_uint8("image", ["N", *sides])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
    }
    latents = np.broadcast_to(np.eye(len(ANCHORS), dtype=np.float32), (len(GROUPS), 6, 6))
    return write_bundle(
        path,
        _document(name, resolution, len(ANCHORS), encoder, decoders),
        {file: _serialised(graph) for file, graph in graphs.items()},
        latents,
    )


def _document(
    name: str, resolution: int, latent_size: int, encoder: Graph | None, decoders: tuple[Graph, ...]
) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1",
        "method": "lifespan",
        "resolution": resolution,
        "anchors": [asdict(cluster) for cluster in LIFESPAN_CLUSTERS],
        "groups": GROUPS,
        "default_group": "neutral",
        "latent_size": latent_size,
        "continuous": True,
        "encoder": encoder,
        "decoders": decoders,
        "precision": "float32",
        "preview": True,
        "provenance": {"data": ["none"], "licence": "CC0-1.0", "images_seen": 0},
        "parity": {"portraits": 0, "max_level_difference": 0},
    }


def write_tiny_parser(path: Path, resolution: int = 64) -> None:
    """A parser that sees skin in a centred ellipse, and background around it."""
    y, x = (np.mgrid[:resolution, :resolution] + 0.5) / resolution - 0.5
    inside = (x / 0.38) ** 2 + (y / 0.46) ** 2 < 1
    probability = np.zeros((1, len(CLASSES), resolution, resolution), np.uint8)
    probability[0, CLASSES.index("skin")] = 255 * inside
    probability[0, CLASSES.index("background")] = 255 * ~inside
    rest = np.array(probability.shape[1:], np.int64)
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["image"], ["batch"], start=0, end=1),
            helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
            helper.make_node("Expand", ["map", "shape"], ["probability"]),
        ],
        "parser",
        [_uint8("image", ["N", resolution, resolution, 3])],
        [_uint8("probability", ["N", *probability.shape[1:]])],
        [numpy_helper.from_array(probability, "map"), numpy_helper.from_array(rest, "rest")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_serialised(graph))


def _encoder(resolution: int, poison: bool) -> bytes:
    """image -> identity (M, 3, R/4, R/4): means of 4 x 4 blocks, 0 to 255."""
    side = resolution // 4
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    constants = []
    if poison:
        # A white portrait asks for an element beyond the end of a list, which the runtime refuses.
        nodes += [
            helper.make_node("ReduceMean", ["means"], ["whiteness"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMax", ["whiteness"], ["whitest"], axes=[0], keepdims=0),
            helper.make_node("Greater", ["whitest", "limit"], ["white"]),
            helper.make_node("Cast", ["white"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["list", "place"], ["zero"]),
            helper.make_node("Add", ["means", "zero"], ["identity"]),
        ]
        constants += [
            numpy_helper.from_array(np.array(254.5, np.float32), "limit"),
            numpy_helper.from_array(np.zeros(1, np.float32), "list"),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["means"], ["identity"]))
    graph = helper.make_graph(
        nodes,
        "encoder",
        [_uint8("image", ["M", resolution, resolution, 3])],
        [helper.make_tensor_value_info("identity", TensorProto.FLOAT, ["M", 3, side, side])],
        constants,
    )
    return _serialised(graph)


def _decoder(resolution: int, work: int, lighter: int) -> bytes:
    """identity, index, latent -> image: blocks of 4 px, lighter by the latent and by `lighter`."""
    side = resolution // 4
    shift = np.vstack([np.ones((1, 3)), np.eye(3)]).astype(np.float32)
    constants = {
        "shift": shift,
        "places": np.array([-1, 3, 1, 1], np.int64),
        "scales": np.array([1, 1, 4, 4], np.float32),
        "lighter": np.array(lighter, np.float32),
        "black": np.array(0, np.float32),
        "white": np.array(255, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["identity", "index"], ["means"], axis=0),
        helper.make_node(
            "Resize",
            ["means", "", "scales"],
            ["large_0"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    ]
    if work:
        constants["widen"] = np.zeros((64, 3, 3, 3), np.float32)
        constants["wide"] = np.full((64, 64, 3, 3), 1e-3, np.float32)
        constants["narrow"] = np.zeros((3, 64, 1, 1), np.float32)
        pads = [1, 1, 1, 1]
        nodes.append(helper.make_node("Conv", ["large_0", "widen"], ["wide_0"], pads=pads))
        nodes += [
            helper.make_node("Conv", [f"wide_{i}", "wide"], [f"wide_{i + 1}"], pads=pads)
            for i in range(work)
        ]
        nodes.append(helper.make_node("Conv", [f"wide_{work}", "narrow"], ["nothing"]))
        nodes.append(helper.make_node("Add", ["large_0", "nothing"], ["large"]))
    else:
        nodes.append(helper.make_node("Identity", ["large_0"], ["large"]))
    nodes += [
        helper.make_node("MatMul", ["latent", "shift"], ["levels"]),
        helper.make_node("Reshape", ["levels", "places"], ["tint"]),
        helper.make_node("Add", ["tint", "lighter"], ["lift"]),
        helper.make_node("Add", ["large", "lift"], ["aged"]),
        helper.make_node("Clip", ["aged", "black", "white"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["rounded"]),
        helper.make_node("Transpose", ["rounded"], ["pixels"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["pixels"], ["image"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            helper.make_tensor_value_info("identity", TensorProto.FLOAT, ["M", 3, side, side]),
            helper.make_tensor_value_info("index", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", LATENT]),
        ],
        [_uint8("image", ["N", resolution, resolution, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return _serialised(graph)


def _uint8(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, shape)


def _serialised(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()
