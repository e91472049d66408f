"""Collecting the runs of a grid, finished or not."""

import json
import shutil
from pathlib import Path

import pytest

from amst.config.run import settings_hash
from amst.errors import AmstError
from amst.results.cells import Run, collect, kind_of, modality_of, record_of


def test_variants_keep_the_configured_order_and_others_follow(make, grid):
    runs = make(*grid("pmr", "naive", "mla", "ogm_ge", seeds=1))
    assert collect(runs, ["mla", "naive", "absent"]).variants == ("mla", "naive", "ogm_ge", "pmr")


def test_datasets_keep_the_configured_order_and_others_follow(make, plan):
    named = ("AVE", "CREMAD", "MVSA", "digits")
    runs = make(*(plan.with_(dataset=name) for name in named))
    found = collect(runs, [], datasets=["MVSA", "CREMAD", "absent"])
    assert found.datasets == ["MVSA", "CREMAD", "AVE", "digits"]
    assert [cell.dataset for cell in found.cells] == found.datasets
    assert found.blocks == [(name, plan.split) for name in found.datasets]


def test_an_unfinished_run_is_refused_and_named(make, plan):
    runs = make(plan, plan.with_(seed=1, state="failed"), plan.with_(seed=2, state="missing"))
    with pytest.raises(AmstError, match=r"2 of 3 runs.*naive/seed1 \(failed\).*--partial"):
        collect(runs, [])


def test_a_partial_collection_counts_what_is_not_there(make, plan):
    states = ("done", "failed", "missing", "running", "running")
    runs = make(*(plan.with_(seed=seed, state=state) for seed, state in enumerate(states)))
    cell = collect(runs, [], partial=True).cells[0]
    assert [cell.count(s) for s in ("done", "missing", "running", "failed")] == [1, 1, 2, 1]
    assert list(cell.records) == [0]


def test_of_many_unfinished_runs_three_are_named_and_the_others_counted(make, plan):
    runs = make(*(plan.with_(seed=seed, state="missing") for seed in range(5)))
    told = r"5 of 5 runs .*seed0 \(missing\), .*seed1 .*, .*seed2 \(missing\) and 2 more\. Finish"
    with pytest.raises(AmstError, match=told):
        collect(runs, [])


def test_seeds_stand_in_the_order_of_their_numbers(make, plan):
    (cell,) = collect(make(*(plan.with_(seed=seed) for seed in (10, 2, 0))), []).cells
    assert list(cell.records) == [run.seed for run in cell.runs] == [0, 2, 10]


def test_a_cell_of_which_nothing_has_finished_has_the_method_of_the_grid(make, plan):
    runs = make(plan.with_(variant="pmr_released", method="pmr", state="running"))
    (cell,) = collect(runs, [], partial=True).cells
    assert (cell.method, cell.main, cell.run_ids) == ("pmr", "", ())


def test_only_finished_runs_are_named_as_where_a_number_comes_from(make, plan):
    runs = make(plan, plan.with_(seed=1, state="failed"), plan.with_(seed=2))
    (cell,) = collect(runs, [], partial=True).cells
    assert cell.run_ids == ("digits/random/naive/seed0", "digits/random/naive/seed2")


def test_a_record_in_the_wrong_folder_is_refused(make, plan):
    first, second = make(plan, plan.with_(seed=1))
    shutil.copy(first.path, second.path)
    with pytest.raises(AmstError, match=r"record of .*seed0, not of .*seed1"):
        collect([first, second], [])


@pytest.mark.parametrize("odd", [1, 2])
def test_seeds_made_with_different_settings_are_no_cell(odd, make, plan):
    runs = make(*(plan.with_(seed=seed, epochs=7 if seed == odd else 30) for seed in range(3)))
    told = rf"seed0 and .*seed{odd} were made with different.*\(recipe\)"
    with pytest.raises(AmstError, match=told):
        collect(runs, [])


def test_a_record_whose_settings_were_edited_is_refused(make, plan):
    (run,) = make(plan)
    run.path.write_text(run.path.read_text().replace('"epochs": 30', '"epochs": 7'))
    with pytest.raises(AmstError, match="was edited"):
        collect([run], [])


def test_the_split_is_in_a_title_only_where_a_dataset_has_several(make, plan):
    runs = make(
        plan,
        plan.with_(dataset="CREMAD", split="amst"),
        plan.with_(dataset="CREMAD", split="group"),
    )
    found = collect(runs, [])
    assert [found.title(*block) for block in found.blocks] == [
        "CREMAD amst",
        "CREMAD group",
        "digits",
    ]


def test_every_fused_prediction_stands_at_its_own_epoch_and_the_main_one_first(make, plan):
    cell = collect(make(plan.with_(method="mla", modalities=("audio", "visual"))), []).cells[0]
    assert cell.predictions() == [
        ("equal", "equal"),
        ("entropy", "entropy"),
        ("weights", "weights"),
        ("equal", "linear/audio"),
        ("equal", "linear/visual"),
        ("equal", "modality/audio"),
        ("equal", "modality/visual"),
        ("equal", "probe/audio"),
        ("equal", "probe/visual"),
    ]


def test_a_fused_prediction_that_selects_no_epoch_stands_at_the_main_one(make, plan):
    ours = plan.with_(method="amst_full", modalities=("audio",), values={"joint": 0.5})
    (cell,) = collect(make(ours), []).cells
    fused = [("fused", "fused"), ("fused", "alternating"), ("fused", "joint")]
    assert cell.predictions()[:3] == fused
    assert cell.values("joint") == cell.values("joint", selected_by="joint") == {0: 0.5}
    assert cell.values("probe/audio", selected_by="joint") == {}


@pytest.mark.parametrize(
    ("prediction", "kind", "modality"),
    [
        ("fused", "fused", ""),
        ("modality/audio", "modality", "audio"),
        ("probe/audio", "probe", "audio"),
        ("linear/audio", "linear", "audio"),
        ("joint/modality/audio", "modality", "audio"),
        ("joint/probe/visual", "probe", "visual"),
    ],
)
def test_names_of_predictions_say_what_they_are_of(prediction, kind, modality):
    assert (kind_of(prediction), modality_of(prediction)) == (kind, modality)


def test_a_record_that_an_earlier_commit_wrote_in_this_format_is_read():
    """Commit 082b547 wrote it, but for most of its results and packages.

    Its cost does not state the linear evaluation. That its settings still have their hash is looked
    at, too: where they have not, an update would train every run anew.
    """
    path = Path(__file__).with_name("run_of_082b547.json")
    record = record_of(Run("digits", "random", "naive", 0, path, "done"))
    assert record.cost.linear_seconds == 0
    assert record.metrics("fused").accuracy == 0.1


def test_settings_that_a_later_version_has_added_are_no_edit(make, plan):
    """As commit c8535bf wrote records, when `arithmetic.compile` was not yet a setting."""
    (run,) = make(plan)
    record = json.loads(run.path.read_text())
    del record["settings"]["arithmetic"]["compile"]
    record["settings_hash"] = settings_hash(record["settings"])
    run.path.write_text(json.dumps(record))
    assert record_of(run).settings_hash == record["settings_hash"]
    record["settings"]["arithmetic"]["threads"] = 2
    run.path.write_text(json.dumps(record))
    with pytest.raises(AmstError, match="it was edited"):
        record_of(run)
