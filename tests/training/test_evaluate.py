import os
import pickle

import numpy as np
import pytest

from amst.errors import AmstError
from amst.records import read_record
from amst.training.evaluate import evaluate
from tests.documented import against_the_page


def _evaluate(place, weights, part="test", out=None, settings=None):
    """Evaluate in a process of its own: the arithmetic of this one is not to be changed."""
    answer = place.folder / "answer.pickle"
    child = os.fork()
    if child == 0:
        try:
            found = evaluate(
                settings or place.settings,
                weights,
                place.digits.manifest,
                place.digits.split,
                place.execution,
                part,
                out,
            )
        except AmstError as error:
            found = error.args[0]
        answer.write_bytes(pickle.dumps(found))
        os._exit(0)
    os.waitpid(child, 0)
    return pickle.loads(answer.read_bytes())


@pytest.fixture
def place(workplace):
    place = workplace("amst_full")
    place.finish()
    return place


def test_the_weights_of_a_run_give_its_own_figures_again(place):
    found = _evaluate(place, place.out / "weights.safetensors")
    record = read_record(place.out / "run.json")
    assert found.subset_accuracy == record.subset_accuracy
    assert found.shapley == record.shapley
    for name, metrics in found.metrics.items():
        assert metrics == record.metrics(name)
    arrays = place.predictions()
    for name, logits in found.predictions.logits.items():
        assert np.array_equal(logits, arrays[f"test/logits/{name}"])
    lacking, unused = against_the_page(place.out)
    assert lacking == set()
    of_others = {"entropy", "equal", "weights", "<part>/selected/<fused>/<prediction>"}
    assert unused == of_others | {"method:<name>"}


def test_any_part_can_be_evaluated_and_its_logits_written(place):
    out = place.folder / "val.npz"
    found = _evaluate(place, place.out / "weights.safetensors", "val", out)
    arrays = place.predictions()
    with np.load(out) as written:
        assert np.array_equal(written["val/logits/fused"], arrays["val/logits/fused"])
        assert written["val/ids"].tolist() == arrays["val/ids"].tolist()
        assert written["val/subset/audio"].shape == found.subset_logits["audio"].shape


def test_weights_of_another_method_are_refused(place, workplace):
    other = workplace("naive").settings
    message = _evaluate(place, place.out / "weights.safetensors", settings=other)
    assert "do not fit" in message


def test_a_file_that_is_no_weights_file_is_refused(place):
    assert "holds no weights" in _evaluate(place, place.out / "run.json")
