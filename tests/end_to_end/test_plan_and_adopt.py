"""`amst plan` and `amst adopt`: what would be trained, why, and declaring runs valid."""

import copy
import shutil

import pytest

from tests.end_to_end.suite import SMALL, Suite, mark_incomplete, planned

NAIVE = "digits/random/naive/seed0"


def plan(suite: Suite) -> str:
    """What `amst plan --runs` prints."""
    return suite.amst("plan", "--runs", "--configfile", str(suite.config)).stdout


def change_code(suite: Suite) -> None:
    """A change in the naive method's file."""
    path = suite.checkout / "src/amst/methods/naive.py"
    path.write_text(path.read_text() + "\nADDED_BY_A_TEST = 1\n")


def test_nothing_is_planned_when_everything_is_done(here: Suite):
    assert "0 of 2 runs to train: 0.00 hours" in plan(here)


def test_the_disk_that_a_finished_grid_takes_is_measured(here: Suite):
    lines = {line.split("  ")[0]: line for line in plan(here).splitlines()}
    for what, folder in (("features digits", "features/digits"), ("runs digits", "runs")):
        files = [path for path in here.file(f"results/{folder}").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        shown, unit = lines[what].split()[2:4]
        assert float(shown) * {"kB": 1e3, "MB": 1e6}[unit] == pytest.approx(size, rel=0.01)
        assert lines[what].split()[4] == str(len(files))
    assert "0 runs at once" in lines["working checkpoints"]


def test_a_changed_setting_is_planned_with_its_reason_and_measured_hours(here: Suite):
    values = copy.deepcopy(SMALL)
    values["datasets"]["digits"]["recipe"]["epochs"] = 3
    here.configure(values)
    text = plan(here)
    assert "2 of 2 runs to train" in text
    assert f"{NAIVE}: settings changed" in text
    (total,) = (line for line in text.splitlines() if "runs to train" in line)
    assert "?" not in total, "hours come from the finished runs"


@pytest.mark.parametrize(
    ("key", "value"),
    [("split_seed", 1), ("shards", 3), ("generate", {"samples": 150, "pools": 12})],
)
def test_changed_data_are_planned_with_the_setting(here: Suite, key: str, value: object):
    values = copy.deepcopy(SMALL)
    values["datasets"]["digits"][key] = value
    here.configure(values)
    text = plan(here)
    assert "2 of 2 runs to train" in text
    assert f"{NAIVE}: data changed ({key})" in text


def test_data_that_were_made_anew_are_planned_for(here: Suite):
    values = copy.deepcopy(SMALL)
    values["datasets"]["digits"]["split_seed"] = 1
    here.configure(values)
    here.snakemake("results/features/digits/splits/random.json")
    assert f"{NAIVE}: data changed\n" in plan(here)


def test_a_run_that_never_ran_has_no_estimate(here: Suite):
    values = copy.deepcopy(SMALL)
    values["grid"]["methods"].append("pmr")
    here.configure(values)
    assert "1 of 3 runs to train: ? hours" in plan(here)


def test_hours_of_a_new_variant_are_those_of_its_method_and_marked(here: Suite):
    values = copy.deepcopy(SMALL)
    values["methods"] = {"another": {"method": "naive"}}
    values["grid"]["methods"].append("another")
    here.configure(values)
    assert "1 of 3 runs to train: ~0.0" in plan(here)


def test_an_adopted_run_is_not_trained_again_and_says_so(here: Suite):
    change_code(here)
    assert f"{NAIVE}: code changed" in plan(here)
    here.amst("adopt", NAIVE, "--reason", "a constant was added", "--configfile", str(here.config))
    assert "0 of 2 runs to train" in plan(here)
    assert here.jobs() == {"tables": 1, "figures": 1}, "the record has changed, the run has not"
    assert "a constant was added" in here.file("results/tables/runs.csv").read_text()
    change_code(here)
    assert f"{NAIVE}: code changed" in plan(here), "an adoption is for one state of the code"


def test_an_adoption_ends_with_the_run_that_it_was_for(here: Suite):
    method = here.checkout / "src/amst/methods/naive.py"
    before = method.read_text()
    change_code(here)
    here.amst("adopt", NAIVE, "--reason", "a test", "--configfile", str(here.config))
    shutil.rmtree(here.file(f"results/runs/{NAIVE}"))
    here.snakemake(f"results/runs/{NAIVE}/run.json")
    assert "0 of 2 runs to train" in plan(here)
    assert "train" not in planned(here.snakemake("-n").stdout)
    method.write_text(before)
    assert f"{NAIVE}: code changed" in plan(here)
    assert planned(here.snakemake("-n").stdout)["train"] == 1, "the other code has trained it"


def test_only_finished_runs_with_these_settings_can_be_adopted(here: Suite):
    arguments = ("--reason", "none", "--configfile", str(here.config))
    done = here.amst("adopt", "digits/random/pmr/seed0", *arguments, check=False)
    assert done.returncode == 1
    assert "has not finished" in done.stderr
    values = copy.deepcopy(SMALL)
    values["datasets"]["digits"]["recipe"]["epochs"] = 3
    here.configure(values)
    assert "settings changed" in here.amst("adopt", NAIVE, *arguments, check=False).stderr


def test_a_run_whose_end_no_call_has_seen_cannot_be_adopted(here: Suite):
    """Snakemake starts its job again, whatever was declared."""
    change_code(here)
    mark_incomplete(here.work, NAIVE)
    arguments = ("--reason", "none", "--configfile", str(here.config))
    assert "has seen the end" in here.amst("adopt", NAIVE, *arguments, check=False).stderr
    assert "1 of 2 runs to train" in plan(here)
