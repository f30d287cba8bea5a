"""What a run of a graph costs by the number of pictures in it, and so how many to run at once."""

from collections.abc import Awaitable, Callable, Iterable, Mapping

WORTH = 0.95
"""A larger run is worth it where a picture takes less than this share of the time of before."""
PATIENCE = 2
"""Sizes in a row that are not worth it before no larger one is tried."""
MEMORY = 0.2
"""Share of the newest run in what is known of a size."""


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Powers of two below `most`, and `most`: the only numbers of pictures that are ever run."""
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return tuple(sizes)


class Costs:
    """Seconds of a run at each size, measured when the service starts and followed since."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        """`seconds` by size, rising; 0 where nothing was measured. A size of 1 is needed."""
        self.seconds = dict(sorted(seconds.items()))
        if 1 not in self.seconds:
            raise ValueError("a run of one picture has no cost")
        self.best = _best(self.seconds)
        """The smallest size whose pictures are as cheap as the cheapest, but for 5 %."""

    @classmethod
    def unmeasured(cls, most: int) -> "Costs":
        """Sizes up to `most`, the largest of which is the best."""
        costs = cls(dict.fromkeys(sizes_up_to(most), 0.0))
        costs.best = most
        return costs

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes that are run, rising; `best` is the last."""
        return tuple(size for size in self.seconds if size <= self.best)

    def seconds_for(self, pictures: int) -> float:
        """How long so many pictures take, in runs of the best size and one for the rest."""
        runs, rest = divmod(pictures, self.best)
        seconds = runs * self.seconds[self.best]
        return seconds + (self.seconds[self._at_least(rest)] if rest else 0.0)

    def take(self, waiting: int) -> tuple[int, int]:
        """Of so many pictures waiting, how many to run now, and at which size.

        A run is filled up to its size with pictures nobody asked for, unless two smaller runs are
        cheaper: then the first of them is taken.
        """
        count = min(waiting, self.best)
        size = self._at_least(count)
        if size == count:
            return count, size
        smaller = max(each for each in self.sizes if each < count)
        if self.seconds[smaller] + self.seconds_for(count - smaller) < self.seconds[size]:
            return smaller, smaller
        return count, size

    def observe(self, size: int, seconds: float) -> None:
        """Follows a run that took `seconds`."""
        known = self.seconds[size]
        self.seconds[size] = known + MEMORY * (seconds - known) if known else seconds

    def _at_least(self, count: int) -> int:
        return min(size for size in self.sizes if size >= count)


async def measured(
    run: Callable[[int], Awaitable[float]],
    sizes: Iterable[int],
    fixed: int = 0,
    budget_s: float = 0.2,
) -> Costs:
    """Costs of `run(size)`, which tells its seconds, on this machine.

    Every size is run once unmeasured, since the first run of a size is slow, then for as long as
    `budget_s`, at least twice, and the shortest time counts. Larger sizes are left out once they
    are not worth it. With `fixed` only the sizes up to it are run, and it is the best.
    """
    seconds: dict[int, float] = {}
    worthless = 0
    for size in sizes:
        if fixed and size > fixed:
            break
        await run(size)
        times = [await run(size), await run(size)]
        while sum(times) < budget_s:
            times.append(await run(size))
        cheapest = min((cost / count for count, cost in seconds.items()), default=float("inf"))
        seconds[size] = min(times)
        worthless = 0 if seconds[size] / size < WORTH * cheapest else worthless + 1
        if worthless == PATIENCE and not fixed:
            break
    costs = Costs(seconds)
    if fixed:
        costs.best = max(costs.seconds)
    return costs


def _best(seconds: Mapping[int, float]) -> int:
    cheapest = min(cost / size for size, cost in seconds.items())
    return min(size for size, cost in seconds.items() if cost / size * WORTH <= cheapest)
