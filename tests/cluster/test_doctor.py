"""What `amst doctor` says of a cluster, before anything is submitted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from amst.cluster import node, scheduler, storage
from tests.cluster.machines import ROOT, Slurm


def doctor(slurm: Slurm, work: Path, **site: object) -> subprocess.CompletedProcess[str]:
    """Call it in a folder on the cluster, with a site's file."""
    (work / "site.yaml").write_text(yaml.safe_dump(site))
    return subprocess.run(
        [sys.executable, "-m", "amst", "doctor"],
        cwd=work,
        env={**os.environ, **slurm.environment, "PYTHONPATH": str(ROOT / "src"),
             "AMST_SITE": str(work / "site.yaml"), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip


def test_a_sound_cluster_has_no_faults(slurm: Slurm, tmp_path):
    done = doctor(slurm, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accounting: off: the profile asks squeue" in done.stdout
    assert "GPUs: gpu:2" in done.stdout
    assert "partition: gpu: up to 01:00:00" in done.stdout
    assert "/bin/srun sets it" in done.stdout
    assert "jobs: none of this folder live" in done.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "site.yaml"], "it leaves nothing behind"


def test_everything_that_will_not_work_is_named(start_slurm, tmp_path, monkeypatch):
    cancelling = start_slurm(nodes=1, gpus=1, preempt="CANCEL")
    site = {"gpu_partition": "scav", "cpu_partition": "long", "gpu_model": "h100",
            "status_command": "sacct"}  # fmt: skip
    done = doctor(cancelling, tmp_path, **site)
    assert done.returncode == 1
    assert "partition scav cancels pre-empted jobs" in done.stdout
    assert "there is no long (there are cpu, gpu, scav)" in done.stdout
    assert "no h100 in the GPU partition" in done.stdout
    assert "Snakemake would wait for ever" in done.stdout
    assert "will not work. Mend them before you submit" in done.stderr


def test_slurm_conf_without_a_wrapper_is_a_fault(slurm: Slurm, tmp_path):
    bare = {"SLURM_CONF": slurm.environment["SLURM_CONF"], "PATH": os.environ["PATH"]}
    kept, slurm.environment = slurm.environment, bare
    try:
        done = doctor(slurm, tmp_path)
    finally:
        slurm.environment = kept
    assert done.returncode == 1
    assert "fault SLURM_CONF" in done.stdout


@pytest.mark.parametrize(
    ("age", "first", "verdict"), [("600 sec", 40, "note"), ("60 sec", 40, "fault")]
)
def test_without_accounting_ended_jobs_must_stay_visible(age, first, verdict):
    settings = {"AccountingStorageType": "accounting_storage/none", "MinJobAge": age}
    assert scheduler.accounting(settings, {"first_status_check": first}).verdict == verdict


@pytest.mark.parametrize(("driver", "verdict"), [("535.104", "fault"), ("580.65.06", "ok")])
def test_an_old_driver_is_a_fault(driver, verdict):
    assert node.judge_driver([f"NVIDIA A100, {driver}"], cuda=13).verdict == verdict


def test_the_pinned_torch_brings_a_cuda_that_the_driver_table_knows():
    assert node.cuda_of_pins() in node._DRIVERS


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path):
    findings = list(storage.examine(tmp_path / "none"))
    assert [found.verdict for found in findings] == ["fault"]
