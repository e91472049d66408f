"""A table once, written as CSV for machines and as Markdown, LaTeX and HTML for readers."""

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from amst.files import write_text
from amst.results.names import TABLE_FORMS

Value = str | int | float | None

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Entry:
    """What stands at one place of a table as a reader sees it.

    Attributes:
        runs: ids of the runs it was computed from.
    """

    text: str
    bold: bool = False
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """Rows under a heading of their own; an empty title gives no heading.

    Attributes:
        about: what a reader must know of these rows; it stands under the title.
    """

    title: str
    rows: tuple[tuple[Entry, ...], ...]
    about: str = ""


@dataclass(frozen=True)
class Origin:
    """Where a run's numbers come from, as its record says."""

    settings_hash: str
    commit: str
    code_digest: str
    container_digest: str
    adopted: str


@dataclass(frozen=True)
class Table:
    """A table in its two forms: tidy rows for machines, blocks of entries for readers.

    Attributes:
        name: of the files and of the LaTeX label.
        caption: what the numbers are, in a sentence or two.
        columns: names of the tidy form.
        rows: the tidy form, a value or None per column.
        heads: column headings of the readers' form.
        blocks: the readers' form.
        notes: what a reader must know besides.
        origins: run id -> where it comes from, for all runs that entries name.
        beside: what the files beside this one have; not in LaTeX, whose reader has no such files.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Value], ...]
    heads: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    origins: Mapping[str, Origin]
    beside: tuple[str, ...] = ()


def write_files(table: Table, out: Path) -> list[Path]:
    """Write ``<name>.csv``, ``.md``, ``.tex`` and ``.html`` into the folder ``out``."""
    written = []
    writers = (to_csv, to_markdown, to_latex, to_html)
    for form, to_form in zip(TABLE_FORMS, writers, strict=True):
        path = out / f"{table.name}.{form}"
        write_text(path, to_form(table))
        written.append(path)
    return written


def to_csv(table: Table) -> str:
    """The tidy form: '.' decimals with all digits, an empty field where there is no value.

    Raises:
        ValueError: a row has a value for what is no column.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, table.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """The readers' form as tables of GitHub-flavoured Markdown."""
    lines = [_markdown(table.caption), ""]
    for block in table.blocks:
        heads, rows = _filled(table.heads, block.rows)
        rule = "|" + "|".join([":---"] + ["---:"] * (len(heads) - 1)) + "|"
        if block.title:
            lines += [f"**{_markdown(block.title)}**", ""]
        if block.about:
            lines += [_markdown(block.about), ""]
        lines += [_markdown_row([Entry(head) for head in heads]), rule]
        lines += [_markdown_row(row) for row in rows]
        lines.append("")
    for note in (*table.notes, *table.beside):
        lines += [_markdown(note), ""]
    return "\n".join(lines[:-1]) + "\n"


def _filled(
    heads: Sequence[str], rows: Sequence[Sequence[Entry]]
) -> tuple[list[str], list[list[Entry]]]:
    """Headings and rows of a block without the columns in which it has dashes and nothing else.

    What a block is of need not have all that others have: a dataset without text no text.
    """
    kept = [
        place
        for place in range(len(heads))
        if not rows or any(row[place].text != DASH for row in rows)
    ]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]


def to_latex(table: Table) -> str:
    r"""The readers' form for \input: a ``table*``, or several where one page cannot hold it."""
    said = " ".join((table.caption, *table.notes))
    pages = _pages(table.blocks, len(said) // CHARACTERS_OF_A_LINE)
    caption = _latex(said)
    captions = [caption] + [_latex(table.caption) + " (continued)"] * (len(pages) - 1)
    floats = [
        _latex_float(table, blocks, f"\\caption{{{text}}}", _latex_label(table, number))
        for number, (blocks, text) in enumerate(zip(pages, captions, strict=True))
    ]
    return "\n".join(["% needs \\usepackage{booktabs} and \\usepackage{graphicx}", *floats])


ROWS_OF_A_PAGE = 48
"""Rows of a table in footnotesize that fit on a page with a caption of four lines."""
CHARACTERS_OF_A_LINE = 75
"""Of a caption; it is larger than the rows, so this is rather few."""


def _pages(blocks: Sequence[Block], caption: int) -> list[list[Block]]:
    """Blocks on as many pages as rows and the caption's lines need; a long block is cut."""
    pages: list[list[Block]] = [[]]
    room = max(10, ROWS_OF_A_PAGE - max(0, caption - 4))
    for block in blocks:
        rows = block.rows
        while rows:
            if len(rows) + _lines_above(block) > room and pages[-1]:
                pages.append([])
                room = ROWS_OF_A_PAGE
            pages[-1].append(Block(block.title, rows[:room], block.about))
            rows, room = rows[room:], room - len(rows[:room]) - _lines_above(block)
    return pages


def _lines_above(block: Block) -> int:
    return bool(block.title) + (1 + len(block.about) // 110 if block.about else 0)


def _latex_label(table: Table, number: int) -> str:
    more = f"-{number + 1}" if number else ""
    return f"\\label{{tab:{table.name.replace('_', '-')}{more}}}"


def _latex_float(table: Table, blocks: Sequence[Block], caption: str, label: str) -> str:
    width = len(table.heads)
    lines = [
        "\\begin{table*}",
        "\\centering",
        # Document classes make room above a caption, as for one under a figure.
        "\\setlength{\\belowcaptionskip}{6pt}",
        caption,
        label,
        "\\footnotesize",
        "\\setlength{\\tabcolsep}{4pt}",
        # Shrinks what is wider than the page and leaves the rest alone.
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{'l' + 'r' * (width - 1)}}}",
        "\\toprule",
        " & ".join(_latex(head) for head in table.heads) + r" \\",
    ]
    for block in blocks:
        lines.append("\\midrule")
        if block.title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_latex(block.title)}}}}} \\")
        if block.about:
            about = rf"{{p{{0.95\textwidth}}}}{{{_latex(block.about)}}}"
            lines.append(rf"\multicolumn{{{width}}}{about} \\")
        lines += [_latex_row(row) for row in block.rows]
    lines += ["\\bottomrule", "\\end{tabular}}", "\\end{table*}", ""]
    return "\n".join(lines)


def to_html(table: Table) -> str:
    """The readers' form as a page of its own; every number links to the runs it comes from."""
    title = html.escape(table.name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}{PART_STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        f"{html_part(table, table.beside)}"
        f"{_html_origins(table)}</body></html>\n"
    )


def html_part(table: Table, beside: Sequence[str] = ()) -> str:
    """The readers' form for a page that gives each cell's runs the anchor of ``anchor_of``.

    The page needs ``PART_STYLE``.

    Args:
        table: what to show.
        beside: more notes: ``table.beside`` on a page that has the table's other files beside it.
    """
    tables = "\n".join(_html_block(table, block) for block in table.blocks)
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in (*table.notes, *beside))
    return f"<p>{html.escape(table.caption)}</p>\n{tables}\n{notes}\n"


def anchor_of(run: str) -> str:
    """Where the runs of one cell stand on a page: ``digits/random/naive`` for each of its seeds."""
    return html.escape(run.rpartition("/")[0])


STYLE = (
    "body{font:15px/1.5 sans-serif;margin:1.5em;color:#111;background:#fff}"
    "table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}"
    "td,th{padding:.3em .7em;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}caption{text-align:left;font-weight:bold}"
    "caption small{font-weight:normal}h1{font-size:1.5em}"
    "a{color:inherit;text-decoration:underline dotted}"
    "#runs td,#runs th{text-align:left;font-size:13px}tbody:target{background:#fff2b3}"
    "@media print{td,th{white-space:normal;padding:.2em .4em}"
    "#runs td,#runs th{font-size:9px;overflow-wrap:anywhere}}"
)
"""Style of the pages: one file that can be sent, so nothing is linked."""
PART_STYLE = (
    "tbody th{font-weight:normal}"
    # The names of rows stay in sight where the table is scrolled sideways.
    ".entries tr>:first-child{white-space:nowrap;position:sticky;left:0;background:#fff}"
    "@media (max-width:40rem){.entries tr>:first-child{white-space:normal;overflow-wrap:anywhere;"
    "min-width:9rem}}"
    # Paper cannot be scrolled, and has no room for half a heading.
    "@media print{table{display:table;font-size:10px}.entries tr>:first-child{position:static}"
    "h1,h2,h3{break-after:avoid}}"
)
"""What ``html_part`` needs of the style of its page, on a screen and on paper."""


def _markdown_row(row: Sequence[Entry]) -> str:
    texts = (_markdown(entry.text) for entry in row)
    marked = (f"**{text}**" if entry.bold else text for entry, text in zip(row, texts, strict=True))
    return "| " + " | ".join(marked) + " |"


def _markdown(text: str) -> str:
    escaped = re.sub(r"([\\`*|]|<(?=[A-Za-z/!?]))", r"\\\1", text)
    # An underscore inside a word is plain in Markdown; at its edge it would start emphasis.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    MINUS: "$-$",
    TIMES: r"$\times$",
    DASH: "--",
}
"""Characters that LaTeX takes for commands or lacks in its default encoding."""


FORMULAS = {
    "t(n - 1) s sqrt(1/m + 1/n)": r"$t_{n-1}\,s\sqrt{1/m + 1/n}$",
}
"""Formulas as notes write them -> as LaTeX does."""


def _latex(text: str) -> str:
    for plain, formula in FORMULAS.items():
        if plain in text:
            before, _, after = text.partition(plain)
            return _latex(before) + formula + _latex(after)
    return "".join(LATEX.get(character, character) for character in text)


def _latex_row(row: Sequence[Entry]) -> str:
    text = " & ".join(_latex_entry(entry) for entry in row) + r" \\"
    # After the end of a row and after a rule, LaTeX would take these for a length and for a star.
    return "{}" + text if text.startswith(("[", "*")) else text


def _latex_entry(entry: Entry) -> str:
    text = _latex(entry.text)
    if not entry.bold:
        return text
    # \boldmath reaches the plus-minus sign, which \textbf alone leaves thin.
    return rf"{{\boldmath\textbf{{{text}}}}}"


def _html_block(table: Table, block: Block) -> str:
    about = f"<br><small>{html.escape(block.about)}</small>" if block.about else ""
    title = html.escape(block.title) + about
    caption = f"<caption>{title}</caption>" if title else ""
    heads, rows = _filled(table.heads, block.rows)
    head = "".join(_html_head("col", html.escape(each)) for each in heads)
    body = "\n".join(
        f"<tr>{_html_head('row', _html_entry(row[0]))}"
        + "".join(f"<td>{_html_entry(entry)}</td>" for entry in row[1:])
        + "</tr>"
        for row in rows
    )
    inside = f"{caption}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody>"
    return f'<table class="entries">{inside}</table>'


def _html_head(scope: str, text: str) -> str:
    """What a screen reader says with the numbers of a row or column; an empty one says nothing."""
    return f'<th scope="{scope}">{text}</th>' if text else "<td></td>"


def _html_entry(entry: Entry) -> str:
    # Where a table must wrap, a mean stays with its deviation.
    text = html.escape(entry.text).replace(" ± ", "&nbsp;±&nbsp;")
    if entry.runs:
        title = html.escape("\n".join(entry.runs))
        text = f'<a href="#{anchor_of(entry.runs[0])}" title="{title}">{text}</a>'
    return f"<strong>{text}</strong>" if entry.bold else text


def _html_origins(table: Table) -> str:
    if not table.origins:
        return ""
    heads = ("run", "settings", "commit", "code", "image", "adopted because")
    head = "".join(_html_head("col", text) for text in heads)
    cells = groupby(sorted(table.origins.items()), lambda item: anchor_of(item[0]))
    rows = "\n".join(
        f'<tbody id="{anchor}">'
        + "\n".join(_html_origin(run, origin) for run, origin in members)
        + "</tbody>"
        for anchor, members in cells
    )
    return f'<h2>Runs</h2>\n<table id="runs"><thead><tr>{head}</tr></thead>\n{rows}\n</table>\n'


def _html_origin(run: str, origin: Origin) -> str:
    fields = (
        run,
        origin.settings_hash,
        short_commit(origin.commit),
        origin.code_digest[:16],
        origin.container_digest[:16] or "none",
        origin.adopted,
    )
    return "<tr>" + "".join(f"<td>{html.escape(field)}</td>" for field in fields) + "</tr>"


def short_commit(commit: str) -> str:
    """The first twelve digits, and whether the checkout was edited."""
    return commit[:12] + ("+changes" if commit.endswith("+changes") else "")
