"""A call in which runs fail: what is there can be looked at, and says what is not."""

import copy

import pytest

from tests.end_to_end.suite import SMALL, Suite


@pytest.fixture(scope="module")
def broken(finished: Suite, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The finished grid, called again with one method more, which diverges at its first step."""
    suite = finished.copy(tmp_path_factory.mktemp("broken") / "copy")
    values = copy.deepcopy(SMALL)
    values["grid"]["methods"].append("diverging")
    values["methods"] = {"diverging": {"method": "naive", "recipe": {"learning_rate": 1e30}}}
    suite.configure(values)
    (suite.work / "config.yaml").write_text((suite.checkout / "config.yaml").read_text())
    # Only the run: the grid that lies there stays that of the call before.
    record = "results/runs/digits/random/diverging/seed0/run.json"
    place = suite.checkout.parent / "of my own"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place))
        assert suite.snakemake("--retries", "2", record, check=False).returncode != 0
    assert "diverging" not in suite.file("results/grid.json").read_text()
    return suite


def test_a_run_that_would_fail_again_is_tried_once(broken: Suite):
    """Snakemake's tries are for jobs that are taken away."""
    log = broken.file("logs/train/digits/random/diverging/seed0.log").read_text()
    assert log.count("the training diverged") == 1
    assert "amst retry" not in log, "nor started, to refuse"


def test_a_failed_run_stands_in_partial_tables_and_in_status(broken: Suite, finished: Suite):
    partial = broken.file("results/tables/partial/main.md").read_text()
    assert "| diverging | failed |" in partial
    assert "| naive | " in partial
    assert not broken.file("results/tables/main.csv").exists() or broken.table() == finished.table()
    status = broken.amst("status", "--configfile", str(broken.config)).stdout
    assert "2 done, 0 running, 1 failed, 0 missing of 3 runs" in status
    assert "logs/train/digits/random/diverging/seed0.log" in status


def test_a_report_of_what_is_there_says_what_failed(broken: Suite):
    configured = ("--configfile", str(broken.config))
    assert broken.amst("report", *configured, check=False).returncode == 1
    broken.amst("report", "--partial", *configured)
    assert "1 run is not done" in broken.file("results/report-partial.html").read_text()
