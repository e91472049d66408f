"""A job of SLURM is one Snakemake in one step."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin
from snakemake_interface_common.exceptions import WorkflowError

from amst.cluster.submission import STEP, ask_for_gpus, keep_the_settings, submit_steps
from tests.cluster.machines import ROOT, ClusterSuite


@pytest.fixture
def srun(tmp_path: Path) -> Path:
    """A folder with a stand-in for srun, which says what it is given and ends with status 75."""
    program = tmp_path / "srun"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv\nexit 75\n')
    program.chmod(0o755)
    return tmp_path


def test_a_step_inherits_the_job_s_identity_and_none_of_its_options(srun: Path):
    identity = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", "SLURM_SUBMIT_DIR": "/a b",
                "SLURM_CONF": "/opt/slurm.conf"}  # fmt: skip
    options = {
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_MEM_PER_NODE": "100",
        "SLURM_GPUS": "1",
        "SRUN_CPUS_PER_TASK": "4",
        "SBATCH_GRES": "gpu:1",
    }
    others = {"PATH": f"{srun}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "0"}
    others["TEXT"] = "a\nSLURM_NOT=a variable"
    done = subprocess.run(
        ["sh", STEP, "-n1", "--gpus=1", "python", "-c", "two words", 'and "quotes"'],
        env=identity | options | others,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 75, "how the command ended"
    assert done.stderr == ""
    said = done.stdout.splitlines()
    assert said[:6] == ["-n1", "--gpus=1", "python", "-c", "two words", 'and "quotes"']
    there = dict(line.split("=", 1) for line in said[6:] if "=" in line)
    assert identity.items() <= there.items()
    assert not options.keys() & there.keys()
    assert there["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.fixture
def submitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plugin submit steps, for one test."""

    def command(self: object, job: object) -> str:
        return f"python -m snakemake {self.additional_general_args()}--mode remote"

    monkeypatch.setattr(plugin.Executor, "__init__", plugin.Executor.__init__)
    monkeypatch.setattr(plugin.Executor, "format_job_exec", command)
    monkeypatch.setattr(plugin.Executor, "additional_general_args", lambda self: "--executor x ")
    monkeypatch.setattr(plugin, "get_max_array_size", plugin.get_max_array_size)
    submit_steps()


@pytest.mark.parametrize(
    ("resources", "options"),
    [
        ({}, "--cpus-per-task=3 --nodes=1"),
        ({"gpu": 1}, "--cpus-per-task=3 --gpus=1 --nodes=1"),
        ({"gpu": 0}, "--cpus-per-task=3 --nodes=1"),
        ({"gpu": 1, "cpus_per_gpu": 8}, "--cpus-per-gpu=8 --gpus=1 --nodes=1"),
        ({"gpu": 1, "cpus_per_task": 6}, "--cpus-per-task=6 --gpus=1 --nodes=1"),
    ],
)
@pytest.mark.usefixtures("submitting")
def test_the_step_has_the_options_that_the_plugin_gives_it(resources: dict[str, int], options: str):
    executor = object.__new__(plugin.Executor)
    job = SimpleNamespace(threads=3, resources=Resources(resources))
    step = f"sh {STEP} -n1 --cpu-bind=q {options} "
    assert executor.format_job_exec(job) == f"{step}python -m snakemake --mode remote"


def test_a_site_without_arrays_will_do(request: pytest.FixtureRequest, srun: Path, monkeypatch):
    """The plugin starts with none that allows fewer than two tasks, whatever a call wants."""
    scontrol = srun / "scontrol"
    scontrol.write_text("#!/bin/sh\necho 'MaxArraySize            = 0'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun}:{os.environ['PATH']}")
    assert plugin.get_max_array_size() < 2
    request.getfixturevalue("submitting")
    assert plugin.get_max_array_size() > 10, "nor does it warn"


@pytest.mark.parametrize(
    ("resources", "options"),
    [
        ({}, ""),
        ({"gpu": 0, "gpu_model": "", "gres": ""}, ""),
        ({"gpu": 2}, " --gpus=2"),
        ({"gpu": 1, "gpu_model": "a100-sxm4-80gb"}, " --gpus=a100-sxm4-80gb:1"),
        ({"gpu": 1, "gpu_model": "nvidia_a100_1g.5gb"}, " --gpus=nvidia_a100_1g.5gb:1"),
        ({"gpu_model": "h100"}, " --gpus=h100:1"),
        ({"gpu": 0, "gres": "gpu:a100-80gb:1"}, " --gres=gpu:a100-80gb:1"),
        ({"gres": "gpu:1,lscratch:100"}, " --gres=gpu:1,lscratch:100"),
        ({"gres": "gpu:1; rm x"}, " '--gres=gpu:1; rm x'"),
    ],
)
def test_gpus_are_asked_for_by_the_names_that_a_site_has(
    resources: dict[str, Any], options: str, monkeypatch: pytest.MonkeyPatch
):
    """The plugin's own refuses models with a hyphen, where sbatch and `amst doctor` take them."""
    monkeypatch.setattr(plugin, "set_gres_string", plugin.set_gres_string)
    ask_for_gpus()
    assert plugin.set_gres_string(SimpleNamespace(resources=Resources(resources))) == options


def test_without_an_account_slurm_takes_the_user_s_own(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """The plugin would ask sacct in a way that it does not understand, and warn three times."""

    def start(self: Any, workflow: object, logger: object) -> None:
        self.logger, self._fallback_account_arg = None, None

    monkeypatch.setattr(plugin.Executor, "__init__", start)
    request.getfixturevalue("submitting")
    settings = plugin.ExecutorSettings(status_command="squeue")
    executor = plugin.Executor(SimpleNamespace(executor_settings=settings), None)
    assert list(executor.get_account_arg(SimpleNamespace(resources=Resources()))) == [""]


@pytest.mark.usefixtures("submitting")
def test_arrays_are_refused_before_anything_is_submitted():
    """Each of their tasks would be the step of the first job."""
    settings = plugin.ExecutorSettings(array_jobs="train", status_command="squeue")
    with pytest.raises(WorkflowError, match=r"--slurm-array-jobs: .* Leave it out"):
        plugin.Executor(SimpleNamespace(executor_settings=settings), None)


def test_a_controller_in_a_job_still_finds_the_settings_of_slurm(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plugin, "delete_slurm_environment", plugin.delete_slurm_environment)
    monkeypatch.setenv("SLURM_CONF", "/opt/slurm.conf")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    keep_the_settings()
    plugin.delete_slurm_environment()
    assert {name for name in os.environ if name.startswith("SLURM_")} == {"SLURM_CONF"}
    monkeypatch.delenv("SLURM_CONF")
    plugin.delete_slurm_environment()
    assert "SLURM_CONF" not in os.environ


class Resources(dict[str, Any]):
    """Resources of a job, as attributes, too; None for those that it does not have."""

    __getattr__ = dict.get


def test_a_call_submits_by_all_of_these(tmp_path: Path):
    """Through stand-ins for SLURM's commands, on a site that has no arrays and refuses the job."""
    suite = ClusterSuite.new(tmp_path / "suite")
    suite.site = {"resources": {"generate": {"gpu": 1, "gpu_model": "a100-80gb"}}}
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "scontrol": "echo 'MaxArraySize = 0'; echo 'MinJobAge = 300 sec'",
        "squeue": "",
        "sbatch": f'echo "$SQUEUE_STATES" "$@" >> {tmp_path}/asked; '
        "echo 'sbatch: error: Batch job submission failed: Invalid partition' >&2; exit 1",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    suite.extra = {"PATH": f"{programs}:{os.environ['PATH']}", "SQUEUE_STATES": "PENDING"}
    done = suite.snakemake(*suite.on_slurm("results/raw/digits/digits.json"), check=False)
    assert done.returncode == 1
    assert "Invalid partition" in done.stderr
    assert "account" not in done.stderr.partition("sbatch call")[0]
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith(" ")
    assert "--gpus=a100-80gb:1" in asked
    assert str(STEP.relative_to(ROOT)) in asked
