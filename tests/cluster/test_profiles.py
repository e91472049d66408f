"""The profiles: what they set, from which site's file, and on machines that have nothing."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
import yte

from amst.cluster.live import prefix_of
from amst.cluster.site import TOLD
from tests.cluster.machines import ROOT, ClusterSuite, Slurm, slurm_that_is_down

PROFILES = ROOT / "profiles"
EXAMPLES = sorted((PROFILES / "slurm" / "sites").glob("*.yaml"))


def profile(
    name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str
) -> dict[str, Any]:
    """A profile as Snakemake reads it."""
    monkeypatch.setattr(sys, "argv", ["snakemake", *arguments])
    monkeypatch.setenv(TOLD, "")  # the profile sets it, and it must not outlive the test
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(ROOT / "src")])
    with (PROFILES / name / "config.yaml").open() as file:
        found = yte.process_yaml(file)
    assert sys.path[0] == str(ROOT / "src"), "the package of its own checkout"
    return found


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
def test_an_example_leaves_each_dataset_what_its_training_jobs_ask_for(example: Path, monkeypatch):
    found = profile("slurm", monkeypatch, "-n", AMST_SITE=str(example))
    assert "train" not in found.get("set-resources", {})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_site_goes_over_the_rules(example: Path, tmp_path: Path, monkeypatch):
    mine = tmp_path / "site.yaml"
    shown = re.sub("^# (resources:|  train:)", r"\1", example.read_text(), flags=re.MULTILINE)
    mine.write_text(shown)
    site = yaml.safe_load(shown)
    found = profile("slurm", monkeypatch, "-n", AMST_SITE=str(mine))
    train = found["set-resources"]["train"]
    assert train["runtime"] == site["resources"]["train"]["runtime"]
    assert "mem_mb" not in train, "it would not grow there"
    assert not {"gpu", "gres", "gpu_model"} & set(train), "the rule knows whether one is wanted"
    defaults = found["default-resources"]
    assert defaults["slurm_partition"] == repr(site["cpu_partition"])
    assert defaults["slurm_account"] == repr(site["account"])
    assert defaults.get("qos") == (repr(site["qos"]) if "qos" in site else None)
    assert defaults.get("slurm_extra") == site.get("slurm_extra")
    assert isinstance(defaults["disk_mb"], int), "Snakemake's own grows with the inputs"
    assert found["jobs"] == site["jobs"]


@pytest.mark.parametrize("form", ["{}", "-d {}", "-d{}", "--directory {}", "--directory={}"])
def test_jobs_are_named_after_the_working_folder(form: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path if form == "{}" else tmp_path.parent)
    words = [] if form == "{}" else form.format(tmp_path).split()
    found = profile("slurm", monkeypatch, "-n", *words)
    assert found["slurm-jobname-prefix"] == prefix_of(tmp_path)


@pytest.mark.parametrize("text", ["acount: x", "resources: {train: }"])
def test_a_mistake_in_the_site_s_file_ends_the_call_in_one_line(tmp_path: Path, text: str):
    suite = ClusterSuite.new(tmp_path / "suite")
    suite.site = yaml.safe_load(text)
    done = suite.snakemake("--profile", str(suite.checkout / "profiles/slurm"), "-n", check=False)
    assert done.returncode == 1
    *announced, said = done.stderr.splitlines()
    assert len(announced) == 1, "which profiles Snakemake uses"
    assert said.startswith(f"profiles/slurm: {suite.work}/site.yaml: ")


def test_nothing_starts_while_slurm_does_not_answer(tmp_path: Path, slurm: Slurm):
    """By default Snakemake would take sacct, and wait for ever where there is no accounting."""
    suite = ClusterSuite.new(tmp_path / "suite")
    suite.slurm = slurm
    suite.extra = slurm_that_is_down(tmp_path)
    arguments = ("results/raw/digits/digits.json", "--profile")
    profile = str(suite.checkout / "profiles" / "slurm")
    done = suite.snakemake(*arguments, profile, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("profiles/slurm: SLURM does not answer: ")
    assert "Traceback" not in done.stderr
    suite.snakemake(*arguments, profile, "-n")


def test_resources_of_another_profile_or_option_are_refused(tmp_path: Path):
    """Snakemake replaces the whole block, and jobs would lose partition and account."""
    suite = ClusterSuite.new(tmp_path / "suite")
    suite.site = {"resources": {"train": {"slurm_partition": "long"}}}
    stale = suite.work / "profiles" / "default"
    stale.mkdir(parents=True)
    (stale / "config.yaml").write_text("default-resources:\n  mem_mb: 1000\n")
    arguments = ("--profile", str(suite.checkout / "profiles" / "slurm"), "-n")
    done = suite.snakemake(*arguments, check=False)
    assert done.returncode == 1
    assert "default-resources of profiles/slurm are replaced" in done.stdout + done.stderr
    alone = (*arguments, "--workflow-profile", "none")
    done = suite.snakemake(*alone, "--set-resources", "train:runtime=7", check=False)
    assert done.returncode == 1
    assert "the site's resources.train are replaced by set-resources" in done.stdout + done.stderr
    suite.snakemake(*alone)


def test_without_accounting_squeue_is_asked(slurm: Slurm, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = profile("slurm", monkeypatch, **slurm.environment)
    assert found["slurm-status-command"] == "squeue"
    assert found["software-deployment-method"] == "apptainer", "whether it is there or not"


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("(null)", "squeue"),
        ("accounting_storage/none", "squeue"),
        ("accounting_storage/slurmdbd", None),
    ],
)
def test_the_command_that_is_asked_goes_by_what_slurm_says_of_accounting(
    kind: str, asked: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a stand-in for scontrol: (null) is what later versions than ours say."""
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\necho 'AccountingStorageType   = {kind}'\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    found = profile("slurm", monkeypatch, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert found.get("slurm-status-command") == asked


@pytest.mark.parametrize(
    ("age", "command", "first"),
    [("600 sec", None, 40), ("60 sec", None, 20), ("2 sec", None, 1), ("0 sec", None, 40),
     ("60 sec", "sacct", 40)],
)  # fmt: skip
def test_ended_jobs_are_looked_at_before_slurm_forgets_them(
    age: str, command: str | None, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin would turn to sacct, and without accounting wait for ever."""
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\necho 'MinJobAge               = {age}'\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.yaml").write_text(f"status_command: {command}\n" if command else "")
    site = {"AMST_SITE": str(tmp_path / "site.yaml"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = profile("slurm", monkeypatch, **site)
    assert found["slurm-status-command"] == (command or "squeue")
    assert found["slurm-init-seconds-before-status-checks"] == first


def test_the_settings_that_survive_outages_and_pre_emption(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slurm = profile("slurm", monkeypatch, "-n")
    assert slurm["max-status-checks-per-second"] == 1
    assert slurm["slurm-requeue"] is True
    assert slurm["retries"] >= 10
    assert "slurm-array-jobs" not in slurm
    assert slurm["latency-wait"] >= 60
    assert slurm["max-jobs-per-timespan"] == "20/1s"
    assert slurm["local-cores"] <= 2, "a login node is everybody's"


def test_jobs_in_the_image_see_the_gpus_that_are_theirs(tmp_path, monkeypatch):
    """With --cleanenv, too, each would take the first."""
    monkeypatch.chdir(tmp_path)
    for name in ("slurm", "node"):
        assert profile(name, monkeypatch, "-n")["apptainer-args"] == "--nv"


def test_a_job_that_fails_ends_no_other_and_what_it_said_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slurm, node = (profile(name, monkeypatch, "-n") for name in ("slurm", "node"))
    local, always = (
        yaml.safe_load((PROFILES / name / "config.yaml").read_text())
        for name in ("local", "default")
    )
    assert all(each["keep-going"] for each in (slurm, node, local))
    assert always["show-failed-logs"] is True
    assert slurm["slurm-keep-successful-logs"] is True
    assert slurm["slurm-delete-logfiles-older-than"] == 0, "never"


def test_no_rule_has_retries_of_its_own():
    """They would be repeated inside each allocation."""
    for rules in (ROOT / "workflow").rglob("*.smk"):
        assert "retries:" not in rules.read_text(), rules


def test_the_profile_that_always_holds_replaces_nothing_of_another():
    always = yaml.safe_load((PROFILES / "default" / "config.yaml").read_text())
    others = [yaml.safe_load((PROFILES / "local" / "config.yaml").read_text())]
    assert {"scheduler", "scheduler-subsample"} <= set(always)
    assert always["rerun-incomplete"] is True
    # the same packages are inside and outside the container
    assert set(always["rerun-triggers"]) == {"mtime", "params", "input", "code"}
    blocks = {"resources", "default-resources", "set-resources", "cores", "jobs", "executor"}
    assert not blocks & set(always)
    assert not set(always) & set(others[0])


DIVIDED = (
    "GPU 0: A100 (UUID: GPU-a)",
    "  MIG 3g.20gb     Device  0: (UUID: MIG-c)",
    "  MIG 3g.20gb     Device  1: (UUID: MIG-d)",
    "GPU 1: A100 (UUID: GPU-b)",
)
"""What the driver says of two cards, the first of which is divided into two instances."""


@pytest.mark.parametrize(
    ("devices", "each", "gpu"),
    [
        ("0,1", "3", 6),
        ("MIG-c", "2", 2),
        ("", "1", 1000),
        (None, "1", 3),
        (None, "2", 6),
        (None, None, 3),
    ],
)
def test_an_allocation_offers_its_gpus_times_the_runs_on_each(
    driver, monkeypatch, devices: str | None, each: str | None, gpu: int
):
    """What a scheduler says of its GPUs goes over what the driver lists."""
    driver(DIVIDED)
    monkeypatch.setenv("AMST_RUNS_PER_GPU", "")  # the profile sets it: it goes with the test
    given = {"CUDA_VISIBLE_DEVICES": devices, "AMST_RUNS_PER_GPU": each}
    for name in given:
        monkeypatch.delenv(name, raising=False)
    node = profile(
        "node", monkeypatch, SLURM_CPUS_PER_TASK="12",
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    assert node["resources"]["gpu"] == gpu
    assert node["cores"] == 12
    assert node["retries"] > 0
    assert node["latency-wait"] >= 30
    assert os.environ["AMST_RUNS_PER_GPU"] == (each or "1")
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert profile("node", monkeypatch)["cores"] == len(os.sched_getaffinity(0))


def test_a_wrong_number_of_runs_on_a_gpu_is_said_in_words(tmp_path: Path):
    suite = ClusterSuite.new(tmp_path / "suite")
    suite.extra = {"AMST_RUNS_PER_GPU": "two"}
    done = suite.snakemake("--profile", str(suite.checkout / "profiles/node"), "-n", check=False)
    assert done.returncode
    said = "AMST_RUNS_PER_GPU is 'two'. Set it to the number of runs on one GPU"
    assert done.stderr.splitlines()[-1].endswith(said)
