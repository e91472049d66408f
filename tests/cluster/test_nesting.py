"""No output may lie in another one, however many there are."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import ChildIOException

from amst.cluster.nesting import DAG, check_outputs

CHECKS = [DAG.check_directory_outputs, check_outputs]


def graph(*outputs: list[str]) -> SimpleNamespace:
    """Jobs with these outputs, as the check sees a graph."""
    rule = SimpleNamespace(name="one", lineno=1, snakefile="Snakefile")
    jobs = [Job(output=files, rule=rule) for files in outputs]
    return SimpleNamespace(jobs=jobs)


class Job(SimpleNamespace):
    __hash__ = object.__hash__

    def __lt__(self, other: "Job") -> bool:
        return id(self) < id(other)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "outputs",
    [
        (["a/b"], ["a/b/c"]),
        (["a/b/c/d"], ["a-b", "a/b"]),
        (["x", "a"], [f"{Path.cwd()}/a/b"]),
        (["a/"], ["a/b"]),
        (["./a"], ["a//b"]),
        (["a/./b/."], ["a/b/c"]),
    ],
)
def test_outputs_in_those_of_other_jobs_are_found(check, outputs):
    with pytest.raises(ChildIOException):
        check(graph(*outputs))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "outputs",
    [
        (["a/b", "a/b/c"], ["a/c"]),  # of one job
        (["a/b"], ["a/b-c", "a/bc", "a/b.c/d"]),
        (["a/b"], ["a/b"]),  # Snakemake says so elsewhere
    ],
)
def test_others_are_not(check, outputs):
    check(graph(*outputs))
