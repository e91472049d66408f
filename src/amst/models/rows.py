"""Many tensors as the rows of one."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor


class Rows:
    """The numbers of many tensors in the rows of one, so that a few operations do for them all.

    A tensor begins in a row of its own; zeros fill its last one.

    Args:
        like: tensors of the shapes and memory layouts to lay out, without gaps in memory, as
            PyTorch accumulates the gradients of weights without gaps.

    Attributes:
        shape: (R, WIDTH).
        counts: how many numbers each of the T tensors has.
    """

    WIDTH = 4096

    def __init__(self, like: Sequence[Tensor]) -> None:
        self.counts = [tensor.numel() for tensor in like]
        self._heights = [-(-count // self.WIDTH) for count in self.counts]
        self._layouts = [(tensor.size(), tensor.stride()) for tensor in like]
        self._device = like[0].device
        self.shape = (sum(self._heights), self.WIDTH)

    @cached_property
    def owner(self) -> Tensor:
        """(R,): which tensor a row belongs to."""
        rows = [torch.full((n,), i, device=self._device) for i, n in enumerate(self._heights)]
        return torch.cat(rows)

    @cached_property
    def _belongs(self) -> Tensor:
        """(T, R) float64: 1 where a row belongs to a tensor, else 0."""
        tensors = torch.arange(len(self.counts), device=self._device)
        return (tensors[:, None] == self.owner).double()

    @cached_property
    def _degrees(self) -> tuple[Tensor, Tensor]:
        """(T,) float64: numbers of each tensor, and one less; a single number has no spread."""
        fills = [torch.full((), float(count), device=self._device) for count in self.counts]
        counts = torch.stack(fills).double()
        return counts, (counts - 1).clamp(min=1)

    def pieces(self, rows: Tensor) -> list[Tensor]:
        """Views of ``rows`` (R, WIDTH) in the shapes and layouts of the tensors."""
        above = accumulate(self._heights, initial=0)
        return [
            rows.as_strided(size, stride, row * self.WIDTH)
            for (size, stride), row in zip(self._layouts, above, strict=False)
        ]

    def deviations(self, tensors: Sequence[Tensor]) -> Tensor:
        """Standard deviation (T,) of each tensor's numbers, 0 of a single one."""
        rows = torch.zeros(self.shape, device=self._device)
        torch._foreach_copy_(self.pieces(rows), list(tensors))
        sums = rows.sum(dim=1, dtype=torch.float64)
        squares = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
        sums, squares = (self._belongs @ torch.stack((sums, squares), dim=1)).unbind(dim=1)
        counts, degrees = self._degrees
        return ((squares - sums.square() / counts).clamp(min=0) / degrees).sqrt().float()
