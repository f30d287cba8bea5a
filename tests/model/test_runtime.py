import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model import runtime
from model.runtime import OnnxRuntimeGraph, Provider, ProviderError, available_threads, open_graph


@pytest.fixture
def doubling(tmp_path):
    """A graph y = x + x with a free first axis."""
    shape = ["N", 2]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opset = [helper.make_opsetid("", 20)]
    path = tmp_path / "doubling.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


X = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


def test_the_cpu_runs_a_graph_and_says_so(doubling):
    graph = open_graph(doubling, Provider.CPU)
    assert (graph.provider, graph.inputs, graph.outputs) == (Provider.CPU, ("x",), ("y",))
    np.testing.assert_array_equal(graph.run({"x": X})[0], 2 * X)


def test_auto_names_the_provider_it_took(doubling):
    assert open_graph(doubling).provider is runtime.auto_providers()[0]


def test_auto_warns_and_degrades_to_the_cpu_when_cuda_does_not_open(doubling, monkeypatch, caplog):
    monkeypatch.setattr(runtime, "auto_providers", lambda: (Provider.CUDA, Provider.CPU))
    real = runtime.OnnxRuntimeGraph

    def failing(path, provider, threads=None):
        if provider is Provider.CUDA:
            raise ProviderError("no device")
        return real(path, provider, threads)

    monkeypatch.setattr(runtime, "OnnxRuntimeGraph", failing)
    assert open_graph(doubling).provider is Provider.CPU
    assert "cuda is passed over: no device" in caplog.text


@pytest.mark.parametrize("installed", [True, False])
def test_auto_takes_openvino_where_it_is_installed(installed, monkeypatch):
    monkeypatch.setattr(runtime, "_has_nvidia_device", lambda: False)
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda _: installed or None)
    expected = (Provider.OPENVINO, Provider.CPU) if installed else (Provider.CPU,)
    assert runtime.auto_providers() == expected


@pytest.mark.skipif(bool(runtime._has_nvidia_device()), reason="there is a GPU")
def test_a_demanded_gpu_that_is_not_there_is_an_error(doubling):
    with pytest.raises(ProviderError, match="cuda"):
        open_graph(doubling, Provider.CUDA)


def test_a_session_that_runs_elsewhere_is_an_error(doubling, monkeypatch):
    monkeypatch.setattr(
        runtime.onnxruntime.InferenceSession, "get_providers", lambda _: ["SomeOtherProvider"]
    )
    with pytest.raises(ProviderError, match="SomeOtherProvider would run"):
        OnnxRuntimeGraph(doubling, Provider.CPU)


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(ProviderError, match=r"broken\.onnx"):
        open_graph(path, Provider.CPU)


def test_openvino_that_is_not_installed_says_what_to_install(doubling, monkeypatch):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ProviderError, match=r"anchorage\[openvino\]"):
        open_graph(doubling, Provider.OPENVINO)


def test_openvino_gives_the_same_numbers(doubling):
    pytest.importorskip("openvino")
    graph = open_graph(doubling, Provider.OPENVINO)
    assert graph.provider is Provider.OPENVINO
    np.testing.assert_allclose(graph.run({"x": X})[0], 2 * X, rtol=1e-2)


def test_a_broken_file_is_named_by_openvino_too(tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(ProviderError, match=r"broken\.onnx"):
        open_graph(path, Provider.OPENVINO)


def test_threads_are_cut_to_the_control_groups_quota(monkeypatch):
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for text, threads in (("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)):
        monkeypatch.setattr(runtime.Path, "read_text", lambda _, text=text: text)
        assert available_threads() == threads


@pytest.mark.gpu
def test_cuda_runs_a_graph(doubling):
    graph = open_graph(doubling, Provider.CUDA)
    assert graph.provider is Provider.CUDA
    np.testing.assert_array_equal(graph.run({"x": X})[0], 2 * X)
