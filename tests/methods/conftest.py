"""Small problems, batches and epochs with any modalities."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from amst import methods
from amst.config.run import (
    AudioFeatures,
    Kind,
    Modality,
    Recipe,
    SmallCNN,
    SmallTransformer,
    TextFeatures,
    VisualFeatures,
)
from amst.loading.batch import Batch, TextTokens
from amst.methods.base import Method, Problem

SHAPES = {"audio": (1, 9, 8), "visual": (3, 2, 8, 8), "text": (5,)}
VOCABULARY = 11


def _modality(kind: Kind) -> Modality:
    if kind == "text":
        settings = SmallTransformer(layers=1, heads=2, width=6)
        return Modality(kind=kind, features=TextFeatures(), encoder=settings)
    features = AudioFeatures() if kind == "audio" else VisualFeatures()
    return Modality(kind=kind, features=features, encoder=SmallCNN(widths=(4, 6)))


@pytest.fixture
def problem_of() -> Callable[..., Problem]:
    """Function (name=kind, ...) -> Problem with 3 classes and embeddings of length 6."""

    def make(kinds: Mapping[str, Kind], **changes: Any) -> Problem:
        facts: dict[str, Any] = {
            "modalities": {name: _modality(kind) for name, kind in kinds.items()},
            "shapes": {name: SHAPES[kind] for name, kind in kinds.items()},
            "vocabulary": VOCABULARY,
            "classes": 3,
            "embedding": 6,
            "recipe": Recipe(learning_rate=0.05),
            "seed": 7,
        }
        return Problem(**(facts | changes))

    return make


@pytest.fixture
def method_of() -> Callable[..., Method[Any]]:
    """Function (name or class, problem, settings) -> method in training mode."""

    def make(method: str | type[Method[Any]], problem: Problem, **settings: Any) -> Method[Any]:
        made = methods.load(method) if isinstance(method, str) else method
        built = made(made.Settings.model_validate(settings), problem)
        built.train()
        return built

    return make


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    """Function (problem, size, seed, names, labels) -> random batch that depends on the labels."""

    def make(
        problem: Problem,
        size: int = 5,
        seed: int = 0,
        names: Collection[str] | None = None,
        labels: Sequence[int] | None = None,
    ) -> Batch:
        draw = torch.Generator().manual_seed(seed)
        target = (
            torch.randint(problem.classes, (size,), generator=draw)
            if labels is None
            else torch.tensor(labels)
        )
        inputs: dict[str, Tensor | TextTokens] = {}
        for name, modality in problem.modalities.items():
            shape = (len(target), *problem.shapes[name])
            if modality.kind == "text":
                ids = torch.randint(VOCABULARY, shape, generator=draw)
                length = torch.randint(1, shape[1] + 1, (len(target), 1), generator=draw)
                inputs[name] = TextTokens(ids, torch.arange(shape[1]) < length)
            else:
                noise = torch.randn(shape, generator=draw)
                inputs[name] = noise + target.view(-1, *[1] * (len(shape) - 1))
        kept = {name: inputs[name] for name in inputs if names is None or name in names}
        return Batch(target, kept, torch.arange(len(target)))

    return make


class Epoch:
    """Batches of one epoch, in the order given."""

    def __init__(self, training: Sequence[Batch], validation: Sequence[Batch] = ()) -> None:
        self.training, self.parts = training, validation

    def __len__(self) -> int:
        return len(self.training)

    @property
    def samples(self) -> int:
        return sum(batch.size for batch in self.training)

    def shuffled(
        self, stream: str, *, augmented: bool = False, count: int | None = None
    ) -> Iterator[Batch]:
        return iter(self.training[:count])

    def validation_batches(self) -> int:
        return len(self.parts)

    def validation(self, count: int | None = None) -> Iterator[Batch]:
        return iter(self.parts[:count])


@pytest.fixture
def epoch_of() -> type[Epoch]:
    """Class (training batches, validation batches) -> what a method's begin_epoch is given."""
    return Epoch
