"""How and where a run is executed; of it only the device has a part in its numbers' last digits.

Imports no torch.
"""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from amst.config.execution import ExecutionSettings
from amst.training.state import STALE_AFTER


class Execution(ExecutionSettings):
    """What the caller knows about this attempt, besides what config.yaml says of all.

    Attributes:
        runs_on_node: runs that this run shares the node's memory with, itself included.
        runs_on_gpu: runs that share each GPU where runs are packed (profiles/node); else 0.
        lock_wait: seconds to wait for another writer of the run's folder.
        stale_after: seconds without a heartbeat after which a writer counts as dead; heartbeats
            come twelve times as often.
        commit: of the checkout; empty where nobody knows.
        code_digest: digest of the code that the run's numbers come from.
        package_digest: digest of the installed packages.
        container_digest: SHA-256 of the image file; empty outside one.
        packages: names whose versions the record keeps.
        log: path of the log file, shown where a run has failed.
        keep: whether a finished run gets second names below its checkpoints, for a caller that
            may delete its files before it starts the same run again.
    """

    runs_on_node: PositiveInt = 1
    runs_on_gpu: NonNegativeInt = 0
    lock_wait: NonNegativeFloat = 180
    stale_after: PositiveFloat = STALE_AFTER
    commit: str = ""
    code_digest: str = ""
    package_digest: str = ""
    container_digest: str = ""
    packages: tuple[str, ...] = ("numpy", "torch")
    log: str = ""
    keep: bool = False
