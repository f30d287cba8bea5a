"""Wide convolutions of an ONNX graph by minimal filtering, which takes a quarter of the products.

Winograd's F(4x4, 3x3), after Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*
(CVPR 2016), in operations that every runtime has: pixels are gathered into overlapping tiles of
6x6, a product transforms these, 36 products of matrices multiply them by the weights, and another
product and gathering bring 4x4 pixels of each tile back. A transposed convolution of 4x4 at stride
2 is four convolutions of 3x3 whose pixels alternate, and goes the same way. The graph transforms
the weights too, which a runtime does once, when it opens it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

WIDE = 128
"""Channels, in and out (four times as many where it is transposed), from which on it is faster:
with 64, tiles cost what products save."""
PIXELS, TILE = 4, 6
"""Sides of what a tile gives and of what it takes."""

# Lavin and Gray, section 4.3.
_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_WEIGHTS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)
_ALTERNATING = np.array(
    [[[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]]
)
"""Which of the four taps of a transposed convolution the three of even and of odd pixels are."""
Padding = Literal["reflect", "edge"]
_PADDINGS: dict[bytes | None, Padding] = {b"reflect": "reflect", b"edge": "edge"}
_PADDED = [0, 0, 1, 1, 0, 0, 1, 1]


def rewritten(path: Path, wide: int = WIDE) -> bytes | None:
    """The graph with its wide convolutions so computed; None where it has none of them.

    They are of float32, with weights that no input changes and no groups, 3x3 at stride 1 or
    transposed 4x4 at stride 2 that lose 3 pixels at each rim, after a padding of one pixel,
    reflected or repeated, and of sides that are known and multiples of 4.
    """
    model = shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    known = _Known(graph)
    nodes: list[NodeProto] = []
    replaced = 0
    for node in graph.node:
        wider = _wide(node, known, wide)
        if wider is None:
            nodes.append(node)
        else:
            nodes += _Filtering(graph, known, f"winograd_{replaced}").nodes(wider)
            replaced += 1
    if not replaced:
        return None
    used = {name for node in nodes for name in node.input} | {each.name for each in graph.output}
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.op_type != "Pad" or node.output[0] in used)
    return model.SerializeToString()


class _Known:
    """What a graph says of its values before it runs."""

    def __init__(self, graph: GraphProto) -> None:
        self.constants = {each.name: each for each in graph.initializer}
        self.pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
        self.fixed = {*self.constants}
        """What no input changes"""
        for node in graph.node:
            if all(name in self.fixed for name in node.input if name):
                self.fixed.update(node.output)
        self.written: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        """Constants that were added, by type, shape and content"""
        self._shapes = {name: list(each.dims) for name, each in self.constants.items()}
        self._types = {name: each.data_type for name, each in self.constants.items()}
        for value in (*graph.value_info, *graph.input, *graph.output):
            tensor = value.type.tensor_type
            self._shapes[value.name] = [axis.dim_value for axis in tensor.shape.dim]
            self._types[value.name] = tensor.elem_type

    def shape(self, name: str) -> list[int]:
        """Four axes, 0 where one is unknown."""
        shape = self._shapes.get(name, [])
        return shape if len(shape) == 4 else [0] * 4

    def is_float32(self, name: str) -> bool:
        """Whether it surely is."""
        return self._types.get(name) == TensorProto.FLOAT

    def padding(self, name: str) -> Padding | None:
        """How an image is padded by one pixel along its last two axes, where it is so."""
        pad = self.pads.get(name)
        if pad is None or len(pad.input) < 2 or any(pad.input[2:]):
            return None
        if pad.input[1] not in self.constants:
            return None
        if numpy_helper.to_array(self.constants[pad.input[1]]).tolist() != _PADDED:
            return None
        return _PADDINGS.get(_attributes(pad).get("mode"))


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


@dataclass(frozen=True)
class _Wide:
    """A convolution that is to be replaced, of an image that is padded by `padding`."""

    image: str
    weights: str
    bias: str
    output: str
    padding: Padding
    inputs: int
    outputs: int
    height: int
    width: int
    transposed: bool

    @property
    def phases(self) -> int:
        """Pixels, along a side, that become of one."""
        return 2 if self.transposed else 1


def _wide(node: NodeProto, known: _Known, wide: int) -> _Wide | None:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return None
    transposed = node.op_type == "ConvTranspose"
    padding = known.padding(node.input[0])
    defaults = {
        "auto_pad": b"NOTSET",
        "dilations": [1, 1],
        "group": 1,
        "output_padding": [0, 0],
        "pads": [0] * 4,
        "strides": [1, 1],
    }
    wanted = defaults | ({"strides": [2, 2], "pads": [3] * 4} if transposed else {})
    given = defaults | _attributes(node)
    if padding is None or any(given[name] != wanted[name] for name in wanted):
        return None
    image = known.pads[node.input[0]].input[0]
    if not known.is_float32(image) or node.input[1] not in known.fixed:
        return None
    _, inputs, height, width = known.shape(image)
    first, second, *kernel = known.shape(node.input[1])
    outputs = second if transposed else first
    if kernel != ([4, 4] if transposed else [3, 3]):
        return None
    if min(inputs, outputs * (4 if transposed else 1)) < wide:
        return None
    if not (height and width) or height % PIXELS or width % PIXELS:
        return None
    bias = node.input[2] if len(node.input) > 2 else ""
    return _Wide(
        image,
        node.input[1],
        bias,
        node.output[0],
        padding,
        inputs,
        outputs,
        height,
        width,
        transposed,
    )


class _Filtering:
    """Writes what replaces one convolution, on rows of pixels, (pixels, N, channels)."""

    def __init__(self, graph: GraphProto, known: _Known, name: str) -> None:
        self._graph, self._known, self._name = graph, known, name
        self._nodes: list[NodeProto] = []

    def nodes(self, wide: _Wide) -> Sequence[NodeProto]:
        height, width, phases = wide.height, wide.width, wide.phases
        rows = self._do("Transpose", wide.image, perm=[2, 3, 0, 1])
        rows = self._shaped(rows, height * width, -1, wide.inputs)
        tiles = self._do("Gather", rows, self._constant(_taken(height, width, wide.padding)))
        tiles = self._mapped(tiles, np.kron(_INPUT, _INPUT))
        tiles = self._shaped(tiles, TILE**2, -1, wide.inputs)
        products = self._do("MatMul", tiles, self._weights(wide))
        pixels = self._mapped(products, np.kron(_OUTPUT, _OUTPUT))
        if wide.transposed:
            pixels = self._shaped(pixels, height * width, -1, phases**2, wide.outputs)
            pixels = self._do("Transpose", pixels, perm=[0, 2, 1, 3])
        pixels = self._shaped(pixels, height * width * phases**2, -1, wide.outputs)
        pixels = self._do("Gather", pixels, self._constant(_given(height, width, phases)))
        if wide.bias:
            pixels = self._do("Add", pixels, wide.bias)
        pixels = self._shaped(pixels, height * phases, width * phases, -1, wide.outputs)
        self._do("Transpose", pixels, perm=[2, 3, 0, 1], output=wide.output)
        return self._nodes

    def _weights(self, wide: _Wide) -> str:
        """(TILE TILE, inputs, phases phases outputs)"""
        taps = _WEIGHTS[None] @ (_ALTERNATING if wide.transposed else np.eye(3)[None])
        # (phases, TILE, taps) along each side
        both = np.einsum("pak,qbl->abpqkl", taps, taps)
        both = both.reshape(TILE**2 * wide.phases**2, -1).T
        weights = wide.weights
        if not wide.transposed:
            weights = self._do("Transpose", weights, perm=[1, 0, 2, 3])
        weights = self._shaped(weights, wide.inputs, wide.outputs, -1)
        weights = self._do("MatMul", weights, self._constant(both.astype(np.float32)))
        weights = self._shaped(weights, wide.inputs, wide.outputs, TILE**2, -1)
        weights = self._do("Transpose", weights, perm=[2, 0, 3, 1])
        return self._shaped(weights, TILE**2, wide.inputs, -1)

    def _mapped(self, rows: str, matrix: NDArray) -> str:
        """A product with what comes first of the rows' axes."""
        flat = self._shaped(rows, matrix.shape[1], -1)
        return self._do("MatMul", self._constant(matrix.astype(np.float32)), flat)

    def _shaped(self, value: str, *shape: int) -> str:
        return self._do("Reshape", value, self._constant(np.array(shape)))

    def _do(self, operation: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{self._name}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operation, inputs, [output], output, **attributes))
        return output

    def _constant(self, value: NDArray) -> str:
        """The same for all convolutions that need the same."""
        written, key = self._known.written, (value.dtype.str, value.shape, value.tobytes())
        if key not in written:
            written[key] = f"winograd_constant_{len(written)}"
            tensor = numpy_helper.from_array(np.ascontiguousarray(value), written[key])
            self._graph.initializer.append(tensor)
        return written[key]


def _taken(height: int, width: int, padding: Padding) -> NDArray[np.int64]:
    """The pixel at each place of all tiles, (TILE TILE tiles,)."""
    places = np.pad(np.arange(height * width).reshape(height, width), 1, padding)
    tiles = np.lib.stride_tricks.sliding_window_view(places, (TILE, TILE))[::PIXELS, ::PIXELS]
    return tiles.transpose(2, 3, 0, 1).reshape(-1)


def _given(height: int, width: int, phases: int) -> NDArray[np.int64]:
    """Where among what all tiles give, (PIXELS PIXELS tiles phases phases,), each pixel is."""
    axes = (PIXELS, PIXELS, height // PIXELS, width // PIXELS, phases, phases)
    places = np.arange(np.prod(axes)).reshape(axes)
    return places.transpose(2, 0, 4, 3, 1, 5).reshape(-1)
