"""What the steps from raw media to shards say of what they found."""

import pytest
from typer.testing import CliRunner

from amst.cli import app
from amst.datasets.cremad import CREMAD
from tests.datasets.rawtrees import build


@pytest.mark.parametrize(
    ("more", "told"), [(0, ""), (1, ", more than there should be: look for copies")]
)
def test_more_samples_than_expected_are_remarked_on(more, told, tmp_path, monkeypatch):
    tree = build("CREMAD", tmp_path / "raw", per_class=1)
    monkeypatch.setattr(CREMAD, "expected_samples", 6 - more)
    lists = [f"--{name}={tmp_path / name}.jsonl" for name in ("out", "rejected")]
    options = ["--raw", str(tree.raw), "--options", "{}", *lists]
    done = CliRunner().invoke(app, ["samples", "CREMAD", *options], catch_exceptions=False)
    assert done.output == f"CREMAD: 6 samples of {6 - more} expected{told}, 0 rejected\n"
