import errno
import resource
import signal
from collections import Counter, OrderedDict, deque
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from amst import files
from amst.errors import AmstError, HostError
from amst.training import checkpoint
from amst.training.checkpoint import CheckpointFolder, load_weights
from amst.training.signals import SAVED


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "digest")


def _state(value, weights=()):
    return {
        "value": torch.full((3,), float(value)),
        "weights": dict(weights),
        "rows": [(("a", "b"), value)],
    }


def _spoil(path, offset=-200):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def test_the_newest_state_comes_back(folder):
    assert folder.load() is None
    folder.save(0, 2, _state(1))
    folder.save(0, 10, _state(2))
    found = folder.load()
    assert found["value"].tolist() == [2, 2, 2]
    assert found["rows"] == [(("a", "b"), 2)]
    assert folder.progress() == (0, 10)


def test_whatever_is_data_comes_back(folder):
    kinds = [1, 0.5, 1j, "a", b"a", bytearray(b"a"), True, None, torch.float32, torch.device("cpu")]
    held = [*kinds, (1, 2), {3}, Counter("aab"), OrderedDict(a=1), torch.Size([2])]
    folder.save(0, 0, _state(1) | {"held": held})
    assert folder.load()["held"] == held


@pytest.mark.parametrize("value", [deque([1]), np.float64(0.5), np.zeros(2), {"a": [object()]}])
def test_what_could_not_be_read_again_is_refused_at_once(folder, value):
    state = _state(1) | {"method": {"seen": [value]}}
    with pytest.raises(
        AmstError, match=r"a checkpoint cannot hold a [\w.]+ \(method\.seen"
    ) as told:
        folder.save(0, 0, state)
    assert "state_dict" in str(told.value)
    assert folder.load() is None


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_an_error_of_the_gpu_is_not_told_as_one_of_the_disk(folder, monkeypatch, kind):
    """The first that waits for a GPU may be the writing of a checkpoint."""

    def fails(*_):
        raise kind("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(kind, match="ECC"):
        folder.save(1, 0, _state(1))
    assert folder.load() is None


@pytest.fixture
def full_disk():
    """No file may grow beyond 1 KB, which Python meets as an error of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_is_refused_is_named_once(folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(HostError, match=r"pt cannot be written \(Disk quota exceeded\)\. Make"):
        folder.save(1, 0, _state(1))


def test_a_disk_that_takes_no_more_is_told_in_one_line(folder, full_disk):
    with pytest.raises(HostError, match=r"epoch-0001-.*pt cannot be written \(.+\)\. Make"):
        folder.save(1, 0, {"value": torch.zeros(10_000)} | _state(1))
    with pytest.raises(HostError, match=r"weights-0001.* cannot be written \(.+\)\. Make"):
        folder.save_weights(1, {"a": torch.zeros(10_000)})
    assert list(folder.path.iterdir()) == [], "nothing half written"


def test_the_two_newest_states_are_kept(folder):
    for epoch in range(4):
        folder.save(epoch, 0, _state(epoch))
    assert [path.name for path in sorted(folder.path.iterdir())] == [
        "epoch-0002-batch-000000.pt",
        "epoch-0003-batch-000000.pt",
    ]


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "format"])
def test_a_damaged_state_is_named_and_the_one_before_is_used(folder, capsys, damage):
    folder.save(0, 0, _state(1))
    newest = folder.save(1, 0, _state(2))
    if damage == "bit":
        with_tensor = newest.read_bytes().index(torch.full((3,), 2.0).numpy().tobytes())
        _spoil(newest, with_tensor)
    elif damage == "format":
        torch.save({**_state(2), "format": 99}, newest)
    else:
        newest.write_bytes(newest.read_bytes()[: 300 if damage == "cut" else 0])
    assert folder.load()["value"].tolist() == [1, 1, 1]
    assert f"{newest} is damaged" in capsys.readouterr().err
    assert not newest.exists()


def test_what_a_killed_writer_left_goes_when_the_next_one_begins(folder):
    folder.save(0, 0, _state(1))
    for name in (".epoch-0001-batch-000000.pt.abc.pt", ".weights-0001.safetensors.abc.safetensors"):
        (folder.path / name).write_bytes(b"half")
    assert folder.load()["value"].tolist() == [1, 1, 1]
    assert [path.name for path in folder.path.iterdir()] == ["epoch-0000-batch-000000.pt"]


def test_when_all_states_are_damaged_the_run_starts_anew(folder):
    for epoch in range(2):
        folder.save(epoch, 0, _state(epoch)).write_bytes(b"nonsense")
    assert folder.load() is None
    assert folder.progress() is None


def test_a_state_whose_weights_are_damaged_is_no_state(folder, capsys):
    weights = {"w": torch.arange(4.0)}
    first = folder.save_weights(0, weights)
    folder.save(1, 0, _state(1, {0: first}))
    second = folder.save_weights(1, weights)
    folder.save(2, 0, _state(2, {0: first, 1: second}))
    _spoil(folder.weights_path(1), -1)
    assert folder.load()["value"].tolist() == [1, 1, 1]
    assert "weights-0001.safetensors is not the file" in capsys.readouterr().err


def test_damaged_fits_are_named_and_are_none(folder, capsys):
    assert folder.load_fits() is None
    folder.save_fits(_state(1))
    assert folder.load_fits()["value"].tolist() == [1, 1, 1]
    _spoil(folder.path / "fits.pt", 300)
    assert folder.load_fits() is None
    assert "fits.pt is damaged" in capsys.readouterr().err


def _in_a_circle(path):
    """Put something there that no disk gives."""
    path.unlink()
    path.symlink_to(path.name)


@pytest.fixture
def stale(monkeypatch):
    """Makes the n-th use of a file that zipfile and PyTorch look into fail, and none after it."""

    def fails(number):
        left = iter(range(number))

        class Stale(files._Disk):
            @contextmanager
            def _noting(self):
                with super()._noting():
                    if next(left, None) == number - 1:
                        raise OSError(errno.ESTALE, "Stale file handle")
                    yield

        monkeypatch.setattr(files, "_Disk", Stale)

    return fails


@pytest.mark.parametrize("use", range(1, 20, 2))
def test_a_state_that_the_disk_does_not_give_is_not_called_damaged(folder, stale, use):
    """zipfile and PyTorch have words of their own for what they are refused."""
    path = folder.save(0, 0, _state(1))
    stale(use)
    with pytest.raises(
        HostError, match=rf"{path} cannot be read \(Stale.*delete the file: the run"
    ):
        folder.load()
    assert folder.load()["value"].tolist() == [1, 1, 1], "nothing is lost"


def test_fits_that_the_disk_does_not_give_are_not_called_damaged(folder, stale):
    folder.save_fits(_state(1))
    stale(3)
    with pytest.raises(HostError, match=r"fits\.pt cannot be read \(Stale"):
        folder.load_fits()
    assert folder.load_fits()["value"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("refused", ["epoch-0001-batch-000000.pt", "weights-0000.safetensors"])
def test_where_a_disk_never_gives_a_file_it_may_be_deleted(folder, capsys, refused):
    folder.save(0, 0, _state(1))
    folder.save(1, 0, _state(2, {0: folder.save_weights(0, {"w": torch.arange(4.0)})}))
    path = folder.path / refused
    path.unlink()
    path.symlink_to(path.name)  # leads in a circle
    for _ in range(2):
        with pytest.raises(HostError, match=rf"{path} cannot be read \(Too many levels"):
            folder.load()
    assert capsys.readouterr().err == ""
    path.unlink()
    assert folder.load()["value"].tolist() == [1, 1, 1]


def test_a_state_for_which_there_is_no_memory_is_not_called_damaged(folder, monkeypatch):
    path = folder.save(0, 0, _state(1))

    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *_, **__: torch.empty(2**50))
    with pytest.raises(HostError, match=f"{path} does not fit"):
        folder.load()
    monkeypatch.setattr(torch, "load", load)
    assert folder.load()["value"].tolist() == [1, 1, 1]


def test_weights_stay_while_a_kept_state_refers_to_them(folder):
    weights = {"w": torch.arange(4.0)}
    digests = {}
    for epoch, best in enumerate([0, 1, 1, 1]):
        if epoch == best:
            digests[epoch] = folder.save_weights(epoch, weights)
        folder.save(epoch + 1, 0, _state(epoch, {best: digests[best]}))
        kept = {path.name for path in folder.path.glob("weights-*")}
        assert f"weights-{best:04d}.safetensors" in kept
    assert kept == {"weights-0001.safetensors"}


def test_weights_stay_while_it_is_not_known_what_a_kept_state_refers_to(folder):
    weights = {"w": torch.arange(4.0)}
    folder.save(1, 0, _state(1, {0: folder.save_weights(0, weights)}))
    later = CheckpointFolder(folder.path)
    newer = {1: later.save_weights(1, weights)}
    later.save(2, 0, _state(2, newer))
    assert folder.weights_path(0).exists(), "as the older state may have it"
    later.save(3, 0, _state(3, newer))
    assert not folder.weights_path(0).exists()


def test_weights_come_back_exactly(folder):
    weights = {"b.w": torch.randn(3, 2).t(), "a": torch.tensor(7)}
    folder.save_weights(3, weights)
    found = load_weights(folder.weights_path(3))
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_what_is_no_weights_file_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(AmstError, match="holds no weights"):
        load_weights(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "told",
    [
        SafetensorError("Cannot allocate memory (os error 12)"),
        RuntimeError("unable to open file <w> in read-only mode: Cannot allocate memory (12)"),
    ],
)
def test_weights_that_are_not_given_are_no_mistake_of_the_user(tmp_path, monkeypatch, told):
    """A run would be refused on all hosts for good."""

    def refused(_):
        raise told

    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    monkeypatch.setattr(checkpoint, "load_file", refused)
    with pytest.raises(HostError, match=rf"{path} cannot be read \(Cannot allocate memory\)"):
        load_weights(path)


def test_a_run_goes_on_from_the_state_before_a_damaged_one(workplace, undisturbed, signal_in_step):
    place = workplace()
    assert place.start(signal_in_step("naive", 20, signal.SIGUSR1)).wait() == SAVED
    older, newest = place.states()
    newest.write_bytes(newest.read_bytes()[:-100])
    finished = place.finish()
    assert f"{newest} is damaged" in finished.said
    assert "continuing in epoch 3 after 0 batches" in finished.said
    assert not older.exists()
    assert place.results() == undisturbed(place.settings)


def test_a_run_whose_states_are_all_damaged_starts_anew(workplace, undisturbed, signal_in_step):
    place = workplace()
    assert place.start(signal_in_step("naive", 20, signal.SIGUSR1)).wait() == SAVED
    for path in place.states():
        path.write_bytes(b"nonsense")
    assert "continuing" not in place.finish().said
    assert place.results() == undisturbed(place.settings)
