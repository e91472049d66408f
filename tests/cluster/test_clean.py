"""`amst clean` shows what no current run needs and removes it only when told."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from amst.cli import app
from amst.cli.cluster import KINDS
from amst.cluster.image import image_name
from amst.cluster.leftovers import Leftover, leftovers
from amst.cluster.live import prefix_of
from amst.errors import AmstError
from amst.grid import Cell, Resolver, as_dict, cells, read_config
from amst.provenance import package_digest, present_digest, training_digest
from amst.training.kept import KEPT
from amst.training.state import run_digest
from tests.cluster.machines import ROOT

CURRENT = "digits/random/naive/seed0"
OTHER = "digits/random/naive/seed77"
ELSEWHERE = "CREMAD/amst/naive/seed0"


def make(path: Path, size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """A working folder with something of every kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    results = tmp_path / "results"
    make(results / "checkpoints" / CURRENT / "new" / "epoch-3.pt")
    make(results / "checkpoints" / OTHER / "new" / "epoch-3.pt")
    make(results / "checkpoints" / "digits/random/naive/seed88/new/epoch-1.pt")
    make(results / "checkpoints" / "digits/random/naive/seed88/lock")
    make(results / "runs" / CURRENT / "run.json")
    make(results / "runs" / OTHER / "run.json")
    make(results / "features/CREMAD/shards/000.h5")
    make(results / "features/digits/shards/000.h5")
    make(tmp_path / "containers/amst-000000000000.sif")
    make(tmp_path / "containers/amst-000000000000.sif.sha256")
    return tmp_path


def clean(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["clean", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_it_lists_and_keeps_everything(work: Path):
    before = sorted(work.rglob("*"))
    said = clean()
    assert f"results/checkpoints/{OTHER}: the run is done" in said
    assert f"results/checkpoints/{CURRENT}: the run is done" in said
    assert "seed88" not in said, "a running run is left alone, in the grid or not"
    assert "MB of runs (--also runs)" in said
    assert sorted(work.rglob("*")) == before


def test_second_names_of_a_finished_run_stay(work: Path):
    """A call of Snakemake that lives may need them, and they take no space."""
    checkpoints = work / "results/checkpoints" / CURRENT
    kept = make(checkpoints / KEPT / "run.json")
    assert f"results/checkpoints/{CURRENT}/new: the run is done" in clean("--remove")
    assert kept.exists()
    assert f"results/checkpoints/{CURRENT}" not in clean("--remove")
    assert kept.exists()


def test_checkpoints_of_runs_that_the_configuration_does_not_know_stay_unless_named(work: Path):
    """The call that trains them had a --configfile, and this one has none."""
    checkpoint = make(work / "results/checkpoints" / ELSEWHERE / "new/epoch-3.pt")
    said = clean("--remove", "--also", "runs", "--also", "features", "--also", "images")
    assert "MB of unfinished runs, of another --configfile or of none (--also unfinished)" in said
    assert checkpoint.exists()
    assert f"results/checkpoints/{ELSEWHERE}: no run" in clean("--remove", "--also", "unfinished")
    assert not checkpoint.exists()


def test_what_the_last_call_needs_stays(work: Path):
    """It had a --configfile with another dataset, and with other settings for the same run."""
    (work / "results/runs" / CURRENT / "run.json").unlink()
    kept = [
        make(work / "results/checkpoints" / CURRENT / "old/epoch-3.pt"),
        make(work / "results/checkpoints" / ELSEWHERE / "new/epoch-3.pt"),
        make(work / "results/runs" / ELSEWHERE.replace("seed0", "seed1") / "run.json"),
    ]
    os.utime(kept[0].parent, (1, 1))
    planned = {
        "runs": {CURRENT: "f", ELSEWHERE: "e", ELSEWHERE.replace("seed0", "seed1"): "d"},
        "features": {"CREMAD": "CREMAD"},
    }
    (work / "results/grid.json").write_text(json.dumps(planned))
    said = clean("--remove", *(f"--also={kind}" for kind in KINDS))
    assert "the last call had other runs or settings (results/grid.json)" in said
    assert all(path.exists() for path in kept)
    assert (work / "results/features/CREMAD/shards/000.h5").exists()
    (work / "results/grid.json").write_text(json.dumps(as_dict(read_config(Path("config.yaml")))))
    assert "the last call" not in clean("--remove", *(f"--also={kind}" for kind in KINDS))
    assert not any(path.exists() for path in kept)


def test_what_a_killed_step_was_writing_can_go(work: Path):
    """A part of a shard may have gigabytes, and its name is hidden; one of today may yet grow."""
    results = work / "results"
    names = ("features/digits/shards/.000.h5.0123abcd.h5", ".export.tar.gz.0123abcd.gz")
    parts = [make(results / name) for name in (*names, "tables/.main.md.0123abcd.md")]
    own = [make(results / "features/digits" / name) for name in (".gitignore", ".a.h5", "0123abcd")]
    assert "of a step that was killed" not in clean("--remove")
    for path in (*parts, *own):
        os.utime(path, (1, 1))
    said = clean("--remove")
    for path in parts:
        assert f"{path.relative_to(work)}: of a step that was killed" in said
        assert not path.exists()
    assert all(path.exists() for path in (*own, results / "features/digits/shards/000.h5"))


@pytest.mark.parametrize("linked", ["features", "features/digits", "tables"])
def test_what_another_folder_s_steps_were_writing_stays(work: Path, linked):
    """What a link leads to is not this working folder's: its own call cleans there."""
    path = work / "results" / linked
    theirs = work / "theirs"
    if path.exists():
        path.rename(theirs)
    part = make(theirs / "shards/.000.h5.0123abcd.h5")
    os.utime(part, (1, 1))
    path.symlink_to(theirs)
    clean("--remove")
    assert part.exists()


def test_the_only_copy_of_a_finished_run_goes_as_a_run(work: Path):
    """As the call after a killed one puts it aside."""
    kept = make(work / "results/checkpoints" / ELSEWHERE / KEPT / "run.json")
    make(work / "results/checkpoints" / ELSEWHERE / "new/epoch-3.pt")
    clean("--remove", "--also", "unfinished")
    assert kept.exists()
    clean("--remove", "--also", "runs")
    assert not kept.exists()


def test_nothing_is_removed_while_jobs_of_the_folder_live(work: Path, monkeypatch):
    """A job that waits continues from checkpoints that no process holds."""
    squeue = make(work / "bin/squeue")
    squeue.write_text(f"#!/bin/sh\necho '7|{prefix_of(work)}_x|PENDING|None|rule_train'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    (work / "logs/slurm").mkdir(parents=True)
    before = sorted(work.rglob("*"))
    with pytest.raises(AmstError, match=r"nothing is removed: 1 jobs .* such as 7 pending"):
        clean("--remove")
    assert sorted(work.rglob("*")) == before
    assert "can go" in clean()


def test_it_removes_what_it_listed(work: Path):
    clean("--remove")
    assert not (work / "results/checkpoints" / OTHER).exists()
    assert (work / "results/checkpoints/digits/random/naive/seed88/new/epoch-1.pt").exists()
    assert (work / "results/runs" / OTHER).exists(), "runs go only with --also runs"
    clean("--remove", *(f"--also={kind}" for kind in KINDS))
    left = {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}
    assert left == {
        "config.yaml",
        "results/checkpoints/digits/random/naive/seed88/lock",
        "results/checkpoints/digits/random/naive/seed88/new/epoch-1.pt",
        f"results/runs/{CURRENT}/run.json",
        "results/features/digits/shards/000.h5",
    }


def test_the_image_and_the_shards_of_another_dataset_that_are_used_stay(work: Path):
    image = make(work / "containers" / image_name(ROOT))
    shards = make(work / "results/features/IEMOCAP3/shards/000.h5")
    (work / "over.yaml").write_text("grid: {datasets: [IEMOCAP]}\n")  # which shares those
    clean("--remove", "--configfile", "over.yaml", "--also", "features", "--also", "images")
    assert shards.exists()
    assert not (work / "results/features/digits").exists()
    assert image.exists()
    assert not (work / "containers/amst-000000000000.sif").exists()


def test_what_a_killed_build_has_left_can_go(work: Path):
    """An image is written within minutes; what another call writes now stays."""
    killed = make(work / "containers/amst-000000000000.sif.1.part")
    written = make(work / "containers/amst-000000000000.sif.2.part")
    os.utime(killed, (1, 1))
    said = clean("--remove", "--also", "images")
    assert f"containers/{killed.name}: of a build that was killed" in said
    assert not killed.exists()
    assert written.exists()


def test_features_and_images_of_another_working_folder_stay(work: Path, tmp_path_factory):
    """docs/two-configurations.md links to them; the other folder's grid is not known here."""
    other = tmp_path_factory.mktemp("other")
    for place in ("results/features", "containers"):
        (work / place).rename(other / Path(place).name)
        (work / place).symlink_to(other / Path(place).name)
    before = sorted(other.rglob("*"))
    said = clean("--also", "features", "--also", "images", "--remove")
    assert sorted(other.rglob("*")) == before
    assert f"results/features leads to {other / 'features'}: kept" in said
    assert f"containers leads to {other / 'containers'}: kept" in said


def test_features_of_one_dataset_that_lie_elsewhere_stay(work: Path, tmp_path_factory):
    dataset = work / "results/features/CREMAD"
    other = dataset.rename(tmp_path_factory.mktemp("other") / "CREMAD")
    dataset.symlink_to(other)
    said = clean("--also", "features", "--remove")
    assert (dataset / "shards/000.h5").is_file()
    assert f"results/features/CREMAD leads to {other}: kept" in said


def test_checkpoints_on_shared_shards_are_known_by_those(work: Path):
    over = work / "over.yaml"
    over.write_text("grid: {datasets: [IEMOCAP], methods: [naive], seeds: [0]}\n")
    (cell,) = cells(config := read_config(work / "config.yaml", over))
    features = work / "results/features/IEMOCAP3"
    make(features / "manifest.json")
    digest = present_digest(Resolver(config)(cell), features)
    own, other = (
        make(work / "results/checkpoints" / cell.run / name / "epoch-0003-batch-000000.pt")
        for name in (digest, "other")
    )
    os.utime(own.parent, (1, 1))
    clean("--remove", "--configfile", "over.yaml")
    assert own.exists()
    assert not other.exists()


def test_the_checkpoints_that_the_run_would_continue_from_stay_however_old(work: Path):
    """Settings that went from A to B and back to A: those of B are newer, and of no use."""
    (work / "results/runs" / CURRENT / "run.json").unlink()
    config = read_config(work / "config.yaml")
    settings = Resolver(config)(Cell("digits", "random", "naive", 0))
    features = work / "results/features/digits"
    digest = run_digest(
        settings.hash,
        training_digest("naive"),
        package_digest(),
        make(features / "manifest.json"),
        make(features / "splits/random.json"),
    )
    folder = work / "results/checkpoints" / CURRENT
    make(folder / digest / "epoch-0003-batch-000000.pt")
    os.utime(folder / digest, (1, 1))
    assert "seed0/new: of other settings, code or data" in clean("--remove")
    assert (folder / digest / "epoch-0003-batch-000000.pt").exists()
    assert not (folder / "new").exists()


def test_without_them_the_newest_checkpoints_stay(work: Path):
    (work / "results/runs" / CURRENT / "run.json").unlink()
    folder = work / "results/checkpoints" / CURRENT
    make(folder / "old" / "epoch-9.pt")
    os.utime(folder / "old", (1, 1))
    said = clean("--remove")
    assert "seed0/old: of other settings, code or data" in said
    assert (folder / "new" / "epoch-3.pt").exists()
    assert not (folder / "old").exists()


def test_sizes_are_those_of_all_files_that_can_go(work: Path):
    folder = work / "results/checkpoints" / OTHER
    make(folder / "new/epoch-4.pt", 2_500_000)
    make(work / "results/runs" / OTHER / "weights.safetensors", 3_000_000)
    lines = [" ".join(line.split()) for line in clean().splitlines()]
    assert f"2.5 MB results/checkpoints/{OTHER}: the run is done" in lines
    assert "can go: 2.5 MB" in lines
    assert "besides: 3.0 MB of runs (--also runs)" in lines
    assert "removed: 2.5 MB" in clean("--remove")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"runs": [], "features": []}'])
def test_a_note_of_the_last_call_that_is_of_another_version_stops_nothing(work: Path, text: str):
    (work / "results/grid.json").write_text(text)
    said = clean("--remove")
    assert "the last call" not in said
    assert not (work / "results/checkpoints" / OTHER).exists()


def test_the_folder_of_a_running_run_stays_whatever_configuration_has_it(work: Path):
    events = make(work / "results/runs/digits/random/naive/seed88/tensorboard/events")
    assert "seed88" not in clean("--remove", *(f"--also={kind}" for kind in KINDS))
    assert events.exists()


@pytest.mark.parametrize("what", ["checkpoints", "runs"])
def test_what_a_run_works_with_that_has_begun_since_it_was_looked_at_stays(
    work: Path, what: str, monkeypatch: pytest.MonkeyPatch
):
    """On a large grid, to look at all takes minutes, and a call of Snakemake goes on meanwhile."""

    def looked_at(*arguments: Any) -> list[Leftover]:
        found = leftovers(*arguments)
        (work / "results/runs" / OTHER / "run.json").unlink()
        make(work / "results/checkpoints" / OTHER / "lock")
        return found

    monkeypatch.setattr("amst.cluster.leftovers.leftovers", looked_at)
    folder = work / "results" / what / OTHER
    said = clean("--remove", "--also", "runs")
    assert f"{folder.relative_to(work)}: " in said
    assert said.count("; kept, the run has begun or ended meanwhile") == 2
    assert folder.is_dir()
    assert not (work / "results/checkpoints" / CURRENT).exists()


def test_two_calls_at_once_end_well(work: Path, monkeypatch: pytest.MonkeyPatch):
    """The other one takes a file between two steps of this one, and all else after them."""
    unlink, taken = os.unlink, []

    def unlinked(name: str, **place: int) -> None:
        unlink(name, **place)
        if not taken:
            taken.append(name)
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)

    def looked_at(*arguments: Any) -> list[Leftover]:
        found = leftovers(*arguments)
        unlink(parts)
        return found

    parts = make(work / "results/tables/.main.csv.0123abcd.csv")
    os.utime(parts, (1, 1))
    monkeypatch.setattr("amst.cluster.leftovers.leftovers", looked_at)
    monkeypatch.setattr(os, "unlink", unlinked)
    clean("--remove")
    assert taken
    assert not (work / "results/checkpoints" / CURRENT).exists()
    assert not (work / "results/checkpoints" / OTHER).exists()
