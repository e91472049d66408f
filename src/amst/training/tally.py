"""Loss and accuracy of many batches, summed on the device and read once."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Tally:
    """Sums over the batches of an epoch; adding never waits for the device.

    Attributes:
        samples: how many samples have been added.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._loss: Tensor | None = None
        # Names that came together -> (their number, 2): correct answers and cross-entropy.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._seen: dict[tuple[str, ...], int] = {}

    def add(self, logits: Mapping[str, Tensor], labels: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: prediction -> (B, C).
            labels: (B,).
            loss: mean loss of the batch, 0-d, where there is one.
        """
        batch = labels.shape[0]
        self.samples += batch
        if loss is not None:
            weighted = loss.double() * batch
            self._loss = weighted if self._loss is None else self._loss + weighted
        if not logits:
            return
        names = tuple(sorted(logits))
        stacked = torch.stack([logits[name].float() for name in names])
        correct = (stacked.argmax(dim=-1) == labels).sum(dim=-1)
        targets = labels.expand(len(names), batch)
        entropy = cross_entropy(stacked.flatten(0, 1), targets.flatten(), reduction="none")
        sums = torch.stack((correct, entropy.view(len(names), batch).double().sum(dim=-1)), dim=-1)
        self._sums[names] = self._sums[names] + sums if names in self._sums else sums
        self._seen[names] = self._seen.get(names, 0) + batch

    def loss(self) -> float:
        """Mean loss over the samples; 0 when none was given. Waits for the device."""
        return 0.0 if self._loss is None else self._loss.item() / self.samples

    def accuracies(self) -> dict[str, float]:
        """Share of correct answers by prediction. Waits for the device."""
        return self._means(0)

    def cross_entropies(self) -> dict[str, float]:
        """Mean cross-entropy by prediction. Waits for the device."""
        return self._means(1)

    def _means(self, column: int) -> dict[str, float]:
        totals: dict[str, float] = {}
        seen: dict[str, int] = {}
        for names, sums in self._sums.items():
            for name, value in zip(names, sums[:, column].tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + value
                seen[name] = seen.get(name, 0) + self._seen[names]
        return {name: totals[name] / seen[name] for name in sorted(totals)}

    def state(self) -> dict[str, Any]:
        """Sums so far, for a checkpoint in the middle of an epoch."""
        rows = [(names, sums, self._seen[names]) for names, sums in self._sums.items()]
        return {"samples": self.samples, "loss": self._loss, "rows": rows}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device) -> Self:
        """The tally that gave this state."""
        tally = cls()
        tally.samples = state["samples"]
        tally._loss = None if state["loss"] is None else state["loss"].to(device)
        for names, sums, seen in state["rows"]:
            tally._sums[tuple(names)] = sums.to(device)
            tally._seen[tuple(names)] = seen
        return tally
