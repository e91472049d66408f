"""The overview of the grid fits a terminal, however many seeds there are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amst.cli import app
from amst.config.run import settings_hash
from amst.files import write_json, write_text
from amst.grid import Config, Resolver, as_dict, read_config
from tests.cli.test_plan import finished

ROOT = Path(__file__).parents[2]


def status(folder: Path, *arguments: str) -> list[str]:
    """What `amst status` prints."""
    over = ("--configfile", str(ROOT / "workflow/configs/imbalance.yaml"))
    command = [sys.executable, "-m", "amst", "status", *over, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_a_row_counts_its_seeds_by_state(tmp_path: Path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    failed = tmp_path / "results/checkpoints/digits/random/naive/seed3/failed.json"
    error, log = "no memory for [audio], [/encoders] :x:", f"logs/{'a' * 70}.log"
    write_json(failed, {"error": error, "log": log})
    lines = status(tmp_path)
    assert lines[0].split() == [
        "dataset",
        "split",
        "method",
        "done",
        "running",
        "failed",
        "missing",
    ]
    (row,) = [line.split() for line in lines if line.split()[2:3] == ["naive"]]
    assert row[3:] == ["-", "-", "1", "4"]
    named = lines.index(f"failed digits/random/naive/seed3: {error}")
    assert lines[named + 1] == f"       log: {log}; again: amst retry digits/random/naive/seed3"
    assert max(map(len, lines[:named])) <= 80


def test_every_run_can_have_a_line(tmp_path: Path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    assert "missing digits/random/naive/seed4" in status(tmp_path, "--runs")


def test_missing_runs_that_were_killed_are_told_in_one_line(tmp_path: Path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    folder = tmp_path / "results/checkpoints/digits/random/naive"
    for seed in (1, 2, 3):
        write_text(folder / f"seed{seed}/kills", "1")
        os.utime(folder / f"seed{seed}/kills", (1e9, 1e9))
    (folder / "seed2/lock").touch()  # it lives
    (folder / "seed3/kills").touch()  # it has just begun, and imports what it needs
    (note,) = [line for line in status(tmp_path) if line.startswith("note")]
    assert "1 missing run was killed for want of memory" in note
    assert "digits/random/naive/seed1. The next call continues" in note


def test_a_missing_run_whose_job_has_begun_is_named_with_its_newest_output(tmp_path: Path):
    """What dies before Python, in the start of the container, leaves nothing else."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    for number, (seed, job) in enumerate([(1, 20), (3, 18), (3, 9)]):
        log = tmp_path / f"logs/slurm/rule_train/digits_random_naive_{seed}/{job}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        os.utime(log, (number, number))
    newest = "logs/slurm/rule_train/digits_random_naive_3/9.log"
    (note,) = [line for line in status(tmp_path) if line.startswith("note")]
    assert note.startswith("note 2 missing runs have a SLURM job that began; digits/random/naive/")
    assert f"seed3: {newest} (1970-01-0" in note
    lines = status(tmp_path, "--runs")
    assert f"missing digits/random/naive/seed3 {newest}" in lines
    assert "missing digits/random/naive/seed2" in lines
    saved = tmp_path / "results/checkpoints/digits/random/naive/seed3/abc/epoch-1.pt"
    saved.parent.mkdir(parents=True)
    saved.touch()
    (note,) = [line for line in status(tmp_path) if line.startswith("note")]
    assert note.startswith("note 1 missing run has a SLURM job that began; digits/random/naive/s")


def test_all_that_failed_may_try_again(tmp_path: Path):
    notes = [
        tmp_path / f"results/checkpoints/digits/random/naive/seed{seed}/failed.json"
        for seed in (0, 3)
    ]
    for note in notes:
        write_json(note, {"error": "no memory"})
    command = [sys.executable, "-m", "amst", "retry", "--all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "digits/random/naive/seed0",
        "digits/random/naive/seed3",
    ]
    assert not any(note.exists() for note in notes)


def test_a_mistyped_run_lets_none_of_the_others_try_again(tmp_path: Path):
    note = tmp_path / "checkpoints/digits/random/naive/seed0/failed.json"
    write_json(note, {"error": "no memory"})
    where = ["--results", str(tmp_path)]
    names = ["digits/random/naive/seed0", "digits/random/naive/seed7"]
    done = CliRunner().invoke(app, ["retry", *names, *where])
    assert "digits/random/naive/seed7 has not failed" in str(done.exception)
    assert note.exists()
    done = CliRunner().invoke(app, ["retry", names[0], names[0], *where], catch_exceptions=False)
    assert done.output == f"{names[0]} will be tried again by the next snakemake call\n"
    assert not note.exists()


def test_runs_of_other_settings_and_records_that_cannot_be_read_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    config = read_config(Path("config.yaml"))
    run = finished(config, Path("results"), "digits", "naive", 1.0)
    (run / "history.csv").touch()
    (run / "cost.csv").touch()
    lost = "note digits/random/naive/seed0 has lost predictions.npz; snakemake runs it again"
    assert lost in CliRunner().invoke(app, ["status"]).output.splitlines()
    (run / "predictions.npz").touch()
    assert "note" not in CliRunner().invoke(app, ["status"]).output
    (tmp_path / "more.yaml").write_text("datasets: {digits: {recipe: {epochs: 7}}}")
    broken = Path("results/runs/digits/random/pmr/seed0/run.json")
    broken.parent.mkdir(parents=True)
    broken.write_text("{}")
    done = CliRunner().invoke(app, ["status", "--configfile", "more.yaml"])
    notes = [line for line in done.output.splitlines() if line.startswith("note ")]
    other = "note digits/random/naive/seed0 was made with other settings; snakemake runs it again"
    assert len(notes) == 2
    assert other in notes
    assert any(note.startswith(f"note {broken} has run record format None") for note in notes)
    write_json(Path("results/grid.json"), as_dict(config))
    done = CliRunner().invoke(app, ["status", "--configfile", "more.yaml"])
    assert other not in done.output.splitlines()
    assert (
        "note 1 run (digits/random/naive/seed0) done with settings of the last call" in done.output
    )
    assert "give its --configfile here, too" in done.output
    record = json.loads((run / "run.json").read_text())
    del record["settings"]["arithmetic"]["compile"]  # as before commit 74f0970
    write_json(run / "run.json", record | {"settings_hash": settings_hash(record["settings"])})
    update = "note 1 run (digits/random/naive/seed0) done before an update of the suite added"
    assert update in CliRunner().invoke(app, ["status"]).output
    assert "1 settings added by an update" in CliRunner().invoke(app, ["plan"]).output


@pytest.mark.parametrize("gone", [True, False])
def test_a_run_that_is_started_again_meanwhile_is_not_called_damaged(
    gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its record goes first; nobody is to delete the folder that it works in."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    record = tmp_path / "results/runs/digits/random/naive/seed0/run.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")

    def resolver(config: Config) -> Resolver:
        if gone:
            record.unlink()
        return Resolver(config)

    monkeypatch.setattr("amst.grid.Resolver", resolver)
    done = CliRunner().invoke(app, ["status"], catch_exceptions=False)
    assert ("Delete the run's folder" in done.output) != gone
