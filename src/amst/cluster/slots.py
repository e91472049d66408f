"""GPU slots: several runs in one allocation, each on a GPU of its own or k runs on one.

Snakemake counts GPUs but does not say which one a local job may use. A slot is a file lock per
(device, place) on the node; the kernel gives it back whatever ends the process.
"""

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

from amst.config.settings import Resources
from amst.errors import AmstError
from amst.ownfolder import make_own

PER_GPU = "AMST_RUNS_PER_GPU"
"""Environment variable that switches slots on, set by profiles/node: runs on one GPU."""
WITHOUT_GPU = "AMST_WITHOUT_GPU"
"""Environment variable with the datasets whose runs ask for no GPU, set by the Snakefile."""
_PAUSE = 0.2  # seconds between two looks for a free slot


def devices(environ: Mapping[str, str] = os.environ) -> list[str]:
    """GPUs that this process may use: what the scheduler says, else what the driver lists."""
    given = environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return _named(listed.stdout.splitlines()) if listed.returncode == 0 else []


def _named(listed: Iterable[str]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name of a driver's list: cards, or the MIG instances on one.

    Instances stand indented below their card, ``MIG 1g.10gb Device 0: (UUID: MIG-...)``.
    """
    found: list[str] = []
    cards = 0
    for line in listed:
        if line.startswith("GPU "):
            found.append(str(cards))
            cards += 1
        elif instance := re.search(r"UUID: (MIG-[^)]+)", line):
            if found and found[-1] == str(cards - 1):
                found.pop()  # a card that is divided cannot be had as a whole
            found.append(instance[1])
    return found


def per_gpu(environ: Mapping[str, str] = os.environ) -> int:
    """How many runs share one GPU; 0 when slots are off.

    Raises:
        AmstError: the setting is no count.
    """
    text = environ.get(PER_GPU) or "0"
    if not text.isdigit():
        raise AmstError(f"{PER_GPU} is {text!r}", "Set it to the number of runs on one GPU")
    return int(text)


def on_node(needs: Iterable[Resources], cores: int, gpus: int | None) -> int:
    """How many training jobs one call of Snakemake may run on its node at a time.

    Args:
        needs: what training jobs of the grid ask for.
        cores: CPU cores of the call.
        gpus: places on GPUs that the call may hand out; None where it does not count them.
    """

    def jobs(need: Resources) -> int:
        by_cores = cores // min(need.threads, cores)
        return by_cores if gpus is None or not need.gpu else min(by_cores, gpus // need.gpu)

    return max([1, *map(jobs, needs)])


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the locks of this user and allocation lie on this node."""
    allocation = environ.get("SLURM_JOB_ID", "local")
    temporary = Path(environ.get("TMPDIR") or "/tmp")
    if not os.access(temporary, os.W_OK | os.X_OK):
        temporary = Path("/tmp")
    # Not by tempfile, which takes another folder while the disk of this one is full: runs that
    # start then would hold other slots than those that go on.
    return temporary / f"amst-slots-{os.getuid()}-{allocation}"


def place(dataset: str, device: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Put this process on a GPU slot, or off all GPUs if its run asks for none.

    Waits for a free slot where slots are on. There, a run on the processors must not see GPUs: it
    would take one that counts as free. Elsewhere, only a run that may choose its device and asks
    for no GPU sees none, so that it trains on the same kind of device under every profile.

    Args:
        dataset: whose run this is.
        device: what the configuration says of the device.
        environ: where CUDA_VISIBLE_DEVICES is set.
    """
    asks_for_none = dataset in environ.get(WITHOUT_GPU, "").split()
    slotted = bool(per_gpu(environ))
    if (slotted and device == "cpu") or (asks_for_none and (slotted or device == "auto")):
        environ["CUDA_VISIBLE_DEVICES"] = ""
    elif taken := take(environ):
        environ["CUDA_VISIBLE_DEVICES"] = taken


def take(environ: Mapping[str, str] = os.environ) -> str:
    """Wait for a free slot and hold it until this process ends.

    Spreads over devices first, so that two runs share a GPU only when all have one.

    Returns:
        The device, for CUDA_VISIBLE_DEVICES; empty when slots are off or there is no GPU.

    Raises:
        AmstError: the folder of the locks is somebody else's.
    """
    names, places = devices(environ) if per_gpu(environ) else [], per_gpu(environ)
    if not names:
        return ""
    at = folder(environ)
    try:
        make_own(at)
    except PermissionError as error:
        raise AmstError(f"{at}: {error.strerror}", "Set TMPDIR to a folder of your own") from error
    while True:
        for place in range(places):
            for name in names:
                if _hold(at / f"{name.replace('/', '_')}.{place}"):
                    return name
        time.sleep(_PAUSE)


def _hold(path: Path) -> bool:
    """Lock a file for the life of this process, unless somebody else has it."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    return True
