import pytest
import torch
from torch import nn

from amst.models.heads import HEADS, ByModality, Concat, LateSum, SharedHead

NAMES = ("a", "b", "c")


@pytest.fixture
def embeddings() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(4, 5, generator=draw) for name in NAMES}


def fused(head: nn.Module, embeddings: dict[str, torch.Tensor]) -> torch.Tensor:
    return head.fuse({name: head.logits(name, e) for name, e in embeddings.items()})


def test_concat_is_a_linear_layer_on_the_concatenated_embeddings(
    embeddings: dict[str, torch.Tensor],
) -> None:
    head = Concat(NAMES, 5, 3)
    nn.init.normal_(head.bias)
    weight = torch.cat([head.classifiers[name].weight for name in NAMES], dim=1)
    whole = torch.cat(list(embeddings.values()), dim=1) @ weight.T + head.bias
    torch.testing.assert_close(fused(head, embeddings), whole)


def test_concat_shares_the_bias_among_all_modalities_present_or_not(
    embeddings: dict[str, torch.Tensor],
) -> None:
    head = Concat(NAMES, 5, 3)
    nn.init.normal_(head.bias)
    z = embeddings["b"] @ head.classifiers["b"].weight.T + head.bias / 3
    torch.testing.assert_close(fused(head, {"b": embeddings["b"]}), z)


def test_late_sum_adds_one_classifier_per_modality(embeddings: dict[str, torch.Tensor]) -> None:
    head = LateSum(NAMES, 5, 3)
    parts = [head.classifiers[name](embeddings[name]) for name in NAMES]
    torch.testing.assert_close(fused(head, embeddings), parts[0] + parts[1] + parts[2])


def test_shared_head_averages_one_classifier(embeddings: dict[str, torch.Tensor]) -> None:
    head = SharedHead(NAMES, 5, 3)
    two = {name: embeddings[name] for name in ("a", "c")}
    mean = (head.classifier(two["a"]) + head.classifier(two["c"])) / 2
    torch.testing.assert_close(fused(head, two), mean)


@pytest.mark.parametrize("name", HEADS)
def test_one_modality_alone_is_fused_to_its_own_logits(
    name: str, embeddings: dict[str, torch.Tensor]
) -> None:
    head = HEADS[name](NAMES, 5, 3)
    torch.testing.assert_close(
        fused(head, {"a": embeddings["a"]}), head.logits("a", embeddings["a"])
    )


def test_modalities_may_have_any_name() -> None:
    names = ["keys", "a.b", "training", "forward", "ein Bild"]
    parts = ByModality({name: nn.Linear(1, 1) for name in names})
    assert list(parts) == names
    assert len(parts.state_dict()) == 2 * len(names)


def test_weights_of_modalities_of_any_name_are_loaded() -> None:
    one, other = (nn.Sequential(LateSum(["a.b", "keys"], 5, 3)) for _ in range(2))
    state = one.state_dict()
    other.load_state_dict(state)
    assert all(value.equal(state[name]) for name, value in other.state_dict().items())
    name = "0.classifiers.a.b.bias"
    with pytest.raises(RuntimeError, match=f'Missing key.*"{name}"'):
        other.load_state_dict({key: value for key, value in state.items() if key != name})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0\.classifiers\.c\.bias"'):
        other.load_state_dict(state | {"0.classifiers.c.bias": state[name]})
