"""Counts the bytes that operators move through memory, beside their operations."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from amst.training.operations import OperationCounter

_aten = torch.ops.aten
_NO_DATA = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten._unsafe_view}


class TrafficCounter(OperationCounter):
    """Context manager that adds up what each operator has to read and write.

    Every tensor once for every operator that takes or gives it: what the operators would move at
    least if each worked alone and no cache kept anything for the next one. Views move nothing.

    Attributes:
        moved: bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and count it."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if not func.is_view and func.overloadpacket not in _NO_DATA:
            self.moved += _read(func, args, kwargs or {}) + _written(func, result)
        return result


def _read(func: Any, args: Sequence[Any], kwargs: Any) -> int:
    """Bytes of the arguments, twice where they are changed in place."""
    arguments = func._schema.arguments
    given = [*zip(arguments, args, strict=False)]
    given += [(each, kwargs[each.name]) for each in arguments if each.name in kwargs]
    return sum(
        _bytes(value) * (2 if each.alias_info and each.alias_info.is_write else 1)
        for each, value in given
    )


def _written(func: Any, result: Any) -> int:
    """Bytes of the results that are not arguments changed in place."""
    several = result if isinstance(result, tuple) else (result,)
    returns = func._schema.returns
    return sum(
        _bytes(value)
        for each, value in zip(returns, several, strict=False)
        if each.alias_info is None
    )


def _bytes(value: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
