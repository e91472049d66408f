"""Tables as pure functions of run records."""

import csv
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amst.records import read_record, write_record
from amst.results.cells import collect
from amst.results.names import TABLE_FORMS, TABLE_NAMES, TABLES_FROM_PREDICTIONS
from amst.results.sheet import DASH, MINUS, TIMES, to_csv, to_markdown
from amst.results.statistics import Summary
from amst.results.tables import TABLES, Material, make_tables, write_tables
from amst.results.tables.balance import balance_table
from amst.results.tables.cost import cost_table
from amst.results.tables.entries import difference_text, number
from amst.results.tables.scores import WORDS, score_table, validation_table
from amst.results.tables.unimodal import unimodal_table
from amst.training.environment import CAPTURED

ROOT = Path(__file__).parents[2]
RECORD_TABLES = tuple(name for name in TABLE_NAMES if name not in TABLES_FROM_PREDICTIONS)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def set_cost(run, **changes):
    """Replace parts of the cost in a finished run's record."""
    record = read_record(run.path)
    cost = record.cost.model_copy(update=changes)
    write_record(run.path, record.model_copy(update={"cost": cost}))


def shown(table):
    """What readers see of the first block: variant -> head -> text."""
    return {
        row[0].text: {head: e.text for head, e in zip(table.heads, row, strict=True)}
        for row in table.blocks[0].rows
    }


def cell_rows(runs, out, name, partial=True):
    """The rows of a table by the cell they are of."""
    write_tables(Material(collect(runs, [], partial=partial)), out, [name])
    found = {}
    for row in rows_of(out / f"{name}.csv"):
        found.setdefault((row["dataset"], row["split"], row["variant"]), []).append(row)
    return found


def test_the_names_that_the_workflow_knows_are_the_tables_there_are():
    assert tuple(TABLES) == TABLE_NAMES


def test_every_table_is_written_in_every_form(small_grid, tmp_path):
    written = write_tables(Material(collect(small_grid, [])), tmp_path)
    assert {path.name for path in written} == {
        f"{name}.{form}" for name in TABLE_NAMES for form in TABLE_FORMS
    }
    assert all(path.stat().st_size for path in written)


def test_every_column_stands_on_the_page(small_grid):
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    section = page.partition("## Columns of the CSV files")[2].partition("##")[0]
    first = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    told = set(re.findall("`([^`]+)`", " ".join(first)))
    tables = make_tables(Material(collect(small_grid, [])))
    assert told == {column for table in tables for column in table.columns}


def test_latex_sets_every_table_and_none_is_wider_or_higher_than_a_page(
    small_grid, tmp_path, typeset
):
    write_tables(Material(collect(small_grid, [])), tmp_path)
    said = typeset(tmp_path, *TABLE_NAMES)
    assert not re.search("Overfull|Float too large", said)


def test_the_main_table_has_a_row_per_variant_and_a_column_per_dataset(make, plan, tmp_path):
    values = (0.5, 0.6, 0.7)
    runs = make(
        *(plan.with_(seed=i, values={"fused": v}) for i, v in enumerate(values)),
        plan.with_(variant="ours", values={"fused": 0.8}),
        plan.with_(dataset="CREMAD", values={"fused": 0.25}),
    )
    collection = collect(runs, ["ours"], {"ours": "Ours"})
    write_tables(Material(collection), tmp_path, ["main"])
    assert (tmp_path / "main.md").read_text().splitlines()[2:6] == [
        "|  | CREMAD | digits |",
        "|:---|---:|---:|",
        f"| Ours | {DASH} | 80.0 (1) |",
        "| naive | 25.0 (1) | 60.0 ± 10.0 (3) |",
    ]
    row = rows_of(tmp_path / "main.csv")[-1]
    assert (row["dataset"], row["variant"], row["prediction"]) == ("digits", "naive", "fused")
    assert (row["part"], row["metric"]) == ("test", "accuracy")
    assert (float(row["mean"]), float(row["std"])) == pytest.approx((0.6, 0.1))
    assert float(row["ci95_low"]) == pytest.approx(0.6 - 4.30265 * 0.1 / 3**0.5, rel=1e-4)
    assert (row["seeds"], row["expected_seeds"]) == ("3", "3")


def test_the_main_table_shows_the_main_prediction_of_a_method_with_several(make, plan):
    runs = make(plan.with_(method="mla", values={"equal": 0.5, "entropy": 0.9}))
    (row,) = score_table("main", collect(runs, []), "accuracy").rows
    assert (row["prediction"], row["mean"]) == ("equal", 0.5)


def test_the_main_table_shows_the_metric_of_the_configuration(make, plan, tmp_path):
    (run,) = make(plan)
    metric = "mean_average_precision"
    write_tables(Material(collect([run], []), metric=metric), tmp_path, ["main"])
    (row,) = rows_of(tmp_path / "main.csv")
    expected = read_record(run.path).metrics("fused").mean_average_precision
    assert (row["metric"], float(row["mean"])) == (metric, expected)
    assert "Test mean average precision in %" in (tmp_path / "main.tex").read_text().replace(
        r"\%", "%"
    )


@pytest.mark.parametrize("form", ["md", "tex", "html"])
def test_tables_that_hold_variants_against_each_other_say_where_recipes_or_code_differ(
    make, plan, tmp_path, form
):
    runs = make(plan, plan.with_(seed=1), plan.with_(variant="ours", epochs=300))
    record = read_record(runs[1].path)
    older = record.environment.model_copy(update={"code_digest": "older"})
    write_record(runs[1].path, record.model_copy(update={"environment": older}))
    write_tables(Material(collect(runs, [])), tmp_path)
    for said in (
        "Trained differently on digits: epochs 300 (ours), 30 (naive).",
        "Means over seeds that different code or packages trained: naive on digits (seeds 0; 1).",
    ):
        with_note = {p.stem for p in tmp_path.glob(f"*.{form}") if said in p.read_text()}
        assert with_note == {"main", "significance", "unimodal"}


@pytest.mark.parametrize("metric", WORDS)
def test_the_validation_table_shows_the_main_prediction_on_the_validation_part(
    make, plan, tmp_path, metric
):
    runs = make(*(plan.with_(seed=seed, samples=200) for seed in range(3)))
    write_tables(Material(collect(runs, []), metric=metric), tmp_path, ["validation"])
    (row,) = rows_of(tmp_path / "validation.csv")
    of_val = [getattr(read_record(run.path).metrics("fused", "val"), metric) for run in runs]
    of_test = [getattr(read_record(run.path).metrics("fused"), metric) for run in runs]
    assert (row["part"], row["metric"], row["seeds"]) == ("val", metric, "3")
    assert float(row["mean"]) == pytest.approx(sum(of_val) / 3)
    assert sum(of_val) != pytest.approx(sum(of_test))
    text = (tmp_path / "validation.md").read_text()
    assert f"Validation {WORDS[metric]} in %" in text
    assert "Settings are to be chosen by this table" in text
    assert "higher than that of new samples" in text


def bold_in_validation(runs, partial=False):
    table = validation_table(collect(runs, [], partial=partial), "accuracy")
    return {row[0].text for row in table.blocks[0].rows if row[1].bold}


def test_the_best_variant_of_each_method_on_validation_is_bold(make, plan):
    ogm = plan.with_(method="ogm_ge")
    alone = plan.with_(method="unimodal", values={"fused": 0.4})
    runs = make(
        ogm.with_(variant="ogm-alpha-0.1", values={"fused": 0.5}),
        ogm.with_(variant="ogm-alpha-0.8", values={"fused": 0.6}),
        ogm.with_(variant="ogm-alpha-1.0", values={"fused": 0.6}),
        plan.with_(variant="only_one", method="mslr", values={"fused": 0.9}),
        alone.with_(variant="unimodal_audio", modalities=("audio",)),
        alone.with_(variant="unimodal_text", modalities=("text",)),
    )
    assert bold_in_validation(runs) == {"ogm-alpha-0.8", "ogm-alpha-1.0"}


@pytest.mark.parametrize("seeds", [1, 2])
def test_nothing_is_chosen_until_all_variants_of_the_method_are_done(make, plan, seeds):
    first, second = (plan.with_(variant=name, values={"fused": 0.5}) for name in ("a", "b"))
    states = ["done", "running"] if seeds == 2 else ["missing"]
    runs = make(first, *(second.with_(seed=i, state=state) for i, state in enumerate(states)))
    assert bold_in_validation(runs, partial=True) == set()


def test_a_note_says_why_nothing_is_bold(make, grid, plan, tmp_path):
    runs = make(plan.with_(variant="highest", values={"fused": 1.0}), *grid("naive", seeds=3))
    write_tables(Material(collect(runs, [])), tmp_path, ["main", "macro_f1"])
    text = (tmp_path / "main.md").read_text()
    assert "on no dataset does the best share 3 seeds with another variant" in text
    assert "the test behind bold numbers is one of acc" in (tmp_path / "macro_f1.md").read_text()
    write_tables(Material(collect(runs, []), metric="macro_f1"), tmp_path, ["main"])
    assert "the test behind bold numbers is one of acc" in (tmp_path / "main.md").read_text()


def test_unfinished_cells_say_so_and_the_count_of_seeds_stands_with_the_number(make, plan):
    runs = make(
        plan.with_(values={"fused": 0.5}),
        plan.with_(seed=1, state="running"),
        plan.with_(seed=2, state="failed"),
        plan.with_(variant="mla", state="missing"),
        plan.with_(variant="pmr", state="failed"),
        plan.with_(variant="pmr", seed=1, state="missing"),
    )
    table = score_table("main", collect(runs, [], partial=True), "accuracy")
    assert [[entry.text for entry in row] for row in table.blocks[0].rows] == [
        ["mla", "missing"],
        ["naive", "50.0 (1 of 3, 1 running, 1 failed)"],
        ["pmr", "1 missing, 1 failed"],
    ]
    assert [(r["missing"], r["running"], r["failed"]) for r in table.rows] == [
        (1, 0, 0),
        (0, 1, 1),
        (1, 0, 1),
    ]
    assert [(r["seeds"], r["expected_seeds"]) for r in table.rows] == [(0, 1), (1, 3), (0, 2)]
    naive, mean = table.blocks[0].rows[1]
    assert (naive.text, mean.runs) == ("naive", ("digits/random/naive/seed0",))


def test_numbers_have_a_true_minus_and_zero_has_none():
    assert [number(value, 1) for value in (-1.3, -0.04, 0.04)] == [f"{MINUS}1.3", "0.0", "0.0"]
    shown = {-0.123: f"{MINUS}12.3", 0.123: "+12.3", 0.0004: "0.0", -0.0004: "0.0"}
    for mean, text in shown.items():
        assert difference_text(Summary(mean, None, None, None, 1)) == text
        assert difference_text(Summary(mean, 0.1, mean - 0.02, mean + 0.02, 3)) == f"{text} ± 2.0"
    assert difference_text(None) == DASH


def test_runs_that_a_table_names_say_why_they_were_adopted(make, plan):
    (run,) = make(plan)
    record = read_record(run.path)
    write_record(run.path, record.model_copy(update={"adopted": ("code 1: a", "code 2: b")}))
    (origin,) = score_table("main", collect([run], []), "accuracy").origins.values()
    assert origin.adopted == "code 1: a; code 2: b"
    assert (origin.settings_hash, origin.code_digest) == (record.settings_hash, "c" * 64)


def test_names_for_readers_stand_in_all_tables_and_in_no_csv(small_grid):
    own = {run.variant for run in small_grid} | {"digits"}
    names = {name: f"Reader's {number}" for number, name in enumerate(sorted(own))}
    for table in make_tables(Material(collect(small_grid, [], names))):
        words = set(re.findall(r"\w+", to_markdown(table)))
        assert not words & own, table.name
        assert "Reader" not in to_csv(table)


def test_datasets_that_share_clips_are_called_as_readers_know_them(make, plan, tmp_path):
    runs = make(plan.with_(dataset="IEMOCAP"), plan.with_(dataset="IEMOCAP3"))
    collection = collect(runs, [], {"IEMOCAP3": "IEMOCAP (3)"})
    write_tables(Material(collection), tmp_path, ["ranks"])
    text = (tmp_path / "ranks.md").read_text()
    assert "every dataset (2: IEMOCAP, IEMOCAP (3))" in text
    assert "IEMOCAP and IEMOCAP (3) share clips" in text


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_tables_with_nothing_finished_can_be_made(make, plan, tmp_path, name):
    runs = make(plan.with_(state="missing"), plan.with_(variant="mla", state="failed"))
    material = Material(collect(runs, [], partial=True))
    assert len(write_tables(material, tmp_path, [name])) == len(TABLE_FORMS)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_records_changes_no_byte(small_grid, tmp_path_factory, shuffler):
    shuffled = list(small_grid)
    shuffler.shuffle(shuffled)
    before, after = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    for runs, out in ((small_grid, before), (shuffled, after)):
        material = Material(collect(runs, ["naive"]))
        write_tables(material, out, [*RECORD_TABLES, "main"])
    for path in sorted(before.iterdir()):
        assert path.read_bytes() == (after / path.name).read_bytes(), path.name


def test_times_and_hosts_change_nothing_but_cost_and_runs(make, plan, tmp_path):
    (run,) = make(plan)
    before, after = tmp_path / "before", tmp_path / "after"
    names = [name for name in TABLE_NAMES if name not in ("cost", "runs")]
    write_tables(Material(collect([run], [])), before, names)
    record = read_record(run.path)
    changed = {
        "cost": record.cost.model_copy(update={"train_seconds": 9e9, "attempts": 7}),
        "environment": record.environment.model_copy(update={"host": "elsewhere"}),
        "started": "2031-01-01T00:00:00+00:00",
        "finished": "2031-01-02T00:00:00+00:00",
    }
    write_record(run.path, record.model_copy(update=changed))
    write_tables(Material(collect([run], [])), after, names)
    for path in sorted(before.iterdir()):
        assert path.read_bytes() == (after / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", ["main", "macro_f1", "validation", "balance"])
@pytest.mark.parametrize("seed", range(3))
def test_dropping_a_run_changes_no_other_cell(small_grid, tmp_path, name, seed):
    dropped = random.Random(seed).choice(small_grid)
    whole = cell_rows(small_grid, tmp_path / "whole", name)
    fewer = cell_rows([r for r in small_grid if r is not dropped], tmp_path / "fewer", name)
    changed = {key for key in whole if whole[key] != fewer.get(key)}
    assert changed == {(dropped.dataset, dropped.split, dropped.variant)}


@pytest.mark.parametrize("name", ["main", "unimodal", "cost"])
def test_adding_a_seed_changes_no_cell_of_another_method(make, grid, tmp_path, name):
    runs = make(*grid("ogm_ge", "pmr", "mla", seeds=2))
    more = make(*[plan for plan in grid("pmr", seeds=3) if plan.seed == 2])
    before = cell_rows(runs, tmp_path / "before", name)
    after = cell_rows([*runs, *more], tmp_path / "after", name)
    assert {key for key in after if before.get(key) != after[key]} == {("digits", "random", "pmr")}


def test_the_unimodal_table_pairs_seeds_with_the_modality_trained_alone(make, plan):
    alone = plan.with_(variant="alone", method="unimodal", modalities=("visual",))
    joint = plan.with_(modalities=("audio", "visual"))
    visual_alone, inside = (0.7, 0.8, 0.9), (0.5, 0.5, 0.8)
    plans = []
    for seed in range(3):
        same = dict.fromkeys(("fused", "modality/visual"), visual_alone[seed])
        encoder = {"linear/visual": visual_alone[seed] + 0.05}
        plans.append(alone.with_(seed=seed, values=same | encoder))
        values = dict.fromkeys(("probe/visual", "linear/visual"), inside[seed])
        plans.append(joint.with_(seed=seed, values=values))
    runs = make(*plans)
    table = unimodal_table(collect(runs, ["alone"]))
    rows = {r["prediction"]: r for r in table.rows if r["variant"] != "alone"}
    probe, linear = rows["probe/visual"], rows["linear/visual"]
    assert (probe["reference"], probe["pairs"]) == ("alone", 3)
    assert probe["difference"] == pytest.approx(-0.2)
    assert probe["difference_low"] == pytest.approx(-0.2 - 4.30265 * 0.1 / 3**0.5, rel=1e-4)
    assert linear["difference"] == pytest.approx(-0.25), "against the same of the encoder alone"
    (row,) = (row for row in table.blocks[0].rows if row[0].text == "naive")
    assert row[1].text == "encoder"
    assert row[-1].text.startswith(f"{MINUS}25.0 ± 24.8")


@pytest.fixture
def several_alone(plan):
    """Two variants that train visual alone with recipes of their own, and methods of each."""
    short, usual = (
        plan.with_(variant=name, method="unimodal", modalities=("visual",), epochs=epochs)
        for name, epochs in (("unimodal_short", 3), ("unimodal_visual", 30))
    )
    naive = plan.with_(modalities=("visual",))
    return [
        short.with_(values={"fused": 0.5, "modality/visual": 0.5}),
        usual.with_(values={"fused": 0.8, "modality/visual": 0.8}),
        naive,
        naive.with_(variant="quick", epochs=3),
        naive.with_(variant="long", epochs=90),
    ]


def references_of(table):
    rows = [row for row in table.rows if row["modality"] == "visual"]
    return {row["variant"]: row.get("reference") for row in rows}


def test_the_modality_alone_is_that_of_the_same_recipe_else_the_one_named_so(make, several_alone):
    table = unimodal_table(collect(make(*several_alone), ["unimodal_short"], {"quick": "Quick"}))
    assert references_of(table) == {
        "unimodal_short": None,
        "unimodal_visual": None,
        "naive": "unimodal_visual",
        "quick": "unimodal_short",
        "long": "unimodal_visual",
    }
    assert "on digits visual alone is unimodal_short for Quick, else unimod" in table.notes[1]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [(("another", "unimodal_visual"), "unimodal_visual"), (("form-b", "form-a"), "form-b")],
)
def test_among_several_of_one_recipe_it_is_the_one_named_so_else_the_first(
    make, plan, names, chosen
):
    alone = [plan.with_(variant=n, method="unimodal", modalities=("visual",)) for n in names]
    table = unimodal_table(collect(make(plan, *alone), names))
    assert references_of(table) == dict.fromkeys(names) | {"naive": chosen}
    assert f"on digits visual alone is {chosen}." in table.notes[1]


def test_the_one_variant_that_trains_a_modality_alone_needs_no_name(small_grid):
    assert len(unimodal_table(collect(small_grid, [])).notes) == 2


def test_the_unimodal_table_lists_every_prediction_of_a_method(make, plan):
    runs = make(plan.with_(method="amst_full", modalities=("audio", "visual")))
    found = [row["prediction"] for row in unimodal_table(collect(runs, [])).rows]
    own, fitted = ("joint/modality", "modality"), ("joint/linear", "linear")
    kinds = (*fitted, *own, "joint/probe", "probe")
    branches = [f"{kind}/{modality}" for kind in kinds for modality in ("audio", "visual")]
    assert found == ["fused", "alternating", "joint", *branches]


def test_the_unimodal_table_has_a_row_per_prediction_at_the_epoch_that_is_its_own(
    make, plan, tmp_path
):
    values = {"equal": 0.5, "entropy": 0.9, "modality/audio": 0.4}
    (run,) = make(plan.with_(method="mla", modalities=("audio", "visual"), values=values))
    record = read_record(run.path)
    assert record.metrics("entropy").accuracy == pytest.approx(0.8), "at the epoch of equal"
    assert record.metrics("modality/audio", selected_by="entropy").accuracy == pytest.approx(0.3)
    write_tables(Material(collect([run], [])), tmp_path, ["unimodal"])
    rows = rows_of(tmp_path / "unimodal.csv")
    means = {row["prediction"]: float(row["mean"]) for row in rows}
    assert len(rows) == len(means) == 9, "three fused ones and three of each modality"
    assert {name: means[name] for name in values} == pytest.approx(values)


def test_readers_see_encoders_and_own_predictions_of_every_branch(make, plan):
    runs = make(plan.with_(method="amst_full", modalities=("audio", "visual"), variant="amst_full"))
    table = unimodal_table(collect(runs, []))
    assert [(row[0].text, row[1].text) for row in table.blocks[0].rows] == [
        ("amst_full", "encoder"),
        ("", "own"),
        ("", "joint encoder"),
        ("", "joint own"),
    ]
    assert table.blocks[0].rows[2][3].text.endswith("(1)")
    assert "rows named joint are of the second one" in table.notes[1]
    assert "fused is of the whole method" in table.notes[1]
    assert table.beside == ("What each of two models fuses by itself is in unimodal.csv.",)
    assert "interval wholly below zero" in table.notes[0]
    assert "no correction for several, and knows nothing of other test samples" in table.notes[0]


def test_of_two_variants_with_the_same_mean_in_validation_both_are_bold(make, plan):
    """Their means differ in the last digit."""
    accuracies = {"spread": (0.3, 0.2, 0.1), "even": (0.2, 0.2, 0.2)}
    runs = make(
        *(
            plan.with_(variant=name, seed=seed, samples=100, values={"fused": value})
            for name, values in accuracies.items()
            for seed, value in enumerate(values)
        )
    )
    table = validation_table(collect(runs, []), "accuracy")
    assert len({row["mean"] for row in table.rows}) == 2
    assert [row[1].bold for row in table.blocks[0].rows] == [True, True]


def test_latex_names_no_file_that_a_paper_lacks(small_grid, tmp_path):
    write_tables(Material(collect(small_grid, [])), tmp_path)
    for path in tmp_path.glob("*.tex"):
        assert "csv" not in path.read_text().lower(), path.name
        assert r"\setlength{\belowcaptionskip}" in path.read_text()
    assert "significance.csv" in (tmp_path / "significance.md").read_text()


def test_the_balance_table_has_contributions_and_subsets(make, plan):
    runs = make(plan.with_(modalities=("audio", "visual")))
    rows = balance_table(collect(runs, [])).rows
    found = {(row["quantity"], row["modalities"]): row["mean"] for row in rows}
    # The factory's subsets: 0.5 alone, 0.7 together, 0.1 for none.
    assert found == pytest.approx(
        {
            ("shapley", "audio"): 0.3,
            ("shapley", "visual"): 0.3,
            ("accuracy", "audio"): 0.5,
            ("accuracy", "visual"): 0.5,
            ("accuracy", "audio+visual"): 0.7,
        }
    )


def test_hours_bytes_and_operations_are_those_of_the_record(make, plan):
    (run,) = make(plan.with_(modalities=("audio", "visual")))
    set_cost(
        run,
        train_seconds=3600.0,
        validate_seconds=1800.0,
        load_seconds=1800.0,
        peak_host_bytes=2**30,
        peak_device_bytes=10 * 2**30,
        forward_flops={"audio": 3e9, "visual": 1e9},
        backward_flops={"audio": 5e9, "visual": 2e9},
    )
    table = cost_table(collect([run], []))
    means = {(row["quantity"], row["modality"]): row["mean"] for row in table.rows}
    expected = {
        ("hours", ""): 2.0,
        ("train_hours", ""): 1.0,
        ("validate_hours", ""): 0.5,
        ("load_hours", ""): 0.5,
        ("peak_host", ""): 2**30,
        ("peak_device", ""): 10 * 2**30,
        ("flops", ""): 11e9,
        ("forward_flops", "audio"): 3e9,
        ("backward_flops", "audio"): 5e9,
        ("forward_flops", "visual"): 1e9,
        ("backward_flops", "visual"): 2e9,
    }
    assert {key: means[key] for key in expected} == expected
    heads = ("hours", "host GiB", "device GiB", "FLOP audio", "FLOP visual")
    texts = shown(table)["naive"]
    assert [texts[head] for head in heads] == ["2", "1.0", "10.0", "8 G", "3 G"]


def test_the_best_epoch_is_that_of_the_main_prediction(make, plan):
    runs = make(plan.with_(method="mla", epochs=30))
    epochs = {row.best_epoch for row in read_record(runs[0].path).results}
    assert epochs == {29, 28, 27}, "each fused prediction has selected its own"
    rows = {row["quantity"]: row["mean"] for row in cost_table(collect(runs, [])).rows}
    assert (rows["best_epoch"], rows["epochs"]) == (29, 30)


def test_cost_is_compared_with_naive_over_common_seeds(make, plan):
    runs = make(
        plan.with_(seconds=100),
        plan.with_(seed=1, seconds=200),
        plan.with_(variant="amst_joint", method="amst_joint", seconds=50, modalities=("audio",)),
        plan.with_(variant="amst_joint", method="amst_joint", seed=2, seconds=999).with_(
            modalities=("audio",)
        ),
    )
    rows = cost_table(collect(runs, [])).rows
    ratios = {(r["variant"], r["quantity"]): r["ratio_to_naive"] for r in rows}
    assert ratios["amst_joint", "hours"] == pytest.approx(0.5)
    assert ratios["amst_joint", "flops"] == pytest.approx(1 / 3)
    assert ratios["naive", "hours"] == 1.0


@pytest.mark.parametrize("first", ["naive", "slow_naive"])
def test_ratios_are_to_the_variant_named_naive_and_say_so(make, plan, first):
    runs = make(plan.with_(seconds=100), plan.with_(variant="slow_naive", seconds=200))
    table = cost_table(collect(runs, [first]))
    ratios = {r["variant"]: r["ratio_to_naive"] for r in table.rows if r["quantity"] == "hours"}
    assert ratios == {"naive": 1.0, "slow_naive": 2.0}
    assert {row["reference"] for row in table.rows} == {"naive"}
    assert "ratio to joint training (naive), paired" in table.notes[0]


def test_ratios_to_other_variants_on_other_datasets_say_which(make, plan):
    runs = make(plan, plan.with_(dataset="AVE", variant="joint"))
    table = cost_table(collect(runs, []))
    assert "joint training (joint on AVE; naive on digits)" in table.notes[0]


def test_the_hours_of_all_runs_are_told_by_device(make, plan):
    runs = make(
        plan.with_(device="A100", seconds=3600),
        plan.with_(device="A100", seconds=5400, seed=1),
        plan.with_(device="H100", seconds=900, dataset="AVE"),
        plan.with_(seed=2, state="failed"),
    )
    told = cost_table(collect(runs, [], partial=True)).notes[-1]
    assert told == "All runs together (how many): 0.3 hours on H100 (1); 3 hours on A100 (2)."
    assert len(cost_table(collect(runs[-1:], [], partial=True)).notes) == 1


def test_a_cpu_has_no_device_memory_of_its_own(make, plan):
    table = cost_table(collect(make(plan), []))
    assert shown(table)["naive"]["device GiB"] == DASH
    assert "peak_device" not in {row["quantity"] for row in table.rows}


@pytest.mark.parametrize("device", ["NVIDIA H200", "cpu" + CAPTURED])
def test_hours_on_different_devices_have_no_ratio_but_operations_have(make, plan, device):
    runs = make(plan, plan.with_(variant="mla", method="mla", device=device))
    for run in runs:
        set_cost(run, load_seconds=9.0, peak_device_bytes=2**30)
    table = cost_table(collect(runs, []))
    rows = {r["quantity"]: r for r in table.rows if r["variant"] == "mla"}
    of_the_device = ("hours", "train_hours", "validate_hours", "load_hours", "peak_device")
    assert [rows[name]["ratio_to_naive"] for name in of_the_device] == [None] * 5
    assert rows["flops"]["ratio_to_naive"] == 1.0
    assert rows["hours"]["device"] == device
    texts = shown(table)["mla"]
    assert (texts[f"{TIMES} naive"], texts[f"FLOP {TIMES} naive"]) == (DASH, "1.00")


@pytest.mark.parametrize(
    ("ours", "ratio"), [(("H100", "A100", "H100"), None), (("H100", "H100", "H100"), 2.0)]
)
def test_hours_have_a_ratio_over_the_seeds_that_shared_a_device(make, plan, ours, ratio):
    theirs = ("A100", "H100", "A100")
    runs = make(
        *(plan.with_(seed=i, device=name, seconds=100) for i, name in enumerate(theirs)),
        *(
            plan.with_(variant="mla", method="mla", seed=i, device=name, seconds=seconds)
            for i, (name, seconds) in enumerate(zip(ours, (500, 200, 500), strict=True))
        ),
    )
    rows = {r["quantity"]: r for r in cost_table(collect(runs, [])).rows if r["variant"] == "mla"}
    assert rows["hours"]["ratio_to_naive"] == ratio
    assert rows["flops"]["ratio_to_naive"] == 1.0


def test_the_table_of_runs_traces_every_run(make, plan, tmp_path):
    runs = make(plan, plan.with_(seed=1, state="failed"))
    record = read_record(runs[0].path)
    more = {"attempts": 3}, ("code 1: a comment", "code 2: a name")
    changed = {"cost": record.cost.model_copy(update=more[0]), "adopted": more[1]}
    write_record(runs[0].path, record.model_copy(update=changed))
    runs[1] = replace(runs[1], why="its file is gone")
    write_tables(Material(collect(runs, [], partial=True)), tmp_path, ["runs"])
    done, failed = rows_of(tmp_path / "runs.csv")
    assert (done["attempts"], done["adopted"]) == ("3", "code 1: a comment; code 2: a name")
    assert (done["method"], done["host"], done["started"]) == ("naive", "node1", record.started)
    assert (done["why"], failed["why"]) == ("", "its file is gone")
    assert done["settings_hash"] == read_record(runs[0].path).settings_hash
    assert done["record"] == "digits/random/naive/seed0/run.json"
    assert (done["state"], failed["state"], failed["commit"]) == ("done", "failed", "")


def test_an_unknown_table_is_an_error(small_grid, tmp_path):
    with pytest.raises(KeyError):
        write_tables(Material(collect(small_grid, [])), tmp_path, ["best"])


def test_names_load_no_numbers_library_and_tables_no_torch():
    code = (
        "import sys; import amst.results.names; assert not {'numpy', 'scipy'} & set(sys.modules);"
        "import amst.results.tables, amst.results.figures; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
