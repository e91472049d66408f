"""The CI grid through profiles/slurm, by an ordinary user, ends with the same tables as here."""

from collections.abc import Callable

import pytest

from amst.cluster.live import prefix_of
from tests.cluster.conftest import GRID
from tests.cluster.machines import ClusterSuite, Slurm
from tests.cluster.users import OrdinaryUser, why_not


@pytest.fixture
def suite(
    start_slurm: Callable[..., Slurm], tmp_path_factory: pytest.TempPathFactory
) -> ClusterSuite:
    """A working folder of a user who may only read the checkout, on a cluster of root's."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("ordinary")  # stays as long as the cluster runs
    suite = ClusterSuite.new(folder / "suite", GRID)
    suite.user = OrdinaryUser(folder)
    suite.slurm = start_slurm(folder / "c", within=suite.user.within)
    suite.extra["HOME"] = str(suite.work)
    suite.user.own(suite.work)
    return suite


def test_whole_chain_gives_the_same_tables(suite: ClusterSuite, grid: ClusterSuite):
    # jobs are named after the folder, however it is given
    suite.snakemake(*suite.on_slurm("results/tables/main.csv", f"--directory={suite.work}"))
    assert suite.tables() == grid.tables()
    assert suite.bytes_of_runs() == grid.bytes_of_runs()

    slurm = suite.slurm
    jobs = suite.completed()
    assert all(job["name"].startswith(prefix_of(suite.work) + "_") for job in jobs)
    trained = [job for job in jobs if job["about"].startswith("rule_train")]
    assert len(trained) == 2, "each run is one job"
    assert {job["partition"] for job in trained} == {"gpu"}
    for job in trained:
        assert slurm.field(job["id"], "TresPerJob") == "gres:gpu:1"
        (log,) = suite.file("logs/slurm").rglob(f"{job['id']}.log")
        assert log.read_text().count("Building DAG of jobs") == 1, "one Snakemake, not two"
    others = [job for job in jobs if not job["about"].startswith("rule_train")]
    assert {job["partition"] for job in others} == {"cpu"}
    for run in ("naive", "unimodal_audio"):
        record = suite.record(f"digits/random/{run}/seed0")
        assert record["cost"]["attempts"] == 1
        local = grid.record(f"digits/random/{run}/seed0")["environment"]["device"]
        assert record["environment"]["device"] == local, "no real GPU behind the made-up ones"
        made = suite.file(f"results/runs/digits/random/{run}/seed0/run.json").stat()
        assert made.st_uid == suite.user.uid != 0
