"""Several calls of Snakemake in one working folder: each has its locks until it ends or dies."""

import json
from dataclasses import replace
from pathlib import Path

from snakemake.persistence.file import FilePersistence

from amst.cluster import controllers
from amst.training.lock import Writer

ME = Writer.this()
BESIDE = replace(ME, token="beside")
"""Another call that lives: this process, too."""
DEAD = replace(ME, token="dead", pid_start="0")
ELSEWHERE = replace(ME, token="elsewhere", host="another")


def noted(notes: Path) -> list[str]:
    """Tokens of the calls that are noted."""
    lines = (notes / controllers.NOTE).read_text().splitlines()
    return [json.loads(line)["token"] for line in lines]


def locked(notes: Path) -> Path:
    """A lock as Snakemake makes it."""
    lock = notes / "locks" / "0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/grid.json\n")
    return lock


def test_a_call_that_ends_leaves_the_locks_of_another(tmp_path: Path, monkeypatch):
    """Of the features of one dataset, say, while runs of another are trained."""
    monkeypatch.setattr(FilePersistence, "_delete_locks", FilePersistence._delete_locks)
    controllers.keep_locks_of_others()
    long, short = FilePersistence(path=tmp_path), FilePersistence(path=tmp_path)
    long._write_locks("output", ["results/runs/digits"])
    short._write_locks("output", ["results/features/CREMAD"])
    short.unlock()
    assert list(long._read_locks()) == [("output", "results/runs/digits")]
    long.unlock()
    assert not list(long._read_locks())


def test_locks_of_a_living_call_outlive_one_that_began_after_it(tmp_path: Path):
    assert controllers.clear_locks_of_the_dead(tmp_path, BESIDE)
    lock = locked(tmp_path)
    assert controllers.note(tmp_path, BESIDE), "it is alone"
    assert not controllers.clear_locks_of_the_dead(tmp_path, DEAD)
    assert not controllers.note(tmp_path, DEAD)
    assert noted(tmp_path) == ["beside", "dead"]
    assert not controllers.clear_locks_of_the_dead(tmp_path, ME)
    assert lock.exists()


def test_locks_go_when_all_that_may_hold_them_are_dead(tmp_path: Path):
    lock = locked(tmp_path)
    controllers.note(tmp_path, DEAD)
    assert controllers.clear_locks_of_the_dead(tmp_path, ME)
    assert not lock.exists()
    assert noted(tmp_path) == [ME.token]


def test_who_cannot_be_seen_lives_as_long_as_there_are_locks(tmp_path: Path):
    controllers.note(tmp_path, ELSEWHERE)
    lock = locked(tmp_path)
    assert not controllers.clear_locks_of_the_dead(tmp_path, ME)
    lock.unlink()
    controllers.note(tmp_path, BESIDE)
    assert controllers.clear_locks_of_the_dead(tmp_path, ME)
    assert noted(tmp_path) == ["beside", ME.token], "the one here may not have come to its locks"
