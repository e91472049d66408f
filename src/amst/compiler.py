"""PyTorch's compiler, and what it needs besides PyTorch: Triton builds a small library in C.

Imports nothing of the suite: run as a file, in an image say, it prints what is missing there.
"""

import os
import shutil
import signal
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


def start_workers() -> None:
    """Start the processes in which kernels are compiled, deaf to signals that ask a run to stop.

    Schedulers, and terminals that close, send these to all processes of a job. The run takes note
    of one and saves its state after the step in work; where it waits for a kernel from a process
    that died of it, it waits for ever. Blocked signals stay blocked in processes that are started
    meanwhile; this one gets later what came for it.
    """
    asks = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, asks)
    try:
        from torch._inductor.async_compile import AsyncCompile

        AsyncCompile.warm_pool()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def compiled(function: Any) -> Any:
    """A function as PyTorch compiles it for the shapes that it is given first, alike in every run.

    Otherwise kernels would be chosen by the time they take here. As an option, since what is set
    in the compiler's module holds for one thread: backward passes and batches have others.
    """
    import torch

    return torch.compile(function, dynamic=False, options={"deterministic": True})


if __name__ == "__main__":
    print(missing())
