"""The benchmarks of the graph and its jobs call the real commands."""

from amst.bench.graph import measure_dry_run, measure_job
from amst.bench.prepared import Prepared
from amst.config.settings import Config
from amst.records import read_record


def test_a_dry_run_of_a_grid_is_measured(tmp_path):
    found = measure_dry_run(15, tmp_path)
    assert found.jobs == 20, "whole seeds of ten variants"
    assert found.seconds > 0
    assert 50 < found.peak_mb < 1000
    assert found.bare_seconds > 0
    assert 20 < found.bare_peak_mb < found.peak_mb, "not what this process holds"


def test_a_training_job_is_measured(tmp_path, config: Config, digits: Prepared):
    found = measure_job(config, digits, 1, tmp_path)
    assert min(found.training, found.linear) > 0
    assert found.training + found.linear < found.whole
    assert found.torch > 0
    (path,) = tmp_path.rglob("run.json")
    record = read_record(path)
    assert record.settings.recipe.epochs == 1
    assert found.training == record.cost.seconds
    assert found.linear == record.cost.linear_seconds
