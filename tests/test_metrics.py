"""Metrics against scikit-learn and against examples worked by hand."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss

from amst.errors import AmstError
from amst.metrics import average_precision, metrics_of, shapley

CLASSES = ("ang", "hap", "neu", "sad")


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@st.composite
def predictions(draw):
    """Logits on a coarse lattice, so that ties are frequent, and labels that may lack classes."""
    n = draw(st.integers(1, 40))
    lattice = st.sampled_from([-4.0, -1.0, 0.0, 0.5, 3.0])
    logits = draw(arrays.arrays(np.float32, (n, 4), elements=lattice))
    labels = draw(arrays.arrays(np.int64, (n,), elements=st.integers(0, 3)))
    return logits, labels


@settings(max_examples=60, deadline=None)
@given(predictions())
def test_metrics_equal_scikit_learn(case):
    logits, labels = case
    found = metrics_of(logits, labels, CLASSES)
    predicted, probabilities = logits.argmax(axis=1), softmax(logits.astype(np.float64))
    present = np.unique(labels)
    assert found.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(
        f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    )
    assert found.cross_entropy == pytest.approx(log_loss(labels, probabilities, labels=range(4)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.booleans()), min_size=1))
def test_average_precision_equals_scikit_learn_also_where_scores_tie(pairs):
    scores, positive = map(np.array, zip(*pairs, (0.5, True), strict=True))
    found = average_precision(scores, positive)
    assert found == pytest.approx(average_precision_score(positive, scores))


def test_mean_average_precision_is_over_the_classes_present():
    logits = np.random.default_rng(0).normal(size=(50, 4))
    labels = np.arange(50) % 3
    expected = [average_precision_score(labels == c, softmax(logits)[:, c]) for c in range(3)]
    found = metrics_of(logits, labels, CLASSES).mean_average_precision
    assert found == pytest.approx(np.mean(expected))


def test_samples_of_probability_one_are_ranked_by_how_sure_they_are():
    labels = np.arange(200) % 2
    margins = 100 * (np.random.default_rng(1).normal(size=200) + np.where(labels, 1, -1))
    found = metrics_of(np.stack([-margins, margins], axis=1), labels, ("no", "yes"))
    expected = [average_precision_score(labels == c, (-margins, margins)[c]) for c in range(2)]
    assert found.mean_average_precision == pytest.approx(np.mean(expected))


@settings(max_examples=60, deadline=None)
@given(predictions())
def test_every_metric_is_a_number_in_its_range(case):
    found = metrics_of(*case, CLASSES)
    shares = found.model_dump(exclude={"per_class_accuracy", "cross_entropy"})
    assert all(0 <= value <= 1 for value in shares.values())
    assert found.cross_entropy >= 0
    assert set(found.per_class_accuracy) == {CLASSES[c] for c in np.unique(case[1])}


@settings(max_examples=50, deadline=None)
@given(predictions(), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(case, random):
    logits, labels = case
    order = list(range(len(labels)))
    random.shuffle(order)
    before = metrics_of(logits, labels, CLASSES).model_dump()
    after = metrics_of(logits[order], labels[order], CLASSES).model_dump()
    assert before.pop("per_class_accuracy") == pytest.approx(after.pop("per_class_accuracy"))
    assert before == pytest.approx(after)


def test_confidence_of_correct_predictions_is_averaged_over_classes_that_have_one():
    probabilities = np.array(
        [
            [0.9, 0.05, 0.03, 0.02],  # ang, right
            [0.7, 0.1, 0.1, 0.1],  # ang, right
            [0.4, 0.3, 0.2, 0.1],  # hap, wrong: left out
            [0.1, 0.1, 0.6, 0.2],  # neu, right
        ]
    )
    found = metrics_of(np.log(probabilities), [0, 0, 1, 2], CLASSES)
    assert found.confidence_correct == pytest.approx(((0.9 + 0.7) / 2 + 0.6) / 2)
    assert found.per_class_accuracy == {"ang": 1.0, "hap": 0.0, "neu": 1.0}


def test_no_correct_prediction_gives_confidence_zero():
    found = metrics_of([[0.0, 1.0, 0.0, 0.0]], [0], CLASSES)
    assert (found.accuracy, found.confidence_correct) == (0.0, 0.0)


def test_calibration_error_worked_by_hand():
    # 0.95, 0.96 in the last bin: one right of two, mean confidence 0.955; 0.50 alone, right.
    probabilities = np.array([[0.95, 0.05], [0.96, 0.04], [0.5, 0.5]])
    found = metrics_of(np.log(probabilities), [0, 1, 0], ("no", "yes"))
    assert found.calibration_error == pytest.approx(2 / 3 * abs(0.5 - 0.955) + 1 / 3 * (1 - 0.5))


def test_a_confidence_on_a_bins_edge_belongs_to_the_bin_below():
    # 1/3 is the upper edge of bin 5 of 15; a little more is in bin 6: opposite errors do not meet.
    third = [0.0, 0.0, 0.0]
    above = [0.01, 0.0, 0.0]
    found = metrics_of([third, above], [0, 1], ("a", "b", "c"))
    just = np.exp(0.01) / (np.exp(0.01) + 2)
    assert found.calibration_error == pytest.approx(((1 - 1 / 3) + just) / 2)


def test_certain_logits_neither_overflow_nor_leave_the_last_bin():
    found = metrics_of(np.float32([[1e30, -1e30], [300.0, 0.0]]), [0, 0], ("no", "yes"))
    assert (found.accuracy, found.calibration_error, found.cross_entropy) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_of_a_diverged_training_are_refused(bad):
    with pytest.raises(AmstError, match=r"1 of 2 samples.*diverged"):
        metrics_of([[0.0, 1.0], [bad, 0.0]], [0, 1], ("no", "yes"))


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((2, 3)), [0, 1]),
        (np.zeros((1, 2)), [0, 1]),
        (np.zeros((1, 2)), [2]),
        (np.zeros((2, 2)), [[0], [1]]),
    ],
)
def test_shapes_that_disagree_are_an_error(logits, labels):
    with pytest.raises(ValueError, match="classes"):
        metrics_of(logits, labels, ("no", "yes"))


def test_no_sample_is_an_error():
    with pytest.raises(ValueError, match="no sample"):
        metrics_of(np.zeros((0, 2)), [], ("no", "yes"))


def test_shapley_of_two_modalities_worked_by_hand():
    found = shapley({"audio": 0.6, "visual": 0.4, "audio+visual": 0.7}, empty=0.1)
    assert found == pytest.approx({"audio": (0.5 + 0.3) / 2, "visual": (0.3 + 0.1) / 2})


def test_shapley_of_the_glove_game():
    # Left glove a, right gloves b and c: only a pair is worth 1. Shapley values 2/3, 1/6, 1/6.
    pairs = {"a": 0, "b": 0, "c": 0, "a+b": 1, "a+c": 1, "b+c": 0, "a+b+c": 1}
    assert shapley(pairs, empty=0) == pytest.approx({"a": 2 / 3, "b": 1 / 6, "c": 1 / 6})


@given(st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_shapley_contributions_sum_to_what_all_modalities_add(values):
    keys = ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    worth = {frozenset(key.split("+")): value for key, value in zip(keys, values[1:], strict=True)}
    found = shapley(worth, empty=values[0])
    assert sum(found.values()) == pytest.approx(worth[frozenset("abc")] - values[0])


def test_shapley_names_the_missing_subset():
    with pytest.raises(ValueError, match=r"a\+b"):
        shapley({"a": 0.5, "b": 0.5}, empty=0.1)


def test_shapley_of_one_modality_is_what_it_adds():
    assert shapley({"audio": 0.6}, empty=0.25) == pytest.approx({"audio": 0.35})


def test_importing_metrics_loads_neither_torch_nor_pandas():
    code = (
        "import sys, amst.metrics; sys.exit(bool({'torch', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
