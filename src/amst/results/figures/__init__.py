"""The figures: each a pure function of run records and histories, one file per dataset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from amst.results.cells import Cell, Collection
from amst.results.figures.finals import accuracy_against_hours, unimodal_against_fused
from amst.results.figures.learning import learning_curves, skip_schedule
from amst.results.figures.style import save, style
from amst.results.names import FIGURE_FORMS, FIGURE_NAMES

FIGURES: Mapping[str, Callable[[Collection, Sequence[Cell]], Figure]] = {
    "curves": learning_curves,
    "modalities": unimodal_against_fused,
    "hours": accuracy_against_hours,
    "schedule": skip_schedule,
}
"""Name of every figure -> how it is drawn from the cells of one dataset."""


def write_figures(
    collection: Collection,
    out: Path,
    only: Sequence[str] = FIGURE_NAMES,
    forms: Sequence[str] = FIGURE_FORMS,
) -> list[Path]:
    """Write figures as ``<name>-<dataset>.<form>``, for every dataset of the runs.

    Args:
        collection: the records; histories lie beside them.
        out: folder of the files.
        only: names of the figures to draw.
        forms: pdf, png, or both.

    Returns:
        The files written.

    Raises:
        AmstError: a history is not what it should be.
        KeyError: there is no figure of that name.
    """
    # Matplotlib takes what stands between two dollars for a formula.
    names = {name: shown.replace("$", r"\$") for name, shown in collection.names.items()}
    collection = replace(collection, names=names)
    written = []
    with style():
        for dataset in collection.datasets:
            cells = [cell for cell in collection.cells if cell.dataset == dataset]
            for name in only:
                figure = FIGURES[name](collection, cells)
                written += save(figure, out, f"{name}-{dataset}", forms)
    return written
