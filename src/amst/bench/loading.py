"""The loader alone: its rate against the yardstick's, and the memory of every residency."""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch

from amst.bench.training import device_name, wait
from amst.bench.yardstick import Clips, clip_loader, on_device
from amst.config.run import RunSettings
from amst.loading.dataset import Residency
from amst.training.assembly import Assembly, assemble
from amst.training.execution import Execution

_SLOW_BATCHES, _SLOW = 6, 0.5
"""Batches that memory is measured on, and seconds to wait with each."""


@dataclass(frozen=True)
class Memory:
    """What the features of training and validation part take in one residency.

    Attributes:
        residency: where they are kept.
        features: bytes of the stored features, by their shapes.
        predicted: bytes of private memory, on the host or the device, that training takes for
            them and for the batches that are made ahead.
        measured: bytes that they took at most while an epoch was loaded slowly.
        batch: bytes of one batch as it reaches the encoders.
    """

    residency: Residency
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
        lines.append("  residency   features   predicted   measured   one batch")
        for each in self.memory:
            values = (each.features, each.predicted, each.measured, each.batch)
            features, predicted, measured, batch = (value / 1e6 for value in values)
            lines.append(
                f"  {each.residency:<9}   {features:8.1f}   {predicted:9.1f}   {measured:8.1f}   "
                f"{batch:9.1f}"
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
    memory = [_in_own_process(settings, manifest, split, each) for each in residencies]
    runs = {each: _assemble(settings, manifest, split, each) for each in residencies}
    parts = {each: run.part("train") for each, run in runs.items()}
    device = next(iter(runs.values())).device
    plain = None
    if raw:
        crop = next(m.crop for m in settings.modalities.values() if m.crop)
        pin = device.type == "cuda"
        plain = clip_loader(Clips(raw, crop), settings.recipe.batch_size, workers, pin)
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


def _assemble(settings: RunSettings, manifest: Path, split: Path, residency: Residency) -> Assembly:
    return assemble(settings, manifest, split, Execution(residency=residency))


def _rate(batches: object, device: torch.device) -> float:
    """Batches per second of going through all of them."""
    begin, count = time.perf_counter(), 0
    for _ in batches:  # type: ignore[attr-defined]
        count += 1
    wait(device)
    return count / (time.perf_counter() - begin)


def _in_own_process(
    settings: RunSettings, manifest: Path, split: Path, residency: Residency
) -> Memory:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_memory, settings, manifest, split, residency).result()


def measure_memory(
    settings: RunSettings, manifest: Path, split: Path, residency: Residency
) -> Memory:
    """What the parts of a run take in this process, which must have loaded nothing before."""
    run = _assemble(settings, manifest, split, residency)
    row = run.store.row_bytes(run.modalities)
    held = sum(len(run.split.parts[name]) for name in ("train", "val"))
    on_gpu = residency == "device"
    before = torch.cuda.memory_allocated() if on_gpu else _private_bytes()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    parts = [run.part(name) for name in ("train", "val")]
    most = 0
    size = 0
    for batch in islice(run.loader.training(parts[0], 0, run.method.modalities), _SLOW_BATCHES):
        time.sleep(_SLOW)  # as a training step is: what is made ahead is there
        size = size or sum(
            each.numel() * each.element_size()
            for each in batch.inputs.values()
            if isinstance(each, torch.Tensor)
        )
        most = max(most, _private_bytes())
    after = torch.cuda.max_memory_allocated() if on_gpu else most
    features = held * row
    # The batch in hand and the one in work; a thread keeps two more. On the host, freed memory is
    # kept, and the largest piece of a batch finds a part of it taken by smaller ones.
    ahead = residency == "stream" or (residency == "host" and run.device.type == "cuda")
    batches = (4 if ahead else 2) + (not on_gpu)
    predicted = (0 if residency == "stream" else features) + batches * size
    return Memory(residency, features, predicted, after - before, size)


def _private_bytes() -> int:
    """Memory of this process that no file lies behind: mapped shards do not count."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
