import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from service.batcher import Batcher, Lane
from service.costs import Costs
from service.errors import InferenceFailed, Overloaded
from service.load import Work, counted
from service.observability import Metrics, Stage
from service.turns import Requester


class Accelerator:
    """Runs batches of numbers, and remembers them; each waits for `go` where it is given."""

    def __init__(
        self, go: threading.Event | None = None, bad: int | None = None, most: int = 8
    ) -> None:
        self.batches: list[list[int]] = []
        self.sizes: list[int] = []
        self._most = most
        self.begun = threading.Event()
        self._go = go
        self._bad = bad

    def lane(self, stage: Stage = Stage.DECODE) -> Lane[int, int]:
        return Lane("tiny", stage, self.run, Costs.unmeasured(self._most))

    def run(self, payloads: Sequence[int], size: int) -> list[int]:
        self.batches.append(list(payloads))
        self.sizes.append(size)
        self.begun.set()
        if self._go is not None:
            assert self._go.wait(10)
        if self._bad in payloads:
            raise RuntimeError("bad payload")
        return [10 * payload for payload in payloads]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(bounded())


async def begun(accelerator: Accelerator) -> None:
    while not accelerator.begun.is_set():
        await asyncio.sleep(0.001)


async def busy(
    batcher: Batcher, accelerator: Accelerator, lane: Lane[int, int]
) -> "asyncio.Task[int]":
    """A job in progress, so that what comes next has to queue."""
    task = asyncio.ensure_future(batcher.submit(lane, 0, Requester("first")))
    await begun(accelerator)
    return task


async def queued(batcher: Batcher, count: int) -> None:
    while batcher.waiting < count:
        await asyncio.sleep(0.001)


def test_a_lone_job_does_not_wait_for_company():
    async def test() -> None:
        accelerator = Accelerator()
        async with Batcher(Metrics()) as batcher:
            lane = accelerator.lane()
            for number in range(3):
                assert await batcher.submit(lane, number, Requester("caller")) == 10 * number
        assert accelerator.batches == [[0], [1], [2]]

    run(test)


def test_what_gathers_during_a_run_makes_full_batches():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go, most=4)
        async with Batcher(Metrics()) as batcher:
            lane = accelerator.lane()
            first = await busy(batcher, accelerator, lane)
            rest = [
                asyncio.ensure_future(batcher.submit(lane, n, Requester(n))) for n in range(1, 11)
            ]
            await queued(batcher, 10)
            go.set()
            assert await asyncio.gather(first, *rest) == [10 * n for n in range(11)]
        assert [len(batch) for batch in accelerator.batches] == [1, 4, 4, 2]

    run(test)


def test_a_long_sequence_does_not_starve_a_single_picture():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go, most=4)
        async with Batcher(Metrics()) as batcher:
            lane = accelerator.lane()
            first = await busy(batcher, accelerator, lane)
            long = Requester("long")
            many = [asyncio.ensure_future(batcher.submit(lane, n, long)) for n in range(1, 241)]
            await queued(batcher, 240)
            single = asyncio.ensure_future(batcher.submit(lane, 999, Requester("short")))
            await queued(batcher, 241)
            go.set()
            await asyncio.gather(first, single, *many)
        assert 999 in accelerator.batches[1]

    run(test)


def test_lanes_take_turns():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go, most=2)
        async with Batcher(Metrics()) as batcher:
            decode, encode = accelerator.lane(), accelerator.lane(Stage.ENCODE)
            jobs = [await busy(batcher, accelerator, decode)]
            jobs += [
                asyncio.ensure_future(batcher.submit(decode, n, Requester(n))) for n in range(1, 9)
            ]
            await queued(batcher, 8)
            jobs.append(asyncio.ensure_future(batcher.submit(encode, 100, Requester("other"))))
            await queued(batcher, 9)
            go.set()
            await asyncio.gather(*jobs)
        assert [100] in accelerator.batches[1:3]

    run(test)


def test_jobs_of_callers_that_left_do_not_run():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go, most=8)
        metrics = Metrics()
        async with Batcher(metrics) as batcher:
            lane = accelerator.lane()
            first = await busy(batcher, accelerator, lane)
            gone = [
                asyncio.ensure_future(batcher.submit(lane, n, Requester(n))) for n in range(1, 80)
            ]
            await queued(batcher, 79)
            for task in gone:
                task.cancel()
            stays = asyncio.ensure_future(batcher.submit(lane, 100, Requester("stays")))
            await queued(batcher, 80)
            go.set()
            await asyncio.gather(first, stays)
        assert accelerator.batches == [[0], [100]]
        assert metrics.dropped_pictures.labels("tiny", Stage.DECODE)._value.get() == 79

    run(test)


def test_only_the_culprit_of_a_failed_batch_fails():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go, bad=3, most=8)
        async with Batcher(Metrics()) as batcher:
            lane = accelerator.lane()
            first = await busy(batcher, accelerator, lane)
            rest = [
                asyncio.ensure_future(batcher.submit(lane, n, Requester(n))) for n in range(1, 8)
            ]
            await queued(batcher, 7)
            go.set()
            results = await asyncio.gather(first, *rest, return_exceptions=True)
            assert isinstance(results.pop(3), InferenceFailed)
            assert results == [0, 10, 20, 40, 50, 60, 70]
            assert await batcher.submit(lane, 9, Requester("after")) == 90

    run(test)


def test_a_full_queue_refuses_with_a_time_to_come_back():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go, most=1)
        async with Batcher(Metrics(), max_queue=2) as batcher:
            lane = accelerator.lane()
            first = await busy(batcher, accelerator, lane)
            rest = [asyncio.ensure_future(batcher.submit(lane, n, Requester(n))) for n in (1, 2)]
            await queued(batcher, 2)
            with pytest.raises(Overloaded) as caught:
                await batcher.submit(lane, 3, Requester("late"))
            assert caught.value.retry_after_s >= 1
            admitted = asyncio.ensure_future(
                batcher.submit(lane, 4, Requester("early"), admitted=True)
            )
            await queued(batcher, 3)
            go.set()
            assert await asyncio.gather(first, *rest, admitted) == [0, 10, 20, 40]

    run(test)


def test_callers_that_left_make_room_in_a_full_queue():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go, most=1)
        async with Batcher(Metrics(), max_queue=2) as batcher:
            lane = accelerator.lane()
            first = await busy(batcher, accelerator, lane)
            gone = [asyncio.ensure_future(batcher.submit(lane, n, Requester(n))) for n in (1, 2)]
            await queued(batcher, 2)
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
            late = asyncio.ensure_future(batcher.submit(lane, 3, Requester("late")))
            await queued(batcher, 1)
            go.set()
            assert await asyncio.gather(first, late) == [0, 30]

    run(test)


def test_an_extra_wait_lets_an_idle_accelerator_gather():
    async def test() -> None:
        accelerator = Accelerator(most=2)
        async with Batcher(Metrics(), wait_s=5) as batcher:
            lane = accelerator.lane()
            early = asyncio.ensure_future(batcher.submit(lane, 1, Requester("early")))
            await asyncio.sleep(0.05)
            assert accelerator.batches == []
            assert await batcher.submit(lane, 2, Requester("late")) == 20
            assert await early == 10
        assert accelerator.batches == [[1, 2]]

    run(test)


def test_an_extra_wait_ends():
    async def test() -> None:
        accelerator = Accelerator(most=2)
        async with Batcher(Metrics(), wait_s=0.02) as batcher:
            assert await batcher.submit(accelerator.lane(), 1, Requester("alone")) == 10

    run(test)


def test_the_end_cancels_what_waits():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go)
        async with Batcher(Metrics()) as batcher:
            lane = accelerator.lane()
            first = await busy(batcher, accelerator, lane)
            waiting = asyncio.ensure_future(batcher.submit(lane, 1, Requester("late")))
            await queued(batcher, 1)
            asyncio.get_running_loop().call_later(0.05, go.set)
        results = await asyncio.gather(first, waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    run(test)


def test_a_run_that_gives_too_few_results_fails():
    async def test() -> None:
        lane: Lane[int, int] = Lane(
            "tiny", Stage.DECODE, lambda payloads, size: [], Costs.unmeasured(8)
        )
        async with Batcher(Metrics()) as batcher:
            with pytest.raises(InferenceFailed):
                await batcher.submit(lane, 1, Requester("caller"))

    run(test)


def test_a_run_is_filled_up_to_its_size():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go)
        metrics = Metrics()
        async with Batcher(metrics) as batcher:
            lane = accelerator.lane()
            first = await busy(batcher, accelerator, lane)
            rest = [asyncio.ensure_future(batcher.submit(lane, n, Requester(n))) for n in (1, 2, 3)]
            await queued(batcher, 3)
            go.set()
            assert await asyncio.gather(first, *rest) == [0, 10, 20, 30]
        assert accelerator.batches == [[0], [1, 2, 3]]
        assert accelerator.sizes == [1, 4]
        assert metrics.padding_pictures.labels("tiny", Stage.DECODE)._value.get() == 1

    run(test)


def test_the_expected_wait_counts_what_runs_and_what_waits():
    async def test() -> None:
        go = threading.Event()
        accelerator = Accelerator(go)
        lane: Lane[int, int] = Lane("tiny", Stage.DECODE, accelerator.run, Costs({1: 4.0, 2: 6.0}))
        async with Batcher(Metrics()) as batcher:
            assert batcher.expected_wait_s == 0
            first = await busy(batcher, accelerator, lane)
            assert 3 < batcher.expected_wait_s <= 4
            rest = [asyncio.ensure_future(batcher.submit(lane, n, Requester(n))) for n in range(5)]
            await queued(batcher, 5)
            assert 3 + 16 < batcher.expected_wait_s <= 4 + 16
            go.set()
            await asyncio.gather(first, *rest)
            assert batcher.expected_wait_s == 0
        assert lane.costs.seconds[2] < 6

    run(test)


def test_a_run_is_counted_once_in_the_work_of_each_request():
    async def test() -> None:
        async def request(work: Work, count: int) -> None:
            with counted(work):
                jobs = [batcher.submit(lane, n, Requester(work.route)) for n in range(count)]
                await asyncio.gather(*jobs)

        accelerator = Accelerator()

        def slow(payloads: Sequence[int], size: int) -> list[int]:
            results = accelerator.run(payloads, size)
            time.sleep(0.05)
            return results

        lane: Lane[int, int] = Lane("tiny", Stage.DECODE, slow, Costs.unmeasured(4))
        many, one = Work("many"), Work("one")
        async with Batcher(Metrics()) as batcher:
            blocker = asyncio.ensure_future(request(Work("blocker"), 1))
            await begun(accelerator)
            asked = [asyncio.ensure_future(request(*each)) for each in ((many, 3), (one, 1))]
            await asyncio.gather(blocker, *asked)
        for work, share in ((many, 0.75), (one, 0.25)):
            assert 0.05 <= work.by_stage_s[Stage.DECODE] < 0.1
            assert work.machine_s == pytest.approx(share * work.by_stage_s[Stage.DECODE])
            assert work.by_stage_s[Stage.QUEUE] < 0.1

    run(test)
