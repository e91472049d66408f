"""The profiles: what they set, from which site's file, and on machines that have nothing."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
import yte

from amst.cluster.live import prefix_of
from tests.cluster.machines import ROOT, ClusterSuite, Slurm

PROFILES = ROOT / "profiles"
EXAMPLES = sorted((PROFILES / "slurm" / "sites").glob("*.yaml"))


def profile(name: str, monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, Any]:
    """A profile as Snakemake reads it."""
    monkeypatch.setattr(sys, "argv", ["snakemake"])
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with (PROFILES / name / "config.yaml").open() as file:
        return yte.process_yaml(file)


def bare_path(folder: Path) -> Path:
    """A folder with the few programs that Snakemake itself calls."""
    folder.mkdir()
    for program in ("bash", "sh", "git", "uname", "which"):
        if found := shutil.which(program):
            (folder / program).symlink_to(found)
    return folder


@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path and path.stem)
def test_a_dry_run_needs_neither_slurm_nor_apptainer(tmp_path: Path, example: Path | None):
    suite = ClusterSuite.new(tmp_path / "suite")
    suite.site = yaml.safe_load(example.read_text()) if example else {}
    suite.extra = {"PATH": str(bare_path(tmp_path / "bin"))}
    slurm = str(suite.checkout / "profiles" / "slurm")
    done = suite.snakemake("results/tables/main.csv", "--profile", slurm, "-n")
    assert "This was a dry-run" in done.stdout + done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_gpu_is_asked_for_in_one_way(example: Path, monkeypatch):
    site = yaml.safe_load(example.read_text())
    train = profile("slurm", monkeypatch, AMST_SITE=str(example))["set-resources"]["train"]
    if site["gpu_request"] == "gres":
        assert (train["gpu"], train["gres"]) == (0, "gpu:a100:1")
    else:
        assert "gres" not in train
    assert train["slurm_partition"] == site["gpu_partition"]
    assert train["runtime"] == site["resources"]["train"]["runtime"]


def test_jobs_are_named_after_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert profile("slurm", monkeypatch)["slurm-jobname-prefix"] == prefix_of(tmp_path)


def test_without_accounting_squeue_is_asked(slurm: Slurm, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = profile("slurm", monkeypatch, **slurm.environment)
    assert found["slurm-status-command"] == "squeue"


def test_the_settings_that_survive_outages_and_pre_emption(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slurm = profile("slurm", monkeypatch)
    assert slurm["slurm-status-attempts"] >= 600
    assert slurm["max-status-checks-per-second"] == 1
    assert slurm["slurm-requeue"] is True
    assert slurm["retries"] >= 10
    assert "slurm-array-jobs" not in slurm
    assert "--cleanenv" not in slurm["apptainer-args"]


def test_no_rule_has_retries_of_its_own():
    """They would be repeated inside each allocation."""
    for rules in (ROOT / "workflow").rglob("*.smk"):
        assert "retries:" not in rules.read_text(), rules


def test_the_profile_that_always_holds_replaces_nothing_of_another():
    always = yaml.safe_load((PROFILES / "default" / "config.yaml").read_text())
    others = [yaml.safe_load((PROFILES / "local" / "config.yaml").read_text())]
    assert {"scheduler", "scheduler-subsample"} <= set(always)
    blocks = {"resources", "default-resources", "set-resources", "cores", "jobs", "executor"}
    assert not blocks & set(always)
    assert not set(always) & set(others[0])


@pytest.mark.parametrize(("devices", "each", "gpu"), [("0,1", "3", 6), ("", "1", 1000)])
def test_an_allocation_offers_its_gpus_times_the_runs_on_each(devices, each, gpu, monkeypatch):
    node = profile(
        "node", monkeypatch, CUDA_VISIBLE_DEVICES=devices, AMST_RUNS_PER_GPU=each,
        SLURM_CPUS_PER_TASK="12",
    )  # fmt: skip
    assert node["resources"]["gpu"] == gpu
    assert node["cores"] == 12
    assert os.environ["AMST_RUNS_PER_GPU"] == each
