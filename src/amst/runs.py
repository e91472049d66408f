"""A finished run by its name or folder: ``from amst.runs import open_run`` rebuilds its model.

Imports torch only where a model is built.
"""

import difflib
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from amst.config.execution import Device
from amst.datasets.base import Part
from amst.datasets.splitfile import read_split
from amst.errors import AmstError
from amst.records import RECORD, WEIGHTS, RunRecord, read_record
from amst.training.state import run_digest, state_of

if TYPE_CHECKING:
    from amst.training.assembly import Assembly

IMPORT = "import.json"
"""In a folder of ``amst import-checkpoint``: where its weights come from."""


def open_run(
    run: str | Path,
    results: Path | str = "results",
    *,
    manifest: Path | str | None = None,
    split: Path | str | None = None,
    device: Device = "auto",
) -> "Assembly":
    """A finished run: its method with the weights of the best epoch, in evaluation mode, its data.

    Sets the arithmetic of this process as training did. Data that are not those of the run are told
    on standard error.

    Args:
        run: dataset/split/variant/seed<k>, or the run's folder.
        results: folder with ``runs`` and ``features``; of a run that is given by its folder the one
            that it lies in.
        manifest: another manifest than the run's.
        split: another split file than the run's.
        device: 'auto', 'cpu' or 'cuda'.

    Raises:
        AmstError: there is no such run or device, a file is missing or damaged, or there is no
            GPU for 'cuda'.
    """
    from amst.training.assembly import assemble
    from amst.training.checkpoint import load_weights
    from amst.training.execution import Execution

    if device not in get_args(Device):
        raise AmstError(
            f"{str(device)!r} is no device that a run is opened on",
            f"Valid names: {', '.join(get_args(Device))}",
        )
    name, results = str(run), Path(results)
    folder = folder_of(name, results)
    if folder is None or not (folder / RECORD).is_file():
        raise not_there(name, results)
    record = read_record(folder / RECORD)
    features = results_of(folder, record, results) / "features"
    own = data_of(record, features) or _files(features / record.settings.dataset, record)
    used = Path(manifest or own[0]), Path(split or own[1])
    if told := told_of_data(record, features, used, ("val", "test")):
        print(told, file=sys.stderr, flush=True)
    opened = assemble(record.settings, *used, Execution(device=device))
    opened.method.load_weights(load_weights(folder / WEIGHTS))
    opened.method.eval()
    return opened


def folder_of(run: str, results: Path) -> Path | None:
    """Folder of a finished run or an imported checkpoint; None if there is none."""
    for folder in (results / "runs" / run, Path(run)):
        if run and any((folder / name).is_file() for name in (RECORD, IMPORT)):
            return folder
    return None


def not_there(run: str, results: Path, planned: Collection[str] = (), other: str = "") -> AmstError:
    """The error for a run that has no record.

    Args:
        run: as it was named.
        results: folder with ``runs``.
        planned: names of runs that may still be trained.
        other: what else can be done about it.
    """
    run = run.rstrip("/").removeprefix(f"{results / 'runs'}/")
    where = Path(run) if Path(run).is_dir() else results / "runs" / run
    if run in planned or state_of(results, run).name != "missing":
        remedy = "The run has not finished: `amst status` says how far it is"
    else:
        folders = (path.parent for path in (results / "runs").glob(f"*/*/*/*/{RECORD}"))
        done = {folder.relative_to(results / "runs").as_posix() for folder in folders}
        close = difflib.get_close_matches(run, sorted(done.union(planned)), n=1, cutoff=0.5)
        remedy = f"Did you mean {close[0]}?" if close else "Name a run as below results/runs"
    told = f"there is no {where / RECORD}"
    return AmstError(told, f"{remedy}{f', or {other}' if other else ''}")


def results_of(folder: Path, record: RunRecord, results: Path) -> Path:
    """The folder with runs and features that a run lies in; ``results`` where it lies in none."""
    if folder.absolute().parts[-5:] != ("runs", *record.settings.run_id.split("/")):
        return results
    own = (folder if len(folder.parts) >= 5 else folder.absolute()).parents[4]
    return own if (own / "features").is_dir() else results


def data_of(record: RunRecord, features: Path) -> tuple[Path, Path] | None:
    """Manifest and split file that a run was trained on; None where they are not there any more.

    Found by the run's digest, so that no configuration has to say whose features a dataset shares.

    Args:
        record: of the run.
        features: folder with those of every dataset.
    """
    for manifest in sorted(features.glob("*/manifest.json")):
        files = _files(manifest.parent, record)
        if _trained_on(record, *files):
            return files
    return None


def told_of_data(
    record: RunRecord, features: Path, used: tuple[Path, Path], parts: Collection[Part]
) -> str:
    """One line on data that are not those of a run; empty where they are, or are not there.

    Args:
        record: of the run.
        features: folder with those of every dataset.
        used: manifest and split file that the run is evaluated on.
        parts: what is evaluated.
    """
    if not all(file.is_file() for file in used) or _trained_on(record, *used):
        return ""
    where = " and ".join(map(str, used))
    own = data_of(record, features)
    met = _met_in_training(own[1], used[1], parts) if own else "its samples may be training samples"
    return f"{record.run} was trained on other shards or another split than {where}: {met}"


def _files(folder: Path, record: RunRecord) -> tuple[Path, Path]:
    return folder / "manifest.json", folder / "splits" / f"{record.settings.split}.json"


def _trained_on(record: RunRecord, manifest: Path, split: Path) -> bool:
    made = record.environment
    parts = record.settings_hash, made.code_digest, made.package_digest
    return record.digest == run_digest(*parts, manifest, split)


def _met_in_training(own: Path, used: Path, parts: Collection[Part]) -> str:
    trained, now = set(read_split(own).parts["train"]), read_split(used).parts
    met = {part: sum(sample in trained for sample in now[part]) for part in parts}
    shares = [f"{met[part]} of {len(now[part])} samples of part {part}" for part in parts]
    return f"it was trained on {' and '.join(shares)}"
