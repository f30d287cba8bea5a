from contextlib import contextmanager

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.training_throughput import noise_set
from tests.training.conftest import TINY
from training.config import config_of
from training.recording import Recorder
from training.run import Run

MIXED = {"r1_interval": 3, "consistency_interval": 2, "augment": 0.5, "coarse_share": 0.5}


class Tape(TorchDispatchMode):
    """Operations as they are done: what a CUDA graph keeps of them, on a processor."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.done.append((function, args, kwargs or {}, result))
        return result

    def repeat(self):
        for function, args, kwargs, result in self.done:
            if function.is_view:
                continue
            before = [x for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
            # Unseen by autograd, as a device writes.
            with torch.autograd._unsafe_preserve_version_counter(tuple(before)):
                again = pytree.tree_leaves(function(*args, **kwargs))
                now = [x for x in again if isinstance(x, torch.Tensor)]
                for old, new in zip(before, now, strict=True):
                    if old is not new:
                        old.copy_(new)


class OnProcessor(Recorder):
    def __init__(self, broken=None):
        super().__init__(torch.device("cpu"))
        self.recorded = self.repeated = 0
        self.broken = broken

    def _open(self, device):
        pass

    @contextmanager
    def at_work(self):
        yield

    def _record(self, work):
        self.recorded += 1
        if self.recorded == self.broken:
            raise RuntimeError("operation not permitted when stream is capturing")
        # As a device does, it leaves all numbers for the replay: another order of them is noticed.
        state = self.generator.get_state()
        with Tape() as tape:
            work()
        self.generator.set_state(state)

        def repeat():
            self.repeated += 1
            with torch.no_grad():
                tape.repeat()

        return repeat


def run_of(prepared, folder, recorder, **settings):
    run = Run(config_of(TINY | settings), prepared, folder, "cpu")
    run.recorder = recorder
    return run


def steps_of(run, count):
    logged = [run.step() for _ in range(count)]
    return logged, run.state()


@pytest.mark.parametrize(
    "settings",
    [
        {"reconstruction_images": 8, "discriminator_images": 12} | MIXED,
        {"reconstruction_images": 0, "discriminator_images": 0, "discriminator_steps": 2} | MIXED,
    ],
)
def test_recorded_steps_do_what_plain_ones_do(settings, prepared, tmp_path):
    recorder = OnProcessor()
    plain, recorded = (
        steps_of(run_of(prepared, tmp_path / name, given, **settings), 30)
        for name, given in (("plain", None), ("recorded", recorder))
    )
    assert recorder.repeated > 20
    assert recorder.recorded < recorder.repeated
    for before, now in zip(plain[0], recorded[0], strict=True):
        assert before.keys() == now.keys()
        for name, scalar in before.items():
            torch.testing.assert_close(now[name].double(), scalar.double(), rtol=1e-3, atol=1e-4)
    for name, tensor in plain[1]["averaged"].items():
        torch.testing.assert_close(recorded[1]["averaged"][name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("broken", [1, 2])
def test_a_step_that_cannot_be_recorded_is_done_plainly_once(broken, prepared, tmp_path):
    settings = {"reconstruction_images": 0, "discriminator_images": 0, "r1_interval": 1}
    recorder = OnProcessor(broken)
    _, plain = steps_of(run_of(prepared, tmp_path / "plain", None, **settings), 5)
    with pytest.warns(UserWarning, match="not recorded: operation not permitted"):
        _, given = steps_of(run_of(prepared, tmp_path / "recorded", recorder, **settings), 5)
    assert recorder.gave_up
    assert recorder.recorded == broken
    for name, tensor in plain["averaged"].items():
        torch.testing.assert_close(given["averaged"][name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "rtol", "atol"),
    # In bfloat16 an order of sums decides the sign of a small gradient, and with it a whole step.
    [("float32", 0.05, 0.02), ("bfloat16", 0.2, 0.1)],
)
def test_a_gpu_repeats_steps(precision, rtol, atol, tmp_path):
    settings = {"reconstruction_images": 8, "discriminator_images": 12, "held_out": 10}
    portraits = noise_set(tmp_path, 32)
    runs = [
        Run(
            config_of(TINY | MIXED | settings | {"precision": precision, "record": record}),
            portraits,
            tmp_path / f"{record}",
            "cuda",
        )
        for record in (False, True)
    ]
    (plain, _), (recorded, _) = (steps_of(run, 30) for run in runs)
    assert runs[1].recorder is not None
    assert not runs[1].recorder.gave_up
    for before, now in zip(plain[:8], recorded[:8], strict=True):
        for name, scalar in before.items():
            torch.testing.assert_close(now[name].double(), scalar.double(), rtol=rtol, atol=atol)


def test_only_a_gpu_records(prepared, tmp_path):
    assert Run(config_of(TINY), prepared, tmp_path, "cpu").recorder is None
