"""Released files are read without running anything in them."""

import argparse
import errno
import os
import resource
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from amst import files
from amst.errors import AmstError, HostError
from amst.released.files import ReleasedFile, read_file, write_file

ARGS = argparse.Namespace(dataset="CREMAD", device_list=[0], data_path="", run_test=True)


class Runs:
    """Its pickle calls a function of the system."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def save(path, **changes):
    value = {
        "model": {"fc.bias": torch.arange(3.0)},
        "args": ARGS,
        "epoch": 4,
        "best_val_acc": np.float64(0.25),
        "best_test_acc": np.float64(0.5),
    }
    torch.save({k: v for k, v in (value | changes).items() if v is not None}, path)
    return path


def refusal(path):
    with pytest.raises(AmstError) as refused:
        read_file(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def with_pickle(path, out, change):
    """A copy of a file with its pickle changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry, change(data) if entry.filename.endswith("data.pkl") else data)
    return out


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_accuracies_of_any_numpy_are_read(tmp_path, module):
    names = (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")

    def renamed(data):
        assert any(name in data for name in names)
        for name in names:
            data = data.replace(name, b"c" + module + b"\n")
        return data

    found = read_file(with_pickle(save(tmp_path / "a.pth"), tmp_path / "b.pth", renamed))
    assert (found.best_val_acc, found.best_test_acc, found.epoch) == (0.25, 0.5, 4)
    assert found.args == vars(ARGS)
    assert found.model["fc.bias"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("place", ["args", "epoch", "extra"])
def test_code_in_a_file_is_named_and_not_run(tmp_path, place):
    mark = tmp_path / "run"
    path = save(tmp_path / "a.pth", **{place: Runs(os.mkdir, str(mark))})
    assert "asks for posix.mkdir to be run" in refusal(path)
    assert not mark.exists()


def test_only_floating_point_numbers_of_numpy_are_read(tmp_path):
    path = save(tmp_path / "a.pth", best_val_acc=np.array([{}], dtype=object))
    assert "_reconstruct" in refusal(path)
    assert "'i8'" in refusal(save(tmp_path / "b.pth", best_val_acc=np.int64(3)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": None}, "lacks 'model'"),
        ({"args": None}, "lacks 'args'"),
        ({"args": {"dataset": "CREMAD"}}, "no command line"),
        ({"model": {"fc.bias": 3}}, "no map of tensors"),
        ({"best_val_acc": None}, "no number"),
        ({"epoch": "4"}, "no number"),
        ({"epoch": True}, "no number"),
        ({"best_val_acc": float("nan")}, "no number"),
        ({"best_test_acc": np.float64("inf")}, "test accuracy is no number"),
        ({"best_test_acc": "high"}, "test accuracy is no number"),
    ],
)
def test_other_files_of_torch_are_refused(tmp_path, changes, reason):
    assert reason in refusal(save(tmp_path / "a.pth", **changes))


def test_an_accuracy_of_zero_is_one(tmp_path):
    found = read_file(save(tmp_path / "a.pth", best_val_acc=0.0, best_test_acc=0))
    assert (found.best_val_acc, found.best_test_acc) == (0.0, 0.0)


def test_a_bare_state_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "a.pth")
    assert "holds a list" in refusal(tmp_path / "a.pth")


def test_missing_torn_and_damaged_files_are_refused(tmp_path):
    assert "there is no file" in refusal(tmp_path / "none.pth")
    whole = save(tmp_path / "a.pth").read_bytes()
    (tmp_path / "torn.pth").write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refusal(tmp_path / "torn.pth")
    damaged = whole.replace(np.arange(3, dtype="<f4").tobytes(), b"\0" * 12)
    assert damaged != whole
    (tmp_path / "damaged.pth").write_bytes(damaged)
    assert "is damaged" in refusal(tmp_path / "damaged.pth")
    (tmp_path / "junk.pth").write_bytes(b"<html>not found</html>")
    assert "not what torch.save writes" in refusal(tmp_path / "junk.pth")


@pytest.mark.parametrize(("at", "byte"), [(8, 99), (6, 1)])
def test_what_zipfile_does_not_read_is_refused(tmp_path, at, byte):
    """An entry's way of compression, and whether it is encrypted."""
    content = bytearray(save(tmp_path / "a.pth").read_bytes())
    content[content.index(b"PK\x01\x02") + 2 + at] = byte
    (tmp_path / "b.pth").write_bytes(content)
    assert "not what torch.save writes" in refusal(tmp_path / "b.pth")


def test_nothing_in_it_is_refused(tmp_path):
    (tmp_path / "a.pth").touch()
    assert "not what torch.save writes" in refusal(tmp_path / "a.pth")
    zipfile.ZipFile(tmp_path / "b.pth", "w").close()
    assert "to be a checkpoint" in refusal(tmp_path / "b.pth")


@pytest.mark.parametrize("use", [2, 12, 22, 32])
def test_a_file_that_the_disk_does_not_give_is_not_called_another(tmp_path, monkeypatch, use):
    left = iter(range(use))

    class Failing(files._Disk):
        @contextmanager
        def _noting(self):
            with super()._noting():
                if next(left, None) == use - 1:
                    raise OSError(errno.EIO, "Input/output error")
                yield

    monkeypatch.setattr(files, "_Disk", Failing)
    path = save(tmp_path / "a.pth")
    with pytest.raises(HostError, match=rf"{path} cannot be read \(Input/output error\)"):
        read_file(path)
    assert read_file(path).epoch == 4


def test_a_disk_that_takes_no_more_is_told_in_one_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = ReleasedFile({"fc.bias": torch.ones(10_000)}, vars(ARGS), 3, 0.7, 0.6)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(HostError, match=r"a\.pth cannot be written \(.*and call again"):
            write_file(tmp_path / "a.pth", content, unimodal=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unimodal", [False, True])
def test_what_is_written_is_read_back(tmp_path, unimodal):
    content = ReleasedFile(
        {"fc.bias": torch.ones(2)}, vars(ARGS), 3, 0.7, None if unimodal else 0.6
    )
    write_file(tmp_path / "a.pth", content, unimodal=unimodal)
    found = read_file(tmp_path / "a.pth")
    assert torch.equal(found.model["fc.bias"], torch.ones(2))
    assert (found.args, found.epoch) == (vars(ARGS), 3)
    assert (found.best_val_acc, found.best_test_acc) == (0.7, content.best_test_acc)
