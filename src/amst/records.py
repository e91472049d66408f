"""The run record: one job's settings, provenance, results and cost as one small JSON file."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from amst.config.run import RunSettings, settings_hash
from amst.documents import read_document
from amst.files import write_json

RECORD, HISTORY, COSTS = "run.json", "history.csv", "cost.csv"
PREDICTIONS, WEIGHTS = "predictions.npz", "weights.safetensors"
RUN_FILES = (RECORD, HISTORY, COSTS, PREDICTIONS, WEIGHTS)
"""What a run ends with, besides event files: without those nothing has to be trained again."""
FORMAT = 1
Part = Literal["val", "test"]
# Rounding may lift what is 1 by an ulp.
Share = Annotated[float, Field(ge=0, le=1 + 1e-9)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Metrics(_Row):
    """Metrics of one named prediction on one part; fractions of 1, cross-entropy in nats.

    Attributes:
        accuracy: share of correct predictions.
        macro_f1: F1 averaged over the classes present in the part.
        mean_average_precision: one-vs-rest average precision, same average.
        cross_entropy: mean negative log-likelihood of the label.
        confidence_correct: mean confidence of correct predictions per class, then over classes.
        calibration_error: expected calibration error with 15 equal bins.
        per_class_accuracy: class name -> accuracy; classes absent from the part are left out.
    """

    accuracy: Share
    macro_f1: Share
    mean_average_precision: Share
    cross_entropy: NonNegativeFloat
    confidence_correct: Share
    calibration_error: Share
    per_class_accuracy: dict[str, Share]


class Result(_Row):
    """Metrics of one prediction at the epoch that one fused prediction's validation selected.

    Attributes:
        selected_by: the fused prediction whose validation accuracy chose the epoch.
        best_epoch: that epoch, counted from 0.
        prediction: name of the evaluated prediction ('fused', 'modality/audio', 'probe/audio').
        part: 'val' or 'test'.
    """

    selected_by: str
    best_epoch: NonNegativeInt
    prediction: str
    part: Part
    samples: PositiveInt
    metrics: Metrics


class Cost(_Row):
    """What the epochs of the run and its linear evaluation cost, in whichever attempts.

    Never part of a comparison of results.
    """

    train_seconds: NonNegativeFloat
    validate_seconds: NonNegativeFloat
    load_seconds: NonNegativeFloat
    peak_host_bytes: NonNegativeInt
    peak_device_bytes: NonNegativeInt
    attempts: PositiveInt
    forward_flops: dict[str, float] = Field(
        description="modality -> floating-point operations of the whole training, forward"
    )
    backward_flops: dict[str, float]
    linear_seconds: NonNegativeFloat = Field(
        default=0.0, description="of the linear evaluation; 0 in records that do not state it"
    )

    @property
    def seconds(self) -> float:
        """On the device: training, validation and waiting for batches."""
        return self.train_seconds + self.validate_seconds + self.load_seconds


class Environment(_Row):
    """Where and with what the run was made."""

    suite_version: str
    commit: str = Field(description="git commit of the checkout, '+changes' when it was edited")
    code_digest: str
    package_digest: str
    container_digest: str = Field(description="SHA-256 of the image file; empty outside one")
    python: str
    packages: dict[str, str]
    host: str
    device: str = Field(
        description="model, and whether passes were captured; each where a run continued on another"
    )
    slurm_job: str = ""

    @property
    def made_by(self) -> str:
        """Digests of code and packages, as ``amst.provenance.with_packages`` joins them."""
        return f"{self.code_digest}-{self.package_digest}"


class RunRecord(_Row):
    """``run.json`` of a finished run.

    Attributes:
        digest: of all that the numbers depend on: settings, code, packages, manifest and split.
        main: the fused prediction that the main table shows and whose weights are kept.
        subset_accuracy: '+'-joined modality names -> test accuracy of ``main`` from these alone.
        shapley: modality -> its Shapley contribution to the test accuracy of ``main``.
        adopted: reasons for which it was declared valid under changed code or packages.
    """

    format: int = FORMAT
    run: str
    settings: RunSettings
    settings_hash: str
    digest: str
    classes: tuple[str, ...] = Field(min_length=1)
    main: str
    results: tuple[Result, ...]
    subset_accuracy: dict[str, Share]
    shapley: dict[str, float]
    parameters: NonNegativeInt
    cost: Cost
    environment: Environment
    started: str
    finished: str
    adopted: tuple[str, ...] = ()

    def metrics(
        self, prediction: str, part: Part = "test", selected_by: str | None = None
    ) -> Metrics:
        """Metrics of one prediction.

        Args:
            prediction: its name.
            part: 'val' or 'test'.
            selected_by: the selecting fused prediction; ``main`` when None.

        Raises:
            KeyError: the run has no such prediction.
        """
        chosen = selected_by or self.main
        for row in self.results:
            if (row.selected_by, row.prediction, row.part) == (chosen, prediction, part):
                return row.metrics
        raise KeyError(f"{self.run} has no prediction {prediction!r} on {part}")


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record as JSON, by rename."""
    write_json(path, record.model_dump(mode="json"))


def read_record(path: Path | str) -> RunRecord:
    """Read and check a record.

    Raises:
        AmstError: the file is no record, or one of another format version.
    """
    remedy = "Delete the run's folder and run it again"
    return read_document(Path(path), RunRecord, "run record", remedy)


def stated_hash(path: Path) -> str:
    """Hash of the settings that stand in a record: a later version may know more of them."""
    return settings_hash(json.loads(path.read_text("utf-8"))["settings"])
