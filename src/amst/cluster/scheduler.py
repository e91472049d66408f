"""Examines SLURM: partitions, GPUs, accounting, pre-emption, and what the profile asks of them."""

import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from snakemake_executor_plugin_slurm.partitions import parse_scontrol_partition_output

from amst.cluster import live, requests, slurmconf
from amst.cluster.findings import Finding, fault, note, ok
from amst.cluster.site import Site, read_site, site_file
from amst.config.settings import Config
from amst.errors import AmstError

_KILL_WAIT = 15  # seconds from SIGTERM to SIGKILL in which a run can save


def examine(folder: Path, config: Config | None = None) -> Iterator[Finding]:
    """Look at SLURM from here.

    Args:
        folder: the working folder.
        config: the configuration, whose training jobs are tried; None without one.
    """
    if not shutil.which("scontrol"):
        yield note("SLURM", "not here; profiles/local and profiles/node need none")
        return
    try:
        settings = slurmconf.read(live.ask("scontrol", "show", "config"))
        partitions = parse_scontrol_partition_output(live.ask("scontrol", "show", "partition"))
        yield ok("SLURM", f"{settings.get('SLURM_VERSION', '?')}, {len(partitions)} partitions")
        try:
            given = read_site()
        except AmstError as error:
            yield fault("site", str(error))
            return
        yield ok("site", str(site_file() or "no file: partitions cpu and gpu, no account"))
        yield accounting(settings, given)
        yield from _account(settings, given)
        yield many(settings, given)
        yield from pre_emption(settings, partitions, given)
        yield from _wanted(partitions, given)
        yield from requests.examine(requests.requests(given, config), partitions)
        yield _live(folder)
    except AmstError as error:
        yield fault("SLURM", str(error))


def accounting(settings: dict[str, str], given: Site) -> Finding:
    """Whether Snakemake can learn how jobs end."""
    if slurmconf.accounting_is_on(settings):
        return ok("accounting", "on")
    if given.status_command == "sacct":
        return fault(
            "accounting",
            "off, and the site's file says status_command: sacct: Snakemake would wait for ever",
        )
    return note("accounting", "off: the profile asks squeue; why a job failed stands in its log")


def _account(settings: dict[str, str], given: Site) -> Iterator[Finding]:
    """Whether the account exists and may submit as many jobs as the profile wants."""
    if "slurmdbd" not in settings.get("AccountingStorageType", ""):
        return
    try:
        associations = _associations("account,maxsubmit")
    except AmstError as error:
        yield fault("account", error.message)
        return
    yield from account(associations, given)


def _associations(fields: str) -> list[list[str]]:
    """The user's associations: for each the values of some fields, divided by commas."""
    user = pwd.getpwuid(os.getuid()).pw_name
    return _sacctmgr("associations", f"user={user}", f"format={fields}")


def _sacctmgr(*what: str) -> list[list[str]]:
    listed = live.ask("sacctmgr", "--noheader", "--parsable2", "show", *what)
    return [line.split("|") for line in listed.splitlines()]


def account(associations: list[list[str]], given: Site) -> Iterator[Finding]:
    """Judge the site's account.

    Args:
        associations: the user's, each an account and its MaxSubmitJobs, empty for none.
        given: what the site's file says.
    """
    wanted = given.account.lower()  # as SLURM stores names, whatever was typed
    names = sorted({name for name, _ in associations})
    if wanted and wanted not in names:
        yield fault("account", f"you have no {given.account} (you have {', '.join(names)})")
        return
    limits = [
        int(limit) for name, limit in associations if limit.isdigit() and wanted in ("", name)
    ]
    if limits and min(limits) < given.jobs:
        yield fault(
            "account",
            f"may submit {min(limits)} jobs, and the profile {given.jobs}: lower jobs in the "
            "site's file",
        )
    else:
        yield ok("account", given.account or "your default one")


def many(settings: dict[str, str], given: Site) -> Finding:
    """Whether SLURM holds as many jobs as the profile submits at once."""
    most = settings.get("MaxJobCount", "")
    if most.isdigit() and int(most) < given.jobs:
        return fault("jobs", f"SLURM holds {most} (MaxJobCount): lower jobs in the site's file")
    return ok("jobs", f"{given.jobs} at once")


def pre_emption(
    settings: dict[str, str], partitions: dict[str, dict[str, str]], given: Site
) -> Iterator[Finding]:
    """Whether a pre-empted job comes back."""
    if settings.get("PreemptType") == "preempt/qos":  # then those of partitions count for nothing
        yield from _pre_emption_by_qos(settings.get("PreemptMode", ""), given)
    else:
        default = settings.get("PreemptMode", "OFF")
        cancelling = [
            name
            for name, partition in partitions.items()
            if _cancels(partition.get("PreemptMode", default))
        ]
        yield from _cancelling("partition", cancelling, wanted_partitions(given))
    wait = int(re.sub(r"\D.*", "", settings.get("KillWait", "30")) or 30)
    if wait < _KILL_WAIT:
        yield note("KillWait", f"{wait} s from SIGTERM to SIGKILL; a kill loses at most one epoch")


def _cancels(mode: str) -> bool:
    return "CANCEL" in mode.upper().split(",")  # GANG and WITHIN may stand beside it


def _cancelling(kind: str, cancelling: list[str], wanted: set[str]) -> Iterator[Finding]:
    for name in cancelling:
        text = (
            f"{kind} {name} cancels pre-empted jobs: SLURM requeues none, and each is submitted "
            "again after five minutes, by one of its ten tries"
        )
        yield fault("pre-emption", text) if name in wanted else note("pre-emption", text)
    if not cancelling:
        yield ok("pre-emption", f"no {kind} cancels jobs")


def _pre_emption_by_qos(mode: str, given: Site) -> Iterator[Finding]:
    try:
        listed = _sacctmgr("qos", "format=name,preempt,preemptmode")
        associations = _associations("account,defaultqos,qos")
    except AmstError as error:
        yield note("pre-emption", f"whether a QOS cancels jobs cannot be told: {error.message}")
        return
    yield from _cancelling("QOS", cancelling_qos(listed, mode), wanted_qos(associations, given))


def cancelling_qos(listed: list[list[str]], mode: str) -> list[str]:
    """Names of QOS whose jobs another, or the same one, pre-empts by CANCEL.

    Args:
        listed: for each QOS its name, those that it pre-empts, and its own PreemptMode.
        mode: the cluster's PreemptMode.
    """
    victims = {name for _, preempted, _ in listed for name in preempted.split(",")}
    found = []
    for name, _, own in listed:
        unset = own.lower() in ("", "off", "cluster")
        within = "WITHIN" in f"{own},{mode}".upper().split(",")
        if _cancels(mode if unset else own) and (within or name in victims):
            found.append(name)
    return found


def wanted_qos(associations: list[list[str]], given: Site) -> set[str]:
    """QOS that the profile's jobs have; where the site's file names none, SLURM takes a default.

    Args:
        associations: the user's, for each its account, its default and what it may use.
        given: what the site's file says.
    """
    names = {str(entry.get("qos", "")) for entry in given.resources.values()} | {given.qos}
    if not given.qos:
        names |= {
            default or ("normal" if "," in allowed else allowed or "normal")
            for account, default, allowed in associations
            if given.account.lower() in ("", account)
        } or {"normal"}
    return {name.lower() for name in names if name}


def wanted_partitions(given: Site) -> set[str]:
    """Partitions that the profile submits to; sbatch takes lists of them."""
    rules = [str(entry.get("slurm_partition", "")) for entry in given.resources.values()]
    lists = (given.cpu_partition, given.gpu_partition, *rules)
    return {name for names in lists for name in names.split(",") if name}


def _wanted(partitions: dict[str, dict[str, str]], given: Site) -> Iterator[Finding]:
    for name in sorted(wanted_partitions(given)):
        found = partitions.get(name)
        if not found:
            there = ", ".join(sorted(partitions))
            yield fault("partition", f"there is no {name} (there are {there}); see the site's file")
        elif found.get("State") != "UP":
            yield fault("partition", f"{name} is {found.get('State', 'not up')}")
        else:
            yield ok(
                "partition",
                f"{name}: up to {found.get('MaxTime')}, {found.get('TotalNodes')} nodes",
            )
    offered = live.ask("sinfo", "--noheader", "-p", given.gpu_partition, "-o", "%G")
    yield gpus(offered, given.gpu_model)


def gpus(listed: str, model: str) -> Finding:
    """Judge what the GPU partition offers.

    Args:
        listed: generic resources as sinfo lists them, a line for each kind of node, with the
            sockets that they are bound to in parentheses.
        model: the site's; empty for any.
    """
    resources = re.split(r"[\s,]+", re.sub(r"\([^)]*\)", "", listed))
    offered = sorted({part for part in resources if re.match("gpu(:|$)", part)})
    if not offered:
        return fault("GPUs", "the GPU partition offers none")
    if model and not any(f":{model}:" in part for part in offered):
        return fault("GPUs", f"no {model} in the GPU partition, which offers {', '.join(offered)}")
    if not model and len({part.split(":")[1] for part in offered if part.count(":") > 1}) > 1:
        text = f"several models ({', '.join(offered)}): name gpu_model for equal last digits"
        return note("GPUs", text)
    return ok("GPUs", ", ".join(offered))


def _live(folder: Path) -> Finding:
    jobs = live.live_jobs(folder)
    if jobs:
        return note("jobs", f"{len(jobs)} jobs of this folder live: `amst jobs`")
    return ok("jobs", "none of this folder live")
