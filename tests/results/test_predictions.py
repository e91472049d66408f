"""Stored predictions: read whole or refused in a line, by whatever reads them."""

import numpy as np
import pytest

from amst.errors import AmstError
from amst.records import read_record
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
    record = read_record(run.path)
    for read in (lambda: correctness(run.path, record), lambda: recompute(run.path.parent)):
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
    record = read_record(run.path).model_copy(update={"main": "none"})
    with pytest.raises(AmstError, match=r"cannot be read as predictions .*test/logits/none"):
        correctness(run.path, record)


def of_none(logits):
    return np.full_like(logits, np.nan)


SHAPES = "60 ids, labels of shape .* and logits of shape .* for 60 samples and 10 classes"
OTHERS = {
    "one row less": ("test/logits/fused", lambda logits: logits[:-1], SHAPES),
    "one class less": ("test/logits/fused", lambda logits: logits[:, :-1], SHAPES),
    "one column": ("test/logits/fused", lambda logits: logits[:, 0], SHAPES),
    "one label less": ("test/labels", lambda labels: labels[:-1], SHAPES),
    "one id less": ("test/ids", lambda ids: ids[:-1], "59 ids"),
    "no number": ("test/logits/fused", of_none, "logits are NaN or infinite"),
    "words": ("test/logits/fused", lambda logits: logits.astype(str), "ufunc"),
    "other answers": ("test/logits/fused", lambda logits: -logits, "test accuracy .* in run.json"),
    "other labels": ("test/labels", lambda labels: labels[::-1], "test accuracy .* in run.json"),
    "ids of other letters": ("test/ids", lambda ids: np.array([b"\xff"] * 60), "codec"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_predictions_that_are_not_those_of_the_record_are_refused(run, other):
    path = run.path.with_name("predictions.npz")
    name, change, said = OTHERS[other]
    arrays = read_predictions(path)
    np.savez(path, **{**arrays, name: change(arrays[name])})
    match = rf"predictions\.npz does not belong to its record \(.*{said}"
    with pytest.raises(AmstError, match=match):
        correctness(run.path, read_record(run.path))
