"""A batch: what a training step or a prediction is given."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TextTokens:
    """Tokenised sentences.

    Attributes:
        ids: (B, L) int64 token ids, padded.
        mask: (B, L) bool, True for real tokens.
    """

    ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Batch:
    """Labels and inputs of B samples, on one device.

    Attributes:
        labels: (B,) int64 class indices.
        inputs: modality name -> audio (B, 1, frames, mel bins) float, visual (B, 3, T, H, W) float
            or text tokens. Modalities that an epoch does not need may be missing.
        positions: (B,) int64 where the samples stand in their part, whatever the order of batches:
            the same sample has the same one in every epoch.
    """

    labels: Tensor
    inputs: Mapping[str, Tensor | TextTokens]
    positions: Tensor

    @property
    def size(self) -> int:
        """B, the number of samples."""
        return self.labels.shape[0]
