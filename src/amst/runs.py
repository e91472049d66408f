"""A finished run by its name or folder, and the data that it was trained on."""

import difflib
from collections.abc import Collection
from pathlib import Path

from amst.datasets.base import Part
from amst.datasets.splitfile import read_split
from amst.errors import AmstError
from amst.records import RECORD, RunRecord
from amst.training.state import run_digest, state_of


def folder_of(run: str, results: Path) -> Path | None:
    """Folder of a finished run or an imported checkpoint; None if there is none."""
    for folder in (results / "runs" / run, Path(run)):
        if run and any((folder / name).is_file() for name in (RECORD, "import.json")):
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
