"""Heads: embeddings to logits per modality, and those to fused logits.

Every head splits into a share per modality, z_m, so that any subset of the modalities can be
fused. Notation: B samples, C classes, embeddings of length D, modalities M.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

HeadName = Literal["late_sum", "concat", "shared_head"]


class ByModality(nn.ModuleDict):
    """Modules by modality name; any name will do, also ``keys`` or one with a dot."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Register ``module`` without the checks that keep names usable as attributes."""
        self._modules[name] = module  # type: ignore[assignment]

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """What ``load_state_dict`` does here: it would take a dot in a name for a level."""
        known = tuple(f"{prefix}{name}." for name in self)
        if strict:
            unexpected_keys += [
                key for key in state_dict if key.startswith(prefix) and not key.startswith(known)
            ]


class Head(nn.Module, ABC):
    """Logits per modality, z_m, and fused logits z."""

    @abstractmethod
    def logits(self, name: str, embedding: Tensor) -> Tensor:
        """z_m (B, C) of modality ``name`` from its embeddings (B, D)."""

    @abstractmethod
    def fuse(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Fused z (B, C) of the z_m at hand, at least one."""


class LateSum(Head):
    """z_m = W_m e_m + b_m; z = sum of z_m."""

    def __init__(self, names: Iterable[str], embedding: int, classes: int) -> None:
        super().__init__()
        self.classifiers = ByModality({name: nn.Linear(embedding, classes) for name in names})

    def logits(self, name: str, embedding: Tensor) -> Tensor:
        """W_m e_m + b_m."""
        return self.classifiers[name](embedding)

    def fuse(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Sum over the modalities at hand."""
        return torch.stack(list(logits.values())).sum(dim=0)


class Concat(Head):
    """z_m = W_m e_m + b / |M|; z = sum of z_m: a linear layer on the concatenated embeddings."""

    def __init__(self, names: Iterable[str], embedding: int, classes: int) -> None:
        super().__init__()
        self.classifiers = ByModality(
            {name: nn.Linear(embedding, classes, bias=False) for name in names}
        )
        self.bias = nn.Parameter(torch.zeros(classes))

    def logits(self, name: str, embedding: Tensor) -> Tensor:
        """W_m e_m + b / |M|, where |M| counts all modalities, present or not."""
        return self.classifiers[name](embedding) + self.bias / len(self.classifiers)

    def fuse(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Sum over the modalities at hand."""
        return torch.stack(list(logits.values())).sum(dim=0)


class SharedHead(Head):
    """z_m = W e_m + b with one W and b for all; z = mean of z_m."""

    def __init__(self, names: Iterable[str], embedding: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(embedding, classes)

    def logits(self, name: str, embedding: Tensor) -> Tensor:
        """W e_m + b."""
        return self.classifier(embedding)

    def fuse(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Mean over the modalities at hand."""
        return torch.stack(list(logits.values())).mean(dim=0)


HEADS: dict[str, type[LateSum] | type[Concat] | type[SharedHead]] = {
    "late_sum": LateSum,
    "concat": Concat,
    "shared_head": SharedHead,
}
