"""Puts a run together from its settings and files: arithmetic, data, loader and method."""

import os
import platform
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch.utils import deterministic

from amst import compiler
from amst.allocator import keep_freed_memory
from amst.config.run import Arithmetic, Features, MethodSettings, Modality, RunSettings
from amst.datasets.base import Part
from amst.datasets.splitfile import Split, read_split
from amst.documents import first_fault
from amst.errors import AmstError, HostError
from amst.loading.dataset import FeatureStore, PartData, Residency
from amst.loading.loader import Loader
from amst.loading.residency import choose_residency
from amst.loading.staged import stage_folder
from amst.methods import load
from amst.methods.base import Method
from amst.models.problem import Problem
from amst.ownfolder import make_own
from amst.randomness import stream_seed
from amst.training.execution import Execution

_GPU_FILES = "dev/nvidia[0-9]*"
_OTHER_GPU_FILE = Path("/dev/kfd")
"""AMD's; many a processor's own graphics have it, too."""
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
_ARITHMETIC = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_CBWR",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "TORCHDYNAMO_DISABLE",
    "TORCH_COMPILE_DISABLE",
)
"""Environment variables by which libraries compute otherwise than they would by the settings."""


@dataclass(frozen=True)
class Assembly:
    """What training and evaluation of a run need.

    Attributes:
        settings: of the run.
        store: the shards of its dataset.
        split: its split.
        modalities: those that the method uses, by name.
        method: on the device, with its initial weights.
        loader: makes batches of these modalities.
        residency: where parts are kept.
    """

    settings: RunSettings
    store: FeatureStore
    split: Split
    modalities: Mapping[str, Modality]
    method: Method[Any]
    loader: Loader
    residency: Residency

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return self.loader.device

    def part(self, name: Part) -> PartData:
        """Read a part into its residency.

        Raises:
            AmstError: as ``FeatureStore.part``: the part has no sample with features, say.
        """
        mapped = self.residency != "host"
        part = self.store.part(self.split, name, self.modalities, mapped)
        if part.rejected:
            print(
                f"{self.settings.run_id}: {len(part.rejected)} of the samples of part {name} were "
                "rejected at extraction and are left out",
                file=sys.stderr,
                flush=True,
            )
        return part.on(self.device) if self.residency == "device" else part

    def train_labels(self) -> NDArray[np.int64]:
        """Class indices of the training part, (n,); no features are read.

        Raises:
            AmstError: as ``FeatureStore.labels``.
        """
        return self.store.labels(self.split, "train")

    def autocast(self) -> AbstractContextManager[Any]:
        """The run's precision: fp32, or bf16 where PyTorch finds it safe.

        Weights are converted anew in each pass. Kept ones would be the old ones to a method that
        updates an encoder and runs it again in the same step.
        """
        half = self.settings.arithmetic.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False)


def assemble(settings: RunSettings, manifest: Path, split: Path, execution: Execution) -> Assembly:
    """Set the arithmetic of this process and build what a run needs; reads no part yet.

    Raises:
        AmstError: a file is missing or damaged, the settings do not fit the dataset, or as
            ``choose_device`` and ``choose_residency``.
    """
    keep_freed_memory()  # before the first threads, which check the shards
    set_arithmetic(settings.arithmetic, settings.seed)
    device = choose_device(execution)
    store = FeatureStore(manifest, stage_folder(execution.stage))
    cut = read_split(split)
    method = build_method(settings, len(store.manifest.classes), store.manifest.vocabulary)
    method.to(device)
    modalities = {name: settings.modalities[name] for name in method.modalities}
    # The test part comes at the end, while the others are still there.
    held = sum(len(part) for part in cut.parts.values())
    size = held * store.row_bytes(modalities)
    half = settings.arithmetic.precision == "bf16"
    return Assembly(
        settings,
        store,
        cut,
        modalities,
        method,
        Loader(
            modalities,
            settings.seed,
            settings.recipe.batch_size,
            device,
            torch.half if half else torch.float32,
        ),
        choose_residency(
            execution.residency, size, device, execution.runs_on_node, execution.runs_on_gpu
        ),
    )


def choose_device(execution: Execution) -> torch.device:
    """The device of the run.

    Raises:
        AmstError: a GPU is asked for and there is none.
        HostError: there is one, and PyTorch cannot use it: on the processors, which nobody asked
            for, a run would take days.
    """
    if execution.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        if fault := _fault_of_gpu():
            raise _unusable("a GPU", fault)
        return torch.device("cuda")
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")
    found = sorted(Path("/").glob(_GPU_FILES))
    if os.environ.get("SLURM_JOB_GPUS") and _OTHER_GPU_FILE.exists():
        found.append(_OTHER_GPU_FILE)
    if wanted and found:
        raise _unusable(str(found[0]), _fault_of_gpu())
    if execution.device == "cuda":
        raise AmstError(
            "execution.device is cuda and no GPU is to be seen",
            "Ask the scheduler for one, or set execution.device to auto or cpu",
        )
    return torch.device("cpu")


def _unusable(gpu: str, fault: str) -> HostError:
    return HostError(
        f"{platform.node()} has {gpu}, and PyTorch cannot use it ({fault or 'no reason given'})",
        "`amst doctor` there says more; execution.device: cpu trains without a GPU",
    )


def _fault_of_gpu() -> str:
    """Why PyTorch cannot compute on the GPU, tried out; empty where it can.

    A driver may take a GPU that is too old for the kernels of this PyTorch.

    Raises:
        RuntimeError: the GPU has no memory left.
    """
    try:
        torch.cuda.init()
        torch.ones(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        if "out of memory" in str(error):
            raise
        return str(error).strip().splitlines()[0]
    return ""


def set_arithmetic(arithmetic: Arithmetic, seed: int) -> None:
    """Make this process compute reproducibly, as fast as that allows."""
    # Read by cuBLAS when its first handle is made; deterministic products need it.
    os.environ.setdefault(*_CUBLAS)
    # Pretrained weights come from local files; no library may ask a hub about them.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    torch.set_num_threads(arithmetic.threads)
    # As use_deterministic_algorithms does, which imports the compiler first: seconds for nothing.
    torch.set_deterministic_debug_mode("warn")
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = arithmetic.tf32 != "off"
    torch.backends.cuda.matmul.allow_tf32 = arithmetic.tf32 == "all"
    torch.manual_seed(stream_seed(seed, "global"))


def assemble_training(
    settings: RunSettings, manifest: Path, split: Path, execution: Execution
) -> Assembly:
    """Like ``assemble``, for a run that is to be trained: with steps compiled or captured.

    Raises:
        AmstError: as ``assemble``; something is missing that compiling needs, or a captured pass
            computes something else.
    """
    _tell_of_variables()
    run = assemble(settings, manifest, split, execution)
    if run.device.type == "cpu":
        return run
    if settings.arithmetic.compile:
        prepare_compiler()
        for network in run.method.networks.values():
            network.compile_training()
    if execution.capture:
        # Before any thread makes batches: nothing else may use the device meanwhile.
        with run.autocast():
            run.method.capture_training()
    return run


def _tell_of_variables() -> None:
    """Say what of the environment changes numbers; no setting and no digest knows it."""
    found = {name: os.environ[name] for name in _ARITHMETIC if os.environ.get(name)}
    if found.get(_CUBLAS[0]) == _CUBLAS[1]:
        del found[_CUBLAS[0]]
    for name, value in found.items():
        print(
            f"{name}={value} is set in the environment: numbers may be others than by the settings "
            "alone; set it for all runs that are compared, or for none",
            file=sys.stderr,
            flush=True,
        )


def check_last_batch(method: Method[Any], samples: int) -> None:
    """Make sure, before the first epoch, that its last batch can be trained on.

    Args:
        method: of the run.
        samples: of the training part.

    Raises:
        AmstError: it has a single sample, which an encoder cannot train on.
    """
    size = method.problem.recipe.batch_size
    if (samples % size or size) == 1:
        for network in method.networks.values():
            network.check_trains_on_one()


def prepare_compiler() -> None:
    """Make sure that PyTorch's compiler can work.

    Raises:
        AmstError: something is missing that it needs, or its folder is somebody else's.
    """
    if lacking := compiler.missing():
        raise AmstError(
            f"arithmetic.compile needs {lacking}, which is not here",
            "Install it (in the image: build it on another base), or set compile: false",
        )
    if not os.environ.get("CC"):
        os.environ.pop("CC", None)  # Triton takes an empty one for a name
    _check_kernels()
    compiler.start_workers()


def _check_kernels() -> None:
    """Refuse kernels that somebody else has put where PyTorch looks for them, unless told where.

    Raises:
        HostError: the folder in the temporary one, whose name can be guessed, is not this user's.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

    folder = Path(default_cache_dir())
    if Path(cache_dir()) != folder:
        return
    try:
        make_own(folder)
    except PermissionError as error:
        raise HostError(
            f"{folder}, where PyTorch keeps what it compiles: {error.strerror}",
            "Name a folder of your own by TORCHINDUCTOR_CACHE_DIR",
        ) from error


def build_method(settings: RunSettings, classes: int, vocabulary: int | None) -> Method[Any]:
    """The run's method with its initial weights, on the CPU.

    Args:
        settings: of the run.
        classes: how many the dataset has.
        vocabulary: number of token ids, for a text encoder that is trained from scratch.

    Raises:
        AmstError: there is no such method, or the settings fit neither it nor its encoders.
    """
    kind = load(settings.method)
    problem = Problem(
        modalities=settings.modalities,
        shapes={name: input_shape(value) for name, value in settings.modalities.items()},
        vocabulary=vocabulary,
        classes=classes,
        embedding=settings.embedding,
        recipe=settings.recipe,
        seed=settings.seed,
    )
    return kind(_method_settings(kind, settings), problem)


def _method_settings(kind: type[Method[Any]], settings: RunSettings) -> MethodSettings:
    try:
        return kind.Settings.model_validate(settings.method_settings)
    except ValidationError as error:
        raise AmstError(
            f"settings of method {settings.method!r}: {first_fault(error)}",
            f"Mend the entry {settings.variant!r} under methods",
        ) from error


def input_shape(modality: Modality) -> tuple[int, ...]:
    """Shape of one sample as the encoder gets it.

    Raises:
        AmstError: a visual modality has no crop.
    """
    features: Features = modality.features
    match features.kind:
        case "audio":
            return (1, features.frames, features.mel_bins)
        case "visual":
            if modality.crop is None:
                raise AmstError("a visual modality has no crop", "Set the side of its crop")
            return (3, features.frames, modality.crop, modality.crop)
        case "text":
            return (features.tokens,)
