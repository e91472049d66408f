"""What `amst doctor` says of a cluster, before anything is submitted."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from amst import grid
from amst.cluster import node, requests, scheduler, slurmconf, storage
from amst.cluster.findings import Finding
from amst.cluster.site import Site
from tests.cluster.machines import ROOT, Slurm, slurm_that_is_down


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


def examined(
    slurm: Slurm,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    site: dict[str, Any],
    resources: dict[str, int],
) -> list[Finding]:
    """What it says of SLURM, with a site's file and what training on the digits asks for."""
    (work / "site.yaml").write_text(yaml.safe_dump(site))
    for key, value in {**slurm.environment, "AMST_SITE": str(work / "site.yaml")}.items():
        monkeypatch.setenv(key, value)
    values = yaml.safe_load((ROOT / "config.yaml").read_text())
    values["datasets"]["digits"]["resources"] |= resources
    return list(scheduler.examine(work, grid.check_config(values)))


def test_a_sound_cluster_has_no_faults(slurm: Slurm, tmp_path):
    done = doctor(slurm, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accounting: off: the profile asks squeue" in done.stdout
    assert "GPUs: gpu:2\n" in done.stdout, "and no word of the nodes' lscratch"
    assert "partition: gpu: up to 01:00:00" in done.stdout
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


@pytest.mark.parametrize(
    ("resources", "site", "said"),
    [
        ({"mem_mb": 999_000}, {}, "fault training on digits: SLURM refuses --partition=cpu"),
        ({"threads": 64}, {}, "--cpus-per-task=64: allocation failure: Requested node config"),
        ({"gpu": 9, "mem_mb": 9}, {"gpu_request": "gres"}, "--gres=gpu:9: allocation failure"),
        ({"runtime": 6000}, {}, "training on digits: 6000 minutes, and the partition allows 60"),
        ({}, {"resources": {"extract": {"mem_mb": 999_000}}}, "fault jobs of rule extract"),
        ({}, {"resources": {"train": {"runtime": 90}}}, "digits: 90 minutes, and the partition"),
        ({}, {"jobs": 20_000}, "SLURM holds 10000 (MaxJobCount): lower jobs"),
        ({}, {"gpu_request": "gre"}, "gpu_request: unknown name 'gre'. Valid names: gpus, gres"),
        ({}, {"acount": "me"}, "acount: unknown key. Did you mean 'account'?"),
    ],
)
def test_what_slurm_would_refuse_or_leave_waiting_is_a_fault(
    slurm: Slurm, tmp_path, monkeypatch, resources: dict[str, int], site: dict[str, Any], said: str
):
    found = examined(slurm, tmp_path, monkeypatch, site, resources)
    assert said in "".join(f"{f.verdict} {f.about}: {f.text}\n" for f in found)
    assert "fault" in {finding.verdict for finding in found}


def test_a_list_of_partitions_is_looked_at_one_by_one(slurm: Slurm, tmp_path, monkeypatch):
    site = {"cpu_partition": "cpu,scav", "resources": {"train": {"slurm_partition": "gpu,none"}}}
    found = examined(slurm, tmp_path, monkeypatch, site, {})
    said = [f"{f.verdict} {f.text}" for f in found if f.about == "partition"]
    assert [line.split(":")[0] for line in said if line.startswith("ok")] == [
        "ok cpu", "ok gpu", "ok scav",
    ]  # fmt: skip
    assert [line.split(" (")[0] for line in said if line.startswith("fault")] == [
        "fault there is no none"
    ]
    jobs = {f.about: f for f in found}["jobs by default"]
    assert (jobs.verdict, jobs.text.split()[0]) == ("ok", "--partition=cpu,scav")


@pytest.mark.parametrize(
    ("names", "minutes", "verdict"),
    [
        ("short,long", 90, "ok"),
        ("long,short", 120, "ok"),
        ("long,short", 121, "fault"),
        ("short,free", 121, "ok"),
        ("short,odd", 121, "ok"),
        ("short,elsewhere", 121, "ok"),
        ("days", 7 * 24 * 60 + 30, "ok"),
        ("days", 7 * 24 * 60 + 31, "fault"),
    ],
)
def test_a_job_may_take_the_longest_time_of_a_list_of_partitions(
    monkeypatch: pytest.MonkeyPatch, names: str, minutes: int, verdict: str
):
    monkeypatch.setattr(requests, "_refused", lambda options: "")
    limits = {"short": "01:00:00", "long": "02:00:00", "days": "7-00:30:00"}
    limits |= {"free": "UNLIMITED", "odd": "INFINITE"}
    partitions = {name: {"MaxTime": limit} for name, limit in limits.items()}
    asked = requests.Request("a job", {"slurm_partition": names, "runtime": minutes})
    (found,) = requests.examine([asked], partitions)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("listed", "model", "verdict", "said"),
    [
        ("lscratch:800,gpu:a100:4(S:0-1)\n", "", "ok", "gpu:a100:4"),
        ("lscratch:800,gpu:a100:4(S:0-1)\n", "a100", "ok", "gpu:a100:4"),
        ("gpu:a100:4(S:0,2),lscratch:800\n", "h100", "fault", "which offers gpu:a100:4"),
        ("gpu:a100:2(S:0),gpu:h100:2(S:1)\n", "", "note", "(gpu:a100:2, gpu:h100:2)"),
        ("gpu:2(S:0)\ngpu:4(S:0-1)\n", "", "ok", "gpu:2, gpu:4"),
        ("lscratch:800,gpu_mem:40960\n(null)\n", "", "fault", "offers none"),
    ],
)
def test_gpus_are_found_among_other_resources(listed: str, model: str, verdict: str, said: str):
    """As sinfo prints them at sites with several sockets; the cluster here has one."""
    found = scheduler.gpus(listed, model)
    assert found.verdict == verdict
    assert said in found.text


def test_slurm_that_is_down_says_why(slurm: Slurm, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(slurm, "environment", slurm_that_is_down(tmp_path))
    done = doctor(slurm, tmp_path)
    assert done.returncode == 1
    assert "SLURM: scontrol: " in done.stdout
    assert "Unable to contact slurm controller" in done.stdout


@pytest.mark.parametrize(
    ("site", "verdict", "said"),
    [
        ({}, "ok", "default"),
        ({"account": "lab"}, "ok", "lab"),
        ({"account": "Lab"}, "ok", "Lab"),
        ({"account": "labb"}, "fault", "you have no labb (you have big, lab)"),
        ({"account": "lab", "jobs": 51}, "fault", "may submit 50 jobs, and the profile 51"),
        ({"account": "LAB", "jobs": 51}, "fault", "may submit 50 jobs, and the profile 51"),
        ({"account": "big", "jobs": 500}, "ok", "big"),
    ],
)
def test_the_account_and_how_much_it_may_submit(site: dict[str, Any], verdict: str, said: str):
    (found,) = scheduler.account([["lab", "50"], ["big", ""]], Site(**{"jobs": 40, **site}))
    assert found.verdict == verdict
    assert said in found.text


def test_what_sacctmgr_does_not_answer_is_said(slurm: Slurm, monkeypatch: pytest.MonkeyPatch):
    """It fails on this cluster, which has no accounting, and then it is not there at all."""
    for key, value in slurm.environment.items():
        monkeypatch.setenv(key, value)
    settings = {"PreemptType": "preempt/qos", "PreemptMode": "CANCEL",
                "AccountingStorageType": "accounting_storage/slurmdbd"}  # fmt: skip
    (account,) = scheduler._account(settings, Site())
    assert (account.verdict, account.text.split()[0]) == ("fault", "sacctmgr:")
    (found,) = scheduler.pre_emption(settings, {}, Site())
    assert found.verdict == "note"
    assert "whether a QOS cancels jobs cannot be told: sacctmgr" in found.text
    monkeypatch.setenv("PATH", "")
    (found,) = scheduler.pre_emption(settings, {}, Site())
    assert "cannot be told: sacctmgr: No such file" in found.text


@pytest.mark.parametrize(
    ("listed", "mode", "cancelling"),
    [
        ([["normal", "low", "cluster"], ["low", "", "cluster"]], "CANCEL", ["low"]),
        ([["normal", "low", "cluster"], ["low", "", "cluster"]], "GANG,CANCEL", ["low"]),
        ([["normal", "low", "cluster"], ["low", "", "cluster"]], "REQUEUE", []),
        ([["normal", "low", "cluster"], ["low", "", "requeue"]], "CANCEL", []),
        ([["normal", "", "within,cancel"], ["low", "", "cancel"]], "REQUEUE", ["normal"]),
        ([["normal", "", "cluster"]], "CANCEL,WITHIN", ["normal"]),
    ],
)
def test_a_qos_cancels_jobs_where_another_may_pre_empt_them(
    listed: list[list[str]], mode: str, cancelling: list[str]
):
    assert scheduler.cancelling_qos(listed, mode) == cancelling


@pytest.mark.parametrize(
    ("site", "wanted"),
    [
        ({}, {"normal", "scav", "only"}),
        ({"account": "lab"}, {"scav"}),
        ({"account": "Many"}, {"normal"}),
        ({"account": "one"}, {"only"}),
        ({"account": "none"}, {"normal"}),
        ({"account": "lab", "qos": "High"}, {"high"}),
        ({"account": "lab", "resources": {"train": {"qos": "long"}}}, {"scav", "long"}),
    ],
)
def test_jobs_without_a_qos_get_the_account_s_default(site: dict[str, Any], wanted: set[str]):
    """As SLURM chooses it: the default, else the only one that is allowed, else 'normal'."""
    associations = [["lab", "scav", "normal,scav"], ["many", "", "a,b"], ["one", "", "only"]]
    assert scheduler.wanted_qos(associations, Site(**site)) == wanted


def test_a_limit_of_the_shell_is_noted():
    code = "from amst.cluster import node; print(*(found.text for found in node._limits()))"
    command = ["sh", "-c", f'ulimit -v 2000000 && exec "$0" -c "{code}"', sys.executable]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.startswith("`ulimit -v` leaves a process 2.0 GB: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(("status", "verdict"), [(0, "ok"), (255, "fault")])
def test_an_image_that_is_there_is_tried(tmp_path: Path, monkeypatch, status: int, verdict: str):
    """Through a stand-in for apptainer; the real one is tried in test_image."""
    program = tmp_path / "apptainer"
    program.write_text(f"#!/bin/sh\necho FATAL: no image >&2\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    image = tmp_path / "amst.sif"
    image.touch()
    (found,) = [found for found in node.examine(image) if found.about == "image"]
    assert found.verdict == verdict
    assert str(image) in found.text


@pytest.mark.parametrize("without", ["", "-S"])
def test_an_image_without_the_packages_is_a_fault(tmp_path: Path, monkeypatch, without: str):
    program = tmp_path / "apptainer"
    program.write_text(
        f'#!/bin/sh\n[ "$3" = python ] && exec {sys.executable} {without} "$4" "$5"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    image = tmp_path / "amst.sif"
    image.touch()
    (found,) = [found for found in node.examine(image) if found.about == "image"]
    assert found.verdict == ("fault" if without else "ok")
    assert ("lacks h5py, numpy, pydantic, torch, typer: " in found.text) == bool(without)
    assert (f"runs, Python {platform.python_version()}" in found.text) != bool(without)


@pytest.mark.parametrize(
    ("built", "verdict", "said"),
    [(True, "note", "the first call builds it"), (False, "fault", "which container.image names")],
)
def test_an_image_that_is_not_there_is_built_or_a_fault(
    tmp_path: Path, monkeypatch, built: bool, verdict: str, said: str
):
    program = tmp_path / "apptainer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    images = [f for f in node.examine(tmp_path / "amst.sif", built=built) if f.about == "image"]
    assert (images[0].verdict, len(images) > 1) == (verdict, built)
    assert said in images[0].text


@pytest.mark.parametrize("has", ["these", "others", "none"])
def test_an_image_of_other_packages_is_noted(tmp_path: Path, monkeypatch, has: str):
    """One that container.image names stays when requirements change, and runs are made in it."""
    within = tmp_path / "requirements.txt"
    if has != "none":
        within.write_text(node.REQUIREMENTS.read_text() + ("more==1\n" if has == "others" else ""))
    program = tmp_path / "apptainer"
    program.write_text(f'#!/bin/sh\nif [ "$3" = cat ]; then exec cat {within}; fi\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    image = tmp_path / "amst.sif"
    image.touch()
    found = [f for f in node.examine(image, built=False) if f.about == "image"]
    assert [f.verdict for f in found] == (["ok", "note"] if has == "others" else ["ok"])
    definition = (node.REQUIREMENTS.parent / "amst.def").read_text()
    assert f"containers/requirements.txt {node.IN_IMAGE}" in definition


@pytest.mark.parametrize("compiler", ["cc-of-the-image", ""])
def test_compiled_steps_need_a_c_compiler_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    """Through a stand-in for apptainer, which runs what it is told to."""
    program, inside = tmp_path / "apptainer", tmp_path / "cc-of-the-image"
    program.write_text(f'#!/bin/sh\nshift 4\nCC={compiler} PATH={tmp_path} {sys.executable} "$2"\n')
    inside.write_text("")
    for each in (program, inside):
        each.chmod(0o755)
    image = tmp_path / "amst.sif"
    image.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    here, there = (f for f in node.examine(image, compiles=True) if f.about == "compiling")
    assert here.verdict == "note"
    assert "a C compiler is not here" in here.text
    assert there.verdict == ("ok" if compiler else "fault")
    assert str(image) in there.text
    assert not [f for f in node.examine(image) if f.about == "compiling"]


@pytest.mark.parametrize(
    ("kind", "on"),
    [
        ("(null)", False),
        ("accounting_storage/none", False),
        ("accounting_storage/slurmdbd", True),
    ],
)
def test_accounting_is_on_only_where_slurm_stores_it_somewhere(kind: str, on: bool):
    settings = slurmconf.read(f"AccountingStorageTRES   = cpu\nAccountingStorageType   = {kind}\n")
    assert slurmconf.accounting_is_on(settings) is on
    assert scheduler.accounting(settings, Site()).text.startswith("on" if on else "off")
    asking = scheduler.accounting(settings, Site(status_command="sacct"))
    assert asking.verdict == ("ok" if on else "fault")


@pytest.mark.parametrize(
    ("kill_wait", "verdicts"),
    [("30 sec", ["ok"]), ("15 sec", ["ok"]), ("14 sec", ["ok", "note"]), (None, ["ok"])],
)
def test_little_time_from_sigterm_to_sigkill_is_noted(kill_wait: str | None, verdicts: list[str]):
    settings = {} if kill_wait is None else {"KillWait": kill_wait}
    found = list(scheduler.pre_emption(settings, {}, Site()))
    assert [finding.verdict for finding in found] == verdicts


@pytest.mark.parametrize(
    ("most", "verdict"), [("10000", "ok"), ("40", "ok"), ("39", "fault"), ("", "ok")]
)
def test_slurm_must_hold_as_many_jobs_as_the_profile_submits(most: str, verdict: str):
    found = scheduler.many({"MaxJobCount": most} if most else {}, Site(jobs=40))
    assert found.verdict == verdict


def test_of_several_limits_of_an_account_the_least_counts():
    associations = [["lab", "500"], ["lab", "50"], ["big", "5"]]
    (found,) = scheduler.account(associations, Site(account="lab", jobs=51))
    assert (found.verdict, found.text.split(",")[0]) == ("fault", "may submit 50 jobs")
    (found,) = scheduler.account(associations, Site(account="lab", jobs=50))
    assert found.verdict == "ok"


def test_packages_that_are_not_as_pinned_are_noted(monkeypatch: pytest.MonkeyPatch):
    pins = node.pinned_packages()
    monkeypatch.setattr(node, "installed_packages", lambda: tuple(pins.items()))
    assert node._packages().verdict == "ok"
    other = tuple({**pins, "numpy": "1.0"}.items())
    monkeypatch.setattr(node, "installed_packages", lambda: other)
    found = node._packages()
    assert (found.verdict, found.text.split(";")[0]) == ("note", "not as pinned: numpy 1.0")


def test_a_partition_that_is_down_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Through a stand-in for sinfo."""
    program = tmp_path / "sinfo"
    program.write_text("#!/bin/sh\necho gpu:2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    partitions = {"cpu": {"State": "UP", "MaxTime": "1:00"}, "gpu": {"State": "DRAIN"}}
    cpu, gpu, offered = scheduler._wanted(partitions, Site())
    assert [each.verdict for each in (cpu, gpu, offered)] == ["ok", "fault", "ok"]
    assert gpu.text == "gpu is DRAIN"


def test_what_a_job_asks_for_is_what_the_plugin_would_say():
    resources = {"slurm_partition": "gpu", "gpu": 2, "gpu_model": "a100", "mem_mb": "9 * attempt",
                 "runtime": 60, "gres": "", "qos": ""}  # fmt: skip
    asked = requests.Request("a job", resources)
    assert asked.options() == ["--partition=gpu", "--time=60", "--gpus=a100:2"]
    without = requests.Request("a job", {**resources, "gpu": 0})
    assert without.options() == ["--partition=gpu", "--time=60"]


@pytest.mark.parametrize(
    ("extra", "options"),
    [
        ("'--reservation=ml --exclude=n1'", ["--reservation=ml", "--exclude=n1"]),
        ("--exclude=n1 --nice=5", ["--exclude=n1", "--nice=5"]),
        ("'--nice=' + str(attempt)", []),
        ("--mail-type='FAIL", ["--mail-type='FAIL"]),
    ],
)
def test_more_options_of_the_site_are_tried_in_quotes_and_without(extra: str, options: list[str]):
    others, *_ = requests.requests(Site(slurm_extra=extra), None)
    assert others.options() == ["--partition=cpu", "--time=30", "--mem=2000", *options]


def test_training_jobs_ask_for_what_their_dataset_and_then_the_site_wants():
    config = grid.read_config(ROOT / "config.yaml")
    own = config.datasets["digits"].resources
    site = Site(resources={"train": {"runtime": 7}, "extract": {"mem_mb": 5}})
    others, extract, training = requests.requests(site, config)
    assert (extract.about, extract.resources["mem_mb"]) == ("jobs of rule extract", 5)
    assert extract.resources["runtime"] == others.resources["runtime"]
    assert training.about == "training on digits"
    assert training.resources["runtime"] == 7
    assert training.resources["mem_mb"] == own.mem_mb
    assert training.resources["cpus_per_task"] == own.threads
    assert training.resources["slurm_partition"] == ("gpu" if own.gpu else "cpu")


@pytest.mark.parametrize(("driver", "verdict"), [("535.104", "fault"), ("580.65.06", "ok")])
def test_an_old_driver_is_a_fault(driver, verdict):
    assert node.judge_gpu([f"NVIDIA A100, {driver}"], ["8.0"], cuda=13).verdict == verdict


@pytest.mark.parametrize(
    ("capabilities", "cuda", "verdict"),
    [(["7.0", "7.0"], 13, "fault"), (["7.0"], 12, "ok"), (["7.5"], 13, "ok"), ([], 13, "ok")],
)
def test_a_gpu_that_the_pinned_torch_has_no_code_for_is_a_fault(capabilities, cuda, verdict):
    found = node.judge_gpu(["Tesla V100-SXM2-32GB, 580.65.06"], capabilities, cuda)
    assert found.verdict == verdict
    assert ("compute capability 7.0" in found.text) == (verdict == "fault")


def test_the_pinned_torch_brings_a_cuda_that_the_tables_of_drivers_and_gpus_know():
    assert node.cuda_of_pins() in node._DRIVERS.keys() & node._CAPABILITIES.keys()


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path):
    findings = list(storage.examine(tmp_path / "none"))
    assert [found.verdict for found in findings] == ["fault"]


def test_a_machine_that_does_not_tell_a_process_its_cores(monkeypatch):
    """Macs are such."""
    monkeypatch.delattr(os, "sched_getaffinity")
    assert f"{os.cpu_count()} cores" in node._processors().text


def test_a_user_of_whom_a_machine_knows_no_name_has_a_number(tmp_path, monkeypatch):
    """As a node whose directory of users does not answer."""

    def nobody(uid: int):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert node._user() == str(os.getuid())
    for found in node.examine(tmp_path / "amst.sif"):
        assert "getpwuid" not in found.text
