"""Linear evaluation: how much of the classes a linear classifier finds in what an encoder gives.

The probes that train along take one step per batch, on embeddings that still move, and rest with
their encoders: after a short run, or where an encoder is often skipped, they tell too little of it.
Here the encoders stand still, and each one's classifier is fitted to the end.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.datasets.base import Part
from amst.files import sha256_of
from amst.loading.dataset import PartData
from amst.training.assembly import Assembly
from amst.training.checkpoint import CheckpointFolder
from amst.training.lock import RunLock
from amst.training.prediction import Logits
from amst.training.signals import StopRequest

PENALTIES = (1.0, 0.1, 0.01, 0.001)
"""Weights of half the squared norm beside a mean cross-entropy; the validation part chooses."""
ITERATIONS = 100
"""At most, per penalty; each fit goes on from the one before."""


_BLOCK = 2**22  # logits at a time: of many samples and classes, not all fit into memory
_SAVE_EVERY = 30.0  # seconds; most runs fit all in less, and save nothing
_Minimise = Callable[[Tensor, Tensor, Tensor, float], Tensor]


class Fits:
    """Fits that are done; those of an attempt that was stopped are not made again.

    Args:
        checkpoints: where they are kept until the run is done.
        epoch: whose weights are evaluated.
        lock: the run's lock, checked before they are saved.
        stop: looked at in every step of a fit.

    Attributes:
        seconds: what these fits, and the embeddings that they need, have taken.
    """

    def __init__(
        self, checkpoints: CheckpointFolder, epoch: int, lock: RunLock, stop: StopRequest
    ) -> None:
        self._checkpoints, self._lock, self._stop = checkpoints, lock, stop
        self._of = sha256_of(checkpoints.weights_path(epoch))
        state = checkpoints.load_fits()
        known: Mapping[str, Any] = state if state and state["of"] == self._of else {}
        self._weights: dict[str, Tensor] = dict(known.get("weights", {}))
        self.seconds: float = known.get("seconds", 0.0)
        self._saved = time.perf_counter()

    def of(self, encoder: str) -> _Minimise:
        """``minimise`` for the features of one encoder, unless it was done."""

        def done_or_new(start: Tensor, features: Tensor, labels: Tensor, penalty: float) -> Tensor:
            key = f"{encoder} {penalty}"
            if key not in self._weights:
                began = time.perf_counter()
                found = minimise(start, features, labels, penalty, self.leave_if_asked)
                self._weights[key] = found.cpu()
                self.seconds += time.perf_counter() - began
                if time.perf_counter() - self._saved > _SAVE_EVERY:
                    self._save()
            return self._weights[key].to(start.device)

        return done_or_new

    def leave_if_asked(self) -> None:
        """Save what is done and leave.

        Raises:
            StoppedError: a stop was asked for.
        """
        if self._stop:
            self._save()
            self._lock.release()
            self._stop.leave(f"saved {len(self._weights)} fits of the linear evaluation")

    def _save(self) -> None:
        self._lock.check()
        state = {"of": self._of, "weights": self._weights, "seconds": self.seconds}
        self._checkpoints.save_fits(state)
        self._saved = time.perf_counter()


def linear_evaluation(
    assembly: Assembly, parts: Mapping[Part, PartData], fits: Fits
) -> dict[Part, dict[str, Logits]]:
    """Fit a linear classifier to what each encoder gives for the training part.

    Args:
        assembly: its method has the weights to evaluate.
        parts: train, val, test; all under the evaluation transform.
        fits: what an earlier attempt has done of it.

    Returns:
        val and test -> prediction -> logits (n, C). Predictions are ``linear/<m>``, with the
        network's name before it where one before has an encoder of modality m, too.

    Raises:
        StoppedError: a stop was asked for; the fits are saved.
    """
    began = time.perf_counter()
    look = fits.leave_if_asked
    embeddings = {name: _embeddings(assembly, part, look) for name, part in parts.items()}
    fits.seconds += time.perf_counter() - began
    labels = {name: part.labels.to(assembly.device) for name, part in parts.items()}
    classes = len(assembly.store.manifest.classes)
    found: dict[Part, dict[str, Logits]] = {"val": {}, "test": {}}
    for encoder in embeddings["train"]:
        told = f"{assembly.settings.run_id}: linear evaluation, {encoder}"
        print(told, file=sys.stderr, flush=True)
        train, val = ((embeddings[name][encoder], labels[name]) for name in ("train", "val"))
        classifier = fit_classifier(*train, *val, classes, fits.of(encoder))
        for name, logits in found.items():
            logits[encoder] = classifier(embeddings[name][encoder]).float().cpu().numpy()
    return found


def _embeddings(
    assembly: Assembly, part: PartData, look: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """Name of its prediction -> (n, D) float64 of each encoder, on the device."""
    method = assembly.method
    method.eval()
    first = {m: name for name, net in reversed(method.networks.items()) for m in net.names}
    found: dict[str, list[Tensor]] = {}
    for batch in assembly.loader.in_order(part):
        look()
        for branch, network in method.networks.items():
            with torch.no_grad(), assembly.autocast():
                embeddings = network(batch.inputs).embeddings
            for name, each in embeddings.items():
                prefix = "" if branch == first[name] else f"{branch}/"
                found.setdefault(f"{prefix}linear/{name}", []).append(each.double())
    return {name: torch.cat(each) for name, each in found.items()}


@dataclass(frozen=True)
class Classifier:
    """A linear classifier of standardised features.

    Attributes:
        mean: (D,) of the features that it was fitted to.
        deviation: (D,) of these; 1 where they are all equal.
        weights: (C, D + 1), the intercepts last.
    """

    mean: Tensor
    deviation: Tensor
    weights: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n, C) of features (n, D)."""
        return _logits((features - self.mean) / self.deviation, self.weights)


def minimise(
    start: Tensor,
    features: Tensor,
    labels: Tensor,
    penalty: float,
    look: Callable[[], None] = lambda: None,
) -> Tensor:
    """Weights with the least mean cross-entropy plus ``penalty / 2`` times their squared norm.

    Intercepts are not penalised.

    Args:
        start: (C, D + 1), where the search begins.
        features: (n, D).
        labels: (n,).
        penalty: weight of the squared norm.
        look: called in every step; what it raises ends the search.
    """
    # Here: the training side needs it for nothing else.
    from scipy.optimize import minimize

    rows = max(1, _BLOCK // len(start))
    blocks = list(zip(features.split(rows), labels.split(rows), strict=True))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        look()
        weights = torch.from_numpy(flat).to(features.device).view_as(start)
        penalised, gradient = weights[:, :-1], torch.zeros_like(weights)
        value = penalty / 2 * penalised.square().sum()
        gradient[:, :-1] = penalty * penalised
        for some, theirs in blocks:
            logits = _logits(some, weights)
            value += cross_entropy(logits, theirs, reduction="sum") / len(labels)
            # of that sum by the logits: probabilities, less one at the label
            error = logits.softmax(dim=1)
            error[torch.arange(len(theirs), device=error.device), theirs] -= 1
            error /= len(labels)
            gradient[:, :-1].addmm_(error.T, some)
            gradient[:, -1] += error.sum(dim=0)
        return float(value), gradient.flatten().cpu().numpy()

    # scipy's own products of more than 10,000 numbers would be summed by as many threads as there
    # are cores, in another order with each number of them, and wait longer than they compute.
    with _libraries().limit(limits=1, user_api="blas"):
        found = minimize(
            loss,
            start.flatten().cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ITERATIONS},
        )
    return torch.from_numpy(found.x).to(features.device).view_as(start)


@cache
def _libraries() -> ThreadpoolController:
    """Those of arithmetic that the process has loaded, scipy's among them; to look takes 10 ms."""
    return ThreadpoolController()


def fit_classifier(
    train: Tensor,
    train_labels: Tensor,
    val: Tensor,
    val_labels: Tensor,
    classes: int,
    search: _Minimise = minimise,
) -> Classifier:
    """Multinomial logistic regression by L-BFGS, from the strongest penalty to the weakest.

    Args:
        train: (n, D) float64.
        train_labels: (n,) class indices.
        val: (m, D) float64; its accuracy chooses the penalty, the strongest of several that tie.
        val_labels: (m,).
        classes: C.
        search: finds the weights for one penalty.
    """
    deviation, mean = torch.std_mean(train, dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1)
    features = (train - mean) / deviation
    weights = features.new_zeros(classes, features.shape[1] + 1)
    best, chosen = -1, Classifier(mean, deviation, weights)
    for penalty in PENALTIES:
        weights = search(weights, features, train_labels, penalty)
        classifier = Classifier(mean, deviation, weights)
        right = int((classifier(val).argmax(dim=1) == val_labels).sum())
        if right > best:
            best, chosen = right, classifier
    return chosen


def _logits(features: Tensor, weights: Tensor) -> Tensor:
    return torch.addmm(weights[:, -1], features, weights[:, :-1].T)
