"""Comparisons from stored predictions: pairs, groups, what is bold."""

from dataclasses import replace

import numpy as np
import pytest

from amst.errors import AmstError
from amst.records import read_record
from amst.results.cells import collect
from amst.results.comparison import (
    best_of,
    blind_notes,
    compare,
    drawn_text,
    groups_of,
    leaders,
)
from amst.results.sheet import DASH, MINUS
from amst.results.tables.scores import score_table
from amst.results.tables.significance import (
    intervals_table,
    mcnemar_table,
    ranks_table,
    significance_table,
)
from tests.documented import code_in


def compared(runs, groups=None, partial=False, order=()):
    collection = collect(runs, order, partial=partial)
    return collection, compare(collection, groups or {}, resamples=2000)


@pytest.fixture
def contest(make, plan):
    """``good`` and ``as_good`` differ little, ``bad`` is far behind; three seeds each."""
    accuracies = {"good": 0.9, "as_good": 0.88, "bad": 0.4}
    return make(
        *(
            plan.with_(variant=name, seed=seed, samples=100, values={"fused": value})
            for name, value in accuracies.items()
            for seed in range(3)
        )
    )


def test_the_best_and_all_not_significantly_worse_lead(contest):
    found = leaders(*compared(contest))
    assert found == {("digits", "random", "good"), ("digits", "random", "as_good")}


def test_a_pair_is_the_difference_of_the_accuracies_with_its_interval(contest):
    collection, comparison = compared(contest, order=["bad", "as_good", "good"])
    bad, as_good, good = collection.cells
    pair = comparison.between(bad, good)
    assert (pair.ours, pair.theirs) == (good, bad)
    assert pair.interval.estimate == pytest.approx(0.5)
    assert 0.3 < pair.interval.low < 0.5 < pair.interval.high < 0.7
    assert pair.adjusted == pytest.approx(3 * pair.interval.p)
    assert comparison.between(good, as_good).adjusted > 0.05


def test_the_code_for_runs_of_two_folders_gives_the_difference_of_the_tables(
    contest, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for results in ("results", "../bf16/results"):
        (tmp_path / results / "tables").mkdir(parents=True)
        (tmp_path / results / "tables/main.csv").write_text("variant,mean\nnaive,0.5\n")
    samples = tmp_path / "results/features/digits/samples.jsonl"
    samples.parent.mkdir(parents=True)
    rows = [f'{{"id": "test-{i:04d}", "label": "0", "group": "{i // 10}"}}' for i in range(100)]
    samples.write_text("\n".join(rows))
    code, names = code_in("two-configurations.md"), {}
    for place, variant in (("../bf16/results/runs", "good"), ("results/runs", "bad")):
        code = code.replace(f'"{place}/digits/random/naive"', f'"runs/digits/random/{variant}"')
    exec(code, names)
    assert names["both"]["folder"].tolist() == ["fp32", "bf16"]
    collection, comparison = compared(contest, {"digits": groups_of(samples)})
    good, bad = (collection.find("digits", "random", name) for name in ("good", "bad"))
    found, expected = names["interval"], comparison.between(good, bad).interval
    assert found.estimate == pytest.approx(expected.estimate)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert found.p < 0.01


def test_bold_type_and_the_printed_p_are_after_holm_s_correction(contest):
    """Each p alone is below 0.05; Holm gives 3 * 0.02, and nothing less to the ones behind it."""
    collection, comparison = compared(contest)
    pairs = tuple(
        replace(pair, p=p, adjusted=0.06)
        for pair, p in zip(comparison.pairs, (0.02, 0.03, 0.04), strict=True)
    )
    corrected = replace(comparison, pairs=pairs)
    found = {variant for _, _, variant in leaders(collection, corrected)}
    assert found == {"good", "as_good", "bad"}
    table = significance_table(collection, corrected)
    rows = {row[0].text: row for row in table.blocks[0].rows}
    assert [rows[name][3].text for name in ("as_good", "bad")] == ["0.060", "0.060"]
    assert all(row[1].bold for row in rows.values())
    assert [(row["p"], row["p_holm"]) for row in table.rows] == [
        (0.02, 0.06),
        (0.03, 0.06),
        (0.04, 0.06),
    ]


def test_where_no_difference_could_be_significant_nothing_leads_and_tables_say_so(contest):
    """Holm's first factor is the number of pairs: 3 * 2 / 101 is above 0.05, 3 * 2 / 2001 below."""
    assert blind_notes(*compared(contest)) == ()
    collection = collect(contest, ())
    found = collection, compare(collection, {}, resamples=100)
    assert leaders(*found) == set()
    (note,) = blind_notes(*found)
    assert note.startswith("Nothing is bold on digits: for 3 pairs of variants no p of 100 resampl")
    assert note in significance_table(*found).notes
    assert score_table("main", collection, "accuracy", set(), "", (note,)).notes == (note,)
    best = {("ave", "amst", "good")}
    assert note in score_table("main", collection, "accuracy", best, "", (note,)).notes


def test_under_three_common_seeds_readers_see_the_difference_without_p(make, plan):
    runs = make(
        plan.with_(variant="good", samples=100, values={"fused": 0.9}),
        plan.with_(variant="bad", samples=100, values={"fused": 0.6}),
    )
    (block,) = significance_table(*compared(runs)).blocks
    difference, _, p, seeds = next(row[1:] for row in block.rows if row[0].text == "bad")
    assert (difference.text, p.text, seeds.text) == (f"{MINUS}30.0", DASH, "1")


def test_nothing_leads_on_one_seed(make, plan):
    runs = make(
        plan.with_(variant="good", values={"fused": 0.9}),
        plan.with_(variant="bad", values={"fused": 0.2}),
    )
    assert leaders(*compared(runs)) == set()


def test_a_variant_of_one_seed_is_not_the_best_where_others_have_three(contest, make, plan):
    lucky = make(plan.with_(variant="lucky", samples=100, values={"fused": 1.0}))
    found = compared([*contest, *lucky])
    assert leaders(*found) == {("digits", "random", "good"), ("digits", "random", "as_good")}
    table = significance_table(*found)
    texts = {row[0].text: row[1].text for row in table.blocks[0].rows}
    assert (texts["good"], texts["lucky"]) == ("best", "10.0")


def test_what_is_better_over_the_common_seeds_leads_too(make, plan):
    """The best owes its mean to seeds that the other does not have yet."""
    accuracies = {"best": (0.5, 0.5, 0.5, 1.0, 1.0, 1.0), "better": (0.7, 0.7, 0.7)}
    runs = make(
        *(
            plan.with_(variant=name, seed=seed, samples=100, values={"fused": value})
            for name, values in accuracies.items()
            for seed, value in enumerate(values)
        )
    )
    collection, comparison = compared(runs)
    best, better = collection.cells
    assert comparison.between(best, better).adjusted < 0.05
    assert {variant for _, _, variant in leaders(collection, comparison)} == {"best", "better"}


def test_a_single_variant_leads_nothing(make, plan):
    assert leaders(*compared(make(plan, plan.with_(seed=1)))) == set()


def test_unfinished_runs_take_part_as_far_as_they_are_there(make, contest, plan):
    waiting = make(plan.with_(variant="late", state="running"))
    collection, comparison = compared([*contest, *waiting], partial=True)
    assert len(comparison.pairs) == 3
    table = significance_table(collection, comparison)
    texts = {row[0].text: row[1].text for row in table.blocks[0].rows}
    assert texts["late"] == "running"
    assert texts["good"] == "best"


def test_dropping_a_run_changes_no_pair_without_its_variant(contest):
    def pairs(runs):
        _, comparison = compared(runs)
        return {
            (p.ours.variant, p.theirs.variant): (p.interval, p.mcnemar) for p in comparison.pairs
        }

    dropped = next(run for run in contest if run.variant == "bad")
    whole, fewer = pairs(contest), pairs([run for run in contest if run is not dropped])
    assert {key for key in whole if whole[key] != fewer[key]} == {
        key for key in whole if "bad" in key
    }


def test_dropping_a_dataset_changes_no_claim_about_another(make, plan):
    def of_digits(runs):
        collection, comparison = compared(runs)
        claims = {
            (p.ours.variant, p.theirs.variant): (p.p, p.adjusted, p.family)
            for p in comparison.pairs
            if p.ours.dataset == "digits"
        }
        return claims, {key for key in leaders(collection, comparison) if key[0] == "digits"}

    accuracies = {"good": 0.9, "fair": 0.8, "bad": 0.7}
    runs = make(
        *(
            plan.with_(dataset=dataset, variant=name, seed=seed, samples=100, values={"fused": v})
            for dataset in ("digits", "CREMAD")
            for name, v in accuracies.items()
            for seed in range(3)
        )
    )
    claims, bold = of_digits(runs)
    assert {family for _, _, family in claims.values()} == {3}
    assert (claims, bold) == of_digits([run for run in runs if run.dataset == "digits"])


def test_a_pair_of_two_common_seeds_has_no_p_and_is_in_no_family(contest):
    runs = [run for run in contest if run.variant != "bad" or run.seed < 2]
    collection, comparison = compared(runs)
    table = significance_table(collection, comparison)
    assert {row["family"] for row in table.rows} == {1}
    assert [row["p"] for row in table.rows if row["variant"] != "good"].count(None) == 1
    rows = {row[0].text: [entry.text for entry in row[1:]] for row in table.blocks[0].rows}
    assert (rows["bad"][2], rows["bad"][3]) == (DASH, "2")
    assert ("digits", "random", "bad") not in leaders(collection, comparison)


def test_seeds_that_are_not_there_are_said_with_every_number(contest, make, plan):
    late = make(plan.with_(variant="bad", seed=3, state="failed"))
    found = compared([*contest, *late], partial=True)
    for table, column in ((intervals_table(*found), 1), (significance_table(*found), 4)):
        rows = {row[0].text: row[column].text for row in table.blocks[0].rows}
        assert "3 of 4, 1 failed" in rows["bad"]
    assert "3 of 4, 1 failed" not in str(mcnemar_table(*found).blocks)


def test_an_interval_of_one_common_seed_is_told_to_know_no_spread(contest):
    notes = significance_table(*compared(contest)).notes
    assert "the interval of one common seed knows nothing of the spread between seeds" in notes[0]


@pytest.mark.parametrize(
    ("count", "text", "remark"),
    [
        (1, "100 samples", ", whose 1 group is too few to draw"),
        (3, "100 samples", ", whose 3 groups are too few to draw"),
        (5, "5 groups", ""),
        (100, "100 samples", ""),
    ],
)
def test_captions_say_what_was_drawn_of_each_dataset(contest, count, text, remark):
    groups = {f"test-{i:04d}": f"session{i % count}" for i in range(100)}
    found = compared(contest, {"digits": groups})
    assert f"(drawn were {text} of digits{remark})" in intervals_table(*found).caption
    assert f"(drawn were {text} of digits{remark})" in significance_table(*found).notes[0]
    assert drawn_text(*found) == f"{text} of digits{remark}"


def test_few_samples_with_a_group_each_are_not_said_to_be_too_few_groups(make, plan):
    groups = {f"test-{i:04d}": f"session{i}" for i in range(4)}
    found = compared(make(plan.with_(samples=4)), {"digits": groups})
    assert drawn_text(*found) == "4 samples of digits"


def test_groups_are_read_from_the_samples_and_drawn_as_a_whole(contest, tmp_path):
    samples = tmp_path / "samples.jsonl"
    lines = [
        f'{{"id": "test-{i:04d}", "label": "0", "group": "actor{i // 20}"}}' for i in range(100)
    ]
    samples.write_text("\n".join([*lines, '{"id": "x", "label": "0", "group": ""}']) + "\n")
    groups = groups_of(samples)
    assert (len(groups), groups["x"]) == (101, "")
    collection, comparison = compared(contest, {"digits": groups})
    assert {estimate.groups for estimate in comparison.estimates} == {5}
    rows = significance_table(collection, comparison).rows
    assert {row["resampled"] for row in rows} == {"5 groups"}


def test_a_sample_without_a_group_stands_for_itself_whatever_groups_are_called(contest):
    names = ["test-0090", "test-0091", "actor2", "actor3"]
    groups = {f"test-{i:04d}": names[i // 20] for i in range(80)}
    _, comparison = compared(contest, {"digits": groups})
    assert {estimate.groups for estimate in comparison.estimates} == {4 + 20}


@pytest.mark.parametrize(("count", "drawn"), [(1, 100), (4, 100), (5, 5), (20, 20)])
def test_a_test_part_of_very_few_groups_is_drawn_by_samples(contest, count, drawn):
    groups = {f"test-{i:04d}": f"session{i % count}" for i in range(100)}
    _, comparison = compared(contest, {"digits": groups})
    assert {estimate.groups for estimate in comparison.estimates} == {drawn}


def test_samples_are_matched_by_id_not_by_place(contest):
    _, before = compared(contest)
    for run in contest[:3]:
        path = run.path.parent / "predictions.npz"
        with np.load(path) as file:
            stored = dict(file)
        order = np.random.default_rng(0).permutation(len(stored["test/labels"]))
        for name in stored:
            if name.startswith("test/"):
                stored[name] = stored[name][order]
        np.savez(path, **stored)
    _, after = compared(contest)
    assert [pair.interval for pair in after.pairs] == [pair.interval for pair in before.pairs]


def test_runs_on_other_test_samples_are_refused(make, plan):
    """Either may be the odd one, so both are named."""
    runs = make(plan, plan.with_(seed=1), plan.with_(variant="other", samples=40))
    both = r"naive/seed0 and digits/random/other/seed0 have predictions\.npz of different test"
    with pytest.raises(AmstError, match=both):
        compared(runs)


def test_as_many_test_samples_of_which_one_is_another_are_refused(make, plan):
    runs = make(plan, plan.with_(seed=1))
    path = runs[1].path.with_name("predictions.npz")
    with np.load(path) as file:
        stored = dict(file)
    stored["test/ids"][7] = "test-9999"
    np.savez(path, **stored)
    with pytest.raises(AmstError, match=r"seed0 and .*seed1 have predictions\.npz of different"):
        compared(runs)


def test_unreadable_predictions_are_named(make, plan):
    (run,) = make(plan)
    path = run.path.parent / "predictions.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AmstError, match=r"predictions\.npz cannot be read"):
        compared([run])


def test_the_accuracy_from_the_predictions_is_that_of_the_record(contest):
    _, comparison = compared(contest)
    for estimate in comparison.estimates:
        runs = [run for run in contest if run.variant == estimate.cell.variant]
        recorded = [read_record(run.path).metrics("fused").accuracy for run in runs]
        assert estimate.interval.estimate == pytest.approx(np.mean(recorded))


def test_mcnemar_is_listed_per_seed_and_never_pooled(contest):
    table = mcnemar_table(*compared(contest))
    assert len(table.rows) == 3 * 3
    row = next(r for r in table.rows if (r["variant"], r["against"]) == ("good", "bad"))
    assert row["only_variant_right"] - row["only_against_right"] == 50
    assert table.heads == ("", "seed 0", "seed 1", "seed 2")
    texts = {row[0].text: [entry.text for entry in row[1:]] for row in table.blocks[0].rows}
    assert texts["bad"] == ["<0.001", "<0.001", "<0.001"]


def test_readers_see_each_variant_less_the_best(contest):
    table = significance_table(*compared(contest))
    rows = {row[0].text: row[1] for row in table.blocks[0].rows}
    assert rows["bad"].text == f"{MINUS}50.0"
    assert table.heads == ("", "difference", "95 % interval", "p", "seeds")
    assert [row[4].text for row in table.blocks[0].rows] == ["3", "3", "3"]
    assert (rows["good"].bold, rows["as_good"].bold, rows["bad"].bold) == (True, True, False)


def test_intervals_hold_the_accuracy(contest):
    for row in intervals_table(*compared(contest)).rows:
        assert row["ci95_low"] < row["accuracy"] < row["ci95_high"]
        assert (row["seeds"], row["groups"], row["samples"]) == (3, 100, 100)


@pytest.mark.parametrize("right", [59, 1])
def test_no_interval_of_an_accuracy_leaves_what_an_accuracy_can_be(make, plan, right):
    values = {"fused": right / 60}
    runs = make(*(plan.with_(seed=seed, samples=60, values=values) for seed in range(3)))
    (row,) = intervals_table(*compared(runs)).rows
    assert row["accuracy"] == pytest.approx(right / 60)
    assert (row["ci95_high"] == 1) == (right == 59)
    assert (row["ci95_low"] == 0) == (right == 1)


def test_what_was_drawn_is_that_of_the_pair_s_own_dataset(make, plan):
    counts = {"AVE": 20, "CREMAD": 5}
    ids = [f"test-{i:04d}" for i in range(60)]
    groups = {
        name: {each: f"video{i % count}" for i, each in enumerate(ids)}
        for name, count in counts.items()
    }
    runs = make(
        *(plan.with_(dataset=name, variant=v) for name in counts for v in ("first", "second"))
    )
    rows = significance_table(*compared(runs, groups)).rows
    assert {row["dataset"]: row["resampled"] for row in rows} == {
        "AVE": "20 groups",
        "CREMAD": "5 groups",
    }


def test_a_dataset_of_several_splits_is_ranked_by_the_mean_over_them(make, plan):
    accuracies = {"uneven": (0.6, 0.8), "even": (0.65, 0.65)}
    runs = make(
        *(
            plan.with_(variant=name, split=split, values={"fused": value})
            for name, values in accuracies.items()
            for split, value in zip(("first", "second"), values, strict=True)
        )
    )
    found = {row["variant"]: row["average_rank"] for row in ranks_table(collect(runs, [])).rows}
    assert found == {"uneven": 1.0, "even": 2.0}


def test_a_variant_that_lacks_the_harder_split_is_not_ranked_by_the_easier_one(make, plan):
    plans = [
        plan.with_(variant=name, split=split, values={"fused": value})
        for name in ("whole", "half")
        for split, value in (("easy", 0.9), ("hard", 0.3))
    ]
    runs = make(*plans[:3], plans[3].with_(state="failed"))
    table = ranks_table(collect(runs, [], partial=True))
    assert [row["variant"] for row in table.rows] == ["whole"]
    assert "on every split, by the mean over a dataset's splits." in table.caption
    assert "split" not in ranks_table(collect(make(plan), [])).caption


def test_ranks_are_described_only_under_eight_datasets(make, plan):
    runs = [
        run
        for number in range(5)
        for run in make(
            plan.with_(dataset=f"d{number}", variant="good", values={"fused": 0.9}),
            plan.with_(dataset=f"d{number}", variant="bad", values={"fused": 0.4}),
        )
    ]
    table = ranks_table(collect(runs, []))
    assert [(row["variant"], row["average_rank"]) for row in table.rows] == [
        ("bad", 2.0),
        ("good", 1.0),
    ]
    assert "made from 8 of them up" in table.notes[1]
    assert "is 0.0625, before any correction" in table.notes[1]
    assert len(table.notes) == 2


def test_datasets_of_the_same_clips_are_named_under_the_ranks(make, plan):
    names = ("IEMOCAP", "IEMOCAP3", "AVE", "CREMAD", "URFUNNY", "MVSA")
    runs = make(*(plan.with_(dataset=name) for name in names))
    _, first, second = ranks_table(collect(runs, [])).notes
    assert "made from 8 of them up" in first, "0.03 over six is below 0.05 and no reason by itself"
    assert second.startswith("IEMOCAP and IEMOCAP3 share clips")


def test_ranks_say_which_seeds_are_not_there(make, plan):
    runs = make(
        *(plan.with_(dataset=name, seed=seed) for name in ("AVE", "CREMAD") for seed in range(2)),
        plan.with_(dataset="AVE", variant="late"),
        plan.with_(dataset="CREMAD", variant="late"),
        plan.with_(dataset="CREMAD", variant="late", seed=1, state="running"),
    )
    table = ranks_table(collect(runs, [], partial=True))
    texts = {row[0].text: row[2].text for row in table.blocks[0].rows}
    assert texts == {"naive": "4", "late": "2 of 3, 1 running"}
    found = {row["variant"]: (row["seeds"], row["expected_seeds"]) for row in table.rows}
    assert found == {"naive": (4, 4), "late": (2, 3)}


def test_the_first_of_equal_means_is_the_best(make, plan):
    """In another order of seeds the same accuracies have a mean that differs in its last digit."""
    accuracies = {"first": (0.3, 0.2, 0.1), "second": (0.1, 0.2, 0.3)}
    runs = make(
        *(
            plan.with_(variant=name, seed=seed, samples=100, values={"fused": value})
            for name, values in accuracies.items()
            for seed, value in enumerate(values)
        )
    )
    assert best_of(collect(runs, []).cells).variant == "first"


def test_ranks_are_tested_from_eight_datasets_up(make, plan):
    runs = [
        run
        for number in range(8)
        for run in make(
            plan.with_(dataset=f"d{number}", variant="good", values={"fused": 0.9}),
            plan.with_(dataset=f"d{number}", variant="bad", values={"fused": 0.4}),
        )
    ]
    row = ranks_table(collect(runs, [])).rows[-1]
    assert (row["variant"], row["against"]) == ("good", "bad")
    assert row["wilcoxon_p"] == pytest.approx(2 / 2**8)


def test_a_variant_that_lacks_a_dataset_is_not_ranked(make, plan):
    runs = make(plan, plan.with_(dataset="CREMAD"), plan.with_(variant="half"))
    assert [row["variant"] for row in ranks_table(collect(runs, [])).rows] == ["naive"]
