"""Statistics of results over seeds, samples and datasets.

Every function takes plain numbers or arrays, so that it can be checked against worked examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

DECIMALS = 12
"""What is compared is rounded to these: equal means of other orders differ in their last digit."""
LEVEL = 0.95
"""Coverage of every interval."""
RESAMPLES = 50_000
"""Bootstrap resamples: Holm over the 105 pairs of 15 variants needs p well below 0.05/105."""
CHUNK = 5_000
"""Resamples drawn at a time: bounds memory for draws to some 120 MB per 1,000 test groups."""
FEWEST_FOR_PREDICTION = 3
"""Fewest seeds that give a prediction interval: with two, t is 12.7."""
FEWEST_FOR_WILCOXON = 8
"""Fewest datasets for Wilcoxon's test: with 5, its smallest two-sided p is 0.0625."""

_Z = float(stats.norm.ppf((1 + LEVEL) / 2))

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Summary:
    """Mean over seeds.

    Attributes:
        std: standard deviation with n - 1 in the denominator; None for one value.
        low: lower end of Student's t interval of the mean; None for one value.
        high: upper end.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Interval:
    """A bootstrap estimate, its percentile interval and two-sided p of being 0."""

    estimate: float
    low: float
    high: float
    p: float


def summarise(values: Sequence[float]) -> Summary | None:
    """Mean, standard deviation and t interval of the mean; None without a value."""
    count = len(values)
    if not count:
        return None
    mean = fmean(values)
    if count == 1:
        return Summary(mean, None, None, None, 1)
    std = stdev(values)
    half = _t_quantile(count) * std / sqrt(count)
    return Summary(mean, std, mean - half, mean + half, count)


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Summary | None:
    """Summary of ``ours - theirs`` over the seeds that both have; None when there is none."""
    return summarise([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def prediction_interval(values: Sequence[float], further: int = 1) -> tuple[float, float] | None:
    """Where the mean of ``further`` more seeds lies with 95 %; None under 3 values.

    mean +- t(n-1) s sqrt(1/further + 1/n), for values that are normally distributed over seeds.
    """
    summary = summarise(values)
    if summary is None or summary.std is None or summary.count < FEWEST_FOR_PREDICTION:
        return None
    half = _t_quantile(summary.count) * summary.std * sqrt(1 / further + 1 / summary.count)
    return summary.mean - half, summary.mean + half


def group_resamples(
    correct: NDArray[np.bool_], groups: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> Floats:
    """Accuracies when the test groups are drawn anew, with replacement.

    All rows meet the same draws, so that any two of them can be compared in pairs. What is drawn
    from G groups deviates too little by sqrt((G - 1) / G), as a variance with G in its denominator
    is too small: deviations are stretched by the inverse (narrowness bias; Hesterberg, 2015). An
    accuracy may so leave 0..1 a little.

    Args:
        correct: (rows, n) whether a row's prediction of a sample is correct.
        groups: (n,) the group of each sample; a group is drawn or not as a whole.
        seed: of the draws.
        resamples: how many.

    Returns:
        (resamples, rows) accuracies.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(member).astype(np.float64)
    hits = np.zeros((len(names), len(correct)))
    np.add.at(hits, member, correct.T.astype(np.float64))
    generator = np.random.default_rng(seed)
    observed = correct.mean(axis=1)
    found = np.empty((resamples, len(correct)))
    for start in range(0, resamples, CHUNK):
        times = _draw(generator, min(CHUNK, resamples - start), len(names))
        drawn = (times @ hits) / (times @ sizes)[:, None]
        found[start : start + len(times)] = observed + _stretch(len(names)) * (drawn - observed)
    return found


def seed_bootstrap(resampled: Floats, observed: Sequence[float], seed: int) -> Interval:
    """Bootstrap over seeds on top of one over test groups: percentile interval and p.

    What the groups make of the mean over seeds and what the seeds make of the values as they are
    add up. Were seeds drawn of resampled values, each seed's own noise of the test samples would
    count once more, and be stretched as the seeds are.

    The deviations of seeds from their mean are stretched as those of groups, and further by what
    Student's t quantile is above the normal one: a bootstrap of few seeds knows no t distribution.
    Where seeds spread most, it would tell 19 of 100 equal pairs apart at 0.05 with three of them.

    Args:
        resampled: (resamples, seeds) value of each seed on the resampled test groups: accuracies,
            or differences of accuracies of two methods trained with the same seed.
        observed: (seeds,) the values on the test part as it is.
        seed: of the draws of seeds.
    """
    resamples, seeds = resampled.shape
    deviations = _seed_deviations(seed, resamples, seeds) @ np.asarray(observed)
    # Draws of one seed with opposite rounding must count as 0, hence the rounding.
    means = np.round(resampled.mean(axis=1) + deviations, DECIMALS)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Interval(fmean(observed), float(low), float(high), bootstrap_p(tail, resamples))


def bootstrap_p(tail: int, resamples: int) -> float:
    """Two-sided p where ``tail`` resamples lie at or beyond 0; the least there is for none."""
    return min(1.0, 2 * (tail + 1) / (resamples + 1))


def exact_mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Samples only we have right, samples only they have right, exact two-sided p."""
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    differ = only_ours + only_theirs
    p = float(stats.binomtest(only_ours, differ).pvalue) if differ else 1.0
    return only_ours, only_theirs, p


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being all looked at (Holm, 1979), in the order given."""
    ascending = np.argsort(p_values, kind="stable")
    looked_at = np.arange(len(p_values), 0, -1)
    adjusted = np.maximum.accumulate(np.asarray(p_values)[ascending] * looked_at)
    return [float(p) for p in np.minimum(adjusted, 1.0)[np.argsort(ascending)]]


def average_ranks(scores: Floats) -> Floats:
    """Mean rank of each method over datasets, 1 the best, equal scores sharing their ranks.

    Args:
        scores: (datasets, methods), higher is better.
    """
    return np.asarray(stats.rankdata(-np.round(scores, DECIMALS), axis=1).mean(axis=0))


def wilcoxon(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test over datasets; None under 8 datasets."""
    if len(ours) < FEWEST_FOR_WILCOXON:
        return None
    differences = np.round(np.subtract(ours, theirs), DECIMALS)
    return float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0


@lru_cache
def _t_quantile(count: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1))


@lru_cache(maxsize=16)
def _seed_deviations(seed: int, resamples: int, seeds: int) -> Floats:
    """What each seed counts in each resample above its share of the mean, stretched.

    The same for all pairs of a dataset with as many seeds, hence kept; some 4 MB each.
    """
    times = _draw(np.random.default_rng(seed), resamples, seeds)
    small = _t_quantile(seeds) / _Z if seeds > 1 else 1.0
    deviations = small * _stretch(seeds) * (times - 1) / seeds
    deviations.flags.writeable = False
    return deviations


def _stretch(units: int) -> float:
    """What deviations of means of ``units`` drawn from as many fall short by."""
    return sqrt(units / (units - 1)) if units > 1 else 1.0


def _draw(generator: np.random.Generator, resamples: int, units: int) -> Floats:
    """How often each of ``units`` is drawn in ``units`` draws: (resamples, units)."""
    drawn = generator.integers(units, size=(resamples, units))
    drawn += np.arange(resamples)[:, None] * units
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units) * 1.0
