"""Linear evaluation: how much of the classes a linear classifier finds in what an encoder gives.

The probes that train along take one step per batch, on embeddings that still move, and rest with
their encoders: after a short run, or where an encoder is often skipped, they tell too little of it.
Here the encoders stand still, and each one's classifier is fitted to the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.datasets.base import Part
from amst.loading.dataset import PartData
from amst.training.assembly import Assembly
from amst.training.prediction import Logits
from amst.training.signals import StopRequest

PENALTIES = (1.0, 0.1, 0.01, 0.001)
"""Weights of half the squared norm beside a mean cross-entropy; the validation part chooses."""
ITERATIONS = 100
"""At most, per penalty; each fit goes on from the one before."""


def linear_evaluation(
    assembly: Assembly, parts: Mapping[Part, PartData], stop: StopRequest
) -> dict[Part, dict[str, Logits]]:
    """Fit a linear classifier to what each encoder gives for the training part.

    Args:
        assembly: its method has the weights to evaluate.
        parts: train, val, test; all under the evaluation transform.
        stop: looked at between the steps.

    Returns:
        val and test -> prediction -> logits (n, C). Predictions are ``linear/<m>``, of networks
        after the method's first one with the network's name before it.
    """
    embeddings = {}
    for name, part in parts.items():
        embeddings[name] = _embeddings(assembly, part)
        stop.check()
    labels = {name: part.labels.to(assembly.device) for name, part in parts.items()}
    classes = len(assembly.store.manifest.classes)
    found: dict[Part, dict[str, Logits]] = {"val": {}, "test": {}}
    for encoder in embeddings["train"]:
        train, val = ((embeddings[name][encoder], labels[name]) for name in ("train", "val"))
        classifier = fit_classifier(*train, *val, classes)
        for name, logits in found.items():
            logits[encoder] = classifier(embeddings[name][encoder]).float().cpu().numpy()
        stop.check()
    return found


def _embeddings(assembly: Assembly, part: PartData) -> dict[str, Tensor]:
    """Name of its prediction -> (n, D) float64 of each encoder, on the device."""
    method = assembly.method
    method.eval()
    first = next(iter(method.networks), "")
    found: dict[str, list[Tensor]] = {}
    for batch in assembly.loader.in_order(part):
        for branch, network in method.networks.items():
            prefix = "" if branch == first else f"{branch}/"
            with torch.no_grad(), assembly.autocast():
                embeddings = network(batch.inputs).embeddings
            for name, each in embeddings.items():
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


def fit_classifier(
    train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor, classes: int
) -> Classifier:
    """Multinomial logistic regression by L-BFGS, from the strongest penalty to the weakest.

    Args:
        train: (n, D) float64.
        train_labels: (n,) class indices.
        val: (m, D) float64; its accuracy chooses the penalty, the strongest of several that tie.
        val_labels: (m,).
        classes: C.
    """
    deviation, mean = torch.std_mean(train, dim=0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1)
    features = (train - mean) / deviation
    weights = features.new_zeros(classes, features.shape[1] + 1)
    best, chosen = -1, Classifier(mean, deviation, weights)
    for penalty in PENALTIES:
        weights = _minimise(weights, features, train_labels, penalty)
        classifier = Classifier(mean, deviation, weights)
        right = int((classifier(val).argmax(dim=1) == val_labels).sum())
        if right > best:
            best, chosen = right, classifier
    return chosen


def _minimise(start: Tensor, features: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """Weights with the least mean cross-entropy plus ``penalty / 2`` times their squared norm.

    Intercepts are not penalised.
    """
    # Here: the training side needs it for nothing else.
    from scipy.optimize import minimize

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = torch.from_numpy(flat).to(features.device).view_as(start).requires_grad_()
        norm = weights[:, :-1].square().sum()
        value = cross_entropy(_logits(features, weights), labels) + penalty / 2 * norm
        (gradient,) = torch.autograd.grad(value, weights)
        return float(value.detach()), gradient.flatten().cpu().numpy()

    found = minimize(
        loss,
        start.flatten().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": ITERATIONS},
    )
    return torch.from_numpy(found.x).to(features.device).view_as(start)


def _logits(features: Tensor, weights: Tensor) -> Tensor:
    return torch.addmm(weights[:, -1], features, weights[:, :-1].T)
