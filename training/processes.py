"""Processes that train one network together, as torchrun starts them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed


class Processes:
    """This process among those of the run; alone where torchrun started none.

    Gradients are averaged in one message after the backward pass, as StyleGAN's code does, and not
    by wrapping networks in DistributedDataParallel: its hooks know one backward pass per forward
    pass and no `torch.autograd.grad`, which R1 needs. What arrives in the gradients is the same.
    """

    def __init__(self, rank: int = 0, count: int = 1, local_rank: int = 0) -> None:
        self.rank, self.count, self.local_rank = rank, count, local_rank

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device that a name means here: each process on a machine takes its own GPU."""
        return f"cuda:{self.local_rank}" if name.startswith("cuda") and self.count > 1 else name

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their means over all processes."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def averaged(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Scalars averaged over all processes, which give the same names."""
        if not values:
            return {}
        stacked = torch.stack([value.double() for value in values.values()])
        self.average([stacked])
        return dict(zip(values, stacked.tolist(), strict=True))

    def any(self, happened: bool, device: torch.device) -> bool:
        """Whether it happened in any process."""
        if self.count == 1:
            return happened
        flag = torch.tensor(float(happened), device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def from_first(self, value: Any) -> Any:
        """What the first process holds: a checkpoint may be on its disk alone."""
        if self.count == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held)
        return held[0]

    def close(self) -> None:
        """Leaves the others."""
        if self.count > 1:
            distributed.destroy_process_group()


def join_processes() -> Processes:
    """Joins the processes that torchrun started; alone without its environment.

    Tensors on GPUs go by NCCL, others by gloo.
    """
    if "LOCAL_RANK" not in os.environ:
        return Processes()
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    distributed.init_process_group()
    return Processes(distributed.get_rank(), distributed.get_world_size(), local_rank)
