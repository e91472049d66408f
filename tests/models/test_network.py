from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from amst.config.run import (
    AudioFeatures,
    Modality,
    Recipe,
    SmallCNN,
    SmallTransformer,
    TextFeatures,
)
from amst.loading.batch import TextTokens
from amst.models.network import Network, update_encoders
from amst.models.problem import Problem

INPUTS = {
    "sound": torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
    "words": TextTokens(
        torch.randint(9, (4, 5), generator=torch.Generator().manual_seed(0)),
        torch.ones(4, 5, dtype=torch.bool),
    ),
}
LABELS = torch.tensor([0, 1, 2, 0])


def network_of(dropout: float = 0.5, **options: Any) -> Network:
    sound = Modality(kind="audio", features=AudioFeatures(), encoder=SmallCNN(widths=(4,)))
    settings = SmallTransformer(layers=1, heads=2, width=4, dropout=dropout)
    words = Modality(kind="text", features=TextFeatures(), encoder=settings)
    problem = Problem(
        modalities={"words": words, "sound": sound},
        shapes={"sound": (1, 8, 8), "words": (5,)},
        vocabulary=9,
        classes=3,
        embedding=4,
        recipe=Recipe(learning_rate=0.1),
        seed=options.pop("seed", 3),
    )
    return Network(problem, "late_sum", **options).train()


def test_modalities_are_visited_in_sorted_order() -> None:
    assert list(network_of()(INPUTS).embeddings) == ["sound", "words"]


def test_dropout_depends_on_seed_and_step_and_on_nothing_else() -> None:
    def embed(steps: int = 0, **options: Any) -> torch.Tensor:
        network = network_of(**options)
        network.steps = steps
        # All with the same weights.
        for name, value in network_of().state_dict().items():
            network.state_dict()[name].copy_(value)
        return network(INPUTS).embeddings["words"]

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = embed()
    assert torch.get_rng_state().equal(state), "the global generator is as it was"
    torch.manual_seed(2)
    assert embed().equal(first)
    assert not embed(steps=1).equal(first)
    assert not embed(seed=4).equal(first)
    assert not embed(stream="other").equal(first)


def test_each_training_step_drops_other_numbers() -> None:
    network = network_of()
    assert not network(INPUTS).embeddings["words"].equal(network(INPUTS).embeddings["words"])
    network.eval()
    assert network(INPUTS).embeddings["words"].equal(network(INPUTS).embeddings["words"])
    assert network.steps == 2, "only training counts"


def test_probes_never_touch_the_encoders() -> None:
    network = network_of()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    forward = network(INPUTS)
    network.update_probes(forward, LABELS)
    after = network.state_dict()
    moved = {k for k in before if not after[k].equal(before[k]) and "running" not in k}
    assert moved - {"encoders.sound.layers.1.num_batches_tracked"} == {
        f"probes.{m}.{part}" for m in INPUTS for part in ("weight", "bias")
    }


def test_gradients_of_a_step_are_those_of_its_loss() -> None:
    network = network_of()
    network.update_probes(network(INPUTS), LABELS)
    network.backward(cross_entropy(network(INPUTS).fused, LABELS))
    found = {name for name, each in network.named_parameters() if each.grad is not None}
    assert found == {k for k, _ in network.named_parameters() if not k.startswith("probes")}


def test_an_encoder_that_is_run_without_gradient_moves_its_statistics_only() -> None:
    network = network_of()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    forward = network(INPUTS, ["words"], without_gradient=["sound"])
    network.update(cross_entropy(forward.fused, LABELS))
    after = network.state_dict()
    moved = {k for k in before if "encoders.sound" in k and not after[k].equal(before[k])}
    assert moved == {
        f"encoders.sound.layers.1.{part}"
        for part in ("running_mean", "running_var", "num_batches_tracked")
    }


@pytest.mark.parametrize("names", [["sound", "words"], ["words"]])
def test_encoders_that_wait_are_updated_as_those_that_do_not(names: list[str]) -> None:
    at_once, waiting = network_of(), network_of()
    for _ in range(3):
        forward = at_once(INPUTS)
        for _, logits in at_once.logits_in_turn(forward, names):
            at_once.update(cross_entropy(logits, LABELS))
        forward = waiting(INPUTS)
        before = {k: v.clone() for k, v in waiting.state_dict().items()}
        for name, logits in waiting.logits_in_turn(forward, names):
            waiting.backward_head(cross_entropy(logits, LABELS), forward)
            assert not any(each.grad is not None for each in waiting.encoder(name).parameters())
            waiting.step()
        changed = {k for k, v in waiting.state_dict().items() if not v.equal(before[k])}
        assert changed
        assert all(each.startswith("head") for each in changed)
        update_encoders({waiting: forward})
        for name, value in at_once.state_dict().items():
            assert value.equal(waiting.state_dict()[name]), name


def test_encoders_of_several_networks_are_updated_together() -> None:
    alone, both = [[network_of(stream=name) for name in "ab"] for _ in range(2)]
    for network in alone:
        fused = network(INPUTS, ["words"], without_gradient=["sound"]).fused
        network.update(cross_entropy(fused, LABELS))
    started = [network.start(INPUTS, ["words"], ["sound"]) for network in both]
    passes = {n: n.finish(each) for n, each in zip(both, started, strict=True)}
    for network, forward in passes.items():
        network.backward_head(cross_entropy(forward.fused, LABELS), forward)
        network.step()
    update_encoders(passes)
    for one, other in zip(alone, both, strict=True):
        for name, value in one.state_dict().items():
            assert value.equal(other.state_dict()[name]), name


def test_losses_that_reach_one_encoder_are_summed_for_it() -> None:
    network, waiting = network_of(), network_of()
    forward = network(INPUTS)
    losses = [cross_entropy(forward.fused, LABELS), forward.logits["words"].square().sum()]
    network.backward(torch.stack(losses).sum())
    forward = waiting(INPUTS)
    waiting.backward_head(forward.logits["words"].square().sum(), forward)
    again = {name: waiting.logits(name, e) for name, e in forward.embeddings.items()}
    waiting.backward_head(cross_entropy(waiting.head.fuse(again), LABELS), forward)
    update_encoders({waiting: forward})
    for name in INPUTS:
        expected = [each.grad for each in network.encoder(name).parameters()]
        for ours, theirs in zip(waiting.encoder(name).parameters(), expected, strict=True):
            assert ours.grad is not None
            torch.testing.assert_close(ours.grad, theirs)


def test_a_frozen_encoder_leaves_the_head_to_train() -> None:
    network = network_of()
    network.encoders.requires_grad_(False)
    forward = network(INPUTS)
    weights = [each.clone() for each in network.head.parameters()]
    network.backward_head(cross_entropy(forward.fused, LABELS), forward)
    network.step()
    update_encoders({network: forward})
    assert not forward.gradients
    assert not any(a.equal(b) for a, b in zip(network.head.parameters(), weights, strict=True))


def test_a_part_without_gradient_is_not_updated() -> None:
    network = network_of()
    network.update(cross_entropy(network(INPUTS).fused, LABELS))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.update(cross_entropy(network(INPUTS, ["words"]).fused, LABELS))
    after = network.state_dict()
    resting = [k for k in before if "sound" in k]
    assert resting
    assert all(after[k].equal(before[k]) for k in resting)


def test_classifiers_run_in_full_precision_under_autocast() -> None:
    network = network_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        forward = network(INPUTS)
        assert forward.fused is not None
        assert forward.fused.dtype == torch.float32
        assert network.logits("sound", forward.embeddings["sound"]).dtype == torch.float32


def test_an_updated_head_is_seen_at_once_under_autocast() -> None:
    network = network_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        forward = network(INPUTS)
        network.update(cross_entropy(forward.logits["sound"], LABELS))
        again = network.logits("sound", forward.embeddings["sound"])
    assert not again.equal(forward.logits["sound"])


@pytest.mark.parametrize("head", ["late_sum", "concat", "shared_head"])
def test_another_modality_changes_no_initial_weights(
    head: Any, problem_with: Callable[..., Problem]
) -> None:
    few = Network(problem_with("one"), head).state_dict()
    more = Network(problem_with("one", "two"), head).state_dict()
    assert all(value.equal(more[name]) for name, value in few.items())


@pytest.mark.parametrize("others", [{"stream": "other"}, {"seed": 4}])
def test_networks_of_another_stream_or_seed_start_with_other_weights(
    others: dict[str, Any],
) -> None:
    one, other = network_of(), network_of(**others)
    drawn = {name for name, weight in one.named_parameters() if weight.dim() > 1}
    assert {name.split(".")[0] for name in drawn} == {"encoders", "head", "probes"}
    theirs = dict(other.named_parameters())
    assert not [name for name in drawn if one.get_parameter(name).equal(theirs[name])]


@pytest.fixture
def problem_with() -> Callable[..., Problem]:
    def make(*names: str) -> Problem:
        sound = Modality(kind="audio", features=AudioFeatures(), encoder=SmallCNN(widths=(4,)))
        return Problem(
            modalities=dict.fromkeys(names, sound),
            shapes=dict.fromkeys(names, (1, 8, 8)),
            vocabulary=None,
            classes=3,
            embedding=4,
            recipe=Recipe(),
            seed=0,
        )

    return make
