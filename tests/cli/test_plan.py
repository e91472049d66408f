"""`amst plan` says what disk a grid takes and, from the little that ran, for how long."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amst.cli import app
from amst.cli.forecast import scaled_hours
from amst.cli.plan import Planned, _about_work_done, _hours, plan_of
from amst.cli.space import (
    Space,
    parameters,
    row_bytes,
    samples_by_dataset,
    samples_of,
    space_of,
    table,
)
from amst.config.run import AudioFeatures, Roberta
from amst.features.shards import columns
from amst.files import write_json
from amst.grid import Config, Resolver, cells, features_of, modalities_of, read_config
from amst.models.encoders import build_encoder
from amst.provenance import package_digest, present_digest, training_digest
from amst.records import RUN_FILES, Cost, Environment, RunRecord, read_record, write_record
from amst.training.state import adopted_file

ROOT = Path(__file__).parents[2]
PAPER = (ROOT / "config.yaml", ROOT / "workflow/configs/paper.yaml")


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    return read_config(*PAPER)


def finished(config: Config, results: Path, dataset: str, method: str, seconds: float) -> Path:
    """Write the folder of a finished run; its bytes are 5000 and its record's."""
    cell = next(c for c in cells(config) if (c.dataset, c.variant) == (dataset, method))
    settings = Resolver(config)(cell)
    cost = Cost(
        train_seconds=seconds, validate_seconds=0, load_seconds=0, peak_host_bytes=1,
        peak_device_bytes=1, attempts=1, forward_flops={}, backward_flops={}, linear_seconds=0.0,
    )  # fmt: skip
    environment = Environment(
        suite_version="1", commit="", code_digest="", package_digest="", container_digest="",
        python="3", packages={}, host="", device="",
    )  # fmt: skip
    record = RunRecord(
        run=cell.run, settings=settings, settings_hash=settings.hash, digest="", classes=("a", "b"),
        main="fused", results=(), subset_accuracy={}, shapley={}, parameters=1, cost=cost,
        environment=environment, started="", finished="",
    )  # fmt: skip
    folder = results / "runs" / cell.run
    write_record(folder / "run.json", record)
    (folder / "weights.safetensors").write_bytes(bytes(5000))
    return folder


def test_a_row_takes_what_a_shard_stores_for_it(paper: Config):
    for dataset in ("IEMOCAP3", "MVSA", "digits"):
        for features in features_of(paper, dataset).values():
            stored = sum(
                kind.itemsize * math.prod(shape) for kind, shape in columns(features).values()
            )
            assert row_bytes(features) == pytest.approx(stored, abs=32)


@pytest.mark.parametrize("dataset", ["digits", "CREMAD"])
def test_parameters_of_encoders_are_those_of_the_models(paper: Config, dataset: str):
    from amst.training.assembly import input_shape

    for name, modality in modalities_of(paper, dataset).items():
        if isinstance(modality.encoder, Roberta):
            continue
        for embedding in (64, 512):
            model = build_encoder(
                name, modality, input_shape(modality), embedding, vocabulary=64, seed=0
            )
            true = sum(weights.numel() for weights in model.parameters())
            assert parameters(modality, embedding)[0] == pytest.approx(true, rel=0.1)


def test_without_data_it_goes_by_the_registry(paper: Config, tmp_path: Path):
    spaces = {space.what: space for space in space_of(paper, tmp_path, jobs=10)}
    features = spaces["features CREMAD"]
    assert features.size == pytest.approx(7442 * (1024 * 128 * 2 + 3 * 256 * 256 * 3), rel=0.01)
    assert not features.measured
    assert "features IEMOCAP" not in spaces, "it has those of IEMOCAP3"
    assert spaces["runs CREMAD"].size == pytest.approx((45 * 2 + 5 * 2) * 4 * 11.18e6, rel=0.15)
    assert spaces["working checkpoints"].files == 60
    assert "in all" in table(list(spaces.values()))[-1]


def test_what_is_there_is_measured(paper: Config, tmp_path: Path):
    before = {space.what: space for space in space_of(paper, tmp_path, jobs=400)}
    folder = finished(paper, tmp_path, "CREMAD", "naive", 1.0)
    size = sum(path.stat().st_size for path in folder.iterdir())
    after = {space.what: space for space in space_of(paper, tmp_path, jobs=400)}
    five_like_it = before["runs CREMAD"].size - after["runs CREMAD"].size
    assert five_like_it == pytest.approx(5 * 2 * 4 * 11.18e6 - 5 * size, rel=0.01)
    assert "50 runs: 1 done, 4 like them, 45 by weights" in after["runs CREMAD"].how
    assert not after["runs CREMAD"].measured, "of most it is an estimate"
    assert after["working checkpoints"].size < before["working checkpoints"].size
    (tmp_path / "features/CREMAD").mkdir(parents=True)
    (tmp_path / "features/CREMAD/samples.json").write_text(
        '{"dataset": "CREMAD", "raw_files": "", "samples": 100, "rejected": 0, "expected": 7442}'
    )
    assert samples_of(paper, "CREMAD", tmp_path) == (100, "listed")


def test_hours_come_from_the_same_method_and_encoders_on_another_dataset(
    paper: Config, tmp_path: Path
):
    finished(paper, tmp_path, "CREMAD", "naive", 3600.0)
    planned = {(one.cell.dataset, one.cell.variant): one for one in plan_of(paper, tmp_path)}
    ave = planned["AVE", "naive"]
    assert ave.scaled
    assert ave.hours == pytest.approx(4143 / 7442)
    assert planned["CREMAD", "naive"].hours == pytest.approx(1)
    assert not planned["CREMAD", "naive"].scaled
    assert planned["MVSA", "naive"].hours is None, "another encoder"
    assert planned["AVE", "pmr"].hours is None, "another method"
    assert scaled_hours([], {}) == {}


def test_hours_of_several_runs_are_marked_by_what_is_not_known_of_them(paper: Config):
    def planned(hours: float | None, like: bool = False, scaled: bool = False) -> Planned:
        return Planned(cells(paper)[0], "missing", hours, like, scaled)

    assert _hours([]) == "0.00"
    assert _hours([planned(1.5), planned(0.25)]) == "1.75"
    assert _hours([planned(1.5), planned(None)]) == "1.50+"
    assert _hours([planned(1.5), planned(1.0, like=True)]) == "~2.50"
    assert _hours([planned(1.5, scaled=True), planned(None)]) == "~1.50+"
    assert _hours([planned(None), planned(None)]) == "?"


def test_hours_of_several_datasets_are_averaged(paper: Config, tmp_path: Path):
    for dataset, seconds in (("CREMAD", 7442 * 3600.0), ("AVE", 3 * 4143 * 3600.0)):
        finished(paper, tmp_path, dataset, "naive", seconds)
    planned = {(one.cell.dataset, one.cell.variant): one for one in plan_of(paper, tmp_path)}
    assert planned["AVE", "naive"].hours == pytest.approx(3 * 4143), "its own"
    records = [read_record(path) for path in tmp_path.rglob("run.json")]
    (hours,) = scaled_hours(records, {"CREMAD": 7442, "AVE": 4143}).values()
    assert hours.of(records[0].settings.recipe.epochs) == pytest.approx(2)


def test_a_run_of_other_packages_or_other_code_is_planned_again(paper: Config, tmp_path: Path):
    def whys() -> set[str]:
        return {one.why for one in plan_of(paper, tmp_path) if one.cell.run == run}

    folder = finished(paper, tmp_path, "CREMAD", "naive", 1.0)
    run = folder.relative_to(tmp_path / "runs").as_posix()
    assert whys() == {"packages changed"}
    made_by(folder / "run.json", "")
    assert whys() == {"code changed"}
    write_json(adopted_file(tmp_path), {run: {"from": training_digest("naive"), "to": "other"}})
    assert whys() == {"code changed"}, "adopted for another state of the code"
    for name in set(RUN_FILES) - {"run.json"}:
        (folder / name).touch()
    write_json(adopted_file(tmp_path), {run: {"from": "", "to": training_digest("naive")}})
    assert not {"code changed", "packages changed"} & whys()


def test_an_unfinished_run_whose_saved_states_are_of_other_code_is_told(
    tmp_path: Path, monkeypatch
):
    """As after an update in the middle of a grid: its next attempt continues from none of them."""
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text("grid: {methods: [naive], seeds: [0, 1]}")
    config = read_config(PAPER[0], Path("two.yaml"))
    features = tmp_path / "features/digits"

    def saved(seed: int, digest: str) -> None:
        folder = tmp_path / f"checkpoints/digits/random/naive/seed{seed}" / digest
        folder.mkdir(parents=True)
        (folder / "epoch-0001-batch-000000.pt").touch()

    def told() -> list[str]:
        return list(_about_work_done(plan_of(config, tmp_path)))

    saved(0, "0123456789abcdef")
    assert told() == [], "the data are not there, and may be made as they were"
    for file in (features / "manifest.json", features / "splits/random.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert told() == [
        "1 unfinished run has saved states of other settings, code, packages or data only "
        "(digits/random/naive/seed0): trained from the first epoch"
    ]
    saved(1, "0123456789abcdef")
    assert "2 unfinished runs have saved states" in told()[0]
    for cell in cells(config):
        saved(cell.seed, present_digest(Resolver(config)(cell), features))
    assert told() == []


def test_single_precision_takes_twice_the_room():
    half, single = (row_bytes(AudioFeatures(dtype=name)) for name in ("float16", "float32"))
    assert single == 2 * half


def test_of_the_runs_that_may_train_at_once_the_largest_count(paper: Config, tmp_path: Path):
    def peak(jobs: int) -> int:
        (space,) = (s for s in space_of(paper, tmp_path, jobs) if s.what == "working checkpoints")
        return space.size

    assert 3 * peak(1) >= peak(3) > peak(310) * 3 / 310


def test_a_damaged_record_is_told_and_stops_no_plan(paper: Config, tmp_path: Path, capsys):
    whole = finished(paper, tmp_path, "AVE", "naive", 3600)
    damaged = finished(paper, tmp_path, "AVE", "pmr", 3600) / "run.json"
    damaged.write_text(damaged.read_text()[:300])
    planned = {str(tmp_path / "runs" / each.cell.run): each for each in plan_of(paper, tmp_path)}
    assert planned[str(damaged.parent)].why == "damaged"
    assert planned[str(whole)].why == "packages changed"
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"left out: {damaged} ")


def test_names_that_are_longer_than_a_narrow_page_are_told_whole(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    values = {"weights": [{"audio": share, "visual": 1.0} for share in (0.30001, 0.30002)]}
    write_json(
        tmp_path / "swept.yaml",
        {
            "grid": {"datasets": ["CREMAD"], "methods": ["mla_of_quite_a_long_name"]},
            "methods": {"mla_of_quite_a_long_name": {"method": "mla", "sweep": values}},
        },
    )
    shutil.copy(ROOT / "config.yaml", tmp_path)
    done = CliRunner().invoke(app, ["plan", "--configfile", "swept.yaml"])
    assert done.exit_code == 0, done.output
    head, *rows = done.output.partition("of 6 runs")[0].splitlines()
    column = slice(head.index("method"), head.index("runs"))
    shown = "".join(row[column].strip() for row in rows[:-1])
    names = {cell.variant for cell in cells(read_config(PAPER[0], tmp_path / "swept.yaml"))}
    assert len(names) == 2
    assert all(name in shown for name in names), done.output


def test_what_would_be_trained_under_two_names_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(
        tmp_path / "twice.yaml",
        {
            "grid": {"datasets": ["CREMAD"], "methods": ["naive", "same"], "seeds": [0]},
            "methods": {"same": {"method": "naive"}},
        },
    )
    shutil.copy(ROOT / "config.yaml", tmp_path)
    done = CliRunner().invoke(app, ["plan", "--configfile", "twice.yaml"])
    assert done.exit_code == 0, done.output
    line = "naive, same have the same settings on CREMAD: each is trained"
    assert f"note {line}" in done.output.splitlines()


def test_a_damaged_manifest_stops_no_plan(paper: Config, tmp_path: Path):
    (tmp_path / "features/CREMAD").mkdir(parents=True)
    (tmp_path / "features/CREMAD/manifest.json").write_text("{")
    counts = samples_by_dataset(paper, tmp_path)
    assert "CREMAD" not in counts
    assert counts["AVE"] == 4143


def test_the_command_says_how_to_get_hours_and_imports_no_torch(tmp_path: Path):
    shutil.copy(PAPER[0], tmp_path / "config.yaml")
    code = (
        "import sys; from amst.cli import app; sys.argv = ['amst', 'plan', '--configfile', "
        f"{str(PAPER[1])!r}]; app(standalone_mode=False); "
        "print('loaded', sorted({'torch', 'pandas', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "310 of 310 runs to train: ? hours in all" in done.stdout
    assert "snakemake results/runs/CREMAD/amst/unimodal_audio/seed0/run.json" in done.stdout
    assert "features CREMAD      ~6.34 GB" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_the_table_of_space_sums_what_is_known_and_marks_what_is_estimated():
    found = Space("features A", 1_500_000_000, 12, "4 shards", measured=True)
    guessed = Space("runs A", 250_000_000, 30, "3 runs")
    unknown = Space("features B", None, 7, "not known how many samples")
    lines = [" ".join(line.split()) for line in table([found, guessed, unknown])]
    assert lines == [
        "disk size files",
        "features A 1.5 GB 12 4 shards",
        "runs A ~250 MB ~30 3 runs",
        "features B ? ~7 not known how many samples",
        "in all ~1.75 GB ~49 ~ is estimated, the rest is there and measured, and what is not known",
    ]
    assert " ".join(table([found])[-1].split()) == "in all 1.5 GB 12 measured"
    small = Space("a", 2_000_000_000_000, 1, ""), Space("b", 999_000, 1, "")
    assert [line.split()[1] for line in table(small)[1:3]] == ["~2", "~999"]
    assert [line.split()[2] for line in table(small)[1:3]] == ["TB", "kB"]


def test_hours_follow_the_epochs_that_are_configured_now(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(PAPER[0], tmp_path / "config.yaml")
    config = read_config(Path("config.yaml"))
    folder = finished(config, tmp_path, "digits", "naive", 7200.0)
    record = read_record(folder / "run.json")
    spent = {"train_seconds": 3600.0, "validate_seconds": 1800.0, "load_seconds": 1800.0}
    cost = record.cost.model_copy(update=spent)
    end = cost.model_copy(update={"linear_seconds": 900.0})
    for path, each in ((folder, cost), (folder.with_name("seed1"), end)):
        write_record(path / "run.json", record.model_copy(update={"cost": each}))
    epochs = record.settings.recipe.epochs
    more = tmp_path / "more.yaml"
    more.write_text(f"datasets: {{digits: {{recipe: {{epochs: {3 * epochs}}}}}}}")
    config = read_config(Path("config.yaml"), more)
    planned = {one.cell.run: one for one in plan_of(config, tmp_path)}
    own, seed = (planned[f"digits/random/naive/seed{seed}"] for seed in (0, 2))
    once = (0 + 0.25) / 2  # the linear evaluation, however many epochs are before it
    assert (own.why, own.hours) == ("settings changed", pytest.approx(6 + once))
    assert (seed.why, seed.hours) == ("missing", pytest.approx(6 + once))


def made_by(path: Path, code: str) -> None:
    """Let a record say that this code and the present packages made the run."""
    record = read_record(path)
    now = {"package_digest": package_digest(), "code_digest": code}
    made = record.environment.model_copy(update=now)
    write_record(path, record.model_copy(update={"environment": made}))


def test_the_command_names_reasons_sums_hours_and_says_what_their_marks_mean(
    tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copy(PAPER[0], tmp_path / "config.yaml")
    (tmp_path / "more.yaml").write_text(
        "grid: {methods: [naive, late, pmr], seeds: [0, 1]}\nmethods: {late: {method: naive}}\n"
        "container: {image: 'a[/b].sif'}\n"
    )
    Path("a[").mkdir()
    Path("a[/b].sif").touch()
    config = read_config(Path("config.yaml"), Path("more.yaml"))
    path = finished(config, Path("results"), "digits", "naive", 3600.0) / "run.json"

    def plan() -> list[str]:
        done = CliRunner().invoke(app, ["plan", "--runs", "--configfile", "more.yaml"])
        assert done.exit_code == 0, done.output
        return [" ".join(line.split()) for line in done.output.splitlines()]

    lines = plan()
    assert "digits naive 2 2.00 1 packages changed, 1 missing" in lines
    assert "digits late 2 ~2.00 2 missing" in lines
    assert "digits pmr 2 ? 2 missing" in lines
    assert "6 of 6 runs to train: ~4.00+ hours in all" in lines
    assert "~ as measured on other variants of the same method" in lines
    assert (
        "? no run of this grid with this method and these encoders is done: train 1 first, one of "
        "each kind, and plan again; for example snakemake "
        "results/runs/digits/random/pmr/seed0/run.json --configfile more.yaml"
    ) in lines
    assert "digits/random/naive/seed0: packages changed" in lines
    assert "digits/random/late/seed1: missing" in lines
    assert "image 0 kB 1 a[/b].sif" in lines
    free = shutil.disk_usage(tmp_path).free
    (line,) = (line for line in lines if line.endswith("are free here"))
    assert float(line.split()[0]) == pytest.approx(free / 1e9, abs=2)
    made_by(path, "an earlier commit")
    lines = plan()
    assert "digits naive 2 2.00 1 code changed, 1 missing" in lines
    assert (
        "note 1 finished run was trained by other code or packages: snakemake trains anew in the "
        "place of each, unless `amst adopt` declares it valid (docs/two-configurations.md says how "
        "to find out)"
    ) in lines
    made_by(path, training_digest("naive"))
    assert "digits naive 2 2.00 1 files missing, 1 missing" in plan(), "as after a purge by age"
    for name in set(RUN_FILES) - {"run.json"}:
        path.with_name(name).touch()
    lines = plan()
    assert "digits naive 1 1.00 1 missing" in lines
    assert "5 of 6 runs to train: ~3.00+ hours in all" in lines
    assert not any("naive/seed0" in line for line in lines)


def test_a_working_run_keeps_weights_and_momentum_three_times_and_weights_three_times_more(
    tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("grid: {datasets: [CREMAD], methods: [naive], seeds: [0]}")
    config = read_config(PAPER[0], Path("one.yaml"))

    def working() -> Space:
        found = space_of(config, tmp_path, jobs=10)
        return next(space for space in found if space.what == "working checkpoints")

    # Two ResNets of 11.177 million parameters of four bytes.
    assert working().size == pytest.approx((3 * 2 + 3) * 2 * 4 * 11.177e6, rel=1e-3)
    assert working().files == 6
    finished(config, tmp_path, "CREMAD", "naive", 1.0)
    assert (working().size, working().files) == (0, 0)
