"""Learning curves per modality, and which modality trains when."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from amst.results.cells import Cell, Collection
from amst.results.figures.style import (
    FUSED,
    FUSED_WIDTH,
    GREY,
    PAGE,
    Look,
    looks_of,
    say,
    wrapped,
)
from amst.results.histories import History, curves, histories
from amst.results.statistics import Floats
from amst.results.tables.entries import seeds_text, states_text
from amst.results.tables.unimodal import UNIMODAL

ACROSS = 4
"""Panels side by side."""


def learning_curves(collection: Collection, cells: Sequence[Cell]) -> Figure:
    """Validation accuracy over epochs: a panel per variant, a line per modality and one fused.

    A modality's line is of its probe, or of its own prediction where there is no probe; the line
    is the mean over seeds, the band one standard deviation to either side. A variant of one
    modality has that one line.
    """
    rows = -(-len(cells) // ACROSS)
    figure = Figure(figsize=(PAGE, 0.45 + 1.35 * rows), layout="constrained")
    grid = figure.subplots(rows, ACROSS, sharex=False, sharey=True, squeeze=False)
    panels = list(grid.flat)
    looks = looks_of(cells)
    for axes, cell in zip(panels, cells, strict=False):
        _panel(axes, cell, _title(collection, cell), looks)
    for axes in panels[len(cells) :]:
        axes.set_visible(False)
    for index, axes in enumerate(panels[: len(cells)]):
        if index % ACROSS == 0:
            axes.set_ylabel("validation\naccuracy in %")
    # One label for all: below a panel of a row that is not the last, it would widen that row's gap.
    figure.supxlabel("epoch", fontsize=7)
    figure.legend(handles=_legend(looks), loc="outside upper center", ncols=6)
    return figure


def skip_schedule(collection: Collection, cells: Sequence[Cell]) -> Figure:
    """The epochs in which each modality trains, for the variants that skip one in some epoch.

    Where no variant skips, all are shown.
    """
    looks = looks_of(cells)
    # One schedule per variant: it depends on neither seed nor split.
    found = {cell.variant: histories(cell)[0] for cell in cells if cell.records}
    skipping = {variant: h for variant, h in found.items() if _skips(h)} or found
    shown = [
        (f"{collection.label(variant)}: {name}", name, history)
        for variant, history in skipping.items()
        for name in looks
        if any(name in active for active in history.active)
    ]
    figure = Figure(figsize=(PAGE, 0.6 + 0.16 * max(3, len(shown))), layout="constrained")
    axes = figure.subplots()
    if not shown:
        say(axes, "no finished run")
        return figure
    for row, (_, name, history) in enumerate(shown):
        epochs = [(e + 0.5, 1) for e, active in enumerate(history.active) if name in active]
        axes.broken_barh(
            epochs, (row - 0.38, 0.76), color=looks[name].colour, edgecolor="white", lw=0.2
        )
    axes.set_yticks(range(len(shown)), [label for label, _, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(0.5, max(len(history.active) for _, _, history in shown) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.grid(visible=False)
    return figure


def _panel(axes: Axes, cell: Cell, title: str, looks: Mapping[str, Look]) -> None:
    axes.set_title(title)
    axes.set_ylim(0, 103)  # a line at 100 % is drawn in its full width
    record = cell.any_record
    if record is None:
        say(axes, states_text(cell))
        axes.set_xticks([])
        return
    found = histories(cell)
    axes.axhline(100 / len(record.classes), color=GREY, lw=0.8, ls=":")
    for name, look in looks.items():
        probe = curves(found, f"probe/{name}")
        own = probe if probe.size else curves(found, f"modality/{name}")
        _line(axes, own, color=look.colour, ls=look.dashes)
    if cell.method != UNIMODAL:
        _line(axes, curves(found, cell.main), color=FUSED, lw=FUSED_WIDTH)


def _line(axes: Axes, values: Floats, color: str, **look: Any) -> None:
    if not values.size:
        return
    epochs = range(1, values.shape[1] + 1)  # as the logs count them
    mean = 100 * values.mean(axis=0)
    # A single epoch makes no line.
    axes.plot(epochs, mean, color=color, marker="o" if len(mean) == 1 else "", ms=3, **look)
    if len(values) > 1:
        std = 100 * values.std(axis=0, ddof=1)
        axes.fill_between(epochs, mean - std, mean + std, color=color, alpha=0.2, lw=0)
    axes.set_xlim(1, max(2, values.shape[1]))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _title(collection: Collection, cell: Cell) -> str:
    label = collection.label(cell.variant)
    splits = {other.split for other in collection.cells if other.dataset == cell.dataset}
    if len(splits) > 1:
        label = f"{label}, {cell.split}"
    if cell.records:
        label = f"{label} ({seeds_text(len(cell.records), cell)})"
    return wrapped(label)


def _legend(looks: Mapping[str, Look]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=look.colour, ls=look.dashes, label=name)
        for name, look in looks.items()
    ]
    fused = Line2D([], [], color=FUSED, lw=FUSED_WIDTH, label="fused")
    return [*lines, fused, Line2D([], [], color=GREY, lw=0.8, ls=":", label="chance")]


def _skips(history: History) -> bool:
    return len(set(history.active)) > 1
