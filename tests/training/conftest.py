"""A small real dataset, and runs in real processes that can be sent real signals.

Processes are forked from the test process, which has PyTorch loaded but never computes with it
itself, so that a start costs milliseconds. They train on a GPU if there is one, unless another
file's tests have used it in this process: CUDA cannot be forked.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorboard.summary  # noqa: F401 - which each of the processes would import
import torch

from amst.config.run import (
    Arithmetic,
    AudioFeatures,
    Augmentation,
    Modality,
    Recipe,
    RunSettings,
    SmallCNN,
    SmallTransformer,
    TextFeatures,
    VisualFeatures,
)
from amst.datasets.digits import Digits, DigitsSettings, make
from amst.datasets.splitfile import write_split
from amst.datasets.splits import make_split
from amst.errors import AmstError
from amst.features.extract import extract_shard
from amst.features.samples import read_samples, write_samples
from amst.features.verification import write_manifest
from amst.methods import load
from amst.training.execution import Execution
from amst.training.finish import FILES
from amst.training.run import train

MODALITIES = {
    "audio": Modality(
        kind="audio",
        features=AudioFeatures(mel_bins=16, frames=32),
        encoder=SmallCNN(widths=(4, 8)),
    ),
    "text": Modality(
        kind="text",
        features=TextFeatures(tokens=16, tokenizer="digits"),
        encoder=SmallTransformer(layers=1, heads=2, width=16),
    ),
    "visual": Modality(
        kind="visual",
        features=VisualFeatures(frames=2, size=32),
        encoder=SmallCNN(widths=(4, 8)),
        crop=24,
        augmentation=Augmentation(min_area=0.5),
    ),
}
RESULTS = ("history.csv", "weights.safetensors", "predictions.npz")
"""The files that do not depend on when, where and in how many attempts a run was made."""


@dataclass(frozen=True)
class Digit:
    """The dataset's files."""

    manifest: Path
    split: Path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digit:
    """160 clips, through the functions that every dataset goes through."""
    root = tmp_path_factory.mktemp("digits")
    dataset, features = Digits(), {name: each.features for name, each in MODALITIES.items()}
    make(root / "raw", DigitsSettings(samples=160, pools=10))
    samples, lost = root / "samples.jsonl", root / "rejected.jsonl"
    write_samples(dataset, root / "raw", samples, lost)
    shards = [root / f"shard-{index}.h5" for index in range(2)]
    lists = [root / f"rejected-{index}.jsonl" for index in range(2)]
    for index in range(2):
        extract_shard(
            dataset, root / "raw", samples, index, 2, features, shards[index], lists[index]
        )
    write_manifest(dataset, features, samples, shards, [lost, *lists], root / "manifest.json", 0)
    split = make_split("random", dataset, read_samples(samples), seed=0)
    write_split(root / "split.json", split)
    return Digit(root / "manifest.json", root / "split.json")


def run_settings(method: str = "naive", seed: int = 0, **options: Any) -> RunSettings:
    """Settings of a run of three short epochs."""
    recipe = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05} | options.pop("recipe", {})
    return RunSettings(
        dataset="digits",
        split="random",
        variant=method,
        seed=seed,
        method=method,
        method_settings=options.pop("method_settings", {}),
        modalities=options.pop("modalities", MODALITIES),
        embedding=16,
        recipe=Recipe(**recipe),
        arithmetic=Arithmetic(**options),
    )


@dataclass
class Process:
    """A run in a process of its own.

    Attributes:
        errors: file with what it has said.
    """

    pid: int
    errors: Path
    status: int | None = None

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def code(self) -> int | None:
        """Exit code, minus the signal that killed it, or None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self, seconds: float = 60) -> int:
        """Exit code, or minus the signal that killed it."""
        until = time.monotonic() + seconds
        while self.code() is None:
            assert time.monotonic() < until, f"still running:\n{self.said}"
            time.sleep(0.005)
        assert self.status is not None
        return self.status

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Wait until the process has said something."""
        until = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < until, f"never said {text!r}:\n{self.said}"
            assert self.code() is None, f"ended without saying {text!r}:\n{self.said}"
            time.sleep(0.005)

    @property
    def said(self) -> str:
        return self.errors.read_text() if self.errors.exists() else ""


def execution(**options: Any) -> Execution:
    """On the device that a forked process can use."""
    return Execution(device="cpu" if torch.cuda.is_initialized() else "auto", **options)


@dataclass
class Workplace:
    """Folders of one run, and the way to start it."""

    folder: Path
    digits: Digit
    settings: RunSettings
    execution: Execution = field(default_factory=lambda: execution(lock_wait=20, stale_after=30))
    processes: list[Process] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "run"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def failed(self) -> Path:
        return self.checkpoints / "failed.json"

    def states(self) -> list[Path]:
        """Saved states, the oldest first."""
        return sorted(self.checkpoints.glob("*/epoch-*.pt"))

    def start(self, before: Callable[[], None] = lambda: None, **environment: str) -> Process:
        """Start an attempt; ``before`` is called in its process."""
        errors = self.folder / f"attempt-{len(self.processes)}.txt"
        pid = os.fork()
        if pid == 0:
            os._exit(self._in_child(errors, before, environment))
        self.processes.append(Process(pid, errors))
        return self.processes[-1]

    def _in_child(
        self, errors: Path, before: Callable[[], None], environment: dict[str, str]
    ) -> int:
        with errors.open("w", buffering=1) as stream:
            sys.stderr = stream
            os.environ.update(environment)
            try:
                before()
                self.train()
            except AmstError as error:
                print(error, file=stream)
                return error.exit_code
            except BaseException:
                traceback.print_exc()
                return 1
            return 0

    def train(self) -> None:
        train(
            self.settings,
            self.digits.manifest,
            self.digits.split,
            self.out,
            self.checkpoints,
            self.execution,
        )

    def finish(self) -> Process:
        """Start an attempt and expect it to end the run."""
        process = self.start()
        assert process.wait() == 0, process.said
        return process

    def results(self) -> dict[str, bytes]:
        """Content of the files that must not depend on interruptions."""
        return {name: (self.out / name).read_bytes() for name in RESULTS}

    def predictions(self) -> dict[str, np.ndarray]:
        with np.load(self.out / "predictions.npz") as arrays:
            return {name: arrays[name] for name in arrays}


def started_again(place: Workplace) -> None:
    """Delete a run's files, as Snakemake does before it starts a job again."""
    for name in FILES:
        (place.out / name).unlink(missing_ok=True)
    shutil.rmtree(place.out / "tensorboard", ignore_errors=True)


@pytest.fixture
def workplace(tmp_path: Path, digits: Digit) -> Iterator[Callable[..., Workplace]]:
    """Makes workplaces; what still runs at the end is killed."""
    made: list[Workplace] = []

    def new(method: str = "naive", **options: Any) -> Workplace:
        folder = tmp_path / f"work-{len(made)}"
        folder.mkdir()
        made.append(Workplace(folder, digits, run_settings(method, **options)))
        return made[-1]

    yield new
    for place in made:
        for process in place.processes:
            if process.code() is None:
                process.send(signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, digits: Digit
) -> Callable[[RunSettings], dict[str, bytes]]:
    """Results of a run that nothing has disturbed, made once per settings."""
    known: dict[tuple[str, str], dict[str, bytes]] = {}

    def results(settings: RunSettings) -> dict[str, bytes]:
        key = settings.hash, execution().device
        if key not in known:
            place = Workplace(tmp_path_factory.mktemp("undisturbed"), digits, settings)
            place.finish()
            known[key] = place.results()
        return known[key]

    return results


@pytest.fixture
def signal_in_step() -> Callable[[str, int, int], Callable[[], None]]:
    """What makes a process send itself a signal in its n-th training step of a method."""
    return _signal_in_step


def _signal_in_step(method: str, step: int, number: int) -> Callable[[], None]:

    def before() -> None:
        kind, count = load(method), 0
        train_step = kind.train_step

        def signalling(self: Any, batch: Any, epoch: int) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), number)
            return train_step(self, batch, epoch)

        kind.train_step = signalling

    return before
