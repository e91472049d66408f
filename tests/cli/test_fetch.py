"""What the commands that fetch say."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amst.cli import app
from amst.cli.fetch import _with_lists
from amst.grid import read_config

ROOT = Path(__file__).parents[2]


def test_a_dataset_without_lists_is_said_to_need_none(tmp_path):
    options = ["URFUNNY", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["fetch-lists", *options], catch_exceptions=False)
    assert done.output == "URFUNNY needs no published list\n"


@pytest.mark.parametrize("names", [["digits"], []])
def test_a_grid_that_needs_nothing_is_said_to(names, tmp_path, monkeypatch):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["fetch", *names], catch_exceptions=False)
    assert done.output == "nothing to fetch for digits\n"


def test_lists_are_fetched_once_for_the_splits_that_need_them_and_lie_nowhere(tmp_path):
    more = tmp_path / "more.yaml"
    own = "{CREMAD: {lists: my/lists}, AVE: {split: random}}"
    more.write_text(f"datasets: {own}")
    names = ("CREMAD", "AVE", "IEMOCAP", "IEMOCAP3", "URFUNNY", "digits")
    config = (ROOT / "config.yaml", ROOT / "workflow/configs/paper.yaml")
    assert _with_lists(read_config(*config), names) == ["AVE", "CREMAD", "IEMOCAP3"]
    assert _with_lists(read_config(*config), ("IEMOCAP",)) == ["IEMOCAP3"]
    assert _with_lists(read_config(*config, more), names) == ["IEMOCAP3"]
