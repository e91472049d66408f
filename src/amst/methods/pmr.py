"""PMR: prototypes per class push the slower modality, and may hold back the dominant one.

Source: Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, CVPR 2023,
arXiv 2211.07089.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.config.run import MethodSettings
from amst.methods.base import Batch, BatchSource, Method, Problem, StepResult


class Settings(MethodSettings):
    """Settings of ``pmr``."""

    alpha: NonNegativeFloat = Field(
        1.0, description="weight of the prototype losses; released 1.0, the authors use 2.0 to 3.0"
    )
    momentum: float = Field(
        0.2, ge=0, lt=1, description="mu, share of the old prototypes; the authors' commands use 0"
    )
    factor: float = Field(
        0.1, gt=0, le=1, description="share of the part's batches that prototypes are made from"
    )
    prototypes_from: Literal["train", "validation"] = Field(
        "train",
        description="part that prototypes are made from; the released code takes validation for "
        "AVE, the paper training",
    )
    prototype_transform: Literal["evaluation", "augmented"] = Field(
        "evaluation",
        description="training pictures that prototypes are made from: whole, or cropped at random "
        "as in training (released); the paper is silent",
    )
    start: NonNegativeInt = Field(0, description="first epoch with prototype losses")
    end: NonNegativeInt = Field(70, description="last epoch with prototype losses")
    entropy: bool = Field(
        False, description="prototype entropy regularisation of the dominant modality (paper)"
    )
    gamma: NonNegativeFloat = Field(0.1, description="weight of the entropy; a choice of ours")
    entropy_epochs: NonNegativeInt = Field(
        10, description="epochs with entropy regularisation, from the first; a choice of ours"
    )


class Pmr(Method[Settings]):
    """Loss = CE(z, y) + sum of coefficient_m CE(d_m, y), d_m = -distance(e_m, prototypes)."""

    def __init__(self, settings: Settings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.network = self.build("late_sum")
        weight = next(self.network.head.parameters())
        shape = (problem.classes, weight.shape[1])
        self.prototypes = {name: weight.new_zeros(shape) for name in self.modalities}
        self.known = torch.zeros(problem.classes, dtype=torch.bool)

    def to(self, device: torch.device | str) -> None:
        """Move networks and prototypes."""
        super().to(device)
        self.prototypes = {name: p.to(device) for name, p in self.prototypes.items()}
        self.known = self.known.to(device)

    def begin_epoch(self, epoch: int, batches: BatchSource) -> None:
        """P <- (1 - mu) new + mu old, new the mean embedding of each class."""
        if len(self.modalities) == 1:
            return
        new, seen = self._class_means(self._share_of(batches))
        mixed, first = (seen & self.known).unsqueeze(1), (seen & ~self.known).unsqueeze(1)
        mu = self.settings.momentum
        for name, old in self.prototypes.items():
            blend = (1 - mu) * new[name] + mu * old
            self.prototypes[name] = torch.where(mixed, blend, torch.where(first, new[name], old))
        self.known = self.known | seen

    def _share_of(self, batches: BatchSource) -> Iterator[Batch]:
        factor = self.settings.factor
        if self.settings.prototypes_from == "validation":
            return batches.validation(max(1, ceil(factor * batches.validation_batches())))
        augmented = self.settings.prototype_transform == "augmented"
        count = max(1, ceil(factor * len(batches)))
        return batches.shuffled("prototypes", augmented=augmented, count=count)

    @torch.no_grad()
    def _class_means(self, batches: Iterable[Batch]) -> tuple[dict[str, Tensor], Tensor]:
        """Mean embedding per class (C, D) by modality, and which classes (C,) there were."""
        sums = {name: torch.zeros_like(p) for name, p in self.prototypes.items()}
        counts = torch.zeros_like(next(iter(sums.values()))[:, :1])
        classes = torch.arange(self.problem.classes, device=self.device)
        training = self.network.training
        self.network.eval()
        for batch in batches:
            membership = (batch.labels == classes.unsqueeze(1)).to(counts.dtype)
            counts += membership.sum(dim=1, keepdim=True)
            embeddings = self.network(batch.inputs).embeddings
            # Sums over many samples, so never in the half precision of autocast.
            with torch.autocast(self.device.type, enabled=False):
                for name, embedding in embeddings.items():
                    sums[name] += membership @ embedding
        self.network.train(training)
        return {k: s / counts.clamp(min=1) for k, s in sums.items()}, counts.squeeze(1) > 0

    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """One update of encoders, head and probes."""
        forward = self.network(batch.inputs)
        loss = cross_entropy(forward.fused, batch.labels)
        if len(self.modalities) > 1:
            loss = loss + self._prototype_loss(forward.embeddings, batch.labels, epoch)
        self.network.update(loss)
        self.network.update_probes(forward, batch.labels)
        return StepResult(loss.detach(), forward.predictions())

    def _prototype_loss(self, embeddings: dict[str, Tensor], labels: Tensor, epoch: int) -> Tensor:
        d = torch.stack([self.similarities(name, e) for name, e in embeddings.items()])
        of_label = d.detach().softmax(dim=-1).gather(-1, labels.expand(d.shape[:2]).unsqueeze(-1))
        scores = of_label.sum(dim=(1, 2))
        unequal = scores.max() != scores.min()
        dominant = torch.arange(len(scores), device=scores.device) == scores.argmax()
        loss = d.new_zeros(())
        if self.settings.start <= epoch <= self.settings.end:
            losses = torch.stack([self.prototype_loss(d_m, labels) for d_m in d])
            loss = loss + self.settings.alpha * (losses * (~dominant & unequal)).sum()
        if self.settings.entropy and epoch < self.settings.entropy_epochs:
            entropies = -(d.softmax(dim=-1) * d.log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)
            loss = loss - self.settings.gamma * (entropies * (dominant & unequal)).sum()
        return loss

    def similarities(self, name: str, embedding: Tensor) -> Tensor:
        """d_m (B, C): minus the Euclidean distances of embeddings (B, D) to the prototypes.

        A class without a prototype is infinitely far, as far as the numbers go.
        """
        distances = euclidean(embedding, self.prototypes[name])
        return (-distances).masked_fill(~self.known, torch.finfo(distances.dtype).min)

    def prototype_loss(self, similarities: Tensor, labels: Tensor) -> Tensor:
        """CE(d_m, y), the mean over those samples whose class has a prototype."""
        has_prototype = self.known[labels]
        targets = labels.masked_fill(~has_prototype, -100)
        total = cross_entropy(similarities, targets, ignore_index=-100, reduction="sum")
        return total / has_prototype.sum().clamp(min=1)

    def state_dict(self) -> dict[str, Any]:
        """With the prototypes and which classes have one."""
        return super().state_dict() | {"prototypes": {**self.prototypes}, "known": self.known}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.prototypes = {n: p.to(self.device) for n, p in state["prototypes"].items()}
        self.known = state["known"].to(self.device)


def euclidean(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """Distances (B, C) of (B, D) to (C, D); their gradient where they are 0 is 0.

    Written out, since the gradient of ``torch.cdist`` is not reproducible on a GPU.
    """
    square = (embeddings.unsqueeze(1) - prototypes).square().sum(dim=-1)
    zero = square == 0
    return square.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
