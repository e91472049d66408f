"""Snakemake's check that no output lies in another one, made for tens of thousands of outputs."""

from itertools import pairwise
from pathlib import Path

import snakemake.api  # noqa: F401  before its other modules, which import each other
from snakemake.dag import DAG
from snakemake.exceptions import ChildIOException


def check_outputs(dag: DAG) -> None:
    """Does what ``DAG.check_directory_outputs`` does (9.27), on text instead of path objects.

    Raises:
        ChildIOException: an output lies in an output of another job.
    """
    here = str(Path.cwd())
    # With separators before all other characters, what lies in a folder follows it at once.
    places = {
        (_place(output, here).replace("/", "\0"), job) for job in dag.jobs for output in job.output
    }
    for (outer, one), (inner, other) in pairwise(sorted(places, key=lambda place: place[0])):
        if inner.startswith(outer + "\0") and one != other:
            parent, child = (Path(text.replace("\0", "/")) for text in (outer, inner))
            raise ChildIOException(parent=(parent, one), child=(child, other))


def _place(output: str, here: str) -> str:
    """What ``Path(output).absolute()`` is as text."""
    text = output if output.startswith("/") else f"{here}/{output}"
    plain = not ("//" in text or "/./" in text or text.endswith(("/", "/.")))
    return text if plain else str(Path(text))


def mend_the_graph() -> None:
    """Let graphs of this process be checked so."""
    DAG.check_directory_outputs = check_outputs
