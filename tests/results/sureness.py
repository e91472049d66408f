"""How often equal methods come out as different: ``python -m tests.results.sureness``.

Six equal variants meet in pairs, as in one column of a table. Their seeds spread so many times as
much as the noise of the test part, which all seeds of a variant share.
"""

from itertools import combinations

import numpy as np

from amst.results.comparison import SIGNIFICANT
from amst.results.statistics import holm, seed_bootstrap

VARIANTS, TABLES, RESAMPLES, NOISE = 6, 200, 4000, 0.01


def pairs_of_a_table(generator: np.random.Generator, seeds: int, ratio: float) -> list[float]:
    """p of every pair of one table."""
    noise = generator.normal(0, NOISE, VARIANTS)
    observed = generator.normal(0, ratio * NOISE, (VARIANTS, seeds)) + noise[:, None]
    drawn = generator.normal(0, NOISE, (RESAMPLES, VARIANTS))
    found = []
    for one, other in combinations(range(VARIANTS), 2):
        difference = observed[one] - observed[other]
        resampled = difference + (drawn[:, one] - drawn[:, other])[:, None]
        found.append(seed_bootstrap(resampled, list(difference), seed=0).p)
    return found


def main() -> None:
    """A line for each number of seeds and ratio of spread to noise."""
    for seeds in (3, 5, 10):
        for ratio in (0.5, 1, 2, 4, 8):
            generator = np.random.default_rng(1)
            tables = [pairs_of_a_table(generator, seeds, ratio) for _ in range(TABLES)]
            single = np.mean([p < SIGNIFICANT for table in tables for p in table])
            claims = np.mean([min(holm(table)) < SIGNIFICANT for table in tables])
            of_pairs = f"of 100 pairs {100 * single:4.1f} with p below {SIGNIFICANT}"
            of_tables = f"of 100 tables {100 * claims:4.1f} with a p_holm below"
            where = f"{seeds:2d} seeds, spread {ratio:3g} times the noise"
            print(f"{where}: {of_pairs}, {of_tables}", flush=True)


if __name__ == "__main__":
    main()
