"""Counts floating-point operations while code runs, backward passes included.

PyTorch has such a counter, which takes seconds to load as it imports the compiler.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten


class OperationCounter(TorchDispatchMode):
    """Context manager that adds up the operations of convolutions and matrix products.

    A multiplication and an addition are two operations. Everything else (normalisation,
    activations, additions) is left out, as is usual: it is a few per cent.

    Attributes:
        total: operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To say more would import the compiler. Compiled steps are counted as plain ones, and stay
        # plain from then on.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation of PyTorch and count it."""
        result = func(*args, **(kwargs or {}))
        count = _COUNTS.get(func.overloadpacket)
        if count is not None:
            self.total += count(args, result)
        return result


def _product(args: Sequence[Any], result: Tensor) -> int:
    """(..., n, k) times (..., k, m); the second factor is the last argument."""
    return 2 * result.numel() * int(args[-1].shape[-2])


def _convolution(args: Sequence[Any], result: Tensor) -> int:
    return _convolve(args[1], result)


def _convolution_backward(args: Sequence[Any], _result: Any) -> int:
    """As many for the gradient of the input as for that of the weights, where wanted."""
    gradient, weight, wanted = args[0], args[2], args[-1]
    return sum(wanted[:2]) * _convolve(weight, gradient)


def _convolve(weight: Tensor, output: Tensor) -> int:
    return 2 * output.numel() * math.prod(weight.shape[1:])


_COUNTS: dict[Any, Callable[[Sequence[Any], Any], int]] = {
    _aten.mm: _product,
    _aten.bmm: _product,
    _aten.addmm: _product,
    _aten.baddbmm: _product,
    _aten.convolution: _convolution,
    _aten.convolution_backward: _convolution_backward,
}
