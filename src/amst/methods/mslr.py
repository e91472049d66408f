"""MSLR: every encoder has its own learning rate.

Source: Yao and Mihalcea, Modality-specific Learning Rates for Effective Multimodal Additive
Late-fusion, Findings of ACL 2022.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch.nn.functional import cross_entropy

from amst.config.run import MethodSettings
from amst.methods.base import Batch, Method, Problem, StepResult, check_names
from amst.models.sgd import SGD


class Settings(MethodSettings):
    """Settings of ``mslr``."""

    rates: Literal["fixed", "dynamic"] = Field(
        "fixed",
        description="fixed: as the released code ran; dynamic: follow the validation accuracy "
        "(paper)",
    )
    history: PositiveInt = Field(5, description="N: epochs averaged, and between two changes")
    audio_rate: PositiveFloat = Field(1e-3, description="learning rate of encoders of this kind")
    visual_rate: PositiveFloat = Field(1e-2, description="learning rate of encoders of this kind")
    text_rate: PositiveFloat = Field(1e-3, description="learning rate of encoders of this kind")
    head_rate: PositiveFloat = Field(1e-3, description="learning rate of head and probes")
    learning_rates: dict[str, PositiveFloat] = Field(
        {}, description="modality -> learning rate of its encoder, instead of its kind's"
    )


class Mslr(Method[Settings]):
    """Loss = CE(z, y); dynamic: lr_m *= acc_m / mean of the last N acc_m, every N epochs."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        check_names("learning_rates", settings.learning_rates, problem)
        self.network = self.build("late_sum")
        self.histories: dict[str, list[float]] = {name: [] for name in self.modalities}
        for name, modality in problem.modalities.items():
            kind_rate = getattr(settings, f"{modality.kind}_rate")
            self.encoder_sgd(name).learning_rate = settings.learning_rates.get(name, kind_rate)
        for sgd in (self.network.optimisers["head"], *self.network.probe_optimisers.values()):
            sgd.learning_rate = settings.head_rate

    def encoder_sgd(self, name: str) -> SGD:
        """The optimiser of one encoder."""
        return self.network.optimisers[f"encoder/{name}"]

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update of encoders, head and probes, each at its own rate."""
        forward = self.network(batch.inputs)
        loss = cross_entropy(forward.fused, batch.labels)
        self.network.update(loss)
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss.detach(), forward.predictions())

    def scalars(self) -> dict[str, float]:
        """The encoders' rates, where they follow anything."""
        if self.settings.rates == "fixed":
            return {}
        return {f"learning_rate/{m}": self.encoder_sgd(m).learning_rate for m in self.modalities}

    def end_validation(self, accuracies: Mapping[str, float]) -> None:
        """Remember the accuracy of each modality; every N epochs let its rate follow."""
        if self.settings.rates == "fixed":
            return
        epoch = self.finished_epochs - 1
        for name, history in self.histories.items():
            accuracy = accuracies[f"modality/{name}"]
            history.append(accuracy)
            del history[: -self.settings.history]
            mean = sum(history) / len(history)
            if epoch > 0 and epoch % self.settings.history == 0 and mean > 0:
                self.encoder_sgd(name).learning_rate *= accuracy / mean

    def state_dict(self) -> dict[str, Any]:
        """With the accuracies remembered; the rates are the optimisers'."""
        return super().state_dict() | {"histories": {k: [*v] for k, v in self.histories.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.histories = {name: [*values] for name, values in state["histories"].items()}
