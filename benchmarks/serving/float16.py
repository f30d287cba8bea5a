"""A graph whose convolutions, and what goes on between them, compute in float16."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
FOLLOWING = frozenset(
    {
        *("Add", "Mul", "Sub", "LeakyRelu", "Relu"),
        *("Concat", "DepthToSpace", "GatherND", "Pad", "Reshape", "Slice", "Split", "Transpose"),
        *("Squeeze", "Unsqueeze"),
    }
)
"""What computes in float16 where one of its inputs is the result of such a node."""
SQUARES = frozenset({"Pow", "ReduceMean"})
"""What normalisations add up; float16 holds no square of more than 256."""


def in_float16(graph: bytes, *, squares: bool = False) -> bytes:
    """The graph with casts around its convolutions and what follows them.

    Its inputs and outputs keep their types, and float32 is left to what few numbers are needed
    for, to resampling, to exponentials, and, unless `squares`, to what normalisations add up.
    """
    model = onnx.load_model_from_string(graph)
    _widen_weights(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    weights = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    outputs = {output.name for output in model.graph.output}
    following = FOLLOWING | SQUARES if squares else FOLLOWING
    halves: set[str] = set()
    means: set[str] = set()
    nodes: list[NodeProto] = []
    casts: dict[str, str] = {}

    def cast(name: str, half: bool) -> str:
        """A tensor's name in the type asked for."""
        if name in weights and half:
            if name not in casts:
                casts[name] = f"{name}_float16"
                narrow = numpy_helper.to_array(weights[name]).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(narrow, casts[name]))
            return casts[name]
        if name not in floats or (name in halves) == half:
            return name
        if name not in casts:
            casts[name] = f"{name}_{'float16' if half else 'float32'}"
            kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            nodes.append(
                helper.make_node("Cast", [name], [casts[name]], f"cast_{casts[name]}", to=kind)
            )
        return casts[name]

    for node in model.graph.node:
        leads = node.op_type in CONVOLUTIONS
        # What is added to a mean, so that it can be divided by, is too small for float16.
        follows = node.op_type in following and any(n in halves - means for n in node.input)
        half = (leads or follows) and outputs.isdisjoint(node.output)
        node.input[:] = [cast(name, half) for name in node.input]
        nodes.append(node)
        if half:
            halves.update(name for name in node.output if name in floats)
            means.update(node.output if node.op_type == "ReduceMean" else ())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    unused = set(weights) - {name for node in nodes for name in node.input}
    for name in unused:
        model.graph.initializer.remove(weights[name])
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _widen_weights(model: onnx.ModelProto) -> None:
    """Replaces weights stored as float16, and the casts of them, by weights in float32."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def others() -> Iterator[NodeProto]:
        for node in model.graph.node:
            tensor = stored.get(node.input[0]) if node.op_type == "Cast" else None
            if tensor is None or tensor.data_type != TensorProto.FLOAT16:
                yield node
                continue
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(wide, node.output[0]))
            model.graph.initializer.remove(tensor)

    nodes = list(others())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
