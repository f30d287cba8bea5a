"""Opens ONNX graphs on an execution provider, and says which one really runs them."""

import importlib.util
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

# Read once, when the package is imported: setting it later loses to the first event.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

Feeds = Mapping[str, NDArray[np.generic]]

MOST_RECORDINGS = 64
"""Shapes of a graph's inputs that are recorded; others run plainly."""
_NOT_RECORDED = -1
LARGE_BYTES = 4 << 20
"""Smaller graphs, which hardly have wide convolutions, are opened on processors as they are."""

_log = logging.getLogger(__name__)


class ProviderError(RuntimeError):
    """A demanded execution provider is not there or does not run the graph."""


class Provider(StrEnum):
    """Execution providers; `auto` takes CUDA where it runs, else OpenVINO where it is installed."""

    AUTO = "auto"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"
    CPU = "cpu"


_NAMES = {
    Provider.CUDA: "CUDAExecutionProvider",
    Provider.TENSORRT: "TensorrtExecutionProvider",
    Provider.CPU: "CPUExecutionProvider",
}


class Graph(Protocol):
    """An opened graph; `run` may be called from several threads."""

    provider: Provider
    """The provider that really runs it, never `auto`."""
    precision: str
    """What it computes in: `float32` or `bfloat16`."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, feeds: Feeds) -> list[NDArray[np.generic]]:
        """Outputs in the graph's order."""
        ...


def available_threads() -> int:
    """Processors this process may use: the affinity mask, cut to the control group's quota."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return max(1, threads or 1)
    if quota == "max":
        return max(1, threads or 1)
    return max(1, min(threads or 1, int(quota) // int(period)))


class OnnxRuntimeGraph:
    """A graph on ONNX Runtime. Raises ProviderError when `provider` does not really run it.

    On processors wide convolutions are computed by minimal filtering (`model.winograd`).
    """

    def __init__(
        self,
        path: Path,
        provider: Provider,
        threads: int | None = None,
        provider_options: Mapping[str, str] | None = None,
    ) -> None:
        if provider not in _NAMES:
            raise ProviderError(f"{provider} is not a provider of ONNX Runtime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or available_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if (provider_options or {}).get("enable_cuda_graph") == "1":
            # A pattern is laid out at a shape's second run, and nothing may be allocated while
            # that is recorded.
            options.enable_mem_pattern = False
        wanted = _NAMES[provider]
        if provider in (Provider.CUDA, Provider.TENSORRT):
            if wanted not in onnxruntime.get_available_providers():
                raise ProviderError(f"provider {provider}: this onnxruntime has no {wanted}")
            onnxruntime.preload_dlls(directory="")
        try:
            graph = _for_processors(path) if provider is Provider.CPU else path
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=[(wanted, dict(provider_options or {}))]
            )
        except Exception as error:  # onnxruntime raises its own untyped family
            raise ProviderError(f"{path.name} does not open on {provider}: {error}") from error
        self._session.disable_fallback()
        self._run_options = _run_options(_NOT_RECORDED)
        actual = self._session.get_providers()[0]
        if actual != wanted:
            raise ProviderError(
                f"provider {provider} was asked for, {actual} would run {path.name}"
            )
        self.provider = provider
        self.precision = "float32"
        self.inputs = tuple(tensor.name for tensor in self._session.get_inputs())
        self.outputs = tuple(tensor.name for tensor in self._session.get_outputs())

    def shape_of(self, name: str) -> tuple[int | str | None, ...]:
        """Axes of an input: numbers where they are fixed, names where they are free."""
        (shape,) = (tensor.shape for tensor in self._session.get_inputs() if tensor.name == name)
        return tuple(shape)

    @property
    def unforeseen(self) -> Sequence[str]:
        """Outputs with an axis that no input has: its length may follow from values."""
        known = {axis for tensor in self._session.get_inputs() for axis in tensor.shape}
        return [
            tensor.name
            for tensor in self._session.get_outputs()
            if any(not isinstance(axis, int) and axis not in known for axis in tensor.shape)
        ]

    def run(self, feeds: Feeds) -> list[NDArray[np.generic]]:
        outputs = self._session.run(None, dict(feeds), self._run_options)
        return [np.asarray(output) for output in outputs]

    def recording(
        self, number: int, feeds: Feeds, results: Sequence[NDArray[np.generic]]
    ) -> "Recording":
        """Memory on the GPU for runs on feeds like these, which give results like these."""
        return Recording(
            self._session, number, feeds, dict(zip(self.outputs, results, strict=True))
        )


def _for_processors(path: Path) -> Path | bytes:
    if path.stat().st_size < LARGE_BYTES:
        return path
    # Its imports are a tenth of a second and 11 MB.
    from model.winograd import rewritten

    return rewritten(path) or path


def _run_options(recording: int) -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(recording))
    return options


class Recording:
    """Runs of a session at one shape, over fixed addresses on the GPU.

    Where the session records CUDA graphs, the first run of each thread is recorded under `number`
    and later ones are replays. Runs must not overlap.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, number: int, feeds: Feeds, results: Feeds
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._options = _run_options(number)
        self._inputs = {name: _on_gpu(value) for name, value in feeds.items()}
        self._outputs = [_on_gpu(value) for value in results.values()]
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in zip(results, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def run(self, feeds: Feeds) -> list[NDArray[np.generic]]:
        """Outputs in the graph's order, in memory of the caller's own."""
        for name, value in self._inputs.items():
            value.update_inplace(np.ascontiguousarray(feeds[name]))
        self._session.run_with_iobinding(self._binding, self._options)
        # Copies go by another stream than runs.
        self._binding.synchronize_outputs()
        return [output.numpy() for output in self._outputs]


def _on_gpu(value: NDArray[np.generic]) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, value.dtype.type, "cuda")


@dataclass(frozen=True)
class CudaOptions:
    """How CUDA runs a graph."""

    recorded: bool = True
    """Whether each shape is recorded as a CUDA graph at its first run, and replayed then."""
    nhwc: bool = False
    """Whether convolutions run with channels last."""
    tf32: bool = True
    """Whether factors of products are rounded to 10 bits of mantissa."""
    search: Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"] = "EXHAUSTIVE"
    """How the algorithm of a convolution is chosen, at the first run of each shape."""
    max_workspace: bool = True
    """Whether algorithms that need much memory may be chosen."""

    @property
    def of_provider(self) -> dict[str, str]:
        """The same in ONNX Runtime's words."""
        return {
            "enable_cuda_graph": f"{self.recorded:d}",
            "prefer_nhwc": f"{self.nhwc:d}",
            "use_tf32": f"{self.tf32:d}",
            "cudnn_conv_algo_search": self.search,
            "cudnn_conv_use_max_workspace": f"{self.max_workspace:d}",
        }


_CUDA_DEFAULTS = CudaOptions()


class CudaGraph:
    """A graph on CUDA; runs at a shape that was run before are replays of one recording.

    Where a graph cannot be recorded, every run is a plain one: that is logged once, and no error.
    """

    # While a thread records, no other may allocate memory on the GPU: a whole process takes turns.
    _turn = threading.Lock()

    def __init__(
        self, path: Path, threads: int | None = None, options: CudaOptions = _CUDA_DEFAULTS
    ) -> None:
        """Raises ProviderError where CUDA does not run the graph."""
        self._path, self._threads, self._options = path, threads, options
        self._recordings: dict[tuple, Recording] = {}
        self._given_up: list[object] = []
        with self._turn:
            try:
                self._plain = self._opened()
            except ProviderError as error:
                if not options.recorded:
                    raise
                self._run_plainly(error)
            if self.recorded and (unforeseen := self._plain.unforeseen):
                # Trying it is no answer: after some failed recordings CUDA fails for good.
                self._run_plainly(f"the shape of {', '.join(unforeseen)} is not its inputs'")
        self.provider = self._plain.provider
        self.precision = self._plain.precision
        self.inputs, self.outputs = self._plain.inputs, self._plain.outputs

    @property
    def recorded(self) -> bool:
        """Whether runs are recorded: false once it has turned out that they cannot be."""
        return self._options.recorded

    def shape_of(self, name: str) -> tuple[int | str | None, ...]:
        """Axes of an input: numbers where they are fixed, names where they are free."""
        return self._plain.shape_of(name)

    def run(self, feeds: Feeds) -> list[NDArray[np.generic]]:
        with self._turn:
            if not self.recorded:
                return self._plain.run(feeds)
            shape = tuple((name, value.dtype, value.shape) for name, value in feeds.items())
            recording = self._recordings.get(shape)
            if recording is None:
                # A plain run chooses algorithms and allocates all that the recorded one will need;
                # it raises what is the caller's fault.
                results = self._plain.run(feeds)
                if len(self._recordings) < MOST_RECORDINGS:
                    self._record(shape, feeds, results)
                return results
            try:
                return recording.run(feeds)
            except Exception as error:  # onnxruntime raises its own untyped family
                self._run_plainly(error)
                return self._plain.run(feeds)

    def _record(self, shape: tuple, feeds: Feeds, results: list[NDArray[np.generic]]) -> None:
        try:
            recording = self._plain.recording(len(self._recordings) + 1, feeds, results)
            recording.run(feeds)
        except Exception as error:  # onnxruntime raises its own untyped family
            self._run_plainly(error)
        else:
            self._recordings[shape] = recording

    def _run_plainly(self, error: Exception | str) -> None:
        """Opens the graph anew, without recordings."""
        # A session that failed at recording is kept: taking it down could end the process.
        self._given_up += [getattr(self, "_plain", None), self._recordings]
        self._recordings = {}
        self._options = replace(self._options, recorded=False)
        self._plain = self._opened()
        _log.warning("%s is not recorded as a CUDA graph: %s", self._path.name, error)

    def _opened(self) -> OnnxRuntimeGraph:
        return OnnxRuntimeGraph(self._path, Provider.CUDA, self._threads, self._options.of_provider)


class OpenVinoGraph:
    """A graph on OpenVINO's CPU plugin, in bfloat16 where `bf16` and the processor allow it."""

    def __init__(self, path: Path, threads: int | None = None, bf16: bool = True) -> None:
        if importlib.util.find_spec("openvino") is None:
            raise ProviderError(
                "provider openvino: install the extra: pip install anchorage[openvino]"
            )
        import openvino

        core = openvino.Core()
        capable = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bfloat16" if bf16 and capable else "float32"
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": threads or available_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._compiled = core.compile_model(core.read_model(path), "CPU", options)
        except RuntimeError as error:
            raise ProviderError(f"{path.name} does not open on openvino: {error}") from error
        self.provider = Provider.OPENVINO
        self.inputs = tuple(port.get_any_name() for port in self._compiled.inputs)
        self.outputs = tuple(port.get_any_name() for port in self._compiled.outputs)

    def run(self, feeds: Feeds) -> list[NDArray[np.generic]]:
        request = self._compiled.create_infer_request()
        result = request.infer({name: np.ascontiguousarray(value) for name, value in feeds.items()})
        return [np.array(result[name]) for name in self.outputs]


def open_graph(
    path: Path,
    provider: Provider = Provider.AUTO,
    threads: int | None = None,
    *,
    bf16: bool = True,
) -> Graph:
    """Opens `path` on `provider`; `auto` tries what `auto_providers` lists, and warns of failures.

    The caller reads `provider` of the result to learn what was taken. Any other provider than
    `auto` is a demand: ProviderError where it cannot be met. OpenVINO computes in bfloat16 where
    `bf16` and the processor allow it.
    """
    if provider is not Provider.AUTO:
        return _open(path, provider, threads, bf16)
    *better, last = auto_providers()
    for candidate in better:
        try:
            return _open(path, candidate, threads, bf16)
        except ProviderError as error:
            _log.warning("%s is passed over: %s", candidate, error)
    return _open(path, last, threads, bf16)


def _open(path: Path, provider: Provider, threads: int | None, bf16: bool) -> Graph:
    if provider is Provider.OPENVINO:
        return OpenVinoGraph(path, threads, bf16)
    if provider is Provider.CUDA:
        return CudaGraph(path, threads)
    return OnnxRuntimeGraph(path, provider, threads)


def auto_providers() -> Sequence[Provider]:
    """What `auto` tries, best first; the CPU on ONNX Runtime is last."""
    providers = [Provider.CPU]
    if importlib.util.find_spec("openvino") is not None:
        providers.insert(0, Provider.OPENVINO)
    if _NAMES[Provider.CUDA] in onnxruntime.get_available_providers() and _has_nvidia_device():
        providers.insert(0, Provider.CUDA)
    return tuple(providers)


def _has_nvidia_device() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
