import json
import subprocess
import sys

import pytest
import torch

from tests.training.conftest import TINY
from training.checkpoints import load_checkpoint
from training.health import COLLAPSED
from training.processes import Processes, join_processes
from training.run import LOG

SETTINGS = TINY | {
    "batch": 8, "images": 160, "reconstruction_images": 16, "discriminator_images": 16,
    "log_every": 8, "checkpoint_every": 80, "augment": 0.5, "coarse_share": 0.5,
    # Settings in which rounding errors do not grow as the weights move.
    "learning_rate": 1e-5, "discriminator_rate": 1e-5, "reconstruction_rate": 1e-5,
    "style_gain": 0.2, "decoder_start": "passing", "width": 8, "discriminator_width": 8,
}  # fmt: skip


def fit(launcher, prepared, folder):
    overrides = [
        f"--set={name}={json.dumps(value) if isinstance(value, str) else value}"
        for name, value in SETTINGS.items()
    ]
    command = [
        *launcher, "-m", "training", "fit", "--preset", "smoke", "--device", "cpu",
        "--data", str(prepared.path), "-o", str(folder), *overrides,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_two_processes_train_as_one_does(prepared, tmp_path):
    """Twenty steps of the same batches: losses, and the weights that are left."""
    _, alone = fit([sys.executable], prepared, tmp_path / "alone")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    output, shared = fit(torchrun, prepared, tmp_path / "shared")
    assert output.count("finished: 160 images seen") == 1
    assert len(alone) == len(shared) == 20
    for one, two in zip(alone, shared, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - COLLAPSED.keys() - {"images_per_s", "overfitting"}:
            assert two[name] == pytest.approx(one[name], abs=1e-4), (one["images"], name)
    weights = [load_checkpoint(tmp_path / name) for name in ("alone", "shared")]
    for name, tensor in weights[0]["averaged"].items():
        torch.testing.assert_close(weights[1]["averaged"][name], tensor, rtol=1e-3, atol=1e-4)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    processes = join_processes()
    assert (processes.rank, processes.count, processes.first) == (0, 1, True)
    gradient = torch.ones(3)
    processes.average([gradient])
    assert gradient.tolist() == [1, 1, 1]
    processes.close()


@pytest.mark.parametrize(
    ("count", "name", "device"), [(1, "cuda", "cuda"), (4, "cuda", "cuda:3"), (4, "cpu", "cpu")]
)
def test_each_process_of_a_machine_takes_its_own_gpu(count, name, device):
    assert Processes(rank=7, count=count, local_rank=3).device(name) == device
