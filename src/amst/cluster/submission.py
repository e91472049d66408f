"""What Snakemake's SLURM plugin (2.8) submits: a job's step itself.

Left to itself it submits a Snakemake that does nothing but start another one in a step (by the
plugin ``slurm-jobstep``): every job then starts Python and reads all of its modules once more, from
a shared file system as a rule.
"""

import os
import shlex
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as plugin
from snakemake_executor_plugin_slurm_jobstep import (
    get_cpu_setting,
    get_gpu_setting,
    get_node_setting,
)
from snakemake_interface_common.exceptions import WorkflowError

STEP = Path(__file__).with_name("step.sh")


def submit_steps() -> None:
    """Let the plugin of this process submit Snakemake in a step, with the options of its own."""
    command, start = plugin.Executor.format_job_exec, plugin.Executor.__init__

    def start_with_single_jobs(self: Any, workflow: Any, logger: Any) -> None:
        if workflow.executor_settings.array_jobs:
            raise WorkflowError(
                "--slurm-array-jobs: here a job is a step, and all tasks of an array would run the "
                "first one's. Leave it out, in other profiles, too"
            )
        start(self, workflow, logger)
        # SLURM knows a user's default account; the plugin would look for one in vain, with warnings
        self._fallback_account_arg = ""

    def format_job_exec(self: Any, job: Any) -> str:
        settings = (
            get_cpu_setting(job, gpu=bool(get_gpu_setting(job))),
            get_gpu_setting(job),
            get_node_setting(job),
        )
        step = ["sh", shlex.quote(str(STEP)), "-n1", "--cpu-bind=q", *settings]
        return " ".join([*filter(None, step), command(self, job)])

    # Sites that have switched arrays off (MaxArraySize=0) would be refused, though none is used.
    plugin.get_max_array_size = lambda: 1000
    plugin.Executor.__init__ = start_with_single_jobs
    plugin.Executor.format_job_exec = format_job_exec
    plugin.Executor.additional_general_args = lambda _self: ""


def ask_for_gpus() -> None:
    """Let the plugin of this process ask for GPUs by whatever name the site has given them.

    Its own function takes no model with a hyphen (a100-80gb), nor several resources in one --gres.
    """

    def options(job: Any) -> str:
        gres, model = job.resources.get("gres"), job.resources.get("gpu_model")
        number = job.resources.get("gpu", 1 if model else 0)
        asked = [f"--gres={gres}"] if gres else []
        asked += [f"--gpus={model}:{number}" if model else f"--gpus={number}"] if number else []
        return "".join(f" {shlex.quote(option)}" for option in asked)

    plugin.set_gres_string = options


def keep_the_settings() -> None:
    """Let SLURM_CONF outlive the plugin's start in a job, where it drops all that SLURM has set.

    Some sites set it, and none of SLURM's commands works without it there.
    """
    forget = plugin.delete_slurm_environment

    def delete_slurm_environment() -> None:
        settings = os.environ.get("SLURM_CONF")
        forget()
        if settings is not None:
            os.environ["SLURM_CONF"] = settings

    plugin.delete_slurm_environment = delete_slurm_environment
