from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import model
from model import runtime
from model.runtime import (
    CudaGraph,
    CudaOptions,
    OnnxRuntimeGraph,
    Provider,
    ProviderError,
    available_threads,
    open_graph,
)


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

    def failing(path, provider, threads=None, *_):
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


class InMemory(runtime.onnxruntime.OrtValue):
    """Gives a copy of what it holds, as one on a GPU does."""

    def numpy(self):
        return super().numpy().copy()


@pytest.fixture
def recordable(monkeypatch):
    """CudaGraph on the CPU: all but the recording itself, which a CPU has none of."""

    def opened(graph):
        return OnnxRuntimeGraph(graph._path, Provider.CPU, 1)

    def in_memory(value):
        return InMemory.ortvalue_from_shape_and_type(value.shape, value.dtype.type)

    monkeypatch.setattr(CudaGraph, "_opened", opened)
    monkeypatch.setattr(runtime, "_on_gpu", in_memory)


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)


@pytest.fixture
def found(tmp_path):
    """Where x is not 0: the number of results depends on values."""
    graph = helper.make_graph(
        [
            helper.make_node("NonZero", ["x"], ["at"]),
            helper.make_node("Cast", ["at"], ["y"], to=TensorProto.FLOAT),
        ],
        "found",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "K"])],
    )
    path = tmp_path / "found.onnx"
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.mark.usefixtures("recordable")
def test_a_shape_is_recorded_once_and_replayed(doubling):
    graph = CudaGraph(doubling)
    for seed in range(3):
        for count in (1, 4, 2):
            x = rows(count, seed)
            np.testing.assert_array_equal(graph.run({"x": x})[0], 2 * x)
    assert graph.recorded
    assert len(graph._recordings) == 3


@pytest.mark.usefixtures("recordable")
def test_results_of_a_replay_outlive_the_next(doubling):
    graph = CudaGraph(doubling)
    graph.run({"x": X})
    (first,) = graph.run({"x": X})
    graph.run({"x": X + 1})
    np.testing.assert_array_equal(first, 2 * X)


@pytest.mark.usefixtures("recordable")
def test_rows_that_are_not_contiguous_are_replayed_in_order(doubling):
    graph = CudaGraph(doubling)
    for _ in range(2):
        np.testing.assert_array_equal(graph.run({"x": X.T})[0], 2 * X.T)


@pytest.mark.usefixtures("recordable")
def test_threads_take_turns_at_one_recording(doubling):
    graph = CudaGraph(doubling)
    given = [rows(1 + seed % 3, seed) for seed in range(60)]
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda x: graph.run({"x": x})[0], given))
    for x, result in zip(given, results, strict=True):
        np.testing.assert_array_equal(result, 2 * x)


@pytest.mark.usefixtures("recordable")
def test_no_more_shapes_are_recorded_than_are_kept(doubling, monkeypatch):
    monkeypatch.setattr(runtime, "MOST_RECORDINGS", 2)
    graph = CudaGraph(doubling)
    for count in (1, 2, 3, 3, 1):
        np.testing.assert_array_equal(graph.run({"x": rows(count)})[0], 2 * rows(count))
    assert len(graph._recordings) == 2


@pytest.mark.usefixtures("recordable")
def test_what_the_graph_refuses_is_the_callers_error_and_leaves_recording_on(doubling):
    graph = CudaGraph(doubling)
    with pytest.raises(Exception, match=r"(?i)invalid"):
        graph.run({"x": X[0]})
    assert graph.recorded


@pytest.mark.usefixtures("recordable")
@pytest.mark.parametrize("failing_run", [1, 3])
def test_a_recording_that_fails_gives_way_to_plain_runs(doubling, failing_run, monkeypatch, caplog):
    real, calls = runtime.Recording.run, []

    def run(recording, feeds):
        calls.append(feeds)
        if len(calls) == failing_run:
            raise RuntimeError("operation not permitted when stream is capturing")
        return real(recording, feeds)

    monkeypatch.setattr(runtime.Recording, "run", run)
    graph = CudaGraph(doubling)
    for _ in range(5):
        np.testing.assert_array_equal(graph.run({"x": X})[0], 2 * X)
    assert not graph.recorded
    assert len(calls) == failing_run
    assert caplog.text.count("doubling.onnx is not recorded as a CUDA graph: operation not") == 1


@pytest.mark.usefixtures("recordable")
def test_shapes_that_follow_from_values_are_not_recorded(found, monkeypatch, caplog):
    def refused(recording, feeds):
        raise AssertionError("CUDA may not work again after this")

    monkeypatch.setattr(runtime.Recording, "run", refused)
    graph = CudaGraph(found)
    for x in ([0, 1, 0, 2], [3, 0, 0, 0], [0, 1, 0, 2]):
        x = np.array(x, np.float32)
        np.testing.assert_array_equal(graph.run({"x": x})[0], [np.flatnonzero(x)])
    assert not graph.recorded
    assert caplog.text.count("found.onnx is not recorded as a CUDA graph: the shape of y") == 1


@pytest.mark.parametrize("name", ["lifespan/encoder", "lifespan/decoder", "parser/parser"])
def test_shapes_of_bundled_graphs_follow_from_their_inputs(name):
    graph = OnnxRuntimeGraph(BUNDLE.parent / f"{name}.onnx", Provider.CPU, 1)
    assert graph.unforeseen == []


def test_a_session_that_cannot_record_is_opened_without(doubling, monkeypatch, caplog):
    def opened(graph):
        if graph._options.recorded:
            raise ProviderError("nodes are not on the GPU")
        return OnnxRuntimeGraph(graph._path, Provider.CPU, 1)

    monkeypatch.setattr(CudaGraph, "_opened", opened)
    graph = CudaGraph(doubling)
    assert not graph.recorded
    np.testing.assert_array_equal(graph.run({"x": X})[0], 2 * X)
    assert "nodes are not on the GPU" in caplog.text


@pytest.mark.gpu
def test_cuda_runs_a_graph(doubling):
    graph = open_graph(doubling, Provider.CUDA)
    assert graph.provider is Provider.CUDA
    for _ in range(3):
        np.testing.assert_array_equal(graph.run({"x": X})[0], 2 * X)


BUNDLE = Path(model.__file__).parent / "bundles" / "lifespan"


def portraits(count, side, seed):
    """Soft colours, each another's."""
    draws = np.random.default_rng(seed)
    coarse = draws.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(side // 8, 1).repeat(side // 8, 2))


def decoder_feeds(count, faces, seed=0):
    """What the service's decoder is given: so many pictures of so many faces."""
    encoder = open_graph(BUNDLE / "encoder.onnx", Provider.CPU)
    side = encoder.shape_of("image")[1]
    (identity,) = encoder.run({"image": portraits(faces, side, seed)})
    latents = np.load(BUNDLE / "latents.npy").reshape(-1, 256).astype(np.float32)
    index = np.arange(count, dtype=np.int64) % faces
    return {
        "identity": identity,
        "index": index,
        "latent": latents[(np.arange(count) + seed) % len(latents)],
    }


def psnr_db(one, other):
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


ON_CUDA = {
    "plain": CudaOptions(recorded=False, tf32=False),
    "recorded": CudaOptions(tf32=False),
    "plain, tf32": CudaOptions(recorded=False),
    "defaults": CudaOptions(),
    "plain, nhwc": CudaOptions(recorded=False, nhwc=True, tf32=False),
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ON_CUDA)
def test_cuda_draws_the_bundled_models_pictures_as_the_cpu_does(name):
    options = ON_CUDA[name]
    least_db = 40 if options.tf32 else 50
    on_cpu = open_graph(BUNDLE / "decoder.onnx", Provider.CPU)
    graph = CudaGraph(BUNDLE / "decoder.onnx", options=options)
    for count, faces in ((1, 1), (8, 8), (8, 1), (3, 2)):
        for seed in range(3):
            feeds = decoder_feeds(count, faces, seed)
            (expected,), (picture,) = on_cpu.run(feeds), graph.run(feeds)
            assert picture.dtype == expected.dtype
            assert psnr_db(picture, expected) > least_db, (count, faces, seed)
    assert graph.recorded == options.recorded


@pytest.mark.gpu
@pytest.mark.parametrize("recorded", [False, True])
def test_cuda_encodes_as_the_cpu_does(recorded):
    on_cpu = open_graph(BUNDLE / "encoder.onnx", Provider.CPU)
    graph = CudaGraph(BUNDLE / "encoder.onnx", options=CudaOptions(recorded=recorded, tf32=False))
    side = on_cpu.shape_of("image")[1]
    for count in (1, 4, 4, 1, 3):
        image = portraits(count, side, count)
        np.testing.assert_allclose(
            graph.run({"image": image})[0], on_cpu.run({"image": image})[0], rtol=1e-2, atol=1e-3
        )
    assert graph.recorded == recorded


@pytest.mark.gpu
@pytest.mark.parametrize("recorded", [False, True])
def test_threads_share_a_graph_on_cuda(recorded):
    on_cpu = open_graph(BUNDLE / "decoder.onnx", Provider.CPU)
    graph = CudaGraph(BUNDLE / "decoder.onnx", options=CudaOptions(recorded=recorded, tf32=False))
    given = [decoder_feeds(1 + seed % 3, 1, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda feeds: graph.run(feeds)[0], given))
    for feeds, picture in zip(given, results, strict=True):
        assert psnr_db(picture, on_cpu.run(feeds)[0]) > 50
    assert graph.recorded == recorded


@pytest.mark.gpu
def test_a_shape_beyond_those_recorded_runs_on_cuda(monkeypatch):
    monkeypatch.setattr(runtime, "MOST_RECORDINGS", 1)
    on_cpu = open_graph(BUNDLE / "decoder.onnx", Provider.CPU)
    graph = CudaGraph(BUNDLE / "decoder.onnx", options=CudaOptions(tf32=False))
    for count in (2, 5, 2, 5):
        feeds = decoder_feeds(count, 1, count)
        assert psnr_db(graph.run(feeds)[0], on_cpu.run(feeds)[0]) > 50
    assert len(graph._recordings) == 1
    assert graph.recorded


@pytest.mark.gpu
def test_a_graph_of_shapes_that_follow_from_values_runs_plainly_on_cuda(found, caplog):
    opened = open_graph(found, Provider.CUDA)
    for _ in range(3):
        x = np.array([0, 1, 0, 2], np.float32)
        np.testing.assert_array_equal(opened.run({"x": x})[0], [[1, 3]])
    assert "found.onnx is not recorded as a CUDA graph" in caplog.text
