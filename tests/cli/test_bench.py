"""`amst bench`: what the commands hand to the measurements, and what they print of them."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from amst.bench.prepared import Prepared
from amst.cli import app
from amst.cli.bench import cores

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


@dataclass(frozen=True)
class Told:
    """Stands for what a measurement finds."""

    rate: float = 2.5

    def lines(self) -> list[str]:
        return ["two and a half"]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple]:
    """Measurement -> what it was called with, by the last command."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    monkeypatch.setattr("amst.cli.bench.prepare", prepared)
    found: dict[str, tuple] = {}
    for name in (
        "training.measure_training",
        "loading.measure_loading",
        "loop.measure_loop",
        "together.measure_together",
        "graph.measure_dry_run",
        "graph.measure_job",
        "extraction.measure_extraction",
        "tables.time_tables",
        "squeeze.measure_squeeze",
    ):

        def noted(*arguments: object, name: str = name) -> Told:
            found[name.partition(".")[0]] = arguments
            return Told()

        monkeypatch.setattr(f"amst.bench.{name}", noted)
    return found


def prepared(config: object, dataset: str, samples: int, folder: Path) -> Prepared:
    return Prepared(Path(f"{dataset}-{samples}"), Path("manifest"), Path("split"))


def test_training_is_measured_as_the_options_say(given):
    methods = ("--method", "naive", "--method", "mla")
    more = ("--batches", "3", "--rounds", "4", "--samples", "50", "--batch-size", "6")
    assert bench("train", *methods, *more, "--precision", "bf16") == ["two and a half"]
    variants, manifest, split, execution, plan, raw = given["training"]
    assert [settings.method for settings in variants] == ["naive", "mla"]
    assert {settings.recipe.batch_size for settings in variants} == {6}
    assert {settings.arithmetic.precision for settings in variants} == {"bf16"}
    assert (manifest, split, raw) == (Path("manifest"), Path("split"), Path("CREMAD-50"))
    assert (plan.batches, plan.rounds, plan.workers) == (3, 4, cores())
    assert plan.epoch == 6 * cores(), "six batches from each worker"
    assert execution.residency == "auto"
    bench("train", "--no-yardstick", "--workers", "2", "--epoch", "5", "--no-capture")
    variants, *_, execution, plan, raw = given["training"]
    assert [settings.variant for settings in variants] == ["amst_full"]
    assert (plan.workers, plan.epoch, raw, execution.capture) == (2, 5, None, False)
    bench("train", "--workers", "0", "--compile")
    variants, *_, plan, _ = given["training"]
    assert (plan.workers, plan.epoch) == (0, 6), "batches are made by the process itself"
    assert variants[0].arithmetic.compile
    bench("train", "--dataset", "digits", "--capture")
    *_, execution, plan, raw = given["training"]
    assert (raw, execution.capture) == (None, True), "the yardstick has clips and pictures only"


def test_every_benchmark_tells_its_figures_to_programs_too(given):
    for command in typer.main.get_command(app).commands["bench"].commands:
        assert bench(command) == ["two and a half"], command
        (line,) = bench(command, "--json")
        assert json.loads(line) == {"rate": 2.5}, command


def test_extraction_and_tables_are_measured_as_the_options_say(given):
    bench("extract", "--clips", "3", "--seconds", "1.5", "--rounds", "2", "--minutes", "0.5")
    assert given["extraction"][1:] == (3, 1.5, 2, 0.5)
    bench("tables", "--records", "7", "--significance")
    records, _, significance = given["tables"]
    assert (records, significance) == (7, True)
    bench("squeeze", "--width", "30", "--height", "20", "--crops", "4")
    assert given["squeeze"] == ((30, 20), (256, 384, 512), 4, [])


def test_runs_at_once_are_measured_beside_one_alone(given):
    bench("together", "--runs", "8", "--runs", "3", "--seconds", "1.5")
    *_, counts, seconds = given["together"]
    assert (counts, seconds) == ([1, 3, 8], 1.5)
    bench("together")
    assert given["together"][-2] == [1, 2, 4]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("bench train --precision fp16", "'fp16' is not one of 'fp32', 'bf16'"),
        ("bench train --residency gpu", "'gpu' is not one of 'auto', 'device', 'host', 'stream'"),
        ("bench train --tf32 on", "'on' is not one of 'off', 'conv', 'all'"),
        ("bench train --threads 0", "Invalid value for '--threads'"),
        ("bench load --workers -1", "Invalid value for '--workers'"),
        ("bench together --seconds 0", "Invalid value for '--seconds'"),
        ("evaluate digits/random/naive/seed0 --device gpu", "'gpu' is not one of 'auto', 'cpu'"),
    ],
)
def test_an_option_takes_only_what_there_is(command, said, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2
    assert said in done.output
