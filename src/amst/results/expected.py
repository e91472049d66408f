"""What runs of a grid are there, and whether their files are what the tables need."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from amst.datasets.splitfile import read_split
from amst.errors import AmstError, HostError, not_given
from amst.features.manifest import read_manifest
from amst.files import sha256_of
from amst.records import HISTORY
from amst.results.cells import OF_A_RUN, Run, State, record_of
from amst.results.histories import read_history
from amst.results.predictions import correctness
from amst.training.state import digest_of, state_of


def expected_runs(
    runs: Mapping[str, str],
    methods: Mapping[str, str],
    results: Path,
    partial: bool = False,
    features: Mapping[str, str] | None = None,
    last_call: Mapping[str, str] | None = None,
) -> list[Run]:
    """The runs of a grid with their present states.

    Args:
        runs: id -> hash of the settings that the grid has for it.
        methods: variant -> its method.
        results: folder that has ``runs`` and ``checkpoints``.
        partial: whether one damaged run must not stop the tables of all others: each finished run
            is then read here, and called damaged if it cannot be.
        features: dataset -> the one whose shards and splits it uses; itself unless given.
        last_call: id -> hash of the settings that the last call of Snakemake had for it.

    Raises:
        AmstError: a manifest or a split file is damaged and ``partial`` is false.
    """
    earlier = last_call or {}
    present = _DataFiles(results, features or {}, partial)
    found = []
    for name, wanted in runs.items():
        dataset, split, variant, seed = name.split("/")
        path = results / "runs" / name / "run.json"
        state: State = state_of(results, name).name
        why = ""
        if state == "done":
            try:
                why = _outdated(path, wanted, present.digests(dataset, split))
            except HostError as error:
                if not partial:
                    raise
                state, why = "damaged", str(error)
        outdated = bool(why) and state == "done"
        of_last_call = outdated and earlier.get(name, wanted) == _hash_in(path) != wanted
        run = Run(
            dataset,
            split,
            variant,
            int(seed.removeprefix("seed")),
            path,
            "outdated" if outdated else state,
            methods[variant],
            why,
            of_last_call,
        )
        if run.state == "done":
            run = _looked_into(run) if partial else _whole(run)
        found.append(run)
    return found


class _DataFiles:
    """The manifests and splits that lie there now.

    Args:
        results: folder that has ``features``.
        owners: dataset -> the one whose files it uses.
        partial: whether to know nothing of files that cannot be read, and not to stop at them.
    """

    def __init__(self, results: Path, owners: Mapping[str, str], partial: bool) -> None:
        self._results, self._owners, self._partial = results, owners, partial
        self._known: dict[tuple[str, str], tuple[str, str] | None] = {}

    def digests(self, dataset: str, split: str) -> tuple[str, str] | None:
        """SHA-256 of both; None where one is not there: made again, it is what it was.

        Raises:
            AmstError: one cannot be read. Runs were made of another, so each would be blamed.
        """
        if (dataset, split) not in self._known:
            self._known[dataset, split] = self._look(dataset, split)
        return self._known[dataset, split]

    def _look(self, dataset: str, split: str) -> tuple[str, str] | None:
        folder = self._results / "features" / self._owners.get(dataset, dataset)
        files = folder / "manifest.json", folder / "splits" / f"{split}.json"
        if not all(file.is_file() for file in files):
            return None
        try:
            read_manifest(files[0])
            read_split(files[1])
        except AmstError:
            if self._partial:
                return None
            raise
        return sha256_of(files[0]), sha256_of(files[1])


def _outdated(path: Path, settings: str, data: tuple[str, str] | None) -> str:
    """Why a record is not one of the grid's run; empty if it is, or is none, as its reader says."""
    try:
        record: Any = json.loads(path.read_text("utf-8"))
        if record["settings_hash"] != settings:
            return f"{path} was made with other settings than the grid's"
        made = record["environment"]
        parts = settings, made["code_digest"], made["package_digest"]
        if data and record["digest"] != digest_of(*parts, *data):
            return (
                f"{path} was made from other shards or another split than are there now; delete "
                "it if Snakemake takes the run for done, and call it again"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if refused := not_given(path, error):
            raise refused from error
    return ""


def _hash_in(path: Path) -> str:
    return str(json.loads(path.read_text("utf-8"))["settings_hash"])


def _looked_into(run: Run) -> Run:
    try:
        record = record_of(run)
        correctness(run.path, record)
        read_history(run.path.with_name(HISTORY), record.settings)
    except AmstError as error:
        return replace(run, state="damaged", why=str(error))
    return _whole(run)


def _whole(run: Run) -> Run:
    """The run, damaged where a file of it is gone."""
    for path in map(run.path.with_name, OF_A_RUN):
        if not path.is_file():
            return replace(run, state="damaged", why=f"{path} is missing")
    return run
