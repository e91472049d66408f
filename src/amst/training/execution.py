"""How and where a run is executed; of it only the device has a part in its numbers' last digits.

Imports no torch.
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from amst.config.run import Settings


class Execution(Settings):
    """What the caller knows about this attempt.

    Attributes:
        device: 'auto' takes the GPU if there is one.
        residency: where features are kept; 'auto' decides by size.
        capture: record training passes on a GPU and replay them.
        deadline: seconds after which the run saves and leaves with code 75; 0 for none.
        stage: folder on the node's own disk for copies of shards, with environment variables.
        runs_on_node: runs that this run shares the node's memory with, itself included.
        runs_on_gpu: runs that share each GPU where runs are packed (profiles/node); else 0.
        lock_wait: seconds to wait for another writer of the run's folder.
        stale_after: seconds without a heartbeat after which a writer counts as dead.
        code_digest: digest of the code that the run's numbers come from.
        package_digest: digest of the installed packages.
        container_digest: SHA-256 of the image file; empty outside one.
        packages: names whose versions the record keeps.
        log: path of the log file, shown where a run has failed.
        keep: whether a finished run gets second names below its checkpoints, for a caller that
            may delete its files before it starts the same run again.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    residency: Literal["auto", "device", "host", "stream"] = "auto"
    capture: bool = False
    deadline: NonNegativeInt = 0
    stage: str = ""
    runs_on_node: PositiveInt = 1
    runs_on_gpu: NonNegativeInt = 0
    lock_wait: NonNegativeFloat = 180
    stale_after: PositiveFloat = Field(120, description="heartbeats come twelve times as often")
    code_digest: str = ""
    package_digest: str = ""
    container_digest: str = ""
    packages: tuple[str, ...] = ("numpy", "torch")
    log: str = ""
    keep: bool = False
