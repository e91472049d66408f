"""Finished runs that a call of Snakemake deletes to train them anew, told as it begins."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_KEPT = {"code", "packages"}
"""Changes under which a run can be adopted."""


def replaced(results: Path, planned: Iterable[tuple[str, str, str]]) -> str:
    """One line about finished runs whose settings, packages or code have changed; empty for none.

    What is trained anew for its data, or since files of it are gone, is not among them.

    Args:
        results: folder that has ``runs``.
        planned: of each run that is to be trained: its name, the hash of its settings, and the
            digests of the code and the packages that it counts as made with, joined by '-'.
    """
    found = {}
    for run, settings, made_by in planned:
        if why := _why(results / "runs" / run / "run.json", settings, made_by):
            found[run] = why
    if not found:
        return ""
    first, count = next(iter(found)), len(found)
    whys = Counter(found.values())
    kept = "; `amst adopt` can keep runs of changed code or packages" if whys.keys() & _KEPT else ""
    return (
        f"{count} finished {'run is' if count == 1 else 'runs are'} deleted and trained anew "
        f"({first}{', ...' if count > 1 else ''}): "
        f"{', '.join(f'{n} {why} changed' for why, n in whys.items())}. To have "
        f"{'it' if count == 1 else 'them'} as before, end this call; `amst plan` says more{kept}"
    )


def _why(path: Path, settings: str, made_by: str) -> str:
    """What has changed since a run was made; empty where nothing has, or there is no record."""
    try:
        record = json.loads(path.read_text("utf-8"))
        noted, made = record["settings_hash"], record["environment"]
        code, packages = made["code_digest"], made["package_digest"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    if noted != settings:
        return "settings"
    if not made_by.endswith(f"-{packages}"):
        return "packages"
    return "" if made_by == f"{code}-{packages}" else "code"
