"""The report: tables, figures, settings, environment, runs and data on one HTML page.

The page holds its pictures and links to nothing, so that it can be sent as one file.
"""

import base64
import html
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docutils.core import publish_parts
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from amst.errors import AmstError
from amst.features.report_page import without_pictures
from amst.files import reading, write_text
from amst.records import RunRecord
from amst.results.anonymous import Identities, without_identities
from amst.results.cells import UNFINISHED, Collection
from amst.results.common_settings import common_settings
from amst.results.figures import write_figures
from amst.results.figures.style import SETTINGS
from amst.results.names import CAPTIONS, FIGURE_NAMES, TABLE_NAMES
from amst.results.sheet import PART_STYLE, Table, anchor_of, html_part, short_commit
from amst.results.tables import Material, make_tables

TITLES = {
    "main": "Main results",
    "macro_f1": "Macro-averaged F1",
    "validation": "Validation, to choose settings by",
    "unimodal": "Who starves whom",
    "balance": "Contribution of each modality",
    "cost": "Cost",
    "reproduction": "Published figures beside ours",
    "significance": "Differences to the best",
    "intervals": "Intervals over seeds and test samples",
    "mcnemar": "McNemar's test, seed by seed",
    "ranks": "Ranks over datasets",
    "curves": "Learning curves",
    "modalities": "Where training ends",
    "hours": "Accuracy against time",
    "schedule": "Which modality trains when",
}
"""Headings of tables and figures; the table `runs` is the page's own section of runs."""
AFTER = {"main": "curves", "unimodal": "modalities", "cost": "hours", "balance": "schedule"}
"""Table -> the figure that follows it."""

PIXELS_PER_INCH = 150
"""Of a figure on the page: letters of 7 points come out as large as the text."""


@dataclass(frozen=True)
class Section:
    """A table or the figures of one name.

    Attributes:
        body: HTML.
    """

    name: str
    title: str
    body: str


def write_report(
    material: Material,
    out: Path,
    *,
    left_out: Sequence[str] = (),
    data_reports: Mapping[str, Path] | None = None,
    anonymous: Identities | None = None,
) -> None:
    """Write the report.

    Args:
        material: what tables and figures are made from.
        out: the HTML file.
        left_out: lines on what the grid cannot run.
        data_reports: dataset -> its data report, an HTML page; its pictures are left out.
        anonymous: what must not be in it, for double-blind review; None for all as it is.

    Raises:
        AmstError: a file beside a record, or the published figures, are not what they should be,
            or an anonymous report would hold an identity.
    """
    if anonymous:
        material = replace(material, collection=without_identities(material.collection))
    collection = material.collection
    names = [name for name in TABLE_NAMES if name in TITLES]
    pictures = _pictures(collection)
    values = {
        "sections": _sections(list(make_tables(material, names)), pictures),
        "left_out": left_out,
        "anonymous": bool(anonymous),
        "part_style": PART_STYLE,
        "data": {
            name: without_pictures(_text(path)) for name, path in (data_reports or {}).items()
        },
        **_facts(collection),
    }
    template = Path(__file__).with_suffix(".html.j2")
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"anchor": anchor_of, "short_commit": short_commit}
    page = environment.get_template(template.name).render(values)
    if anonymous:
        anonymous.refuse_in(out.with_suffix(".html").name, page.encode())
    write_text(out, page)


def _text(path: Path) -> str:
    try:
        with reading(path):
            return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        remedy = f"Delete it and make it again: snakemake {path}"
        raise AmstError(f"{path} is no page ({error})", remedy) from error


def _facts(collection: Collection) -> dict[str, Any]:
    """What the page says of the runs besides their results."""
    records = collection.records
    blocks = [(collection.title(*block), collection.block(*block)) for block in collection.blocks]
    return {
        "label": collection.label,
        "cells": collection.cells,
        "done": len(records),
        "expected": len(collection.runs),
        "unfinished": [run for run in collection.runs if run.state in UNFINISHED],
        "last": max((record.finished for record in records), default=""),
        "settings": [(title, common_settings(cells)) for title, cells in blocks],
        "methods": {cell.variant: cell.method for cell in collection.cells},
        "environments": _environments(records),
        "packages": {r.environment.package_digest: r.environment.packages for r in records},
        "adopted": any(record.adopted for record in records),
    }


def _environments(records: Iterable[RunRecord]) -> list[dict[str, Any]]:
    """Each software and device that runs were made with, and how many they are."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for record in records:
        environment = record.environment
        about = {
            "suite": environment.suite_version,
            "commit": short_commit(environment.commit),
            "Python": environment.python,
            "packages": environment.package_digest,
            "image": environment.container_digest[:16] or "none",
            "device": environment.device,
        }
        row = found.setdefault(tuple(about.values()), {**about, "hosts": set(), "runs": 0})
        row["hosts"].add(environment.host)
        row["runs"] += 1
    return [{**row, "hosts": ", ".join(sorted(row["hosts"]))} for _, row in sorted(found.items())]


def _sections(tables: Sequence[Table], pictures: Mapping[str, str]) -> list[Section]:
    found = []
    for table in tables:
        found.append(Section(table.name, TITLES[table.name], html_part(table)))
        figure = AFTER.get(table.name)
        if figure:
            found.append(Section(figure, TITLES[figure], pictures[figure] + caption_of(figure)))
    return found


def caption_of(figure: str) -> str:
    """The caption that Snakemake's report has for a figure, as HTML."""
    text = (CAPTIONS / f"{figure}.rst").read_text("utf-8")
    return str(publish_parts(text, writer="html5")["body"])


def _pictures(collection: Collection) -> dict[str, str]:
    """Figure -> an image per dataset, each with its bytes; under its name if there are several."""
    found = dict.fromkeys(FIGURE_NAMES, "")
    several = len(collection.datasets) > 1
    with tempfile.TemporaryDirectory() as folder:
        for path in write_figures(collection, Path(folder), forms=["png"]):
            name, _, dataset = path.stem.partition("-")
            label = collection.label(dataset)
            found[name] += f"<h3>{html.escape(label)}</h3>\n" if several else ""
            found[name] += _image(path, f"{TITLES[name]}, {label}")
    return found


def _image(path: Path, alt: str) -> str:
    """The picture with its bytes, all figures' letters of one size."""
    with Image.open(path) as picture:
        width = round(picture.width / SETTINGS["savefig.dpi"] * PIXELS_PER_INCH)
    source = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(alt)
    return f'<img src="data:image/png;base64,{source}" alt="{text}" style="width:{width}px">\n'
