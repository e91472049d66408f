"""One table, four forms."""

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amst.results.sheet import (
    DASH,
    MINUS,
    Block,
    Entry,
    Origin,
    Table,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)

STRANGE = f"[1] 50 % of a_b & c#d $e ~ ^ \\ {{x}} <y> 1 ± 2 {MINUS} 3"


def table(texts=("naive", "71.2 ± 0.5 (3)"), bold=False, blocks=1, rows=1, title="", name="main"):
    row = (Entry(texts[0]), *(Entry(t, bold, ("d/s/naive/seed0",)) for t in texts[1:]))
    return Table(
        name=name,
        caption="What it says.",
        columns=("variant", "mean", "seeds"),
        rows=({"variant": "naive", "mean": 0.1 + 0.2, "seeds": 3}, {"variant": "a,b"}),
        heads=("", *("digits" for _ in texts[1:])),
        blocks=tuple(Block(title, (row,) * rows) for _ in range(blocks)),
        notes=("A note.",),
        origins={"d/s/naive/seed0": Origin("5e771465", "0123456789ab", "c0de", "1mage", "")},
    )


def test_csv_keeps_every_digit_and_leaves_unknown_fields_empty():
    assert to_csv(table()) == 'variant,mean,seeds\nnaive,0.30000000000000004,3\n"a,b",,\n'


def test_a_block_has_no_column_of_dashes_alone_but_in_latex_whose_blocks_share_columns():
    def row(*texts):
        return tuple(map(Entry, texts))

    blocks = (
        Block("CREMAD", (row("naive", "1", DASH, "2"), row("mla", DASH, DASH, "3"))),
        Block("MVSA", (row("naive", DASH, "4", "5"),)),
        Block("nothing", ()),
    )
    sheet = replace(table(), heads=("", "audio", "text", "fused"), blocks=blocks)
    markdown, latex = to_markdown(sheet), to_latex(sheet)
    assert [line for line in markdown.splitlines() if line.startswith("|")] == [
        "|  | audio | fused |",
        "|:---|---:|---:|",
        "| naive | 1 | 2 |",
        "| mla | \N{EN DASH} | 3 |",
        "|  | text | fused |",
        "|:---|---:|---:|",
        "| naive | 4 | 5 |",
        "|  | audio | text | fused |",
        "|:---|---:|---:|---:|",
    ]
    cells = [re.sub("<[^>]*>", "|", part) for part in to_html(sheet).split("<table>")[1:]]
    for text, kept, left in zip(cells, ("audio", "text"), ("text", "audio"), strict=False):
        assert f"|{kept}|" in text
        assert left not in text
    assert " & audio & text & fused" in latex
    assert r"naive & 1 & -- & 2 \\" in latex


def test_a_row_with_a_column_that_the_table_lacks_is_an_error():
    broken = Table("t", "", ("a",), ({"b": 1},), (), (), (), {})
    with pytest.raises(ValueError, match="not in fieldnames"):
        to_csv(broken)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=1, max_size=4))
def test_csv_gives_back_any_text(texts):
    columns = tuple(f"c{i}" for i in range(len(texts)))
    sheet = Table("t", "", columns, (dict(zip(columns, texts, strict=True)),), (), (), (), {})
    assert list(csv.reader(io.StringIO(to_csv(sheet))))[1:] == [texts]


def test_markdown_has_a_heading_a_rule_and_bold_numbers():
    assert to_markdown(table(bold=True, title="digits")).splitlines() == [
        "What it says.",
        "",
        "**digits**",
        "",
        "|  | digits |",
        "|:---|---:|",
        "| naive | **71.2 ± 0.5 (3)** |",
        "",
        "A note.",
    ]


def test_markdown_escapes_what_would_be_markup():
    text = to_markdown(table(("_a_b_ | *c* <d>", "1")))
    assert r"\_a_b\_ \| \*c\* \<d>" in text


def test_latex_escapes_special_characters():
    text = to_latex(table(("amst_full & 50 %", f"{MINUS}1.0 ± 0.5")))
    assert r"amst\_full \& 50 \% & $-$1.0 $\pm$ 0.5 \\" in text
    assert r"\label{tab:main}" in text


@pytest.mark.parametrize("name", ["[ours]", "*ours", "a|b"])
def test_a_name_in_latex_is_no_length_no_star_and_no_dash(name):
    line = next(row for row in to_latex(table((name, "1"))).splitlines() if row.endswith("1 \\\\"))
    assert line.startswith(("{}[ours]", "{}*ours", r"a\textbar{}b"))
    assert to_latex(table(("plain", "[1, 2]"))).count("{}[") == 0


def test_latex_puts_long_tables_on_several_pages():
    text = to_latex(table(rows=60, blocks=3, title="CREMAD"))
    assert text.count(r"\begin{table*}") == 6
    assert text.count("naive &") == 180
    assert text.count(r"\caption{What it says. (continued)}") == 5


def test_titles_of_blocks_take_rows_of_a_latex_page():
    assert to_latex(table(rows=11, blocks=4, title="CREMAD")).count(r"\begin{table*}") == 1
    assert to_latex(table(rows=9, blocks=5, title="CREMAD")).count(r"\begin{table*}") == 2


def test_bold_numbers_are_bold_in_every_form_for_readers():
    bold = table(bold=True)
    assert r"{\boldmath\textbf{71.2 $\pm$ 0.5 (3)}}" in to_latex(bold)
    assert re.search(r"<strong><a [^>]*>71\.2&nbsp;±&nbsp;0\.5 \(3\)</a></strong>", to_html(bold))
    assert "textbf" not in to_latex(table())
    assert "<strong>" not in to_html(table())


def test_what_files_beside_a_table_have_is_said_where_they_lie_beside_it():
    text = "main.csv has more."
    beside = replace(table(), beside=(text,))
    assert text in to_markdown(beside)
    assert text in to_html(beside)
    assert "has more" not in to_latex(beside)


def test_a_formula_in_a_note_is_one_in_latex():
    note = "Half of it is t(n - 1) s sqrt(1/m + 1/n) of 5 %."
    wanted = r"Half of it is $t_{n-1}\,s\sqrt{1/m + 1/n}$ of 5 \%."
    assert wanted in to_latex(replace(table(), notes=(note,)))


def test_origins_say_what_was_edited_adopted_or_made_without_an_image():
    commit = "0123456789abcdef0123456789abcdef01234567+changes"
    origin = Origin("5e771465", commit, "c0de", "", "a < b")
    text = to_html(replace(table(), origins={"d/s/naive/seed0": origin}))
    assert "<td>0123456789ab+changes</td><td>c0de</td><td>none</td><td>a &lt; b</td>" in text


def test_latex_of_a_table_without_rows_is_still_a_table():
    assert to_latex(table(blocks=0)).count(r"\begin{tabular}") == 1


@given(st.text(alphabet="a_&%$#{}~^\\<>±", max_size=20))
def test_latex_has_balanced_braces_and_as_many_cells_as_heads(name):
    line = next(row for row in to_latex(table((name, "1"))).splitlines() if row.endswith("1 \\\\"))
    bare = line.replace(r"\{", "").replace(r"\}", "").replace(r"\&", "")
    assert bare.count("{") == bare.count("}")
    assert bare.count("&") == 1


@pytest.mark.parametrize("rows", [1, 60])
def test_latex_compiles_in_a_minimal_document(tmp_path, rows, typeset):
    (tmp_path / "main.tex").write_text(to_latex(table((STRANGE, STRANGE), bold=True, rows=rows)))
    typeset(tmp_path, "main")


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.targets, self.anchors, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given_attributes = dict(attrs)
        if tag == "a":
            self.targets.append(given_attributes["href"].removeprefix("#"))
        if "id" in given_attributes:
            self.anchors.append(given_attributes["id"])

    def handle_data(self, data):
        self.text.append(data)


def test_html_links_every_number_to_its_runs():
    found = Links(to_html(table()))
    assert found.targets == ["d/s/naive"]
    assert set(found.targets) <= set(found.anchors)
    assert {"5e771465", "0123456789ab", "c0de", "1mage"} <= set(found.text)


@given(st.text(alphabet="<>&\"'abc", max_size=20))
def test_html_shows_any_text_as_it_is(text):
    assert text in "".join(Links(to_html(table((text, "1")))).text)


def test_a_page_names_rows_and_columns_to_a_screen_reader_and_fits_phones_and_paper():
    text = to_html(table())
    assert re.search(r'<tr><td></td><th scope="col">digits</th></tr>', text), "no empty heading"
    assert '<tr><th scope="row">naive</th><td>' in text
    assert re.findall(r"<h\d>", text) == ["<h1>", "<h2>"]
    assert 'name="viewport" content="width=device-width' in text
    screen, _, paper = text.partition("</style>")[0].partition("@media print")
    assert "overflow-x:auto" in screen
    assert "table{display:table" in paper, "what scrolls on a screen is cut off on paper"


def test_a_long_caption_takes_the_room_of_rows():
    short = table(rows=12, blocks=3, title="CREMAD")
    long = replace(short, notes=("A long note. " * 100,))
    assert to_latex(short).count(r"\begin{table*}") < to_latex(long).count(r"\begin{table*}")


@pytest.mark.parametrize("to_form", [to_markdown, to_latex, to_html])
def test_what_a_block_is_about_stands_under_its_title(to_form):
    text = to_form(
        replace(table(), blocks=(Block("CREMAD", table().blocks[0].rows, "Read this."),))
    )
    assert text.index("CREMAD") < text.index("Read this.") < text.index("71.2")
