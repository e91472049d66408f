"""What the commands that fetch say."""

from typer.testing import CliRunner

from amst.cli import app


def test_a_dataset_without_lists_is_said_to_need_none(tmp_path):
    options = ["URFUNNY", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["fetch-lists", *options], catch_exceptions=False)
    assert done.output == "URFUNNY needs no published list\n"
