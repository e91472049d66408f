from collections.abc import Callable, Iterator
from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from amst.loading.batch import Batch
from amst.methods.pmr import euclidean

Make = Callable[..., Any]

TWO = {"sound": "audio", "view": "visual"}
THREE = TWO | {"other": "visual"}


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_distance_is_euclidean_with_the_usual_gradient(b: int, c: int, d: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    e = torch.randn(b, d, generator=draw, dtype=torch.float64, requires_grad=True)
    p = torch.randn(c, d, generator=draw, dtype=torch.float64)
    ours, theirs = euclidean(e, p), torch.cdist(e, p)
    torch.testing.assert_close(ours, theirs)
    (mine,), (its,) = (torch.autograd.grad(x.square().sum(), e) for x in (ours, theirs))
    torch.testing.assert_close(mine, its)


def test_the_gradient_at_distance_zero_is_zero() -> None:
    e = torch.tensor([[1.0, 2.0]], requires_grad=True)
    euclidean(e, torch.tensor([[1.0, 2.0], [4.0, 6.0]])).sum().backward()
    assert e.grad is not None
    assert e.grad.tolist() == [[pytest.approx(-3 / 5), pytest.approx(-4 / 5)]]


def embeddings(method: Any, batch: Batch) -> dict[str, Tensor]:
    method.eval()
    with torch.no_grad():
        return method.network(batch.inputs).embeddings


def test_prototypes_are_class_means_blended_with_the_old_ones(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
    epoch_of: Make,
) -> None:
    method = method_of("pmr", problem_of(TWO), momentum=0.25, factor=1.0)
    first = batch_of(method.problem, labels=[0, 1, 0])
    second = batch_of(method.problem, labels=[2, 1], seed=1)
    method.begin_epoch(0, epoch_of([first, second]))
    e, f = embeddings(method, first)["view"], embeddings(method, second)["view"]
    old = torch.stack([(e[0] + e[2]) / 2, (e[1] + f[1]) / 2, f[0]])
    torch.testing.assert_close(method.prototypes["view"], old)

    third = batch_of(method.problem, labels=[0, 1], seed=2)
    method.begin_epoch(1, epoch_of([third]))
    g = embeddings(method, third)["view"]
    # Class 2 has no sample now, so it keeps its prototype.
    blend = torch.stack([0.75 * g[0] + 0.25 * old[0], 0.75 * g[1] + 0.25 * old[1], old[2]])
    torch.testing.assert_close(method.prototypes["view"], blend)


def test_prototypes_are_made_in_eval_mode_and_training_goes_on_in_its_own(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
    epoch_of: Make,
) -> None:
    method = method_of("pmr", problem_of(TWO))
    before = {k: v.clone() for k, v in method.weights().items()}
    method.begin_epoch(0, epoch_of([batch_of(method.problem)]))
    assert method.network.training
    assert all(v.equal(before[k]) for k, v in method.weights().items())


class Recording:
    """An epoch that tells what was asked of it."""

    def __init__(self, training: list[Batch], validation: list[Batch] | None = None) -> None:
        self.training, self.parts = training, validation or []
        self.given, self.asked = 0, list[str]()

    def __len__(self) -> int:
        return len(self.training)

    def shuffled(
        self, stream: str, *, augmented: bool = False, count: int | None = None
    ) -> Iterator[Batch]:
        self.asked.append(f"augmented {stream}" if augmented else stream)
        return self._give(self.training[:count])

    def validation_batches(self) -> int:
        return len(self.parts)

    def validation(self, count: int | None = None) -> Iterator[Batch]:
        self.asked.append("validation")
        return self._give(self.parts[:count])

    def _give(self, batches: list[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.given += 1
            yield batch


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize(("factor", "used"), [(0.01, 1), (0.1, 1), (0.3, 3), (0.31, 4), (1.0, 10)])
def test_prototypes_come_from_a_share_of_the_parts_batches(
    method_of: Make, problem_of: Make, batch_of: Make, factor: float, used: int, part: str
) -> None:
    method = method_of("pmr", problem_of(TWO), factor=factor, prototypes_from=part)
    few, ten = ([batch_of(method.problem, seed=seed) for seed in range(count)] for count in (2, 10))
    epoch = Recording(ten, few) if part == "train" else Recording(few, ten)
    method.begin_epoch(0, epoch)
    asked = "prototypes" if part == "train" else "validation"
    assert (epoch.given, epoch.asked) == (used, [asked])


@pytest.mark.parametrize(
    ("transform", "asked"),
    [("evaluation", "prototypes"), ("augmented", "augmented prototypes")],
)
def test_prototypes_come_from_whole_or_augmented_pictures(
    method_of: Make, problem_of: Make, batch_of: Make, transform: str, asked: str
) -> None:
    method = method_of("pmr", problem_of(TWO), prototype_transform=transform)
    epoch = Recording([batch_of(method.problem)])
    method.begin_epoch(0, epoch)
    assert epoch.asked == [asked]


def added_loss(method: Any, batch: Batch, epoch: int) -> tuple[float, list[list[list[float]]]]:
    """What the step's loss adds to CE(z, y), and d of each modality by ``torch.cdist``."""
    before = {name: value.clone() for name, value in method.weights().items()}
    forward = method.network(batch.inputs)
    d = [(-torch.cdist(e, method.prototypes[m])).tolist() for m, e in forward.embeddings.items()]
    plain = cross_entropy(forward.fused, batch.labels).item()
    method.load_weights(before)
    return method.train_step(batch, epoch).loss.item() - plain, d


def softmax(row: list[float]) -> list[float]:
    return [exp(x) / sum(map(exp, row)) for x in row]


def mean_loss(d: list[list[float]], labels: list[int]) -> float:
    return sum(-log(softmax(row)[y]) for row, y in zip(d, labels, strict=True)) / len(labels)


def score(d: list[list[float]], labels: list[int]) -> float:
    return sum(softmax(row)[y] for row, y in zip(d, labels, strict=True))


def mean_entropy(d: list[list[float]]) -> float:
    return sum(-sum(p * log(p) for p in softmax(row)) for row in d) / len(d)


@pytest.fixture
def started(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
    epoch_of: Make,
) -> Callable[..., tuple[Any, Batch]]:
    """Function (kinds, settings) -> PMR with prototypes of all three classes, and a batch."""

    def start(kinds: dict[str, Any], **settings: Any) -> tuple[Any, Batch]:
        method = method_of("pmr", problem_of(kinds), **settings)
        labels = [0, 1, 2, 2]
        method.begin_epoch(0, epoch_of([batch_of(method.problem, labels=labels, seed=1)]))
        method.train()
        return method, batch_of(method.problem, labels=labels)

    return start


@pytest.mark.parametrize("kinds", [TWO, THREE], ids=["two", "three"])
def test_every_modality_but_the_best_adds_its_prototype_loss(
    started: Callable[..., tuple[Any, Batch]], kinds: dict[str, Any]
) -> None:
    method, batch = started(kinds, alpha=2.5)
    added, d = added_loss(method, batch, epoch=0)
    labels = batch.labels.tolist()
    best = max(range(len(d)), key=lambda m: score(d[m], labels))
    expected = sum(2.5 * mean_loss(d_m, labels) for m, d_m in enumerate(d) if m != best)
    assert added == pytest.approx(expected, rel=1e-4)


def test_nobody_adds_a_loss_where_all_are_equal(
    started: Callable[..., tuple[Any, Batch]],
) -> None:
    method, batch = started({"one": "visual", "two": "visual"}, alpha=2.5)
    one = {k.removeprefix("encoders.one"): v for k, v in method.weights().items() if ".one." in k}
    for name, value in method.weights().items():
        if name.startswith("encoders.two"):
            value.copy_(one[name.removeprefix("encoders.two")])
    method.prototypes["two"] = method.prototypes["one"]
    same = replace(batch, inputs=dict.fromkeys(("one", "two"), batch.inputs["one"]))
    added, _ = added_loss(method, same, epoch=0)
    assert added == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("epoch", "acts"), [(1, False), (2, True), (4, True), (5, False)])
def test_acts_from_its_first_to_its_last_epoch(
    started: Callable[..., tuple[Any, Batch]], epoch: int, acts: bool
) -> None:
    method, batch = started(TWO, start=2, end=4)
    added, _ = added_loss(method, batch, epoch)
    assert (added > 1e-3) == acts


@pytest.mark.parametrize(("epoch", "acts"), [(0, True), (2, True), (3, False)])
def test_entropy_of_the_best_modality_is_rewarded_in_the_first_epochs(
    started: Callable[..., tuple[Any, Batch]], epoch: int, acts: bool
) -> None:
    method, batch = started(TWO, alpha=0, entropy=True, gamma=0.7, entropy_epochs=3)
    added, d = added_loss(method, batch, epoch)
    best = max(d, key=lambda d_m: score(d_m, batch.labels.tolist()))
    expected = -0.7 * mean_entropy(best) if acts else 0.0
    assert added == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_class_without_prototype_is_left_out(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
    epoch_of: Make,
) -> None:
    method = method_of("pmr", problem_of(TWO), alpha=1.0)
    method.begin_epoch(0, epoch_of([batch_of(method.problem, labels=[0, 1, 0], seed=1)]))
    method.train()
    batch = batch_of(method.problem, labels=[0, 1, 2])
    added, d = added_loss(method, batch, epoch=0)
    # Class 2 counts neither as a distance nor as a sample.
    seen = [[row[:2] for row in d_m[:2]] for d_m in d]
    worse = min(seen, key=lambda d_m: score(d_m, [0, 1]))
    assert added == pytest.approx(mean_loss(worse, [0, 1]), rel=1e-4)


def test_prototypes_are_summed_in_full_precision(
    method_of: Make, problem_of: Make, batch_of: Make, epoch_of: Make
) -> None:
    method = method_of("pmr", problem_of(TWO), factor=1.0)
    batches = [batch_of(method.problem, size=64, labels=[0] * 64, seed=seed) for seed in range(4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.begin_epoch(0, epoch_of(batches))
        every = torch.cat([embeddings(method, batch)["view"] for batch in batches])
    torch.testing.assert_close(method.prototypes["view"][0], every.mean(dim=0))
