"""The site's file: account, partitions, GPUs and resources that profiles/slurm asks SLURM for."""

import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveInt

from amst.config.run import Settings
from amst.errors import AmstError
from amst.grid.messages import known, validated
from amst.provenance import SOURCE

PROFILE = SOURCE.parent / "profiles" / "slurm"
TOLD = "AMST_SITE_TOLD"
"""Environment variable by which the profile tells rules what the site's file says."""
RESOURCES = (
    "constraint",
    "cpus_per_gpu",
    "cpus_per_task",
    "disk_mb",
    "gpu",
    "gpu_model",
    "gres",
    "mem_mb",
    "mem_mb_per_cpu",
    "mpi",
    "nodes",
    "qos",
    "runtime",
    "slurm_account",
    "slurm_extra",
    "slurm_partition",
    "tasks",
    "tasks_per_gpu",
)
"""What Snakemake's SLURM plugin makes options of sbatch of, but `clusters`."""
_NAMES = ("constraint", "gpu_model", "gres", "qos", "slurm_account", "slurm_partition")


class Site(Settings):
    """A site's file; docs/cluster.md has a table of its keys."""

    account: str = ""
    cpu_partition: str = "cpu"
    gpu_partition: str = "gpu"
    gpu_request: Literal["gpus", "gres"] = "gpus"
    gpu_model: str = ""
    qos: str = ""
    slurm_extra: str = ""
    jobs: PositiveInt = 200
    status_command: Literal["", "sacct", "squeue"] = ""
    first_status_check: PositiveInt = 40
    resources: dict[str, dict[str, int | str]] = Field(default_factory=dict)

    def partition(self, gpus: int) -> str:
        """Where a training job with so many GPUs goes."""
        return self.gpu_partition if gpus else self.cpu_partition

    def gres(self, gpus: int) -> str:
        """GPUs as --gres; empty where none are asked for or --gpus asks for them."""
        if not gpus or self.gpu_request != "gres":
            return ""
        return ":".join(["gpu", *filter(None, [self.gpu_model]), str(gpus)])

    def gpus(self, gpus: int) -> int:
        """GPUs as --gpus; 0 where --gres asks for them: both at once are an error."""
        return gpus if self.gpu_request == "gpus" else 0

    def model(self, gpus: int) -> str:
        """Model that goes with --gpus; empty for any."""
        return self.gpu_model if self.gpus(gpus) else ""

    @property
    def training_mem_mb(self) -> int:
        """Memory of training jobs in place of their dataset's; 0 for that one."""
        memory = self.resources.get("train", {}).get("mem_mb", 0)
        return memory if isinstance(memory, int) else 0

    def overriding(self) -> dict[str, dict[str, int | str]]:
        """What Snakemake sets over the rules' own values, and does not let grow by itself.

        A number for a training job's memory is not among it: it reaches the rule, which lets it
        grow.
        """
        asked = {rule: dict(values) for rule, values in self.resources.items()}
        if self.training_mem_mb:
            del asked["train"]["mem_mb"]
        return {
            rule: {k: asked_for(v) if k in _NAMES else v for k, v in values.items()}
            for rule, values in asked.items()
            if values
        }


def asked_for(name: int | str) -> int | str:
    """A name as Snakemake takes it: it evaluates texts, and `all` or `2024-55` are Python.

    What is no plain name is an expression, and stays.
    """
    plain = isinstance(name, str) and re.fullmatch(r"[\w.:,@+-]+", name)
    return repr(name) if plain else name


def site_file(folder: Path = PROFILE) -> Path | None:
    """The file that AMST_SITE names, or site.yaml beside the profile; None when there is none.

    Raises:
        AmstError: the named file is not there.
    """
    named = os.environ.get("AMST_SITE")
    path = Path(named) if named else folder / "site.yaml"
    if path.is_file():
        return path
    if named:
        raise AmstError(
            f"AMST_SITE: there is no file {path}", f"Unset it to use {folder / 'site.yaml'}"
        )
    return None


def read_site(folder: Path = PROFILE) -> Site:
    """What the site's file says; the defaults where there is none.

    Args:
        folder: the profile's.

    Raises:
        AmstError: the first wrong key and the nearest valid name, or why the file is unreadable.
    """
    path = site_file(folder)
    if path is None:
        return Site()
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise AmstError(f"{path} cannot be read: {told}", f"Examples: {PROFILE}/sites") from None
    if values is None:
        return Site()
    if not isinstance(values, Mapping):
        raise AmstError(f"{path} is no map of settings", f"Examples: {PROFILE}/sites")
    try:
        return _checked(values)
    except AmstError as error:
        raise AmstError(f"{path}: {error.message}", error.remedy) from None


def _checked(values: Mapping[str, Any]) -> Site:
    site = validated(Site, values, "")
    for rule, asked in site.resources.items():
        known(rule, _rules() or [rule], "resources")
        for name in asked:
            if name == "clusters":  # nobody would look there for what a dead controller left
                raise AmstError(
                    f"resources.{rule}.clusters: jobs are submitted to this cluster only",
                    "Take it out, and call Snakemake on that cluster",
                )
            known(name, RESOURCES, f"resources.{rule}")
    return site


def _rules() -> list[str]:
    """Names of the rules that a site may give resources; empty without the workflow."""
    texts = [path.read_text("utf-8") for path in (SOURCE.parent / "workflow/rules").glob("*.smk")]
    return re.findall(r"^(?:rule|checkpoint) (\w+):", "\n".join(texts), re.MULTILINE)


def tell_rules(site: Site, environ: MutableMapping[str, str] = os.environ) -> None:
    """Let the rules of this call, and of the jobs that it submits, know what the site wants."""
    environ[TOLD] = site.model_dump_json()


def told_to_rules(environ: Mapping[str, str] = os.environ) -> Site | None:
    """What the site's file says; None where profiles/slurm is not used."""
    text = environ.get(TOLD)
    return Site.model_validate_json(text) if text else None
