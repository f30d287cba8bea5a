from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.turns import Requester, Turns


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60))
def test_turns_are_fair_between_callers_ordered_and_complete(asked: list[tuple[int, int]]):
    turns: Turns[tuple[int, int, int]] = Turns()
    requesters: dict[tuple[int, int], Requester] = {}
    submitted: Counter[tuple[int, int]] = Counter()
    for caller, request in asked:
        requester = requesters.setdefault((caller, request), Requester(caller))
        turns.add(requester, (caller, request, submitted[caller, request]))
        submitted[caller, request] += 1
    assert len(turns) == len(asked)
    assert sorted(turns) == sorted((*key, n) for key in submitted for n in range(submitted[key]))

    taken: dict[tuple[int, int], list[int]] = defaultdict(list)
    served: Counter[int] = Counter()
    left = Counter(caller for caller, _ in asked)
    while len(turns):
        caller, request, number = turns.pop()
        taken[caller, request].append(number)
        served[caller] += 1
        left[caller] -= 1
        # Whoever still waits was served at most once less than anybody else.
        for other in left:
            if left[other]:
                assert served[other] >= max(served.values()) - 1
    assert taken == {key: list(range(count)) for key, count in submitted.items()}


def test_requests_of_one_caller_take_turns_too():
    turns: Turns[str] = Turns()
    life, single = Requester("her"), Requester("her")
    for number in range(240):
        turns.add(life, f"frame {number}")
    turns.pop()
    turns.add(single, "picture")
    assert [turns.pop(), turns.pop()] == ["frame 1", "picture"]


def test_unwanted_jobs_are_dropped_wherever_they_wait():
    turns: Turns[int] = Turns()
    first, second = Requester("a"), Requester("b")
    for number in range(10):
        turns.add(first if number % 2 else second, number)
    assert turns.drop(lambda number: number < 4 or number % 2 == 1) == 7
    assert len(turns) == 3
    assert [turns.pop() for _ in range(3)] == [4, 6, 8]
    with pytest.raises(IndexError):
        turns.pop()
