"""A work-conserving dynamic batcher: one accelerator, several lanes.

An idle accelerator takes what is queued, at once; while it is busy, jobs gather for the next
batch. So a lone caller never waits for company, and load makes batches by itself.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import InferenceFailed, Overloaded
from service.observability import Metrics, Stage

Payload = TypeVar("Payload")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job(Generic[Payload, Result]):
    payload: Payload
    future: "asyncio.Future[Result]"
    queued_s: float = field(default_factory=time.perf_counter)


class Lane(Generic[Payload, Result]):
    """Jobs that may run together: those of one graph of one bundle.

    `run` takes 1 to `max_batch` payloads and gives as many results, in order; it is called on the
    accelerator's thread.
    """

    def __init__(
        self,
        model: str,
        stage: Stage,
        run: Callable[[Sequence[Payload]], Sequence[Result]],
    ) -> None:
        self.model = model
        self.stage = stage
        self.run = run
        self._waiting: OrderedDict[Hashable, deque[_Job[Payload, Result]]] = OrderedDict()

    def __len__(self) -> int:
        """Jobs waiting, those whose caller has left included."""
        return sum(len(jobs) for jobs in self._waiting.values())

    @property
    def oldest_s(self) -> float:
        """When the job that has waited longest was queued, on the performance counter."""
        return min(jobs[0].queued_s for jobs in self._waiting.values())

    def add(self, caller: Hashable, job: _Job[Payload, Result]) -> None:
        """Queues a job behind its caller's others."""
        self._waiting.setdefault(caller, deque()).append(job)

    def take(self, count: int) -> list[_Job[Payload, Result]]:
        """Up to `count` jobs, one of each caller in turn; those of callers gone are dropped.

        The callers served move behind the others, so that none waits for a longer queue.
        """
        taken: list[_Job[Payload, Result]] = []
        while self._waiting and len(taken) < count:
            caller, jobs = next(iter(self._waiting.items()))
            job = jobs.popleft()
            if jobs:
                self._waiting.move_to_end(caller)
            else:
                del self._waiting[caller]
            if not job.future.done():
                taken.append(job)
        return taken

    def drop_cancelled(self) -> int:
        """Removes the jobs whose caller has left; returns how many."""
        before = len(self)
        for caller in list(self._waiting):
            jobs = deque(job for job in self._waiting[caller] if not job.future.done())
            if jobs:
                self._waiting[caller] = jobs
            else:
                del self._waiting[caller]
        return before - len(self)


class Batcher:
    """Runs lanes on one accelerator, one batch at a time, on a thread of its own.

    Lanes take turns; within a lane, callers do. `max_queue` bounds the jobs that wait, over all
    lanes. `wait_s` is how long an idle accelerator lets a batch that is not full gather.

    Use as an async context manager.
    """

    def __init__(
        self, metrics: Metrics, max_batch: int = 8, max_queue: int = 512, wait_s: float = 0.0
    ) -> None:
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.wait_s = wait_s
        self._metrics = metrics
        self._lanes: OrderedDict[Lane, None] = OrderedDict()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="accelerator")
        self._serving: asyncio.Task[None] | None = None
        self._seconds_per_job = 0.0

    async def __aenter__(self) -> "Batcher":
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        for lane in self._lanes:
            for job in lane.take(len(lane)):
                job.future.cancel()
        # The batch in progress ends first; meanwhile the event loop goes on.
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def waiting(self) -> int:
        """Jobs in all lanes that have not begun."""
        return sum(len(lane) for lane in self._lanes)

    @property
    def expected_wait_s(self) -> float:
        """How long a job queued now would wait, told from recent runs."""
        return self.waiting * self._seconds_per_job

    async def submit(
        self,
        lane: Lane[Payload, Result],
        payload: Payload,
        caller: Hashable,
        *,
        admitted: bool = False,
    ) -> Result:
        """The result of `payload`. Cancel it, and the job does not run.

        `caller` is who takes turns with others. `admitted` is for later jobs of a request that
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
        lane.add(caller, job)
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
            before = len(lane)
            jobs = lane.take(self.max_batch)
            self._dropped(lane, before - len(lane) - len(jobs))
            self._show_queue(lane)
            self._lanes.move_to_end(lane)
            now = time.perf_counter()
            for job in jobs:
                self._metrics.stage_seconds.labels(Stage.QUEUE).observe(now - job.queued_s)
            if jobs:
                await self._run(lane, jobs)

    async def _gather(self, lane: Lane) -> None:
        """Waits for a full batch, for `wait_s` at most after the oldest job came."""
        while len(lane) < self.max_batch:
            left_s = lane.oldest_s + self.wait_s - time.perf_counter()
            if left_s <= 0:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left_s)
            except TimeoutError:
                return

    async def _run(self, lane: Lane, jobs: list[_Job]) -> None:
        """Runs a batch; where it fails, each of its jobs alone, so that only the culprit fails."""
        started = time.perf_counter()
        try:
            results = await self.call(lambda: self._timed(lane, jobs))
        except asyncio.CancelledError:
            for job in jobs:
                job.future.cancel()
            raise
        except Exception as error:
            if len(jobs) == 1:
                # The message of a runtime's error tells tensors' names and shapes, no pixels.
                _log.error("%s of %s failed on a picture: %s", lane.stage, lane.model, error)
                self._metrics.failed_pictures.labels(lane.model, lane.stage).inc()
                if not jobs[0].future.done():
                    jobs[0].future.set_exception(InferenceFailed())
                return
            for job in jobs:
                if not job.future.done():
                    await self._run(lane, [job])
            return
        seconds = (time.perf_counter() - started) / len(jobs)
        self._seconds_per_job += 0.2 * (seconds - self._seconds_per_job)
        for job, result in zip(jobs, results, strict=True):
            if not job.future.done():
                job.future.set_result(result)

    def _timed(self, lane: Lane, jobs: list[_Job]) -> Sequence:
        """Runs a batch on the accelerator's thread, and counts it."""
        runs = {
            Stage.ENCODE: self._metrics.encoder_runs,
            Stage.DECODE: self._metrics.decoder_runs,
        }[lane.stage]
        runs.labels(lane.model).inc()
        self._metrics.batch_pictures.labels(lane.model, lane.stage).observe(len(jobs))
        with self._metrics.stage(lane.stage):
            results = lane.run([job.payload for job in jobs])
        if len(results) != len(jobs):
            raise RuntimeError(f"{len(results)} results for {len(jobs)} jobs")
        return results

    def _dropped(self, lane: Lane, count: int) -> None:
        if count:
            self._metrics.dropped_pictures.labels(lane.model, lane.stage).inc(count)

    def _show_queue(self, lane: Lane) -> None:
        self._metrics.queue_pictures.labels(lane.model, lane.stage).set(len(lane))
