from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import model
from model import runtime, winograd
from model.runtime import OnnxRuntimeGraph, Provider
from model.winograd import rewritten

DECODER = Path(model.__file__).parent / "bundles" / "lifespan" / "decoder.onnx"
CHANNELS = 8
DRAWS = np.random.default_rng(0)
PADDED = [0, 0, 1, 1, 0, 0, 1, 1]


def save(
    path,
    transposed=False,
    mode="reflect",
    padded=PADDED,
    sides=(8, 12),
    inputs=CHANNELS,
    outputs=CHANNELS,
    bias=False,
    kernel=None,
    **attributes,
):
    """A graph that scales an image, pads it, convolves it with halved weights and adds 1."""
    kernel = kernel or (4 if transposed else 3)
    groups = attributes.get("group", 1)
    first, second = (inputs, outputs) if transposed else (outputs, inputs)
    weights = DRAWS.normal(size=(first, second // groups, kernel, kernel)) / np.sqrt(9 * inputs)
    constants = {
        "half": weights.astype(np.float16),
        "bias": DRAWS.normal(size=outputs).astype(np.float32),
        "padded": np.array(padded),
        "two": np.array(2, np.float32),
        "one": np.array(1, np.float32),
    }
    convolution = "ConvTranspose" if transposed else "Conv"
    if transposed:
        attributes = {"strides": [2, 2], "pads": [3] * 4} | attributes
    nodes = [
        helper.make_node("Cast", ["half"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["image", "two"], ["scaled"]),
        helper.make_node("Pad", ["scaled", "padded"], ["larger"], mode=mode),
        helper.make_node(
            convolution,
            ["larger", "weights", *(["bias"] if bias else [])],
            ["convolved"],
            **attributes,
        ),
        helper.make_node("Add", ["convolved", "one"], ["result"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", inputs, *sides])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def run(graph, image):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def operations(graph):
    return {node.op_type for node in onnx.load_from_string(graph).graph.node}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mode", ["reflect", "edge"])
@pytest.mark.parametrize(
    ("transposed", "sides", "outputs"),
    [(False, (8, 12), 8), (False, (4, 4), 10), (True, (8, 12), 8), (True, (12, 4), 2)],
)
def test_a_wide_convolution_gives_what_it_gave(
    transposed, sides, outputs, mode, bias, count, tmp_path
):
    path = save(tmp_path / "graph.onnx", transposed, mode, sides=sides, outputs=outputs, bias=bias)
    graph = rewritten(path, CHANNELS)
    assert graph is not None
    assert not operations(graph) & {"Pad", "Conv", "ConvTranspose"}
    image = DRAWS.normal(size=(count, CHANNELS, *sides)).astype(np.float32)
    np.testing.assert_allclose(run(graph, image), run(path, image), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    {
        "narrow": {"inputs": CHANNELS - 1},
        "few outputs": {"outputs": CHANNELS - 1},
        "few outputs of four": {"transposed": True, "outputs": CHANNELS // 4 - 1},
        "grouped": {"group": 2},
        "steps": {"strides": [2, 2]},
        "transposed without steps": {"transposed": True, "strides": [1, 1]},
        "spread": {"dilations": [2, 2]},
        "padded by itself": {"pads": [1] * 4},
        "zeros around": {"mode": "constant"},
        "padded at one side": {"padded": [0, 0, 2, 2, 0, 0, 0, 0]},
        "padded by two": {"padded": [0, 0, 2, 2, 0, 0, 2, 2]},
        "larger": {"kernel": 5},
        "sides of no tiles": {"sides": (8, 10)},
        "sides that are free": {"sides": ("H", 8)},
    }.items(),
    ids=lambda case: case[0],
)
def test_other_convolutions_stay(settings, tmp_path):
    path = save(tmp_path / "graph.onnx", **settings[1])
    assert rewritten(path, CHANNELS) is None


def altered(path, change):
    """The graph after `change` of its model."""
    one = onnx.load(path)
    change(one.graph)
    onnx.save(one, path)
    return path


def test_weights_that_an_input_changes_stay(tmp_path):
    def change(graph):
        graph.node[0].input[0] = "given"
        shape = [CHANNELS, CHANNELS, 3, 3]
        graph.input.append(helper.make_tensor_value_info("given", TensorProto.FLOAT16, shape))

    assert rewritten(altered(save(tmp_path / "graph.onnx"), change), CHANNELS) is None


def test_convolutions_in_half_precision_stay(tmp_path):
    def change(graph):
        graph.node[0].attribute[0].i = TensorProto.FLOAT16
        for each in (graph.input[0], graph.output[0]):
            each.type.tensor_type.elem_type = TensorProto.FLOAT16
        for each in graph.initializer:
            if each.name in ("one", "two"):
                value = numpy_helper.to_array(each).astype(np.float16)
                each.CopyFrom(numpy_helper.from_array(value, each.name))

    path = altered(save(tmp_path / "graph.onnx"), change)
    onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    assert rewritten(path, CHANNELS) is None


def test_what_two_convolutions_share_is_kept_once(tmp_path):
    path = save(tmp_path / "graph.onnx")
    one = onnx.load(path)
    convolution = one.graph.node[3]
    again = onnx.NodeProto()
    again.CopyFrom(convolution)
    again.output[0] = "other"
    one.graph.node.insert(4, again)
    total = helper.make_node("Add", ["convolved", "other"], ["sum"])
    one.graph.node.insert(5, total)
    one.graph.node[6].input[0] = "sum"
    onnx.save(one, path)
    graph = rewritten(path, CHANNELS)
    image = DRAWS.normal(size=(2, CHANNELS, 8, 12)).astype(np.float32)
    np.testing.assert_allclose(run(graph, image), run(path, image), rtol=0, atol=1e-4)
    constants = [each.raw_data for each in onnx.load_from_string(graph).graph.initializer]
    assert len(set(constants)) == len(constants)


def test_a_padding_that_others_read_stays(tmp_path):
    path = save(tmp_path / "graph.onnx")
    one = onnx.load(path)
    one.graph.output.append(helper.make_tensor_value_info("larger", TensorProto.FLOAT, None))
    onnx.save(one, path)
    assert "Pad" in operations(rewritten(path, CHANNELS))


def test_the_bundled_decoder_draws_the_same_so_computed():
    graph = rewritten(DECODER, 8)
    assert graph is not None
    sessions = [
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"])
        for each in (DECODER, graph)
    ]
    identity = DRAWS.normal(size=(1, *sessions[0].get_inputs()[0].shape[1:])).astype(np.float32)
    latent = DRAWS.normal(size=(2, 256)).astype(np.float32)
    feeds = {"identity": identity, "index": np.zeros(2, np.int64), "latent": latent}
    plain, filtered = (session.run(None, feeds)[0].astype(int) for session in sessions)
    assert np.abs(plain - filtered).max() <= 1


def test_processors_open_large_graphs_so(tmp_path, monkeypatch):
    path = save(tmp_path / "graph.onnx", inputs=winograd.WIDE, outputs=winograd.WIDE)
    opened = []

    def noted(path):
        opened.append(path)
        return rewritten(path)

    monkeypatch.setattr(winograd, "rewritten", noted)
    image = DRAWS.normal(size=(1, winograd.WIDE, 8, 12)).astype(np.float32)
    assert path.stat().st_size < runtime.LARGE_BYTES
    (plain,) = OnnxRuntimeGraph(path, Provider.CPU, 1).run({"image": image})
    assert not opened
    monkeypatch.setattr(runtime, "LARGE_BYTES", 0)
    (filtered,) = OnnxRuntimeGraph(path, Provider.CPU, 1).run({"image": image})
    assert opened == [path]
    np.testing.assert_allclose(filtered, plain, rtol=0, atol=1e-4)
    assert (filtered != plain).any()
