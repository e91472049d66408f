"""Run records collected into the cells of a grid: one (dataset, split, variant), all its seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from amst.errors import AmstError
from amst.records import RUN_FILES, Metrics, RunRecord, read_record, stated_hash

State = Literal["done", "missing", "running", "failed", "outdated", "damaged"]
"""'outdated': made with other settings or data than the grid's; 'damaged': cannot be read."""
UNFINISHED: tuple[State, ...] = ("missing", "running", "failed", "outdated", "damaged")
OF_A_RUN = RUN_FILES[:-1]
"""Files of a finished run besides its weights."""
NAMED_IN_ERRORS = 3


@dataclass(frozen=True)
class Run:
    """One run that the grid expects.

    Attributes:
        path: its ``run.json``, read only when ``state`` is 'done'.
        state: what is known of it now.
        method: the variant's method as configured, for cells of which no run has finished.
        why: of a damaged or outdated run, what is wrong with it.
        of_last_call: whether an outdated run has the settings that the last call of Snakemake had
            for it.
    """

    dataset: str
    split: str
    variant: str
    seed: int
    path: Path
    state: State
    method: str = ""
    why: str = ""
    of_last_call: bool = False

    @property
    def id(self) -> str:
        """Folder of the run below ``results/runs``."""
        return f"{self.dataset}/{self.split}/{self.variant}/seed{self.seed}"


@dataclass(frozen=True)
class Cell:
    """All seeds of one variant on one split of one dataset.

    Attributes:
        runs: the expected runs, by seed.
        records: seed -> record of the finished ones, by seed.
    """

    dataset: str
    split: str
    variant: str
    runs: tuple[Run, ...]
    records: Mapping[int, RunRecord]

    @property
    def key(self) -> tuple[str, str, str]:
        """What no other cell shares: dataset, split and variant."""
        return self.dataset, self.split, self.variant

    @property
    def any_record(self) -> RunRecord | None:
        """The finished record of the lowest seed, for facts that all seeds share."""
        return next(iter(self.records.values()), None)

    @property
    def method(self) -> str:
        """The variant's method; empty where neither a record nor the grid tells it."""
        record = self.any_record
        return record.settings.method if record else self.runs[0].method

    @property
    def main(self) -> str:
        """The fused prediction that the main table shows; empty while no run has finished."""
        record = self.any_record
        return record.main if record else ""

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Ids of the finished runs."""
        return tuple(run.id for run in self.runs if run.seed in self.records)

    def count(self, state: State) -> int:
        """How many of the expected runs are in ``state``."""
        return sum(run.state == state for run in self.runs)

    def metrics(
        self, prediction: str, part: str = "test", selected_by: str | None = None
    ) -> dict[int, Metrics]:
        """Seed -> metrics of one prediction, for the finished runs that have it.

        ``selected_by`` is ``main`` when None. A fused prediction given for itself stands at the
        epoch of ``main`` where it selects none.
        """
        found = {}
        for seed, record in self.records.items():
            selecting = selected_by or record.main
            if selecting == prediction:
                selecting = _selecting(record, prediction)
            chosen = (selecting, prediction, part)
            for row in record.results:
                if (row.selected_by, row.prediction, row.part) == chosen:
                    found[seed] = row.metrics
        return found

    def values(
        self,
        prediction: str,
        metric: str = "accuracy",
        part: str = "test",
        selected_by: str | None = None,
    ) -> dict[int, float]:
        """Seed -> one scalar metric of one prediction."""
        rows = self.metrics(prediction, part, selected_by)
        return {seed: float(getattr(metrics, metric)) for seed, metrics in rows.items()}

    def predictions(self) -> list[tuple[str, str]]:
        """(selected_by, prediction) of every test result, the main fused prediction first.

        Each fused prediction that selects an epoch stands at its own, all other predictions at the
        epoch of the main one; what they are at other epochs is left out.
        """
        pairs = {
            (row.selected_by, row.prediction)
            for record in self.records.values()
            for row in record.results
            if row.part == "test" and _shown(record, row.selected_by, row.prediction)
        }
        return sorted(pairs, key=lambda pair: (pair[1] != self.main, kind_of(pair[1]), pair[1]))


@dataclass(frozen=True)
class Collection:
    """The cells of a grid in the order of the tables.

    Attributes:
        cells: by dataset in the configured order, split, then variant in the configured order.
        variants: the variants in that order.
        names: variant or dataset -> what a reader is shown for it.
    """

    cells: tuple[Cell, ...]
    variants: tuple[str, ...]
    names: Mapping[str, str]

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """The (dataset, split) pairs, in order."""
        return list(dict.fromkeys((cell.dataset, cell.split) for cell in self.cells))

    @property
    def datasets(self) -> list[str]:
        """The datasets, in order."""
        return list(dict.fromkeys(cell.dataset for cell in self.cells))

    def block(self, dataset: str, split: str) -> list[Cell]:
        """The cells of one split of one dataset, variants in order."""
        return [cell for cell in self.cells if (cell.dataset, cell.split) == (dataset, split)]

    @property
    def runs(self) -> list[Run]:
        """Every run that the grid expects."""
        return [run for cell in self.cells for run in cell.runs]

    @property
    def finished(self) -> list[Run]:
        """The runs whose records are here."""
        return [run for cell in self.cells for run in cell.runs if run.seed in cell.records]

    @property
    def records(self) -> list[RunRecord]:
        """The records of the finished runs."""
        return [record for cell in self.cells for record in cell.records.values()]

    def find(self, dataset: str, split: str, variant: str) -> Cell | None:
        """One cell; None when the grid does not expect it."""
        return self._by_key.get((dataset, split, variant))

    @cached_property
    def _by_key(self) -> dict[tuple[str, str, str], Cell]:
        return {cell.key: cell for cell in self.cells}

    def label(self, name: str) -> str:
        """What a reader is shown for a variant or a dataset."""
        return self.names.get(name, name)

    def title(self, dataset: str, split: str) -> str:
        """What a reader is shown for a split of a dataset: the split where there are several."""
        splits = {cell.split for cell in self.cells if cell.dataset == dataset}
        label = self.label(dataset)
        return label if len(splits) == 1 else f"{label} {split}"


def collect(
    runs: Iterable[Run],
    order: Sequence[str],
    names: Mapping[str, str] | None = None,
    partial: bool = False,
    datasets: Sequence[str] = (),
    command: str = "amst tables",
) -> Collection:
    """Read the records of the finished runs and sort everything into cells.

    Args:
        runs: every run that the grid expects, in any order.
        order: the variants in the order of the tables; others follow, sorted by name.
        names: variant or dataset -> what a reader is shown; itself where it is left out.
        partial: whether runs may be unfinished.
        datasets: the datasets in the order of the tables; others follow, sorted by name.
        command: what takes unfinished runs, too, with ``--partial``; named where they are refused.

    Raises:
        AmstError: a run is not done and ``partial`` is false, a record is not the run's, or the
            seeds of a cell were made with different settings.
    """
    ordered = sorted(runs, key=lambda run: (run.dataset, run.split, run.variant, run.seed))
    if not partial:
        _refuse_unfinished(ordered, command)
    members: dict[tuple[str, str, str], list[Run]] = {}
    for run in ordered:
        members.setdefault((run.dataset, run.split, run.variant), []).append(run)
    variants = _in_order(order, {run.variant for run in ordered})
    of_variant = {name: place for place, name in enumerate(variants)}
    present = _in_order(datasets, {run.dataset for run in ordered})
    of_dataset = {name: place for place, name in enumerate(present)}
    keys = sorted(members, key=lambda key: (of_dataset[key[0]], key[1], of_variant[key[2]]))
    cells = tuple(_cell(key, members[key]) for key in keys)
    return Collection(cells, tuple(variants), dict(names or {}))


def _in_order(wanted: Iterable[str], present: set[str]) -> list[str]:
    """What is present: first what is wanted, as it comes, then the others by name."""
    found = [name for name in dict.fromkeys(wanted) if name in present]
    return found + sorted(present.difference(found))


def kind_of(prediction: str) -> str:
    """'fused', 'modality', 'probe' or 'linear', whichever branch the prediction is of."""
    folders = prediction.split("/")[:-1]
    return folders[-1] if folders else "fused"


def modality_of(prediction: str) -> str:
    """Name of the modality of a per-modality prediction or classifier; empty for fused ones."""
    return prediction.rpartition("/")[2] if "/" in prediction else ""


def _shown(record: RunRecord, selected_by: str, prediction: str) -> bool:
    fused = kind_of(prediction) == "fused"
    return selected_by == (_selecting(record, prediction) if fused else record.main)


def _selecting(record: RunRecord, fused: str) -> str:
    """Which fused prediction selected the epoch that ``fused`` is shown at."""
    own = any(row.selected_by == fused for row in record.results)
    return fused if own else record.main


def _cell(key: tuple[str, str, str], runs: Sequence[Run]) -> Cell:
    records = {run.seed: record_of(run) for run in runs if run.state == "done"}
    _refuse_mixed(list(records.values()))
    return Cell(*key, tuple(runs), records)


def _refuse_mixed(records: Sequence[RunRecord]) -> None:
    """A mean over seeds is one only if nothing but the seed sets the runs apart."""
    for record in records[1:]:
        first, other = (r.settings.model_copy(update={"seed": 0}) for r in (records[0], record))
        if first != other:
            differing = [name for name, value in first if value != getattr(other, name)]
            raise AmstError(
                f"{records[0].settings.run_id} and {record.settings.run_id} were made with "
                f"different settings ({', '.join(differing)})",
                "Run again the one that is outdated; `amst plan` says which",
            )


def record_of(run: Run) -> RunRecord:
    """The record of a finished run.

    Raises:
        AmstError: it is no record, another run's, was edited, or lacks results.
    """
    record = read_record(run.path)
    noted = record.settings_hash
    if record.settings.hash != noted and stated_hash(run.path) != noted:
        raise AmstError(
            f"{run.path} has the hash of other settings than those in it: it was edited",
            "Delete the run's folder and run it again",
        )
    if record.settings.run_id != run.id:
        raise AmstError(
            f"{run.path} is the record of {record.settings.run_id}, not of {run.id}",
            "Delete the folder that was moved or copied there and run it again",
        )
    if lacking := _lacking(record):
        raise AmstError(f"{run.path} lacks {lacking}", "Delete the run's folder and run it again")
    return record


def _lacking(record: RunRecord) -> str:
    """The first result that the record lacks: all have the main prediction, each on both parts."""
    found = {(row.selected_by, row.prediction, row.part) for row in record.results}
    pairs = {(record.main, record.main), *(where[:2] for where in found)}
    for selected_by, prediction in sorted(pairs):
        for part in ("val", "test"):
            if (selected_by, prediction, part) not in found:
                return f"the results of {prediction} on {part}"
    return ""


def _refuse_unfinished(runs: Sequence[Run], command: str) -> None:
    unfinished = [run for run in runs if run.state != "done"]
    if not unfinished:
        return
    first = ", ".join(f"{run.id} ({run.state})" for run in unfinished[:NAMED_IN_ERRORS])
    more = len(unfinished) - NAMED_IN_ERRORS
    what, remedy = "", "Finish them"
    if damaged := [run.why for run in unfinished if run.state == "damaged"]:
        what = f"; {damaged[0]}"
        remedy += " (`snakemake` without targets makes lost files again)"
    if any(run.state == "outdated" for run in unfinished):
        what += "; outdated: made with other settings or data than the grid's"
        remedy += " (delete the folder of an outdated one that Snakemake takes for done)"
    if earlier := of_last_call(unfinished):
        remedy = f"{earlier}; or finish the runs of this configuration"
    raise AmstError(
        f"{len(unfinished)} of {len(runs)} runs are not done: {first}"
        f"{f' and {more} more' if more > 0 else ''}{what}",
        f"{remedy}, or take what is there: `{command} --partial`",
    )


def of_last_call(runs: Iterable[Run]) -> str:
    """What to do about outdated runs of the last call of Snakemake; empty if there are none."""
    count = sum(run.of_last_call for run in runs)
    if not count:
        return ""
    return (
        f"{count} outdated {'run has' if count == 1 else 'runs have'} the settings of the last "
        "call of Snakemake: give its --configfile here, too, or --grid results/grid.json, unless "
        "an update of the suite has changed them"
    )
