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
    """

    def __init__(self, folder: Path) -> None:
        call = this_call()
        try:
            self.site = sites.read_site(folder)
            self.status_command = _status_command(self.site, call)
        except AmstError as error:
            # Snakemake would print its whole usage over any other exception.
            raise SystemExit(f"profiles/slurm: {error}") from None
        self.runs = call.runs
        self.prefix = prefix_of(call.folder)
        sites.tell_rules(self.site)

    def needs_apptainer(self) -> bool:
        """Whether jobs run in the container.

        A dry run works where apptainer is missing; a run without it stops at once.
        """
        return self.runs or bool(shutil.which("apptainer") or shutil.which("singularity"))


def _status_command(site: Site, call: Call) -> str:
    """How Snakemake asks for the state of jobs.

    With accounting switched off, sacct lets Snakemake wait for ever; squeue does not.

    Raises:
        AmstError: SLURM does not answer, so that no job could be submitted.
    """
    if not call.runs or not shutil.which("scontrol"):
        return site.status_command
    try:
        shown = ask("scontrol", "show", "config")
    except AmstError as error:
        raise AmstError(
            f"SLURM does not answer: {error.message}", "Start again when `scontrol ping` says UP"
        ) from None
    on = slurmconf.accounting_is_on(slurmconf.read(shown))
    return site.status_command or ("" if on else "squeue")
