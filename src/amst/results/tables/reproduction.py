"""Published figures beside ours: would one more seed of ours have given theirs?"""

import csv
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from amst.config.methods import method_names, settings_class
from amst.config.run import Recipe, RunSettings
from amst.errors import AmstError
from amst.files import reading
from amst.records import Metrics, RunRecord
from amst.results.cells import Cell, Collection
from amst.results.common_settings import dotted
from amst.results.sheet import MINUS, Block, Entry, Table, Value
from amst.results.statistics import FEWEST_FOR_PREDICTION, prediction_interval, summarise
from amst.results.tables.entries import (
    COUNTS,
    IDENTITY,
    NOTHING,
    counts,
    identity,
    mean_entry,
    number,
    origins,
    percent,
)

FIELDS = (
    *("dataset", "split", "method", "variant", "head_or_prediction", "seeds", "part", "metric"),
    *("value", "best_epoch", "source"),
)
SETTINGS = "settings"
"""Column that a file of figures may have besides: a JSON object of the method's settings by our
names, with those of the recipe under ``recipe``; empty where nothing is known."""
SHARES = {"accuracy", "macro_f1", "mean_average_precision"}
"""Metrics that are published in percent and recorded as fractions of 1."""
METRICS = tuple(name for name in Metrics.model_fields if name != "per_class_accuracy")
OTHER = "other settings"
VERDICTS = {"yes": "not excluded", "no": "excluded", OTHER: OTHER, "": NOTHING}
"""Column ``within`` -> what a reader is told: a wide interval of few seeds excludes little."""


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes:
        conditions: what the source says of the settings, in words.
        prediction: the source's name of what was evaluated.
        seeds: how many runs the figure is the mean of.
        value: as we record the metric: accuracy as a fraction of 1.
        settings: what is known of the settings, by our names; those of the recipe under 'recipe'.
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
    settings: Mapping[str, Any]


Section = tuple[str, str, str, str]
"""Dataset, split, method and published conditions: what figures under one heading share."""


def read_figures(path: Path) -> list[Figure]:
    """Read published figures from a CSV with the columns of ``FIELDS``; shares in percent.

    Raises:
        AmstError: it is no CSV in UTF-8, a column is missing, a row is cut off, a number or a
            metric is none, or settings are none of the method.
    """
    try:
        # Spreadsheets put a mark of the encoding in front.
        with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = set(FIELDS).difference(reader.fieldnames or ())
            if missing:
                raise AmstError(f"{path} has no column {', '.join(sorted(missing))}", "Add it")
            return [_figure(path, line, row) for line, row in enumerate(reader, start=2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise AmstError(f"{path} is no CSV in UTF-8 ({error})", "Save it as one") from error


def reproduction_table(collection: Collection, figures: Sequence[Figure]) -> Table:
    """Every published figure with our variants of the same method beside it."""
    rows: list[dict[str, Value]] = []
    sections: dict[Section, list[tuple[Entry, ...]]] = {}
    there = {dataset for dataset, _ in collection.blocks}
    for figure in figures:
        matched: Sequence[Cell | None] = list(_matches(collection, figure))
        for cell in matched or [None]:
            row, entries = _row(collection, figure, cell)
            rows.append(row)
            if figure.dataset in there:
                sections.setdefault(_section(figure), []).append(entries)
    used = [cell for figure in figures for cell in _matches(collection, figure)]
    return Table(
        name="reproduction",
        caption="Published figures beside ours, accuracy, F1 and average precision in %: the "
        "published one, ours as mean ± standard deviation over seeds (number of seeds) at the "
        "epoch that validation accuracy selected, ours less the published one, and whether the "
        "95 % prediction interval of as many further seeds as it has itself excludes the published "
        "one.",
        columns=(
            *IDENTITY,
            *("prediction", "part", "metric", "published_conditions", "published_prediction"),
            *("published_seeds", "published_settings", "published", "our_settings", "mean", "std"),
            *("difference", "prediction_low", "prediction_high", "within", "differs"),
            *(*COUNTS, "source"),
        ),
        rows=tuple(rows),
        heads=(
            *("variant", "prediction", "part", "metric", "theirs", "ours"),
            *(f"ours {MINUS} theirs", "interval", "published one"),
        ),
        blocks=tuple(
            Block(_title(collection, section), tuple(body), _our_settings(collection, section))
            for section, body in sections.items()
        ),
        notes=(
            "Prediction interval: mean ± t(n - 1) s sqrt(1/m + 1/n) from n seeds of ours for the "
            f"mean of m further ones; none under {FEWEST_FOR_PREDICTION} seeds. What it does not "
            "exclude is not thereby reproduced: few seeds have a wide one. "
            f"'{OTHER}': ours are not what is known of the published ones. A figure without a "
            "variant has no run of its dataset, split and method in this grid.",
            *_absent(figures, there),
        )
        if sections
        else _absent(figures, there),
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


def differences(figure: Figure, ours: RunSettings) -> list[str]:
    """Settings of ours that are not the published ones, in words; none where these are unknown."""
    theirs = {key: value for key, value in figure.settings.items() if key != "recipe"}
    recipe = {f"recipe.{key}": value for key, value in figure.settings.get("recipe", {}).items()}
    own = {f"recipe.{key}": value for key, value in ours.recipe.model_dump().items()}
    own |= ours.method_settings
    return [
        f"{_said(key, own.get(key))} instead of {_said(key, value)}"
        for key, value in {**theirs, **recipe}.items()
        if _meant(key, own.get(key)) != _meant(key, value)
    ]


def _meant(key: str, value: Any) -> Any:
    """A setting to be compared: a skip factor of 1 is the same as none."""
    if key == "skip" and isinstance(value, Mapping):
        return {name: factor for name, factor in value.items() if factor != 1}
    return value


def _said(key: str, value: Any) -> str:
    return ", ".join(" ".join(pair) for pair in dotted({key: value}).items()) or f"no {key}"


def _section(figure: Figure) -> Section:
    return figure.dataset, figure.split, figure.method, figure.conditions


def _title(collection: Collection, section: Section) -> str:
    dataset, split, method, conditions = section
    return f"{collection.label(dataset)} {split}, {method}; published with: {conditions}"


def _our_settings(collection: Collection, section: Section) -> str:
    """The settings of our variants of a method, to be read beside the published conditions."""
    dataset, split, method, _ = section
    texts = []
    for cell in collection.block(dataset, split):
        if cell.method == method and cell.any_record:
            settings = cell.any_record.settings
            own = {"epochs": str(settings.recipe.epochs), **dotted(settings.method_settings)}
            said = ", ".join(f"{key} {value}" for key, value in own.items())
            texts.append(f"{collection.label(cell.variant)} with {said}")
    return f"Ours: {'; '.join(texts)}." if texts else ""


def _absent(figures: Sequence[Figure], there: Container[str]) -> tuple[str, ...]:
    """One line on the figures of datasets that the grid does not have."""
    absent = [figure.dataset for figure in figures if figure.dataset not in there]
    if not absent:
        return ()
    names = ", ".join(dict.fromkeys(absent))
    return (
        f"{len(absent)} of {len(figures)} published figures are of datasets that this grid does "
        f"not have ({names}).",
    )


def _figure(path: Path, line: int, row: Mapping[str, str]) -> Figure:
    if any(row[name] is None for name in FIELDS):
        raise AmstError(f"{path} line {line} is cut off", "Give it a cell for each column")
    if not row["head_or_prediction"].strip():
        raise AmstError(f"{path} line {line} has no head_or_prediction", "Write it there")
    if row["metric"] not in METRICS:
        raise AmstError(
            f"{path} line {line}: unknown metric {row['metric']!r}",
            f"Write one of {', '.join(METRICS)}",
        )
    try:
        value, seeds = float(row["value"]), int(row["seeds"])
        if not isfinite(value) or seeds < 1:
            raise ValueError(f"value {row['value']}, seeds {row['seeds']}")
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
        settings=_settings(f"{path} line {line}", row),
        value=round(value / 100, 12) if row["metric"] in SHARES else value,
        source=row["source"],
    )


def _settings(where: str, row: Mapping[str, str]) -> Mapping[str, Any]:
    """The column of settings; empty where the file has none, or nothing there."""
    try:
        settings = json.loads(row.get(SETTINGS) or "{}")
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise AmstError(f"{where}: {SETTINGS}: no JSON object", 'Write {"key": value} or nothing')
    if row["method"] in method_names():
        recipe = _checked(Recipe, settings.pop("recipe", {}), f"{where}: {SETTINGS}.recipe")
        own = _checked(settings_class(row["method"]), settings, f"{where}: {SETTINGS}")
        settings = own | ({"recipe": recipe} if recipe else {})
    return settings


def _checked(model: type[BaseModel], values: Any, where: str) -> dict[str, Any]:
    """The values as a record has them; those that are not given stay unknown."""
    try:
        return model.model_validate(values).model_dump(mode="json", include=set(values))
    except ValidationError as error:
        # What is not known need not be there, though a run would need it.
        errors = [each for each in error.errors() if each["type"] != "missing"]
        if not errors:
            return dict(values)
        first = errors[0]
        place = ".".join([where, *map(str, first["loc"])])
        wrong = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise AmstError(
            f"{place}: {wrong}", "Write the settings as docs/methods names them"
        ) from error


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
        "published_settings": json.dumps(figure.settings) if figure.settings else "",
        "published": figure.value,
        "source": figure.source,
    }
    form = _form(figure.metric)
    about = (figure.prediction, figure.part, figure.metric.replace("_", " "))
    published = tuple(map(Entry, (*about, form(figure.value))))
    if cell is None:
        return row, (Entry(NOTHING), *published, *[Entry(NOTHING)] * 4)
    label = Entry(collection.label(cell.variant))
    if cell.any_record is None:
        row |= {**identity(cell), **counts(cell, None)}
        return row, (label, *published, mean_entry(None, cell), *[Entry(NOTHING)] * 3)
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
    differ = differences(figure, cell.any_record.settings)
    within = OTHER if differ else _within(figure.value, interval)
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
        "differs": "; ".join(differ),
        **counts(cell, summary),
    }
    texts = (
        NOTHING if difference is None else form(difference),
        f"{form(interval[0])} to {form(interval[1])}" if interval else NOTHING,
        VERDICTS[within],
    )
    linked = (Entry(text, runs=() if text == NOTHING else cell.run_ids) for text in texts)
    return row, (label, *published, mean_entry(summary, cell, form=form), *linked)


def _form(metric: str) -> Callable[[float], str]:
    """How a reader is shown a value: shares in percent, others as they are."""
    return percent if metric in SHARES else lambda value: number(value, 3)


def _within(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    return "yes" if interval[0] <= value <= interval[1] else "no"
