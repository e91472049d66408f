"""The runs that a grid expects, as their files show them."""

import json
import re

import pytest

from amst.errors import AmstError
from amst.records import read_record
from amst.results.bundle import write_bundle
from amst.results.cells import collect
from amst.results.expected import expected_runs
from amst.results.figures import write_figures
from amst.results.tables import Material, write_tables
from amst.training.state import run_digest

METHODS = {"naive": "naive", "mla": "mla"}


@pytest.fixture
def wanted(make, plan):
    """Run id -> hash of its settings, of three finished seeds."""
    runs = make(*(plan.with_(seed=seed) for seed in range(3)))
    return {run.id: read_record(run.path).settings_hash for run in runs}


@pytest.fixture
def results(plan):
    """The folder that has ``runs``."""
    return plan.root.parent


def test_a_run_made_with_other_settings_than_the_grid_s_is_outdated(wanted, results, tmp_path):
    first = next(iter(wanted))
    runs = expected_runs({**wanted, first: "0" * 16}, METHODS, results)
    assert [run.state for run in runs] == ["outdated", "done", "done"]
    with pytest.raises(
        AmstError, match=r"1 of 3 runs are not done: .*seed0 \(outdated\); outdated:"
    ):
        collect(runs, [])
    write_tables(Material(collect(runs, [], partial=True)), tmp_path, ["main"])
    assert "(2 of 3, 1 outdated)" in (tmp_path / "main.md").read_text()


def sign(path, manifest, split):
    """Note in a record that it was made from these files."""
    value = json.loads(path.read_text())
    made = value["environment"]
    parts = value["settings_hash"], made["code_digest"], made["package_digest"]
    value["digest"] = run_digest(*parts, manifest, split)
    path.write_text(json.dumps(value))


def test_each_split_of_a_dataset_is_held_against_its_own_file(make, plan, results, write_data):
    runs = make(*(plan.with_(split=split) for split in ("group", "random")))
    folder = results / "features" / "digits"
    write_data(folder / "manifest.json", "all")
    for run in runs:
        split = folder / "splits" / f"{run.split}.json"
        write_data(split, run.split)
        sign(run.path, folder / "manifest.json", split)
    hashes = {run.id: read_record(run.path).settings_hash for run in runs}
    assert [run.state for run in expected_runs(hashes, METHODS, results)] == ["done", "done"]
    write_data(folder / "splits/random.json", "another one")
    assert [run.state for run in expected_runs(hashes, METHODS, results)] == ["done", "outdated"]
    write_data(folder / "manifest.json", "others")
    assert [run.state for run in expected_runs(hashes, METHODS, results)] == ["outdated"] * 2


def test_a_run_made_from_another_split_than_lies_there_is_outdated(
    wanted, results, tmp_path, write_data
):
    folder = results / "features" / "owner"
    manifest, split = folder / "manifest.json", folder / "splits" / "random.json"
    write_data(manifest, "all")
    write_data(split, "as it was")
    paths = [results / "runs" / name / "run.json" for name in wanted]
    sign(paths[0], manifest, split)
    write_data(split, "as it is")
    for path in paths[1:]:
        sign(path, manifest, split)
    owners = {"digits": "owner"}
    runs = expected_runs(wanted, METHODS, results, features=owners)
    assert [run.state for run in runs] == ["outdated", "done", "done"]
    with pytest.raises(AmstError, match="made with other settings or data than the grid's"):
        collect(runs, [])
    write_tables(Material(collect(runs, [], partial=True)), tmp_path)
    assert "(2 of 3, 1 outdated)" in (tmp_path / "main.md").read_text()
    assert "another split" in (tmp_path / "runs.csv").read_text()
    split.unlink()
    runs = expected_runs(wanted, METHODS, results, features=owners)
    assert [run.state for run in runs] == ["done"] * 3, "made again, it is what it was"


@pytest.mark.parametrize("damaged", ["manifest.json", "splits/random.json"])
def test_damaged_data_are_told_once_and_blamed_on_no_run(wanted, results, write_data, damaged):
    folder = results / "features" / "digits"
    for name in ("manifest.json", "splits/random.json"):
        write_data(folder / name, "all")
    text = (folder / damaged).read_text()
    (folder / damaged).write_text(text[: len(text) // 2])
    with pytest.raises(AmstError, match=damaged.replace(".", r"\.")):
        expected_runs(wanted, METHODS, results)
    runs = expected_runs(wanted, METHODS, results, partial=True)
    assert [(run.state, run.why) for run in runs] == [("done", "")] * 3


@pytest.mark.parametrize("partial", [False, True])
def test_what_the_grid_expects_and_nobody_made_is_missing(wanted, results, partial):
    runs = expected_runs({**wanted, "digits/random/mla/seed0": "0" * 16}, METHODS, results, partial)
    assert [run.state for run in runs] == ["done", "done", "done", "missing"]
    assert runs[-1].method == "mla"


@pytest.mark.parametrize("file", ["predictions.npz", "run.json"])
@pytest.mark.parametrize("keep", [0, 100, 900])
def test_a_damaged_run_is_marked_in_partial_tables_and_stops_no_other(
    wanted, results, tmp_path, file, keep
):
    path = results / "runs" / next(iter(wanted)) / file
    path.write_bytes(path.read_bytes()[:keep])
    runs = expected_runs(wanted, METHODS, results, partial=True)
    assert [run.state for run in runs] == ["damaged", "done", "done"]
    assert file in runs[0].why
    write_tables(Material(collect(runs, [], partial=True)), tmp_path)
    assert "(2 of 3, 1 damaged)" in (tmp_path / "main.md").read_text()
    assert file in (tmp_path / "runs.csv").read_text()
    with pytest.raises(AmstError, match=file.replace(".", r"\.")):
        write_tables(Material(collect(expected_runs(wanted, METHODS, results), [])), tmp_path)


@pytest.mark.parametrize("keep", [None, 0, 100, 2000])
def test_a_run_without_its_whole_history_stops_no_other(wanted, results, tmp_path, keep):
    path = results / "runs" / next(iter(wanted)) / "history.csv"
    kept = path.read_bytes()[:keep]
    path.unlink() if keep is None else path.write_bytes(kept)
    runs = expected_runs(wanted, METHODS, results, partial=True)
    assert [run.state for run in runs] == ["damaged", "done", "done"]
    assert "history.csv cannot be read as a history" in runs[0].why
    assert write_figures(collect(runs, [], partial=True), tmp_path, ["curves"])
    with pytest.raises(AmstError, match=r"history\.csv (cannot be read|is missing)"):
        write_figures(collect(expected_runs(wanted, METHODS, results), []), tmp_path, ["curves"])


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("results.0.metrics.accuracy", 2.5),
        ("results.0.metrics.accuracy", float("nan")),
        ("results.0.metrics.macro_f1", -0.5),
        ("results.0.metrics.cross_entropy", float("nan")),
        ("results.0.metrics.per_class_accuracy.3", 1.5),
        ("results.0.best_epoch", -1),
        ("results.0.samples", 0),
        ("cost.train_seconds", float("nan")),
        ("cost.forward_flops.audio", float("inf")),
        ("cost.peak_host_bytes", -1),
    ],
)
def test_a_record_with_an_impossible_number_is_damaged(wanted, results, what, number):
    path = results / "runs" / next(iter(wanted)) / "run.json"
    value = place = json.loads(path.read_text())
    *folders, name = what.split(".")
    for folder in folders:
        place = place[0 if folder == "0" else folder]
    place[name] = number
    path.write_text(json.dumps(value))
    runs = expected_runs(wanted, METHODS, results, partial=True)
    assert [run.state for run in runs] == ["damaged", "done", "done"]
    with pytest.raises(AmstError, match=rf"run\.json: {re.escape(what)}: Input should be"):
        collect(expected_runs(wanted, METHODS, results), [])


LACKING = {
    "no results": (lambda row: False, "the results of fused on val"),
    "main on test": (
        lambda row: (row["prediction"], row["part"]) != ("fused", "test"),
        "the results of fused on test",
    ),
    "a probe on val": (
        lambda row: (row["prediction"], row["part"]) != ("probe/text", "val"),
        "the results of probe/text on val",
    ),
}


@pytest.mark.parametrize("lacking", LACKING)
def test_a_record_that_lacks_results_is_damaged(wanted, results, lacking):
    path = results / "runs" / next(iter(wanted)) / "run.json"
    kept, said = LACKING[lacking]
    value = json.loads(path.read_text())
    value["results"] = [row for row in value["results"] if kept(row)]
    path.write_text(json.dumps(value))
    runs = expected_runs(wanted, METHODS, results, partial=True)
    assert [run.state for run in runs] == ["damaged", "done", "done"]
    assert f"run.json lacks {said}" in runs[0].why
    with pytest.raises(AmstError, match=f"lacks {said}"):
        collect(expected_runs(wanted, METHODS, results), [])


def test_a_record_without_classes_is_damaged(wanted, results):
    path = results / "runs" / next(iter(wanted)) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": []}))
    runs = expected_runs(wanted, METHODS, results, partial=True)
    assert [run.state for run in runs] == ["damaged", "done", "done"]
    assert "run.json: classes: " in runs[0].why


def test_predictions_of_another_run_are_damage_that_stops_no_partial_table(wanted, results):
    first, second, _ = (results / "runs" / name / "predictions.npz" for name in wanted)
    first.write_bytes(second.read_bytes())
    runs = expected_runs(wanted, METHODS, results, partial=True)
    assert [run.state for run in runs] == ["damaged", "done", "done"]
    assert f"{first} does not belong to its record (test accuracy" in runs[0].why


def test_a_run_without_its_costs_stops_no_partial_bundle(wanted, results, tmp_path):
    path = results / "runs" / next(iter(wanted)) / "cost.csv"
    path.unlink()
    runs = expected_runs(wanted, METHODS, results, partial=True)
    assert [run.state for run in runs] == ["damaged", "done", "done"]
    assert runs[0].why == f"{path} is missing"
    assert write_bundle(Material(collect(runs, [], partial=True)), tmp_path / "export.tar.gz")
    with pytest.raises(AmstError, match=r"\(damaged\); .*cost\.csv is missing"):
        collect(expected_runs(wanted, METHODS, results), [])


def test_a_record_in_the_wrong_folder_is_damaged(wanted, results):
    first, second, _ = (results / "runs" / name / "run.json" for name in wanted)
    value = json.loads(first.read_text())
    second.write_text(json.dumps(value))
    hashes = dict.fromkeys(wanted, value["settings_hash"])
    runs = expected_runs(hashes, METHODS, results, partial=True)
    assert [run.state for run in runs] == ["done", "damaged", "outdated"]
