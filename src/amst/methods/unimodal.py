"""One modality alone: its encoder and a linear classifier."""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy

from amst.config.run import AloneSettings
from amst.methods.base import Batch, Method, Problem, StepResult, check_names
from amst.randomness import stream_seed


class Settings(AloneSettings):
    """Settings of ``unimodal``."""

    form: Literal["paper", "released"] = Field(
        "paper",
        description="paper: the encoder as in the other methods, width D; released: the encoder's "
        "own width without the 1x1 convolution, and for text PyTorch's default initial classifier",
    )


class Unimodal(Method[Settings]):
    """Loss = CE(W e_m + b, y)."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        check_names("modality", [settings.modality], problem)
        only = {settings.modality: problem.modalities[settings.modality]}
        super().__init__(settings, replace(problem, modalities=only))
        released = settings.form == "released"
        self.network = self.build("late_sum", probes=False, own_width=released)
        if released and only[settings.modality].kind == "text":
            self._default_classifier()

    def _default_classifier(self) -> None:
        # Its models of audio and video draw all weights as the other methods do, that of text none.
        stream = ("weights", "head", "default", self.settings.modality)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.problem.seed, *stream))
            for part in self.network.head.modules():
                if isinstance(part, nn.Linear):
                    part.reset_parameters()

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update of encoder and classifier."""
        forward = self.network(batch.inputs, self.modalities)
        loss = cross_entropy(forward.fused, batch.labels)
        self.network.update(loss)
        return StepResult(loss.detach(), forward.predictions())
