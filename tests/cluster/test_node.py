"""profiles/node: the grid packed into one allocation, on GPU slots, with the same bytes."""

from amst.cluster import slots
from tests.cluster.machines import ClusterSuite, Slurm


def test_one_allocation_gives_the_same_tables(slurm: Slurm, grid: ClusterSuite, folder):
    """One job of SLURM with two made-up GPUs holds Snakemake and all its jobs."""
    suite = ClusterSuite.on(grid, folder, slurm)
    suite.extra = {"AMST_RUNS_PER_GPU": "2", "TMPDIR": str(suite.work)}
    profile = str(suite.checkout / "profiles" / "node")
    call = suite.command("results/tables/main.csv", "--profile", profile)
    script = suite.work / "allocation.sh"
    script.write_text("#!/bin/bash\nexec " + " ".join(f"'{word}'" for word in call) + "\n")
    slurm_call = (
        "sbatch", "--wait", "-p", "gpu", "--gpus=2", "--cpus-per-task=4", "--mem=6000",
        "--time=10", "--requeue", "-D", str(suite.work), "-o", "node.log", str(script),
    )  # fmt: skip
    done = suite.run(*slurm_call)
    log = suite.file("node.log").read_text()
    assert done == 0, log[-4000:]
    (job,) = [job for job in slurm.jobs() if job["name"] == "allocation.sh"]
    at = suite.file(slots.folder({"SLURM_JOB_ID": job["id"]}).name)
    assert {"0.0", "1.0"} <= {path.name for path in at.iterdir()}, "a GPU for each of two runs"
    assert suite.tables() == grid.tables()
    assert suite.bytes_of_runs() == grid.bytes_of_runs()


def test_a_failed_run_does_not_end_the_others(grid: ClusterSuite, folder):
    suite = ClusterSuite.on(grid, folder)
    suite.extra = {"CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(suite.work)}
    run = "digits/random/naive/seed0"
    in_the_way = suite.file("results/checkpoints/digits/random/naive")
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where the run wants its folder")
    profile = str(suite.checkout / "profiles" / "node")
    done = suite.snakemake(
        "results/tables/main.csv", "--profile", profile, "--retries", "0", check=False
    )
    assert done.returncode == 1
    assert suite.file("results/runs/digits/random/unimodal_audio/seed0/run.json").is_file()
    assert not suite.file(f"results/runs/{run}/run.json").exists()
