"""Which passes of an encoder are replayed, and that a replay cannot spoil another pass."""

from collections.abc import Iterator
from copy import deepcopy
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from amst.config.run import (
    AudioFeatures,
    Modality,
    Recipe,
    SmallCNN,
    SmallTransformer,
    TextFeatures,
)
from amst.errors import AmstError
from amst.loading.batch import Batch, TextTokens
from amst.methods.amst_full import AmstFull
from amst.models import capture
from amst.models.capture import CapturedPass
from amst.models.encoders import SmallCNNEncoder
from amst.models.network import Network
from amst.models.problem import Problem
from amst.models.replays import check_replays
from amst.training.cost import EncoderUse
from tests.cudagraphs import stand_in

SHAPE = (1, 6, 8)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the batches that were replayed."""
    with stand_in(monkeypatch) as sizes:
        yield sizes


def plain_encoder() -> SmallCNNEncoder:
    torch.manual_seed(0)
    return SmallCNNEncoder(1, (4,), 4).train()


@pytest.fixture
def encoder(replayed: list[int]) -> SmallCNNEncoder:
    """Recorded for batches of three."""
    made = plain_encoder()
    made.capture_training(torch.zeros(3, *SHAPE))
    return made


def embed(encoder: SmallCNNEncoder, inputs: Tensor) -> Tensor:
    return encoder.join(encoder.start(inputs))


def assert_alike(ours: SmallCNNEncoder, theirs: SmallCNNEncoder) -> None:
    """Equal gradients, weights and statistics."""
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        assert torch.equal(mine.grad, other.grad)
    state = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_passes_like_the_recorded_one_are_replayed(
    encoder: SmallCNNEncoder, replayed: list[int]
) -> None:
    plain = plain_encoder()
    for inputs in torch.randn(2, 3, *SHAPE):
        for each in (encoder, plain):
            each.zero_grad()
            embed(each, inputs).square().sum().backward()
        assert_alike(encoder, plain)
    assert replayed == [3, 3]


def test_other_passes_are_not(
    encoder: SmallCNNEncoder, replayed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = torch.randn(3, *SHAPE)
    embed(encoder, full[:2])
    embed(encoder, full[:, :, :4])
    wanted = full.clone().requires_grad_()
    embed(encoder, wanted).sum().backward()
    assert wanted.grad is not None
    with torch.no_grad():
        embed(encoder, full)
    with monkeypatch.context() as autocast:
        autocast.setattr(capture, "_half", lambda: torch.bfloat16)
        embed(encoder, full)
    encoder(full)
    encoder.layers[1].eval()
    embed(encoder, full)
    encoder.eval()
    embed(encoder, full)
    encoder.train().requires_grad_(False)
    assert not embed(encoder, full).requires_grad
    encoder.double().requires_grad_(True)
    embed(encoder, full.double())
    assert not replayed
    encoder.float()
    embed(encoder, full)
    assert replayed == [3], "all is as it was"


def test_none_is_replayed_while_an_earlier_one_may_go_backward(
    encoder: SmallCNNEncoder, replayed: list[int]
) -> None:
    """Two views of a batch in one step, say."""
    inputs, plain = torch.randn(3, *SHAPE), plain_encoder()
    for each in (encoder, plain):
        loss = (embed(each, inputs) * embed(each, inputs + 1)).sum()
        loss.backward()
    assert replayed == [3], "the first one"
    assert_alike(encoder, plain)
    embed(encoder, inputs)
    assert replayed == [3, 3]


def test_gradients_may_be_accumulated(encoder: SmallCNNEncoder, replayed: list[int]) -> None:
    plain = plain_encoder()
    for inputs in torch.randn(3, 3, *SHAPE):
        for each in (encoder, plain):
            embed(each, inputs).square().sum().backward()
    assert replayed == [3, 3, 3]
    assert_alike(encoder, plain)


def test_gradients_outlive_the_next_replay_until_a_step_has_used_them(replayed: list[int]) -> None:
    ours, theirs = (Network(problem(), "late_sum").train() for _ in range(2))
    ours.capture_training()
    for _ in range(2):
        batches = [inputs(), inputs()]
        for network in (ours, theirs):
            network.forget_gradients()
            for batch in batches:
                fused = network(batch).fused
                assert fused is not None
                fused.square().sum().backward()
            network.step()
    assert replayed == [3] * 8
    last = {name: weight.grad for name, weight in ours.named_parameters()}
    ours(inputs())
    kept = [name for name, weight in ours.named_parameters() if weight.grad is last[name]]
    assert kept == list(last), "no copy of what nobody needs"
    state = theirs.state_dict()
    for name, value in ours.state_dict().items():
        if "running" not in name and "batches" not in name:
            assert torch.equal(value, state[name]), name


def test_a_second_start_before_the_first_is_finished_is_refused(replayed: list[int]) -> None:
    network = Network(problem(), "late_sum").train()
    network.capture_training()
    started = network.start(inputs())
    with pytest.raises(AmstError, match="starts an encoder twice"):
        network.start(inputs())
    del replayed[:]
    network.encoder("a")(inputs()["a"])
    forward = network.finish(started)
    assert not replayed
    assert all(embedding.isfinite().all() for embedding in forward.embeddings.values())


def test_embeddings_outlive_the_next_replay(encoder: SmallCNNEncoder, replayed: list[int]) -> None:
    first, second = torch.randn(2, 3, *SHAPE)
    kept = embed(encoder, first).detach()
    before = kept.clone()
    embed(encoder, second)
    assert replayed == [3, 3]
    assert torch.equal(kept, before)


def test_going_backward_twice_is_refused(encoder: SmallCNNEncoder) -> None:
    loss = embed(encoder, torch.randn(3, *SHAPE)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(AmstError, match="backward twice") as refusal:
        loss.backward()
    assert "execution.capture: false" in str(refusal.value)


def test_a_hook_that_gives_other_embeddings_is_refused(encoder: SmallCNNEncoder) -> None:
    encoder.register_forward_hook(lambda _module, _inputs, embedding: 2 * embedding)
    with pytest.raises(AmstError, match="a hook of an encoder"):
        embed(encoder, torch.randn(3, *SHAPE))
    assert embed(encoder, torch.randn(2, *SHAPE)).shape == (2, 4), "not replayed"


def test_a_copy_has_a_pass_of_its_own(encoder: SmallCNNEncoder, replayed: list[int]) -> None:
    encoder.compile_training(samples=3)
    inputs, copied = torch.randn(3, *SHAPE), deepcopy(encoder)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.zero_()
    assert not embed(copied, inputs).any()
    assert not replayed
    assert any(weight.any() for weight in encoder.parameters())


def problem() -> Problem:
    text = SmallTransformer(layers=1, heads=2, width=6)
    cnn = SmallCNN(widths=(4,))
    return Problem(
        modalities={
            "b": Modality(kind="text", features=TextFeatures(), encoder=text),
            "a": Modality(kind="audio", features=AudioFeatures(), encoder=cnn),
            "c": Modality(kind="audio", features=AudioFeatures(), encoder=cnn),
        },
        shapes={"a": SHAPE, "b": (5,), "c": SHAPE},
        vocabulary=9,
        classes=3,
        embedding=6,
        recipe=Recipe(batch_size=3),
        seed=0,
    )


def inputs() -> dict[str, Any]:
    ids, sound = torch.randint(9, (3, 5)), torch.randn(2, 3, *SHAPE)
    tokens = TextTokens(ids, torch.ones_like(ids, dtype=torch.bool))
    return {"a": sound[0], "b": tokens, "c": sound[1]}


def test_a_network_replays_all_that_it_can(replayed: list[int]) -> None:
    def network() -> Network:
        return Network(problem(), "late_sum").train()

    frozen, ours, theirs = network(), network(), network()
    frozen.encoders.requires_grad_(False)
    frozen.capture_training()
    assert not frozen.captured
    ours.capture_training()
    assert ours.captured
    assert not theirs.captured
    for step in range(3):
        batch = inputs()
        for each in (ours, theirs):
            forward = each(batch, ["b", "c"] if step == 1 else None)
            assert forward.fused is not None
            each.update(forward.fused.square().sum())
            each.update_probes(forward, torch.tensor([0, 1, 2]))
    assert replayed == [3, 3, 3, 3, 3]
    state = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_those_without_gradient_come_last_and_are_not_waited_for(replayed: list[int]) -> None:
    network = Network(problem(), "late_sum").train()
    network.capture_training()
    happened = []
    for name in network.names:
        network.encoder(name).register_forward_pre_hook(lambda _m, _i, n=name: happened.append(n))
    forward = network(inputs(), ["b", "c"], without_gradient=["a"])
    assert happened == ["c", "a", "b"]
    assert list(forward.embeddings) == ["a", "b", "c"]
    assert replayed == [3]


def test_replays_are_checked_before_a_run_rests_on_them(
    replayed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = [Network(problem(), "late_sum", stream=stream) for stream in ("", "joint")]
    before = [deepcopy(network.state_dict()) for network in networks]
    for network in networks:
        network.capture_training()
    check_replays(networks)
    assert replayed == [3] * 8, "two encoders of two networks, twice"
    for network, state in zip(networks, before, strict=True):
        assert all(weight.grad is None for weight in network.parameters())
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name]), name

    def refused() -> None:
        with pytest.raises(AmstError, match="encoder of 'c' computes other numbers") as refusal:
            check_replays(networks)
        assert "execution.capture: false" in str(refusal.value)

    captured = networks[1].encoder("c")._captured
    assert captured is not None
    replay, (weight, *_) = captured._replay, captured._weights
    statistics = next(captured._encoder.buffers())

    def with_old_statistics(batch: Tensor) -> Any:
        statistics.add_(1)
        return replay(batch)

    for wrong in (with_old_statistics, lambda batch: replay(torch.zeros_like(batch))):
        monkeypatch.setattr(captured, "_replay", wrong)
        refused()
    monkeypatch.setattr(captured, "_replay", replay)
    spoilt = weight.register_hook(lambda g: g + 1 if captured.gradients_wanted else g)
    refused()
    spoilt.remove()
    check_replays(networks)


def test_all_encoders_of_amst_full_run_at_once(
    replayed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for another one, of the other model neither, forward or backward."""
    happened: list[str] = []

    def noted(owner: type, name: str) -> None:
        function = getattr(owner, name)

        def note(*args: Any) -> Any:
            happened.append(name)
            return function(*args)

        static = isinstance(vars(owner)[name], staticmethod)
        monkeypatch.setattr(owner, name, staticmethod(note) if static else note)

    noted(CapturedPass, "__call__")
    noted(CapturedPass, "join")
    noted(capture._Copy, "backward")
    noted(Network, "step")
    ours, theirs = [AmstFull(AmstFull.Settings(skip={"c": 2}), problem()) for _ in range(2)]
    for network in ours.networks.values():
        network.train().capture_training()
    for epoch, captured in enumerate((4, 2)):
        batch = Batch(torch.tensor([0, 1, 2]), inputs(), torch.arange(3))
        theirs.train()
        theirs.train_step(batch, epoch)
        happened.clear()
        ours.train_step(batch, epoch)
        heads = ["step"] * (4 - epoch)  # one of each modality in turn, and the joint one
        passes = [["__call__"] * captured, ["join"] * captured, heads, ["backward"] * captured]
        assert happened == [*chain(*passes), "step", "step"]
    assert replayed == [3] * 6
    for name, value in theirs.weights().items():
        assert torch.equal(value, ours.weights()[name]), name


def test_replays_count_as_passes_of_the_encoder_in_the_cost(replayed: list[int]) -> None:
    method = AmstFull(AmstFull.Settings(skip={"c": 2}), problem())
    for network in method.networks.values():
        network.train().capture_training()
    use = EncoderUse(method, None)
    use.counting = True
    method.train_step(Batch(torch.tensor([0, 1, 2]), inputs(), torch.arange(3)), epoch=1)
    assert replayed == [3, 3]
    trained = {f"{branch}/{m}": 3 for branch in method.networks for m in "ab"}
    assert use.forward == trained
    assert use.backward == trained
