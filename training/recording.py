"""Training steps recorded on a CUDA device and repeated: launching their kernels costs more than
these take."""

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from training.data import Batch

Passed = tuple[str, Mapping[str, Tensor]]
"""A loss whose gradients are left: the name of its optimiser, and scalars to log."""
Plain = Callable[[Batch], Iterator[Passed]]
"""What passes over a batch, loss by loss."""
Parameters = Callable[[str], list[nn.Parameter]]
"""What the optimiser of a name moves."""


@dataclass(frozen=True)
class _Recording:
    """A loss and its gradients, as kernels that always read and write the same memory."""

    repeat: Callable[[], None]
    optimiser: str
    gradients: list[tuple[nn.Parameter, Tensor | None]]
    names: tuple[str, ...]
    logged: Tensor
    """(names,)"""

    def passed(self) -> Passed:
        self.repeat()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.optimiser, dict(zip(self.names, self.logged.clone().unbind(), strict=True))


class Recorder:
    """Passes over batches, recorded by kind of step as CUDA graphs (`torch.cuda.CUDAGraph`).

    The first pass of a kind goes plainly, the second is recorded, and further ones repeat it with
    other numbers in the same memory. Optimisers move between losses as they would. One pass that
    cannot be recorded ends it for all, with a warning.
    """

    def __init__(self, device: torch.device) -> None:
        self.generator = torch.Generator(device)
        """What passes draw from; another one once recording has been given up"""
        self._counts: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, list[_Recording]] = {}
        self._batch: Batch | None = None
        self.gave_up = False
        self._open(device)

    def _open(self, device: torch.device) -> None:
        """Chooses what can be recorded, for the whole process."""
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        # MAGMA, which solves batches of systems otherwise, waits for the device.
        torch.backends.cuda.preferred_linalg_library("cusolver")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Where all of a step belongs: on a stream that can be recorded."""
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def _record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records what work does on the device, and returns what does it; it is not done yet."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            work()
        return graph.replay

    def passes(
        self, kind: Hashable, batch: Batch, plain: Plain, parameters: Parameters
    ) -> Iterator[Passed]:
        """What `plain` yields of a batch, each after its gradients were left in the parameters of
        its optimiser.

        All that it draws is from `generator`, seeded before.
        """
        if self.gave_up:
            yield from plain(batch)
        elif kind in self._recordings:
            self._take(batch)
            for recording in self._recordings[kind]:
                yield recording.passed()
        elif kind in self._counts:
            yield from self._recorded(kind, batch, plain, parameters)
        else:
            count = 0
            for passed in plain(batch):
                count += 1
                yield passed
            self._counts[kind] = count

    def _take(self, batch: Batch) -> Batch:
        """The memory that recordings read, with a batch's numbers."""
        given = {field.name: getattr(batch, field.name) for field in fields(batch)}
        if self._batch is None:
            held = {name: None if x is None else x.clone() for name, x in given.items()}
            self._batch = replace(batch, **held)
            return self._batch
        for name, tensor in given.items():
            if tensor is not None:
                getattr(self._batch, name).copy_(tensor)
        return self._batch

    def _recorded(
        self, kind: Hashable, batch: Batch, plain: Plain, parameters: Parameters
    ) -> Iterator[Passed]:
        going, found = plain(self._take(batch)), list[_Recording]()
        for _ in range(self._counts[kind]):
            try:
                found.append(self._recording(going, parameters))
            except RuntimeError as error:
                warnings.warn(f"steps are not recorded: {error}", stacklevel=2)
                self.gave_up, self._recordings = True, {}
                # The one before waits for the end of a recording that failed.
                self.generator = torch.Generator(self.generator.device)
                break
            yield found[-1].passed()
        else:
            self._recordings[kind] = found
            return
        for number, passed in enumerate(plain(batch)):
            if number >= len(found):
                yield passed

    def _recording(self, going: Iterator[Passed], parameters: Parameters) -> _Recording:
        optimiser, names, logged = "", (), torch.empty(0)

        def work() -> None:
            nonlocal optimiser, names, logged
            optimiser, scalars = next(going)
            names = tuple(scalars)
            logged = torch.stack([scalar.float() for scalar in scalars.values()])

        repeat = self._record(work)
        gradients = [(parameter, parameter.grad) for parameter in parameters(optimiser)]
        return _Recording(repeat, optimiser, gradients, names, logged)
