import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from amst.errors import AmstError
from amst.methods.mla import HeadProjection, entropy_weights

Make = Callable[..., Any]

KINDS = {"sound": "audio", "view": "visual", "words": "text"}


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_each_modality_meets_the_head_that_the_one_before_has_updated(
    method_of: Make, problem_of: Make, batch_of: Make
) -> None:
    method = method_of("mla", problem_of({"sound": "audio", "view": "visual"}))
    batch = batch_of(method.problem)
    encoders = copy.deepcopy(method.network.encoders)
    head = copy.deepcopy(method.classifier)
    everything = [*encoders.parameters(), *head.parameters()]
    sgd = torch.optim.SGD(everything, lr=0.05, momentum=0.9, weight_decay=1e-4)
    for _ in range(2):
        embeddings = {name: encoders[name](batch.inputs[name]) for name in ("sound", "view")}
        for embedding in embeddings.values():
            sgd.zero_grad()
            cross_entropy(head(embedding), batch.labels).backward()
            sgd.step()
        method.train_step(batch, 0)
    ours = [*method.network.encoders.parameters(), *method.classifier.parameters()]
    for mine, its in zip(ours, everything, strict=True):
        torch.testing.assert_close(mine, its)


def test_the_gate_prefers_the_modality_with_less_entropy() -> None:
    certain, even = [0.0, -1000.0], [0.0, 0.0]
    weights = entropy_weights(torch.tensor([[certain, even], [even, even]]))
    # Entropies 0 and ln 2: exp(ln 2 - 0) to exp(0).
    torch.testing.assert_close(weights, torch.tensor([[2 / 3, 1 / 2], [1 / 3, 1 / 2]]))


@pytest.fixture
def predictions(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> Callable[..., dict[str, Tensor]]:
    def of(modalities: list[str] | None = None, **settings: Any) -> dict[str, Tensor]:
        method = method_of("mla", problem_of(KINDS), **settings)
        method.eval()
        with torch.no_grad():
            return method.predict(batch_of(method.problem), modalities)

    return of


def test_equal_is_the_mean_of_what_is_present(
    predictions: Callable[..., dict[str, Tensor]],
) -> None:
    named = predictions(["sound", "words"])
    mean = (named["modality/sound"] + named["modality/words"]) / 2
    torch.testing.assert_close(named["equal"], mean)


def test_fixed_weights_are_renormalised_over_what_is_present(
    predictions: Callable[..., dict[str, Tensor]],
) -> None:
    published = {"words": 0.4, "view": 0.25, "sound": 0.35}
    named = predictions(weights=published)
    whole = sum(w * named[f"modality/{m}"] for m, w in published.items())
    torch.testing.assert_close(named["weights"], whole)
    named = predictions(["sound", "words"], weights=published)
    rest = (0.35 * named["modality/sound"] + 0.4 * named["modality/words"]) / 0.75
    torch.testing.assert_close(named["weights"], rest)


@pytest.mark.parametrize("source", ["logits", "embeddings"])
def test_the_gate_reads_logits_or_embeddings(
    source: str,
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    method = method_of("mla", problem_of(KINDS), entropy_of=source)
    method.eval()
    batch = batch_of(method.problem)
    with torch.no_grad():
        forward, named = method.network(batch.inputs), method.predict(batch)
    gates = entropy_weights(torch.stack([*getattr(forward, source).values()]))
    gated = sum(w[:, None] * z for w, z in zip(gates, forward.logits.values(), strict=True))
    torch.testing.assert_close(named["entropy"], gated)


def test_only_a_run_with_weights_has_that_prediction(method_of: Make, problem_of: Make) -> None:
    problem = problem_of({"sound": "audio"})
    assert method_of("mla", problem).fused_predictions == ("entropy", "equal")
    weighted = method_of("mla", problem, weights={"sound": 1.0}, fusion="weights")
    assert weighted.fused_predictions == ("entropy", "equal", "weights")
    assert weighted.main_prediction == "weights"


@pytest.mark.parametrize("settings", [{"weights": {"sound": 0.5}}, {"fusion": "weights"}])
def test_weights_must_name_every_modality(
    settings: dict[str, Any], method_of: Make, problem_of: Make
) -> None:
    with pytest.raises(AmstError, match="weights of mla lack"):
        method_of("mla", problem_of(KINDS), **settings)


def test_weights_name_no_other_modality(method_of: Make, problem_of: Make) -> None:
    with pytest.raises(AmstError, match=r"'smell'.*has: sound, view, words"):
        method_of("mla", problem_of(KINDS), weights=dict.fromkeys([*KINDS, "smell"], 1.0))


def test_the_projection_turns_the_gradient_away_from_the_mean_input() -> None:
    weight = nn.Parameter(torch.zeros(1, 2))
    projection = HeadProjection(weight)
    h = torch.tensor([[3.0, 0.0], [-1.0, 0.0]])  # mean (1, 0)
    weight.grad = torch.tensor([[1.0, 2.0]])
    projection.apply(weight, h, progress=0.0)
    assert weight.grad.tolist() == [[1.0, 2.0]], "the first step of a run changes nothing"
    assert projection.matrix.equal(torch.eye(2))

    projection.apply(weight, h, progress=0.5)
    beta = 0.1**1.5
    p = torch.tensor([1 - 1 / (beta + 1), 1.0])  # diagonal of P before its norm
    p = p / p.norm()
    torch.testing.assert_close(projection.matrix, torch.diag(p))
    torch.testing.assert_close(weight.grad, torch.tensor([[1.0, 2.0]]) * p)
    assert not projection.matrix.requires_grad


def test_every_modality_advances_the_projection_and_has_its_gradient_projected(
    method_of: Make, problem_of: Make, batch_of: Make, epoch_of: Make, float64: None
) -> None:
    problem = problem_of({"sound": "audio", "view": "visual"})
    method = method_of("mla", problem, head_projection=True)
    batches = [batch_of(problem, seed=seed) for seed in range(2)]
    method.begin_epoch(0, epoch_of(batches))
    encoders, head = copy.deepcopy(method.network.encoders), copy.deepcopy(method.classifier)
    everything = [*encoders.parameters(), *head.parameters()]
    sgd = torch.optim.SGD(everything, lr=0.05, momentum=0.9, weight_decay=1e-4)
    p = torch.eye(6)
    for index, batch in enumerate(batches):
        embeddings = {name: encoders[name](batch.inputs[name]) for name in ("sound", "view")}
        for name, e in embeddings.items():
            sgd.zero_grad()
            cross_entropy(head(e), batch.labels).backward()
            if (index, name) != (0, "sound"):  # the first step of the run
                h = e.detach().mean(dim=0)
                q = p @ h
                p = p - torch.outer(q, q) / (0.1 ** (1 + index / 2) + h @ q)
                p = p / p.norm()
                head.weight.grad = head.weight.grad @ p
            sgd.step()
        method.train_step(batch, 0)
    assert (p - p.diag().diag()).abs().max() > 0.01, "h points along no axis"
    torch.testing.assert_close(method.projection.matrix, p)
    ours = [*method.network.encoders.parameters(), *method.classifier.parameters()]
    for mine, its in zip(ours, everything, strict=True):
        torch.testing.assert_close(mine, its)


def test_the_projection_changes_training_from_the_second_step_on(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
    epoch_of: Make,
) -> None:
    problem = problem_of({"sound": "audio"})
    plain, projected = method_of("mla", problem), method_of("mla", problem, head_projection=True)
    batches = [batch_of(problem, seed=seed) for seed in range(2)]
    same = []
    for method in (plain, projected):
        method.begin_epoch(0, epoch_of(batches))
    for batch in batches:
        plain.train_step(batch, 0)
        projected.train_step(batch, 0)
        same.append(plain.classifier.weight.equal(projected.classifier.weight))
    assert same == [True, False]


def test_the_projection_slows_down_as_the_epoch_goes_on(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
    epoch_of: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = method_of("mla", problem_of({"sound": "audio"}), head_projection=True)
    seen: list[float] = []
    monkeypatch.setattr(method.projection, "apply", lambda w, e, progress: seen.append(progress))
    batches = [batch_of(method.problem)] * 4
    for epoch in range(2):
        method.begin_epoch(epoch, epoch_of(batches))
        for batch in batches:
            method.train_step(batch, epoch)
    assert seen == [0, 0.25, 0.5, 0.75] * 2
