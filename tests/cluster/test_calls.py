"""What a call of Snakemake is for."""

from pathlib import Path

import pytest

from amst.cluster.calls import call_of


@pytest.mark.parametrize(
    "words",
    ["-n", "-npq", "--dry-run", "--lint", "--summary", "--report r.html", "--report=r.html",
     "--unlock", "--dag", "--rulegraph", "--list-rules", "--detailed-summary", "--list-untracked"],
)  # fmt: skip
def test_a_call_that_only_looks(words: str):
    assert not call_of(tuple(words.split())).runs


@pytest.mark.parametrize(
    "words",
    ["", "results/tables/main.csv --cores 2", "--touch", "--delete-all-output",
     "--report r.html --report-after-run", "--cores 1 summary"],
)  # fmt: skip
def test_a_call_that_may_run_jobs_or_change_outputs(words: str):
    assert call_of(tuple(words.split())).runs


@pytest.mark.parametrize("words", ["-d X", "-dX", "--directory X", "--directory=X", "--direc=X"])
def test_the_working_folder_in_every_form(words: str):
    assert call_of(tuple(words.split())).folder == Path("X")


def test_the_working_folder_is_this_one_unless_said():
    assert call_of(("--cores", "1")).folder == Path()
