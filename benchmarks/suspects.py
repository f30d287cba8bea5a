"""How many wrong labels `anchorage-train validate` finds: planted ones among a set's own.

    python -m benchmarks.suspects DATA [--count 20] [--rounds 3]

DATA is what `prepare` wrote. Each round gives `--count` portraits of 0-2 years an age of 50-69, as
many of 50-69 an age of 0-2, and counts the suspects and the planted ones among them.
"""

import argparse
from pathlib import Path

import numpy as np

from training.data import open_prepared
from training.suspects import judge_labels, looks_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    data = open_prepared(arguments.data)
    features = looks_of(data).features
    own = np.array([row.age_years for row in data.rows])
    alone = judge_labels(features, own)
    print(
        f"{len(own)} portraits: {len(alone.suspects)} suspects, correlation "
        f"{alone.correlation:.2f}, median error {alone.error_years:.1f} years"
    )
    for seed in range(arguments.rounds):
        random = np.random.default_rng(seed)
        young = random.choice(np.flatnonzero(own < 3), arguments.count, replace=False)
        old = random.choice(np.flatnonzero(own >= 50), arguments.count, replace=False)
        ages = own.copy()
        ages[young] = random.integers(50, 70, arguments.count)
        ages[old] = random.integers(0, 3, arguments.count)
        suspects = set(judge_labels(features, ages).suspects)
        print(
            f"round {seed}: {len(suspects)} suspects, {len(suspects.intersection(young))} of "
            f"{arguments.count} young and {len(suspects.intersection(old))} of "
            f"{arguments.count} old planted"
        )


if __name__ == "__main__":
    main()
