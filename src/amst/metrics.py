"""Metrics of a prediction from its logits: numpy only, so that tables can be made without torch."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from amst.errors import AmstError
from amst.records import Metrics

CALIBRATION_BINS = 15
Floats = NDArray[np.float64]


def metrics_of(logits: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> Metrics:
    """Metrics of one prediction on one part.

    The predicted class is the one with the largest logit, the first one if several tie.

    Args:
        logits: (n, C), any floating-point type; computed on in float64.
        labels: (n,) class indices.
        classes: the C class names.

    Raises:
        AmstError: a logit is NaN or infinite, which is what a diverged training gives.
        ValueError: shapes disagree, a label is no class, or there is no sample.
    """
    values = np.asarray(logits, dtype=np.float64)
    targets = np.asarray(labels, dtype=np.int64)
    _check(values, targets, classes)
    log_probabilities = _log_softmax(values)
    probabilities = np.exp(log_probabilities)
    predicted = values.argmax(axis=1)
    confidence = probabilities[np.arange(len(targets)), predicted]
    correct = predicted == targets
    present = np.unique(targets)
    odds = _odds(values, predicted)
    return Metrics(
        accuracy=float(correct.mean()),
        macro_f1=float(np.mean([_f1(predicted == c, targets == c) for c in present])),
        mean_average_precision=float(
            np.mean([average_precision(odds[:, c], targets == c) for c in present])
        ),
        cross_entropy=float(-log_probabilities[np.arange(len(targets)), targets].mean()),
        confidence_correct=_confidence_correct(confidence, correct, targets),
        calibration_error=_calibration_error(confidence, correct),
        per_class_accuracy={classes[c]: float(correct[targets == c].mean()) for c in present},
    )


def average_precision(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under precision over recall as a sum of steps, samples of equal score in one step.

    Args:
        scores: (n,) larger for more certain.
        positive: (n,) whether a sample is of the class; at least one is.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    last_of_score = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    found = hits[last_of_score]
    precision = found / (last_of_score + 1)
    gained = np.diff(found, prepend=0)
    return float((gained * precision).sum() / hits[-1])


def shapley(
    subset_accuracy: Mapping[frozenset[str] | str, float], empty: float
) -> dict[str, float]:
    """Shapley contribution of each modality to the accuracy of all of them together.

    A modality's contribution is what it adds to a set of others, averaged over all orders in which
    the modalities can come (Shapley, 1953). The contributions sum to the accuracy of all
    modalities less ``empty``.

    Args:
        subset_accuracy: every non-empty set of modalities, as a set or as names joined by '+', and
            its accuracy.
        empty: the value of no modality: the accuracy of always answering the most frequent
            training class.

    Raises:
        ValueError: a subset is missing.
    """
    worth = {_subset(key): accuracy for key, accuracy in subset_accuracy.items()}
    worth[frozenset()] = empty
    modalities = sorted(frozenset().union(*worth))
    for size in range(1, len(modalities) + 1):
        for names in combinations(modalities, size):
            if frozenset(names) not in worth:
                raise ValueError(f"the accuracy of {'+'.join(names)} alone is missing")
    return {name: _contribution(name, modalities, worth) for name in modalities}


def _contribution(
    name: str, modalities: Sequence[str], worth: Mapping[frozenset[str], float]
) -> float:
    others = [other for other in modalities if other != name]
    total = 0.0
    for size in range(len(others) + 1):
        orders = factorial(size) * factorial(len(others) - size)
        for before in map(frozenset, combinations(others, size)):
            total += orders * (worth[before | {name}] - worth[before])
    return total / factorial(len(modalities))


def _subset(key: frozenset[str] | str) -> frozenset[str]:
    return frozenset(key.split("+")) if isinstance(key, str) else frozenset(key)


def _check(logits: Floats, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    if labels.ndim != 1 or logits.shape != (len(labels), len(classes)):
        raise ValueError(
            f"logits of shape {logits.shape} for labels of shape {labels.shape} and {len(classes)} "
            "classes"
        )
    if not len(labels):
        raise ValueError("no sample to compute metrics on")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {len(classes)} classes")
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise AmstError(
            f"the logits of {bad} of {len(labels)} samples are NaN or infinite",
            "The training diverged: lower the learning rate, or use precision fp32",
        )


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _odds(logits: Floats, predicted: NDArray[np.int64]) -> Floats:
    """Odds p / (1 - p) of every class, (n, C), in the order of the probabilities p.

    Of samples whose largest logit is 37 above the others, p is rounded to 1 and says no longer
    which of them is the surer one.
    """
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    others = weights.sum(axis=1, keepdims=True) - weights
    largest = np.arange(len(predicted)), predicted
    without = weights.copy()
    without[largest] = 0
    others[largest] = without.sum(axis=1)
    return np.asarray(weights / others.clip(min=np.finfo(np.float64).tiny))


def _f1(predicted: NDArray[np.bool_], actual: NDArray[np.bool_]) -> float:
    return float(2 * (predicted & actual).sum() / (predicted.sum() + actual.sum()))


def _confidence_correct(
    confidence: Floats, correct: NDArray[np.bool_], labels: NDArray[np.int64]
) -> float:
    """Mean over the classes that have a correct prediction; 0 when none has."""
    per_class = [confidence[correct & (labels == c)].mean() for c in np.unique(labels[correct])]
    return float(np.mean(per_class)) if per_class else 0.0


def _calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """Expected calibration error (Guo et al., ICML 2017), bins (i/15, (i+1)/15]."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, None)
    # Rounding may lift a confidence of 1 by an ulp, out of the last bin.
    bins = np.minimum(bins, CALIBRATION_BINS - 1)
    surplus = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(surplus).sum() / len(confidence))
