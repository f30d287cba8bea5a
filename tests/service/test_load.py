import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from service.load import Load, Work, counted, current_work


def known(**cost_s: float) -> Load:
    """A load that knows what requests by route cost."""
    load = Load()
    for route, seconds in cost_s.items():
        finished(load, route, seconds)
    return load


def finished(load: Load, route: str, seconds: float, answered: bool = True) -> None:
    work = load.begin(route)
    work.add("decode", 2 * seconds, seconds)
    load.end(work, answered=answered)


def test_an_idle_service_expects_what_the_route_costs():
    load = known(age=2.0)
    assert load.expected_s("age") == 2.0
    assert load.expected_s("faces") == 0.0
    assert len(load) == 0


def test_others_delay_by_what_is_left_of_them():
    load = known(age=2.0)
    first, second = load.begin("age"), load.begin("age")
    assert load.expected_s("age") == 6.0
    first.add("decode", 9.0, 1.5)
    assert load.expected_s("age") == 4.5
    second.add("decode", 9.0, 7.0)
    assert load.expected_s("age") == 2.5


def test_a_long_film_delays_a_picture_by_no_more_than_a_picture():
    load = known(age=2.0, film=100.0)
    load.begin("film")
    assert load.expected_s("age") == 4.0
    load.begin("age")
    assert load.expected_s("film") == 102.0 + 100.0


def test_what_a_route_costs_follows_its_answers_and_not_what_was_given_up():
    load = known(age=1.0)
    for _ in range(40):
        finished(load, "age", 3.0)
    assert abs(load.expected_s("age") - 3.0) < 0.01
    finished(load, "age", 0.0, answered=False)
    assert abs(load.expected_s("age") - 3.0) < 0.01


def test_work_is_counted_in_the_tasks_and_threads_of_its_request():
    async def request(name: str) -> Work:
        work = Work(name)
        with counted(work):
            await asyncio.create_task(stage(name))
            with ThreadPoolExecutor(1) as pool:
                await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, note)
        assert current_work() is None
        return work

    async def stage(name: str) -> None:
        await asyncio.sleep(0.001)
        mine = current_work()
        assert mine is not None
        mine.add(name, 1.0, 0.5)

    def note() -> None:
        mine = current_work()
        assert mine is not None
        mine.add("thread", 2.0, 0.25)

    async def both() -> tuple[Work, Work]:
        return await asyncio.gather(request("a"), request("b"))

    for name, work in zip("ab", asyncio.run(both()), strict=True):
        assert work.by_stage_s == {name: 1.0, "thread": 2.0}
        assert work.machine_s == 0.75
