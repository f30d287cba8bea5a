import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.costs import Costs, measured, sizes_up_to


def test_sizes_are_powers_of_two_and_the_most():
    assert sizes_up_to(1) == (1,)
    assert sizes_up_to(8) == (1, 2, 4, 8)
    assert sizes_up_to(12) == (1, 2, 4, 8, 12)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}, 1),
        ({1: 1.0, 2: 1.96, 4: 3.85, 8: 7.7}, 1),
        ({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.3}, 8),
        ({1: 1.0, 2: 1.2, 4: 2.2, 8: 4.6}, 4),
        ({1: 1.0, 2: 1.0, 4: 3.0, 8: 6.0}, 2),
    ],
)
def test_the_best_size_is_the_smallest_that_is_within_five_percent(seconds, best):
    costs = Costs(seconds)
    assert costs.best == best
    assert costs.sizes[-1] == best


def test_a_run_is_filled_up_unless_two_smaller_ones_are_cheaper():
    flat = Costs({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.3})
    assert [flat.take(n) for n in (1, 2, 3, 5, 8, 30)] == [
        (1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (8, 8),
    ]  # fmt: skip
    steep = Costs({1: 1.0, 2: 1.9, 4: 3.5, 8: 6.0})
    assert [steep.take(n) for n in (3, 5, 7)] == [(2, 2), (4, 4), (7, 8)]


def test_seconds_of_many_pictures_are_those_of_their_runs():
    costs = Costs({1: 1.0, 2: 1.1, 4: 1.2})
    assert costs.seconds_for(0) == 0
    assert costs.seconds_for(3) == 1.2
    assert costs.seconds_for(9) == pytest.approx(1.2 * 2 + 1.0)


@given(
    st.lists(st.floats(1e-4, 10), min_size=4, max_size=4),
    st.integers(1, 40),
)
def test_whatever_runs_cost_all_pictures_are_taken(seconds: list[float], waiting: int):
    costs = Costs(dict(zip((1, 2, 4, 8), seconds, strict=True)))
    while waiting:
        count, size = costs.take(waiting)
        assert 1 <= count <= size <= costs.best
        assert size in costs.sizes
        waiting -= count


def test_runs_are_followed():
    costs = Costs({1: 1.0})
    for _ in range(40):
        costs.observe(1, 3.0)
    assert costs.seconds[1] == pytest.approx(3.0, rel=0.01)
    unmeasured = Costs.unmeasured(4)
    assert (unmeasured.best, unmeasured.sizes) == (4, (1, 2, 4))
    unmeasured.observe(4, 2.0)
    assert unmeasured.seconds[4] == 2.0


def machine(per_run: float, per_picture: float):
    """Runs that say what they cost; the first of a size costs ten times as much."""
    ran: list[int] = []

    async def run(size: int) -> float:
        ran.append(size)
        seconds = per_run + per_picture * size
        return 10 * seconds if ran.count(size) == 1 else seconds

    return run, ran


def test_larger_sizes_are_left_out_once_they_are_not_worth_it():
    run, ran = machine(0.0, 0.01)
    costs = asyncio.run(measured(run, (1, 2, 4, 8, 16), budget_s=0))
    assert costs.best == 1
    assert ran == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert costs.seconds == {1: 0.01, 2: 0.02, 4: 0.04}


def test_sizes_that_pay_are_all_run():
    run, ran = machine(0.02, 0.0)
    assert asyncio.run(measured(run, (1, 2, 4, 8), budget_s=0)).best == 8
    assert sorted(set(ran)) == [1, 2, 4, 8]


def test_a_fixed_size_is_taken_whatever_was_measured():
    run, ran = machine(0.0, 0.005)
    costs = asyncio.run(measured(run, (1, 2, 4, 8), fixed=4, budget_s=0))
    assert (costs.best, costs.sizes) == (4, (1, 2, 4))
    assert max(ran) == 4


def test_short_runs_are_measured_for_as_long_as_the_budget():
    run, ran = machine(0.0, 0.01)
    asyncio.run(measured(run, (1,), budget_s=0.095))
    assert len(ran) == 11
