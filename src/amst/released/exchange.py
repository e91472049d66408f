"""A released checkpoint as a folder that ``amst evaluate`` takes, and back.

The folder holds ``weights.safetensors`` under our names and ``import.json``, which has their
SHA-256: of an import that broke off, the two do not belong together.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor

from amst.config.run import RunSettings, Settings
from amst.datasets import registry
from amst.documents import read_document
from amst.errors import AmstError, unread
from amst.files import is_temporary, sha256_of, write_json
from amst.models.released import released_names
from amst.records import RECORD, WEIGHTS, RunRecord
from amst.released.arguments import DATASETS, UNIMODAL, arguments_of, method_of
from amst.released.files import ReleasedFile, read_file, saving, write_file
from amst.runs import IMPORT
from amst.training.assembly import build_method
from amst.training.checkpoint import load_weights

FORMAT: Literal[1] = 1


class Imported(Settings):
    """``import.json``: where weights come from and the settings that fit them.

    Attributes:
        file: name of the released checkpoint.
        sha256: of its bytes.
        weights_sha256: of ``weights.safetensors``; None in notes of earlier versions.
        args: its command line, by argument.
        epoch: of the weights, counted from 0.
        best_val_acc: as noted in it, of 1.
        best_test_acc: as noted in it; None in checkpoints of a single modality.
    """

    format: Literal[1] = FORMAT
    file: str
    sha256: str
    weights_sha256: str | None = None
    args: dict[str, Any]
    epoch: int
    best_val_acc: float
    best_test_acc: float | None
    classes: tuple[str, ...]
    settings: RunSettings


def import_checkpoint(
    path: Path,
    resolve: Callable[[Mapping[str, Any]], RunSettings],
    out: Path | None,
    below: Path,
    dataset: str | None = None,
    method: str | None = None,
) -> tuple[Imported, Path]:
    """Take over a released checkpoint.

    Args:
        path: the file.
        resolve: settings of a command line under the configuration.
        out: folder to write; named after the run, below ``below``, if None.
        below: where folders without a name of their own go.
        dataset: expected dataset; any if None.
        method: expected method; any if None.

    Returns:
        What ``import.json`` says, and the folder.

    Raises:
        AmstError: the file is no released checkpoint, one of another dataset or method, or its
            tensors are not those of the run that it says it is of.
    """
    found = read_file(path)
    _expect("dataset", str(found.args.get("dataset")), dataset)
    _expect("method", method_of(found.args), method)
    if found.args.get("dataset") not in DATASETS:
        raise AmstError(
            f"the checkpoint is of the unknown dataset {found.args.get('dataset')!r}",
            f"Known datasets: {', '.join(DATASETS)}",
        )
    settings = resolve(found.args)
    weights = _fitted(found.model, settings)
    facts: dict[str, Any] = {
        "file": os.fsencode(path.name).decode(errors="replace"),
        "sha256": sha256_of(path),
        "args": _plain(found.args),
        "epoch": found.epoch,
        "best_val_acc": found.best_val_acc,
        "best_test_acc": found.best_test_acc,
        "classes": registry.load(settings.dataset).classes,
        "settings": settings,
    }
    folder = out or below / settings.run_id
    if (folder / RECORD).exists():
        raise AmstError(f"{folder} holds a run of your own", "Give another folder by --out")
    for left in folder.glob(f".{WEIGHTS}.*"):
        if is_temporary(left):  # of an import that was killed
            left.unlink()
    with saving(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
        imported = Imported(**facts, weights_sha256=sha256_of(temporary))
        # before the weights have their name: notes of earlier versions do not tell whose they are
        write_json(folder / IMPORT, imported.model_dump(mode="json"))
    return imported, folder


def read_import(folder: Path) -> Imported:
    """Read ``import.json`` of a folder.

    Raises:
        AmstError: it is damaged or of another format version.
    """
    path, remedy = folder / IMPORT, "Import the checkpoint again"
    return read_document(path, Imported, "note of an import", remedy)


def weights_of(folder: Path, imported: Imported) -> Path:
    """The weights of an import.

    Raises:
        AmstError: they are not those that its ``import.json`` tells of.
    """
    path, remedy = folder / WEIGHTS, f"Import {imported.file} again"
    fault = f"is not what {IMPORT} beside it tells of: an import broke off, or it was changed"
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise unread(path, error, fault, remedy) from error
    if imported.weights_sha256 not in (None, digest):
        raise AmstError(f"{path} {fault}", remedy)
    return path


def export_import(folder: Path, path: Path) -> None:
    """Write the checkpoint that a folder was imported from: the same tensors and numbers."""
    imported = read_import(folder)
    _export(
        path,
        imported.settings,
        load_weights(weights_of(folder, imported)),
        ReleasedFile(
            {}, imported.args, imported.epoch, imported.best_val_acc, imported.best_test_acc
        ),
    )


def export_run(record: RunRecord, weights: Path, path: Path) -> None:
    """Write the weights of a finished run as the released code would have saved them.

    Args:
        record: of the run.
        weights: its ``weights.safetensors``.
        path: the file to write.

    Raises:
        AmstError: the released code has no model like it.
    """
    selected = next(
        row for row in record.results if (row.selected_by, row.prediction) == (record.main,) * 2
    )
    _export(
        path,
        record.settings,
        load_weights(weights),
        ReleasedFile(
            {},
            arguments_of(record.settings),
            selected.best_epoch,
            record.metrics(record.main, "val").accuracy,
            record.metrics(record.main, "test").accuracy,
        ),
    )


def _export(
    path: Path, settings: RunSettings, weights: Mapping[str, Tensor], head: ReleasedFile
) -> None:
    names = _names(weights, settings)
    model = {names[ours]: value for ours, value in weights.items()}
    content = ReleasedFile(model, head.args, head.epoch, head.best_val_acc, head.best_test_acc)
    write_file(path, content, unimodal=settings.method == UNIMODAL)


def _names(weights: Mapping[str, Tensor], settings: RunSettings) -> dict[str, str]:
    """Our name of each weight -> the released one."""
    kinds = {name: modality.kind for name, modality in settings.modalities.items()}
    return released_names(weights, kinds, unimodal=settings.method == UNIMODAL)


def _fitted(model: Mapping[str, Tensor], settings: RunSettings) -> dict[str, Tensor]:
    """The tensors under our names.

    Raises:
        AmstError: they are not those of the method on the dataset.
    """
    classes = len(registry.load(settings.dataset).classes)
    own = build_method(settings, classes, vocabulary=None).weights()
    names = _names(own, settings)
    for ours, theirs in names.items():
        if "head.classifier" in ours and theirs in model and len(model[theirs]) != classes:
            raise AmstError(
                f"the checkpoint tells {len(model[theirs])} classes apart, {settings.dataset} has "
                f"{classes}"
            )
    lacking = sorted(set(names.values()) - model.keys())
    foreign = sorted(model.keys() - set(names.values()))
    unfit = sorted(
        theirs
        for ours, theirs in names.items()
        if theirs in model and _form(model[theirs]) != _form(own[ours])
    )
    for tensors, what in (
        (lacking, "lacks"),
        (foreign, "has superfluous"),
        (unfit, "has misshapen"),
    ):
        if tensors:
            raise AmstError(
                f"the checkpoint {what} tensors for {settings.method} on {settings.dataset}: "
                f"{len(tensors)}, {tensors[0]!r} among them",
                "The encoders configured for the dataset must be the released ones",
            )
    return {ours: model[theirs].clone().contiguous() for ours, theirs in names.items()}


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.layout, tensor.device.type


def _expect(what: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise AmstError(f"the checkpoint is of {what} {found}, not of {expected}")


def _plain(args: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(args, allow_nan=False, ensure_ascii=False)
        return dict(json.loads(text.encode()))
    except (TypeError, ValueError, RecursionError) as error:
        raise AmstError(f"args of the checkpoint hold more than plain values ({error})") from error
