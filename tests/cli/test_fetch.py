"""What the commands that fetch say."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amst.cli import app

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
