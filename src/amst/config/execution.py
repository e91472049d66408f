"""How runs are executed, as config.yaml says it: what every training job is told."""

from typing import Literal

from pydantic import NonNegativeInt

from amst.config.run import Settings

Device = Literal["auto", "cpu", "cuda"]


class ExecutionSettings(Settings):
    """How runs are executed; no result depends on it but for what ``device`` says.

    Attributes:
        device: auto takes a GPU if there is one; called by Snakemake, not for a dataset whose
            ``resources.gpu`` is 0. Last digits, and draws of dropout and noise, differ between
            models of devices, which the record names.
        residency: where features wait for training; auto goes by their size.
        capture: on a GPU, record the training pass of encoders for sounds and pictures as CUDA
            graphs, and replay it for each whole batch: the same kernels, sooner, in more memory.
        stage: folder on a node's own disk to copy shards to, such as $TMPDIR.
        deadline: seconds after which a training job saves and leaves; 0 for none.
    """

    # Described above, not in the fields: these are code of every run, which words are not.
    device: Device = "auto"
    residency: Literal["auto", "device", "host", "stream"] = "auto"
    capture: bool = False
    stage: str = ""
    deadline: NonNegativeInt = 0
