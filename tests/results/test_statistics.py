"""Statistics against scipy and examples worked by hand."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from amst.results import statistics
from amst.results.statistics import (
    average_ranks,
    exact_mcnemar,
    group_resamples,
    holm,
    paired_difference,
    prediction_interval,
    seed_bootstrap,
    summarise,
    wilcoxon,
)

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=8)


@settings(deadline=None)
@given(SHARES)
def test_a_summary_is_mean_standard_deviation_and_t_interval(values):
    found = summarise(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    if found.std > 1e-9:
        sem = stats.sem(values)
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), sem)
        assert (found.low, found.high) == pytest.approx((low, high))


def test_one_value_has_no_spread_and_no_value_no_summary():
    found = summarise([0.7])
    assert (found.mean, found.std, found.low, found.high, found.count) == (0.7, None, None, None, 1)
    assert summarise([]) is None


@given(st.permutations([0.1, 0.2, 0.30000001, 0.7, 0.7]))
def test_a_summary_does_not_depend_on_order_in_any_bit(values):
    assert summarise(values) == summarise(sorted(values))


def test_equal_values_have_no_spread_at_all():
    assert summarise([0.1, 0.1, 0.1]).std == 0.0


def test_differences_are_paired_over_the_seeds_that_both_have():
    found = paired_difference({0: 0.5, 1: 0.6, 2: 0.9}, {1: 0.5, 2: 0.7, 3: 0.1})
    assert found.count == 2
    assert found.mean == pytest.approx(0.15)
    # Two differences, 0.1 and 0.2: half-width t(1) s / sqrt(2) = 12.706 * 0.0707 / 1.414.
    assert found.high - found.mean == pytest.approx(12.7062 * 0.0707107 / sqrt(2), rel=1e-4)
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


def test_prediction_interval_worked_by_hand():
    # Mean 0.78, s 0.01, n 3: 0.78 +- 4.30265 * 0.01 * sqrt(1 + 1/3).
    half = 4.30265 * 0.01 * sqrt(4 / 3)
    assert prediction_interval([0.77, 0.78, 0.79]) == pytest.approx((0.78 - half, 0.78 + half))
    assert prediction_interval([0.77, 0.79]) is None


def test_prediction_interval_holds_one_further_seed_in_95_of_100_cases():
    drawn = np.random.default_rng(0).normal(0.8, 0.02, (4000, 6))
    inside = 0
    for row in drawn:
        low, high = prediction_interval(row[:5].tolist())
        inside += low <= row[5] <= high
    assert inside / len(drawn) == pytest.approx(0.95, abs=0.012)


def test_group_bootstrap_of_single_samples_equals_scipy():
    correct = np.random.default_rng(1).random(200) < 0.7
    ours = group_resamples(correct[None], [str(i) for i in range(200)], seed=0, resamples=9000)
    theirs = stats.bootstrap(
        (correct.astype(float),),
        np.mean,
        method="percentile",
        n_resamples=9000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    found = np.quantile(ours[:, 0], [0.025, 0.975])
    assert found == pytest.approx([theirs.low, theirs.high], abs=0.01)


def test_groups_are_drawn_as_a_whole():
    # Two groups of 30 and 10: a resample holds two, so only these accuracies can come.
    correct = np.array([[True] * 30 + [False] * 10])
    found = group_resamples(correct, ["a"] * 30 + ["b"] * 10, seed=0, resamples=500)
    # They deviate from the accuracy of 0.75 by sqrt(G / (G - 1)) more than they were drawn.
    drawn = 0.75 + (found[:, 0] - 0.75) / sqrt(2)
    assert set(drawn.round(12)) == {0.0, 0.75, 1.0}


def test_all_rows_meet_the_same_draws():
    correct = np.random.default_rng(3).random((1, 50)) < 0.5
    both = np.concatenate([correct, ~correct])
    found = group_resamples(both, [str(i) for i in range(50)], seed=0, resamples=100)
    assert found.sum(axis=1) == pytest.approx(np.ones(100))


def test_the_bootstrap_covers_the_truth_and_rejects_nothing_true():
    # Two methods that are equal: p is below 0.05 in about 5 % of the cases.
    generator = np.random.default_rng(4)
    rejected = 0
    for case in range(200):
        correct = generator.random((2, 150)) < 0.6
        resampled = group_resamples(correct, [str(i) for i in range(150)], case, 600)
        difference = resampled[:, :1] - resampled[:, 1:]
        rejected += seed_bootstrap(difference, [0.0], case).p < 0.05
    assert rejected <= 20


def test_the_seed_bootstrap_estimates_the_observed_mean():
    resampled = np.tile([0.10, 0.20, 0.30], (2000, 1))
    found = seed_bootstrap(resampled, [0.10, 0.20, 0.30], seed=0)
    assert found.estimate == pytest.approx(0.2)
    # One draw of 27 has only the lowest seed, and one only the highest: more than 2.5 % each.
    farthest = 0.1 * sqrt(3 / 2) * stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975)
    assert (found.low, found.high) == pytest.approx((0.2 - farthest, 0.2 + farthest))
    assert found.p == pytest.approx(2 / 27, rel=0.25)


def test_every_chunk_of_resamples_is_drawn_anew():
    correct = np.arange(20)[None] < 12
    groups = [str(i) for i in range(20)]
    found = group_resamples(correct, groups, seed=0, resamples=2 * statistics.CHUNK)
    first, second = np.split(found, 2)
    assert not np.array_equal(first, second)


def test_p_is_never_zero():
    """None of 999 resamples is below 0: the observed one counts as one that could be."""
    resampled = np.full((999, 3), 0.1)
    assert seed_bootstrap(resampled, [0.1] * 3, seed=0).p == pytest.approx(2 / 1000)


def test_a_mean_of_zero_is_none_of_another_sign_in_its_last_digit():
    row = [0.1, 0.2, -0.3]
    assert 0 < np.mean(row) < 1e-16
    assert seed_bootstrap(np.tile(row, (999, 1)), [0.0] * 3, seed=0).p == 1.0


def test_no_difference_has_p_one():
    assert seed_bootstrap(np.zeros((500, 3)), [0.0, 0.0, 0.0], seed=0).p == 1.0


def test_exact_mcnemar_equals_the_binomial_test():
    generator = np.random.default_rng(5)
    ours, theirs = generator.random(80) < 0.8, generator.random(80) < 0.6
    only_ours, only_theirs, p = exact_mcnemar(ours, theirs)
    assert (only_ours, only_theirs) == ((ours & ~theirs).sum(), (theirs & ~ours).sum())
    count, fewer = only_ours + only_theirs, min(only_ours, only_theirs)
    tail = sum(comb(count, right) for right in range(fewer + 1)) / 2**count
    assert p == pytest.approx(2 * tail)


def test_exact_mcnemar_worked_by_hand():
    # 5 discordant samples, all for us: p = 2 / 2^5.
    ours = np.array([True] * 5 + [True] * 4)
    theirs = np.array([False] * 5 + [True] * 4)
    assert exact_mcnemar(ours, theirs) == (5, 0, pytest.approx(0.0625))
    assert exact_mcnemar(theirs, theirs)[2] == 1.0


def test_holm_worked_by_hand():
    # 0.01*4, 0.02*3, 0.03*2, 0.04*1, each at least as large as the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.01, 0.8]) == pytest.approx([1, 0.03, 1])
    assert holm([]) == []


def test_average_ranks_share_ties():
    scores = np.array([[0.9, 0.8, 0.8], [0.5, 0.7, 0.6]])
    assert average_ranks(scores) == pytest.approx([2.0, 1.75, 2.25])


def test_scores_that_differ_by_rounding_alone_are_equal():
    noisy = (0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3
    assert noisy[0] != noisy[1]
    assert average_ranks(np.array([noisy])) == pytest.approx([1.5, 1.5])
    assert wilcoxon([noisy[0]] * 8, [noisy[1]] * 8) == 1.0


def test_wilcoxon_needs_eight_datasets():
    ours = [0.71, 0.72, 0.73, 0.74, 0.75, 0.76, 0.77]
    theirs = [value - 0.01 * (i + 1) for i, value in enumerate(ours)]
    assert wilcoxon(ours, theirs) is None
    # All eight differences of one sign: p = 2 / 2^8.
    assert wilcoxon([*ours, 0.9], [*theirs, 0.5]) == pytest.approx(2 / 2**8)
    assert wilcoxon([0.5] * 8, [0.5] * 8) == 1.0


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_resampled_seeds_spread_as_students_t_of_their_mean_does(seeds):
    values = np.random.default_rng(0).normal(0.7, 0.02, seeds)
    deviations = statistics._seed_deviations(1, 100_000, seeds)
    half = stats.t.ppf(0.975, seeds - 1) * stats.sem(values)
    assert 1.96 * (deviations @ values).std() == pytest.approx(half, rel=0.01)


@pytest.mark.parametrize("seeds", [3, 5])
def test_noise_of_the_samples_that_is_each_seed_s_own_counts_once(seeds):
    # Seeds that are equal on the test part as it is: all that is left is the mean's own noise.
    resampled = np.random.default_rng(6).normal(0, 0.03, (50_000, seeds))
    found = seed_bootstrap(resampled, [0.0] * seeds, seed=0)
    half = 1.96 * 0.03 / sqrt(seeds)
    assert (found.low, found.high) == pytest.approx((-half, half), rel=0.03)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("ratio", [0.5, 2, 8])
def test_equal_methods_are_told_apart_no_more_often_than_the_level_says(seeds, ratio):
    """Two equal methods whose seeds spread so many times the test part's noise.

    Without the quantiles of t, 19 (3 seeds) and 12 (5 seeds) of 100 are told apart where seeds
    spread most.
    """
    generator, told = np.random.default_rng(seeds), 0
    for _ in range(400):
        common = generator.normal(0, 0.02)
        observed = generator.normal(0, 0.02 * ratio, seeds) + common
        resampled = observed + generator.normal(0, 0.02, (500, 1))
        told += seed_bootstrap(resampled, list(observed), 2).p < 0.05
    assert told / 400 < 0.08
