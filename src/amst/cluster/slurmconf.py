"""What `scontrol show config` says of SLURM's own settings."""

import re
from collections.abc import Mapping


def read(shown: str) -> dict[str, str]:
    """Settings by name, as the command prints them."""
    found = re.findall(r"^(\w+)\s*= (.*)$", shown, re.MULTILINE)
    return {name: value.strip() for name, value in found}


def accounting_is_on(settings: Mapping[str, str]) -> bool:
    """Whether sacct can tell how jobs end.

    Where nothing is set, SLURM says accounting_storage/none, or (null) in later versions.
    """
    kind = settings.get("AccountingStorageType", "")
    return bool(re.fullmatch(r"accounting_storage/(?!none$).+", kind))


def min_job_age(settings: Mapping[str, str]) -> int:
    """Seconds for which squeue lists jobs that have ended; 0 for as long as it knows them."""
    found = re.match(r"\d+", settings.get("MinJobAge", ""))
    return int(found[0]) if found else 300
