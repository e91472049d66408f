"""Steps from raw media to shards, splits and the data report.

Lists, shards, manifests and splits are written where ``--out`` says, which Snakemake's rules give.
By hand nothing is written beside what Snakemake makes: of a file that it has no note of, it never
sees that its settings, code or raw files have changed.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from amst import grid
from amst.cli.configuration import RESULTS, ConfigFiles, configuration, dataset_settings, from_json
from amst.config.run import Features
from amst.datasets import registry
from amst.datasets.base import Dataset
from amst.errors import AmstError
from amst.grid.messages import told, validated
from amst.pretrained import STAGED

Name = Annotated[str, typer.Argument(metavar="DATASET", help="name of the dataset")]
Raw = Annotated[Path | None, typer.Option(help="raw root; by config.yaml unless given")]
Json = Annotated[str | None, typer.Option(help="settings as JSON; by config.yaml unless given")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (generate, samples, extract, manifest, split, data_report):
        app.command(rich_help_panel="Data")(command)


def generate(
    dataset: Name,
    raw: Raw = None,
    settings: Json = None,
    configfile: ConfigFiles = None,
) -> None:
    """Make the raw files of the embedded dataset."""
    from amst.datasets import digits

    if dataset != digits.Digits.name:
        raise AmstError(f"{dataset} is not made by the suite", f"See {registry.load(dataset).page}")
    if settings is None:
        given: Any = dataset_settings(dataset, configfile).generate
    else:
        given = from_json(settings, "--settings")
    how = validated(digits.DigitsSettings, given or {}, "--settings")
    made = digits.make(raw or raw_root(dataset, configfile), how)
    typer.echo(f"made {sum(made['parts'].values())} clips: {made['parts']}")


def raw_root(dataset: str, configfile: list[Path] | None) -> Path:
    """Raw folder of a dataset by the configuration."""
    config = configuration(configfile)
    return grid.raw_root(config, dataset)


def samples(
    dataset: Name,
    raw: Raw = None,
    options: Json = None,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="the list of usable samples; not written unless given"),
    ] = None,
    rejected: Annotated[
        Path | None, typer.Option(dir_okay=False, help="the list of the others")
    ] = None,
    configfile: ConfigFiles = None,
) -> None:
    """Count the samples of a raw folder; say of the others why they cannot be used."""
    from amst.features.samples import read_rejected, write_samples

    facts, root = reader(dataset, options, configfile), raw or raw_root(dataset, configfile)
    with TemporaryDirectory() as temporary:
        listed = out or Path(temporary, "samples.jsonl")
        others = rejected or listed.with_name("rejected.jsonl")
        found = write_samples(facts, root, listed, others)
        shown = [] if out else read_rejected(others)
    expected = "" if found.expected is None else f" of {found.expected} expected"
    if found.expected is not None and found.samples > found.expected:
        expected += ", more than there should be: look for copies"
    typer.echo(f"{dataset}: {found.samples} samples{expected}, {found.rejected} rejected")
    for reason, count in sorted(found.set_aside.items()):
        typer.echo(f"  {count} are no samples by definition: {reason}")
    for row in shown:
        typer.echo(f"  rejected {row.line}")


def reader(dataset: str, options: str | None, configfile: list[Path] | None) -> Dataset:
    """The dataset with its options: as given, or by the configuration."""
    if options is None:
        return registry.load(dataset, dataset_settings(dataset, configfile).options)
    return registry.load(dataset, from_json(options, "--options"))


def extract(
    dataset: Name,
    shard: Annotated[int, typer.Argument(help="number of the shard, from 0")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="the shard to write")],
    of: Annotated[int | None, typer.Option(help="how many shards there are")] = None,
    raw: Raw = None,
    samples: Annotated[
        Path | None, typer.Option(dir_okay=False, help="the list of samples")
    ] = None,
    options: Json = None,
    features: Json = None,
    rejected: Annotated[
        Path | None, typer.Option(dir_okay=False, help="list of samples that failed")
    ] = None,
    configfile: ConfigFiles = None,
) -> None:
    """Decode the raw files of one shard and write their features."""
    # Before torch is loaded: the mean of a long clip has other last digits with each number of
    # threads, and the shard would not be the one that Snakemake, which sets one thread, makes.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    from amst.features.extract import extract_shard

    shards = of or dataset_settings(dataset, configfile).shards
    if not 0 <= shard < shards:
        raise AmstError(f"{dataset} has no shard {shard}", f"Its shards are 0 to {shards - 1}")
    done = extract_shard(
        reader(dataset, options, configfile),
        raw or raw_root(dataset, configfile),
        samples or RESULTS / "features" / dataset / "samples.jsonl",
        shard,
        shards,
        feature_settings(dataset, features, configfile),
        out,
        rejected or out.with_suffix(".rejected.jsonl"),
    )
    typer.echo(f"{out}: {done.samples} samples, {done.rejected} rejected")


def feature_settings(
    dataset: str, features: str | None, configfile: list[Path] | None
) -> dict[str, Features]:
    """Settings of the stored features: as given, or by the configuration."""
    if features is None:
        return grid.features_of(configuration(configfile), dataset)
    given = from_json(features, "--features")
    model: TypeAdapter[dict[str, Features]] = TypeAdapter(dict[str, Features])
    try:
        return model.validate_python(given)
    except ValidationError as error:
        raise told(error, dict[str, Features], "--features", given) from error


def manifest(
    dataset: Name,
    out: Annotated[Path, typer.Option(dir_okay=False, help="the manifest to write")],
    folder: Annotated[Path | None, typer.Option(help="folder of the dataset's features")] = None,
    shards: Annotated[int | None, typer.Option(help="how many shards there are")] = None,
    options: Json = None,
    features: Json = None,
    max_lost: Annotated[float | None, typer.Option(help="largest share of lost samples")] = None,
    configfile: ConfigFiles = None,
) -> None:
    """Verify all shards of a dataset and write the manifest that runs read."""
    from amst.features.verification import totals, write_manifest

    folder = folder or RESULTS / "features" / dataset
    if shards is None or max_lost is None:
        settings = dataset_settings(dataset, configfile)
        shards = settings.shards if shards is None else shards
        max_lost = settings.max_lost if max_lost is None else max_lost
    files = [folder / "shards" / f"{shard:03d}.h5" for shard in range(shards)]
    facts = reader(dataset, options, configfile)
    written = write_manifest(
        facts,
        feature_settings(dataset, features, configfile),
        folder / "samples.jsonl",
        files,
        [folder / "rejected.jsonl", *(file.with_suffix(".rejected.jsonl") for file in files)],
        out,
        max_lost,
    )
    typer.echo(totals(written, facts.expected_samples))


def split(
    dataset: Name,
    name: Annotated[str, typer.Argument(metavar="SPLIT", help="name of the split")],
    folder: Annotated[Path | None, typer.Option(help="folder of the dataset's features")] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="the split; not written unless given")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="seed of the split")] = None,
    lists: Annotated[
        Path | None, typer.Option(help="folder with the published lists; by config.yaml or fetched")
    ] = None,
    configfile: ConfigFiles = None,
) -> None:
    """Cut the samples of a dataset into train, val and test."""
    from amst.datasets.splitfile import write_split
    from amst.datasets.splits import leakage, make_split
    from amst.features.samples import read_rejected
    from amst.features.verification import read_all_samples

    folder = folder or RESULTS / "features" / dataset
    if seed is None or lists is None:
        settings = dataset_settings(dataset, configfile)
        seed = settings.split_seed if seed is None else seed
        lists = lists or Path(settings.lists or STAGED / "lists")
    rows = read_all_samples(folder / "samples.jsonl")
    made = make_split(
        name,
        registry.load(dataset),
        rows,
        seed,
        lists,
        read_rejected(folder / "rejected.jsonl"),
    )
    if out:
        write_split(out, made)
    sizes = ", ".join(f"{part} {len(ids)}" for part, ids in made.parts.items())
    typer.echo(f"{dataset}, split {name}: {sizes}")
    if made.note:
        typer.echo(f"  {made.note}")
    if missing := leakage(made, rows).missing_line:
        typer.echo(f"  without a sample: {missing}")


def data_report(
    dataset: Name,
    splits: Annotated[
        list[Path] | None, typer.Argument(dir_okay=False, help="splits to look for leaks in")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="folder of the dataset's features")] = None,
) -> None:
    """Describe a dataset: counts, classes per part, leaks, rejected samples, frames, spectra."""
    from amst.features.report import write_report

    folder = folder or RESULTS / "features" / dataset
    splits = splits or sorted((folder / "splits").glob("*.json"))
    write_report(registry.load(dataset), folder / "manifest.json", folder / "samples.jsonl", splits)
    typer.echo(f"{folder / 'report.html'}")
