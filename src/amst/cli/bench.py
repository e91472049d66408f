"""Benchmarks: each is a command that measures on this machine and prints what it found."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(help="Measure on this machine.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(bench, name="bench", rich_help_panel="Environment")


@bench.command()
def tables(
    records: Annotated[int, typer.Option(min=1, help="synthetic run records")] = 10_000,
    significance: Annotated[
        bool, typer.Option("--significance", help="time the tables with the bootstrap too")
    ] = False,
) -> None:
    """Time the tables of a large grid of synthetic records."""
    from amst.bench.tables import time_tables

    with tempfile.TemporaryDirectory() as folder:
        for timing in time_tables(records, Path(folder), significance):
            typer.echo(
                f"{timing.seconds:8.1f} s  {timing.records} records: {', '.join(timing.tables)}"
            )


@bench.command()
def extract(
    clips: Annotated[int, typer.Option(min=1, help="clips per worker and round")] = 40,
    seconds: Annotated[float, typer.Option(help="length of a clip")] = 2.5,
    rounds: Annotated[int, typer.Option(min=1, help="rounds; the medians are printed")] = 3,
    minutes: Annotated[float, typer.Option(help="length of the dialogue")] = 10.0,
) -> None:
    """Time extraction against a plain script, on one core and on two; its peak of memory."""
    from functools import partial

    from amst.bench import extraction

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = extraction.measure_throughput(folder, clips, seconds, rounds)
        ours, both = found.extraction, found.both
        typer.echo("clips per second                     by the clock   of processor time")
        for what, pace in (("kept frames", found.kept), ("every frame", found.every)):
            typer.echo(f"script, writes {what:<17} {pace.wall:12.2f}   {pace.cpu:17.2f}")
        typer.echo(f"extraction, 1 core               {ours.wall:12.2f}   {ours.cpu:17.2f}")
        for what, pace in (("kept frames", found.kept), ("every frame", found.every)):
            wall, cpu = ours.wall / pace.wall, ours.cpu / pace.cpu
            typer.echo(f"  ratio to script, {what:<13} {wall:12.2f}   {cpu:17.2f}")
        if both is not None:
            typer.echo(f"extraction, 2 cores              {both.wall:12.2f}   {2 * both.cpu:17.2f}")
            wall, cpu = both.wall / ours.wall, 2 * both.cpu / ours.cpu
            typer.echo(f"  gain of the second core        {wall:12.2f}   {cpu:17.2f}")
        long = extraction.make_clips(folder / "long", 1, 61.0)
        peak = extraction.measure_memory(extraction.extract, long)
        typer.echo(f"peak of memory, a clip of 61 s: {peak:.0f} MB")
        talk = extraction.make_dialogue(folder / "talk", minutes)
        work = partial(extraction.extract, dataset="IEMOCAP")
        peak = extraction.measure_memory(work, talk)
        typer.echo(f"peak of memory, a dialogue of {minutes:g} min: {peak:.0f} MB")


@bench.command()
def squeeze(
    width: Annotated[int, typer.Option(help="of the original pictures")] = 480,
    height: Annotated[int, typer.Option(help="of the original pictures")] = 360,
    crops: Annotated[int, typer.Option(help="random crops per picture")] = 200,
    pictures: Annotated[
        list[Path] | None, typer.Option(help="originals; scikit-learn's photographs unless given")
    ] = None,
) -> None:
    """Measure the error of storing pictures as squares, for S = 256, 384 and 512."""
    from PIL import Image

    from amst.bench.squeeze import measure_squeeze

    given = [Image.open(path).convert("RGB") for path in pictures or ()]
    typer.echo("mean absolute difference at 224 x 224, in grey levels of 255")
    typer.echo("   S   whole picture   random crops")
    for error in measure_squeeze((width, height), (256, 384, 512), crops, given):
        typer.echo(f"{error.side:4d}   {error.whole:13.2f}   {error.crops:12.2f}")
