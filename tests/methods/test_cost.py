"""What counts as a pass of an encoder, forward and backward, in the cost of a run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from amst.models.network import Network, update_encoders
from amst.training.cost import EncoderUse

Make = Callable[..., Any]

SIZE = 5


@pytest.fixture
def counted(method_of: Make, problem_of: Make, batch_of: Make) -> Callable[..., dict[str, float]]:
    """Function (step) -> passes backward by modality of a step of a network."""

    def count(step: Callable[[Network, Any], None]) -> dict[str, float]:
        method = method_of("naive", problem_of({"sound": "audio", "words": "text"}))
        use = EncoderUse(method, None)
        use.counting = True
        step(method.network, batch_of(method.problem, size=SIZE))
        assert use.forward == {"/sound": SIZE, "/words": SIZE}
        return {key.removeprefix("/"): n / SIZE for key, n in use.backward.items()}

    return count


def test_each_pass_backward_counts(counted: Make) -> None:
    """As where gradients of several losses are compared before the step."""

    def step(network: Network, batch: Any) -> None:
        forward = network(batch.inputs)
        weights = [p for p in network.encoder("sound").parameters() if p.requires_grad]
        for logits in (forward.fused, forward.logits["sound"]):
            loss = cross_entropy(logits, batch.labels)
            torch.autograd.grad(loss, weights, retain_graph=True)
        network.update(cross_entropy(forward.fused, batch.labels))

    assert counted(step) == {"sound": 3, "words": 1}


def test_a_graph_that_no_loss_goes_through_costs_nothing(counted: Make) -> None:
    def step(network: Network, batch: Any) -> None:
        forward = network(batch.inputs)
        network.update(cross_entropy(forward.logits["sound"], batch.labels))
        network.update_probes(forward, batch.labels)

    assert counted(step) == {"sound": 1}


def test_a_gradient_of_the_embedding_alone_is_no_pass_of_the_encoder(counted: Make) -> None:
    def step(network: Network, batch: Any) -> None:
        forward = network(batch.inputs)
        for _, logits in network.logits_in_turn(forward, network.names):
            network.backward_head(cross_entropy(logits, batch.labels), forward)
            network.step()
        update_encoders({network: forward})

    assert counted(step) == {"sound": 1, "words": 1}
