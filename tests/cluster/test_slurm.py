"""The CI grid through profiles/slurm ends with the same tables as on this machine."""

from amst.cluster.live import prefix_of
from tests.cluster.conftest import GRID
from tests.cluster.machines import ClusterSuite, Slurm


def test_whole_chain_gives_the_same_tables(slurm: Slurm, grid: ClusterSuite, folder):
    suite = ClusterSuite.new(folder, GRID)
    suite.slurm = slurm
    # jobs are named after the folder, however it is given
    suite.snakemake(*suite.on_slurm("results/tables/main.csv", f"--directory={suite.work}"))
    assert suite.tables() == grid.tables()
    assert suite.bytes_of_runs() == grid.bytes_of_runs()

    # other tests use this cluster, too
    own = [job for job in slurm.jobs() if job["name"].startswith(prefix_of(suite.work) + "_")]
    jobs = [job for job in own if job["state"] == "COMPLETED"]
    trained = [job for job in jobs if job["about"].startswith("rule_train")]
    assert len(trained) == 2, "each run is one job"
    assert {job["partition"] for job in trained} == {"gpu"}
    for job in trained:
        assert slurm.field(job["id"], "TresPerJob") == "gres:gpu:1"
    others = [job for job in jobs if not job["about"].startswith("rule_train")]
    assert {job["partition"] for job in others} == {"cpu"}
    for run in ("naive", "unimodal_audio"):
        record = suite.record(f"digits/random/{run}/seed0")
        assert record["cost"]["attempts"] == 1
        local = grid.record(f"digits/random/{run}/seed0")["environment"]["device"]
        assert record["environment"]["device"] == local, "no real GPU behind the made-up ones"
