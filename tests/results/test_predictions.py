"""Stored predictions: read whole or refused in a line, by whatever reads them."""

import pytest

from amst.errors import AmstError
from amst.results.predictions import correctness, read_predictions
from amst.results.recomputed import recompute


def of_unknown_compression(content):
    """A wrong byte where the list of members, which ends the file, says how one is packed."""
    place = content.rindex(b"test/ids.npy") - 36
    return content[:place] + b"\x63" + content[place + 1 :]


def with_another_id(content):
    return content.replace("test-0001".encode("utf-32-le"), "test-9001".encode("utf-32-le"))


DAMAGED = {
    "empty": lambda content: b"",
    "no archive": lambda content: b"predictions",
    "cut off": lambda content: content[: len(content) // 2],
    "a wrong byte": with_another_id,
    "unknown compression": of_unknown_compression,
}


@pytest.fixture
def run(make, plan):
    (made,) = make(plan)
    return made


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_predictions_are_named_by_all_that_read_them(run, damage):
    path = run.path.with_name("predictions.npz")
    content = path.read_bytes()
    path.write_bytes(DAMAGED[damage](content))
    assert path.read_bytes() != content
    for read in (lambda: correctness(run.path, "fused"), lambda: recompute(run.path.parent)):
        with pytest.raises(AmstError, match=r"predictions\.npz cannot be read as predictions"):
            read()


def test_missing_predictions_are_named(run):
    path = run.path.with_name("predictions.npz")
    path.unlink()
    with pytest.raises(AmstError, match=r"predictions\.npz cannot be read as predictions"):
        read_predictions(path)


def test_arrays_that_are_asked_for_must_be_there(run):
    path = run.path.with_name("predictions.npz")
    assert list(read_predictions(path, ["test/labels"])) == ["test/labels"]
    assert {"classes", "val/ids", "test/logits/fused"} <= read_predictions(path).keys()
    with pytest.raises(AmstError, match=r"cannot be read as predictions .*test/logits/none"):
        correctness(run.path, "none")
