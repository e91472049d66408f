"""Captions of Snakemake's report: one for everything it shows, true for any configuration."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

from amst.results.cells import collect
from amst.results.names import FIGURE_NAMES, TABLE_NAMES
from amst.results.tables import Material, make_tables
from amst.results.tables.scores import WORDS

CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"
SHOWN = sorted({*TABLE_NAMES, *FIGURE_NAMES, "workflow"})


def html_of(name, **tables):
    config = {
        "grid": {"datasets": ["AVE", "digits"], "methods": ["naive", "mla"], "seeds": [0, 7]},
        **({"tables": tables} if tables else {}),
    }
    snakemake = SimpleNamespace(config=config, wildcards=SimpleNamespace(dataset="AVE"))
    template = Environment(undefined=StrictUndefined).from_string(
        (CAPTIONS / f"{name}.rst").read_text()
    )
    strict = {"report_level": 1, "halt_level": 2, "warning_stream": False}
    text = template.render(snakemake=snakemake)
    return publish_parts(text, writer="html", settings_overrides=strict)["body"]


def test_there_is_a_caption_for_everything_shown_and_no_other():
    assert sorted(path.stem for path in CAPTIONS.glob("*.rst")) == SHOWN


@pytest.mark.parametrize("name", SHOWN)
def test_a_caption_is_sound_markup(name):
    assert "<p>" in html_of(name)


def test_the_front_page_names_what_this_grid_runs():
    text = html_of("workflow")
    assert "2 dataset(s)\n(AVE, digits)" in text
    assert "seeds 0, 7" in text


OF_THE_TEST_PART = {*TABLE_NAMES, "modalities", "hours"} - {"cost", "runs", "validation"}


@pytest.mark.parametrize("name", sorted(OF_THE_TEST_PART))
def test_captions_of_the_test_part_say_that_validation_chose_the_epoch(name):
    assert "validation accuracy" in " ".join(html_of(name).split())


def test_tables_of_the_test_part_say_that_validation_chose_the_epoch(make, plan):
    runs = make(plan, plan.with_(variant="other"), plan.with_(method="mla", variant="mla"))
    names = sorted(OF_THE_TEST_PART.intersection(TABLE_NAMES))
    for table in make_tables(Material(collect(runs, [])), names):
        assert "validation accuracy" in " ".join((table.caption, *table.notes)), table.name


@pytest.mark.parametrize("metric", WORDS)
def test_the_main_caption_names_its_metric_and_the_test_only_where_one_is_made(metric):
    text = html_of("main", metric=metric)
    assert f"Test {metric.replace('_', ' ')} in %" in text
    assert ("Bold are the best" in text) == (metric == "accuracy")
    assert ("Nothing is bold" in text) == (metric != "accuracy")
    assert f"Validation {metric.replace('_', ' ')} in %" in html_of("validation", metric=metric)
