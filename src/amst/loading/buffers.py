"""Host memory for batches of runs on processors, lent and used again.

The C library does not do for it: glibc 2.36 does not find a freed block for one of its size that is
to be aligned, as PyTorch's are, and cuts smaller ones out of it; so a loader would take a batch or
two more than are in use.
"""

import math
import threading
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LARGE = 1 << 20  # bytes; smaller ones are left to the C library
_ALIGNMENT = 64  # bytes, PyTorch's

_free: list[NDArray[np.uint8]] = []
_taking = threading.Lock()


def empty(shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor in host memory, its numbers not set.

    Its memory is lent to the next one once no tensor uses it any more, views included. What is free
    and too small when more is wanted is let go, so that the batches of training and the larger ones
    of evaluation do not both keep theirs.
    """
    size = math.prod(shape) * torch.float32.itemsize
    if size < _LARGE:
        return torch.empty(shape)
    memory = _take(size + _ALIGNMENT)
    begin = -memory.ctypes.data % _ALIGNMENT
    array = memory[begin : begin + size].view(np.float32).reshape(shape)
    # Tensors that share this memory hold the array.
    weakref.finalize(array, _free.append, memory).atexit = False
    return torch.from_numpy(array)


def _take(size: int) -> NDArray[np.uint8]:
    with _taking:  # others may still add to the list, at its end
        fitting = [place for place, memory in enumerate(_free) if memory.nbytes >= size]
        if fitting:
            return _free.pop(min(fitting, key=lambda place: _free[place].nbytes))
        del _free[:]
    return np.empty(size, np.uint8)
