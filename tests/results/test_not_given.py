"""A file whose disk does not give it is not damaged: nobody is told to delete it."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amst import files
from amst.cluster.leftovers import leftovers
from amst.config.settings import Config
from amst.errors import AmstError, HostError
from amst.features.manifest import read_manifest
from amst.features.samples import read_samples
from amst.files import sha256_of
from amst.grid import read_config
from amst.grid.adoptions import Adoptions
from amst.grid.reading import read_yaml
from amst.records import read_record
from amst.results.comparison import rows_of
from amst.results.expected import expected_runs
from amst.results.histories import read_history
from amst.results.predictions import read_predictions

ROOT = Path(__file__).parents[2]
REFUSING = Path("/proc/self/mem")
"""Opens, and has nothing at its start: reading it is an input/output error."""
GONE = r"cannot be read \(Input/output error\)\. Call again; where that stays so, mend its"


@pytest.fixture
def run(make, plan):
    (made,) = make(plan)
    return made


def refuse(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(REFUSING)


@pytest.mark.parametrize("read", [read_record, read_manifest, read_predictions, read_samples])
def test_no_reader_takes_it_for_damaged(read: Callable[[Path], object], tmp_path: Path):
    refuse(tmp_path / "file")
    with pytest.raises(HostError, match=f"file {GONE}"):
        read(tmp_path / "file")
    with pytest.raises(AmstError) as told:
        read(tmp_path / "none")
    assert not isinstance(told.value, HostError)


@pytest.mark.parametrize("use", [3, 6, 9])
def test_predictions_are_not_called_damaged_for_a_later_read_that_fails(run, monkeypatch, use):
    """zipfile says that a file is none of its own when the disk does not give its end."""
    left = iter(range(use))

    class Failing(files._Disk):
        @contextmanager
        def _noting(self) -> Iterator[None]:
            with super()._noting():
                if next(left, None) == use - 1:
                    raise OSError(errno.EIO, "Input/output error")
                yield

    monkeypatch.setattr(files, "_Disk", Failing)
    predictions = run.path.with_name("predictions.npz")
    with pytest.raises(HostError, match=rf"predictions\.npz {GONE}"):
        read_predictions(predictions)
    assert read_predictions(predictions)


def test_a_run_is_not_to_be_deleted_for_its_history(run):
    history = run.path.with_name("history.csv")
    refuse(history)
    with pytest.raises(HostError, match=rf"history\.csv {GONE}"):
        read_history(history, read_record(run.path).settings)


@pytest.mark.parametrize("read", [sha256_of, read_yaml, rows_of])
def test_the_file_is_named_by_what_tells_no_more(read: Callable[[Path], object], tmp_path: Path):
    refuse(tmp_path / "file")
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path / 'file'}'"):
        read(tmp_path / "file")


def test_tables_of_all_runs_stop_at_it_and_those_of_some_go_without_the_run(run, plan):
    results, wanted = plan.root.parent, {run.id: read_record(run.path).settings_hash}
    refuse(run.path)
    with pytest.raises(HostError, match=rf"run\.json {GONE}"):
        expected_runs(wanted, {"naive": "naive"}, results)
    (found,) = expected_runs(wanted, {"naive": "naive"}, results, partial=True)
    assert found.state == "damaged"
    assert "Delete" not in found.why


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    return read_config(Path("config.yaml"))


def test_nothing_is_a_leftover_while_the_runs_of_the_last_call_are_not_known(config: Config):
    refuse(Path("results/grid.json"))
    with pytest.raises(HostError, match=rf"results/grid\.json {GONE}"):
        leftovers(config, Path("results"), Path("containers"), "")


def test_an_adopted_run_is_not_trained_anew_for_it(run, plan):
    results = plan.root.parent
    adoptions = Adoptions(results)
    adoptions.add(run.id, "made", "now")
    run.path.with_name("weights.safetensors").touch()
    refuse(run.path)
    with pytest.raises(HostError, match=rf"run\.json {GONE}"):
        adoptions.made_by(run.id, "", "now", (results / "none", results / "none"))
