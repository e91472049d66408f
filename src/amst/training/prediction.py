"""Logits of all named predictions on a part, what is computed from them, and their file."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amst.files import replacing
from amst.loading.dataset import PartData
from amst.loading.loader import Loader
from amst.methods.base import Method
from amst.metrics import metrics_of
from amst.records import Metrics

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class PartPredictions:
    """Logits on one part.

    Attributes:
        ids: n sample ids.
        labels: (n,) class indices.
        logits: prediction -> (n, C) float32.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: Mapping[str, Logits]

    def metrics(self, classes: Sequence[str]) -> dict[str, Metrics]:
        """Metrics by prediction, sorted by name."""
        return {
            name: metrics_of(self.logits[name], self.labels, classes)
            for name in sorted(self.logits)
        }


def predict_part(
    method: Method[Any],
    loader: Loader,
    part: PartData,
    autocast: AbstractContextManager[Any],
    modalities: Collection[str] | None = None,
) -> PartPredictions:
    """Predictions of a method on a part.

    Args:
        method: with the weights to evaluate.
        loader: of the run.
        part: what to predict.
        autocast: the run's precision.
        modalities: use only these.
    """
    method.eval()
    found: dict[str, list[torch.Tensor]] = {}
    for batch in loader.in_order(part):
        with torch.no_grad(), autocast:
            for name, logits in method.predict(batch, modalities).items():
                found.setdefault(name, []).append(logits.float())
    joined = {name: torch.cat(each).cpu().numpy() for name, each in sorted(found.items())}
    return PartPredictions(part.ids, part.labels.numpy(), joined)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All subsets that leave at least one modality out and one in, sorted by size and name."""
    names = sorted(modalities)
    return [each for size in range(1, len(names)) for each in combinations(names, size)]


def predict_subsets(
    method: Method[Any],
    loader: Loader,
    part: PartData,
    autocast: AbstractContextManager[Any],
    whole: Logits,
) -> dict[str, Logits]:
    """Logits of the main prediction from every subset of modalities: '+'-joined names -> (n, C).

    Args:
        method: with the weights to evaluate.
        loader: of the run.
        part: what to predict.
        autocast: the run's precision.
        whole: logits of the main prediction from all modalities.
    """
    found = {
        "+".join(names): predict_part(method, loader, part, autocast, names).logits[
            method.main_prediction
        ]
        for names in subsets(method.modalities)
    }
    return found | {"+".join(sorted(method.modalities)): whole}


def accuracy(logits: Logits, labels: NDArray[np.int64]) -> float:
    """Share of samples whose largest logit, the first of several, is the label's."""
    return float((logits.argmax(axis=1) == labels).mean())


def chance(train_labels: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """Accuracy of always answering the most frequent training class, the first if several tie."""
    answer = np.bincount(train_labels, minlength=classes).argmax()
    return float((labels == answer).mean())


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as .npz, by rename; equal arrays give equal bytes."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(arrays))


def part_arrays(name: str, predictions: PartPredictions) -> dict[str, NDArray[Any]]:
    """Arrays of a part for the file: ids, labels, logits."""
    arrays: dict[str, NDArray[Any]] = {
        f"{name}/ids": np.array(predictions.ids),
        f"{name}/labels": predictions.labels,
    }
    return arrays | {f"{name}/logits/{key}": each for key, each in predictions.logits.items()}
