"""Opens ONNX graphs on an execution provider, and says which one really runs them."""

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# Read once, when the package is imported: setting it later loses to the first event.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

Feeds = Mapping[str, NDArray[np.generic]]

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
    """A graph on ONNX Runtime. Raises ProviderError when `provider` does not really run it."""

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
        wanted = _NAMES[provider]
        if provider in (Provider.CUDA, Provider.TENSORRT):
            if wanted not in onnxruntime.get_available_providers():
                raise ProviderError(f"provider {provider}: this onnxruntime has no {wanted}")
            onnxruntime.preload_dlls(directory="")
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=[(wanted, dict(provider_options or {}))]
            )
        except Exception as error:  # onnxruntime raises its own untyped family
            raise ProviderError(f"{path.name} does not open on {provider}: {error}") from error
        self._session.disable_fallback()
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

    def run(self, feeds: Feeds) -> list[NDArray[np.generic]]:
        return [np.asarray(output) for output in self._session.run(None, dict(feeds))]


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
