"""What profiles/slurm asks of Snakemake; the profile itself holds only settings."""

import shutil
from pathlib import Path

from amst.cluster import site as sites
from amst.cluster import slurmconf
from amst.cluster.calls import Call, this_call
from amst.cluster.live import ask, prefix_of
from amst.cluster.site import Site
from amst.errors import AmstError


class SlurmProfile:
    """Values of profiles/slurm for one call.

    Args:
        folder: of the profile.

    Attributes:
        site: what the site's file says.
        runs: whether the call may run jobs.
        prefix: of the names of this folder's jobs.
        status_command: squeue or sacct; empty to let Snakemake choose.
        first_status_check: seconds to the first look at submitted jobs.
    """

    def __init__(self, folder: Path) -> None:
        call = this_call()
        try:
            self.site = sites.read_site(folder)
            settings = _settings(call)
        except AmstError as error:
            # Snakemake would print its whole usage over any other exception.
            raise SystemExit(f"profiles/slurm: {error}") from None
        self.status_command = _status_command(self.site, settings)
        self.first_status_check = self.site.first_status_check
        age = slurmconf.min_job_age(settings)
        if settings and self.status_command == "squeue" and age:
            # later, a job could end and be forgotten before; the plugin would ask sacct instead
            self.first_status_check = min(self.first_status_check, max(age // 3, 1))
        self.runs = call.runs
        self.prefix = prefix_of(call.folder)
        sites.tell_rules(self.site)

    def needs_apptainer(self) -> bool:
        """Whether jobs run in the container.

        A dry run works where apptainer is missing; a run without it stops at once.
        """
        return self.runs or bool(shutil.which("apptainer") or shutil.which("singularity"))


def _settings(call: Call) -> dict[str, str]:
    """SLURM's own settings; none for a call that submits no jobs.

    Raises:
        AmstError: SLURM does not answer, so that no job could be submitted.
    """
    if not call.runs or not shutil.which("scontrol"):
        return {}
    try:
        return slurmconf.read(ask("scontrol", "show", "config"))
    except AmstError as error:
        raise AmstError(
            f"SLURM does not answer: {error.message}", "Start again when `scontrol ping` says UP"
        ) from None


def _status_command(site: Site, settings: dict[str, str]) -> str:
    """How Snakemake asks for the state of jobs.

    With accounting switched off, sacct lets Snakemake wait for ever; squeue does not.
    """
    off = bool(settings) and not slurmconf.accounting_is_on(settings)
    return site.status_command or ("squeue" if off else "")
