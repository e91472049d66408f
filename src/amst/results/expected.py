"""What runs of a grid are there, and whether their files are what the tables need."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from amst.errors import AmstError
from amst.results.cells import Run, State, record_of
from amst.results.histories import FILE as HISTORY
from amst.results.histories import read_history
from amst.results.predictions import correctness
from amst.training.state import state_of


def expected_runs(
    runs: Mapping[str, str], methods: Mapping[str, str], results: Path, partial: bool = False
) -> list[Run]:
    """The runs of a grid with their present states.

    Args:
        runs: id -> hash of the settings that the grid has for it.
        methods: variant -> its method.
        results: folder that has ``runs`` and ``checkpoints``.
        partial: whether one damaged run must not stop the tables of all others: each finished run
            is then read here, and called damaged if it cannot be.
    """
    found = []
    for name, wanted in runs.items():
        dataset, split, variant, seed = name.split("/")
        path = results / "runs" / name / "run.json"
        state: State = state_of(results, name).name
        if state == "done" and _hash_in(path) not in (wanted, None):
            state = "outdated"
        run = Run(
            dataset, split, variant, int(seed.removeprefix("seed")), path, state, methods[variant]
        )
        found.append(_looked_into(run) if partial and state == "done" else run)
    return found


def _hash_in(record: Path) -> str | None:
    """Hash of the settings in a record; None where it is no record, which its reader will say."""
    try:
        value: Any = json.loads(record.read_text("utf-8"))
        return str(value["settings_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _looked_into(run: Run) -> Run:
    try:
        correctness(run.path, record_of(run).main)
        read_history(run.path.with_name(HISTORY))
    except AmstError as error:
        return replace(run, state="damaged", why=str(error))
    return run
