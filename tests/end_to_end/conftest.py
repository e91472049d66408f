"""A finished small grid, made once, and copies of it to be changed."""

from pathlib import Path

import pytest

from tests.end_to_end.suite import Suite, shared


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The small grid, run to its end; not to be changed."""
    return Suite(shared(tmp_path_factory, "finished", lambda at: Suite.new(at).snakemake()))


@pytest.fixture
def suite(finished: Suite, tmp_path: Path) -> Suite:
    """A copy of the finished grid that a test may change."""
    return finished.copy(tmp_path / "copy")


@pytest.fixture
def here(suite: Suite) -> Suite:
    """The finished grid, called from a folder that holds its config.yaml."""
    (suite.work / "config.yaml").write_text((suite.checkout / "config.yaml").read_text())
    return suite
