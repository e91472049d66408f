"""Evaluation of weights on a part: every prediction, every subset of modalities, all metrics.

The end of a training and ``amst evaluate`` are the same code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from amst.config.run import RunSettings
from amst.datasets.base import Part
from amst.loading.dataset import PartData
from amst.metrics import shapley
from amst.records import Metrics
from amst.training.assembly import Assembly, assemble
from amst.training.checkpoint import load_weights
from amst.training.execution import Execution
from amst.training.prediction import (
    Logits,
    PartPredictions,
    accuracy,
    chance,
    part_arrays,
    predict_part,
    predict_subsets,
    write_arrays,
)


@dataclass(frozen=True)
class Evaluation:
    """What weights give on one part.

    Attributes:
        part: 'train', 'val' or 'test'.
        main: name of the main prediction.
        classes: class names.
        predictions: ids, labels and logits of all named predictions.
        metrics: prediction -> metrics.
        subset_logits: '+'-joined modality names -> (n, C) logits of the main prediction.
        subset_accuracy: the same -> accuracy.
        shapley: modality -> contribution to the accuracy of the main prediction.
    """

    part: Part
    main: str
    classes: tuple[str, ...]
    predictions: PartPredictions
    metrics: Mapping[str, Metrics]
    subset_logits: Mapping[str, Logits]
    subset_accuracy: Mapping[str, float]
    shapley: Mapping[str, float]

    def write(self, path: Path) -> None:
        """Write the logits in the layout of a run's ``predictions.npz``."""
        arrays = {"classes": np.array(self.classes)} | part_arrays(self.part, self.predictions)
        for names, logits in self.subset_logits.items():
            arrays[f"{self.part}/subset/{names}"] = logits
        write_arrays(path, arrays)


def evaluate(
    settings: RunSettings,
    weights: Path | Mapping[str, Tensor],
    manifest: Path,
    split: Path,
    execution: Execution,
    part: Part = "test",
    out: Path | None = None,
) -> Evaluation:
    """Evaluate the weights of a run, or imported ones, on a part.

    Args:
        settings: of the run that the weights come from; they choose the method and its encoders.
        weights: ``weights.safetensors`` of a run, or weights by name.
        manifest: of the dataset; may be another one with the same classes and features.
        split: the split file.
        execution: device and residency.
        part: 'train', 'val' or 'test'.
        out: where the logits are written, by rename; nowhere if None.

    Raises:
        AmstError: a file is missing or damaged, or the weights are not of this method and dataset.
    """
    assembly = assemble(settings, manifest, split, execution)
    values = load_weights(weights) if isinstance(weights, Path) else weights
    assembly.method.load_weights(values)
    evaluation = evaluate_part(assembly, assembly.part(part))
    if out is not None:
        evaluation.write(out)
    return evaluation


def evaluate_part(assembly: Assembly, part: PartData) -> Evaluation:
    """Evaluate the method's present weights on a part; leaves it in evaluation mode.

    Raises:
        AmstError: the training part, whose most frequent class the contributions start from, has
            no sample, or the weights give logits that are NaN or infinite.
    """
    method, loader, autocast = assembly.method, assembly.loader, assembly.autocast()
    classes = assembly.store.manifest.classes
    predictions = predict_part(method, loader, part, autocast)
    main = method.main_prediction
    logits = predict_subsets(method, loader, part, autocast, predictions.logits[main])
    accuracies = {name: accuracy(each, predictions.labels) for name, each in logits.items()}
    empty = chance(assembly.train_labels(), predictions.labels, len(classes))
    return Evaluation(
        part.name,
        main,
        classes,
        predictions,
        predictions.metrics(classes),
        logits,
        accuracies,
        shapley({frozenset(name.split("+")): each for name, each in accuracies.items()}, empty),
    )
