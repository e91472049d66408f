"""What the released pipeline does, written plainly: the yardstick of loading and training.

Workers decode one JPEG file after the other with PIL and put it through torchvision's transforms,
read one ``.npy`` file per clip, and collate. Every step runs all encoders forward, those that skip
the epoch without a backward pass, steps ``torch.optim.SGD`` and fetches loss and accuracies to the
host. Models are torchvision's ResNet-18 in the memory layout that they come in. What the released
code does besides (noise parameter by parameter, prototypes) is left out, so the yardstick is rather
too quick than too slow.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

from amst.bench.extraction import plain
from amst.bench.prepared import processes
from amst.config.run import Recipe
from amst.loading.augment import DEVIATION, MEAN

FRAMES = 3
"""T, pictures of a clip that reach the encoder."""

_CLIPS_PER_PROCESS = 100  # fewer are made sooner than a process starts

Inputs = dict[str, Tensor]


def training_transform(side: int) -> Any:
    """RandomResizedCrop, flip, and ImageNet's normalisation, picture by picture."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(side),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )


class Clips(Dataset[tuple[Tensor, Tensor, int]]):
    """Clips as JPEG files of frames and a ``.npy`` file with the filter bank.

    Args:
        raw: a raw folder in CREMA-D's layout; the files are made beside it.
        side: of the pictures after the transform.
        sound: False leaves the filter banks out.
    """

    def __init__(self, raw: Path, side: int, sound: bool = True) -> None:
        self.folder, self._sound = _plain_files(raw), sound
        self._banks = sorted(self.folder.glob("*.npy"))
        kept: dict[str, list[Path]] = {}
        for picture in sorted(self.folder.glob("*.jpg")):
            kept.setdefault(picture.stem.rpartition("-")[0], []).append(picture)
        self._kept = [kept[bank.stem] for bank in self._banks]
        self._transform = training_transform(side)

    def __len__(self) -> int:
        return len(self._banks)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Filter bank (1, frames, mel bins) or nothing, pictures (3, T, side, side), label."""
        bank, kept = self._banks[index], self._kept[index]
        third = len(kept) // FRAMES
        pictures = [self._picture(kept[place * third]) for place in range(FRAMES)]
        sound = torch.from_numpy(np.load(bank)).float()[None] if self._sound else torch.empty(0)
        return sound, torch.stack(pictures, dim=1), index % 2

    def _picture(self, path: Path) -> Tensor:
        with Image.open(path) as picture:
            return self._transform(picture.convert("RGB"))


def _plain_files(raw: Path) -> Path:
    """Make the files, by a process per core where there are many, and return their folder."""
    folder = raw.with_name(f"{raw.name}-plain")
    if folder.is_dir():
        return folder
    count = len(list((raw / "VideoFlash").iterdir()))
    cores = min(len(os.sched_getaffinity(0)), -(-count // _CLIPS_PER_PROCESS))
    if cores == 1:
        plain(raw)
    else:
        with processes(cores) as pool:
            jobs = [pool.submit(plain, raw, share=(core, cores)) for core in range(cores)]
            for job in jobs:
                job.result()
    return folder


def yardstick_epoch(workers: int) -> int:
    """Batches that an epoch of the yardstick should have: six from each worker.

    Workers hand over their batches in waves. The steps of an epoch's last wave overlap with no
    loading, and workers without a batch load nothing: a short epoch would be unfair. With 16
    workers an epoch is about as long as one of CREMA-D.
    """
    return 6 * max(1, workers)


def random_batches(
    dataset: Clips | ImageFolder, size: int, workers: int, pin: bool, batches: int
) -> DataLoader[Any]:
    """Batches drawn at random, made by ``workers`` processes that stay.

    Args:
        dataset: what is drawn from, anew for each sample.
        size: samples of a batch.
        workers: processes; 0 for this one.
        pin: whether a thread puts the batches into pinned memory.
        batches: of an epoch.
    """
    return DataLoader(
        dataset,
        size,
        sampler=RandomSampler(dataset, replacement=True, num_samples=batches * size),
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
    )


def pictures_of(clips: Clips, side: int) -> ImageFolder:
    """The same JPEG files as torchvision's own dataset of pictures, nothing else.

    Says whether the yardstick's loader is a fair one.
    """
    folder = clips.folder.with_name("pictures")
    folder.mkdir(exist_ok=True)
    link = folder / "all"
    if not link.is_symlink():
        link.symlink_to(clips.folder, target_is_directory=True)
    return ImageFolder(str(folder), training_transform(side))


def on_device(batches: DataLoader[Any], device: torch.device) -> Iterator[tuple[Inputs, Tensor]]:
    """Batches as the steps take them: inputs by modality, labels."""
    for sound, pictures, labels in batches:
        moved = [each.to(device, non_blocking=True) for each in (sound, pictures, labels)]
        yield {"audio": moved[0], "visual": moved[1]}, moved[2]


class PlainModel(nn.Module):
    """Encoders, classifiers and probes of a clip's modalities, each with an optimiser of its own.

    Args:
        names: modalities, 'audio' and 'visual' among them.
        classes: C.
        recipe: learning rate, momentum, weight decay.
        shared: one classifier for all modalities, or one each.
    """

    def __init__(self, names: Sequence[str], classes: int, recipe: Recipe, shared: bool) -> None:
        super().__init__()
        self.names = list(names)
        self.encoders = nn.ModuleDict({name: _encoder(name) for name in names})
        one = nn.Linear(512, classes)
        self.classifiers = nn.ModuleDict(
            {name: one if shared else nn.Linear(512, classes) for name in names}
        )
        self.probes = nn.ModuleDict({name: nn.Linear(512, classes) for name in names})
        self._recipe = recipe
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    def prepare(self, device: torch.device) -> "PlainModel":
        """Move to a device and make the optimisers."""
        self.to(device)
        parts = {**{name: self.encoders[name] for name in self.names}}
        parts |= {"classifiers": self.classifiers, "probes": self.probes}
        self.optimisers = {
            key: torch.optim.SGD(
                part.parameters(),
                self._recipe.learning_rate,
                self._recipe.momentum,
                weight_decay=self._recipe.weight_decay,
            )
            for key, part in parts.items()
        }
        return self

    def embeddings(self, inputs: Inputs) -> Inputs:
        """All encoders forward."""
        found = {}
        for name in self.names:
            value = inputs[name]
            if value.dim() == 5:
                batch, channels, frames, height, width = value.shape
                folded = value.permute(0, 2, 1, 3, 4).reshape(-1, channels, height, width)
                found[name] = self.encoders[name](folded).view(batch, frames, -1).mean(dim=1)
            else:
                found[name] = self.encoders[name](value)
        return found

    def _update(self, loss: Tensor, keys: Sequence[str]) -> None:
        for key in keys:
            self.optimisers[key].zero_grad()
        loss.backward()
        for key in keys:
            self.optimisers[key].step()

    def step_jointly(self, inputs: Inputs, labels: Tensor, trained: Sequence[str]) -> float:
        """One loss on the summed logits of the modalities that train."""
        embeddings = self.embeddings(inputs)
        logits = {name: self.classifiers[name](embeddings[name]) for name in self.names}
        fused = torch.stack([logits[name] for name in trained or self.names]).sum(dim=0)
        loss = cross_entropy(fused, labels)
        if trained:
            self._update(loss, [*trained, "classifiers"])
        return self._report(embeddings, {"fused": fused, **logits}, labels, loss)

    def step_in_turn(self, inputs: Inputs, labels: Tensor, trained: Sequence[str]) -> float:
        """A loss and an update for one modality that trains after the other."""
        embeddings = self.embeddings(inputs)
        logits, total = {}, torch.zeros((), device=labels.device)
        for name in self.names:
            logits[name] = self.classifiers[name](embeddings[name])
            if name in trained:
                loss = cross_entropy(logits[name], labels)
                self._update(loss, [name, "classifiers"])
                total = total + loss.detach()
        fused = torch.stack(list(logits.values())).mean(dim=0)
        return self._report(embeddings, {"fused": fused, **logits}, labels, total)

    def _report(self, embeddings: Inputs, logits: Inputs, labels: Tensor, loss: Tensor) -> float:
        """Train the probes, and fetch loss and accuracies to the host."""
        probes = {name: self.probes[name](embeddings[name].detach()) for name in self.names}
        losses = torch.stack([cross_entropy(each, labels) for each in probes.values()])
        self._update(losses.sum(), ["probes"])
        named = {**logits, **{f"probe/{name}": value for name, value in probes.items()}}
        accuracies = [
            (value.argmax(dim=1) == labels).float().mean().item() for value in named.values()
        ]
        return loss.item() + sum(accuracies)


def _encoder(name: str) -> nn.Module:
    encoder = resnet18(weights=None)
    if name == "audio":
        encoder.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    encoder.fc = nn.Identity()
    return encoder


_LOOPS = {"mla": (True,), "amst_alternating": (True,), "amst_full": (True, True)}


def loops_of(method: str) -> tuple[bool, ...]:
    """The networks of the released code for a method: of each, whether it trains in turn."""
    return _LOOPS.get(method, (False,))


class PlainTraining:
    """The steps of the released pipeline.

    Attributes:
        models: one for each loop, and whether it trains in turn.

    Args:
        loops: as ``loops_of`` gives them.
        names: modalities.
        classes: C.
        recipe: learning rate, momentum, weight decay.
        device: where it trains.
    """

    def __init__(
        self,
        loops: Sequence[bool],
        names: Sequence[str],
        classes: int,
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.models: list[tuple[PlainModel, bool]] = []
        for in_turn in loops:
            model = PlainModel(names, classes, recipe, shared=in_turn).prepare(device).train()
            self.models.append((model, in_turn))

    def step(self, inputs: Inputs, labels: Tensor, trained: Sequence[str]) -> float:
        """Train on a batch; loss and accuracies, on the host.

        Args:
            inputs: of all modalities.
            labels: (B,).
            trained: the modalities that do not skip this epoch.
        """
        return sum(
            (model.step_in_turn if in_turn else model.step_jointly)(inputs, labels, trained)
            for model, in_turn in self.models
        )
