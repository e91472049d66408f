"""A run's metrics computed anew from its predictions: equal, or each difference is named."""

import json

import numpy as np
import pandas as pd
import pytest

from amst.config.run import settings_hash
from amst.errors import AmstError
from amst.records import read_record
from amst.results.recomputed import recompute


def answers(right, samples, classes):
    """Logits of which the first ones are right."""
    labels = np.arange(samples) % classes
    given = np.where(np.arange(samples) < right, labels, (labels + 1) % classes)
    return np.eye(classes, dtype=np.float32)[given]


@pytest.fixture
def run(make, plan):
    """The folder of a run whose fused predictions selected an epoch each."""
    (made,) = make(plan.with_(method="mla", variant="mla"))
    folder = made.path.parent
    with np.load(folder / "predictions.npz") as stored:
        arrays = dict(stored)
    for names, share in read_record(made.path).subset_accuracy.items():
        arrays[f"test/subset/{names}"] = answers(round(60 * share), 60, 10)
    np.savez(folder / "predictions.npz", **arrays)
    history = pd.read_csv(folder / "history.csv")
    for row in read_record(made.path).results:
        history.loc[row.best_epoch :, f"val_accuracy:{row.selected_by}"] = 1.0
    history.to_csv(folder / "history.csv", index=False)
    return folder


@pytest.fixture
def changed(run):
    """Change the record, and recompute: the differences."""

    def change(edit):
        record = json.loads((run / "run.json").read_text())
        edit(record)
        (run / "run.json").write_text(json.dumps(record))
        return recompute(run).differences

    return change


def row_of(record, selected_by, prediction, part):
    wanted = (selected_by, prediction, part)
    return next(
        row
        for row in record["results"]
        if (row["selected_by"], row["prediction"], row["part"]) == wanted
    )


def test_predictions_give_the_record_at_every_selected_epoch(run):
    found, record = recompute(run), read_record(run / "run.json")
    assert found.differences == ()
    assert found.samples == {"val": 60, "test": 60}
    assert found.subset_accuracy == pytest.approx(record.subset_accuracy)
    assert found.shapley == pytest.approx(record.shapley)
    for row in record.results:
        assert found.metrics[row.selected_by, row.prediction, row.part] == row.metrics
    epochs = {row.selected_by: row.best_epoch for row in record.results}
    assert len(set(epochs.values())) == 3
    assert len({found.metrics[name, "equal", "test"].cross_entropy for name in epochs}) == 3


def test_a_difference_is_told_where_it_is_and_alone(changed):
    def edit(record):
        row_of(record, "entropy", "equal", "val")["metrics"]["macro_f1"] += 1e-6

    (line,) = changed(edit)
    assert line.startswith("val, equal at epoch ")
    assert " macro_f1 0." in line
    assert " in run.json, 0." in line
    assert line.endswith(" from the predictions")


def test_last_digits_of_other_processors_are_no_difference(changed):
    def edit(record):
        metrics = row_of(record, "equal", "equal", "test")["metrics"]
        metrics["cross_entropy"] *= 1 + 1e-11

    assert changed(edit) == ()


def test_classes_samples_subsets_and_contributions_are_compared_too(changed):
    def edit(record):
        row_of(record, "equal", "probe/audio", "test")["samples"] = 59
        record["subset_accuracy"]["audio"] = 0.25
        record["classes"][9] = "ten"

    lines = changed(edit)
    assert lines[0].startswith("classes ['0', '1', ")
    assert " samples 59 in run.json, 60 from the predictions" in lines[1]
    assert lines[1].startswith("test, probe/audio at epoch 29: ")
    assert lines[2] == "accuracy from audio 0.25 in run.json, 0.5 from the predictions"
    assert len(lines) == 3


def test_a_contribution_is_compared_and_told(changed):
    def edit(record):
        record["shapley"]["audio"] += 0.25
        record["shapley"]["visual"] -= 0.25

    assert [line.split(" in run.json")[0][:23] for line in changed(edit)] == [
        "contribution of audio 0",
        "contribution of visual ",
    ]


def test_settings_epochs_and_cost_are_held_against_what_they_come_from(changed):
    def edit(record):
        record["settings"]["recipe"]["weight_decay"] = 0.5
        for row in record["results"]:
            if row["selected_by"] == "entropy":
                row["best_epoch"] = 0
        record["cost"]["train_seconds"] = 1.0
        record["cost"]["peak_host_bytes"] += 1

    noted, best, seconds, memory = changed(edit)
    assert noted.startswith("hash of the settings '")
    assert noted.endswith("from them")
    assert best == "best epoch of entropy 0 in run.json, 28 from history.csv"
    assert seconds == "train_seconds 1.0 in run.json, 60.0 from cost.csv"
    assert memory == "peak_host_bytes 1073741825 in run.json, 1073741824 from cost.csv"


def test_settings_that_a_later_version_has_added_are_no_edit(changed):
    """As commit c8535bf wrote records, when `arithmetic.compile` was not yet a setting."""

    def older(record):
        del record["settings"]["arithmetic"]["compile"]
        record["settings_hash"] = settings_hash(record["settings"])

    assert not changed(older)


@pytest.mark.parametrize("name", ["history.csv", "cost.csv"])
def test_a_run_that_lacks_a_table_of_its_epochs_is_refused(run, name):
    (run / name).unlink()
    with pytest.raises(AmstError, match=f"{name} cannot be read as a table"):
        recompute(run)


@pytest.mark.parametrize("known", [True, False])
def test_a_class_that_only_one_side_has_is_a_difference(changed, known):
    def edit(record):
        shares = row_of(record, "equal", "equal", "test")["metrics"]["per_class_accuracy"]
        if known:
            shares["ten"] = 0.5
        else:
            del shares["3"]

    (line,) = changed(edit)
    name, noted = ("ten", "0.5 in run.json, None") if known else ("3", "None in run.json, ")
    assert f" per_class_accuracy {name} {noted}" in line


def test_predictions_that_lack_what_the_record_has_are_not_its_own(run):
    with np.load(run / "predictions.npz") as stored:
        arrays = {name: value for name, value in stored.items() if name != "test/subset/audio"}
    np.savez(run / "predictions.npz", **arrays)
    with pytest.raises(AmstError, match=r"does not belong to its record .*test/subset/audio"):
        recompute(run)
