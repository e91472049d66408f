"""The report: one page that holds everything, true to the records."""

import base64
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from amst.errors import AmstError
from amst.records import read_record, write_record
from amst.results.cells import collect
from amst.results.figures import write_figures
from amst.results.names import FIGURE_NAMES, TABLE_NAMES
from amst.results.report import AFTER, TITLES, _facts, _pictures, caption_of, write_report
from amst.results.tables import Material

VARIANTS = ("unimodal_audio", "naive", "amst_full")
DATA = (
    "<!doctype html><html><head><style>h1 { color: red }</style></head>"
    "<body><h1>Data of digits</h1></body></html>"
)


class Page(HTMLParser):
    """What a reader meets: links, anchors, addresses, text."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.addresses, self.text, self.open = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [values[name] for name in ("href", "src") if name in values]
        if tag == "a":
            self.links.append(values["href"].removeprefix("#"))
        if "id" in values:
            self.anchors.append(values["id"])
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def report(tmp_path):
    """Write the report of runs and read it."""

    def write(runs, partial=False, **options):
        material = Material(collect(runs, VARIANTS, partial=partial))
        write_report(material, tmp_path / "report.html", **options)
        return (tmp_path / "report.html").read_text()

    return write


@pytest.fixture(scope="module")
def complete(tmp_path_factory, small_grid):
    """The report of five variants with three seeds."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "data.html").write_text(DATA)
    out = folder / "report.html"
    material = Material(collect(small_grid, VARIANTS))
    write_report(material, out, data_reports={"digits": folder / "data.html"})
    return out.read_text()


def test_every_table_and_figure_has_a_place_and_a_heading():
    assert set(TITLES) == {*TABLE_NAMES, *FIGURE_NAMES} - {"runs"}
    assert sorted(AFTER.values()) == sorted(FIGURE_NAMES)


def test_the_page_holds_all_that_it_shows(complete):
    page = Page(complete)
    outside = [a for a in page.addresses if not a.startswith(("#", "data:image/png;base64,"))]
    assert outside == [], "one file to send"
    assert len([a for a in page.addresses if a.startswith("data:")]) == len(FIGURE_NAMES)
    assert page.open == ["html"] or page.open == [], "every element is closed"


def test_pictures_and_tables_are_whole_on_paper(complete):
    paper = " ".join(re.findall(r"@media print(.*)", complete.partition("</style>")[0]))
    assert re.search(r"img \{ max-height: \d+vh; object-fit: contain", paper)
    assert "table{display:table" in paper


def test_every_link_leads_somewhere_and_every_number_to_its_runs(complete):
    page = Page(complete)
    assert set(page.links) <= set(page.anchors)
    assert len(set(page.anchors)) == len(page.anchors)
    assert {"digits/random/naive", "digits/random/amst_full"} <= set(page.links)
    runs = complete[complete.index('id="digits/random/naive"') :].partition("</tbody>")[0]
    assert re.findall(r"naive/(seed\d)", runs) == ["seed0", "seed1", "seed2"]


def shows_a_digit(cell):
    return re.search(r"\d", re.sub("<[^>]*>", "", cell))


def test_every_number_of_a_table_links_to_runs(complete):
    sections = re.findall(r'<section id="-(\w+)">(.*?)</section>', complete, re.DOTALL)
    numbers = {
        name: [td for td in re.findall("<td>(.*?)</td>", body, re.DOTALL) if shows_a_digit(td)]
        for name, body in sections
        if name in TITLES and name in TABLE_NAMES
    }
    assert {name for name, found in numbers.items() if found} == set(numbers) - {"reproduction"}
    alone = [(name, td) for name, found in numbers.items() for td in found if "<a href" not in td]
    assert not alone


def test_the_report_stands_alone(make, grid, report):
    text = report(make(*grid("naive", "amst_full", seeds=3)))
    assert ".csv" not in " ".join(Page(text).text), "whoever gets the page alone has no such file"


def test_runs_are_shown_with_settings_commit_code_and_image(tmp_path, make, grid, report):
    runs = make(*grid("naive", seeds=1))
    record = read_record(runs[0].path)
    image = record.environment.model_copy(update={"container_digest": "abcdef0123456789" * 4})
    write_record(runs[0].path, record.model_copy(update={"environment": image}))
    text = report(runs)
    for wanted in (record.settings_hash, "0123456789ab", "c" * 16, "abcdef0123456789" * 4):
        assert wanted in text
    assert "numpy 2.4.6" in text
    assert "adopted because" not in text


def test_the_reasons_of_an_adopted_run_are_shown(make, grid, report):
    runs = make(*grid("naive", seeds=1))
    reasons = ("code 12: a comment", "code 13: a name")
    record = read_record(runs[0].path)
    write_record(runs[0].path, record.model_copy(update={"adopted": reasons}))
    assert "code 12: a comment; code 13: a name" in report(runs)


def test_data_reports_are_part_of_it_with_their_own_style(complete):
    assert f'<template shadowrootmode="open">{DATA}</template>' in complete


def test_pictures_of_the_data_are_left_out(tmp_path, make, grid, report):
    """Faces, say, which a dataset's licence may forbid to pass on; this page is made to be sent."""
    face = '<figure><img src="data:image/png;base64,FACE" alt="a"></figure>'
    pictures = f'<h3>Stored frames</h3>\n<div class="sheet">\n{face}\n</div>\n'
    (tmp_path / "data.html").write_text(f"{pictures}<h2>text</h2>\n{pictures}<p>rest</p>")
    text = report(make(*grid("naive", seeds=1)), data_reports={"digits": tmp_path / "data.html"})
    assert "FACE" not in text
    assert "<h2>text</h2>" in text
    assert "<p>rest</p>" in text
    assert text.count("the data report itself has them") == 2


def test_a_data_report_that_is_no_text_is_named(tmp_path, make, grid, report):
    (tmp_path / "data.html").write_bytes(b"\xff\xfe")
    with pytest.raises(AmstError, match=r"data\.html is no page .*again: snakemake .*data\.html"):
        report(make(*grid("naive", seeds=1)), data_reports={"digits": tmp_path / "data.html"})


def test_unfinished_runs_are_refused_or_shown_as_such(make, grid, report):
    plans = grid("naive", "amst_full", seeds=2)
    runs = make(*plans[:-1], plans[-1].with_(state="failed"))
    with pytest.raises(AmstError, match="1 of 4 runs are not done"):
        report(runs)
    text = report(runs, partial=True)
    assert "3 of 4 runs" in text
    assert "1 run is not done" in text
    assert '<td class="bad">failed</td>' in text


def test_a_grid_of_which_nothing_has_finished_has_a_report_too(make, grid, report):
    text = report(make(*grid("naive", seeds=1, state="missing")), partial=True)
    assert "0 of 1 runs" in text


def test_equal_records_give_an_equal_page(make, grid, report):
    runs = make(*grid("naive", seeds=2))
    assert report(runs) == report(list(reversed(runs)))


def test_environments_are_told_apart_by_all_but_the_host(make, plan):
    runs = make(*(plan.with_(seed=seed, device="cpu" if seed < 3 else "A100") for seed in range(4)))
    for number, run in enumerate(runs):
        record = read_record(run.path)
        made = record.environment.model_copy(update={"host": f"node{number % 2}"})
        finished = f"2025-01-0{3 - number % 3}T00:00:00+00:00"
        changed = {"environment": made, "finished": finished}
        write_record(run.path, record.model_copy(update=changed))
    waiting = make(plan.with_(seed=4, state="failed"), plan.with_(seed=5, state="missing"))
    facts = _facts(collect([*runs, *waiting], [], partial=True))
    rows = [(row["device"], row["hosts"], row["runs"]) for row in facts["environments"]]
    assert rows == [("A100", "node1", 1), ("cpu", "node0, node1", 3)]
    assert facts["last"] == "2025-01-03T00:00:00+00:00"
    assert [run.seed for run in facts["unfinished"]] == [4, 5]
    assert (facts["done"], facts["expected"]) == (4, 6)
    assert facts["packages"] == {"p" * 64: {"numpy": "2.4.6"}}


def test_what_the_grid_cannot_run_is_said(make, grid, report):
    line = "unimodal_text does not apply to CREMAD, which has no text"
    assert line in report(make(*grid("naive", seeds=1)), left_out=[line])


def test_names_for_readers_stand_everywhere_but_in_the_names_of_runs(make, grid, tmp_path):
    names = {"naive": 'Joint "<late>"', "my-digits": "Digits & more"}
    data = {"my-digits": tmp_path / "data.html"}
    data["my-digits"].write_text(DATA)
    out = tmp_path / "report.html"
    runs = make(*grid("naive", seeds=1, dataset="my-digits"))
    write_report(Material(collect(runs, VARIANTS, names)), out, data_reports=data)
    text = out.read_text()
    page = Page(text)
    assert "<td>Joint &#34;&lt;late&gt;&#34;</td><td>naive</td>" in text, "variant and method"
    assert 'alt="Learning curves, Digits &amp; more"' in text
    assert "Data of Digits & more" in page.text
    assert set(page.links) <= set(page.anchors)
    assert "my-digits/random/naive/seed0" in page.text


def test_figures_of_several_datasets_stand_under_their_names(make, grid, report, complete):
    runs = make(*grid("naive", seeds=1), *grid("naive", seeds=1, dataset="CREMAD"))
    above = re.compile(r'<h3>(\w+)</h3>\n<img src="[^"]*" alt="([^"]*)"')
    found = above.findall(report(runs))
    assert [name for name, _ in found] == ["CREMAD", "digits"] * len(FIGURE_NAMES)
    assert all(alt.endswith(f", {name}") for name, alt in found)
    assert above.findall(complete) == [], "it has one dataset"


@pytest.mark.parametrize("figure", FIGURE_NAMES)
def test_figures_have_the_captions_of_snakemakes_report(figure):
    assert "<p>" in caption_of(figure)


def section(text, name):
    """What stands below the heading of a table or figure."""
    return text.partition(f'<section id="-{name}">')[2].partition("</section>")[0]


def test_pictures_and_captions_stand_below_their_own_headings(complete):
    for figure in FIGURE_NAMES:
        own = section(complete, figure)
        assert f"<h2>{TITLES[figure]}</h2>" in own
        assert re.findall(r'alt="(.*)" style', own) == [f"{TITLES[figure]}, digits"]
        assert caption_of(figure) in own
    pictures = re.findall(r'src="data:image/png;base64,(.*?)"', complete)
    assert len(set(pictures)) == len(FIGURE_NAMES)


def test_a_picture_is_that_of_its_heading_in_the_size_of_the_text(complete, small_grid, tmp_path):
    write_figures(collect(small_grid, VARIANTS), tmp_path, ["hours"])
    shown = section(complete, "hours")
    drawn = (tmp_path / "hours-digits.png").read_bytes()
    assert base64.b64encode(drawn).decode() in shown
    # Three quarters of a page of 7.16 inches, at 150 pixels each.
    (width,) = re.findall(r"width:(\d+)px", shown)
    assert int(width) in (805, 806)


def test_every_run_is_shown_with_what_made_it_and_not_another_seed(make, grid, report):
    runs = make(*grid("naive", seeds=2))
    for number, run in enumerate(runs):
        record = read_record(run.path)
        made = record.environment.model_copy(update={"commit": f"{number}" * 40})
        changed = {"environment": made, "finished": f"2025-01-0{number + 1}T10:00:00+00:00"}
        write_record(run.path, record.model_copy(update=changed))
    _, *rows = section(report(runs), "runs").split("<tr><td>digits/")
    for number, (run, row) in enumerate(zip(runs, rows, strict=True)):
        assert f"seed{number}" in row
        assert f"<td>{f'{number}' * 12}</td>" in row
        assert f"2025-01-0{number + 1} 10:00:00" in row
        assert read_record(run.path).settings_hash in row


def test_a_figure_has_a_picture_of_every_dataset(make, plan, monkeypatch):
    def written(collection, folder, forms):
        for dataset in ("AVE", "my-digits"):
            for name in FIGURE_NAMES:
                Image.new("L", (30, 20)).save(folder / f"{name}-{dataset}.png")
                yield folder / f"{name}-{dataset}.png"

    monkeypatch.setattr("amst.results.report.write_figures", written)
    runs = make(plan.with_(dataset="AVE"), plan.with_(dataset="my-digits"))
    found = _pictures(collect(runs, VARIANTS, {"my-digits": "Digits"}))
    for name in FIGURE_NAMES:
        shown = re.findall(r'alt="(.*)" style="width:15px"', found[name])
        assert shown == [f"{TITLES[name]}, AVE", f"{TITLES[name]}, Digits"]


def test_settings_stand_below_the_dataset_whose_they_are(make, plan):
    runs = make(plan.with_(epochs=5), plan.with_(dataset="AVE", epochs=7))
    settings = _facts(collect(runs, [], {"digits": "Digits"}))["settings"]
    assert [(title, common.shared["recipe.epochs"]) for title, common in settings] == [
        ("AVE", "7"),
        ("Digits", "5"),
    ]
