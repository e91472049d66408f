"""A change reruns exactly what it affects."""

import copy
import shutil
from collections import Counter
from typing import Any

import pytest
import yaml

from tests.end_to_end.suite import SMALL, Suite, jobs_of, planned

FEATURES = "results/features/digits"
RUN = "results/runs/digits/random/naive/seed0"
OTHER_RUN = "results/runs/digits/random/amst_alternating/seed0"
RESULTS = {"tables": 1, "figures": 1}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small configuration with another value at the dotted path."""
    values = copy.deepcopy(SMALL)
    *folders, last = path.split(".")
    inner = values
    for folder in folders:
        inner = inner.setdefault(folder, {})
    inner[last] = value
    return values


def test_nothing_runs_when_nothing_changed(suite: Suite):
    done = suite.snakemake()
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["results/raw/digits/digits.json", f"{FEATURES}/shards/001.rejected.jsonl"],
            {"generate": 1, "samples": 1, "extract": 1, "manifest": 1},
        ),
        (
            [f"{FEATURES}/samples.jsonl", f"{FEATURES}/splits/random.json"],
            {"samples": 1, "split": 1},
        ),
        (
            [f"{FEATURES}/rejected.jsonl", f"{FEATURES}/shards/000.h5"],
            {"samples": 1, "extract": 1, "manifest": 1},
        ),
        (
            [f"{FEATURES}/manifest.json", "results/grid.json", f"{RUN}/run.json"],
            {"manifest": 1, "grid": 1, "train": 1, **RESULTS},
        ),
    ],
)
def test_lost_files_are_made_again_and_nothing_else(suite: Suite, files: list[str], expected: dict):
    before = suite.table(), suite.bytes_of_runs()
    for file in files:
        suite.file(file).unlink()
    assert suite.jobs() == Counter(expected)
    assert (suite.table(), suite.bytes_of_runs()) == before


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("datasets.digits.resources", {"mem_mb": 3000}, {}),
        ("datasets.digits.max_lost", 0.5, {"manifest": 1}),
        # a dry run does not tell of the figures, which show as changed when the grid is written
        ("grid.methods", ["naive"], {"grid": 1, **RESULTS}),
        ("tables.names", {"naive": "Joint", "digits": "Digits"}, {"grid": 1, **RESULTS}),
        (
            "datasets.digits.modalities",
            {"audio": {"features": {"mel_bins": 24}}},
            {"grid": 1, "extract": 2, "manifest": 1, "data_report": 1, "train": 2, **RESULTS},
        ),
    ],
)
def test_a_changed_setting_reruns_what_depends_on_it(
    suite: Suite, path: str, value: Any, expected: dict
):
    suite.configure(changed(path, value))
    assert suite.jobs() == Counter(expected)


def plan(suite: Suite) -> Counter[str]:
    """Rule -> number of jobs that a dry run announces, `all` and the sum left out."""
    counts = planned(suite.snakemake("-n").stdout)
    del counts["all"], counts["total"]  # not there where nothing is to be done
    return counts


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            [f"{FEATURES}/report.html", "results/figures/curves-digits.pdf"],
            {"data_report": 1, "figures": 1},
        ),
        ([f"{FEATURES}/report.json", "results/tables/main.csv"], {"data_report": 1, "tables": 1}),
        (["results/grid.json"], {"grid": 1, **RESULTS}),
        ([f"{RUN}/cost.csv", f"{OTHER_RUN}/history.csv"], {"train": 2, **RESULTS}),
        ([f"{RUN}/predictions.npz", f"{OTHER_RUN}/weights.safetensors"], {"train": 2, **RESULTS}),
    ],
)
def test_lost_files_are_planned_anew_and_nothing_else(
    suite: Suite, files: list[str], expected: dict
):
    for file in files:
        suite.file(file).unlink()
    assert plan(suite) == Counter(expected)


def test_no_run_is_started_on_shards_that_are_lost(suite: Suite):
    """A call for one target misses no shard: the manifest above it is there."""
    shard = f"{FEATURES}/shards/001.h5"
    suite.file(shard).unlink()
    suite.configure(changed("grid.seeds", [0, 1]))
    stopped = suite.snakemake("results/tables/main.csv", check=False)
    assert stopped.returncode != 0
    assert f"Shards that the runs train on are missing: {shard}." in stopped.stderr
    assert not suite.file("results/runs/digits/random/naive/seed1").exists()
    assert planned(suite.snakemake("-n").stdout)["extract"] == 1, "without targets it is made again"
    assert f"`snakemake {shard}`" in stopped.stderr
    suite.snakemake(shard)
    suite.snakemake("results/runs/digits/random/naive/seed1/run.json")


@pytest.mark.parametrize("how", ["lost", "touched", "by times only"])
def test_a_change_that_snakemake_cannot_see_is_told(suite: Suite, how: str):
    """Without its notes, or with those of --touch, it would keep tables of other settings."""
    options = ["--rerun-triggers", "mtime"] if how == "by times only" else []
    if how == "lost":
        shutil.rmtree(suite.file(".snakemake"))
        assert "Nothing to be done" in suite.snakemake().stderr, "nothing has changed"
    suite.configure(changed("datasets.digits.recipe.learning_rate", 0.04))
    if how == "touched":
        assert "trained anew" not in suite.snakemake("--touch").stderr
    told = "results/grid.json is not the grid of this configuration"
    assert told in suite.snakemake("-n", *options).stderr
    stopped = suite.snakemake(*options, check=False)
    assert stopped.returncode != 0
    assert told in stopped.stderr.splitlines()[-1]
    if how == "lost":
        suite.file("results/grid.json").unlink()
        assert suite.snakemake(check=False).returncode != 0
        refused = suite.file("logs/tables.log").read_text()
        assert (
            "2 of 2 runs are not done: digits/random/amst_alternating/seed0 (outdated)" in refused
        )


def test_a_call_writes_its_grid_down_before_it_trains(suite: Suite):
    """Of an interrupted call `amst status` and `amst clean` know no settings else."""
    suite.configure(changed("datasets.digits.recipe.learning_rate", 0.04))
    said = suite.snakemake("--cores", "1", "results/grid.json", f"{RUN}/run.json").stderr
    assert said.index("Writing down the grid") < said.index("Training naive")


def test_event_files_can_be_cleared_away(suite: Suite):
    for folder in suite.file("results/runs").rglob("tensorboard"):
        shutil.rmtree(folder)
    assert plan(suite) == Counter()


PREPARED = {"manifest": 1, "data_report": 1}
ALL_RUNS = {"grid": 1, "train": 2, **RESULTS}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "datasets.digits.generate.samples",
            150,
            # what is extracted anew shows when the samples have been listed
            {"generate": 1, "samples": 1, "split": 1, **PREPARED, "train": 2, **RESULTS},
        ),
        ("datasets.digits.shards", 3, {"extract": 3, **PREPARED, "train": 2, **RESULTS}),
        # the grid holds the hash of every run's settings
        ("methods.naive.recipe", {"epochs": 1}, {"train": 1, "grid": 1, **RESULTS}),
        ("execution.deadline", 3600, {}),
        ("methods.pmr.recipe", {"epochs": 1}, {}),
        ("grid.seeds", [0, 1], {"grid": 1, "train": 2, **RESULTS}),
        ("methods.amst_alternating.skip", {"audio": 2}, {"grid": 1, "train": 1, **RESULTS}),
        (
            "datasets.digits.method_defaults.amst_*.skip",
            {"text": 1},
            {"grid": 1, "train": 1, **RESULTS},
        ),
        ("arithmetic.threads", 2, ALL_RUNS),
        ("datasets.digits.recipe.epochs", 3, ALL_RUNS),
        ("tables.metric", "macro_f1", {"grid": 1, "tables": 1}),
        # what is drawn anew shows when the grid has been written
        ("tables.names", {"naive": "Joint training"}, {"grid": 1, "tables": 1}),
        ("tables.names", {"pmr": "PMR"}, {}),  # which the grid does not have
        ("datasets.digits.split_seed", 1, {"split": 1, "data_report": 1, "train": 2, **RESULTS}),
        ("datasets.digits.modalities.text.encoder", {"dropout": 0.2}, ALL_RUNS),
        ("datasets.digits.modalities.visual.crop", 24, ALL_RUNS),
    ],
)
def test_a_changed_setting_plans_what_depends_on_it(
    suite: Suite, path: str, value: Any, expected: dict
):
    suite.configure(changed(path, value))
    assert plan(suite) == Counter(expected)


def test_a_comment_in_the_configuration_reruns_nothing(suite: Suite):
    suite.config.write_text("# a comment\n" + yaml.safe_dump(SMALL, default_flow_style=True))
    config = suite.checkout / "config.yaml"
    config.write_text(config.read_text() + "\n# another\n")
    assert suite.jobs() == Counter()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("methods/naive.py", {"train": 1, **RESULTS}),
        ("training/loop.py", {"train": 2, **RESULTS}),
        ("features/samples.py", {"samples": 1, **PREPARED, "split": 1, "train": 2, **RESULTS}),
        # a dry run cannot know whether the manifest or the split comes out the same
        ("features/verification.py", {**PREPARED, "train": 2, **RESULTS}),
        ("datasets/stratified.py", {"split": 1, "data_report": 1, "train": 2, **RESULTS}),
        ("results/figures/style.py", {"figures": 1}),
        ("datasets/cremad.py", {}),
        ("methods/pmr.py", {}),
        ("cli/grid.py", {}),
    ],
)
def test_changed_code_plans_the_steps_that_use_it(suite: Suite, module: str, expected: dict):
    path = suite.checkout / "src/amst" / module
    path.write_text(path.read_text() + "\n# only a comment\n")
    assert plan(suite) == Counter(), "a comment changes nothing"
    path.write_text(path.read_text() + "\nADDED_BY_A_TEST = 1\n")
    assert plan(suite) == Counter(expected)


def test_steps_that_use_changed_code_run_and_give_the_same(suite: Suite):
    before = suite.table(), suite.bytes_of_runs()
    for module in ("methods/naive.py", "features/frames.py", "datasets/stratified.py"):
        path = suite.checkout / "src/amst" / module
        path.write_text(path.read_text() + "\nADDED_BY_A_TEST = 1\n")
    steps = {"extract": 2, **PREPARED, "split": 1, "train": 1}
    done = suite.snakemake()
    assert jobs_of(done) == Counter({**steps, **RESULTS})
    told = "1 finished run is deleted and trained anew (digits/random/naive/seed0): 1 code changed"
    assert told in done.stderr, "and not the other, whose data come out as they were"
    assert (suite.table(), suite.bytes_of_runs()) == before


def test_a_new_dataset_or_method_reruns_nothing(suite: Suite):
    methods = suite.checkout / "src/amst/methods"
    (methods / "mine.py").write_text((methods / "naive.py").read_text())
    suite.configure(changed("methods.mine", {"method": "mine"}))
    assert suite.jobs() == Counter()


def test_another_checkout_and_another_call_rerun_nothing(suite: Suite, tmp_path):
    (suite.checkout).rename(tmp_path / "elsewhere")
    suite.checkout = tmp_path / "elsewhere"
    assert suite.jobs("--profile", str(suite.checkout / "profiles/local")) == Counter()
    assert suite.jobs("--cores", "1", "results/tables/main.csv") == Counter()
