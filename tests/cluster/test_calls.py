"""What a call of Snakemake is for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

from amst.cluster.calls import _LOOKS, call_of, why_closed


@pytest.mark.parametrize(
    "words",
    ["-n", "-npq", "--dry-run", "--lint", "--summary", "--report r.html", "--report=r.html",
     "--unlock", "--dag", "--rulegraph", "--list-rules", "--detailed-summary", "--list-untracked",
     "--archive a.tar.gz", "--containerize", "--d3dag", "--filegraph", "--list-target-rules",
     "--list-changes code", "--list-input-changes", "--list-params-changes", "--list-conda-envs",
     "--print-compilation", "--generate-unit-tests t", "--cleanup-metadata a/run.json",
     "--cleanup-shadow", "--conda-cleanup-envs", "--conda-create-envs-only",
     "--container-cleanup-images", "--executor dryrun", "-e dryrun"],
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


def test_every_option_that_is_looked_for_is_one_of_snakemake():
    assert set(_LOOKS) <= set(vars(get_argument_parser().parse_args([])))


def test_what_is_asked_for_is_what_stands_by_itself():
    words = ("a/run.json", "all", "--cores", "2", "-n")
    assert call_of(words).targets == ("a/run.json", "all")
    assert call_of(("--cores", "2")).targets == ()


@pytest.mark.parametrize(
    ("words", "compares"),
    [("", True), ("--rerun-triggers mtime params", True), ("--rerun-triggers mtime", False)],
)
def test_whether_parameters_are_compared(words: str, compares: bool):
    assert call_of(tuple(words.split())).compares == compares


def test_the_working_folder_is_this_one_unless_said():
    assert call_of(("--cores", "1")).folder == Path()


@contextmanager
def _not_as_root() -> Iterator[None]:
    """Root may write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_working_folder_of_somebody_else_is_told_in_one_line(tmp_path):
    assert why_closed(tmp_path) == ""
    notes = tmp_path / ".snakemake"
    notes.mkdir(mode=0o555)
    with _not_as_root():
        assert "cannot be written by this user" in why_closed(tmp_path)
    notes.chmod(0o755)
    tmp_path.chmod(0o555)
    assert why_closed(tmp_path) == "", "only what Snakemake writes to counts"
    tmp_path.chmod(0o755)
