"""PyTorch's compiler, and what it needs besides PyTorch: Triton builds a small library in C.

Imports nothing of the suite: run as a file, in an image say, it prints what is missing there.
"""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any


def missing() -> str:
    """What is missing on this machine to compile training steps; empty where all is there."""
    chosen = os.environ.get("CC")
    if not any(shutil.which(name) for name in ([chosen] if chosen else ["gcc", "clang"])):
        return f"the C compiler that CC names, {chosen}" if chosen else "a C compiler"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.is_file() else f"Python's own header {header}"


def compiled(function: Any) -> Any:
    """A function as PyTorch compiles it for the shapes that it is given first, alike in every run.

    Otherwise kernels would be chosen by the time they take here. As an option, since what is set
    in the compiler's module holds for one thread: backward passes and batches have others.
    """
    import torch

    return torch.compile(function, dynamic=False, options={"deterministic": True})


if __name__ == "__main__":
    print(missing())
