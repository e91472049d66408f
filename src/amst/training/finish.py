"""The end of a run: what the selected epochs give, the test part included, and its folder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amst.datasets.base import Part
from amst.errors import AmstError
from amst.files import replacing
from amst.loading.dataset import PartData
from amst.records import (
    PREDICTIONS,
    RECORD,
    RUN_FILES,
    WEIGHTS,
    Cost,
    Result,
    RunRecord,
    write_record,
)
from amst.training.assembly import Assembly
from amst.training.attempts import Attempt, now
from amst.training.checkpoint import load_weights
from amst.training.environment import environment_of
from amst.training.evaluate import Evaluation, evaluate_part
from amst.training.execution import Execution
from amst.training.linear import Fits, linear_evaluation
from amst.training.lock import RunLock
from amst.training.loop import Selected, TrainingLoop
from amst.training.prediction import (
    Logits,
    PartPredictions,
    accuracy,
    part_arrays,
    predict_part,
    write_arrays,
)
from amst.training.recorder import has_events
from amst.training.signals import StopRequest

_OTHER_DIGITS = 0.03  # of accuracy; half precision on another model of device may do that much
FILES = RUN_FILES[::-1]
"""What a finished run's folder holds besides ``tensorboard``, the record last."""


@dataclass(frozen=True)
class Chosen:
    """What the weights of one fused prediction's best epoch give.

    Attributes:
        selected: the epoch and its validation accuracy.
        val: predictions on the validation part.
        test: predictions on the test part.
    """

    selected: Selected
    val: PartPredictions
    test: PartPredictions

    def with_more(self, logits: Mapping[Part, Mapping[str, Logits]]) -> "Chosen":
        """The same with further predictions on both parts."""
        val = replace(self.val, logits={**self.val.logits, **logits["val"]})
        test = replace(self.test, logits={**self.test.logits, **logits["test"]})
        return Chosen(self.selected, val, test)


@dataclass(frozen=True)
class Outcome:
    """All results of a run.

    Attributes:
        chosen: fused prediction -> what its best epoch gives.
        main: evaluation of the main prediction's best epoch on the test part.
        linear_seconds: what the linear evaluation has taken.
    """

    chosen: Mapping[str, Chosen]
    main: Evaluation
    linear_seconds: float

    def results(self) -> tuple[Result, ...]:
        """Metrics of every prediction on both parts, at every selected epoch."""
        return tuple(
            Result(
                selected_by=name,
                best_epoch=each.selected.epoch,
                prediction=prediction,
                part=part,
                samples=len(predictions.labels),
                metrics=metrics,
            )
            for name, each in sorted(self.chosen.items())
            for part, predictions in (("val", each.val), ("test", each.test))
            for prediction, metrics in predictions.metrics(self.main.classes).items()
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Content of ``predictions.npz``."""
        main = self.chosen[self.main.main]
        arrays: dict[str, NDArray[Any]] = {"classes": np.array(self.main.classes)}
        arrays |= part_arrays("val", main.val) | part_arrays("test", main.test)
        for name, each in sorted(self.chosen.items()):
            if name != self.main.main:
                arrays |= _selected("val", name, each.val) | _selected("test", name, each.test)
        for names, logits in self.main.subset_logits.items():
            arrays[f"test/subset/{names}"] = logits
        return arrays


def _selected(part: str, name: str, predictions: PartPredictions) -> dict[str, NDArray[Any]]:
    """Logits at the epoch of a fused prediction other than the main one: each has a result."""
    return {f"{part}/selected/{name}/{key}": each for key, each in predictions.logits.items()}


def finish(
    assembly: Assembly,
    loop: TrainingLoop,
    out: Path,
    execution: Execution,
    attempt: Attempt,
    lock: RunLock,
    stop: StopRequest,
) -> RunRecord:
    """Evaluate the selected epochs and write the run's folder, ``run.json`` last.

    Only here is the test part read. Stopped, it is done again but for the fits of the linear
    evaluation.

    Args:
        assembly: what the run was put together from.
        loop: trained to its last epoch.
        out: the run's folder.
        execution: for the environment in the record.
        attempt: has the checkpoints.
        lock: checked before the first file is written.
        stop: looked at between the steps.
    """
    outcome = _evaluate_selected(assembly, loop, attempt, lock, stop)
    main = assembly.method.main_prediction
    record = RunRecord(
        run=assembly.settings.run_id,
        settings=assembly.settings,
        settings_hash=assembly.settings.hash,
        digest=attempt.digest,
        classes=assembly.store.manifest.classes,
        main=main,
        results=outcome.results(),
        subset_accuracy=dict(outcome.main.subset_accuracy),
        shapley=dict(outcome.main.shapley),
        parameters=assembly.method.parameter_count(),
        cost=_cost(assembly, loop, attempt, outcome),
        environment=environment_of(execution, loop.devices),
        started=attempt.started,
        finished=now(),
    )
    stop.check()
    lock.check()
    weights = attempt.checkpoints.weights_path(loop.selected[main].epoch)
    with replacing(out / WEIGHTS) as temporary:
        temporary.write_bytes(weights.read_bytes())
    write_arrays(out / PREDICTIONS, outcome.arrays())
    loop.recorder.write_tables(out)
    if not has_events(out / "tensorboard"):
        # Event files are no output of the rule: who clears them away may do so at any time.
        loop.recorder.events(out / "tensorboard").close()
    write_record(out / RECORD, record)
    return record


def _evaluate_selected(
    assembly: Assembly, loop: TrainingLoop, attempt: Attempt, lock: RunLock, stop: StopRequest
) -> Outcome:
    """Put the weights of each selected epoch in place and predict both parts with them."""
    method, main = assembly.method, assembly.method.main_prediction
    test = assembly.part("test")
    predicted: dict[int, tuple[PartPredictions, PartPredictions]] = {}
    evaluation: Evaluation | None = None
    linear: dict[Part, dict[str, Logits]] = {}
    linear_seconds = 0.0
    for epoch in sorted({each.epoch for each in loop.selected.values()}):
        stop.check()
        method.load_weights(load_weights(attempt.checkpoints.weights_path(epoch)))
        on_val = _predict(assembly, loop.validation_part)
        _check_selected(loop, epoch, on_val)
        if epoch == loop.selected[main].epoch:
            evaluation = evaluate_part(assembly, test)
            predicted[epoch] = on_val, evaluation.predictions
            parts: dict[Part, PartData] = {
                "train": loop.train_part,
                "val": loop.validation_part,
                "test": test,
            }
            fits = Fits(attempt.checkpoints, epoch, lock, stop)
            linear = linear_evaluation(assembly, parts, fits)
            linear_seconds = fits.seconds
        else:
            predicted[epoch] = on_val, _predict(assembly, test)
    assert evaluation is not None
    chosen = {
        name: Chosen(selected, *predicted[selected.epoch])
        for name, selected in loop.selected.items()
    }
    chosen[main] = chosen[main].with_more(linear)
    return Outcome(chosen, evaluation, linear_seconds)


def _check_selected(loop: TrainingLoop, epoch: int, found: PartPredictions) -> None:
    """Refuse weights that do not give what selected their epoch.

    Raises:
        AmstError: the method predicts with more than its weights hold.
    """
    for name, selected in loop.selected.items():
        if selected.epoch != epoch:
            continue
        now_right = accuracy(found.logits[name], found.labels)
        if abs(now_right - selected.accuracy) > _OTHER_DIGITS + 2 / len(found.labels):
            raise AmstError(
                f"the weights of epoch {epoch + 1} give a validation accuracy of {now_right:.1%} "
                f"for {name}, and gave {selected.accuracy:.1%} in that epoch",
                "Let weights() and load_weights() of the method cover all that predict() uses",
            )


def _predict(assembly: Assembly, part: PartData) -> PartPredictions:
    return predict_part(assembly.method, assembly.loader, part, assembly.autocast())


def _cost(assembly: Assembly, loop: TrainingLoop, attempt: Attempt, outcome: Outcome) -> Cost:
    rows = loop.recorder.costs
    batch = next(assembly.loader.in_order(loop.validation_part, 1))
    forward, backward = loop.use.operations(assembly.method, batch)
    return Cost(
        train_seconds=sum(row.train_seconds for row in rows),
        validate_seconds=sum(row.validate_seconds for row in rows),
        load_seconds=sum(row.load_seconds for row in rows),
        linear_seconds=outcome.linear_seconds,
        peak_host_bytes=max(row.peak_host_bytes for row in rows),
        peak_device_bytes=max(row.peak_device_bytes for row in rows),
        attempts=attempt.number,
        forward_flops=forward,
        backward_flops=backward,
    )
