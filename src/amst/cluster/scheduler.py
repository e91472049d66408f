"""Examines SLURM: partitions, GPUs, accounting, pre-emption, and what the profile asks of them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from amst.cluster import live
from amst.cluster.findings import Finding, fault, note, ok
from amst.errors import AmstError

SITE = "profiles/slurm/site.yaml"
"""The site's file unless AMST_SITE names another; as in profiles/slurm."""
_FIRST_CHECK = 40  # seconds; the executor's default
_KILL_WAIT = 15  # seconds from SIGTERM to SIGKILL in which a run can save


def site() -> dict[str, Any]:
    """What the site's file says; empty without one.

    Raises:
        AmstError: the named file is not there or is no map.
    """
    path = Path(os.environ.get("AMST_SITE") or SITE)
    if not path.is_file():
        if "AMST_SITE" in os.environ:
            raise AmstError(f"AMST_SITE names {path}, which is not there", f"Or unset it: {SITE}")
        return {}
    found = yaml.safe_load(path.read_text("utf-8")) or {}
    if not isinstance(found, dict):
        raise AmstError(f"{path} is no map of settings", "See profiles/slurm/sites")
    return found


def examine(folder: Path) -> Iterator[Finding]:
    """Look at SLURM from here."""
    if not shutil.which("scontrol"):
        yield note("SLURM", "not here; profiles/local and profiles/node need none")
        return
    try:
        settings = _fields(_ask("scontrol", "show", "config"), r"^(\w+)\s*= (.*)$")
        partitions = {
            found["PartitionName"]: found
            for line in _ask("scontrol", "--oneliner", "show", "partition").splitlines()
            if "PartitionName" in (found := _fields(line, r"(\w+)=(\S*)"))
        }
        given = site()
        yield ok("SLURM", f"{settings.get('SLURM_VERSION', '?')}, {len(partitions)} partitions")
        yield accounting(settings, given)
        yield from pre_emption(settings, partitions, given)
        yield from _wanted(partitions, given)
        yield _configuration()
        yield _live(folder)
    except AmstError as error:
        yield fault("SLURM", str(error))


def _ask(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except subprocess.SubprocessError as error:
        raise AmstError(f"{' '.join(command)} does not answer: {error}") from None


def _fields(text: str, pattern: str) -> dict[str, str]:
    return {key: value.strip() for key, value in re.findall(pattern, text, re.MULTILINE)}


def accounting(settings: dict[str, str], given: dict[str, Any]) -> Finding:
    """Whether Snakemake can learn how jobs end."""
    if "none" not in settings.get("AccountingStorageType", ""):
        return ok("accounting", "on")
    if given.get("status_command") == "sacct":
        return fault(
            "accounting",
            "off, and the site's file says status_command: sacct: Snakemake would wait for ever",
        )
    first = given.get("first_status_check", _FIRST_CHECK)
    age = int(re.sub(r"\D.*", "", settings.get("MinJobAge", "300")) or 300)
    if age < 3 * first:
        return fault(
            "accounting",
            f"off, and ended jobs are forgotten after {age} s (MinJobAge): set first_status_check "
            f"in the site's file to {age // 3} or less",
        )
    return note("accounting", "off: the profile asks squeue; why a job failed stands in its log")


def pre_emption(
    settings: dict[str, str], partitions: dict[str, dict[str, str]], given: dict[str, Any]
) -> Iterator[Finding]:
    """Whether a pre-empted job comes back."""
    names = wanted_partitions(given)
    cancelling = [
        name
        for name, partition in partitions.items()
        if partition.get("PreemptMode", settings.get("PreemptMode", "OFF")).upper() == "CANCEL"
    ]
    for name in cancelling:
        text = f"partition {name} cancels pre-empted jobs: Snakemake would wait for them for ever"
        yield fault("pre-emption", text) if name in names else note("pre-emption", text)
    if not cancelling:
        yield ok("pre-emption", "no partition cancels jobs")
    wait = int(re.sub(r"\D.*", "", settings.get("KillWait", "30")) or 30)
    if wait < _KILL_WAIT:
        yield note("KillWait", f"{wait} s from SIGTERM to SIGKILL; a kill loses at most one epoch")


def wanted_partitions(given: dict[str, Any]) -> set[str]:
    """Partitions that the profile submits to."""
    rules = [entry.get("slurm_partition") for entry in given.get("resources", {}).values()]
    own = [given.get("cpu_partition", "cpu"), given.get("gpu_partition", "gpu")]
    return {name for name in (*own, *rules) if name}


def _wanted(partitions: dict[str, dict[str, str]], given: dict[str, Any]) -> Iterator[Finding]:
    for name in sorted(wanted_partitions(given)):
        found = partitions.get(name)
        if not found:
            there = ", ".join(sorted(partitions))
            yield fault("partition", f"there is no {name} (there are {there}); see {SITE}")
        elif found.get("State") != "UP":
            yield fault("partition", f"{name} is {found.get('State', 'not up')}")
        else:
            yield ok(
                "partition",
                f"{name}: up to {found.get('MaxTime')}, {found.get('TotalNodes')} nodes",
            )
    gpus = _ask("sinfo", "--noheader", "-p", given.get("gpu_partition", "gpu"), "-o", "%G").split()
    offered = sorted({part for part in gpus if part.startswith("gpu")})
    model = given.get("gpu_model")
    if not offered:
        yield fault("GPUs", "the GPU partition offers none")
    elif model and not any(f":{model}:" in part for part in offered):
        yield fault("GPUs", f"no {model} in the GPU partition, which offers {', '.join(offered)}")
    elif not model and len({part.split(":")[1] for part in offered if part.count(":") > 1}) > 1:
        text = f"several models ({', '.join(offered)}): name gpu_model for equal last digits"
        yield note("GPUs", text)
    else:
        yield ok("GPUs", ", ".join(offered))


def _configuration() -> Finding:
    """SLURM_CONF is lost inside jobs, where Snakemake calls srun once more."""
    if "SLURM_CONF" not in os.environ or Path("/etc/slurm/slurm.conf").exists():
        return ok("SLURM_CONF", "not needed")
    srun = shutil.which("srun")
    if srun and "SLURM_CONF" in Path(srun).read_text("utf-8", errors="replace")[:500]:
        return ok("SLURM_CONF", f"{srun} sets it")
    return fault(
        "SLURM_CONF",
        "needed here, and Snakemake's job step removes it before its srun: put a script named srun "
        "that sets it first on PATH (docs/cluster.md)",
    )


def _live(folder: Path) -> Finding:
    jobs = live.live_jobs(folder)
    if jobs:
        return note("jobs", f"{len(jobs)} jobs of this folder live: `amst jobs`")
    return ok("jobs", "none of this folder live")
