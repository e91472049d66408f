"""Figures as pure functions of records and histories."""

import warnings

import numpy as np
import pytest
from PIL import Image

from amst.errors import AmstError
from amst.results.cells import collect
from amst.results.figures import FIGURES, write_figures
from amst.results.figures.finals import (
    _look,
    accuracy_against_hours,
    unimodal_against_fused,
)
from amst.results.figures.learning import learning_curves, skip_schedule
from amst.results.figures.style import looks_of
from amst.results.histories import histories, read_history
from amst.results.names import FIGURE_FORMS, FIGURE_NAMES


def test_the_names_that_the_workflow_knows_are_the_figures_there_are():
    assert tuple(FIGURES) == FIGURE_NAMES


def test_every_figure_of_every_dataset_is_written_without_a_warning(make, grid, plan, tmp_path):
    runs = make(*grid("unimodal_audio", "naive", "amst_full", seeds=2), plan.with_(dataset="AVE"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = write_figures(collect(runs, []), tmp_path)
    assert {path.name for path in written} == {
        f"{name}-{dataset}.{form}"
        for name in FIGURE_NAMES
        for dataset in ("AVE", "digits")
        for form in FIGURE_FORMS
    }
    for path in written:
        if path.suffix == ".png":
            assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_the_same_runs_give_the_same_bytes(make, plan, tmp_path):
    runs = make(plan, plan.with_(seed=1))
    first = write_figures(collect(runs, []), tmp_path / "first", ["curves"])
    second = write_figures(collect(runs[::-1], []), tmp_path / "second", ["curves"])
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


@pytest.mark.parametrize("name", FIGURE_NAMES)
def test_a_name_with_dollars_is_no_formula(make, plan, tmp_path, name):
    collection = collect(make(plan), [], {"naive": r"for 2 $\nothing$ more"})
    assert len(write_figures(collection, tmp_path, [name])) == len(FIGURE_FORMS)


def test_the_look_does_not_depend_on_the_users_settings(make, plan, tmp_path):
    import matplotlib as mpl

    collection = collect(make(plan), [])
    first = write_figures(collection, tmp_path / "first", ["modalities"])
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        second = write_figures(collection, tmp_path / "second", ["modalities"])
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


@pytest.mark.parametrize("name", FIGURE_NAMES)
def test_a_figure_of_nothing_finished_can_be_drawn(make, plan, tmp_path, name):
    runs = make(plan.with_(state="running"), plan.with_(variant="mla", state="failed"))
    assert write_figures(collect(runs, [], partial=True), tmp_path, [name])


def test_there_is_a_panel_per_variant_with_a_line_per_modality_and_one_fused(make, grid):
    runs = make(*grid("unimodal_audio", "naive", seeds=1))
    collection = collect(runs, ["unimodal_audio", "naive"], {"naive": "Joint"})
    panels = [a for a in learning_curves(collection, collection.cells).axes if a.get_visible()]
    assert [axes.get_title() for axes in panels] == ["unimodal_audio (1)", "Joint (1)"]
    # Besides the modalities and the fused prediction, each panel has the line of chance.
    assert [len(axes.get_lines()) for axes in panels] == [2, 5]


def test_a_long_title_takes_two_lines(make, plan):
    long = "amst_full_released"
    runs = make(plan.with_(variant=long), plan.with_(variant=long, seed=1, state="running"))
    collection = collect(runs, [], partial=True)
    title = learning_curves(collection, collection.cells).axes[0].get_title()
    assert title == "amst_full_released (1 of 2,\n1 running)"


def test_the_curve_is_of_the_probe(make, plan):
    (cell,) = collect(make(plan), []).cells
    (history,) = histories(cell)
    figure = learning_curves(collect([*cell.runs], []), [cell])
    drawn = figure.axes[0].get_lines()[1].get_ydata()
    assert drawn == pytest.approx(100 * history.val_accuracy["probe/audio"])


def test_the_schedule_shows_who_trains_when(make, plan):
    runs = make(plan.with_(variant="skips", method="amst_alternating"), plan)
    collection = collect(runs, [])
    (axes,) = skip_schedule(collection, collection.cells).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["skips: audio", "skips: visual", "skips: text"]
    # Audio trains in every fifth of the 30 epochs, text in every tenth.
    assert [len(bars.get_paths()) for bars in axes.collections] == [6, 30, 3]


def test_a_modality_looks_the_same_whatever_else_a_dataset_has(make, plan):
    runs = make(plan, plan.with_(dataset="CREMAD", modalities=("text", "visual")))
    collection = collect(runs, [])
    all_three, two = (looks_of(collection.block(*block)) for block in reversed(collection.blocks))
    assert {name: all_three[name] for name in two} == two
    assert len({look.colour for look in all_three.values()}) == 3


def test_a_broken_history_is_named(make, plan):
    (run,) = make(plan)
    path = run.path.parent / "history.csv"
    path.write_text("epoch,active\n")
    with pytest.raises(AmstError, match=r"history\.csv cannot be read"):
        read_history(path)


def test_the_legend_says_why_a_variant_has_no_mark(make, plan):
    missing = plan.with_(variant="mla", method="mla", state="missing")
    collection = collect(make(plan, missing), (), partial=True)
    drawn = accuracy_against_hours(collection, collection.cells)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["mla (missing)", "naive"]
    assert drawn.axes[0].get_xlim()[0] >= 0


def test_no_two_of_thirty_variants_look_alike():
    assert len({_look(place) for place in range(30)}) == 30


@pytest.mark.parametrize(
    ("seconds", "unit", "shown"),
    [(36000.0, "hours", 12.0), (500.0, "minutes", 10.0), (10.0, "seconds", 12.0)],
)
def test_times_are_shown_in_a_unit_that_reads_easily(make, plan, seconds, unit, shown):
    collection = collect(make(plan.with_(seconds=seconds)), ())
    (axes,) = accuracy_against_hours(collection, collection.cells).axes
    assert axes.get_xlabel() == f"{unit} of one run"
    assert axes.containers[0].lines[0].get_xdata() == pytest.approx([shown])


def test_epochs_count_from_one_as_in_the_logs(make, plan):
    collection = collect(make(plan.with_(epochs=5)), ())
    (panel, *_) = learning_curves(collection, collection.cells).axes
    assert list(panel.get_lines()[1].get_xdata()) == [1, 2, 3, 4, 5]
    (schedule,) = skip_schedule(collection, collection.cells).axes
    assert schedule.get_xlim() == (0.5, 5.5)


def test_rows_of_panels_have_equal_gaps_and_lines_at_the_top_are_whole(make, plan):
    variants = [plan.with_(variant=f"v{number}") for number in range(7)]
    collection = collect(make(*variants), ())
    figure = learning_curves(collection, collection.cells)
    assert not any(axes.get_xlabel() for axes in figure.axes)
    assert figure.get_supxlabel() == "epoch"
    assert figure.axes[0].get_ylim()[1] > 100


def dashed_of(collection):
    """[x, lowest and highest row or None for all of them] of the dashed lines."""
    (axes,) = unimodal_against_fused(collection, collection.cells).axes
    across = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    some = [line for line in axes.collections if line.get_linestyle()[0][1] is not None]
    return [[pytest.approx(line.get_xdata()[0]), None] for line in across] + [
        [pytest.approx(x), (low, high)]
        for line in some
        for (x, low), (_, high) in line.get_segments()
    ]


def test_the_line_of_a_modality_alone_is_that_of_the_rows_recipe(make, plan):
    naive = plan.with_(modalities=("visual",))
    usual = naive.with_(method="unimodal", variant="unimodal_visual", values={"linear/visual": 0.8})
    short = usual.with_(variant="short", epochs=3, values={"linear/visual": 0.5})
    order = ["short", "unimodal_visual", "naive", "quick"]
    runs = make(short, usual, naive)
    assert dashed_of(collect(runs, order)) == [[80, None]]
    runs += make(naive.with_(variant="quick", epochs=3))
    assert dashed_of(collect(runs, order)) == [[50, (2.5, 3.5)], [80, (1.5, 2.5)]]
