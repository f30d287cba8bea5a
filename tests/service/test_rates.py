import pytest

from service.rates import MAX_CALLERS, RateLimit


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_passes_and_the_next_is_told_when_to_come():
    clock = Clock()
    rate = RateLimit(per_minute=30, burst=3, clock=clock)
    assert [rate.take("ann") for _ in range(3)] == [0, 0, 0]
    assert rate.take("ann") == pytest.approx(2)
    clock.now_s += 0.5
    assert rate.take("ann") == pytest.approx(1.5)


def test_who_comes_when_told_is_let_in():
    clock = Clock()
    rate = RateLimit(per_minute=7, burst=1, clock=clock)
    for _ in range(20):
        assert rate.take("ann") == 0
        clock.now_s += rate.take("ann") + 1e-9


def test_asking_too_often_does_not_lengthen_the_wait():
    clock = Clock()
    rate = RateLimit(per_minute=60, burst=1, clock=clock)
    rate.take("ann")
    assert [rate.take("ann") for _ in range(50)] == pytest.approx([1.0] * 50)


def test_the_long_run_is_the_rate_and_an_idle_caller_saves_up_one_burst():
    clock = Clock()
    rate = RateLimit(per_minute=60, burst=5, clock=clock)
    passed = 0
    for _ in range(1000):
        passed += rate.take("ann") == 0
        clock.now_s += 0.1
    assert passed == pytest.approx(100 + 5, abs=1)
    clock.now_s += 3600
    assert [rate.take("ann") == 0 for _ in range(6)] == [True] * 5 + [False]


def test_callers_do_not_spend_each_other_s_tokens():
    rate = RateLimit(per_minute=1, burst=1, clock=Clock())
    assert [rate.take(name) == 0 for name in ("ann", "bob", "ann")] == [True, True, False]


def test_callers_remembered_are_bounded_and_the_longest_away_is_forgotten():
    rate = RateLimit(per_minute=1, burst=1, clock=Clock())
    for number in range(MAX_CALLERS):
        rate.take(str(number))
    assert rate.take("0") > 0
    rate.take("one more")
    assert rate.take("0") > 0
    assert rate.take("1") == 0
