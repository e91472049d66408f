"""Published figures beside ours: would one more seed of ours have given theirs?"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amst.errors import AmstError
from amst.records import RunRecord
from amst.results.cells import Cell, Collection
from amst.results.sheet import MINUS, Block, Entry, Table, Value
from amst.results.statistics import FEWEST_FOR_PREDICTION, prediction_interval, summarise
from amst.results.tables.entries import (
    COUNTS,
    IDENTITY,
    NOTHING,
    counts,
    identity,
    mean_entry,
    origins,
    percent,
)

FIELDS = (
    *("dataset", "split", "method", "variant", "head_or_prediction", "seeds", "part", "metric"),
    *("value", "best_epoch", "source"),
)
SHARES = {"accuracy", "macro_f1", "mean_average_precision"}
"""Metrics that are published in percent and recorded as fractions of 1."""


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes:
        conditions: what the source says of the settings, in words.
        prediction: the source's name of what was evaluated.
        seeds: how many runs the figure is the mean of.
        value: as we record the metric: accuracy as a fraction of 1.
    """

    dataset: str
    split: str
    method: str
    conditions: str
    prediction: str
    seeds: int
    part: str
    metric: str
    value: float
    source: str


def read_figures(path: Path) -> list[Figure]:
    """Read published figures from a CSV with the columns of ``FIELDS``; shares in percent.

    Raises:
        AmstError: a column is missing or a number is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = set(FIELDS).difference(reader.fieldnames or ())
        if missing:
            raise AmstError(f"{path} has no column {', '.join(sorted(missing))}", "Add it")
        return [_figure(path, line, row) for line, row in enumerate(reader, start=2)]


def reproduction_table(collection: Collection, figures: Sequence[Figure]) -> Table:
    """Every published figure with our variants of the same method beside it."""
    rows, body = [], []
    for figure in figures:
        matched: Sequence[Cell | None] = list(_matches(collection, figure))
        for cell in matched or [None]:
            row, entries = _row(collection, figure, cell)
            rows.append(row)
            body.append(entries)
    used = [cell for figure in figures for cell in _matches(collection, figure)]
    return Table(
        name="reproduction",
        caption="Published figures beside ours, in %: the published one, ours as mean ± standard "
        "deviation over seeds (number of seeds), ours less the published one, and whether "
        "the published one lies in the 95 % prediction interval of as many further seeds as it "
        "has itself.",
        columns=(
            *IDENTITY,
            *("prediction", "part", "metric", "published_conditions", "published_prediction"),
            *("published_seeds", "published", "our_settings", "mean", "std", "difference"),
            *("prediction_low", "prediction_high", "within", *COUNTS, "source"),
        ),
        rows=tuple(rows),
        heads=(
            *("published", "prediction", "part", "theirs", "variant", "ours"),
            *(f"ours {MINUS} theirs", "interval", "within"),
        ),
        blocks=(Block("", tuple(body)),),
        notes=(
            "Prediction interval: mean ± t(n - 1) s sqrt(1/m + 1/n) from n seeds of ours for the "
            f"mean of m further ones; none under {FEWEST_FOR_PREDICTION} seeds. A figure without "
            "a variant has no run of its dataset, split and method in this grid.",
        ),
        origins=origins(used),
    )


def our_prediction(figure: Figure, record: RunRecord) -> str:
    """Our name of what the figure was evaluated on; empty when the run has no such prediction.

    Sources name a fused prediction with remarks behind it ('weights audio 0.3 visual 0.7'), or a
    modality for its own prediction.
    """
    word = figure.prediction.split()[0]
    names = {row.prediction for row in record.results}
    candidates = (word, f"modality/{word}")
    found = next((name for name in candidates if name in names), "")
    if not found and word == "fused":
        return record.main
    return found


def _figure(path: Path, line: int, row: Mapping[str, str]) -> Figure:
    try:
        value, seeds = float(row["value"]), int(row["seeds"])
    except ValueError as error:
        raise AmstError(f"{path} line {line}: {error}", "Write a number there") from error
    return Figure(
        dataset=row["dataset"],
        split=row["split"],
        method=row["method"],
        conditions=row["variant"],
        prediction=row["head_or_prediction"],
        seeds=seeds,
        part=row["part"],
        metric=row["metric"],
        value=round(value / 100, 12) if row["metric"] in SHARES else value,
        source=row["source"],
    )


def _matches(collection: Collection, figure: Figure) -> Iterator[Cell]:
    for cell in collection.block(figure.dataset, figure.split):
        record = cell.any_record
        if cell.method == figure.method and (not record or our_prediction(figure, record)):
            yield cell


def _row(
    collection: Collection, figure: Figure, cell: Cell | None
) -> tuple[dict[str, Value], tuple[Entry, ...]]:
    row: dict[str, Value] = {
        "dataset": figure.dataset,
        "split": figure.split,
        "method": figure.method,
        "part": figure.part,
        "metric": figure.metric,
        "published_conditions": figure.conditions,
        "published_prediction": figure.prediction,
        "published_seeds": figure.seeds,
        "published": figure.value,
        "source": figure.source,
    }
    published = (
        Entry(f"{figure.dataset} {figure.split} {figure.method}"),
        Entry(figure.prediction),
        Entry(figure.part),
        Entry(percent(figure.value)),
    )
    if cell is None:
        return row, (*published, *[Entry(NOTHING)] * 5)
    if cell.any_record is None:
        row |= {**identity(cell), **counts(cell, None)}
        label = Entry(collection.label(cell.variant))
        return row, (*published, label, mean_entry(None, cell), *[Entry(NOTHING)] * 3)
    prediction = our_prediction(figure, cell.any_record)
    fused = "/" not in prediction
    values = list(
        cell.values(
            prediction, figure.metric, figure.part, selected_by=prediction if fused else None
        ).values()
    )
    summary = summarise(values)
    interval = prediction_interval(values, further=figure.seeds)
    difference = summary.mean - figure.value if summary else None
    within = _within(figure.value, interval)
    row |= {
        **identity(cell),
        "prediction": prediction,
        "our_settings": json.dumps(cell.any_record.settings.method_settings, sort_keys=True),
        "mean": summary.mean if summary else None,
        "std": summary.std if summary else None,
        "difference": difference,
        "prediction_low": interval[0] if interval else None,
        "prediction_high": interval[1] if interval else None,
        "within": within,
        **counts(cell, summary),
    }
    entries = (
        Entry(collection.label(cell.variant)),
        mean_entry(summary, cell),
        Entry(NOTHING if difference is None else percent(difference)),
        Entry(f"{percent(interval[0])} to {percent(interval[1])}" if interval else NOTHING),
        Entry(within or NOTHING),
    )
    return row, (*published, *entries)


def _within(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    return "yes" if interval[0] <= value <= interval[1] else "no"
