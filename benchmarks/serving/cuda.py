"""Pictures a second of an exported decoder on a GPU, by ONNX Runtime's options and batch.

Everybody is given arrays in the host's memory and gives such back. A preset's network, drawn at
random, runs in PyTorch too: float32 with its defaults, and compiled in bfloat16. Rounds are
interleaved; figures are medians with the smallest and the largest, and ratios are formed within a
round. What fails says so in a line, and the rest goes on.

python -m benchmarks.serving.cuda [--preset lifespan-256 | --bundle FOLDER] [--rounds 5]

`--graphs` names a folder that holds a preset's exported graphs; they are written to it where they
are missing. `--device cpu` measures nothing of interest, it shows that all of this runs.
"""

import argparse
import copy
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.serving.float16 import in_float16
from model.bundle import open_bundle
from model.networks.lifespan import LifespanGenerator
from model.runtime import (
    CudaGraph,
    CudaOptions,
    Feeds,
    Graph,
    OnnxRuntimeGraph,
    Provider,
    open_graph,
)
from training.config import load_config
from training.export import DECODER, ENCODER, Trained, graphs_of
from training.machine import processors
from training.metrics import psnr_db
from training.recipes import recipe_of

SIZES = (1, 2, 4, 8, 16, 32, 64)
USUAL = 8
"""Pictures in a run where options are compared: the service's `max_batch`."""
GAIN = 1.03
"""A larger batch is worth a look where the last one was so much better for anybody."""
ROUND_S = 0.04
FACES = 8

Render = Callable[[Feeds], np.ndarray]
Opened = Callable[[], Render]

PYTORCH = "PyTorch float32"
COMPILED = "PyTorch compiled, bfloat16"
PLAIN, BOUND = "session.run", "IO binding"
RECORDED = "CUDA graphs"
OPTIONS: dict[str, tuple[str, CudaOptions]] = {
    PLAIN: ("float32", CudaOptions(recorded=False)),
    RECORDED: ("float32", CudaOptions()),
    "CUDA graphs, float16": ("float16", CudaOptions()),
    BOUND: ("float32", CudaOptions(recorded=False)),
    "CUDA graphs, heuristic search": ("float32", CudaOptions(search="HEURISTIC")),
    "CUDA graphs, NHWC": ("float32", CudaOptions(nhwc=True)),
    "CUDA graphs, float16, NHWC": ("float16", CudaOptions(nhwc=True)),
    "CUDA graphs, no TF32": ("float32", CudaOptions(tf32=False)),
    "session.run, float16": ("float16", CudaOptions(recorded=False)),
    "CUDA graphs, float16 squares": ("squares", CudaOptions()),
    "CUDA graphs, little workspace": ("float32", CudaOptions(max_workspace=False)),
}
"""By name, which of the decoder's files, and how; first what matters most."""


@dataclass
class Subject:
    """The decoder under test, with what it is given."""

    name: str
    files: dict[str, Path]
    """The decoder by what it computes in"""
    identities: np.ndarray
    latents: np.ndarray
    network: nn.Module | None
    """The same in PyTorch, where it is at hand"""
    device: str

    def feeds(self, size: int, faces: int | None = None) -> Feeds:
        """What a run of `size` pictures is given, of as many faces unless `faces` says."""
        faces = faces or size
        return {
            "identity": self.identities[np.arange(faces) % len(self.identities)],
            "index": np.arange(size, dtype=np.int64) % faces,
            "latent": self.latents[np.arange(size) % len(self.latents)],
        }


def portraits(side: int) -> np.ndarray:
    """FACES pictures (N, R, R, 3) of waves."""
    pictures = []
    for phase in range(FACES):
        wave = np.sin(np.linspace(0, 9, side) + phase)
        picture = np.stack([np.add.outer(wave, f * wave) for f in (0.5, 1.0, 1.5)], -1)
        pictures.append(np.rint(127.5 + 50 * picture).clip(0, 255))
    return np.stack(pictures).astype(np.uint8)


def subject_of_preset(preset: str, graphs: Path, device: str) -> Subject:
    """A preset's network, its kernels drawn so that they pass their input on."""
    torch.manual_seed(0)
    config = load_config(preset)
    recipe = recipe_of(config)
    assert isinstance(recipe.generator, LifespanGenerator)
    recipe.generator.decoder.draw_passing()
    parts = recipe.exportable(recipe.generator.eval())
    trained = Trained(config.method, parts, config.resolution, 0)
    if not (graphs / DECODER).exists():
        graphs.mkdir(parents=True, exist_ok=True)
        for file, graph in graphs_of(trained, "float16").items():
            (graphs / file).write_bytes(graph)
    (network,) = trained.decoders.values()
    take_weights(network, graphs / DECODER)
    encoder = open_graph(graphs / ENCODER, Provider.CPU)
    (identities,) = encoder.run({"image": portraits(config.resolution)})
    latents = parts.latents.reshape(-1, parts.latents.shape[-1])
    files = {"float32": graphs / DECODER}
    return Subject(preset, files, np.asarray(identities), latents, network.to(device), device)


def take_weights(network: nn.Module, graph: Path) -> None:
    """Gives a network the weights that its graph stores, which are rounded to float16."""
    stored = {
        tensor.name.removesuffix("_half"): numpy_helper.to_array(tensor)
        for tensor in onnx.load(graph).graph.initializer
    }
    left: list[str] = []
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in stored and stored[name].shape == weight.shape:
                weight.copy_(torch.from_numpy(stored[name].astype(np.float32)))
            elif weight.min() != weight.max():  # those that are all alike are stored once
                left.append(name)
    if left:
        print(f"not in the graph by name, so as drawn: {', '.join(left)}")


def subject_of_bundle(folder: Path, device: str) -> Subject:
    """A bundle's decoder; there is no PyTorch network of it."""
    bundle = open_bundle(folder)
    assert bundle.manifest.encoder is not None
    encoder = open_graph(folder / bundle.manifest.encoder.file, Provider.CPU)
    (identities,) = encoder.run({"image": portraits(bundle.manifest.resolution)})
    latents = bundle.latents.reshape(-1, bundle.latents.shape[-1])
    files = {"float32": folder / bundle.manifest.decoders[0].file}
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    return Subject(name, files, np.asarray(identities), latents, None, device)


def torch_render(network: nn.Module, device: str, dtype: torch.dtype = torch.float32) -> Render:
    """The network on arrays of the host's."""

    def render(feeds: Feeds) -> np.ndarray:
        with torch.inference_mode():
            given = [torch.from_numpy(value).to(device) for value in feeds.values()]
            given = [x.to(dtype) if x.is_floating_point() else x for x in given]
            return network(*given).cpu().numpy()

    return render


def compiled_render(subject: Subject) -> Render:
    """The network in bfloat16, compiled; its first run takes long."""
    assert subject.network is not None
    network = copy.deepcopy(subject.network).to(torch.bfloat16)
    network.compile(dynamic=False)
    return torch_render(network, subject.device, torch.bfloat16)


@dataclass
class OnRuntime:
    """The exported decoder on ONNX Runtime."""

    graph: Graph

    def __call__(self, feeds: Feeds) -> np.ndarray:
        return np.asarray(self.graph.run(feeds)[0])

    @property
    def recorded(self) -> bool:
        """Whether it replays CUDA graphs."""
        return isinstance(self.graph, CudaGraph) and self.graph.recorded


def runtime_render(subject: Subject, name: str) -> Render:
    """The exported decoder with the options of that name."""
    file, options = OPTIONS[name]
    path = subject.files[file]
    if subject.device == "cpu":
        return OnRuntime(OnnxRuntimeGraph(path, Provider.CPU))
    if name == BOUND:
        return bound_render(OnnxRuntimeGraph(path, Provider.CUDA, None, options.of_provider))
    return OnRuntime(CudaGraph(path, options=options))


def bound_render(graph: OnnxRuntimeGraph) -> Render:
    """Runs over fixed memory on the GPU that are not recorded."""
    bound: dict[tuple, Any] = {}

    def render(feeds: Feeds) -> np.ndarray:
        shape = tuple(value.shape for value in feeds.values())
        if shape not in bound:
            bound[shape] = graph.recording(-1, feeds, graph.run(feeds))
        return bound[shape].run(feeds)[0]

    return render


@contextmanager
def exact_products() -> Iterator[None]:
    """PyTorch without TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def reference(subject: Subject, feeds: Feeds) -> np.ndarray:
    """Pictures in float32: PyTorch's where the network is at hand, else the CPU's."""
    if subject.network is None:
        return np.asarray(open_graph(subject.files["float32"], Provider.CPU).run(feeds)[0])
    with exact_products():
        return torch_render(subject.network, subject.device)(feeds)


def peak_flops(device: str) -> float:
    """Operations a second of a product of large matrices in bfloat16."""
    side = 8192 if device == "cuda" else 256
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def seconds(products: int) -> float:
        started = time.perf_counter()
        for _ in range(products):
            torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    seconds(10)
    return 2 * side**3 * 20 / min(seconds(20) for _ in range(5))


def flops_of_picture(subject: Subject) -> float | None:
    """Operations of one picture: those of convolutions and products."""
    if subject.network is None:
        return None
    given = [torch.from_numpy(v).to(subject.device) for v in subject.feeds(1).values()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subject.network(*given)
    return counter.get_total_flops()


@dataclass
class Bench:
    """Contenders measured side by side."""

    subject: Subject
    rounds: int
    ends_s: float
    peak: float
    flops: float | None
    renders: dict[str, Render] = field(default_factory=dict)
    opened_s: dict[str, float] = field(default_factory=dict)

    def open(self, name: str, opened: Opened, size: int, faces: int | None = None) -> None:
        """Opens a contender and runs it three times; says so where it fails."""
        if time.perf_counter() > self.ends_s:
            print(f"{name}: not measured: time is up", flush=True)
            return
        started = time.perf_counter()
        try:
            render = opened()
            for _ in range(3):
                render(self.subject.feeds(size, faces))
        except Exception as error:  # whatever a contender fails with
            print(f"{name}: failed: {type(error).__name__}: {_line(error)}", flush=True)
            return
        self.renders[name] = render
        self.opened_s[name] = time.perf_counter() - started
        wanted = name in OPTIONS and OPTIONS[name][1].recorded and self.subject.device != "cpu"
        if wanted and isinstance(render, OnRuntime) and not render.recorded:
            print(f"{name}: not recorded, its figures are those of plain runs", flush=True)

    def measured(self, names: list[str], size: int, faces: int | None) -> dict[str, list[float]]:
        """Pictures a second in each round, by contender; those that fail are left out."""
        feeds = self.subject.feeds(size, faces)
        repeats: dict[str, int] = {}
        per_s: dict[str, list[float]] = {}
        for name in names:
            try:
                for _ in range(2):
                    self.renders[name](feeds)
                started = time.perf_counter()
                self.renders[name](feeds)
            except Exception as error:  # whatever a contender fails with: memory, mostly
                print(f"{name}, {size}: failed: {type(error).__name__}: {_line(error)}", flush=True)
                continue
            once_s = time.perf_counter() - started
            repeats[name], per_s[name] = max(1, round(ROUND_S / once_s)), []
        for number in range(self.rounds):
            order = list(per_s)
            order = order[number % len(order) :] + order[: number % len(order)] if order else []
            for name in order:
                started = time.perf_counter()
                try:
                    for _ in range(repeats[name]):
                        self.renders[name](feeds)
                except Exception as error:  # whatever a contender fails with
                    print(f"{name}, {size}: failed: {_line(error)}", flush=True)
                    del per_s[name]
                    continue
                seconds = time.perf_counter() - started
                per_s[name].append(size * repeats[name] / seconds)
        return per_s

    def decibels(self, name: str, size: int, wanted: np.ndarray, faces: int | None) -> str:
        """How much a contender's pictures agree with those wanted."""
        try:
            ratio = psnr_db(self.renders[name](self.subject.feeds(size, faces)), wanted)
        except Exception as error:  # whatever a contender fails with
            return _line(error)
        return "equal" if ratio is None else f"{ratio:.1f} dB"

    def share(self, per_s: float) -> str:
        """Of the peak of matrix products."""
        return "-" if self.flops is None else f"{100 * per_s * self.flops / self.peak:.1f} %"

    def close(self, keep: list[str]) -> None:
        """Lets go of contenders but those to keep, and of their memory."""
        self.renders = {name: render for name, render in self.renders.items() if name in keep}
        gc.collect()
        if self.subject.device == "cuda":
            torch.cuda.empty_cache()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def shown(values: list[float], digits: int = 0) -> str:
    """The median, and smallest to largest."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratios(per_s: Mapping[str, list[float]], name: str, base: str) -> str:
    """A contender's pictures against another's in the same round."""
    if base not in per_s:
        return "-"
    return shown([own / other for own, other in zip(per_s[name], per_s[base], strict=True)], 2)


def people(faces: int | None) -> str:
    """In words."""
    return "each of another face" if faces is None else "all of one face"


def compare(
    bench: Bench, names: list[str], size: int, base: str, faces: int | None = None
) -> dict[str, float]:
    """Prints a table of contenders at one batch; their medians."""
    names = [name for name in names if name in bench.renders]
    wanted = reference(bench.subject, bench.subject.feeds(size, faces))
    per_s = bench.measured(names, size, faces)
    print(f"\n{size} pictures a run, {people(faces)}; {bench.rounds} rounds")
    print(f"| engine | pictures/s | against {base} | of the peak | PSNR | opened in s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, each in per_s.items():
        cells = [
            name,
            shown(each),
            ratios(per_s, name, base),
            bench.share(statistics.median(each)),
            bench.decibels(name, size, wanted, faces),
            f"{bench.opened_s[name]:.1f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    return {name: statistics.median(each) for name, each in per_s.items()}


def sweep(
    bench: Bench, names: list[str], sizes: list[int], base: str, faces: int | None = None
) -> int:
    """Prints a table of contenders by batch; the best batch of the fastest."""
    names = [name for name in names if name in bench.renders]
    print(f"\nIn each cell: pictures/s, against {base}, of the peak; {people(faces)}")
    print(f"| pictures a run | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    best: dict[str, float] = dict.fromkeys(names, 0.0)
    fastest, best_size = 0.0, 1
    for size in sizes:
        if time.perf_counter() > bench.ends_s:
            print(f"| {size} | not measured: time is up |")
            break
        per_s = bench.measured([name for name in names if name in bench.renders], size, faces)
        medians = {name: statistics.median(each) for name, each in per_s.items()}
        cells = [
            f"{shown(per_s[name])}, {ratios(per_s, name, base)}, {bench.share(medians[name])}"
            if name in per_s
            else "failed"
            for name in names
        ]
        print(f"| {size} | {' | '.join(cells)} |", flush=True)
        top = max(medians.values(), default=0.0)
        if top > GAIN * fastest:
            fastest, best_size = top, size
        gained = any(rate > GAIN * best[name] for name, rate in medians.items())
        best.update({name: max(best[name], rate) for name, rate in medians.items()})
        if not gained:
            break
    return best_size


def main() -> None:
    """Measures and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    subjects = parser.add_mutually_exclusive_group()
    subjects.add_argument("--preset", default="lifespan-256")
    subjects.add_argument("--bundle", type=Path, help="a bundle's folder")
    parser.add_argument("--graphs", type=Path, help="folder of the preset's exported graphs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="pictures in a run")
    parser.add_argument("--seconds", type=float, default=75, help="after which nothing is begun")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--engines", nargs="+", choices=OPTIONS, default=list(OPTIONS), help="beside PyTorch's"
    )
    options = parser.parse_args()
    started = time.perf_counter()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("not measured: no GPU")
        return
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.bundle:
            subject = subject_of_bundle(options.bundle, options.device)
        else:
            subject = subject_of_preset(options.preset, options.graphs or folder, options.device)
        graph = subject.files["float32"].read_bytes()
        for kind, squares in (("float16", False), ("squares", True)):
            subject.files[kind] = folder / f"{kind}.onnx"
            subject.files[kind].write_bytes(in_float16(graph, squares=squares))
        measure(subject, options, started)


def measure(subject: Subject, options: argparse.Namespace, started: float) -> None:
    """Options at the usual batch, then batches with the best of them, then the compiled network."""
    cuda = subject.device == "cuda"
    machine = torch.cuda.get_device_name() if cuda else processors()
    versions = f"ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}"
    peak, flops = peak_flops(subject.device), flops_of_picture(subject)
    print(f"{subject.name} on {machine}, {versions}; peak {peak / 1e12:.0f} TFLOP/s in bfloat16")
    if flops is not None:
        print(f"{flops / 1e9:.1f} GFLOP a picture")
    bench = Bench(subject, options.rounds, started + 0.5 * options.seconds, peak, flops)
    usual = min(USUAL, options.most)
    network = subject.network
    if network is not None:
        bench.open(PYTORCH, lambda: torch_render(network, subject.device), usual)
    for name in options.engines:
        bench.open(name, lambda name=name: runtime_render(subject, name), usual)
    base = PYTORCH if PYTORCH in bench.renders else PLAIN
    rates = compare(bench, [PYTORCH, *options.engines], usual, base)
    kept = [PYTORCH, PLAIN, RECORDED]
    for kinds in (("float32",), ("float16", "squares")):
        rivals = [n for n in rates if n in OPTIONS and OPTIONS[n][0] in kinds]
        kept += [name for name in sorted(rivals, key=rates.__getitem__)[-1:] if name not in kept]
    bench.close(kept)
    bench.ends_s = started + 0.85 * options.seconds
    sizes = [each for each in SIZES if each <= options.most]
    compare(bench, kept, usual, base, 1)
    size = sweep(bench, kept, sizes, base, 1)
    sweep(bench, kept, sizes, base)
    print(f"{time.perf_counter() - started:.0f} s so far", flush=True)
    if network is not None and options.compile:
        bench.ends_s = started + options.seconds
        bench.open(COMPILED, lambda: compiled_render(subject), size, 1)
        compare(bench, [*kept, COMPILED], size, base, 1)
    print(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
