"""Benchmarks: each is a command that measures on this machine and prints what it found."""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from amst.bench import Report
from amst.bench.prepared import prepare, settings_of
from amst.cli.configuration import ConfigFiles, configuration

bench = typer.Typer(help="Measure on this machine.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(bench, name="bench", rich_help_panel="Environment")


Variant = Annotated[str, typer.Option("--method", help="an entry under methods in config.yaml")]
DatasetName = Annotated[str, typer.Option("--dataset", help="CREMAD or digits, made here")]
Samples = Annotated[int, typer.Option(min=20, help="clips to make; 80 % are for training")]
BatchSize = Annotated[int | None, typer.Option(min=2, help="samples of a batch, else the recipe's")]
Precision = Annotated[
    Literal["fp32", "bf16"] | None, typer.Option("--precision", help="config.yaml's unless given")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="of the yardstick; one per core")
]
Compiled = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="compile ours, on a GPU")
]
Captured = Annotated[
    bool | None, typer.Option("--capture/--no-capture", help="capture ours, on a GPU")
]
Json = Annotated[bool, typer.Option("--json", help="print figures as JSON")]


@bench.command()
def tables(
    records: Annotated[int, typer.Option(min=1, help="synthetic run records")] = 10_000,
    significance: Annotated[
        bool, typer.Option("--significance", help="time the tables with the bootstrap too")
    ] = False,
    as_json: Json = False,
) -> None:
    """Time the tables of a large grid of synthetic records."""
    from amst.bench.tables import time_tables

    with tempfile.TemporaryDirectory() as folder:
        _show(time_tables(records, Path(folder), significance), as_json)


@bench.command()
def extract(
    clips: Annotated[int, typer.Option(min=1, help="clips per worker and round")] = 40,
    seconds: Annotated[float, typer.Option(min=0.1, help="length of a clip")] = 2.5,
    rounds: Annotated[int, typer.Option(min=1, help="rounds; the medians are printed")] = 3,
    minutes: Annotated[float, typer.Option(min=0.1, help="length of the dialogue")] = 10.0,
    as_json: Json = False,
) -> None:
    """Time extraction against a plain script, on one core and on two; its peak of memory."""
    from amst.bench.extraction import measure_extraction

    with tempfile.TemporaryDirectory() as folder:
        _show(measure_extraction(Path(folder), clips, seconds, rounds, minutes), as_json)


@bench.command()
def squeeze(
    width: Annotated[int, typer.Option(min=1, help="of the original pictures")] = 480,
    height: Annotated[int, typer.Option(min=1, help="of the original pictures")] = 360,
    crops: Annotated[int, typer.Option(min=1, help="random crops per picture")] = 200,
    pictures: Annotated[
        list[Path] | None, typer.Option(help="originals; scikit-learn's photographs unless given")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the error of storing pictures as squares, for S = 256, 384 and 512."""
    from PIL import Image

    from amst.bench.squeeze import measure_squeeze

    given = [Image.open(path).convert("RGB") for path in pictures or ()]
    _show(measure_squeeze((width, height), (256, 384, 512), crops, given), as_json)


@bench.command()
def train(
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="an entry under methods, several times; amst_full"),
    ] = None,
    dataset: DatasetName = "CREMAD",
    samples: Samples = 640,
    batch_size: BatchSize = None,
    batches: Annotated[int, typer.Option(min=1, help="of one turn")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="turns; the medians are printed")] = 3,
    workers: Workers = None,
    epoch: Annotated[
        int | None, typer.Option(min=1, help="batches of a yardstick's epoch; six per worker")
    ] = None,
    precision: Precision = None,
    tf32: Annotated[
        Literal["off", "conv", "all"] | None, typer.Option(help="config.yaml's unless given")
    ] = None,
    compiled: Compiled = None,
    captured: Captured = None,
    threads: Annotated[int | None, typer.Option(min=1, help="arithmetic threads on a CPU")] = None,
    residency: Annotated[
        Literal["auto", "device", "host", "stream"], typer.Option(help="where features wait")
    ] = "auto",
    yardstick: Annotated[bool, typer.Option(help="measure the released way, too")] = True,
    as_json: Json = False,
    configfile: ConfigFiles = None,
) -> None:
    """Time training from stored features against the way of the released code."""
    # Before PyTorch is loaded: its profiler would report every start on standard error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from amst.bench.training import Plan, measure_training
    from amst.bench.yardstick import yardstick_epoch
    from amst.training.execution import Execution

    config = configuration(configfile)
    options = {"precision": precision, "tf32": tf32, "compile": compiled, "threads": threads}
    variants = [
        settings_of(config, dataset, method, batch_size, **options)
        for method in methods or ["amst_full"]
    ]
    capture = config.execution.capture if captured is None else captured
    execution = Execution(residency=residency, capture=capture)
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(config, dataset, samples, Path(folder))
        raw = made.raw if yardstick and dataset == "CREMAD" else None
        count = cores() if workers is None else workers
        plan = Plan(batches, rounds, count, epoch or yardstick_epoch(count))
        found = measure_training(variants, made.manifest, made.split, execution, plan, raw)
    _show(found, as_json)


@bench.command()
def load(
    dataset: DatasetName = "CREMAD",
    samples: Samples = 640,
    batch_size: BatchSize = None,
    rounds: Annotated[int, typer.Option(min=1, help="turns; the medians are printed")] = 3,
    workers: Workers = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="of ours on a CPU; one per core")
    ] = None,
    as_json: Json = False,
    configfile: ConfigFiles = None,
) -> None:
    """Time the loader alone against the way of the released code; memory of every residency."""
    import torch

    from amst.bench.loading import measure_loading
    from amst.loading.dataset import Residency

    config = configuration(configfile)
    ours = cores() if threads is None else threads
    settings = settings_of(config, dataset, "naive", batch_size, threads=ours)
    kept: list[Residency] = ["device"] if torch.cuda.is_available() else []
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(config, dataset, samples, Path(folder))
        found = measure_loading(
            settings,
            made.manifest,
            made.split,
            [*kept, "host", "stream"],
            rounds,
            cores() if workers is None else workers,
            made.raw if dataset == "CREMAD" else None,
        )
    _show(found, as_json)


@bench.command()
def loop(
    method: Variant = "naive",
    dataset: DatasetName = "digits",
    samples: Samples = 3000,
    rounds: Annotated[int, typer.Option(min=1, help="whole runs; the medians are printed")] = 3,
    as_json: Json = False,
    configfile: ConfigFiles = None,
) -> None:
    """Time whole epochs against their bare forward and backward passes and steps."""
    from amst.bench.loop import measure_loop
    from amst.training.execution import Execution

    config = configuration(configfile)
    settings = settings_of(config, dataset, method)
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(config, dataset, samples, Path(folder))
        found = measure_loop(settings, made.manifest, made.split, Execution(), rounds)
    _show(found, as_json)


@bench.command()
def together(
    method: Variant = "naive",
    dataset: DatasetName = "digits",
    runs: Annotated[
        list[int] | None, typer.Option(min=1, help="runs at once, several times; 2 and 4")
    ] = None,
    samples: Samples = 640,
    batch_size: BatchSize = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="length of one measurement")] = 10.0,
    precision: Precision = None,
    compiled: Compiled = None,
    captured: Captured = None,
    as_json: Json = False,
    configfile: ConfigFiles = None,
) -> None:
    """Time several runs on one device at once against one alone."""
    from amst.bench.together import measure_together
    from amst.training.execution import Execution

    config = configuration(configfile)
    options = {"precision": precision, "compile": compiled}
    settings = settings_of(config, dataset, method, batch_size, **options)
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(config, dataset, samples, Path(folder))
        counts = sorted({1, *(runs or (2, 4))})
        capture = config.execution.capture if captured is None else captured
        execution = Execution(capture=capture)
        found = measure_together(settings, made.manifest, made.split, execution, counts, seconds)
    _show(found, as_json)


@bench.command()
def grid(
    jobs: Annotated[int, typer.Option(min=1, help="training jobs in the graph")] = 10_000,
    as_json: Json = False,
) -> None:
    """Time a dry run of a large grid, and take its peak of memory."""
    from amst.bench.graph import measure_dry_run

    with tempfile.TemporaryDirectory() as folder:
        _show(measure_dry_run(jobs, Path(folder)), as_json)


@bench.command()
def job(
    rounds: Annotated[int, typer.Option(min=1, help="jobs; the medians are printed")] = 5,
    as_json: Json = False,
    configfile: ConfigFiles = None,
) -> None:
    """Time what a training job costs besides training: imports, data, evaluation, record."""
    from amst.bench.graph import measure_job

    config = configuration(configfile)
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(config, "digits", 3000, Path(folder, "data"))
        _show(measure_job(config, made, rounds, Path(folder)), as_json)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _show(found: Report, as_json: bool) -> None:
    """The figures for a reader, or as one line of JSON for a program."""
    typer.echo(json.dumps(asdict(found)) if as_json else "\n".join(found.lines()))
