"""The loader alone: its rate against the yardstick's, and the memory of every residency."""

import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch

from amst.allocator import give_back_freed_memory
from amst.bench.device import device_name, wait
from amst.bench.yardstick import Clips, on_device, random_batches, yardstick_epoch
from amst.config.run import RunSettings, VisualFeatures
from amst.loading.augment import bytes_to_cut
from amst.loading.batch import TextTokens
from amst.loading.dataset import Residency
from amst.training.assembly import Assembly, assemble
from amst.training.execution import Execution

_SLOW_BATCHES, _SLOW = 6, 0.5
"""Batches that memory is measured on, and seconds to wait with each."""
_CUBLAS_WORKSPACE = 8 * 4096 * 1024  # CUBLAS_WORKSPACE_CONFIG, as a run sets it


@dataclass(frozen=True)
class Memory:
    """What the features of training and validation part take in one residency.

    Attributes:
        residency: where they are kept.
        place: 'host' for private memory of the process, 'device' for memory of the GPU.
        features: bytes of the stored features, by their shapes.
        predicted: bytes of this memory that training takes for them and for the batches that are
            made ahead.
        measured: bytes that they took at most while an epoch was loaded slowly.
        batch: bytes of one batch as it reaches the encoders.
    """

    residency: Residency
    place: Literal["host", "device"]
    features: int
    predicted: int
    measured: int
    batch: int


@dataclass(frozen=True)
class LoadSpeed:
    """Batches per second of an epoch of the training transform, nothing trained.

    Attributes:
        device: where the batches end.
        rates: residency -> batches per second.
        yardstick: the yardstick's batches per second.
        workers: processes of the yardstick's loader.
        memory: what each residency takes.
    """

    device: str
    rates: dict[Residency, float]
    yardstick: float | None
    workers: int
    memory: list[Memory]

    def lines(self) -> list[str]:
        """A line for each residency, and the memory it takes."""
        lines = [f"batches per second of the loader alone, {self.device}"]
        for residency, rate in self.rates.items():
            ratio = f", {rate / self.yardstick:.2f} of the yardstick" if self.yardstick else ""
            lines.append(f"  {residency}: {rate:.2f}{ratio}")
        if self.yardstick:
            lines.append(f"  yardstick, {self.workers} workers: {self.yardstick:.2f}")
        lines.append("memory of training and validation part, MB")
        lines.append("  residency   memory   features   predicted   measured   one batch")
        for each in self.memory:
            values = (each.features, each.predicted, each.measured, each.batch)
            features, predicted, measured, batch = (value / 1e6 for value in values)
            lines.append(
                f"  {each.residency:<9}   {each.place:<6}   {features:8.1f}   {predicted:9.1f}   "
                f"{measured:8.1f}   {batch:9.1f}"
            )
        return lines


def measure_loading(
    settings: RunSettings,
    manifest: Path,
    split: Path,
    residencies: list[Residency],
    rounds: int,
    workers: int,
    raw: Path | None,
) -> LoadSpeed:
    """Load epochs of the training part in turns.

    Args:
        settings: of the run; all its modalities are loaded.
        manifest: of the dataset.
        split: its split.
        residencies: which ones to measure.
        rounds: turns of everything; medians are taken over them.
        workers: processes of the yardstick's loader.
        raw: raw folder in CREMA-D's layout, for the yardstick; None for none.
    """
    # First and in processes of their own: memory that a process has had stays with it.
    memory = [m for each in residencies for m in _in_own_process(settings, manifest, split, each)]
    runs = {
        each: assemble(settings, manifest, split, Execution(residency=each)) for each in residencies
    }
    parts = {each: run.part("train") for each, run in runs.items()}
    device = next(iter(runs.values())).device
    plain = None
    if raw:
        crop = next(m.crop for m in settings.modalities.values() if m.crop)
        pin = device.type == "cuda"
        size = settings.recipe.batch_size
        epoch = yardstick_epoch(workers)
        plain = random_batches(Clips(raw, crop), size, workers, pin, epoch)
    found: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for each, run in runs.items():
            source = run.loader.training(parts[each], turn, run.method.modalities)
            rate = _rate(source, device)
            if turn:  # the first one warms up
                found.setdefault(each, []).append(rate)
        if plain:
            rate = _rate(on_device(plain, device), device)
            if turn:
                found.setdefault("yardstick", []).append(rate)
    median = {name: statistics.median(rates) for name, rates in found.items()}
    yardstick = median.pop("yardstick", None)
    return LoadSpeed(
        device_name(device), {r: median[r] for r in residencies}, yardstick, workers, memory
    )


def _rate(batches: object, device: torch.device) -> float:
    """Batches per second of going through all of them."""
    begin, count = time.perf_counter(), 0
    for _ in batches:  # type: ignore[attr-defined]
        count += 1
    wait(device)
    return count / (time.perf_counter() - begin)


def _in_own_process(
    settings: RunSettings, manifest: Path, split: Path, residency: Residency
) -> list[Memory]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_memory, settings, manifest, split, residency).result()


def measure_memory(
    settings: RunSettings, manifest: Path, split: Path, residency: Residency
) -> list[Memory]:
    """What the parts of a run take in this process, which must have loaded nothing before."""
    run = assemble(settings, manifest, split, Execution(residency=residency))
    held = sum(len(run.split.parts[name]) for name in ("train", "val"))
    features, on_gpu = held * run.store.row_bytes(run.modalities), run.device.type == "cuda"
    give_back_freed_memory()  # else some of what is measured would be found there
    before, before_on_gpu = _private_bytes(), torch.cuda.memory_allocated() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    parts = [run.part(name) for name in ("train", "val")]
    most, inputs = 0, dict[str, int]()
    for batch in islice(run.loader.training(parts[0], 0, run.method.modalities), _SLOW_BATCHES):
        most = max(most, _most_private_bytes())  # a slow step: what is made ahead is there
        inputs = inputs or {
            name: sum(each.nbytes for each in _tensors(value))
            for name, value in batch.inputs.items()
        }
    positions = torch.arange(min(run.settings.recipe.batch_size, len(parts[0])))
    if residency == "device":
        positions = positions.to(run.device)
    rows = {
        name: [column.nbytes for column in parts[0].inputs[name].take(positions).values()]
        for name in run.modalities
    }
    size = sum(inputs.values())
    # The batch in hand and the one in work; a thread keeps two more.
    batches = 4 if run.loader.works_ahead(parts[0], run.modalities) else 2
    host, device = _predicted(run, residency, features, batches, inputs, rows)
    found = []
    if residency != "device":
        found.append(Memory(residency, "host", features, host, most - before, size))
    if on_gpu:
        taken = torch.cuda.max_memory_allocated() - before_on_gpu
        found.append(Memory(residency, "device", features, device, taken, size))
    return found


def _tensors(value: torch.Tensor | TextTokens) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [value.ids, value.mask]


def _predicted(
    run: Assembly,
    residency: Residency,
    features: int,
    batches: int,
    inputs: Mapping[str, int],
    rows: Mapping[str, list[int]],
) -> tuple[int, int]:
    """Bytes of host and device memory for the features and the batches on their way.

    Args:
        run: of the measurement.
        residency: where the features are kept.
        features: bytes of them.
        batches: how many there are at a time.
        inputs: modality -> bytes of a batch as it reaches the encoders.
        rows: modality -> bytes of each of its stored columns of a batch.
    """
    kept = 0 if residency == "stream" else features
    on_gpu = run.device.type == "cuda"
    batch, stored = sum(inputs.values()), [each for name in rows for each in rows[name]]
    if not on_gpu:
        return kept + batches * batch + sum(stored), 0
    # A batch is made one modality after the other, by name; cutting pictures takes most.
    in_work = [
        sum(inputs[other] for other in inputs if other < name)
        + sum(rows[name])
        + bytes_to_cut(
            run.settings.recipe.batch_size * modality.features.frames,
            modality.features.size,
            modality.crop,
            run.loader.precision,
        )
        for name, modality in run.modalities.items()
        if isinstance(modality.features, VisualFeatures) and modality.crop
    ]
    device = (batches - 1) * batch + max(in_work, default=batch) + _CUBLAS_WORKSPACE
    # On the host the rows are gathered and copied into pinned memory, three times in use at once,
    # whose pieces have sizes of powers of two.
    host = kept + sum(stored) + 3 * sum(1 << (each - 1).bit_length() for each in stored)
    return (0, kept + device) if residency == "device" else (host, device)


def _most_private_bytes() -> int:
    """Memory of this process when it has not grown for a while."""
    most, until = _private_bytes(), time.monotonic() + _SLOW
    while time.monotonic() < until:
        time.sleep(_SLOW / 10)
        if (now := _private_bytes()) > most:
            most, until = now, time.monotonic() + _SLOW
    return most


def _private_bytes() -> int:
    """Memory of this process that no file lies behind: mapped shards do not count."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
