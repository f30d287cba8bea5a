"""A work-conserving dynamic batcher: one accelerator, several lanes.

An idle accelerator takes what is queued, at once; while it is busy, jobs gather for the next
batch. So a lone caller never waits for company, and load makes batches by itself.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.costs import Costs
from service.errors import InferenceFailed, Overloaded
from service.load import Work, current_work
from service.observability import Metrics, Stage
from service.turns import Requester, Turns

Payload = TypeVar("Payload")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job(Generic[Payload, Result]):
    payload: Payload
    future: "asyncio.Future[Result]"
    queued_s: float = field(default_factory=time.perf_counter)
    work: Work | None = field(default_factory=current_work)
    context: Context = field(default_factory=copy_context)


class Lane(Generic[Payload, Result]):
    """Jobs that may run together: those of one graph of one bundle.

    `run` takes payloads and the size of the run, which is at least their number, and gives as many
    results as payloads, in order; it is called on the accelerator's thread. `costs` says which
    sizes are run.
    """

    def __init__(
        self,
        model: str,
        stage: Stage,
        run: Callable[[Sequence[Payload], int], Sequence[Result]],
        costs: Costs,
    ) -> None:
        self.model = model
        self.stage = stage
        self.run = run
        self.costs = costs
        self._waiting: Turns[_Job[Payload, Result]] = Turns()

    def __len__(self) -> int:
        """Jobs waiting, those whose caller has left included."""
        return len(self._waiting)

    @property
    def oldest_s(self) -> float:
        """When the job that has waited longest was queued, on the performance counter."""
        return min(job.queued_s for job in self._waiting)

    @property
    def expected_s(self) -> float:
        """How long the jobs waiting will take."""
        return self.costs.seconds_for(len(self))

    def add(self, requester: Requester, job: _Job[Payload, Result]) -> None:
        """Queues a job behind its request's others."""
        self._waiting.add(requester, job)

    def take(self) -> tuple[list[_Job[Payload, Result]], int]:
        """The jobs of the next run and its size. Jobs of callers gone must have been dropped."""
        count, size = self.costs.take(len(self))
        return [self._waiting.pop() for _ in range(count)], size

    def drop_cancelled(self) -> int:
        """Removes the jobs whose caller has left; returns how many."""
        return self._waiting.drop(lambda job: job.future.done())

    def cancel(self) -> None:
        """Gives up all that waits."""
        while len(self):
            self._waiting.pop().future.cancel()


class Batcher:
    """Runs lanes on one accelerator, one batch at a time, on a thread of its own.

    Lanes take turns; within a lane, callers do, and within a caller its requests. `max_queue`
    bounds the jobs that wait, over all lanes. `wait_s` is how long an idle accelerator lets a batch
    that is not full gather.

    Use as an async context manager.
    """

    def __init__(self, metrics: Metrics, max_queue: int = 512, wait_s: float = 0.0) -> None:
        self.max_queue = max_queue
        self.wait_s = wait_s
        self._metrics = metrics
        self._lanes: OrderedDict[Lane, None] = OrderedDict()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="accelerator")
        self._serving: asyncio.Task[None] | None = None
        self._running_until_s = 0.0

    async def __aenter__(self) -> "Batcher":
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        for lane in self._lanes:
            lane.cancel()
        # The batch in progress ends first; meanwhile the event loop goes on.
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def waiting(self) -> int:
        """Jobs in all lanes that have not begun."""
        return sum(len(lane) for lane in self._lanes)

    @property
    def expected_wait_s(self) -> float:
        """How long a job queued now would wait, told from what runs cost."""
        left_s = max(0.0, self._running_until_s - time.perf_counter())
        return left_s + sum(lane.expected_s for lane in self._lanes)

    async def submit(
        self,
        lane: Lane[Payload, Result],
        payload: Payload,
        requester: Requester,
        *,
        admitted: bool = False,
    ) -> Result:
        """The result of `payload`. Cancel it, and the job does not run.

        `requester` is who takes turns with others. `admitted` is for later jobs of a request that
        was let in already. Raises Overloaded where the queue is full, InferenceFailed where
        this very job fails.
        """
        if not admitted and self.waiting >= self.max_queue:
            for each in self._lanes:
                self._dropped(each, each.drop_cancelled())
            if self.waiting >= self.max_queue:
                raise Overloaded(self.expected_wait_s)
        self._lanes.setdefault(lane)
        job: _Job[Payload, Result] = _Job(payload, asyncio.get_running_loop().create_future())
        lane.add(requester, job)
        self._show_queue(lane)
        self._arrived.set()
        return await job.future

    async def call(self, function: Callable[[], Result]) -> Result:
        """Runs `function` on the accelerator's thread, behind the batch in progress."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _serve(self) -> None:
        while True:
            lane = next((lane for lane in self._lanes if len(lane)), None)
            if lane is None:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._gather(lane)
            self._dropped(lane, lane.drop_cancelled())
            self._lanes.move_to_end(lane)
            if not len(lane):
                del self._lanes[lane]
                continue
            jobs, size = lane.take()
            if not len(lane):
                # Lanes of models that are no longer served are not kept.
                del self._lanes[lane]
            self._show_queue(lane)
            now = time.perf_counter()
            for job in jobs:
                self._metrics.stage_seconds.labels(Stage.QUEUE).observe(now - job.queued_s)
            for work, each in _by_work(jobs).items():
                # Since its own last run, where that is later: its jobs wait side by side.
                since_s = max(work.ran_until_s, min(job.queued_s for job in each))
                work.add(Stage.QUEUE, max(0.0, now - since_s), ended_s=now, model=lane.model)
            await self._run(lane, jobs, size)

    async def _gather(self, lane: Lane) -> None:
        """Waits for a full batch, for `wait_s` at most after the oldest job came."""
        while 0 < len(lane) < lane.costs.best:
            left_s = lane.oldest_s + self.wait_s - time.perf_counter()
            if left_s <= 0:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left_s)
            except TimeoutError:
                return

    async def _run(self, lane: Lane, jobs: list[_Job], size: int) -> None:
        """Runs a batch; where it fails, each of its jobs alone, so that only the culprit fails."""
        self._running_until_s = time.perf_counter() + lane.costs.seconds[size]
        try:
            results, began_s, ended_s = await self.call(lambda: self._timed(lane, jobs, size))
        except asyncio.CancelledError:
            for job in jobs:
                job.future.cancel()
            raise
        except Exception as error:
            if len(jobs) == 1:
                # The message of a runtime's error tells tensors' names and shapes, no pixels.
                message = "%s of %s failed on a picture: %s"
                jobs[0].context.run(_log.error, message, lane.stage, lane.model, error)
                self._metrics.failed_pictures.labels(lane.model, lane.stage).inc()
                if not jobs[0].future.done():
                    jobs[0].future.set_exception(InferenceFailed())
                return
            for job in jobs:
                if not job.future.done():
                    await self._run(lane, [job], 1)
            return
        finally:
            self._running_until_s = 0.0
        seconds = ended_s - began_s
        lane.costs.observe(size, seconds)
        run: dict[str, str | int] = {
            "model": lane.model,
            "batch.pictures": len(jobs),
            "batch.size": size,
        }
        for work, each in _by_work(jobs).items():
            work.add(lane.stage, seconds, seconds * len(each) / len(jobs), ended_s, **run)
            work.ran_until_s = time.perf_counter()
        for job, result in zip(jobs, results, strict=True):
            if not job.future.done():
                job.future.set_result(result)

    def _timed(self, lane: Lane, jobs: list[_Job], size: int) -> tuple[Sequence, float, float]:
        """Runs a batch on the accelerator's thread, counts it, and tells when it began and ended.

        Both are seconds on the performance counter.
        """
        runs = {
            Stage.ENCODE: self._metrics.encoder_runs,
            Stage.DECODE: self._metrics.decoder_runs,
        }[lane.stage]
        runs.labels(lane.model).inc()
        self._metrics.batch_pictures.labels(lane.model, lane.stage).observe(len(jobs))
        padding = size - len(jobs)
        if padding:
            self._metrics.padding_pictures.labels(lane.model, lane.stage).inc(padding)
        began_s = time.perf_counter()
        with self._metrics.stage(lane.stage):
            results = lane.run([job.payload for job in jobs], size)
        if len(results) != len(jobs):
            raise RuntimeError(f"{len(results)} results for {len(jobs)} jobs")
        return results, began_s, time.perf_counter()

    def _dropped(self, lane: Lane, count: int) -> None:
        if count:
            self._metrics.dropped_pictures.labels(lane.model, lane.stage).inc(count)

    def _show_queue(self, lane: Lane) -> None:
        self._metrics.queue_pictures.labels(lane.model, lane.stage).set(len(lane))


def _by_work(jobs: Sequence[_Job]) -> dict[Work, list[_Job]]:
    """The jobs by the request whose work they are."""
    grouped: dict[Work, list[_Job]] = {}
    for job in jobs:
        if job.work is not None:
            grouped.setdefault(job.work, []).append(job)
    return grouped
