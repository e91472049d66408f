"""docs/configuration.md says what the models say."""

from pathlib import Path

import yaml

from amst.config.page import EXAMPLE, page
from amst.grid import Cell, Resolver, check_config
from amst.grid.reading import read_yaml
from amst.grid.variants import merge

ROOT = Path(__file__).parents[2]


def test_the_page_is_current():
    current = (ROOT / "docs/configuration.md").read_text()
    assert current == page(), "run: python -m amst.config.page"


def test_the_examples_do_what_they_say():
    values = merge(read_yaml(ROOT / "config.yaml"), yaml.safe_load(EXAMPLE))
    resolve = Resolver(check_config(values))

    def on_cremad(variant):
        return resolve(Cell("CREMAD", "amst", variant, 0))

    assert on_cremad("ogm_ge").method_settings["alpha"] == 0.8
    assert on_cremad("pmr").method_settings["alpha"] == 1.0
    assert on_cremad("amst_full").method_settings["skip"] == {"audio": 3}
    assert on_cremad("naive_slow").recipe.learning_rate == 5e-4
    assert on_cremad("pmr_alpha-alpha-0.5").method_settings["alpha"] == 0.5


def test_ranges_are_those_that_the_models_check():
    text = page()
    assert "| `epochs` | integer > 0 | `100` | passes over the training part. |" in text
    assert "| `momentum` | number ≥ 0, < 1 |" in text
    assert "| `seeds` | list of integer ≥ 0, at least 1 of them | required |" in text
    assert "| `widths` | list of integer > 0, at least 1 of them |" in text


def test_every_key_has_a_type_a_default_and_a_meaning():
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        _, key, kind, default, meaning, _ = row.replace("\\|", "").split("|")
        assert key.strip()
        assert kind.strip()
        assert default.strip()
        assert meaning.strip(), key
