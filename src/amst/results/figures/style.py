"""How all figures look, and how they reach the disk with the same bytes every time."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, get_args

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amst.config.run import Kind
from amst.files import replacing
from amst.results.cells import Cell

COLUMN, PAGE = 3.5, 7.16
"""Width in inches of one column and of the whole page of a two-column paper."""
LETTERS = 28
"""Letters of one line of a variant's name."""
FUSED = "#000000"
FUSED_WIDTH = 1.7
"""Of the line of the fused prediction in points: without colour, black alone is not enough."""
GREY = "#777777"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
"""Colours that colour-blind readers tell apart (Okabe and Ito, 2008); black is the fused one."""
KINDS = get_args(Kind)
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "p")
SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.1,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Text stays text in a PDF, as journals ask for.
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


@contextmanager
def style() -> Iterator[None]:
    """The look of the figures, whatever the user's own matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


def save(figure: Figure, out: Path, name: str, forms: Sequence[str]) -> list[Path]:
    """Write ``<name>.<form>``, pdf or png, without the time or the version of the software."""
    written = []
    for form in forms:
        hidden = ("CreationDate", "Producer", "Creator") if form == "pdf" else ("Software",)
        path = out / f"{name}.{form}"
        # not into the file: what a full disk makes of a PDF there is an error of Matplotlib's own
        content = io.BytesIO()
        figure.savefig(content, format=form, metadata=dict.fromkeys(hidden))
        with replacing(path) as temporary:
            temporary.write_bytes(content.getvalue())
        written.append(path)
    return written


@dataclass(frozen=True)
class Look:
    """How one modality is drawn: in colour, and in a way that survives print without colour."""

    colour: str
    dashes: Any
    marker: str


def looks_of(cells: Iterable[Cell]) -> dict[str, Look]:
    """Modality -> its look, in the order of the legend.

    A look belongs to a kind (audio, visual, text), so that it is the same for all datasets; of two
    modalities of one kind, the second gets a look of its own.
    """
    records = [record for cell in cells if (record := cell.any_record)]
    kinds = {name: m.kind for record in records for name, m in record.settings.modalities.items()}
    places: dict[str, int] = {}
    for name in sorted(kinds, key=lambda name: (KINDS.index(kinds[name]), name)):
        first = KINDS.index(kinds[name])
        places[name] = first if first not in places.values() else max(*places.values(), 2) + 1
    return {
        name: Look(
            COLOURS[place % len(COLOURS)],
            DASHES[place % len(DASHES)],
            MARKERS[place % len(MARKERS)],
        )
        for name, place in sorted(places.items(), key=lambda item: item[1])
    }


def wrapped(name: str) -> str:
    """A name on as many lines as leave room for what it names.

    A longer word ends a line behind an underscore or hyphen: names of variants have no spaces.
    """
    cut = rf"(?=\S{{{LETTERS + 1},}})(\S{{1,{LETTERS - 1}}}[_-])"
    return fill(re.sub(cut, r"\1 ", name), LETTERS, break_long_words=False)


def say(axes: Axes, text: str) -> None:
    """Write a text into the middle of axes that have nothing else to show."""
    text = wrapped(text)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
