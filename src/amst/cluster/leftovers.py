"""What lies in a working folder and no run of the configuration needs."""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amst import grid
from amst.cluster.image import PART, noted_at
from amst.config.run import RunSettings
from amst.files import is_temporary, sizes_below
from amst.grid.last_call import LastCall
from amst.provenance import present_digest
from amst.records import RECORD
from amst.training.kept import KEPT
from amst.training.state import StateName, state_of

_DAY = 86_400


@dataclass(frozen=True)
class Leftover:
    """Something that can go.

    Attributes:
        kind: 'checkpoints' of no use to any run; 'parts' of files; 'unfinished' and 'runs', which
            the configuration does not know and that of another call may; 'features' or 'images'.
        why: in some words.
        size: bytes, everything below it.
        run: what run it is of; empty where it is of none.
        state: of that run, when it was looked at.
    """

    kind: str
    path: Path
    why: str
    size: int
    run: str = ""
    state: StateName = "missing"

    def remove(self, results: Path) -> bool:
        """Delete it, unless its run has begun or ended since; whether it was deleted.

        Args:
            results: folder that the workflow writes to.
        """
        unfinished = ("missing", "failed")  # the one becomes the other with what is removed first
        now = state_of(results, self.run).name if self.run else self.state
        if now != self.state and not {now, self.state} <= set(unfinished):
            return False
        while self.path.is_dir():
            with suppress(FileNotFoundError):  # another call deletes, too
                shutil.rmtree(self.path)
        self.path.unlink(missing_ok=True)
        if self.kind == "images":
            noted_at(self.path).unlink(missing_ok=True)
        return True


def leftovers(config: grid.Config, results: Path, images: Path, current: str) -> list[Leftover]:
    """Everything that no run needs, of the configuration or of the last call.

    What is running is never among it, nor what another working folder may need (``shared``).

    Args:
        config: the configuration.
        results: folder that the workflow writes to.
        images: folder of built images.
        current: name of the image that the definition asks for.
    """
    last = LastCall.of(results)
    runs = {cell.run for cell in grid.cells(config)} | set(last.runs)
    found = [*_checkpoints(config, results, last), *_parts(results), *_runs(results, runs)]
    found += _features(config, results, last)
    if not images.is_symlink():
        found += _images(images, current)
    return found


def _images(images: Path, current: str) -> Iterator[Leftover]:
    for image in sorted(images.glob("amst-*.sif")):
        if image.name != current:
            yield _leftover("images", image, "of another definition or other packages")
    for part in sorted(images.glob(f"amst-*.sif*{PART}")):
        if part.stat().st_mtime < time.time() - _DAY:
            yield _leftover("images", part, "of a build that was killed")


def shared(results: Path, images: Path) -> list[Path]:
    """Links to features and images: as a second working folder uses those of the first.

    Args:
        results: folder that the workflow writes to.
        images: folder of built images.
    """
    features = results / "features"
    places = [features, *sorted(features.glob("*")), images]
    return [path for path in places if path.is_symlink()]


def _leftover(
    kind: str, path: Path, why: str, run: str = "", state: StateName = "missing"
) -> Leftover:
    size = path.stat().st_size if path.is_file() else sum(sizes_below(path))
    return Leftover(kind, path, why, size, run, state)


def _names(folder: Path) -> Iterator[str]:
    """Names of runs below a folder: dataset/split/variant/seed<k>."""
    for path in sorted(folder.glob("*/*/*/seed*")):
        if path.is_dir():
            yield path.relative_to(folder).as_posix()


def _checkpoints(config: grid.Config, results: Path, last: LastCall) -> Iterator[Leftover]:
    runs = {cell.run: cell for cell in grid.cells(config)}
    resolve = grid.Resolver(config)
    folder = results / "checkpoints"
    for name in _names(folder):
        state = state_of(results, name).name
        inside = sorted((folder / name).iterdir())
        if state == "running" or not inside:
            continue
        own = resolve.hash(runs[name]) if name in runs else ""
        if state == "done" and (folder / name / KEPT).exists():
            # second names of the run's own files take no space, and a call that lives may need them
            for path in inside:
                if path.name != KEPT:
                    yield _leftover("checkpoints", path, "the run is done", name, state)
        elif state == "done":
            yield _leftover("checkpoints", folder / name, "the run is done", name, state)
        elif last.runs.get(name, own) != own:
            continue  # the last call's settings may be those that it continues with
        elif name in runs:
            owner = results / "features" / grid.features_owner(config, runs[name].dataset)
            yield from _others(folder / name, resolve(runs[name]), owner, name, state)
        elif (folder / name / KEPT / RECORD).is_file():
            # a killed call had not seen its end: there is no other copy
            why = "no run of this configuration, and finished"
            yield _leftover("runs", folder / name, why, name, state)
        else:
            why = "no run of this configuration"
            yield _leftover("unfinished", folder / name, why, name, state)


def _others(
    run: Path, settings: RunSettings, features: Path, name: str, state: StateName
) -> Iterator[Leftover]:
    """Checkpoints of other settings, code or data: a run continues only from its own.

    Where its own are not there, the newest stay: settings or code may yet go back to them.
    """
    versions = [path for path in run.iterdir() if path.is_dir() and any(path.glob("epoch-*.pt"))]
    if len(versions) < 2:
        return
    digest = present_digest(settings, features)
    newest = max(versions, key=lambda path: path.stat().st_mtime)
    own = run / digest
    for path in sorted(versions):
        if path != (own if own in versions else newest):
            yield _leftover("checkpoints", path, "of other settings, code or data", name, state)


def _parts(results: Path) -> Iterator[Leftover]:
    """What killed steps were writing; runs and their checkpoints remove such files themselves."""
    folders = [results / name for name in ("features", "tables", "figures")]
    own = [folder for folder in folders if not folder.is_symlink()]
    found = {*results.glob(".*"), *(path for folder in own for path in folder.rglob(".*"))}
    for path in sorted(filter(is_temporary, found)):
        if path.is_file() and path.stat().st_mtime < time.time() - _DAY:
            yield _leftover("parts", path, "of a step that was killed")


def _runs(results: Path, runs: set[str]) -> Iterator[Leftover]:
    for name in _names(results / "runs"):
        if name in runs:
            continue
        state = state_of(results, name).name
        if state != "running":
            path = results / "runs" / name
            yield _leftover("runs", path, "no run of this configuration", name, state)


def _features(config: grid.Config, results: Path, last: LastCall) -> Iterator[Leftover]:
    needed = {grid.features_owner(config, name) for name in config.grid.datasets}
    needed |= last.features
    features = results / "features"
    for path in [] if features.is_symlink() else sorted(features.glob("*")):
        if path.is_dir() and not path.is_symlink() and path.name not in needed:
            yield _leftover("features", path, "of no dataset of the grid")
