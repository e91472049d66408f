"""What jobs will ask SLURM for, tried before they are submitted."""

import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from snakemake_executor_plugin_slurm.utils import parse_time_to_minutes
from snakemake_interface_common.exceptions import WorkflowError

from amst.cluster.findings import Finding, fault, ok
from amst.cluster.site import Site
from amst.config.settings import Config

_OPTIONS = {
    "slurm_account": "--account",
    "slurm_partition": "--partition",
    "qos": "--qos",
    "constraint": "--constraint",
    "runtime": "--time",
    "mem_mb": "--mem",
    "mem_mb_per_cpu": "--mem-per-cpu",
    "cpus_per_task": "--cpus-per-task",
    "gpu": "--gpus",
    "gres": "--gres",
}
"""Resource -> option of sbatch, as Snakemake's SLURM plugin does it."""


@dataclass(frozen=True)
class Request:
    """What one kind of job asks for.

    Attributes:
        about: which jobs these are.
        resources: by the names that a site's file uses; what is empty or 0 is not asked for.
    """

    about: str
    resources: Mapping[str, int | str]

    def options(self) -> list[str]:
        """Options of sbatch, without expressions: only a job gives them a value."""
        asked = dict(self.resources)
        if asked.get("gpu_model") and asked.get("gpu"):
            asked["gpu"] = f"{asked['gpu_model']}:{asked['gpu']}"
        named = [
            f"{option}={asked[name]}"
            for name, option in _OPTIONS.items()
            if asked.get(name) and "attempt" not in str(asked[name])
        ]
        extra = str(asked.get("slurm_extra") or "")
        return named if "attempt" in extra else [*named, *_words(extra)]


def _words(extra: str) -> list[str]:
    """More options of sbatch, which a site's file may give in quotes for Snakemake and without."""
    try:
        return [word for part in shlex.split(extra) for word in shlex.split(part)]
    except ValueError:  # quotes that do not close: sbatch is to say so
        return extra.split()


def requests(site: Site, config: Config | None) -> Iterator[Request]:
    """Every kind of job that the profile submits, as its first attempt asks.

    Args:
        site: what the site's file says.
        config: the configuration, for the training jobs of its grid; None without one.
    """
    all_jobs: dict[str, int | str] = {
        "slurm_account": site.account,
        "qos": site.qos,
        "slurm_extra": site.slurm_extra,
    }
    others = {**all_jobs, "slurm_partition": site.cpu_partition, "mem_mb": 2000, "runtime": 30}
    yield Request("jobs by default", others)
    for rule, asked in sorted(site.resources.items()):
        if rule != "train":
            yield Request(f"jobs of rule {rule}", {**others, **asked})
    own = site.resources.get("train", {})
    for name in sorted(config.grid.datasets if config else ()):
        assert config
        wanted = config.datasets[name].resources
        yield Request(
            f"training on {name}",
            {
                **all_jobs,
                "slurm_partition": site.partition(wanted.gpu),
                "gpu": site.gpus(wanted.gpu),
                "gpu_model": site.model(wanted.gpu),
                "gres": site.gres(wanted.gpu),
                "mem_mb": wanted.mem_mb,
                "runtime": wanted.runtime,
                "cpus_per_task": wanted.threads,
                **own,
            },
        )


def examine(
    wanted: Iterable[Request], partitions: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Whether SLURM would take such jobs; nothing is submitted.

    Args:
        wanted: what to try.
        partitions: fields of the site's partitions by name.
    """
    tried = {tuple(request.options()): request for request in wanted}
    for options, request in tried.items():
        shown = " ".join(options)
        refused = _refused(options)
        limit = _limit(str(request.resources.get("slurm_partition")), partitions)
        runtime = request.resources.get("runtime")
        if refused:
            yield fault(request.about, f"SLURM refuses {shown}: {refused}")
        elif isinstance(runtime, int) and limit is not None and runtime > limit:
            yield fault(
                request.about,
                f"{runtime} minutes, and the partition allows {limit}: such jobs wait for ever; "
                "lower runtime",
            )
        else:
            yield ok(request.about, shown)


def _limit(names: str, partitions: Mapping[str, Mapping[str, str]]) -> int | None:
    """The longest time in minutes that one of some partitions allows; None for any."""
    limits = [partitions.get(name, {}).get("MaxTime", "") for name in names.split(",")]
    try:
        return max(map(parse_time_to_minutes, limits))
    except WorkflowError:  # one is UNLIMITED, or not known
        return None


def _refused(options: Iterable[str]) -> str:
    """Why SLURM would not take a job with these options; empty if it would."""
    command = ["sbatch", "--test-only", *options, "--wrap", "true"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "no answer for a minute"
    if tried.returncode == 0:
        return ""
    said = tried.stderr.strip().splitlines()
    return said[-1] if said else f"exit code {tried.returncode}"
