"""What a call of Snakemake is for, by its command line."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_LOOKS = (
    "archive",
    "cleanup_metadata",
    "cleanup_shadow",
    "conda_cleanup_envs",
    "conda_create_envs_only",
    "container_cleanup_images",
    "containerize",
    "d3dag",
    "dag",
    "detailed_summary",
    "filegraph",
    "generate_unit_tests",
    "lint",
    "list_changes",
    "list_conda_envs",
    "list_input_changes",
    "list_params_changes",
    "list_rules",
    "list_target_rules",
    "list_untracked",
    "print_compilation",
    "rulegraph",
    "summary",
    "unlock",
)
"""Options with which Snakemake runs no job and leaves outputs as they are."""


@dataclass(frozen=True)
class Call:
    """A call of Snakemake.

    Attributes:
        runs: whether it may run jobs or change outputs; a dry run or a report does not.
        folder: its working folder.
        targets: files and rules that are asked for; none for the default.
        compares: whether it compares parameters of rules with those that it has noted.
    """

    runs: bool
    folder: Path
    targets: tuple[str, ...] = ()
    compares: bool = True


def this_call() -> Call:
    """The call of this process."""
    return call_of(tuple(sys.argv[1:]))


@lru_cache(maxsize=1)
def call_of(arguments: Sequence[str]) -> Call:
    """Read a command line as Snakemake does: joined and shortened options count, too."""
    from snakemake.cli import get_argument_parser
    from snakemake.settings.types import RerunTrigger

    try:
        given, _ = get_argument_parser().parse_known_args(list(arguments))
    except SystemExit:  # of another program that uses Snakemake
        return Call(runs=True, folder=Path())
    looks = any(getattr(given, name, None) for name in _LOOKS)
    reports = bool(given.report) and not given.report_after_run
    return Call(
        runs=not (looks or reports or given.dryrun or given.executor == "dryrun"),
        folder=Path(given.directory or "."),
        targets=tuple(given.targets or ()),
        compares=RerunTrigger.PARAMS in given.rerun_triggers,
    )


def why_closed(folder: Path) -> str:
    """One line where this user may not call Snakemake in a working folder; else empty."""
    notes = folder / ".snakemake"
    place = notes if os.access(notes, os.F_OK, effective_ids=True) else folder
    if os.access(place, os.W_OK, effective_ids=True):
        return ""
    return (
        f"{place.absolute()} cannot be written by this user, and Snakemake keeps notes and locks "
        "there. Call it in a folder of your own (docs/two-configurations.md)"
    )
