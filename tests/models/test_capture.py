"""Which passes of an encoder are replayed, and that a replay cannot spoil another pass.

What is recorded on a GPU is stood for by the pass itself; that real replays train to the same bits
is among the tests of all methods (tests/methods/test_contract.py).
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amst.errors import AmstError
from amst.models import capture
from amst.models.encoders import SmallCNNEncoder

SHAPE = (1, 6, 8)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the batches that were replayed, by a stand-in for a GPU."""
    sizes: list[int] = []

    def record(encoder: nn.Module, sample: tuple[Tensor]) -> nn.Module:
        plain = encoder.forward
        plain(*sample)  # warms up, which moves statistics

        def replay(inputs: Tensor) -> Tensor:
            sizes.append(len(inputs))
            result: Tensor = plain(inputs)
            return result

        encoder.forward = replay
        return encoder

    stream = SimpleNamespace(wait_stream=lambda _other: None)
    stand_ins: dict[str, Callable[..., Any]] = {
        "make_graphed_callables": record,
        "Stream": lambda _device: stream,
        "current_stream": lambda: stream,
        "stream": lambda _stream: nullcontext(),
    }
    for name, function in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, function)
    yield sizes
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)


def encoder_of() -> SmallCNNEncoder:
    torch.manual_seed(0)
    return SmallCNNEncoder(1, (4,), 4).train()


@pytest.fixture
def encoder(replayed: list[int]) -> SmallCNNEncoder:
    """Recorded for batches of three."""
    made = encoder_of()
    made.capture_training(torch.zeros(3, *SHAPE))
    return made


def embed(encoder: SmallCNNEncoder, inputs: Tensor) -> Tensor:
    return encoder.joined(encoder(inputs))


def test_passes_like_the_recorded_one_are_replayed(
    encoder: SmallCNNEncoder, replayed: list[int]
) -> None:
    inputs, plain = torch.randn(3, *SHAPE), encoder_of()
    for _ in range(2):
        ours, theirs = embed(encoder, inputs), plain(inputs)
        assert torch.equal(ours, theirs)
        for embedding in (ours, theirs):
            embedding.square().sum().backward()
    assert replayed == [3, 3]
    for mine, other in zip(encoder.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)
    theirs = plain.state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, theirs[name]), "recording has left the statistics alone"


def test_other_passes_are_not(
    encoder: SmallCNNEncoder, replayed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = torch.randn(3, *SHAPE)
    embed(encoder, full[:2])
    embed(encoder, full[:, :, :4])
    with torch.no_grad():
        embed(encoder, full)
    with monkeypatch.context() as autocast:
        autocast.setattr(capture, "_half", lambda: torch.bfloat16)
        embed(encoder, full)
    encoder.eval()
    embed(encoder, full)
    encoder.double().train()
    embed(encoder, full.double())
    assert not replayed


def test_none_is_replayed_while_an_earlier_one_may_go_backward(
    encoder: SmallCNNEncoder, replayed: list[int]
) -> None:
    """Two views of a batch in one step, say."""
    inputs, plain = torch.randn(3, *SHAPE), encoder_of()
    for either in (encoder, plain):
        loss = (embed(either, inputs) * embed(either, inputs + 1)).sum()
        loss.backward()
    assert replayed == [3], "the first one"
    for mine, other in zip(encoder.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)
    del loss
    embed(encoder, inputs)
    assert replayed == [3, 3]


def test_embeddings_outlive_the_next_replay(encoder: SmallCNNEncoder) -> None:
    inputs = torch.randn(3, *SHAPE)
    embedding = encoder(inputs)
    ours = encoder.joined(embedding).detach()
    assert torch.equal(ours, embedding)
    assert ours.data_ptr() != embedding.data_ptr()


def test_going_backward_twice_is_refused(encoder: SmallCNNEncoder) -> None:
    loss = embed(encoder, torch.randn(3, *SHAPE)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(AmstError, match="backward twice") as refusal:
        loss.backward()
    assert "execution.capture: false" in str(refusal.value)
