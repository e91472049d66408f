"""How often equal methods come out as different: ``python -m tests.results.sureness``.

Six equal variants meet in pairs, as in one column of a table. Their seeds spread so many times as
much as the noise of the test part. Of that noise's variance a share is each seed's own; all seeds
of a variant have the rest in common.
"""

from itertools import combinations, product

import numpy as np

from amst.results.comparison import SIGNIFICANT
from amst.results.statistics import Floats, holm, seed_bootstrap

VARIANTS, TABLES, RESAMPLES, NOISE = 6, 200, 4000, 0.01


def pairs_of_a_table(
    generator: np.random.Generator, seeds: int, ratio: float, own: float
) -> list[float]:
    """p of every pair of one table."""
    spread = generator.normal(0, ratio * NOISE, (VARIANTS, seeds))
    observed = spread + _noise(generator, 1, seeds, own)[0]
    drawn = _noise(generator, RESAMPLES, seeds, own)
    found = []
    for one, other in combinations(range(VARIANTS), 2):
        difference = observed[one] - observed[other]
        resampled = difference + drawn[:, one] - drawn[:, other]
        found.append(seed_bootstrap(resampled, list(difference), seed=0).p)
    return found


def _noise(generator: np.random.Generator, draws: int, seeds: int, own: float) -> Floats:
    """Noise of the test part, (draws, VARIANTS, seeds)."""
    common = generator.normal(0, NOISE * np.sqrt(1 - own), (draws, VARIANTS, 1))
    return common + generator.normal(0, NOISE * np.sqrt(own), (draws, VARIANTS, seeds))


def main() -> None:
    """A line for each share, number of seeds and ratio of spread to noise."""
    for own, seeds, ratio in product((0, 0.5), (3, 5, 10), (0.5, 1, 2, 4, 8)):
        generator = np.random.default_rng(1)
        tables = [pairs_of_a_table(generator, seeds, ratio, own) for _ in range(TABLES)]
        single = np.mean([p < SIGNIFICANT for table in tables for p in table])
        claims = np.mean([min(holm(table)) < SIGNIFICANT for table in tables])
        of_pairs = f"of 100 pairs {100 * single:4.1f} with p below {SIGNIFICANT}"
        of_tables = f"of 100 tables {100 * claims:4.1f} with a p_holm below"
        where = f"own {own:g}, {seeds:2d} seeds, spread {ratio:3g} times the noise"
        print(f"{where}: {of_pairs}, {of_tables}", flush=True)


if __name__ == "__main__":
    main()
