"""Figures as pure functions of records and histories."""

import re
import resource
import warnings

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from amst.errors import AmstError
from amst.records import read_record, write_record
from amst.results.cells import collect
from amst.results.figures import FIGURES, write_figures
from amst.results.figures.finals import (
    _look,
    accuracy_against_hours,
    unimodal_against_fused,
)
from amst.results.figures.learning import learning_curves, skip_schedule
from amst.results.figures.style import looks_of, save, style, wrapped
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
        else:
            assert b"/Type3" not in path.read_bytes(), "journals refuse such fonts"
    with Image.open(tmp_path / "curves-digits.png") as picture:
        assert picture.width == 2148, "the width of a page at 300 dots per inch"


def test_the_same_runs_give_the_same_bytes(make, plan, tmp_path):
    runs = make(plan, plan.with_(seed=1))
    first = write_figures(collect(runs, []), tmp_path / "first", ["curves"])
    second = write_figures(collect(runs[::-1], []), tmp_path / "second", ["curves"])
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_figure_is_of_the_dataset_in_its_name_and_of_no_other(make, plan, tmp_path):
    runs = make(plan.with_(method="amst_full"), plan.with_(dataset="AVE"))
    write_figures(collect(runs, []), tmp_path / "both", ["schedule"])
    for run in runs:
        write_figures(collect([run], []), tmp_path / "alone", ["schedule"])
        name = f"schedule-{run.dataset}.png"
        both, alone = (tmp_path / folder / name for folder in ("both", "alone"))
        assert both.read_bytes() == alone.read_bytes()


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


def test_numbers_of_the_method_in_a_history_are_no_predictions(make, plan):
    (run,) = make(plan.with_(epochs=2))
    path = run.path.with_name("history.csv")
    head = "epoch,active,train_loss,val_accuracy:fused,method:val_accuracy:share"
    path.write_text(f"{head}\n0,audio,1.5,0.25,\n1,audio,1.25,0.5,0.75\n")
    history = read_history(path, read_record(run.path).settings)
    assert list(history.val_accuracy) == ["fused"]
    assert list(history.val_accuracy["fused"]) == [0.25, 0.5]


BROKEN_HISTORIES = {
    "no epoch": ("epoch,active\n", "0 epochs, not all 2"),
    "one epoch less": ("epoch,active,val_accuracy:fused\n0,audio,0.5\n", "1 epochs, not all 2"),
    "an epoch twice": ("epoch,active\n0,audio\n0,audio\n", "2 epochs, not all 2 in order"),
    "no number": (
        "epoch,active,val_accuracy:fused\n0,audio,0.5\n1,audio,nan\n",
        "an accuracy is no fraction of 1",
    ),
    "percent": (
        "epoch,active,val_accuracy:fused\n0,audio,0.5\n1,audio,5.0\n",
        "an accuracy is no fraction of 1",
    ),
    "another modality": ("epoch,active\n0,audio\n1,smell\n", "unknown modality smell"),
}


@pytest.mark.parametrize("broken", BROKEN_HISTORIES)
def test_a_broken_history_is_named(make, plan, broken):
    (run,) = make(plan.with_(epochs=2))
    path = run.path.with_name("history.csv")
    text, said = BROKEN_HISTORIES[broken]
    path.write_text(text)
    with pytest.raises(AmstError, match=rf"history\.csv cannot be read as a history .*{said}"):
        read_history(path, read_record(run.path).settings)


def test_the_legend_says_why_a_variant_has_no_mark(make, plan):
    missing = plan.with_(variant="mla", method="mla", state="missing")
    collection = collect(make(plan, missing), (), partial=True)
    drawn = accuracy_against_hours(collection, collection.cells)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == [
        "mla (missing)",
        "naive (1)",
    ]
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


def test_one_epoch_is_a_mark_and_its_axis_counts_whole_epochs(make, plan):
    collection = collect(make(plan.with_(epochs=1)), ())
    (panel, *_) = learning_curves(collection, collection.cells).axes
    _, *lines = panel.get_lines()
    assert [line.get_marker() for line in lines] == ["o"] * 4, "a line of one point is not seen"
    (schedule,) = skip_schedule(collection, collection.cells).axes
    inside = [tick for tick in schedule.get_xticks() if 0.5 <= tick <= 1.5]
    assert inside == [1]


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


def note(run, active, **accuracies):
    """Put a history in place of a run's own."""
    names = list(accuracies)
    lines = [["epoch", "active", *(f"val_accuracy:{n.replace('_', '/')}" for n in names)]]
    rows = zip(active, *accuracies.values(), strict=True)
    lines += [[epoch, *row] for epoch, row in enumerate(rows)]
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    run.path.with_name("history.csv").write_text(text)


def upper_and_lower(band):
    """What a band reaches at each of its places: x -> (lowest, highest)."""
    (corners,) = band.get_paths()
    found = {}
    for x, y in corners.vertices:
        found[float(x)] = (min(y, found.get(x, (y, y))[0]), max(y, found.get(x, (y, y))[1]))
    return found


def test_a_curve_is_the_mean_over_seeds_in_a_band_of_one_standard_deviation(make, plan):
    runs = make(*(plan.with_(seed=seed, epochs=3) for seed in (0, 1)))
    note(runs[0], ["audio"] * 3, fused=[0.2, 0.4, 0.5])
    note(runs[1], ["audio"] * 3, fused=[0.4, 0.8, 0.5])
    collection = collect(runs, [])
    axes = learning_curves(collection, collection.cells).axes[0]
    chance, fused = axes.get_lines()
    assert chance.get_ydata() == pytest.approx([10, 10]), "of ten classes"
    assert list(fused.get_xdata()) == [1, 2, 3]
    assert fused.get_ydata() == pytest.approx([30, 60, 50])
    assert axes.get_xlim() == (1, 3)
    assert axes.get_ylabel() == "validation\naccuracy in %"
    # Of 20 and 40, and of 40 and 80: half of their distance times the root of 2.
    (band,) = axes.collections
    assert upper_and_lower(band) == {
        1: pytest.approx((30 - 14.142136, 30 + 14.142136)),
        2: pytest.approx((60 - 28.284271, 60 + 28.284271)),
        3: pytest.approx((50, 50)),
    }


def test_the_black_curve_is_of_the_prediction_that_the_tables_show(make, plan):
    (run,) = make(plan.with_(method="mla", variant="mla", epochs=3))
    shown = {"entropy": [0.1, 0.2, 0.2], "equal": [0.3, 0.4, 0.5], "weights": [0.5, 0.6, 0.7]}
    note(run, ["audio"] * 3, **shown)
    collection = collect([run], [])
    _, fused = learning_curves(collection, collection.cells).axes[0].get_lines()
    assert fused.get_ydata() == pytest.approx([30, 40, 50])
    assert fused.get_color() == "#000000"


def test_a_modality_without_a_probe_is_drawn_by_its_own_prediction(make, plan):
    alone = {"method": "unimodal", "variant": "alone", "modalities": ("audio",), "epochs": 2}
    (run,) = make(plan.with_(**alone))
    note(run, ["audio"] * 2, fused=[0.5, 0.6], modality_audio=[0.5, 0.6])
    collection = collect([run], [])
    _, own = learning_curves(collection, collection.cells).axes[0].get_lines()
    assert own.get_ydata() == pytest.approx([50, 60])
    assert own.get_color() == looks_of(collection.cells)["audio"].colour


def test_lines_look_as_the_legend_says(make, plan):
    collection = collect(make(plan), [])
    figure = learning_curves(collection, collection.cells)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["audio", "visual", "text", "fused", "chance"]
    chance, *lines = figure.axes[0].get_lines()
    shown, drawn = (
        [(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in found]
        for found in (figure.legends[0].get_lines(), (*lines, chance))
    )
    assert drawn == shown
    assert len(set(drawn)) == 5
    widths = [width for _, dashes, width in drawn if dashes == "-"]
    assert len(set(widths)) == len(widths), "a print without colour tells solid lines apart"


def test_panels_of_runs_with_more_and_fewer_epochs_end_where_their_runs_do(make, plan):
    runs = make(plan.with_(epochs=5), plan.with_(variant="long", epochs=20))
    collection = collect(runs, ["naive", "long"])
    panels = learning_curves(collection, collection.cells).axes
    assert [axes.get_xlim() for axes in panels[:2]] == [(1, 5), (1, 20)]
    assert [axes.get_visible() for axes in panels] == [True, True, False, False]
    (schedule,) = skip_schedule(collection, collection.cells).axes
    assert schedule.get_xlim() == (0.5, 20.5)


def test_panels_of_several_splits_and_of_nothing_finished_say_so(make, plan):
    runs = make(plan, plan.with_(split="group"), plan.with_(variant="mla", state="failed"))
    collection = collect(runs, ["naive", "mla"], partial=True)
    panels = learning_curves(collection, collection.cells).axes[:3]
    titles = [axes.get_title() for axes in panels]
    assert titles == ["naive, group (1)", "naive, random (1)", "mla, random"]
    assert [text.get_text() for text in panels[2].texts] == ["failed"]


def test_why_a_panel_is_empty_stays_inside_it(make, plan):
    states = ("missing", "running", "failed", "outdated")
    runs = [plan.with_(variant="late", seed=k, state=state) for k, state in enumerate(states)]
    collection = collect(make(plan, *runs), ["naive", "late"], partial=True)
    (text,) = learning_curves(collection, collection.cells).axes[1].texts
    assert text.get_text() == "1 missing, 1 running, 1\nfailed, 1 outdated"


def test_bars_of_the_schedule_lie_on_the_epochs_in_which_a_modality_trains(make, plan):
    runs = make(plan.with_(variant="skips", epochs=4), plan)
    note(runs[0], ["audio+visual", "visual", "audio+visual", "visual"], fused=[0.1] * 4)
    collection = collect(runs, [])
    (axes,) = skip_schedule(collection, collection.cells).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "skips: audio",
        "skips: visual",
    ], "what never trains has no row"
    looks = looks_of(collection.cells)
    for row, (name, epochs) in enumerate({"audio": (1, 3), "visual": (1, 2, 3, 4)}.items()):
        bars = axes.collections[row]
        extents = [path.get_extents() for path in bars.get_paths()]
        # An epoch lies around its number, as the logs count it.
        assert [(e.x0, e.x1) for e in extents] == [(e - 0.5, e + 0.5) for e in epochs]
        assert {(e.y0 + e.y1) / 2 for e in extents} == {row}
        assert to_hex(bars.get_facecolor()[0]).upper() == looks[name].colour
    bottom, top = axes.get_ylim()
    assert bottom > top, "the first row is at the top"


def test_a_grid_in_which_nothing_skips_has_a_schedule_of_all(make, grid):
    collection = collect(make(*grid("naive", "unimodal_audio", seeds=1)), ["naive"])
    (axes,) = skip_schedule(collection, collection.cells).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["naive: audio", "naive: visual", "naive: text", "unimodal_audio: audio"]


def bars_of(axes):
    """[colour, x, lowest, highest] of the marks with bars across, in the order of drawing."""
    found = []
    for drawn in axes.containers:
        mark, _, (bar,) = drawn.lines
        ((low, _), (high, _)) = bar.get_segments()[0]
        (x,) = mark.get_xdata()
        found.append((mark.get_color(), *(pytest.approx(float(v)) for v in (x, low, high))))
    return found


def test_marks_of_modalities_and_of_the_whole_are_test_accuracies_with_their_deviation(make, grid):
    values = {"fused": 0.8, "linear/audio": 0.4, "linear/visual": 0.3, "linear/text": 0.2}
    first, second, alone = grid("naive", seeds=2) + grid("unimodal_audio", seeds=1)
    second = second.with_(values={**values, "fused": 0.6, "linear/audio": 0.5})
    runs = make(first.with_(values=values), second, alone.with_(values={"linear/audio": 0.7}))
    collection = collect(runs, ["unimodal_audio", "naive"], {"naive": "Joint"})
    figure = unimodal_against_fused(collection, collection.cells)
    (axes,) = figure.axes
    looks = looks_of(collection.cells)
    assert bars_of(axes) == [
        (looks["audio"].colour, 70, 70, 70),
        (looks["audio"].colour, 45, 45 - 7.0710678, 45 + 7.0710678),
        (looks["visual"].colour, 30, 30, 30),
        (looks["text"].colour, 20, 20, 20),
        ("#000000", 70, 70 - 14.1421356, 70 + 14.1421356),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "unimodal_audio (1)",
        "Joint (2)",
    ]
    assert [float(drawn.lines[0].get_ydata()[0]) for drawn in axes.containers] == [0, 1, 1, 1, 1]
    bottom, top = axes.get_ylim()
    assert bottom > top
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["fused", "audio", "visual", "text", "alone"]
    shown = [line.get_color() for line in figure.legends[0].get_lines()]
    assert shown == ["#000000", *(looks[name].colour for name in labels[1:4]), "#777777"]


def test_the_legend_names_lines_of_modalities_alone_only_where_there_are_some(make, plan):
    collection = collect(make(plan), [])
    figure = unimodal_against_fused(collection, collection.cells)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["fused", "audio", "visual", "text"]


def test_marks_of_both_figures_of_the_end_are_of_the_test_part(make, plan):
    (run,) = make(plan.with_(samples=600))
    record = read_record(run.path)
    shares = [
        [100 * record.metrics(name, part).accuracy for part in ("test", "val")]
        for name in ("linear/audio", "fused")
    ]
    assert all(tested != other for tested, other in shares)
    (audio, _), (tested, _) = shares
    collection = collect([run], [])
    (ends,) = unimodal_against_fused(collection, collection.cells).axes
    assert (bars_of(ends)[0][1], bars_of(ends)[-1][1]) == (audio, tested)
    (hours,) = accuracy_against_hours(collection, collection.cells).axes
    assert hours.containers[0].lines[0].get_ydata() == pytest.approx([tested])
    assert ends.get_xlabel() == hours.get_ylabel() == "test accuracy in %"


def test_the_mark_of_a_variant_is_its_mean_time_and_accuracy_with_both_deviations(make, plan):
    # Validation takes a fifth of the time of training: runs of 2.4 and 3.6 hours.
    runs = make(
        plan.with_(seconds=7200.0, values={"fused": 0.8}),
        plan.with_(seconds=10800.0, values={"fused": 0.6}, seed=1),
        plan.with_(seconds=36000.0, variant="slow"),
    )
    collection = collect(runs, ["slow", "naive"])
    figure = accuracy_against_hours(collection, collection.cells)
    (axes,) = figure.axes
    mark, _, (across, along) = axes.containers[1].lines
    assert mark.get_xdata() == pytest.approx([3.0])
    assert mark.get_ydata() == pytest.approx([70])
    spread = 0.8485281
    assert across.get_segments()[0][:, 0] == pytest.approx([3 - spread, 3 + spread])
    assert along.get_segments()[0][:, 1] == pytest.approx([70 - 14.1421356, 70 + 14.1421356])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["slow (1)", "naive (2)"]
    shown = [(line.get_color(), line.get_marker()) for line in figure.legends[0].get_lines()]
    drawn = [drawn.lines[0] for drawn in axes.containers]
    assert [(line.get_color(), line.get_marker()) for line in drawn] == shown


@pytest.mark.parametrize(("seconds", "scale"), [(72000.0, "linear"), (75600.0, "log")])
def test_times_that_differ_much_are_on_a_scale_of_powers(make, plan, seconds, scale):
    runs = make(plan.with_(seconds=3600.0), plan.with_(variant="slow", seconds=seconds))
    collection = collect(runs, [])
    (axes,) = accuracy_against_hours(collection, collection.cells).axes
    assert axes.get_xscale() == scale


def test_splits_have_a_panel_each_with_marks_of_their_own(make, plan):
    values = {"fused": 0.8, "linear/audio": 0.4, "linear/visual": 0.3, "linear/text": 0.2}
    group = plan.with_(split="group", values={**values, "fused": 0.5})
    collection = collect(make(plan.with_(values=values), group), [])
    for draw, place in ((unimodal_against_fused, 0), (accuracy_against_hours, 1)):
        panels = draw(collection, collection.cells).axes
        assert [axes.get_title() for axes in panels] == ["group", "random"]
        marks = [axes.containers[-1].lines[0].get_xydata()[0][place] for axes in panels]
        assert marks == pytest.approx([50, 80])


def test_two_modalities_of_one_kind_look_different_and_take_no_other_kind_s_look(make, plan):
    (run,) = make(plan)
    record = read_record(run.path)
    own = dict(record.settings.modalities)
    own |= {"face": own["visual"], "pose": own.pop("visual")}
    settings = record.settings.model_copy(update={"modalities": own})
    changed = {"settings": settings, "settings_hash": settings.hash}
    write_record(run.path, record.model_copy(update=changed))
    looks = looks_of(collect([run], []).cells)
    assert list(looks) == ["audio", "face", "text", "pose"], "as the legend has them"
    assert len({look.colour for look in looks.values()}) == 4
    assert len({look.marker for look in looks.values()}) == 4
    usual = looks_of(collect(make(plan.with_(seed=1)), []).cells)
    assert [looks[name] for name in ("audio", "face", "text")] == list(usual.values())


def test_a_deviation_larger_than_its_mean_shows_no_time_below_none(make, plan):
    runs = make(plan.with_(seconds=60.0), plan.with_(seconds=36000.0, seed=1))
    collection = collect(runs, [])
    (axes,) = accuracy_against_hours(collection, collection.cells).axes
    across = axes.containers[0].lines[2][0].get_segments()[0]
    assert min(x for x, _ in across) < 0
    assert axes.get_xlabel() == "hours of one run", "by the longest"
    assert axes.get_xlim()[0] == 0


def test_the_unit_of_time_is_that_of_one_run_not_of_all_seeds(make, plan):
    runs = make(*(plan.with_(seconds=1500.0, seed=seed) for seed in range(3)))
    collection = collect(runs, [])
    (axes,) = accuracy_against_hours(collection, collection.cells).axes
    assert axes.get_xlabel() == "minutes of one run"
    assert axes.containers[0].lines[0].get_xdata() == pytest.approx([30])


def test_a_variant_looks_the_same_for_a_dataset_that_lacks_another_variant(make, grid, plan):
    runs = make(*grid("unimodal_text", "naive", seeds=1), plan.with_(dataset="CREMAD"))
    collection = collect(runs, ["unimodal_text", "naive"])
    shown = {}
    for dataset in ("digits", "CREMAD"):
        cells = collection.block(dataset, "random")
        handles = accuracy_against_hours(collection, cells).legends[0].get_lines()
        looks = [(line.get_color(), line.get_marker()) for line in handles]
        shown[dataset] = dict(zip((cell.variant for cell in cells), looks, strict=True))
    assert shown["CREMAD"] == {"naive": shown["digits"]["naive"]}
    assert len(set(shown["digits"].values())) == 2


def test_a_row_without_marks_says_why_and_a_legend_only_where_no_split_has_one(make, plan):
    missing = plan.with_(variant="mla", method="mla", state="missing")
    runs = make(plan, missing, missing.with_(split="group"), plan.with_(split="group", seed=1))
    runs += make(missing.with_(split="group", variant="late", method="naive", state="failed"))
    runs += make(plan.with_(variant="late"))
    collection = collect(runs, ["naive", "late", "mla"], partial=True)
    group, random = unimodal_against_fused(collection, collection.cells).axes
    assert [(text.get_text(), text.get_position()[1]) for text in group.texts] == [
        ("failed", 1),
        ("missing", 2),
    ]
    assert [text.get_text() for text in random.texts] == ["missing"]
    rows = [label.get_text() for label in group.get_yticklabels()]
    assert rows == ["naive (1)", "late", "mla"]
    legend = accuracy_against_hours(collection, collection.cells).legends[0]
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["naive (1)", "late (group: failed; random:\n1)", "mla (missing)"]


def test_marks_of_few_seeds_say_how_many_they_are_of(make, plan):
    runs = make(plan, plan.with_(seed=1, state="failed"), plan.with_(variant="whole"))
    collection = collect(runs, ["naive", "whole"], partial=True)
    wanted = ["naive (1 of 2, 1 failed)", "whole (1)"]
    (ends,) = unimodal_against_fused(collection, collection.cells).axes
    assert [label.get_text() for label in ends.get_yticklabels()] == wanted
    legend = accuracy_against_hours(collection, collection.cells).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == wanted


def test_long_names_leave_most_of_a_figure_to_its_marks(make, plan):
    name = "a method of two models side by side, with logits averaged over both of them"
    collection = collect(make(plan, plan.with_(variant="two")), [], {"two": name})
    for draw in (unimodal_against_fused, accuracy_against_hours):
        with style():
            figure = draw(collection, collection.cells)
            figure.draw_without_rendering()
        assert figure.axes[0].get_position().width > 0.4
    assert wrapped("a" * 40) == "a" * 40, "a word stays whole"


def test_a_long_name_of_a_variant_is_cut_between_its_words_and_leaves_room_for_its_neighbours():
    assert wrapped("amst_full_released-skipped_encoder-forward (3)").split("\n") == [
        "amst_full_released-skipped_",
        "encoder-forward (3)",
    ]
    assert wrapped("unimodal_visual, group-fold0 (3)") == "unimodal_visual, group-fold0\n(3)"


def test_a_full_disk_is_told_of_the_figure_and_leaves_the_old_one(tmp_path):
    old = tmp_path / "a.pdf"
    old.write_text("old")
    figure = Figure()
    for axes in figure.subplots(4, 4).flat:
        axes.scatter(range(9), range(9), c=range(9))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"'{old}'")):
            save(figure, tmp_path, "a", ["pdf"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
