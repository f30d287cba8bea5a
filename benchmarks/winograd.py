"""Wide convolutions as they are and by minimal filtering, in ONNX Runtime on the processor.

Layers of the published network's sizes, and whole graphs where files are given, in turns; medians
of milliseconds a picture, with the smallest and the largest.

python -m benchmarks.winograd [GRAPH ...] [--rounds 15]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from model.runtime import available_threads
from model.winograd import rewritten
from training.machine import processors

LAYERS = ((256, 64), (128, 128), (64, 256))
"""Channels and sides"""


def layer(path: Path, channels: int, side: int) -> None:
    """Writes a graph of one 3x3 convolution after a padding."""
    weights = np.random.default_rng(0).normal(size=(channels, channels, 3, 3)) / channels
    constants = {"padded": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "weights": np.float32(weights)}
    graph = helper.make_graph(
        [
            helper.make_node("Pad", ["image", "padded"], ["larger"], mode="reflect"),
            helper.make_node("Conv", ["larger", "weights"], ["result"]),
        ],
        "layer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, side, side])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """As the service opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def feeds(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    """One picture's inputs, drawn at random."""
    draws = np.random.default_rng(1)
    given = {}
    for each in session.get_inputs():
        shape = [axis if isinstance(axis, int) else 1 for axis in each.shape]
        if each.type == "tensor(uint8)":
            given[each.name] = draws.integers(0, 256, shape).astype(np.uint8)
        elif each.type == "tensor(int64)":
            given[each.name] = np.zeros(shape, np.int64)
        else:
            given[each.name] = draws.normal(size=shape).astype(np.float32)
    return given


def compared(name: str, path: Path, wide: int, rounds: int) -> None:
    """Prints a row."""
    graph = rewritten(path, wide)
    if graph is None:
        print(f"| {name} | has no wide convolutions | |")
        return
    sessions = [session(path), session(graph)]
    given = feeds(sessions[0])
    times: list[list[float]] = [[], []]
    for _ in range(rounds + 1):
        for each, own in zip(sessions, times, strict=True):
            started = time.perf_counter()
            each.run(None, given)
            own.append(1000 * (time.perf_counter() - started))
    cells = [
        f"{statistics.median(own[1:]):.1f} ({min(own[1:]):.1f}-{max(own[1:]):.1f})" for own in times
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graphs", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{processors()}, {options.rounds} rounds, ms\n")
    print("| | as it is | by minimal filtering |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for channels, side in LAYERS:
            path = Path(folder) / "layer.onnx"
            layer(path, channels, side)
            compared(f"{channels} channels, {side} x {side}", path, channels, options.rounds)
    for graph in options.graphs:
        compared(str(graph), graph, 128, options.rounds)


if __name__ == "__main__":
    main()
