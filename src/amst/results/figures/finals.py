"""Where training ends: modalities against the fused prediction, and accuracy against hours."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from amst.results.cells import Cell, Collection
from amst.results.figures.style import (
    COLOURS,
    COLUMN,
    FUSED,
    GREY,
    MARKERS,
    PAGE,
    Look,
    looks_of,
    say,
    wrapped,
)
from amst.results.statistics import Summary, summarise
from amst.results.tables.cost import hours
from amst.results.tables.entries import seeds_text, states_text
from amst.results.tables.unimodal import LINEAR, UNIMODAL, alone_values, references

WIDE_RANGE = 20
"""From this ratio of the longest to the shortest run on, hours are shown on a log scale."""


UNITS = (("hours", 1), ("minutes", 60), ("seconds", 3600))
"""What times are shown in -> how many of it make an hour; the first in which the longest is 1."""


def unimodal_against_fused(collection: Collection, cells: Sequence[Cell]) -> Figure:
    """Test accuracy of each modality inside a method and of the fused prediction.

    A mark per modality, one standard deviation over seeds to either side; a line shows what the
    same modality reaches alone. A variant of one modality has that one mark. The number of seeds
    is behind the name.
    """
    splits, looks = sorted({cell.split for cell in cells}), looks_of(cells)
    lines = max(_row_label(collection, cell).count("\n") + 1 for cell in cells)
    height = 0.55 + (0.07 + 0.1 * lines) * len(cells) + 0.35 * len(splits)
    figure = Figure(figsize=(COLUMN, height), layout="constrained")
    sizes = [sum(cell.split == split for cell in cells) for split in splits]
    grid = figure.subplots(len(splits), 1, squeeze=False, height_ratios=sizes, sharex=True)
    for axes, split in zip(grid[:, 0], splits, strict=True):
        _dots(collection, axes, [cell for cell in cells if cell.split == split], looks)
        if len(splits) > 1:
            axes.set_title(split)
    grid[-1, 0].set_xlabel("test accuracy in %")
    handles = [_dot(FUSED, "D", "fused")]
    handles += [_dot(look.colour, look.marker, name) for name, look in looks.items()]
    if any(references([cell for cell in cells if cell.split == split]) for split in splits):
        handles.append(Line2D([], [], color=GREY, ls="--", lw=0.8, label="alone"))
    figure.legend(handles=handles, loc="outside upper center", ncols=5, handletextpad=0.3)
    return figure


def accuracy_against_hours(collection: Collection, cells: Sequence[Cell]) -> Figure:
    """Test accuracy of the main prediction against the time of one run, a mark per variant.

    The number of seeds, or why there is no mark, is behind the name.
    """
    splits = sorted({cell.split for cell in cells})
    variants = [v for v in collection.variants if any(cell.variant == v for cell in cells)]
    labels = {variant: _legend_text(collection, cells, variant) for variant in variants}
    lines = sum(label.count("\n") + 1 for label in labels.values())
    height = max(2.3 * len(splits), 0.6 + 0.16 * lines)
    figure = Figure(figsize=(0.75 * PAGE, height), layout="constrained")
    grid = figure.subplots(len(splits), 1, squeeze=False)
    # By its place among those of the whole grid: one variant looks the same for all datasets.
    looks = {variant: _look(place) for place, variant in enumerate(collection.variants)}
    for axes, split in zip(grid[:, 0], splits, strict=True):
        _marks(axes, [cell for cell in cells if cell.split == split], looks)
        if len(splits) > 1:
            axes.set_title(split)
    handles = [_dot(*looks[variant], label) for variant, label in labels.items()]
    figure.legend(handles=handles, loc="outside right center")
    return figure


def _look(place: int) -> tuple[str, str]:
    """Colour and mark of a variant; 6 divides 12, so that marks turn after every 12."""
    turn = place // len(MARKERS)
    return COLOURS[place % 6], MARKERS[(place + turn) % len(MARKERS)]


def _dots(
    collection: Collection, axes: Axes, cells: Sequence[Cell], looks: Mapping[str, Look]
) -> None:
    _lines_alone(axes, cells, looks)
    for row, cell in enumerate(cells):
        if not cell.records:
            across = axes.get_yaxis_transform()
            text = states_text(cell)
            axes.text(0.02, row, text, transform=across, va="center", color=GREY, fontsize=6)
        for name, look in looks.items():
            values = cell.values(f"{LINEAR}/{name}")
            _bar(axes, row, summarise(list(values.values())), look.colour, look.marker)
        if cell.method != UNIMODAL:
            _bar(axes, row, summarise(list(cell.values(cell.main).values())), FUSED, "D")
    axes.set_yticks(range(len(cells)), [_row_label(collection, cell) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)


def _lines_alone(axes: Axes, cells: Sequence[Cell], looks: Mapping[str, Look]) -> None:
    """What each modality reaches alone: across, or in their rows where these have several."""
    alone = references(cells)
    for name, look in looks.items():
        rows: dict[str, list[int]] = {}
        for row, cell in enumerate(cells):
            if (cell.variant, name) in alone:
                rows.setdefault(alone[cell.variant, name].variant, []).append(row)
        for reference in (cell for cell in cells if cell.variant in rows):
            mean = 100 * fmean(alone_values(reference, f"{LINEAR}/{name}").values())
            if len(rows) == 1:
                axes.axvline(mean, color=look.colour, ls="--", lw=0.8, zorder=1)
            for row in rows[reference.variant] if len(rows) > 1 else ():
                ends = (row - 0.5, row + 0.5)
                axes.vlines(mean, *ends, colors=look.colour, linestyles="--", lw=0.8, zorder=1)


def _bar(axes: Axes, row: int, summary: Summary | None, colour: str, marker: str) -> None:
    if summary is None:
        return
    std = 100 * (summary.std or 0)
    x = [100 * summary.mean]
    axes.errorbar(x, [row], xerr=[std], color=colour, marker=marker, ms=3.2, elinewidth=0.8, lw=0)


def _row_label(collection: Collection, cell: Cell) -> str:
    """The variant and its seeds; a row without marks says in it why."""
    label = collection.label(cell.variant)
    return wrapped(f"{label} ({seeds_text(len(cell.records), cell)})" if cell.records else label)


def _legend_text(collection: Collection, cells: Sequence[Cell], variant: str) -> str:
    """The variant with its seeds, or why it has no mark; by split where splits differ in that."""
    found = {
        cell.split: seeds_text(len(cell.records), cell) if cell.records else states_text(cell)
        for cell in cells
        if cell.variant == variant
    }
    alike = len(set(found.values())) == 1
    texts = set(found.values()) if alike else [f"{split}: {text}" for split, text in found.items()]
    return wrapped(f"{collection.label(variant)} ({'; '.join(texts)})")


def _marks(axes: Axes, cells: Sequence[Cell], looks: dict[str, tuple[str, str]]) -> None:
    spent_by_all = []
    unit, per_hour = _unit([hours(one) for cell in cells for one in cell.records.values()])
    for cell in cells:
        accuracy = summarise(list(cell.values(cell.main).values()))
        spent = summarise([per_hour * hours(record) for record in cell.records.values()])
        if accuracy is None or spent is None:
            continue
        colour, marker = looks[cell.variant]
        axes.errorbar(
            [spent.mean],
            [100 * accuracy.mean],
            xerr=[spent.std or 0],
            yerr=[100 * (accuracy.std or 0)],
            color=colour,
            marker=marker,
            ms=4.5,
            elinewidth=0.7,
            lw=0,
        )
        spent_by_all.append(spent.mean)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(f"{unit} of one run")
    axes.set_ylabel("test accuracy in %")
    if not spent_by_all:
        say(axes, "no finished run")
    elif min(spent_by_all) > 0 and max(spent_by_all) / min(spent_by_all) > WIDE_RANGE:
        axes.set_xscale("log")
    else:
        # A deviation larger than its mean must not show hours below none.
        axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))


def _unit(spent: Sequence[float]) -> tuple[str, float]:
    """The unit in which hours are read easily, and how many of it make one."""
    longest = max(spent, default=1.0)
    return next((unit for unit in UNITS if longest * unit[1] >= 1), UNITS[-1])


def _dot(colour: str, marker: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, ms=4, lw=0, label=label)
