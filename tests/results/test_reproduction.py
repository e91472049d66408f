"""Published figures beside ours."""

import csv
import json
from pathlib import Path

import pytest

from amst.errors import AmstError
from amst.grid import Resolver, cells, read_config
from amst.results.cells import collect
from amst.results.sheet import to_html, to_latex, to_markdown
from amst.results.tables.entries import number
from amst.results.tables.reproduction import (
    differences,
    read_figures,
    reproduction_table,
)

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "workflow" / "reference" / "published.csv"
REPRODUCTION = ROOT / "workflow" / "configs" / "reproduction.yaml"


@pytest.fixture
def figure(tmp_path):
    """A file with one published figure; tests change its fields."""

    def write(**changes):
        row = {
            "dataset": "CREMAD",
            "split": "amst",
            "method": "mla",
            "variant": "released",
            "head_or_prediction": "entropy (of embeddings)",
            "seeds": "1",
            "part": "test",
            "metric": "accuracy",
            "value": "76.95",
            "best_epoch": "70",
            "source": "a log",
        } | changes
        path = tmp_path / "published.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)
        return read_figures(path)

    return write


@pytest.fixture
def mla(plan):
    return plan.with_(dataset="CREMAD", split="amst", method="mla", variant="mla", samples=100)


def test_a_published_figure_stands_beside_ours_with_its_prediction_interval(make, mla, figure):
    values = (0.75, 0.77, 0.79)
    runs = make(*(mla.with_(seed=i, values={"entropy": v}) for i, v in enumerate(values)))
    (row,) = reproduction_table(collect(runs, []), figure()).rows
    assert (row["prediction"], row["published"], row["seeds"]) == ("entropy", 0.7695, 3)
    assert row["difference"] == pytest.approx(0.77 - 0.7695)
    half = 4.30265 * 0.02 * (4 / 3) ** 0.5
    assert row["prediction_low"] == pytest.approx(0.77 - half, rel=1e-4)
    assert row["within"] == "yes"


def test_a_figure_outside_the_interval_is_not_reproduced(make, mla, figure):
    runs = make(*(mla.with_(seed=i, values={"entropy": 0.5}) for i in range(3)))
    (row,) = reproduction_table(collect(runs, []), figure()).rows
    assert row["within"] == "no"


def test_under_three_seeds_nothing_is_said(make, mla, figure):
    runs = make(mla, mla.with_(seed=1))
    (row,) = reproduction_table(collect(runs, []), figure()).rows
    assert (row["within"], row["prediction_low"]) == ("", None)
    assert row["difference"] is not None


def test_the_mean_of_several_published_seeds_has_a_narrower_interval(make, mla, figure):
    runs = make(*(mla.with_(seed=i, values={"entropy": v}) for i, v in enumerate((0.7, 0.8, 0.9))))
    (one,) = reproduction_table(collect(runs, []), figure()).rows
    (five,) = reproduction_table(collect(runs, []), figure(seeds="5")).rows
    widths = [row["prediction_high"] - row["prediction_low"] for row in (one, five)]
    assert widths[1] / widths[0] == pytest.approx(((1 / 5 + 1 / 3) / (1 + 1 / 3)) ** 0.5)


def test_every_variant_of_the_method_has_a_row_and_other_methods_none(make, mla, figure):
    runs = make(mla, mla.with_(variant="mla_released"), mla.with_(variant="naive", method="naive"))
    rows = reproduction_table(collect(runs, []), figure()).rows
    assert [row["variant"] for row in rows] == ["mla", "mla_released"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("equal", "equal"),
        ("weights audio 0.3 visual 0.7", "weights"),
        ("visual", "modality/visual"),
        ("fused", "equal"),
    ],
)
def test_published_names_of_predictions_are_understood(make, mla, figure, theirs, ours):
    (row,) = reproduction_table(collect(make(mla), []), figure(head_or_prediction=theirs)).rows
    assert row["prediction"] == ours


@pytest.mark.parametrize("change", [{"dataset": "AVE"}, {"split": "group"}, {"method": "pmr"}])
def test_a_figure_without_a_run_is_listed_alone(make, mla, figure, change):
    (row,) = reproduction_table(collect(make(mla), []), figure(**change)).rows
    assert row["published"] == 0.7695
    assert "variant" not in row


def test_a_failed_run_of_the_method_is_said(make, mla, figure):
    table = reproduction_table(collect(make(mla.with_(state="failed")), [], partial=True), figure())
    texts = [entry.text for entry in table.blocks[0].rows[0]]
    assert (texts[0], texts[5]) == ("mla", "failed")


def test_readers_see_published_conditions_beside_our_settings(make, mla, figure):
    ours = mla.with_(method_settings={"entropy_of": "logits"}, values={"entropy": 0.75})
    table = reproduction_table(collect(make(*(ours.with_(seed=i) for i in range(3))), []), figure())
    (block,) = table.blocks
    assert block.title == "CREMAD amst, mla; published with: released"
    assert block.about == "Ours: mla with epochs 30, entropy_of logits."
    for form in (to_markdown(table), to_latex(table).replace(r"\_", "_"), to_html(table)):
        assert "epochs 30, entropy_of logits" in form
    assert all(entry.runs for entry in block.rows[0][5:]), "every number links to its runs"


def test_readers_see_the_metric_and_no_percent_of_what_is_no_share(make, mla, figure):
    collection = collect(make(*(mla.with_(seed=i) for i in range(3))), [])
    share = reproduction_table(collection, figure(metric="macro_f1", value="76"))
    loss = reproduction_table(collection, figure(metric="cross_entropy", value="1.25"))
    assert [entry.text for entry in share.blocks[0].rows[0][3:5]] == ["macro f1", "76.0"]
    texts = [entry.text for entry in loss.blocks[0].rows[0][3:8]]
    row = loss.rows[0]
    assert texts == [
        "cross entropy",
        "1.250",
        f"{row['mean']:.3f} ± {row['std']:.3f} (3)",
        number(row["difference"], 3),
        f"{number(row['prediction_low'], 3)} to {number(row['prediction_high'], 3)}",
    ]


def test_the_heading_calls_a_dataset_as_readers_know_it(make, mla, figure):
    collection = collect(make(mla), [], {"CREMAD": "CREMA-D"})
    table = reproduction_table(collection, figure())
    assert table.blocks[0].title == "CREMA-D amst, mla; published with: released"
    assert table.rows[0]["dataset"] == "CREMAD"


def test_figures_of_datasets_that_are_not_in_the_grid_are_one_line(make, plan, figure):
    table = reproduction_table(collect(make(plan), []), figure())
    assert table.blocks == ()
    assert "1 of 1 published figures are of datasets that this grid" in table.notes[-1]
    assert "(CREMAD)" in to_markdown(table)


def test_the_formula_is_set_as_one_in_latex(make, mla, figure):
    text = to_latex(reproduction_table(collect(make(mla), []), figure()))
    assert r"$\pm$ $t_{n-1}\,s\sqrt{1/m + 1/n}$ from n seeds" in text


AMST = {
    "method": "amst_full",
    "head_or_prediction": "fused",
    "settings": '{"skip": {"audio": 5}, "recipe": {"epochs": 30}}',
}


@pytest.mark.parametrize("skip", [{"audio": 5}, {"audio": 5, "visual": 1}])
def test_our_run_of_the_published_settings_is_compared(make, mla, figure, skip):
    ours = mla.with_(method="amst_full", method_settings={"skip": skip, "second_branch": "paper"})
    runs = make(*(ours.with_(seed=i) for i in range(3)))
    (row,) = reproduction_table(collect(runs, []), figure(**AMST)).rows
    assert row["within"] in ("yes", "no")
    assert row["differs"] == ""
    assert json.loads(row["published_settings"]) == json.loads(AMST["settings"])


@pytest.mark.parametrize(
    ("method", "changes", "ours", "differs"),
    [
        ("amst_full", AMST, {"skip": {"audio": 1}}, "skip.audio 1 instead of skip.audio 5"),
        ("amst_full", AMST, {}, "no skip instead of skip.audio 5"),
        (
            "amst_full",
            AMST | {"settings": '{"skip": {"audio": 5}, "recipe": {"epochs": 100}}'},
            {"skip": {"audio": 5, "visual": 2}},
            "skip.audio 5, skip.visual 2 instead of skip.audio 5; "
            "recipe.epochs 30 instead of recipe.epochs 100",
        ),
        (
            "mla",
            {"settings": '{"entropy_of": "embeddings"}'},
            {"entropy_of": "logits"},
            "entropy_of logits instead of entropy_of embeddings",
        ),
        (
            "mla",
            {
                "head_or_prediction": "weights audio 0.3 visual 0.7",
                "settings": '{"weights": {"audio": 0.3, "visual": 0.7}}',
            },
            {"weights": {"audio": 0.7, "visual": 0.3}},
            "weights.audio 0.7, weights.visual 0.3 instead of weights.audio 0.3, "
            "weights.visual 0.7",
        ),
    ],
)
def test_a_figure_of_other_settings_has_no_verdict(
    make, mla, figure, method, changes, ours, differs
):
    plan = mla.with_(method=method, method_settings=ours)
    runs = make(*(plan.with_(seed=i) for i in range(3)))
    table = reproduction_table(collect(runs, []), figure(**changes))
    (row,) = table.rows
    assert (row["within"], row["differs"]) == ("other settings", differs)
    assert row["mean"] is not None
    assert table.blocks[0].rows[0][-1].text == "other settings"


def test_a_number_is_compared_as_one(make, mla, figure):
    ours = mla.with_(method="ogm_ge", method_settings={"alpha": 1.0})
    of_ogm = {"method": "ogm_ge", "head_or_prediction": "fused", "settings": '{"alpha": 1}'}
    (row,) = reproduction_table(collect(make(ours), []), figure(**of_ogm)).rows
    assert row["differs"] == ""


def test_a_file_without_the_column_settings_is_compared_by_its_values_alone(make, mla, figure):
    runs = make(*(mla.with_(seed=i, values={"entropy": 0.77}) for i in range(3)))
    (row,) = reproduction_table(collect(runs, []), figure()).rows
    assert (row["within"], row["differs"], row["published_settings"]) == ("no", "", "")


@pytest.mark.parametrize(("value", "word"), [("77", "not excluded"), ("99", "excluded")])
def test_readers_are_told_what_the_interval_excludes(make, mla, figure, value, word):
    runs = make(*(mla.with_(seed=i, values={"entropy": 0.76 + i / 100}) for i in range(3)))
    table = reproduction_table(collect(runs, []), figure(value=value))
    assert table.blocks[0].rows[0][-1].text == word


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("audio 5", r"published\.csv line 2: settings: no JSON object"),
        ("[5]", r"published\.csv line 2: settings: no JSON object"),
        ('{"entropyof": "logits"}', r"published\.csv line 2: settings\.entropyof: unknown"),
        ('{"weights": {"audio": -1}}', r"published\.csv line 2: settings\.weights\.audio: "),
        ('{"recipe": {"epoch": 3}}', r"published\.csv line 2: settings\.recipe\.epoch: unknown"),
        ('{"recipe": 3}', r"published\.csv line 2: settings\.recipe: "),
    ],
)
def test_settings_that_the_method_does_not_have_are_named(figure, settings, message):
    with pytest.raises(AmstError, match=message):
        figure(settings=settings)


@pytest.mark.parametrize("settings", [None, "", '{"recipe": {"epochs": 100}}'])
def test_a_setting_that_a_run_needs_may_be_unknown_of_a_figure(figure, settings):
    given = {} if settings is None else {"settings": settings}
    (found,) = figure(method="unimodal", head_or_prediction="fused", **given)
    assert found.settings == json.loads(settings or "{}")
    with pytest.raises(AmstError, match=r"settings\.modal: unknown key"):
        figure(method="unimodal", settings='{"modal": "audio"}')


def test_settings_of_a_method_that_is_not_of_the_suite_are_not_looked_into(figure):
    (found,) = figure(method="another", settings='{"depth": 3}')
    assert found.settings == {"depth": 3}


def test_every_shipped_figure_says_its_settings_and_is_met_by_the_grid_of_reproduction():
    config = read_config(ROOT / "config.yaml", REPRODUCTION)
    runs = [Resolver(config)(cell) for cell in cells(config)]
    figures = read_figures(PUBLISHED)
    for figure in figures:
        assert figure.settings, figure
        names = (figure.dataset, figure.split, figure.method)
        ours = [run for run in runs if (run.dataset, run.split, run.method) == names]
        assert len(ours) >= 3, "seeds for a prediction interval"
        assert {text for run in ours for text in differences(figure, run)} == set(), figure
    assert {run.method for run in runs} == {figure.method for figure in figures}
    assert {run.dataset for run in runs} == {figure.dataset for figure in figures}


def test_the_shipped_figures_are_read():
    figures = read_figures(PUBLISHED)
    assert len(figures) == 24
    assert {f.dataset for f in figures} == {"CREMAD", "AVE"}
    assert all(0 < f.value < 1 for f in figures)


@pytest.mark.parametrize(
    ("metric", "value", "recorded"),
    [
        ("accuracy", "75.0", 0.75),
        ("macro_f1", "75.0", 0.75),
        ("mean_average_precision", "75.0", 0.75),
        ("cross_entropy", "1.5", 1.5),
    ],
)
def test_shares_are_read_from_percent_and_nothing_else_is(figure, metric, value, recorded):
    (found,) = figure(metric=metric, value=value)
    assert found.value == recorded


def test_a_value_that_is_no_number_is_named(figure):
    with pytest.raises(AmstError, match=r"published\.csv line 2"):
        figure(value="n/a")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": "0"}, "line 2: value 76.95, seeds 0"),
        ({"value": "nan"}, "line 2: value nan, seeds 1"),
        ({"metric": "acc"}, "line 2: unknown metric 'acc'.*Write one of accuracy, macro_f1"),
        ({"metric": "per_class_accuracy"}, "line 2: unknown metric"),
        ({"head_or_prediction": " "}, "line 2 has no head_or_prediction"),
    ],
)
def test_a_row_that_no_run_can_be_compared_with_is_named(figure, changes, said):
    with pytest.raises(AmstError, match=rf"published\.csv {said}"):
        figure(**changes)


def test_a_file_as_spreadsheets_save_it_is_read_or_told_to_be_in_utf_8(figure, tmp_path):
    (as_written,) = figure(source="Müller")
    path = tmp_path / "published.csv"
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert read_figures(path) == [as_written]
    path.write_text(text, encoding="latin-1")
    with pytest.raises(AmstError, match=r"published\.csv is no CSV in UTF-8 .*Save it as one"):
        read_figures(path)
    path.write_text(text.rpartition(",")[0])
    with pytest.raises(AmstError, match=r"published\.csv line 2 is cut off"):
        read_figures(path)
