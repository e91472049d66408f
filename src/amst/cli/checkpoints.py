"""Evaluating runs and checkpoints, and exchanging checkpoints with the released code."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from amst import grid
from amst.cli.configuration import RESULTS, ConfigFiles, Results, configuration, dataset_settings
from amst.cli.runs import execution_of, run_settings
from amst.config.execution import Device
from amst.config.run import RunSettings
from amst.datasets.base import Part
from amst.errors import AmstError
from amst.records import RECORD, WEIGHTS, Metrics, RunRecord, read_record
from amst.runs import IMPORT, data_of, folder_of, not_there, results_of, told_of_data


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (evaluate, import_checkpoint, export_checkpoint):
        app.command(rich_help_panel="Runs")(command)


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        name: for the reader.
        settings: choose the method, its encoders and the dataset.
        weights: file of weights.
        record: of a run.
        features: folder with those of every dataset.
    """

    name: str
    settings: RunSettings
    weights: Path
    record: RunRecord | None
    features: Path


@dataclass(frozen=True)
class Findings:
    """What an evaluation shows, however it was made.

    Attributes:
        differences: lines on values that are not those of ``run.json``; None where nothing was
            compared.
    """

    name: str
    part: str
    samples: int
    main: str
    metrics: Mapping[str, Metrics]
    subset_accuracy: Mapping[str, float]
    shapley: Mapping[str, float]
    differences: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain values, shares as fractions of 1."""
        values = {name: each.model_dump() for name, each in self.metrics.items()}
        shown = asdict(self) | {"metrics": values}
        if self.differences is None:
            del shown["differences"]
        return shown


def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a run, or a folder of import-checkpoint")
    ] = "",
    part: Annotated[Part, typer.Option(help="which part")] = "test",
    weights: Annotated[
        Path | None,
        typer.Option(help="other weights: a file for RUN, or a folder of import-checkpoint"),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(dir_okay=False, help="another manifest of the dataset")
    ] = None,
    split: Annotated[Path | None, typer.Option(dir_okay=False, help="another split file")] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="write the logits here (.npz)")
    ] = None,
    from_predictions: Annotated[
        bool,
        typer.Option(
            "--from-predictions",
            help="compute from the run's stored predictions and compare with its record",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON with all metrics")] = False,
    device: Annotated[Device, typer.Option(help="where to compute")] = "auto",
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Evaluate a run or checkpoint: every prediction, every subset of modalities, all metrics."""
    if from_predictions:
        if part == "train" or any((weights, manifest, split, out)):
            raise AmstError(
                "--from-predictions reads the stored predictions of a run on val and test",
                "Leave out --weights, --manifest, --split and --out, and --part train",
            )
        found = _from_predictions(run, part, results, configfile)
    else:
        subject = subject_of(run, weights, results, configfile)
        data = _data_of(subject, manifest, split, configfile)
        if subject.record and (
            told := told_of_data(subject.record, subject.features, data, [part])
        ):
            typer.echo(told, err=True)
        found = _from_weights(subject, *data, device, part, out)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2, sort_keys=True))
    else:
        _show(found)
    if found.differences:
        raise AmstError(
            f"{len(found.differences)} values of {found.name} are not those of its run.json",
            "One of its files was changed after the run",
        )


def subject_of(
    run: str, weights: Path | None, results: Path, configfile: list[Path] | None
) -> Subject:
    """What a run's name or folder, and other weights for it, stand for.

    Raises:
        AmstError: there is no such run, and no weights either.
    """
    if not run and weights is None:
        raise AmstError(
            "nothing to evaluate", "Name a run or a folder of import-checkpoint, or give --weights"
        )
    name = run or str(weights)
    folder = folder_of(name, results)
    if weights is not None and weights.is_dir():
        weights = _weights_in(weights)
    if folder is not None:
        return _subject_in(folder, name, weights, results)
    if not run:
        raise AmstError(
            f"{name} does not say which run it is of", "Name the run besides, or the whole folder"
        )
    if weights is None:
        planned = _planned(configfile)
        raise not_there(run, results, planned, "give other weights by --weights")
    return Subject(run, run_settings(run, None, configfile), weights, None, results / "features")


def _subject_in(folder: Path, name: str, weights: Path | None, results: Path) -> Subject:
    weights = weights or _weights_in(folder)
    if (folder / RECORD).is_file():
        record = read_record(folder / RECORD)
        where = results_of(folder, record, results) / "features"
        return Subject(name, record.settings, weights, record, where)
    from amst.released.exchange import read_import

    return Subject(name, read_import(folder).settings, weights, None, results / "features")


def _weights_in(folder: Path) -> Path:
    """The weights in a folder, which those of an import are only where its note says so."""
    if not (folder / IMPORT).is_file():
        return folder / WEIGHTS
    from amst.released.exchange import read_import, weights_of

    return weights_of(folder, read_import(folder))


def _planned(configfile: list[Path] | None) -> Collection[str]:
    """The runs of the grid; none where the configuration cannot be read."""
    with suppress(AmstError):
        return [cell.run for cell in grid.cells(configuration(configfile))]
    return ()


def _data_of(
    subject: Subject, manifest: Path | None, split: Path | None, configfile: list[Path] | None
) -> tuple[Path, Path]:
    """Manifest and split file: as given, else the run's own, else those of its dataset."""
    if manifest and split:
        return manifest, split
    own = subject.record and data_of(subject.record, subject.features)
    if not own:
        owner = subject.settings.dataset
        if Path("config.yaml").is_file():
            owner = dataset_settings(owner, configfile).shares or owner
        folder = subject.features / owner
        own = folder / "manifest.json", folder / "splits" / f"{subject.settings.split}.json"
    return manifest or own[0], split or own[1]


def _from_weights(
    subject: Subject, manifest: Path, split: Path, device: Device, part: Part, out: Path | None
) -> Findings:
    from amst.training.evaluate import evaluate as evaluate_weights

    execution = execution_of(subject.settings, {"device": device})
    found = evaluate_weights(
        subject.settings, subject.weights, manifest, split, execution, part, out
    )
    return Findings(
        subject.name,
        part,
        len(found.predictions.labels),
        found.main,
        found.metrics,
        found.subset_accuracy,
        found.shapley,
    )


def _from_predictions(
    run: str, part: Part, results: Path, configfile: list[Path] | None
) -> Findings:
    from amst.results.recomputed import recompute

    if not run:
        raise AmstError("nothing to evaluate", "Name a finished run")
    folder = folder_of(run, results)
    if folder is None or not (folder / RECORD).is_file():
        raise not_there(run, results, _planned(configfile))
    found = recompute(folder)
    main = found.record.main
    metrics = {
        _shown_name(prediction, selected_by, main): each
        for (selected_by, prediction, on), each in sorted(found.metrics.items())
        if on == part
    }
    return Findings(
        run,
        part,
        found.samples[part],
        main,
        metrics,
        found.subset_accuracy if part == "test" else {},
        found.shapley if part == "test" else {},
        found.differences,
    )


def _shown_name(prediction: str, selected_by: str, main: str) -> str:
    if selected_by == main:
        return prediction
    whose = "its own epoch" if prediction == selected_by else f"epoch of {selected_by}"
    return f"{prediction} ({whose})"


def _show(found: Findings) -> None:
    typer.echo(f"{found.name}, {found.part}, {found.samples} samples")
    wide = max(len(name) for name in found.metrics)
    for name, metrics in sorted(found.metrics.items(), key=lambda row: row[0] != found.main):
        typer.echo(
            f"  {name:<{wide}}  accuracy {100 * metrics.accuracy:5.1f} %  "
            f"macro-F1 {100 * metrics.macro_f1:5.1f} %  "
            f"mAP {100 * metrics.mean_average_precision:5.1f} %  "
            f"cross-entropy {metrics.cross_entropy:.3f}  "
            f"confidence {100 * metrics.confidence_correct:5.1f} %  "
            f"calibration error {100 * metrics.calibration_error:4.1f} %"
        )
    for names, accuracy in sorted(found.subset_accuracy.items()):
        typer.echo(f"  from {names}: accuracy {100 * accuracy:.1f} %")
    for name, contribution in sorted(found.shapley.items()):
        typer.echo(f"  contribution of {name}: {100 * contribution:+.1f} points (Shapley)")
    if found.differences is not None:
        typer.echo("  differs from run.json:" if found.differences else "  equal to run.json")
        for line in found.differences:
            typer.echo(f"    {line}")


def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="best_model.pth")],
    dataset: Annotated[str | None, typer.Option(help="refuse any other dataset")] = None,
    method: Annotated[str | None, typer.Option(help="refuse any other method")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder; below results/imported unless given")
    ] = None,
    results: Results = RESULTS,
    configfile: ConfigFiles = None,
) -> None:
    """Take over a checkpoint of the code released with the AMST paper, for `amst evaluate`."""
    from amst.released import arguments, exchange

    config = configuration(configfile)

    def resolve(args: Mapping[str, Any]) -> RunSettings:
        name = str(args["dataset"])
        if name not in config.datasets:
            raise AmstError(f"the configuration has no dataset {name!r}", "Add it to config.yaml")
        modalities = grid.modalities_of(config, name)
        width = grid.embedding_of(config, name)
        return arguments.settings_of(args, modalities, width, config.arithmetic)

    found, folder = exchange.import_checkpoint(
        file, resolve, out, results / "imported", dataset, method
    )
    tested = "" if found.best_test_acc is None else f", test {100 * found.best_test_acc:.1f} %"
    typer.echo(
        f"{folder}: {found.settings.variant} on {found.settings.dataset}, epoch {found.epoch}; "
        f"accuracy noted in the file: val {100 * found.best_val_acc:.1f} %{tested}"
    )


def export_checkpoint(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a finished run, or a folder of import-checkpoint")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="the file to write")],
    results: Results = RESULTS,
) -> None:
    """Write weights as a checkpoint that the code released with the AMST paper reads."""
    from amst.released.exchange import export_import, export_run

    folder = folder_of(run, results)
    if folder is None:
        raise not_there(run, results, (), "import a checkpoint")
    if (folder / IMPORT).is_file():
        export_import(folder, file)
    else:
        export_run(read_record(folder / RECORD), folder / WEIGHTS, file)
    typer.echo(f"{file}")
